//! What a filter leaves to a supervisor: calls that it notifies of, and kills that are told. It must not know how a
//! supervisor is reached.

use super::action::Action;
use super::filter::{Filter, LaunchCalls};

/// Who ends a process that a rule kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kills {
    /// The caller's supervisor, which notes the call first.
    Told,
    /// The kernel, and nobody learns which call it was.
    ByKernel,
}

impl Filter {
    /// Leaves kills to the kernel alone. By default a process that makes a call answered with [`Action::KillProcess`] is
    /// ended by a thread of the caller's, which notes the call first ([`crate::Verdict::Refused`]); where the host allows
    /// no such supervisor, and with this, the kernel ends it by SIGSYS at once and nobody learns the call. Then no signal and no
    /// filter of the program's own gets it over the kill ([`Action::KillProcess`]).
    pub fn untold_kills(mut self) -> Self {
        self.kills = Kills::ByKernel;
        self
    }

    fn has(&self, wanted: Action) -> bool {
        self.default == wanted || self.rules.iter().any(|rule| rule.action == wanted)
    }

    /// Whether some call is a supervisor's to answer.
    pub(crate) fn notifies(&self) -> bool {
        self.has(Action::Notify)
    }

    /// Whether some call ends a process, and that is to be told.
    pub(crate) fn tells(&self) -> bool {
        self.kills == Kills::Told && self.has(Action::KillProcess)
    }

    /// Whether some call ends a process, and that is not to be told.
    pub(crate) fn kills_untold(&self) -> bool {
        self.kills == Kills::ByKernel && self.has(Action::KillProcess)
    }

    /// The filter of a process that executes nothing at its start and has no supervisor: the kernel kills, and no `execve` is
    /// let through but by a rule.
    pub(crate) fn of_a_copy(&self) -> Self {
        Self { launch: LaunchCalls::ByRule, kills: Kills::ByKernel, ..self.clone() }
    }

    /// The filter that is attached where a supervisor listens: told kills are notified, and so is the launch's own exec, at
    /// which the child waits until it is supervised.
    pub(crate) fn listening(&self) -> Self {
        let mut out = self.clone();
        out.launch = LaunchCalls::Notified;
        if self.kills == Kills::Told {
            let told = |action| if action == Action::KillProcess { Action::Notify } else { action };
            out.default = told(out.default);
            out.rules.iter_mut().for_each(|rule| rule.action = told(rule.action));
        }
        out
    }
}
