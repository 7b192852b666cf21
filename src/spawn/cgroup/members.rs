//! Who is in the groups of a sandbox, and whether they stand still. It must not act on any of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path};
use std::result::Result as StdResult;

use super::control::Motion;
use super::{Group, Sheet, Tally};
use crate::spawn::look::{Unseen, entries, io_there};

impl Group {
    /// A directory, if there is one at all.
    pub(crate) fn any_path(&self) -> Option<&Path> {
        self.dirs().next().map(|dir| dir.path())
    }

    /// The pids in the groups and in those below, as this process sees them. One of another pid namespace is not among them.
    pub(crate) fn processes(&self) -> StdResult<BTreeSet<i32>, Unseen> {
        let mut found = BTreeSet::new();
        if let Some(dir) = self.any_path() {
            collect(dir, &mut found)?;
        }
        Ok(found)
    }

    /// Whether a process with this `/proc/PID/cgroup` is in one of them, or below.
    pub(crate) fn is_named_in(&self, text: &str) -> bool {
        let named = |path: &str| {
            Path::new(path)
                .components()
                .any(|part| matches!(part, Component::Normal(name) if name == self.name.as_str()))
        };
        text.lines().any(|line| line.splitn(3, ':').nth(2).is_some_and(named))
    }

    /// Whether they are frozen, where a group can be.
    pub(crate) fn motion(&self) -> StdResult<Option<Motion>, Unseen> {
        let mut tally = Tally::default();
        let sheets = self.sheets();
        let freezer = sheets.iter().find(|(sheet, _)| matches!(sheet, Sheet::Group | Sheet::LegacyFreezer));
        let Some((sheet, path)) = freezer else { return Ok(None) };
        if let Some(text) = io_there(path, "read", fs::read_to_string(path))? {
            tally.take(*sheet, &text);
        }
        Ok(tally.motion)
    }
}

fn collect(dir: &Path, found: &mut BTreeSet<i32>) -> StdResult<(), Unseen> {
    let path = dir.join("cgroup.procs");
    // EOPNOTSUPP: what runs inside has made it a group of threads (cgroups(7)), whose processes are in the one above.
    let seen = match fs::read_to_string(&path) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => None,
        read => io_there(&path, "read", read)?,
    };
    let pids = seen.unwrap_or_default();
    found.extend(pids.lines().filter_map(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 0));
    for entry in entries(dir)? {
        let path = entry.path();
        if io_there(&path, "lstat", entry.file_type())?.is_some_and(|kind| kind.is_dir()) {
            collect(&path, found)?;
        }
    }
    Ok(())
}
