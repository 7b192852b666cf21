//! What the kernel does with a call. It must not know to which call.

use std::fmt::{self, Display, Formatter};

use crate::error::errno_text;

/// What the kernel does with a call that a rule fits (seccomp(2), "Seccomp filters").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// The call is made.
    Allow,
    /// The call is not made and returns this errno, 1 to 4095. 0 makes it return 0, as if it had been made.
    Errno(i32),
    /// The call is not made and the process ends. A supervisor in the caller's process notes the call and ends it by SIGKILL
    /// ([`crate::Verdict::Refused`]); where none can be had, or [`Filter::untold_kills`](crate::Filter::untold_kills) says
    /// so, the kernel does by a SIGSYS that cannot be caught. Since Linux 4.14.
    ///
    /// A program that interrupts itself with a signal, or has attached a filter of its own that answers the call, may get over
    /// a kill that is told, and nobody need notice; the call is not made then either. Only the kernel's own kill is certain.
    KillProcess,
    /// SIGSYS that cannot be caught ends the thread; in the last one, or where it is the only one, the process. Always the
    /// kernel's doing and never told: no other process can end a single thread.
    KillThread,
    /// The call is made, and the kernel's audit log says so. Since Linux 4.14.
    Log,
    /// SIGSYS that a handler can catch; the call is not made.
    Trap,
    /// The command's supervisor answers ([`crate::Command::supervise`]); a command that has none is not spawned. Where the
    /// supervisor has ended the call is not made and returns ENOSYS. Needs pidfd_getfd(2), Linux 5.6.
    Notify,
}

/// The kernel's own limit of the errno that a filter may give.
const MAX_ERRNO: i32 = 4095;

impl Action {
    /// The kernel's own order, where several filters are attached: the stricter one wins.
    const fn strictness(self) -> u8 {
        match self {
            Self::Allow => 0,
            Self::Log => 1,
            Self::Notify => 2,
            Self::Errno(_) => 3,
            Self::Trap => 4,
            Self::KillThread => 5,
            Self::KillProcess => 6,
        }
    }

    /// The stricter of two; `self` if they are equally so.
    pub(super) const fn stricter(self, other: Self) -> Self {
        if other.strictness() > self.strictness() { other } else { self }
    }

    /// The looser of two; `self` if they are equally so.
    pub(super) const fn looser(self, other: Self) -> Self {
        if other.strictness() < self.strictness() { other } else { self }
    }

    /// Whether the call is made, whatever a supervisor says.
    pub(crate) const fn makes_call(self) -> bool {
        matches!(self, Self::Allow | Self::Log)
    }

    pub(super) const fn is_valid(self) -> bool {
        !matches!(self, Self::Errno(errno) if errno < 0 || errno > MAX_ERRNO)
    }

    /// The value that a filter returns (`SECCOMP_RET_*`, linux/seccomp.h).
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Errno(errno) => 0x0005_0000 | (errno.cast_unsigned() & 0xffff),
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Log => 0x7ffc_0000,
            Self::Trap => 0x0003_0000,
            Self::Notify => 0x7fc0_0000,
        }
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::Errno(errno) => f.write_str(errno_text(*errno).split(' ').next().unwrap_or("errno")),
            Self::KillProcess => f.write_str("kill process"),
            Self::KillThread => f.write_str("kill thread"),
            Self::Log => f.write_str("log"),
            Self::Trap => f.write_str("trap"),
            Self::Notify => f.write_str("notify"),
        }
    }
}
