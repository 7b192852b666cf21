//! What was refused, as a question to a [`Host`](super::Host). It must not hold an answer.

/// A step of a launch that the kernel refused, and the errno that it gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// The step.
    pub step: RefusedStep,
    /// The errno, such as `libc::EPERM`.
    pub errno: i32,
    /// The user namespace in which the step's privileges were judged.
    pub within: Within,
}

/// In which user namespace a step ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Within {
    /// In the caller's: what the caller may do counts.
    CallersUserNamespace,
    /// In one that the launch made: the child began with all capabilities in it.
    FreshUserNamespace,
}

/// The steps that a machine can refuse for reasons of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusedStep {
    /// clone3(2), clone(2) or unshare(2) with these CLONE_NEW* flags.
    Clone {
        /// The flags.
        namespaces: u64,
    },
    /// Writing a map of one's own id to /proc/PID/uid_map or gid_map.
    IdMap,
    /// Mapping a range of ids, with privilege or with newuidmap(1) and newgidmap(1).
    IdRange,
    /// A mount call other than that of a fresh proc, or pivot_root(2).
    Mount,
    /// Mounting a fresh proc.
    ProcMount,
    /// Writing a setting of a namespace, by way of the caller's /proc/sys.
    Knob,
    /// Making or executing the image, a memfd.
    MemfdExec,
    /// Joining a new session keyring.
    Keyring,
    /// Opening a pidfd of the caller's process: pidfd_open(2).
    Pidfd,
    /// Changing the capability sets, the bounding set or the securebits.
    Capabilities,
    /// setgroups(2).
    Groups,
    /// setresuid(2) or setresgid(2).
    Ids,
    /// setrlimit(2) beyond the hard limit, or a lower oom_score_adj.
    Limits,
    /// setpriority(2).
    Priority,
}
