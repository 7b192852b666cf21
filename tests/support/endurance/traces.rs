//! What a caller has and what it could leave behind: descriptors, threads, children, groups, mounts, files, memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use ringfence::Host;

/// All that is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    pub(crate) fds: usize,
    pub(crate) threads: usize,
    /// Children that have ended and that nobody has reaped.
    pub(crate) zombies: usize,
    /// Children that live.
    pub(crate) children: usize,
    /// Directories of control groups that this process made.
    pub(crate) groups: usize,
    pub(crate) mounts: usize,
    /// Entries of `/dev/shm`, and of the directory for temporary files, by this process's name.
    pub(crate) files: usize,
}

pub(crate) fn descriptors() -> usize {
    count("/proc/self/fd")
}

fn count(path: impl AsRef<Path>) -> usize {
    fs::read_dir(path).map_or(0, Iterator::count)
}

/// KiB of this process in RAM.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}

pub(crate) fn as_float(value: usize) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

/// The states of this process's children, of all of its threads.
fn children() -> Vec<char> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let own = process::id().to_string();
    let state = |path: PathBuf| {
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        let fields = stat.rsplit_once(')')?.1.to_owned();
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        (fields.next()? == own).then_some(state)
    };
    entries.flatten().filter_map(|entry| state(entry.path())).collect()
}

/// Directories below the groups of this process whose names say that the crate made them for it.
fn groups() -> usize {
    let host = Host::probe();
    let cgroups = host.cgroups();
    let mut places: Vec<PathBuf> = cgroups.legacy.iter().filter_map(|legacy| legacy.own.clone()).collect();
    places.extend(
        cgroups.unified.iter().flat_map(|unified| &unified.groups).map(|group| group.directory.clone()),
    );
    let parents: Vec<PathBuf> =
        places.iter().filter_map(|place| place.parent().map(Path::to_path_buf)).collect();
    places.extend(parents);
    places.sort();
    places.dedup();
    let own = format!("-{}-", process::id());
    let made = |name: &str| name.starts_with("ringfence") && name.contains(&own);
    let names = places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    names.filter(|entry| made(&entry.file_name().to_string_lossy())).count()
}

fn files() -> usize {
    let own = process::id().to_string();
    ["/dev/shm", "/tmp", "/var/tmp"]
        .iter()
        .filter_map(|place| fs::read_dir(place).ok())
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.contains("ringfence") && name.contains(&own)
        })
        .count()
}

impl Traces {
    pub(crate) fn now() -> io::Result<Self> {
        let children = children();
        Ok(Self {
            fds: descriptors(),
            threads: count("/proc/self/task"),
            zombies: children.iter().filter(|state| **state == 'Z').count(),
            children: children.iter().filter(|state| **state != 'Z').count(),
            groups: groups(),
            mounts: fs::read_to_string("/proc/self/mountinfo")?.lines().count(),
            files: files(),
        })
    }

    /// What is there once nothing moves any more, or is as little as it was `before`.
    pub(crate) fn settled(before: Option<&Self>, limit: Duration) -> io::Result<Self> {
        let begun = Instant::now();
        let mut last = Self::now()?;
        loop {
            thread::sleep(Duration::from_millis(300));
            let next = Self::now()?;
            let enough = match before {
                Some(before) => next.beyond(before).is_empty(),
                None => next == last,
            };
            if enough || begun.elapsed() > limit {
                return Ok(next);
            }
            last = next;
        }
    }

    /// What is more than before.
    pub(crate) fn beyond(&self, before: &Self) -> Vec<String> {
        [
            ("descriptors", self.fds, before.fds),
            ("threads", self.threads, before.threads),
            ("zombies", self.zombies, before.zombies),
            ("children", self.children, before.children),
            ("control groups", self.groups, before.groups),
            ("mounts", self.mounts, before.mounts),
            ("files", self.files, before.files),
        ]
        .into_iter()
        .filter(|(_, after, before)| after > before)
        .map(|(what, after, before)| format!("{what}: {before} before, {after} after"))
        .collect()
    }
}

/// The caller's memory in the course of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    looks: Vec<(usize, u64)>,
}

impl Memory {
    pub(crate) fn add(&mut self, done: usize, kib: u64) {
        self.looks.push((done, kib));
    }

    fn middle(looks: &[(usize, u64)]) -> i64 {
        let mut kib: Vec<u64> = looks.iter().map(|(_, kib)| *kib).collect();
        kib.sort_unstable();
        kib.get(kib.len() / 2).map_or(0, |kib| i64::try_from(*kib).unwrap_or(i64::MAX))
    }

    /// KiB from the middle of the second quarter to that of the last.
    pub(crate) fn growth(&self) -> i64 {
        let quarter = self.looks.len() / 4;
        if quarter < 2 {
            return 0;
        }
        Self::middle(&self.looks[3 * quarter..]) - Self::middle(&self.looks[quarter..2 * quarter])
    }

    /// Bytes for each spawn in that time.
    pub(crate) fn bytes_each(&self) -> f64 {
        let quarter = self.looks.len() / 4;
        let (Some(from), Some(to)) =
            (self.looks.get(quarter + quarter / 2), self.looks.get(3 * quarter + quarter / 2))
        else {
            return 0.0;
        };
        let growth = f64::from(i32::try_from(self.growth()).unwrap_or(i32::MAX)) * 1024.0;
        growth / as_float(to.0.saturating_sub(from.0).max(1))
    }

    /// First and last, KiB.
    pub(crate) fn ends(&self) -> (u64, u64) {
        (self.looks.first().map_or(0, |look| look.1), self.looks.last().map_or(0, |look| look.1))
    }
}
