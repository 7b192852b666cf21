//! What a thread does to itself, for good: capability sets, a Landlock domain, a filter. It must not decide what.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::{Errno, address, number, raw};

const LINUX_CAPABILITY_VERSION_3: u64 = 0x2008_0522;
const SECCOMP_SET_MODE_FILTER: u64 = 1;

/// `prctl(option, first, second, 0, 0)` for an option that takes numbers only.
pub(crate) fn prctl(option: i32, first: u64, second: u64) -> Result<u64, Errno> {
    // SAFETY: callers pass options without pointers: the bounding and ambient sets, the securebits.
    unsafe { raw(libc::SYS_prctl, [number(option), first, second, 0, 0, 0]) }
}

/// `capget` of this thread: effective, permitted, inheritable.
pub(crate) fn own_capabilities() -> Result<[u64; 3], Errno> {
    let header = [LINUX_CAPABILITY_VERSION_3];
    // struct __user_cap_data_struct twice: effective, permitted, inheritable of 32 bits each, low halves first.
    let mut data = [0_u32; 6];
    let into = (&raw mut data).expose_provenance() as u64;
    // SAFETY: version 3 writes 24 bytes, which `data` has, and reads the header; both live across the call.
    unsafe { raw(libc::SYS_capget, [address(header.as_ptr()), into, 0, 0, 0, 0]) }?;
    // SAFETY: the kernel wrote through the exposed address; a volatile read sees it.
    let data = unsafe { (&raw const data).read_volatile() };
    Ok([0, 1, 2].map(|set| u64::from(data[set]) | u64::from(data[set + 3]) << 32))
}

/// `capset` of this thread: effective, permitted, inheritable.
pub(crate) fn set_own_capabilities(sets: [u64; 3]) -> Result<(), Errno> {
    let header = [LINUX_CAPABILITY_VERSION_3];
    let [effective, permitted, inheritable] = sets;
    let low = |set: u64| set & 0xffff_ffff;
    let data = [
        low(effective) | low(permitted) << 32,
        low(inheritable) | effective >> 32 << 32,
        permitted >> 32 | inheritable >> 32 << 32,
    ];
    let args = [address(header.as_ptr()), address(data.as_ptr()), 0, 0, 0, 0];
    // SAFETY: version 3 reads the header and 24 bytes of data; both live across the call.
    unsafe { raw(libc::SYS_capset, args) }.map(drop)
}

/// `landlock_create_ruleset(&attributes, size, 0)` (since Linux 5.13).
pub(crate) fn create_ruleset(attributes: &[u64]) -> Result<OwnedFd, Errno> {
    let size = u64::try_from(size_of_val(attributes)).map_err(|_| libc::E2BIG)?;
    // SAFETY: the kernel reads `size` bytes of `attributes`, which lives across the call.
    let fd =
        unsafe { raw(libc::SYS_landlock_create_ruleset, [address(attributes.as_ptr()), size, 0, 0, 0, 0]) }?;
    let fd = i32::try_from(fd).map_err(|_| libc::EBADF)?;
    // SAFETY: the call succeeded, so the number is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `landlock_add_rule(ruleset, kind, &{rights, what}, 0)`: `what` is a descriptor or a port.
pub(crate) fn add_rule(ruleset: impl AsFd, kind: u64, rights: u64, what: u64) -> Result<(), Errno> {
    let rule = [rights, what];
    let args = [number(ruleset.as_fd().as_raw_fd()), kind, address(rule.as_ptr()), 0, 0, 0];
    // SAFETY: each kind of rule reads at most the 16 bytes of `rule`, which lives across the call.
    unsafe { raw(libc::SYS_landlock_add_rule, args) }.map(drop)
}

/// `landlock_restrict_self(ruleset, flags)`.
pub(crate) fn restrict_self(ruleset: impl AsFd, flags: u64) -> Result<(), Errno> {
    // SAFETY: the call takes numbers only.
    unsafe { raw(libc::SYS_landlock_restrict_self, [number(ruleset.as_fd().as_raw_fd()), flags, 0, 0, 0, 0]) }
        .map(drop)
}

/// `seccomp(SECCOMP_SET_MODE_FILTER, flags, &{length, program})`, an instruction a word. With `SECCOMP_FILTER_FLAG_TSYNC` a
/// result that is not 0 is the thread that could not be had.
pub(crate) fn attach_filter(program: &[u64], flags: u64) -> Result<u64, Errno> {
    let length = u16::try_from(program.len()).map_err(|_| libc::EINVAL)?;
    let fprog = [u64::from(length), address(program.as_ptr())];
    let args = [SECCOMP_SET_MODE_FILTER, flags, address(fprog.as_ptr()), 0, 0, 0];
    // SAFETY: `fprog` is a struct sock_fprog on a 64-bit machine and names `program`; both live across the call.
    unsafe { raw(libc::SYS_seccomp, args) }
}
