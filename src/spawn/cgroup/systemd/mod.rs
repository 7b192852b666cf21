//! A scope of systemd in which this process may make groups: asked for once, kept by a process that does nothing else, and
//! gone with it. It must believe the kernel, not the manager, about where a process is.
//!
//! Nobody has to stop a scope: the manager takes one away in which there is no process, and with it what groups are left there
//! (systemd.scope(5)).

mod bus;
mod keeper;
mod refusal;
mod wire;

pub(in crate::spawn) use refusal::ScopeRefused;

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::result::Result as StdResult;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use self::bus::Bus;
use self::keeper::Keeper;
use self::refusal::{Why, is_absent};
use self::wire::{Heard, OomPolicy, Target, Values};
use super::files;
use super::name;
use crate::host::{Cgroups, MountTable, SystemdManager};
use crate::plan::ScopePlace;

/// How long a manager may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How often the kernel is looked at meanwhile.
const TICK: Duration = Duration::from_millis(10);
/// How long a manager may be away, as it is while it executes itself anew.
const ABSENCE: Duration = Duration::from_secs(2);
/// The group of the keeper below the scope: what holds groups holds no process (the kernel's admin-guide/cgroup-v2, "No
/// Internal Process Constraint").
const KEEPER: &str = "keeper";

/// How a process of this caller gets into a group of the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spawn) enum Moves {
    /// The caller may put it there.
    Directly,
    /// The manager has to: the caller's own group and the scope have nothing above them that is the caller's.
    ByManager,
}

/// A scope that is there.
#[derive(Debug)]
pub(in crate::spawn) struct Scope {
    manager: SystemdManager,
    address: String,
    unit: String,
    path: PathBuf,
    moves: Moves,
    keeper: Keeper,
}

/// The scope of this process, and whose it is: a fork of the caller asks for its own.
static SCOPE: Mutex<Option<(u32, Arc<Scope>)>> = Mutex::new(None);

/// The scope of this process, made if there is none.
pub(super) fn scope(place: &ScopePlace, deadline: Instant) -> StdResult<Arc<Scope>, ScopeRefused> {
    let mut known = SCOPE.lock().unwrap_or_else(PoisonError::into_inner);
    let own = process::id();
    if let Some((process, scope)) = known.as_ref()
        && *process == own
        && scope.address == place.address
        && scope.keeper.lives()
    {
        return Ok(Arc::clone(scope));
    }
    // What sandboxes of it still run keep it.
    *known = None;
    let scope = Arc::new(start(place, deadline)?);
    *known = Some((own, Arc::clone(&scope)));
    drop(known);
    if let Some(slice) = scope.path.parent() {
        super::sweep::sweep_scopes(slice);
    }
    Ok(scope)
}

impl Scope {
    /// Its directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn moves(&self) -> Moves {
        self.moves
    }

    /// In a few words.
    pub(super) fn text(&self) -> String {
        format!("{} of the {}", self.unit, self.manager)
    }

    /// Has the manager put a process into a group of the scope.
    pub(super) fn attach(&self, group: &str, pid: i32, deadline: Instant) -> StdResult<(), ScopeRefused> {
        let until = limit(deadline);
        let pid = pid.cast_unsigned();
        let group = format!("/{group}");
        let asked = Bus::connect(&self.address, until).and_then(|mut bus| {
            let values = Values::Attach { unit: &self.unit, group: &group, pid };
            let serial = bus.send(Target::Manager, "AttachProcessesToUnit", values)?;
            bus.answer(serial)
        });
        asked.map(drop).map_err(|why| self.refused("AttachProcessesToUnit", why))
    }

    fn refused(&self, call: &'static str, why: Why) -> ScopeRefused {
        ScopeRefused { manager: self.manager, unit: self.unit.clone(), call, why }
    }
}

/// Half of the time that is left belongs to the rungs below.
fn limit(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + (deadline.saturating_duration_since(now) / 2).min(LIMIT)
}

fn start(place: &ScopePlace, deadline: Instant) -> StdResult<Scope, ScopeRefused> {
    let until = limit(deadline);
    let manager = place.manager;
    let file = |refused: &files::Refused| Why::File(refused.text());
    let name = name::fresh();
    let unit = format!("{}.scope", name.as_deref().unwrap_or("ringfence"));
    let refused = |call, why| ScopeRefused { manager, unit: unit.clone(), call, why };
    name.as_ref().map_err(|error| refused("name", file(error)))?;
    let mut bus = Bus::connect(&place.address, until).map_err(|why| refused("Hello", why))?;
    // Where no scope comes of it the keeper ends, and what the manager does too late finds no process to move.
    let keeper = Keeper::new(until).map_err(|why| refused("keeper", why))?;
    let mut asked =
        Asked { bus: &mut bus, unit: &unit, keeper: &keeper, until, sent: Vec::new(), again: None };
    let path = asked.wait().map_err(|why| refused("StartTransientUnit", why))?;
    let group = path.join(KEEPER);
    let failed = |call, error: &std::io::Error| {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        refused("keeper", Why::File(files::Refused::new(&group, call, errno).text()))
    };
    match fs::create_dir(&group) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(failed("mkdir", &error));
        }
        Ok(()) | Err(_) => {}
    }
    files::write(&group.join("cgroup.procs"), &keeper.pid().to_string())
        .map_err(|error| refused("keeper", file(&error)))?;
    let moves = moves(&path);
    Ok(Scope { manager, address: place.address.clone(), unit, path, moves, keeper })
}

