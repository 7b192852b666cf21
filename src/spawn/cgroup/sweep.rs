//! Removes the groups that callers left who are no more. It must not touch a group whose owner may live.
//!
//! A group is swept if its name is one of this crate's, nobody holds its lock, and its owner is not among the processes that
//! can be judged from here. The lock alone tells across pid namespaces and containers; the process alone tells of a group
//! that is just being made and not locked yet. One that is marked as detached stays for as long as something is in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::control;
use super::dir;
use super::name;
use super::remove;
use crate::host::LEAF;

/// Where this process has swept, and when.
static SWEPT: Mutex<BTreeMap<(u32, PathBuf), Instant>> = Mutex::new(BTreeMap::new());
/// What was swept a moment ago needs no look.
const PAUSE: Duration = Duration::from_secs(10);

/// Sweeps below `parent`, unless this process did so a moment ago.
pub(super) fn sweep(parent: &Path) {
    let now = Instant::now();
    let last = SWEPT
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert((process::id(), parent.to_path_buf()), now);
    if last.is_some_and(|last| now.duration_since(last) < PAUSE) {
        return;
    }
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.filter_map(Result::ok) {
        let file_name = entry.file_name();
        let Some(name) = file_name.to_str() else { continue };
        let Some(owner) = name::owner(name) else { continue };
        if owner.lives() == Some(true) {
            continue;
        }
        let Ok(lock) = dir::lock(&entry.path()) else { continue };
        // An application was moved there, and what it has started lives on in it: nobody's sandbox.
        if name.starts_with(LEAF) {
            remove::at_once(&entry.path());
            continue;
        }
        // Its caller has let it go, or may have.
        if dir::is_detached(&entry.path()) != Ok(false) && !control::empty(&entry.path()) {
            continue;
        }
        // Nobody owns it: what runs there has lost its caller, and ends.
        control::kill_all_in(&entry.path());
        remove::remove(&entry.path());
        drop(lock);
    }
}

/// Sweeps in the scopes that callers have left in this slice. The manager takes away those that are empty then.
#[cfg(feature = "systemd")]
pub(super) fn sweep_scopes(slice: &Path) {
    let Ok(entries) = fs::read_dir(slice) else { return };
    for entry in entries.filter_map(Result::ok) {
        let file_name = entry.file_name();
        let owner = file_name.to_str().and_then(|name| name::owner(name.strip_suffix(".scope")?));
        if owner.is_some_and(|owner| owner.lives() != Some(true)) {
            sweep(&entry.path());
        }
    }
}
