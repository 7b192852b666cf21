//! The sandboxes of this process that were given a name and live. It must not keep anything alive, nor hold its lock while
//! somebody else's code or a call that may wait runs.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::spawn::{Group, Running, Stats};
use crate::sys;

/// Bytes of a name.
const NAME_MAX: usize = 64;

/// What is remembered of a child.
#[derive(Debug)]
struct Entry {
    name: String,
    program: u32,
    init: u32,
    since: Instant,
    /// The registry ends nothing by it: it only says whether the child lives.
    pidfd: OwnedFd,
    group: Option<Weak<Group>>,
    /// The process that it is a child of: a fork of the caller has none of these.
    process: u32,
}

static ENTRIES: Mutex<BTreeMap<u64, Weak<Entry>>> = Mutex::new(BTreeMap::new());

fn entries() -> MutexGuard<'static, BTreeMap<u64, Weak<Entry>>> {
    ENTRIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is wrong with a name.
pub(super) fn mistake(name: &str) -> Option<&'static str> {
    let bad = name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control);
    bad.then_some("a name has 1 to 64 bytes and no control character")
}

/// A place in the registry, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Registered {
    number: u64,
    entry: Arc<Entry>,
}

/// Enters a child that is about to run.
pub(super) fn enter(name: String, running: &Running) -> Result<Registered> {
    let failed = |errno| Error::new(ErrorKind::Setup, Step::Observe, "name").call("fcntl", errno);
    let pidfd = running.parent.pidfd().try_clone_to_owned();
    let pidfd = pidfd.map_err(|error| failed(error.raw_os_error().unwrap_or(libc::EMFILE)))?;
    let entry = Arc::new(Entry {
        name,
        program: running.program.unsigned_abs(),
        init: running.parent.pid().unsigned_abs(),
        since: Instant::now(),
        pidfd,
        group: running.parent.shared_group().as_ref().map(Arc::downgrade),
        process: process::id(),
    });
    let mut entries = entries();
    let number = entries.last_key_value().map_or(0, |(last, _)| last + 1);
    entries.insert(number, Arc::downgrade(&entry));
    drop(entries);
    Ok(Registered { number, entry })
}

impl Registered {
    pub(super) fn name(&self) -> &str {
        &self.entry.name
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // In a fork of the caller the lock can be held by a thread that is not there.
        if self.entry.process == process::id() {
            entries().remove(&self.number);
        }
    }
}

/// A living sandbox of this process, as it was when [`living`] looked.
#[derive(Clone, Debug)]
pub struct Living {
    entry: Arc<Entry>,
}

/// The sandboxes that this process has given a name ([`crate::Command::name`]) and that have not ended, oldest first. A fork
/// of this process has none of them.
#[must_use]
pub fn living() -> Vec<Living> {
    let known: Vec<Arc<Entry>> = entries().values().filter_map(Weak::upgrade).collect();
    let own = process::id();
    let lives = |entry: &Arc<Entry>| {
        entry.process == own && matches!(sys::poll_fd(entry.pidfd.as_fd(), 0), Ok(false))
    };
    known.into_iter().filter(lives).map(|entry| Living { entry }).collect()
}

impl Living {
    /// Its name. Several may have the same.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// The program's pid as this process sees it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.entry.program
    }

    /// The pid of the sandbox's first process.
    #[must_use]
    pub fn init_id(&self) -> u32 {
        self.entry.init
    }

    /// How long ago its program was released.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.entry.since.elapsed()
    }

    /// What its tree uses, as [`crate::Child::stats`] but for [`Stats::unread`], which stands in it here; `None` without a group.
    #[must_use]
    pub fn stats(&self) -> Option<Stats> {
        self.entry.group.as_ref()?.upgrade()?.stats()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_for_humans() {
        for name in ["job-17", "übung 3", &"x".repeat(64)] {
            assert_eq!(mistake(name), None, "{name:?}");
        }
        for name in ["", "a\nb", "\0", "\u{1b}[2J", &"x".repeat(65)] {
            assert!(mistake(name).is_some(), "{name:?}");
        }
    }
}
