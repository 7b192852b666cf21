//! The server's own loop, and the set-up of a worker: code of this crate that runs behind the fence. It must not run a
//! function before the worker has lost everything of the server's.

use std::io::IoSlice;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::result::Result as StdResult;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::setsid;

use super::super::call::{Io, finish, settle};
use super::super::channel::Channel;
use super::wire::{ARGUMENTS_MAX, Asked, HEAD, STREAMS};
use super::{WorkerFunction, WorkerIo};
use crate::spawn::{Report, WorkerAt};
use crate::sys::{self, DESCRIPTORS, Forked, RawUsage, Whole};

/// Number of the control socket, and of the ruleset where there is one.
pub(super) const CONTROL_FD: i32 = 3;
const PANIC_CODE: i32 = 101;
/// The server itself cannot go on.
const LOST_CODE: i32 = 103;

/// What the server begins with.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    pub(super) functions: &'a [(String, WorkerFunction)],
    /// The policy's filter, which each worker attaches.
    pub(super) filter: Option<&'a [u64]>,
    /// Whether a Landlock ruleset lies behind the control socket.
    pub(super) ruleset: Ruleset,
}

/// A domain of its own for each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruleset {
    Passed,
    None,
}

/// A worker that has not been reaped.
#[derive(Debug)]
struct Running {
    pid: i32,
    report: OwnedFd,
}

#[derive(Debug)]
struct Server<'a> {
    setup: Setup<'a>,
    control: OwnedFd,
    ruleset: Option<OwnedFd>,
    workers: Vec<Running>,
}

/// Serves until the caller is gone.
pub(super) fn serve(setup: Setup<'_>) -> ! {
    let control = sys::own(CONTROL_FD);
    let ruleset = (setup.ruleset == Ruleset::Passed).then(|| sys::own(CONTROL_FD + 1));
    settle();
    let mut server = Server { setup, control, ruleset, workers: Vec::new() };
    // Nothing but the end of the caller or of the server ends the loop; either ends everything inside.
    let code =
        catch_unwind(AssertUnwindSafe(|| server.run())).map_or(LOST_CODE, |ended| i32::from(ended.is_err()));
    sys::leave(code)
}

