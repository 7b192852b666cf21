//! Freezing, thawing and ending what is in the groups, each seen through to what the kernel shows. It must not wait without
//! a deadline.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::result::Result as StdResult;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Group;
use super::{files, remove};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys;

/// How long the kernel may take to freeze or empty a group.
const LIMIT: Duration = Duration::from_secs(5);

/// What holds a frozen sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrozenBy {
    /// `cgroup.freeze` (cgroup v2, since Linux 5.2): the whole tree, and what it makes.
    CgroupV2,
    /// `freezer.state` (cgroup v1): the whole tree. It also holds what is killed, until it is thawed.
    CgroupV1,
    /// SIGSTOP to the program and its descendants: approximate, as a process may be made meanwhile by one that was
    /// overlooked, and whoever may signal them can let them go on. The sandbox's init goes on.
    Stop,
}

impl Display for FrozenBy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupV2 => "cgroup v2",
            Self::CgroupV1 => "cgroup v1",
            Self::Stop => "SIGSTOP, approximate",
        })
    }
}

/// Frozen or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Motion {
    Frozen,
    Thawed,
}

/// The file that freezes, if one does: v2's is absent before Linux 5.2.
pub(super) fn freezer(group: &Group) -> Option<(FrozenBy, PathBuf)> {
    let unified = group.unified.as_ref().map(|dir| dir.path().join("cgroup.freeze"));
    if let Some(file) = unified.filter(|file| file.try_exists().unwrap_or(false)) {
        return Some((FrozenBy::CgroupV2, file));
    }
    let dir = group.legacy_with("freezer")?;
    Some((FrozenBy::CgroupV1, dir.path().join("freezer.state")))
}

impl Motion {
    fn reverse(self) -> Self {
        match self {
            Self::Frozen => Self::Thawed,
            Self::Thawed => Self::Frozen,
        }
    }
}

impl Group {
    /// Freezes or thaws, and waits until it is so; `None` where no group can.
    pub(crate) fn set_motion(&self, motion: Motion) -> Result<Option<FrozenBy>> {
        let Some((by, file)) = freezer(self) else { return Ok(None) };
        let failed = || Error::new(ErrorKind::Process, Step::Cgroup, file.clone());
        let begin = |refused: files::Refused| failed().call(refused.call, refused.errno);
        set(by, &file, motion).map_err(begin)?;
        let until = Instant::now() + LIMIT;
        let mut wait = Duration::from_micros(100);
        while !is(by, &file, motion) {
            if Instant::now() > until {
                // Half a freeze is none. Where that is refused too, the caller is told of the first failure.
                set(by, &file, motion.reverse()).ok();
                return Err(failed().detail(
                    "the kernel has not carried it out within 5 s, and it was taken back: a call that waits for a \
                     supervisor's answer cannot be frozen",
                ));
            }
            // The freezer of version 1 tries a process again only when it is told.
            set(by, &file, motion).map_err(begin)?;
            sleep(wait);
            wait = (wait * 2).min(Duration::from_millis(20));
        }
        Ok(Some(by))
    }

    /// Ends everything in the groups, or says what is left or cannot be looked into.
    pub(crate) fn end(&self) -> Result<()> {
        kill(self)?;
        if self.gone.load(Ordering::SeqCst) {
            remove::again(kill_in);
        }
        Ok(())
    }

    /// Whether the kernel shows no process in them.
    pub(crate) fn is_empty(&self) -> bool {
        is_empty(self)
    }
}

fn set(by: FrozenBy, file: &Path, motion: Motion) -> StdResult<(), files::Refused> {
    let text = match (by, motion) {
        (FrozenBy::CgroupV1, Motion::Frozen) => "FROZEN",
        (FrozenBy::CgroupV1, Motion::Thawed) => "THAWED",
        (_, Motion::Frozen) => "1",
        (_, Motion::Thawed) => "0",
    };
    files::write(file, text)
}

