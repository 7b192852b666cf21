//! One limit of a group each: what it bounds, in which unit. It must not know the files that take it.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::cpuset::CpuSet;

/// CPU time that a group may use in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuQuota {
    /// CPU time, summed over all CPUs; 1 ms at least.
    pub quota: Duration,
    /// The period; 1 ms to 1 s.
    pub period: Duration,
}

impl CpuQuota {
    /// So many hundredths of one CPU, in periods of 100 ms: `percent(150)` is one CPU and a half.
    #[must_use]
    pub fn percent(percent: u32) -> Self {
        let quota = Duration::from_millis(u64::from(percent));
        Self { quota, period: Duration::from_millis(100) }
    }
}

/// A device by its number (mknod(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// The driver.
    pub major: u32,
    /// The device of it.
    pub minor: u32,
}

impl Display for DeviceNumber {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// How fast a group may read from and write to one block device; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IoMax {
    /// Bytes read in a second.
    pub read_bytes: Option<u64>,
    /// Bytes written in a second.
    pub write_bytes: Option<u64>,
    /// Read operations in a second.
    pub read_operations: Option<u64>,
    /// Write operations in a second.
    pub write_operations: Option<u64>,
}

/// A sort of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// Character devices.
    Character,
    /// Block devices.
    Block,
}

bitflags::bitflags! {
    /// What may be done with a device.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct DeviceAccess: u8 {
        /// Its node may be made.
        const MAKE = 1;
        /// It may be opened for reading.
        const READ = 2;
        /// It may be opened for writing.
        const WRITE = 4;
    }
}

/// One entry of a list of allowed devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceRule {
    /// Character or block.
    pub kind: DeviceKind,
    /// The driver; `None` is every one.
    pub major: Option<u32>,
    /// The device; `None` is every one.
    pub minor: Option<u32>,
    /// What is allowed.
    pub access: DeviceAccess,
}

impl DeviceRule {
    /// Reading and writing of one character device.
    #[must_use]
    pub fn character(major: u32, minor: u32) -> Self {
        let access = DeviceAccess::READ | DeviceAccess::WRITE;
        Self { kind: DeviceKind::Character, major: Some(major), minor: Some(minor), access }
    }

    /// What a program can expect of `/dev`: null, zero, full, random, urandom, tty, ptmx and pseudoterminals.
    #[must_use]
    pub fn minimal() -> Vec<Self> {
        let numbers = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];
        let mut rules: Vec<Self> =
            numbers.into_iter().map(|(major, minor)| Self::character(major, minor)).collect();
        rules.push(Self { minor: None, ..Self::character(136, 0) });
        rules
    }
}

impl Display for DeviceRule {
    /// As `devices.allow` takes it: `c 1:3 rw`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DeviceKind::Character => 'c',
            DeviceKind::Block => 'b',
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        for (access, letter) in
            [(DeviceAccess::READ, "r"), (DeviceAccess::WRITE, "w"), (DeviceAccess::MAKE, "m")]
        {
            f.write_str(if self.access.contains(access) { letter } else { "" })?;
        }
        Ok(())
    }
}

/// A limit of a whole tree of processes.
///
/// Each setter of [`crate::Builder`] with one of these names makes one. The kernel's documents: admin-guide/cgroup-v2 and
/// admin-guide/cgroup-v1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupLimit {
    /// Memory, bytes: beyond it the kernel ends processes of the group.
    Memory(u64),
    /// Memory, bytes, beyond which the group is slowed down and its memory reclaimed.
    MemoryHigh(u64),
    /// Memory, bytes, that is reclaimed only if nothing unprotected is left.
    MemoryLow(u64),
    /// Memory, bytes, that is never reclaimed. Of this and of [`GroupLimit::MemoryLow`] every group above gives no more than it
    /// has itself: where one has less, it is not hard, and the report names its file.
    MemoryMin(u64),
    /// Swap space, bytes, beside the memory.
    Swap(u64),
    /// Short of memory, the group is ended as one.
    OomGroup,
    /// Processes and threads, the sandbox's init included.
    Processes(u64),
    /// CPU time.
    Cpu(CpuQuota),
    /// Share of the CPU where others want it too, 1 to 10000; 100 is everyone's default.
    CpuWeight(u64),
    /// CPU time saved up that may be used beyond the quota.
    CpuBurst(Duration),
    /// CPUs that may be used.
    Cpus(CpuSet),
    /// Memory nodes that may be used.
    Mems(CpuSet),
    /// Speed of a block device.
    IoMax(DeviceNumber, IoMax),
    /// Share of block devices where others want them too, 1 to 10000; 100 is everyone's default.
    IoWeight(u64),
    /// Huge pages of one size.
    Hugetlb {
        /// Size of a page, bytes.
        page: u64,
        /// Bytes of such pages.
        limit: u64,
    },
    /// Devices that may be used; every other is refused.
    Devices(Vec<DeviceRule>),
    /// Class of the packets sent, for the traffic control of the host (cgroup v1, `net_cls`).
    NetClass(u32),
    /// Priority of the packets sent through an interface (cgroup v1, `net_prio`).
    NetPriority {
        /// The interface, as the caller's network namespace names it.
        interface: String,
        /// The priority.
        priority: u32,
    },
}

