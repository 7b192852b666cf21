//! The brief from the caller's side: what it puts there, what the child left there. What the child left is believed only
//! until the program runs: the program cannot reach it, but a bug could.

use nix::fcntl::{FallocateFlags, fallocate};
use std::os::fd::AsFd;

use crate::error::{Error, ErrorKind, Result, Step};
use crate::machine::isa::{ERRNO_AT, FAILED_AT, GAVE_UP_AT};
use crate::machine::layout::{
    INIT_PROGRESS, PROGRESS, ROBUST_FUTEX, RUSAGE, RUSAGE_SIZE, STATUS, STATUS_VALID,
};
use crate::sys::SharedMap;

/// So many bytes are faster overwritten than given back to the kernel.
const FEW: usize = 32 << 10;

/// The shared mapping of one launch.
#[derive(Debug)]
pub(crate) struct Brief {
    map: SharedMap,
}

/// A progress record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Address of the instruction in hand.
    pub(super) pc: u64,
    /// Address of the last call that failed and was not fine.
    pub(super) failed: u64,
    pub(super) errno: i32,
    pub(super) gave_up: bool,
}

impl Brief {
    pub(super) fn new(bytes: usize) -> Result<Self> {
        let failed = |(call, errno)| Error::new(ErrorKind::Setup, Step::Image, "brief").call(call, errno);
        Ok(Self { map: SharedMap::new(bytes).map_err(failed)? })
    }

    pub(super) fn map(&self) -> &SharedMap {
        &self.map
    }

    /// What lay there is gone; where it was much, its memory too.
    pub(super) fn forget(&self, at: u32, bytes: usize) {
        if bytes <= FEW {
            return self.map.set_bytes(at, &vec![0; bytes]);
        }
        let (from, length) = (i64::from(at), i64::try_from(bytes).unwrap_or(i64::MAX));
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // A filter around this process may refuse it.
        if fallocate(self.map.as_fd(), flags, from, length).is_err() {
            self.map.set_bytes(at, &vec![0; bytes]);
        }
    }

    fn record(&self, at: u32) -> Record {
        let offset = |bytes: usize| at + u32::try_from(bytes).unwrap_or(0);
        Record {
            pc: self.map.word(at),
            failed: self.map.word(offset(FAILED_AT)),
            errno: self.map.half(offset(ERRNO_AT)).cast_signed(),
            gave_up: self.map.half(offset(GAVE_UP_AT)) != 0,
        }
    }

    /// The set-up's record; once there are two processes, the program's.
    pub(super) fn progress(&self) -> Record {
        self.record(PROGRESS)
    }

    /// Init's record.
    pub(super) fn init_progress(&self) -> Record {
        self.record(INIT_PROGRESS)
    }

    /// Whether the kernel says that the child has left its memory: by exec, or by its end.
    pub(super) fn left_memory(&self) -> bool {
        const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
        self.map.half(ROBUST_FUTEX) & FUTEX_OWNER_DIED != 0
    }

    /// The program's wait status, once init has left it.
    pub(crate) fn status(&self) -> Option<i32> {
        (self.map.word(STATUS_VALID) == 1).then(|| self.map.half(STATUS).cast_signed())
    }

    /// The program's `struct rusage`, once init has left it.
    pub(crate) fn usage(&self) -> Option<[u64; 18]> {
        self.status()?;
        let mut words = [0; RUSAGE_SIZE / 8];
        for (at, word) in (RUSAGE..).step_by(8).zip(&mut words) {
            *word = self.map.word(at);
        }
        Some(words)
    }
}
