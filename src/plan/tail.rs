//! The tail: what belongs to a single command. Working directory, descriptors, the last word to the caller, exec.

use std::ffi::CString;

use super::arrive::{self, Arrival};
use super::asm::{Assembler, Call, Cell, Code, cwd, fd, null, num, sym};
use super::closure::{self, ClosureTail};
use super::context::u64_of;
use super::gate;
use super::init::{close_from, close_until};
use super::seccomp::{self, Attach};
use super::text::Listing;
use crate::error::{Object, Step};
use crate::machine::layout::{
    ARGV, ENVP, EXECS, FD_SOCKET, ROBUST_DISTANCE, ROBUST_ENTRY, ROBUST_FUTEX, ROBUST_HEAD,
};
use crate::machine::segment::Place;
use crate::machine::wire::Message;
use crate::policy::Limit;

/// What is executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The first of these paths that can be.
    Paths(Vec<CString>),
    /// The file that the command passed last.
    Fd,
    /// Nothing: a copy of the caller goes on in Rust.
    Closure(ClosureTail),
}

/// A limit that the tail sets, and where it leaves word if it is only preferred.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LateLimit {
    pub(crate) limit: Limit,
    pub(crate) outcome: Option<u32>,
}

/// What the tail needs to know of one command.
#[derive(Debug)]
pub(crate) struct TailInput<'a> {
    pub(crate) program: &'a Program,
    pub(crate) name: Object,
    pub(crate) cwd: &'a CString,
    /// What of 0, 1 and 2 arrives, where something has to arrive.
    pub(crate) streams: [Stream; 3],
    /// Where the passed descriptors go; they arrive from `passed_at` on, in this order.
    pub(crate) targets: &'a [i32],
    pub(crate) passed_at: i32,
    pub(crate) close_range: super::window::CloseRange,
    pub(crate) limits: &'a [LateLimit],
    pub(crate) filter: Option<&'a Attach>,
    pub(crate) terminal: Controlling,
    pub(crate) arrival: Arrival,
    pub(crate) listing: Listing,
}

/// One of 0, 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The caller's.
    Given,
    /// `/dev/null`.
    Null,
}

/// Whether standard input is a terminal that the program's session is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controlling {
    No,
    Stdin,
}

/// The tail's code, and for each path a cell with what `faccessat` said, and behind it what `execve` said.
pub(crate) fn tail(input: &TailInput<'_>) -> (Code, Vec<Cell>) {
    let mut asm = Assembler::new(Place::Tail, 0).with_listing(input.listing);
    if input.arrival == Arrival::Messages {
        arrive::receive(&mut asm, input);
    }
    working_directory(&mut asm, input.cwd);
    let socket = descriptors(&mut asm, input);
    if input.terminal == Controlling::Stdin {
        controlling_terminal(&mut asm);
    }
    late_limits(&mut asm, input.limits);
    if let Program::Closure(closure) = input.program {
        mask(&mut asm);
        closure::go_back(&mut asm, closure, socket);
        return (asm.finish(), Vec::new());
    }
    let results = before_exec(&mut asm, input, socket);
    // Last: it would filter every step above. A child that waited may have it already.
    if let Some(filter) = input.filter
        && !(input.arrival == Arrival::Messages && filter.precedes_command())
    {
        seccomp::attach(&mut asm, filter);
    }
    exec(&mut asm, input, &results);
    (asm.finish(), results)
}

/// By the program's own rights, and never to a place outside the tree: a directory that is not below the root has no name
/// there (getcwd(2), "(unreachable)").
fn working_directory(asm: &mut Assembler, path: &CString) {
    let shown = path.to_string_lossy().into_owned();
    asm.step(Step::WorkingDirectory, Object::SandboxPath(shown.into()));
    let name = asm.string(path.as_bytes());
    asm.call(Call::new(libc::SYS_chdir, "chdir").arg(name));
    if path.as_bytes() == b"/" {
        // The root is below itself.
        return;
    }
    let buffer = asm.cell_of("cwd", 4096);
    asm.call(Call::new(libc::SYS_getcwd, "getcwd").arg(buffer.pointer()).arg(num(4096)));
    asm.assert_equal(
        &buffer.half(0),
        0xff,
        sym(u64::from(b'/'), "'/'"),
        "the directory is not below the root",
    );
}

fn dup(asm: &mut Assembler, from: i32, to: i32, flags: i32) {
    let flags = if flags == 0 { num(0) } else { sym(u64_of(flags), "O_CLOEXEC") };
    asm.call(Call::new(libc::SYS_dup3, "dup3").arg(fd(from, "")).arg(fd(to, "")).arg(flags));
}

