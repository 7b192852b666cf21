//! The directory of one group, held open and locked: the lock says that its owner lives. It must not remove it.
//!
//! Whoever finds a group of this crate, from whatever pid namespace or container, takes the lock (flock(2)) to learn whether
//! someone still owns it: the kernel lets go of it with the last descriptor, however the owner ended.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::result::Result as StdResult;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::files::{self, Refused};
use crate::sys;

/// One group.
#[derive(Debug)]
pub(super) struct Dir {
    path: PathBuf,
    lock: Lock,
}

/// A directory that is locked until this is dropped.
#[derive(Debug)]
pub(super) struct Lock(OwnedFd);

impl Drop for Lock {
    fn drop(&mut self) {
        // A fork of this process holds the descriptor too, and is not the owner. Where that fails the last one's end unlocks.
        sys::unlock(&self.0).ok();
    }
}

impl Dir {
    /// `mkdir PARENT/NAME`, opened and locked.
    pub(super) fn make(parent: &Path, name: &str) -> StdResult<Self, Refused> {
        let path = parent.join(name);
        let failed =
            |call, error: &io::Error| Refused::new(&path, call, error.raw_os_error().unwrap_or(libc::EIO));
        fs::create_dir(&path).map_err(|error| failed("mkdir", &error))?;
        let taken = lock(&path).map_err(|(call, errno)| (call, errno.unwrap_or(libc::EWOULDBLOCK)));
        // Who sweeps may have taken it away before it was locked.
        let seen = taken.and_then(|lock| match fs::metadata(&path) {
            Ok(_) => Ok(lock),
            Err(error) => Err(("stat", error.raw_os_error().unwrap_or(libc::EIO))),
        });
        let lock = seen.map_err(|(call, errno)| {
            // It is empty, and nobody's if it is not ours.
            fs::remove_dir(&path).ok();
            Refused::new(&path, call, errno)
        })?;
        Ok(Self { path, lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.lock.0.as_fd()
    }
}

/// What a group is marked with whose sandbox may run on without an owner. Before Linux 5.7 a group takes no `user.` attribute,
/// and root's `trusted.` ones.
const MARKS: [&CStr; 2] = [c"user.ringfence.detached", c"trusted.ringfence.detached"];

/// Marks a group as one that is not to be ended for want of an owner.
pub(super) fn mark_detached(path: &Path) -> StdResult<(), Refused> {
    let [first, second] = MARKS;
    let marked = sys::set_attribute(path, first, b"1").or_else(|errno| {
        if errno == libc::EOPNOTSUPP { sys::set_attribute(path, second, b"1") } else { Err(errno) }
    });
    marked.map_err(|errno| Refused::new(path, "setxattr", errno))
}

/// Whether a group is marked so; an error where nobody can tell.
pub(super) fn is_detached(path: &Path) -> StdResult<bool, i32> {
    let [first, second] = MARKS.map(|mark| sys::attribute_is(path, mark, b"1"));
    Ok(first? || second?)
}

/// Takes the lock; without an errno where someone else has it.
pub(super) fn lock(path: &Path) -> StdResult<Lock, (&'static str, Option<i32>)> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mut fd = open(path, flags, Mode::empty()).map_err(|errno| ("open", Some(errno as i32)))?;
    if fd.as_raw_fd() < 3 {
        fd = sys::duplicate(fd.as_raw_fd(), 3).map_err(|errno| ("fcntl", Some(errno)))?;
    }
    match sys::lock_at_once(&fd) {
        Ok(()) => Ok(Lock(fd)),
        Err(errno) => Err(("flock", (errno != libc::EWOULDBLOCK).then_some(errno))),
    }
}

/// A new group of version 1's cpuset has no CPU and no memory node, and then takes no process (cpusets(7)).
pub(super) fn copy_cpuset(parent: &Path, group: &Path) -> StdResult<(), Refused> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = files::read(&parent.join(file))?;
        files::write(&group.join(file), value.trim())?;
    }
    Ok(())
}
