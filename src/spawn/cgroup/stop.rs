//! SIGSTOP and SIGCONT for a tree without a freezer. It must not stop the sandbox's init, which has to see the caller's end.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::result::Result as StdResult;

use super::control::{FrozenBy, Motion};
use crate::spawn::look::{self, Unseen};
use crate::sys;

/// Rounds after which a tree that still grows is left as it is.
const ROUNDS: usize = 50;

/// Stops the program and its descendants, from the top, until a round finds nothing new. A stopped process neither makes
/// another nor reaps one, so a pid below it stays whose it is. What fails is taken back.
pub(crate) fn set_motion(init: i32, program: i32, motion: Motion) -> StdResult<FrozenBy, Unseen> {
    rounds(init, (program, None), motion).map(|_| FrozenBy::Stop)
}

/// Ends the program and what descends from it, and nothing else: all of them stand still before the first is killed, so that
/// none is made meanwhile, and none is adopted by somebody else. Returns what was killed. Where not all can be found none is.
pub(crate) fn end_tree(init: i32, program: i32) -> StdResult<Vec<OwnedFd>, Unseen> {
    let mut doomed = rounds(init, (program, Some(init)), Motion::Frozen)?;
    // ESRCH: it has ended already.
    doomed.retain(|pidfd| sys::send_signal(pidfd, libc::SIGKILL).is_ok());
    Ok(doomed)
}

/// What got the signal. Where not all can be looked at, what was stopped goes on.
fn rounds(init: i32, top: (i32, Option<i32>), motion: Motion) -> StdResult<Vec<OwnedFd>, Unseen> {
    let mut reached = Vec::new();
    let looked = reach(init, top, motion, &mut reached);
    if looked.is_err() && motion == Motion::Frozen {
        for pidfd in &reached {
            // ESRCH: it has ended meanwhile.
            sys::send_signal(pidfd, libc::SIGCONT).ok();
        }
    }
    looked.map(|()| reached)
}

fn reach(
    init: i32,
    (program, parent): (i32, Option<i32>),
    motion: Motion,
    reached: &mut Vec<OwnedFd>,
) -> StdResult<(), Unseen> {
    let signal = match motion {
        Motion::Frozen => libc::SIGSTOP,
        Motion::Thawed => libc::SIGCONT,
    };
    let mut seen = BTreeSet::new();
    for _ in 0..ROUNDS {
        // Init adopts what lost its parent.
        let adopted = if init == program { Vec::new() } else { children(init)? };
        let top = |pid| (pid, if pid == program { parent } else { Some(init) });
        let mut open: Vec<(i32, Option<i32>)> = adopted.into_iter().chain([program]).map(top).collect();
        let mut fresh = false;
        while let Some((pid, parent)) = open.pop() {
            if seen.insert(pid) {
                fresh = true;
                reached.extend(send(pid, parent, signal)?);
            }
            let below = children(pid)?.into_iter().filter(|child| !seen.contains(child));
            open.extend(below.map(|child| (child, Some(pid))));
        }
        if !fresh {
            break;
        }
    }
    Ok(())
}

/// Through a pidfd, and only if the number was still that of a child of `parent` when it was opened.
fn send(pid: i32, parent: Option<i32>, signal: i32) -> StdResult<Option<OwnedFd>, Unseen> {
    let Some(pidfd) = look::pidfd(pid)? else { return Ok(None) };
    if let Some(parent) = parent
        && !children(parent)?.contains(&pid)
    {
        return Ok(None);
    }
    // ESRCH: it has ended meanwhile, which is as good.
    Ok(sys::send_signal(&pidfd, signal).ok().map(|()| pidfd))
}

fn children(pid: i32) -> StdResult<Vec<i32>, Unseen> {
    look::children(Path::new(&format!("/proc/{pid}")), usize::MAX)
}
