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
        let mut open: Vec<i32> = adopted.into_iter().chain([program]).collect();
        let mut fresh = false;
        while let Some(pid) = open.pop() {
            if seen.insert(pid) {
                fresh = true;
                // ESRCH: it has ended meanwhile, which is as good.
                sys::open_pidfd(pid).and_then(|pidfd| sys::send_signal(&pidfd, signal)).ok();
            }
            open.extend(children(pid).into_iter().filter(|child| !seen.contains(child)));
        }
        if !fresh {
            break;
        }
    }
    FrozenBy::Stop
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    texts
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .collect()
}