/// A sort of [`GroupLimit`], without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the variant of GroupLimit with the same name")]
pub enum LimitKind {
    Memory,
    MemoryHigh,
    MemoryLow,
    MemoryMin,
    Swap,
    OomGroup,
    Processes,
    Cpu,
    CpuWeight,
    CpuBurst,
    Cpus,
    Mems,
    IoMax,
    IoWeight,
    Hugetlb,
    Devices,
    NetClass,
    NetPriority,
}

impl GroupLimit {
    /// Which sort it is.
    #[must_use]
    pub fn kind(&self) -> LimitKind {
        match self {
            Self::Memory(_) => LimitKind::Memory,
            Self::MemoryHigh(_) => LimitKind::MemoryHigh,
            Self::MemoryLow(_) => LimitKind::MemoryLow,
            Self::MemoryMin(_) => LimitKind::MemoryMin,
            Self::Swap(_) => LimitKind::Swap,
            Self::OomGroup => LimitKind::OomGroup,
            Self::Processes(_) => LimitKind::Processes,
            Self::Cpu(_) => LimitKind::Cpu,
            Self::CpuWeight(_) => LimitKind::CpuWeight,
            Self::CpuBurst(_) => LimitKind::CpuBurst,
            Self::Cpus(_) => LimitKind::Cpus,
            Self::Mems(_) => LimitKind::Mems,
            Self::IoMax(..) => LimitKind::IoMax,
            Self::IoWeight(_) => LimitKind::IoWeight,
            Self::Hugetlb { .. } => LimitKind::Hugetlb,
            Self::Devices(_) => LimitKind::Devices,
            Self::NetClass(_) => LimitKind::NetClass,
            Self::NetPriority { .. } => LimitKind::NetPriority,
        }
    }

    /// Whether this limit takes the place of the other one.
    pub(crate) fn replaces(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::IoMax(one, _), Self::IoMax(two, _)) => one == two,
            (Self::Hugetlb { page: one, .. }, Self::Hugetlb { page: two, .. }) => one == two,
            (Self::NetPriority { interface: one, .. }, Self::NetPriority { interface: two, .. }) => {
                one == two
            }
            _ => self.kind() == other.kind(),
        }
    }
}

impl Display for GroupLimit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(bytes) => write!(f, "memory={bytes}"),
            Self::MemoryHigh(bytes) => write!(f, "memory_high={bytes}"),
            Self::MemoryLow(bytes) => write!(f, "memory_low={bytes}"),
            Self::MemoryMin(bytes) => write!(f, "memory_min={bytes}"),
            Self::Swap(bytes) => write!(f, "swap={bytes}"),
            Self::OomGroup => f.write_str("oom_group"),
            Self::Processes(count) => write!(f, "processes={count}"),
            Self::Cpu(CpuQuota { quota, period }) => write!(f, "cpu={quota:?} in {period:?}"),
            Self::CpuWeight(weight) => write!(f, "cpu_weight={weight}"),
            Self::CpuBurst(burst) => write!(f, "cpu_burst={burst:?}"),
            Self::Cpus(set) => write!(f, "cpus={set}"),
            Self::Mems(set) => write!(f, "mems={set}"),
            Self::IoMax(device, max) => {
                write!(f, "io_max={device}")?;
                for (name, value) in [
                    ("rbps", max.read_bytes),
                    ("wbps", max.write_bytes),
                    ("riops", max.read_operations),
                    ("wiops", max.write_operations),
                ] {
                    if let Some(value) = value {
                        write!(f, " {name}={value}")?;
                    }
                }
                Ok(())
            }
            Self::IoWeight(weight) => write!(f, "io_weight={weight}"),
            Self::Hugetlb { page, limit } => write!(f, "hugetlb={limit} in pages of {page}"),
            Self::Devices(rules) => {
                f.write_str("devices=")?;
                for (index, rule) in rules.iter().enumerate() {
                    write!(f, "{}{rule}", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::NetClass(class) => write!(f, "net_class={class:#x}"),
            Self::NetPriority { interface, priority } => write!(f, "net_priority={interface} {priority}"),
        }
    }
}
