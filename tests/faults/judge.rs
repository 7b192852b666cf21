//! Which errnos a call may plausibly give, and whether what came of one is what may come of it. It must not run anything.

use std::io;

use nix::errno::Errno;

use super::words::{Act, End, Fault, Point, Round, Seen, Side};

/// Every errno that a call is made to fail with.
pub(crate) const ERRNOS: [i32; 12] = [
    libc::EPERM,
    libc::EACCES,
    libc::EINVAL,
    libc::ENOMEM,
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOSPC,
    libc::ENOSYS,
    libc::EAGAIN,
    libc::EINTR,
    libc::EIO,
    libc::EBUSY,
];

macro_rules! names {
    ($($name:ident $call:ident,)*) => {
        const NAMES: &[(libc::c_long, &str)] = &[$((libc::$call, stringify!($name)),)*];
    };
}

names! {
    access SYS_access, arch_prctl SYS_arch_prctl, bpf SYS_bpf, brk SYS_brk, capget SYS_capget, capset SYS_capset,
    chdir SYS_chdir, clone SYS_clone, clone3 SYS_clone3, close SYS_close, close_range SYS_close_range, dup SYS_dup,
    dup2 SYS_dup2, dup3 SYS_dup3, epoll_create1 SYS_epoll_create1, epoll_ctl SYS_epoll_ctl, epoll_wait SYS_epoll_wait,
    execve SYS_execve, execveat SYS_execveat, exit SYS_exit, exit_group SYS_exit_group, faccessat SYS_faccessat,
    faccessat2 SYS_faccessat2, fallocate SYS_fallocate, fchdir SYS_fchdir, fchmod SYS_fchmod, fchmodat SYS_fchmodat,
    fchown SYS_fchown, fchownat SYS_fchownat, fcntl SYS_fcntl, flock SYS_flock, fsconfig SYS_fsconfig, fsmount SYS_fsmount,
    fsopen SYS_fsopen, fstat SYS_fstat, fstatfs SYS_fstatfs, ftruncate SYS_ftruncate, futex SYS_futex, getcwd SYS_getcwd,
    getdents64 SYS_getdents64, geteuid SYS_geteuid, getegid SYS_getegid, getgid SYS_getgid, getgroups SYS_getgroups,
    getpid SYS_getpid, getpgid SYS_getpgid, getppid SYS_getppid, getrandom SYS_getrandom, getresuid SYS_getresuid,
    getresgid SYS_getresgid, getrlimit SYS_getrlimit, getsid SYS_getsid, gettid SYS_gettid, getuid SYS_getuid,
    getxattr SYS_getxattr, inotify_add_watch SYS_inotify_add_watch, inotify_init1 SYS_inotify_init1, ioctl SYS_ioctl,
    keyctl SYS_keyctl, kill SYS_kill, landlock_add_rule SYS_landlock_add_rule,
    landlock_create_ruleset SYS_landlock_create_ruleset, landlock_restrict_self SYS_landlock_restrict_self,
    lseek SYS_lseek, lstat SYS_lstat, madvise SYS_madvise, memfd_create SYS_memfd_create, mkdir SYS_mkdir,
    mkdirat SYS_mkdirat, mknodat SYS_mknodat, mmap SYS_mmap, mount SYS_mount, mount_setattr SYS_mount_setattr,
    move_mount SYS_move_mount, mprotect SYS_mprotect, mremap SYS_mremap, munmap SYS_munmap, newfstatat SYS_newfstatat,
    open SYS_open, open_tree SYS_open_tree, openat SYS_openat, openat2 SYS_openat2, personality SYS_personality,
    pidfd_getfd SYS_pidfd_getfd, pidfd_open SYS_pidfd_open, pidfd_send_signal SYS_pidfd_send_signal, pipe2 SYS_pipe2,
    pivot_root SYS_pivot_root, poll SYS_poll, ppoll SYS_ppoll, prctl SYS_prctl, prlimit64 SYS_prlimit64, read SYS_read,
    readlink SYS_readlink, readlinkat SYS_readlinkat, recvfrom SYS_recvfrom, recvmsg SYS_recvmsg,
    restart_syscall SYS_restart_syscall, rmdir SYS_rmdir, rseq SYS_rseq, rt_sigaction SYS_rt_sigaction,
    rt_sigprocmask SYS_rt_sigprocmask, rt_sigtimedwait SYS_rt_sigtimedwait, rt_sigreturn SYS_rt_sigreturn, sched_getaffinity SYS_sched_getaffinity,
    sched_yield SYS_sched_yield, seccomp SYS_seccomp, sendmsg SYS_sendmsg, sendto SYS_sendto,
    set_robust_list SYS_set_robust_list, setdomainname SYS_setdomainname, setgid SYS_setgid, setgroups SYS_setgroups,
    sethostname SYS_sethostname, setpriority SYS_setpriority, setresgid SYS_setresgid, setresuid SYS_setresuid,
    setrlimit SYS_setrlimit, setsid SYS_setsid, setsockopt SYS_setsockopt, setxattr SYS_setxattr,
    sigaltstack SYS_sigaltstack, signalfd4 SYS_signalfd4, socket SYS_socket, socketpair SYS_socketpair, stat SYS_stat,
    statfs SYS_statfs, statx SYS_statx, symlinkat SYS_symlinkat, sysinfo SYS_sysinfo, tgkill SYS_tgkill, umask SYS_umask,
    umount2 SYS_umount2, uname SYS_uname, unlink SYS_unlink, unlinkat SYS_unlinkat, unshare SYS_unshare, wait4 SYS_wait4,
    waitid SYS_waitid, write SYS_write, writev SYS_writev, getpriority SYS_getpriority, fsync SYS_fsync,
    process_vm_readv SYS_process_vm_readv, process_vm_writev SYS_process_vm_writev, connect SYS_connect,
    getsockname SYS_getsockname, getsockopt SYS_getsockopt, eventfd2 SYS_eventfd2, timerfd_create SYS_timerfd_create,
    timerfd_settime SYS_timerfd_settime, epoll_pwait SYS_epoll_pwait, epoll_pwait2 SYS_epoll_pwait2, vfork SYS_vfork,
    pread64 SYS_pread64, clock_gettime SYS_clock_gettime,
    clock_nanosleep SYS_clock_nanosleep, nanosleep SYS_nanosleep, fremovexattr SYS_fremovexattr,
}

