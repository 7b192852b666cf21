//! A process that a confined server of this crate has forked: who it is, and what is told of it. It must not believe that a
//! descriptor is a process of the sandbox before the kernel says so.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::result::Result as StdResult;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::attempt::Running;
use super::parent::Parent;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::host::{Answer, Status};
use crate::sys::{self, Cloned, ExitInfo, RawUsage, Reaped};

/// Bytes of a report: kind, value, usage.
pub(crate) const REPORT_SIZE: usize = 8 + 144;

/// Where a worker's set-up failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum At {
    Request,
    Fork,
    Pidfd,
    Session,
    Descriptors,
    Landlock,
    Signals,
}

impl At {
    const ALL: [Self; 7] = [
        Self::Request,
        Self::Fork,
        Self::Pidfd,
        Self::Session,
        Self::Descriptors,
        Self::Landlock,
        Self::Signals,
    ];

    fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|at| *at as i32 == number)
    }

    /// Its step, and the call.
    pub(crate) fn named(self) -> (Step, &'static str) {
        match self {
            Self::Request => (Step::Gate, "recvmsg"),
            Self::Fork => (Step::Clone, "fork"),
            Self::Pidfd => (Step::Clone, "pidfd_open"),
            Self::Session => (Step::Session, "setsid"),
            Self::Descriptors => (Step::Descriptors, "dup3"),
            Self::Landlock => (Step::Landlock, "landlock_restrict_self"),
            Self::Signals => (Step::Signals, "rt_sigprocmask"),
        }
    }
}

/// What is told of one worker, over a socket of its own. Fixed in size, one datagram each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// Server: it is forked, its pidfd comes along.
    Started,
    /// Worker: it is set up; the next thing is the filter, then the function.
    Ready,
    /// Server or worker: a step failed with this errno, and the function does not run.
    Failed(At, i32),
    /// Server: its wait status, and what it used.
    Ended(i32, RawUsage),
}

impl Report {
    pub(crate) fn to_bytes(self) -> [u8; REPORT_SIZE] {
        let (kind, value, usage) = match self {
            Self::Started => (1_u32, 0, RawUsage::default()),
            Self::Ready => (2, 0, RawUsage::default()),
            Self::Failed(at, errno) => (3, (at as i32) << 16 | errno & 0xffff, RawUsage::default()),
            Self::Ended(status, usage) => (4, status, usage),
        };
        let mut out = [0; REPORT_SIZE];
        out[..4].copy_from_slice(&kind.to_le_bytes());
        out[4..8].copy_from_slice(&value.to_le_bytes());
        for (place, word) in out[8..].chunks_mut(8).zip(usage.words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// `None` for anything that is not exactly a report.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; REPORT_SIZE] = bytes.try_into().ok()?;
        let half = |at: usize| {
            let mut four = [0; 4];
            four.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(four)
        };
        let value = half(4).cast_signed();
        let mut usage = RawUsage::default();
        for (word, place) in usage.words.iter_mut().zip(bytes[8..].chunks(8)) {
            let mut eight = [0; 8];
            eight.copy_from_slice(place);
            *word = u64::from_le_bytes(eight);
        }
        match half(0) {
            1 => Some(Self::Started),
            2 => Some(Self::Ready),
            3 => Some(Self::Failed(At::from_number(value >> 16)?, value & 0xffff)),
            4 => Some(Self::Ended(value, usage)),
            _ => None,
        }
    }
}

/// What came of a wait for a report.
#[derive(Debug)]
pub(crate) enum Heard {
    Report(Report, Vec<OwnedFd>),
    /// Nobody is there who could report any more.
    End,
    Late,
}

/// Waits for one report, at most until `deadline`. `server` is a pidfd of the sandbox.
pub(crate) fn hear(
    socket: BorrowedFd<'_>,
    server: BorrowedFd<'_>,
    deadline: Instant,
) -> StdResult<Heard, (&'static str, i32)> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
        match sys::readable_fds([socket, server], if left.is_zero() { 0 } else { wait }) {
            Ok([0, 0]) if left.is_zero() => return Ok(Heard::Late),
            Ok([0, 0]) | Err(libc::EINTR) => continue,
            Ok([0, _]) => return Ok(Heard::End),
            Ok(_) => {}
            Err(errno) => return Err(("poll", errno)),
        }
        let mut buffer = [0; REPORT_SIZE + 1];
        let datagram = match sys::receive_with_fds(socket, &mut buffer) {
            Ok(datagram) => datagram,
            Err(libc::EINTR) => continue,
            Err(libc::ECONNRESET) => return Ok(Heard::End),
            Err(errno) => return Err(("recvmsg", errno)),
        };
        if datagram.length == 0 {
            return Ok(Heard::End);
        }
        let report = buffer.get(..datagram.length).and_then(Report::from_bytes);
        return match report {
            Some(report) if datagram.whole == sys::Whole::Yes => Ok(Heard::Report(report, datagram.fds)),
            _ => Err(("recvmsg", libc::EPROTO)),
        };
    }
}

