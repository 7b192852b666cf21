//! Removes empty groups, and remembers those that could not be. It must not end a process.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

/// Tried so often, with twice the wait each time, from one millisecond: two seconds in all.
const TRIES: u32 = 11;

/// Groups that were still busy then: the next launch tries again.
static LEFT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes a group and those in it. What is dying is waited for: the kernel says EBUSY until the last process has let go.
pub(super) fn remove(path: &Path) {
    if !removed(path, TRIES) {
        LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_path_buf());
    }
}

/// Removes a group without waiting; whether it is gone.
pub(super) fn at_once(path: &Path) -> bool {
    removed(path, 1)
}

/// Tries those that were left; `end` is told of each that is still busy: nothing has a right to be in it any more.
pub(super) fn again(end: fn(&Path)) {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    left.retain(|path| {
        if at_once(path) {
            return false;
        }
        end(path);
        !at_once(path)
    });
}

fn removed(path: &Path, tries: u32) -> bool {
    for attempt in 0..tries {
        match fs::remove_dir(path) {
            Ok(()) => return true,
            Err(error) if error.kind() == ErrorKind::NotFound => return true,
            // A program that has been given a part of the tree may have made groups of its own.
            Err(_) => remove_below(path),
        }
        if attempt + 1 < tries {
            sleep(Duration::from_millis(1 << attempt));
        }
    }
    // Groups below may have gone with the last try.
    matches!(path.try_exists(), Ok(false))
}

fn remove_below(path: &Path) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            // The group above is tried again, and tells.
            fs::remove_dir(entry.path()).ok();
        }
    }
}
