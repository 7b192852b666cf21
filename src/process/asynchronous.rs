//! A running program for tokio: its pidfd and its pipes on the runtime's reactor. It must not start a runtime, nor a thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::{select, try_join};

use super::child::Child;
use super::outcome::Outcome;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::sys::watch_readable;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// A [`Child`] on a tokio runtime (feature `tokio`): waiting does not block a thread, and piped streams are
/// [`tokio::io::AsyncWrite`] and [`tokio::io::AsyncRead`].
///
/// Cancelling is dropping: a future of this type that is dropped leaves the program running, and dropping the child itself
/// kills and reaps everything inside, which takes a few milliseconds of the thread that drops it. So
/// `tokio::time::timeout(limit, child.wait_with_output())` kills at the limit, as it owns the child.
///
/// Spawning is a matter of a few milliseconds on the thread that does it; in a busy runtime that belongs into
/// `tokio::task::spawn_blocking`.
///
/// ```no_run
/// # async fn example() -> ringfence::Result<()> {
/// use ringfence::{AsyncChild, Sandbox, Stdio};
///
/// let sandbox = Sandbox::builder().system_read_only().build()?;
/// let child = sandbox.command("date").stdout(Stdio::piped()).spawn()?;
/// let outcome = AsyncChild::new(child)?.wait_with_output().await?;
/// # let _ = outcome;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping a child kills it"]
pub struct AsyncChild {
    /// The caller's end of a piped standard input.
    pub stdin: Option<Sender>,
    /// The caller's end of a piped standard output.
    pub stdout: Option<Receiver>,
    /// The caller's end of a piped standard error.
    pub stderr: Option<Receiver>,
    // Before the child: the reactor is to let go of it first.
    pidfd: AsyncFd<OwnedFd>,
    child: Child,
}

impl AsyncChild {
    /// Takes a child over, with its pipes.
    ///
    /// # Errors
    /// [`ErrorKind::Process`] where there are no descriptors left. The child is killed then.
    ///
    /// # Panics
    /// Outside of a runtime with I/O enabled, as everything of tokio that does I/O.
    pub fn new(mut child: Child) -> Result<Self> {
        let stdin = child.stdin.take().map(|stream| Sender::from_owned_fd(stream.into()));
        let stdout = child.stdout.take().map(|stream| Receiver::from_owned_fd(stream.into()));
        let stderr = child.stderr.take().map(|stream| Receiver::from_owned_fd(stream.into()));
        let pidfd = child.as_fd().try_clone_to_owned().map_err(failed("pidfd"))?;
        let pidfd = watch_readable(pidfd).map_err(failed("pidfd"))?;
        Ok(Self {
            stdin: stdin.transpose().map_err(failed("stdin"))?,
            stdout: stdout.transpose().map_err(failed("stdout"))?,
            stderr: stderr.transpose().map_err(failed("stderr"))?,
            pidfd,
            child,
        })
    }

    /// The child, for all that does not wait: signals, limits, events, the report.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Waits for the end of the program and of everything inside. Can be dropped and called again.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub async fn wait(&self) -> Result<Outcome> {
        loop {
            let mut ready = self.pidfd.readable().await.map_err(failed("pidfd"))?;
            if let Some(outcome) = self.child.try_wait()? {
                return Ok(outcome);
            }
            ready.clear_ready();
        }
    }

    /// As [`Child::wait_with_output`]: standard input is closed, both streams are read at once and bounded by
    /// [`crate::Builder::output_limit`].
    ///
    /// # Errors
    /// Where reading or waiting fails.
    pub async fn wait_with_output(mut self) -> Result<Outcome> {
        drop(self.stdin.take());
        let left = AtomicU64::new(self.child.output_limit());
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let read = async { try_join!(self.collect(stdout, &left), self.collect(stderr, &left)) };
        let (stdout, stderr) = read.await.map_err(failed("output"))?;
        let outcome = self.wait().await?;
        Ok(Outcome { stdout, stderr, ..outcome })
    }

    /// Everything inside has ended.
    async fn ended(&self) -> io::Result<()> {
        // The readiness stays: others wait for it, too.
        self.pidfd.readable().await.map(|mut ready| ready.retain_ready())
    }

    async fn collect(&self, stream: Option<Receiver>, left: &AtomicU64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let Some(mut stream) = stream else { return Ok(bytes) };
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = select! {
                biased;
                count = stream.read(&mut chunk) => count?,
                // What is there is all: whoever else still holds the other end is not the program.
                ended = self.ended() => {
                    ended?;
                    match stream.try_read(&mut chunk) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(bytes),
                        count => count?,
                    }
                }
            };
            if count == 0 {
                return Ok(bytes);
            }
            let wrote = u64::try_from(count).unwrap_or(u64::MAX);
            let before = left.load(Ordering::SeqCst);
            left.store(before.saturating_sub(wrote), Ordering::SeqCst);
            let kept = usize::try_from(before).map_or(count, |before| before.min(count));
            bytes.extend_from_slice(&chunk[..kept]);
            if before < wrote {
                self.child.flood();
                return Ok(bytes);
            }
        }
    }

    /// Kills everything inside, without waiting for it: [`AsyncChild::wait`] tells when it is gone.
    ///
    /// # Errors
    /// As [`Child::kill`].
    pub fn start_kill(&self) -> Result<()> {
        self.child.start_kill()
    }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Error::new(ErrorKind::Process, Step::Wait, what).call("epoll_ctl", errno)
    }
}
