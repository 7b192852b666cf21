//! Calls on the files of control groups that `nix` lacks. It must not know what a group is for.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno as NixErrno;

use super::{Errno, address, number, raw};

/// `flock(fd, LOCK_EX|LOCK_NB)`: `EWOULDBLOCK` where someone else has the lock.
pub(crate) fn lock_at_once(fd: impl AsFd) -> Result<(), Errno> {
    flock(fd.as_fd(), libc::LOCK_EX | libc::LOCK_NB)
}

/// `flock(fd, LOCK_UN)`.
pub(crate) fn unlock(fd: impl AsFd) -> Result<(), Errno> {
    flock(fd.as_fd(), libc::LOCK_UN)
}

fn flock(fd: BorrowedFd<'_>, operation: i32) -> Result<(), Errno> {
    let args = [number(fd.as_raw_fd()), number(operation), 0, 0, 0, 0];
    // SAFETY: the call takes numbers only.
    unsafe { raw(libc::SYS_flock, args) }.map(drop)
}

/// Whether the extended attribute `name` of a file has this value (`getxattr`, xattr(7)); one that is not there has not.
pub(crate) fn attribute_is(path: &Path, name: &CStr, value: &[u8]) -> Result<bool, Errno> {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return Err(libc::EINVAL) };
    let mut buffer = [0_u8; 16];
    let at = buffer.as_mut_ptr().cast();
    // SAFETY: both names end with NUL; the kernel writes at most the 16 bytes of `buffer`, which lives across the call.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), at, buffer.len()) };
    match (usize::try_from(length), NixErrno::last_raw()) {
        (Ok(length), _) => Ok(buffer.get(..length) == Some(value)),
        // Another value is too long for the buffer.
        (Err(_), libc::ENODATA | libc::EOPNOTSUPP | libc::ENOENT | libc::ERANGE) => Ok(false),
        (Err(_), errno) => Err(errno),
    }
}

/// `setxattr(path, name, value)` (`user.` attributes of a control group: since Linux 5.7).
pub(crate) fn set_attribute(path: &Path, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| libc::EINVAL)?;
    let at = value.as_ptr().cast();
    // SAFETY: both names end with NUL; the kernel reads the bytes of `value`, which lives across the call.
    let done = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), at, value.len(), 0) };
    if done == 0 { Ok(()) } else { Err(NixErrno::last_raw()) }
}

/// `bpf(BPF_PROG_LOAD)` of a program of the type `BPF_PROG_TYPE_CGROUP_DEVICE` (since Linux 4.15), one word an instruction, and
/// `bpf(BPF_PROG_ATTACH)` to a group of cgroup v2 beside those that are there. The group keeps it.
pub(crate) fn attach_device_program(
    group: BorrowedFd<'_>,
    program: &[u64],
) -> Result<(), (&'static str, Errno)> {
    const BPF_PROG_LOAD: u64 = 5;
    const BPF_PROG_ATTACH: u64 = 8;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u64 = 15;
    const BPF_CGROUP_DEVICE: u64 = 6;
    const BPF_F_ALLOW_MULTI: u64 = 2;
    let license = c"Dual MIT/GPL";
    let count = u64::try_from(program.len()).unwrap_or(0);
    // union bpf_attr: type and number of instructions, their address, the licence's, no log.
    let load = [
        BPF_PROG_TYPE_CGROUP_DEVICE | count << 32,
        address(program.as_ptr()),
        address(license.as_ptr()),
        0,
        0,
        0,
    ];
    let size = u64::try_from(size_of_val(&load)).unwrap_or(0);
    // SAFETY: `load` is a bpf_attr of the size given; it names `program` and `license`, which live across the call and are
    // only read.
    let fd = unsafe { raw(libc::SYS_bpf, [BPF_PROG_LOAD, address(load.as_ptr()), size, 0, 0, 0]) }
        .map_err(|errno| ("bpf(BPF_PROG_LOAD)", errno))?;
    let fd = i32::try_from(fd).map_err(|_| ("bpf(BPF_PROG_LOAD)", libc::EBADF))?;
    // SAFETY: the call succeeded, so the number is a new descriptor that nothing else owns.
    let loaded = unsafe { OwnedFd::from_raw_fd(fd) };
    // target_fd, attach_bpf_fd, attach_type, attach_flags: 32 bits each.
    let [target, program] = [group.as_raw_fd(), loaded.as_raw_fd()].map(|fd| u64::from(fd.cast_unsigned()));
    let attach = [target | program << 32, BPF_CGROUP_DEVICE | BPF_F_ALLOW_MULTI << 32];
    let size = u64::try_from(size_of_val(&attach)).unwrap_or(0);
    // SAFETY: `attach` is a bpf_attr of the size given, numbers only, and lives across the call.
    unsafe { raw(libc::SYS_bpf, [BPF_PROG_ATTACH, address(attach.as_ptr()), size, 0, 0, 0]) }
        .map(drop)
        .map_err(|errno| ("bpf(BPF_PROG_ATTACH)", errno))
}
