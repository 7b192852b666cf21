//! Confined children that wait for commands, and the thread that sees to it that there are enough. It must not hand out a
//! child that has ended, or one a second time.

use std::collections::VecDeque;
use std::fmt::{self, Debug, Formatter};
use std::mem;
use std::process;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::child::Child;
use super::command::Command;
use super::idle::Idle;
use super::outcome::Outcome;
use super::sandbox::Sandbox;
use super::stdio::Stdio;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::spawn::Blocked;

/// Children of one pool: each costs descriptors, processes and namespaces of the caller's share.
const SIZE_MAX: usize = 1_000;
/// As long as half of the children are left, the thread waits for a lull of this length: making children takes CPU time from
/// what was just taken.
const LULL: Duration = Duration::from_millis(2);
/// While the pool is used the thread looks by itself, so that nobody who takes a child has to wake it beside the program.
const TICK: Duration = Duration::from_millis(20);
/// How long it goes on so after the last use.
const LINGER: Duration = Duration::from_secs(2);
/// How often waiting children are looked at where nothing else happens.
const LOOK: Duration = Duration::from_secs(5);
/// After a failure: at first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));
/// How long the end of the thread is waited for: it may be in the middle of a launch.
const JOIN: Duration = Duration::from_secs(5);

/// What a pool has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Children that wait now.
    pub waiting: usize,
    /// Commands that a waiting child ran, or failed to run for a mistake of the command's own.
    pub hits: u64,
    /// Commands that were launched directly: nothing waited, or they had no room in a waiting child.
    pub misses: u64,
    /// Launches of children that failed.
    pub failures: u64,
    /// Children that ended while they waited.
    pub lost: u64,
}

/// A number of confined children of one sandbox that wait for commands ([`Idle`]), refilled by a thread `ringfence-pool`.
///
/// Each child runs one command. Dropping the pool ends those that wait; what they have become is not touched. All of it
/// ends with the caller's process. In a fork of the caller nothing waits: there every command is launched directly.
///
/// ```no_run
/// use ringfence::{Pool, Sandbox};
///
/// # fn main() -> ringfence::Result<()> {
/// let sandbox = Sandbox::builder().system_read_only().build()?;
/// let pool = Pool::new(&sandbox, 8)?;
/// let outcome = pool.output(sandbox.command("echo").arg("hello"))?;
/// assert_eq!(outcome.stdout, b"hello\n");
/// # Ok(())
/// # }
/// ```
///
/// What is said of [`Idle`] holds here: the program sees files as they were opened when its child was made, and the
/// youngest is taken first.
pub struct Pool {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    sandbox: Sandbox,
    size: usize,
    /// The process that the children belong to.
    process: u32,
    state: Mutex<State>,
    /// Something was taken, or the pool is dropped.
    taken: Condvar,
    /// A child was added, or the thread has ended.
    added: Condvar,
}

