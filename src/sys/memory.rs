//! Memory shared with a child, and memory that can be executed. It must not know what lies in it.

use nix::errno::Errno as NixErrno;
use nix::unistd;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use super::{Errno, address, number, raw};

/// A memfd mapped shared into this process; the child maps it too. Every access is volatile, as the other side may write
/// at any time, and bounds-checked.
#[derive(Debug)]
pub(crate) struct SharedMap {
    fd: OwnedFd,
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is plain memory that belongs to this value alone on this side; accesses are volatile.
unsafe impl Send for SharedMap {}
// SAFETY: as above; concurrent volatile accesses of single words are what the memory is for.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// Zeroes, at least `bytes` of them.
    pub(crate) fn new(bytes: usize) -> Result<Self, (&'static str, Errno)> {
        let fd = memfd(c"ringfence-brief", libc::MFD_CLOEXEC | libc::MFD_NOEXEC_SEAL)
            .or_else(|errno| match errno {
                libc::EINVAL => memfd(c"ringfence-brief", libc::MFD_CLOEXEC),
                other => Err(other),
            })
            .map_err(|errno| ("memfd_create", errno))?;
        let length = bytes.next_multiple_of(4096);
        let size = i64::try_from(length).map_err(|_| ("ftruncate", libc::EFBIG))?;
        unistd::ftruncate(&fd, size).map_err(|errno| ("ftruncate", errno as Errno))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory that exists.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(("mmap", NixErrno::last_raw()));
        }
        let start = NonNull::new(start.cast::<u8>()).ok_or(("mmap", libc::ENOMEM))?;
        Ok(Self { fd, start, length })
    }

    /// Where it lies on this side.
    pub(crate) fn address(&self) -> u64 {
        address(self.start.as_ptr())
    }

    /// Its bytes.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    fn check(&self, at: u32, bytes: usize) -> usize {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        assert!(at.checked_add(bytes).is_some_and(|end| end <= self.length), "inside the brief");
        at
    }

    /// The 32-bit word at `at`.
    pub(crate) fn half(&self, at: u32) -> u32 {
        let word = self.word(at & !7);
        u32::try_from(word >> (8 * (at & 7)) & 0xffff_ffff).unwrap_or(0)
    }

    /// The 64-bit word at `at`, a multiple of 8.
    pub(crate) fn word(&self, at: u32) -> u64 {
        let at = self.check(at & !7, 8);
        // SAFETY: `check` holds the place inside the mapping, which is page-aligned, and `at` is a multiple of 8.
        let place = unsafe { self.start.as_ptr().add(at) };
        // SAFETY: as above; the memory is mapped readable as long as `self` lives.
        unsafe { place.cast::<u64>().read_volatile() }
    }

    /// Stores a 64-bit word at `at`, a multiple of 8.
    pub(crate) fn set_word(&self, at: u32, value: u64) {
        let at = self.check(at & !7, 8);
        // SAFETY: `check` holds the place inside the mapping, which is page-aligned, and `at` is a multiple of 8.
        let place = unsafe { self.start.as_ptr().add(at) };
        // SAFETY: as above; the memory is mapped writable as long as `self` lives, and only words pass through it.
        unsafe { place.cast::<u64>().write_volatile(value) };
    }

    /// Stores bytes at `at`, a multiple of 8; the last word is padded with zeroes.
    pub(crate) fn set_bytes(&self, at: u32, bytes: &[u8]) {
        for (index, chunk) in (0_u32..).zip(bytes.chunks(8)) {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            self.set_word(at + 8 * index, u64::from_le_bytes(eight));
        }
    }
}

impl AsFd for SharedMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and no reference into it outlives `self`.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert_eq!(result, 0, "the mapping is ours and whole");
    }
}

fn memfd(name: &CStr, flags: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: the name is a C string that lives across the call.
    let fd = unsafe { raw(libc::SYS_memfd_create, [address(name.as_ptr()), u64::from(flags), 0, 0, 0, 0]) }?;
    let fd = i32::try_from(fd).map_err(|_| libc::EBADF)?;
    // SAFETY: the call succeeded, so the number is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A sealed memfd with these bytes that can be executed, or the call and errno that refused it.
pub(crate) fn executable_memfd(bytes: &[u8]) -> Result<OwnedFd, (&'static str, Errno)> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // MFD_EXEC is since Linux 6.3; before, EINVAL, and every memfd can be executed.
    let fd = memfd(c"ringfence", flags | libc::MFD_EXEC)
        .or_else(|errno| if errno == libc::EINVAL { memfd(c"ringfence", flags) } else { Err(errno) })
        .map_err(|errno| ("memfd_create", errno))?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = unistd::write(&fd, rest).map_err(|errno| ("write", errno as Errno))?;
        rest = &rest[written..];
    }
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    let args = [number(fd.as_raw_fd()), number(libc::F_ADD_SEALS), number(seals), 0, 0, 0];
    // SAFETY: F_ADD_SEALS takes numbers only.
    unsafe { raw(libc::SYS_fcntl, args) }.map_err(|errno| ("fcntl", errno))?;
    Ok(fd)
}
