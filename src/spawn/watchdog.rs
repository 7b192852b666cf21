//! Ends a child that is stopped in the window: the thread that cloned it waits for it in the kernel and cannot. One thread
//! for the whole process, made at the first launch, asleep while nothing is launched.

use std::mem;
use std::os::fd::OwnedFd;
use std::process;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use super::brief::Brief;
use super::threads::Harmless;
use crate::sys::{self, Block, Reaped};

/// How often it looks while something is launched.
const TICK: Duration = Duration::from_millis(50);
/// How long it goes on looking when nothing is.
const LINGER: Duration = Duration::from_secs(2);

/// So many do not wait for the next tick.
const MANY: usize = 64;

/// One launch: when it is too late, and where the kernel puts the child's pidfd.
#[derive(Debug)]
struct Launch {
    number: u64,
    deadline: Instant,
    pidfd: Arc<AtomicI32>,
}

/// What is left of a child that waited, and takes long to let go of: the last hold on its mounts, and a mapping that every
/// processor with a thread of this process has to forget.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) _namespace: OwnedFd,
    pub(super) _brief: Arc<Brief>,
    pub(super) _pidfd: Arc<OwnedFd>,
    pub(super) _socket: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct State {
    launches: Vec<Launch>,
    /// Killed children that could not be reaped yet.
    frozen: Vec<Arc<OwnedFd>>,
    closing: Vec<Remains>,
    next: u64,
    /// The process that the thread belongs to: a fork of the caller has none.
    process: u32,
    asleep: Asleep,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asleep {
    #[default]
    No,
    Yes,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
static WAKE: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A launch that is watched until this is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    number: u64,
}

/// Reaps a child that was killed, once it can end.
pub(super) fn reap_later(pidfd: Arc<OwnedFd>) {
    let mut guard = state();
    if let Some(state) = started(&mut guard) {
        state.frozen.push(pidfd);
        wake(state);
    }
}

/// Closes what takes long to close, a moment later: at the next tick, or at once where there is much.
pub(super) fn close_later(remains: Remains) {
    let mut guard = state();
    if let Some(state) = started(&mut guard) {
        state.closing.push(remains);
        if state.closing.len() >= MANY {
            WAKE.notify_one();
        }
        wake(state);
    }
}

/// Watches a launch. Without a thread (the process may make no more) nothing is watched, as before there was one: the
/// window has no call that can block.
pub(super) fn watch(deadline: Instant, pidfd: &Arc<AtomicI32>) -> Watched {
    let mut guard = state();
    let Some(state) = started(&mut guard) else { return Watched { number: 0 } };
    state.next += 1;
    let number = state.next;
    state.launches.push(Launch { number, deadline, pidfd: Arc::clone(pidfd) });
    wake(state);
    Watched { number }
}

/// The state, with a thread that serves it; `None` where no thread can be had.
fn started<'s>(guard: &'s mut MutexGuard<'static, Option<State>>) -> Option<&'s mut State> {
    let own = process::id();
    if guard.as_ref().is_none_or(|state| state.process != own) {
        let started = Builder::new().name("ringfence-watch".to_owned()).spawn(run).is_ok();
        **guard = started.then(|| State { process: own, ..State::default() });
    }
    guard.as_mut()
}

fn wake(state: &State) {
    if state.asleep == Asleep::Yes {
        WAKE.notify_one();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(state) = state().as_mut() {
            state.launches.retain(|launch| launch.number != self.number);
        }
    }
}

fn run() {
    let _harmless = Harmless::here();
    let own = process::id();
    let mut idle_since = Instant::now();
    let mut guard = state();
    loop {
        let Some(state) = guard.as_mut().filter(|state| state.process == own) else { return };
        let now = Instant::now();
        for launch in state.launches.iter().filter(|launch| launch.deadline <= now) {
            // The lock is held: the launch cannot end, and its descriptor not be closed, meanwhile.
            sys::kill_by_number(launch.pidfd.load(Ordering::SeqCst));
        }
        state.frozen.retain(|pidfd| {
            // The first one may have failed; another does no harm, and fails where it has ended.
            sys::send_signal(pidfd, libc::SIGKILL).ok();
            matches!(sys::reap(pidfd, Block::No), Ok(Reaped::Running))
        });
        let closing = mem::take(&mut state.closing);
        if !closing.is_empty() {
            idle_since = now;
            // Without the lock: a launch would wait for it.
            drop(guard);
            drop(closing);
            guard = self::state();
            continue;
        }
        if !state.launches.is_empty() || !state.frozen.is_empty() {
            idle_since = now;
        }
        let tick = if now.duration_since(idle_since) > LINGER { None } else { Some(TICK) };
        state.asleep = if tick.is_none() { Asleep::Yes } else { Asleep::No };
        guard = match tick {
            Some(tick) => WAKE.wait_timeout(guard, tick).unwrap_or_else(PoisonError::into_inner).0,
            None => WAKE.wait(guard).unwrap_or_else(PoisonError::into_inner),
        };
        if tick.is_none() {
            idle_since = Instant::now();
        }
    }
}
