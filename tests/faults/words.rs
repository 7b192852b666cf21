//! The words of a sweep: points, faults, and what came of a round. They must not do anything.

use nix::sys::signal::Signal;

/// A signal to itself, which the tracer swallows, is how a traced process says that what is traced begins, and that its line is
/// written: it needs no stop at any other call outside.
pub(crate) const BEGIN: Signal = Signal::SIGUSR1;
pub(crate) const TOLD: Signal = Signal::SIGUSR2;
/// `prctl(END)`: what is traced ends.
pub(crate) const END: i32 = 0x5246_4d4b;

/// One call of one side: the `nth` with that number, and that operation where one number has many.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    pub(crate) who: String,
    pub(crate) call: u64,
    pub(crate) operation: u64,
    pub(crate) nth: usize,
}

/// A point that was seen, with what tells one call from another.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) point: Point,
    pub(crate) args: [u64; 6],
}

/// Whom a signal meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Caller,
    /// The process that the point is of.
    Same,
}

/// When a signal is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    /// Before the call is made.
    Entry,
    /// When it has been made.
    Exit,
}

/// What befalls a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// It is not made, and fails.
    Fail(i32),
    /// It is made, and fails: close(2) and the like let go of the descriptor in any case.
    FailDone(i32),
    /// Its side is killed.
    Kill(Side, Edge),
    /// Its side is stopped for a moment.
    Stop(Side, Edge),
}

/// What is to befall which call.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) point: Point,
    pub(crate) act: Act,
}

/// How a round ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Line(String),
    /// The traced process ended before it told anything.
    Died(String),
    Hung,
}

#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) end: End,
    pub(crate) seen: Vec<Seen>,
    /// Whether the point was come by.
    pub(crate) hit: bool,
    /// Processes that are there after it and were not before.
    pub(crate) left: Vec<String>,
}
