//! Both sides of what connects a program with its caller: streams, terminal, channel. It must not outlive the launch: the
//! program's side goes with it, the caller's to the child.

use std::io;
use std::os::fd::OwnedFd;

use super::channel::Channel;
use super::stdio::Stdio;
use super::terminal::{Terminal, WindowSize};
use crate::error::{Error, ErrorKind, Object, Result, Step};
use crate::spawn::Streams;

/// The caller's side.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) channel: Option<Channel>,
    pub(super) terminal: Option<Terminal>,
    /// Under which the child is listed among the living.
    pub(super) name: Option<String>,
}

/// Opens what the streams are to be.
pub(super) fn streams(stdio: [&Stdio; 3]) -> Result<(Streams, Ends)> {
    for (number, stream) in (0..).zip(stdio) {
        stream.check(number)?;
    }
    let (inner, stdin) = stdio[0].ends(0)?;
    let (outer, stdout) = stdio[1].ends(1)?;
    let (errors, stderr) = stdio[2].ends(2)?;
    Ok(([inner, outer, errors], Ends { stdin, stdout, stderr, ..Ends::default() }))
}

/// All three the program's side of a new terminal.
pub(super) fn terminal(size: WindowSize) -> Result<(Streams, Ends)> {
    let (terminal, peer) = Terminal::open(size).map_err(|error| failed("terminal", "ioctl", &error))?;
    let copy = || peer.try_clone().map_err(|error| failed("terminal", "fcntl", &error));
    let streams = [Some(copy()?), Some(copy()?), Some(peer)];
    Ok((streams, Ends { terminal: Some(terminal), ..Ends::default() }))
}

/// A new channel: the caller's end, and the program's.
pub(super) fn channel() -> Result<(Channel, OwnedFd)> {
    let (ours, theirs) = Channel::pair().map_err(|error| failed("channel", "socketpair", &error))?;
    Ok((ours, theirs.into()))
}

fn failed(what: impl Into<Object>, call: &'static str, error: &io::Error) -> Error {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    Error::new(ErrorKind::Setup, Step::Descriptors, what).call(call, errno)
}
