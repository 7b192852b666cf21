//! How much CPU time a tree of processes has used. It must not stop or signal any of them.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::spawn::{CpuFile, children_of, io_there};

/// Reads the CPU time of everything inside.
#[derive(Debug)]
pub(super) struct CpuMeter {
    source: Source,
    begun: Duration,
    /// What was read last: a tree whose processes end while it is read shows less than before.
    most: Duration,
}

/// Where it is counted.
#[derive(Debug)]
pub(super) enum Source {
    /// By the sandbox's own group: exactly.
    Group(CpuFile),
    /// By the clock of the sandbox that the command joined.
    Elsewhere,
    /// By the processes below the first one inside.
    Tree {
        /// That process.
        root: i32,
    },
}

/// Processes of a tree, and threads of a process, that are looked at: a program must not make the caller work for it.
const PROCESSES_MOST: usize = 4_096;
const THREADS_MOST: usize = 256;
/// Fields of `/proc/PID/stat` behind the name (proc_pid_stat(5)): utime, stime, cutime, cstime.
const TIMES: Range<usize> = 11..15;

impl CpuMeter {
    /// A meter that begins now.
    pub(super) fn new(source: Source) -> Self {
        let begun = source.read().unwrap_or_default();
        Self { source, begun, most: Duration::ZERO }
    }

    /// What was used since the meter was made; `None` where that cannot be read.
    pub(super) fn used(&mut self) -> Option<Duration> {
        let now = self.source.read()?.saturating_sub(self.begun);
        self.most = self.most.max(now);
        Some(self.most)
    }
}

impl Source {
    fn read(&self) -> Option<Duration> {
        match self {
            Self::Group(file) => file.read(),
            Self::Elsewhere => Some(Duration::ZERO),
            Self::Tree { root } => tree(*root),
        }
    }
}

/// By the tree of parents, which the sandbox's init keeps whole: orphans become its children, and what it reaped is counted
/// as its own (`cutime`). Not counted are children of a process that ignores SIGCHLD (wait(2), "NOTES"). Resolution: a clock
/// tick. Of more processes, or more threads of one, than anybody runs by accident the rest is left out. `None` where one that
/// is there cannot be read, as for want of a descriptor.
fn tree(root: i32) -> Option<Duration> {
    let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|hertz| u32::try_from(hertz).ok());
    let tick = Duration::from_secs(1) / hertz.unwrap_or(100).max(1);
    let mut ticks = 0_u64;
    let mut todo = vec![root];
    let mut seen = 0;
    while let Some(pid) = todo.pop() {
        seen += 1;
        if seen > PROCESSES_MOST {
            break;
        }
        // A process that has ended is in its parent's sum, or not yet anybody's.
        let process = PathBuf::from(format!("/proc/{pid}"));
        let path = process.join("stat");
        let stat = io_there(&path, "read", fs::read_to_string(&path)).ok()?;
        let stat = stat.or_else(|| (pid != root).then(String::new))?;
        ticks = ticks.saturating_add(times(&stat));
        todo.extend(children_of(&process, THREADS_MOST).ok()?);
    }
    Some(tick.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)))
}

pub(crate) fn times(stat: &str) -> u64 {
    // The name can hold anything, the last bracket ends it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let numbers = fields.split_ascii_whitespace().skip(TIMES.start).take(TIMES.len());
    numbers.filter_map(|number| number.parse::<u64>().ok()).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::times;

    #[test]
    fn a_name_with_brackets_and_blanks_moves_no_field() {
        let stat = "7 (a) b) 1 2 3) S 1 7 7 0 -1 4194560 100 0 0 0 5 6 7 8 20 0 1 0 1 1 1";
        assert_eq!(times(stat), 26);
        assert_eq!(times(""), 0);
    }
}
