//! Makes the groups of a launch and brings each limit down its ladder. It must not put a process anywhere but this one into
//! its leaf, and that only where the policy says so.

use std::path::Path;
use std::process;
use std::result::Result as StdResult;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use super::dir::Dir;
use super::files::{self, Refused};
use super::remove;
use super::report::LimitState;
use super::{Group, legacy_dir, name, needs_hard};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::plan::{
    Deed, GroupPlan, LegacyPlace, LimitPlan, LimitRung, Strength, UnifiedPlace, When, Write,
    device_instructions, legacy as lower_legacy, unified as lower_unified,
};
use crate::policy::{DeviceRule, GroupLimit, Need, OwnGroup};
use crate::sys;

/// Groups that are being made. A group that is not handed over is removed.
struct Maker<'p> {
    plan: &'p GroupPlan,
    group: Group,
    /// Why there is no group of version 2, or which controllers it does not have.
    unified: StdResult<Vec<(&'static str, Refused)>, String>,
}

pub(super) fn make(plan: &GroupPlan) -> Result<Group> {
    let name = name::fresh().map_err(|refused| refused.error())?;
    let group = Group {
        name,
        unified: None,
        legacy: Vec::new(),
        states: Mutex::new(Vec::new()),
        pending: Vec::new(),
        last: Mutex::new(None),
        last_tally: Mutex::new(None),
        watched: AtomicBool::new(false),
        gone: AtomicBool::new(false),
    };
    let mut maker = Maker { plan, group, unified: Err(plan.no_unified.clone().unwrap_or_default()) };
    let first = maker.places();
    let mut states = Vec::new();
    for limit in &plan.limits {
        states.push(maker.limit(limit)?);
    }
    if plan.group == Some(Need::Required)
        && maker.group.dirs().next().is_none()
        && let Some(refused) = first
    {
        return Err(refused.error());
    }
    *maker.group.states.lock().unwrap_or_else(PoisonError::into_inner) = states;
    Ok(maker.group)
}

impl Maker<'_> {
    /// The groups that are made in any case; the first refusal.
    fn places(&mut self) -> Option<Refused> {
        let mut first = None;
        if let Some(place) = &self.plan.unified {
            match Dir::make(&place.parent, &self.group.name) {
                Ok(dir) => {
                    self.unified = Ok(enable(place, self.plan.own));
                    match takes_processes(&dir) {
                        Ok(()) => self.group.unified = Some(dir),
                        Err(refused) => {
                            remove::remove(dir.path());
                            self.unified = Err(refused.text());
                            first = Some(refused);
                        }
                    }
                }
                Err(refused) => {
                    self.unified = Err(refused.text());
                    first = Some(refused);
                }
            }
        }
        for place in self.plan.legacy.iter().filter(|place| place.when == When::Always) {
            if let Err(refused) = legacy_dir(&mut self.group.legacy, place, &self.group.name) {
                first = first.or(Some(refused));
            }
        }
        first
    }

    /// Down the ladder. A required limit that no rung holds is an error that names the first file that refused.
    fn limit(&mut self, plan: &LimitPlan) -> Result<LimitState> {
        let mut state = LimitState::wanted(&plan.limit, plan.need);
        let mut first: Option<Refused> = None;
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
            match self.carry_out(rung.rung, deed, &plan.limit) {
                Ok(by) => {
                    (state.strength, state.rung, state.by) = (rung.strength, Some(rung.rung), by);
                    state.reasons.extend(rung.caveat.map(str::to_owned));
                    return Ok(state);
                }
                Err(Failed::Refused(refused)) => {
                    state.reasons.push(format!("{}: {}", rung.rung, refused.text()));
                    first = first.or(Some(refused));
                }
                Err(Failed::Other(why)) => state.reasons.push(format!("{}: {why}", rung.rung)),
            }
        }
        if plan.need == Need::Preferred {
            return Ok(state);
        }
        let error = Error::new(ErrorKind::Setup, Step::Cgroup, format!("limit {}", plan.limit));
        let error = match first {
            Some(refused) => error.call(refused.call, refused.errno),
            None => error,
        };
        Err(error.detail(state.reasons.join("; ")))
    }

    fn carry_out(
        &mut self,
        rung: LimitRung,
        deed: &Deed,
        limit: &GroupLimit,
    ) -> StdResult<Option<String>, Failed> {
        match deed {
            Deed::Limit { resource, value } => {
                self.group.pending.push((limit.clone(), *resource, *value));
                Ok(None)
            }
            Deed::DeviceProgram(rules) => {
                let dir = self.unified_dir()?;
                device_program(dir, rules)
            }
            Deed::Files { controller, steps } => {
                let dir = match rung {
                    LimitRung::CgroupV2 => self.enabled(controller)?,
                    LimitRung::Systemd | LimitRung::CgroupV1 | LimitRung::ResourceLimit => {
                        self.legacy_dir(controller)?
                    }
                };
                steps_in(dir, steps).map(Some).map_err(Failed::Refused)
            }
        }
    }

    /// The group of version 2, if the controller could be enabled for it.
    fn enabled(&self, controller: &str) -> StdResult<&Dir, Failed> {
        let missing = self.unified.iter().flatten().find(|(name, _)| *name == controller);
        match missing {
            Some((_, refused)) => Err(Failed::Refused(refused.clone())),
            None => self.unified_dir(),
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
        self.group.unified.as_ref().ok_or_else(why)
    }
}

