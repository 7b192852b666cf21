//! Why a run is over, from what was seen: wait status, clocks, groups, supervisor. It must not name a limit without a counter
//! or a clock that shows that it was reached.

use std::sync::atomic::Ordering;

use super::child::Child;
use super::clock::Clock;
use super::outcome::{Core, ExitStatus, Verdict};
use crate::policy::{GroupLimit, LimitKind};
use crate::spawn::{RefusedCall, Stats};
use crate::sys::Reaped;

/// What others have noted: calls that a process was ended for, and the groups' counters.
pub(super) type Evidence<'a> = (&'a [RefusedCall], Option<&'a Stats>);

impl Child {
    pub(super) fn verdict(
        &self,
        program: Option<ExitStatus>,
        reaped: Reaped,
        (refused, stats): Evidence<'_>,
    ) -> Verdict {
        let killed = self.killed.load(Ordering::SeqCst);
        // The supervisor's own signal; it notes the call before it sends it.
        let own = refused.iter().find(|call| call.process == self.id());
        if let (Some(call), Some(libc::SIGKILL)) = (own, program.and_then(ExitStatus::signal)) {
            return Verdict::Refused { call: *call };
        }
        if let Some(verdict) = self.limited(program) {
            return verdict;
        }
        if let Some(verdict) = stats.filter(|_| !killed).and_then(|stats| self.starved(program, stats)) {
            return verdict;
        }
        let by_kill = program.is_none_or(|status| status.signal() == Some(libc::SIGKILL));
        if by_kill && !killed && self.running.site.as_ref().is_some_and(|site| site.is_ending()) {
            return Verdict::SandboxEnded;
        }
        let signaled = |status: ExitStatus| {
            status.signal().map(|signal| {
                let core = if status.core_dumped() { Core::Dumped } else { Core::None };
                Verdict::Signaled { signal, core }
            })
        };
        match (program, reaped) {
            (Some(status), _) => match (status.code(), signaled(status)) {
                (Some(code), _) => Verdict::Exited(code),
                (None, Some(_)) if killed && status.signal() == Some(libc::SIGKILL) => Verdict::Killed,
                (None, Some(verdict)) => verdict,
                (None, None) => Verdict::Lost,
            },
            (None, _) if killed => Verdict::Killed,
            // Init itself was ended from outside, and everything with it.
            (None, Reaped::Ended { code, status, .. }) => {
                signaled(ExitStatus::from_waitid(code, status)).unwrap_or(Verdict::Lost)
            }
            (None, Reaped::Gone | Reaped::Running) => Verdict::Lost,
        }
    }

    /// The verdict where one of the crate's own limits ended the program.
    fn limited(&self, program: Option<ExitStatus>) -> Option<Verdict> {
        let by_kill = program.is_none_or(|status| status.signal() == Some(libc::SIGKILL));
        let clocks = self.running.fence.policy.clocks();
        if let Some(limit) = clocks.output.filter(|_| by_kill && self.flooded.load(Ordering::SeqCst)) {
            return Some(Verdict::TooMuchOutput { limit });
        }
        let clock = self.clocks.as_ref()?.ran_out()?;
        // Without a grace period nothing but the kill was sent: another end came first.
        if clocks.grace.is_none() && !by_kill {
            return None;
        }
        let limit = match clock {
            Clock::Wall => clocks.wall?,
            Clock::Cpu => clocks.cpu?.value,
        };
        Some(Verdict::TimedOut { clock, limit })
    }

    /// The verdict where the kernel, for a limit of the tree, ended a process or refused one, and the program did not get
    /// over it.
    fn starved(&self, program: Option<ExitStatus>, stats: &Stats) -> Option<Verdict> {
        if program.is_some_and(ExitStatus::success) {
            return None;
        }
        if stats.memory.oom_kills.is_some_and(|kills| kills > 0) {
            let reached = stats.memory.limit_hits.is_some_and(|hits| hits > 0);
            let limit = self.bytes_allowed().filter(|_| reached);
            return Some(Verdict::OutOfMemory { limit, peak: stats.memory.peak });
        }
        let refused = stats.processes.refused.is_some_and(|refused| refused > 0);
        let limit = self.processes_allowed().filter(|_| refused)?;
        Some(Verdict::TooManyProcesses { limit })
    }

    fn held_limit(&self, kind: LimitKind) -> Option<GroupLimit> {
        let states = self.limits();
        states.into_iter().map(|state| state.limit).find(|limit| limit.kind() == kind)
    }

    fn bytes_allowed(&self) -> Option<u64> {
        match self.held_limit(LimitKind::Memory) {
            Some(GroupLimit::Memory(bytes)) => Some(bytes),
            _ => None,
        }
    }

    fn processes_allowed(&self) -> Option<u64> {
        match self.held_limit(LimitKind::Processes) {
            Some(GroupLimit::Processes(count)) => Some(count),
            _ => None,
        }
    }
}
