//! What this machine can do, probed once and then a plain value. It reads and never writes; nothing here decides what
//! to do about what it finds.

mod answer;
mod by_hand;
mod cause;
mod cgroup;
mod chroot;
mod container;
mod doctor;
mod features;
mod identity;
mod idmap;
mod kernel;
mod mountinfo;
mod namespace;
mod probe;
mod proc_view;
mod process_limit;
mod read;
mod refusal;
mod security;
mod status;
mod subid;
mod sysctl;
mod systemd;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use answer::Answer;
pub use cause::diagnose;
pub(crate) use cgroup::LEAF;
pub use cgroup::{Cgroups, Legacy, Unified, UnifiedGroup};
pub use container::Container;
pub use doctor::Diagnosis;
pub use doctor::Finding;
pub use doctor::doctor;
pub use features::Features;
pub use identity::Identity;
pub use idmap::IdExtent;
pub use idmap::IdMap;
pub use kernel::KernelVersion;
pub use mountinfo::MountEntry;
pub use mountinfo::MountFlags;
pub use mountinfo::MountTable;
pub use mountinfo::Propagation;
pub(crate) use probe::kernel as running_kernel;
pub use proc_view::ProcView;
pub use process_limit::CgroupProcesses;
pub use process_limit::KeyUsage;
pub use process_limit::ProcessLimits;
pub(crate) use process_limit::directory as process_group;
pub(crate) use process_limit::key_usage;
pub use refusal::Refusal;
pub use refusal::RefusedStep;
pub use refusal::Within;
pub use security::Security;
pub use status::CapabilitySets;
pub use status::Ids;
pub use status::SeccompMode;
pub use status::Status;
pub use subid::IdRange;
pub use subid::Subordinate;
pub(crate) use subid::ranges as subordinate_ranges;
pub(crate) use subid::service as subordinate_service;
pub use sysctl::Sysctl;
pub use systemd::{Systemd, SystemdManager};

/// What this machine, and this caller on it, can do.
///
/// [`Host::probe`] looks; after that it is a value that can be compared, printed and made by hand: [`Host::ideal`] and
/// the `with_` methods make "Linux 5.10" or "inside Docker" for a test. What could not be found out is recorded as
/// unknown, never guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    kernel: KernelVersion,
    features: Features,
    namespaces: Option<u64>,
    in_initial_user_namespace: Answer,
    identity: Identity,
    host_root: Answer,
    capabilities: Option<CapabilitySets>,
    last_capability: u32,
    no_new_privs: Answer,
    seccomp_mode: Option<SeccompMode>,
    seccomp_filters: Option<u32>,
    uid_map: Option<IdMap>,
    gid_map: Option<IdMap>,
    setgroups_allowed: Answer,
    subordinate: Subordinate,
    sysctls: BTreeMap<Sysctl, u64>,
    security: Security,
    chrooted: Answer,
    container: Option<Container>,
    mounts: Option<MountTable>,
    process_limits: ProcessLimits,
    key_usage: Option<KeyUsage>,
    landlock_abi: Option<u32>,
    cgroups: Cgroups,
    systemd: Systemd,
}

impl Host {
    /// The kernel's version, for the few things that cannot be probed. uname(2).
    #[must_use]
    pub fn kernel(&self) -> KernelVersion {
        self.kernel
    }

    /// The calls and options that the kernel offers to this caller.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// The kinds of namespace that the kernel has, as CLONE_NEW* bits. Without /proc, where they show, all kinds that
    /// exist are assumed, so that an attempt tells. namespaces(7).
    #[must_use]
    pub fn namespace_flags(&self) -> u64 {
        self.namespaces.unwrap_or(namespace::ALL)
    }

    /// Whether the caller lives in the user namespace that the machine started with.
    #[must_use]
    pub fn in_initial_user_namespace(&self) -> Answer {
        self.in_initial_user_namespace
    }