/// What a call is called.
pub(crate) fn name(call: u64) -> &'static str {
    let found = NAMES.iter().find(|(number, _)| u64::try_from(*number) == Ok(call));
    found.map_or("?", |(_, name)| name)
}

pub(crate) fn text(point: &Point) -> String {
    let operation = if point.operation == 0 { String::new() } else { format!("({:#x})", point.operation) };
    format!("{} {}{operation}#{}", point.who, name(point.call), point.nth)
}

/// What may befall a call that was seen.
pub(crate) fn acts(seen: &Seen) -> Vec<Act> {
    let of_caller = !seen.point.who.starts_with("child");
    let fail = |errnos: &[i32]| errnos.iter().map(|errno| Act::Fail(*errno)).collect();
    match name(seen.point.call) {
        // They do not come back, or cannot fail.
        "exit" | "exit_group" | "rt_sigreturn" | "restart_syscall" | "getpid" | "gettid" | "getuid"
        | "getppid" | "geteuid" | "getegid" | "getgid" | "getresuid" | "getresgid" | "sched_yield"
        | "umask" => Vec::new(),
        // std's clock, where the kernel has none that needs no call.
        "clock_gettime" if of_caller => Vec::new(),
        // std takes it for granted that nothing else can come of it.
        "clock_nanosleep" | "nanosleep" => fail(&[libc::EINTR]),
        // The kernel lets go of the descriptor whatever it says.
        // std wants nothing else of closedir(3).
        "close" if of_caller => vec![Act::FailDone(libc::EINTR)],
        "close" => [libc::EINTR, libc::EIO, libc::ENOSPC].map(Act::FailDone).to_vec(),
        // std's own check of a descriptor that is about to be closed.
        "fcntl" if of_caller && seen.args[1] == 1 => Vec::new(),
        // A thread without its name is one that the tests do not know.
        "prctl" if of_caller && seen.args[0] == u64::from(libc::PR_SET_NAME.unsigned_abs()) => Vec::new(),
        // Those of the C library's and of std's threads and heap, where a failure is an abort; and the mask, whose arguments
        // are valid.
        "brk" | "munmap" | "madvise" | "mprotect" | "mremap" | "sigaltstack" | "set_robust_list" | "rseq"
        | "rt_sigprocmask" | "sched_getaffinity"
            if of_caller =>
        {
            Vec::new()
        }
        "mmap" if of_caller => {
            let flags = i32::try_from(seen.args[3] & 0x7fff_ffff).unwrap_or(0);
            let heap = flags & libc::MAP_ANONYMOUS != 0 && flags & libc::MAP_STACK == 0;
            // A thread's own, for its signals: std aborts without it.
            let own = flags & libc::MAP_STACK != 0 && seen.point.who != "caller";
            if heap || own { Vec::new() } else { fail(&ERRNOS) }
        }
        // FUTEX_WAIT and FUTEX_WAIT_BITSET may wake up for nothing.
        "futex" if seen.args[1] & 0x7f == 0 || seen.args[1] & 0x7f == 9 => fail(&[libc::EINTR, libc::EAGAIN]),
        "futex" => Vec::new(),
        _ => fail(&ERRNOS),
    }
}