/// Every number is known: the socket and the passed ones are parked above all, then go to their places, and every gap is
/// closed. Returns where the socket is until exec closes it.
fn descriptors(asm: &mut Assembler, input: &TailInput<'_>) -> i32 {
    let count = i32::try_from(input.targets.len()).unwrap_or(i32::MAX);
    let program = i32::from(*input.program == Program::Fd);
    let arrived = input.passed_at + count + program;
    let highest = input.targets.iter().copied().max().unwrap_or(0);
    let parked = arrived.max(highest + 1);
    // Too low a limit on descriptors shows here first: the number to blame is the highest that was asked for.
    let parking = if highest >= arrived { Object::Fd(highest) } else { "socket".into() };
    asm.step(Step::Descriptors, parking);
    dup(asm, FD_SOCKET, parked, libc::O_CLOEXEC);
    if program == 1 {
        asm.step(Step::Descriptors, "program");
        dup(asm, input.passed_at + count, parked + 1, libc::O_CLOEXEC);
    }
    let first = parked + 1 + program;
    for (index, target) in (0..).zip(input.targets) {
        asm.step(Step::Descriptors, Object::Fd(*target));
        dup(asm, input.passed_at + index, first + index, libc::O_CLOEXEC);
    }
    for (index, target) in (0..).zip(input.targets) {
        asm.step(Step::Descriptors, Object::Fd(*target));
        // What a closure executes has none of them unless it says so, as ever in Rust.
        let flags = if matches!(input.program, Program::Closure(_)) { libc::O_CLOEXEC } else { 0 };
        dup(asm, first + index, *target, flags);
    }
    asm.step(Step::Descriptors, "all others");
    close_gaps(asm, input, parked, first);
    parked
}

fn close_gaps(asm: &mut Assembler, input: &TailInput<'_>, parked: i32, first: i32) {
    let mut keep: Vec<i32> = input.targets.iter().copied().filter(|target| *target > 2).collect();
    keep.sort_unstable();
    keep.push(parked);
    let mut from = 3;
    for kept in keep {
        if kept > from {
            close(asm, input, from, kept - 1);
        }
        from = from.max(kept + 1);
    }
    match input.close_range {
        super::window::CloseRange::Here => close(asm, input, first, i32::MAX),
        super::window::CloseRange::Later => close_from(asm, &num(i64::from(first))),
    }
}

fn close(asm: &mut Assembler, input: &TailInput<'_>, from: i32, to: i32) {
    if input.close_range == super::window::CloseRange::Here {
        let last = if to == i32::MAX { i64::from(u32::MAX) } else { i64::from(to) };
        let call = Call::new(libc::SYS_close_range, "close_range").arg(num(i64::from(from))).arg(num(last));
        asm.call(call.arg(num(0)));
        return;
    }
    close_until(asm, &num(i64::from(from)), &num(i64::from(to) + 1));
}

/// Only the leader of a session without a terminal can have one (ioctl_tty(2), `TIOCSCTTY`).
fn controlling_terminal(asm: &mut Assembler) {
    asm.step(Step::Session, "controlling terminal");
    // EPERM: it leads one already.
    asm.call(Call::new(libc::SYS_setsid, "setsid").fine(&[libc::EPERM]));
    let request = sym(libc::TIOCSCTTY, "TIOCSCTTY");
    asm.call(Call::new(libc::SYS_ioctl, "ioctl").arg(fd(0, "terminal")).arg(request).arg(num(0)));
}

/// After the last descriptor is in place; and the number of processes is the program's, not init's.
fn late_limits(asm: &mut Assembler, limits: &[LateLimit]) {
    for LateLimit { limit, outcome } in limits {
        let (number, name) = limit.resource.number();
        asm.step(Step::Limits, name);
        let preferred = outcome.map(|outcome| (asm.enter_preferred(), Cell::brief(outcome, "outcome")));
        let value = asm.words(&[limit.soft, limit.hard], format!("{{{}, {}}}", limit.soft, limit.hard));
        let call = Call::new(libc::SYS_prlimit64, "prlimit64").arg(num(0)).arg(sym(u64::from(number), name));
        asm.call(call.arg(value).arg(null()));
        if let Some(((failed, done), outcome)) = preferred {
            asm.leave_preferred(failed, done, outcome);
        }
    }
}

