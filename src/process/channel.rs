//! The application's own messages between caller and program, with descriptors in them. It must not trust the other side:
//! a message has a largest size, and what is too much is dropped, not kept.

use std::env;
use std::fmt::{self, Debug, Formatter};
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{Linger, ReceiveTimeout, SendTimeout, SockType as TypeOption};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, getsockopt, sendmsg, setsockopt, socketpair,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::sys::{self, DESCRIPTORS, Whole};

/// One end of a channel for the application's own messages (unix(7), `SOCK_SEQPACKET`): each is received whole, with the
/// descriptors that were sent with it, or not at all.
///
/// Neither side has to trust the other: nothing larger than [`Channel::MESSAGE_MAX`] and no more descriptors than
/// [`Channel::DESCRIPTORS_MAX`] are taken in. What a descriptor is, is for the receiver to check (fstat(2)).
///
/// The program finds its end under the number given to [`crate::Command::channel`], and that number in the environment
/// variable [`Channel::VARIABLE`]; in any language it is a socket to call send(2) and recv(2) on.
pub struct Channel(OwnedFd);

/// A message as it was received.
#[derive(Debug, Default)]
pub struct Message {
    /// What was written.
    pub bytes: Vec<u8>,
    /// What was passed with it, each close-on-exec, sockets without `SO_LINGER`. As long as the program lives and has the same
    /// socket, it can set that again, and then closing it waits: kill first what is not trusted.
    pub fds: Vec<OwnedFd>,
}

/// Taken over once: a second owner of one number would close it twice.
static INHERITED: AtomicBool = AtomicBool::new(false);

impl Channel {
    /// Bytes of the largest message.
    pub const MESSAGE_MAX: usize = 64 << 10;
    /// The most descriptors of one message.
    pub const DESCRIPTORS_MAX: usize = DESCRIPTORS;
    /// The variable in which the program finds the number of its end.
    pub const VARIABLE: &'static str = "RINGFENCE_CHANNEL";

    /// Both ends.
    ///
    /// # Errors
    /// `EMFILE` or `ENFILE` where there are no descriptors left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self(one), Self(other)))
    }

    pub(super) fn owning(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The end that this program was started with, once; `None` where it was started with none, or it was taken already.
    ///
    /// # Errors
    /// Where the variable names no open socket of the right type.
    pub fn inherited() -> io::Result<Option<Self>> {
        let Some(text) = env::var_os(Self::VARIABLE) else { return Ok(None) };
        if INHERITED.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        let wrong = || io::Error::new(ErrorKind::InvalidData, format!("{}={text:?}", Self::VARIABLE));
        let number: RawFd = text.to_str().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        // A copy that is this one's own; the number itself stays, but not for what this program executes.
        let fd = sys::duplicate(number, 3).map_err(io::Error::from_raw_os_error)?;
        if getsockopt(&fd, TypeOption)? != SockType::SeqPacket {
            return Err(wrong());
        }
        sys::close_on_exec(number).map_err(io::Error::from_raw_os_error)?;
        Ok(Some(Self(fd)))
    }

    /// How long sending and receiving may take; `None`, the default, is without end. A program that reads nothing makes a
    /// sender wait once the kernel's buffer is full.
    ///
    /// # Errors
    /// `EDOM` for a time that the kernel does not take (socket(7), `SO_RCVTIMEO`).
    pub fn set_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        // Zero would mean "without end" to the kernel.
        let micros = limit.map_or(0, |limit| i64::try_from(limit.as_micros()).unwrap_or(i64::MAX).max(1));
        let limit = TimeVal::microseconds(micros);
        setsockopt(&self.0, SendTimeout, &limit)?;
        Ok(setsockopt(&self.0, ReceiveTimeout, &limit)?)
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an empty message or one above the limits; [`ErrorKind::TimedOut`];
    /// [`ErrorKind::BrokenPipe`] where the other end is closed (no signal is raised).
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let invalid = |why: &'static str| Err(io::Error::new(ErrorKind::InvalidInput, why));
        match (bytes.len(), fds.len()) {
            (0, _) => return invalid("an empty message would look like the end"),
            (length, _) if length > Self::MESSAGE_MAX => return invalid("the message is too long"),
            (_, count) if count > Self::DESCRIPTORS_MAX => return invalid("too many descriptors"),
            _ => {}
        }
        let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let control = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
        loop {
            let sent = sendmsg::<()>(
                self.0.as_raw_fd(),
                &[IoSlice::new(bytes)],
                control,
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
            match sent {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                // What older kernels say where the other end is being closed at that moment.
                Err(Errno::ECONNREFUSED) => return Err(Errno::EPIPE.into()),
                Err(errno) => return Err(timed_out(errno)),
            }
        }
    }

    /// Receives one message; `None` is the end, or an empty message.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidData`] for a message above the limits: it is gone, with every descriptor in it.
    /// [`ErrorKind::TimedOut`].
    pub fn receive(&self) -> io::Result<Option<Message>> {
        let mut bytes = vec![0; Self::MESSAGE_MAX];
        let datagram = loop {
            match sys::receive_with_fds(self.0.as_fd(), &mut bytes) {
                Ok(datagram) => break datagram,
                Err(libc::EINTR) => {}
                // The other end was closed with messages of ours unread: the same end.
                Err(libc::ECONNRESET) => return Ok(None),
                Err(errno) => return Err(timed_out(Errno::from_raw(errno))),
            }
        };
        // Closing a socket can wait for as long as its sender has said (socket(7), `SO_LINGER`).
        for fd in &datagram.fds {
            // ENOTSOCK: then it is none.
            setsockopt(fd, Linger, &libc::linger { l_onoff: 0, l_linger: 0 }).ok();
        }
        let invalid = |why: &'static str| Err(io::Error::new(ErrorKind::InvalidData, why));
        match datagram.whole {
            Whole::BytesCut => return invalid("a message above MESSAGE_MAX"),
            Whole::DescriptorsCut => return invalid("a message above DESCRIPTORS_MAX"),
            Whole::Yes if datagram.length == 0 => return Ok(None),
            Whole::Yes => {}
        }
        bytes.truncate(datagram.length);
        bytes.shrink_to_fit();
        Ok(Some(Message { bytes, fds: datagram.fds }))
    }
}

fn timed_out(errno: Errno) -> io::Error {
    if errno == Errno::EAGAIN { ErrorKind::TimedOut.into() } else { errno.into() }
}

impl Debug for Channel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.0.as_raw_fd()).finish()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}
