//! A fork server: started early, confined once, it forks workers on request. It must not run a function itself.

mod serve;
mod wire;
mod worker;

pub use worker::Worker;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair};
use nix::sys::time::{TimeVal, TimeValLike};

use self::serve::{CONTROL_FD, Ruleset, Setup};
use super::call::{Threads, flush, request};
use super::channel::Channel;
use super::child::Child;
use super::ends;
use super::held::Held;
use super::outcome::Outcome;
use super::sandbox::Sandbox;
use super::stdio::Stdio;
use crate::error::{Error, ErrorKind, Result, Step, errno_text};
use crate::plan::LookedInto;
use crate::policy::Clocks;
use crate::spawn::{
    Body, Enforcement, Fence, FilterBy, Report, WorkerHeard, check_closure, deadline_after, filter_words,
    hear_worker, launch,
};
use crate::sys;

/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` and `LANDLOCK_SCOPE_SIGNAL` (since Linux 6.12, ABI 6).
const SCOPES: u64 = 1 | 2;
const SCOPES_SINCE: u32 = 6;

/// A function that workers run: what it returns is the exit code, of which the lowest eight bits count.
pub type WorkerFunction = fn(&mut WorkerIo) -> i32;

/// What a worker's function has beside its standard streams.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct WorkerIo {
    /// What was asked for with it, at most [`Worker::ARGUMENTS_MAX`] bytes.
    pub arguments: Vec<u8>,
    /// Its end of the channel, if it was given one.
    pub channel: Option<Channel>,
    /// Descriptors that were passed, in their order.
    pub fds: Vec<OwnedFd>,
}

/// What keeps the workers of one server apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerIsolation {
    /// Each is in a Landlock domain of its own: it can signal, trace, or reach by an abstract socket neither the server nor
    /// another worker (landlock(7), "Scoping", since Linux 6.12).
    Landlock,
    /// None can look into another or into the server (`PR_SET_DUMPABLE`), unless that one lets it; but they have the same ids, so
    /// one may signal and kill the others and the server, as far as the filter lets it.
    SignalsOpen {
        /// What the kernel lacks.
        why: String,
    },
}

/// Starts a [`ForkServer`].
#[derive(Debug)]
pub struct ForkServerBuilder {
    fence: Arc<Fence>,
    functions: Vec<(String, WorkerFunction)>,
    threads: Threads,
}

/// A confined process of this program that forks workers on request: a zygote.
///
/// Start it early, while the program has one thread and no secrets in its memory: workers are copies of what the program was
/// then. It is set up, confined and read back as any child of the sandbox, once; it runs nothing but this crate's own loop, and
/// has not yet the policy's filter. A worker is a fork of it: it loses everything of the server's, enters a Landlock domain of
/// its own where the kernel has that, attaches the filter, and runs one registered function. That is several times faster than a
/// launch ([`crate::Command::spawn`]).
///
/// Workers share their sandbox: mounts, network, pid namespace, ids, and the groups with their limits. They share no memory.
/// [`ForkServer::isolation`] says what keeps them apart. The clocks of the policy are each worker's own; limits of the tree are all
/// workers' together, and where the kernel ends a worker for one, its verdict is SIGKILL. What a worker forks outlives it until the
/// server ends: a filter without fork, as [`crate::Filter::worker`], has no such thing.
///
/// Dropping it ends the server and every worker; so does the end of this process.
#[derive(Debug)]
pub struct ForkServer {
    server: Child,
    control: OwnedFd,
    functions: Vec<(String, WorkerFunction)>,
    filter: Option<usize>,
    isolation: WorkerIsolation,
}

impl Sandbox {
    /// A fork server in this sandbox; see [`ForkServer`].
    ///
    /// ```
    /// use ringfence::{Sandbox, Verdict, WorkerIo};
    ///
    /// fn double(io: &mut WorkerIo) -> i32 {
    ///     2 * i32::from(io.arguments[0])
    /// }
    ///
    /// # fn main() -> ringfence::Result<()> {
    /// let sandbox = Sandbox::builder().build()?;
    /// // In main, before the first thread is made.
    /// let mut server = sandbox.fork_server();
    /// # let mut server = server.allow_threads();
    /// let server = server.function("double", double).start()?;
    /// let worker = server.worker("double").arguments([21]).spawn()?;
    /// assert_eq!(worker.wait()?.verdict(), Verdict::Exited(42));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn fork_server(&self) -> ForkServerBuilder {
        ForkServerBuilder {
            fence: Arc::clone(self.fence()),
            functions: Vec::new(),
            threads: Threads::Refused,
        }
    }
}

impl ForkServerBuilder {
    /// Registers a function under a name. Of two with the same name the first is found.
    #[must_use]
    pub fn function(mut self, name: impl Into<String>, function: WorkerFunction) -> Self {
        self.functions.push((name.into(), function));
        self
    }

    /// Starts it although other threads run; see [`crate::Closure::allow_threads`]. What they hold stays locked in every worker.
    #[must_use]
    pub fn allow_threads(mut self) -> Self {
        self.threads = Threads::Allowed;
        self
    }

