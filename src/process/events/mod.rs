//! Events of a running sandbox on one descriptor. It must not start a thread, and must not tell what the kernel did not count.
//!
//! Every source only says that it is time for a look; what is told is the difference between what the kernel counts now and
//! what was told before. So nothing is lost when several things happen at once, and nothing is told twice. An eventfd keeps
//! the descriptor readable while something is left to be fetched.

mod event;
mod sources;

pub use event::{Contended, Event, EventKind, Stalled, Threshold, Told, Unavailable};

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use self::sources::{Sources, TRIGGERS, WAKE, above};
use super::child::Child;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::spawn::{Group, Motion, Sheet, Tally};
use crate::sys;

/// What a file of counts has at most.
const SHEET: usize = 4096;
/// cgroup v1 notifies before it kills, and not again: the count of kills is looked at so often, with twice the wait each time
/// from a millisecond.
const CHASES: u32 = 11;

/// What to watch a child for.
#[derive(Clone, Debug)]
#[must_use = "nothing is watched before start()"]
pub struct Watch<'c> {
    child: &'c Child,
    thresholds: Vec<Threshold>,
    every: Option<Duration>,
}

/// What befalls one sandbox, in the order in which it is seen.
///
/// The descriptor ([`AsFd`]) is an epoll instance, and readable while [`Events::try_next`] has something to tell; now and
/// then it is readable and there is nothing. What happened before it was made is told too, but for what cgroup v1 does not
/// count. Thresholds and [`Event::OutOfMemory`] of cgroup v1 count from its making on.
#[derive(Debug)]
pub struct Events {
    epoll: Epoll,
    pidfd: OwnedFd,
    timer: TimerFd,
    /// Readable while something is queued.
    flag: EventFd,
    group: Option<Arc<Group>>,
    sources: Sources,
    told: Tally,
    queue: VecDeque<Event>,
    every: Option<Duration>,
    chases: Option<u32>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Ended,
}

fn failed(call: &'static str, errno: Errno) -> Error {
    Error::new(ErrorKind::Process, Step::Observe, "events").nix(call, errno)
}

impl Child {
    /// What befalls the sandbox, on one pollable descriptor: memory, processes, freezer and end. What this host cannot tell
    /// stands in [`Events::unavailable`].
    ///
    /// # Errors
    /// Where the process can have no more descriptors.
    pub fn events(&self) -> Result<Events> {
        self.watch().start()
    }

    /// The same with thresholds of pressure, or with a look now and then at what the kernel does not notify of.
    pub fn watch(&self) -> Watch<'_> {
        Watch { child: self, thresholds: Vec::new(), every: None }
    }
}

impl Watch<'_> {
    /// Adds a threshold of pressure. It needs a group of cgroup v2: [`crate::Builder::own_cgroup`].
    pub fn pressure(mut self, threshold: Threshold) -> Self {
        self.thresholds.push(threshold);
        self
    }

    /// Looks that often, at least, at what is told late ([`Told::Late`]): the descriptor becomes readable each time. Default:
    /// never. At least a millisecond.
    pub fn look_every(mut self, period: Duration) -> Self {
        self.every = Some(period.max(Duration::from_millis(1)));
        self
    }

    /// Opens what there is.
    ///
    /// # Errors
    /// A threshold that no host can have; where the process can have no more descriptors. What only this host cannot tell is
    /// no error.
    pub fn start(self) -> Result<Events> {
        for threshold in &self.thresholds {
            if let Some(why) = threshold.mistake() {
                let error = Error::new(ErrorKind::Process, Step::Observe, format!("threshold {threshold}"));
                return Err(error.detail(why));
            }
        }
        let parent = &self.child.running.parent;
        let group = parent.shared_group();
        if let Some(group) = &group {
            group.keep_tally();
        }
        let kernel = self.child.running.fence.host.kernel();
        let (flags, none) = (EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK, TimerFlags::empty());
        let epoll = above(|| Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map(|epoll| epoll.0));
        let epoll = Epoll(epoll.map_err(|errno| failed("epoll_create1", errno))?);
        let flag = above(|| EventFd::from_flags(flags)).map_err(|e| failed("eventfd2", e))?;
        let timed = none | TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = above(|| TimerFd::new(ClockId::CLOCK_MONOTONIC, timed));
        let timer = timer.map_err(|errno| failed("timerfd_create", errno))?;
        let pidfd = above(|| parent.pidfd().try_clone_to_owned());
        let pidfd = pidfd
            .map_err(|io| failed("fcntl", Errno::from_raw(io.raw_os_error().unwrap_or(libc::EMFILE))))?;
        for fd in [flag.as_fd(), timer.as_fd(), pidfd.as_fd()] {
            epoll
                .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))
                .map_err(|errno| failed("epoll_ctl", errno))?;
        }
        let sources = Sources::open(&epoll, group.as_deref(), &self.thresholds, kernel);
        let mut events = Events {
            epoll,
            pidfd,
            timer,
            flag,
            group,
            sources,
            told: Tally::default(),
            queue: VecDeque::new(),
            every: self.every,
            chases: None,
            phase: Phase::Running,
        };
        // The kernel counts a file as changed until it is read for the first time.
        events.look(EpollTimeout::ZERO)?;
        Ok(events)
    }
}

