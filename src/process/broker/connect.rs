//! Connects for a program: a new socket of this process takes the place of the program's. It must not decide.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::result::Result as StdResult;
use std::time::{Duration, Instant};
use std::{ffi::OsStr, fs};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, UnixAddr,
    connect, getsockname, getsockopt, socket, sockopt,
};
use nix::sys::stat::{SFlag, fstat};

use super::path::{absolute, below_root, int};
use crate::spawn::{CallError, NotifiedCall, OnExec, Response};
use crate::sys;

const RESOLVE_NO_LINKS: u64 = 0x02 | 0x04;
/// `struct sockaddr_storage`, bytes.
const LONGEST: usize = 128;

/// Whom a program wants to connect to. `0.0.0.0` and `::` are this host itself, like `127.0.0.1` and `::1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerAddress {
    /// ip(7). Also what an IPv6 socket is to reach by a mapped address (`::ffff:192.0.2.1`).
    V4(SocketAddrV4),
    /// ipv6(7), never a mapped IPv4 address.
    V6(SocketAddrV6),
    /// A local socket by its path (unix(7)), absolute and without `.` and `..`.
    Unix(PathBuf),
    /// A local socket in the abstract namespace, without the leading NUL.
    Abstract(Vec<u8>),
}

/// A connection that a program wants.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectRequest {
    /// Whom to.
    pub peer: PeerAddress,
    /// Stream, datagram or sequenced packets (`SOCK_STREAM`, …).
    pub kind: i32,
    /// The thread that asks, as this process sees it.
    pub thread: u32,
}

/// What becomes of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectDecision {
    /// It fails with this errno.
    Refuse(i32),
    /// A **new socket of this process**, in its network and its tree, is connected to the copied address and takes the place
    /// of the program's descriptor. What was set on the program's own socket is lost, but for `O_NONBLOCK` and close-on-exec;
    /// copies of the descriptor stay as they were. No symlink leads to a local socket.
    ///
    /// **The peer sees this process** (`SO_PEERCRED`, unix(7)): whoever grants by that, D-Bus, systemd or a container's daemon,
    /// grants the program what this process's user may have.
    ///
    /// The socket is connected before the program gets it, whether it blocks or not, within [`crate::Broker::connect_limit`]: one
    /// that is not could be listened on, or sent from to anybody (`MSG_FASTOPEN`). A **datagram** socket is refused with
    /// `EOPNOTSUPP`, as are `SOCK_SEQPACKET` sockets of the internet: sendto(2) on it goes to any address, and nobody is asked.
    Connect,
    /// This socket takes the place of the program's descriptor. Whatever it can be made to do the program can do with it, in
    /// the network that it is of: so it should be a stream's, and connected. (A connect(2) that did not block has to be
    /// called once more when the socket is writable: until then a reset takes it back to one that is not connected.)
    Fd(OwnedFd),
}

type Decide = dyn Fn(&ConnectRequest) -> ConnectDecision + Send + Sync;

fn errno_of(errno: Errno) -> i32 {
    errno as i32
}

pub(super) fn answer(call: &NotifiedCall<'_>, decide: &Decide, limit: Duration) -> StdResult<Response, i32> {
    let [number, address, length, ..] = call.arguments();
    let number = int(number);
    let length = usize::try_from(int(length)).map_err(|_| libc::EINVAL)?;
    if length > LONGEST {
        return Err(libc::EINVAL);
    }
    let bytes = call.read_bytes(address, length).map_err(|error| error.errno())?;
    let address = peer(call, &bytes)?;
    let theirs = call.fetch_fd(number).map_err(|error| error.errno())?;
    let kind = getsockopt(&theirs, sockopt::SockType).map_err(errno_of)?;
    let family = getsockname::<SockaddrStorage>(theirs.as_raw_fd()).map_err(errno_of)?.family();
    if family != Some(address.family()) {
        return Err(libc::EAFNOSUPPORT);
    }
    if !matches!(kind, SockType::Stream | SockType::Datagram | SockType::SeqPacket) {
        return Err(libc::ESOCKTNOSUPPORT);
    }
    let request = ConnectRequest { peer: address.unmapped(), kind: kind as i32, thread: call.thread_id() };
    let on_exec = on_exec(call, number)?;
    let flags = fcntl(&theirs, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate).map_err(errno_of)?;
    let nonblocking = flags.contains(OFlag::O_NONBLOCK);
    let ours = match decide(&request) {
        ConnectDecision::Refuse(errno) => return Err(errno),
        ConnectDecision::Fd(fd) => fd,
        ConnectDecision::Connect => {
            let local = address.family() == AddressFamily::Unix;
            if kind != SockType::Stream && !(local && kind == SockType::SeqPacket) {
                return Err(libc::EOPNOTSUPP);
            }
            let ours = connected(&address, kind, limit)?;
            if !nonblocking {
                fcntl(&ours, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK)).map_err(errno_of)?;
            }
            ours
        }
    };
    call.inject_fd(&ours, Some(number), on_exec).map_err(|error| error.errno())?;
    Ok(Response::Value(0))
}

