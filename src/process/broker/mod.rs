//! A broker: opens, connects and execs of a program that may make none, each decided by a callback of the caller's and
//! carried out by this process. It must not answer any of them by letting the kernel go on.

mod connect;
mod exec;
mod open;
mod path;

pub use connect::{ConnectDecision, ConnectRequest, PeerAddress};
pub use exec::{ExecDecision, ExecRequest};
pub use open::{OpenDecision, OpenPurpose, OpenRequest};

use std::fmt::{self, Debug, Formatter};
use std::time::Duration;

use crate::policy::{Action, Argument, Filter};
use crate::spawn::{NotifiedCall, Response, Supervisor};

type OnOpen = Box<dyn Fn(&OpenRequest) -> OpenDecision + Send + Sync>;
type OnConnect = Box<dyn Fn(&ConnectRequest) -> ConnectDecision + Send + Sync>;
type OnExec = Box<dyn Fn(&ExecRequest) -> ExecDecision + Send + Sync>;

/// Calls that open a file by its name; the last ones look at it.
const OPENS: [&str; 4] = ["open", "creat", "openat", "openat2"];
const LOOKS: [&str; 5] = ["stat", "lstat", "access", "faccessat", "faccessat2"];
const EXECS: [&str; 2] = ["execve", "execveat"];

/// Opens, connects and execs for a program, one by one, as callbacks decide: a [`Supervisor`] with the filter that it needs.
///
/// Paths and addresses are copied out of the program's memory once, while its call provably waits; the callback decides
/// about the copy, and **this process** carries the copy out. What the program does to its memory meanwhile makes no
/// difference. The result is put into the program as a descriptor. What no callback is given for stays as the base filter
/// has it.
///
/// The callbacks run with this process's rights and in its tree: a caller that is root opens what root may open. They are
/// asked one at a time for each child ([`Supervisor`]).
///
/// ```no_run
/// use std::path::Path;
/// use ringfence::{Broker, Filter, OpenDecision, Sandbox};
///
/// # fn main() -> ringfence::Result<()> {
/// let broker = Broker::new().on_open(|request| {
///     if request.path.starts_with("/srv/data") && !request.writes() {
///         OpenDecision::Open
///     } else if request.path.starts_with("/usr") || request.path.starts_with("/lib") {
///         OpenDecision::Inside
///     } else {
///         OpenDecision::Refuse(libc::EACCES)
///     }
/// });
/// let filter = broker.filter(Filter::baseline());
/// let sandbox = Sandbox::builder().system_read_only().seccomp(filter).build()?;
/// let outcome = sandbox.command("cat").arg("/srv/data/list").supervise(broker).output()?;
/// # let _ = outcome;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Broker {
    open: Option<OnOpen>,
    connect: Option<OnConnect>,
    exec: Option<OnExec>,
    connect_limit: Duration,
}

impl Default for Broker {
    fn default() -> Self {
        Self { open: None, connect: None, exec: None, connect_limit: Duration::from_secs(10) }
    }
}

impl Debug for Broker {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_struct("Broker");
        list.field("open", &self.open.is_some()).field("connect", &self.connect.is_some());
        list.field("exec", &self.exec.is_some()).field("connect_limit", &self.connect_limit).finish()
    }
}

impl Broker {
    /// A broker of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides about open(2), creat(2), openat(2), openat2(2), and, so that programs find what they could open, stat(2),
    /// lstat(2), newfstatat(2) and access(2) with a path; statx(2) with a path answers `ENOSYS`, and a C library falls back.
    ///
    /// What is decided on is opened by openat2(2), since Linux 5.6; where a filter around the caller refuses that call, the
    /// program's opens answer the same errno.
    pub fn on_open(mut self, decide: impl Fn(&OpenRequest) -> OpenDecision + Send + Sync + 'static) -> Self {
        self.open = Some(Box::new(decide));
        self
    }

