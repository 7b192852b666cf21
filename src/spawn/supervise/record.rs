//! What a supervisor leaves word of: refused calls, faults of its callback. It must not refuse anything itself.

use std::fmt::{self, Display, Formatter};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::policy::Architecture;

/// How many refused calls, and how many faults, are kept; more are only counted.
const KEPT: usize = 64;

/// A system call that ended the process that made it: it was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RefusedCall {
    /// The process, as the caller sees it.
    pub process: u32,
    /// The thread of it that made the call.
    pub thread: u32,
    /// The call's number.
    pub number: u32,
    /// Its name, as far as this version of the crate knows it; else empty.
    pub name: &'static str,
    /// Its arguments. Pointers are what they were in the process, which is gone.
    pub arguments: [u64; 6],
    /// Where the process was.
    pub instruction_pointer: u64,
    /// What numbers and arguments mean.
    pub architecture: Architecture,
}

impl Display for RefusedCall {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            write!(f, "call {}(", self.number)?;
        } else {
            write!(f, "{}(", self.name)?;
        }
        for (index, argument) in self.arguments.iter().enumerate() {
            write!(f, "{}{argument:#x}", if index == 0 { "" } else { ", " })?;
        }
        write!(f, ") in process {}", self.process)
    }
}

/// What one supervisor has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The first refused calls, in their order, and the program's own in any case.
    pub(crate) refused: Vec<RefusedCall>,
    /// How many more there were.
    pub(crate) refused_more: u64,
    /// What went wrong in the supervisor, the first of it.
    pub(crate) faults: Vec<String>,
}

#[derive(Debug, Default)]
struct State {
    seen: Seen,
    stage: Stage,
}

/// What the thread is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Waiting,
    /// In the callback, for as long as that likes.
    Callback,
    Over,
}

/// Shared by the thread and whoever holds the child.
#[derive(Debug)]
pub(super) struct Records {
    /// The program's pid: its own call has a place, whatever its children fill the list with.
    program: u32,
    state: Mutex<State>,
    changed: Condvar,
}

impl Records {
    pub(super) fn new(program: u32) -> Self {
        Self { program, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn refused(&self, call: RefusedCall) {
        let seen = &mut self.lock().seen;
        let is_own = |call: &RefusedCall| call.process == self.program;
        if seen.refused.len() < KEPT || is_own(&call) && !seen.refused.iter().any(is_own) {
            seen.refused.push(call);
        } else {
            seen.refused_more += 1;
        }
    }

    /// A call that would have ended its process and was taken back before anybody looked: by a signal, or a death.
    pub(super) fn taken_back(&self) {
        self.lock().seen.refused_more += 1;
    }

    pub(super) fn fault(&self, text: String) {
        let faults = &mut self.lock().seen.faults;
        if faults.len() < KEPT {
            faults.push(text);
        }
    }

    pub(super) fn seen(&self) -> Seen {
        self.lock().seen.clone()
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.lock().stage = stage;
        self.changed.notify_all();
    }

    /// Waits until the thread is over, but neither for a callback nor longer than `limit`.
    pub(super) fn wait_over(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while state.stage == Stage::Waiting {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