/// The copied `struct sockaddr`.
fn peer(call: &NotifiedCall<'_>, bytes: &[u8]) -> StdResult<PeerAddress, i32> {
    let two = |at: usize| bytes.get(at..at + 2).and_then(|part| part.try_into().ok());
    let four = |at: usize| bytes.get(at..at + 4).and_then(|part| part.try_into().ok());
    let family = two(0).map(u16::from_ne_bytes).ok_or(libc::EINVAL)?;
    let port = || two(2).map(u16::from_be_bytes).ok_or(libc::EINVAL);
    match i32::from(family) {
        libc::AF_INET if bytes.len() >= 16 => {
            let ip = four(4).map(u32::from_be_bytes).ok_or(libc::EINVAL)?;
            Ok(PeerAddress::V4(SocketAddrV4::new(Ipv4Addr::from(ip), port()?)))
        }
        libc::AF_INET6 if bytes.len() >= 24 => {
            let ip: [u8; 16] = bytes.get(8..24).and_then(|part| part.try_into().ok()).ok_or(libc::EINVAL)?;
            let flow = four(4).map_or(0, u32::from_be_bytes);
            let scope = four(24).map_or(0, u32::from_ne_bytes);
            Ok(PeerAddress::V6(SocketAddrV6::new(Ipv6Addr::from(ip), port()?, flow, scope)))
        }
        libc::AF_UNIX if bytes.len() > 2 => match bytes.get(2..).unwrap_or_default() {
            [0, name @ ..] => Ok(PeerAddress::Abstract(name.to_vec())),
            name => {
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                let path = absolute(call, libc::AT_FDCWD, Path::new(OsStr::from_bytes(name)))?;
                Ok(PeerAddress::Unix(path))
            }
        },
        libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX => Err(libc::EINVAL),
        _ => Err(libc::EAFNOSUPPORT),
    }
}

impl PeerAddress {
    fn family(&self) -> AddressFamily {
        match self {
            Self::V4(_) => AddressFamily::Inet,
            Self::V6(_) => AddressFamily::Inet6,
            Self::Unix(_) | Self::Abstract(_) => AddressFamily::Unix,
        }
    }

    /// Whom it reaches: a callback that refuses an IPv4 address must not be passed by its IPv6 spelling.
    fn unmapped(&self) -> Self {
        if let Self::V6(address) = self
            && let Some(ip) = address.ip().to_ipv4_mapped()
        {
            return Self::V4(SocketAddrV4::new(ip, address.port()));
        }
        self.clone()
    }
}

/// A new socket that is connected, and does not block.
fn connected(address: &PeerAddress, kind: SockType, limit: Duration) -> StdResult<OwnedFd, i32> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let ours = socket(address.family(), kind, flags, None).map_err(errno_of)?;
    match start(&ours, address) {
        Err(libc::EINPROGRESS) => finish(&ours, address, limit)?,
        result => result?,
    }
    Ok(ours)
}

/// Begins the connection of a socket that does not block.
fn start(ours: &OwnedFd, peer: &PeerAddress) -> StdResult<(), i32> {
    let number = ours.as_raw_fd();
    match peer {
        PeerAddress::V4(address) => connect(number, &SockaddrIn::from(*address)),
        PeerAddress::V6(address) => connect(number, &SockaddrIn6::from(*address)),
        PeerAddress::Abstract(name) => connect(number, &UnixAddr::new_abstract(name).map_err(errno_of)?),
        PeerAddress::Unix(path) => {
            let root = fs::File::open("/").map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
            let flags = libc::O_PATH | libc::O_CLOEXEC;
            let place = sys::open_beneath(&root, &below_root(path)?, (flags, 0), RESOLVE_NO_LINKS)?;
            let mode = fstat(&place).map_err(errno_of)?.st_mode;
            if SFlag::from_bits_truncate(mode) & SFlag::S_IFMT != SFlag::S_IFSOCK {
                return Err(libc::ECONNREFUSED);
            }
            let name = format!("/proc/self/fd/{}", place.as_raw_fd());
            connect(number, &UnixAddr::new(name.as_str()).map_err(errno_of)?)
        }
    }
    .map_err(errno_of)
}

/// Waits for it, so long. The second connect(2) is what makes the socket a connected one for the kernel: with the first
/// alone a reset by the peer would take it back to one that can be connected to anybody.
fn finish(ours: &OwnedFd, address: &PeerAddress, limit: Duration) -> StdResult<(), i32> {
    let deadline = Instant::now().checked_add(limit);
    loop {
        let left = deadline.map_or(limit, |deadline| deadline.saturating_duration_since(Instant::now()));
        let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut list = [PollFd::new(ours.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut list, wait) {
            Ok(0) if left.is_zero() => return Err(libc::ETIMEDOUT),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => match start(ours, address) {
                Err(libc::EALREADY | libc::EINPROGRESS) => {}
                result => return result,
            },
            Err(errno) => return Err(errno_of(errno)),
        }
    }
}

/// Whether the program's own descriptor is closed by an exec (proc_pid_fdinfo(5), `flags`).
fn on_exec(call: &NotifiedCall<'_>, number: i32) -> StdResult<OnExec, i32> {
    let seen = call.while_waiting(|thread| {
        fs::read_to_string(format!("/proc/{thread}/fdinfo/{number}"))
            .map_err(|_| CallError::Refused { call: "read", errno: libc::EBADF })
    });
    let text = seen.map_err(|error| error.errno())?;
    let flags =
        text.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    let keeps = flags.is_some_and(|flags| flags & libc::O_CLOEXEC == 0);
    Ok(if keeps { OnExec::Keep } else { OnExec::Close })
}
