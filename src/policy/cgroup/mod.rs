//! Limits of a tree of processes, as the kernel's control groups count them (cgroups(7)). It must not know which of them
//! a host has, nor by which file it takes them.

mod builder;
mod check;
mod cpuset;
mod limit;

pub(super) use check::check;
pub use cpuset::CpuSet;
pub use limit::{CpuQuota, DeviceAccess, DeviceKind, DeviceNumber, DeviceRule, GroupLimit, IoMax, LimitKind};

use std::path::PathBuf;

use super::wanted::{Need, Wanted};

/// Whether the caller may be moved to a group of its own, so that controllers can be enabled above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum OwnGroup {
    /// The caller stays where it is.
    #[default]
    Leave,
    /// The caller's process, with all its threads, may be moved to a leaf below its group.
    Manage,
}

/// What is wanted of control groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cgroup {
    /// At most one of each kind; of `io.max` one for each device, of huge pages one for each size.
    pub(crate) limits: Vec<Wanted<GroupLimit>>,
    /// A group without a limit too: for accounting, freezing, killing.
    pub(crate) group: Option<Wanted<()>>,
    /// Directories below which groups are made; one for each hierarchy.
    pub(crate) parents: Vec<PathBuf>,
    pub(crate) own: OwnGroup,
    /// A group that counts CPU time.
    pub(crate) meter: Option<Need>,
}

impl Cgroup {
    /// Whether there is anything to do.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.limits.is_empty() || self.group.is_some() || self.meter.is_some()
    }

    /// The limit of this sort that stands already.
    pub(crate) fn find(&self, sort: LimitKind) -> Option<&Wanted<GroupLimit>> {
        self.limits.iter().find(|wanted| wanted.value.kind() == sort)
    }

    /// The number of processes.
    pub(crate) fn processes(&self) -> Option<u64> {
        let value = &self.find(LimitKind::Processes)?.value;
        if let GroupLimit::Processes(count) = value { Some(*count) } else { None }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> Option<u64> {
        let value = &self.find(LimitKind::Memory)?.value;
        if let GroupLimit::Memory(bytes) = value { Some(*bytes) } else { None }
    }

    /// Replaces a limit of the same sort.
    pub(crate) fn put(&mut self, wanted: Wanted<GroupLimit>) {
        self.limits.retain(|other| !other.value.replaces(&wanted.value));
        self.limits.push(wanted);
    }
}
