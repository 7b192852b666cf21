//! The presets. It must not hold calls: those stand in groups, with their reasons.

use super::action::Action;
use super::condition::Argument;
use super::filter::Filter;
use super::groups::{self, AF_UNIX, EAFNOSUPPORT, Group};

/// `MFD_NOEXEC_SEAL` (since Linux 6.3): neither executable, nor can it become so.
const MFD_NOEXEC_SEAL: u64 = 8;

impl Filter {
    /// This filter, and no memfd that can be executed: what `vm.memfd_noexec=2` says, for those who cannot write that.
    pub(crate) fn without_executable_memfd(self) -> Self {
        let executable = Argument::int(1).masked_equal(MFD_NOEXEC_SEAL, 0);
        self.narrow(&Self::deny_list().rule("memfd_create", [executable], Action::Errno(libc::EACCES)))
    }

    /// For arbitrary programs, and the default: shells, compilers, Python, Node, Go, Rust and Java run unchanged. An
    /// allow-list with exceptions; calls that it does not know answer `ENOSYS`.
    pub fn baseline() -> Self {
        let mut groups = groups::ordinary();
        groups.extend(groups::closed());
        from_groups(&groups)
    }

    /// [`Filter::baseline`] without sockets other than local ones, made or used by name: for programs that stay in the
    /// host's network namespace. A socket that was passed can be used.
    pub fn no_network() -> Self {
        Self::baseline().narrow(&no_sockets())
    }

    /// A helper that computes on passed descriptors, as a renderer or a decoder does: read, write, memory, threads, time,
    /// exit. It opens nothing, connects to nothing, starts nothing ([`Filter::launch_only`]). A static program starts under
    /// it, with glibc or musl; a dynamic one needs [`Filter::worker_dynamic`]. A static glibc looks for its own path at the
    /// start and does without: with [`Action::KillProcess`] for all the rest it would end there. Let such a program lower
    /// itself when it has started ([`crate::Lowering`]).
    pub fn worker() -> Self {
        from_groups(&groups::computing()).launch_only()
    }

    /// [`Filter::worker`] for dynamic programs: their loader has to open libraries, and so has whatever runs later. Files
    /// can be opened for reading, as far as the mount tree has any: give it no more than the libraries.
    pub fn worker_dynamic() -> Self {
        let mut groups = groups::computing();
        groups.extend(groups::loading());
        from_groups(&groups).launch_only()
    }

    /// Also what a process calls to lower itself ([`crate::Lowering`]): for a program that starts under this filter and takes
    /// a narrower one when it is ready. [`Filter::baseline`] has it all. To show each thread in its report, the process has
    /// to be able to open `/proc/self/task` too, as under [`Filter::worker_dynamic`].
    pub fn with_lowering(self) -> Self {
        // The strictest of all answers for the rest, so that nothing else becomes looser.
        self.extend(&from_groups(&groups::lowering()).otherwise(Action::KillProcess))
    }

    /// `read`, `write`, `exit`, `exit_group` and `rt_sigreturn`; any other call kills the process. A C library does not
    /// start under it: it is for programs without one, and for a process that lowers itself when it is ready.
    pub fn strict() -> Self {
        from_groups(&groups::least()).otherwise(Action::KillProcess).launch_only()
    }
}

fn from_groups(groups: &[Group]) -> Filter {
    let calls = groups.iter().flat_map(|group| {
        group.calls.split_ascii_whitespace().map(move |call| (call, group.conditions.clone(), group.action))
    });
    calls.fold(Filter::allow_list(), |filter, (call, conditions, action)| {
        filter.rule(call, conditions, action)
    })
}

pub(super) fn no_sockets() -> Filter {
    let remote = Argument::int(0).not_equal(AF_UNIX);
    Filter::deny_list().rule("socket", [remote], EAFNOSUPPORT)
}

/// The table in the documentation of [`Filter`].
#[cfg(test)]
pub(super) fn table() -> String {
    let mut text = String::from(
        "\n# Presets\n\nWhat each allows and refuses, and why; of several rules for one call the first that fits decides.\n",
    );
    let mut section = |name: &str, rest: &str, groups: &[Group]| {
        text.push_str(&format!("\n## `{name}()`\n\n| calls | if | answer | why |\n|---|---|---|---|\n"));
        for Group { why, calls, conditions, action } in groups {
            let calls: Vec<String> = calls.split_ascii_whitespace().map(|call| format!("`{call}`")).collect();
            let list: Vec<String> = conditions.iter().map(|condition| format!("`{condition}`")).collect();
            let (calls, list) = (calls.join(" "), list.join(" and "));
            text.push_str(&format!("| {calls} | {list} | {action} | {why} |\n"));
        }
        text.push_str(&format!("| all others | | {rest} | |\n"));
    };
    let mut baseline = groups::ordinary();
    baseline.extend(groups::closed());
    section("baseline", "ENOSYS", &baseline);
    let local = groups::when(
        [Argument::int(0).not_equal(AF_UNIX)],
        groups::group("only local sockets", "socket", EAFNOSUPPORT),
    );
    section("no_network", "as `baseline()`", &[local]);
    section("worker", "ENOSYS", &groups::computing());
    let added = groups::loading();
    section("worker_dynamic", "as `worker()`", &added);
    section("with_lowering", "as without", &groups::lowering());
    section("strict", "kill process", &groups::least());
    text
}
