//! Standard streams, after std's: what a child's 0, 1 and 2 are.

use crate::error::Object;
use crate::sys;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::result::Result as StdResult;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::error::{Error, ErrorKind, Result, Step};

/// Where a standard stream of the program comes from or goes to.
#[derive(Debug, Default)]
pub struct Stdio(Kind);

#[derive(Debug, Default)]
enum Kind {
    #[default]
    Null,
    Inherit,
    Piped,
    Fd(OwnedFd),
}

impl Stdio {
    /// `/dev/null`. The default: a terminal of the caller is not the program's.
    #[must_use]
    pub fn null() -> Self {
        Self(Kind::Null)
    }

    /// The caller's own stream. If it is a terminal, the program can write escape sequences to it and read from it.
    #[must_use]
    pub fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    /// A pipe to the caller.
    #[must_use]
    pub fn piped() -> Self {
        Self(Kind::Piped)
    }

    /// Whether what it names is open.
    pub(super) fn check(&self, number: RawFd) -> Result<()> {
        let Kind::Fd(fd) = &self.0 else { return Ok(()) };
        duplicate(fd.as_raw_fd()).map(drop).map_err(|errno| {
            Error::new(ErrorKind::InvalidCommand, Step::Descriptors, Object::Fd(number)).nix("fcntl", errno)
        })
    }

    /// The program's end, and the caller's for a pipe. `number` is 0, 1 or 2.
    /// The program's side, `None` for `/dev/null`; and the caller's, where that has one.
    pub(super) fn ends(&self, number: RawFd) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
        let failed = |call, errno| {
            Error::new(ErrorKind::Setup, Step::Descriptors, Object::Fd(number)).nix(call, errno)
        };
        match &self.0 {
            Kind::Null => Ok((None, None)),
            Kind::Inherit => {
                let borrowed = match number {
                    0 => io::stdin().as_raw_fd(),
                    1 => io::stdout().as_raw_fd(),
                    _ => io::stderr().as_raw_fd(),
                };
                match duplicate(borrowed) {
                    Ok(fd) => Ok((Some(fd), None)),
                    // A caller without this stream: a program without it would get it with its first open.
                    Err(Errno::EBADF) => Ok((None, None)),
                    Err(errno) => Err(failed("fcntl", errno)),
                }
            }
            Kind::Piped => {
                let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed("pipe2", errno))?;
                Ok(if number == 0 { (Some(read), Some(write)) } else { (Some(write), Some(read)) })
            }
            Kind::Fd(fd) => {
                let copy = duplicate(fd.as_raw_fd()).map_err(|errno| failed("fcntl", errno))?;
                Ok((Some(copy), None))
            }
        }
    }
}

fn duplicate(fd: RawFd) -> StdResult<OwnedFd, Errno> {
    sys::duplicate(fd, 3).map_err(Errno::from_raw)
}

impl<T: Into<OwnedFd>> From<T> for Stdio {
    fn from(fd: T) -> Self {
        Self(Kind::Fd(fd.into()))
    }
}

macro_rules! stream {
    ($name:ident, $what:literal) => {
        #[doc = concat!("The caller's end of the program's ", $what, ".")]
        #[derive(Debug)]
        pub struct $name(File);

        impl From<OwnedFd> for $name {
            fn from(fd: OwnedFd) -> Self {
                Self(File::from(fd))
            }
        }

        impl From<$name> for OwnedFd {
            fn from(stream: $name) -> Self {
                stream.0.into()
            }
        }

        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }
    };
}

stream!(ChildStdin, "standard input");
stream!(ChildStdout, "standard output");
stream!(ChildStderr, "standard error");

impl Write for ChildStdin {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Read for ChildStdout {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Read for ChildStderr {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}
