//! One notified call as a supervisor sees it: values, and memory that is copied only while the call provably waits. It must
//! not answer the call.

use std::error::Error as StdError;
use std::ffi::CString;
use std::fmt::{self, Display, Formatter};
use std::fs::{self, OpenOptions};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::result::Result as StdResult;

use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use crate::error::errno_text;
use crate::plan::NATIVE;
use crate::policy::Architecture;
use crate::sys::{self, Injection, Notification};

/// The most that is copied at once, bytes.
const MOST: usize = 1 << 20;
const PAGE: u64 = 4096;

/// Why something about a notified call could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// Nobody waits for the answer any more: the thread has ended, or a signal has interrupted the call. Whatever was
    /// copied may be another process's, and is not given out.
    Gone,
    /// More than 1 MiB was asked for, or a string is longer than its limit.
    TooLong,
    /// The kernel refused.
    Refused {
        /// The call that this process made.
        call: &'static str,
        /// Its errno. `EFAULT`: there is no such memory in the process.
        errno: i32,
    },
}

impl CallError {
    /// What the program would be told by the kernel: `EFAULT`, `ENAMETOOLONG`, `EPERM`.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Gone => libc::EINTR,
            Self::TooLong => libc::ENAMETOOLONG,
            Self::Refused { errno: errno @ (libc::EFAULT | libc::EBADF), .. } => *errno,
            Self::Refused { .. } => libc::EPERM,
        }
    }
}

impl Display for CallError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("nobody waits for the call any more"),
            Self::TooLong => f.write_str("it is longer than the limit"),
            Self::Refused { call, errno } => write!(f, "{call}: {}", errno_text(*errno)),
        }
    }
}

impl StdError for CallError {}

/// Whether an injected descriptor is closed by the program's next exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnExec {
    /// It is (`O_CLOEXEC`).
    Close,
    /// It stays open.
    Keep,
}

impl OnExec {
    pub(crate) fn flags(self) -> i32 {
        match self {
            Self::Close => libc::O_CLOEXEC,
            Self::Keep => 0,
        }
    }
}

/// A call that waits for its answer (seccomp_unotify(2)). The thread that made it is blocked until then; **other threads of
/// its process are not**, nor are processes that share its memory or its descriptors. So whatever a pointer leads to may be
/// changed at any time: what was copied here is what has to be acted on, by this process.
#[derive(Debug)]
pub struct NotifiedCall<'a> {
    pub(super) listener: BorrowedFd<'a>,
    pub(super) notification: Notification,
}

