//! The supervisor's thread: takes one call after the other, answers it, and takes the sandbox down should it fail itself.
//! It must not wait for anything but calls, the callback and its stop.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::result::Result as StdResult;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::signals::Blocked;
use super::call::process_of;
use super::record::{Records, Stage};
use super::{NotifiedCall, RefusedCall, Response, SharedSupervisor};
use crate::error::errno_text;
use crate::plan::{NATIVE, SECRET_ARGUMENT};
use crate::policy::{Action, Filter};
use crate::sys::{self, Errno, Injection, Notification, NotificationAnswer, NotificationSizes};

const MAX_ERRNO: i32 = 4095;

/// How a descriptor becomes the answer of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spawn) enum Handover {
    /// It is injected, then its number is the answer. Only a kill comes between, where the call waits for nothing else
    /// (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, since Linux 5.19).
    InTwoSteps,
    /// At once (`SECCOMP_ADDFD_FLAG_SEND`), so that a signal to the program leaves no descriptor in it. But where this process
    /// is stopped meanwhile, the kernel may have answered with a 0 that is no descriptor's number, and says `EINPROGRESS`:
    /// then the sandbox is ended.
    AtOnce,
}

/// All that the thread owns. The listener is nobody else's: when the thread ends it is closed, and the kernel answers every
/// call that waits, and every later one, with ENOSYS.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) listener: OwnedFd,
    pub(super) stop: OwnedFd,
    pub(super) sizes: NotificationSizes,
    pub(super) filter: Filter,
    pub(super) secret: u64,
    pub(super) supervisor: Option<SharedSupervisor>,
    pub(super) records: Arc<Records>,
    pub(super) launched: Arc<AtomicBool>,
    pub(super) handover: Handover,
    /// The callback has panicked: it is not called any more.
    pub(super) faulty: bool,
}

/// Ends the sandbox unless the thread ends as it should.
struct Guard {
    sandbox: OwnedFd,
    records: Arc<Records>,
    orderly: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.orderly {
            self.records.fault("the supervisor failed: the sandbox is ended".to_owned());
            // ESRCH: it has ended already, which is what is wanted.
            sys::send_signal(&self.sandbox, libc::SIGKILL).ok();
        }
        self.records.enter(Stage::Over);
    }
}

