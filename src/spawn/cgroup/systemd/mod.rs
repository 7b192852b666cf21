//! A scope of systemd in which this process may make groups: asked for once, kept by a process that does nothing else, and
//! gone with it. It must believe the kernel, not the manager, about where a process is.
//!
//! Nobody has to stop a scope: the manager takes one away in which there is no process, and with it what groups are left there
//! (systemd.scope(5)).

mod bus;
mod refusal;
mod wire;

pub(in crate::spawn) use refusal::ScopeRefused;

use std::fs;
use std::io::{Error as IoError, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process;
use std::result::Result as StdResult;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use self::bus::Bus;
use self::refusal::{Why, is_absent, was_there};
use self::wire::{Heard, OomPolicy, Target, Values};
use super::files;
use super::name;
use crate::host::{Cgroups, MountTable, SystemdManager};
use crate::machine::layout::FD_SOCKET;
use crate::plan::{Duty, ScopePlace};
use crate::spawn::aide::Aide;
use crate::spawn::parent;

/// How long a manager may take at most: half of what the launch has left, and no more than this.
const LIMIT: Duration = Duration::from_secs(30);
/// How often the kernel is looked at meanwhile.
const TICK: Duration = Duration::from_millis(10);
/// How often a manager is asked that is away, as it is while it executes itself anew.
const AGAIN: Duration = Duration::from_secs(1);
/// How long one may be away that was never seen.
const ABSENCE: Duration = Duration::from_secs(4);
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

/// The process that keeps a scope; it goes with this end of its socket, too.
#[derive(Debug)]
struct Keeper {
    aide: Aide,
    _socket: OwnedFd,
}

impl Keeper {
    fn new(deadline: Instant) -> StdResult<Self, Why> {
        let failed = |(call, errno)| Why::Keeper { call, errno };
        let (ours, theirs) = parent::sockets()
            .map_err(|error| failed(("socketpair", error.raw_os_error().unwrap_or(libc::EIO))))?;
        let aide = Aide::new(Duty::Keep, &[(theirs.as_raw_fd(), FD_SOCKET)], deadline).map_err(failed)?;
        Ok(Self { aide, _socket: ours })
    }

    fn pid(&self) -> i32 {
        self.aide.pid()
    }

    fn lives(&self) -> bool {
        self.aide.lives()
    }
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

    /// Has the manager put a process into a group of the scope. There is no rung below, so all of the time is its.
    pub(super) fn attach(&self, group: &str, pid: i32, deadline: Instant) -> StdResult<(), ScopeRefused> {
        let below = format!("/{group}");
        let asked = Bus::connect(&self.address, deadline).and_then(|mut bus| {
            let what = What::Attach { group, below: &below, pid };
            Asked::new(&mut bus, &self.unit, what, deadline).wait()
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
    let about = format!("sandboxes of process {} (ringfence)", process::id());
    let what = What::Scope { keeper: &keeper, about: &about };
    let path =
        Asked::new(&mut bus, &unit, what, until).wait().map_err(|why| refused("StartTransientUnit", why))?;
    let group = path.join(KEEPER);
    let failed = |call, error: &IoError| {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        refused("keeper", Why::File(files::Refused::new(&group, call, errno).text()))
    };
    match fs::create_dir(&group) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(failed("mkdir", &error));
        }
        Ok(()) | Err(_) => {}
    }
    files::write(&group.join("cgroup.procs"), &keeper.pid().to_string())
        .map_err(|error| refused("keeper", file(&error)))?;
    let moves = moves(&path);
    Ok(Scope { manager, address: place.address.clone(), unit, path, moves, keeper })
}

/// What a manager is asked for.
#[derive(Clone, Copy)]
enum What<'a> {
    /// A scope with the keeper in it.
    Scope { keeper: &'a Keeper, about: &'a str },
    /// That a process is put into a group of one.
    Attach { group: &'a str, below: &'a str, pid: i32 },
}

/// Something that was asked for.
struct Asked<'a> {
    bus: &'a mut Bus,
    unit: &'a str,
    what: What<'a>,
    until: Instant,
    oom: OomPolicy,
    /// The calls that may still be answered.
    sent: Vec<u32>,
    /// Who has answered.
    sender: String,
    /// When to ask once more.
    again: Option<Instant>,
    /// Since when the manager is away.
    away: Option<Instant>,
    /// What was heard last that was no end.
    last: Option<Why>,
}

