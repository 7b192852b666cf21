//! A running program: pidfd first, wait, kill, signals, streams. Dropping it kills and reaps everything inside.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::clock::Watched;
use super::command::Command;
use super::ends::Ends;
use super::living::Registered;
use super::outcome::{ExitStatus, Outcome, Usage};
use super::output::{Over, Stream, collect};
use super::stdio::{ChildStderr, ChildStdin, ChildStdout};
use super::terminal::Terminal;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::policy::Init;
use crate::spawn::{Enforcement, Group, Running, StatusFrom};
use crate::sys::{self, Block, ExitInfo, Reaped};

/// How long the kernel may take to reap what nobody waits for, and how often that is looked at.
const MOMENT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_micros(100);

/// A program that runs behind the fence. Methods take `&self`: many threads may wait, signal and kill.
///
/// Dropping it kills and reaps everything inside.
#[derive(Debug)]
#[must_use = "dropping a child kills it"]
pub struct Child {
    /// The caller's end of a piped standard input.
    pub stdin: Option<ChildStdin>,
    /// The caller's end of a piped standard output. Whoever reads it to its end waits for everyone who has the other one:
    /// a program can send it out through a channel or a socket. [`Child::wait_with_output`] stops when the program has ended.
    pub stdout: Option<ChildStdout>,
    /// The caller's end of a piped standard error.
    pub stderr: Option<ChildStderr>,
    /// The caller's end of the channel, if the command has one.
    pub channel: Option<Channel>,
    /// The caller's side of the terminal, if the command has one.
    pub terminal: Option<Terminal>,
    pub(super) running: Running,
    pub(super) killed: AtomicBool,
    pub(super) flooded: AtomicBool,
    pub(super) clocks: Option<Watched>,
    pub(super) registered: Option<Registered>,
}

impl Child {
    pub(super) fn new(running: Running, ends: Ends, clocks: Option<Watched>) -> Self {
        let (killed, flooded) = (AtomicBool::new(false), AtomicBool::new(false));
        Self {
            stdin: ends.stdin.map(ChildStdin::from),
            stdout: ends.stdout.map(ChildStdout::from),
            stderr: ends.stderr.map(ChildStderr::from),
            channel: ends.channel,
            terminal: ends.terminal,
            running,
            killed,
            flooded,
            clocks,
            registered: None,
        }
    }

