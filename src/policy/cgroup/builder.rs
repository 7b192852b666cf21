//! The builder's setters for control groups. They never fail, and never touch the host.

use std::path::PathBuf;
use std::time::Duration;

use super::{CpuQuota, CpuSet, DeviceNumber, DeviceRule, GroupLimit, IoMax, OwnGroup};
use crate::policy::{Builder, Wanted};

impl Builder {
    fn group_limit<T>(self, wanted: Wanted<T>, limit: impl FnOnce(T) -> GroupLimit) -> Self {
        let Wanted { value, need } = wanted;
        self.tree_limit(Wanted { value: limit(value), need })
    }

    /// A limit of the whole tree of processes; the last one of its sort counts. The setters below are shorthands.
    ///
    /// One ladder for all: a cgroup v2 group of the caller's own or delegated to it; with the feature `systemd` a group in a
    /// scope that systemd makes; cgroup v1; a limit of each single process (setrlimit(2)). A required limit has to be hard, so
    /// it never comes to the last rung; a preferred one takes what there is, and [`crate::Enforcement::limits`] says what that
    /// was.
    ///
    /// A scope is asked for where the caller has no group to divide, or none that can hold a limit that is required: one for
    /// each calling process, from the machine's manager for root and from the user's for anyone else. A process called
    /// `ringfence-keep` keeps it while the caller lives.
    pub fn tree_limit(mut self, limit: impl Into<Wanted<GroupLimit>>) -> Self {
        self.policy.cgroup.put(limit.into());
        self
    }

    /// Memory of the whole tree, bytes, swap not included: say [`Builder::swap`] too. Preferred and without a group it
    /// becomes the address space of each process (`RLIMIT_AS`). `memory.max`; in cgroup v1 `memory.limit_in_bytes`. The
    /// kernel rounds it down to pages.
    pub fn memory(self, bytes: impl Into<Wanted<u64>>) -> Self {
        self.group_limit(bytes.into(), GroupLimit::Memory)
    }

    /// Memory, bytes, beyond which the tree is slowed down and reclaimed from (`memory.high`). In cgroup v1 only
    /// approximately, by `memory.soft_limit_in_bytes`.
    pub fn memory_high(self, bytes: impl Into<Wanted<u64>>) -> Self {
        self.group_limit(bytes.into(), GroupLimit::MemoryHigh)
    }

    /// Memory, bytes, that is reclaimed only where nothing unprotected is left (`memory.low`, cgroup v2 only).
    pub fn memory_low(self, bytes: impl Into<Wanted<u64>>) -> Self {
        self.group_limit(bytes.into(), GroupLimit::MemoryLow)
    }

    /// Memory, bytes, that is never reclaimed (`memory.min`, cgroup v2 only).
    pub fn memory_min(self, bytes: impl Into<Wanted<u64>>) -> Self {
        self.group_limit(bytes.into(), GroupLimit::MemoryMin)
    }

    /// Swap space, bytes, beside the memory (`memory.swap.max`). cgroup v1 counts both together, so there it needs
    /// [`Builder::memory`] (`memory.memsw.limit_in_bytes`).
    pub fn swap(self, bytes: impl Into<Wanted<u64>>) -> Self {
        self.group_limit(bytes.into(), GroupLimit::Swap)
    }

    /// Where the kernel ends a process of the tree for want of memory, it ends all of them (`memory.oom.group`, since Linux
    /// 4.19, cgroup v2 only).
    pub fn oom_group(self, wanted: impl Into<Wanted<()>>) -> Self {
        self.group_limit(wanted.into(), |()| GroupLimit::OomGroup)
    }

    /// Processes and threads of the whole tree, the sandbox's init among them (`pids.max`). Preferred and without a group it
    /// becomes the number of processes of the program's uid in its user namespace (`RLIMIT_NPROC`).
    pub fn processes(self, count: impl Into<Wanted<u64>>) -> Self {
        self.group_limit(count.into(), GroupLimit::Processes)
    }

    /// CPU time in each period (`cpu.max`; `cpu.cfs_quota_us`).
    pub fn cpu(self, quota: impl Into<Wanted<CpuQuota>>) -> Self {
        self.group_limit(quota.into(), GroupLimit::Cpu)
    }

