//! The clocks of running sandboxes: one thread of the process signals, and then kills, what has run for too long. It must
//! not name a verdict, and must not wait for anything that a program can delay.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::result::Result as StdResult;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use super::cpu::{CpuMeter, Source};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::policy::{Clocks, Grace};
use crate::spawn::{Blocked, Harmless, Unseen, end_tree};
use crate::sys;

/// Which clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Clock {
    /// Time since the release.
    Wall,
    /// CPU time of everything inside.
    Cpu,
}

/// Which clock has run out, in one word.
#[derive(Debug, Default)]
struct Expired(AtomicU8);

const WALL: u8 = 1;
const CPU: u8 = 2;

impl Expired {
    fn clock(&self) -> Option<Clock> {
        match self.0.load(Ordering::SeqCst) & (WALL | CPU) {
            WALL => Some(Clock::Wall),
            CPU => Some(Clock::Cpu),
            _ => None,
        }
    }

    fn tell(&self, bits: u8) {
        self.0.fetch_or(bits, Ordering::SeqCst);
    }
}

/// One sandbox that is watched.
#[derive(Debug)]
struct Watch {
    pidfd: OwnedFd,
    tree: Tree,
    /// Gone when nobody asks any more.
    expired: Weak<Expired>,
    wall: Option<Instant>,
    cpu: Option<(Duration, CpuMeter)>,
    grace: Option<Grace>,
    /// Set once the signal was sent.
    kill_at: Option<Instant>,
    /// Since when the CPU time cannot be read.
    unread_since: Option<Instant>,
    /// Since when not everything that is to be killed can be found.
    unfound_since: Option<Instant>,
}

/// Between two looks at CPU time: at least, and at most where there is much left.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(1);
/// How long CPU time may be unreadable.
const BLIND: Duration = Duration::from_secs(1);
/// Between two looks there is so many times what the last one took: a program must not make the caller work for it.
const REST: u32 = 10;

impl Watch {
    /// Does what is due, and says when to come again; `None` when it is over.
    fn look(&mut self, now: Instant) -> Option<Instant> {
        let expired = self.expired.upgrade()?;
        if sys::poll_fd(self.pidfd.as_fd(), 0).unwrap_or(true) {
            return None;
        }
        if let Some(kill_at) = self.kill_at {
            return if now < kill_at { Some(kill_at) } else { self.kill(now) };
        }
        let left = self.left(now);
        let Err(clock) = left else { return left.ok().and_then(|left| now.checked_add(left)) };
        expired.tell(clock);
        match self.grace {
            Some(Grace { signal, period }) => {
                // It has ended where it cannot be signalled, and the kill comes in any case.
                sys::send_signal(&self.pidfd, signal).ok();
                self.kill_at = Some(now.checked_add(period).unwrap_or(now));
                self.kill_at
            }
            None => self.kill(now),
        }
    }

    /// Kills all of it; where not all can be found, a moment later.
    fn kill(&mut self, now: Instant) -> Option<Instant> {
        let found = self.kill_tree().is_ok();
        if !found && now.duration_since(*self.unfound_since.get_or_insert(now)) < BLIND {
            self.kill_at = now.checked_add(BLIND / 10);
            return self.kill_at;
        }
        self.kill_first();
        None
    }

    /// Kills what can be ended now.
    fn kill_now(&self) {
        // What cannot be found is left to the sandbox that it runs in.
        self.kill_tree().ok();
        self.kill_first();
    }

    fn kill_tree(&self) -> StdResult<(), Unseen> {
        // What is killed ends, and nobody waits for it here.
        self.tree.map_or(Ok(()), |(attendant, program)| end_tree(attendant, program).map(drop))
    }

    fn kill_first(&self) {
        // It has ended where that fails: the pidfd is the crate's own child's.
        sys::send_signal(&self.pidfd, libc::SIGKILL).ok();
    }

    /// How long until something may be due, or which clock has run out.
    fn left(&mut self, now: Instant) -> StdResult<Duration, u8> {
        let mut left = Duration::MAX;
        if let Some(wall) = self.wall {
            let until = wall.saturating_duration_since(now);
            if until.is_zero() {
                return Err(WALL);
            }
            left = left.min(until);
        }
        if let Some((limit, meter)) = &mut self.cpu {
            let used = match meter.used() {
                Some(used) => used,
                // Nobody knows what it uses. For a moment that may be; then it ends, as if it had used it up.
                None if now.duration_since(self.unread_since.unwrap_or(now)) < BLIND => {
                    self.unread_since.get_or_insert(now);
                    return Ok(left.min(BLIND / 10));
                }
                None => return Err(CPU),
            };
            self.unread_since = None;
            let until = limit.saturating_sub(used);
            if until.is_zero() {
                return Err(CPU);
            }
            let processors = thread::available_parallelism().map_or(1, |count| count.get());
            let soonest = until / u32::try_from(processors).unwrap_or(1);
            left = left.min(soonest.clamp(SHORTEST, LONGEST));
        }
        Ok(left)
    }
}

