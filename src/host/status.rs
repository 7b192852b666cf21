//! Parses /proc/PID/status. It must not fill in what the text does not say: this is how the parent reads back what
//! holds in a sandbox.

use super::answer::Answer;

/// The four ids of one kind that a process has, see credentials(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ids {
    /// The real id.
    pub real: u32,
    /// The effective id.
    pub effective: u32,
    /// The saved set-user-ID or set-group-ID.
    pub saved: u32,
    /// The id that file accesses are judged by.
    pub filesystem: u32,
}

impl Ids {
    /// The same id four times, as an ordinary process has it.
    #[must_use]
    pub const fn same(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, filesystem: id }
    }
}

/// The five capability sets of a thread, a bit for each capability. See capabilities(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CapabilitySets {
    /// What may be kept across execve(2) together with a file's inheritable set.
    pub inheritable: u64,
    /// What the thread may make effective.
    pub permitted: u64,
    /// What the kernel checks.
    pub effective: u64,
    /// What a program file can give at most.
    pub bounding: u64,
    /// What execve(2) keeps for a program file without privileges of its own. Linux 4.3.
    pub ambient: u64,
}

impl CapabilitySets {
    /// Whether the capability with this number (`CAP_SYS_ADMIN` is 21) is effective.
    #[must_use]
    pub const fn has_effective(&self, number: u32) -> bool {
        number < u64::BITS && self.effective >> number & 1 == 1
    }
}

/// The `Seccomp` field of /proc/PID/status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SeccompMode {
    /// No system call is filtered.
    Disabled,
    /// Only read, write, _exit and sigreturn are allowed.
    Strict,
    /// A filter decides.
    Filter,
}

/// What /proc/PID/status says. A line that is absent or cannot be understood leaves its field `None`.
///
/// See proc_pid_status(5). The lines of seccomp filters are there since Linux 5.9, all others since 4.10 or longer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Status {
    /// `Uid`, as the reader's user namespace sees it.
    pub uid: Option<Ids>,
    /// `Gid`, as the reader's user namespace sees it.
    pub gid: Option<Ids>,
    /// `Groups`: the supplementary groups.
    pub groups: Option<Vec<u32>>,
    /// `NSpid`: the pid in each pid namespace from that of this /proc inwards. Linux 4.1.
    pub namespace_pids: Option<Vec<u32>>,
    /// `FDSize`: slots of the file descriptor table.
    pub fd_size: Option<u64>,
    /// `Threads`: how many the process has.
    pub threads: Option<u64>,
    /// `SigBlk`: blocked signals, signal 1 in the lowest bit.
    pub signals_blocked: Option<u64>,
    /// `SigIgn`: ignored signals.
    pub signals_ignored: Option<u64>,
    /// `SigCgt`: caught signals.
    pub signals_caught: Option<u64>,
    /// The five `Cap` lines; `None` unless all of them are there.
    pub capabilities: Option<CapabilitySets>,
    /// `NoNewPrivs`. Linux 4.10.
    pub no_new_privs: Answer,
    /// `Seccomp`. Linux 3.8.
    pub seccomp: Option<SeccompMode>,
    /// `Seccomp_filters`: how many filters are attached. Linux 5.9.
    pub seccomp_filters: Option<u32>,
}

impl Status {
    /// Reads the text of /proc/PID/status.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut status = Self::default();
        let mut sets = [None; 5];
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match key {
                "CapInh" => sets[0] = hex(value),
                "CapPrm" => sets[1] = hex(value),
                "CapEff" => sets[2] = hex(value),
                "CapBnd" => sets[3] = hex(value),
                "CapAmb" => sets[4] = hex(value),
                _ => status.take(key, value),
            }
        }
        if let [Some(inheritable), Some(permitted), Some(effective), Some(bounding), Some(ambient)] = sets {
            status.capabilities =
                Some(CapabilitySets { inheritable, permitted, effective, bounding, ambient });
        }
        status
    }

    fn take(&mut self, key: &str, value: &str) {
        match key {
            "Uid" => self.uid = ids(value),
            "Gid" => self.gid = ids(value),
            "Groups" => self.groups = numbers(value),
            "NSpid" => self.namespace_pids = numbers(value),
            "FDSize" => self.fd_size = value.parse().ok(),
            "Threads" => self.threads = value.parse().ok(),
            "SigBlk" => self.signals_blocked = hex(value),
            "SigIgn" => self.signals_ignored = hex(value),
            "SigCgt" => self.signals_caught = hex(value),
            "NoNewPrivs" => self.no_new_privs = flag(value),
            "Seccomp" => self.seccomp = mode(value),
            "Seccomp_filters" => self.seccomp_filters = value.parse().ok(),
            _ => {}
        }
    }
}

/// A mask as the kernel prints it: sixteen hex digits and nothing else.
fn hex(value: &str) -> Option<u64> {
    // from_str_radix alone would take a sign.
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_hexdigit());
    if digits { u64::from_str_radix(value, 16).ok() } else { None }
}

fn numbers(value: &str) -> Option<Vec<u32>> {
    value.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
}

fn ids(value: &str) -> Option<Ids> {
    let &[real, effective, saved, filesystem] = numbers(value)?.as_slice() else { return None };
    Some(Ids { real, effective, saved, filesystem })
}

fn flag(value: &str) -> Answer {
    match value {
        "0" => Answer::No,
        "1" => Answer::Yes,
        _ => Answer::Unknown,
    }
}

fn mode(value: &str) -> Option<SeccompMode> {
    match value {
        "0" => Some(SeccompMode::Disabled),
        "1" => Some(SeccompMode::Strict),
        "2" => Some(SeccompMode::Filter),
        _ => None,
    }
}
