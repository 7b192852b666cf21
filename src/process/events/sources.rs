//! The descriptors that tell of a group's events, opened; and what cannot be told here, with the reason. It must not
//! compare anything.

use std::fs::{File, OpenOptions, read_to_string};
use std::io::{Error as IoError, Write as _};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::result::Result as StdResult;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::event::{EventKind, Threshold, Told, Unavailable};
use crate::error::errno_text;
use crate::host::KernelVersion;
use crate::spawn::{Group, Sheet};

/// The tag of what needs no name of its own.
pub(super) const WAKE: u64 = 0;
/// The tag of the first trigger in the epoll set.
pub(super) const TRIGGERS: u64 = 1;

/// Since Linux 6.5 a threshold of a group notifies of its file: an inotify instance keeps that until it is read. The
/// trigger's own descriptor forgets it with the first poll, be it one of somebody else through the epoll descriptor.
const NOTIFIES_PRESSURE: KernelVersion = KernelVersion::new(6, 5, 0);

/// Everything that is open.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Files that count, each read from its beginning.
    pub(super) sheets: Vec<(Sheet, File)>,
    /// cgroup v1: one count for each time that nothing could be reclaimed.
    pub(super) oom: Option<EventFd>,
    /// cgroup v1: says only that it is time for a look.
    pub(super) reclaim: Option<EventFd>,
    pub(super) triggers: Vec<(Threshold, File)>,
    pub(super) inotify: Option<Inotify>,
    pub(super) unavailable: Vec<Unavailable>,
}

/// Makes a descriptor of 3 or more, and closes what it got below.
pub(super) fn above<T: AsFd, E>(make: impl Fn() -> StdResult<T, E>) -> StdResult<T, E> {
    let mut low = Vec::new();
    loop {
        let made = make()?;
        if made.as_fd().as_raw_fd() > 2 || low.len() > 2 {
            return Ok(made);
        }
        low.push(made);
    }
}

fn add(epoll: &Epoll, fd: impl AsFd, flags: EpollFlags, tag: u64) -> StdResult<(), String> {
    epoll.add(fd, EpollEvent::new(flags, tag)).map_err(|errno| failed("epoll_ctl", errno as i32))
}

fn failed(call: &str, errno: i32) -> String {
    format!("{call}: {}", errno_text(errno))
}

fn io(call: &str, error: &IoError) -> String {
    failed(call, error.raw_os_error().unwrap_or(libc::EIO))
}

impl Sources {
    fn lacks(&mut self, kinds: &[EventKind], told: Told, why: impl Into<String>) {
        let why = why.into();
        let lacks = |kind: &EventKind| Unavailable { kind: *kind, told, why: why.clone() };
        self.unavailable.extend(kinds.iter().map(lacks));
    }

    /// Opens what the group has.
    pub(super) fn open(
        epoll: &Epoll,
        group: Option<&Group>,
        thresholds: &[Threshold],
        kernel: KernelVersion,
    ) -> Self {
        use EventKind::{
            Frozen, MemoryHigh, MemoryMax, OutOfMemory, OutOfMemoryKill, Pressure, ProcessesMax,
        };
        let mut sources = Self::default();
        let Some(group) = group else {
            let why = "this sandbox has no group: give it a limit of the tree, or own_cgroup()";
            let all = [MemoryHigh, MemoryMax, OutOfMemory, OutOfMemoryKill, ProcessesMax, Frozen];
            sources.lacks(&all, Told::Never, why);
            let pressure: Vec<_> = thresholds.iter().map(|_| Pressure).collect();
            sources.lacks(&pressure, Told::Never, why);
            return sources;
        };
        sources.sheets(epoll, group);
        if let Some(memory) = group.legacy_path("memory").filter(|_| !sources.has(Sheet::Memory)) {
            sources.legacy_memory(epoll, memory);
        }
        for threshold in thresholds {
            if let Err(why) = sources.trigger(epoll, group, *threshold, kernel) {
                sources.lacks(&[Pressure], Told::Never, format!("{threshold}: {why}"));
            }
        }
        sources
    }

    pub(super) fn has(&self, sheet: Sheet) -> bool {
        self.sheets.iter().any(|(other, _)| *other == sheet)
    }

    fn sheets(&mut self, epoll: &Epoll, group: &Group) {
        use EventKind::{Frozen, MemoryHigh, MemoryMax, OutOfMemory, OutOfMemoryKill, ProcessesMax};
        let mut refused = String::new();
        for (sheet, path) in group.sheets() {
            let opened = above(|| File::open(&path)).map_err(|error| io("open", &error));
            let polled = opened.and_then(|file| {
                if sheet.is_notified() {
                    add(epoll, &file, EpollFlags::EPOLLPRI, WAKE)?;
                }
                Ok(file)
            });
            match polled {
                Ok(file) => self.sheets.push((sheet, file)),
                Err(why) => refused = format!(" ({path:?}: {why})"),
            }
        }
        let without = |what: &str| format!("no group of this sandbox has {what}: own_cgroup(){refused}");
        if !self.has(Sheet::Memory) && !self.has(Sheet::LegacyOom) {
            let kinds = [MemoryHigh, MemoryMax, OutOfMemory, OutOfMemoryKill];
            self.lacks(&kinds, Told::Never, without("the memory controller"));
        }
        if self.has(Sheet::LegacyProcesses) {
            let why = "some kernels, Linux 6.18 among them, do not notify of pids.events of cgroup v1";
            self.lacks(&[ProcessesMax], Told::Late, why);
        } else if !self.has(Sheet::Processes) {
            self.lacks(&[ProcessesMax], Told::Never, without("the pids controller"));
        }
        if self.has(Sheet::LegacyFreezer) {
            self.lacks(&[Frozen], Told::Late, "the freezer of cgroup v1 notifies nobody");
        } else if !self.has(Sheet::Group) {
            self.lacks(&[Frozen], Told::Never, without("a freezer"));
        }
    }