impl Server<'_> {
    fn run(&mut self) -> StdResult<(), Errno> {
        let mut ends = SigSet::empty();
        ends.add(Signal::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&ends), None)?;
        let signals = SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        if tell(&self.control, Report::Ready, None) == Heard::No {
            return Ok(());
        }
        loop {
            let ready = match sys::readable_fds([self.control.as_fd(), signals.as_fd()], -1) {
                Ok(ready) => ready,
                Err(libc::EINTR) => continue,
                Err(errno) => return Err(Errno::from_raw(errno)),
            };
            if ready[1] != 0 {
                // One may stand for many; what it says is not needed.
                while signals.read_signal()?.is_some() {}
                self.reap();
            }
            if ready[0] != 0 && self.answer()? == More::No {
                return Ok(());
            }
        }
    }

    fn reap(&mut self) {
        while let Some((pid, status, usage)) = sys::reap_any() {
            if let Some(at) = self.workers.iter().position(|worker| worker.pid == pid) {
                let worker = self.workers.swap_remove(at);
                tell(&worker.report, Report::Ended(status, usage), None);
            }
        }
    }

    /// One request.
    fn answer(&mut self) -> StdResult<More, Errno> {
        let mut buffer = vec![0; HEAD + ARGUMENTS_MAX + 1];
        let datagram = match sys::receive_with_fds(self.control.as_fd(), &mut buffer) {
            Ok(datagram) if datagram.length == 0 => return Ok(More::No),
            Ok(datagram) => datagram,
            Err(libc::EINTR) => return Ok(More::Yes),
            Err(libc::ECONNRESET) => return Ok(More::No),
            Err(errno) => return Err(Errno::from_raw(errno)),
        };
        let mut fds = datagram.fds.into_iter();
        let Some(report) = fds.next() else { return Ok(More::Yes) };
        buffer.truncate(datagram.length);
        let asked = Asked::from_bytes(&buffer).filter(|_| datagram.whole == Whole::Yes);
        let function = asked.and_then(|asked| self.setup.functions.get(asked.function)).map(|(_, f)| *f);
        let (Some(asked), Some(function), fds) = (asked, function, fds.collect::<Vec<_>>()) else {
            tell(&report, Report::Failed(WorkerAt::Request, libc::EPROTO), None);
            return Ok(More::Yes);
        };
        if fds.len() < STREAMS + usize::from(asked.channels) {
            tell(&report, Report::Failed(WorkerAt::Descriptors, libc::EMFILE), None);
            return Ok(More::Yes);
        }
        match sys::fork() {
            Ok(Forked::Copy) => self.become_worker((asked, function), buffer.split_off(HEAD), &fds, &report),
            Ok(Forked::Caller(pid)) => self.started(pid, report),
            Err(errno) => {
                tell(&report, Report::Failed(WorkerAt::Fork, errno), None);
            }
        }
        Ok(More::Yes)
    }

    /// The caller gets a descriptor of its own; who cannot have one has no worker.
    fn started(&mut self, pid: i32, report: OwnedFd) {
        // It is this process's child and not reaped, so the number is certain.
        match sys::open_pidfd(pid) {
            Ok(pidfd) if tell(&report, Report::Started, Some(pidfd.as_fd())) == Heard::Yes => {}
            Ok(_) => sys::kill_child(pid),
            Err(errno) => {
                sys::kill_child(pid);
                tell(&report, Report::Failed(WorkerAt::Pidfd, errno), None);
            }
        }
        self.workers.push(Running { pid, report });
    }

    /// In the worker: everything of the server's goes, then the filter, then the function.
    fn become_worker(
        &self,
        (asked, function): (Asked, WorkerFunction),
        arguments: Vec<u8>,
        fds: &[OwnedFd],
        report: &OwnedFd,
    ) -> ! {
        // Above all numbers that its own are to have, so that none overwrites another.
        let base = i32::try_from(fds.len()).unwrap_or(i32::MAX);
        let Ok(report) = sys::duplicate(report.as_raw_fd(), base) else { sys::leave(LOST_CODE) };
        let ready =
            self.prepare(fds, base).map_or_else(|(at, errno)| Report::Failed(at, errno), |()| Report::Ready);
        if tell(&report, ready, None) == Heard::No || ready != Report::Ready {
            sys::leave(LOST_CODE)
        }
        // Control socket, other workers' reports, its own: whoever takes this process over has none of them.
        sys::close_between(base, i32::MAX);
        if let Some(words) = self.setup.filter
            && sys::attach_filter(words, 0).is_err()
        {
            // There is nobody to tell any more: it ends, and without the function.
            sys::abort();
        }
        let mut numbers = 3..base;
        let channel = (asked.channels == 1).then(|| numbers.next()).flatten();
        let io =
            Io::new(channel.map(|number| Channel::owning(sys::own(number))), numbers.map(sys::own).collect());
        let mut io = WorkerIo { arguments, channel: io.channel, fds: io.fds };
        match catch_unwind(AssertUnwindSafe(|| function(&mut io))) {
            Ok(code) => finish(code),
            Err(payload) => {
                mem::forget(payload);
                finish(PANIC_CODE)
            }
        }
    }

    /// What can fail and be told.
    fn prepare(&self, fds: &[OwnedFd], base: i32) -> StdResult<(), (WorkerAt, i32)> {
        // A signal to its process group reaches nobody else.
        setsid().map_err(|errno| (WorkerAt::Session, errno as i32))?;
        let descriptors = |errno| (WorkerAt::Descriptors, errno);
        let high = |fd: &OwnedFd| sys::duplicate(fd.as_raw_fd(), base).map_err(descriptors);
        let ruleset = self.ruleset.as_ref().map(high).transpose()?;
        let parked = fds.iter().map(high).collect::<StdResult<Vec<_>, _>>()?;
        for (fd, to) in parked.iter().zip(0..) {
            sys::place(fd.as_fd(), to).map_err(descriptors)?;
        }
        if let Some(ruleset) = &ruleset {
            sys::restrict_self(ruleset, 0).map_err(|errno| (WorkerAt::Landlock, errno))?;
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
            .map_err(|errno| (WorkerAt::Signals, errno as i32))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    Yes,
    No,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Yes,
    No,
}

/// One report, without waiting: there is room for the few that a worker has.
fn tell(socket: &OwnedFd, report: Report, fd: Option<BorrowedFd<'_>>) -> Heard {
    let bytes = report.to_bytes();
    let numbers: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None) {
        Ok(_) => Heard::Yes,
        Err(_) => Heard::No,
    }
}

const _: () = assert!(DESCRIPTORS > STREAMS + 1 && size_of::<RawUsage>() == 144);
