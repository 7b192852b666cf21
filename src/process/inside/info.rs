//! What is known of one process inside: parsing of its files in /proc. It must not decide whether it is one of the sandbox's.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::{Entry, Seen};

/// What a process is to its sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProcessRole {
    /// The crate's init.
    Init,
    /// The program.
    Program,
    /// A process of the crate's that waits for a command which joined the sandbox ([`crate::Child::command`]). It is in the
    /// sandbox's groups, and nobody inside sees it.
    Attendant,
    /// Whatever the programs have made.
    Other,
}

/// What a process does (proc_pid_stat(5), "state").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProcessState {
    /// It runs, or could.
    Running,
    /// It waits for something.
    Sleeping,
    /// It waits for something and no signal wakes it; what the freezer of cgroup v1 holds too.
    Uninterruptible,
    /// A signal has stopped it.
    Stopped,
    /// A tracer has stopped it.
    Traced,
    /// It has ended and is not reaped.
    Zombie,
    /// What the kernel calls by another letter.
    Other(char),
}

impl ProcessState {
    fn of(letter: char) -> Self {
        match letter {
            'R' => Self::Running,
            'S' => Self::Sleeping,
            'D' => Self::Uninterruptible,
            'T' => Self::Stopped,
            't' => Self::Traced,
            'Z' => Self::Zombie,
            other => Self::Other(other),
        }
    }
}

/// A process inside. What it says of itself, the command, is its own word: it can be changed at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// As this process sees it. For signals there is [`crate::Child::signal_all`]: a pid can be another process's by now.
    pub pid: u32,
    /// As the sandbox's first process sees it; `None` where it cannot (it was moved into the group from outside).
    pub pid_inside: Option<u32>,
    /// Its parent, as this process sees it; 0 where that is outside of this process's pid namespace.
    pub parent: u32,
    /// What it is to the sandbox.
    pub role: ProcessRole,
    /// At most 15 bytes: the name of the program, or of what the program says.
    pub command: OsString,
    /// Its arguments; none of a zombie, and where this process may not look.
    pub arguments: Vec<OsString>,
    /// What it does.
    pub state: ProcessState,
    /// Its threads.
    pub threads: u64,
    /// Bytes of memory that it has in RAM, shared ones included; 0 of a zombie.
    pub resident: u64,
    /// When it began, in clock ticks since the machine's boot (sysconf(3), `_SC_CLK_TCK`): with the pid, a name that no other
    /// process has.
    pub start: u64,
}

/// The pids of a process from this /proc's namespace inwards: `NSpid` of proc_pid_status(5), since Linux 4.1.
pub(super) fn namespace_pids(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.map(|line| line.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()).unwrap_or_default()
}

/// Reads it; `None` where it is gone. `depth` is how many pids the sandbox's first process has.
pub(super) fn read(entry: &Entry, depth: usize) -> Seen<ProcessInfo> {
    let (Some(stat), Some(status)) = (entry.read("stat")?, entry.text("status")?) else { return Ok(None) };
    let Some(mut info) = parse(&stat, &status, depth) else { return Ok(None) };
    info.arguments = arguments(&entry.read("cmdline")?.unwrap_or_default());
    Ok((info.pid == entry.pid.unsigned_abs()).then_some(info))
}

/// From the text of `stat`, in which the command stands in brackets and may hold anything, and of `status`.
pub(crate) fn parse(stat: &[u8], status: &str, depth: usize) -> Option<ProcessInfo> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let pid = str::from_utf8(stat.get(..open)?).ok()?.trim().parse().ok()?;
    let fields: Vec<&str> = str::from_utf8(stat.get(close + 1..)?).ok()?.split_ascii_whitespace().collect();
    // Fields are counted from 1, and the first behind the bracket is the third.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let inside = depth.checked_sub(1).and_then(|index| namespace_pids(status).get(index).copied());
    Some(ProcessInfo {
        pid,
        pid_inside: inside,
        parent: u32::try_from(number(4)?).ok()?,
        role: ProcessRole::Other,
        command: OsString::from_vec(stat.get(open + 1..close)?.to_vec()),
        arguments: Vec::new(),
        state: ProcessState::of(fields.first()?.chars().next()?),
        threads: number(20)?,
        resident: kib("VmRSS:").unwrap_or(0).saturating_mul(1024),
        start: number(22)?,
    })
}

/// Each ends with a NUL.
pub(crate) fn arguments(bytes: &[u8]) -> Vec<OsString> {
    let Some(bytes) = bytes.strip_suffix(b"\0").or_else(|| (!bytes.is_empty()).then_some(bytes)) else {
        return Vec::new();
    };
    bytes.split(|byte| *byte == 0).map(|part| OsString::from_vec(part.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nVmRSS:\t     512 kB\nNSpid:\t77\t5\t2\n";

    fn stat(command: &str) -> Vec<u8> {
        format!("77 ({command}) S 70 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 4711 9 128 1").into_bytes()
    }

    #[test]
    fn a_command_may_hold_anything() {
        for command in ["x", "a b", ") R 1 (", "((", "))", ""] {
            let info = parse(&stat(command), STATUS, 2).expect("a process");
            assert_eq!(info.command, command, "{info:?}");
            assert_eq!((info.pid, info.pid_inside, info.parent), (77, Some(5), 70));
            assert_eq!((info.threads, info.start, info.resident), (3, 4711, 512 << 10));
            assert_eq!(info.state, ProcessState::Sleeping);
        }
        let bytes = [b"77 (\xff\xfe)".as_slice(), &stat("x")[6..]].concat();
        assert_eq!(parse(&bytes, STATUS, 2).expect("a process").command.into_vec(), b"\xff\xfe");
    }

    #[test]
    fn what_is_no_process_is_none() {
        for text in ["", "77", "77 (x", "77 (x)", "77 (x) S", "x (x) S 1 2"] {
            assert_eq!(parse(text.as_bytes(), STATUS, 2), None, "{text:?}");
        }
        assert_eq!(parse(&stat("x"), "", 2).expect("a process").pid_inside, None);
        assert_eq!(parse(&stat("x"), STATUS, usize::MAX).expect("a process").pid_inside, None);
    }

    #[test]
    fn arguments_end_with_a_nul() {
        assert_eq!(arguments(b""), Vec::<OsString>::new());
        assert_eq!(arguments(b"a\0b c\0\0"), ["a", "b c", ""]);
        assert_eq!(arguments(b"renamed"), ["renamed"]);
    }
}
