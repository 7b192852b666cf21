//! SIGSTOP and SIGCONT for a tree without a freezer. It must not stop the sandbox's init, which has to see the caller's end.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;

use super::control::{FrozenBy, Motion};
use crate::sys;

/// Rounds after which a tree that still grows is left as it is.
const ROUNDS: usize = 50;

/// Stops the program and its descendants, from the top, until a round finds nothing new. A stopped process neither makes
/// another nor reaps one, so a pid below it stays whose it is.
pub(crate) fn set_motion(init: i32, program: i32, motion: Motion) -> FrozenBy {
    drop(rounds(init, (program, None), motion));
    FrozenBy::Stop
}

/// Ends the program and what descends from it, and nothing else: all of them stand still before the first is killed, so that
/// none is made meanwhile, and none is adopted by somebody else. Returns what was killed.
pub(crate) fn end_tree(init: i32, program: i32) -> Vec<OwnedFd> {
    let mut doomed = rounds(init, (program, Some(init)), Motion::Frozen);
    // ESRCH: it has ended already.
    doomed.retain(|pidfd| sys::send_signal(pidfd, libc::SIGKILL).is_ok());
    doomed
}

fn rounds(init: i32, (program, parent): (i32, Option<i32>), motion: Motion) -> Vec<OwnedFd> {
    let signal = match motion {
        Motion::Frozen => libc::SIGSTOP,
        Motion::Thawed => libc::SIGCONT,
    };
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for _ in 0..ROUNDS {
        // Init adopts what lost its parent.
        let adopted = if init == program { Vec::new() } else { children(init) };
        let top = |pid| (pid, if pid == program { parent } else { Some(init) });
        let mut open: Vec<(i32, Option<i32>)> = adopted.into_iter().chain([program]).map(top).collect();
        let mut fresh = false;
        while let Some((pid, parent)) = open.pop() {
            if seen.insert(pid) {
                fresh = true;
                found.extend(send(pid, parent, signal));
            }
            let below = children(pid).into_iter().filter(|child| !seen.contains(child));
            open.extend(below.map(|child| (child, Some(pid))));
        }
        if !fresh {
            break;
        }
    }
    found
}

/// Through a pidfd, and only if the number was still that of a child of `parent` when it was opened.
fn send(pid: i32, parent: Option<i32>, signal: i32) -> Option<OwnedFd> {
    let pidfd = sys::open_pidfd(pid).ok()?;
    if parent.is_some_and(|parent| !children(parent).contains(&pid)) {
        return None;
    }
    // ESRCH: it has ended meanwhile, which is as good.
    sys::send_signal(&pidfd, signal).ok().map(|()| pidfd)
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    texts
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .collect()
}
