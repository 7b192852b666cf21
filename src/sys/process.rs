//! Pidfds, waiting with usage, readiness, messages with the sender's pid. It must not decide what an outcome means.

use nix::errno::Errno as NixErrno;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, address, number, raw};

const P_PIDFD: u64 = 3;
/// `PIDFD_GET_INFO` and `PIDFD_INFO_EXIT` of linux/pidfd.h: since Linux 6.15 an exit status that a reaped process leaves.
const PIDFD_GET_INFO: u64 = 0xc040_ff0b;
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `pidfd_open(pid, 0)` (since Linux 5.3).
pub(crate) fn open_pidfd(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes numbers only.
    let fd = unsafe { raw(libc::SYS_pidfd_open, [number(pid), 0, 0, 0, 0, 0]) }?;
    let fd = i32::try_from(fd).map_err(|_| libc::EBADF)?;
    // SAFETY: the call succeeded, so the number is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `pidfd_send_signal(pidfd, signal, NULL, 0)` (since Linux 5.1).
pub(crate) fn send_signal(pidfd: impl AsFd, signal: i32) -> Result<(), Errno> {
    let args = [number(pidfd.as_fd().as_raw_fd()), number(signal), 0, 0, 0, 0];
    // SAFETY: the call takes numbers and a null pointer.
    unsafe { raw(libc::SYS_pidfd_send_signal, args) }.map(drop)
}

/// SIGKILL through a pidfd that another thread is about to own; -1 is nobody's.
pub(crate) fn kill_by_number(pidfd: i32) {
    // SAFETY: the call takes numbers and a null pointer.
    let sent =
        unsafe { raw(libc::SYS_pidfd_send_signal, [number(pidfd), number(libc::SIGKILL), 0, 0, 0, 0]) };
    // EBADF: no child was made yet, or no more; ESRCH: it has ended. Both are what is wanted.
    debug_assert!(
        matches!(sent, Ok(_) | Err(libc::EBADF | libc::ESRCH)),
        "a pidfd of our own child: {sent:?}"
    );
}

/// Whether to wait for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    UntilExit,
    No,
}

/// CPU time and memory of a process or a tree (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The kernel's `struct rusage`, eighteen 64-bit words.
    pub(crate) words: [u64; 18],
}

/// What `waitid` said of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaped {
    /// It has not ended.
    Running,
    /// It has ended: `CLD_EXITED` with a code, or `CLD_KILLED`/`CLD_DUMPED` with a signal.
    Ended { code: i32, status: i32, usage: Usage },
    /// Someone else reaped it (ECHILD).
    Gone,
}

/// `waitid(P_PIDFD, pidfd, &info, WEXITED, &rusage)` (since Linux 5.4), with the rusage that libc's wrapper hides.
pub(crate) fn reap(pidfd: impl AsFd, block: Block) -> Result<Reaped, Errno> {
    let options = match block {
        Block::UntilExit => libc::WEXITED,
        Block::No => libc::WEXITED | libc::WNOHANG,
    };
    let info = [0_u32; 32];
    let usage = Usage::default();
    let fd = number(pidfd.as_fd().as_raw_fd());
    let args = [P_PIDFD, fd, address(info.as_ptr()), number(options), address(usage.words.as_ptr()), 0];
    let (mut info, mut usage) = (info, usage);
    let args = {
        let mut args = args;
        args[2] = (&raw mut info).expose_provenance() as u64;
        args[4] = (&raw mut usage.words).expose_provenance() as u64;
        args
    };
    loop {
        // SAFETY: `info` has the 128 bytes of siginfo_t and `usage` the 144 of struct rusage; both live across the call.
        match unsafe { raw(libc::SYS_waitid, args) } {
            Ok(_) => break,
            Err(libc::EINTR) => {}
            Err(libc::ECHILD) => return Ok(Reaped::Gone),
            Err(errno) => return Err(errno),
        }
    }
    // SAFETY: the kernel wrote through the exposed address; a volatile read sees it.
    let info = unsafe { (&raw const info).read_volatile() };
    // SAFETY: as above.
    usage.words = unsafe { (&raw const usage.words).read_volatile() };
    // siginfo_t: signo, errno, code, padding, pid, uid, status.
    if info[0] == 0 {
        return Ok(Reaped::Running);
    }
    Ok(Reaped::Ended { code: info[2].cast_signed(), status: info[6].cast_signed(), usage })
}

/// What the kernel remembers of a process that someone else has reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitInfo {
    /// Its wait status.
    Status(i32),
    /// It is not reaped yet: one that nobody waits for is reaped a moment after its pidfd says that it has ended.
    NotYet,
    /// Nothing: before Linux 6.15.
    Nothing,
}

/// `ioctl(pidfd, PIDFD_GET_INFO, {mask: PIDFD_INFO_EXIT})` (since Linux 6.15).
pub(crate) fn exit_info(pidfd: impl AsFd) -> ExitInfo {
    let mut info = [0_u64; 8];
    info[0] = PIDFD_INFO_EXIT;
    let at = (&raw mut info).expose_provenance() as u64;
    let args = [number(pidfd.as_fd().as_raw_fd()), PIDFD_GET_INFO, at, 0, 0, 0];
    // SAFETY: the request's size field says 64 bytes, which `info` has; it lives across the call.
    if unsafe { raw(libc::SYS_ioctl, args) }.is_err() {
        return ExitInfo::Nothing;
    }
    // SAFETY: the kernel wrote through the exposed address; a volatile read sees it.
    let info = unsafe { (&raw const info).read_volatile() };
    if info[0] & PIDFD_INFO_EXIT == 0 {
        return ExitInfo::NotYet;
    }
    // struct pidfd_info: mask, cgroupid, pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid, exit_code.
    u32::try_from(info[7] >> 32).map_or(ExitInfo::Nothing, |status| ExitInfo::Status(status.cast_signed()))
}

