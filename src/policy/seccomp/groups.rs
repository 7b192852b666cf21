//! What the presets are made of: groups of calls, each with its reason. It must not know which preset has which group.

use super::action::Action;
use super::condition::{Argument, Condition};

/// Calls that a preset treats alike, and why.
#[derive(Clone, Debug)]
pub(super) struct Group {
    #[cfg_attr(not(test), expect(dead_code, reason = "for the written list, which a test makes"))]
    pub(super) why: &'static str,
    pub(super) calls: &'static str,
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

pub(super) const EPERM: Action = Action::Errno(1);
pub(super) const ENOSYS: Action = Action::Errno(super::filter::ENOSYS);
pub(super) const ENOTTY: Action = Action::Errno(25);
pub(super) const EAFNOSUPPORT: Action = Action::Errno(97);

pub(super) const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;
const NETLINK_ROUTE: u64 = 0;
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;
/// Every `CLONE_NEW*` that clone(2) takes.
const NEW_BY_CLONE: u64 = 0x7e02_0000;
/// And `CLONE_NEWTIME`, which only unshare(2) takes there: in clone(2) the bit is part of the exit signal.
const NEW_BY_UNSHARE: u64 = NEW_BY_CLONE | 0x80;
/// `CLONE_VM | CLONE_SIGHAND | CLONE_THREAD`.
const THREAD: u64 = 0x0001_0900;

pub(super) fn group(why: &'static str, calls: &'static str, action: Action) -> Group {
    Group { why, calls, conditions: Vec::new(), action }
}

pub(super) fn when<const N: usize>(conditions: [Condition; N], mut group: Group) -> Group {
    group.conditions = conditions.to_vec();
    group
}

fn allowed(why: &'static str, calls: &'static str) -> Group {
    group(why, calls, Action::Allow)
}

/// What every program that runs behind a mount tree and namespaces of its own may do.
#[expect(clippy::too_many_lines, reason = "a list: one entry a group, with its reason")]
pub(super) fn ordinary() -> Vec<Group> {
    vec![
        allowed(
            "reading and writing what is open",
            "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek sendfile splice tee \
             vmsplice copy_file_range close close_range dup dup2 dup3 fcntl flock fsync fdatasync sync \
             sync_file_range syncfs readahead fadvise64 fallocate ftruncate pipe pipe2 eventfd eventfd2 cachestat",
        ),
        allowed(
            "files: which ones there are is the mount tree's to say, and whose they are the kernel's",
            "open openat openat2 creat access faccessat faccessat2 stat fstat lstat newfstatat statx statfs \
             fstatfs readlink readlinkat getcwd chdir fchdir getdents getdents64 mkdir mkdirat rmdir rename \
             renameat renameat2 link linkat symlink symlinkat unlink unlinkat mknod mknodat chmod fchmod fchmodat \
             fchmodat2 chown fchown lchown fchownat truncate umask utime utimes utimensat futimesat setxattr \
             lsetxattr fsetxattr setxattrat getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr \
             flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat file_getattr \
             file_setattr inotify_init inotify_init1 inotify_add_watch inotify_rm_watch",
        ),
        allowed(
            "memory of its own; run-time compilers need pages that are executable",
            "brk mmap munmap mremap mprotect madvise msync mincore mlock mlock2 munlock mlockall munlockall mseal \
             pkey_alloc pkey_free pkey_mprotect memfd_create memfd_secret remap_file_pages map_shadow_stack \
             membarrier process_madvise process_mrelease mbind set_mempolicy get_mempolicy \
             set_mempolicy_home_node",
        ),
        allowed(
            "starting and ending programs",
            "execve execveat exit exit_group fork vfork wait4 waitid arch_prctl set_tid_address set_robust_list \
             get_robust_list rseq set_thread_area get_thread_area prctl restart_syscall riscv_flush_icache \
             riscv_hwprobe uretprobe",
        ),
        allowed(
            "threads and their scheduling",
            "futex futex_waitv futex_wake futex_wait futex_requeue sched_yield sched_getaffinity \
             sched_setaffinity sched_getparam sched_setparam sched_getscheduler sched_setscheduler sched_getattr \
             sched_setattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval getcpu \
             rseq_slice_yield",
        ),
        allowed(
            "who it is; what a change of ids needs the kernel asks for",
            "getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgid getpgrp \
             getsid setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups setpgid \
             setsid capget capset",
        ),
        allowed(
            "signals, to what it can see",
            "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait \
             rt_sigqueueinfo rt_tgsigqueueinfo sigaltstack pause kill tkill tgkill signalfd signalfd4 pidfd_open \
             pidfd_send_signal",
        ),
        allowed(
            "time: reading it, waiting, timers",
            "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times alarm getitimer \
             setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete timerfd_create \
             timerfd_settime timerfd_gettime adjtimex clock_adjtime",
        ),
        allowed(
            "waiting for descriptors",
            "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2",
        ),
        allowed(
            "using sockets that are open",
            "bind connect listen accept accept4 getsockname getpeername setsockopt getsockopt sendto recvfrom \
             sendmsg recvmsg sendmmsg recvmmsg shutdown",
        ),
        allowed(
            "System V and POSIX IPC, in an IPC namespace of its own",
            "shmget shmat shmdt shmctl msgget msgsnd msgrcv msgctl semget semop semtimedop semctl mq_open \
             mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
        ),
        allowed(
            "the older asynchronous I/O of databases",
            "io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents",
        ),
        allowed(
            "limits and facts",
            "getrlimit setrlimit prlimit64 getrusage getpriority setpriority ioprio_get ioprio_set sysinfo uname \
             getrandom",
        ),
        allowed(
            "confining itself further",
            "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self lsm_get_self_attr \
             lsm_list_modules",
        ),
    ]
}

/// What is closed for those programs, beyond calls that this crate does not know.
#[expect(clippy::too_many_lines, reason = "a list: one entry a group, with its reason")]
pub(super) fn closed() -> Vec<Group> {
    vec![
        group(
            "its arguments lie in memory, so a filter cannot see flags there: the C library falls back to clone",
            "clone3",
            ENOSYS,
        ),
        when(
            [Argument::int(0).masked_equal(NEW_BY_CLONE, 0)],
            allowed("processes and threads, without new namespaces", "clone"),
        ),
        group("new namespaces give capabilities over kernel code that nothing else reaches", "clone", EPERM),
        when(
            [Argument::int(0).masked_equal(NEW_BY_UNSHARE, 0)],
            allowed("a table of descriptors of its own, without new namespaces", "unshare"),
        ),
        group("new and foreign namespaces", "unshare setns", EPERM),
        group("a list of namespaces, to find foreign ones by", "listns", ENOSYS),
        when(
            [Argument::int(1).equal(TIOCSTI)],
            group("TIOCSTI types into a terminal (CVE-2017-5226)", "ioctl", EPERM),
        ),
        when(
            [Argument::int(1).equal(TIOCLINUX)],
            group("TIOCLINUX pastes into a console (CVE-2023-28100)", "ioctl", EPERM),
        ),
        allowed("devices: which ones there are is the mount tree's to say", "ioctl"),
        when([Argument::int(0).equal(AF_UNIX)], allowed("local sockets", "socket socketpair")),
        when([Argument::int(0).equal(AF_INET)], allowed("IPv4, of its own network namespace", "socket")),
        when([Argument::int(0).equal(AF_INET6)], allowed("IPv6, of its own network namespace", "socket")),
        when(
            [Argument::int(0).equal(AF_NETLINK), Argument::int(2).equal(NETLINK_ROUTE)],
            allowed("getaddrinfo and getifaddrs ask for addresses", "socket"),
        ),
        group(
            "families that a network namespace does not confine (AF_VSOCK, AF_ALG) or few programs use",
            "socket socketpair",
            EAFNOSUPPORT,
        ),
        when([Argument::int(0).equal(0)], allowed("the ordinary personality", "personality")),
        when([Argument::int(0).equal(0xffff_ffff)], allowed("asking which one it is", "personality")),
        group("other personalities undo address space randomisation and more", "personality", EPERM),
        group(
            "into other processes, whatever their ids",
            "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp move_pages migrate_pages",
            EPERM,
        ),
        group(
            "keys: the caller's session and user keyrings are not in any namespace",
            "keyctl add_key request_key",
            EPERM,
        ),
        group(
            "large and often faulty parts of the kernel: programs fall back",
            "io_uring_setup io_uring_enter io_uring_register",
            ENOSYS,
        ),
        group(
            "likewise, and windows into the kernel",
            "bpf perf_event_open userfaultfd fanotify_init fanotify_mark lookup_dcookie",
            EPERM,
        ),
        group("mounts", "mount umount2 pivot_root chroot", EPERM),
        group(
            "mounts, by the newer calls: programs fall back",
            "open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr statmount listmount",
            ENOSYS,
        ),
        group("files by handle, past the mount tree", "open_by_handle_at name_to_handle_at", EPERM),
        group("segments of 16-bit programs, and faults around them", "modify_ldt", ENOSYS),
        group(
            "the machine itself",
            "kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff acct quotactl \
             quotactl_fd syslog iopl ioperm settimeofday clock_settime vhangup sethostname setdomainname",
            EPERM,
        ),
    ]
}

/// A helper that computes on descriptors it was given.
pub(super) fn computing() -> Vec<Group> {
    vec![
        allowed(
            "reading and writing what was passed",
            "read write readv writev pread64 pwrite64 preadv pwritev lseek close fstat ftruncate dup",
        ),
        when(
            [Argument::int(3).masked_equal(0x1000, 0x1000)],
            allowed("fstat of newer C libraries", "newfstatat"),
        ),
        when([Argument::int(1).inside(1..=3)], allowed("F_GETFD, F_SETFD, F_GETFL", "fcntl")),
        when(
            [Argument::int(1).inside(1033..=1034)],
            allowed("F_ADD_SEALS and F_GET_SEALS of a memfd that it returns", "fcntl"),
        ),
        allowed("messages and descriptors over passed sockets", "sendmsg recvmsg recvfrom shutdown"),
        when([Argument::long(4).equal(0)], allowed("likewise, to the other end only", "sendto")),
        allowed(
            "waiting for them",
            "poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2",
        ),
        group("is it a terminal? no", "ioctl", ENOTTY),
        allowed("memory", "brk mmap munmap mremap mprotect madvise memfd_create membarrier"),
        allowed(
            "threads: locks and turns",
            "futex futex_waitv futex_wake futex_wait futex_requeue sched_yield sched_getaffinity getcpu \
             set_robust_list set_tid_address rseq gettid getpid",
        ),
        when(
            [Argument::int(0).masked_equal(NEW_BY_CLONE | THREAD, THREAD)],
            allowed("threads: making them", "clone"),
        ),
        group("no process", "clone fork vfork", EPERM),
        group("the C library falls back to clone", "clone3", ENOSYS),
        allowed("time", "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time"),
        allowed("its own signals", "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall"),
        when([Argument::int(2).equal(6)], allowed("abort: SIGABRT", "tgkill")),
        when(
            [Argument::int(0).equal(0), Argument::long(2).equal(0)],
            allowed("reading its own limits", "prlimit64"),
        ),
        allowed(
            "start-up and randomness",
            "arch_prctl riscv_flush_icache riscv_hwprobe getrandom uname sysinfo",
        ),
        allowed("who it is", "getuid geteuid getgid getegid"),
        allowed("the end", "exit exit_group"),
    ]
}

/// What the dynamic loader does before the program begins.
pub(super) fn loading() -> Vec<Group> {
    // O_ACCMODE, O_CREAT, O_TRUNC, O_APPEND; the bits of O_TMPFILE and O_PATH differ between architectures and write nothing
    // without these.
    const WRITES: u64 = 0o3 | 0o100 | 0o1000 | 0o2000;
    vec![
        when([Argument::int(2).masked_equal(WRITES, 0)], allowed("libraries, read-only", "openat")),
        when([Argument::int(1).masked_equal(WRITES, 0)], allowed("likewise, by musl", "open")),
        allowed("looking for libraries", "access faccessat faccessat2 stat readlink readlinkat"),
    ]
}

/// What a process calls to lower itself.
pub(super) fn lowering() -> Vec<Group> {
    const O_PATH: u64 = 0o10_000_000;
    let prctl = |option: i32, why| {
        when([Argument::int(0).equal(u64::from(option.cast_unsigned()))], allowed(why, "prctl"))
    };
    vec![
        when([Argument::int(0).equal(1)], allowed("SECCOMP_SET_MODE_FILTER: a further filter", "seccomp")),
        prctl(libc::PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS"),
        prctl(libc::PR_GET_NO_NEW_PRIVS, "whether that is set"),
        prctl(libc::PR_CAPBSET_READ, "the bounding set"),
        prctl(libc::PR_CAPBSET_DROP, "less of it"),
        prctl(libc::PR_CAP_AMBIENT, "the ambient set: what it can raise is permitted already"),
        prctl(libc::PR_GET_SECUREBITS, "the securebits"),
        prctl(libc::PR_SET_SECUREBITS, "locking them; it needs CAP_SETPCAP"),
        allowed("the other sets: none can become larger than the permitted one", "capget capset"),
        allowed("a domain", "landlock_create_ruleset landlock_add_rule landlock_restrict_self"),
        when(
            [Argument::int(2).masked_equal(O_PATH, O_PATH)],
            allowed("the paths of its rules, which can be neither read nor written so", "openat"),
        ),
        when(
            [Argument::int(0).equal(0x1_0000)],
            allowed("CLONE_THREAD: whether it is alone; has no effect", "unshare"),
        ),
        allowed("its threads, where it may open /proc/self/task", "getdents64"),
    ]
}

/// What a program without a C library needs to compute.
pub(super) fn least() -> Vec<Group> {
    vec![
        allowed("reading and writing what was passed", "read write"),
        allowed("the end, and returning from a signal's handler", "exit exit_group rt_sigreturn"),
    ]
}
