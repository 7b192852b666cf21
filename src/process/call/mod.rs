//! A function of the caller behind the fence: in a copy of the calling process that is set up, confined and read back like any
//! other child, and then goes on in Rust. It must not return into the caller's frames there.

mod answer;
mod inside;

pub use answer::{CallFailure, Panic, Portable};
pub use inside::Io;
pub(super) use inside::{finish, settle};

use std::ffi::CString;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::result::Result as StdResult;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use self::answer::{Answer, BEGUN, Got, PANICKED, RETURNED};
use self::inside::{ANSWER_FD, PANIC_CODE, Passed};
use super::child::Child;
use super::ends;
use super::held::Held;
use super::outcome::{Outcome, Verdict};
use super::sandbox::Sandbox;
use super::stdio::Stdio;
use crate::error::{Error, ErrorKind, Object, Result, Step};
use crate::plan::{Controlling, LookedInto, Program, filter_errno};
use crate::spawn::{Body, Fence, FilterBy, Request, Streams, Strings, When, check_closure, launch, only_one};
use crate::sys;

/// What the answer is limited to by default, bytes.
const LIMIT: usize = 16 << 20;
/// How long a function may run that was copied out of a process with other threads, where nothing else was said.
const THREADED: Duration = Duration::from_secs(60);
/// Descriptors of one function.
const FDS_MAX: usize = 250;

/// Whether other threads are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    Refused,
    Allowed,
}

impl Threads {
    /// A panicking thread can have no panic hook of its own, and other threads may hold locks.
    pub(super) fn check(self, object: &'static str) -> Result<()> {
        if thread::panicking() {
            let error = Error::new(ErrorKind::InvalidCommand, Step::Command, object);
            return Err(error.detail("the calling thread is panicking"));
        }
        match self {
            Self::Refused => only_one(object),
            Self::Allowed => Ok(()),
        }
    }
}

/// A function of the caller that is to run behind the fence.
///
/// The function runs in a copy of the calling process (fork(2)), in the sandbox's namespaces, mount tree, groups and ids,
/// without capabilities, under the policy's filter, with a PID 1 in front: everything that holds for a program holds, and is
/// read back before the function begins. What is different:
///
/// * **It has the caller's memory**, a copy of it: secrets of the caller are readable. Start a [`crate::ForkServer`] before there
///   are any. The caller's executable can be opened as `/proc/self/exe`. Shared mappings that could be written to are unmapped:
///   a pointer into one leads nowhere. Its cost grows with the caller's memory.
/// * **It is for callers with one thread.** Whatever another thread holds at the moment of the copy, the allocator excepted,
///   stays locked for ever. So it is refused where there are other threads, see [`Closure::allow_threads`].
/// * Nothing of the caller's frames runs there: the process ends behind the function, without destructors, `atexit` handlers or
///   the caller's panic hook. Handlers of `pthread_atfork(3)` do run, before the set-up.
/// * Signals have their default action (SIGPIPE and SIGSEGV included) and none is blocked. The environment is empty, but the text
///   of the caller's is in memory, and in `/proc/self/environ`. Limits are the policy's.
/// * libc is told its new thread id where it says where it keeps that (glibc does, musl does not: there raise(3) and abort(3) may
///   end it by another signal than they should).
/// * Calls that the filter kills for end it by SIGSYS, untold ([`crate::Filter::untold_kills`]). A filter that notifies is an
///   error, and so is a sandbox without an init.
/// * The filter must let it `write`, and end. [`crate::Filter::worker`] is enough for functions that compute.
#[derive(Debug)]
pub struct Closure {
    fence: Arc<Fence>,
    stdio: [Option<Stdio>; 3],
    passed: Vec<OwnedFd>,
    channel: Channelled,
    cwd: PathBuf,
    limit: usize,
    deadline: Option<Duration>,
    threads: Threads,
    name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channelled {
    No,
    Yes,
}

impl Sandbox {
    /// Runs a function of the caller behind the fence and returns what it returns. See [`Closure`] for what is different from a
    /// program, above all: it has a copy of the caller's memory, and the caller must have no other threads.
    ///
    /// ```
    /// # fn main() -> Result<(), ringfence::CallFailure> {
    /// let sandbox = ringfence::Sandbox::builder().build()?;
    /// # let mut closure = sandbox.closure();
    /// # let sandbox = closure.allow_threads();
    /// let text = String::from("untrusted, 3, 4");
    /// let sum = sandbox.call(|_io| text.split(", ").filter_map(|word| word.parse::<u64>().ok()).sum::<u64>())?;
    /// assert_eq!(sum, 7);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CallFailure`].
    pub fn call<T: Portable>(&self, function: impl FnOnce(Io) -> T) -> StdResult<T, CallFailure> {
        self.closure().call(function)
    }

