//! Run untrusted code behind a fence on Linux: namespaces, a minimal mount tree and capabilities in one policy.
//!
//! ```
//! use ringfence::{Sandbox, Verdict};
//!
//! # fn main() -> ringfence::Result<()> {
//! let sandbox = Sandbox::builder().system_read_only().build()?;
//! let outcome = sandbox.command("sh").args(["-c", "exit 3"]).output()?;
//! assert_eq!(outcome.verdict(), Verdict::Exited(3));
//! # Ok(())
//! # }
//! ```
#![cfg(target_os = "linux")]

mod error;
pub mod host;
mod machine;
mod plan;
mod policy;
mod process;
mod spawn;
#[expect(unsafe_code, reason = "system calls and shared memory: the only place for them")]
mod sys;

pub use error::{
    Attempt, Cause, Error, ErrorKind, Mistake, Object, Powerless, Refusal, Result, Runtime, Step,
};
pub use host::{Host, doctor};
pub use plan::Plan;
pub use policy::{
    Absence, Access, AccessFs, AccessNet, AuditLog, Bind, Builder, Capabilities, Capability, Execution,
    FileItem, Hardening, IdRange, Identity, Init, Landlock, Launch, Limit, Mapping, Mount, MountKind,
    NamespaceSets, Namespaces, Need, NewPrivileges, Policy, ProcMount, ProcRung, Resource, Root, Scopes,
    Session, Source, Submounts, TimeOffsets, Tmpfs, Wanted, prefer,
};
pub use process::{
    Child, ChildStderr, ChildStdin, ChildStdout, Command, Core, ExitStatus, Held, Outcome, Sandbox, Stdio,
    Usage, Verdict,
};
pub use spawn::{
    Enforcement, LandlockPath, LandlockPathState, LandlockPort, LandlockState, LaunchMethod, Missing,
    NamespaceState,
};

/// For the crate's own tests: no promise is made about anything in it.
#[doc(hidden)]
pub mod internals {
    pub use crate::machine::isa::{Condition, INSN_SIZE, Insn, Kind, Opcode};
    pub use crate::machine::model::{End, Model, Progress, World};

    /// The machine's text of this architecture.
    #[must_use]
    pub fn machine_text() -> &'static [u8] {
        super::sys::machine_text()
    }
}
