//! Reads back from the kernel what holds, and refuses to go on where it is less than was required.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use super::brief::Brief;
use super::enforcement::{Enforcement, FilterState, LaunchMethod, Missing, NamespaceState, SupervisorState};
use super::landlock;
use super::source::Found;
use crate::error::{Error, ErrorKind, Object, Result, Step};
use crate::host::{Answer, CapabilitySets, MountTable, SeccompMode, Status};
use crate::machine::layout::{SOURCE_ABSENT, WAITS};
use crate::plan::{ItemKind, Listener, Plan};
use crate::policy::{Access, Init, MountKind, Namespaces, NewPrivileges, Policy, Root, Source};

/// Reads what the kernel says of the confined process `pid`, in the sandbox whose first process is `first`, and compares it
/// with the policy: no more than was asked, and no less.
pub(super) fn read_back(
    plan: &Plan,
    policy: &Policy,
    (first, pid): (i32, i32),
    brief: &Brief,
    sources: &[Found],
) -> Result<Enforcement> {
    let failed = |object: &'static str| Error::new(ErrorKind::Setup, Step::Verify, object);
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .map_err(|error| failed("/proc/PID/status").call("read", error.raw_os_error().unwrap_or(0)))?;
    let status = Status::parse(&text);
    let no_new_privs = match status.no_new_privs {
        Answer::Yes => Some(true),
        Answer::No => Some(false),
        Answer::Unknown => None,
    };
    let filter = filter(plan, brief, &status)?;
    let own = u32::from(matches!(filter, FilterState::Attached { .. }));
    let report = Enforcement {
        attempts: Vec::new(),
        method: LaunchMethod::Image,
        namespaces: namespaces(pid),
        capabilities: status.capabilities,
        no_new_privs,
        host_uid: status.uid.map(|ids| ids.effective),
        host_gid: status.gid.map(|ids| ids.effective),
        groups: status.groups.clone().unwrap_or_default(),
        seccomp_filters: status.seccomp_filters.map(|count| count.saturating_sub(own)),
        filter,
        supervisor: supervisor(plan, policy),
        choices: choices(plan, brief),
        absent: absent(plan, sources),
        missing: missing(plan, brief),
        landlock: plan.landlock.as_ref().and_then(|plan| landlock::read(plan, brief)),
        limits: Vec::new(),
        notes: plan.notes.clone(),
    };
    compare(plan, policy, first, &report)?;
    if plan.set.contains(Namespaces::MOUNT) {
        let table = mounts(pid)?;
        one_root(&table)?;
        read_only(policy, &table)?;
    }
    Ok(report)
}

fn compare(plan: &Plan, policy: &Policy, first: i32, report: &Enforcement) -> Result<()> {
    let wrong = |object: &'static str, seen: String| {
        Err(Error::new(ErrorKind::Setup, Step::Verify, object).detail(seen))
    };
    let keep = policy.capabilities().bits();
    let Some(sets) = report.capabilities else {
        return wrong("capabilities", "the kernel does not show them".into());
    };
    let CapabilitySets { inheritable, permitted, effective, bounding, ambient } = sets;
    for (name, seen) in [
        ("inheritable set", inheritable),
        ("permitted set", permitted),
        ("effective set", effective),
        ("ambient set", ambient),
    ] {
        if seen != keep {
            return wrong(name, format!("{seen:#x}, wanted {keep:#x}"));
        }
    }
    if plan.bounds && bounding != keep {
        return wrong("bounding set", format!("{bounding:#x}, wanted {keep:#x}"));
    }
    if policy.hardening.no_new_privs == NewPrivileges::Never && report.no_new_privs != Some(true) {
        return wrong("no_new_privs", format!("{:?}", report.no_new_privs));
    }
    if let Some((uid, gid)) = plan.ids.chosen(first)
        && (report.host_uid, report.host_gid) != (Some(uid), Some(gid))
    {
        return wrong("ids", format!("{:?}:{:?}, wanted {uid}:{gid}", report.host_uid, report.host_gid));
    }
    for state in &report.namespaces {
        // A time namespace is entered only by the exec or the fork that follows.
        if plan.set.contains(state.kind) && state.kind != Namespaces::TIME && state.shared == Some(true) {
            return wrong("namespaces", format!("{} is the caller's", state.kind));
        }
    }
    Ok(())
}

fn mounts(pid: i32) -> Result<MountTable> {
    let failed = || Error::new(ErrorKind::Setup, Step::Verify, "/proc/PID/mountinfo");
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo"))
        .map_err(|error| failed().call("read", error.raw_os_error().unwrap_or(0)))?;
    let table = MountTable::parse(&text);
    if table.malformed() != 0 {
        return Err(failed().detail("a line of it cannot be read"));
    }
    Ok(table)
}

/// The old root is gone: nothing but the new one is mounted at `/`.
fn one_root(table: &MountTable) -> Result<()> {
    let roots = table.entries().iter().filter(|entry| entry.mount_point == Path::new("/")).count();
    if roots == 1 {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Setup, Step::Verify, "root");
    Err(error.detail(format!("{roots} mounts at \"/\" where there is one")))
}