struct State {
    waiting: VecDeque<Idle>,
    stats: PoolStats,
    last_error: Option<Error>,
    last_taken: Instant,
    last_look: Instant,
    asleep: Asleep,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asleep {
    No,
    /// For longer than a tick: it has to be woken.
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The pool is dropped.
    Closing,
    /// The thread has ended.
    Over,
}

impl Pool {
    /// Makes the first child, and starts the thread that makes the others. `size` is 1 to 1,000.
    ///
    /// # Errors
    /// As [`Sandbox::hold`]; [`ErrorKind::InvalidCommand`] for another size; `EAGAIN` where no thread can be had.
    pub fn new(sandbox: &Sandbox, size: usize) -> Result<Self> {
        if size == 0 || size > SIZE_MAX {
            let error = Error::new(ErrorKind::InvalidCommand, Step::Command, format!("a pool of {size}"));
            return Err(error.detail("it holds 1 to 1000"));
        }
        let first = sandbox.hold()?;
        let state = State {
            waiting: VecDeque::from([first]),
            stats: PoolStats::default(),
            last_error: None,
            last_taken: Instant::now(),
            last_look: Instant::now(),
            asleep: Asleep::No,
            phase: Phase::Open,
        };
        let shared = Arc::new(Shared {
            sandbox: sandbox.clone(),
            size,
            process: process::id(),
            state: Mutex::new(state),
            taken: Condvar::new(),
            added: Condvar::new(),
        });
        let worker = Arc::clone(&shared);
        let started = Builder::new().name("ringfence-pool".to_owned()).spawn(move || worker.serve());
        let thread = started.map_err(|io| {
            let errno = io.raw_os_error().unwrap_or(libc::EAGAIN);
            Error::new(ErrorKind::Setup, Step::Clone, "ringfence-pool").call("clone", errno)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Runs a command of the pool's sandbox in a child that waits, or in a new one where none does. `Ok` means that `execve`
    /// has happened.
    ///
    /// # Errors
    /// As [`Command::spawn`]; [`ErrorKind::InvalidCommand`] for a command of another sandbox.
    pub fn spawn(&self, command: &Command) -> Result<Child> {
        self.spawn_with(command, &Stdio::null())
    }

    /// Runs a command to its end and collects what it wrote, as [`Command::output`].
    ///
    /// # Errors
    /// As [`Pool::spawn`].
    pub fn output(&self, command: &Command) -> Result<Outcome> {
        self.spawn_with(command, &Stdio::piped())?.wait_with_output()
    }

    /// Waits until as many children wait as the pool is to hold, at most so long; returns whether they do.
    pub fn wait_until_full(&self, limit: Duration) -> bool {
        let Some(mut state) = self.shared.own_state() else { return false };
        let deadline = Instant::now().checked_add(limit);
        loop {
            if state.waiting.len() >= self.shared.size {
                return true;
            }
            let left = deadline.map_or(LOOK, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            state = self.shared.added.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What it has done so far, and how many children wait now.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let state = self.shared.own_state();
        state.map(|state| PoolStats { waiting: state.waiting.len(), ..state.stats }).unwrap_or_default()
    }

    /// Why the last child could not be made; `None` once one could again.
    #[must_use]
    pub fn last_error(&self) -> Option<Error> {
        self.shared.own_state()?.last_error.as_ref().map(Error::again)
    }

    fn spawn_with(&self, command: &Command, default: &Stdio) -> Result<Child> {
        command.check_fence(self.shared.sandbox.fence())?;
        loop {
            // First: a mistake of the command's is not to use up a child.
            let (request, ends) = command.prepared(default)?;
            let Some(idle) = self.shared.take() else {
                self.shared.used(|stats| stats.misses += 1);
                return command.launched(request, ends);
            };
            match idle.run(request, ends) {
                Err(error) if error.step() == Step::Gate => self.shared.used(|stats| stats.lost += 1),
                Err(error) if unfit(&error) => break,
                done => {
                    self.shared.used(|stats| stats.hits += 1);
                    return done;
                }
            }
        }
        self.shared.used(|stats| stats.misses += 1);
        let (request, ends) = command.prepared(default)?;
        command.launched(request, ends)
    }
}

/// What a launch of its own may do better: more room, and descriptors that cannot be sent. Nothing has run yet.
fn unfit(error: &Error) -> bool {
    let room = error.failed_call() == Some("execve") && error.raw_os_error() == Some(libc::E2BIG);
    room || error.failed_call() == Some("sendmsg")
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In a fork of the caller the lock may be held by a thread that is not there.
    fn own_state(&self) -> Option<MutexGuard<'_, State>> {
        (self.process == process::id()).then(|| self.state())
    }

    /// The youngest child that still waits: what it needs is still in the caches.
    fn take(&self) -> Option<Idle> {
        let mut state = self.own_state()?;
        let mut dead = Vec::new();
        let taken = loop {
            match state.waiting.pop_back() {
                Some(idle) if idle.waits() => break Some(idle),
                Some(idle) => dead.push(idle),
                None => break None,
            }
        };
        state.stats.lost += u64::try_from(dead.len()).unwrap_or(0);
        taken
    }

    /// The thread may make another one: told only now, so that it does not begin in the middle of the launch.
    fn used(&self, change: impl FnOnce(&mut PoolStats)) {
        if let Some(mut state) = self.own_state() {
            change(&mut state.stats);
            state.last_taken = Instant::now();
            let needed = state.asleep == Asleep::Yes || 2 * state.waiting.len() < self.size;
            drop(state);
            if needed {
                self.taken.notify_one();
            }
        }
    }

    /// The thread: one child after the other, until the pool is dropped.
    fn serve(&self) {
        // No handler of the application's runs here. Where that fails it is as in any other thread.
        let blocked = Blocked::all();
        let mut pause = BACK_OFF.0;
        while self.wait_for_need() {
            let made = self.sandbox.hold();
            let mut state = self.state();
            match made {
                Ok(idle) if state.phase == Phase::Open => {
                    pause = BACK_OFF.0;
                    state.last_error = None;
                    state.waiting.push_back(idle);
                    self.added.notify_all();
                }
                // The guard goes first: to end a child takes its time.
                Ok(idle) => {
                    drop(state);
                    drop(idle);
                }
                Err(error) => {
                    state.stats.failures += 1;
                    state.last_error = Some(error);
                    self.rest(state, pause);
                    pause = (2 * pause).min(BACK_OFF.1);
                }
            }
        }
        self.state().phase = Phase::Over;
        self.added.notify_all();
        drop(blocked);
    }

    /// Until so much time has passed, or the pool is dropped.
    fn rest(&self, mut state: MutexGuard<'_, State>, pause: Duration) {
        let end = Instant::now() + pause;
        while state.phase == Phase::Open {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.taken.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns when a child is to be made: `false` once the pool is dropped.
    fn wait_for_need(&self) -> bool {
        let mut state = self.state();
        loop {
            if state.phase != Phase::Open {
                return false;
            }
            if state.last_look.elapsed() >= LOOK {
                state.last_look = Instant::now();
                let (waits, dead): (VecDeque<_>, VecDeque<_>) =
                    mem::take(&mut state.waiting).into_iter().partition(Idle::waits);
                state.waiting = waits;
                state.stats.lost += u64::try_from(dead.len()).unwrap_or(0);
                // Without the lock: to reap takes its time.
                drop(state);
                drop(dead);
                state = self.state();
                continue;
            }
            let unused = state.last_taken.elapsed();
            let pause = match state.waiting.len() {
                enough if enough >= self.size && unused < LINGER => TICK,
                enough if enough >= self.size => LOOK,
                few if 2 * few < self.size => return true,
                _ if unused >= LULL => return true,
                _ => LULL.saturating_sub(unused),
            };
            state.asleep = if pause == LOOK { Asleep::Yes } else { Asleep::No };
            state = self.taken.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
            state.asleep = Asleep::No;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A fork's copy is not its own: the thread is not there, and the children are another process's.
        let Some(mut state) = self.shared.own_state() else { return };
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
        let waiting = mem::take(&mut state.waiting);
        self.shared.taken.notify_all();
        let end = Instant::now() + JOIN;
        while state.phase != Phase::Over {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.added.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let over = state.phase == Phase::Over;
        drop(state);
        if let (true, Some(thread)) = (over, self.thread.take()) {
            // A panic in it has nobody to tell but its own message.
            thread.join().ok();
        }
        // All at once, so that they end beside one another.
        waiting.iter().for_each(Idle::doom);
    }
}

impl Debug for Pool {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("size", &self.shared.size).field("stats", &self.stats()).finish()
    }
}