impl Events {
    /// What cannot be told here as it should be, and why.
    #[must_use]
    pub fn unavailable(&self) -> &[Unavailable] {
        &self.sources.unavailable
    }

    /// The next event, waiting for it at most this long; `None` waits for as long as it takes. `Ok(None)`: nothing came, or
    /// [`Event::Exited`] was told already.
    ///
    /// # Errors
    /// Where waiting itself fails.
    pub fn next(&mut self, limit: Option<Duration>) -> Result<Option<Event>> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            let event = self.try_next()?;
            if event.is_some() || self.phase == Phase::Ended {
                return Ok(event);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            // Rounded up, so that the last wait does not spin.
            let rounded = left.map(|left| left.as_micros().div_ceil(1000));
            let timeout = rounded.map_or(EpollTimeout::NONE, |milliseconds| {
                EpollTimeout::try_from(milliseconds).unwrap_or(EpollTimeout::MAX)
            });
            self.look(timeout)?;
        }
    }

    /// The next event, if there is one by now.
    ///
    /// # Errors
    /// As [`Events::next`].
    pub fn try_next(&mut self) -> Result<Option<Event>> {
        if self.queue.is_empty() && self.phase == Phase::Running {
            self.look(EpollTimeout::ZERO)?;
        }
        let event = self.queue.pop_front();
        if event.is_some() && self.queue.is_empty() {
            // Nothing is left to be fetched: EAGAIN would say that it knew that.
            self.flag.read().ok();
        }
        Ok(event)
    }

    /// Waits for a source, and queues what has happened.
    fn look(&mut self, timeout: EpollTimeout) -> Result<()> {
        let mut ready = [EpollEvent::empty(); 16];
        let count = match self.epoll.wait(&mut ready, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(failed("epoll_wait", errno)),
        };
        // Before the counts are read: what is counted by the end is told before it.
        let ended = sys::poll_fd(self.pidfd.as_fd(), 0).map_err(|e| failed("poll", Errno::from_raw(e)))?;
        // Only an empty timer and an empty eventfd fail, with EAGAIN.
        self.timer.wait().ok();
        drained(self.sources.reclaim.as_ref());
        let mut news = self.pressure(&ready[..count]);
        let oom = drained(self.sources.oom.as_ref());
        let now = self.tally();
        self.legacy_oom(oom, now, &mut news);
        changes(&mut self.told, now, &mut news);
        if news.iter().any(|event| matches!(event, Event::OutOfMemoryKill { .. })) {
            self.chases = None;
        }
        if ended {
            news.push(Event::Exited);
            self.phase = Phase::Ended;
            self.close();
        } else {
            self.set_timer()?;
        }
        if self.queue.is_empty() && !news.is_empty() {
            self.flag.write(1).map_err(|errno| failed("write", errno))?;
        }
        self.queue.extend(news);
        Ok(())
    }

    /// What the files say; once the groups are gone, what they said last.
    fn tally(&mut self) -> Tally {
        let mut now = self.told;
        let epoll = &self.epoll;
        self.sources.sheets.retain(|(sheet, file)| match read(file) {
            Some(text) => {
                now.take(*sheet, &text);
                true
            }
            None => {
                // A file of a group that is gone would be readable for ever. It is in the set, or was never.
                epoll.delete(file).ok();
                false
            }
        });
        let last = self.group.as_ref().and_then(|group| group.last_tally());
        last.unwrap_or(now)
    }

    /// cgroup v1 writes to the eventfd at each time that nothing could be reclaimed, and once more when the group goes.
    fn legacy_oom(&mut self, count: u64, now: Tally, news: &mut Vec<Event>) {
        if self.sources.oom.is_none() || count == 0 {
            return;
        }
        let kills = now.oom_kill.unwrap_or(0) > self.told.oom_kill.unwrap_or(0);
        let there = self.sources.has(Sheet::LegacyOom);
        let count = if there { count } else { count.saturating_sub(1).max(u64::from(kills)) };
        if count > 0 {
            news.push(Event::OutOfMemory { count });
            self.chases = Some(0);
        }
    }

    /// Thresholds that were passed. The kernel forgets that with the poll that sees it.
    fn pressure(&mut self, ready: &[EpollEvent]) -> Vec<Event> {
        let mut passed = Vec::new();
        if let Some(inotify) = &self.sources.inotify {
            // Which file it was, the triggers know better: EAGAIN is as good as an answer.
            inotify.read_events().ok();
        }
        let by_inotify = self.sources.inotify.is_some();
        for (tag, (threshold, file)) in (TRIGGERS..).zip(&self.sources.triggers) {
            let seen = ready.iter().any(|event| event.data() == tag);
            if seen || by_inotify && sys::is_urgent(file.as_fd()) {
                passed.push(Event::Pressure { threshold: *threshold });
            }
        }
        passed
    }

    /// The next look at what nobody notifies of.
    fn set_timer(&mut self) -> Result<()> {
        let chase = self.chases.map(|count| Duration::from_millis(1 << count));
        self.chases = self.chases.map(|count| count + 1).filter(|count| *count < CHASES);
        let Some(next) = [chase, self.every].into_iter().flatten().min() else { return Ok(()) };
        let expiration = Expiration::OneShot(TimeSpec::from_duration(next));
        self.timer
            .set(expiration, TimerSetTimeFlags::empty())
            .map_err(|errno| failed("timerfd_settime", errno))
    }

    /// Nothing but the queue is left to wait for.
    fn close(&mut self) {
        for fd in [self.pidfd.as_fd(), self.timer.as_fd()] {
            // Both are in the set.
            self.epoll.delete(fd).ok();
        }
        let unavailable = self.sources.unavailable.split_off(0);
        self.sources = Sources { unavailable, ..Sources::default() };
        self.group = None;
    }
}

