//! One worker, from the request to the handle. It must not hand out a process before the kernel has said whose child it is.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

use super::super::child::Child;
use super::super::clock;
use super::super::cpu::Source;
use super::super::ends::{self, Ends};
use super::super::living;
use super::super::stdio::Stdio;
use super::ForkServer;
use super::wire::{ARGUMENTS_MAX, Asked, FDS_MAX};
use crate::error::{Error, ErrorKind, Object, Result, Step};
use crate::spawn::{Report, Running, WorkerHeard, deadline_after, hear_worker, identify, open_nulls};
use crate::sys::{self, Cloned};

/// How long a sandbox may take to end, in milliseconds, whose server has ended.
const ENDING: i32 = 500;

/// A worker to be started; may be started many times.
#[derive(Debug)]
pub struct Worker<'s> {
    server: &'s ForkServer,
    function: String,
    arguments: Vec<u8>,
    stdio: [Option<Stdio>; 3],
    passed: Vec<OwnedFd>,
    channels: u8,
    name: Option<String>,
}

impl<'s> Worker<'s> {
    /// Bytes of the arguments. What is larger goes by a descriptor.
    pub const ARGUMENTS_MAX: usize = ARGUMENTS_MAX;
    /// Descriptors beside the standard streams, the channel included.
    pub const DESCRIPTORS_MAX: usize = FDS_MAX;

    pub(super) fn new(server: &'s ForkServer, function: String) -> Self {
        let (arguments, stdio, passed) = (Vec::new(), [None, None, None], Vec::new());
        Self { server, function, arguments, stdio, passed, channels: 0, name: None }
    }

    /// What the function is told ([`super::WorkerIo::arguments`]).
    pub fn arguments(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.arguments = bytes.into();
        self
    }

