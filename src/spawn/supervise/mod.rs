//! A supervisor of one child's notified calls, in a thread of the caller's process: what it is asked, what it answers, and
//! what becomes of the child where it fails. It must not let a call go on for its own faults.

mod call;
mod record;
mod worker;

pub(crate) use self::record::Seen;
pub(super) use self::worker::Handover;
pub use call::{CallError, NotifiedCall, OnExec};
pub use record::RefusedCall;

use std::fmt::{self, Debug, Formatter};
use std::fs::read_link;
use std::io::{Error, pipe};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::result::Result as StdResult;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;
use std::time::Duration;

use self::record::Records;
use self::worker::Worker;
use crate::policy::Filter;
use crate::sys::{self, Errno};

/// What a supervisor answers to a call.
#[derive(Debug)]
#[non_exhaustive]
pub enum Response {
    /// The call is not made and fails with this errno, 1 to 4095; with `EPERM` for any other number.
    Errno(i32),
    /// The call is not made and returns this.
    Value(i64),
    /// The call is not made and returns the number of a copy of this descriptor in the process
    /// (`SECCOMP_IOCTL_NOTIF_ADDFD`; since Linux 5.9).
    Fd {
        /// What is injected.
        fd: OwnedFd,
        /// The number that it replaces; the lowest free one without.
        at: Option<RawFd>,
        /// Whether the program's next exec closes it.
        on_exec: OnExec,
    },
    /// The kernel goes on with the call, **unchecked**: it reads every pointer argument anew, and by then another thread, or
    /// whoever shares the memory, may have put something else there. So this must never be the result of a decision about
    /// what a pointer leads to, nor of one about a descriptor's number, which can be replaced as well
    /// (seccomp_unotify(2), "Caveats"). It is for calls that would be allowed with any arguments: to count, to log, to delay.
    ContinueUnchecked,
}

impl From<CallError> for Response {
    /// A call that could not be looked at is refused.
    fn from(error: CallError) -> Self {
        Self::Errno(error.errno())
    }
}

/// Answers the calls that a filter's rules answer with [`crate::Action::Notify`]. Closures do too:
/// [`crate::Command::on_notify`].
///
/// One thread of the caller's process answers the calls of one child, one after the other, with all signals blocked. A panic
/// in here refuses the call with `EPERM`, and every later one without asking again
/// ([`crate::Outcome::supervisor_faults`]). While it takes its time the calling thread is blocked; it can be killed, and
/// dropping the child does not wait for it.
pub trait Supervisor: Send + Sync {
    /// The answer to one call.
    fn answer(&self, call: &NotifiedCall<'_>) -> Response;
}

impl<F: Fn(&NotifiedCall<'_>) -> Response + Send + Sync> Supervisor for F {
    fn answer(&self, call: &NotifiedCall<'_>) -> Response {
        self(call)
    }
}

/// One supervisor for any number of children.
#[derive(Clone)]
pub(crate) struct SharedSupervisor(pub(crate) Arc<dyn Supervisor>);

impl Debug for SharedSupervisor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Supervisor")
    }
}

/// How long the end of the thread is waited for once the child is gone.
const END_LIMIT: Duration = Duration::from_secs(1);
/// Bytes of the thread's stack: a callback may open, parse and log.
const STACK: usize = 512 << 10;

/// The thread of one child. When this is dropped it ends; what it still listens to is refused then.
#[derive(Debug)]
pub(crate) struct Supervision {
    records: Arc<Records>,
    launched: Arc<AtomicBool>,
    /// The end of this is the thread's.
    stop: Option<OwnedFd>,
}

/// What a thread is started with.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) listener: OwnedFd,
    pub(super) filter: Filter,
    pub(super) secret: u64,
    pub(super) supervisor: Option<SharedSupervisor>,
    /// The sandbox's first process: the end of the whole, should the thread fail.
    pub(super) sandbox: BorrowedFd<'a>,
    /// The program's pid.
    pub(super) program: u32,
    pub(super) handover: Handover,
}

impl Supervision {
    /// Starts the thread. It lets the launch's own exec through, until [`Supervision::launched`].
    pub(super) fn start(start: Start<'_>) -> StdResult<Self, (&'static str, Errno)> {
        let errno = |error: &Error| error.raw_os_error().unwrap_or(libc::EAGAIN);
        let sizes = sys::notification_sizes().map_err(|errno| ("seccomp", errno))?;
        let (theirs, ours) = pipe().map_err(|error| ("pipe2", errno(&error)))?;
        // No descriptor of this crate's is below 3.
        let above = |fd: RawFd| sys::duplicate(fd, 3).map_err(|errno| ("fcntl", errno));
        let (theirs, ours) = (above(theirs.as_raw_fd())?, above(ours.as_raw_fd())?);
        let sandbox = above(start.sandbox.as_raw_fd())?;
        let (records, launched) = (Arc::new(Records::new(start.program)), Arc::new(AtomicBool::new(false)));
        let worker = Worker {
            listener: start.listener,
            stop: theirs,
            sizes,
            filter: start.filter,
            secret: start.secret,
            supervisor: start.supervisor,
            records: Arc::clone(&records),
            launched: Arc::clone(&launched),
            handover: start.handover,
            faulty: false,
        };
        let builder = Builder::new().name("ringfence-super".to_owned()).stack_size(STACK);
        builder.spawn(move || worker.run(sandbox)).map_err(|error| ("clone", errno(&error)))?;
        Ok(Self { records, launched, stop: Some(ours) })
    }

    /// From now on no exec is the launch's.
    pub(super) fn launched(&self) {
        self.launched.store(true, Ordering::SeqCst);
    }

    pub(crate) fn seen(&self) -> Seen {
        self.records.seen()
    }
}

impl Drop for Supervision {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.records.wait_over(END_LIMIT);
    }
}

/// Whether a descriptor is a listener, as `/proc` calls it.
pub(super) fn is_listener(fd: impl AsFd) -> StdResult<bool, (&'static str, Errno)> {
    let number = fd.as_fd().as_raw_fd();
    let name = read_link(format!("/proc/self/fd/{number}"));
    let name = name.map_err(|error| ("readlink", error.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(name.as_os_str() == "anon_inode:seccomp notify")
}