    /// The program's pid as the caller sees it. For signals use the handle: a pid can be another process's by now.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.running.program.unsigned_abs()
    }

    /// The pid of the sandbox's first process: its init, or the program where there is none. Of a command that joined a
    /// sandbox, that of the process outside which waits for it.
    #[must_use]
    pub fn init_id(&self) -> u32 {
        self.running.parent.pid().unsigned_abs()
    }

    /// The name that the command gave it ([`crate::Command::name`]).
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.registered.as_ref().map(Registered::name)
    }

    /// Another command in this sandbox while it lives: in the same namespaces, root and groups, behind the same filter and
    /// domain, with the same ids, limits and capabilities. It is a [`Command`] like any other, and what it starts is a
    /// [`Child`] of its own: own streams, status, clocks; its end and its [`Child::kill`] leave the sandbox as it is, and the
    /// sandbox's end is its own ([`crate::Verdict::SandboxEnded`]).
    ///
    /// ```no_run
    /// # fn main() -> ringfence::Result<()> {
    /// let sandbox = ringfence::Sandbox::builder().system_read_only().build()?;
    /// let server = sandbox.command("sleep").arg("1000").spawn()?;
    /// let outcome = server.command("ps").arg("ax").output()?;
    /// # let _ = outcome;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// What is killed is the program and what descends from it. A process that it had left to the sandbox's init (daemon(3))
    /// ends with the sandbox; without a pid namespace it may outlive that, as whatever runs inside. Who waits for the command is a process outside the sandbox's pid namespace, in its groups.
    /// Namespaces are joined at once by setns(2) on a pidfd (since Linux 5.8), else one by one. A sandbox that is frozen or
    /// has ended is an error, and so is one whose caller can execute no image (a copy would bring the caller's memory along).
    /// A [`crate::Held`] child cannot be joined: it still has what the set-up needs within reach of whoever would.
    ///
    /// Where the filter asks for a supervisor, its caller has to be able to take the listener of a process that cannot be
    /// traced: that is root (`CAP_SYS_PTRACE`). For others told kills are the kernel's, as the report says, and rules that
    /// notify are an error.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::joining(&self.running, program.as_ref())
    }

    /// What held when the program was about to run, read back from the kernel.
    #[must_use]
    pub fn enforcement(&self) -> &Enforcement {
        &self.running.report
    }

    /// System-call filters around the program now, those of the caller included, as the kernel says (`Seccomp_filters` of
    /// proc_pid_status(5), since Linux 5.9); `None` where it does not, or the program has ended.
    #[must_use]
    pub fn seccomp_filters(&self) -> Option<u32> {
        self.running.seccomp_filters()
    }

    /// Waits for the end of the program and of everything inside.
    ///
    /// # Errors
    /// Where waiting itself fails, or where the sandbox's init failed at a call: [`crate::Step::Init`].
    pub fn wait(&self) -> Result<Outcome> {
        let reaped = self.running.parent.reap(Block::UntilExit)?;
        self.outcome(reaped)
    }

    /// The outcome, if there is one by now.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn try_wait(&self) -> Result<Option<Outcome>> {
        match self.running.parent.reap(Block::No)? {
            Reaped::Running => Ok(None),
            reaped @ (Reaped::Ended { .. } | Reaped::Gone) => self.outcome(reaped).map(Some),
        }
    }

    /// The outcome, if there is one within `limit`. The program is left running otherwise.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn wait_timeout(&self, limit: Duration) -> Result<Option<Outcome>> {
        let deadline = Instant::now().checked_add(limit);
        loop {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => limit,
            };
            // Rounded up, so that the last wait does not spin; poll(2) counts in milliseconds.
            let rounded = left.saturating_add(Duration::from_micros(999)).as_millis();
            let ended = self.running.parent.ended(i32::try_from(rounded).unwrap_or(i32::MAX))?;
            if ended || left.is_zero() {
                return self.try_wait();
            }
        }
    }

    /// Waits for the end and collects what the program wrote to piped streams; standard input is closed first. Both
    /// streams are read at once, so neither can fill up and stop the program. What is collected is bounded by
    /// [`crate::Builder::output_limit`].
    ///
    /// # Errors
    /// Where reading or waiting fails. The program is ended then.
    pub fn wait_with_output(mut self) -> Result<Outcome> {
        drop(self.stdin.take());
        let streams = [self.stdout.take().map(OwnedFd::from), self.stderr.take().map(OwnedFd::from)];
        let limit = self.running.fence.policy.clocks().output.unwrap_or(u64::MAX);
        let mut streams = streams.map(Stream::new);
        if collect(&mut streams, self.running.parent.pidfd(), limit)? == Over::Flooded {
            self.flooded.store(true, Ordering::SeqCst);
            // Whether it could be killed shows in the wait that follows.
            self.running.parent.end();
        }
        let [stdout, stderr] = streams.map(|stream| stream.bytes);
        let outcome = self.wait()?;
        Ok(Outcome { stdout, stderr, ..outcome })
    }

    /// Kills everything inside, and returns once it is gone: the kernel lets the first process of a pid namespace be
    /// reaped only after all others (pid_namespaces(7)), and a group shows that it is empty. Without a pid namespace and
    /// without a group only init and the program are certain.
    ///
    /// # Errors
    /// As [`Child::wait`]; where something is left in the group, or that cannot be looked into. A second call tries again.
    pub fn kill(&self) -> Result<()> {
        if self.running.parent.reap(Block::No)? == Reaped::Running {
            self.killed.store(true, Ordering::SeqCst);
            self.running.parent.start_end()?;
            if self.running.parent.end() == Reaped::Running {
                let error = Error::new(ErrorKind::Process, Step::Kill, "child");
                return Err(error.detail(
                    "it was killed and has not ended: a frozen cgroup would hold it until it is thawed",
                ));
            }
        }
        match self.running.parent.group() {
            Some(group) if !group.is_empty() => group.end(),
            _ => Ok(()),
        }
    }

    /// Kills everything inside, and does not wait for the end: [`Child::wait`] and the pidfd tell.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn start_kill(&self) -> Result<()> {
        if self.running.parent.reap(Block::No)? == Reaped::Running {
            self.killed.store(true, Ordering::SeqCst);
            self.running.parent.start_end()?;
        }
        Ok(())
    }

    /// Bytes of output that are collected.
    #[cfg(feature = "tokio")]
    pub(super) fn output_limit(&self) -> u64 {
        self.running.fence.policy.clocks().output.unwrap_or(u64::MAX)
    }

    /// The program has written more than that.
    #[cfg(feature = "tokio")]
    pub(super) fn flood(&self) {
        self.flooded.store(true, Ordering::SeqCst);
        if self.running.parent.start_end().is_err() {
            // Not all of it was found. Whether the rest could be killed shows in the wait that follows.
            self.running.parent.kill_first().ok();
        }
    }

    /// Sends a signal to the program: init forwards it, and so it arrives whatever the program's pid inside. SIGKILL and
    /// SIGSTOP cannot be forwarded: the first is [`Child::kill`], the second goes to init alone.
    ///
    /// # Errors
    /// `ESRCH` where the program has ended, `EINVAL` for a number that is no signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL {
            return self.kill();
        }
        let failed = |errno| {
            Error::new(ErrorKind::Process, Step::Kill, format!("signal {signal}"))
                .call("pidfd_send_signal", errno)
        };
        sys::send_signal(self.running.parent.pidfd(), signal).map_err(failed)
    }

    /// The wait status that the kernel keeps of a program that nobody waited for. It is there a moment after the end.
    fn remembered(&self) -> Option<i32> {
        let until = Instant::now() + MOMENT;
        loop {
            match sys::exit_info(self.running.parent.pidfd()) {
                ExitInfo::Status(status) => return Some(status),
                ExitInfo::NotYet if Instant::now() < until => thread::sleep(LOOK),
                ExitInfo::NotYet | ExitInfo::Nothing => return None,
            }
        }
    }

    fn status_from(&self, status: Option<ExitStatus>) -> StatusFrom {
        match (status, self.running.parent.worker_status_from(), self.running.init) {
            (None, ..) => StatusFrom::Nobody,
            (Some(_), Some(by), _) => by,
            (Some(_), None, Init::Reaper) => StatusFrom::Init,
            (Some(_), None, Init::Program) => StatusFrom::Kernel,
        }
    }

    fn outcome(&self, reaped: Reaped) -> Result<Outcome> {
        let parent = &self.running.parent;
        let program = match (self.running.init, reaped) {
            (Init::Reaper, _) => parent.program_status().map(ExitStatus::from_wait),
            (Init::Program, Reaped::Ended { code, status, .. }) => {
                Some(ExitStatus::from_waitid(code, status))
            }
            (Init::Program, _) => self.remembered().map(ExitStatus::from_wait),
        };
        if let (Init::Reaper, None, Some(error)) = (self.running.init, program, self.running.init_failure()) {
            return Err(error);
        }
        let tree = match reaped {
            Reaped::Ended { usage, .. } => Usage::from_words(&usage.words),
            Reaped::Running | Reaped::Gone => Usage::default(),
        };
        let seen = self.running.seen();
        let stats = self.running.parent.group().and_then(Group::stats);
        let usage = parent.program_usage().map_or(tree, |words| Usage::from_words(&words));
        Ok(Outcome {
            status: program,
            status_from: self.status_from(program),
            usage,
            tree_usage: tree,
            stats,
            stdout: Vec::new(),
            stderr: Vec::new(),
            verdict: self.verdict(program, reaped, (&seen.refused, stats.as_ref())),
            refused_calls: seen.refused,
            refused_calls_more: seen.refused_more,
            supervisor_faults: seen.faults,
        })
    }
}

impl AsFd for Child {
    /// The pidfd of the sandbox's first process: readable when everything has ended, pollable from any runtime.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.running.parent.pidfd()
    }
}
