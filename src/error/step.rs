//! The steps of a launch and the objects they work on. It must not know their order: that is `plan/compile.rs`.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

/// A step of building or running a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Step {
    /// Checking the policy.
    Policy,
    /// Checking the command.
    Command,
    /// The caller opens what the child will bind.
    OpenSource,
    /// Making the image.
    Image,
    /// The control groups, and the limits in them.
    Cgroup,
    /// The clone call that makes the namespaces.
    Clone,
    /// The few calls in the window before the image runs.
    Window,
    /// Getting the image to run.
    Start,
    /// The id maps.
    IdMap,
    /// Waiting for the caller's part.
    Gate,
    /// Watching the caller.
    Tether,
    /// Joining the namespaces of a living sandbox.
    Join,
    /// The time namespace.
    Time,
    /// A new session.
    Session,
    /// A session keyring.
    Keyring,
    /// Making mount propagation private.
    Propagation,
    /// The root of the mount tree.
    Root,
    /// An item of the mount tree.
    Mount,
    /// `/proc`.
    Proc,
    /// `/dev`.
    Dev,
    /// A kernel knob of the sandbox's own namespaces.
    Knob,
    /// The host or domain name.
    Hostname,
    /// The loopback interface.
    Loopback,
    /// Changing to the new root.
    Pivot,
    /// A resource limit, or another attribute of the process.
    Limits,
    /// The capability bounding set and the securebits.
    Bounding,
    /// uid, gid and groups.
    Ids,
    /// Ambient, permitted, effective and inheritable capabilities.
    Capabilities,
    /// `no_new_privs`.
    NoNewPrivs,
    /// The Landlock domain.
    Landlock,
    /// Signal dispositions and mask.
    Signals,
    /// The process that is PID 1.
    Init,
    /// Descriptors.
    Descriptors,
    /// The working directory.
    WorkingDirectory,
    /// The system-call filter.
    Seccomp,
    /// Reading back what holds.
    Verify,
    /// `execve`.
    Exec,
    /// The clocks of a running program.
    Clocks,
    /// Waiting for the end.
    Wait,
    /// Looking at what runs.
    Observe,
    /// Ending what runs.
    Kill,
    /// Counting the threads of the calling process.
    Threads,
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Policy => "policy",
            Self::Command => "command",
            Self::OpenSource => "open",
            Self::Image => "image",
            Self::Cgroup => "cgroup",
            Self::Clone => "clone",
            Self::Window => "window",
            Self::Start => "start",
            Self::IdMap => "id map",
            Self::Gate => "gate",
            Self::Tether => "tether",
            Self::Join => "join",
            Self::Time => "time namespace",
            Self::Session => "session",
            Self::Keyring => "keyring",
            Self::Propagation => "mount propagation",
            Self::Root => "root",
            Self::Mount => "mount",
            Self::Proc => "proc",
            Self::Dev => "dev",
            Self::Knob => "knob",
            Self::Hostname => "hostname",
            Self::Loopback => "loopback",
            Self::Pivot => "pivot",
            Self::Limits => "limit",
            Self::Bounding => "bounding set",
            Self::Ids => "ids",
            Self::Capabilities => "capabilities",
            Self::NoNewPrivs => "no_new_privs",
            Self::Landlock => "landlock",
            Self::Signals => "signals",
            Self::Init => "init",
            Self::Descriptors => "descriptor",
            Self::WorkingDirectory => "working directory",
            Self::Seccomp => "seccomp",
            Self::Verify => "verify",
            Self::Exec => "exec",
            Self::Clocks => "clocks",
            Self::Wait => "wait",
            Self::Observe => "observe",
            Self::Kill => "kill",
            Self::Threads => "threads",
        })
    }
}

/// What a step is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Object {
    /// The step says it all.
    #[default]
    None,
    /// A path of the host.
    HostPath(PathBuf),
    /// A path inside.
    SandboxPath(PathBuf),
    /// An item of the mount tree: where it comes from, where it stands, how.
    Mount {
        /// The host's path, or what else stands there.
        source: Cow<'static, str>,
        /// Where it stands inside.
        target: PathBuf,
        /// `read-only`, `read-write`, or nothing.
        how: &'static str,
    },
    /// Something with a name: a capability, a limit, a knob.
    Named(Cow<'static, str>),
    /// A descriptor by its number.
    Fd(i32),
}

impl Display for Object {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::HostPath(path) | Self::SandboxPath(path) => write!(f, "{path:?}"),
            Self::Mount { source, target, how } => {
                if source.is_empty() {
                    write!(f, "{target:?}")?;
                } else {
                    write!(f, "{source} at {target:?}")?;
                }
                if how.is_empty() { Ok(()) } else { write!(f, " {how}") }
            }
            Self::Named(name) => f.write_str(name),
            Self::Fd(number) => write!(f, "{number}"),
        }
    }
}

impl From<PathBuf> for Object {
    fn from(path: PathBuf) -> Self {
        Self::HostPath(path)
    }
}

impl From<&'static str> for Object {
    fn from(name: &'static str) -> Self {
        Self::Named(name.into())
    }
}

impl From<String> for Object {
    fn from(name: String) -> Self {
        Self::Named(name.into())
    }
}