impl AsFd for Events {
    /// Readable while there is something to tell.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// What an eventfd has counted since it was read.
fn drained(eventfd: Option<&EventFd>) -> u64 {
    // EAGAIN: nothing.
    eventfd.and_then(|eventfd| eventfd.read().ok()).unwrap_or(0)
}

/// The whole of a small file; `None` where its group is gone.
fn read(file: &File) -> Option<String> {
    let mut bytes = vec![0; SHEET];
    let mut length = 0;
    loop {
        let at = u64::try_from(length).unwrap_or(0);
        match file.read_at(bytes.get_mut(length..)?, at).ok()? {
            0 => break,
            count => length += count,
        }
    }
    bytes.truncate(length);
    String::from_utf8(bytes).ok()
}

/// What has happened between two tallies.
fn changes(told: &mut Tally, now: Tally, news: &mut Vec<Event>) {
    type Make = fn(u64) -> Event;
    let counts: [(&mut Option<u64>, Option<u64>, Make); 5] = [
        (&mut told.high, now.high, |count| Event::MemoryHigh { count }),
        (&mut told.max, now.max, |count| Event::MemoryMax { count }),
        (&mut told.oom, now.oom, |count| Event::OutOfMemory { count }),
        (&mut told.oom_kill, now.oom_kill, |count| Event::OutOfMemoryKill { count }),
        (&mut told.processes, now.processes, |count| Event::ProcessesMax { count }),
    ];
    for (told, now, make) in counts {
        let Some(now) = now else { continue };
        let count = now.saturating_sub(told.unwrap_or(0));
        if count > 0 {
            *told = Some(now);
            news.push(make(count));
        }
    }
    let was = told.motion.unwrap_or(Motion::Thawed);
    if let Some(motion) = now.motion.filter(|motion| *motion != was) {
        told.motion = Some(motion);
        news.push(if motion == Motion::Frozen { Event::Frozen } else { Event::Thawed });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(told: &mut Tally, now: Tally) -> Vec<Event> {
        let mut news = Vec::new();
        changes(told, now, &mut news);
        news
    }

    #[test]
    fn what_is_told_is_the_difference() {
        let mut told = Tally::default();
        let now = Tally { max: Some(3), oom_kill: Some(1), processes: Some(0), ..Tally::default() };
        let first = vec![Event::MemoryMax { count: 3 }, Event::OutOfMemoryKill { count: 1 }];
        assert_eq!(news(&mut told, now), first);
        assert_eq!(news(&mut told, now), [], "once");
        let later = Tally { max: Some(5), ..now };
        assert_eq!(news(&mut told, later), [Event::MemoryMax { count: 2 }]);
        assert_eq!(news(&mut told, Tally::default()), [], "a file that is gone takes nothing back");
        assert_eq!(news(&mut told, now), [], "nor does a smaller count");
    }

    #[test]
    fn a_tree_is_thawed_only_after_it_was_frozen() {
        let mut told = Tally::default();
        let at = |motion| Tally { motion: Some(motion), ..Tally::default() };
        assert_eq!(news(&mut told, at(Motion::Thawed)), []);
        assert_eq!(news(&mut told, at(Motion::Frozen)), [Event::Frozen]);
        assert_eq!(news(&mut told, at(Motion::Frozen)), []);
        assert_eq!(news(&mut told, at(Motion::Thawed)), [Event::Thawed]);
    }

    #[test]
    fn a_threshold_is_what_the_kernel_reads() {
        let threshold = Threshold::some(Contended::Memory, Duration::from_millis(150));
        assert_eq!(threshold.to_string(), "memory.pressure some 150000 2000000");
        assert_eq!(threshold.mistake(), None);
        let window = Duration::from_millis(499);
        assert!(Threshold { window, ..threshold }.mistake().is_some());
        let stall = Duration::from_secs(3);
        assert!(Threshold { stall, ..threshold }.mistake().is_some());
        assert!(Threshold { stall: Duration::ZERO, ..threshold }.mistake().is_some());
    }
}
