//! How a program ended and what it used. It must not guess: what is not known is said to be.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::clock::Clock;
use crate::spawn::RefusedCall;
use crate::spawn::{Stats, StatusFrom};

/// A wait status (wait(2)), exactly as the program's parent saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExitStatus(i32);

impl ExitStatus {
    pub(super) fn from_wait(status: i32) -> Self {
        Self(status)
    }

    /// From `waitid`'s code and status.
    pub(super) fn from_waitid(code: i32, status: i32) -> Self {
        match code {
            libc::CLD_EXITED => Self(status << 8),
            libc::CLD_DUMPED => Self(status | 0x80),
            _ => Self(status),
        }
    }

    /// Whether the program exited with 0.
    #[must_use]
    pub fn success(self) -> bool {
        self.0 == 0
    }

    /// Its exit code, if it exited.
    #[must_use]
    pub fn code(self) -> Option<i32> {
        libc::WIFEXITED(self.0).then(|| libc::WEXITSTATUS(self.0))
    }

    /// The signal that ended it, if one did.
    #[must_use]
    pub fn signal(self) -> Option<i32> {
        libc::WIFSIGNALED(self.0).then(|| libc::WTERMSIG(self.0))
    }

    /// Whether a core was dumped.
    #[must_use]
    pub fn core_dumped(self) -> bool {
        libc::WIFSIGNALED(self.0) && libc::WCOREDUMP(self.0)
    }

    /// The raw wait status.
    #[must_use]
    pub fn into_raw(self) -> i32 {
        self.0
    }
}

/// Why a program's run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It exited with this code, whatever the code.
    Exited(i32),
    /// A signal that did not come from the caller's handle ended it.
    Signaled {
        /// Its number.
        signal: i32,
        /// Whether a core was dumped.
        core: Core,
    },
    /// A clock ran out ([`crate::Builder::wall_time`], [`crate::Builder::cpu_time`]). The program may have ended by itself in
    /// its grace period: [`Outcome::status`] says so.
    TimedOut {
        /// Which clock.
        clock: Clock,
        /// What it was set to.
        limit: Duration,
    },
    /// It wrote more than [`crate::Builder::output_limit`] to its piped streams and was killed.
    TooMuchOutput {
        /// The limit, bytes.
        limit: u64,
    },
    /// The kernel ended a process of the tree for want of memory, as the group's counter shows, and the program did not get
    /// over it: it was that process, or ended with another code than 0. [`Outcome::status`] says how.
    OutOfMemory {
        /// What [`crate::Builder::memory`] allowed, bytes; `None` where it was the machine, or a group above, that had no more.
        limit: Option<u64>,
        /// The most that the tree used, bytes, where the kernel says so.
        peak: Option<u64>,
    },
    /// The limit of [`crate::Builder::processes`] refused a process or a thread, as the group's counter shows, and the program
    /// did not get over it: it ended with another code than 0, or by a signal.
    TooManyProcesses {
        /// The limit.
        limit: u64,
    },
    /// It made a system call that its filter kills for, and was ended for that; the call was not made.
    Refused {
        /// Which.
        call: RefusedCall,
    },
    /// The caller's handle killed it.
    Killed,
    /// The sandbox that it had joined ended, and it with that.
    SandboxEnded,
    /// Someone else reaped it, and the kernel no longer knows how it ended. Before Linux 6.15 so does the kernel itself where the
    /// caller ignores `SIGCHLD` (wait(2), "NOTES"); init would tell: it is only lost without one, with [`Init::Program`].
    ///
    /// [`Init::Program`]: crate::Init::Program
    Lost,
}

/// Whether a core was dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Core {
    /// It was.
    Dumped,
    /// It was not.
    None,
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with {code}"),
            Self::Refused { call } => write!(f, "ended by its filter for {call}"),
            Self::Signaled { signal: libc::SIGSYS, .. } => {
                f.write_str("killed by SIGSYS, a refused system call: which one is not known")
            }
            Self::Signaled { signal, .. } => match Signal::try_from(*signal) {
                Ok(known) => write!(f, "killed by {}", known.as_str()),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
            Self::TimedOut { clock, limit } => {
                let clock = match clock {
                    Clock::Wall => "time",
                    Clock::Cpu => "CPU time",
                };
                write!(f, "out of {clock}: the limit is {limit:?}")
            }
            Self::OutOfMemory { limit: Some(limit), .. } => {
                write!(f, "out of memory: the limit is {limit} bytes")
            }
            Self::OutOfMemory { limit: None, .. } => {
                f.write_str("out of memory: the machine, or a group above, has no more")
            }
            Self::TooManyProcesses { limit } => write!(f, "too many processes: the limit is {limit}"),
            Self::TooMuchOutput { limit } => write!(f, "wrote too much: the limit is {limit} bytes"),
            Self::Killed => f.write_str("killed by the caller"),
            Self::SandboxEnded => f.write_str("ended with its sandbox"),
            Self::Lost => f.write_str("lost: someone else reaped it"),
        }
    }
}

/// What a process and its reaped children used (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Largest resident set, bytes.
    pub max_resident: u64,
    /// Page faults without and with I/O.
    pub faults: (u64, u64),
    /// Voluntary and involuntary context switches.
    pub switches: (u64, u64),
}

impl Usage {
    pub(super) fn from_words(words: &[u64; 18]) -> Self {
        let time = |at: usize| Duration::from_secs(words[at]) + Duration::from_micros(words[at + 1]);
        Self {
            user: time(0),
            system: time(2),
            max_resident: words[4].saturating_mul(1024),
            faults: (words[8], words[9]),
            switches: (words[16], words[17]),
        }
    }
}

/// The end of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Its wait status; `None` where it was killed before it had one, or lost.
    pub status: Option<ExitStatus>,
    /// Who says so.
    pub status_from: StatusFrom,
    /// What the program and the children that it waited for used.
    pub usage: Usage,
    /// What everything inside used, init included, as far as it was waited for.
    pub tree_usage: Usage,
    /// What the control groups of the tree had counted at the end, where it had any. Where [`Stats::unread`] is set, the verdict
    /// does not know what that file says.
    pub stats: Option<Stats>,
    /// What it wrote to a piped standard output, if that was collected.
    pub stdout: Vec<u8>,
    /// What it wrote to a piped standard error, if that was collected.
    pub stderr: Vec<u8>,
    /// System calls that ended a process inside, the program or another, in their order: the first 64, and the program's own in
    /// any case. What the kernel killed by itself is not among them ([`crate::SupervisorState`]).
    pub refused_calls: Vec<RefusedCall>,
    /// How many more there were. Where the filter has no rule that notifies, those count too that were taken back before they
    /// could be looked at, by a signal to the thread or its death; not all of them are seen.
    pub refused_calls_more: u64,
    /// What went wrong in the supervisor, panics of its callback above all: the first 64. Whatever was asked of it from then
    /// on was refused.
    pub supervisor_faults: Vec<String>,
    pub(super) verdict: Verdict,
}

impl Outcome {
    /// Why the run is over.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether the program exited with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.verdict == Verdict::Exited(0)
    }

    /// The exit code, if it exited.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(ExitStatus::code)
    }
}
