//! The caller's end of one child: pidfd, socket, brief. Whoever drops it kills and reaps the child.

use crate::host::Status;
use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process;
use std::result::Result as StdResult;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use super::brief::Brief;
use super::cgroup::{FrozenBy, Group, Motion, Ward, end_tree};
use super::explain::Death;
use super::request::{Request, When};
use super::signals::Blocked;
use super::source::Found;
use super::threads::Harmless;
use super::watchdog::{close_later, reap_later, watch};
use super::worker::{StatusFrom, Told};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::machine::layout::{
    ARGV, DETACHED, ENVP, FD_BRIEF, FD_CALLER, FD_END, FD_FIRST_FREE, FD_SANDBOX, FD_SCRATCH,
    FD_SCRATCH_TARGET, FD_SOCKET, FREE_FD, SECRET, SECRET_HIGH, SECRET_LOW, TAIL_ENTRY, WAITS,
};
use crate::machine::wire::{MESSAGE_SIZE, Message};
use crate::plan::{BATCH, Plan};
use crate::policy::Init;
use crate::sys::{self, Block, CloneHow, Cloned, Reaped};
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

    fn let_mounts_go(&self) {
        if let Some(namespace) = self.mounts.lock().unwrap_or_else(PoisonError::into_inner).take() {
            close_later(namespace);
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
            // A child that is gone is found out by the wait that follows, which knows more.
            Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
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
                Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => {}
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
            match self.ended(wait).and_then(|_| self.reap(Block::No)) {
                Ok(Reaped::Running) | Err(_) if Instant::now() < until => sleep(LOOK),
                Ok(_) if self.doomed_live() => return Reaped::Running,
                Ok(seen) => return seen,
                Err(_) => return Reaped::Running,
            }
            // What failed may have been for want of memory.
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

    /// Kills everything, without waiting; or the errno of the signal that could not be sent.
    pub(crate) fn start_end(&self) -> StdResult<(), i32> {
        let program = self.attended.load(Ordering::SeqCst);
        // Before its attendant, whose end would leave what the program started to the sandbox.
        if program != 0 && !self.ended(0).unwrap_or(true) {
            let killed = end_tree(self.pid, program);
            self.doomed.lock().unwrap_or_else(PoisonError::into_inner).extend(killed);
        }
        let sent = match sys::send_signal(&self.pidfd, libc::SIGKILL) {
            // It has ended already, which is what is wanted.
            Ok(()) | Err(libc::ESRCH) => Ok(()),
            Err(errno) => Err(errno),
        };
        // Whatever init's end does not reach; and what is frozen is thawed, so that it can die.
        if let Some(group) = &self.group {
            group.kill();
        }
        sent
    }

    /// Reaps the child once; later calls know what was seen.
    pub(crate) fn reap(&self, block: Block) -> Result<Reaped> {
        loop {
            if block == Block::UntilExit {
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
            self.let_mounts_go();
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
        let dying = [libc::ESRCH, libc::ENOENT, libc::EINVAL].map(Some).contains(&error.raw_os_error());
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
        self.let_mounts_go();
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

/// What the caller decides at each launch.
pub(super) fn fill(brief: &Brief, plan: &Plan, sources: &[Found], request: &Request<'_>) {
    let map = brief.map();
    map.set_word(ARGV, request.argv.address());
    map.set_word(ENVP, request.envp.address());
    map.set_word(WAITS, u64::from(request.when == When::Later));
    for (source, found) in plan.sources.iter().zip(sources) {
        map.set_word(source.facts, found.kind);
        map.set_word(source.facts + 8, found.inode);
        map.set_word(source.facts + 16, found.device);
        if let (Some(at), Some(path)) = (source.path_at, &found.path) {
            map.set_bytes(at, &path[..path.len().min(4095)]);
        }
    }
}

/// A secret that the launch's own execve carries and the filter looks for: fresh for each launch.
pub(super) fn draw_secret(brief: &Brief) -> Result<()> {
    let failed = |errno| Error::new(ErrorKind::Setup, Step::Seccomp, "secret").call("getrandom", errno);
    let secret = sys::secret().map_err(failed)?;
    brief.map().set_word(SECRET, secret);
    brief.map().set_word(SECRET_LOW, secret << 32);
    brief.map().set_word(SECRET_HIGH, secret & 0xffff_ffff_0000_0000);
    Ok(())
}

/// Init keeps the brief, so the secret goes once it has been used.
pub(super) fn forget_secret(brief: &Brief) {
    for at in [SECRET, SECRET_LOW, SECRET_HIGH] {
        brief.map().set_word(at, 0);
    }
}

pub(super) fn enter_tail(brief: &Brief, entry: u64) {
    brief.map().set_word(TAIL_ENTRY, entry);
}

/// For hosts without `close_range`: the first free number, and one past every number that the caller's table could hold.
/// The table may grow while this runs, so twice its size is taken.
pub(super) fn note_descriptors(brief: &Brief, free: i32) {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = Status::parse(&text).fd_size.unwrap_or(1 << 16);
    brief.map().set_word(FREE_FD, u64::from(free.cast_unsigned()));
    brief.map().set_word(FD_END, 2 * size + 1024);
}

/// Descriptors of this process and the numbers that the child finds them under.
pub(super) fn descriptors(
    plan: &Plan,
    request: &Request<'_>,
    sources: &[Found],
    (socket, brief, caller): (&OwnedFd, &Brief, &OwnedFd),
) -> Vec<(i32, i32)> {
    let mut place: Vec<(i32, i32)> =
        (0..).zip(&request.stdio).map(|(number, fd)| (fd.as_raw_fd(), number)).collect();
    place.push((socket.as_raw_fd(), FD_SOCKET));
    place.push((brief.map().as_fd().as_raw_fd(), FD_BRIEF));
    // The scratch numbers are taken too, so that no call of the set-up hands them out.
    for number in [FD_CALLER, FD_SCRATCH, FD_SCRATCH_TARGET] {
        place.push((caller.as_raw_fd(), number));
    }
    for (source, found) in plan.sources.iter().zip(sources) {
        if let (Some(plan), Some(tree)) = (source.tree, &found.tree) {
            place.push((tree.as_raw_fd(), plan.fd));
        }
    }
    let passed = request.passed.iter().map(|(fd, _)| fd).chain(&request.program_fd);
    place.extend(passed.zip(plan.passed_at..).map(|(fd, number)| (fd.as_raw_fd(), number)));
    place
}

/// A child that joins a living sandbox finds that sandbox, and those of its namespaces that it joins one by one.
pub(super) fn place_joined(place: &mut Vec<(i32, i32)>, door: &OwnedFd, namespaces: &[OwnedFd]) {
    place.retain(|(_, to)| *to != FD_SANDBOX);
    place.push((door.as_raw_fd(), FD_SANDBOX));
    place.extend(namespaces.iter().zip(FD_FIRST_FREE..).map(|(fd, to)| (fd.as_raw_fd(), to)));
}

/// Why there is no child.
#[derive(Debug)]
pub(super) enum NotCloned {
    /// The clone call gave this errno.
    Refused(i32),
    /// It was not come to.
    Before(Error),
}

/// Clones, with every signal blocked. A program that is PID 1 itself is tied to the thread that clones it, so that is a
/// thread that lives as long as this process.
pub(super) fn clone(
    init: Init,
    (how, flags): (CloneHow, u64),
    (entry, progress): (u64, u64),
    deadline: Instant,
) -> StdResult<Cloned, NotCloned> {
    let work = move || {
        let pidfd = Arc::new(AtomicI32::new(-1));
        let blocked = Blocked::all().map_err(NotCloned::Before)?;
        let watched = watch(deadline, &pidfd);
        let cloned = sys::clone_into_table(how, flags, entry, progress, &pidfd);
        drop(watched);
        drop(blocked);
        cloned.map_err(NotCloned::Refused)
    };
    match init {
        Init::Reaper => work(),
        Init::Program => on_lasting_thread(work).map_err(NotCloned::Before)?,
    }
}

/// A time that no clock can show is as good as a day.
pub(crate) fn deadline_after(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or_else(|| now + Duration::from_secs(24 * 60 * 60))
}

type Job = Box<dyn FnOnce() + Send>;
/// The thread that lasts, and the process that it belongs to: a fork of the caller has to make its own.
static LASTING: Mutex<Option<(u32, Sender<Job>)>> = Mutex::new(None);

fn on_lasting_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let failed = |errno| {
        let error =
            Error::new(ErrorKind::Setup, Step::Clone, "the thread that clones programs that are PID 1");
        error.call("clone", errno)
    };
    let (answer, wait) = channel();
    let job: Job = Box::new(move || {
        // The receiver waits below; if it were gone there would be nobody to tell.
        answer.send(work()).ok();
    });
    let mut lasting = LASTING.lock().unwrap_or_else(PoisonError::into_inner);
    let own = process::id();
    if lasting.as_ref().is_none_or(|(process, _)| *process != own) {
        let (sender, jobs) = channel::<Job>();
        // No handler of the caller's runs on it.
        let blocked = Blocked::all()?;
        let serve = move || {
            let _harmless = Harmless::here();
            jobs.into_iter().for_each(|job| job());
        };
        let started = Builder::new().name("ringfence".to_owned()).spawn(serve);
        drop(blocked);
        started.map_err(|error| failed(error.raw_os_error().unwrap_or(libc::EAGAIN)))?;
        *lasting = Some((own, sender));
    }
    // A thread that is gone, with its end of the channel, is none: the next launch makes another one.
    let sent = lasting.as_ref().is_some_and(|(_, jobs)| jobs.send(job).is_ok());
    if !sent {
        *lasting = None;
    }
    drop(lasting);
    wait.recv().map_err(|_| failed(libc::ESRCH))
}
