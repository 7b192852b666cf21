//! Runs a program behind the fence, from the command line.
//!
//! ```text
//! cargo run --release --example run -- python3 -c 'print(sum(range(10)))'
//! ```

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ringfence::{Access, Builder, Child, Command, Mount, Outcome, Sandbox, Verdict, Wanted, prefer};

/// The fence could not be set up, or the program could not be executed.
const FAILED: u8 = 2;
/// What a shell shows for a program that SIGKILL ended.
const KILLED: u8 = 128 + 9;
/// What a shell shows for a program that SIGSYS ended.
const REFUSED: u8 = 128 + 31;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const EXAMPLES: &str = "\
Examples:
  run -- python3 -c 'print(sum(range(10)))'
  run --bind ./src:/src --cwd /src --timeout 60 make
  run --empty --ro-bind ./prog:/prog /prog
  run --report --memory 512M -- sh -c 'id; cat /proc/mounts'";
const FORWARDED: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// Run a program behind a fence: its own namespaces, a minimal read-only file system, no network, no capabilities, a
/// clean environment.
///
/// Without options the program sees the host's programs and libraries read-only, a private /tmp, a home of its own, a
/// minimal /dev and a fresh /proc. It starts in /tmp.
///
/// Exit status: the program's own; 128+n where signal n ended it; 137 after the time limit, with a line on standard
/// error; 2 where the fence could not be set up or the program could not be executed, with the reason on standard error.
#[derive(Parser, Debug)]
#[command(name = "run", version, verbatim_doc_comment, after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "the switches of a command line")]
struct Args {
    /// Show SRC of the host inside, writable, at DST (default: the same path).
    /// The program writes with its id on the host: the caller's own, or an
    /// unprivileged one where the caller is root
    #[arg(long, verbatim_doc_comment, value_name = "SRC[:DST]")]
    bind: Vec<OsString>,

    /// Show SRC of the host inside, read-only with everything mounted below it,
    /// at DST (default: the same path)
    #[arg(long, verbatim_doc_comment, value_name = "SRC[:DST]")]
    ro_bind: Vec<OsString>,

    /// Use the root file system in DIR (another distribution), read-only, with /proc, /dev and a private /tmp
    #[arg(long, value_name = "DIR", conflicts_with = "empty")]
    rootfs: Option<PathBuf>,

    /// Start from an empty read-only root: only what --bind and --ro-bind name is there
    #[arg(long)]
    empty: bool,

    /// Leave the program in the host's network (a weakening; default: only a loopback interface of its own)
    #[arg(long)]
    net: bool,

    /// Host name inside
    #[arg(long, value_name = "NAME", default_value = "sandbox")]
    hostname: String,

    /// Memory of everything inside: bytes, or with a suffix K, M, G. Where no cgroup
    /// can be had it bounds the address space of each single process, and --report
    /// says so
    #[arg(long, verbatim_doc_comment, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,

    /// Processes and threads inside. Where no cgroup can be had it bounds those of
    /// the program's user id, and --report says so
    #[arg(long, verbatim_doc_comment, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    processes: Option<u64>,

    /// Kill everything inside after so many seconds of wall clock; fractions are possible
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,

    /// Kill everything inside after so many seconds of CPU time of all processes; fractions are possible
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    cpu_time: Option<Duration>,

    /// Refuse to run where the kernel cannot hold everything inside to these limits
    #[arg(long)]
    strict: bool,

    /// Set a variable inside, or take it over from here where no value is given.
    /// Set already: PATH, HOME, LANG, and TERM as it is here
    #[arg(long, verbatim_doc_comment, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,

    /// Directory to start in (default: /tmp; / with --rootfs or --empty)
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,

    /// User id inside, and the group id with the same number. It says nothing about
    /// the id on the host, which is the caller's own, or an unprivileged one where
    /// the caller is root
    #[arg(long, verbatim_doc_comment, value_name = "UID", default_value_t = 1000)]
    uid: u32,

    /// Print the plan, every kernel call of the set-up in order, instead of running anything
    #[arg(long)]
    explain: bool,

    /// Before the program runs, print to standard error what holds, as read back from the kernel
    #[arg(long)]
    report: bool,

    /// The program (a path inside, or a name that is looked up in PATH inside) and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// What ends this command before the program's own end. The text is the crate's, with causes and remedies.
type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    ExitCode::from(status(&Args::parse()))
}

fn status(args: &Args) -> u8 {
    run(args).unwrap_or_else(|failure| {
        say(format_args!("{failure:#}"));
        FAILED
    })
}

/// To standard error. Where it is closed there is nobody to tell.
fn say(text: impl Display) {
    writeln!(io::stderr(), "ringfence: {text}").ok();
}

