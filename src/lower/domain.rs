//! The Landlock domain of this process: ruleset and rules first, which change nothing, and then the step into it. It must not
//! claim a rule that the kernel did not take.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::threads::Threads;
use crate::error::{Error, ErrorKind, Object, Result, Step};
use crate::host::running_kernel;
use crate::plan::{Known, RULE_NET_PORT, RULE_PATH_BENEATH};
use crate::policy::{AccessFs, AccessNet, Landlock, Need, PathRule, PortRule};
use crate::spawn::{LandlockPath, LandlockPathState, LandlockPort, LandlockState, Missing, missing_rights};
use crate::sys;

/// `LANDLOCK_RESTRICT_SELF_TSYNC` (linux/landlock.h) and the ABI that brought it, with Linux 7.0.
const ALL_THREADS: u64 = 1 << 3;
const ALL_THREADS_SINCE: u32 = 8;

/// A ruleset with its rules. Nothing holds yet.
#[derive(Debug)]
pub(super) struct Domain {
    ruleset: OwnedFd,
    flags: u64,
    need: Need,
    pub(super) state: LandlockState,
}

/// Makes the ruleset; `None` where this kernel has nothing of what is only preferred.
pub(super) fn prepare(
    landlock: &Landlock,
    threads: &Threads,
    missing: &mut Vec<Missing>,
) -> Result<Option<Domain>> {
    let abi = sys::landlock_abi().ok();
    let known = Known::new(landlock, abi, &running_kernel().to_string())?;
    missing.extend(missing_rights(&known));
    let (Some(abi), true) = (abi, known.holds_something()) else { return Ok(None) };
    let need = known.need(landlock);
    match made(landlock, threads, (&known, abi), missing) {
        Err(error) if need == Need::Preferred => {
            missing.push(lost("domain", &error));
            Ok(None)
        }
        made => Ok(Some(made?)),
    }
}

fn made(
    landlock: &Landlock,
    threads: &Threads,
    (known, abi): (&Known, u32),
    missing: &mut Vec<Missing>,
) -> Result<Domain> {
    let mut flags = known.log.bits();
    if threads.may_be_several() {
        if abi < ALL_THREADS_SINCE {
            let why = "before Linux 7.0 (ABI 8) a Landlock domain is each thread's own: apply it before threads are made";
            threads.only_one("domain", Step::Landlock, why)?;
        }
        flags |= ALL_THREADS;
    }
    let ruleset = sys::create_ruleset(&known.attributes())
        .map_err(|errno| failed("ruleset").call("landlock_create_ruleset", errno))?;
    let state = LandlockState {
        abi,
        files: known.files,
        net: known.net,
        scopes: known.scopes,
        log: known.log,
        paths: landlock
            .paths
            .iter()
            .map(|rule| path(&ruleset, known, rule, missing))
            .collect::<Result<_>>()?,
        ports: landlock
            .ports
            .iter()
            .map(|rule| port(&ruleset, known, rule, missing))
            .collect::<Result<_>>()?,
    };
    Ok(Domain { ruleset, flags, need: known.need(landlock), state })
}

fn path(
    ruleset: &OwnedFd,
    known: &Known,
    rule: &PathRule,
    missing: &mut Vec<Missing>,
) -> Result<LandlockPath> {
    let state = match taken(ruleset, rule, rule.allow & known.files) {
        Err(error) if rule.need == Need::Preferred => {
            missing.push(lost(Object::HostPath(rule.path.clone()), &error));
            LandlockPathState::NotAdded
        }
        state => state?,
    };
    Ok(LandlockPath { path: rule.path.clone(), state, unknown: known.unknown_of(rule.allow) })
}

fn taken(ruleset: &OwnedFd, rule: &PathRule, allow: AccessFs) -> Result<LandlockPathState> {
    if allow.is_empty() {
        return Ok(LandlockPathState::NotAdded);
    }
    let error = |call, errno: i32| failed(Object::HostPath(rule.path.clone())).call(call, errno);
    let found = match open(&rule.path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(found) => found,
        Err(errno) => {
            let errno = errno as i32;
            return match errno {
                libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::ELOOP => {
                    Ok(LandlockPathState::Absent(errno))
                }
                _ => Err(error("openat", errno)),
            };
        }
    };
    let kind = fstat(&found).map_err(|errno| error("fstat", errno as i32))?.st_mode;
    let directory = SFlag::from_bits_truncate(kind & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
    // The kernel refuses rights of directories for anything else.
    let allow = if directory { allow } else { allow.for_files() };
    if allow.is_empty() {
        return Ok(LandlockPathState::NotAdded);
    }
    let number = u64::from(found.as_raw_fd().cast_unsigned());
    sys::add_rule(ruleset, RULE_PATH_BENEATH, allow.bits(), number)
        .map_err(|errno| error("landlock_add_rule", errno))?;
    Ok(LandlockPathState::Applied(allow))
}

fn port(
    ruleset: &OwnedFd,
    known: &Known,
    rule: &PortRule,
    missing: &mut Vec<Missing>,
) -> Result<LandlockPort> {
    let mut applied = rule.allow & known.net;
    if !applied.is_empty() {
        let object = format!("TCP port {}", rule.port);
        let taken = sys::add_rule(ruleset, RULE_NET_PORT, applied.bits(), u64::from(rule.port))
            .map_err(|errno| failed(object.clone()).call("landlock_add_rule", errno));
        match taken {
            Err(error) if rule.need == Need::Preferred => {
                missing.push(lost(object, &error));
                applied = AccessNet::empty();
            }
            taken => taken?,
        }
    }
    Ok(LandlockPort { port: rule.port, applied })
}

impl Domain {
    /// Whether other threads enter it too.
    pub(super) const fn covers_all_threads(&self) -> bool {
        self.flags & ALL_THREADS != 0
    }

    /// Enters it, for good. `None` where it was only preferred and the kernel refuses it.
    pub(super) fn enter(self, missing: &mut Vec<Missing>) -> Result<Option<LandlockState>> {
        let Err(errno) = sys::restrict_self(&self.ruleset, self.flags) else { return Ok(Some(self.state)) };
        let error = failed("domain").call("landlock_restrict_self", errno);
        if self.need == Need::Preferred {
            missing.push(lost("domain", &error));
            return Ok(None);
        }
        Err(if errno == libc::E2BIG {
            error.detail(
                "16 Landlock domains are around this process already, the most that the kernel stacks",
            )
        } else {
            error
        })
    }
}

fn lost(object: impl Into<Object>, error: &Error) -> Missing {
    Missing {
        step: Step::Landlock,
        object: object.into(),
        errno: error.raw_os_error().unwrap_or(libc::EBUSY),
    }
}

fn failed(object: impl Into<Object>) -> Error {
    Error::new(ErrorKind::Lowering, Step::Landlock, object)
}