/// Which of these descriptors are readable or hung up, waiting at most `timeout_ms` (-1: without end).
pub(crate) fn readable_fds<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout_ms: i32,
) -> Result<[i16; N], Errno> {
    let mut list = fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let count = libc::nfds_t::try_from(N).unwrap_or(0);
    // SAFETY: `list` has N entries and lives across the call.
    let result = unsafe { libc::poll(list.as_mut_ptr(), count, timeout_ms) };
    if result < 0 {
        return Err(NixErrno::last_raw());
    }
    Ok(list.map(|entry| entry.revents))
}

/// Whether one descriptor is readable or hung up.
pub(crate) fn poll_fd(fd: BorrowedFd<'_>, timeout_ms: i32) -> Result<bool, Errno> {
    readable_fds([fd], timeout_ms).map(|[ready]| ready != 0)
}

/// Whether a descriptor has something exceptional to tell now (`POLLPRI`, without `POLLERR`); a poll that fails says no.
pub(crate) fn is_urgent(fd: BorrowedFd<'_>) -> bool {
    let mut one = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
    // SAFETY: `one` is one entry and lives across the call.
    let result = unsafe { libc::poll(&raw mut one, 1, 0) };
    result == 1 && one.revents == libc::POLLPRI
}

/// `recvmsg` of one datagram with the sender's pid (`SCM_CREDENTIALS`; unix(7)), as this process sees it. `Ok(None)` is the
/// end of file. Descriptors are never accepted: there is no room for them in the control buffer.
pub(crate) fn receive_with_pid(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<Option<(usize, i32)>, Errno> {
    let mut control = [0_u64; 4];
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a msghdr of zeroes is valid: no name, no vectors, no control data.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    // SAFETY: the header's pointers and lengths name `iov`, `buffer` and `control`, which live across the call.
    let result = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    if result < 0 {
        return Err(NixErrno::last_raw());
    }
    let length = result.cast_unsigned();
    if length == 0 {
        return Ok(None);
    }
    // cmsghdr: length (64 bits), level, type (32 bits each), then struct ucred: pid, uid, gid.
    let [size, kind, ids, _] = control;
    let expected =
        u64::from(libc::SOL_SOCKET.cast_unsigned()) | u64::from(libc::SCM_CREDENTIALS.cast_unsigned()) << 32;
    let pid = if size >= 28 && kind == expected { u32::try_from(ids & 0xffff_ffff).unwrap_or(0) } else { 0 };
    Ok(Some((length, pid.cast_signed())))
}

/// `fcntl(number, F_DUPFD_CLOEXEC, above)`: a number that may not be open is no [`BorrowedFd`], so it comes as it is.
pub(crate) fn duplicate(fd: i32, above: i32) -> Result<OwnedFd, Errno> {
    let args = [number(fd), number(libc::F_DUPFD_CLOEXEC), number(above), 0, 0, 0];
    // SAFETY: F_DUPFD_CLOEXEC takes numbers only; a number that is not open gives EBADF.
    let fd = unsafe { raw(libc::SYS_fcntl, args) }?;
    let fd = i32::try_from(fd).map_err(|_| libc::EBADF)?;
    // SAFETY: the call succeeded, so the number is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `fcntl(number, F_SETFD, FD_CLOEXEC)`, of a number that may not be open.
pub(crate) fn close_on_exec(fd: i32) -> Result<(), Errno> {
    let args = [number(fd), number(libc::F_SETFD), number(libc::FD_CLOEXEC), 0, 0, 0];
    // SAFETY: F_SETFD takes numbers only.
    unsafe { raw(libc::SYS_fcntl, args) }.map(drop)
}

/// `getrandom(buffer, 8, 0)`: a number that nobody can guess.
pub(crate) fn secret() -> Result<u64, Errno> {
    let mut bytes = [0_u8; 8];
    let call = [bytes.as_mut_ptr().expose_provenance() as u64, 8, 0, 0, 0, 0];
    // SAFETY: getrandom(2) writes at most the eight bytes of `bytes`, which lives across the call.
    let written = unsafe { raw(libc::SYS_getrandom, call) }?;
    if written == 8 { Ok(u64::from_le_bytes(bytes)) } else { Err(libc::EIO) }
}

/// `setpriority(PRIO_PROCESS, pid, nice)`.
pub(crate) fn set_priority(pid: i32, nice: i32) -> Result<(), Errno> {
    // SAFETY: the call takes numbers only.
    unsafe { raw(libc::SYS_setpriority, [0, number(pid), number(nice), 0, 0, 0]) }.map(drop)
}

/// `prlimit64(pid, resource, &{soft, hard}, NULL)`.
pub(crate) fn set_limit(pid: i32, resource: u32, limit: [u64; 2]) -> Result<(), Errno> {
    let args = [number(pid), u64::from(resource), address(limit.as_ptr()), 0, 0, 0];
    // SAFETY: `limit` is a struct rlimit64, two 64-bit words, and lives across the call.
    unsafe { raw(libc::SYS_prlimit64, args) }.map(drop)
}
