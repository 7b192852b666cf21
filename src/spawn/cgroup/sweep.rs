//! Removes the groups that callers left who are no more. It must not touch a group whose owner may live.
//!
//! A group is swept if its name is one of this crate's, nobody holds its lock, and its owner is not among the processes that
//! can be judged from here. The lock alone tells across pid namespaces and containers; the process alone tells of a group
//! that is just being made and not locked yet. One that is marked as detached stays for as long as something is in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, PoisonError};

use super::control;
use super::dir;
use super::name;
use super::remove;

/// Where this process has swept already.
static SWEPT: Mutex<BTreeSet<(u32, PathBuf)>> = Mutex::new(BTreeSet::new());

/// Sweeps below `parent`, the first time that this process makes a group there.
pub(super) fn once(parent: &Path) {
    let first =
        SWEPT.lock().unwrap_or_else(PoisonError::into_inner).insert((process::id(), parent.to_path_buf()));
    if !first {
        return;
    }
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.filter_map(Result::ok) {
        let Some(owner) = entry.file_name().to_str().and_then(name::owner) else { continue };
        if owner.lives() == Some(true) {
            continue;
        }
        let Ok(lock) = dir::lock(&entry.path()) else { continue };
        // Its caller has let it go.
        if dir::is_detached(&entry.path()) && !control::empty(&entry.path()) {
            continue;
        }
        // Nobody owns it: what runs there has lost its caller, and ends.
        control::kill_all_in(&entry.path());
        remove::remove(&entry.path());
        drop(lock);
    }
}