#[derive(Debug, Default)]
struct State {
    /// By the time of the next look.
    watches: BTreeMap<(Instant, u64), Watch>,
    next: u64,
    /// The process that the thread belongs to: a fork of the caller has none.
    process: u32,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
static WAKE: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Attendant and program of a command that joined a sandbox: only what it started is ended.
type Tree = Option<(i32, i32)>;

/// Clocks that can be started: what can fail has been done.
#[derive(Debug)]
pub(super) struct Ready {
    pidfd: OwnedFd,
    tree: Tree,
    clocks: Clocks,
    source: Source,
}

/// Makes sure that there is somebody to watch, before the program runs. `None` where no clock was asked for.
pub(super) fn prepare(
    clocks: &Clocks,
    (pidfd, tree): (impl AsFd, Tree),
    source: Source,
) -> Result<Option<Ready>> {
    if clocks.wall.is_none() && clocks.cpu.is_none() {
        return Ok(None);
    }
    let error = |call, errno| Error::new(ErrorKind::Setup, Step::Clocks, "ringfence-clock").call(call, errno);
    let pidfd = pidfd.as_fd().try_clone_to_owned();
    let pidfd = pidfd.map_err(|io| error("fcntl", io.raw_os_error().unwrap_or(libc::EMFILE)))?;
    let mut guard = state();
    let own = process::id();
    if guard.as_ref().is_none_or(|state| state.process != own) {
        // The caller's handlers do not run on it.
        let blocked = Blocked::all()?;
        let started = Builder::new().name("ringfence-clock".to_owned()).spawn(run);
        drop(blocked);
        started.map_err(|io| error("clone", io.raw_os_error().unwrap_or(libc::EAGAIN)))?;
        *guard = Some(State { process: own, ..State::default() });
    }
    drop(guard);
    Ok(Some(Ready { pidfd, tree, clocks: clocks.clone(), source }))
}

impl Ready {
    /// Starts them.
    pub(super) fn begin(self, released: Instant) -> Watched {
        let expired = Arc::new(Expired::default());
        let Self { pidfd, tree, clocks, source } = self;
        let watch = Watch {
            pidfd,
            tree,
            expired: Arc::downgrade(&expired),
            // A time that no clock can show is no limit.
            wall: clocks.wall.and_then(|limit| released.checked_add(limit)),
            cpu: clocks.cpu.map(|limit| (limit.value, CpuMeter::new(source))),
            grace: clocks.grace,
            kill_at: None,
            unread_since: None,
            unfound_since: None,
        };
        let mut number = 0;
        if let Some(state) = state().as_mut() {
            state.next += 1;
            number = state.next;
            state.watches.insert((released, number), watch);
        }
        WAKE.notify_one();
        Watched { expired, number, process: process::id(), wall: clocks.wall }
    }
}

/// Clocks that run until this is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    expired: Arc<Expired>,
    number: u64,
    process: u32,
    wall: Option<Duration>,
}

impl Watched {
    /// What the clock of time was set to.
    pub(super) fn wall(&self) -> Option<Duration> {
        self.wall
    }

    /// The clock that ran out, if one did.
    pub(super) fn ran_out(&self) -> Option<Clock> {
        self.expired.clock()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // In a fork of the caller the lock can be held by a thread that is not there.
        if self.process == process::id()
            && let Some(state) = state().as_mut()
        {
            state.watches.retain(|(_, number), _| *number != self.number);
        }
    }
}

/// If the thread should end, nobody is watched any more: so nobody runs on, and the next launch starts another thread.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(state) = state().take() {
            for watch in state.watches.values() {
                watch.kill_now();
            }
        }
    }
}

fn run() {
    let _harmless = Harmless::here();
    let own = process::id();
    let _guard = Guard;
    let mut guard = state();
    loop {
        let Some(state) = guard.as_mut().filter(|state| state.process == own) else { return };
        let now = Instant::now();
        if let Some(entry) = state.watches.first_entry()
            && entry.key().0 <= now
        {
            let ((_, number), mut watch) = entry.remove_entry();
            // Without the lock: launches do not wait for a look.
            drop(guard);
            // Nothing in a look is meant to panic. If it does, the program does not run on.
            let next = catch_unwind(AssertUnwindSafe(|| watch.look(now))).unwrap_or_else(|_| {
                watch.kill_now();
                None
            });
            let rest = now.elapsed().saturating_mul(REST);
            guard = self::state();
            if let (Some(next), Some(state)) = (next, guard.as_mut())
                && watch.expired.strong_count() > 0
            {
                state.watches.insert((next.max(now + rest), number), watch);
            }
            continue;
        }
        let next = state.watches.first_key_value().map(|((at, _), _)| *at);
        guard = match next {
            Some(at) => {
                let wait = at.saturating_duration_since(Instant::now());
                WAKE.wait_timeout(guard, wait).unwrap_or_else(PoisonError::into_inner).0
            }
            None => WAKE.wait(guard).unwrap_or_else(PoisonError::into_inner),
        };
    }
}
