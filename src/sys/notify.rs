//! Seccomp user notification (seccomp_unotify(2)): receive, answer, inject. It must not decide what an answer is.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::{Errno, address, number, raw};

const SECCOMP_GET_NOTIF_SIZES: u64 = 3;
/// The requests of linux/seccomp.h, with the sizes of the structures as Linux 5.0 (5.9 for the last) had them.
const SECCOMP_IOCTL_NOTIF_RECV: u64 = 0xc050_2100;
const SECCOMP_IOCTL_NOTIF_SEND: u64 = 0xc018_2101;
const SECCOMP_IOCTL_NOTIF_ID_VALID: u64 = 0x4008_2102;
const SECCOMP_IOCTL_NOTIF_ADDFD: u64 = 0x4018_2103;
const SECCOMP_USER_NOTIF_FLAG_CONTINUE: u64 = 1;
const SECCOMP_ADDFD_FLAG_SETFD: u64 = 1;
const SECCOMP_ADDFD_FLAG_SEND: u64 = 2;
/// `struct seccomp_notif` and `struct seccomp_notif_resp`, bytes.
const NOTIFICATION_SIZE: usize = 80;
const RESPONSE_SIZE: usize = 24;
/// `PIDFD_THREAD` of linux/pidfd.h, Linux 6.9.
const PIDFD_THREAD: i32 = libc::O_EXCL;

/// How large this kernel's structures are: a buffer has to hold what the kernel writes, whatever it has added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotificationSizes {
    notification: usize,
    response: usize,
}

/// A call that waits for its answer: `struct seccomp_notif`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Notification {
    pub(crate) id: u64,
    /// The thread, as this process's pid namespace numbers it.
    pub(crate) thread: i32,
    pub(crate) call: u32,
    pub(crate) audit: u32,
    pub(crate) instruction_pointer: u64,
    pub(crate) args: [u64; 6],
}

/// What a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotificationAnswer {
    /// The kernel goes on with the call as if there were no filter.
    Continue,
    Value(i64),
    Errno(i32),
}

/// Where an injected descriptor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Injection {
    /// The number that it replaces; the lowest free one without.
    pub(crate) at: Option<i32>,
    /// `O_CLOEXEC` or 0.
    pub(crate) flags: i32,
}

/// The kernel's structure as words: the low and the high half of what stands in one.
fn halves(word: u64) -> (u32, u32) {
    let half = |bits: u64| u32::try_from(bits & 0xffff_ffff).unwrap_or(0);
    (half(word), half(word >> 32))
}

/// An ioctl whose argument the kernel reads, and may write, within `words`.
fn ioctl(fd: impl AsFd, request: u64, words: &mut [u64]) -> Result<u64, Errno> {
    let at = words.as_mut_ptr().expose_provenance() as u64;
    let args = [number(fd.as_fd().as_raw_fd()), request, at, 0, 0, 0];
    // SAFETY: every caller below passes as many bytes as this kernel's structure for the request has, and they live across
    // the call; no request keeps the address.
    unsafe { raw(libc::SYS_ioctl, args) }
}

/// The same of a request that is made again where a stop of this process interrupts the kernel's wait for the filter's lock,
/// which it does before it looks at anything: `EINTR`, that the kernel does not restart.
fn ioctl_again(fd: impl AsFd, request: u64, words: &mut [u64]) -> Result<u64, Errno> {
    loop {
        match ioctl(fd.as_fd(), request, words) {
            Err(libc::EINTR) => {}
            done => return done,
        }
    }
}

/// `seccomp(SECCOMP_GET_NOTIF_SIZES)` (since Linux 5.0).
pub(crate) fn notification_sizes() -> Result<NotificationSizes, Errno> {
    // Three 16-bit sizes: notification, response, seccomp_data.
    let mut sizes = [0_u64; 1];
    let at = sizes.as_mut_ptr().expose_provenance() as u64;
    // SAFETY: the call writes the six bytes of struct seccomp_notif_sizes into eight that live across it.
    unsafe { raw(libc::SYS_seccomp, [SECCOMP_GET_NOTIF_SIZES, 0, at, 0, 0, 0]) }?;
    let [word] = sizes;
    let size = |bits: u64| usize::try_from(bits & 0xffff).unwrap_or(0);
    Ok(NotificationSizes {
        notification: size(word).max(NOTIFICATION_SIZE),
        response: size(word >> 16).max(RESPONSE_SIZE),
    })
}

/// `SECCOMP_IOCTL_NOTIF_RECV`: the next call; blocks where there is none.
pub(crate) fn receive_notification(
    listener: impl AsFd,
    sizes: NotificationSizes,
) -> Result<Notification, Errno> {
    let mut words = vec![0_u64; sizes.notification.div_ceil(8)];
    ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &mut words)?;
    // id; pid, flags; then struct seccomp_data: nr, arch; instruction pointer; six arguments.
    let [id, pid, call, instruction_pointer, a, b, c, d, e, f, ..] = words[..] else {
        return Err(libc::EINVAL);
    };
    let ((thread, _), (call, audit)) = (halves(pid), halves(call));
    let args = [a, b, c, d, e, f];
    Ok(Notification { id, thread: thread.cast_signed(), call, audit, instruction_pointer, args })
}

