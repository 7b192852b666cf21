//! What the program's process looks like apart from ids and limits. It must not hold anything of a single command.

use super::wanted::Wanted;
use std::time::Duration;

/// Offsets of a time namespace (time_namespaces(7), since Linux 5.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeOffsets {
    /// Added to `CLOCK_MONOTONIC`, seconds.
    pub monotonic: i64,
    /// Added to `CLOCK_BOOTTIME`, seconds.
    pub boottime: i64,
}

/// Who is PID 1 inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Init {
    /// A few instructions of the crate: they reap orphans, forward signals, pass on the exact wait status, and end
    /// everything when the program or the caller's process ends. The default.
    #[default]
    Reaper,
    /// The program itself, with what PID 1 means for it (pid_namespaces(7)): signals without a handler are ignored and
    /// orphans are its own to reap. It dies with the caller's process by `PR_SET_PDEATHSIG`.
    Program,
}

/// How the set-up gets an address space of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Launch {
    /// An image where the host can execute one, else a copy; the report says which, and why.
    #[default]
    Auto,
    /// A tiny image in a sealed memfd, executed in a short vfork window. Fails where a memfd cannot be executed.
    Image,
    /// A copy of the caller (fork). Its cost grows with the caller's memory, and init keeps that copy, untraceable from
    /// inside, as long as the sandbox lives.
    Copy,
}

/// Whether a sandbox may outlive its caller's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tether {
    /// Never. The default.
    #[default]
    Always,
    /// A weakening: from [`crate::Child::detach`] on.
    UntilDetached,
}

/// Options of the process that harden or change it; each is one system call at most.
#[derive(Clone, Debug, PartialEq)]
pub struct Hardening {
    /// File mode creation mask. Default 0o022.
    pub umask: u32,
    /// Nice value added to nothing: the value itself, -20 to 19 (setpriority(2)).
    pub nice: Option<Wanted<i32>>,
    /// `/proc/self/oom_score_adj`, -1000 to 1000 (proc(5)); lowering needs `CAP_SYS_RESOURCE` on the host.
    pub oom_score_adj: Option<Wanted<i32>>,
    /// `PR_SET_MDWE` (since Linux 6.3): no mapping is ever both writable and executable. It starts at the exec.
    pub deny_write_execute: Option<Wanted<()>>,
    /// `ADDR_NO_RANDOMIZE` (personality(2)): a weakening for debuggers and reproducible runs.
    pub disable_aslr: Option<Wanted<()>>,
    /// `PR_SET_TIMERSLACK`.
    pub timer_slack: Option<Wanted<Duration>>,
    /// No memfd can be executed: by the filter, or without one by `vm.memfd_noexec=2` in the sandbox's own pid namespace.
    pub deny_memfd_exec: Option<Wanted<()>>,
    /// `user.max_user_namespaces=0` in the sandbox's own user namespace. On by default.
    pub deny_user_namespaces: Option<Wanted<()>>,
    /// A session keyring of its own (keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`). On by default.
    pub own_keyring: Option<Wanted<()>>,
    /// `no_new_privs` (prctl(2)). Off only by [`crate::Builder::allow_new_privileges`].
    pub no_new_privs: NewPrivileges,
    /// Whether the program stays in the caller's session, and so at its terminal.
    pub session: Session,
    /// Whether it may outlive the caller. Only by [`crate::Builder::allow_outliving_caller`].
    pub tether: Tether,
}

/// Whether an exec may gain privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NewPrivileges {
    /// `PR_SET_NO_NEW_PRIVS` is set.
    Never,
    /// A weakening.
    Allowed,
}

/// The program's session (setsid(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Session {
    /// A new one: the caller's terminal is not the program's.
    New,
    /// A weakening: the program can push characters into the caller's terminal (`TIOCSTI`) where the kernel allows it.
    Shared,
}

impl Default for Hardening {
    fn default() -> Self {
        Self {
            umask: 0o022,
            nice: None,
            oom_score_adj: None,
            deny_write_execute: None,
            disable_aslr: None,
            timer_slack: None,
            deny_memfd_exec: None,
            deny_user_namespaces: Some(().into()),
            own_keyring: Some(().into()),
            no_new_privs: NewPrivileges::Never,
            session: Session::New,
            tether: Tether::Always,
        }
    }
}
