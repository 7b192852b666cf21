//! What holds for each thread after the lowering. It must not claim what was only asked.

use std::fmt::{self, Display, Formatter};

use crate::error::errno_text;
use crate::host::CapabilitySets;
use crate::policy::Capabilities;
use crate::spawn::{LandlockState, Missing};

/// What holds for the calling process, read back from the kernel where it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lowered {
    /// Every thread that was there, the calling one first; only that one where no `/proc` shows the others.
    pub threads: Vec<LoweredThread>,
    /// Length of the filter; `None` where none was asked for.
    pub filter: Option<usize>,
    /// The domain, as the kernel took it call by call: no file of the kernel's shows one.
    pub landlock: Option<LandlockState>,
    /// Preferred items that the kernel refused.
    pub missing: Vec<Missing>,
    /// What is left as it is, in words.
    pub notes: Vec<String>,
}

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoweredThread {
    /// Its number, as `/proc` has it.
    pub tid: i32,
    /// Its name (proc_pid_comm(5)); empty where no `/proc` shows it.
    pub name: String,
    /// The five capability sets, read back.
    pub capabilities: Option<CapabilitySets>,
    /// What is known of the filter.
    pub filter: FilterProof,
}

/// How it is known that a thread has the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilterProof {
    /// None was asked for.
    NotAsked,
    /// The thread's status says so: `Seccomp: 2`, `NoNewPrivs: 1` and this number of filters (since Linux 5.9).
    ReadBack {
        /// Filters that are attached to it.
        filters: Option<u32>,
    },
    /// The kernel's answer to the call, which is for all threads or none; the filter lets nothing be read, or no `/proc` is
    /// there.
    Answered,
    /// The thread has ended meanwhile.
    Ended,
}

impl Display for Lowered {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for thread in &self.threads {
            write!(f, "thread        {} {:?}: no_new_privs set", thread.tid, thread.name)?;
            if let Some(sets) = &thread.capabilities {
                let text = |bits| Capabilities::from_bits(bits).to_string();
                write!(f, "; capabilities effective {}", text(sets.effective))?;
            }
            match thread.filter {
                FilterProof::NotAsked => writeln!(f)?,
                FilterProof::ReadBack { filters: Some(filters) } => writeln!(f, "; {filters} filters")?,
                FilterProof::ReadBack { filters: None } => writeln!(f, "; filtered")?,
                FilterProof::Answered => writeln!(f, "; filtered, by the kernel's answer")?,
                FilterProof::Ended => writeln!(f, "; ended")?,
            }
        }
        if let Some(instructions) = self.filter {
            writeln!(f, "filter        {instructions} instructions, attached to all threads")?;
        }
        if let Some(landlock) = &self.landlock {
            write!(f, "{landlock}")?;
        }
        for missing in &self.missing {
            writeln!(f, "missing       {} {}: {}", missing.step, missing.object, errno_text(missing.errno))?;
        }
        for note in &self.notes {
            writeln!(f, "note          {note}")?;
        }
        Ok(())
    }
}
