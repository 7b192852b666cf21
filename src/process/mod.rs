//! What users hold: the sandbox, its commands, a held child, a running child, an outcome. It must not make decisions of policy.

#[cfg(feature = "tokio")]
mod asynchronous;
mod broker;
mod call;
mod channel;
mod child;
mod clock;
mod command;
mod cpu;
mod detached;
mod ends;
mod events;
mod fork_server;
mod group;
mod held;
mod idle;
mod inside;
mod living;
mod outcome;
mod output;
mod pool;
mod sandbox;
mod stdio;
mod terminal;
mod verdict;

#[cfg(feature = "tokio")]
pub use asynchronous::AsyncChild;
pub use broker::{
    Broker, ConnectDecision, ConnectRequest, ExecDecision, ExecRequest, OpenDecision, OpenPurpose,
    OpenRequest, PeerAddress,
};
pub use call::{CallFailure, Calling, Closure, Io, Panic, Portable};
pub use channel::{Channel, Message};
pub use child::Child;
pub use clock::Clock;
pub use command::Command;
pub(crate) use cpu::times as process_ticks;
pub use detached::Detached;
pub use events::{Contended, Event, EventKind, Events, Stalled, Threshold, Told, Unavailable, Watch};
pub use fork_server::{ForkServer, ForkServerBuilder, Worker, WorkerFunction, WorkerIo, WorkerIsolation};
pub use held::Held;
pub use idle::Idle;
pub use inside::{ProcessInfo, ProcessRole, ProcessState};
pub(crate) use inside::{process_arguments, process_info};
pub use living::{Living, living};
pub use outcome::{Core, ExitStatus, Outcome, Usage, Verdict};
pub use pool::{Pool, PoolStats};
pub use sandbox::Sandbox;
pub use stdio::{ChildStderr, ChildStdin, ChildStdout, Stdio};
pub use terminal::{RawMode, Terminal, WindowSize};
