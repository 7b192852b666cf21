//! A command's tail, kept for the next one that is the same: many a pool runs one program over and over. It must not give a
//! tail to a command that differs in anything that stands in it.

use std::ffi::CString;
use std::sync::{Arc, Mutex, TryLockError};

use super::super::request::Request;
use crate::error::Object;
use crate::plan::{Cell, Code, Controlling, Program, Stream};

/// The table of one command.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) code: Code,
    /// For each path of the program, what became of it.
    pub(super) cells: Vec<u32>,
}

impl Tail {
    pub(super) fn new(code: Code, cells: &[Cell]) -> Self {
        Self { code, cells: cells.iter().map(|cell| cell.address.offset).collect() }
    }
}

/// The last one, with all of the command that it was made of.
#[derive(Debug)]
struct Kept {
    program: Program,
    name: Object,
    cwd: CString,
    streams: [Stream; 3],
    targets: Vec<i32>,
    terminal: Controlling,
    tail: Arc<Tail>,
}

impl Kept {
    fn is_of(&self, request: &Request<'_>) -> bool {
        let targets = request.passed.iter().map(|(_, target)| target);
        self.program == request.program
            && self.name == request.name
            && self.cwd == request.cwd
            && self.streams == request.given()
            && self.targets.iter().eq(targets)
            && self.terminal == request.terminal
    }
}

#[derive(Debug, Default)]
pub(super) struct KeptTail(Mutex<Option<Kept>>);

impl KeptTail {
    /// That of the same command, or a new one.
    pub(super) fn of(&self, request: &Request<'_>, make: impl FnOnce() -> Tail) -> Arc<Tail> {
        // In a fork of the caller nobody might ever let the lock go.
        let mut kept = match self.0.try_lock() {
            Ok(kept) => kept,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Arc::new(make()),
        };
        if let Some(same) = kept.as_ref().filter(|kept| kept.is_of(request)) {
            return Arc::clone(&same.tail);
        }
        let tail = Arc::new(make());
        *kept = Some(Kept {
            program: request.program.clone(),
            name: request.name.clone(),
            cwd: request.cwd.clone(),
            streams: request.given(),
            targets: request.passed.iter().map(|(_, target)| *target).collect(),
            terminal: request.terminal,
            tail: Arc::clone(&tail),
        });
        tail
    }
}