/// What a round told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Ran { facts: String, report: String },
    Failed { step: String, object: String, call: String, errno: i32, text: String },
    Panicked,
    Nothing(String),
}

/// The line of a round: what was left behind, and what came of it.
pub(crate) fn read(end: &End) -> (String, Told) {
    let line = match end {
        End::Line(line) => line,
        End::Died(how) => return (String::new(), Told::Nothing(how.clone())),
        End::Hung => return (String::new(), Told::Nothing("it hung".to_owned())),
    };
    let fields: Vec<&str> = line.split('\t').collect();
    let owned = |index: usize| fields.get(index).copied().unwrap_or_default().to_owned();
    let told = match fields.get(1) {
        Some(&"ok") => Told::Ran { facts: owned(2), report: owned(3) },
        Some(&"err") => Told::Failed {
            step: owned(3),
            object: owned(4),
            call: owned(5),
            errno: owned(6).parse().unwrap_or(0),
            text: owned(7),
        },
        _ => Told::Panicked,
    };
    (owned(0), told)
}

/// What came of a fault, in a word for the count.
pub(crate) type Kind = String;

/// The same thing under another name: std's helpers open before they read, and the C library has names of its own.
fn is_call(told: &str, call: &str) -> bool {
    let same: &[(&str, &[&str])] = &[
        ("open", &["openat"]),
        ("opendir", &["openat", "newfstatat"]),
        ("read", &["openat", "statx", "fstat", "lseek"]),
        ("write", &["openat"]),
        ("stat", &["statx", "newfstatat"]),
        ("fstat", &["newfstatat"]),
        ("clone", &["clone3", "mmap", "rt_sigprocmask"]),
        ("send", &["sendto"]),
        ("poll", &["ppoll"]),
        ("readlink", &["readlinkat"]),
        ("SECCOMP_IOCTL_NOTIF_RECV", &["ioctl"]),
        // std's, in which the caller makes pipes and a process, and that opens, moves and executes.
        (
            "posix_spawn",
            &[
                "open",
                "openat",
                "pipe2",
                "fcntl",
                "clone",
                "clone3",
                "mmap",
                "dup2",
                "rt_sigaction",
                "execve",
                "poll",
                "read",
                "wait4",
            ],
        ),
    ];
    told == call || same.iter().any(|(name, calls)| *name == told && calls.contains(&call))
}