/// Why a rung did not hold.
enum Failed {
    Refused(Refused),
    Other(String),
}

/// Writes each step to the first of its files that exists. What was written, for the report.
fn steps_in(dir: &Dir, steps: &[Vec<Write>]) -> StdResult<String, Refused> {
    let mut told = Vec::new();
    for step in steps {
        let there = |write: &&Write| dir.path().join(&write.file).try_exists().unwrap_or(false);
        let Some(write) = step.iter().find(there).or_else(|| step.first()) else { continue };
        let file = dir.path().join(&write.file);
        files::write_and_compare(&file, &write.text, &write.shows)?;
        let seen =
            files::read(&file).map_or_else(|_| write.text.clone(), |seen| seen.trim().replace('\n', ", "));
        told.push(format!("{} = {seen}", file.display()));
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
fn enable(place: &UnifiedPlace, own: OwnGroup) -> Vec<(&'static str, Refused)> {
    if place.enable.is_empty() {
        return Vec::new();
    }
    let mut free = is_free(&place.parent);
    if free.is_err() && own == OwnGroup::Manage {
        free = move_to_leaf(&place.parent).and_then(|()| is_free(&place.parent));
    }
    let file = place.parent.join("cgroup.subtree_control");
    let enable = |name: &&'static str| {
        let written = free.clone().and_then(|()| files::write(&file, &format!("+{name}")));
        written.err().map(|refused| (*name, refused))
    };
    place.enable.iter().filter_map(enable).collect()
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
    let mut first: Option<Refused> = None;
    for (rung, lowered) in
        [(LimitRung::CgroupV2, lower_unified(limit)), (LimitRung::CgroupV1, lower_legacy(limit, memory))]
    {
        let (deed, strength, caveat) = match lowered {
            Ok(lowered) => lowered,
            Err(why) => {
                state.reasons.push(format!("{rung}: {why}"));
                continue;
            }
        };
        let tried = match (&deed, rung, &group.unified) {
            (Deed::Files { steps, .. }, LimitRung::CgroupV2, Some(dir)) => {
                steps_in(dir, steps).map(Some).map_err(Failed::Refused)
            }
            (Deed::Files { controller, steps }, LimitRung::CgroupV1, _) => {
                match group.legacy_with(controller) {
                    Some(dir) => legacy_steps(dir, steps, limit, states).map(Some).map_err(Failed::Refused),
                    None => Err(Failed::Other(format!("the sandbox has no group of {controller}"))),
                }
            }
            (Deed::DeviceProgram(_), ..) => {
                Err(Failed::Other("a program that is attached is not changed".into()))
            }
            _ => Err(Failed::Other("the sandbox has no such group".into())),
        };
        match tried {
            Ok(by) => {
                (state.strength, state.rung, state.by) = (strength, Some(rung), by);
                state.reasons.extend(caveat.map(str::to_owned));
                return Ok(state);
            }
            Err(Failed::Refused(refused)) => {
                state.reasons.push(format!("{rung}: {}", refused.text()));
                first = first.or(Some(refused));
            }
            Err(Failed::Other(why)) => state.reasons.push(format!("{rung}: {why}")),
        }
    }
    let error = Error::new(ErrorKind::Process, Step::Cgroup, format!("limit {limit}"));
    let error = match first.filter(|refused| refused.errno != 0) {
        Some(refused) => error.call(refused.call, refused.errno),
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
