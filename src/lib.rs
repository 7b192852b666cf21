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
//!
//! # From policy to program
//!
//! A [`Builder`] collects a [`Policy`]: plain data, every mistake reported at once. [`Builder::build`] looks at the machine
//! ([`Host`]) and compiles the policy into one [`Plan`] for each of its namespace sets: a table of kernel calls, which
//! prints as a dry run ([`Command::explain`]). A [`Sandbox`] is that, reusable and shared between threads.
//!
//! [`Command::spawn`] runs the table in a child that has an address space of its own (a tiny image in a sealed memfd,
//! executed in a short vfork window; or a copy of the caller where the host executes no memfd). Its cost does not grow with
//! the caller's memory, and nothing that befalls it reaches the caller. When the child is set up and confined, the caller
//! reads back from the kernel what holds ([`Enforcement`]) and only then lets it become the program. `Ok` means that
//! `execve` has happened; [`Command::spawn_held`] stops one step before.
//!
//! # What a fresh builder holds
//!
//! New user, mount, pid, network, IPC, UTS and cgroup namespaces; an empty read-only root; an unprivileged id on the host,
//! also where the caller is root; no capability; `no_new_privs`; a session and a session keyring of its own; an empty
//! environment; `/dev/null` for the standard streams; no other descriptor; a PID 1 that reaps and forwards signals; a
//! system-call filter ([`Filter::baseline`]). All of
//! it is required: what cannot be had is an [`Error`] with step, object, call, errno, cause and remedy. An item wrapped in
//! [`prefer`] may be missing, and then stands in [`Enforcement::missing`].
//!
//! # Lowering oneself
//!
//! A process, behind the fence or not, gives up what it does not need any more with [`Lowering`]: a further filter, a
//! [`Landlock`] domain, capabilities, `no_new_privs`, for all of its threads or with an error that changes nothing.
//!
//! # Functions of the program
//!
//! [`Sandbox::call`] runs a function of the caller in a confined copy of it. It is refused where the caller has other threads, as
//! their locks would stay locked in the copy: a [`ForkServer`] is started before them, and forks workers afterwards.
//!
//! # Threads and process-wide things
//!
//! Launching changes nothing of its caller: no directory, mask, environment, signal, mount or id. It keeps at most three threads
//! of its own, made when they are first needed: `ringfence-watch` ends a child that was stopped in the window,
//! `ringfence-clock` watches the limits of time ([`Builder::wall_time`]), and `ringfence` clones programs that are PID 1
//! themselves ([`Init::Program`]), as the kernel ties their life to the thread that cloned them. Beside them, each child whose
//! filter notifies or kills ([`Action::Notify`], [`Action::KillProcess`]; the default filter does neither) has a thread
//! `ringfence-super` for as long as it lives, a [`Pool`] has a
//! thread `ringfence-pool`, and what a [`Broker`] has started for a child one `ringfence-exec` each.
//!
//! # Kernels
//!
//! Linux 5.10 and later, on x86_64, aarch64 and riscv64. Calls that are absent or filtered are done without where the same
//! fence can be had: `clone3` by `clone`, `openat2` by a walk without symlinks, `close_range` one by one, the mount calls on
//! descriptors by mount(2), `mount_setattr` by a remount of each mount.
#![cfg(target_os = "linux")]

mod error;
pub mod host;
#[doc(hidden)]
pub mod internals;
mod lower;
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
pub use lower::{FilterProof, Lowered, LoweredThread, Lowering, LoweringBuilder};
pub use plan::{LimitRung, Plan, Strength};
pub use policy::{
    Absence, Access, AccessFs, AccessNet, Action, Architecture, Argument, AuditLog, Bind, Builder,
    Capabilities, Capability, Clocks, Condition, CpuQuota, CpuSet, DeviceAccess, DeviceKind, DeviceNumber,
    DeviceRule, Execution, FileItem, Filter, Grace, GroupLimit, Hardening, IdRange, Identity, Init, IoMax,
    Landlock, Launch, Limit, LimitKind, Mapping, Mount, MountKind, NamespaceSets, Namespaces, Need,
    NewPrivileges, Policy, ProcMount, ProcRung, Resource, Root, Rule, Scopes, Session, Source, Submounts,
    Tether, TimeOffsets, Tmpfs, Wanted, Width, prefer,
};
#[cfg(feature = "tokio")]
pub use process::AsyncChild;
pub use process::{
    Broker, CallFailure, Calling, Channel, Child, ChildStderr, ChildStdin, ChildStdout, Clock, Closure,
    Command, ConnectDecision, ConnectRequest, Contended, Core, Detached, Event, EventKind, Events,
    ExecDecision, ExecRequest, ExitStatus, ForkServer, ForkServerBuilder, Held, Idle, Io, Living, Message,
    OpenDecision, OpenPurpose, OpenRequest, Outcome, Panic, PeerAddress, Pool, PoolStats, Portable,
    ProcessInfo, ProcessRole, ProcessState, RawMode, Sandbox, Stalled, Stdio, Terminal, Threshold, Told,
    Unavailable, Usage, Verdict, Watch, WindowSize, Worker, WorkerFunction, WorkerIo, WorkerIsolation,
    living,
};
pub use spawn::{
    CallError, CpuStats, Enforcement, FilterState, FrozenBy, IoStats, LandlockPath, LandlockPathState,
    LandlockPort, LandlockState, LaunchMethod, LimitState, MemoryStats, Missing, NamespaceState,
    NotifiedCall, OnExec, Pressure, ProcessStats, RefusedCall, Response, Stall, Stats, StatusFrom,
    Supervisor, SupervisorState, Unread,
};