/// Every mount that came with a read-only bind is read-only: also one that appeared below its source a moment ago. One that
/// no path leads into could not be restricted before Linux 5.12; nothing inside reaches it, or may uncover it.
fn read_only(policy: &Policy, table: &MountTable) -> Result<()> {
    let targets: Vec<(&Path, Option<Access>)> = policy
        .mounts()
        .iter()
        .map(|mount| match mount.kind() {
            MountKind::Bind(bind) => (mount.target(), Some(bind.access)),
            MountKind::Tmpfs(_)
            | MountKind::File(_)
            | MountKind::Directory(_)
            | MountKind::Symlink(_)
            | MountKind::Device
            | MountKind::Dev
            | MountKind::Proc(_)
            | MountKind::Mask => (mount.target(), None),
        })
        .chain(match &policy.root {
            Root::Directory { access, .. } => Some((Path::new("/"), Some(*access))),
            Root::Empty { .. } => None,
        })
        .collect();
    for entry in table.entries() {
        let covering = targets.iter().filter(|(target, _)| entry.mount_point.starts_with(target));
        let nearest = covering.max_by_key(|(target, _)| target.components().count());
        if let Some((target, Some(Access::ReadOnly))) = nearest
            && !entry.is_read_only()
            && !table.is_hidden(entry)
        {
            let error =
                Error::new(ErrorKind::Setup, Step::Verify, Object::SandboxPath(entry.mount_point.clone()));
            return Err(error.detail(format!("it is writable, below the read-only {target:?}")));
        }
    }
    Ok(())
}

fn namespaces(pid: i32) -> Vec<NamespaceState> {
    let inode = |process: &str, name: &str| {
        let text = fs::read_link(format!("/proc/{process}/ns/{name}")).ok()?;
        let text = text.to_str()?.split_once('[')?.1.strip_suffix(']')?.to_owned();
        text.parse::<u64>().ok()
    };
    let process = pid.to_string();
    Namespaces::NAMES
        .iter()
        .map(|(kind, name)| {
            let (theirs, ours) = (inode(&process, name), inode("self", name));
            let shared = theirs.zip(ours).map(|(theirs, ours)| theirs == ours);
            NamespaceState { kind: *kind, inode: theirs, shared }
        })
        .collect()
}

fn choices(plan: &Plan, brief: &Brief) -> Vec<(Object, &'static str)> {
    let ladders = plan.items.iter().filter_map(|item| match &item.kind {
        ItemKind::Ladder(names) => {
            let taken = usize::try_from(brief.map().word(item.outcome)).unwrap_or(0);
            let name = taken.checked_sub(1).and_then(|index| names.get(index)).copied();
            Some((item.object.clone(), name.unwrap_or("not reached")))
        }
        ItemKind::Preferred => None,
    });
    ladders.collect()
}

fn missing(plan: &Plan, brief: &Brief) -> Vec<Missing> {
    let lost = plan.landlock.iter().flat_map(|plan| landlock::missing(&plan.known));
    let gone = |outcome: u32| brief.map().word(outcome + 16) == 1;
    plan.items
        .iter()
        .filter(|item| item.kind == ItemKind::Preferred && gone(item.outcome))
        .map(|item| Missing {
            step: item.step,
            object: item.object.clone(),
            errno: brief.map().half(item.outcome).cast_signed(),
        })
        .chain(lost)
        .collect()
}

fn absent(plan: &Plan, sources: &[Found]) -> Vec<PathBuf> {
    let pairs = plan.sources.iter().zip(sources);
    pairs
        .filter(|(_, found)| found.kind == SOURCE_ABSENT)
        .filter_map(|(source, _)| match &source.source {
            Source::Path(path) => Some(path.clone()),
            Source::Fd(_) => None,
        })
        .collect()
}

/// A child that waits for its command may have its filter already; then the kernel has to say so.
fn filter(plan: &Plan, brief: &Brief, status: &Status) -> Result<FilterState> {
    let Some(filter) = &plan.filter else { return Ok(FilterState::None) };
    let instructions = filter.instructions(Listener::Had);
    if !filter.precedes_command() || brief.map().word(WAITS) == 0 {
        return Ok(FilterState::AtExec { instructions });
    }
    let (mode, count) = (status.seccomp, status.seccomp_filters);
    let more = count.is_none_or(|count| count > around(plan.init).unwrap_or(0));
    if mode == Some(SeccompMode::Filter) && more {
        return Ok(FilterState::Attached { instructions });
    }
    let error = Error::new(ErrorKind::Setup, Step::Verify, "seccomp");
    Err(error.detail(format!("mode {mode:?}, {count:?} filters: the program's is not attached")))
}

/// Filters of the thread that cloned the child, which the child has too. What is its own first process was cloned by another
/// one than this.
fn around(init: Init) -> Option<u32> {
    if init == Init::Program {
        return None;
    }
    Status::parse(&fs::read_to_string("/proc/thread-self/status").ok()?).seccomp_filters
}

/// Who is to stand behind the filter.
fn supervisor(plan: &Plan, policy: &Policy) -> SupervisorState {
    let (Some(attach), Some(filter)) = (&plan.filter, &policy.seccomp) else {
        return SupervisorState::NotNeeded;
    };
    match attach.untold {
        _ if attach.listens() => SupervisorState::AtExec,
        Some(lacks) => SupervisorState::KernelKills { why: format!("the host does not offer {lacks}") },
        None if filter.kills_untold() => SupervisorState::KernelKills { why: "asked for".to_owned() },
        None => SupervisorState::NotNeeded,
    }
}
