//! The caller's half of a launch: clone attempts, the window, id maps, the gate, the verdict on the set-up. No child
//! outlives an `Err`, and no descriptor leaks on any path.

mod act;
mod attempt;
mod brief;
mod cgroup;
mod enforcement;
mod explain;
mod landlock;
mod map;
mod parent;
mod request;
mod signals;
mod site;
mod source;
mod supervise;
mod verify;
mod watchdog;

pub(crate) use self::cgroup::{CpuFile, Group, Motion, Sheet, Tally, end_tree, stop_tree};
pub use self::cgroup::{
    CpuStats, FrozenBy, IoStats, LimitState, MemoryStats, Pressure, ProcessStats, Stall, Stats,
};
pub(crate) use self::landlock::missing as missing_rights;
pub use self::landlock::{LandlockPath, LandlockPathState, LandlockPort, LandlockState};
pub(crate) use attempt::{
    Compiled, Fence, Running, explain_command as explain, explain_joining, join, launch,
};
pub use enforcement::{Enforcement, FilterState, LaunchMethod, Missing, NamespaceState, SupervisorState};
pub(crate) use request::{Request, Strings, When};
pub(crate) use signals::Blocked;
pub(crate) use site::Site;
pub(crate) use supervise::SharedSupervisor;
pub use supervise::{CallError, NotifiedCall, OnExec, RefusedCall, Response, Supervisor};
