//! The one check of a policy: finds every mistake, each with its item. It must not ask the host anything.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use super::Policy;
use super::capability::Capability;
use super::cgroup;
use super::clock;
use super::identity::{IdRange, Mapping};
use super::landlock::{AccessFs, Landlock, StandIn};
use super::mount::{Bind, Hiding, Mount, MountKind, ProcRung, Root, Source};
use super::namespace::Namespaces;
use super::process::{Init, NewPrivileges, Tether};
use crate::error::{Error, Mistake, Result};

/// The kernel's limit on a path with its NUL (limits.h).
const PATH_MAX: usize = 4096;
/// `__NEW_UTS_LEN`.
const HOSTNAME_MAX: usize = 64;
/// `UID_GID_MAP_MAX_EXTENTS` (user_namespaces(7), since Linux 4.15).
const ID_MAP_LINES: usize = 340;
/// More items than this are refused: the table grows with each, and no kernel default lets a sandbox of that size run well.
const MOUNTS_MAX: usize = 1_000;
/// A single inline file; larger ones belong in a bind.
const FILE_MAX: usize = 16 << 20;

pub(super) fn check(policy: &Policy) -> Result<()> {
    let mut mistakes = Vec::new();
    namespaces(policy, &mut mistakes);
    identity(policy, &mut mistakes);
    mounts(policy, &mut mistakes);
    process(policy, &mut mistakes);
    cgroup::check(&policy.cgroup, &mut mistakes);
    seccomp(policy, &mut mistakes);
    landlock(policy, &mut mistakes);
    mistakes.extend(clock::mistakes(policy));
    if mistakes.is_empty() { Ok(()) } else { Err(Error::invalid_policy(mistakes)) }
}

fn seccomp(policy: &Policy, mistakes: &mut Vec<Mistake>) {
    let Some(filter) = &policy.seccomp else { return };
    mistakes.extend(filter.mistakes());
    let gains = policy.hardening.no_new_privs == NewPrivileges::Allowed;
    if gains && !policy.capabilities.contains(Capability::SysAdmin) {
        mistakes.push(Mistake::FilterNeedsNoNewPrivs);
    }
}

fn namespaces(policy: &Policy, mistakes: &mut Vec<Mistake>) {
    let sets = &policy.namespaces;
    if sets.sets.is_empty() {
        mistakes.push(Mistake::NoNamespaceSet);
    }
    for set in &sets.sets {
        if !set.contains(sets.floor) {
            mistakes.push(Mistake::SetBelowFloor { set: set.to_string(), floor: sets.floor.to_string() });
        }
        if policy.time_offsets.is_none() && set.contains(Namespaces::TIME) {
            mistakes.push(Mistake::TimeNamespaceWithoutOffsets);
        }
        if !set.contains(Namespaces::MOUNT) && wants_tree(policy) && !stands_in(policy) {
            mistakes.push(Mistake::TreeWithoutMountNamespace { set: set.to_string() });
        }
    }
    for (name, value) in [("host name", &policy.hostname), ("domain name", &policy.domain_name)] {
        let Some(value) = value.as_ref().map(|wanted| &wanted.value) else { continue };
        if value.len() > HOSTNAME_MAX || value.is_empty() || value.contains('\0') {
            mistakes.push(Mistake::BadName { what: name, value: value.clone(), most: HOSTNAME_MAX });
        }
    }
}

/// Whether Landlock stands in for the mount tree where there is no mount namespace.
fn stands_in(policy: &Policy) -> bool {
    policy.landlock.as_ref().is_some_and(|landlock| landlock.stand_in == StandIn::ForMounts)
}

fn landlock(policy: &Policy, mistakes: &mut Vec<Mistake>) {
    let Some(landlock) = &policy.landlock else { return };
    landlock_alone(landlock, mistakes);
    if stands_in(policy) && !landlock.files.required.contains(AccessFs::known_to(1)) {
        mistakes.push(Mistake::WeakStandIn);
    }
}

/// What is wrong with a domain, whoever enters it.
pub(crate) fn landlock_alone(landlock: &Landlock, mistakes: &mut Vec<Mistake>) {
    if landlock.handles_nothing() {
        mistakes.push(Mistake::EmptyLandlock);
    }
    let count = landlock.paths.len() + landlock.ports.len();
    if count > MOUNTS_MAX {
        mistakes.push(Mistake::TooManyLandlockRules { count, most: MOUNTS_MAX });
        return;
    }
    for rule in &landlock.paths {
        check_path(&rule.path, mistakes);
        if !landlock.files.all().intersects(rule.allow) {
            let (what, rights) = (format!("{:?}", rule.path), rule.allow.to_string());
            mistakes.push(Mistake::LandlockRuleUnhandled { what, rights });
        }
    }
    for rule in landlock.ports.iter().filter(|rule| !landlock.net.all().contains(rule.allow)) {
        let (what, rights) = (format!("TCP port {}", rule.port), rule.allow.to_string());
        mistakes.push(Mistake::LandlockRuleUnhandled { what, rights });
    }
}

