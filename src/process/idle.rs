//! A child that is set up and confined before it is known what it will run. It must not be handed out twice.

use std::os::fd::{AsFd, BorrowedFd};

use super::child::Child;
use super::command::Command;
use super::ends::Ends;
use super::held::Held;
use super::sandbox::Sandbox;
use super::stdio::Stdio;
use crate::error::Result;
use crate::spawn::{Enforcement, Request, Running, launch};
use crate::sys;

/// A confined child without a command: set up, read back, waiting. It runs one [`Command`] and is used up then. Dropping it
/// kills and reaps it; it ends with the caller's process too.
///
/// What the policy names is opened when the child is made: of a file that is replaced later the program sees the old one. A
/// child costs a few pages and four descriptors of this process while it waits, and a [`crate::Launch::Copy`] of the caller
/// as much of the caller's memory as the caller changes meanwhile.
#[derive(Debug)]
#[must_use = "dropping an idle child kills it"]
pub struct Idle {
    running: Running,
}

impl Sandbox {
    /// Sets up and confines a child that waits to be told what to run.
    ///
    /// ```no_run
    /// # fn main() -> ringfence::Result<()> {
    /// let sandbox = ringfence::Sandbox::builder().system_read_only().build()?;
    /// let idle = sandbox.hold()?;
    /// // Later, and without the time that the set-up takes:
    /// let outcome = idle.spawn(sandbox.command("sh").args(["-c", "exit 3"]))?.wait()?;
    /// assert_eq!(outcome.verdict(), ringfence::Verdict::Exited(3));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`crate::ErrorKind::Setup`] as [`Command::spawn_held`].
    pub fn hold(&self) -> Result<Idle> {
        let request = Request::later();
        Ok(Idle { running: launch(self.fence(), request)? })
    }
}

impl Idle {
    /// The pid that will be the program's, as the caller sees it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.running.program.unsigned_abs()
    }

    /// The pid of the sandbox's first process: its init, or the program where there is none.
    #[must_use]
    pub fn init_id(&self) -> u32 {
        self.running.parent.pid().unsigned_abs()
    }

    /// What holds, read back from the kernel.
    #[must_use]
    pub fn enforcement(&self) -> &Enforcement {
        &self.running.report
    }

    /// Runs a command of the same sandbox. `Ok` means that `execve` has happened. The descriptors are sent to the child
    /// (unix(7), `SCM_RIGHTS`), so one that cannot be sent, as that of an io_uring, is an error.
    ///
    /// # Errors
    /// As [`Command::spawn`]; [`crate::ErrorKind::InvalidCommand`] for a command of another sandbox; `E2BIG` where arguments,
    /// environment and paths take more than 1 MiB. The child is gone then.
    pub fn spawn(self, command: &Command) -> Result<Child> {
        command.check_fence(&self.running.fence)?;
        let (request, ends) = command.prepared(&Stdio::null())?;
        self.run(request, ends)
    }

    /// The same for what has been prepared and is certainly of this sandbox.
    pub(super) fn run(mut self, request: Request<'_>, ends: Ends) -> Result<Child> {
        self.running.load(request)?;
        Held::new(self.running, ends).release()
    }

    /// Whether it still waits.
    pub(super) fn waits(&self) -> bool {
        matches!(self.running.parent.ended(0), Ok(false))
    }

    /// Kills it, without waiting for its end.
    pub(super) fn doom(&self) {
        // ESRCH: it has ended already, which is what is wanted.
        sys::send_signal(self.running.parent.pidfd(), libc::SIGKILL).ok();
    }
}

impl AsFd for Idle {
    /// The pidfd of the sandbox's first process: readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.running.parent.pidfd()
    }
}