/// The pid of the process behind a descriptor that the server sent, where the kernel says that it is the server's own child and
/// confined as the server is. `None`: it has ended and was reaped, so it is no process any more.
pub(crate) fn identify(pidfd: &OwnedFd, server: i32) -> Result<Option<i32>> {
    let failed = |what: &'static str| Error::new(ErrorKind::Setup, Step::Verify, what);
    let read = |path: String, what: &'static str| {
        fs::read_to_string(path)
            .map_err(|error| failed(what).call("read", error.raw_os_error().unwrap_or(libc::EIO)))
    };
    let info = read(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()), "/proc/self/fdinfo")?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
    let pid = match pid {
        Some(pid @ 1..) => pid,
        Some(-1) => return Ok(None),
        _ => return Err(failed("worker").detail("the server sent a descriptor that is no process's")),
    };
    let theirs = match read(format!("/proc/{pid}/status"), "/proc/PID/status") {
        Ok(text) => text,
        // Reaped meanwhile.
        Err(_) if sys::poll_fd(pidfd.as_fd(), 0) == Ok(true) => return Ok(None),
        Err(error) => return Err(error),
    };
    let parent = theirs.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<i32>().ok());
    let status = Status::parse(&theirs);
    let ended = sys::poll_fd(pidfd.as_fd(), 0) == Ok(true);
    match parent {
        Some(parent) if parent == server => {}
        // The number may be another process's by now.
        _ if ended => return Ok(None),
        _ => return Err(failed("worker").detail("the server sent a process that is not its child")),
    }
    let confined =
        read(format!("/proc/{server}/status"), "/proc/PID/status").map(|text| Status::parse(&text))?;
    if status.capabilities != confined.capabilities
        || status.no_new_privs != Answer::Yes && confined.no_new_privs == Answer::Yes
    {
        return Err(failed("worker").detail("it has other capabilities than the server"));
    }
    Ok(Some(pid))
}

impl Running {
    /// A worker of this server. Its end is told over `report`.
    pub(crate) fn worker(
        server: &Self,
        cloned: Cloned,
        report: OwnedFd,
        filter: Option<usize>,
    ) -> Result<Self> {
        let sandbox = server.parent.pidfd().try_clone_to_owned().map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EMFILE);
            Error::new(ErrorKind::Setup, Step::Descriptors, "worker").call("fcntl", errno)
        })?;
        let parent =
            Parent::of_worker(&server.parent, cloned, Told { report, server: sandbox, by: OnceLock::new() });
        Ok(server.forked(parent, filter))
    }
}

/// How the end of a process is known that is no child of this process's: by the kernel's own record of it (since Linux 6.15),
/// or by its server's word.
#[derive(Debug)]
pub(super) struct Told {
    report: OwnedFd,
    /// A pidfd of the sandbox that the server is in.
    server: OwnedFd,
    by: OnceLock<StatusFrom>,
}

/// How long the server may take to say how a process has ended that has ended.
const MOMENT: Duration = Duration::from_secs(2);

/// Who says how a program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StatusFrom {
    /// The kernel: it is a child of this process, or the kernel has kept the status of one that is not (since Linux 6.15).
    Kernel,
    /// The sandbox's init, as the kernel told it.
    Init,
    /// The fork server that it is a worker of, as the kernel told it.
    Server,
    /// Nobody knows.
    Nobody,
}

impl Told {
    pub(super) fn by(&self) -> StatusFrom {
        self.by.get().copied().unwrap_or(StatusFrom::Nobody)
    }

    /// What it has come to: `Gone` where nobody knows.
    pub(super) fn end_of(&self, pidfd: &OwnedFd) -> Reaped {
        if !sys::poll_fd(pidfd.as_fd(), 0).unwrap_or(true) {
            return Reaped::Running;
        }
        let until = Instant::now() + MOMENT;
        let mut said = None;
        while said.is_none() {
            match hear(self.report.as_fd(), self.server.as_fd(), until) {
                Ok(Heard::Report(Report::Ended(status, usage), _)) => said = Some((status, usage)),
                Ok(Heard::Report(..)) => {}
                Ok(Heard::End | Heard::Late) | Err(_) => break,
            }
        }
        let kept = match sys::exit_info(pidfd) {
            ExitInfo::Status(status) => Some(status),
            ExitInfo::NotYet | ExitInfo::Nothing => None,
        };
        let usage = said.map(|(_, usage)| usage).unwrap_or_default();
        let by = match (kept, said) {
            (Some(_), _) => StatusFrom::Kernel,
            (None, Some(_)) => StatusFrom::Server,
            (None, None) => StatusFrom::Nobody,
        };
        // It is asked once: its parent remembers what was said.
        self.by.get_or_init(|| by);
        match kept.or(said.map(|(status, _)| status)) {
            Some(status) => ended(status, usage),
            None => Reaped::Gone,
        }
    }
}

/// A wait status as waitid(2) tells it.
fn ended(status: i32, usage: RawUsage) -> Reaped {
    let (code, status) = if libc::WIFEXITED(status) {
        (libc::CLD_EXITED, libc::WEXITSTATUS(status))
    } else if libc::WCOREDUMP(status) {
        (libc::CLD_DUMPED, libc::WTERMSIG(status))
    } else {
        (libc::CLD_KILLED, libc::WTERMSIG(status))
    };
    Reaped::Ended { code, status, usage }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_report_is_read() {
        let usage = RawUsage { words: [7; 18] };
        let all = [
            Report::Started,
            Report::Ready,
            Report::Failed(At::Landlock, libc::EAGAIN),
            Report::Ended(9, usage),
        ];
        for report in all {
            let bytes = report.to_bytes();
            assert_eq!(Report::from_bytes(&bytes), Some(report));
            assert_eq!(Report::from_bytes(&bytes[..REPORT_SIZE - 1]), None);
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert_eq!(Report::from_bytes(&longer), None);
        }
        assert_eq!(Report::from_bytes(&[0; REPORT_SIZE]), None);
        assert_eq!(Report::from_bytes(&[0xff; REPORT_SIZE]), None);
    }
}
