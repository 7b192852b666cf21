//! A process that launches sandboxes, under ptrace(2) with all that it starts: each of its calls is seen, and one can be made
//! to fail, or its side be killed or stopped there. It must not judge what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::mem;
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::calls::{instead, number, operation};
use super::watch::Watch;
use super::words::{Act, BEGIN, END, Edge, End, Fault, Point, Round, Seen, Side, TOLD};

/// How long something is held by SIGSTOP.
const STOPPED: Duration = Duration::from_millis(3);
/// `PTRACE_EVENT_STOP` and `PTRACE_LISTEN` of linux/ptrace.h.
const EVENT_STOP: i32 = 128;
const LISTEN: libc::c_uint = 0x4208;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    No,
    Yes,
}

/// Where the traced process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// In what faults befall.
    Within,
    Outside,
    /// Its line is written.
    Told,
}

#[derive(Debug, Default)]
struct Task {
    who: String,
    tgid: i32,
    named: bool,
    /// Where it is between a call's beginning and its end.
    inside: Inside,
    result: Option<i64>,
    /// What befalls it at its call's end.
    then: Option<Act>,
    /// Its arguments, where they were changed.
    before: Option<[u64; 6]>,
}

pub(super) fn end(pid: i32) {
    // It may have ended already.
    kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
}

/// A traced process.
#[derive(Debug)]
pub(crate) struct Session {
    pid: i32,
    /// Until this is closed.
    process: Option<Child>,
    /// Its pid, until that may be another's.
    unreaped: Option<i32>,
    input: ChildStdin,
    output: BufReader<ChildStderr>,
    tasks: BTreeMap<i32, Task>,
    /// New ones whose maker has not said so yet.
    early: BTreeSet<i32>,
    /// Those that are let run, with when they began.
    free: Vec<(i32, String)>,
    watch: Watch,
    pub(crate) noise: String,
    phase: Phase,
    counts: BTreeMap<(String, u64, u64), usize>,
    children: usize,
    seen: Vec<Seen>,
    fault: Option<Fault>,
    hit: bool,
}

fn options() -> Options {
    Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_EXITKILL
}