    /// A call with more to say: streams, descriptors, limits.
    #[must_use]
    pub fn closure(&self) -> Closure {
        Closure {
            fence: Arc::clone(self.fence()),
            stdio: [None, None, None],
            passed: Vec::new(),
            channel: Channelled::No,
            cwd: PathBuf::from("/"),
            limit: LIMIT,
            deadline: None,
            threads: Threads::Refused,
            name: None,
        }
    }
}

type Called<T> = StdResult<T, CallFailure>;

impl Closure {
    /// Standard input. Default `/dev/null`. What std's own [`std::io::stdin`] of the caller had buffered is in the copy too.
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[0] = Some(stdio.into());
        self
    }

    /// Standard output. Default `/dev/null`. What the caller has printed is flushed before the copy is made, so that it does not
    /// come twice; buffers of C's stdio are not.
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[1] = Some(stdio.into());
        self
    }

    /// Standard error. Default `/dev/null`. A panic is said there too.
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[2] = Some(stdio.into());
        self
    }

    /// Passes an open descriptor: [`Io::fds`], in this order. Every descriptor that is not passed is closed in the copy, whoever
    /// owned it in the caller.
    pub fn fd(&mut self, fd: impl Into<OwnedFd>) -> &mut Self {
        self.passed.push(fd.into());
        self
    }

    /// Gives the function one end of a [`crate::Channel`] ([`Io::channel`]); the other is [`Child::channel`] of
    /// [`Calling::child`].
    pub fn channel(&mut self) -> &mut Self {
        self.channel = Channelled::Yes;
        self
    }

    /// The working directory inside. Default `/`.
    pub fn current_dir(&mut self, path: impl Into<PathBuf>) -> &mut Self {
        self.cwd = path.into();
        self
    }

    /// Bytes that the result may have. Default 16 MiB. More is not received, and the process is killed.
    pub fn result_limit(&mut self, bytes: usize) -> &mut Self {
        self.limit = bytes;
        self
    }

    /// How long the function may run, beside the policy's [`crate::Builder::wall_time`]: what is less holds. Default: no limit;
    /// 60 s with [`Closure::allow_threads`] where the policy has none.
    pub fn deadline(&mut self, limit: Duration) -> &mut Self {
        self.deadline = Some(limit);
        self
    }

    /// Copies the process although other threads run. Whatever lock one of them holds at that moment stays locked in the copy:
    /// the function must not use what those threads use, be it a logger, a cache, or std's own streams. libc's allocator is
    /// looked after. A function that hangs is ended by its deadline.
    pub fn allow_threads(&mut self) -> &mut Self {
        self.threads = Threads::Allowed;
        self
    }

    /// As [`crate::Command::name`].
    pub fn name(&mut self, name: impl Into<String>) -> &mut Self {
        self.name = Some(name.into());
        self
    }

    /// Runs the function and waits for its result.
    ///
    /// # Errors
    /// [`CallFailure`].
    pub fn call<T: Portable>(&mut self, function: impl FnOnce(Io) -> T) -> Called<T> {
        self.spawn(function)?.join()
    }

    /// Runs the function beside the caller. `Ok` means that it has begun, confined and read back.
    ///
    /// # Errors
    /// [`CallFailure::Launch`]; [`CallFailure::Ended`] where its process was ended before it began.
    pub fn spawn<T: Portable>(&mut self, function: impl FnOnce(Io) -> T) -> Called<Calling<T>> {
        check_closure(&self.fence)?;
        self.threads.check("closure")?;
        let null = Stdio::null();
        let stream = |number: usize| self.stdio[number].as_ref().unwrap_or(&null);
        let (streams, mut ends) = ends::streams([stream(0), stream(1), stream(2)])?;
        ends.name.clone_from(&self.name);
        let (ours, theirs) = answer_sockets()?;
        let mut fds = vec![theirs];
        if self.channel == Channelled::Yes {
            let (ours, theirs) = ends::channel()?;
            ends.channel = Some(ours);
            fds.push(theirs);
        }
        let channels = i32::from(self.channel == Channelled::Yes);
        let mut count = 0;
        for fd in &self.passed {
            fds.push(
                fd.try_clone()
                    .map_err(|error| failed("fcntl", error.raw_os_error().unwrap_or(libc::EMFILE)))?,
            );
            count += 1;
        }
        if fds.len() > FDS_MAX {
            return Err(mistake("descriptors", "at most 248 can be passed").into());
        }
        let passed = Passed { channels, fds: count };
        flush();
        let mut function = Some(function);
        let mut run = || {
            if let Some(function) = function.take() {
                inside::run(function, passed);
            }
        };
        let body = Body { run: &mut run, filter: FilterBy::Table, looked_into: looked_into() };
        let request = request(streams, (fds, ANSWER_FD), &self.cwd, body)?;
        let running = launch(&self.fence, request)?;
        let mut clocks = self.fence.policy.clocks().clone();
        let own =
            self.deadline.or((self.threads == Threads::Allowed && clocks.wall.is_none()).then_some(THREADED));
        clocks.wall = clocks.wall.into_iter().chain(own).min();
        let child = Held::new(running, ends).release_with(clocks)?;
        begun(child, Answer(ours), self.limit, self.fence.policy.setup_timeout)
    }
}

