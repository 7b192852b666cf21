//! What users hold: the sandbox, its commands, a held child, a running child, an outcome. It must not make decisions of policy.

mod broker;
mod child;
mod command;
mod held;
mod outcome;
mod sandbox;
mod stdio;

pub use broker::{
    Broker, ConnectDecision, ConnectRequest, ExecDecision, ExecRequest, OpenDecision, OpenPurpose,
    OpenRequest, PeerAddress,
};
pub use child::Child;
pub use command::Command;
pub use held::Held;
pub use outcome::{Core, ExitStatus, Outcome, Usage, Verdict};
pub use sandbox::Sandbox;
pub use stdio::{ChildStderr, ChildStdin, ChildStdout, Stdio};
