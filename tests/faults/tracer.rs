//! A process that launches sandboxes, under ptrace(2) with all that it starts: each of its calls is seen, and one can be made
//! to fail, or its side be killed or stopped there. It must not judge what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// `prctl(MARK, n)`: how a traced process says where it is.
pub(crate) const MARK: i32 = 0x5246_4d4b;
/// What is traced begins, ends; the line is written.
pub(crate) const BEGIN: u64 = 1;
pub(crate) const END: u64 = 2;
pub(crate) const TOLD: u64 = 3;

/// So long may one round take before it counts as hung.
const HUNG: Duration = Duration::from_secs(40);
/// How long something is held by SIGSTOP.
const STOPPED: Duration = Duration::from_millis(3);
/// `PTRACE_EVENT_STOP` and `PTRACE_LISTEN` of linux/ptrace.h.
const EVENT_STOP: i32 = 128;
const LISTEN: libc::c_uint = 0x4208;

/// One call of one side: the `nth` with that number, and that operation where one number has many.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    pub(crate) who: String,
    pub(crate) call: u64,
    pub(crate) operation: u64,
    pub(crate) nth: usize,
}

/// A point that was seen, with what tells one call from another.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) point: Point,
    pub(crate) args: [u64; 6],
}

/// Whom a signal meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Caller,
    /// The process that the point is of.
    Same,
}

/// What a tracer does at the end of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AtExit {
    /// Lets it go a moment before, so that it ends as if nobody traced it.
    #[default]
    LetGo,
    /// Is told of its end first, and takes its time: until then its parent cannot reap it.
    Dawdle,
}

/// What befalls a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// It is not made, and fails.
    Fail(i32),
    /// It is made, and fails: close(2) and the like let go of the descriptor in any case.
    FailDone(i32),
    /// Before it is made, its side is killed.
    Kill(Side),
    /// Before it is made, its side is stopped for a moment.
    Stop(Side),
}

/// What is to befall which call.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) point: Point,
    pub(crate) act: Act,
}

/// How a round ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Line(String),
    /// The traced process ended before it told anything.
    Died(String),
    Hung,
}

#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) end: End,
    pub(crate) seen: Vec<Seen>,
    /// Whether the point was come by.
    pub(crate) hit: bool,
    /// Processes that are there after it and were not before.
    pub(crate) left: Vec<String>,
}

#[derive(Debug, Default)]
struct Task {
    who: String,
    tgid: i32,
    named: bool,
    entered: bool,
    call: u64,
    result: Option<i64>,
    /// Its arguments, where they were changed.
    before: Option<[u64; 6]>,
}

/// Kills a process group's first process when a round takes too long.
#[derive(Debug)]
struct Watch {
    until: Arc<Mutex<Option<(Instant, Vec<i32>)>>>,
    fired: Arc<AtomicBool>,
}

impl Watch {
    fn start() -> Self {
        let until: Arc<Mutex<Option<(Instant, Vec<i32>)>>> = Arc::default();
        let fired = Arc::new(AtomicBool::new(false));
        let (weak, told) = (Arc::downgrade(&until), Arc::clone(&fired));
        thread::spawn(move || {
            while let Some(until) = weak.upgrade() {
                let due = until.lock().unwrap().as_ref().filter(|(at, _)| Instant::now() > *at).cloned();
                if let Some((_, pids)) = due {
                    told.store(true, Ordering::SeqCst);
                    pids.into_iter().for_each(|pid| end(pid));
                }
                drop(until);
                thread::sleep(Duration::from_millis(100));
            }
        });
        Self { until, fired }
    }
}

fn end(pid: i32) {
    // It may have ended already.
    kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
}