type Failed = (&'static str, Errno);

impl Worker {
    /// `sandbox` is what ends should this thread fail.
    pub(super) fn run(mut self, sandbox: OwnedFd) {
        let mut guard = Guard { sandbox, records: Arc::clone(&self.records), orderly: false };
        // No handler of the caller's runs on this thread.
        let blocked = Blocked::all();
        match blocked.is_ok().then(|| self.serve()) {
            Some(Ok(())) => guard.orderly = true,
            Some(Err((call, errno))) => guard.records.fault(format!("{call}: {}", errno_text(errno))),
            None => {}
        }
        // The listener is closed before anybody is told that the thread is over.
        drop(self);
        drop(guard);
    }

    /// Until it is stopped, or nothing is left that could call.
    fn serve(&mut self) -> StdResult<(), Failed> {
        loop {
            let [calls, stop] = match sys::readable_fds([self.listener.as_fd(), self.stop.as_fd()], -1) {
                Ok(ready) => ready,
                Err(libc::EINTR) => continue,
                Err(errno) => return Err(("poll", errno)),
            };
            if stop != 0 {
                return Ok(());
            }
            if calls & libc::POLLIN != 0 {
                match sys::receive_notification(&self.listener, self.sizes) {
                    Ok(notification) => self.handle(notification)?,
                    // The caller has ended, or a signal came to it, since poll.
                    Err(libc::ENOENT) => self.taken_back(),
                    Err(libc::EINTR) => {}
                    Err(errno) => return Err(("SECCOMP_IOCTL_NOTIF_RECV", errno)),
                }
            } else if calls & !libc::POLLERR != 0 {
                return Ok(());
            }
            // POLLERR alone: the kernel was about to look, and a stop of this process interrupted it.
        }
    }

    /// Where nothing but kills is notified of, it was a call to end for. Its process is let be: it may be dying already, and
    /// nobody knows any more whose it was.
    fn taken_back(&self) {
        if !self.filter.notifies() && self.launched.load(Ordering::SeqCst) {
            self.records.taken_back();
        }
    }

    fn handle(&mut self, notification: Notification) -> StdResult<(), Failed> {
        if self.is_launch(&notification) {
            return self.answer(&notification, NotificationAnswer::Continue);
        }
        let Notification { audit, call, args, .. } = notification;
        match self.filter.answer(NATIVE, audit, call, &args) {
            Action::KillProcess => self.end(&notification),
            Action::Notify => self.ask(notification),
            // The kernel does not ask about these.
            Action::Allow | Action::Errno(_) | Action::KillThread | Action::Log | Action::Trap => {
                self.answer(&notification, NotificationAnswer::Errno(libc::ENOSYS))
            }
        }
    }

    /// The set-up's own exec: its one thread, in memory of its own, with a secret that no program has seen.
    fn is_launch(&self, notification: &Notification) -> bool {
        let exec = matches!(NATIVE.name(notification.call), Some("execve" | "execveat"));
        let last = notification.args.get(usize::try_from(SECRET_ARGUMENT).unwrap_or(5));
        exec && last == Some(&self.secret) && !self.launched.load(Ordering::SeqCst)
    }

    fn answer(&self, notification: &Notification, answer: NotificationAnswer) -> StdResult<(), Failed> {
        match sys::answer_notification(&self.listener, self.sizes, notification.id, answer) {
            // ENOENT: nobody waits for it any more.
            Ok(()) | Err(libc::ENOENT) => Ok(()),
            Err(errno) => Err(("SECCOMP_IOCTL_NOTIF_SEND", errno)),
        }
    }

    /// Notes the call and ends its process. It is not answered: the death is the answer.
    fn end(&self, notification: &Notification) -> StdResult<(), Failed> {
        let waits = || sys::notification_waits(&self.listener, notification.id);
        let process = process_of(notification.thread);
        let pidfd = process.and_then(|process| sys::open_pidfd(process.cast_signed()));
        // Only now is it certain whose number that was.
        if !waits() {
            return Ok(());
        }
        let (Ok(process), Ok(pidfd)) = (process, pidfd) else {
            return Err(("pidfd_open", libc::ESRCH));
        };
        self.records.refused(RefusedCall {
            process,
            thread: notification.thread.unsigned_abs(),
            number: notification.call,
            name: NATIVE.name(notification.call).unwrap_or_default(),
            arguments: notification.args,
            instruction_pointer: notification.instruction_pointer,
            architecture: NATIVE,
        });
        match sys::send_signal(&pidfd, libc::SIGKILL) {
            Ok(()) | Err(libc::ESRCH) => Ok(()),
            Err(errno) => Err(("pidfd_send_signal", errno)),
        }
    }

    fn ask(&mut self, notification: Notification) -> StdResult<(), Failed> {
        let refused = NotificationAnswer::Errno(libc::EPERM);
        let Some(supervisor) = self.supervisor.as_ref().filter(|_| !self.faulty) else {
            return self.answer(&notification, refused);
        };
        let call = NotifiedCall { listener: self.listener.as_fd(), notification };
        self.records.enter(Stage::Callback);
        let response = catch_unwind(AssertUnwindSafe(|| supervisor.0.answer(&call)));
        self.records.enter(Stage::Waiting);
        match response {
            Ok(response) => self.respond(&notification, response),
            Err(panic) => {
                let name = NATIVE.name(notification.call).unwrap_or("a call");
                self.records.fault(format!("panic at {name}: {}", text_of(&*panic)));
                self.faulty = true;
                self.answer(&notification, refused)
            }
        }
    }

    fn respond(&self, notification: &Notification, response: Response) -> StdResult<(), Failed> {
        let answer = match response {
            Response::Errno(errno @ 1..=MAX_ERRNO) => NotificationAnswer::Errno(errno),
            Response::Errno(_) => NotificationAnswer::Errno(libc::EPERM),
            Response::Value(value) => NotificationAnswer::Value(value),
            Response::ContinueUnchecked => NotificationAnswer::Continue,
            Response::Fd { fd, at, on_exec } => {
                let to = Injection { at, flags: on_exec.flags() };
                match self.inject(notification, &fd, to) {
                    Ok(None) | Err(libc::ENOENT) => return Ok(()),
                    Ok(Some(number)) => NotificationAnswer::Value(i64::from(number)),
                    // EMFILE, for one, is the program's.
                    Err(errno) => NotificationAnswer::Errno(errno),
                }
            }
        };
        self.answer(notification, answer)
    }

    /// Injects a descriptor; its number where the call is still to be answered.
    fn inject(
        &self,
        notification: &Notification,
        fd: &OwnedFd,
        to: Injection,
    ) -> StdResult<Option<i32>, Errno> {
        let in_two_steps = || sys::inject(&self.listener, notification.id, fd, to).map(Some);
        if self.handover == Handover::InTwoSteps {
            return in_two_steps();
        }
        match sys::inject_and_answer(&self.listener, notification.id, fd, to) {
            Ok(_) => Ok(None),
            // Before Linux 5.14.
            Err(libc::EINVAL) => in_two_steps(),
            Err(errno) => Err(errno),
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{Write, pipe};
    use std::os::fd::OwnedFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::{Handover, Records, Worker};
    use crate::plan::NATIVE;
    use crate::policy::{Action, Filter};
    use crate::spawn::supervise::Seen;
    use crate::sys::{self, Notification};

    /// A worker over something that is no listener, for a process that stands for a sandbox.
    fn worker(listener: OwnedFd, stop: OwnedFd) -> Worker {
        Worker {
            listener,
            stop,
            sizes: sys::notification_sizes().unwrap(),
            filter: Filter::strict(),
            secret: 0x1234_5678_9abc_def0,
            supervisor: None,
            records: Arc::new(Records::new(0)),
            launched: Arc::new(AtomicBool::new(false)),
            handover: Handover::AtOnce,
            faulty: false,
        }
    }

    #[test]
    fn a_supervisor_that_fails_takes_the_sandbox_down() {
        let (listener, mut write) = pipe().unwrap();
        write.write_all(b"this is no listener").unwrap();
        let (stop, _open) = pipe().unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let sandbox = sys::open_pidfd(child.id().cast_signed()).unwrap();
        let worker = worker(listener.into(), stop.into());
        let records = Arc::clone(&worker.records);
        worker.run(sandbox);
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        let faults = records.seen().faults;
        assert!(faults[0].contains("SECCOMP_IOCTL_NOTIF_RECV") && faults.len() == 2, "{faults:?}");
    }

    fn getpgid(thread: u32) -> Notification {
        Notification {
            id: 1,
            thread: thread.cast_signed(),
            call: NATIVE.number("getpgid").unwrap(),
            audit: NATIVE.audit(),
            instruction_pointer: 0,
            args: [0; 6],
        }
    }

    #[test]
    fn a_process_whose_call_nobody_waits_for_is_neither_ended_nor_named() {
        // The number of a caller that is gone is another process's by now.
        let (listener, _write) = pipe().unwrap();
        let (stop, _open) = pipe().unwrap();
        let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
        let worker = worker(listener.into(), stop.into());
        worker.end(&getpgid(stranger.id())).unwrap();
        assert_eq!(worker.records.seen(), Seen::default());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn a_refused_call_that_is_taken_back_is_counted() {
        let (listener, _write) = pipe().unwrap();
        let (stop, _open) = pipe().unwrap();
        let mut worker = worker(listener.into(), stop.into());
        // Until the program runs it is the launch's own exec that is taken back.
        worker.taken_back();
        assert_eq!(worker.records.seen().refused_more, 0);
        worker.launched.store(true, Ordering::SeqCst);
        worker.taken_back();
        assert_eq!(worker.records.seen().refused_more, 1);
        // With these it may have been any call.
        worker.filter = Filter::strict().deny(["getpgid"], Action::Notify);
        worker.taken_back();
        assert_eq!(worker.records.seen().refused_more, 1);
    }

    #[test]
    fn only_the_launch_s_own_exec_is_let_through_and_only_until_it_has_happened() {
        let (listener, _write) = pipe().unwrap();
        let (stop, _open) = pipe().unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let worker = worker(listener.into(), stop.into());
        let call = |name: &str, last: u64| Notification {
            id: 1,
            thread: 1,
            call: NATIVE.number(name).unwrap(),
            audit: NATIVE.audit(),
            instruction_pointer: 0,
            args: [1, 2, 3, 4, 5, last],
        };
        let secret = worker.secret;
        assert!(worker.is_launch(&call("execve", secret)) && worker.is_launch(&call("execveat", secret)));
        for last in [0, secret ^ 1, secret ^ 1 << 63, u64::MAX] {
            assert!(!worker.is_launch(&call("execve", last)), "{last:#x}");
        }
        assert!(!worker.is_launch(&call("openat", secret)));
        worker.launched.store(true, Ordering::SeqCst);
        assert!(!worker.is_launch(&call("execve", secret)) && !worker.is_launch(&call("execveat", secret)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
