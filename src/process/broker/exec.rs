//! Execs for a program. No supervisor can carry an exec out in another process: so it starts a program of its own, and the
//! one that asked gets a descriptor that tells how that ended. It must not decide.

use std::ffi::{OsStr, OsString};
use std::io::{PipeWriter, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::result::Result as StdResult;
use std::thread::Builder;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::{Child, Command, Stdio};
use super::path::{absolute, copied, int};
use crate::spawn::{CallError, NotifiedCall, OnExec, Response};

/// Bytes of one argument, and of all of them with their pointers, that are copied: what execve(2) takes by default.
const ARGUMENT: usize = 128 << 10;
const ARGUMENTS: usize = 2 << 20;
/// A pointer of the program's, bytes.
const POINTER: usize = 8;
const STACK: usize = 256 << 10;

/// A program that a program wants to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecRequest {
    /// Absolute, without `.` and `..`.
    pub path: PathBuf,
    /// Its arguments, the name first.
    pub arguments: Vec<OsString>,
    /// The working directory of the one that asks.
    pub directory: PathBuf,
    /// The thread that asks, as this process sees it.
    pub thread: u32,
}

/// What becomes of it.
///
/// **An exec cannot be carried out for another process**: the kernel reads path and arguments from its memory once more, so
/// whatever was decided, something else may run. So a brokered exec is a different thing, for programs that know of it:
/// **the call returns**, with a descriptor. The caller's command has been started, with the streams of the one that asked;
/// four bytes can be read from the descriptor when it ends, its wait status as a native `int` (wait(2)), and the end of file
/// without them says that it was lost. Closing the descriptor kills what was started. To a program that does not know of it
/// the exec seems to have failed.
///
/// Arguments of more than 2 MiB, or one of more than 128 KiB, fail with `E2BIG`, and nobody is asked. **How many commands run
/// at once is the callback's to limit**: each has a thread of this process and its own limits, not those of the one that asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExecDecision {
    /// It fails with this errno.
    Refuse(i32),
    /// This is started, usually of the same sandbox.
    Spawn(Box<Command>),
}

type Decide = dyn Fn(&ExecRequest) -> ExecDecision + Send + Sync;

pub(super) fn answer(call: &NotifiedCall<'_>, decide: &Decide) -> StdResult<Response, i32> {
    let [a, b, c, ..] = call.arguments();
    let (directory, path, list) =
        if call.name() == Some("execve") { (libc::AT_FDCWD, a, b) } else { (int(a), b, c) };
    let request = ExecRequest {
        path: absolute(call, directory, &copied(call, path)?)?,
        arguments: arguments(call, list)?,
        directory: absolute(call, libc::AT_FDCWD, Path::new("."))?,
        thread: call.thread_id(),
    };
    let mut command = match decide(&request) {
        ExecDecision::Refuse(errno) => return Err(errno),
        ExecDecision::Spawn(command) => command,
    };
    // What the one that asks has not got, the command keeps as it was made.
    if let Ok(fd) = call.fetch_fd(0) {
        command.stdin(Stdio::from(fd));
    }
    if let Ok(fd) = call.fetch_fd(1) {
        command.stdout(Stdio::from(fd));
    }
    if let Ok(fd) = call.fetch_fd(2) {
        command.stderr(Stdio::from(fd));
    }
    let child = command.spawn().map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
    let (read, write) = pipe().map_err(|error| error.raw_os_error().unwrap_or(libc::EMFILE))?;
    let builder = Builder::new().name("ringfence-exec".to_owned()).stack_size(STACK);
    builder.spawn(move || watch(&child, write)).map_err(|_| libc::EAGAIN)?;
    Ok(Response::Fd { fd: OwnedFd::from(read), at: None, on_exec: OnExec::Close })
}

/// Tells the end of the child to whoever reads; kills it when nobody does any more.
fn watch(child: &Child, mut tell: PipeWriter) {
    loop {
        let ended = PollFd::new(child.as_fd(), PollFlags::POLLIN);
        let read = PollFd::new(tell.as_fd(), PollFlags::empty());
        let mut list = [ended, read];
        if poll(&mut list, PollTimeout::NONE).is_err() {
            continue;
        }
        let [ended, read] = list.map(|fd| fd.revents().is_some_and(|seen| !seen.is_empty()));
        if ended {
            if let Some(status) = child.wait().ok().and_then(|outcome| outcome.status) {
                // Whoever asked may have gone by now, and then nobody wants to know.
                tell.write_all(&status.into_raw().to_ne_bytes()).ok();
            }
            return;
        }
        if read {
            // The drop behind this kills as well, should this fail.
            child.kill().ok();
            return;
        }
    }
}

fn arguments(call: &NotifiedCall<'_>, list: u64) -> StdResult<Vec<OsString>, i32> {
    let mut out = Vec::new();
    if list == 0 {
        return Ok(out);
    }
    let (mut at, mut left) = (list, ARGUMENTS);
    loop {
        let bytes = call.read_bytes(at, POINTER).map_err(|error| error.errno())?;
        let pointer = bytes.try_into().map_or(0, u64::from_ne_bytes);
        if pointer == 0 {
            return Ok(out);
        }
        left = left.checked_sub(POINTER + 1).ok_or(libc::E2BIG)?;
        let text = call.read_c_string(pointer, ARGUMENT.min(left)).map_err(|error| match error {
            CallError::TooLong => libc::E2BIG,
            CallError::Gone | CallError::Refused { .. } => error.errno(),
        })?;
        left = left.saturating_sub(text.as_bytes().len());
        out.push(OsStr::from_bytes(text.as_bytes()).to_owned());
        at = at.wrapping_add(8);
    }
}
