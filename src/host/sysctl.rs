//! The switches under /proc/sys that decide what a sandbox may do. It must not set any.

use std::collections::BTreeMap;

use super::read;

/// A switch under /proc/sys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Sysctl {
    /// user.max_user_namespaces: how many user namespaces a user may make from this one. Linux 4.9, namespaces(7).
    /// RHEL 7 came with 0.
    MaxUserNamespaces,
    /// user.max_mnt_namespaces, Linux 4.9.
    MaxMountNamespaces,
    /// user.max_pid_namespaces, Linux 4.9.
    MaxPidNamespaces,
    /// user.max_net_namespaces, Linux 4.9.
    MaxNetworkNamespaces,
    /// user.max_ipc_namespaces, Linux 4.9.
    MaxIpcNamespaces,
    /// user.max_uts_namespaces, Linux 4.9.
    MaxUtsNamespaces,
    /// user.max_cgroup_namespaces, Linux 4.9.
    MaxCgroupNamespaces,
    /// user.max_time_namespaces, Linux 5.6.
    MaxTimeNamespaces,
    /// kernel.unprivileged_userns_clone: a patch of Debian's, Ubuntu's and Arch's; 0 keeps user namespaces for root.
    UnprivilegedUsernsClone,
    /// kernel.apparmor_restrict_unprivileged_userns: Ubuntu's, 1 by default since 23.10. An unprivileged program
    /// without a profile of its own gets no capabilities in the user namespaces that it makes.
    ApparmorRestrictUnprivilegedUserns,
    /// vm.memfd_noexec, of this pid namespace: 2 refuses a memfd that can be executed. Linux 6.3.
    MemfdNoexec,
    /// dev.tty.legacy_tiocsti: 0 refuses to push input into a terminal. Linux 6.2.
    LegacyTiocsti,
    /// kernel.keys.maxkeys: how many keys a user other than root may own. keyrings(7).
    MaxKeys,
    /// kernel.keys.root_maxkeys: how many keys root may own. keyrings(7).
    RootMaxKeys,
    /// fs.mount-max: how many mounts a mount namespace may hold. Linux 4.9.
    MountMax,
}

impl Sysctl {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::MaxUserNamespaces,
        Self::MaxMountNamespaces,
        Self::MaxPidNamespaces,
        Self::MaxNetworkNamespaces,
        Self::MaxIpcNamespaces,
        Self::MaxUtsNamespaces,
        Self::MaxCgroupNamespaces,
        Self::MaxTimeNamespaces,
        Self::UnprivilegedUsernsClone,
        Self::ApparmorRestrictUnprivilegedUserns,
        Self::MemfdNoexec,
        Self::LegacyTiocsti,
        Self::MaxKeys,
        Self::RootMaxKeys,
        Self::MountMax,
    ];

    /// Its name as sysctl(8) takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxUserNamespaces => "user.max_user_namespaces",
            Self::MaxMountNamespaces => "user.max_mnt_namespaces",
            Self::MaxPidNamespaces => "user.max_pid_namespaces",
            Self::MaxNetworkNamespaces => "user.max_net_namespaces",
            Self::MaxIpcNamespaces => "user.max_ipc_namespaces",
            Self::MaxUtsNamespaces => "user.max_uts_namespaces",
            Self::MaxCgroupNamespaces => "user.max_cgroup_namespaces",
            Self::MaxTimeNamespaces => "user.max_time_namespaces",
            Self::UnprivilegedUsernsClone => "kernel.unprivileged_userns_clone",
            Self::ApparmorRestrictUnprivilegedUserns => "kernel.apparmor_restrict_unprivileged_userns",
            Self::MemfdNoexec => "vm.memfd_noexec",
            Self::LegacyTiocsti => "dev.tty.legacy_tiocsti",
            Self::MaxKeys => "kernel.keys.maxkeys",
            Self::RootMaxKeys => "kernel.keys.root_maxkeys",
            Self::MountMax => "fs.mount-max",
        }
    }

    /// Its file.
    #[must_use]
    pub fn path(self) -> String {
        format!("/proc/sys/{}", self.name().replace('.', "/"))
    }
}

/// Reads all of them; one that this kernel lacks, or that may not be read, is left out.
pub(super) fn read_all() -> BTreeMap<Sysctl, u64> {
    Sysctl::ALL.into_iter().filter_map(|sysctl| Some((sysctl, read::number(&sysctl.path())?))).collect()
}
