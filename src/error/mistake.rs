//! Mistakes of a policy, each with its item. It must not know how they are found.

use std::path::PathBuf;

use thiserror::Error;

/// One mistake of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the text of each variant is its documentation, the fields are named in it")]
pub enum Mistake {
    #[error("path {path:?}: {why}")]
    BadPath { path: PathBuf, why: &'static str },
    #[error("two items at {target:?}: say over() on the second if it is meant")]
    SameTarget { target: PathBuf },
    #[error("the item at {target:?} hides the earlier one at {hidden:?}: put it first, or say over()")]
    Hides { target: PathBuf, hidden: PathBuf },
    #[error("{count} mounts, at most {most}")]
    TooManyMounts { count: usize, most: usize },
    #[error("the file at {target:?} is larger than {most} bytes: bind it")]
    FileTooLarge { target: PathBuf, most: usize },
    #[error("the ladder of {target:?} has no rung")]
    EmptyProcLadder { target: PathBuf },
    #[error(
        "a fresh /proc needs a pid namespace in every set: add the rung HostReadOnly or Absent, or the namespace"
    )]
    ProcWithoutPidNamespace,
    #[error("no namespace set: for none at all, give one empty set")]
    NoNamespaceSet,
    #[error("the namespace set {set} lacks a part of the floor {floor}")]
    SetBelowFloor { set: String, floor: String },
    #[error("a time namespace without offsets does nothing: use time_offsets()")]
    TimeNamespaceWithoutOffsets,
    #[error("a mount tree needs a mount namespace, and the set {set} has none")]
    TreeWithoutMountNamespace { set: String },
    #[error("the Landlock domain handles nothing: name rights of files or TCP ports, or scopes")]
    EmptyLandlock,
    #[error("Landlock: {what} allows {rights}, none of which is handled: it would be free everywhere")]
    LandlockRuleUnhandled { what: String, rights: String },
    #[error("{count} Landlock rules, at most {most}")]
    TooManyLandlockRules { count: usize, most: usize },
    #[error("in place of mounts Landlock has to handle, required, every right of files that ABI 1 knows")]
    WeakStandIn,
    #[error("{what} {value:?}: 1 to {most} bytes without a NUL")]
    BadName { what: &'static str, value: String, most: usize },
    #[error("uid or gid 4294967295 means \"no change\" to the kernel and cannot be used")]
    InvalidId,
    #[error("host id 0 behind the program's id: say keep_host_root() if it is meant")]
    HostRootMapped,
    #[error("the {what} map has {lines} lines, 1 to {most} are possible")]
    IdMapLength { what: &'static str, lines: usize, most: usize },
    #[error("the {what} map's line {inside} {outside} {count} is empty, too long, or overlaps another")]
    IdRange { what: &'static str, inside: u32, outside: u32, count: u32 },
    #[error("{what} {id} inside is not in its map")]
    IdNotMapped { what: &'static str, id: u32 },
    #[error("groups {groups:?} need a map with ranges in a user namespace")]
    UnmappedGroups { groups: Vec<u32> },
    #[error("{what} is {value}, possible are {from} to {to}")]
    OutOfRange { what: &'static str, value: i64, from: i64, to: i64 },
    #[error("{what}: a limit of nothing ends every program at once")]
    ZeroLimit { what: &'static str },
    #[error(
        "grace(): signal {signal} cannot be handled: SIGKILL is sent at the end of the period, SIGSTOP stops"
    )]
    BadGraceSignal { signal: i32 },
    #[error("grace() without a clock: give wall_time() or cpu_time(), too")]
    GraceWithoutClock,
    #[error(
        "allow_outliving_caller() needs the crate's init: without one the kernel itself ties the program to its caller"
    )]
    DetachWithoutInit,
    #[error("{resource}: the soft limit {soft} is above the hard one {hard}")]
    SoftAboveHard { resource: &'static str, soft: u64, hard: u64 },
    #[error("limit {limit}: {why}")]
    GroupLimit { limit: String, why: &'static str },
    #[error("system call {name:?}: no architecture has a call of this name (syscalls(2))")]
    UnknownCall { name: String },
    #[error("filter: {call} answered with {action}: an errno is 0 to 4095")]
    BadErrno { call: String, action: String },
    #[error("filter: {call} if {condition}: {why}")]
    BadCondition { call: String, condition: String, why: &'static str },
    #[error(
        "filter: the rule {rule:?} is never reached behind {before:?}: put it first, or forget() the call's rules"
    )]
    RuleNeverReached { rule: String, before: String },
    #[error(
        "filter: execve is refused, and the launch itself has to make it: allow it, or say launch_only() if the program \
         is to execute nothing"
    )]
    FilterForbidsLaunch,
    #[error("filter: exit_group is refused, and without it a process could not end: allow or kill")]
    FilterForbidsEnd,
    #[error(
        "filter: attaching one needs no_new_privs or CAP_SYS_ADMIN inside (seccomp(2)): drop \
         allow_new_privileges(), keep that capability, or say allow_all_calls()"
    )]
    FilterNeedsNoNewPrivs,
    #[error("filter: {instructions} instructions, the kernel takes {most}: use fewer conditions")]
    FilterTooLong { instructions: usize, most: usize },
    #[error("nothing is lowered: name a filter, a Landlock domain or capabilities")]
    EmptyLowering,
    #[error("filter: {call} is answered with notify, and a process that lowers itself has no supervisor")]
    FilterNotifiesNobody { call: String },
    #[error("Landlock: a process that lowers itself has no mount tree to repeat: name paths")]
    LandlockWithoutMounts,
}