    /// Standard input. Default `/dev/null`.
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[0] = Some(stdio.into());
        self
    }

    /// Standard output. Default `/dev/null`.
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[1] = Some(stdio.into());
        self
    }

    /// Standard error. Default `/dev/null`. A panic of the function is said there.
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[2] = Some(stdio.into());
        self
    }

    /// Passes an open descriptor ([`super::WorkerIo::fds`], in this order). It has no other.
    pub fn fd(&mut self, fd: impl Into<OwnedFd>) -> &mut Self {
        self.passed.push(fd.into());
        self
    }

    /// Gives the function one end of a [`crate::Channel`]; the other is [`Child::channel`].
    pub fn channel(&mut self) -> &mut Self {
        self.channels = 1;
        self
    }

    /// As [`crate::Command::name`].
    pub fn name(&mut self, name: impl Into<String>) -> &mut Self {
        self.name = Some(name.into());
        self
    }

    /// Starts it. `Ok` means that it is set up and is about to run the function; how that ends is its [`crate::Verdict`]. A panic
    /// is exit code 101. A call that the filter kills for is SIGSYS, untold. Where the kernel has no memory for the filter, it
    /// ends by SIGABRT without the function.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidCommand`] for an unknown function or too much of something; [`ErrorKind::Process`] where the server has
    /// ended; [`ErrorKind::Setup`] where a step failed, or took longer than [`crate::Builder::setup_timeout`]. No worker is left
    /// behind.
    pub fn spawn(&self) -> Result<Child> {
        let function = self.check()?;
        let null = Stdio::null();
        let stream = |number: usize| self.stdio[number].as_ref().unwrap_or(&null);
        let (mut streams, mut ends) = ends::streams([stream(0), stream(1), stream(2)])?;
        open_nulls(&mut streams)?;
        ends.name.clone_from(&self.name);
        let (report, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| failed(Step::Descriptors).nix("socketpair", errno))?;
        let channel = if self.channels == 1 {
            let (ours, theirs) = ends::channel()?;
            ends.channel = Some(ours);
            Some(theirs)
        } else {
            None
        };
        let own = [theirs]
            .into_iter()
            .chain(streams.into_iter().flatten())
            .chain(channel)
            .collect::<Vec<OwnedFd>>();
        let numbers: Vec<RawFd> = own.iter().chain(&self.passed).map(AsRawFd::as_raw_fd).collect();
        let asked = Asked { function, channels: self.channels };
        self.ask(&asked.to_bytes(&self.arguments), &numbers)?;
        drop(own);
        let (cloned, report) = self.confirmed(report)?;
        let running = Running::worker(&self.server.server.running, cloned, report, self.server.filter)?;
        child(running, ends)
    }

    /// Which function it is.
    fn check(&self) -> Result<usize> {
        let mistake = |object: Object, why: &str| {
            Err(Error::new(ErrorKind::InvalidCommand, Step::Command, object).detail(why))
        };
        if self.arguments.len() > ARGUMENTS_MAX {
            return mistake("arguments".into(), "more than 60 KiB: pass a descriptor");
        }
        if self.passed.len() + usize::from(self.channels) > FDS_MAX {
            return mistake("descriptors".into(), "at most 12 can be passed, the channel included");
        }
        if let Some(why) = self.name.as_deref().and_then(living::mistake) {
            return mistake("name".into(), why);
        }
        let known = self.server.functions.iter().position(|(name, _)| *name == self.function);
        match known {
            Some(function) => Ok(function),
            None => mistake(format!("function {:?}", self.function).into(), "it was not registered"),
        }
    }

    fn ask(&self, bytes: &[u8], numbers: &[RawFd]) -> Result<()> {
        let rights = [ControlMessage::ScmRights(numbers)];
        loop {
            let flags = MsgFlags::MSG_NOSIGNAL;
            let control = self.server.control.as_raw_fd();
            match sendmsg::<()>(control, &[IoSlice::new(bytes)], &rights, flags, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ECONNREFUSED) => {
                    return Err(self.server.ended());
                }
                Err(Errno::EAGAIN) => return Err(late()),
                Err(errno) => return Err(failed(Step::Start).nix("sendmsg", errno)),
            }
        }
    }

    /// Waits for the server's word that the worker is there and for the worker's that it is set up, in whichever order. Who gives
    /// up drops its end of the socket, and the server ends what nobody owns.
    fn confirmed(&self, report: OwnedFd) -> Result<(Cloned, OwnedFd)> {
        let server = &self.server.server;
        let deadline = deadline_after(server.running.fence.policy.setup_timeout);
        let (mut pidfd, mut ready) = (None, false);
        let error = loop {
            if ready && let Some(pidfd) = pidfd.take() {
                match identify(&pidfd, server.running.program) {
                    Ok(pid) => return Ok((Cloned { pid: pid.unwrap_or(0), pidfd }, report)),
                    // A function that runs already may have ended its server, and that shows as anything.
                    Err(_) if sys::poll_fd(server.as_fd(), ENDING) == Ok(true) => break self.server.ended(),
                    // It is not ours to kill then.
                    Err(error) => return Err(error),
                }
            }
            match hear_worker(report.as_fd(), server.as_fd(), deadline) {
                Ok(WorkerHeard::Report(Report::Started, fds)) if pidfd.is_none() => {
                    pidfd = fds.into_iter().next();
                }
                Ok(WorkerHeard::Report(Report::Ready, _)) if !ready => ready = true,
                Ok(WorkerHeard::Report(Report::Failed(at, errno), _)) => {
                    let (step, call) = at.named();
                    break failed(step).call(call, errno);
                }
                Ok(WorkerHeard::Report(Report::Ended(..), _)) => {
                    break failed(Step::Start).detail("the worker ended before its function");
                }
                Ok(WorkerHeard::Report(..)) => {
                    break failed(Step::Gate).detail("the server said something else");
                }
                Ok(WorkerHeard::End) => break self.server.ended(),
                Ok(WorkerHeard::Late) => break late(),
                Err((call, errno)) => break failed(Step::Gate).call(call, errno),
            }
        };
        if let Some(pidfd) = pidfd
            && identify(&pidfd, server.running.program).is_ok()
        {
            // ESRCH: it has ended, which is what is wanted.
            sys::send_signal(&pidfd, libc::SIGKILL).ok();
        }
        Err(error)
    }
}

/// The handle, with the policy's clocks running.
fn child(running: Running, mut ends: Ends) -> Result<Child> {
    let clocks = running.fence.policy.clocks().clone();
    let source = Source::Tree { root: running.program };
    let ready = clock::prepare(&clocks, (running.parent.pidfd(), None), source)?;
    let registered = ends.name.take().map(|name| living::enter(name, &running)).transpose()?;
    let clocks = ready.map(|ready| ready.begin(Instant::now()));
    Ok(Child { registered, ..Child::new(running, ends, clocks) })
}

fn late() -> Error {
    failed(Step::Start).detail("the fork server did not answer in time")
}

fn failed(step: Step) -> Error {
    Error::new(ErrorKind::Setup, step, "worker")
}