/// `SECCOMP_IOCTL_NOTIF_SEND`: the answer. ENOENT: nobody waits for it any more.
pub(crate) fn answer_notification(
    listener: impl AsFd,
    sizes: NotificationSizes,
    id: u64,
    answer: NotificationAnswer,
) -> Result<(), Errno> {
    let (value, error, flags) = match answer {
        NotificationAnswer::Continue => (0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE),
        NotificationAnswer::Value(value) => (value, 0, 0),
        NotificationAnswer::Errno(errno) => (0, -errno, 0),
    };
    let mut words = vec![0_u64; sizes.response.div_ceil(8)];
    let last = u64::from(error.cast_unsigned()) | flags << 32;
    for (word, part) in words.iter_mut().zip([id, value.cast_unsigned(), last]) {
        *word = part;
    }
    ioctl_again(listener, SECCOMP_IOCTL_NOTIF_SEND, &mut words).map(drop)
}

/// `SECCOMP_IOCTL_NOTIF_ID_VALID`: whether that call still waits, so that its pid is still its own.
pub(crate) fn notification_waits(listener: impl AsFd, id: u64) -> bool {
    ioctl_again(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &mut [id]).is_ok()
}

fn add(listener: impl AsFd, id: u64, (fd, to): (impl AsFd, Injection), flags: u64) -> Result<i32, Errno> {
    let set = if to.at.is_some() { SECCOMP_ADDFD_FLAG_SETFD } else { 0 };
    let half = |value: i32| u64::from(value.cast_unsigned());
    // id; flags, source; target, its flags.
    let mut words = [
        id,
        flags | set | half(fd.as_fd().as_raw_fd()) << 32,
        half(to.at.unwrap_or(0)) | half(to.flags) << 32,
    ];
    let number = ioctl_again(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &mut words)?;
    i32::try_from(number).map_err(|_| libc::EBADF)
}

/// `SECCOMP_IOCTL_NOTIF_ADDFD` (since Linux 5.9): a copy of `fd` in the calling task, which goes on waiting.
pub(crate) fn inject(listener: impl AsFd, id: u64, fd: impl AsFd, to: Injection) -> Result<i32, Errno> {
    add(listener, id, (fd, to), 0)
}

/// The same, and its number is the call's answer, in one step: `SECCOMP_ADDFD_FLAG_SEND` (since Linux 5.14; EINVAL before).
pub(crate) fn inject_and_answer(
    listener: impl AsFd,
    id: u64,
    fd: impl AsFd,
    to: Injection,
) -> Result<i32, Errno> {
    add(listener, id, (fd, to), SECCOMP_ADDFD_FLAG_SEND)
}

/// `pidfd_getfd(pidfd, number, 0)` (since Linux 5.6): a copy of another process's descriptor, close-on-exec.
pub(crate) fn fetch_fd(pidfd: impl AsFd, wanted: i32) -> Result<OwnedFd, Errno> {
    let args = [number(pidfd.as_fd().as_raw_fd()), number(wanted), 0, 0, 0, 0];
    // SAFETY: the call takes numbers only.
    owned(unsafe { raw(libc::SYS_pidfd_getfd, args) }?)
}

/// `pidfd_open(thread, PIDFD_THREAD)` (since Linux 6.9; EINVAL before): one thread and its own table of descriptors.
pub(crate) fn open_thread_pidfd(thread: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes numbers only.
    owned(unsafe { raw(libc::SYS_pidfd_open, [number(thread), number(PIDFD_THREAD), 0, 0, 0, 0]) }?)
}

/// `openat2(directory, path, {flags, mode, resolve}, 24)` (since Linux 5.6).
pub(crate) fn open_beneath(
    directory: impl AsFd,
    path: &CStr,
    (flags, mode): (i32, u32),
    resolve: u64,
) -> Result<OwnedFd, Errno> {
    let how = [u64::from(flags.cast_unsigned()), u64::from(mode), resolve];
    let (path, how) = (address(path.as_ptr()), address(how.as_ptr()));
    let args = [number(directory.as_fd().as_raw_fd()), path, how, 24, 0, 0];
    // SAFETY: `path` ends with NUL and `how` is a struct open_how of 24 bytes; both live across the call, which only reads.
    owned(unsafe { raw(libc::SYS_openat2, args) }?)
}

/// `fstat(fd)`: the kernel's own `struct stat`, as a program's memory holds it.
pub(crate) fn stat_bytes(fd: impl AsFd) -> Result<Vec<u8>, Errno> {
    let mut words = [0_u64; size_of::<libc::stat>().div_ceil(8)];
    let at = words.as_mut_ptr().expose_provenance() as u64;
    let args = [number(fd.as_fd().as_raw_fd()), at, 0, 0, 0, 0];
    // SAFETY: the call writes a struct stat, which is as large as libc's on the supported architectures, and it lives across
    // the call.
    unsafe { raw(libc::SYS_fstat, args) }?;
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.truncate(size_of::<libc::stat>());
    Ok(bytes)
}

fn owned(fd: u64) -> Result<OwnedFd, Errno> {
    let fd = i32::try_from(fd).map_err(|_| libc::EBADF)?;
    // SAFETY: a call that makes descriptors succeeded, so the number is a new one that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