fn wants_tree(policy: &Policy) -> bool {
    !policy.mounts.is_empty() || policy.root != Root::default()
}

fn identity(policy: &Policy, mistakes: &mut Vec<Mistake>) {
    let identity = &policy.identity;
    if identity.uid == u32::MAX || identity.gid == u32::MAX {
        mistakes.push(Mistake::InvalidId);
    }
    match &identity.mapping {
        Mapping::Own | Mapping::KeepHostRoot => {
            if !identity.groups.is_empty()
                && policy.namespaces.sets.iter().any(|s| s.contains(Namespaces::USER))
            {
                mistakes.push(Mistake::UnmappedGroups { groups: identity.groups.clone() });
            }
        }
        Mapping::Host { uid, gid } => {
            if *uid == 0 || *gid == 0 {
                mistakes.push(Mistake::HostRootMapped);
            }
        }
        Mapping::Ranges { uids, gids } => {
            ranges("uid", uids, identity.uid, mistakes);
            ranges("gid", gids, identity.gid, mistakes);
            for group in &identity.groups {
                if !covers(gids, *group) {
                    mistakes.push(Mistake::IdNotMapped { what: "group", id: *group });
                }
            }
            // Whether the id inside is the host's id 0: the first of a range that begins there.
            let host_root = |range: &IdRange, id| range.outside == 0 && range.inside == id && range.count > 0;
            if uids.iter().any(|range| host_root(range, identity.uid))
                || gids.iter().any(|range| host_root(range, identity.gid))
            {
                mistakes.push(Mistake::HostRootMapped);
            }
        }
    }
}

fn covers(ranges: &[IdRange], id: u32) -> bool {
    ranges.iter().any(|range| range.inside <= id && id - range.inside < range.count)
}

fn ranges(what: &'static str, list: &[IdRange], own: u32, mistakes: &mut Vec<Mistake>) {
    if list.is_empty() || list.len() > ID_MAP_LINES {
        mistakes.push(Mistake::IdMapLength { what, lines: list.len(), most: ID_MAP_LINES });
    }
    if !covers(list, own) {
        mistakes.push(Mistake::IdNotMapped { what, id: own });
    }
    let ends = |first: u32, count: u32| u64::from(first) + u64::from(count);
    for (index, a) in list.iter().enumerate() {
        let overflow =
            ends(a.inside, a.count) > u64::from(u32::MAX) || ends(a.outside, a.count) > u64::from(u32::MAX);
        let overlap = |first: u32, count: u32, other: u32, other_count: u32| {
            u64::from(first) < ends(other, other_count) && u64::from(other) < ends(first, count)
        };
        let clash = list.iter().skip(index + 1).any(|b| {
            overlap(a.inside, a.count, b.inside, b.count) || overlap(a.outside, a.count, b.outside, b.count)
        });
        if a.count == 0 || overflow || clash {
            mistakes.push(Mistake::IdRange { what, inside: a.inside, outside: a.outside, count: a.count });
        }
    }
}

fn mounts(policy: &Policy, mistakes: &mut Vec<Mistake>) {
    if policy.mounts.len() > MOUNTS_MAX {
        mistakes.push(Mistake::TooManyMounts { count: policy.mounts.len(), most: MOUNTS_MAX });
        return;
    }
    if let Root::Directory { source, .. } = &policy.root {
        check_source(source, mistakes);
    }
    for (index, mount) in policy.mounts.iter().enumerate() {
        let before = mistakes.len();
        check_target(&mount.target, mistakes);
        let sound = mistakes.len() == before;
        match &mount.kind {
            MountKind::Bind(Bind { source, .. }) => check_source(source, mistakes),
            MountKind::Symlink(to) if to.as_os_str().is_empty() || to.as_os_str().as_bytes().contains(&0) => {
                mistakes.push(Mistake::BadPath {
                    path: to.clone(),
                    why: "a symlink's text is empty or holds a NUL",
                });
            }
            MountKind::File(file) if file.contents.len() > FILE_MAX => {
                mistakes.push(Mistake::FileTooLarge { target: mount.target.clone(), most: FILE_MAX });
            }
            MountKind::Proc(proc) if proc.ladder.is_empty() => {
                mistakes.push(Mistake::EmptyProcLadder { target: mount.target.clone() });
            }
            MountKind::Tmpfs(_) | MountKind::File(_) | MountKind::Directory(_) => {}
            MountKind::Symlink(_)
            | MountKind::Device
            | MountKind::Dev
            | MountKind::Proc(_)
            | MountKind::Mask => {}
        }
        if sound {
            hidden(mount, &policy.mounts[..index], mistakes);
        }
    }
}

