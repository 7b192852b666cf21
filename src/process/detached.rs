//! A sandbox that was let go: it runs on when its handle, or its caller, is gone. It must not end anything.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::child::Child;
use super::clock::Watched;
use super::command::Command;
use super::outcome::ExitStatus;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::policy::Tether;
use crate::spawn::Running;
use crate::sys::{self, Block};

/// A running program that outlives this value and the process that started it.
///
/// A process that lives on keeps this value and calls [`Detached::wait`] in the end: the sandbox's init is still its child,
/// and a zombie until then.
#[derive(Debug)]
pub struct Detached {
    running: Running,
    /// They are watched for as long as this value is there.
    _clocks: Option<Watched>,
}

impl Child {
    /// Gives the tether up: from now on neither the end of this process nor dropping the handle ends what runs inside. Only
    /// with [`crate::Builder::allow_outliving_caller`], and for good.
    ///
    /// What holds on: everything that the kernel holds, so the whole fence and the limits of tree and process. What does
    /// not: the clocks ([`crate::Builder::wall_time`], [`crate::Builder::cpu_time`]) stop when [`Detached`] is dropped or this
    /// process ends; streams, channel and terminal are closed unless they were taken out of the child before, and a terminal
    /// that is closed sends SIGHUP. The sandbox still ends with its program. Its groups are removed by
    /// [`Detached::wait`]; else they stay, empty, until another process of the application makes a group in the same place, and
    /// a group that stands frozen then stays until somebody thaws it.
    ///
    /// # Errors
    /// Where the policy does not allow it, a thread of this process answers calls of the program, or a group cannot be marked
    /// (setxattr(2)). Then the child is dropped, and so ended.
    pub fn detach(self) -> Result<Detached> {
        let Self { running, clocks, .. } = self;
        let refused = |why: &str| Err(Error::new(ErrorKind::Process, Step::Tether, "child").detail(why));
        if running.fence.policy.hardening.tether != Tether::UntilDetached {
            return refused("the policy does not say allow_outliving_caller()");
        }
        if running.parent.is_worker() {
            return refused("a worker ends with its server");
        }
        if running.is_supervised() {
            return refused(
                "its filter notifies, and nobody would answer: use one without Notify and KillProcess",
            );
        }
        running.parent.detach()?;
        Ok(Detached { running, _clocks: clocks })
    }
}

impl Detached {
    /// The program's pid as this process sees it. For signals use the descriptor: a pid can be another process's by now.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.running.program.unsigned_abs()
    }

    /// The pid of the sandbox's init.
    #[must_use]
    pub fn init_id(&self) -> u32 {
        self.running.parent.pid().unsigned_abs()
    }

    /// A pidfd of the sandbox's init, for whoever is to look after it: readable when everything has ended; SIGKILL through it
    /// ends everything.
    ///
    /// # Errors
    /// Where the process can have no more descriptors.
    pub fn pidfd(&self) -> Result<OwnedFd> {
        sys::duplicate(self.as_fd().as_raw_fd(), 3)
            .map_err(|errno| Error::new(ErrorKind::Process, Step::Tether, "pidfd").call("fcntl", errno))
    }

    /// Another command in this sandbox, as [`Child::command`].
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::joining(&self.running, program.as_ref())
    }

    /// Waits for the end of everything inside, and removes the groups. `None`: init was killed before it could say how the
    /// program ended.
    ///
    /// # Errors
    /// Where waiting itself fails, or where the sandbox's init failed at a call: [`crate::Step::Init`].
    pub fn wait(&self) -> Result<Option<ExitStatus>> {
        self.running.parent.reap(Block::UntilExit)?;
        let status = self.running.parent.program_status().map(ExitStatus::from_wait);
        match (status, self.running.init_failure()) {
            (None, Some(error)) => Err(error),
            (status, _) => Ok(status),
        }
    }
}

impl AsFd for Detached {
    /// The pidfd of the sandbox's init: readable when everything has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.running.parent.pidfd()
    }
}
