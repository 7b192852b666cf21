//! How often what may befall a sandbox has befallen it, as its groups count, and the files that say so. It must not wait,
//! and must keep nothing open.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::Group;
use super::control::Motion;
use super::files;

/// Counts since the group was made; `None` where no group counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Memory went over `memory.high`.
    pub(crate) high: Option<u64>,
    /// Memory was at its limit.
    pub(crate) max: Option<u64>,
    /// Nothing could be reclaimed there (cgroup v2; version 1 has no count).
    pub(crate) oom: Option<u64>,
    /// Processes that the kernel ended for that.
    pub(crate) oom_kill: Option<u64>,
    /// Forks that the limit of processes refused.
    pub(crate) processes: Option<u64>,
    pub(crate) motion: Option<Motion>,
}

/// A file that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sheet {
    /// `memory.events` (cgroup v2).
    Memory,
    /// `pids.events` of cgroup v2.
    Processes,
    /// `cgroup.events` (cgroup v2).
    Group,
    /// `pids.events` of cgroup v1.
    LegacyProcesses,
    /// `memory.failcnt` (cgroup v1).
    LegacyFailures,
    /// `memory.oom_control` (cgroup v1).
    LegacyOom,
    /// `freezer.state` (cgroup v1).
    LegacyFreezer,
}

impl Sheet {
    /// Whether the kernel wakes who polls the file. Version 1's `pids.events` is one that some kernels notify of.
    pub(crate) fn is_notified(self) -> bool {
        match self {
            Self::Memory | Self::Processes | Self::Group | Self::LegacyProcesses => true,
            Self::LegacyFailures | Self::LegacyOom | Self::LegacyFreezer => false,
        }
    }
}

impl Tally {
    /// Takes what the text of a file says.
    pub(crate) fn take(&mut self, sheet: Sheet, text: &str) {
        let get = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
        };
        match sheet {
            Sheet::Memory => {
                (self.high, self.max, self.oom) = (get("high"), get("max"), get("oom"));
                self.oom_kill = get("oom_kill");
            }
            Sheet::Processes | Sheet::LegacyProcesses => self.processes = get("max"),
            Sheet::Group => {
                self.motion = get("frozen").map(|frozen| match frozen {
                    0 => Motion::Thawed,
                    _ => Motion::Frozen,
                });
            }
            Sheet::LegacyFailures => self.max = text.trim().parse().ok(),
            Sheet::LegacyOom => self.oom_kill = get("oom_kill"),
            Sheet::LegacyFreezer => {
                let frozen = text.trim() == "FROZEN";
                self.motion = Some(if frozen { Motion::Frozen } else { Motion::Thawed });
            }
        }
    }
}

impl Group {
    /// The files that count, where the groups have them. What version 2 counts is not looked for in version 1.
    pub(crate) fn sheets(&self) -> Vec<(Sheet, PathBuf)> {
        let mut sheets = Vec::new();
        let mut add = |sheet, dir: Option<&Path>, file: &str| {
            let path = dir.map(|dir| dir.join(file)).filter(|path| path.try_exists().unwrap_or(false));
            let found = path.is_some();
            sheets.extend(path.map(|path| (sheet, path)));
            found
        };
        let unified = self.unified_path();
        if !add(Sheet::Memory, unified, "memory.events") {
            let memory = self.legacy_path("memory");
            add(Sheet::LegacyFailures, memory, "memory.failcnt");
            add(Sheet::LegacyOom, memory, "memory.oom_control");
        }
        if !add(Sheet::Processes, unified, "pids.events") {
            add(Sheet::LegacyProcesses, self.legacy_path("pids"), "pids.events");
        }
        // A root group of version 2 has no such file; a group before Linux 5.2 says nothing of the freezer in it.
        let freezes = unified.is_some_and(|dir| dir.join("cgroup.freeze").try_exists().unwrap_or(false));
        if freezes {
            add(Sheet::Group, unified, "cgroup.events");
        } else {
            add(Sheet::LegacyFreezer, self.legacy_path("freezer"), "freezer.state");
        }
        sheets
    }

    /// The directory in version 2.
    pub(crate) fn unified_path(&self) -> Option<&Path> {
        self.unified.as_ref().map(|dir| dir.path())
    }

    /// The directory with this controller of version 1.
    pub(crate) fn legacy_path(&self, controller: &str) -> Option<&Path> {
        self.legacy_with(controller).map(|dir| dir.path())
    }

    /// From now on what was counted is kept when the groups go.
    pub(crate) fn keep_tally(&self) {
        self.watched.store(true, Ordering::SeqCst);
    }

    /// What was counted when the groups went; `None` before that.
    pub(crate) fn last_tally(&self) -> Option<Tally> {
        *self.last_tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before the groups go.
    pub(super) fn store_tally(&self) {
        if !self.watched.load(Ordering::SeqCst) {
            return;
        }
        let mut tally = Tally::default();
        for (sheet, path) in self.sheets() {
            if let Ok(text) = files::read(&path) {
                tally.take(sheet, &text);
            }
        }
        *self.last_tally.lock().unwrap_or_else(PoisonError::into_inner) = Some(tally);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_begin_alike_are_told_apart() {
        let mut tally = Tally::default();
        tally.take(Sheet::Memory, "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n");
        tally.take(Sheet::Processes, "max 6\n");
        tally.take(Sheet::Group, "populated 1\nfrozen 1\n");
        let whole = Tally {
            high: Some(1),
            max: Some(2),
            oom: Some(3),
            oom_kill: Some(4),
            processes: Some(6),
            motion: Some(Motion::Frozen),
        };
        assert_eq!(tally, whole);
    }

    #[test]
    fn version_1_counts_less() {
        let mut tally = Tally::default();
        tally.take(Sheet::LegacyFailures, "131\n");
        tally.take(Sheet::LegacyOom, "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
        tally.take(Sheet::LegacyFreezer, "FREEZING\n");
        assert_eq!((tally.max, tally.oom, tally.oom_kill), (Some(131), None, Some(1)));
        assert_eq!(tally.motion, Some(Motion::Thawed), "not yet");
        tally.take(Sheet::LegacyOom, "oom_kill_disable 0\nunder_oom 0\n");
        assert_eq!(tally.oom_kill, None, "before Linux 4.13");
        tally.take(Sheet::Memory, "");
        assert_eq!(tally.high, None);
    }
}
