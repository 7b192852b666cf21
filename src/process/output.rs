//! What a program writes to its piped streams, read to its end by the thread that waits. It must not keep more than it may,
//! and must not wait for others who hold the other end.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// Why reading is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The streams, or everything inside, have ended.
    Ended,
    /// The program has written more than is kept.
    Flooded,
}

/// A stream that is read, and what it gave.
#[derive(Debug)]
pub(super) struct Stream {
    file: Option<File>,
    pub(super) bytes: Vec<u8>,
}

impl Stream {
    pub(super) fn new(fd: Option<OwnedFd>) -> Self {
        Self { file: fd.map(File::from), bytes: Vec::new() }
    }

    fn is_ready(&self) -> bool {
        self.file.as_ref().is_some_and(|file| sys::poll_fd(file.as_fd(), 0).unwrap_or(true))
    }

    /// Reads what is there; how much came.
    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else { return Ok(0) };
        match file.read(chunk) {
            Ok(0) => {
                self.file = None;
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            read => read,
        }
    }
}

fn failed(call: &'static str, errno: i32) -> Error {
    Error::new(ErrorKind::Process, Step::Wait, "output").call(call, errno)
}

/// Reads both streams, whichever has something, until both have ended, or have given more than `limit` bytes together. Once
/// everything inside has ended, which `pidfd` tells, what is there is all. What is too much stays open: a program whose pipe is
/// closed would end by that, before it can be killed for it.
pub(super) fn collect(streams: &mut [Stream; 2], pidfd: BorrowedFd<'_>, limit: u64) -> Result<Over> {
    let mut left = limit;
    let mut chunk = vec![0; CHUNK];
    let mut over = Over::Ended;
    while over == Over::Ended && streams.iter().any(|stream| stream.file.is_some()) {
        // In the place of one that has ended stands the pidfd, which is looked at in any case.
        let fds = [0, 1].map(|index| streams[index].file.as_ref().map_or(pidfd, AsFd::as_fd));
        let ready = match sys::readable_fds([fds[0], fds[1], pidfd], -1) {
            Ok(ready) => ready,
            Err(libc::EINTR) => continue,
            Err(errno) => return Err(failed("poll", errno)),
        };
        let ended = ready[2] != 0;
        let mut any = false;
        for (stream, ready) in streams.iter_mut().zip(ready) {
            // What came between that poll and the end shows in a second one.
            if stream.file.is_none() || ready == 0 && !(ended && stream.is_ready()) {
                continue;
            }
            any = true;
            let count = stream
                .read(&mut chunk)
                .map_err(|error| failed("read", error.raw_os_error().unwrap_or(libc::EIO)))?;
            let kept = usize::try_from(left).map_or(count, |left| left.min(count));
            stream.bytes.extend_from_slice(&chunk[..kept]);
            left = left.saturating_sub(u64::try_from(kept).unwrap_or(u64::MAX));
            if kept < count {
                over = Over::Flooded;
                break;
            }
        }
        if ended && !any {
            break;
        }
    }
    Ok(over)
}
