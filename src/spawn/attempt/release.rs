//! The end of a launch: the filter's listener is taken over, the program is let go, and what holds then is told. It must
//! not let the program go unsupervised where its filter needs a supervisor.

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::super::clone::deadline_after;
use super::super::enforcement::{FilterState, SupervisorState};
use super::super::explain::Death;
use super::super::fill::forget_secret;
use super::super::parent::Heard;
use super::super::supervise::{Handover, Seen, Start, Supervision, is_listener};
use super::{FilterBy, Running, What, filter_words};
use crate::error::{Error, ErrorKind, Result, Step, errno_text};
use crate::host::{Features, Status};
use crate::machine::layout::{LISTENER, SECRET, SUPERVISED};
use crate::machine::wire::Message;
use crate::plan::{Attach, Code, Listener};
use crate::policy::Filter;
use crate::sys;

/// After this time the socket's end is late, and the kernel's own mark is looked at.
const LATE: Duration = Duration::from_millis(10);
/// Between two looks at a word of the brief that the child is about to write.
const LOOK: Duration = Duration::from_micros(50);
/// A descriptor that every child has.
const STDIN: i32 = 0;

impl Running {
    /// Lets the program go and waits until it runs. Then the filter holds: execve stands behind its attachment in the table,
    /// and is not reached where the kernel refuses that.
    pub(crate) fn release(&mut self) -> Result<()> {
        let released = self.let_go();
        match &self.site {
            Some(site) => released.map_err(|error| site.refine(error)),
            None => released,
        }
    }

    fn let_go(&mut self) -> Result<()> {
        let deadline = deadline_after(self.fence.policy.setup_timeout);
        let program = self.offer()?;
        self.run(program.as_ref(), deadline)?;
        if let Some(supervision) = &self.supervision {
            supervision.launched();
        }
        forget_secret(self.parent.brief());
        self.unload();
        // Nothing is left to explain: a running program is not to cost the memory of its set-up.
        (self.linked.tail, self.linked.window) = (Arc::default(), Code::empty());
        self.tell();
        Ok(())
    }

    fn filter(&self) -> Option<&Attach> {
        self.compiled()?.plan.filter.as_ref()
    }

    /// Where the filter asks for a listener: looks whether the program's descriptors can be fetched at all, and says so in
    /// the brief. Returns the program's pidfd, made while the program waits and its number is certain.
    fn offer(&mut self) -> Result<Option<OwnedFd>> {
        let Some(filter) = self.filter().filter(|filter| filter.listens() && self.what == What::Program)
        else {
            return Ok(None);
        };
        let can = sys::open_pidfd(self.program).map_err(|errno| ("pidfd_open", errno)).and_then(|pidfd| {
            sys::fetch_fd(&pidfd, STDIN).map_err(|errno| ("pidfd_getfd", errno))?;
            Ok(pidfd)
        });
        match can {
            Ok(pidfd) => {
                self.parent.brief().map().set_word(SUPERVISED, 1);
                Ok(Some(pidfd))
            }
            Err((call, errno)) if filter.does_without() => {
                let why = format!("{call}: {}", errno_text(errno));
                self.report.supervisor = SupervisorState::KernelKills { why };
                Ok(None)
            }
            Err((call, errno)) => {
                let error = Error::new(ErrorKind::Setup, Step::Seccomp, "supervisor").call(call, errno);
                if errno == libc::ESRCH && self.parent.is_its_end(&error)? {
                    return Err(self.exec_error(self.parent.death()));
                }
                Err(error.detail(
                    "rules that notify need a caller that may trace its child: a filter around it, a security module, or \
                     kernel.yama.ptrace_scope=3 does not let it",
                ))
            }
        }
    }

    fn run(&mut self, program: Option<&OwnedFd>, deadline: Instant) -> Result<()> {
        if self.cargo.is_empty() {
            self.parent.tell(Message::Go)?;
        }
        self.parent.hand_over(&self.cargo)?;
        // The child has its own by now, or it never will.
        self.cargo.clear();
        let mut announced = false;
        loop {
            let ends = self.what == What::Program && program.is_none();
            let until = if announced || ends { deadline.min(Instant::now() + LATE) } else { deadline };
            match self.parent.hear(until)? {
                Heard::Message(Message::Exec, _) if !announced => {
                    announced = true;
                    if self.what != What::Program {
                        // What is behind it is told by what runs.
                        return Ok(());
                    }
                    if let Some(program) = program {
                        self.take_over(program, deadline)?;
                    }
                }
                Heard::Message(..) => {
                    let error = Error::new(ErrorKind::Setup, Step::Gate, "socket");
                    return Err(error.detail("the child said something else"));
                }
                Heard::End if self.parent.is_at_exec() && !self.parent.gave_up() => return Ok(()),
                Heard::End => return Err(self.exec_error(self.parent.death())),
                // Someone else holds the socket's other end.
                Heard::Nothing
                    if self.parent.is_at_exec() && self.parent.has_left() && !self.parent.gave_up() =>
                {
                    return Ok(());
                }
                Heard::Nothing if Instant::now() < deadline => {}
                Heard::Nothing => {
                    self.parent.end();
                    return Err(self.exec_error(Death::TimedOut));
                }
            }
        }
    }

