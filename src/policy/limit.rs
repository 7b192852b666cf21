//! Resource limits of the process (getrlimit(2)). It must not know cgroups, whose limits cover a tree of processes.

use super::wanted::Need;

/// A resource of getrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// Address space of one process, bytes (`RLIMIT_AS`).
    AddressSpace,
    /// Size of a core file, bytes (`RLIMIT_CORE`).
    Core,
    /// CPU time of one process, seconds (`RLIMIT_CPU`).
    CpuTime,
    /// Data segment of one process, bytes (`RLIMIT_DATA`; private writable mappings count since Linux 4.7).
    Data,
    /// Size of a file that is written, bytes (`RLIMIT_FSIZE`).
    FileSize,
    /// Locked memory, bytes (`RLIMIT_MEMLOCK`).
    LockedMemory,
    /// Bytes in POSIX message queues (`RLIMIT_MSGQUEUE`).
    MessageQueues,
    /// Ceiling of the nice value, as 20 minus nice (`RLIMIT_NICE`).
    Nice,
    /// One more than the highest descriptor number (`RLIMIT_NOFILE`).
    OpenFiles,
    /// Processes and threads of the real uid (`RLIMIT_NPROC`; counted in each user namespace since Linux 5.14).
    Processes,
    /// Ceiling of the real-time priority (`RLIMIT_RTPRIO`).
    RealtimePriority,
    /// Real-time CPU time without a blocking call, microseconds (`RLIMIT_RTTIME`).
    RealtimeTime,
    /// Queued signals (`RLIMIT_SIGPENDING`).
    PendingSignals,
    /// Stack of the main thread, bytes (`RLIMIT_STACK`).
    Stack,
}

impl Resource {
    /// The kernel's number and name.
    pub(crate) fn number(self) -> (u32, &'static str) {
        match self {
            Self::AddressSpace => (libc::RLIMIT_AS, "RLIMIT_AS"),
            Self::Core => (libc::RLIMIT_CORE, "RLIMIT_CORE"),
            Self::CpuTime => (libc::RLIMIT_CPU, "RLIMIT_CPU"),
            Self::Data => (libc::RLIMIT_DATA, "RLIMIT_DATA"),
            Self::FileSize => (libc::RLIMIT_FSIZE, "RLIMIT_FSIZE"),
            Self::LockedMemory => (libc::RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK"),
            Self::MessageQueues => (libc::RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE"),
            Self::Nice => (libc::RLIMIT_NICE, "RLIMIT_NICE"),
            Self::OpenFiles => (libc::RLIMIT_NOFILE, "RLIMIT_NOFILE"),
            Self::Processes => (libc::RLIMIT_NPROC, "RLIMIT_NPROC"),
            Self::RealtimePriority => (libc::RLIMIT_RTPRIO, "RLIMIT_RTPRIO"),
            Self::RealtimeTime => (libc::RLIMIT_RTTIME, "RLIMIT_RTTIME"),
            Self::PendingSignals => (libc::RLIMIT_SIGPENDING, "RLIMIT_SIGPENDING"),
            Self::Stack => (libc::RLIMIT_STACK, "RLIMIT_STACK"),
        }
    }
}

/// A resource with its soft and hard limit, in the unit that [`Resource`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Which.
    pub resource: Resource,
    /// The limit in force; the program may raise it up to `hard`.
    pub soft: u64,
    /// The ceiling.
    pub hard: u64,
    /// Required or preferred.
    pub need: Need,
}