/// Whether what came of a failed call may come of it: the kind of it, or what is wrong.
pub(crate) fn of_failure(plain: &Told, fault: &Fault, round: &Round) -> Result<Kind, String> {
    let (left, told) = read(&round.end);
    let errno = match fault.act {
        Act::Fail(errno) | Act::FailDone(errno) => errno,
        Act::Kill(..) | Act::Stop(..) => 0,
    };
    if !left.is_empty() || !round.left.is_empty() {
        return Err(format!("left behind: {left} {:?}", round.left));
    }
    match (&told, plain) {
        (Told::Nothing(how), _) => Err(how.clone()),
        (Told::Panicked, _) => Err("it panicked".to_owned()),
        (Told::Ran { facts, report }, Told::Ran { facts: plain_facts, report: plain_report }) => {
            match (facts == plain_facts, report == plain_report) {
                (true, true) => Ok("as if nothing were".to_owned()),
                (_, false) => Ok("reported".to_owned()),
                (false, true) if was_told(plain_facts, facts, errno) => Ok("the program was told".to_owned()),
                (false, true) => Err(format!("less than was said: {}", difference(plain_facts, facts))),
            }
        }
        (Told::Failed { step, call, errno: seen, text, .. }, _) => {
            let real = name(fault.point.call);
            // A stack that is the caller's is a thread's: the child has none of its own.
            let stack =
                real == "mmap" && fault.point.operation & u64::from(libc::MAP_STACK.unsigned_abs()) != 0;
            if stack && text.contains("namespaces") {
                return Err(format!("a thread that cannot be had is no child: {text}"));
            }
            let named = is_call(call, real) && *seen == errno
                // Pthreads say EAGAIN for want of memory.
                || is_call(call, real) && ["clone3", "mmap"].contains(&real) && *seen == libc::EAGAIN
                // Nothing to receive, after a poll that said that there is something, means that the caller is gone.
                || real == "recvfrom" && errno == libc::EAGAIN && text.contains("the caller is gone");
            // A limit tells what each rung of its ladder was refused for.
            let rung = text.starts_with("cgroup limit")
                && text.contains(&format!("{real}: {:?}", Errno::from_raw(errno)));
            if named || rung { Ok(format!("error of {step}")) } else { Err(format!("other: {text}")) }
        }
        (Told::Ran { .. }, _) => Err("the plain run did not run".to_owned()),
    }
}

/// Whether it is of a broker that a program has less: the call that was asked about has failed, with that errno or with the one
/// that says that memory, a descriptor or the call itself cannot be looked at. What is refused must be refused all the same.
fn was_told(plain: &str, facts: &str, errno: i32) -> bool {
    const REFUSED: &str = "/etc/group: ";
    let told = |errno: i32| {
        let text = io::Error::from_raw_os_error(errno).to_string();
        // The loader of programs says no more than the number.
        let texts =
            [text.split(" (os error").next().unwrap_or_default().to_owned(), format!("Error {errno}")];
        texts.iter().any(|text| facts.contains(text))
    };
    let went_on = facts.contains("connected");
    plain.contains(REFUSED)
        && (facts.contains(REFUSED) || !went_on)
        && [errno, libc::EPERM, libc::EBADF, libc::EINTR].into_iter().any(told)
}

/// What came of a signal to one side.
pub(crate) fn of_signal(plain: &Told, fault: &Fault, round: &Round) -> Result<Kind, String> {
    let (left, told) = read(&round.end);
    if !left.is_empty() || !round.left.is_empty() {
        return Err(format!("left behind: {left} {:?}", round.left));
    }
    match (fault.act, &told) {
        (Act::Kill(Side::Caller, _), Told::Nothing(how)) if how.contains("SIGKILL") => {
            Ok("caller gone".to_owned())
        }
        (_, Told::Nothing(how)) => Err(how.clone()),
        (_, Told::Panicked) => Err("it panicked".to_owned()),
        (_, told) if told == plain => Ok("as if nothing were".to_owned()),
        (Act::Kill(Side::Same, _), Told::Failed { text, .. }) if text.contains("SIGKILL") => {
            Ok("error with the signal".to_owned())
        }
        (Act::Kill(Side::Same, _), Told::Ran { facts, .. }) if facts.contains("SIGKILL") => {
            Ok("verdict with the signal".to_owned())
        }
        (_, Told::Ran { .. }) => Err(unlike(plain, &told).unwrap_or_default()),
        (_, Told::Failed { text, .. }) => Err(format!("failed: {text}")),
    }
}

/// How two runs that should be alike differ.
pub(crate) fn unlike(first: &Told, second: &Told) -> Option<String> {
    match (first, second) {
        _ if first == second => None,
        (Told::Ran { facts, report }, Told::Ran { facts: other, report: reported }) => {
            Some(format!("{} {}", difference(facts, other), difference(report, reported)))
        }
        _ => Some(format!("{first:?} {second:?}")),
    }
}

/// The first lines that differ.
fn difference(plain: &str, seen: &str) -> String {
    let (plain, seen): (Vec<&str>, Vec<&str>) = (plain.split("\\n").collect(), seen.split("\\n").collect());
    let gone = plain.iter().filter(|line| !seen.contains(line));
    let come = seen.iter().filter(|line| !plain.contains(line));
    format!("-{:?} +{:?}", gone.take(4).collect::<Vec<_>>(), come.take(4).collect::<Vec<_>>())
}
