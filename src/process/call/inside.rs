//! What a function of the caller's finds around it in the copy: its descriptors, a panic hook of its own, and the way its
//! result takes. It must not return: the frames above are the caller's.

use std::cell::RefCell;
use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};

use nix::errno::Errno;
use nix::unistd::write;

use super::super::channel::Channel;
use super::answer::{BEGUN, PANICKED, Panic, Portable, RETURNED, head};
use crate::sys;

/// Number of the socket for the result; what is passed comes behind it.
pub(super) const ANSWER_FD: i32 = 3;
/// The exit code behind a panic is Rust's own.
pub(super) const PANIC_CODE: i32 = 101;
/// The result could not be written.
const MUTE_CODE: i32 = 102;

/// What a function that runs behind the fence has beside its standard streams.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Io {
    /// Its end of the channel, if it was given one.
    pub channel: Option<Channel>,
    /// Descriptors that were passed, in their order.
    pub fds: Vec<OwnedFd>,
}

/// What was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) channels: i32,
    pub(super) fds: i32,
}

impl Io {
    /// From the agreed numbers.
    fn taken(from: i32, passed: Passed) -> Self {
        let channel = (passed.channels == 1).then(|| Channel::owning(sys::own(from)));
        let first = from + passed.channels;
        Self { channel, fds: (first..first + passed.fds).map(sys::own).collect() }
    }

    pub(in super::super) fn new(channel: Option<Channel>, fds: Vec<OwnedFd>) -> Self {
        Self { channel, fds }
    }
}

thread_local! {
    /// The last panic of this thread.
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Leaves nothing of the caller's that would run here by itself: its panic hook is not called, and not dropped either, as that
/// could run its code too. The environment is empty.
pub(in super::super) fn settle() {
    sys::forget_environment();
    mem::forget(panic::take_hook());
    panic::set_hook(Box::new(note));
}

/// Remembers a panic and says it on standard error, without std's lock of it.
fn note(info: &PanicHookInfo<'_>) {
    let panic = Panic::of(info);
    // Nobody may be there to read it.
    write(io::stderr().as_fd(), format!("{panic}\n").as_bytes()).ok();
    LAST.with(|last| last.replace(Some(panic)));
}

/// Runs the function and ends the process.
pub(super) fn run<T: Portable>(function: impl FnOnce(Io) -> T, passed: Passed) -> ! {
    let answer = sys::own(ANSWER_FD);
    settle();
    say(&answer, &[BEGUN]);
    let io = Io::taken(ANSWER_FD + 1, passed);
    let code = match catch_unwind(AssertUnwindSafe(|| function(io).into_bytes())) {
        Ok(bytes) => {
            say(&answer, &head(RETURNED, bytes.len()));
            say(&answer, &bytes);
            0
        }
        Err(payload) => {
            // Its drop would be code of whoever made it.
            mem::forget(payload);
            let bytes = LAST.with(|last| last.borrow_mut().take()).unwrap_or_default().to_bytes();
            say(&answer, &head(PANICKED, bytes.len()));
            say(&answer, &bytes);
            PANIC_CODE
        }
    };
    finish(code)
}

/// What was printed is written; then the end, without any handler or destructor of the caller's.
pub(in super::super) fn finish(code: i32) -> ! {
    // Where nobody reads any more there is nobody to tell.
    io::stdout().flush().ok();
    sys::leave(code)
}

fn say(answer: &OwnedFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match write(answer, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(_) => sys::leave(MUTE_CODE),
        }
    }
}
