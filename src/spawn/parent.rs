//! The caller's end of one child: pidfd, socket, brief. Whoever drops it kills and reaps the child.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::brief::Brief;
use super::cgroup::{FrozenBy, Group, Motion, Ward, end_tree};
use super::explain::Death;
use super::watchdog::{Remains, close_later, reap_later};
use super::worker::{StatusFrom, Told};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::machine::layout::{DETACHED, EXECS};
use crate::machine::wire::{MESSAGE_SIZE, Message};
use crate::plan::BATCH;
use crate::sys::{self, Block, Cloned, Reaped};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, send, sendmsg, setsockopt, socketpair,
    sockopt,
};

/// What came over the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A message, and the sender's pid.
    Message(Message, i32),
    /// The other end is closed, or the child has ended.
    End,
    /// The deadline passed.
    Nothing,
}

/// How long the end of a killed process is waited for, milliseconds.
const END_LIMIT: i32 = 5_000;
/// How long a process may take from its last step to its end, milliseconds.
const SOON: i32 = 1_000;
/// Between two looks at a process that has ended and cannot be reaped yet.
const LOOK: Duration = Duration::from_millis(1);

/// One child.
#[derive(Debug)]
pub(crate) struct Parent {
    pid: i32,
    /// Shared with the watchdog where it has to reap.
    pidfd: Arc<OwnedFd>,
    /// `None`: a worker's is its server's.
    socket: Option<OwnedFd>,
    brief: Arc<Brief>,
    group: Option<Arc<Group>>,
    /// Who watches over it while it is frozen.
    ward: Ward,
    reaped: Mutex<Option<Reaped>>,
    /// Whether it may go on without this process.
    detached: AtomicBool,
    /// The program, where that has joined a living sandbox: what it started is ended, and nothing else.
    attended: AtomicI32,
    /// What was killed of that, for who has to be certain.
    doomed: Mutex<Vec<OwnedFd>>,
    /// The mount namespace, where its end is not to be waited for.
    mounts: Mutex<Option<OwnedFd>>,
    /// Who tells its end, where that is no child of this process's own.
    told: Option<Told>,
}

impl Parent {
    pub(super) fn new(cloned: Cloned, socket: OwnedFd, brief: Brief, group: Option<Group>) -> Self {
        Self {
            pid: cloned.pid,
            pidfd: Arc::new(cloned.pidfd),
            socket: Some(socket),
            brief: Arc::new(brief),
            group: group.map(Arc::new),
            ward: Ward::default(),
            reaped: Mutex::new(None),
            detached: AtomicBool::new(false),
            attended: AtomicI32::new(0),
            doomed: Mutex::new(Vec::new()),
            mounts: Mutex::new(None),
            told: None,
        }
    }

    /// A worker that the server has forked. It has no group and no brief of its own.
    pub(super) fn of_worker(server: &Self, cloned: Cloned, told: Told) -> Self {
        Self {
            pid: cloned.pid,
            pidfd: Arc::new(cloned.pidfd),
            socket: None,
            brief: Arc::clone(&server.brief),
            group: None,
            ward: Ward::default(),
            reaped: Mutex::new(None),
            detached: AtomicBool::new(false),
            attended: AtomicI32::new(0),
            doomed: Mutex::new(Vec::new()),
            mounts: Mutex::new(None),
            told: Some(told),
        }
    }

    /// Whether it is a server's worker.
    pub(crate) fn is_worker(&self) -> bool {
        self.told.is_some()
    }

    /// Who said how a worker has ended.
    pub(crate) fn worker_status_from(&self) -> Option<StatusFrom> {
        self.told.as_ref().map(Told::by)
    }

    /// The program's wait status, once init has left it. A worker has no init of its own.
    pub(crate) fn program_status(&self) -> Option<i32> {
        if self.is_worker() { None } else { self.brief.status() }
    }

    /// What the program used, likewise.
    pub(crate) fn program_usage(&self) -> Option<[u64; 18]> {
        if self.is_worker() { None } else { self.brief.usage() }
    }

    /// From now on the child attends to this program.
    pub(super) fn attend(&self, program: i32) {
        self.attended.store(program, Ordering::SeqCst);
    }

