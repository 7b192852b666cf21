//! The caller's half of control groups: it makes them, writes limits before anything is in them, puts the child there,
//! reads back, counts, freezes, kills, and removes. It must not touch a group that it did not make, but for controllers that
//! it enables in the parent.

mod apply;
mod control;
mod dir;
mod failed;
mod files;
mod members;
mod name;
mod protection;
mod remove;
mod report;
mod stats;
mod stop;
mod sweep;
#[cfg(feature = "systemd")]
mod systemd;
#[cfg(not(feature = "systemd"))]
#[path = "unbuilt.rs"]
mod systemd;
mod tally;
mod ward;
mod weight;

pub use control::FrozenBy;
pub(crate) use control::Motion;
pub use report::LimitState;
pub(crate) use stats::CpuFile;
pub use stats::{CpuStats, IoStats, MemoryStats, Pressure, ProcessStats, Stall, Stats, Unread};
pub(crate) use stats::{io_stat as group_io, stall as group_stall};
pub(crate) use stop::{end_tree, set_motion as stop_tree};
pub(crate) use tally::{Sheet, Tally};
pub(super) use ward::Ward;

use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::result::Result as StdResult;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use self::dir::Dir;
use self::files::Refused;
use self::systemd::{Moves, Scope};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::host::{Features, Host};
use crate::plan::{GroupPlan, Join, LegacyPlace, Plan, Strength};
use crate::policy::{CpuSet, GroupLimit, Need, Resource};
use crate::sys::{self, CloneHow};

/// The group of one hierarchy of version 1.
#[derive(Debug)]
struct LegacyDir {
    controllers: Vec<String>,
    dir: Dir,
}

/// The groups of one sandbox. Dropping it ends what is in them and removes them.
#[derive(Debug)]
pub(crate) struct Group {
    name: String,
    unified: Option<Dir>,
    /// The scope of systemd in which that one lies, if it does.
    scope: Option<Arc<Scope>>,
    legacy: Vec<LegacyDir>,
    /// As they were when the program was about to run, and as they were changed since.
    states: Mutex<Vec<LimitState>>,
    /// Limits of the program's process, for what no group could hold.
    pending: Vec<(GroupLimit, Resource, u64)>,
    last: Mutex<Option<Stats>>,
    last_tally: Mutex<Option<Tally>>,
    /// Why there is none at all, where only preferred ones could be made and were not.
    refused: Option<String>,
    /// Whether someone wants to know the last tally.
    watched: AtomicBool,
    gone: AtomicBool,
}

impl Group {
    /// Makes the groups and writes the limits.
    pub(super) fn make(plan: &GroupPlan, deadline: Instant) -> Result<Self> {
        // What a freezer of version 1 holds dies in no hierarchy before it is thawed: so that one comes first.
        let freezes = |place: &&LegacyPlace| place.controllers.iter().any(|name| name == "freezer");
        let first = plan.legacy.iter().filter(freezes).map(|place| &place.parent);
        let unified = plan.unified.iter().map(|place| &place.parent);
        for place in first.chain(unified).chain(plan.legacy.iter().map(|place| &place.parent)) {
            sweep::sweep(place);
        }
        remove::again(control::kill_in);
        apply::make(plan, deadline)
    }

    /// The descriptor of the group that the child can be made in.
    fn clone_into(&self) -> Option<RawFd> {
        let mine = self.unified.as_ref().filter(|_| !self.moved_by_manager());
        mine.map(|dir| dir.fd().as_raw_fd())
    }

    fn moved_by_manager(&self) -> bool {
        self.scope.as_ref().is_some_and(|scope| scope.moves() == Moves::ByManager)
    }

    fn dirs(&self) -> impl Iterator<Item = &Dir> {
        self.unified.iter().chain(self.legacy.iter().map(|legacy| &legacy.dir))
    }

    fn legacy_with(&self, controller: &str) -> Option<&Dir> {
        let has = |legacy: &&LegacyDir| legacy.controllers.iter().any(|name| name == controller);
        self.legacy.iter().find(has).map(|legacy| &legacy.dir)
    }