impl NotifiedCall<'_> {
    /// Its number ([`NotifiedCall::architecture`]).
    #[must_use]
    pub fn number(&self) -> u32 {
        self.notification.call
    }

    /// Its name, as far as this version of the crate knows it.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        NATIVE.name(self.number())
    }

    /// What number and arguments mean. Always that of this program: calls of others end the process.
    #[must_use]
    pub fn architecture(&self) -> Architecture {
        NATIVE
    }

    /// The six arguments as the registers had them. They cannot change any more; what they point to can.
    #[must_use]
    pub fn arguments(&self) -> [u64; 6] {
        self.notification.args
    }

    /// Where the program was.
    #[must_use]
    pub fn instruction_pointer(&self) -> u64 {
        self.notification.instruction_pointer
    }

    /// The thread that made it, as this process sees it. It is that thread's only while [`NotifiedCall::waits`].
    #[must_use]
    pub fn thread_id(&self) -> u32 {
        self.notification.thread.unsigned_abs()
    }

    /// Whether the thread still waits for the answer.
    #[must_use]
    pub fn waits(&self) -> bool {
        sys::notification_waits(self.listener, self.notification.id)
    }

    /// The process of that thread.
    ///
    /// # Errors
    /// [`CallError::Gone`]; [`CallError::Refused`] where `/proc` does not show it.
    pub fn process_id(&self) -> StdResult<u32, CallError> {
        self.while_waiting(|thread| {
            process_of(thread).map_err(|errno| CallError::Refused { call: "read", errno })
        })
    }

    /// Does something by the thread's number, which is its own only if the call waits before and after.
    pub(crate) fn while_waiting<T>(
        &self,
        work: impl FnOnce(i32) -> StdResult<T, CallError>,
    ) -> StdResult<T, CallError> {
        if !self.waits() {
            return Err(CallError::Gone);
        }
        let done = work(self.notification.thread);
        if !self.waits() {
            return Err(CallError::Gone);
        }
        done
    }

    /// Copies memory of the process, all of it or nothing; at most 1 MiB.
    ///
    /// # Errors
    /// [`CallError`]; `EFAULT` where a part of it is not mapped.
    pub fn read_bytes(&self, address: u64, length: usize) -> StdResult<Vec<u8>, CallError> {
        if length > MOST {
            return Err(CallError::TooLong);
        }
        let mut bytes = vec![0; length];
        let read = self.while_waiting(|thread| read_some(thread, address, &mut bytes))?;
        if read < length {
            return Err(CallError::Refused { call: "process_vm_readv", errno: libc::EFAULT });
        }
        Ok(bytes)
    }

    /// Copies a C string of at most `most` bytes without its NUL.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::TooLong`] where there is no NUL within the limit.
    pub fn read_c_string(&self, address: u64, most: usize) -> StdResult<CString, CallError> {
        let most = most.min(MOST);
        let mut bytes: Vec<u8> = Vec::new();
        self.while_waiting(|thread| {
            let mut at = address;
            loop {
                // Not over the end of a page: the next one may not be there.
                let left = usize::try_from(PAGE - at % PAGE).unwrap_or(1).min(most + 1 - bytes.len());
                let mut part = vec![0; left];
                let read = read_some(thread, at, &mut part)?;
                part.truncate(read);
                if let Some(end) = part.iter().position(|byte| *byte == 0) {
                    bytes.extend_from_slice(&part[..end]);
                    return Ok(());
                }
                bytes.extend_from_slice(&part);
                if bytes.len() > most {
                    return Err(CallError::TooLong);
                }
                if read < left {
                    return Err(CallError::Refused { call: "process_vm_readv", errno: libc::EFAULT });
                }
                at = at.wrapping_add(u64::try_from(read).unwrap_or(0));
            }
        })?;
        CString::new(bytes).map_err(|_| CallError::TooLong)
    }

    /// Writes into the process's memory, as far as the process itself could; at most 1 MiB.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn write_bytes(&self, address: u64, bytes: &[u8]) -> StdResult<(), CallError> {
        if bytes.len() > MOST {
            return Err(CallError::TooLong);
        }
        let base = usize::try_from(address).unwrap_or(usize::MAX);
        let there = [RemoteIoVec { base, len: bytes.len() }];
        let written = self.while_waiting(|thread| {
            process_vm_writev(Pid::from_raw(thread), &[IoSlice::new(bytes)], &there)
                .map_err(|errno| CallError::Refused { call: "process_vm_writev", errno: errno as i32 })
        })?;
        if written < bytes.len() {
            return Err(CallError::Refused { call: "process_vm_writev", errno: libc::EFAULT });
        }
        Ok(())
    }

    /// A copy of one of the process's descriptors (pidfd_getfd(2)): the same open file. Before Linux 6.9 that of its first
    /// thread, where a thread has a table of its own.
    ///
    /// # Errors
    /// [`CallError`]; `EBADF` where the number is not open.
    pub fn fetch_fd(&self, number: RawFd) -> StdResult<OwnedFd, CallError> {
        let process = self.process_id()?.cast_signed();
        self.while_waiting(|thread| {
            let pidfd = sys::open_thread_pidfd(thread).or_else(|_| sys::open_pidfd(process));
            let pidfd = pidfd.map_err(|errno| CallError::Refused { call: "pidfd_open", errno })?;
            let fetched = sys::fetch_fd(&pidfd, number);
            fetched.map_err(|errno| CallError::Refused { call: "pidfd_getfd", errno })
        })
    }

    /// Puts a copy of `fd` into the process, at the lowest free number or in the place of `at`, and returns the number. The
    /// call goes on waiting for its answer; [`crate::Response::Fd`] does both at once.
    ///
    /// # Errors
    /// [`CallError`]; `EMFILE` where the process may open no more.
    pub fn inject_fd(
        &self,
        fd: impl AsFd,
        at: Option<RawFd>,
        on_exec: OnExec,
    ) -> StdResult<RawFd, CallError> {
        let to = Injection { at, flags: on_exec.flags() };
        sys::inject(self.listener, self.notification.id, fd, to).map_err(|errno| match errno {
            libc::ENOENT => CallError::Gone,
            errno => CallError::Refused { call: "SECCOMP_IOCTL_NOTIF_ADDFD", errno },
        })
    }
}

/// The process that a thread belongs to (proc_pid_status(5), `Tgid`).
pub(super) fn process_of(thread: i32) -> StdResult<u32, i32> {
    let text = fs::read_to_string(format!("/proc/{thread}/status"))
        .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
    let group = text.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    group.ok_or(libc::EIO)
}

/// As many bytes as are there.
fn read_some(thread: i32, address: u64, into: &mut [u8]) -> StdResult<usize, CallError> {
    let base = usize::try_from(address).unwrap_or(usize::MAX);
    let there = [RemoteIoVec { base, len: into.len() }];
    let errno = match process_vm_readv(Pid::from_raw(thread), &mut [IoSliceMut::new(into)], &there) {
        Ok(read) => return Ok(read),
        Err(errno) => errno as i32,
    };
    // A filter around this process may refuse the call where it leaves the file.
    if matches!(errno, libc::ENOSYS | libc::EPERM)
        && let Ok(memory) = OpenOptions::new().read(true).open(format!("/proc/{thread}/mem"))
    {
        let failed = |_| CallError::Refused { call: "read", errno: libc::EFAULT };
        return memory.read_at(into, address).map_err(failed);
    }
    Err(CallError::Refused { call: "process_vm_readv", errno })
}
