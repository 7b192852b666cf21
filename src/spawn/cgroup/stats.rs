//! What a tree of processes uses, as its groups count it. It must not guess: what no group counts is `None`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::Group;
use super::files;

/// Memory of the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Bytes now, page cache included.
    pub current: Option<u64>,
    /// The most bytes so far (cgroup v2: since Linux 5.19).
    pub peak: Option<u64>,
    /// Bytes of swap now.
    pub swap: Option<u64>,
    /// Page faults.
    pub faults: Option<u64>,
    /// Page faults that waited for a device.
    pub major_faults: Option<u64>,
    /// Processes that the kernel ended for want of memory (cgroup v1: since Linux 4.13).
    pub oom_kills: Option<u64>,
    /// How often this group's own limit of memory was reached.
    pub limit_hits: Option<u64>,
}

/// CPU time of the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuStats {
    /// In programs.
    pub user: Option<Duration>,
    /// In the kernel.
    pub system: Option<Duration>,
    /// Periods in which the quota was used up.
    pub throttled_periods: Option<u64>,
    /// How long the tree was kept from running then, summed over CPUs.
    pub throttled: Option<Duration>,
}

/// Input and output of the tree on block devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IoStats {
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Bytes written; in cgroup v1 without buffered writes.
    pub write_bytes: Option<u64>,
    /// Read operations.
    pub reads: Option<u64>,
    /// Write operations.
    pub writes: Option<u64>,
}

/// Processes and threads of the tree, the sandbox's init included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessStats {
    /// Now.
    pub current: Option<u64>,
    /// The most so far (since Linux 6.1).
    pub peak: Option<u64>,
    /// How often the limit refused another one.
    pub refused: Option<u64>,
}

/// How much the tree waited for something (the kernel's accounting/psi). Shares are in hundredths of a percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// Some process waited: share of the last 10 s.
    pub some_10s: u32,
    /// In all.
    pub some: Duration,
    /// Every process waited: share of the last 10 s.
    pub full_10s: u32,
    /// In all.
    pub full: Duration,
}

/// Pressure of the tree (cgroup v2, since Linux 4.20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pressure {
    /// Waiting for a CPU.
    pub cpu: Option<Stall>,
    /// Waiting for memory.
    pub memory: Option<Stall>,
    /// Waiting for devices.
    pub io: Option<Stall>,
}

/// What the tree uses, as far as its groups count it: `None` stands for a controller that the sandbox has no group of, a
/// kernel that does not say, or a file that could not be read, which [`Stats::unread`] tells. Say
/// [`crate::Builder::own_cgroup`] for groups of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Memory.
    pub memory: MemoryStats,
    /// CPU time.
    pub cpu: CpuStats,
    /// Block devices.
    pub io: IoStats,
    /// Processes.
    pub processes: ProcessStats,
    /// Pressure.
    pub pressure: Pressure,
    /// The first file that is there and could not be read, as for want of a descriptor: what it counts is `None` for that.
    pub unread: Option<Unread>,
}

/// A file of a group that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unread {
    /// Its name.
    pub file: &'static str,
    /// Why, an errno.
    pub errno: i32,
}

/// The one file that counts CPU time, for whoever reads it often: opened once, as the caller may run out of descriptors later.
#[derive(Debug)]
pub(crate) enum CpuFile {
    /// `cpu.stat` of version 2, which every group has.
    Unified(File),
    /// `cpuacct.usage` of version 1.
    Legacy(File),
}

impl CpuFile {
    pub(super) fn of(group: &Group) -> Option<Self> {
        let legacy = || {
            let dir = group.legacy_with("cpuacct")?;
            File::open(dir.path().join("cpuacct.usage")).ok().map(Self::Legacy)
        };
        let unified = group.unified.as_ref().and_then(|dir| File::open(dir.path().join("cpu.stat")).ok());
        unified.map(Self::Unified).filter(|file| file.read().is_some()).or_else(legacy)
    }

    /// What the tree has used; `None` where the group is gone.
    pub(crate) fn read(&self) -> Option<Duration> {
        let (Self::Unified(file) | Self::Legacy(file)) = self;
        let mut bytes = [0; 512];
        let length = file.read_at(&mut bytes, 0).ok()?;
        let text = String::from_utf8_lossy(bytes.get(..length)?).into_owned();
        match self {
            Self::Unified(_) => Table(text).micros("usage_usec"),
            Self::Legacy(_) => text.trim().parse().ok().map(Duration::from_nanos),
        }
    }
}

