//! Pseudoterminals: the calls that `nix` has only as macros. It must not decide who gets one.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, number, raw};

/// Opens the other side of a pseudoterminal by its master, without a path (ioctl_tty(2), `TIOCGPTPEER`, since Linux 4.13).
pub(crate) fn terminal_peer(master: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let args = [number(master.as_raw_fd()), libc::TIOCGPTPEER, number(flags), 0, 0, 0];
    // SAFETY: the request takes numbers only.
    let fd = unsafe { raw(libc::SYS_ioctl, args) }?;
    let fd = i32::try_from(fd).map_err(|_| libc::EBADF)?;
    // SAFETY: the call succeeded, so the number is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Rows, columns, and the same in pixels (ioctl_tty(2), `struct winsize`).
pub(crate) type Winsize = [u16; 4];

/// `TIOCGWINSZ`.
pub(crate) fn window_size(terminal: BorrowedFd<'_>) -> Result<Winsize, Errno> {
    let mut size: Winsize = [0; 4];
    let at = (&raw mut size).expose_provenance() as u64;
    let args = [number(terminal.as_raw_fd()), libc::TIOCGWINSZ, at, 0, 0, 0];
    // SAFETY: `size` has the eight bytes of struct winsize and lives across the call.
    unsafe { raw(libc::SYS_ioctl, args) }?;
    // SAFETY: the kernel wrote through the exposed address; a volatile read sees it.
    Ok(unsafe { (&raw const size).read_volatile() })
}

/// `TIOCSWINSZ`.
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, size: Winsize) -> Result<(), Errno> {
    let at = (&raw const size).expose_provenance() as u64;
    let args = [number(terminal.as_raw_fd()), libc::TIOCSWINSZ, at, 0, 0, 0];
    // SAFETY: `size` has the eight bytes of struct winsize and lives across the call.
    unsafe { raw(libc::SYS_ioctl, args) }.map(drop)
}