    /// Share of the CPU, 1 to 10000, default 100 (`cpu.weight`; `cpu.shares`).
    pub fn cpu_weight(self, weight: impl Into<Wanted<u64>>) -> Self {
        self.group_limit(weight.into(), GroupLimit::CpuWeight)
    }

    /// CPU time that may be saved up and used beyond the quota (`cpu.max.burst`; `cpu.cfs_burst_us`; since Linux 5.14). The
    /// kernel takes no more than the quota.
    pub fn cpu_burst(self, burst: impl Into<Wanted<Duration>>) -> Self {
        self.group_limit(burst.into(), GroupLimit::CpuBurst)
    }

    /// CPUs that may be used (`cpuset.cpus`).
    pub fn cpus(self, set: impl Into<Wanted<CpuSet>>) -> Self {
        self.group_limit(set.into(), GroupLimit::Cpus)
    }

    /// Memory nodes that may be used (`cpuset.mems`).
    pub fn mems(self, set: impl Into<Wanted<CpuSet>>) -> Self {
        self.group_limit(set.into(), GroupLimit::Mems)
    }

    /// Speed of one block device (`io.max`; `blkio.throttle.*`, which does not see buffered writes and is approximate for
    /// them).
    pub fn io_max(self, device: DeviceNumber, max: impl Into<Wanted<IoMax>>) -> Self {
        self.group_limit(max.into(), |max| GroupLimit::IoMax(device, max))
    }

    /// Share of block devices, 1 to 10000, default 100 (`io.weight` and `io.bfq.weight`; `blkio.weight` and
    /// `blkio.bfq.weight`; those that the kernel has). A device is divided by it where its scheduler is BFQ, or where the
    /// machine's owner has turned `io.cost.qos` on for it; elsewhere nobody heeds it: then a
    /// preferred weight is [`crate::Strength::Approximate`] with that reason, and a required one is refused.
    pub fn io_weight(self, weight: impl Into<Wanted<u64>>) -> Self {
        self.group_limit(weight.into(), GroupLimit::IoWeight)
    }

    /// Huge pages of `page` bytes each: so many bytes of them (`hugetlb.2MB.max`; `hugetlb.2MB.limit_in_bytes`).
    pub fn hugetlb(self, page: u64, bytes: impl Into<Wanted<u64>>) -> Self {
        self.group_limit(bytes.into(), |limit| GroupLimit::Hugetlb { page, limit })
    }

    /// Devices that may be used, and no others (cgroup v2: a BPF program; cgroup v1: `devices.deny`, `devices.allow`). What
    /// is open already is not affected.
    pub fn devices(self, allowed: impl Into<Wanted<Vec<DeviceRule>>>) -> Self {
        self.group_limit(allowed.into(), GroupLimit::Devices)
    }

    /// Class of the packets sent, for the host's traffic control (`net_cls.classid`, cgroup v1 only).
    pub fn net_class(self, class: impl Into<Wanted<u32>>) -> Self {
        self.group_limit(class.into(), GroupLimit::NetClass)
    }

    /// Priority of the packets sent through `interface` (`net_prio.ifpriomap`, cgroup v1 only).
    pub fn net_priority(self, interface: impl Into<String>, priority: impl Into<Wanted<u32>>) -> Self {
        let interface = interface.into();
        self.group_limit(priority.into(), |priority| GroupLimit::NetPriority { interface, priority })
    }

    /// A group without a limit too: for [`crate::Child::stats`], for freezing, for a kill that is certain without a pid
    /// namespace. Every limit brings a group anyway.
    pub fn own_cgroup(mut self, wanted: impl Into<Wanted<()>>) -> Self {
        self.policy.cgroup.group = Some(wanted.into());
        self
    }

    /// Makes the group below this directory of a mounted cgroup file system, instead of the caller's own group there; once
    /// for each hierarchy. Whoever names it says that the caller may make groups there.
    pub fn cgroup_parent(mut self, directory: impl Into<PathBuf>) -> Self {
        self.policy.cgroup.parents.push(directory.into());
        self
    }

    /// Says that the caller's own cgroup v2 group is the caller's to manage. Where controllers can be enabled in it only when
    /// no process is in it (the kernel's admin-guide/cgroup-v2, "No Internal Process Constraint"), the caller's process, with
    /// all its threads, is moved to a leaf `ringfence-leaf-…` below, and stays there.
    pub fn manage_own_cgroup(mut self) -> Self {
        self.policy.cgroup.own = OwnGroup::Manage;
        self
    }
}
