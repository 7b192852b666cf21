//! Follows a caller, or the child that it makes, from system call to system call (ptrace(2)), and kills the caller at one of
//! them. It must not keep anything alive that would end without it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Child;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::support::status_field;

const SEIZE: libc::c_uint = 0x4206;
const INTERRUPT: libc::c_uint = 0x4207;
/// A system call's stop is told from a signal's.
const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;
const GOOD: usize = 1;
const NEW_PROCESS_THAT_SHARES: usize = 4;
const NEW_THREAD: usize = 8;

/// Whose calls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// The caller's, whichever thread makes them.
    Caller,
    /// Those of the child in the window and in the image, up to its fork and beyond.
    Child,
}

fn trace(request: libc::c_uint, pid: i32, data: usize) -> bool {
    // SAFETY: no request that is made here takes an address; the last argument is a number.
    unsafe { libc::ptrace(request, pid, 0_usize, data) == 0 }
}

/// What the caller has written by now.
fn said(caller: &mut Child, text: &mut String) {
    let stdout = caller.stdout.as_mut().unwrap();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::ZERO) == Ok(1) {
        let mut bytes = [0; 256];
        let count = stdout.read(&mut bytes).unwrap();
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}

/// Lets a caller that has said the number of its thread go on, and kills it at the stop with this number. Returns how many
/// stops there were; fewer, if it came to its end before (and then it is killed there).
pub(crate) fn kill_at(caller: &mut Child, thread: i32, follow: Follow, at: usize) -> usize {
    let own = caller.id().cast_signed();
    let child = if follow == Follow::Child { NEW_PROCESS_THAT_SHARES } else { 0 };
    assert!(trace(SEIZE, thread, GOOD | NEW_THREAD | child), "the caller can be traced");
    assert!(trace(INTERRUPT, thread, 0));
    caller.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let (mut steps, mut text) = (0, String::new());
    let mut of_caller: BTreeMap<i32, bool> = BTreeMap::new();
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one number.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::WNOHANG) };
        if pid <= 0 {
            said(caller, &mut text);
            if text.contains("DONE") {
                break;
            }
            thread::sleep(Duration::from_micros(20));
            continue;
        }
        if !libc::WIFSTOPPED(status) {
            continue;
        }
        let callers = *of_caller
            .entry(pid)
            .or_insert_with(|| status_field(pid, "Tgid").is_none_or(|group| group == own.to_string()));
        let counts = callers == (follow == Follow::Caller);
        let signal = libc::WSTOPSIG(status);
        if counts && signal == SYSCALL_STOP {
            steps += 1;
            if steps == at {
                kill(own);
                // It goes on as if nobody had looked; or it has ended with its caller at once.
                if !callers {
                    let let_go = trace(libc::PTRACE_DETACH, pid, 0);
                    assert!(let_go || Errno::last() == Errno::ESRCH, "{}", Errno::last());
                }
                return steps;
            }
        }
        let event = status >> 16 != 0 || signal & 0x7f == libc::SIGTRAP;
        let pass = if event { 0 } else { usize::try_from(signal).unwrap() };
        let request = if counts { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT };
        trace(request, pid, pass);
    }
    kill(own);
    steps
}

fn kill(pid: i32) {
    // SAFETY: the call takes numbers; the process is this one's child and not reaped.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

/// Reaps everything that this process has or inherits; whether nothing is left.
pub(crate) fn nothing_left() -> bool {
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one number.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::WNOHANG) } {
            0 => return false,
            -1 => return true,
            // What was traced and not let go.
            pid if libc::WIFSTOPPED(status) => drop(trace(libc::PTRACE_DETACH, pid, 0)),
            _ => {}
        }
    }
}

/// The mounts of this process.
pub(crate) fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}
