//! How a function's result comes back: bytes with a length, from a process that may have been taken over. It must not
//! allocate more than was received, nor receive more than the limit.

use std::error::Error as StdError;
use std::fmt::{self, Display, Formatter};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::PanicHookInfo;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::super::child::Child;
use super::super::outcome::Outcome;
use crate::error::Error;
use crate::sys;

/// The function is about to run.
pub(super) const BEGUN: u8 = b'B';
/// What follows is its value.
pub(super) const RETURNED: u8 = b'R';
/// What follows is its panic.
pub(super) const PANICKED: u8 = b'P';
const HEAD: usize = 9;
/// Bytes of a panic.
const PANIC_MAX: usize = 16 << 10;
const MESSAGE_MAX: usize = 12 << 10;
/// Bytes received at once.
const CHUNK: usize = 64 << 10;

/// What comes before the bytes: what they are, and how many.
pub(super) fn head(kind: u8, length: usize) -> [u8; HEAD] {
    let mut out = [kind; HEAD];
    out[1..].copy_from_slice(&u64::try_from(length).unwrap_or(u64::MAX).to_le_bytes());
    out
}

/// A value that a function behind the fence can return: bytes, and back. The bytes come from a process that may have been
/// taken over: [`Portable::from_bytes`] must take any.
pub trait Portable: Sized {
    /// Behind the fence.
    fn into_bytes(self) -> Vec<u8>;
    /// In the caller; `None` for bytes that are no such value.
    fn from_bytes(bytes: Vec<u8>) -> Option<Self>;
}

impl Portable for Vec<u8> {
    fn into_bytes(self) -> Vec<u8> {
        self
    }

    fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        Some(bytes)
    }
}

impl Portable for String {
    fn into_bytes(self) -> Vec<u8> {
        Self::into_bytes(self)
    }

    fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        Self::from_utf8(bytes).ok()
    }
}

impl Portable for () {
    fn into_bytes(self) -> Vec<u8> {
        Vec::new()
    }

    fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

impl Portable for bool {
    fn into_bytes(self) -> Vec<u8> {
        vec![u8::from(self)]
    }

    fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        match bytes.as_slice() {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Portable for $type {
            fn into_bytes(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }

            fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
                bytes.as_slice().try_into().ok().map(Self::from_le_bytes)
            }
        }
    )*};
}

number!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64);

/// A panic behind the fence, as it was told: whoever took the function over may have written it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Panic {
    /// Its message; empty for a payload that is no text. At most 12 KiB, the rest is cut.
    pub message: String,
    /// Source file, line and column; empty where unknown.
    pub location: String,
}

impl Panic {
    pub(super) fn of(info: &PanicHookInfo<'_>) -> Self {
        let text = info.payload().downcast_ref::<&str>().copied();
        let text = text.or_else(|| info.payload().downcast_ref::<String>().map(String::as_str));
        let mut message = text.unwrap_or_default().to_owned();
        while message.len() > MESSAGE_MAX {
            message.truncate(MESSAGE_MAX);
            message.pop();
        }
        Self { message, location: info.location().map(ToString::to_string).unwrap_or_default() }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let location = self.location.get(..self.location.len().min(PANIC_MAX - MESSAGE_MAX - 1));
        [location.unwrap_or_default().as_bytes(), b"\n", self.message.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (location, message) = text.split_once('\n').unwrap_or_default();
        Self { message: message.to_owned(), location: location.to_owned() }
    }
}

impl Display for Panic {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "panicked at {}: {}", self.location, self.message)
    }
}

/// Why a call has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallFailure {
    /// It could not be set up; the function has not run.
    Launch(Error),
    /// The function panicked.
    Panicked(Panic),
    /// Its process ended without a result: [`Outcome::verdict`] says why.
    Ended(Box<Outcome>),
    /// The result is larger than the limit, and was not received. The process was killed.
    TooLarge {
        /// The limit, bytes.
        limit: usize,
    },
    /// What came is no value of the type.
    Malformed,
}

impl Display for CallFailure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launch(error) if f.alternate() => write!(f, "{error:#}"),
            Self::Launch(error) => write!(f, "{error}"),
            Self::Panicked(panic) => write!(f, "the function {panic}"),
            Self::Ended(outcome) => write!(f, "the function has no result: {}", outcome.verdict()),
            Self::TooLarge { limit } => write!(f, "the function's result is larger than {limit} bytes"),
            Self::Malformed => f.write_str("the function's result is no value of its type"),
        }
    }
}

impl StdError for CallFailure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Launch(error) => Some(error),
            Self::Panicked(_) | Self::Ended(_) | Self::TooLarge { .. } | Self::Malformed => None,
        }
    }
}

impl From<Error> for CallFailure {
    fn from(error: Error) -> Self {
        Self::Launch(error)
    }
}

/// The caller's end.
#[derive(Debug)]
pub(super) struct Answer(pub(super) OwnedFd);

/// What became of a wait for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    All,
    /// The process has ended, or closed its end.
    End,
    Late,
}

impl Answer {
    /// Receives until `bytes` holds `wanted` of them, or there are no more.
    pub(super) fn fill(
        &self,
        bytes: &mut Vec<u8>,
        wanted: usize,
        (child, deadline): (&Child, Option<Instant>),
    ) -> Result<Got, Errno> {
        let mut chunk = vec![0; CHUNK.min(wanted)];
        while bytes.len() < wanted {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let wait = left.map_or(-1, |left| i32::try_from(left.as_millis()).unwrap_or(i32::MAX));
            let ended = match sys::readable_fds([self.0.as_fd(), child.as_fd()], wait) {
                Ok([0, 0]) if left.is_some_and(|left| left.as_millis() == 0) => return Ok(Got::Late),
                Ok([0, 0]) | Err(libc::EINTR) => continue,
                Ok([_, ended]) => ended != 0,
                Err(errno) => return Err(Errno::from_raw(errno)),
            };
            let room = chunk.len().min(wanted - bytes.len());
            match recv(self.0.as_raw_fd(), &mut chunk[..room], MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Ok(Got::End),
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
                // Somebody else holds the other end; but who was to write is gone.
                Err(Errno::EAGAIN) if ended => return Ok(Got::End),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok(Got::End),
                Err(errno) => return Err(errno),
            }
        }
        Ok(Got::All)
    }

    /// The result, if one comes: what it is, and its bytes.
    pub(super) fn receive(&self, child: &Child, limit: usize) -> Result<Option<(u8, Vec<u8>)>, CallFailure> {
        let failed = |errno: Errno| CallFailure::Launch(super::failed("recv", errno as i32));
        let mut bytes = Vec::new();
        if self.fill(&mut bytes, HEAD, (child, None)).map_err(failed)? != Got::All {
            return Ok(None);
        }
        let [kind, length @ ..] = bytes.as_slice() else { return Ok(None) };
        let kind = *kind;
        let length: [u8; 8] = length.try_into().map_err(|_| CallFailure::Malformed)?;
        let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
        let limit = if kind == PANICKED { PANIC_MAX } else { limit };
        if length > limit {
            return Err(CallFailure::TooLarge { limit });
        }
        bytes.clear();
        match self.fill(&mut bytes, length, (child, None)).map_err(failed)? {
            Got::All => Ok(Some((kind, bytes))),
            Got::End | Got::Late => Ok(None),
        }
    }
}

/// A panic as it came.
pub(super) fn panic(bytes: &[u8]) -> CallFailure {
    CallFailure::Panicked(Panic::from_bytes(bytes))
}
