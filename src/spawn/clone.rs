//! The clone call of a launch, with every signal blocked and a watchdog beside it. It must not know what the child will do.

use std::process;
use std::result::Result as StdResult;
use std::sync::atomic::AtomicI32;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use super::signals::Blocked;
use super::threads::Harmless;
use super::watchdog::watch;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::policy::Init;
use crate::sys::{self, CloneHow, Cloned};

/// Why there is no child.
#[derive(Debug)]
pub(super) enum NotCloned {
    /// The clone call gave this errno.
    Refused(i32),
    /// It was not come to.
    Before(Error),
}

/// Clones, with every signal blocked. A program that is PID 1 itself is tied to the thread that clones it, so that is a
/// thread that lives as long as this process.
pub(super) fn clone(
    init: Init,
    (how, flags): (CloneHow, u64),
    (entry, progress): (u64, u64),
    deadline: Instant,
) -> StdResult<Cloned, NotCloned> {
    let work = move || {
        let pidfd = Arc::new(AtomicI32::new(-1));
        let blocked = Blocked::all().map_err(NotCloned::Before)?;
        let watched = watch(deadline, &pidfd);
        let cloned = sys::clone_into_table(how, flags, entry, progress, &pidfd);
        drop(watched);
        drop(blocked);
        cloned.map_err(NotCloned::Refused)
    };
    match init {
        Init::Reaper => work(),
        Init::Program => on_lasting_thread(work).map_err(NotCloned::Before)?,
    }
}

/// A time that no clock can show is as good as a day.
pub(crate) fn deadline_after(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or_else(|| now + Duration::from_secs(24 * 60 * 60))
}

type Job = Box<dyn FnOnce() + Send>;
/// The thread that lasts, and the process that it belongs to: a fork of the caller has to make its own.
static LASTING: Mutex<Option<(u32, Sender<Job>)>> = Mutex::new(None);

fn on_lasting_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let failed = |errno| {
        let error =
            Error::new(ErrorKind::Setup, Step::Clone, "the thread that clones programs that are PID 1");
        error.call("clone", errno)
    };
    let (answer, wait) = channel();
    let job: Job = Box::new(move || {
        // The receiver waits below; if it were gone there would be nobody to tell.
        answer.send(work()).ok();
    });
    let mut lasting = LASTING.lock().unwrap_or_else(PoisonError::into_inner);
    let own = process::id();
    if lasting.as_ref().is_none_or(|(process, _)| *process != own) {
        let (sender, jobs) = channel::<Job>();
        // No handler of the caller's runs on it.
        let blocked = Blocked::all()?;
        let serve = move || {
            let _harmless = Harmless::here();
            jobs.into_iter().for_each(|job| job());
        };
        let started = Builder::new().name("ringfence".to_owned()).spawn(serve);
        drop(blocked);
        started.map_err(|error| failed(error.raw_os_error().unwrap_or(libc::EAGAIN)))?;
        *lasting = Some((own, sender));
    }
    // A thread that is gone, with its end of the channel, is none: the next launch makes another one.
    let sent = lasting.as_ref().is_some_and(|(_, jobs)| jobs.send(job).is_ok());
    if !sent {
        *lasting = None;
    }
    drop(lasting);
    wait.recv().map_err(|_| failed(libc::ESRCH))
}