impl Session {
    /// Starts it, waits until it is ready, and takes hold of all its threads; or why that cannot be.
    pub(crate) fn start(command: &mut Command) -> Result<Self, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stderr.take().unwrap());
        let pid = i32::try_from(process.id()).unwrap();
        let mut session = Self {
            pid,
            process: Some(process),
            unreaped: Some(pid),
            input,
            output: BufReader::new(output),
            tasks: BTreeMap::new(),
            early: BTreeSet::new(),
            free: Vec::new(),
            watch: Watch::start(),
            noise: String::new(),
            phase: Phase::Outside,
            counts: BTreeMap::new(),
            children: 0,
            seen: Vec::new(),
            fault: None,
            hit: false,
        };
        let said = session.line().unwrap_or_default();
        if said != "ready" {
            return Err(format!("{said} {}", session.noise));
        }
        let own = session.pid();
        for entry in fs::read_dir(format!("/proc/{own}/task")).unwrap() {
            let tid: i32 = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
            match ptrace::seize(Pid::from_raw(tid), options()) {
                Ok(()) => {}
                Err(Errno::EPERM) => return Err("a process may not be traced here".to_owned()),
                Err(errno) => panic!("seize {tid}: {errno}"),
            }
            let comm = comm(tid);
            let who = if comm.starts_with("ringfence") { comm } else { "caller".to_owned() };
            session.tasks.insert(tid, Task { who, tgid: own, named: true, ..Task::default() });
            ptrace::interrupt(Pid::from_raw(tid)).unwrap();
        }
        Ok(session)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// The next line that begins with `@`; what comes before is noise, such as a panic's message.
    fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.strip_prefix('@') {
                Some(told) => return Some(told.trim_end().to_owned()),
                None => self.noise.push_str(&line),
            }
        }
    }

    /// One round, with something that befalls one call.
    pub(crate) fn round(&mut self, fault: Option<&Fault>) -> Round {
        (self.fault, self.hit, self.phase) = (fault.cloned(), false, Phase::Outside);
        self.counts.clear();
        // A call that lasts longer than a round has outlived what was to befall its end.
        self.tasks.values_mut().for_each(|task| task.then = None);
        (self.seen, self.children) = (Vec::new(), 0);
        self.input.write_all(b"go\n").ok();
        self.watch.begin(self.pid());
        let mut died = None;
        while self.phase != Phase::Told && died.is_none() {
            died = self.step();
        }
        let hung = self.watch.fired();
        let end = match died {
            _ if hung => End::Hung,
            Some(how) => End::Died(how),
            None => self.line().map_or_else(|| End::Died("no line".into()), End::Line),
        };
        if !matches!(end, End::Line(_)) {
            self.drain();
        }
        self.watch.end();
        let left = self.left();
        Round { end, seen: mem::take(&mut self.seen), hit: self.hit, left }
    }

    /// After the caller's end: everything that it has made ends too. What does not is killed, and stands in `left`.
    fn drain(&mut self) {
        let until = Instant::now() + Duration::from_secs(60);
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD | WaitPidFlag::WNOHANG;
        while Instant::now() < until {
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(1)),
                Ok(status) => self.take(status),
                // ECHILD: nothing is traced any more.
                Err(_) => break,
            }
            // Their maker was killed before it could say so.
            for pid in mem::take(&mut self.early) {
                self.tasks.insert(pid, Task { who: "orphan".to_owned(), tgid: pid, ..Task::default() });
                self.let_go(Pid::from_raw(pid));
            }
        }
        for (pid, task) in mem::take(&mut self.tasks) {
            if fs::metadata(format!("/proc/{pid}")).is_ok() {
                self.free.push((pid, format!("{} {}", begun(pid), task.who)));
            }
        }
    }

    /// Those that were let run and are still there. They may take a moment.
    fn left(&mut self) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let there = |(pid, when): &(i32, String)| {
                let now = begun(*pid);
                !now.is_empty() && when.starts_with(&now)
            };
            self.free.retain(there);
            if self.free.is_empty() {
                return Vec::new();
            }
            if Instant::now() > until {
                let left = mem::take(&mut self.free);
                left.iter().for_each(|(pid, _)| end(*pid));
                return left.into_iter().map(|(pid, what)| format!("{pid} {what}")).collect();
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for one event; how the caller ended, once it has.
    fn step(&mut self) -> Option<String> {
        let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Ok(status) => status,
            Err(Errno::EINTR) => return None,
            Err(errno) => return Some(format!("waitpid: {errno}")),
        };
        let own = Pid::from_raw(self.pid());
        self.take(status);
        if let WaitStatus::Exited(pid, code) = status
            && pid == own
        {
            return Some(format!("exited with {code}"));
        }
        if let WaitStatus::Signaled(pid, signal, _) = status
            && pid == own
        {
            return Some(format!("killed by {signal}"));
        }
        None
    }

    fn take(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                self.unreaped.take_if(|own| *own == pid.as_raw());
                self.tasks.remove(&pid.as_raw());
            }
            WaitStatus::PtraceSyscall(pid) => self.syscall(pid),
            WaitStatus::PtraceEvent(pid, signal, event) => self.event(pid, signal, event),
            WaitStatus::Stopped(pid, BEGIN) => {
                self.phase = Phase::Within;
                self.go(pid, None);
            }
            WaitStatus::Stopped(pid, TOLD) => {
                self.phase = Phase::Told;
                self.go(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => self.go(pid, Some(signal)),
            WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
    }

    fn event(&mut self, pid: Pid, signal: Signal, event: i32) {
        match event {
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                if let Ok(made) = ptrace::getevent(pid) {
                    self.made(pid, i32::try_from(made).unwrap());
                }
                self.go(pid, None);
            }
            libc::PTRACE_EVENT_EXEC => {
                let to = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
                let program = !to.to_string_lossy().starts_with("/memfd:");
                if program { self.let_go(pid) } else { self.go(pid, None) }
            }
            libc::PTRACE_EVENT_EXIT => self.let_go(pid),
            EVENT_STOP if matches!(signal, Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN) => {
                listen(pid);
                let tgid = self.tasks.get(&pid.as_raw()).map_or(pid.as_raw(), |task| task.tgid);
                continue_later(tgid);
            }
            EVENT_STOP if !self.tasks.contains_key(&pid.as_raw()) => {
                self.early.insert(pid.as_raw());
            }
            _ => self.go(pid, None),
        }
    }

    /// `by` has made a process or a thread.
    fn made(&mut self, by: Pid, made: i32) {
        let (who, tgid) = match self.tasks.get(&by.as_raw()) {
            Some(task) => (task.who.clone(), task.tgid),
            None => (String::new(), 0),
        };
        let thread = fs::metadata(format!("/proc/{tgid}/task/{made}")).is_ok();
        let task = if thread {
            Task { tgid, ..Task::default() }
        } else if tgid == self.pid() {
            self.children += 1;
            let who = if self.children == 1 { "child".to_owned() } else { format!("child{}", self.children) };
            Task { who, tgid: made, named: true, ..Task::default() }
        } else {
            Task { who: format!("{who}'s program"), tgid: made, named: true, ..Task::default() }
        };
        self.tasks.insert(made, task);
        if self.early.remove(&made) {
            self.go(Pid::from_raw(made), None);
        }
    }

    /// It runs on by itself: as the program, or to its end. Where it is traced at its end, its parent cannot reap it before
    /// the tracer has.
    fn let_go(&mut self, pid: Pid) {
        let task = self.tasks.remove(&pid.as_raw()).unwrap_or_default();
        if self.hit && self.fault.as_ref().is_some_and(|fault| matches!(fault.act, Act::Stop(..))) {
            // The stop may not have begun, and is not seen any more.
            continue_later(task.tgid);
        }
        if task.tgid == pid.as_raw() && task.tgid != self.pid() {
            self.free.push((pid.as_raw(), format!("{} {}", begun(pid.as_raw()), task.who)));
        }
        if task.tgid == self.pid() && task.tgid == pid.as_raw() {
            // Its end is waited for.
            self.tasks.insert(pid.as_raw(), task);
            return self.go(pid, None);
        }
        ptrace::detach(pid, None).ok();
    }

    /// On to its next call, or to its next signal where its calls are of no interest: outside, and once the fault has befallen.
    /// The threads that last from round to round have no other place where they could be stopped again.
    fn go(&mut self, pid: Pid, signal: Option<Signal>) {
        let own = self.pid();
        let awaited = self.phase == Phase::Within && !self.hit;
        let calls = self.tasks.get_mut(&pid.as_raw()).is_none_or(|task| {
            let calls = awaited
                || task.result.is_some()
                || task.then.is_some()
                || (task.tgid == own && task.who != "caller");
            if !calls {
                task.inside = Inside::No;
            }
            calls
        });
        // ESRCH: it was killed meanwhile, and its end comes as the next event.
        if calls {
            ptrace::syscall(pid, signal).ok()
        } else {
            ptrace::cont(pid, signal).ok()
        };
    }

    fn syscall(&mut self, pid: Pid) {
        let own = self.pid();
        let Some(task) = self.tasks.get_mut(&pid.as_raw()) else { return self.go(pid, None) };
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        if task.inside == Inside::Yes {
            task.inside = Inside::No;
            let tgid = task.tgid;
            if let Some(act) = task.then.take() {
                signal(act, own, tgid);
            }
            if let Some(result) = task.result.take() {
                if let Some(before) = task.before.take() {
                    (registers.rdi, registers.rsi, registers.rdx) = (before[0], before[1], before[2]);
                }
                registers.rax = result.cast_unsigned();
                ptrace::setregs(pid, registers).ok();
            }
            return self.go(pid, None);
        }
        let call = registers.orig_rax;
        task.inside = Inside::Yes;
        let args = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
        if call == number(libc::SYS_prctl) && args[0] == u64::from(END.unsigned_abs()) {
            self.phase = Phase::Outside;
            return self.go(pid, None);
        }
        if self.phase != Phase::Within {
            return self.go(pid, None);
        }
        if !task.named {
            // A thread takes its name after a few calls.
            let comm = comm(pid.as_raw());
            task.named = comm.starts_with("ringfence");
            task.who = if task.named { comm } else { "thread".to_owned() };
        }
        let (who, tgid) = (task.who.clone(), task.tgid);
        let operation = operation(call, &args);
        let nth = self.counts.entry((who.clone(), call, operation)).or_default();
        *nth += 1;
        let point = Point { who, call, operation, nth: *nth };
        if let Some(fault) = self.fault.as_ref().filter(|fault| !self.hit && fault.point == point) {
            self.hit = true;
            let act = fault.act;
            match act {
                Act::Fail(errno) => {
                    task.before = Some(args);
                    registers = instead(registers, call);
                    ptrace::setregs(pid, registers).ok();
                    task.result = Some(-i64::from(errno));
                }
                Act::FailDone(errno) => task.result = Some(-i64::from(errno)),
                Act::Kill(_, Edge::Entry) | Act::Stop(_, Edge::Entry) => signal(act, own, tgid),
                Act::Kill(_, Edge::Exit) | Act::Stop(_, Edge::Exit) => task.then = Some(act),
            }
        }
        self.seen.push(Seen { point, args });
        self.go(pid, None);
    }
}