    /// Keeps the mount namespace until the child is reaped, and a moment longer.
    pub(super) fn hold_mounts(&self, namespace: OwnedFd) {
        *self.mounts.lock().unwrap_or_else(PoisonError::into_inner) = Some(namespace);
    }

    fn let_mounts_go(&self, socket: Option<OwnedFd>) {
        if let Some(namespace) = self.mounts.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let (brief, pidfd) = (Arc::clone(&self.brief), Arc::clone(&self.pidfd));
            close_later(Remains { _namespace: namespace, _brief: brief, _pidfd: pidfd, _socket: socket });
        }
    }

    /// The pid of init, or of the program where there is no init.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The control groups that it is in.
    pub(crate) fn group(&self) -> Option<&Group> {
        self.group.as_deref()
    }

    /// The same for those who may look at them after the child's end.
    pub(crate) fn shared_group(&self) -> Option<Arc<Group>> {
        self.group.clone()
    }

    /// Freezes or thaws its groups; `None` where there is none that can. What is frozen ends with this process all the same.
    pub(crate) fn set_motion(&self, motion: Motion) -> Result<Option<FrozenBy>> {
        match &self.group {
            Some(group) => self.ward.set_motion(group, self.pidfd(), motion),
            None => Ok(None),
        }
    }

    pub(crate) fn brief(&self) -> &Brief {
        &self.brief
    }

    /// Whether the set-up, or init, ended by a failed step.
    pub(super) fn gave_up(&self) -> bool {
        self.brief.progress().gave_up || self.brief.init_progress().gave_up
    }

    /// Whether the child's next thing was its exec.
    pub(super) fn is_at_exec(&self) -> bool {
        self.brief.map().word(EXECS) == 1
    }

    /// Whether the child has left the memory of the set-up.
    pub(super) fn has_left(&self) -> bool {
        self.brief.left_memory()
    }

    fn socket(&self) -> Result<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd).ok_or_else(|| {
            Error::new(ErrorKind::Process, Step::Gate, "socket").detail("a worker has none of its own")
        })
    }

    pub(super) fn tell(&self, message: Message) -> Result<()> {
        let bytes = message.to_bytes();
        match send(self.socket()?.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
            // A child that is gone is found out by the wait that follows, which knows more. Older kernels refuse the connection
            // where the other end is being closed at that moment.
            Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ECONNREFUSED) => Ok(()),
            Err(errno) => Err(Error::new(ErrorKind::Setup, Step::Gate, "socket").nix("send", errno)),
        }
    }

    /// Sends descriptors, in messages of a size that the kernel takes.
    pub(super) fn hand_over(&self, fds: &[OwnedFd]) -> Result<()> {
        let bytes = Message::Descriptors.to_bytes();
        for batch in fds.chunks(BATCH) {
            let numbers: Vec<i32> = batch.iter().map(AsRawFd::as_raw_fd).collect();
            let (data, rights) = ([IoSlice::new(&bytes)], [ControlMessage::ScmRights(&numbers)]);
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match sendmsg::<()>(self.socket()?.as_raw_fd(), &data, &rights, flags, None) {
                Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ECONNREFUSED) => {}
                Err(errno) => {
                    let error = Error::new(ErrorKind::Setup, Step::Descriptors, "for a waiting child");
                    return Err(error.nix("sendmsg", errno));
                }
            }
        }
        Ok(())
    }

    /// Waits for a message, the end of the child, or the deadline. The socket's end alone is no sign of the child's: any
    /// fork of this process may hold the other end too.
    pub(super) fn hear(&self, deadline: Instant) -> Result<Heard> {
        let failed = |call, errno| Error::new(ErrorKind::Setup, Step::Gate, "socket").call(call, errno);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
            let wait = if left.is_zero() { 0 } else { wait };
            let ready = match sys::readable_fds([self.socket()?, self.pidfd.as_fd()], wait) {
                Ok(ready) => ready,
                Err(libc::EINTR) => continue,
                Err(errno) => return Err(failed("poll", errno)),
            };
            let mut buffer = [0; MESSAGE_SIZE + 1];
            match (ready, sys::receive_with_pid(self.socket()?, &mut buffer)) {
                (_, Ok(Some((length, pid)))) => {
                    let Some(message) = Message::from_bytes(&buffer[..length]) else {
                        return Err(failed("recvmsg", libc::EPROTO));
                    };
                    return Ok(Heard::Message(message, pid));
                }
                (_, Ok(None) | Err(libc::ECONNRESET)) => return Ok(Heard::End),
                ([0, 0], Err(libc::EAGAIN)) if left.is_zero() => return Ok(Heard::Nothing),
                ([_, ended], Err(libc::EAGAIN)) if ended != 0 => return Ok(Heard::End),
                (_, Err(libc::EAGAIN | libc::EINTR)) => {}
                (_, Err(errno)) => return Err(failed("recvmsg", errno)),
            }
        }
    }

    /// Gives the tether up: the groups are marked first, so that no other process sweeps them, then init may go on without
    /// this process, and dropping this value ends nothing.
    pub(crate) fn detach(&self) -> Result<()> {
        if let Some(group) = &self.group {
            group.mark_detached()?;
        }
        self.detached.store(true, Ordering::SeqCst);
        self.ward.dismiss();
        self.brief.map().set_word(DETACHED, 1);
        Ok(())
    }

    /// Kills init and with it everything in its pid namespace; then it is reaped, which the kernel lets happen only when
    /// all of them are gone (pid_namespaces(7)). A process that a cgroup v1 freezer holds dies only when it is thawed: past
    /// the limit it is left to the watchdog's thread, and `Running` is what is returned.
    pub(crate) fn end(&self) -> Reaped {
        let mut sent = self.start_end();
        let until = Instant::now() + Duration::from_millis(u64::from(END_LIMIT.unsigned_abs()));
        loop {
            let wait = if sent.is_ok() { END_LIMIT } else { 0 };
            // Where poll(2) fails, as above a limit of descriptors that was lowered, the look that follows does without.
            self.ended(wait).ok();
            match self.reap(Block::No) {
                Ok(Reaped::Running) | Err(_) if Instant::now() < until => sleep(LOOK),
                Ok(Reaped::Running) | Err(_) if sent.is_err() => {
                    // Not everything could be found, and what can be ended ends.
                    self.kill_first().ok();
                    return self.reap(Block::No).unwrap_or(Reaped::Running);
                }
                Ok(_) if self.doomed_live() => return Reaped::Running,
                Ok(seen) => return seen,
                Err(_) => return Reaped::Running,
            }
            // What failed may have been for want of memory, or of descriptors.
            if sent.is_err() {
                sent = self.start_end();
            }
        }
    }

    /// Whether anything that was killed of what the program started has not ended within the limit.
    fn doomed_live(&self) -> bool {
        let mut doomed = self.doomed.lock().unwrap_or_else(PoisonError::into_inner);
        doomed.retain(|pidfd| !sys::poll_fd(pidfd.as_fd(), END_LIMIT).unwrap_or(true));
        !doomed.is_empty()
    }

    /// Kills everything, without waiting; nothing where that is not possible.
    pub(crate) fn start_end(&self) -> Result<()> {
        let program = self.attended.load(Ordering::SeqCst);
        // Before its attendant, whose end would leave what the program started to the sandbox.
        if program != 0 && !self.ended(0).unwrap_or(true) {
            let killed = end_tree(self.pid, program).map_err(|unseen| unseen.error(Step::Kill))?;
            self.doomed.lock().unwrap_or_else(PoisonError::into_inner).extend(killed);
        }
        self.kill_first()
    }

    /// Kills the child, and with init everything in its pid namespace and its groups.
    pub(crate) fn kill_first(&self) -> Result<()> {
        let sent = match sys::send_signal(&self.pidfd, libc::SIGKILL) {
            // It has ended already, which is what is wanted.
            Ok(()) | Err(libc::ESRCH) => Ok(()),
            Err(errno) => {
                Err(Error::new(ErrorKind::Process, Step::Kill, "child").call("pidfd_send_signal", errno))
            }
        };
        // Whatever init's end does not reach; and what is frozen is thawed, so that it can die.
        if let Some(group) = &self.group {
            // Whether anything is left is looked at when the child has ended.
            group.end().ok();
        }
        sent
    }

    /// Reaps the child once; later calls know what was seen.
    pub(crate) fn reap(&self, block: Block) -> Result<Reaped> {
        loop {
            if block == Block::UntilExit && !self.is_reaped() {
                // Without the lock: many threads may wait.
                self.ended(-1)?;
            }
            let now = self.reap_once()?;
            if now != Reaped::Running || block == Block::No {
                return Ok(now);
            }
            // Somebody traces it, and is told of its end first (ptrace(2), "Death under ptrace").
            sleep(LOOK);
        }
    }

    fn is_reaped(&self) -> bool {
        self.reaped.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn reap_once(&self) -> Result<Reaped> {
        let mut seen = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = *seen {
            return Ok(known);
        }
        let failed = |errno| Error::new(ErrorKind::Process, Step::Wait, "child").call("waitid", errno);
        let now = match &self.told {
            Some(told) => told.end_of(&self.pidfd),
            None => sys::reap(&self.pidfd, Block::No).map_err(failed)?,
        };
        if now != Reaped::Running {
            *seen = Some(now);
            self.ward.dismiss();
            if let Some(group) = &self.group {
                group.finish();
            }
            self.let_mounts_go(None);
        }
        Ok(now)
    }

    /// Whether the child has ended, waiting at most so many milliseconds, -1 for as long as it takes.
    pub(crate) fn ended(&self, milliseconds: i32) -> Result<bool> {
        let limit = u64::try_from(milliseconds).ok().map(Duration::from_millis);
        let deadline = limit.map(|limit| Instant::now() + limit);
        loop {
            let left = deadline.map_or(-1, |deadline| {
                let left = deadline.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
                i32::try_from(left).unwrap_or(i32::MAX)
            });
            match sys::poll_fd(self.pidfd.as_fd(), left) {
                Ok(ready) => return Ok(ready),
                Err(libc::EINTR) => {}
                Err(errno) => {
                    return Err(Error::new(ErrorKind::Process, Step::Wait, "child").call("poll", errno));
                }
            }
        }
    }

    /// Whether what failed failed for want of a living child. One that is ending is seen as ended a moment later, and `/proc`
    /// says ESRCH, ENOENT or EINVAL of it until then.
    pub(super) fn is_its_end(&self, error: &Error) -> Result<bool> {
        // Without an errno it is what was read of it that is wrong: one that is ending has left its groups.
        let ending = [libc::ESRCH, libc::ENOENT, libc::EINVAL];
        let dying = error.raw_os_error().is_none_or(|errno| ending.contains(&errno));
        Ok(self.gave_up() || self.ended(if dying { SOON } else { 0 })?)
    }

    /// How the child ended that closed its socket before its time. A program's end is its init's a moment later.
    pub(super) fn death(&self) -> Death {
        if let Some(status) = self.brief.status() {
            return status_death(status);
        }
        match self.end() {
            Reaped::Ended { code, status, .. } => match self.brief.status() {
                Some(status) => status_death(status),
                None if code == libc::CLD_EXITED => Death::Exited(status),
                None => Death::Signaled(status),
            },
            Reaped::Running | Reaped::Gone => Death::Unknown,
        }
    }
}

fn status_death(status: i32) -> Death {
    if libc::WIFSIGNALED(status) {
        Death::Signaled(libc::WTERMSIG(status))
    } else {
        Death::Exited(libc::WEXITSTATUS(status))
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let known = self.reaped.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if self.detached.load(Ordering::SeqCst) && !known {
            if let Some(group) = &self.group {
                group.abandon();
            }
            return;
        }
        if !known && self.end() == Reaped::Running {
            reap_later(Arc::clone(&self.pidfd));
        }
        // Who looks at them meanwhile does not keep them.
        if let Some(group) = &self.group {
            group.finish();
        }
        let socket = self.socket.take();
        self.let_mounts_go(socket);
    }
}

/// This process's end, which hears the sender's pid with each message, and the child's.
pub(super) fn sockets() -> Result<(OwnedFd, OwnedFd)> {
    let failed = |call, errno| Error::new(ErrorKind::Setup, Step::Gate, "socketpair").nix(call, errno);
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|errno| failed("socketpair", errno))?;
    setsockopt(&ours, sockopt::PassCred, &true).map_err(|errno| failed("setsockopt", errno))?;
    Ok((ours, theirs))
}