/// A dozen small files; `None` where the groups are gone.
pub(super) fn read(group: &Group) -> Option<Stats> {
    // A look that fails is not one that finds nothing: the files say more.
    if matches!(group.dirs().next()?.path().try_exists(), Ok(false)) {
        return None;
    }
    let mut unread = None;
    let mut stats = Stats::default();
    if let Some(dir) = &group.unified {
        unified(&mut Sheets { dir: dir.path(), unread: &mut unread }, &mut stats);
    }
    for (controller, read) in [
        ("memory", legacy_memory as fn(&mut Sheets<'_>, &mut Stats)),
        ("cpuacct", cpuacct),
        ("cpu", throttled),
        ("blkio", blkio),
        ("pids", pids),
    ] {
        if let Some(dir) = group.legacy_with(controller) {
            read(&mut Sheets { dir: dir.path(), unread: &mut unread }, &mut stats);
        }
    }
    stats.unread = unread;
    Some(stats)
}

/// The files of a group.
struct Sheets<'a> {
    dir: &'a Path,
    unread: &'a mut Option<Unread>,
}

impl Sheets<'_> {
    fn text(&mut self, file: &'static str) -> Option<String> {
        match files::read(&self.dir.join(file)) {
            Ok(text) => Some(text),
            // No such controller or kernel, no group any more, no pressure since the boot (psi=0).
            Err(refused) if [libc::ENOENT, libc::ENODEV, libc::EOPNOTSUPP].contains(&refused.errno) => None,
            Err(refused) => {
                self.unread.get_or_insert(Unread { file, errno: refused.errno });
                None
            }
        }
    }

    fn number(&mut self, file: &'static str) -> Option<u64> {
        self.text(file)?.trim().parse().ok()
    }

    fn table(&mut self, file: &'static str) -> Table {
        Table(self.text(file).unwrap_or_default())
    }

    fn pressure(&mut self, file: &'static str) -> Option<Stall> {
        stall(&self.text(file)?)
    }
}

/// A file of lines `NAME NUMBER`.
struct Table(String);

impl Table {
    fn get(&self, name: &str) -> Option<u64> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }

    fn micros(&self, name: &str) -> Option<Duration> {
        self.get(name).map(Duration::from_micros)
    }
}

fn unified(sheets: &mut Sheets<'_>, stats: &mut Stats) {
    let (memory, events) = (sheets.table("memory.stat"), sheets.table("memory.events"));
    stats.memory = MemoryStats {
        current: sheets.number("memory.current"),
        peak: sheets.number("memory.peak"),
        swap: sheets.number("memory.swap.current"),
        faults: memory.get("pgfault"),
        major_faults: memory.get("pgmajfault"),
        oom_kills: events.get("oom_kill"),
        // That of groups above is not in it; since Linux 5.2.
        limit_hits: sheets.table("memory.events.local").get("max").or_else(|| events.get("max")),
    };
    let cpu = sheets.table("cpu.stat");
    stats.cpu = CpuStats {
        user: cpu.micros("user_usec"),
        system: cpu.micros("system_usec"),
        throttled_periods: cpu.get("nr_throttled"),
        throttled: cpu.micros("throttled_usec"),
    };
    stats.io = sheets.text("io.stat").map(|text| io_stat(&text)).unwrap_or_default();
    stats.pressure = Pressure {
        cpu: sheets.pressure("cpu.pressure"),
        memory: sheets.pressure("memory.pressure"),
        io: sheets.pressure("io.pressure"),
    };
    pids(sheets, stats);
}

