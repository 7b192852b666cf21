//! Namespaces and the ordered sets of them, after Chromium's `MoveToNewNamespaces`. It must not know which the kernel has.

use std::fmt::{self, Display, Formatter};

use bitflags::bitflags;
use libc::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS,
};

bitflags! {
    /// A set of namespaces, by their clone flags (namespaces(7)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub struct Namespaces: u32 {
        /// Time namespace (`CLONE_NEWTIME`, time_namespaces(7), since Linux 5.6).
        const TIME = 0x80;
        /// Mount namespace (`CLONE_NEWNS`, mount_namespaces(7)).
        const MOUNT = CLONE_NEWNS.cast_unsigned();
        /// Cgroup namespace (`CLONE_NEWCGROUP`, cgroup_namespaces(7), since Linux 4.6).
        const CGROUP = CLONE_NEWCGROUP.cast_unsigned();
        /// UTS namespace: host and domain name (`CLONE_NEWUTS`, uts_namespaces(7)).
        const UTS = CLONE_NEWUTS.cast_unsigned();
        /// IPC namespace: System V IPC and POSIX message queues (`CLONE_NEWIPC`, ipc_namespaces(7)).
        const IPC = CLONE_NEWIPC.cast_unsigned();
        /// User namespace (`CLONE_NEWUSER`, user_namespaces(7)).
        const USER = CLONE_NEWUSER.cast_unsigned();
        /// PID namespace (`CLONE_NEWPID`, pid_namespaces(7)).
        const PID = CLONE_NEWPID.cast_unsigned();
        /// Network namespace (`CLONE_NEWNET`, network_namespaces(7)).
        const NET = CLONE_NEWNET.cast_unsigned();
    }
}

impl Namespaces {
    /// Every namespace except the time namespace, which exists only for its offsets: the default.
    pub const STANDARD: Self = Self::all().difference(Self::TIME);

    /// Each single namespace with its file name below `/proc/PID/ns`.
    pub const NAMES: [(Self, &'static str); 8] = [
        (Self::USER, "user"),
        (Self::MOUNT, "mnt"),
        (Self::PID, "pid"),
        (Self::NET, "net"),
        (Self::IPC, "ipc"),
        (Self::UTS, "uts"),
        (Self::CGROUP, "cgroup"),
        (Self::TIME, "time"),
    ];
}

impl Display for Namespaces {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("{}");
        }
        let mut separator = "{";
        for (flag, name) in Self::NAMES {
            if self.contains(flag) {
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        f.write_str("}")
    }
}

/// Namespace sets, strongest first, and the floor below which nothing runs.
///
/// Each set is tried in turn. An attempt that fails with one of the `fall_through` errnos, at the clone itself or at a
/// later step that shows that the namespaces cannot be used (the id map, the first mount), goes on to the next set; any
/// other failure ends the spawn. Every attempt is in the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceSets {
    /// The sets, strongest first; at least one.
    pub sets: Vec<Namespaces>,
    /// What must be had in any case: a set without all of these is never tried.
    pub floor: Namespaces,
    /// Errnos that go on to the next set. Default: `EINVAL`, `EPERM`, `ENOSPC`, `ENOSYS` and, because of AppArmor's
    /// answer to a mount in a restricted user namespace, `EACCES`.
    pub fall_through: Vec<i32>,
}

impl NamespaceSets {
    /// These sets in this order; the floor is what all of them share.
    pub fn new(sets: impl IntoIterator<Item = Namespaces>) -> Self {
        let sets: Vec<_> = sets.into_iter().collect();
        let floor = sets.iter().copied().reduce(|a, b| a & b).unwrap_or(Namespaces::empty());
        let fall_through = vec![libc::EINVAL, libc::EPERM, libc::ENOSPC, libc::ENOSYS, libc::EACCES];
        Self { sets, floor, fall_through }
    }

    /// Sets the floor.
    #[must_use]
    pub fn floor(mut self, floor: Namespaces) -> Self {
        self.floor = floor;
        self
    }

    /// Replaces the errnos that go on to the next set.
    #[must_use]
    pub fn fall_through(mut self, errnos: impl IntoIterator<Item = i32>) -> Self {
        self.fall_through = errnos.into_iter().collect();
        self
    }
}

impl Default for NamespaceSets {
    /// One set, [`Namespaces::STANDARD`]: no fallback.
    fn default() -> Self {
        Self::new([Namespaces::STANDARD])
    }
}

impl From<Namespaces> for NamespaceSets {
    fn from(set: Namespaces) -> Self {
        Self::new([set])
    }
}

impl<const N: usize> From<[Namespaces; N]> for NamespaceSets {
    fn from(sets: [Namespaces; N]) -> Self {
        Self::new(sets)
    }
}
