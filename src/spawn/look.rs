//! Looks at what may be gone. It must not take a look that failed for one that found nothing.

use std::fs::{self, DirEntry};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::result::Result as StdResult;

use crate::error::{Error, ErrorKind, Step};
use crate::sys;

/// What the kernel says of a process, and of a group, that is gone.
const GONE: [i32; 3] = [libc::ENOENT, libc::ESRCH, libc::ENODEV];

/// A look that failed, as for want of a descriptor.
#[derive(Debug)]
pub(crate) struct Unseen {
    path: PathBuf,
    call: &'static str,
    errno: i32,
}

impl Unseen {
    pub(crate) fn new(path: &Path, call: &'static str, errno: i32) -> Self {
        Self { path: path.to_path_buf(), call, errno }
    }

    /// The same under the name that users know.
    pub(crate) fn named(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    pub(crate) fn error(self, step: Step) -> Error {
        Error::new(ErrorKind::Process, step, self.path).call(self.call, self.errno)
    }
}

/// What was seen, or nothing of what is gone.
pub(crate) fn there<T>(
    path: &Path,
    call: &'static str,
    seen: StdResult<T, i32>,
) -> StdResult<Option<T>, Unseen> {
    match seen {
        Ok(seen) => Ok(Some(seen)),
        Err(errno) if GONE.contains(&errno) => Ok(None),
        Err(errno) => Err(Unseen::new(path, call, errno)),
    }
}

/// The same of what std says.
pub(crate) fn io_there<T>(
    path: &Path,
    call: &'static str,
    seen: io::Result<T>,
) -> StdResult<Option<T>, Unseen> {
    there(path, call, seen.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)))
}

/// A pidfd; nothing where the process is gone, of which Linux before 6.9 may say EINVAL.
pub(crate) fn pidfd(pid: i32) -> StdResult<Option<OwnedFd>, Unseen> {
    match sys::open_pidfd(pid) {
        Err(libc::EINVAL) => Ok(None),
        opened => there(Path::new(&format!("/proc/{pid}")), "pidfd_open", opened),
    }
}

/// The entries of a directory; none where it is gone.
pub(crate) fn entries(dir: &Path) -> StdResult<Vec<DirEntry>, Unseen> {
    let mut found = Vec::new();
    let Some(entries) = io_there(dir, "opendir", fs::read_dir(dir))? else { return Ok(found) };
    for entry in entries {
        let Some(entry) = io_there(dir, "getdents64", entry)? else { break };
        found.push(entry);
    }
    Ok(found)
}

/// The children of the process with this directory in /proc, of its first `most` threads (proc_tid_children(5), since Linux
/// 3.5, `CONFIG_PROC_CHILDREN`: a kernel without it is one that cannot be looked at).
pub(crate) fn children(process: &Path, most: usize) -> StdResult<Vec<i32>, Unseen> {
    let mut found = Vec::new();
    for thread in entries(&process.join("task"))?.into_iter().take(most) {
        let thread = thread.path();
        let path = thread.join("children");
        let text = match io_there(&path, "read", fs::read_to_string(&path))? {
            Some(text) => text,
            // The thread may have ended in between; else the kernel has no such file.
            None if is_without(&thread, &path) => return Err(Unseen::new(&path, "open", libc::ENOENT)),
            None => continue,
        };
        found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Ok(found)
}

/// Whether the thread is there, before and after a look that has not found the file.
fn is_without(thread: &Path, file: &Path) -> bool {
    let looks = [thread, file, thread].map(Path::try_exists);
    matches!(looks, [Ok(true), Ok(false), Ok(true)])
}