    /// Takes the filter's listener over, and starts who answers. Until that has happened the child is held by the kernel in
    /// its exec, which the filter notifies of.
    fn take_over(&mut self, program: &OwnedFd, deadline: Instant) -> Result<()> {
        let Some(listener) = self.listener(deadline)? else { return Ok(()) };
        let failed = |(call, errno)| {
            let error = Error::new(ErrorKind::Setup, Step::Seccomp, "supervisor");
            error.call(call, errno)
        };
        let listener = match sys::fetch_fd(program, listener) {
            Ok(listener) => listener,
            Err(errno) => {
                let error = failed(("pidfd_getfd", errno));
                // Its end says more.
                return if self.parent.is_its_end(&error)? { Ok(()) } else { Err(error) };
            }
        };
        if !is_listener(&listener).map_err(failed)? {
            return Err(failed(("pidfd_getfd", libc::EBADF)).detail("it is no listener"));
        }
        let Some(filter) = self.fence.policy.seccomp.clone() else { return Ok(()) };
        let killable = self.fence.host.features().contains(Features::SECCOMP_WAIT_KILLABLE);
        let start = Start {
            listener,
            filter,
            secret: self.parent.brief().map().word(SECRET),
            supervisor: self.supervisor.clone(),
            sandbox: self.parent.pidfd(),
            program: self.program.unsigned_abs(),
            handover: if killable { Handover::InTwoSteps } else { Handover::AtOnce },
        };
        self.supervision = Some(Supervision::start(start).map_err(failed)?);
        Ok(())
    }

    /// The listener's number in the child; `None` where there is none, or the child has ended.
    fn listener(&mut self, deadline: Instant) -> Result<Option<i32>> {
        loop {
            let word = self.parent.brief().map().word(LISTENER).cast_signed();
            match i32::try_from(word).unwrap_or(0) {
                0 if self.parent.gave_up() || Instant::now() >= deadline || self.parent.ended(0)? => {
                    return Ok(None);
                }
                0 => thread::sleep(LOOK),
                number @ 1.. => return Ok(Some(number)),
                errno => {
                    let why = format!("seccomp: {}", errno_text(-errno));
                    self.report.supervisor = SupervisorState::KernelKills { why };
                    return Ok(None);
                }
            }
        }
    }

    /// The report says what has come of the filter.
    fn tell(&mut self) {
        if let What::Closure(by) = self.what {
            self.tell_closure(by);
            return;
        }
        if self.supervision.is_some() {
            self.report.supervisor = SupervisorState::Running;
        }
        let listener = if self.supervision.is_some() { Listener::Had } else { Listener::None };
        if let Some(instructions) = self.filter().map(|filter| filter.instructions(listener)) {
            self.report.filter = FilterState::Attached { instructions };
        }
    }

    /// The filter of what runs in a copy has no listener.
    fn tell_closure(&mut self, by: FilterBy) {
        let words = filter_words(&self.fence).ok().flatten();
        self.report.filter = match (words, by) {
            (None, _) | (_, FilterBy::Body) => FilterState::None,
            (Some(words), FilterBy::Table) => FilterState::Attached { instructions: words.len() },
        };
        if self.fence.policy.seccomp.as_ref().is_some_and(Filter::tells) {
            let why = "a function of the caller has no supervisor".to_owned();
            self.report.supervisor = SupervisorState::KernelKills { why };
        }
    }

    /// Whether a thread of this process answers calls of the program.
    pub(crate) fn is_supervised(&self) -> bool {
        self.supervision.is_some()
    }

    /// What its supervisor has seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.supervision.as_ref().map(Supervision::seen).unwrap_or_default()
    }

    /// What the kernel says of the program's filters now.
    pub(crate) fn seccomp_filters(&self) -> Option<u32> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.program)).ok()?;
        let status = Status::parse(&text);
        // A zombie has let go of its filters.
        status.seccomp_filters.filter(|_| text.lines().all(|line| !line.starts_with("State:\tZ")))
    }

    /// What init failed at, if it has: then nobody knows how the program ended.
    pub(crate) fn init_failure(&self) -> Option<Error> {
        if !self.parent.brief().init_progress().gave_up {
            return None;
        }
        let seen = self.exec_error(self.parent.death());
        let error = Error::new(ErrorKind::Process, seen.step(), seen.object().clone());
        let error = error.detail("init could not go on, and what ran has ended with it");
        Some(match (seen.failed_call(), seen.raw_os_error()) {
            (Some(call), Some(errno)) => error.call(call, errno),
            _ => error,
        })
    }

    fn exec_error(&self, death: Death) -> Error {
        let Some(compiled) = self.compiled() else {
            return Error::new(ErrorKind::Setup, Step::Exec, "program");
        };
        let error = self.linked.explain(&self.fence, compiled, &self.parent, death);
        if error.step() != Step::Exec || error.raw_os_error().is_none() {
            return error;
        }
        self.refine(error, compiled.plan.tail_at)
    }

    /// `PATH` was searched: an entry that exists and was refused says more than the last one that did not exist. And a
    /// program that exists, where exec says ENOENT, names an interpreter that does not.
    fn refine(&self, error: Error, tail_at: u32) -> Error {
        let brief = self.parent.brief().map();
        let results: Vec<(u64, u64)> = self
            .linked
            .tail
            .cells
            .iter()
            .map(|offset| (brief.word(tail_at + offset), brief.word(tail_at + offset + 8)))
            .collect();
        let errno_of = |word: u64| i32::try_from(-word.cast_signed()).unwrap_or(0);
        let telling = results.iter().find(|(seen, exec)| *seen == 0 && *exec != 0);
        match telling.map(|(_, exec)| errno_of(*exec)) {
            Some(libc::ENOENT) => error
                .call("execve", libc::ENOENT)
                .detail("the program exists inside; the interpreter or loader that it names does not"),
            Some(errno) => error.call("execve", errno),
            None if results.len() > 1 => error.detail("no directory of PATH has it inside"),
            None => error,
        }
    }
}
