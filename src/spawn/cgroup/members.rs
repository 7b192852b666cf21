//! Who is in the groups of a sandbox, and whether they stand still. It must not act on any of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path};

use super::control::Motion;
use super::files;
use super::{Group, Sheet, Tally};

impl Group {
    /// A directory, if there is one at all.
    pub(crate) fn any_path(&self) -> Option<&Path> {
        self.dirs().next().map(|dir| dir.path())
    }

    /// The pids in the groups and in those below, as this process sees them. One of another pid namespace is not among them.
    pub(crate) fn processes(&self) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        if let Some(dir) = self.any_path() {
            collect(dir, &mut found);
        }
        found
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
    pub(crate) fn motion(&self) -> Option<Motion> {
        let mut tally = Tally::default();
        let sheets = self.sheets();
        let (sheet, path) =
            sheets.iter().find(|(sheet, _)| matches!(sheet, Sheet::Group | Sheet::LegacyFreezer))?;
        tally.take(*sheet, &files::read(path).ok()?);
        tally.motion
    }
}

fn collect(dir: &Path, found: &mut BTreeSet<i32>) {
    let text = files::read(&dir.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 0));
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}
