//! The caller's half of a launch: clone attempts, the window, id maps, the gate, the verdict on the set-up. No child
//! outlives an `Err`, and no descriptor leaks on any path.

mod act;
mod aide;
mod attempt;
mod brief;
mod cgroup;
mod clone;
mod enforcement;
mod explain;
mod fill;
mod landlock;
mod look;
mod map;
mod parent;
mod request;
mod signals;
mod site;
mod source;
mod supervise;
mod threads;
mod verify;
mod watchdog;
mod worker;

pub(crate) use self::cgroup::{
    CpuFile, Group, Motion, Sheet, Tally, end_tree, group_io, group_stall, stop_tree,
};
pub use self::cgroup::{
    CpuStats, FrozenBy, IoStats, LimitState, MemoryStats, Pressure, ProcessStats, Stall, Stats, Unread,
};
pub(crate) use self::landlock::missing as missing_rights;
pub use self::landlock::{LandlockPath, LandlockPathState, LandlockPort, LandlockState};
pub(crate) use attempt::{
    Body, Compiled, Fence, FilterBy, Running, check_closure, explain_command as explain, explain_joining,
    filter_words, join, launch,
};
pub(crate) use clone::deadline_after;
pub use enforcement::{Enforcement, FilterState, LaunchMethod, Missing, NamespaceState, SupervisorState};
pub(crate) use look::{Unseen, children as children_of, entries, io_there, pidfd as pidfd_of, there};
pub(crate) use request::{Request, Streams, Strings, When, open_nulls};
pub(crate) use signals::Blocked;
pub(crate) use site::Site;
pub(crate) use supervise::SharedSupervisor;
pub use supervise::{CallError, NotifiedCall, OnExec, RefusedCall, Response, Supervisor};
pub(crate) use threads::{Harmless, only_one};
pub use worker::StatusFrom;
pub(crate) use worker::{At as WorkerAt, Heard as WorkerHeard, Report, hear as hear_worker, identify};
