//! What may befall a running sandbox, as values. It must not know how a host tells it.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

/// Something that befell a sandbox. A `count` is how often since it was last told, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Memory went over [`crate::Builder::memory_high`]: the tree was slowed down.
    MemoryHigh {
        /// How often.
        count: u64,
    },
    /// Memory was at [`crate::Builder::memory`], and the kernel had to reclaim some of the tree's.
    MemoryMax {
        /// How often.
        count: u64,
    },
    /// Memory was at its limit, and nothing could be reclaimed.
    OutOfMemory {
        /// How often.
        count: u64,
    },
    /// The kernel ended processes inside for want of memory, that of the sandbox or that of the machine.
    OutOfMemoryKill {
        /// How many processes.
        count: u64,
    },
    /// [`crate::Builder::processes`] refused another process.
    ProcessesMax {
        /// How often.
        count: u64,
    },
    /// The tree waited for as long as this threshold says, within its window. At most once in a window.
    Pressure {
        /// The threshold.
        threshold: Threshold,
    },
    /// The freezer holds the whole tree.
    Frozen,
    /// It goes on.
    Thawed,
    /// Everything inside has ended. The last event.
    Exited,
}

/// The sorts of [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum EventKind {
    /// [`Event::MemoryHigh`].
    MemoryHigh,
    /// [`Event::MemoryMax`].
    MemoryMax,
    /// [`Event::OutOfMemory`].
    OutOfMemory,
    /// [`Event::OutOfMemoryKill`].
    OutOfMemoryKill,
    /// [`Event::ProcessesMax`].
    ProcessesMax,
    /// [`Event::Pressure`].
    Pressure,
    /// [`Event::Frozen`] and [`Event::Thawed`].
    Frozen,
    /// [`Event::Exited`]: every host tells it.
    Exited,
}

impl Display for EventKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MemoryHigh => "memory high",
            Self::MemoryMax => "memory max",
            Self::OutOfMemory => "out of memory",
            Self::OutOfMemoryKill => "out of memory kill",
            Self::ProcessesMax => "processes max",
            Self::Pressure => "pressure",
            Self::Frozen => "frozen",
            Self::Exited => "exited",
        })
    }
}

/// What a tree may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contended {
    /// A CPU.
    Cpu,
    /// Memory.
    Memory,
    /// A block device.
    Io,
}

/// How much of the tree waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stalled {
    /// At least one process.
    Some,
    /// All that could run (for the CPU: since Linux 5.13).
    Full,
}

/// How long a tree may wait before that is an event (the kernel's accounting/psi, "Monitoring for pressure thresholds";
/// cgroup v2, since Linux 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Threshold {
    /// For what.
    pub resource: Contended,
    /// How much of the tree.
    pub stalled: Stalled,
    /// How long in all, to the microsecond, within the window.
    pub stall: Duration,
    /// 500 ms to 10 s. A caller without `CAP_SYS_RESOURCE` can have multiples of 2 s (since Linux 6.4), or none.
    pub window: Duration,
}

impl Threshold {
    /// Some process waited so long within 2 s, which any caller can have.
    #[must_use]
    pub fn some(resource: Contended, stall: Duration) -> Self {
        Self { resource, stalled: Stalled::Some, stall, window: Duration::from_secs(2) }
    }

    /// All processes waited so long within 2 s.
    #[must_use]
    pub fn full(resource: Contended, stall: Duration) -> Self {
        Self { stalled: Stalled::Full, ..Self::some(resource, stall) }
    }

    /// The file of the group.
    pub(super) fn file(self) -> &'static str {
        match self.resource {
            Contended::Cpu => "cpu.pressure",
            Contended::Memory => "memory.pressure",
            Contended::Io => "io.pressure",
        }
    }

    /// What is written to it.
    pub(super) fn text(self) -> String {
        let kind = match self.stalled {
            Stalled::Some => "some",
            Stalled::Full => "full",
        };
        format!("{kind} {} {}", self.stall.as_micros(), self.window.as_micros())
    }

    /// What is wrong with it whatever the host.
    pub(super) fn mistake(self) -> Option<&'static str> {
        let window = Duration::from_millis(500)..=Duration::from_secs(10);
        if !window.contains(&self.window) {
            return Some("a window is 500 ms to 10 s");
        }
        let micros = self.stall.as_micros();
        (micros == 0 || self.stall > self.window).then_some("a stall is 1 us to the window")
    }
}

impl Display for Threshold {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.file(), self.text())
    }
}

/// How much of an event is lost here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// It is never told.
    Never,
    /// It is told, and counted right, but the descriptor does not become readable for it: it comes with the next other event,
    /// at the next call, or at the end. [`crate::Watch::look_every`] bounds that.
    Late,
    /// It is told to who waits in [`crate::Events::next`]. Where the descriptor is polled by something else, that poll uses it
    /// up.
    OnlyInNext,
}

/// An event that this host, or this sandbox, cannot tell as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unavailable {
    /// Which.
    pub kind: EventKind,
    /// What becomes of it.
    pub told: Told,
    /// Why.
    pub why: String,
}

impl Display for Unavailable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let told = match self.told {
            Told::Never => "never told",
            Told::Late => "told late",
            Told::OnlyInNext => "told only to who waits in next()",
        };
        write!(f, "{}: {told}: {}", self.kind, self.why)
    }
}