    /// Puts a process, and what it will make, into every group that it was not made in.
    pub(super) fn join(&self, join: Join, pid: i32, deadline: Instant) -> Result<()> {
        if let Some(scope) = self.scope.as_ref().filter(|_| self.moved_by_manager()) {
            scope.attach(&self.name, pid, deadline).map_err(|refused| refused.error())?;
        }
        let unified = self.unified.as_ref().filter(|_| !join.clones() && !self.moved_by_manager());
        for dir in unified.into_iter().chain(self.legacy.iter().map(|legacy| &legacy.dir)) {
            files::write(&dir.path().join("cgroup.procs"), &pid.to_string())
                .map_err(|refused| refused.error())?;
        }
        Ok(())
    }

    /// The confined child is where it should be, and bounded where no group could do that; what became of each limit.
    pub(super) fn confirm(&self, init: i32, program: i32) -> Result<Vec<LimitState>> {
        for pid in [init, program] {
            self.verify(pid)?;
            self.verify_cpuset(pid)?;
        }
        self.bound_program(program);
        Ok(self.states())
    }

    /// Bounds the program's own process, and says what came of it.
    fn bound_program(&self, program: i32) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        for (limit, resource, value) in &self.pending {
            let (number, name) = resource.number();
            let set = sys::set_limit(program, number, [*value, *value]);
            if let Some(state) = states.iter_mut().find(|state| state.limit == *limit) {
                state.bounded(name, *value, set);
            }
        }
    }

    /// Compares the kernel's word on where a process is with what was made.
    fn verify(&self, pid: i32) -> Result<()> {
        let file = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = files::read(&file).map_err(|refused| refused.error())?;
        let wrong = |seen: &str| {
            let error = Error::new(ErrorKind::Setup, Step::Verify, file.clone());
            Err(error.detail(format!("{seen:?}, wanted the group {:?}", self.name)))
        };
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let ours = if controllers.is_empty() {
                self.unified.is_some()
            } else {
                controllers.split(',').any(|name| self.legacy_with(name).is_some())
            };
            if ours && Path::new(path).file_name().is_none_or(|name| name != self.name.as_str()) {
                return wrong(line);
            }
        }
        Ok(())
    }

    /// The process may use no other CPU or memory node than its group: some kernels make a child in a group and leave it
    /// its parent's.
    fn verify_cpuset(&self, pid: i32) -> Result<()> {
        let file = PathBuf::from(format!("/proc/{pid}/status"));
        let states = self.states();
        let held = states.iter().filter(|state| state.strength == Strength::Hard);
        for state in held {
            let (limit, name) = if let GroupLimit::Cpus(set) = &state.limit {
                (set, "Cpus_allowed_list:")
            } else if let GroupLimit::Mems(set) = &state.limit {
                (set, "Mems_allowed_list:")
            } else {
                continue;
            };
            let text = files::read(&file).map_err(|refused| refused.error())?;
            let seen = text.lines().find_map(|line| CpuSet::parse(line.strip_prefix(name)?));
            if !seen.as_ref().is_some_and(|seen| seen.iter().all(|number| limit.contains(number))) {
                let error = Error::new(ErrorKind::Setup, Step::Verify, file);
                return Err(error.detail(format!("{name} {seen:?}, wanted no more than {limit}")));
            }
        }
        Ok(())
    }

    /// Where a group as such was only preferred and there is none.
    pub(super) fn note(&self, plan: Option<&GroupPlan>) -> Option<String> {
        let plan = plan.filter(|plan| plan.group.is_some() && self.dirs().next().is_none())?;
        Some(match (&self.refused, plan.no_unified.as_deref().unwrap_or("it took none")) {
            (Some(refused), _) => format!("no control group of its own: {refused}"),
            (None, unified) => format!(
                "no control group of its own: cgroup v2: {unified}; cgroup v1: no hierarchy that takes one"
            ),
        })
    }

    /// What holds of each limit.
    pub(crate) fn states(&self) -> Vec<LimitState> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is used now; once the groups are gone, what was used when they went.
    pub(crate) fn stats(&self) -> Option<Stats> {
        if !self.gone.load(Ordering::SeqCst) {
            return stats::read(self).or_else(|| self.last_stats());
        }
        self.last_stats()
    }

    /// What counts the CPU time of the tree, where a group does.
    pub(crate) fn cpu_file(&self) -> Option<CpuFile> {
        CpuFile::of(self)
    }

    /// Whether the kernel has ended a process of the tree for want of memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        self.stats().is_some_and(|stats| stats.memory.oom_kills > Some(0))
    }

    fn last_stats(&self) -> Option<Stats> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sandbox has ended: counts once more, ends what is left, removes the groups.
    pub(super) fn finish(&self) {
        if self.gone.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(stats) = stats::read(self) {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(stats);
        }
        self.store_tally();
        // Removing needs no descriptor, and shows that a group was empty.
        let busy: Vec<&Path> =
            self.dirs().map(|dir| dir.path()).filter(|path| !remove::at_once(path)).collect();
        if !busy.is_empty() {
            // A drop has nobody to tell; what cannot be removed is tried again by the next launch.
            control::kill(self).ok();
        }
        busy.into_iter().for_each(remove::remove);
    }

    /// From now on nobody has to own the groups while something is in them.
    pub(super) fn mark_detached(&self) -> Result<()> {
        let marked = self.dirs().try_for_each(|dir| dir::mark_detached(dir.path()));
        marked.map_err(|refused| {
            let error = Error::new(ErrorKind::Process, Step::Cgroup, refused.file.clone());
            error.call(refused.call, refused.errno)
        })
    }

    /// Leaves what is in the groups to itself, and the groups to who sweeps.
    pub(super) fn abandon(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }

    /// Changes a limit. Nothing changes where the kernel refuses.
    pub(crate) fn set_limit(&self, limit: &GroupLimit) -> Result<LimitState> {
        let gone = self.gone.load(Ordering::SeqCst);
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        if gone {
            let error = Error::new(ErrorKind::Process, Step::Cgroup, format!("limit {limit}"));
            return Err(error.detail("the sandbox has ended"));
        }
        let state = apply::change(self, limit, &states)?;
        match states.iter_mut().find(|old| old.limit.replaces(limit)) {
            Some(old) => *old = state.clone(),
            None => states.push(state.clone()),
        }
        Ok(state)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Refused {
    /// As the error of a launch.
    fn error(&self) -> Error {
        let error = Error::new(ErrorKind::Setup, Step::Cgroup, self.file.clone()).call(self.call, self.errno);
        match files::remedy(self) {
            Some(remedy) => error.detail(remedy),
            None => error,
        }
    }
}

/// In its group from the first instruction, where the kernel can do that.
pub(super) fn clone_how(host: &Host, plan: &Plan, group: Option<&Group>) -> CloneHow {
    let clones = plan.group.as_ref().is_some_and(|plan| plan.join.clones());
    match group.filter(|_| clones).and_then(Group::clone_into) {
        Some(group) => CloneHow::Clone3Into(group),
        None if host.features().contains(Features::CLONE3) => CloneHow::Clone3,
        None => CloneHow::Clone,
    }
}

/// A group of version 1 that is made when a limit comes down to it.
fn legacy_dir<'g>(
    legacy: &'g mut Vec<LegacyDir>,
    place: &LegacyPlace,
    name: &str,
) -> StdResult<&'g Dir, Refused> {
    let index = legacy.iter().position(|made| made.controllers == place.controllers);
    let index = match index {
        Some(index) => index,
        None => {
            let dir = Dir::make(&place.parent, name)?;
            if place.controllers.iter().any(|controller| controller == "cpuset") {
                dir::copy_cpuset(&place.parent, dir.path()).inspect_err(|_| remove::remove(dir.path()))?;
            }
            legacy.push(LegacyDir { controllers: place.controllers.clone(), dir });
            legacy.len() - 1
        }
    };
    legacy.get(index).map(|made| &made.dir).ok_or_else(|| Refused::new(&place.parent, "mkdir", libc::ENOENT))
}

/// Whether the state of a required limit may be less than hard: never.
fn needs_hard(need: Need) -> bool {
    need == Need::Required
}