fn run(args: &Args) -> Result<u8, Failure> {
    let sandbox = fence(args)?.build()?;
    if args.explain {
        return explain(&command(&sandbox, args)?.explain()?);
    }
    // Blocked before the program starts, so that none is lost; the program itself starts with none blocked.
    let mut forwarded = SigSet::empty();
    FORWARDED.into_iter().for_each(|signal| forwarded.add(signal));
    let signals = forwarded
        .thread_block()
        .and_then(|()| SignalFd::with_flags(&forwarded, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .map_err(|errno| format!("signalfd: {}", errno.desc()))?;
    let held = command(&sandbox, args)?.spawn_held()?;
    if args.report {
        write!(io::stderr(), "{}", held.enforcement()).ok();
    }
    let child = held.release()?;
    supervise(&child, &signals)
}

/// A limit that has to hold, or one that holds as well as it can.
fn want<T>(value: T, args: &Args) -> Wanted<T> {
    if args.strict { value.into() } else { prefer(value) }
}

/// The limits: what the kernel can hold, or, where that is asked for, nothing less than all of them.
fn limited(mut builder: Builder, args: &Args) -> Builder {
    if let Some(bytes) = args.memory {
        builder = builder.memory(want(bytes, args));
    }
    if let Some(count) = args.processes {
        builder = builder.processes(want(count, args));
    }
    if let Some(limit) = args.cpu_time {
        builder = builder.cpu_time(want(limit, args));
    }
    if let Some(limit) = args.timeout {
        builder = builder.wall_time(limit);
    }
    builder
}

/// The policy.
fn fence(args: &Args) -> Result<Builder, Failure> {
    let builder = Sandbox::builder().ids(args.uid, args.uid).hostname(args.hostname.as_str());
    let mut builder = match &args.rootfs {
        Some(directory) => {
            let directory = full(directory)?;
            builder.root_directory(directory, Access::ReadOnly).dev().proc().tmpfs("/tmp", 256 << 20)
        }
        None if args.empty => builder.empty(),
        None => builder.system_read_only(),
    };
    if args.net {
        builder = builder.allow_host_network();
        if !args.empty {
            builder = builder.mount(Mount::bind("/etc/resolv.conf", "/etc/resolv.conf").if_exists().over());
        }
    }
    builder = limited(builder, args);
    let mut given: Vec<PathBuf> = Vec::new();
    let read_only = args.ro_bind.iter().map(|text| (text, Access::ReadOnly));
    for (text, access) in read_only.chain(args.bind.iter().map(|text| (text, Access::ReadWrite))) {
        let (source, target) = source_and_target(text)?;
        let mut mount = Mount::bind(source, &target).access(access);
        // What is named here may stand on what came with the default tree, but never on another one named here.
        if !given.iter().any(|other| other.starts_with(&target)) {
            mount = mount.over();
        }
        builder = builder.mount(mount);
        given.push(target);
    }
    Ok(builder)
}

/// `SRC`, `SRC:DST`; a colon that no absolute path follows belongs to the name.
fn source_and_target(text: &OsStr) -> Result<(PathBuf, PathBuf), Failure> {
    let bytes = text.as_bytes();
    let colon = bytes.windows(2).rposition(|pair| pair == b":/");
    let source = full(Path::new(OsStr::from_bytes(&bytes[..colon.unwrap_or(bytes.len())])))?;
    let target = colon.map_or_else(|| source.clone(), |at| OsStr::from_bytes(&bytes[at + 1..]).into());
    Ok((source, target))
}

fn full(path: &Path) -> Result<PathBuf, Failure> {
    Ok(absolute(path).map_err(|error| format!("{path:?}: {error}"))?)
}

fn command(sandbox: &Sandbox, args: &Args) -> Result<Command, Failure> {
    let Some((program, arguments)) = args.command.split_first() else {
        return Err("no program".into());
    };
    let mut command = sandbox.command(program);
    command.args(arguments).stdin(ringfence::Stdio::inherit());
    command.stdout(ringfence::Stdio::inherit()).stderr(ringfence::Stdio::inherit());
    command.env("PATH", PATH).env("HOME", "/home/sandbox").env("LANG", "C.UTF-8").env_inherit("TERM");
    for text in &args.env {
        match text.as_bytes().iter().position(|byte| *byte == b'=') {
            Some(at) => {
                let (name, value) = (&text.as_bytes()[..at], &text.as_bytes()[at + 1..]);
                command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
            }
            None => {
                command.env_inherit(text);
            }
        }
    }
    let default = if args.rootfs.is_some() || args.empty { "/" } else { "/tmp" };
    command.current_dir(args.cwd.clone().unwrap_or_else(|| default.into()));
    Ok(command)
}

fn explain(plan: &str) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(plan.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        Err(error) => Err(format!("standard output: {error}").into()),
        Ok(()) => Ok(0),
    }
}

/// Waits for the end; forwards signals; a second SIGINT, SIGTERM, SIGHUP or SIGQUIT kills everything inside.
fn supervise(child: &Child, signals: &SignalFd) -> Result<u8, Failure> {
    let mut asked_to_end = false;
    loop {
        if let Some(outcome) = child.try_wait()? {
            return Ok(exit_code(&outcome));
        }
        wait_for_event(child, signals)?;
        while let Some(signal) = next(signals) {
            let ends = !matches!(signal, Signal::SIGUSR1 | Signal::SIGUSR2);
            if ends && asked_to_end {
                return Ok(exit_code(&end(child)?));
            }
            asked_to_end |= ends;
            // It may have ended meanwhile: the next round sees it.
            child.signal(signal as i32).ok();
        }
    }
}

fn wait_for_event(child: &Child, signals: &SignalFd) -> Result<(), Failure> {
    let mut fds =
        [PollFd::new(child.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(format!("poll: {}", errno.desc()).into()),
    }
}

fn next(signals: &SignalFd) -> Option<Signal> {
    let info = signals.read_signal().ok().flatten()?;
    Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
}

fn end(child: &Child) -> Result<Outcome, Failure> {
    child.kill()?;
    Ok(child.wait()?)
}

fn exit_code(outcome: &Outcome) -> u8 {
    match outcome.verdict() {
        Verdict::Exited(code) => u8::try_from(code & 0xff).unwrap_or(FAILED),
        Verdict::Signaled { signal, .. } => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        verdict @ Verdict::Refused { .. } => {
            say(verdict);
            REFUSED
        }
        verdict @ (Verdict::TimedOut { .. }
        | Verdict::OutOfMemory { .. }
        | Verdict::TooManyProcesses { .. }) => {
            say(format_args!("{verdict}; everything inside was ended"));
            outcome.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(KILLED)
        }
        Verdict::Killed => KILLED,
        verdict @ (Verdict::Lost | _) => {
            say(verdict);
            FAILED
        }
    }
}

/// `4096`, `64K`, `256M`, `2G`; also `KiB` and the like.
fn size(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[end..].trim().trim_end_matches(['B', 'b', 'i']).to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("a number with K, M, G or T".to_owned()),
    };
    let number: u64 = text[..end].parse().map_err(|_| "a number with K, M, G or T".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "it is too large".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    let limit = Duration::try_from_secs_f64(number).map_err(|error| error.to_string())?;
    if limit.is_zero() { Err("more than 0".to_owned()) } else { Ok(limit) }
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    fn run_with(args: &[&str]) -> u8 {
        status(&Args::try_parse_from([&["run"], args].concat()).unwrap())
    }

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64K"), Ok(64 << 10));
        assert_eq!(size("256MiB"), Ok(256 << 20));
        assert_eq!(size("2g"), Ok(2 << 30));
        assert_ne!(size("").err(), None);
        assert_ne!(size("12X").err(), None);
        assert_ne!(size("99999999999T").err(), None);
    }

    #[test]
    fn times_are_positive_seconds() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_ne!(seconds("0").err(), None);
        assert_ne!(seconds("-1").err(), None);
        assert_ne!(seconds("nan").err(), None);
    }

    #[test]
    fn bind_has_one_path_or_two() {
        let parts = |text: &str| source_and_target(OsStr::new(text)).map_err(|e| e.to_string()).unwrap();
        assert_eq!(parts("/a"), ("/a".into(), "/a".into()));
        assert_eq!(parts("/a:/b"), ("/a".into(), "/b".into()));
        assert_eq!(parts("/a:b:/c"), ("/a:b".into(), "/c".into()));
        assert_eq!(parts("a:b").0, env::current_dir().unwrap().join("a:b"));
    }

    #[test]
    fn status_is_the_programs_own() {
        assert_eq!(run_with(&["sh", "-c", "exit 7"]), 7);
        assert_eq!(run_with(&["sh", "-c", "kill -TERM $$"]), 128 + 15);
    }

    #[test]
    fn a_pipeline_runs() {
        assert_eq!(run_with(&["sh", "-c", "seq 1 1000 | sort -rn | head -n 1 | grep -qx 1000"]), 0);
    }

    #[test]
    fn a_missing_program_is_2() {
        assert_eq!(run_with(&["/nowhere/at/all"]), FAILED);
    }

    #[test]
    fn a_time_limit_is_137() {
        assert_eq!(run_with(&["--timeout", "0.2", "sleep", "60"]), KILLED);
    }

    #[test]
    fn memory_is_bounded() {
        assert_ne!(run_with(&["--memory", "64M", "tail", "/dev/zero"]), 0);
    }

    #[test]
    fn two_binds_on_one_target_are_a_mistake() {
        assert_eq!(run_with(&["--bind", "/usr:/x", "--ro-bind", "/bin:/x", "true"]), FAILED);
    }
}
