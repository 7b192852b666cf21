//! All signals blocked around a clone: no handler of the caller may run in the child (its memory may be the caller's).

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

use crate::error::{Error, ErrorKind, Result, Step};

/// Restores the mask when dropped.
#[derive(Debug)]
pub(crate) struct Blocked {
    before: SigSet,
}

impl Blocked {
    /// Blocks every signal for this thread.
    pub(crate) fn all() -> Result<Self> {
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before)).map_err(
            |errno| Error::new(ErrorKind::Setup, Step::Signals, "mask").nix("pthread_sigmask", errno),
        )?;
        Ok(Self { before })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // The set was the thread's own a moment ago, so the call can only succeed; and a drop has nobody to tell.
        let restored = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
        debug_assert!(restored.is_ok(), "the mask was valid before");
    }
}
