//! From a policy and a host to the table of kernel calls. It must be pure: no I/O, equal input gives an equal plan.

use crate::policy::Need;
mod aide;
mod arrive;
mod asm;
mod bind;
mod capability;
mod cgroup;
mod closure;
mod compile;
mod context;
mod dev;
mod enter;
mod facts;
mod fork;
mod gate;
mod identity;
mod init;
mod join;
mod knob;
mod landlock;
mod linked;
mod mount;
mod proc;
mod process;
mod root;
mod seccomp;
mod tail;
#[cfg(test)]
mod tests;
mod text;
mod window;

pub(crate) use self::landlock::{Known, LandlockPlan, PathPlan, RULE_FOR, RULE_NET_PORT, RULE_PATH_BENEATH};
pub(crate) use aide::{Aide as AideTable, Duty, aide};
pub(crate) use arrive::{Arrival, BATCH};
pub(crate) use asm::{Cell, Code, Op};
pub(crate) use capability::{SECUREBITS_LOCKED, name as capability_name};
pub(crate) use cgroup::{
    Deed, GroupPlan, Join, LegacyPlace, LimitPlan, ScopePlace, Shows, UnifiedPlace, When, Write,
    device_instructions, legacy, unified,
};
pub use cgroup::{LimitRung, Strength};
pub(crate) use closure::{ClosureTail, LookedInto, filter_errno};
pub(crate) use compile::{BRIEF_SPAN, compile};
pub(crate) use context::{Act, ActKind, Item, ItemKind, Recursive, SourceHow, SourcePlan};
pub(crate) use enter::enter;
pub(crate) use fork::ForkInput;
pub(crate) use identity::{IdPlan, MapWriter};
pub(crate) use join::{Entry, JoinPlan};
pub use linked::{Found, Linked, LinkedSource, Optional};
pub(crate) use seccomp::{
    Attach, Listener, NATIVE, SECRET_ARGUMENT, compile as compile_program, compile_filter,
};
pub(crate) use tail::{Controlling, LateLimit, Program, Stream, TailInput, tail};
pub(crate) use text::Listing;
pub(crate) use window::{CloseRange, Then, WindowInput, window};

use std::fmt::{self, Display, Formatter};

use crate::policy::{Init, Namespaces};

/// The program of kernel calls for one namespace set: what the child will do, in order.
///
/// `Display` prints it: the dry run is the table itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub(crate) set: Namespaces,
    pub(crate) init: Init,
    pub(crate) entry: Entry,
    pub(crate) code: Code,
    pub(crate) ids: IdPlan,
    pub(crate) sources: Vec<SourcePlan>,
    pub(crate) items: Vec<Item>,
    pub(crate) notes: Vec<String>,
    pub(crate) late_limits: Vec<LateLimit>,
    /// The filter that the tail attaches.
    pub(crate) filter: Option<Attach>,
    /// What the caller does once the child is confined.
    pub(crate) acts: Vec<Act>,
    /// What is handled, and where the outcome of each rule stands.
    pub(crate) landlock: Option<LandlockPlan>,
    /// Groups and their limits.
    pub(crate) group: Option<GroupPlan>,
    /// The first row for a child that is a copy: behind the rows that set an image up.
    pub(crate) copy_entry: usize,
    /// Where the tail begins in the brief.
    pub(crate) tail_at: u32,
    /// The capabilities that the child carries over into the image.
    pub(crate) carried: u64,
    /// Whether the bounding set can be changed.
    pub(crate) bounds: bool,
    /// Number of the first descriptor that belongs to the command.
    pub(crate) passed_at: i32,
}

impl Plan {
    /// The namespaces that the child is cloned into; a time namespace is made later, by `unshare`.
    #[must_use]
    pub fn namespaces(&self) -> Namespaces {
        self.set
    }

    /// The namespaces that the clone itself makes.
    pub(crate) fn cloned(&self) -> Namespaces {
        if matches!(self.entry, Entry::Living(_)) {
            return Namespaces::empty();
        }
        let late = self.group.as_ref().is_some_and(|group| group.join.attaches());
        let late = if late { Namespaces::CGROUP } else { Namespaces::empty() };
        self.set.difference(Namespaces::TIME | late)
    }

    /// Whether the child waits for the caller before its set-up.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.entry, Entry::Living(_))
            || self.ids.needs_caller()
            || self.group.as_ref().is_some_and(|group| group.join.attaches())
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.code.ops.len()
    }

    /// Whether there is no row; never so for a compiled plan.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.code.ops.is_empty()
    }
}

impl Display for Code {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_ops(f, self)
    }
}

fn write_ops(f: &mut Formatter<'_>, code: &Code) -> fmt::Result {
    let mut last = None;
    for (index, op) in code.ops.iter().enumerate() {
        let head = (op.step, op.object);
        if last != Some(head) {
            let object = &code.objects[op.object].to_string();
            let need = if op.need == Need::Preferred { " (preferred)" } else { "" };
            let space = if object.is_empty() { "" } else { " " };
            writeln!(f, "# {}{space}{object}{need}", op.step)?;
            last = Some(head);
        }
        writeln!(f, "{index:>5}  {}{}", op.name, op.text)?;
    }
    Ok(())
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.entry {
            Entry::New => writeln!(f, "# namespaces {}", self.set)?,
            Entry::Living(join) => {
                writeln!(f, "# namespaces {} of a living sandbox", self.set)?;
                write!(f, "{join}")?;
            }
        }
        for source in &self.sources {
            writeln!(f, "# the caller opens {source}")?;
        }
        writeln!(f, "# ids {}", self.ids)?;
        if let Some(group) = &self.group {
            write!(f, "{group}")?;
        }
        for act in &self.acts {
            writeln!(f, "# the caller sets {} of the confined program", act.object)?;
        }
        for note in &self.notes {
            writeln!(f, "# note: {note}")?;
        }
        write_ops(f, &self.code)
    }
}