/// A scope that was asked for.
struct Asked<'a> {
    bus: &'a mut Bus,
    unit: &'a str,
    keeper: &'a Keeper,
    until: Instant,
    /// The calls that may still be answered.
    sent: Vec<u32>,
    /// When to ask once more, and until when that makes sense.
    again: Option<(Instant, Instant)>,
}

impl Asked<'_> {
    /// Waits until the kernel shows the keeper in the scope. The manager's word alone is not enough, nor is it needed: while it
    /// executes itself anew its messages get lost.
    fn wait(&mut self) -> StdResult<PathBuf, Why> {
        let mut oom = OomPolicy::Continue;
        let mut sender = String::new();
        self.ask(oom)?;
        loop {
            if let Some(path) = self.there()? {
                return Ok(path);
            }
            let now = Instant::now();
            if now >= self.until {
                return Err(Why::NoAnswer);
            }
            if self.again.is_some_and(|(when, _)| now >= when) {
                self.again = self.again.map(|(_, end)| (end, end));
                self.ask(oom)?;
            }
            match self.bus.hear((now + TICK).min(self.until))? {
                Some(Heard::Return { serial, sender: from, .. }) if self.sent.contains(&serial) => {
                    sender = from
                }
                Some(Heard::Error { serial, name, text }) if self.sent.contains(&serial) => {
                    oom = self.refusal(oom, name, text)?;
                }
                Some(Heard::JobRemoved { sender: from, unit, result })
                    if from == sender && unit == self.unit =>
                {
                    self.job(result)?;
                }
                Some(_) | None => {}
            }
        }
    }

    fn ask(&mut self, oom: OomPolicy) -> StdResult<(), Why> {
        let about = format!("sandboxes of process {} (ringfence)", process::id());
        let pid = self.keeper.pid().cast_unsigned();
        let values = Values::Scope { unit: self.unit, pid, about: &about, oom };
        let serial = self.bus.send(Target::Manager, "StartTransientUnit", values)?;
        self.sent.push(serial);
        Ok(())
    }

    /// What to do about an error: some are no end.
    fn refusal(&mut self, oom: OomPolicy, name: String, text: String) -> StdResult<OomPolicy, Why> {
        if oom == OomPolicy::Continue && text.contains("OOMPolicy") {
            self.ask(OomPolicy::Unsaid)?;
            return Ok(OomPolicy::Unsaid);
        }
        // An earlier call was carried out after all, by a manager that could not say so any more.
        if name.ends_with(".UnitExists") && self.sent.len() > 1 {
            return Ok(oom);
        }
        let now = Instant::now();
        let end = self.again.map_or(now + ABSENCE, |(_, end)| end);
        if is_absent(&name) && now < end {
            self.again = Some((now + 10 * TICK, end));
            return Ok(oom);
        }
        Err(Why::Answer { name, text })
    }

    /// The job is over.
    fn job(&self, result: String) -> StdResult<(), Why> {
        if result != "done" {
            return Err(Why::Job(result));
        }
        if self.there()?.is_some() {
            return Ok(());
        }
        // The answer of the kernel comes from memory that the manager has written to before it spoke.
        sleep(TICK);
        let seen = fs::read_to_string(format!("/proc/{}/cgroup", self.keeper.pid())).unwrap_or_default();
        if self.there()?.is_some() { Ok(()) } else { Err(Why::NotThere(seen.trim().to_owned())) }
    }

    /// The scope's directory, once the keeper is in it.
    fn there(&self) -> StdResult<Option<PathBuf>, Why> {
        if !self.keeper.lives() {
            return Err(Why::Keeper { call: "wait", errno: libc::ECHILD });
        }
        let own = directory_of(&self.keeper.pid().to_string());
        Ok(own.filter(|path| path.file_name().is_some_and(|name| name == self.unit)))
    }
}

/// The directory of a process's group of version 2, as it can be reached from here.
fn directory_of(process: &str) -> Option<PathBuf> {
    let cgroup = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let mounts = MountTable::parse(&fs::read_to_string("/proc/self/mountinfo").ok()?);
    Cgroups::parse(&cgroup, &mounts).unified?.groups.into_iter().next().map(|group| group.directory)
}

/// A process may be moved by who may write to the nearest group above both (the kernel's admin-guide/cgroup-v2, "Delegation
/// Containment").
fn moves(scope: &Path) -> Moves {
    let own = directory_of("self");
    let common = own.as_deref().and_then(|own| own.ancestors().find(|above| scope.starts_with(above)));
    let file = common.map(|common| common.join("cgroup.procs"));
    let may = |file: &PathBuf| faccessat(AT_FDCWD, file, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok();
    if file.as_ref().is_some_and(may) { Moves::Directly } else { Moves::ByManager }
}
