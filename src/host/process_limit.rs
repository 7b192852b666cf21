//! What bounds the number of processes and of keys. It must not raise or lower anything.

use std::path::Path;
use std::path::PathBuf;

use nix::sys::resource::RLIM_INFINITY;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;

use super::mountinfo::MountEntry;
use super::mountinfo::MountTable;
use super::read;

/// What bounds the number of processes that the caller can make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ProcessLimits {
    /// The soft RLIMIT_NPROC, for all processes and threads of this user; `None` if there is none. getrlimit(2).
    pub resource_limit: Option<u64>,
    /// The tightest pids.max among the caller's control group and those above it that can be seen.
    pub cgroup: Option<CgroupProcesses>,
}

/// The process limit of a control group, see the kernel's admin-guide/cgroup-v2, "PID".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupProcesses {
    /// The control group's directory.
    pub directory: PathBuf,
    /// pids.max
    pub max: u64,
    /// pids.current at the time of the probe.
    pub current: u64,
}

/// How many keys a user owns and may own, a line of /proc/key-users (keyrings(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyUsage {
    /// Keys that count against the quota.
    pub keys: u64,
    /// How many there may be.
    pub max_keys: u64,
    /// Bytes that count against the quota.
    pub bytes: u64,
    /// How many there may be.
    pub max_bytes: u64,
}

/// Reads the limits on processes; `cgroup` is the text of /proc/self/cgroup.
pub(super) fn processes(cgroup: Option<&str>, mounts: Option<&MountTable>) -> ProcessLimits {
    let limit = getrlimit(Resource::RLIMIT_NPROC).ok().map(|(soft, _)| soft);
    let directory = cgroup.zip(mounts).and_then(|(text, mounts)| directory(text, mounts));
    ProcessLimits {
        resource_limit: limit.filter(|soft| *soft != RLIM_INFINITY),
        cgroup: directory.and_then(|(top, own)| tightest(&top, &own)),
    }
}

/// Finds the control group that counts processes: the directory where its hierarchy is mounted, and its own.
///
/// cgroups(7), "/proc/[pid]/cgroup": a line `0::/path` is of version 2, one such as `8:pids:/path` of version 1.
pub(crate) fn directory(text: &str, mounts: &MountTable) -> Option<(PathBuf, PathBuf)> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_wanted = |mount: &&MountEntry| match controllers {
            "" => mount.filesystem == "cgroup2",
            _ => mount.filesystem == "cgroup" && names_pids(&mount.super_options),
        };
        if !controllers.is_empty() && !names_pids(controllers) {
            return None;
        }
        let mount = mounts.entries().iter().find(is_wanted)?;
        let own = super::cgroup::directory(mount, path)?;
        // The hierarchy of version 2 may be there without the controller, which then counts in version 1.
        if controllers.is_empty() && text.lines().any(is_pids_of_version_1) {
            return None;
        }
        Some((mount.mount_point.clone(), own))
    })
}

fn is_pids_of_version_1(line: &str) -> bool {
    line.split(':').nth(1).is_some_and(names_pids)
}

fn names_pids(list: &str) -> bool {
    list.split(',').any(|word| word == "pids")
}

fn tightest(top: &Path, own: &Path) -> Option<CgroupProcesses> {
    let groups = own.ancestors().take_while(|directory| directory.starts_with(top));
    groups.filter_map(group).min_by_key(|group| group.max.saturating_sub(group.current))
}

fn group(directory: &Path) -> Option<CgroupProcesses> {
    let file = |name| read::number(directory.join(name).to_str()?);
    Some(CgroupProcesses {
        directory: directory.to_owned(),
        max: file("pids.max")?,
        current: file("pids.current")?,
    })
}

/// The line of /proc/key-users for this uid: `uid: usage all/instantiated keys/max bytes/max`.
pub(crate) fn key_usage(text: &str, uid: u32) -> Option<KeyUsage> {
    let line = text.lines().find_map(|line| {
        let (owner, rest) = line.split_once(':')?;
        if owner.trim().parse() == Ok(uid) { Some(rest) } else { None }
    })?;
    let mut words = line.split_ascii_whitespace().skip(2);
    let mut pair = || {
        let (used, max) = words.next()?.split_once('/')?;
        Some((used.parse::<u64>().ok()?, max.parse::<u64>().ok()?))
    };
    let ((keys, max_keys), (bytes, max_bytes)) = (pair()?, pair()?);
    Some(KeyUsage { keys, max_keys, bytes, max_bytes })
}
