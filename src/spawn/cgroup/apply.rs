//! Makes the groups of a launch and brings each limit down its ladder. It must not put a process anywhere but this one into
//! its leaf, and that only where the policy says so.

use std::path::Path;
use std::process;
use std::result::Result as StdResult;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::dir::Dir;
use super::failed::{Failed, ScopeFailed};
use super::files::{self, Refused};
use super::remove;
use super::report::LimitState;
use super::systemd;
use super::{Group, legacy_dir, name, needs_hard};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::plan::{
    Deed, GroupPlan, LegacyPlace, LimitPlan, LimitRung, Strength, UnifiedPlace, When, Write,
    device_instructions, legacy as lower_legacy, unified as lower_unified,
};
use crate::policy::{DeviceRule, GroupLimit, Need, OwnGroup};
use crate::sys;

/// Controllers that could not be enabled, and what refused each.
type Missing = Vec<(&'static str, Refused)>;

/// Groups that are being made. A group that is not handed over is removed.
struct Maker<'p> {
    plan: &'p GroupPlan,
    deadline: Instant,
    group: Group,
    /// Why there is no group of version 2 in one of the caller's own, or which controllers it does not have.
    unified: StdResult<Missing, String>,
    /// The same for one in a scope, once one was asked for.
    scope: Option<StdResult<Missing, ScopeFailed>>,
    /// The group was exchanged for one in a scope while limits were being written.
    exchanged: Exchanged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exchanged {
    No,
    Yes,
}

pub(super) fn make(plan: &GroupPlan, deadline: Instant) -> Result<Group> {
    let name = name::fresh().map_err(|refused| refused.error())?;
    let group = Group {
        name,
        unified: None,
        scope: None,
        legacy: Vec::new(),
        states: Mutex::new(Vec::new()),
        pending: Vec::new(),
        last: Mutex::new(None),
        last_tally: Mutex::new(None),
        refused: None,
        watched: AtomicBool::new(false),
        gone: AtomicBool::new(false),
    };
    let unified = Err(plan.no_unified.clone().unwrap_or_default());
    let mut maker = Maker { plan, deadline, group, unified, scope: None, exchanged: Exchanged::No };
    let first = maker.places();
    let mut states = maker.limits()?;
    if maker.exchanged == Exchanged::Yes {
        // What was written before the exchange is gone with the group that it was written in.
        maker.group.pending.clear();
        states = maker.limits()?;
    }
    if maker.group.dirs().next().is_none() {
        match first {
            Some(error) if plan.group == Some(Need::Required) => return Err(error),
            first => maker.group.refused = first.map(|error| error.to_string()),
        }
    }
    *maker.group.states.lock().unwrap_or_else(PoisonError::into_inner) = states;
    Ok(maker.group)
}

impl Maker<'_> {
    fn limits(&mut self) -> Result<Vec<LimitState>> {
        self.plan.limits.iter().map(|limit| self.limit(limit)).collect()
    }

    /// The groups that are made in any case; the first refusal.
    fn places(&mut self) -> Option<Error> {
        let mut first = None;
        if let Some(place) = &self.plan.unified {
            match fresh_in(&place.parent, &self.group.name, || enable(place, self.plan.own)) {
                Ok((dir, missing)) => (self.group.unified, self.unified) = (Some(dir), Ok(missing)),
                Err(refused) => {
                    self.unified = Err(refused.text());
                    first = Some(refused.error());
                }
            }
        }
        // What is asked for beside limits no ladder comes down to.
        let as_such = self.plan.group.is_some() || self.plan.limits.is_empty();
        if self.group.unified.is_none()
            && as_such
            && self.plan.scope.is_some()
            && let Err(failed) = self.enter_scope()
        {
            first = first.or(Some(failed.error()));
        }
        for place in self.plan.legacy.iter().filter(|place| place.when == When::Always) {
            if let Err(refused) = legacy_dir(&mut self.group.legacy, place, &self.group.name) {
                first = first.or(Some(refused.error()));
            }
        }
        first
    }

    /// A group in the scope of this process, where there is none of version 2 yet.
    fn enter_scope(&mut self) -> StdResult<(), ScopeFailed> {
        let made = self.group_in_scope();
        self.scope = Some(made.clone());
        made.map(drop)
    }

    fn group_in_scope(&mut self) -> StdResult<Missing, ScopeFailed> {
        let place = self.plan.scope.as_ref().ok_or(ScopeFailed::Unplanned)?;
        let scope = systemd::scope(place, self.deadline).map_err(ScopeFailed::Manager)?;
        let all = || enable_each(&scope.path().join("cgroup.subtree_control"), &place.enable, &Ok(()));
        let (dir, missing) = fresh_in(scope.path(), &self.group.name, all).map_err(ScopeFailed::Kernel)?;
        (self.group.unified, self.group.scope) = (Some(dir), Some(scope));
        Ok(missing)
    }

    /// The group in a scope that is to hold a limit.
    fn scope_dir(&mut self, plan: &LimitPlan) -> StdResult<&Dir, Failed> {
        if self.scope.is_none() {
            self.exchange(plan)?;
        }
        if let Some(Err(failed)) = &self.scope {
            return Err(Failed::Scope(failed.clone()));
        }
        self.group.unified.as_ref().ok_or_else(|| Failed::Other("there is no group".into()))
    }

    /// From a group of the caller's own to one in a scope, for a limit that has to be held.
    fn exchange(&mut self, plan: &LimitPlan) -> StdResult<(), Failed> {
        if self.group.unified.is_some() && plan.need == Need::Preferred {
            return Err(Failed::Other(
                "all processes are in the group of cgroup v2 that holds other limits".into(),
            ));
        }
        let own = self.group.unified.take();
        if let Err(failed) = self.enter_scope() {
            self.group.unified = own;
            return Err(Failed::Scope(failed));
        }
        if let Some(own) = own {
            remove::remove(own.path());
            self.unified = Err(format!("a group of the caller's own did not take {}", plan.limit));
            self.exchanged = Exchanged::Yes;
        }
        Ok(())
    }

    /// Down the ladder. A required limit that no rung holds is an error that names the first file that refused.
    fn limit(&mut self, plan: &LimitPlan) -> Result<LimitState> {
        let mut state = LimitState::wanted(&plan.limit, plan.need);
        let mut first: Option<(&'static str, i32)> = None;
        for rung in &plan.rungs {
            let deed = match &rung.deed {
                Ok(deed) => deed,
                Err(why) => {
                    state.reasons.push(format!("{}: {why}", rung.rung));
                    continue;
                }
            };
            if needs_hard(plan.need) && rung.strength != Strength::Hard {
                state.reasons.push(format!("{}: {}", rung.rung, rung.caveat.unwrap_or("approximate")));
                continue;
            }
            match self.carry_out(rung.rung, deed, plan) {
                Ok(by) => {
                    state.held((rung.rung, rung.strength), by, rung.caveat);
                    state.bounded_above(self.group.unified.as_ref());
                    if !needs_hard(plan.need) || state.strength == Strength::Hard {
                        return Ok(state);
                    }
                }
                Err(failed) => {
                    state.reasons.push(format!("{}: {}", rung.rung, failed.text()));
                    first = first.or_else(|| failed.call());
                }
            }
        }
        if plan.need == Need::Preferred {
            return Ok(state);
        }
        let error = Error::new(ErrorKind::Setup, Step::Cgroup, format!("limit {}", plan.limit));
        let error = match first {
            Some((call, errno)) => error.call(call, errno),
            None => error,
        };
        Err(error.detail(state.reasons.join("; ")))
    }

    fn carry_out(
        &mut self,
        rung: LimitRung,
        deed: &Deed,
        plan: &LimitPlan,
    ) -> StdResult<Option<String>, Failed> {
        match deed {
            Deed::Limit { resource, value } => {
                self.group.pending.push((plan.limit.clone(), *resource, *value));
                Ok(None)
            }
            Deed::DeviceProgram(rules) => {
                let dir =
                    if rung == LimitRung::Systemd { self.scope_dir(plan)? } else { self.unified_dir()? };
                device_program(dir, rules)
            }
            Deed::Files { controller, steps } => {
                let dir = match rung {
                    LimitRung::CgroupV2 => self.enabled(controller)?,
                    LimitRung::Systemd => {
                        self.scope_dir(plan)?;
                        self.enabled_in_scope(controller)?
                    }
                    LimitRung::CgroupV1 | LimitRung::ResourceLimit => self.legacy_dir(controller)?,
                };
                steps_in(dir, steps).map(Some).map_err(Failed::Refused)
            }
        }
    }

    /// The group of version 2, if the controller could be enabled for it.
    fn enabled(&self, controller: &str) -> StdResult<&Dir, Failed> {
        match missing(self.unified.as_ref().ok(), controller) {
            Some(refused) => Err(Failed::Refused(refused)),
            None => self.unified_dir(),
        }
    }

    fn enabled_in_scope(&self, controller: &str) -> StdResult<&Dir, Failed> {
        let missing = missing(self.scope.as_ref().and_then(|scope| scope.as_ref().ok()), controller);
        match (missing, &self.group.unified, &self.group.scope) {
            (Some(refused), _, Some(scope)) => {
                Err(Failed::Other(format!("{}: {}", scope.text(), refused.text())))
            }
            (None, Some(dir), _) => Ok(dir),
            _ => Err(Failed::Other("there is no group".into())),
        }
    }

    fn legacy_dir(&mut self, controller: &str) -> StdResult<&Dir, Failed> {
        let has = |place: &&LegacyPlace| place.controllers.iter().any(|name| name == controller);
        let place = self.plan.legacy.iter().find(has);
        let place = place.ok_or_else(|| Failed::Other("it was not planned".into()))?;
        legacy_dir(&mut self.group.legacy, place, &self.group.name).map_err(Failed::Refused)
    }

    fn unified_dir(&self) -> StdResult<&Dir, Failed> {
        let why = || Failed::Other(self.unified.as_ref().err().cloned().unwrap_or_default());
        self.group.unified.as_ref().filter(|_| self.group.scope.is_none()).ok_or_else(why)
    }
}

fn missing(list: Option<&Missing>, controller: &str) -> Option<Refused> {
    list.into_iter().flatten().find(|(name, _)| *name == controller).map(|(_, refused)| refused.clone())
}

/// A new group that takes processes, with what could not be enabled for it.
fn fresh_in(
    parent: &Path,
    name: &str,
    enable: impl FnOnce() -> Missing,
) -> StdResult<(Dir, Missing), Refused> {
    let dir = Dir::make(parent, name)?;
    let missing = enable();
    match takes_processes(&dir) {
        Ok(()) => Ok((dir, missing)),
        Err(refused) => {
            remove::remove(dir.path());
            Err(refused)
        }
    }
}

/// Writes each step to those of its files that exist. What was written, for the report.
fn steps_in(dir: &Dir, steps: &[Vec<Write>]) -> StdResult<String, Refused> {
    let mut told = Vec::new();
    for step in steps {
        let there = |write: &&Write| dir.path().join(&write.file).try_exists().unwrap_or(false);
        let some = step.iter().filter(there);
        // The refusal of one that is not there names it.
        let none = step.first().filter(|_| some.clone().next().is_none());
        for write in some.chain(none) {
            let file = dir.path().join(&write.file);
            files::write_and_compare(&file, &write.text, &write.shows)?;
            let seen = files::read(&file)
                .map_or_else(|_| write.text.clone(), |seen| seen.trim().replace('\n', ", "));
            told.push(format!("{} = {seen}", file.display()));
        }
    }
    told.dedup();
    Ok(told.join(", "))
}

fn device_program(dir: &Dir, rules: &[DeviceRule]) -> StdResult<Option<String>, Failed> {
    let by = format!("a BPF program on {}", dir.path().display());
    match sys::attach_device_program(dir.fd(), &device_instructions(rules)) {
        Ok(()) => Ok(Some(by)),
        Err((call, errno)) => Err(Failed::Refused(Refused::new(dir.path(), call, errno))),
    }
}

/// Enables what is needed in the parent, one by one, so that each refusal has its file; what could not be.
fn enable(place: &UnifiedPlace, own: OwnGroup) -> Missing {
    if place.enable.is_empty() {
        return Vec::new();
    }
    let mut free = is_free(&place.parent);
    if free.is_err() && own == OwnGroup::Manage {
        free = move_to_leaf(&place.parent).and_then(|()| is_free(&place.parent));
    }
    enable_each(&place.parent.join("cgroup.subtree_control"), &place.enable, &free)
}

fn enable_each(file: &Path, names: &[&'static str], free: &StdResult<(), Refused>) -> Missing {
    let enable = |name: &&'static str| {
        let written = free.clone().and_then(|()| files::write(file, &format!("+{name}")));
        written.err().map(|refused| (*name, refused))
    };
    names.iter().filter_map(enable).collect()
}

/// Only a group without processes may enable controllers, the root excepted. For some controllers the kernel would take the
/// write, and make threads' groups of those below, which hold no process (the kernel's admin-guide/cgroup-v2, "Threads").
fn is_free(parent: &Path) -> StdResult<(), Refused> {
    let is_root = matches!(parent.join("cgroup.type").try_exists(), Ok(false));
    let file = parent.join("cgroup.procs");
    if is_root || files::read(&file)?.trim().is_empty() {
        return Ok(());
    }
    Err(Refused::new(&file, "read", libc::EBUSY))
}

/// A group below one of threads takes no process.
fn takes_processes(dir: &Dir) -> StdResult<(), Refused> {
    let file = dir.path().join("cgroup.type");
    if files::read(&file)?.trim() == "domain" {
        return Ok(());
    }
    Err(Refused::new(&file, "read", libc::EOPNOTSUPP))
}

/// The leaf that this process lives in, and whose it is.
static LEAF: Mutex<Option<(u32, Dir)>> = Mutex::new(None);

/// Moves this process, with all its threads, below its own group.
fn move_to_leaf(parent: &Path) -> StdResult<(), Refused> {
    let mut leaf = LEAF.lock().unwrap_or_else(PoisonError::into_inner);
    let own = process::id();
    if leaf.as_ref().is_none_or(|(process, _)| *process != own) {
        *leaf = Some((own, Dir::make(parent, &name::fresh_leaf()?)?));
    }
    match leaf.as_ref() {
        Some((_, dir)) => files::write(&dir.path().join("cgroup.procs"), &own.to_string()),
        None => Ok(()),
    }
}

/// A limit of a group that is there.
pub(super) fn change(group: &Group, limit: &GroupLimit, states: &[LimitState]) -> Result<LimitState> {
    let memory = states
        .iter()
        .filter(|state| state.strength == Strength::Hard)
        .find_map(|state| if let GroupLimit::Memory(bytes) = state.limit { Some(bytes) } else { None });
    let mut state = LimitState::wanted(limit, Need::Required);
    let mut first: Option<(&'static str, i32)> = None;
    let in_unified = if group.scope.is_some() { LimitRung::Systemd } else { LimitRung::CgroupV2 };
    for (rung, lowered) in
        [(in_unified, lower_unified(limit)), (LimitRung::CgroupV1, lower_legacy(limit, memory))]
    {
        let (deed, strength, caveat) = match lowered {
            Ok(lowered) => lowered,
            Err(why) => {
                state.reasons.push(format!("{rung}: {why}"));
                continue;
            }
        };
        let tried = match (&deed, rung, &group.unified) {
            (Deed::Files { controller, steps }, LimitRung::CgroupV1, _) => {
                match group.legacy_with(controller) {
                    Some(dir) => legacy_steps(dir, steps, limit, states).map(Some).map_err(Failed::Refused),
                    None => Err(Failed::Other(format!("the sandbox has no group of {controller}"))),
                }
            }
            (Deed::Files { steps, .. }, _, Some(dir)) => {
                steps_in(dir, steps).map(Some).map_err(Failed::Refused)
            }
            (Deed::DeviceProgram(_), ..) => {
                Err(Failed::Other("a program that is attached is not changed".into()))
            }
            _ => Err(Failed::Other("the sandbox has no such group".into())),
        };
        match tried {
            Ok(by) => {
                state.held((rung, strength), by, caveat);
                state.bounded_above(group.unified.as_ref());
                return Ok(state);
            }
            Err(failed) => {
                state.reasons.push(format!("{rung}: {}", failed.text()));
                first = first.or_else(|| failed.call());
            }
        }
    }
    let error = Error::new(ErrorKind::Process, Step::Cgroup, format!("limit {limit}"));
    let error = match first.filter(|(_, errno)| *errno != 0) {
        Some((call, errno)) => error.call(call, errno),
        None => error,
    };
    Err(error.detail(state.reasons.join("; ")))
}

/// In cgroup v1 memory with swap is never below memory, so the one that grows goes first.
fn legacy_steps(
    dir: &Dir,
    steps: &[Vec<Write>],
    limit: &GroupLimit,
    states: &[LimitState],
) -> StdResult<String, Refused> {
    let swap = states
        .iter()
        .filter(|state| state.strength == Strength::Hard)
        .find_map(|state| if let GroupLimit::Swap(bytes) = state.limit { Some(bytes) } else { None });
    let (GroupLimit::Memory(memory), Some(swap)) = (limit, swap) else { return steps_in(dir, steps) };
    let Ok((Deed::Files { steps: both, .. }, ..)) = lower_legacy(&GroupLimit::Swap(swap), Some(*memory))
    else {
        return steps_in(dir, steps);
    };
    match steps_in(dir, &both) {
        Ok(first) => Ok(format!("{}, {first}", steps_in(dir, steps)?)),
        Err(_) => Ok(format!("{}, {}", steps_in(dir, steps)?, steps_in(dir, &both)?)),
    }
}
