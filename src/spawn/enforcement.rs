//! The report: what holds, read back from the kernel, and what does not, with the reason. It must not claim what was only asked.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use super::cgroup::LimitState;
use super::landlock::LandlockState;
use crate::error::{Attempt, Object, Step, errno_text};
use crate::host::CapabilitySets;
use crate::policy::{Capabilities, Namespaces};

/// How the set-up got an address space of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchMethod {
    /// A tiny image, executed in a short vfork window.
    Image,
    /// A copy of the caller, and why.
    Copy {
        /// Why not an image.
        why: String,
    },
}

/// A preferred item that the sandbox does without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The step.
    pub step: Step,
    /// What it was about.
    pub object: Object,
    /// The errno of the refused call.
    pub errno: i32,
}

/// One namespace of the program, as `/proc/PID/ns` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceState {
    /// Which.
    pub kind: Namespaces,
    /// Its inode; `None` where it could not be read.
    pub inode: Option<u64>,
    /// Whether it is the caller's own; `None` where it could not be read.
    pub shared: Option<bool>,
}

/// The program's own system-call filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterState {
    /// None, as asked ([`crate::Builder::allow_all_calls`]).
    None,
    /// It is the last thing before `execve`, which has not happened yet.
    AtExec {
        /// Its length.
        instructions: usize,
    },
    /// The kernel took it: `execve` has happened, and could not have otherwise; or the child waits for its command
    /// ([`crate::Idle`]) and has it already, which the kernel shows.
    Attached {
        /// Its length.
        instructions: usize,
    },
}

/// Who answers the calls that the filter notifies of, and ends the processes whose calls it kills.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SupervisorState {
    /// Nobody: the filter neither notifies nor kills.
    NotNeeded,
    /// A thread of the caller's, which starts before `execve`; that has not happened yet.
    AtExec,
    /// A thread of the caller's: refused calls are in the verdict.
    Running,
    /// The kernel kills by itself, with SIGSYS, and nobody learns the call.
    KernelKills {
        /// Why there is no supervisor.
        why: String,
    },
}

impl Display for SupervisorState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNeeded => f.write_str("not needed"),
            Self::AtExec => f.write_str("a thread of the caller's, from exec on"),
            Self::Running => f.write_str("a thread of the caller's"),
            Self::KernelKills { why } => write!(f, "none: the kernel kills, and the call is not told: {why}"),
        }
    }
}

/// What holds for one sandbox, read back from the kernel by the caller while the program was set up and confined, and
/// before it ran.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Enforcement {
    /// Every namespace set that was tried; the last one was had.
    pub attempts: Vec<Attempt>,
    /// How the child came to be.
    pub method: LaunchMethod,
    /// The program's namespaces beside the caller's.
    pub namespaces: Vec<NamespaceState>,
    /// The five capability sets of the program.
    pub capabilities: Option<CapabilitySets>,
    /// Whether `no_new_privs` is set.
    pub no_new_privs: Option<bool>,
    /// The program's host uid, as the caller sees it.
    pub host_uid: Option<u32>,
    /// The program's host gid.
    pub host_gid: Option<u32>,
    /// Supplementary groups that the program still has, as the caller sees them.
    pub groups: Vec<u32>,
    /// System-call filters around the child when this was read: those that the caller has already, without the program's
    /// own, see [`Enforcement::filter`]. [`crate::Child::seccomp_filters`] asks the kernel again.
    pub seccomp_filters: Option<u32>,
    /// The program's own filter.
    pub filter: FilterState,
    /// Who stands behind that filter.
    pub supervisor: SupervisorState,
    /// Which rung of each ladder was taken.
    pub choices: Vec<(Object, &'static str)>,
    /// Optional sources that do not exist on this host.
    pub absent: Vec<PathBuf>,
    /// Preferred items that the kernel refused.
    pub missing: Vec<Missing>,
    /// The Landlock domain, as the kernel took it call by call: no file of the kernel's shows one. `None` where there is none.
    pub landlock: Option<LandlockState>,
    /// What became of each limit of the tree of processes.
    pub limits: Vec<LimitState>,
    /// What this sandbox does not promise on this host, in words.
    pub notes: Vec<String>,
}

impl Display for Enforcement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for attempt in &self.attempts {
            match &attempt.refused {
                None => writeln!(f, "namespaces    {} had", attempt.set)?,
                Some(refused) => {
                    writeln!(f, "namespaces    {} refused: {}", attempt.set, refused.text)?;
                    for cause in &refused.causes {
                        writeln!(f, "              {}", cause.evidence())?;
                    }
                }
            }
        }
        self.write_namespaces(f)?;
        match &self.method {
            LaunchMethod::Image => writeln!(f, "launch        image")?,
            LaunchMethod::Copy { why } => writeln!(f, "launch        copy: {why}")?,
        }
        if let Some(sets) = &self.capabilities {
            let text = |bits| Capabilities::from_bits(bits).to_string();
            writeln!(
                f,
                "capabilities  effective {}, bounding {}",
                text(sets.effective),
                text(sets.bounding)
            )?;
        }
        let known = |value: Option<bool>| value.map_or("unknown", |set| if set { "set" } else { "not set" });
        writeln!(f, "no_new_privs  {}", known(self.no_new_privs))?;
        let id = |id: Option<u32>| id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
        writeln!(f, "host ids      {}:{} groups {:?}", id(self.host_uid), id(self.host_gid), self.groups)?;
        if let Some(filters) = self.seccomp_filters {
            writeln!(f, "seccomp       {filters} filters of the caller's")?;
        }
        self.write_filter(f)?;
        if self.supervisor != SupervisorState::NotNeeded {
            writeln!(f, "supervisor    {}", self.supervisor)?;
        }
        if let Some(landlock) = &self.landlock {
            write!(f, "{landlock}")?;
        }
        for (object, choice) in &self.choices {
            writeln!(f, "{object}  {choice}")?;
        }
        for path in &self.absent {
            writeln!(f, "absent        {}", path.display())?;
        }
        for missing in &self.missing {
            writeln!(f, "missing       {} {}: {}", missing.step, missing.object, errno_text(missing.errno))?;
        }
        for limit in &self.limits {
            writeln!(f, "limit         {limit}")?;
        }
        for note in &self.notes {
            writeln!(f, "note          {note}")?;
        }
        Ok(())
    }
}

impl Enforcement {
    fn write_filter(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.filter {
            FilterState::None => writeln!(f, "filter        none"),
            FilterState::AtExec { instructions } => {
                writeln!(f, "filter        {instructions} instructions, attached at exec")
            }
            FilterState::Attached { instructions } => {
                writeln!(f, "filter        {instructions} instructions, attached")
            }
        }
    }

    fn write_namespaces(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for state in &self.namespaces {
            let name =
                Namespaces::NAMES.iter().find(|(kind, _)| *kind == state.kind).map_or("?", |(_, name)| name);
            let inode = state.inode.map_or_else(|| "unknown".to_owned(), |inode| inode.to_string());
            let whose = match state.shared {
                None => "could not be read",
                Some(true) => "shared with the caller",
                Some(false) => "its own",
            };
            writeln!(f, "  {name:<8}    {inode} {whose}")?;
        }
        Ok(())
    }
}
