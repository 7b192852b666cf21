//! What becomes of the limits of a tree of processes: groups to make, files to write, and for each limit its rungs in
//! order. It must be pure, like all of the compiler: what is refused at a launch is found out there.

mod choose;
mod device;
mod lower;
mod scope;

pub(super) use choose::choose;
pub(crate) use device::device_instructions;
pub(crate) use lower::{legacy, unified};

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::result::Result as StdResult;

use crate::host::SystemdManager;
use crate::policy::{CpuSet, DeviceRule, GroupLimit, Need, OwnGroup, Resource};

/// How a limit holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Strength {
    /// Not at all.
    None,
    /// Something like it: of each process instead of the tree, or not in every case. The reason says what.
    Approximate,
    /// The kernel holds the whole tree to it.
    Hard,
}

impl Display for Strength {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Approximate => "approximate",
            Self::Hard => "hard",
        })
    }
}

/// The rungs of the ladder, from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LimitRung {
    /// A group of cgroup v2 that is the caller's own, or below one that was given to it.
    CgroupV2,
    /// A scope that systemd makes.
    Systemd,
    /// Groups of cgroup v1.
    CgroupV1,
    /// A limit of each process (setrlimit(2)).
    ResourceLimit,
}

impl Display for LimitRung {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupV2 => "cgroup v2",
            Self::Systemd => "systemd scope",
            Self::CgroupV1 => "cgroup v1",
            Self::ResourceLimit => "resource limit",
        })
    }
}

/// What a file has to show after it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    /// This number.
    Number(u64),
    /// These bytes, or fewer by less than a page.
    Bytes(u64),
    /// These words, in this order.
    Words(String),
    /// A line with all of these words, the first one in front.
    Line(String),
    /// The same set.
    Set(CpuSet),
    /// It cannot be read back.
    Nothing,
}

/// One file and what goes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) file: String,
    pub(crate) text: String,
    pub(crate) shows: Shows,
}

/// What a rung does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Writes in the group of the hierarchy with this controller: for each step all of its files that exist, which is one at
    /// least. A weight has two, as each device is divided by its scheduler or by the controller itself.
    Files { controller: &'static str, steps: Vec<Vec<Write>> },
    /// A BPF program on the group of version 2.
    DeviceProgram(Vec<DeviceRule>),
    /// A limit of the program's process.
    Limit { resource: Resource, value: u64 },
}

/// One rung for one limit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rung {
    pub(crate) rung: LimitRung,
    pub(crate) strength: Strength,
    /// Why it is less than hard.
    pub(crate) caveat: Option<&'static str>,
    /// What it does; or why it is passed over on this host.
    pub(crate) deed: StdResult<Deed, String>,
}

/// One limit and its ladder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LimitPlan {
    pub(crate) limit: GroupLimit,
    pub(crate) need: Need,
    pub(crate) rungs: Vec<Rung>,
}

impl LimitPlan {
    /// The rungs that can be tried: a required limit is not content with less than a hard one.
    pub(crate) fn usable(&self) -> impl Iterator<Item = (&Rung, &Deed)> {
        let least = if self.need == Need::Required { Strength::Hard } else { Strength::Approximate };
        let usable = self.rungs.iter().filter(move |rung| rung.strength >= least);
        usable.filter_map(|rung| Some((rung, rung.deed.as_ref().ok()?)))
    }
}

/// When the group of one hierarchy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum When {
    /// Only if a limit comes down to it.
    Needed,
    Always,
}

/// Where the group of version 2 is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnifiedPlace {
    pub(crate) parent: PathBuf,
    /// Controllers that have to be enabled there first.
    pub(crate) enable: Vec<&'static str>,
}

/// Who makes the scope in which the group of version 2 is made, where the caller has no group to divide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScopePlace {
    pub(crate) manager: SystemdManager,
    /// The address of its bus.
    pub(crate) address: String,
    /// Controllers that have to be enabled in the scope.
    pub(crate) enable: Vec<&'static str>,
}

/// Where the group of one hierarchy of version 1 is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LegacyPlace {
    pub(crate) controllers: Vec<String>,
    pub(crate) parent: PathBuf,
    pub(crate) when: When,
}

/// How the child gets into its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    /// It is made in the one of version 2; there is no other.
    Clone,
    /// It is made in the one of version 2, and waits until the caller has put it into the others.
    CloneAndAttach,
    /// It waits until the caller has put it into all.
    Attach,
    /// There is no group.
    Nowhere,
}

impl Join {
    /// Whether the child waits.
    pub(crate) fn attaches(self) -> bool {
        matches!(self, Self::CloneAndAttach | Self::Attach)
    }

    /// Whether the child is cloned into its group.
    pub(crate) fn clones(self) -> bool {
        matches!(self, Self::Clone | Self::CloneAndAttach)
    }
}

/// What is done for the limits of a sandbox.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupPlan {
    pub(crate) limits: Vec<LimitPlan>,
    /// Whether a group as such was asked for.
    pub(crate) group: Option<Need>,
    pub(crate) unified: Option<UnifiedPlace>,
    /// Where it is made if there is no such place, or the kernel refuses it.
    pub(crate) scope: Option<ScopePlace>,
    pub(crate) legacy: Vec<LegacyPlace>,
    pub(crate) join: Join,
    pub(crate) own: OwnGroup,
    /// Why there is no group of version 2.
    pub(crate) no_unified: Option<String>,
}

impl Display for GroupPlan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.unified {
            let how =
                if self.join.clones() { "the child is made in" } else { "the caller puts the child into" };
            writeln!(f, "# the caller makes a group in {:?}, which {how}", place.parent)?;
            if !place.enable.is_empty() {
                writeln!(f, "# the caller enables {} there", place.enable.join(", "))?;
            }
        }
        if let Some(place) = &self.scope {
            let when = if self.unified.is_some() { ", if that one is refused" } else { "" };
            writeln!(
                f,
                "# the caller makes a group in a scope of the {} at {:?}{when}",
                place.manager, place.address
            )?;
            if !place.enable.is_empty() {
                writeln!(f, "# the caller enables {} in the scope", place.enable.join(", "))?;
            }
        }
        for place in &self.legacy {
            let when = if place.when == When::Needed { ", if a limit comes down to it" } else { "" };
            let name = place.controllers.join(",");
            writeln!(
                f,
                "# the caller makes a group of {name} in {:?}, and puts the child into it{when}",
                place.parent
            )?;
        }
        for plan in &self.limits {
            let need = if plan.need == Need::Preferred { " (preferred)" } else { "" };
            writeln!(f, "# limit {}{need}", plan.limit)?;
            for rung in &plan.rungs {
                match &rung.deed {
                    Ok(deed) => writeln!(f, "#   {} {}: {deed}", rung.rung, rung.strength)?,
                    Err(why) => writeln!(f, "#   {} not: {why}", rung.rung)?,
                }
            }
        }
        Ok(())
    }
}

impl Display for Deed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { steps, .. } => {
                for (index, step) in steps.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    for (index, write) in step.iter().enumerate() {
                        let or = if index == 0 { "" } else { " or " };
                        write!(f, "{or}{} = {}", write.file, write.text)?;
                    }
                }
                Ok(())
            }
            Self::DeviceProgram(rules) => write!(f, "a BPF program with {} rules", rules.len()),
            Self::Limit { resource, value } => write!(f, "{} = {value} of the program", resource.number().1),
        }
    }
}