/// The signal mask of a fresh program, a look at each path (so that a missing interpreter can be told from a missing
/// program), and the word that exec is next.
fn before_exec(asm: &mut Assembler, input: &TailInput<'_>, socket: i32) -> Vec<Cell> {
    let mut results = Vec::new();
    asm.step(Step::Exec, input.name.clone());
    if let Program::Paths(paths) = input.program {
        for path in paths {
            let seen = asm.cell_of("seen", 16);
            let name = asm.string(path.as_bytes());
            let call = Call::new(libc::SYS_faccessat, "faccessat").arg(cwd()).arg(name).arg(sym(0, "F_OK"));
            // Only a look: any answer is an answer.
            let known = [libc::ENOENT, libc::EACCES, libc::ENOTDIR, libc::ELOOP];
            let go_on = asm.label();
            asm.call(call.into(seen).fine(&known).otherwise(go_on));
            asm.bind(go_on);
            results.push(seen);
        }
    }
    mask(asm);
    announce(asm);
    asm.step(Step::Exec, input.name.clone());
    // A word is enough for who waits for the socket's end; who takes a listener over has to wake up for it.
    asm.set(Cell::brief(EXECS, "execs"), &num(1), &num(0));
    if input.filter.is_some_and(Attach::listens) {
        gate::tell_through(asm, socket, Message::Exec);
    }
    results
}

fn mask(asm: &mut Assembler) {
    asm.step(Step::Signals, "mask");
    let none = asm.words(&[0], "[]");
    let set = sym(u64_of(libc::SIG_SETMASK), "SIG_SETMASK");
    let call = Call::new(libc::SYS_rt_sigprocmask, "rt_sigprocmask").arg(set).arg(none);
    asm.call(call.arg(null()).arg(num(8)));
}

/// The end of the socket says that exec has happened, unless some fork of the caller holds the other end too. So the kernel
/// is asked to mark a word of the brief when this process leaves its memory: a list of robust futexes with one entry
/// (Documentation/locking/robust-futexes.rst; on exec since Linux 2.6.17).
fn announce(asm: &mut Assembler) {
    asm.step(Step::Exec, "notice");
    let (head, entry) = (Cell::brief(ROBUST_HEAD, "head"), Cell::brief(ROBUST_ENTRY, "entry"));
    let offset = Cell::brief(ROBUST_HEAD + 8, "offset");
    asm.set(head, &entry.pointer(), &num(0));
    asm.set(offset, &num(i64::from(ROBUST_DISTANCE)), &num(0));
    asm.set(entry, &head.pointer(), &num(0));
    asm.call(Call::new(libc::SYS_gettid, "gettid").into(Cell::brief(ROBUST_FUTEX, "futex")));
    // Without it the socket's end has to do.
    let call = Call::new(libc::SYS_set_robust_list, "set_robust_list").arg(head.pointer()).arg(num(24));
    asm.call(call.fine(&[libc::ENOSYS, libc::EPERM]));
}

fn exec(asm: &mut Assembler, input: &TailInput<'_>, results: &[Cell]) {
    asm.step(Step::Exec, input.name.clone());
    let (argv, envp) = (Cell::brief(ARGV, "argv").word(), Cell::brief(ENVP, "envp").word());
    let secret = input.filter.and_then(Attach::secret);
    match input.program {
        Program::Paths(paths) => {
            for (index, (path, result)) in paths.iter().zip(results).enumerate() {
                let name = asm.string(path.as_bytes());
                let result = Cell { address: result.address.plus(8), name: "exec" };
                let call =
                    Call::new(libc::SYS_execve, "execve").arg(name).arg(argv.clone()).arg(envp.clone());
                // The kernel takes three arguments; a filter sees six.
                let call = match &secret {
                    Some(secret) => call.arg(num(0)).arg(num(0)).arg(secret.clone()),
                    None => call,
                };
                let call = call.into(result);
                // execvp(3): these go on to the next directory of PATH.
                let last = index + 1 == paths.len();
                let fine: &[i32] =
                    if last { &[] } else { &[libc::ENOENT, libc::ENOTDIR, libc::EACCES, libc::ENODEV] };
                asm.call(call.fine(fine));
            }
        }
        Program::Fd => {
            let count = i32::try_from(input.targets.len()).unwrap_or(0);
            let highest = input.targets.iter().copied().max().unwrap_or(0);
            let at = (input.passed_at + count + 1).max(highest + 1) + 1;
            let empty = asm.string(b"");
            let flags = sym(u64_of(libc::AT_EMPTY_PATH), "AT_EMPTY_PATH");
            let call = Call::new(libc::SYS_execveat, "execveat").arg(fd(at, "program")).arg(empty);
            let call = call.arg(argv).arg(envp).arg(flags);
            asm.call(match secret {
                Some(secret) => call.arg(secret),
                None => call,
            });
        }
        // It has gone back before.
        Program::Closure(_) => {}
    }
    asm.fail("exec came back");
}