/// A later item must not replace or bury an earlier one by accident.
fn hidden(mount: &Mount, earlier: &[Mount], mistakes: &mut Vec<Mistake>) {
    if mount.hiding == Hiding::Intended {
        return;
    }
    for other in earlier {
        let directory = |m: &Mount| matches!(m.kind, MountKind::Directory(_));
        if other.target == mount.target && !(directory(other) || directory(mount)) {
            mistakes.push(Mistake::SameTarget { target: mount.target.clone() });
        } else if other.target != mount.target && other.target.starts_with(&mount.target) && !directory(mount)
        {
            mistakes.push(Mistake::Hides { target: mount.target.clone(), hidden: other.target.clone() });
        }
    }
}

fn check_path(path: &Path, mistakes: &mut Vec<Mistake>) {
    let bytes = path.as_os_str().as_bytes();
    let why = if !path.is_absolute() {
        "not absolute"
    } else if bytes.contains(&0) {
        "holds a NUL"
    } else if bytes.len() >= PATH_MAX || path.components().any(|c| c.as_os_str().len() > 255) {
        "longer than the kernel allows"
    } else {
        return;
    };
    mistakes.push(Mistake::BadPath { path: path.to_path_buf(), why });
}

fn check_target(target: &Path, mistakes: &mut Vec<Mistake>) {
    check_path(target, mistakes);
    if target.components().any(|component| component == Component::ParentDir) {
        mistakes.push(Mistake::BadPath { path: target.to_path_buf(), why: "a target must not hold \"..\"" });
    }
    if target == Path::new("/") {
        mistakes.push(Mistake::BadPath {
            path: target.to_path_buf(),
            why: "for \"/\" use root() or root_directory()",
        });
    }
}

fn check_source(source: &Source, mistakes: &mut Vec<Mistake>) {
    if let Source::Path(path) = source {
        check_path(path, mistakes);
    }
}

fn process(policy: &Policy, mistakes: &mut Vec<Mistake>) {
    let hardening = &policy.hardening;
    let range = |what, value: i64, from: i64, to: i64, mistakes: &mut Vec<Mistake>| {
        if !(from..=to).contains(&value) {
            mistakes.push(Mistake::OutOfRange { what, value, from, to });
        }
    };
    range("umask", i64::from(hardening.umask), 0, 0o777, mistakes);
    if let Some(nice) = hardening.nice {
        range("nice", i64::from(nice.value), -20, 19, mistakes);
    }
    if let Some(score) = hardening.oom_score_adj {
        range("oom_score_adj", i64::from(score.value), -1000, 1000, mistakes);
    }
    for limit in &policy.limits {
        if limit.soft > limit.hard {
            mistakes.push(Mistake::SoftAboveHard {
                resource: limit.resource.number().1,
                soft: limit.soft,
                hard: limit.hard,
            });
        }
    }
    if hardening.tether == Tether::UntilDetached && policy.init == Init::Program {
        mistakes.push(Mistake::DetachWithoutInit);
    }
    let mounts_proc = |set: &Namespaces| set.contains(Namespaces::MOUNT) || !stands_in(policy);
    let missing_pid =
        policy.namespaces.sets.iter().any(|set| !set.contains(Namespaces::PID) && mounts_proc(set));
    let fresh_only = |mount: &Mount| {
        let MountKind::Proc(proc) = &mount.kind else { return false };
        !proc.ladder.iter().any(|rung| matches!(rung, ProcRung::HostReadOnly | ProcRung::Absent))
    };
    if missing_pid && policy.mounts.iter().any(|m| m.need == super::Need::Required && fresh_only(m)) {
        mistakes.push(Mistake::ProcWithoutPidNamespace);
    }
    if policy.init == Init::Program && policy.setup_timeout.is_zero() {
        mistakes.push(Mistake::OutOfRange { what: "setup_timeout", value: 0, from: 1, to: i64::MAX });
    }
}
