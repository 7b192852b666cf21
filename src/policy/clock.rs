//! How long a program may run, by the clock on the wall and by the processors', and how much it may write to piped
//! streams. It must not measure anything.

use std::time::Duration;

use super::wanted::Wanted;
use super::{Builder, Policy};
use crate::error::Mistake;

/// A signal before the kill: what a program may use to end in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grace {
    /// Sent to the program when a clock runs out.
    pub signal: i32,
    /// How long it has from then on.
    pub period: Duration,
}

/// The clocks of a sandbox, and how much it may write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clocks {
    /// From the release to the end.
    pub wall: Option<Duration>,
    /// Of all threads of all processes inside together.
    pub cpu: Option<Wanted<Duration>>,
    /// What comes before the kill.
    pub grace: Option<Grace>,
    /// Bytes of standard output and standard error together, where the crate collects them.
    pub output: Option<u64>,
}

/// The highest signal number (signal(7)).
const SIGRTMAX: i32 = 64;
/// A year.
const LONGEST_GRACE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;

impl Builder {
    /// How long the program may run, from its release on (`CLOCK_MONOTONIC`: setting the machine's clock changes nothing,
    /// and time in which the machine is suspended does not count). Then everything inside is killed, and the verdict is
    /// [`crate::Verdict::TimedOut`]. Resolution: a millisecond. Default: no limit.
    ///
    /// A thread of the caller's process watches it, `ringfence-clock`; should the whole caller be stopped, it is late by as
    /// much.
    pub fn wall_time(self, limit: Duration) -> Self {
        self.set(|policy| policy.clocks.wall = Some(limit))
    }

    /// How much CPU time all processes inside may use together. Then everything is killed, and the verdict is
    /// [`crate::Verdict::TimedOut`]. Default: no limit. It is watched as [`Builder::wall_time`] is, and looked at as often as
    /// the processors could use up what is left, every millisecond at most.
    ///
    /// Required, it needs a control group that counts (`cpu.stat` of cgroup v2, `cpuacct.usage` of v1). Preferred and without
    /// one, the times of the processes are summed: to a clock tick, and without children of processes that ignore SIGCHLD;
    /// [`crate::Enforcement::notes`] says so.
    pub fn cpu_time(self, limit: impl Into<Wanted<Duration>>) -> Self {
        let limit = limit.into();
        self.set(|policy| {
            policy.clocks.cpu = Some(limit);
            policy.cgroup.meter = Some(limit.need);
        })
    }

    /// When a clock runs out, `signal` is sent to the program, and `period` later everything is killed. Default: it is killed
    /// at once.
    pub fn grace(self, signal: i32, period: Duration) -> Self {
        self.set(|policy| policy.clocks.grace = Some(Grace { signal, period }))
    }

    /// How many bytes of standard output and standard error [`crate::Command::output`] and
    /// [`crate::Child::wait_with_output`] collect together. A program that writes more is killed, and the verdict is
    /// [`crate::Verdict::TooMuchOutput`]. Default: no limit. A stream that the caller reads itself is the caller's to bound;
    /// for files there is [`crate::Resource::FileSize`] and the size of a [`crate::Tmpfs`].
    pub fn output_limit(self, bytes: u64) -> Self {
        self.set(|policy| policy.clocks.output = Some(bytes))
    }
}

/// What is wrong with them.
pub(super) fn mistakes(policy: &Policy) -> Vec<Mistake> {
    let clocks = &policy.clocks;
    let mut mistakes = Vec::new();
    let zero = |limit: Option<Duration>| limit.is_some_and(|limit| limit.is_zero());
    if zero(clocks.wall) {
        mistakes.push(Mistake::ZeroLimit { what: "wall_time()" });
    }
    if zero(clocks.cpu.map(|cpu| cpu.value)) {
        mistakes.push(Mistake::ZeroLimit { what: "cpu_time()" });
    }
    let Some(Grace { signal, period }) = clocks.grace else { return mistakes };
    if period > LONGEST_GRACE {
        let value = i64::try_from(period.as_secs()).unwrap_or(i64::MAX);
        let to = i64::try_from(LONGEST_GRACE.as_secs()).unwrap_or(0);
        mistakes.push(Mistake::OutOfRange { what: "grace(), seconds", value, from: 0, to });
    }
    if !(1..=SIGRTMAX).contains(&signal) || [SIGKILL, SIGSTOP].contains(&signal) {
        mistakes.push(Mistake::BadGraceSignal { signal });
    }
    if clocks.wall.is_none() && clocks.cpu.is_none() {
        mistakes.push(Mistake::GraceWithoutClock);
    }
    mistakes
}
