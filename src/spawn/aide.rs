//! A tiny process beside the sandboxes: made like any child of the crate, from an image of a few pages, and ended by whoever
//! drops it. It must not share the caller's memory for longer than a launch does.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process;
use std::result::Result as StdResult;
use std::sync::Arc;
use std::time::Instant;

use super::clone::{self, NotCloned};
use super::request::Strings;
use super::watchdog::reap_later;
use crate::host::Status;
use crate::machine::image;
use crate::machine::layout::{FD_FIRST_FREE, FD_SOCKET, MESSAGE};
use crate::machine::segment::Bases;
use crate::plan::{AideTable, CloseRange, Duty, Listing, Then, WindowInput, aide, window};
use crate::policy::Init;
use crate::sys::{self, Block, CloneHow, Cloned, Reaped};

/// One of them.
#[derive(Debug)]
pub(super) struct Aide {
    #[cfg_attr(not(feature = "systemd"), expect(dead_code, reason = "a scope is asked for with it"))]
    pid: i32,
    pidfd: Arc<OwnedFd>,
    /// Whose child it is.
    maker: u32,
}

type Failed = (&'static str, i32);

impl Aide {
    /// Makes one, with these descriptors at these numbers, below [`FD_FIRST_FREE`].
    pub(super) fn new(duty: Duty, fds: &[(RawFd, i32)], deadline: Instant) -> StdResult<Self, Failed> {
        make(duty, fds, deadline)
    }

    #[cfg(feature = "systemd")]
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    #[cfg(feature = "systemd")]
    pub(super) fn lives(&self) -> bool {
        matches!(sys::poll_fd(self.pidfd.as_fd(), 0), Ok(false))
    }
}

impl Drop for Aide {
    fn drop(&mut self) {
        // A fork of the caller has a copy of this value, and the process is not its to end.
        if self.maker != process::id() {
            return;
        }
        let sent = sys::send_signal(&self.pidfd, libc::SIGKILL);
        // It runs nothing that could keep it from dying.
        let ended =
            matches!(sent, Ok(()) | Err(libc::ESRCH)) && sys::poll_fd(self.pidfd.as_fd(), 1000) == Ok(true);
        if !ended || !matches!(sys::reap(&self.pidfd, Block::No), Ok(Reaped::Ended { .. } | Reaped::Gone)) {
            reap_later(Arc::clone(&self.pidfd));
        }
    }
}

/// One past every descriptor that the table of this process could hold.
fn fd_end() -> i64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = Status::parse(&text).fd_size.unwrap_or(1 << 16);
    i64::try_from(2 * size + 1024).unwrap_or(1 << 20)
}

fn close_range() -> CloseRange {
    // SYS_close_range of numbers that are in the wrong order does nothing, and says EINVAL where the call is there.
    let number = u32::try_from(libc::SYS_close_range).unwrap_or(u32::MAX);
    match sys::probe_call(number, [2, 1, 0, 0, 0, 0]) {
        Err(libc::EINVAL) => CloseRange::Here,
        Ok(()) | Err(_) => CloseRange::Later,
    }
}

fn make(duty: Duty, fds: &[(RawFd, i32)], deadline: Instant) -> StdResult<Aide, Failed> {
    let close_range = close_range();
    let table = aide(AideTable { duty, close_range, fd_end: fd_end() });
    let caller = sys::open_pidfd(process::id().cast_signed()).map_err(|errno| ("pidfd_open", errno))?;
    let null = open_null()?;
    let image = sys::MACHINE
        .map(|machine| sys::executable_memfd(&image::build(machine, sys::machine_text(), &table.segment)));
    let strings = (Strings::new(vec![c"ringfence-aide".to_owned()]), Strings::new(Vec::new()));
    // No row of the table looks at the brief, but progress is recorded in one.
    let record = sys::Buffer::new(usize::try_from(MESSAGE).unwrap_or(4096));
    let mut copy = sys::Buffer::new(table.segment.len());
    let mut bytes = Vec::new();
    let bases = Bases { image: copy.address(), brief: record.address(), tail: 0, window: 0 };
    table.segment.link(&bases, &mut bytes);
    copy.fill(&bytes);
    let entry = copy.address() + table.segment.rows_at() as u64;
    // A host that executes no memfd gets a copy.
    let (then, shared) = match &image {
        Some(Ok(fd)) => {
            let (argv, envp) = (strings.0.address(), strings.1.address());
            let then = Then::Image { fd: fd.as_raw_fd(), carried: 0, argv, envp };
            (then, libc::CLONE_VM | libc::CLONE_VFORK)
        }
        Some(Err(_)) | None => (Then::Copy { entry }, 0),
    };
    let mut place: Vec<_> = (0..3).map(|number| (null.as_raw_fd(), number)).collect();
    // Every number that the window does not close.
    place.extend((FD_SOCKET..FD_FIRST_FREE).map(|number| {
        let given = fds.iter().find(|(_, to)| *to == number);
        (given.map_or(caller.as_raw_fd(), |(fd, _)| *fd), number)
    }));
    let (free, listing) = (FD_FIRST_FREE, Listing::Omitted);
    let window = window(&WindowInput { place: &place, free, close_range, then, listing });
    let mut memory = sys::Buffer::new(window.segment.len());
    let bases = Bases { image: 0, brief: record.address(), tail: 0, window: memory.address() };
    bytes.clear();
    window.segment.link(&bases, &mut bytes);
    memory.fill(&bytes);
    let rows = memory.address() + window.segment.rows_at() as u64;
    let flags = u64::from(shared.cast_unsigned());
    let at = (rows, record.address());
    let child = clone(flags, at, deadline)?;
    drop((memory, copy, record, strings));
    Ok(Aide { pid: child.pid, pidfd: Arc::new(child.pidfd), maker: process::id() })
}

fn clone(flags: u64, at: (u64, u64), deadline: Instant) -> StdResult<Cloned, Failed> {
    let by = |how| clone::clone(Init::Reaper, (how, flags), at, deadline);
    let failed = |call: &'static str| {
        move |why| match why {
            NotCloned::Refused(errno) => (call, errno),
            NotCloned::Before(error) => ("sigprocmask", error.raw_os_error().unwrap_or(libc::EINVAL)),
        }
    };
    match by(CloneHow::Clone3) {
        Err(NotCloned::Refused(libc::ENOSYS)) => by(CloneHow::Clone).map_err(failed("clone")),
        cloned => cloned.map_err(failed("clone3")),
    }
}

fn open_null() -> StdResult<OwnedFd, Failed> {
    let opened: StdResult<File, _> = OpenOptions::new().read(true).write(true).open("/dev/null");
    let fd =
        opened.map(OwnedFd::from).map_err(|error| ("open", error.raw_os_error().unwrap_or(libc::EIO)))?;
    // Numbers below 3 are the child's own.
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    sys::duplicate(fd.as_raw_fd(), 3).map_err(|errno| ("fcntl", errno))
}