    /// Sets up, confines and reads back the server. `Ok` means that it serves.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] with [`Step::Threads`] where other threads run; [`ErrorKind::InvalidCommand`] for a sandbox
    /// without an init or with a filter that notifies; else as [`crate::Command::spawn_held`].
    pub fn start(self) -> Result<ForkServer> {
        check_closure(&self.fence)?;
        self.threads.check("fork server")?;
        flush();
        let null = Stdio::null();
        let (streams, ends) = ends::streams([&null, &null, &null])?;
        let (control, theirs) = control(self.fence.policy.setup_timeout)?;
        let filter = filter_words(&self.fence)?;
        let (ruleset, isolation) = ruleset()?;
        let passed = if ruleset.is_some() { Ruleset::Passed } else { Ruleset::None };
        let fds: Vec<OwnedFd> = [theirs].into_iter().chain(ruleset).collect();
        let mut run = || {
            serve::serve(Setup { functions: &self.functions, filter: filter.as_deref(), ruleset: passed });
        };
        let body = Body { run: &mut run, filter: FilterBy::Body, looked_into: LookedInto::Never };
        let running = launch(&self.fence, request(streams, (fds, CONTROL_FD), Path::new("/"), body)?)?;
        // The clocks are the workers'.
        let server = Held::new(running, ends).release_with(Clocks::default())?;
        serves(&server, &control)?;
        let filter = filter.map(|words| words.len());
        Ok(ForkServer { server, control, functions: self.functions, filter, isolation })
    }
}

impl ForkServer {
    /// A worker that is to run the function of this name.
    pub fn worker(&self, function: impl Into<String>) -> Worker<'_> {
        Worker::new(self, function.into())
    }

    /// What holds for the server, read back from the kernel. Its workers have the policy's filter beside that.
    #[must_use]
    pub fn enforcement(&self) -> &Enforcement {
        self.server.enforcement()
    }

    /// What keeps its workers apart.
    #[must_use]
    pub fn isolation(&self) -> &WorkerIsolation {
        &self.isolation
    }

    /// The server's own process, with what is counted of the whole sandbox: statistics, limits, events, processes.
    pub fn child(&self) -> &Child {
        &self.server
    }

    /// Ends the server and every worker.
    ///
    /// # Errors
    /// As [`Child::kill`].
    pub fn stop(self) -> Result<Outcome> {
        self.server.kill()?;
        self.server.wait()
    }

    fn ended(&self) -> Error {
        let error = Error::new(ErrorKind::Process, Step::Start, "fork server");
        match self.server.try_wait() {
            Ok(Some(outcome)) => error.detail(format!("it has ended: {}", outcome.verdict())),
            Ok(None) | Err(_) => error.detail("it has closed its socket"),
        }
    }
}

impl AsFd for ForkServer {
    /// A pidfd of the sandbox: readable when server and workers have ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.server.as_fd()
    }
}

/// Waits for its first word: a lock that another thread held at the copy would keep it from ever coming.
fn serves(server: &Child, control: &OwnedFd) -> Result<()> {
    let deadline = deadline_after(server.running.fence.policy.setup_timeout);
    let failed = || Error::new(ErrorKind::Setup, Step::Start, "fork server");
    match hear_worker(control.as_fd(), server.as_fd(), deadline) {
        Ok(WorkerHeard::Report(Report::Ready, _)) => Ok(()),
        Ok(WorkerHeard::Report(..)) => Err(failed().detail("it said something else")),
        Ok(WorkerHeard::End) => Err(failed().detail(format!("it has ended: {}", server.wait()?.verdict()))),
        Ok(WorkerHeard::Late) => {
            Err(failed().detail("it did not begin in time and was killed: a lock that another thread held?"))
        }
        Err((call, errno)) => Err(failed().call(call, errno)),
    }
}

/// Both ends; a server that does not read makes nobody wait for ever.
fn control(patience: Duration) -> Result<(OwnedFd, OwnedFd)> {
    let failed =
        |call, errno| Error::new(ErrorKind::Setup, Step::Descriptors, "fork server").nix(call, errno);
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|errno| failed("socketpair", errno))?;
    let micros = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX).max(1);
    setsockopt(&ours, SendTimeout, &TimeVal::microseconds(micros))
        .map_err(|errno| failed("setsockopt", errno))?;
    Ok((ours, theirs))
}

/// A domain that handles nothing but its scopes.
fn ruleset() -> Result<(Option<OwnedFd>, WorkerIsolation)> {
    let abi = sys::landlock_abi();
    if !abi.is_ok_and(|abi| abi >= SCOPES_SINCE) {
        let found = abi.map_or_else(errno_text, |abi| format!("this kernel has {abi}"));
        let why = format!("Landlock of ABI 6 (Linux 6.12): {found}");
        return Ok((None, WorkerIsolation::SignalsOpen { why }));
    }
    let ruleset = sys::create_ruleset(&[0, 0, SCOPES]).map_err(|errno| {
        Error::new(ErrorKind::Setup, Step::Landlock, "workers").call("landlock_create_ruleset", errno)
    })?;
    Ok((Some(ruleset), WorkerIsolation::Landlock))
}
