//! The kinds of namespace and where each leaves its traces. It must not make a namespace.

use std::fs;
use std::io;
use std::path::Path;

use super::sysctl::Sysctl;

/// CLONE_NEWTIME, since Linux 5.6.
pub(super) const NEWTIME: u64 = 0x0000_0080;
/// CLONE_NEWNS, since Linux 2.4.19.
pub(super) const NEWNS: u64 = 0x0002_0000;
/// CLONE_NEWCGROUP, since Linux 4.6.
pub(super) const NEWCGROUP: u64 = 0x0200_0000;
/// CLONE_NEWUTS, since Linux 2.6.19.
pub(super) const NEWUTS: u64 = 0x0400_0000;
/// CLONE_NEWIPC, since Linux 2.6.19.
pub(super) const NEWIPC: u64 = 0x0800_0000;
/// CLONE_NEWUSER, usable without privilege since Linux 3.8.
pub(super) const NEWUSER: u64 = 0x1000_0000;
/// CLONE_NEWPID, since Linux 2.6.24.
pub(super) const NEWPID: u64 = 0x2000_0000;
/// CLONE_NEWNET, since Linux 2.6.24.
pub(super) const NEWNET: u64 = 0x4000_0000;

/// One kind of namespace.
#[derive(Debug)]
pub(super) struct Kind {
    /// Its CLONE_NEW* bit.
    pub(super) flag: u64,
    /// What it is called in a sentence.
    pub(super) name: &'static str,
    /// Its link in /proc/PID/ns (namespaces(7)).
    pub(super) link: &'static str,
    /// How many of it this user namespace may hold (namespaces(7), "The /proc/sys/user directory").
    pub(super) limit: Sysctl,
    /// What a kernel that lacks it lacks.
    pub(super) lacking: &'static str,
    /// The Linux version that brought it.
    pub(super) since: &'static str,
}

/// All kinds, the user namespace first because the others rest on it.
pub(super) const KINDS: [Kind; 8] = [
    Kind {
        flag: NEWUSER,
        name: "user",
        link: "user",
        limit: Sysctl::MaxUserNamespaces,
        lacking: "user namespaces (CONFIG_USER_NS)",
        since: "3.8",
    },
    Kind {
        flag: NEWNS,
        name: "mount",
        link: "mnt",
        limit: Sysctl::MaxMountNamespaces,
        lacking: "mount namespaces",
        since: "2.4.19",
    },
    Kind {
        flag: NEWPID,
        name: "pid",
        link: "pid",
        limit: Sysctl::MaxPidNamespaces,
        lacking: "pid namespaces (CONFIG_PID_NS)",
        since: "2.6.24",
    },
    Kind {
        flag: NEWNET,
        name: "network",
        link: "net",
        limit: Sysctl::MaxNetworkNamespaces,
        lacking: "network namespaces (CONFIG_NET_NS)",
        since: "2.6.24",
    },
    Kind {
        flag: NEWIPC,
        name: "ipc",
        link: "ipc",
        limit: Sysctl::MaxIpcNamespaces,
        lacking: "ipc namespaces (CONFIG_IPC_NS)",
        since: "2.6.19",
    },
    Kind {
        flag: NEWUTS,
        name: "uts",
        link: "uts",
        limit: Sysctl::MaxUtsNamespaces,
        lacking: "uts namespaces (CONFIG_UTS_NS)",
        since: "2.6.19",
    },
    Kind {
        flag: NEWCGROUP,
        name: "cgroup",
        link: "cgroup",
        limit: Sysctl::MaxCgroupNamespaces,
        lacking: "cgroup namespaces (CONFIG_CGROUPS)",
        since: "4.6",
    },
    Kind {
        flag: NEWTIME,
        name: "time",
        link: "time",
        limit: Sysctl::MaxTimeNamespaces,
        lacking: "time namespaces (CONFIG_TIME_NS)",
        since: "5.6",
    },
];

/// Every kind there is.
pub(super) const ALL: u64 = NEWUSER | NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS | NEWCGROUP | NEWTIME;

/// The inode of the first user namespace: PROC_USER_INIT_INO, the same on every kernel since 3.8 (include/linux/
/// proc_ns.h) and part of the interface since 6.18 (USER_NS_INIT_INO in nsfs.h).
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

/// The kinds whose link stands in `directory`, which is /proc/thread-self/ns.
pub(super) fn present(directory: &Path) -> Option<u64> {
    fs::read_dir(directory).ok()?;
    // What cannot be looked at now may be there: the clone tells.
    let absent = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
    let seen =
        KINDS.iter().filter(|kind| !fs::symlink_metadata(directory.join(kind.link)).is_err_and(absent));
    Some(seen.fold(0, |flags, kind| flags | kind.flag))
}

/// Whether the target of the link `user` there is the user namespace that the machine started with, above which there are
/// no others.
pub(super) fn is_initial(target: &str) -> bool {
    target == INITIAL_USER_NAMESPACE
}
