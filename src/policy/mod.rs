//! What is wanted: plain data and the builder that makes it. It must not do I/O, and must not know the machine it runs on.

mod builder;
mod capability;
mod cgroup;
mod check;
mod clock;
mod identity;
mod landlock;
mod limit;
mod mount;
mod namespace;
mod preset;
mod process;
mod seccomp;
mod wanted;

pub use self::landlock::{AccessFs, AccessNet, AuditLog, Landlock, Scopes};
pub(crate) use self::landlock::{
    Handled, Mirror, PathRule, PortRule, Rights, StandIn, rules as landlock_rules,
};
pub use builder::Builder;
pub use capability::{Capabilities, Capability};
pub(crate) use cgroup::{Cgroup, OwnGroup};
pub use cgroup::{
    CpuQuota, CpuSet, DeviceAccess, DeviceKind, DeviceNumber, DeviceRule, GroupLimit, IoMax, LimitKind,
};
pub(crate) use check::landlock_alone;
pub use clock::{Clocks, Grace};
pub use identity::{IdRange, Identity, Mapping};
pub use limit::{Limit, Resource};
pub use mount::{
    Absence, Access, Bind, Execution, FileItem, Mount, MountKind, ProcMount, ProcRung, Root, Source,
    Submounts, Tmpfs,
};
pub use namespace::{NamespaceSets, Namespaces};
pub use process::{Hardening, Init, Launch, NewPrivileges, Session, Tether, TimeOffsets};
pub use seccomp::{Action, Architecture, Argument, Condition, Filter, Rule, Width};
pub(crate) use seccomp::{LaunchCalls, Test, X32_BIT};
pub use wanted::{Need, Wanted, prefer};

use std::time::Duration;

/// A checked description of a sandbox: data only. Two equal policies compile to equal plans on equal hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub(crate) namespaces: NamespaceSets,
    pub(crate) time_offsets: Option<TimeOffsets>,
    pub(crate) identity: Identity,
    pub(crate) root: Root,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) hostname: Option<Wanted<String>>,
    pub(crate) domain_name: Option<Wanted<String>>,
    pub(crate) loopback: Option<Wanted<()>>,
    pub(crate) capabilities: Capabilities,
    pub(crate) limits: Vec<Limit>,
    pub(crate) clocks: Clocks,
    pub(crate) cgroup: Cgroup,
    pub(crate) hardening: Hardening,
    pub(crate) seccomp: Option<Filter>,
    pub(crate) landlock: Option<Landlock>,
    pub(crate) init: Init,
    pub(crate) launch: Launch,
    pub(crate) setup_timeout: Duration,
}

impl Policy {
    /// The ordered namespace sets, the floor and the errnos that fall through.
    #[must_use]
    pub fn namespaces(&self) -> &NamespaceSets {
        &self.namespaces
    }

    /// The mounts in the order in which they are made.
    #[must_use]
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// The capabilities that the program keeps.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// The Landlock domain, if one is wanted.
    #[must_use]
    pub fn landlock(&self) -> Option<&Landlock> {
        self.landlock.as_ref()
    }

    /// Who the program is, inside and outside.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How long it may run, and how much it may write.
    #[must_use]
    pub fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// The limits of the whole tree of processes.
    #[must_use]
    pub fn tree_limits(&self) -> &[Wanted<GroupLimit>] {
        &self.cgroup.limits
    }

    /// The system-call filter; `None` where every call is allowed.
    #[must_use]
    pub fn seccomp(&self) -> Option<&Filter> {
        self.seccomp.as_ref()
    }
}