/// A traced process.
#[derive(Debug)]
pub(crate) struct Session {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStderr>,
    tasks: BTreeMap<i32, Task>,
    /// New ones whose maker has not said so yet.
    early: BTreeSet<i32>,
    /// Those that are let run, with when they began.
    free: Vec<(i32, String)>,
    watch: Watch,
    pub(crate) noise: String,
    active: bool,
    counts: BTreeMap<(String, u64, u64), usize>,
    children: usize,
    seen: Vec<Seen>,
    fault: Option<Fault>,
    hit: bool,
    told: bool,
    pub(crate) at_exit: AtExit,
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
        let mut session = Self {
            process,
            input,
            output: BufReader::new(output),
            tasks: BTreeMap::new(),
            early: BTreeSet::new(),
            free: Vec::new(),
            watch: Watch::start(),
            noise: String::new(),
            active: false,
            counts: BTreeMap::new(),
            children: 0,
            seen: Vec::new(),
            fault: None,
            hit: false,
            told: false,
            at_exit: AtExit::default(),
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
        i32::try_from(self.process.id()).unwrap()
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
        (self.fault, self.hit, self.told) = (fault.cloned(), false, false);
        self.counts.clear();
        (self.seen, self.children) = (Vec::new(), 0);
        self.input.write_all(b"go\n").ok();
        *self.watch.until.lock().unwrap() = Some((Instant::now() + HUNG, vec![self.pid()]));
        let mut died = None;
        while !self.told && died.is_none() {
            died = self.step();
        }
        self.active = false;
        let hung = self.watch.fired.load(Ordering::SeqCst);
        let end = match died {
            _ if hung => End::Hung,
            Some(how) => End::Died(how),
            None => self.line().map_or_else(|| End::Died("no line".into()), End::Line),
        };
        if !matches!(end, End::Line(_)) {
            self.drain();
        }
        *self.watch.until.lock().unwrap() = None;
        let left = self.left();
        Round { end, seen: std::mem::take(&mut self.seen), hit: self.hit, left }
    }

