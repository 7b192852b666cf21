//! From a refusal to its causes. It must not guess: a cause is named only if the host shows it; the errno only says
//! which ones to look for.

use std::path::Path;

use super::Host;
use super::answer::Answer;
use super::features::Features;
use super::kernel::KernelVersion;
use super::mountinfo::MountFlags;
use super::namespace;
use super::proc_view::ProcView;
use super::refusal::Refusal;
use super::refusal::RefusedStep;
use super::refusal::Within;
use super::status::SeccompMode;
use super::sysctl::Sysctl;
use crate::error::Cause;
use crate::error::Powerless;

/// A capability by its number in capabilities(7).
struct Capability(u32, &'static str);

const SETGID: Capability = Capability(6, "CAP_SETGID");
const SETUID: Capability = Capability(7, "CAP_SETUID");
const SETPCAP: Capability = Capability(8, "CAP_SETPCAP");
const SYS_ADMIN: Capability = Capability(21, "CAP_SYS_ADMIN");
const SYS_NICE: Capability = Capability(23, "CAP_SYS_NICE");
const SYS_RESOURCE: Capability = Capability(24, "CAP_SYS_RESOURCE");
const SETFCAP: Capability = Capability(31, "CAP_SETFCAP");

/// Why this host refused that step, the most likely cause first; empty if nothing that it shows explains it.
#[must_use]
pub fn diagnose(host: &Host, refusal: &Refusal) -> Vec<Cause> {
    [of_step(host, refusal), around(host, refusal)].concat()
}

/// The causes that belong to the step itself.
pub(super) fn of_step(host: &Host, refusal: &Refusal) -> Vec<Cause> {
    match refusal.step {
        RefusedStep::Clone { namespaces } => clone(host, refusal, namespaces),
        RefusedStep::IdMap => id_map(host, refusal),
        RefusedStep::IdRange => id_range(host, refusal),
        RefusedStep::Mount => mount(host, refusal),
        RefusedStep::ProcMount => proc_mount(host, refusal),
        RefusedStep::Knob => knob(host, refusal.errno),
        RefusedStep::MemfdExec => memfd(host, refusal),
        RefusedStep::Keyring => keyring(host, refusal),
        RefusedStep::Pidfd => match refusal.errno {
            libc::ENOSYS => missing(host, Features::PIDFD_OPEN),
            _ => Vec::new(),
        },
        RefusedStep::Capabilities => lacking(host, refusal, &SETPCAP),
        RefusedStep::Groups => groups(host, refusal),
        RefusedStep::Ids => [lacking(host, refusal, &SETUID), lacking(host, refusal, &SETGID)].concat(),
        RefusedStep::Limits => lacking(host, refusal, &SYS_RESOURCE),
        RefusedStep::Priority => lacking(host, refusal, &SYS_NICE),
    }
}

/// What can refuse any call: the filters and the container around the caller.
fn around(host: &Host, refusal: &Refusal) -> Vec<Cause> {
    if !matches!(refusal.errno, libc::EPERM | libc::EACCES | libc::ENOSYS) {
        return Vec::new();
    }
    let mut causes: Vec<Cause> = filter(host).into_iter().collect();
    if refusal.errno != libc::ENOSYS && host.security().is_apparmor_confined() {
        let label = host.security().apparmor_label.clone().unwrap_or_default();
        causes.push(Cause::AppArmorProfile { label });
    }
    // AppArmor answers EPERM at some hooks; SELinux always EACCES (but at capability checks, which it gives EPERM).
    if refusal.errno == libc::EACCES && host.security().selinux_enforcing == Answer::Yes {
        causes.push(Cause::SelinuxEnforcing { context: host.security().selinux_context.clone() });
    }
    if let Some(container) = host.container() {
        causes.push(Cause::ContainerRuntime { runtime: container.runtime, seen: container.seen.clone() });
    }
    causes
}

fn clone(host: &Host, refusal: &Refusal, namespaces: u64) -> Vec<Cause> {
    match refusal.errno {
        // EUSERS before Linux 4.9.
        libc::ENOSPC | libc::EUSERS => namespace_limits(host, namespaces),
        libc::EINVAL => missing_kinds(host, namespaces),
        libc::ENOSYS => missing(host, Features::CLONE3),
        libc::EAGAIN => process_limits(host),
        libc::EPERM | libc::EACCES if namespaces & namespace::NEWUSER != 0 => {
            [debian(host), unmapped(host), chrooted(host), restriction(host, Within::FreshUserNamespace)]
                .concat()
        }
        libc::EPERM => lacking(host, refusal, &SYS_ADMIN),
        _ => Vec::new(),
    }
}

/// A limit of 0 is a certain cause. In the initial user namespace hardly anything else gives ENOSPC (pid namespaces 32
/// deep do), so a limit above 0 was reached; further in, an outer limit or the depth is likelier than that the own,
/// ordinarily without bound, is.
fn namespace_limits(host: &Host, namespaces: u64) -> Vec<Cause> {
    let wanted = namespace::KINDS.iter().filter(|kind| namespaces & kind.flag != 0);
    let limits: Vec<(Sysctl, u64)> =
        wanted.filter_map(|kind| Some((kind.limit, host.sysctl(kind.limit)?))).collect();
    let cause = |&(sysctl, value): &(Sysctl, u64)| Cause::NamespaceLimit { sysctl: sysctl.name(), value };
    let off: Vec<Cause> = limits.iter().filter(|(_, value)| *value == 0).map(cause).collect();
    if !off.is_empty() {
        return off;
    }
    let reached = limits.iter().map(cause);
    match (host.in_initial_user_namespace(), limits.first()) {
        (Answer::Yes, _) | (_, None) => reached.collect(),
        (Answer::No | Answer::Unknown, Some(&(sysctl, value))) => {
            let outer = Cause::AncestorLimitOrNesting { sysctl: sysctl.name(), value };
            // Without bound, INT_MAX, is what a fresh user namespace starts with.
            let bounded =
                reached.zip(&limits).filter(|(_, (_, value))| *value < i32::MAX.unsigned_abs().into());
            [outer].into_iter().chain(bounded.map(|(cause, _)| cause)).collect()
        }
    }
}

fn missing_kinds(host: &Host, namespaces: u64) -> Vec<Cause> {
    let absent = namespaces & !host.namespace_flags();
    let kinds = namespace::KINDS.iter().filter(|kind| absent & kind.flag != 0);
    kinds.map(|kind| lacks(host, kind.lacking, kind.since)).collect()
}

/// A filter hides calls from kernels that have them: where the version says that the call is there, the filter is the
/// cause, and is named with whatever else is around the caller.
fn missing(host: &Host, wanted: Features) -> Vec<Cause> {
    // The right to copy mounts is none of the kernel's features.
    let known = host.features() | Features::CLONE_TREES;
    let absent = wanted.difference(known).iter().filter_map(Features::described);
    let is_hidden = |since: &str| {
        is_filtered(host) && KernelVersion::parse(since).is_some_and(|since| since <= host.kernel())
    };
    absent.filter(|(_, since)| !is_hidden(since)).map(|(what, since)| lacks(host, what, since)).collect()
}

/// The sysctl by which the kernel, able to make executable memfds, does not.
fn memfd_noexec(host: &Host) -> Option<Cause> {
    let value = host.sysctl(Sysctl::MemfdNoexec).filter(|value| *value >= 2)?;
    Some(Cause::MemfdNoexec { value })
}

/// Why these features are not there.
pub(super) fn without_features(host: &Host, absent: Features) -> Vec<Cause> {
    let noexec = memfd_noexec(host).filter(|_| absent.contains(Features::EXECUTABLE_MEMFD));
    let rest = if noexec.is_some() { absent.difference(Features::EXECUTABLE_MEMFD) } else { absent };
    let others = missing(host, rest).into_iter().chain(filter(host).filter(|_| !rest.is_empty()));
    let trees = if absent.contains(Features::CLONE_TREES) { without(host, &SYS_ADMIN) } else { Vec::new() };
    noexec.into_iter().chain(trees).chain(others).collect()
}

fn is_filtered(host: &Host) -> bool {
    matches!(host.seccomp_mode(), Some(SeccompMode::Filter | SeccompMode::Strict))
}

fn filter(host: &Host) -> Option<Cause> {
    is_filtered(host).then(|| Cause::SeccompFilterAroundCaller { filters: host.seccomp_filters() })
}

fn lacks(host: &Host, what: &'static str, since: &'static str) -> Cause {
    Cause::KernelLacks { what, since, running: host.kernel().to_string() }
}

fn process_limits(host: &Host) -> Vec<Cause> {
    let limits = host.process_limits();
    let group = limits.cgroup.as_ref().map(|group| Cause::CgroupProcessLimit {
        directory: group.directory.clone(),
        max: group.max,
        current: group.current,
    });
    // kernel/fork.c exempts root and these two capabilities, in the initial user namespace only.
    let exempt = host.in_initial_user_namespace() == Answer::Yes
        && (host.identity().uid.real == 0 || holds(host, &SYS_RESOURCE) || holds(host, &SYS_ADMIN));
    let user = limits.resource_limit.filter(|_| !exempt).map(|limit| Cause::ProcessLimit { limit });
    // The one with less room left is the likelier; how much of RLIMIT_NPROC is used cannot be read.
    let is_close = limits
        .cgroup
        .as_ref()
        .is_some_and(|group| group.current.saturating_mul(10) >= group.max.saturating_mul(9));
    let ordered = if is_close { [group, user] } else { [user, group] };
    ordered.into_iter().flatten().collect()
}

fn debian(host: &Host) -> Vec<Cause> {
    let off = host.sysctl(Sysctl::UnprivilegedUsernsClone) == Some(0) && !is_administrator(host);
    off.then_some(Cause::DebianUserNamespacesOff).into_iter().collect()
}

fn unmapped(host: &Host) -> Vec<Cause> {
    let identity = host.identity();
    let ids =
        [("uid", host.uid_map(), identity.uid.effective), ("gid", host.gid_map(), identity.gid.effective)];
    let unknown = ids.into_iter().filter(|(_, map, id)| map.is_some_and(|map| !map.contains(*id)));
    unknown.map(|(kind, _, id)| Cause::UnmappedCaller { kind, id }).collect()
}

fn chrooted(host: &Host) -> Vec<Cause> {
    (host.chrooted() == Answer::Yes).then_some(Cause::ChrootedCaller).into_iter().collect()
}

/// Ubuntu's restriction takes effect after the clone: it succeeds, and what needs a capability in the new user
/// namespace is refused. Only where the profile `unprivileged_userns` is not loaded is the clone refused too.
fn restriction(host: &Host, within: Within) -> Vec<Cause> {
    let on = host.sysctl(Sysctl::ApparmorRestrictUnprivilegedUserns).is_some_and(|value| value > 0);
    let applies = on && within == Within::FreshUserNamespace && !is_administrator(host);
    let label = host.security().apparmor_label.clone();
    applies.then_some(Cause::AppArmorRestriction { label }).into_iter().collect()
}

fn is_denial(errno: i32) -> bool {
    matches!(errno, libc::EPERM | libc::EACCES)
}

fn id_map(host: &Host, refusal: &Refusal) -> Vec<Cause> {
    if matches!(refusal.errno, libc::ENOENT | libc::EROFS) {
        return unusable_proc(host);
    }
    if !is_denial(refusal.errno) {
        return Vec::new();
    }
    [restriction(host, refusal.within), file_capabilities(host)].concat()
}

/// Since Linux 5.12 whoever maps uid 0 of the parent must have held CAP_SETFCAP there (user_namespaces(7)).
fn file_capabilities(host: &Host) -> Vec<Cause> {
    let maps_root = host.identity().uid.effective == 0 && host.kernel() >= KernelVersion::new(5, 12, 0);
    if maps_root { without(host, &SETFCAP) } else { Vec::new() }
}

fn unusable_proc(host: &Host) -> Vec<Cause> {
    match host.proc_view() {
        ProcView::Absent | ProcView::Unknown => vec![Cause::ProcNotMounted],
        ProcView::Full(_) | ProcView::Masked(_) if proc_is_read_only(host) => vec![Cause::ReadOnlyProc],
        ProcView::Full(_) | ProcView::Masked(_) => Vec::new(),
    }
}

fn proc_is_read_only(host: &Host) -> bool {
    let proc = host.mounts().and_then(|mounts| mounts.at(Path::new("/proc")));
    proc.is_some_and(|entry| entry.is_read_only())
}

fn id_range(host: &Host, refusal: &Refusal) -> Vec<Cause> {
    if !matches!(refusal.errno, libc::EPERM | libc::EACCES | libc::ENOENT) {
        return Vec::new();
    }
    let own = host.subordinate();
    let user = || host.identity().name.clone().unwrap_or_else(|| host.identity().uid.real.to_string());
    let mut causes = Vec::new();
    if own.service.is_none() {
        let files = [("/etc/subuid", own.uids.is_empty()), ("/etc/subgid", own.gids.is_empty())];
        let empty = files.into_iter().filter(|(_, is_empty)| *is_empty);
        causes.extend(empty.map(|(file, _)| Cause::MissingSubordinateIds { file, user: user() }));
    }
    for (name, path) in [("newuidmap", &own.newuidmap), ("newgidmap", &own.newgidmap)] {
        match path {
            None => causes.push(Cause::HelperMissing { name }),
            Some(path) => causes.extend(powerless(host, path)),
        }
    }
    causes.extend(restriction(host, refusal.within));
    // A caller with these capabilities needs neither ranges nor helpers.
    let needed = [without(host, &SETUID), without(host, &SETGID)].concat();
    let causes =
        if host.capabilities().is_some() && needed.is_empty() { file_capabilities(host) } else { causes };
    [single_ids(host), causes].concat()
}

fn single_ids(host: &Host) -> Vec<Cause> {
    let maps = [("uid", host.uid_map()), ("gid", host.gid_map())];
    let single = maps.into_iter().filter(|(_, map)| map.is_some_and(|map| map.count() == 1));
    single.map(|(kind, _)| Cause::SingleIdMap { kind }).collect()
}

fn powerless(host: &Host, path: &Path) -> Option<Cause> {
    let nosuid = || {
        let mount = host.mounts().and_then(|mounts| mounts.holding(path));
        mount.is_some_and(|mount| mount.locked_flags().contains(MountFlags::NO_SUID))
    };
    let reason = match host.no_new_privs() {
        Answer::Yes => Powerless::NoNewPrivs,
        Answer::No | Answer::Unknown if nosuid() => Powerless::NoSuidMount,
        Answer::No | Answer::Unknown => return None,
    };
    Some(Cause::HelperPowerless { path: path.to_owned(), reason })
}

fn mount(host: &Host, refusal: &Refusal) -> Vec<Cause> {
    match refusal.errno {
        libc::EPERM | libc::EACCES => {
            [restriction(host, refusal.within), lacking(host, refusal, &SYS_ADMIN)].concat()
        }
        libc::ENOSYS => missing(host, Features::MOUNT_API | Features::MOUNT_SETATTR),
        libc::ENOSPC => mount_limit(host),
        _ => Vec::new(),
    }
}

/// A new mount namespace starts with a copy of all mounts, and a recursive bind makes a second one.
fn mount_limit(host: &Host) -> Vec<Cause> {
    let seen = host.mounts().map(|mounts| u64::try_from(mounts.entries().len()).unwrap_or(u64::MAX));
    let limit = host.sysctl(Sysctl::MountMax);
    let near = seen.zip(limit).filter(|(seen, limit)| seen.saturating_mul(2) >= *limit);
    near.map(|(mounts, value)| Cause::MountLimit { value, mounts }).into_iter().collect()
}

fn proc_mount(host: &Host, refusal: &Refusal) -> Vec<Cause> {
    if refusal.errno == libc::EINVAL {
        return missing(host, Features::PROC_SUBSET_PID);
    }
    let view = match host.proc_view() {
        // mount_too_revealing() never asks within the initial user namespace.
        _ if !is_denial(refusal.errno) || refusal.within == Within::CallersUserNamespace => Vec::new(),
        ProcView::Masked(mounts) => vec![Cause::MaskedProc { mounts }],
        ProcView::Absent | ProcView::Unknown => vec![Cause::ProcNotMounted],
        ProcView::Full(flags) if flags.contains(MountFlags::READ_ONLY) => vec![Cause::ReadOnlyProc],
        ProcView::Full(_) => Vec::new(),
    };
    [view, mount(host, refusal)].concat()
}

/// What covers /proc, or a part of it, covers settings too.
fn knob(host: &Host, errno: i32) -> Vec<Cause> {
    let hidden = [libc::ENOENT, libc::EROFS].contains(&errno) || is_denial(errno);
    match host.proc_view() {
        _ if !hidden => Vec::new(),
        ProcView::Masked(mounts) => vec![Cause::MaskedProc { mounts }],
        ProcView::Absent => vec![Cause::ProcNotMounted],
        ProcView::Full(flags) if flags.contains(MountFlags::READ_ONLY) => vec![Cause::ReadOnlyProc],
        ProcView::Full(_) | ProcView::Unknown => Vec::new(),
    }
}

fn memfd(host: &Host, refusal: &Refusal) -> Vec<Cause> {
    match refusal.errno {
        libc::EPERM | libc::EACCES => memfd_noexec(host).into_iter().collect(),
        libc::ENOSYS => missing(host, Features::EXECVEAT | Features::EXECUTABLE_MEMFD),
        _ => Vec::new(),
    }
}

fn keyring(host: &Host, refusal: &Refusal) -> Vec<Cause> {
    match refusal.errno {
        libc::EDQUOT => key_quota(host),
        libc::ENOSYS => missing(host, Features::KEYCTL),
        _ => Vec::new(),
    }
}

/// EDQUOT of the key calls means the quota and nothing else; what was in use when the host was probed is told, not
/// judged, for other processes of the user share it.
fn key_quota(host: &Host) -> Vec<Cause> {
    let root = host.identity().uid.real == 0 && host.in_initial_user_namespace() == Answer::Yes;
    let sysctl = if root { Sysctl::RootMaxKeys } else { Sysctl::MaxKeys };
    let used = host.key_usage().map(|usage| (usage.keys, usage.bytes));
    let value = host.sysctl(sysctl).or_else(|| host.key_usage().map(|usage| usage.max_keys));
    value.map(|value| Cause::KeyQuota { sysctl: sysctl.name(), value, used }).into_iter().collect()
}

fn groups(host: &Host, refusal: &Refusal) -> Vec<Cause> {
    let denied = refusal.errno == libc::EPERM
        && refusal.within == Within::CallersUserNamespace
        && host.setgroups_allowed() == Answer::No;
    let denied = denied.then_some(Cause::SetgroupsDenied).into_iter().collect();
    [denied, lacking(host, refusal, &SETGID)].concat()
}

/// The capability that a denied step in the caller's own user namespace takes, if the caller does not hold it.
fn lacking(host: &Host, refusal: &Refusal, needed: &Capability) -> Vec<Cause> {
    let judged = is_denial(refusal.errno) && refusal.within == Within::CallersUserNamespace;
    if judged { without(host, needed) } else { Vec::new() }
}

fn without(host: &Host, needed: &Capability) -> Vec<Cause> {
    let known = host.capabilities().filter(|sets| !sets.has_effective(needed.0));
    known.map(|_| Cause::NoPrivilege { capability: needed.1 }).into_iter().collect()
}

/// What the distributions' switches ask for: CAP_SYS_ADMIN in the initial user namespace; in a nested one it says
/// nothing.
fn is_administrator(host: &Host) -> bool {
    host.in_initial_user_namespace() == Answer::Yes && holds(host, &SYS_ADMIN)
}

fn holds(host: &Host, wanted: &Capability) -> bool {
    host.capabilities().is_some_and(|sets| sets.has_effective(wanted.0))
}
