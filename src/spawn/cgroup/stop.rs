//! SIGSTOP and SIGCONT for a tree without a freezer. It must not stop the sandbox's init, which has to see the caller's end.

use std::collections::BTreeSet;
use std::fs;

use super::control::{FrozenBy, Motion};
use crate::sys;

/// Rounds after which a tree that still grows is left as it is.
const ROUNDS: usize = 50;

/// Stops the program and its descendants, from the top, until a round finds nothing new. A stopped process neither makes
/// another nor reaps one, so a pid below it stays whose it is.
pub(crate) fn set_motion(init: i32, program: i32, motion: Motion) -> FrozenBy {
    let signal = match motion {
        Motion::Frozen => libc::SIGSTOP,
        Motion::Thawed => libc::SIGCONT,
    };
    let mut seen = BTreeSet::new();
    for _ in 0..ROUNDS {
        // Init adopts what lost its parent.
        let adopted = if init == program { Vec::new() } else { children(init) };
        let top = |pid| (pid, if pid == program { None } else { Some(init) });
        let mut open: Vec<(i32, Option<i32>)> = adopted.into_iter().chain([program]).map(top).collect();
        let mut fresh = false;
        while let Some((pid, parent)) = open.pop() {
            if seen.insert(pid) {
                fresh = true;
                send(pid, parent, signal);
            }
            let below = children(pid).into_iter().filter(|child| !seen.contains(child));
            open.extend(below.map(|child| (child, Some(pid))));
        }
        if !fresh {
            break;
        }
    }
    FrozenBy::Stop
}

/// Through a pidfd, and only if the number was still that of a child of `parent` when it was opened.
fn send(pid: i32, parent: Option<i32>, signal: i32) {
    let Ok(pidfd) = sys::open_pidfd(pid) else { return };
    if parent.is_none_or(|parent| children(parent).contains(&pid)) {
        // ESRCH: it has ended meanwhile, which is as good.
        sys::send_signal(&pidfd, signal).ok();
    }
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    texts
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .collect()
}
