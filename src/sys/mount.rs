//! Mount calls that the caller makes itself, on detached trees only: they change no mount of the caller.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::{Errno, address, number, raw};

const OPEN_TREE_CLONE: u64 = 1;
const OPEN_TREE_CLOEXEC: u64 = 0o2_000_000;
const AT_RECURSIVE: u64 = 0x8000;
const AT_EMPTY_PATH: u64 = 0x1000;

/// Whether a tree is taken with what is mounted below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TreeFlags {
    Recursive,
    TopOnly,
}

impl TreeFlags {
    fn bits(self) -> u64 {
        match self {
            Self::Recursive => AT_RECURSIVE,
            Self::TopOnly => 0,
        }
    }
}

/// `open_tree(fd, path, OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_EMPTY_PATH)`: a detached copy of a mount (since Linux 5.2).
pub(crate) fn clone_tree(base: BorrowedFd<'_>, path: &CStr, flags: TreeFlags) -> Result<OwnedFd, Errno> {
    let bits = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | flags.bits();
    let args = [number(base.as_raw_fd()), address(path.as_ptr()), bits, 0, 0, 0];
    // SAFETY: the path is a C string that lives across the call.
    let fd = unsafe { raw(libc::SYS_open_tree, args) }?;
    let fd = i32::try_from(fd).map_err(|_| libc::EBADF)?;
    // SAFETY: the call succeeded, so the number is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `mount_setattr(tree, "", AT_EMPTY_PATH, {attr_set, propagation: MS_PRIVATE})` (since Linux 5.12).
pub(crate) fn restrict_tree(tree: BorrowedFd<'_>, attributes: u64, flags: TreeFlags) -> Result<(), Errno> {
    let attr = [attributes, 0, libc::MS_PRIVATE, 0];
    let empty = c"";
    let at = AT_EMPTY_PATH | flags.bits();
    let args = [number(tree.as_raw_fd()), address(empty.as_ptr()), at, address(attr.as_ptr()), 32, 0];
    // SAFETY: the path is a C string and `attr` a `struct mount_attr` of 32 bytes; both live across the call.
    unsafe { raw(libc::SYS_mount_setattr, args) }.map(drop)
}

/// Whether this process may copy its mounts: a copy of `/` is made and closed again at once.
pub(crate) fn can_clone_trees() -> bool {
    open(c"/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .is_ok_and(|root| clone_tree(root.as_fd(), c"", TreeFlags::TopOnly).is_ok())
}
