//! A child that is set up and confined and waits before it becomes the program.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use super::child::Child;
use super::clock;
use super::cpu::Source;
use super::ends::Ends;
use super::living;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::policy::{Clocks, Need};
use crate::spawn::{Enforcement, Group, Running};

/// A confined child before its exec. Dropping it kills and reaps it.
#[derive(Debug)]
#[must_use = "dropping a held child kills it"]
pub struct Held {
    running: Running,
    ends: Ends,
    /// Under which it is listed among the living.
    name: Option<String>,
}

impl Held {
    pub(super) fn new(running: Running, ends: Ends) -> Self {
        let Ends { name, .. } = &ends;
        Self { running, name: name.clone(), ends }
    }

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

    /// What counts CPU time; the report says so where that is approximate.
    fn meter(&mut self, clocks: &Clocks) -> Result<Source> {
        if let Some(site) = &self.running.site {
            return Ok(match site.group().and_then(Group::cpu_file) {
                // What this command uses is counted there, and the sandbox's own clock ends both.
                Some(_) => Source::Elsewhere,
                None => self.tree(clocks),
            });
        }
        if let Some(file) = self.running.parent.group().and_then(Group::cpu_file) {
            return Ok(Source::Group(file));
        }
        match clocks.cpu.map(|limit| limit.need) {
            Some(Need::Required) => {
                let error = Error::new(ErrorKind::Setup, Step::Clocks, "cpu_time()");
                return Err(error.detail("the groups that were made do not count CPU time"));
            }
            Some(Need::Preferred) if shows_children() => {
                let note =
                    "cpu_time() is approximate: no group counts it, the times of the processes are summed";
                self.running.report.notes.push(note.into());
            }
            Some(Need::Preferred) | None => {}
        }
        Ok(self.tree(clocks))
    }

    /// The times of its processes, where the kernel shows which those are.
    fn tree(&mut self, clocks: &Clocks) -> Source {
        if clocks.cpu.is_none() || shows_children() {
            return Source::Tree { root: self.running.parent.pid() };
        }
        let note = "cpu_time() does not hold: no group counts it, and this kernel shows no process's children \
             (CONFIG_PROC_CHILDREN)";
        self.running.report.notes.push(note.into());
        Source::Elsewhere
    }

    /// Lets the child become the program.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Exec`] where the program could not be executed, [`crate::ErrorKind::Setup`] where a step of the
    /// command (working directory, descriptors) failed. The child is gone then.
    pub fn release(self) -> Result<Child> {
        let clocks = self.running.fence.policy.clocks().clone();
        self.release_with(clocks)
    }

    /// The same with other clocks than the policy's.
    #[expect(clippy::needless_pass_by_value, reason = "clocks are made for one release")]
    pub(super) fn release_with(mut self, clocks: Clocks) -> Result<Child> {
        let source = self.meter(&clocks)?;
        let tree = self.running.site.as_ref().map(|_| (self.running.parent.pid(), self.running.program));
        let ready = clock::prepare(&clocks, (self.running.parent.pidfd(), tree), source)?;
        let registered = self.name.take().map(|name| living::enter(name, &self.running)).transpose()?;
        let released = Instant::now();
        self.running.release()?;
        let expired = ready.map(|ready| ready.begin(released));
        Ok(Child { registered, ..Child::new(self.running, self.ends, expired) })
    }
}

impl AsFd for Held {
    /// The pidfd of the sandbox's first process.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.running.parent.pidfd()
    }
}

/// Whether the kernel tells whose children there are.
fn shows_children() -> bool {
    !matches!(Path::new("/proc/thread-self/children").try_exists(), Ok(false))
}
