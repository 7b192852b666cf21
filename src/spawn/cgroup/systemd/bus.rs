//! One conversation with a manager of systemd over its bus. Every wait has an end; nothing is started, nobody is asked for a
//! password, and no thread is made.

use std::io::{Error as IoError, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process;
use std::result::Result as StdResult;
use std::str;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::geteuid;

use super::refusal::Why;
use super::wire::{self, Answer, Heard, Target, Values};

/// A connection.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    deadline: Instant,
    serial: u32,
    heard: Vec<u8>,
}

impl Bus {
    /// Connects, and makes sure that the manager means by a pid the process that this one means.
    pub(super) fn connect(address: &str, deadline: Instant) -> StdResult<Self, Why> {
        let stream = UnixStream::from(open(address)?);
        let mut bus = Self { stream, deadline, serial: 0, heard: Vec::new() };
        bus.authenticate()?;
        let serial = bus.send(Target::Bus, "Hello", Values::Nothing)?;
        let Answer::Text(name) = bus.answer(serial)? else { return Err(Why::Malformed) };
        let serial = bus.send(Target::Bus, "GetConnectionUnixProcessID", Values::Name(&name))?;
        match bus.answer(serial)? {
            Answer::Number(pid) if pid == process::id() => Ok(bus),
            Answer::Number(pid) => Err(Why::OtherPids { own: process::id(), seen: pid }),
            Answer::Text(_) | Answer::Other => Err(Why::Malformed),
        }
    }

    /// "EXTERNAL": who this is the kernel tells the bus (the D-Bus Specification, "Authentication Protocol").
    fn authenticate(&mut self) -> StdResult<(), Why> {
        let uid: String = geteuid().to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        self.write(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > 512 {
                return Err(Why::Malformed);
            }
            let mut byte = [0];
            if self.read(&mut byte, self.deadline)?.is_none() {
                return Err(Why::NoAnswer);
            }
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK ") {
            return Err(Why::NotAuthenticated(String::from_utf8_lossy(&line).trim().to_owned()));
        }
        self.write(b"BEGIN\r\n")
    }

    /// Makes a call; its number.
    pub(super) fn send(&mut self, target: Target, member: &str, values: Values<'_>) -> StdResult<u32, Why> {
        self.serial += 1;
        let bytes = wire::call(target, member, self.serial, values).map_err(|_| Why::Malformed)?;
        self.write(&bytes)?;
        Ok(self.serial)
    }

    /// Waits for the answer to a call.
    pub(super) fn answer(&mut self, to: u32) -> StdResult<Answer, Why> {
        loop {
            match self.hear(self.deadline)? {
                None => return Err(Why::NoAnswer),
                Some(Heard::Return { serial, values, .. }) if serial == to => return Ok(values),
                Some(Heard::Error { serial, name, text }) if serial == to => {
                    return Err(Why::Answer { name, text });
                }
                Some(_) => {}
            }
        }
    }

    /// The next message; `None` if none comes until then.
    pub(super) fn hear(&mut self, until: Instant) -> StdResult<Option<Heard>, Why> {
        loop {
            if let Some(length) = wire::length(&self.heard).map_err(|_| Why::Malformed)?
                && self.heard.len() >= length
            {
                let rest = self.heard.split_off(length);
                let message = mem::replace(&mut self.heard, rest);
                return wire::parse(&message).map(Some).map_err(|_| Why::Malformed);
            }
            let mut buffer = [0; 4096];
            match self.read(&mut buffer, until)? {
                Some(length) => self.heard.extend_from_slice(&buffer[..length]),
                None => return Ok(None),
            }
        }
    }

    /// Some bytes; `None` if none come until then.
    fn read(&mut self, buffer: &mut [u8], until: Instant) -> StdResult<Option<usize>, Why> {
        loop {
            let Some(left) = left(until) else { return Ok(None) };
            self.stream.set_read_timeout(Some(left)).map_err(|error| socket_error("setsockopt", &error))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(Why::Closed),
                Ok(length) => return Ok(Some(length)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN) => {}
                    Some(libc::ECONNRESET) => return Err(Why::Closed),
                    _ => return Err(socket_error("read", &error)),
                },
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> StdResult<(), Why> {
        while !bytes.is_empty() {
            let Some(left) = left(self.deadline) else { return Err(Why::NoAnswer) };
            self.stream.set_write_timeout(Some(left)).map_err(|error| socket_error("setsockopt", &error))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(Why::Closed),
                Ok(length) => bytes = &bytes[length..],
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN) => {}
                    Some(libc::EPIPE | libc::ECONNRESET) => return Err(Why::Closed),
                    _ => return Err(socket_error("write", &error)),
                },
            }
        }
        Ok(())
    }
}

/// A timeout of nothing would be none at all.
fn left(until: Instant) -> Option<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    (!left.is_zero()).then(|| left.max(Duration::from_millis(1)))
}

fn socket_error(call: &'static str, error: &IoError) -> Why {
    Why::Socket { call, errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

/// The first local socket of an address that can be connected to. A bus that takes nobody in is not waited for.
fn open(address: &str) -> StdResult<OwnedFd, Why> {
    let mut last = Why::Address(address.to_owned());
    for one in address.split(';') {
        let Some(place) = local(one) else { continue };
        match open_one(&place) {
            Ok(fd) => return Ok(fd),
            Err((call, errno)) => last = Why::Socket { call, errno: errno as i32 },
        }
    }
    Err(last)
}

fn open_one(place: &UnixAddr) -> StdResult<OwnedFd, (&'static str, Errno)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(|errno| ("socket", errno))?;
    connect(fd.as_raw_fd(), place).map_err(|errno| ("connect", errno))?;
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::empty())).map_err(|errno| ("fcntl", errno))?;
    Ok(fd)
}

/// `unix:path=…` or `unix:abstract=…`, with `%` and two digits for odd bytes (the D-Bus Specification, "Server Addresses").
fn local(address: &str) -> Option<UnixAddr> {
    for pair in address.strip_prefix("unix:")?.split(',') {
        let (key, value) = pair.split_once('=')?;
        let value = unescape(value)?;
        match key {
            "path" => return UnixAddr::new(value.as_slice()).ok(),
            "abstract" => return UnixAddr::new_abstract(&value).ok(),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        out.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    Some(out)
}