    /// Decides about connect(2), of sockets that keep to their peer: datagrams go to any address ([`ConnectDecision`]).
    pub fn on_connect(
        mut self,
        decide: impl Fn(&ConnectRequest) -> ConnectDecision + Send + Sync + 'static,
    ) -> Self {
        self.connect = Some(Box::new(decide));
        self
    }

    /// How long a connect may take before it fails with `ETIMEDOUT`, that of a socket that does not block too. Default 10 s.
    /// Meanwhile no other call of the child is answered.
    pub fn connect_limit(mut self, limit: Duration) -> Self {
        self.connect_limit = limit;
        self
    }

    /// Decides about execve(2) and execveat(2), which become "start this for me": see [`ExecDecision`].
    pub fn on_exec(mut self, decide: impl Fn(&ExecRequest) -> ExecDecision + Send + Sync + 'static) -> Self {
        self.exec = Some(Box::new(decide));
        self
    }

    /// `base` with rules that notify of what this broker decides about, in place of the rules that `base` has for these
    /// calls.
    pub fn filter(&self, base: Filter) -> Filter {
        let ask = |filter: Filter, calls: &[&'static str]| {
            filter.forget(calls).deny(calls.iter().copied(), Action::Notify)
        };
        let mut filter = base;
        if self.open.is_some() {
            filter = ask(ask(filter, &OPENS), &LOOKS);
            // Of an open descriptor itself the kernel may tell; what stands in the path then is looked up in the program's
            // own tree at most.
            let empty = u64::from(libc::AT_EMPTY_PATH.unsigned_abs());
            let by_path = |flags: u8| [Argument::int(flags).masked_equal(empty, 0)];
            filter = filter
                .forget(["newfstatat", "statx"])
                .rule("newfstatat", by_path(3), Action::Notify)
                .allow(["newfstatat"])
                .rule("statx", by_path(2), Action::Errno(libc::ENOSYS))
                .allow(["statx"]);
        }
        if self.connect.is_some() {
            filter = ask(filter, &["connect"]);
        }
        if self.exec.is_some() {
            filter = ask(filter, &EXECS);
        }
        filter
    }
}

impl Supervisor for Broker {
    fn answer(&self, call: &NotifiedCall<'_>) -> Response {
        let name = call.name().unwrap_or_default();
        let answer = match (name, &self.open, &self.connect, &self.exec) {
            ("connect", _, Some(decide), _) => connect::answer(call, decide, self.connect_limit),
            ("execve" | "execveat", .., Some(decide)) => exec::answer(call, decide),
            (_, Some(decide), ..) => open::answer(call, name, decide),
            _ => Err(libc::EPERM),
        };
        answer.unwrap_or_else(Response::Errno)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use crate::policy::{Action, Filter};
    use crate::process::Sandbox;
    use crate::spawn::{CallError, NotifiedCall, Response};

    #[test]
    fn what_was_done_for_a_call_that_went_away_meanwhile_is_not_given_out() {
        let filter = Filter::baseline().forget(["getpgid"]).deny(["getpgid"], Action::Notify);
        let sandbox = Sandbox::builder().system_read_only().seccomp(filter).build().unwrap();
        let (tell, told) = channel();
        let mut command = sandbox.command("/usr/bin/python3");
        command.args(["-S", "-c", "import os; os.getpgid(0)"]).on_notify(move |call: &NotifiedCall<'_>| {
            let done = call.while_waiting(|thread| {
                kill(Pid::from_raw(thread), Signal::SIGKILL).unwrap();
                let end = Instant::now() + Duration::from_secs(30);
                while call.waits() && Instant::now() < end {
                    thread::sleep(Duration::from_millis(1));
                }
                Ok("of another process by now")
            });
            tell.send(done).unwrap();
            Response::Errno(libc::EPERM)
        });
        command.output().unwrap();
        assert_eq!(told.recv().unwrap(), Err(CallError::Gone));
    }
}
