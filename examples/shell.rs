//! An interactive shell behind a fence, in a terminal of its own.
//!
//! ```text
//! cargo run --example shell
//! cargo run --example shell -- --write . --network bash
//! ```
//!
//! The program inside has a pseudoterminal of this program's, never the user's own: it cannot type into that, nor read what
//! is typed after its end. The user's terminal is raw meanwhile and as it was before afterwards, whatever ends this program
//! but SIGKILL. A new size of the window is passed on, a hang-up too, and the exit status is the shell's (128 and the number
//! of a signal that ended it). Where standard input is no terminal, the shell has the streams as they are.
//!
//! Ctrl-] opens another shell in the same sandbox; its end leads back to the one before.

use std::error::Error;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::result::Result as StdResult;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ringfence::{
    Access, Builder, Child, Command, Outcome, RawMode, Sandbox, Stdio, Terminal, Verdict, WindowSize,
};

/// An interactive shell behind a fence.
#[derive(Debug, Parser)]
struct Options {
    /// A directory that the shell may write to, under its own path, and starts in.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Leaves the host's network to the shell.
    #[arg(long)]
    network: bool,
    /// The shell and its arguments.
    #[arg(trailing_var_arg = true, default_value = "/bin/sh")]
    command: Vec<String>,
}

/// What is typed to open another shell: Ctrl-].
const ANOTHER: u8 = 0x1d;
/// Bytes that wait for the shell to read them; more are not taken from the user.
const WAITING: usize = 64 << 10;
/// Bytes that are printed of what a shell wrote before its end.
const LAST_WORDS: usize = 1 << 20;
/// How long a shell may take to end after a hang-up.
const PATIENCE: Duration = Duration::from_secs(2);
/// Those that are passed on or end this program in order.
const SIGNALS: [Signal; 5] =
    [Signal::SIGWINCH, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

type Result<T> = StdResult<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            tell(format_args!("{error:#}"));
            ExitCode::from(125)
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    let sandbox = sandbox(options)?;
    // Before any thread is made, so that all of them block these; the program inside blocks none.
    let mut mask = SigSet::empty();
    SIGNALS.into_iter().for_each(|signal| mask.add(signal));
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let (program, args) = options.command.split_first().ok_or("no command")?;
    let mut command = sandbox.command(program);
    prepare(&mut command, args, options.write.as_deref());
    let code = if stdin().is_terminal() {
        let raw = RawMode::new(stdin())?;
        let ended = Session::begin(options, &mut command)?.serve(&signals);
        // Before anything is printed; a panic and an error do it by dropping.
        match raw.end() {
            // It is gone, after a hang-up.
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => {}
            other => other?,
        }
        ended?
    } else {
        streams(&mut command, &signals)?
    };
    Ok(ExitCode::from(code))
}

fn sandbox(options: &Options) -> Result<Sandbox> {
    let mut builder: Builder = Sandbox::builder().system_read_only();
    if let Some(path) = &options.write {
        let path = path.canonicalize()?;
        builder = builder.bind(&path, &path, Access::ReadWrite);
    }
    if options.network {
        builder = builder.allow_host_network();
    }
    Ok(builder.build()?)
}

fn prepare(command: &mut Command, args: &[String], directory: Option<&Path>) {
    command.args(args).env("PS1", "fenced$ ").env("HOME", "/tmp").env_inherit("TERM").env_inherit("LANG");
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
    if let Some(path) = directory.and_then(|path| path.canonicalize().ok()) {
        command.current_dir(path);
    }
}

/// Without a terminal: the streams are the shell's, and signals are passed on.
fn streams(command: &mut Command, signals: &SignalFd) -> Result<u8> {
    let child = command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit()).spawn()?;
    loop {
        let [ended, told] =
            ready([(child.as_fd(), PollFlags::POLLIN), (signals.as_fd(), PollFlags::POLLIN)])?;
        if !told.is_empty()
            && let Some(info) = signals.read_signal()?
        {
            // It may have ended by now.
            child.signal(i32::try_from(info.ssi_signo)?).ok();
        }
        if !ended.is_empty() {
            return Ok(code(&child.wait()?));
        }
    }
}

/// Shells of one sandbox, each with its terminal. The last one has the user's.
struct Session<'o> {
    options: &'o Options,
    shells: Vec<Child>,
    /// Typed, and not read by the last shell yet.
    typed: Vec<u8>,
    size: WindowSize,
}

impl<'o> Session<'o> {
    fn begin(options: &'o Options, command: &mut Command) -> Result<Self> {
        let size = WindowSize::of(stdin()).unwrap_or_default();
        let mut session = Self { options, shells: Vec::new(), typed: Vec::new(), size };
        session.open(command)?;
        Ok(session)
    }