fn is(by: FrozenBy, file: &Path, motion: Motion) -> bool {
    if by == FrozenBy::CgroupV1 {
        let wanted = if motion == Motion::Frozen { "FROZEN" } else { "THAWED" };
        return files::read(file).is_ok_and(|seen| seen.trim() == wanted);
    }
    let wanted = if motion == Motion::Frozen { "1" } else { "0" };
    let events = file.with_file_name("cgroup.events");
    files::read(&events).is_ok_and(|text| {
        text.lines().any(|line| line.strip_prefix("frozen ").is_some_and(|value| value.trim() == wanted))
    })
}

/// Whether nothing is in the groups any more. One that is gone is empty; one that cannot be looked into may not be.
pub(super) fn is_empty(group: &Group) -> bool {
    group.dirs().all(|dir| empty(dir.path()))
}

pub(super) fn empty(dir: &Path) -> bool {
    look(dir).unwrap_or(false)
}

/// Whether it is empty; or why that is not known.
fn look(dir: &Path) -> StdResult<bool, files::Refused> {
    let seen = match files::read(&dir.join("cgroup.events")) {
        Ok(text) => Ok(text.lines().any(|line| line == "populated 0")),
        // Version 1 has none.
        Err(refused) if refused.errno == libc::ENOENT => {
            files::read(&dir.join("cgroup.procs")).map(|text| text.trim().is_empty())
        }
        Err(refused) => Err(refused),
    };
    match seen {
        // A stat needs no descriptor.
        Err(refused) if refused.errno == libc::ENODEV || matches!(dir.try_exists(), Ok(false)) => Ok(true),
        seen => seen,
    }
}

/// Ends everything in the groups of a sandbox: by `cgroup.kill` where there is one; else what is in them is frozen, so that
/// it makes nothing new, killed, and thawed, so that it dies.
pub(super) fn kill(group: &Group) -> Result<()> {
    let until = Instant::now() + LIMIT;
    let mut wait = Duration::from_micros(100);
    loop {
        group.dirs().for_each(|dir| kill_in(dir.path()));
        let mut looks = group.dirs().map(|dir| look(dir.path()));
        // Without descriptors or memory nothing can be ended this way, and waiting gives none.
        let all_empty =
            looks.try_fold(true, |all, empty| Ok(all && empty?)).map_err(|refused: files::Refused| {
                Error::new(ErrorKind::Process, Step::Kill, refused.file.clone())
                    .call(refused.call, refused.errno)
            })?;
        if all_empty {
            return Ok(());
        }
        if Instant::now() > until {
            let error = Error::new(ErrorKind::Process, Step::Kill, "group");
            return Err(error.detail(format!("processes are still in {:?}", group.name)));
        }
        sleep(wait);
        wait = (wait * 2).min(Duration::from_millis(50));
    }
}

/// Ends everything in one directory, whatever hierarchy it is of.
pub(super) fn kill_all_in(dir: &Path) {
    for _ in 0..100 {
        kill_in(dir);
        if empty(dir) {
            return;
        }
        sleep(Duration::from_millis(5));
    }
}

/// Once. A refusal shows in the group that is not empty afterwards.
pub(super) fn kill_in(dir: &Path) {
    if empty(dir) {
        return;
    }
    if files::write(&dir.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let freezers = [(FrozenBy::CgroupV2, "cgroup.freeze"), (FrozenBy::CgroupV1, "freezer.state")];
    let there = |name: &str| dir.join(name).try_exists().unwrap_or(false);
    let freezer = freezers.into_iter().find(|(_, name)| there(name));
    if let Some((by, name)) = freezer {
        set(by, &dir.join(name), Motion::Frozen).ok();
    }
    let text = files::read(&dir.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|line| line.trim().parse::<i32>().ok()) {
        // 0 stands for a process of another pid namespace. A pid that was read a moment ago may be another's by now: the
        // pidfd is of whoever has it, and only what is still in the group is meant.
        let Some(pidfd) = (pid > 0).then(|| sys::open_pidfd(pid).ok()).flatten() else { continue };
        let still = files::read(&dir.join("cgroup.procs")).unwrap_or_default();
        if still.lines().any(|line| line.trim() == pid.to_string()) {
            sys::send_signal(&pidfd, libc::SIGKILL).ok();
        }
    }
    if let Some((by, name)) = freezer {
        set(by, &dir.join(name), Motion::Thawed).ok();
    }
}
