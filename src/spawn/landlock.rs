//! What became of the Landlock domain, by the table's own record. It must not say more: the kernel shows no domain anywhere.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use super::brief::Brief;
use super::enforcement::Missing;
use crate::error::{Step, errno_text};
use crate::plan::{Known, LandlockPlan, PathPlan};
use crate::policy::{AccessFs, AccessNet, AuditLog, Scopes};

/// A Landlock domain that the program was in before it ran. Each part is one that a call of the set-up was told to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LandlockState {
    /// The version of Landlock that the kernel offers.
    pub abi: u32,
    /// Rights of files that are refused where no rule allows them.
    pub files: AccessFs,
    /// Rights of TCP ports likewise.
    pub net: AccessNet,
    /// What does not reach out of the domain.
    pub scopes: Scopes,
    /// What the audit log was told.
    pub log: AuditLog,
    /// What became of each path.
    pub paths: Vec<LandlockPath>,
    /// What became of each port.
    pub ports: Vec<LandlockPort>,
}

impl LandlockState {
    /// What is handled and what each rule allows: all that decides what the program may do.
    pub(super) fn rules(&self) -> (AccessFs, AccessNet, Scopes, Vec<&LandlockPath>, Vec<&LandlockPort>) {
        // A path that was not there is no rule, whatever is there by now.
        let applies = |rule: &&LandlockPath| matches!(rule.state, LandlockPathState::Applied(_));
        let paths = self.paths.iter().filter(applies).collect();
        (self.files, self.net, self.scopes, paths, self.ports.iter().collect())
    }
}

/// A path of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LandlockPath {
    /// The path inside.
    pub path: PathBuf,
    /// What became of its rule.
    pub state: LandlockPathState,
    /// Rights of the rule that this kernel does not know: they are not confined, here or elsewhere.
    pub unknown: AccessFs,
}

/// What became of the rule for a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LandlockPathState {
    /// The kernel took it, with these rights: those that are handled and mean something for what is there.
    Applied(AccessFs),
    /// Nothing is there, or nothing that the program could reach: the errno of `openat`.
    Absent(i32),
    /// The rule was not added: nothing in it is handled by this kernel or means anything for what is there, or it was only
    /// preferred and the kernel refused it, which then stands among the missing items.
    NotAdded,
}

/// A port of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LandlockPort {
    /// The TCP port.
    pub port: u16,
    /// What the kernel took; empty where the rule was not added.
    pub applied: AccessNet,
}

/// Reads the record of the table.
pub(super) fn read(plan: &LandlockPlan, brief: &Brief) -> Option<LandlockState> {
    let word = |offset: u32| brief.map().word(offset);
    if word(plan.holds?) != 1 {
        return None;
    }
    let path = |rule: &PathPlan| LandlockPath {
        path: rule.path.clone(),
        state: state(word(rule.outcome), word(rule.outcome + 8)),
        unknown: rule.unknown,
    };
    let ports = plan.ports.iter().map(|rule| LandlockPort {
        port: rule.port,
        applied: AccessNet::from_bits_truncate(word(rule.outcome)),
    });
    Some(LandlockState {
        abi: plan.known.abi?,
        files: plan.known.files,
        net: plan.known.net,
        scopes: plan.known.scopes,
        log: plan.known.log,
        paths: plan.paths.iter().map(path).collect(),
        ports: ports.collect(),
    })
}

fn state(opened: u64, taken: u64) -> LandlockPathState {
    match (i32::try_from(opened.cast_signed()), taken) {
        (Ok(errno), _) if errno < 0 => LandlockPathState::Absent(-errno),
        (_, 0) => LandlockPathState::NotAdded,
        (_, rights) => LandlockPathState::Applied(AccessFs::from_bits_truncate(rights)),
    }
}

/// Preferred rights that this kernel does not know.
pub(crate) fn missing(known: &Known) -> impl Iterator<Item = Missing> {
    let errno = if known.abi.is_some() { libc::EINVAL } else { libc::EOPNOTSUPP };
    let names = known.unknown.iter();
    names.map(move |name| Missing { step: Step::Landlock, object: name.clone().into(), errno })
}

impl Display for LandlockState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { abi, files, net, scopes, log, .. } = self;
        writeln!(f, "landlock      ABI {abi}: files {files}; net {net}; scopes {scopes}; log {log}")?;
        for rule in &self.paths {
            match rule.state {
                LandlockPathState::Applied(rights) => write!(f, "  {:?} applied: {rights}", rule.path)?,
                LandlockPathState::Absent(errno) => {
                    write!(f, "  {:?} absent: {}", rule.path, errno_text(errno))?;
                }
                LandlockPathState::NotAdded => write!(f, "  {:?} not added", rule.path)?,
            }
            if rule.unknown.is_empty() {
                writeln!(f)?;
            } else {
                writeln!(f, "; not known to this kernel: {}", rule.unknown)?;
            }
        }
        for rule in &self.ports {
            writeln!(f, "  TCP port {}: {}", rule.port, rule.applied)?;
        }
        Ok(())
    }
}