fn signal(act: Act, caller: i32, same: i32) {
    let whom = |side| Pid::from_raw(if side == Side::Caller || same == 0 { caller } else { same });
    match act {
        Act::Fail(_) | Act::FailDone(_) => Ok(()),
        Act::Kill(side, _) => kill(whom(side), Signal::SIGKILL),
        Act::Stop(side, _) => kill(whom(side), Signal::SIGSTOP),
    }
    // It may have ended already.
    .ok();
}

fn continue_later(tgid: i32) {
    if tgid == 0 {
        return;
    }
    thread::spawn(move || {
        thread::sleep(STOPPED);
        kill(Pid::from_raw(tgid), Signal::SIGCONT).ok();
    });
}

fn listen(pid: Pid) {
    // SAFETY: PTRACE_LISTEN takes numbers only.
    unsafe { libc::ptrace(LISTEN, pid.as_raw(), 0, 0) };
}

fn comm(tid: i32) -> String {
    fs::read_to_string(format!("/proc/{tid}/comm")).unwrap_or_default().trim().to_owned()
}

/// When a process began, as the kernel counts; empty where it is gone or a zombie.
fn begun(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    match fields.first() {
        None | Some(&("Z" | "X")) => String::new(),
        Some(_) => fields.get(19).copied().unwrap_or_default().to_owned(),
    }
}

impl Session {
    /// Ends it, and waits for all that it has started. Before another one is begun: its events would be taken for this one's.
    pub(crate) fn close(&mut self) {
        if let Some(mut process) = self.process.take() {
            self.unreaped.into_iter().for_each(end);
            self.drain();
            // ECHILD: it was reaped as one that is traced.
            process.wait().ok();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close();
    }
}