impl<'a> Asked<'a> {
    fn new(bus: &'a mut Bus, unit: &'a str, what: What<'a>, until: Instant) -> Self {
        let (oom, sent, sender) = (OomPolicy::Continue, Vec::new(), String::new());
        Self { bus, unit, what, until, oom, sent, sender, again: None, away: None, last: None }
    }

    /// Waits until the kernel shows the process where it should be. The manager's word alone is not enough, nor is it needed:
    /// while it executes itself anew its messages get lost.
    fn wait(&mut self) -> StdResult<PathBuf, Why> {
        self.ask()?;
        loop {
            if let Some(path) = self.there()? {
                return Ok(path);
            }
            let now = Instant::now();
            if now >= self.until {
                return Err(self.last.take().unwrap_or(Why::NoAnswer));
            }
            if self.again.is_some_and(|when| now >= when) {
                // That one may get lost too.
                self.again = Some(now + AGAIN);
                self.ask()?;
            }
            if let Some(heard) = self.bus.hear((now + TICK).min(self.until))? {
                self.heard(heard)?;
            }
        }
    }

    fn heard(&mut self, heard: Heard) -> StdResult<(), Why> {
        match heard {
            Heard::Return { serial, sender, .. } if self.sent.contains(&serial) => {
                self.sender = sender;
                if matches!(self.what, What::Attach { .. }) { self.confirm() } else { Ok(()) }
            }
            Heard::Error { serial, name, text } if self.sent.contains(&serial) => self.refusal(name, text),
            Heard::JobRemoved { sender, unit, result } if sender == self.sender && unit == self.unit => {
                if result == "done" {
                    self.confirm()
                } else {
                    Err(Why::Job(result))
                }
            }
            Heard::Return { .. } | Heard::Error { .. } | Heard::JobRemoved { .. } | Heard::Other => Ok(()),
        }
    }

    fn ask(&mut self) -> StdResult<(), Why> {
        let unit = self.unit;
        let (member, values) = match self.what {
            What::Scope { keeper, about } => {
                let pid = keeper.pid().cast_unsigned();
                ("StartTransientUnit", Values::Scope { unit, pid, about, oom: self.oom })
            }
            What::Attach { below, pid, .. } => {
                let pid = pid.cast_unsigned();
                ("AttachProcessesToUnit", Values::Attach { unit, group: below, pid })
            }
        };
        let serial = self.bus.send(Target::Manager, member, values)?;
        self.sent.push(serial);
        Ok(())
    }

    /// Some errors are no end.
    fn refusal(&mut self, name: String, text: String) -> StdResult<(), Why> {
        if self.oom == OomPolicy::Continue && text.contains("OOMPolicy") {
            self.oom = OomPolicy::Unsaid;
            return self.ask();
        }
        // An earlier call was carried out after all, by a manager that could not say so any more.
        if name.ends_with(".UnitExists") && self.sent.len() > 1 {
            return Ok(());
        }
        if !is_absent(&name) {
            return Err(Why::Answer { name, text });
        }
        let now = Instant::now();
        let away = *self.away.get_or_insert(now);
        // One that was there before this call comes back; one that was never seen may not be on this bus at all.
        if was_there(&name) {
            self.away = Some(self.until);
        } else if now > away + ABSENCE {
            return Err(Why::Answer { name, text });
        }
        self.again = Some(now + 10 * TICK);
        self.last = Some(Why::Answer { name, text });
        Ok(())
    }

    /// The manager says that it is done.
    fn confirm(&self) -> StdResult<(), Why> {
        if self.there()?.is_some() {
            return Ok(());
        }
        let seen = fs::read_to_string(format!("/proc/{}/cgroup", self.pid())).unwrap_or_default();
        Err(Why::NotThere(seen.trim().to_owned()))
    }

    fn pid(&self) -> i32 {
        match self.what {
            What::Scope { keeper, .. } => keeper.pid(),
            What::Attach { pid, .. } => pid,
        }
    }

    /// The directory that the process is in, once it is the one that was asked for.
    fn there(&self) -> StdResult<Option<PathBuf>, Why> {
        let wanted = match self.what {
            What::Scope { keeper, .. } if !keeper.lives() => {
                return Err(Why::Keeper { call: "wait", errno: libc::ECHILD });
            }
            What::Scope { .. } => self.unit,
            What::Attach { group, .. } => group,
        };
        let own = directory_of(&self.pid().to_string());
        Ok(own.filter(|path| path.file_name().is_some_and(|name| name == wanted)))
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