    fn open(&mut self, command: &mut Command) -> Result<()> {
        let child = command.terminal(self.size).spawn()?;
        let terminal = terminal(&child)?;
        let flags = OFlag::from_bits_retain(fcntl(terminal, FcntlArg::F_GETFL)?);
        fcntl(terminal, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        self.shells.push(child);
        Ok(())
    }

    /// Connects the user with the last shell, until the first one has ended.
    fn serve(mut self, signals: &SignalFd) -> Result<u8> {
        loop {
            let shell = self.shells.last().ok_or("no shell")?;
            let screen = terminal(shell)?;
            let wants = if self.typed.len() < WAITING { PollFlags::POLLIN } else { PollFlags::empty() };
            let writes = if self.typed.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            let [keys, told, shown, ended] = ready([
                (stdin().as_fd(), wants),
                (signals.as_fd(), PollFlags::POLLIN),
                (screen.as_fd(), PollFlags::POLLIN | writes),
                (shell.as_fd(), PollFlags::POLLIN),
            ])?;
            if show(screen)?.is_none() {
                return self.hang_up(Signal::SIGHUP);
            }
            if shown.contains(PollFlags::POLLOUT) {
                self.type_in()?;
            }
            if !told.is_empty()
                && let Some(code) = self.told(signals)?
            {
                return Ok(code);
            }
            if !ended.is_empty() {
                if let Some(code) = self.ended()? {
                    return Ok(code);
                }
            } else if !keys.is_empty() && !self.keys()? {
                return self.hang_up(Signal::SIGHUP);
            }
        }
    }

    /// Takes what was typed. `false`: the user's terminal is gone.
    fn keys(&mut self) -> Result<bool> {
        let mut bytes = [0; 4096];
        let count = match File::from(stdin().as_fd().try_clone_to_owned()?).read(&mut bytes) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => return Ok(false),
        };
        let (mine, others): (Vec<u8>, Vec<u8>) = bytes[..count].iter().partition(|byte| **byte == ANOTHER);
        self.typed.extend(others);
        if !mine.is_empty() {
            self.another()?;
        }
        Ok(true)
    }

    /// A command that joins the sandbox of the first.
    fn another(&mut self) -> Result<()> {
        let first = self.shells.first().ok_or("no shell")?;
        let (program, args) = self.options.command.split_first().ok_or("no command")?;
        let mut command = first.command(program);
        prepare(&mut command, args, self.options.write.as_deref());
        stdout().write_all(b"\r\n[another shell]\r\n")?;
        self.open(&mut command)
    }

    fn type_in(&mut self) -> Result<()> {
        let shell = self.shells.last().ok_or("no shell")?;
        match terminal(shell)?.write(&self.typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // It has ended, which its descriptor tells.
            Err(_) => self.typed.clear(),
        }
        Ok(())
    }

    /// A signal of this program's own. The exit status, where it ends the session.
    fn told(&mut self, signals: &SignalFd) -> Result<Option<u8>> {
        let Some(info) = signals.read_signal()? else { return Ok(None) };
        let signal = Signal::try_from(i32::try_from(info.ssi_signo)?)?;
        if signal != Signal::SIGWINCH {
            return Ok(Some(self.hang_up(signal)?));
        }
        if let Ok(size) = WindowSize::of(stdin()) {
            self.size = size;
            self.shells
                .iter()
                .filter_map(|shell| shell.terminal.as_ref())
                .try_for_each(|t| t.resize(size))?;
        }
        Ok(None)
    }

    /// The last shell has ended. The exit status, where it was the first.
    fn ended(&mut self) -> Result<Option<u8>> {
        let Some(shell) = self.shells.pop() else { return Ok(None) };
        // What it left behind may go on printing.
        let mut left = LAST_WORDS;
        while left > 0 {
            let count = show(terminal(&shell)?)?.unwrap_or(0);
            left = if count == 0 { 0 } else { left.saturating_sub(count) };
        }
        let outcome = shell.wait()?;
        self.typed.clear();
        if self.shells.is_empty() {
            return Ok(Some(code(&outcome)));
        }
        stdout().write_all(b"\r\n[back]\r\n")?;
        Ok(None)
    }

    /// Closes every terminal, which hangs up: what does not end then is killed.
    fn hang_up(&mut self, signal: Signal) -> Result<u8> {
        self.shells.iter_mut().for_each(|shell| drop(shell.terminal.take()));
        let until = Instant::now() + PATIENCE;
        while let Some(shell) = self.shells.pop() {
            let left = until.saturating_duration_since(Instant::now());
            if shell.wait_timeout(left)?.is_none() {
                shell.kill()?;
            }
        }
        Ok(u8::try_from(128 + signal as i32)?)
    }
}

fn terminal(shell: &Child) -> Result<&Terminal> {
    shell.terminal.as_ref().ok_or_else(|| "no terminal".into())
}

/// Prints some of what there is; how many bytes. `None`: the user's terminal is gone.
fn show(mut screen: &Terminal) -> Result<Option<usize>> {
    let mut bytes = [0; 16 << 10];
    match screen.read(&mut bytes) {
        Ok(count) => {
            let mut out = stdout().lock();
            match out.write_all(&bytes[..count]).and_then(|()| out.flush()) {
                Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => Ok(None),
                written => Ok(written.map(|()| Some(count))?),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(0)),
        Err(error) => Err(error.into()),
    }
}

fn tell(text: impl Display) {
    // After a hang-up nobody is left to read it.
    writeln!(stderr(), "shell: {text}").ok();
}

fn ready<const N: usize>(list: [(BorrowedFd<'_>, PollFlags); N]) -> Result<[PollFlags; N]> {
    let mut fds = list.map(|(fd, flags)| PollFd::new(fd, flags));
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            result => {
                result?;
                return Ok(fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty())));
            }
        }
    }
}

/// As a shell tells it.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other end is told in words")]
fn code(outcome: &Outcome) -> u8 {
    match outcome.verdict() {
        Verdict::Exited(code) => u8::try_from(code).unwrap_or(125),
        Verdict::Signaled { signal, .. } => u8::try_from(128 + signal).unwrap_or(125),
        verdict => {
            tell(verdict);
            137
        }
    }
}
