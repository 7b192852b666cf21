//! The clone of a launch that goes on in Rust: libc's fork, then the table in the copy. It must not return in the copy.

use std::fmt::{self, Debug, Formatter};
use std::os::fd::{AsFd, OwnedFd};
use std::result::Result as StdResult;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::super::brief::Brief;
use super::super::enforcement::FilterState;
use super::super::parent::Parent;
use super::super::signals::Blocked;
use super::{Fence, Linked, Running, What};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::machine::isa::PROGRESS_SIZE;
use crate::plan::{ClosureTail, LookedInto, compile_program};
use crate::policy::Init;
use crate::sys::{self, Cloned, Forked, Whole};

/// The machine's own code for a process that gave up.
const GAVE_UP: i32 = 125;

/// What runs in the copy, and never comes back.
pub(crate) struct Body<'a> {
    pub(crate) run: &'a mut (dyn FnMut() + 'a),
    pub(crate) filter: FilterBy,
    pub(crate) looked_into: LookedInto,
}

/// Who attaches the policy's filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilterBy {
    /// The table, as its last call.
    Table,
    /// What runs, in each of its own copies.
    Body,
}

impl Debug for Body<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("filter", &self.filter).finish_non_exhaustive()
    }
}

/// The filter of what is not executed: it has nobody who answers, and no launch of its own to let through.
pub(crate) fn filter_words(fence: &Fence) -> Result<Option<Vec<u64>>> {
    let Some(filter) = &fence.policy.seccomp else { return Ok(None) };
    let program = compile_program(&filter.of_a_copy())?;
    Ok(Some(program.code.iter().map(|instruction| instruction.word()).collect()))
}

/// Whether the policy can be had for a function.
pub(crate) fn check(fence: &Fence) -> Result<()> {
    let mistake = |object: &'static str, why: &str| {
        Err(Error::new(ErrorKind::InvalidCommand, Step::Command, object).detail(why))
    };
    if fence.policy.init == Init::Program {
        return mistake("init", "a function of the caller cannot be PID 1: keep the sandbox's init");
    }
    if fence.policy.seccomp.as_ref().is_some_and(|filter| filter.notifies()) {
        return mistake("supervisor", "the filter has rules that notify, and a function has no supervisor");
    }
    Ok(())
}

/// The end of the tail of such a launch.
pub(super) fn closure_tail(fence: &Fence, body: &Body<'_>, brief: &Brief) -> Result<ClosureTail> {
    let filter = match body.filter {
        FilterBy::Table => filter_words(fence)?,
        FilterBy::Body => None,
    };
    let length = u64::try_from(brief.map().length()).unwrap_or(0);
    Ok(ClosureTail { brief: (brief.map().address(), length), filter, looked_into: body.looked_into })
}

/// The socket over which the copy tells what it has cloned.
pub(super) fn report() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|errno| Error::new(ErrorKind::Setup, Step::Clone, "socketpair").nix("socketpair", errno))
}

/// Makes the copy. In the caller: the child that it has cloned. The copy's own child goes on in the body.
pub(super) fn fork(
    body: &mut Body<'_>,
    rows: u64,
    brief: &Brief,
    (ours, theirs): (OwnedFd, OwnedFd),
    deadline: Instant,
) -> StdResult<Cloned, (&'static str, i32)> {
    let map = brief.map();
    // The copy's own record: the brief is its child's.
    let progress = sys::Buffer::new(PROGRESS_SIZE);
    let entry = sys::Entry {
        rows,
        progress: progress.address(),
        keep: sys::range(map.address(), map.length()),
        tid: sys::remembered_tid(),
    };
    let blocked = Blocked::all().map_err(|error| ("sigprocmask", error.raw_os_error().unwrap_or(0)))?;
    match sys::fork().map_err(|errno| ("fork", errno))? {
        Forked::Copy => {
            sys::run_table(entry);
            (body.run)();
            // It does not come back; and if it did, nothing of the caller may run here.
            sys::leave(GAVE_UP)
        }
        Forked::Caller(copy) => {
            drop(blocked);
            drop(theirs);
            let heard = hear(&ours, deadline);
            if heard.is_err() {
                sys::kill_child(copy);
            }
            sys::reap_by_number(copy);
            heard
        }
    }
}

fn hear(socket: &OwnedFd, deadline: Instant) -> StdResult<Cloned, (&'static str, i32)> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
        match sys::poll_fd(socket.as_fd(), if left.is_zero() { 0 } else { wait }) {
            Ok(true) => break,
            Ok(false) if left.is_zero() => return Err(("fork", libc::ETIMEDOUT)),
            Ok(false) | Err(libc::EINTR) => {}
            Err(errno) => return Err(("poll", errno)),
        }
    }
    let mut buffer = [0; 8];
    let datagram = sys::receive_with_fds(socket.as_fd(), &mut buffer).map_err(|errno| ("recvmsg", errno))?;
    let word = i64::from_le_bytes(buffer);
    match (datagram.whole, datagram.length, i32::try_from(word), datagram.fds.into_iter().next()) {
        (Whole::Yes, 8, Ok(pid @ 1..), Some(pidfd)) => Ok(Cloned { pid, pidfd }),
        (Whole::Yes, 8, Ok(errno @ ..=-1), None) => Err(("clone", -errno)),
        // It ended before it could say anything.
        _ => Err(("fork", libc::ECHILD)),
    }
}

impl Running {
    /// A process that was forked by this one, and is confined as it is and by the filter of so many instructions.
    pub(in super::super) fn forked(&self, parent: Parent, filter: Option<usize>) -> Self {
        let mut report = self.report.clone();
        report.filter =
            filter.map_or(FilterState::None, |instructions| FilterState::Attached { instructions });
        report.notes.push("a worker of a fork server: what was read back is the server's".into());
        Self {
            program: parent.pid(),
            parent,
            report,
            // Its status is its own: no init of its own passes one on.
            init: Init::Program,
            fence: Arc::clone(&self.fence),
            index: self.index,
            site: None,
            linked: Linked::default(),
            supervisor: None,
            supervision: None,
            cargo: Vec::new(),
            told: 0,
            what: What::Closure(FilterBy::Body),
        }
    }
}
