//! Messages with descriptors in them. It must not decide which of them are welcome.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno as NixErrno;

use super::Errno;

/// Descriptors that one message may bring.
pub(crate) const DESCRIPTORS: usize = 16;
/// A cmsghdr (length of 64 bits, level and type of 32) and the descriptors' numbers.
const CONTROL: usize = 2 + DESCRIPTORS / 2;

/// One datagram as it came.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) length: usize,
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) whole: Whole,
}

/// Whether all of it arrived: the kernel drops what finds no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    Yes,
    BytesCut,
    DescriptorsCut,
}

/// `recvmsg(socket, …, MSG_CMSG_CLOEXEC)`; the length 0 is an empty datagram or the end. More than [`DESCRIPTORS`]
/// descriptors are never taken in.
pub(crate) fn receive_with_fds(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Datagram, Errno> {
    let mut control = [0_u64; CONTROL];
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a msghdr of zeroes is valid: no name, no vectors, no control data.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header's pointers and lengths name `iov`, `buffer` and `control`, which live across the call.
    let result = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    if result < 0 {
        return Err(NixErrno::last_raw());
    }
    let fds = numbers(&control)
        .map(|number| {
            // SAFETY: the kernel put this number there as a new descriptor of this process; nothing else owns it.
            unsafe { OwnedFd::from_raw_fd(number) }
        })
        .collect();
    let whole = match header.msg_flags {
        flags if flags & libc::MSG_TRUNC != 0 => Whole::BytesCut,
        flags if flags & libc::MSG_CTRUNC != 0 => Whole::DescriptorsCut,
        _ => Whole::Yes,
    };
    Ok(Datagram { length: result.cast_unsigned(), fds, whole })
}

/// The numbers in a control buffer that was zero before: on a socket without other options SCM_RIGHTS is all that comes.
fn numbers(control: &[u64; CONTROL]) -> impl Iterator<Item = i32> {
    let rights =
        u64::from(libc::SOL_SOCKET.cast_unsigned()) | u64::from(libc::SCM_RIGHTS.cast_unsigned()) << 32;
    let [size, kind, data @ ..] = *control;
    let bytes = usize::try_from(size).unwrap_or(0).saturating_sub(16);
    let count = if kind == rights { (bytes / 4).min(DESCRIPTORS) } else { 0 };
    let halves = data.into_iter().flat_map(|word| [word & 0xffff_ffff, word >> 32]);
    halves.take(count).filter_map(|half| i32::try_from(half).ok())
}