    /// The kernel's admin-guide/cgroup-v1/memory, "Memory thresholds", "OOM Control" and "Memory Pressure".
    fn legacy_memory(&mut self, epoll: &Epoll, dir: &Path) {
        use EventKind::{MemoryHigh, MemoryMax, OutOfMemory, OutOfMemoryKill};
        self.lacks(&[MemoryHigh], Told::Never, "cgroup v1 has no memory.high");
        let why =
            "cgroup v1 counts it in memory.failcnt and notifies only of reclaim (memory.pressure_level)";
        self.lacks(&[MemoryMax], Told::Late, why);
        match register(epoll, dir, ("memory.oom_control", "")) {
            Ok(oom) => self.oom = Some(oom),
            Err(why) => {
                self.lacks(&[OutOfMemory], Told::Never, format!("memory.oom_control: {why}"));
                self.lacks(&[OutOfMemoryKill], Told::Late, format!("memory.oom_control: {why}"));
            }
        }
        match read_to_string(dir.join("memory.oom_control")) {
            Ok(text) if text.lines().any(|line| line.starts_with("oom_kill ")) => {}
            Ok(_) => {
                let why = "memory.oom_control counts no kills before Linux 4.13";
                self.lacks(&[OutOfMemoryKill], Told::Never, why);
            }
            Err(why) => self.lacks(&[OutOfMemoryKill], Told::Never, format!("memory.oom_control: {why}")),
        }
        // Without it memory.failcnt is looked at a little less often, which is said above.
        self.reclaim = register(epoll, dir, ("memory.pressure_level", "low")).ok();
    }

    fn trigger(
        &mut self,
        epoll: &Epoll,
        group: &Group,
        threshold: Threshold,
        kernel: KernelVersion,
    ) -> StdResult<(), String> {
        let dir = group.unified_path().ok_or("it is a file of cgroup v2, where this sandbox has no group")?;
        let path = dir.join(threshold.file());
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let mut file = above(|| options.open(&path)).map_err(|error| io("open", &error))?;
        file.write_all(threshold.text().as_bytes()).map_err(|error| {
            let even = threshold.window.as_micros().is_multiple_of(2_000_000);
            let plain = error.raw_os_error() == Some(libc::EINVAL) && !even;
            let more = if plain { ": without CAP_SYS_RESOURCE a window is a multiple of 2 s" } else { "" };
            format!("{}{more}", io("write", &error))
        })?;
        if kernel >= NOTIFIES_PRESSURE {
            self.inotify(epoll)?
                .add_watch(&path, AddWatchFlags::IN_MODIFY)
                .map_err(|errno| failed("inotify_add_watch", errno as i32))?;
        } else {
            let tag = TRIGGERS + u64::try_from(self.triggers.len()).unwrap_or(0);
            add(epoll, &file, EpollFlags::EPOLLPRI, tag)?;
            let why = "before Linux 6.5 the first poll of a threshold uses its event up";
            self.lacks(&[EventKind::Pressure], Told::OnlyInNext, why);
        }
        self.triggers.push((threshold, file));
        Ok(())
    }

    fn inotify(&mut self, epoll: &Epoll) -> StdResult<&Inotify, String> {
        if self.inotify.is_none() {
            let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
            let made =
                above(|| Inotify::init(flags)).map_err(|errno| failed("inotify_init1", errno as i32))?;
            add(epoll, &made, EpollFlags::EPOLLIN, WAKE)?;
            self.inotify = Some(made);
        }
        self.inotify.as_ref().ok_or_else(String::new)
    }
}

/// An eventfd that the kernel writes to: `cgroup.event_control` takes its number, that of the file, and an argument.
fn register(epoll: &Epoll, dir: &Path, (name, argument): (&str, &str)) -> StdResult<EventFd, String> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let eventfd = above(|| EventFd::from_flags(flags)).map_err(|errno| failed("eventfd2", errno as i32))?;
    let file = above(|| File::open(dir.join(name))).map_err(|error| io("open", &error))?;
    let text = format!("{} {} {argument}", eventfd.as_fd().as_raw_fd(), file.as_raw_fd());
    let control = above(|| OpenOptions::new().write(true).open(dir.join("cgroup.event_control")));
    let mut control = control.map_err(|error| io("open cgroup.event_control", &error))?;
    control
        .write_all(text.trim_end().as_bytes())
        .map_err(|error| io("write cgroup.event_control", &error))?;
    add(epoll, &eventfd, EpollFlags::EPOLLIN, WAKE)?;
    Ok(eventfd)
}