    /// After the caller's end: everything that it has made ends too. What does not is killed, and stands in `left`.
    fn drain(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD | WaitPidFlag::WNOHANG;
        while !self.tasks.is_empty() && Instant::now() < until {
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(1)),
                Ok(status) => self.take(status),
                Err(_) => break,
            }
        }
        for (pid, task) in std::mem::take(&mut self.tasks) {
            if fs::metadata(format!("/proc/{pid}")).is_ok() {
                self.free.push((pid, format!("{} {}", begun(pid), task.who)));
            }
        }
    }

    /// Those that were let run and are still there. They may take a moment.
    fn left(&mut self) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(10);
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
                let left = std::mem::take(&mut self.free);
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
        match status {
            WaitStatus::Exited(pid, code) if pid == own => {
                self.tasks.remove(&pid.as_raw());
                Some(format!("exited with {code}"))
            }
            WaitStatus::Signaled(pid, signal, _) if pid == own => {
                self.tasks.remove(&pid.as_raw());
                Some(format!("killed by {signal}"))
            }
            status => {
                self.take(status);
                None
            }
        }
    }

    fn take(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                self.tasks.remove(&pid.as_raw());
            }
            WaitStatus::PtraceSyscall(pid) => self.syscall(pid),
            WaitStatus::PtraceEvent(pid, signal, event) => self.event(pid, signal, event),
            WaitStatus::Stopped(pid, signal) => go(pid, Some(signal)),
            WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
    }

    fn event(&mut self, pid: Pid, signal: Signal, event: i32) {
        match event {
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                if let Ok(made) = ptrace::getevent(pid) {
                    self.made(pid, i32::try_from(made).unwrap());
                }
                go(pid, None);
            }
            libc::PTRACE_EVENT_EXEC => {
                let call = self.tasks.get(&pid.as_raw()).map(|task| task.call);
                let program = call == Some(number(libc::SYS_execve)) && self.at_exit == AtExit::LetGo;
                if program { self.let_go(pid) } else { go(pid, None) }
            }
            libc::PTRACE_EVENT_EXIT if self.at_exit == AtExit::Dawdle => {
                go(pid, None);
                thread::sleep(STOPPED * 10);
            }
            libc::PTRACE_EVENT_EXIT => self.let_go(pid),
            EVENT_STOP if matches!(signal, Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN) => {
                listen(pid);
                let tgid = self.tasks.get(&pid.as_raw()).map_or(pid.as_raw(), |task| task.tgid);
                thread::spawn(move || {
                    thread::sleep(STOPPED);
                    kill(Pid::from_raw(tgid), Signal::SIGCONT).ok();
                });
            }
            EVENT_STOP if !self.tasks.contains_key(&pid.as_raw()) => {
                self.early.insert(pid.as_raw());
            }
            _ => go(pid, None),
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
            go(Pid::from_raw(made), None);
        }
    }

    /// It runs on by itself: as the program, or to its end. Where it is traced at its end, its parent cannot reap it before
    /// the tracer has.
    fn let_go(&mut self, pid: Pid) {
        let task = self.tasks.remove(&pid.as_raw()).unwrap_or_default();
        if task.tgid == pid.as_raw() && task.tgid != self.pid() {
            self.free.push((pid.as_raw(), format!("{} {}", begun(pid.as_raw()), task.who)));
        }
        if task.tgid == self.pid() && task.tgid == pid.as_raw() {
            // Its end is waited for.
            self.tasks.insert(pid.as_raw(), task);
            return go(pid, None);
        }
        ptrace::detach(pid, None).ok();
    }

    fn syscall(&mut self, pid: Pid) {
        let own = self.pid();
        let Some(task) = self.tasks.get_mut(&pid.as_raw()) else { return go(pid, None) };
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        if task.entered {
            task.entered = false;
            if let Some(result) = task.result.take() {
                if let Some(before) = task.before.take() {
                    (registers.rdi, registers.rsi, registers.rdx) = (before[0], before[1], before[2]);
                }
                registers.rax = result.cast_unsigned();
                ptrace::setregs(pid, registers).ok();
            }
            return go(pid, None);
        }
        let call = registers.orig_rax;
        (task.entered, task.call) = (true, call);
        let args = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
        if call == number(libc::SYS_prctl) && args[0] == u64::from(MARK.unsigned_abs()) {
            match args[1] {
                BEGIN => self.active = true,
                END => self.active = false,
                _ => self.told = true,
            }
            return go(pid, None);
        }
        if !self.active {
            return go(pid, None);
        }
        if !task.named {
            // A thread takes its name after a few calls.
            let comm = comm(pid.as_raw());
            task.named = comm.starts_with("ringfence");
            task.who = if task.named { comm } else { "thread".to_owned() };
        }
        let (who, tgid) = (task.who.clone(), task.tgid);
        let operation = match i64::try_from(call).unwrap() {
            libc::SYS_futex | libc::SYS_fcntl | libc::SYS_ioctl | libc::SYS_flock => args[1],
            libc::SYS_prctl => args[0],
            _ => 0,
        };
        let nth = self.counts.entry((who.clone(), call, operation)).or_default();
        *nth += 1;
        let point = Point { who, call, operation, nth: *nth };
        if let Some(fault) = self.fault.as_ref().filter(|fault| !self.hit && fault.point == point) {
            self.hit = true;
            match fault.act {
                Act::Fail(errno) => {
                    task.before = Some(args);
                    registers = instead(registers, call);
                    ptrace::setregs(pid, registers).ok();
                    task.result = Some(-i64::from(errno));
                }
                Act::FailDone(errno) => task.result = Some(-i64::from(errno)),
                Act::Kill(side) => end(if side == Side::Caller { own } else { tgid }),
                Act::Stop(side) => {
                    let pid = if side == Side::Caller { own } else { tgid };
                    kill(Pid::from_raw(pid), Signal::SIGSTOP).ok();
                }
            }
        }
        self.seen.push(Seen { point, args });
        go(pid, None);
    }
}

/// What the kernel does instead of a call that is to fail. Behind a filter no call may become another one, so there its
/// arguments become such that it fails by itself.
fn instead(mut registers: libc::user_regs_struct, call: u64) -> libc::user_regs_struct {
    match i64::try_from(call).unwrap() {
        libc::SYS_execve | libc::SYS_ppoll => registers.rdi = 1,
        libc::SYS_execveat => registers.rsi = 1,
        libc::SYS_read => registers.rdi = u64::MAX,
        libc::SYS_wait4 => registers.rdx = u64::MAX,
        libc::SYS_kill => registers.rsi = 4000,
        _ => registers.orig_rax = u64::MAX,
    }
    registers
}

pub(crate) fn number(call: libc::c_long) -> u64 {
    u64::try_from(call).unwrap()
}

fn go(pid: Pid, signal: Option<Signal>) {
    // ESRCH: it was killed meanwhile, and its end comes as the next event.
    ptrace::syscall(pid, signal).ok();
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

impl Drop for Session {
    fn drop(&mut self) {
        end(self.pid());
        self.drain();
        self.process.wait().ok();
    }
}