/// What is still in std's buffer would be in the copy's too, and be written twice.
pub(super) fn flush() {
    // Where it cannot be written it stays, and nothing of the caller's is lost.
    io::stdout().flush().ok();
}

/// As little as into the caller.
fn looked_into() -> LookedInto {
    match sys::prctl(libc::PR_GET_DUMPABLE, 0, 0) {
        Ok(1) => LookedInto::AsUsual,
        Ok(_) | Err(_) => LookedInto::Never,
    }
}

/// A launch whose tail goes back to Rust; the descriptors get consecutive numbers.
pub(super) fn request<'a>(
    stdio: Streams,
    (fds, first): (Vec<OwnedFd>, i32),
    cwd: &Path,
    body: Body<'a>,
) -> Result<Request<'a>> {
    let cwd = CString::new(cwd.as_os_str().as_bytes())
        .map_err(|_| mistake("working directory", "it holds a NUL"))?;
    Ok(Request {
        program: Program::Paths(Vec::new()),
        name: Object::from("closure"),
        argv: Strings::new(Vec::new()),
        envp: Strings::new(Vec::new()),
        cwd,
        stdio,
        passed: fds.into_iter().zip(first..).collect(),
        program_fd: None,
        terminal: Controlling::No,
        supervisor: None,
        when: When::Now,
        body: Some(body),
        site: None,
    })
}

/// Waits for the word that the function is about to run: the filter is attached then.
fn begun<T>(child: Child, answer: Answer, limit: usize, patience: Duration) -> Called<Calling<T>> {
    let mut first = Vec::new();
    let deadline = Instant::now().checked_add(patience);
    let got = answer.fill(&mut first, 1, (&child, deadline)).map_err(|errno| failed("recv", errno as i32))?;
    match (got, first.as_slice()) {
        (Got::All, [BEGUN]) => Ok(Calling { child, answer, limit, value: PhantomData }),
        (Got::Late, _) => {
            child.kill()?;
            let error = Error::new(ErrorKind::Setup, Step::Start, "closure");
            Err(error
                .detail("it did not begin in time and was killed: a lock that another thread held?")
                .into())
        }
        (Got::All, _) => Err(CallFailure::Malformed),
        (Got::End, _) => Err(unbegun(&child.wait()?)),
    }
}

fn unbegun(outcome: &Outcome) -> CallFailure {
    match outcome.code().and_then(filter_errno) {
        Some(errno) => Error::new(ErrorKind::Setup, Step::Seccomp, "filter").call("seccomp", errno).into(),
        None => CallFailure::Ended(Box::new(outcome.clone())),
    }
}

fn answer_sockets() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|errno| Error::new(ErrorKind::Setup, Step::Descriptors, "result").nix("socketpair", errno))
}

fn failed(call: &'static str, errno: i32) -> Error {
    Error::new(ErrorKind::Process, Step::Wait, "result").call(call, errno)
}

fn mistake(object: &'static str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidCommand, Step::Command, object).detail(why)
}

/// A function that runs behind the fence. Dropping it kills and reaps its process.
#[derive(Debug)]
#[must_use = "dropping it kills the function's process"]
pub struct Calling<T> {
    child: Child,
    answer: Answer,
    limit: usize,
    value: PhantomData<fn() -> T>,
}

impl<T: Portable> Calling<T> {
    /// Its process: report, signals, statistics, kill.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// The same, to take streams and channel out.
    pub fn child_mut(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the result and the end of the process. Piped output is the caller's to read meanwhile: what nobody reads makes
    /// the function wait.
    ///
    /// # Errors
    /// [`CallFailure`].
    pub fn join(self) -> Called<T> {
        let received = match self.answer.receive(&self.child, self.limit) {
            Ok(received) => received,
            Err(failure) => {
                self.child.kill()?;
                return Err(failure);
            }
        };
        let outcome = self.child.wait()?;
        match (received, outcome.verdict()) {
            (Some((RETURNED, bytes)), Verdict::Exited(0)) => {
                T::from_bytes(bytes).ok_or(CallFailure::Malformed)
            }
            (Some((PANICKED, bytes)), Verdict::Exited(PANIC_CODE)) => Err(answer::panic(&bytes)),
            (Some(_), Verdict::Exited(_)) => Err(CallFailure::Malformed),
            _ => Err(CallFailure::Ended(Box::new(outcome))),
        }
    }
}
