//! Freezing with someone who watches: a frozen tree cannot see its caller's end, as its init is frozen too. It must not leave a
//! moment in which the tree stands and nobody watches.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::result::Result as StdResult;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::control::freezer;
use super::{FrozenBy, Group, Motion};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::machine::layout::{FD_SCRATCH, FD_SCRATCH_TARGET};
use crate::plan::Duty;
use crate::spawn::aide::Aide;

/// How long the watcher may take to be there.
const LIMIT: Duration = Duration::from_secs(5);

/// Whoever watches over a frozen tree, while it is frozen.
#[derive(Debug, Default)]
pub(in crate::spawn) struct Ward(Mutex<Option<Aide>>);

impl Ward {
    /// Freezes or thaws; `None` where no group can.
    pub(in crate::spawn) fn set_motion(
        &self,
        group: &Group,
        init: BorrowedFd<'_>,
        motion: Motion,
    ) -> Result<Option<FrozenBy>> {
        let mut watcher = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if motion == Motion::Frozen && watcher.is_none() {
            *watcher = watch(group, init)?;
        }
        let moved = group.set_motion(motion);
        // A freeze that failed was taken back.
        if motion == Motion::Thawed || moved.is_err() {
            *watcher = None;
        }
        moved
    }

    /// Nobody watches any more.
    pub(in crate::spawn) fn dismiss(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A process that ends the tree with this one.
fn watch(group: &Group, init: BorrowedFd<'_>) -> Result<Option<Aide>> {
    let Some((by, file)) = freezer(group) else { return Ok(None) };
    let (file, text) = release(by, &file);
    let failed = |call, errno| Error::new(ErrorKind::Process, Step::Cgroup, file.clone()).call(call, errno);
    let opened = OpenOptions::new().write(true).open(&file);
    let opened = opened.map_err(|error| failed("open", error.raw_os_error().unwrap_or(libc::EIO)))?;
    let fds = [(init.as_fd().as_raw_fd(), FD_SCRATCH), (opened.as_raw_fd(), FD_SCRATCH_TARGET)];
    let made: StdResult<Aide, _> = Aide::new(Duty::Ward(text), &fds, Instant::now() + LIMIT);
    made.map(Some).map_err(|(call, errno)| {
        failed(call, errno).detail("the process that would end the frozen tree with its caller")
    })
}

/// What lets a killed tree die: version 2 kills what is frozen, and everything in the group since Linux 5.14; version 1 holds
/// what is killed until it is thawed.
fn release(by: FrozenBy, file: &Path) -> (PathBuf, &'static str) {
    if by == FrozenBy::CgroupV1 {
        return (file.to_path_buf(), "THAWED");
    }
    let kill = file.with_file_name("cgroup.kill");
    if kill.try_exists().unwrap_or(false) { (kill, "1") } else { (file.to_path_buf(), "0") }
}