    /// The caller's ids.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the caller's effective uid is the machine's uid 0, whatever its own user namespace calls it: the owner of
    /// /proc/sys/kernel/core_pattern is, and a map of ids shows one level only.
    #[must_use]
    pub fn is_host_root(&self) -> Answer {
        self.host_root
    }

    /// The caller's capability sets; `None` without /proc.
    #[must_use]
    pub fn capabilities(&self) -> Option<&CapabilitySets> {
        self.capabilities.as_ref()
    }

    /// The number of the last capability that the kernel knows. /proc/sys/kernel/cap_last_cap, Linux 3.2.
    #[must_use]
    pub fn last_capability(&self) -> u32 {
        self.last_capability
    }

    /// Whether no_new_privs is already set on the caller. PR_GET_NO_NEW_PRIVS(2const).
    #[must_use]
    pub fn no_new_privs(&self) -> Answer {
        self.no_new_privs
    }

    /// Whether system calls of the caller are already filtered; `None` if that is unknown. proc_pid_status(5).
    #[must_use]
    pub fn seccomp_mode(&self) -> Option<SeccompMode> {
        self.seccomp_mode
    }

    /// By how many filters; known since Linux 5.9.
    #[must_use]
    pub fn seccomp_filters(&self) -> Option<u32> {
        self.seccomp_filters
    }

    /// The uid map of the caller's user namespace.
    #[must_use]
    pub fn uid_map(&self) -> Option<&IdMap> {
        self.uid_map.as_ref()
    }

    /// The gid map of the caller's user namespace.
    #[must_use]
    pub fn gid_map(&self) -> Option<&IdMap> {
        self.gid_map.as_ref()
    }

    /// Whether the caller's user namespace allows setgroups(2). /proc/self/setgroups, Linux 3.19.
    #[must_use]
    pub fn setgroups_allowed(&self) -> Answer {
        self.setgroups_allowed
    }

    /// The ids that the caller may map beyond its own, and the helpers for it.
    #[must_use]
    pub fn subordinate(&self) -> &Subordinate {
        &self.subordinate
    }

    /// The value of a sysctl; `None` if this kernel lacks it or it cannot be read.
    #[must_use]
    pub fn sysctl(&self, sysctl: Sysctl) -> Option<u64> {
        self.sysctls.get(&sysctl).copied()
    }

    /// The security modules around the caller.
    #[must_use]
    pub fn security(&self) -> &Security {
        &self.security
    }

    /// Whether the caller is in a chroot, as far as that can be told without privilege.
    #[must_use]
    pub fn chrooted(&self) -> Answer {
        self.chrooted
    }

    /// The sign that the caller runs in a container, if there is one.
    #[must_use]
    pub fn container(&self) -> Option<&Container> {
        self.container.as_ref()
    }

    /// The mounts that the caller sees; `None` without /proc.
    #[must_use]
    pub fn mounts(&self) -> Option<&MountTable> {
        self.mounts.as_ref()
    }

    /// How much of /proc the caller sees, which decides whether a user namespace may mount a fresh one.
    #[must_use]
    pub fn proc_view(&self) -> ProcView {
        self.mounts.as_ref().map_or(ProcView::Unknown, proc_view::judge)
    }

    /// What bounds the number of processes.
    #[must_use]
    pub fn process_limits(&self) -> &ProcessLimits {
        &self.process_limits
    }

    /// The version of Landlock that the kernel offers; `None` where it has none, is told to do without it, or where a filter
    /// hides it. landlock_create_ruleset(2), `LANDLOCK_CREATE_RULESET_VERSION`.
    #[must_use]
    pub fn landlock_abi(&self) -> Option<u32> {
        self.landlock_abi
    }

    /// The control groups around the caller. cgroups(7).
    #[must_use]
    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// What systemd can do for the caller, with the feature `systemd`.
    #[must_use]
    pub fn systemd(&self) -> &Systemd {
        &self.systemd
    }

    /// What the caller's user uses of its key quota.
    #[must_use]
    pub fn key_usage(&self) -> Option<KeyUsage> {
        self.key_usage
    }
}