/// `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N …`, a line for each device that was used.
pub(crate) fn io_stat(text: &str) -> IoStats {
    let sum = |name: &str| {
        let words = text.split_whitespace().filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        Some(words.filter_map(|value| value.parse::<u64>().ok()).fold(0, u64::saturating_add))
    };
    IoStats { read_bytes: sum("rbytes"), write_bytes: sum("wbytes"), reads: sum("rios"), writes: sum("wios") }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
pub(crate) fn stall(text: &str) -> Option<Stall> {
    let line = |kind: &str| text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
    let value = |line: &str, name: &str| {
        line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    let share = |line: &str| {
        let text = value(line, "avg10")?;
        let (whole, part) = text.split_once('.')?;
        Some(whole.parse::<u32>().ok()?.checked_mul(100)?.saturating_add(part.parse().ok()?))
    };
    let total = |line: &str| Some(Duration::from_micros(value(line, "total")?.parse().ok()?));
    let some = line("some")?;
    let full = line("full");
    Some(Stall {
        some_10s: share(some)?,
        some: total(some)?,
        full_10s: full.and_then(share).unwrap_or(0),
        full: full.and_then(total).unwrap_or(Duration::ZERO),
    })
}

fn legacy_memory(sheets: &mut Sheets<'_>, stats: &mut Stats) {
    let stat = sheets.table("memory.stat");
    stats.memory = MemoryStats {
        current: sheets.number("memory.usage_in_bytes"),
        peak: sheets.number("memory.max_usage_in_bytes"),
        swap: stat.get("total_swap"),
        faults: stat.get("total_pgfault"),
        major_faults: stat.get("total_pgmajfault"),
        oom_kills: sheets.table("memory.oom_control").get("oom_kill"),
        limit_hits: sheets.number("memory.failcnt"),
    };
}

/// Nanoseconds. `cpuacct.usage` is exact; the kernel learns which of the two it was at its ticks only.
fn cpuacct(sheets: &mut Sheets<'_>, stats: &mut Stats) {
    let [all, user, system] =
        ["cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys"].map(|file| sheets.number(file));
    let split = all.zip(user.zip(system)).map(|(all, ticks)| shares(all, ticks));
    stats.cpu.user = split.map(|(user, _)| Duration::from_nanos(user));
    stats.cpu.system = split.map(|(_, system)| Duration::from_nanos(system));
}

/// The whole in the ratio that was sampled, as the kernel does it for processes and for version 2: what no tick has seen is
/// user mode's.
fn shares(all: u64, (user, system): (u64, u64)) -> (u64, u64) {
    let ticks = u128::from(user) + u128::from(system);
    let part = (u128::from(all) * u128::from(system)).checked_div(ticks).unwrap_or(0);
    let system = u64::try_from(part).unwrap_or(all).min(all);
    (all - system, system)
}

fn throttled(sheets: &mut Sheets<'_>, stats: &mut Stats) {
    let table = sheets.table("cpu.stat");
    stats.cpu.throttled_periods = table.get("nr_throttled");
    stats.cpu.throttled = table.get("throttled_time").map(Duration::from_nanos);
}

/// `MAJOR:MINOR Read N`, and the same for other operations.
fn blkio(sheets: &mut Sheets<'_>, stats: &mut Stats) {
    let sum = |text: Option<&str>, operation: &str| {
        let lines = text?.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (_, kind, value) = (words.next()?, words.next()?, words.next()?);
            if kind == operation { value.parse::<u64>().ok() } else { None }
        });
        Some(lines.fold(0, u64::saturating_add))
    };
    let bytes = sheets.text("blkio.throttle.io_service_bytes_recursive");
    let served = sheets.text("blkio.throttle.io_serviced_recursive");
    stats.io = IoStats {
        read_bytes: sum(bytes.as_deref(), "Read"),
        write_bytes: sum(bytes.as_deref(), "Write"),
        reads: sum(served.as_deref(), "Read"),
        writes: sum(served.as_deref(), "Write"),
    };
}

fn pids(sheets: &mut Sheets<'_>, stats: &mut Stats) {
    stats.processes = ProcessStats {
        current: sheets.number("pids.current"),
        peak: sheets.number("pids.peak"),
        refused: sheets.table("pids.events").get("max"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_of_several_devices_is_summed() {
        let text = "8:0 rbytes=4096 wbytes=1 rios=2 wios=1 dbytes=9 dios=9\n253:0 \n8:16 rbytes=1 wbytes=2 rios=3 wios=4\n";
        let io = io_stat(text);
        assert_eq!(
            (io.read_bytes, io.write_bytes, io.reads, io.writes),
            (Some(4097), Some(3), Some(5), Some(5))
        );
        assert_eq!(io_stat("").reads, Some(0), "nothing was read yet");
    }

    #[test]
    fn what_was_sampled_is_shared_out_over_what_was_counted() {
        let cases = [
            ((100, (30, 10)), (75, 25)),
            ((100, (0, 0)), (100, 0)),
            ((7, (0, 9)), (0, 7)),
            ((0, (4, 4)), (0, 0)),
        ];
        for ((all, sampled), wanted) in cases {
            assert_eq!(shares(all, sampled), wanted, "{all} {sampled:?}");
        }
        let most = u64::MAX;
        assert_eq!(shares(most, (most, most)), (most / 2 + 1, most / 2));
    }

    #[test]
    fn pressure_is_read() {
        let text =
            "some avg10=12.34 avg60=0.00 avg300=0.00 total=1500\nfull avg10=0.05 avg60=0 avg300=0 total=7\n";
        let stall = stall(text).expect("pressure");
        assert_eq!((stall.some_10s, stall.full_10s), (1234, 5));
        assert_eq!((stall.some, stall.full), (Duration::from_micros(1500), Duration::from_micros(7)));
        for text in ["", "some", "some avg10= total=", "some avg10=x.y total=1", "full avg10=0.00 total=0"] {
            assert_eq!(super::stall(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_table_tells_names_that_begin_alike_apart() {
        let table = Table("pgfault_x 1\npgfault 2\noom 3\noom_kill 4\n".into());
        assert_eq!(
            (table.get("pgfault"), table.get("oom_kill"), table.get("none")),
            (Some(2), Some(4), None)
        );
    }
}
