//! Which system calls and options this kernel offers to this caller. It must not make a call that changes anything.

use bitflags::bitflags;
use libc::c_long;

use super::kernel::KernelVersion;

bitflags! {
    /// What can be asked of the kernel, after whatever system-call filter is already around the caller.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Features: u32 {
        /// clone3(2), Linux 5.3. Docker's filter hides it (ENOSYS) so that its rules for clone(2) hold.
        const CLONE3 = 1;
        /// pidfd_open(2), Linux 5.3.
        const PIDFD_OPEN = 1 << 1;
        /// openat2(2), Linux 5.6.
        const OPENAT2 = 1 << 2;
        /// close_range(2), Linux 5.9.
        const CLOSE_RANGE = 1 << 3;
        /// CLOSE_RANGE_CLOEXEC of close_range(2), Linux 5.11.
        const CLOSE_RANGE_CLOEXEC = 1 << 4;
        /// The calls that mount by file descriptor: open_tree(2), move_mount(2), fsopen(2), fsconfig(2), fsmount(2).
        /// Linux 5.2.
        const MOUNT_API = 1 << 5;
        /// mount_setattr(2), Linux 5.12.
        const MOUNT_SETATTR = 1 << 6;
        /// execveat(2), Linux 3.19.
        const EXECVEAT = 1 << 7;
        /// faccessat2(2), Linux 5.8.
        const FACCESSAT2 = 1 << 8;
        /// keyctl(2), which a kernel may be built without (CONFIG_KEYS).
        const KEYCTL = 1 << 9;
        /// memfd_create(2) makes files that may be executed. Whether executing one is allowed is known only by trying:
        /// SELinux and a system-call filter may still refuse.
        const EXECUTABLE_MEMFD = 1 << 10;
        /// P_PIDFD of waitid(2), Linux 5.4.
        const WAITID_PIDFD = 1 << 11;
        /// pidfd_send_signal(2), Linux 5.1.
        const PIDFD_SEND_SIGNAL = 1 << 12;
        /// CLONE_CLEAR_SIGHAND of clone3(2), Linux 5.5.
        const CLONE_CLEAR_SIGHAND = 1 << 13;
        /// CLONE_INTO_CGROUP of clone3(2), Linux 5.7.
        const CLONE_INTO_CGROUP = 1 << 14;
        /// The option `subset=pid` of proc, Linux 5.8.
        const PROC_SUBSET_PID = 1 << 15;
        /// execve(2) enters the time namespace that was made for children, Linux 6.2.
        const TIME_NS_ON_EXEC = 1 << 16;
        /// The caller itself may copy its mounts: the calls above, and CAP_SYS_ADMIN over its own mount namespace.
        const CLONE_TREES = 1 << 17;
        /// SECCOMP_FILTER_FLAG_NEW_LISTENER of seccomp(2), Linux 5.0. Whether a listener can be had is known only by trying:
        /// there can be one around a process, and the caller may have it already.
        const SECCOMP_LISTENER = 1 << 18;
        /// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV of seccomp(2), Linux 5.19.
        const SECCOMP_WAIT_KILLABLE = 1 << 19;
        /// pidfd_getfd(2), Linux 5.6. Docker's filter hides it from containers without CAP_SYS_PTRACE.
        const PIDFD_GETFD = 1 << 20;
        /// setns(2) on a pidfd, with several namespaces at once, Linux 5.8.
        const SETNS_PIDFD = 1 << 21;
    }
}

/// A call that can have no effect, and what a kernel that has it answers: an errno, or 0 for success.
struct Probe {
    feature: Features,
    number: c_long,
    args: [u64; 6],
    answer: i32,
}

/// As `int`, `-1`; as `unsigned int`, the greatest; as a pointer, not the caller's.
const NONE: u64 = u64::MAX;
/// A file descriptor beyond every limit (fs.nr_open ends below), so no open file can have it.
const UNUSED_FD: u64 = 0x7fff_ffff;

const AT_RECURSIVE: u64 = 0x8000;
const P_PIDFD: u64 = 3;
const WEXITED: u64 = 4;
const CLOSE_RANGE_CLOEXEC: u64 = 4;
const MFD_CLOEXEC: u64 = 1;
const MFD_EXEC: u64 = 0x10;
const SET_MODE_FILTER: u64 = 1;
const NEW_LISTENER: u64 = 8;
const WAIT_KILLABLE: u64 = 0x20;

/// Each row rests on the order of checks in the kernel: the answer is given before a privilege is asked for, so it is
/// the same for root and for a stranger, and anything else (ENOSYS, EPERM, EACCES) comes from a kernel without the call
/// or from a filter. Measured as root and as uid 1000 on 6.18; all tests of older kernels rest on this list.
///
/// * `clone3(NULL, 0)`: EINVAL, a size below the first version of the structure.
/// * `pidfd_open(-1, 0)`: EINVAL, no such pid can be.
/// * `pidfd_send_signal(-1, 0, NULL, ~0)`: EINVAL, flags that do not exist.
/// * `openat2(-1, NULL, NULL, 0)`: EINVAL, a size below the first version.
/// * `close_range(1, 0, 0)`: EINVAL, the last fd lies before the first. The same from ~0 to ~0 with CLOEXEC succeeds
///   and meets no fd, for none can have that number; a kernel before 5.11 finds the flag unknown.
/// * `open_tree(-1, NULL, AT_RECURSIVE)`: EINVAL, for recursion without OPEN_TREE_CLONE makes no sense. Without
///   that flag it asks for no privilege.
/// * `fsconfig(-1, …)`: EINVAL, a negative fd. fsopen(2), fsmount(2), fspick(2) and move_mount(2) ask for CAP_SYS_ADMIN
///   before anything else, so their EPERM says nothing to a stranger and they are not probed. They came in one release
///   with these two, and the usual filters (Docker, Flatpak, systemd's @mount) list them together.
/// * `mount_setattr(-1, NULL, 0, NULL, 0)`: EINVAL, a size below the first version; CAP_SYS_ADMIN is asked for later.
/// * `execveat(-1, NULL, NULL, NULL, 0)`: EFAULT, the path is read first.
/// * `faccessat2(-1, NULL, 8, 0)`: EINVAL, a mode that does not exist.
/// * `keyctl(~0)`: EOPNOTSUPP, no such operation.
/// * `seccomp(SET_MODE_FILTER, flags, NULL)`: EFAULT, the filter is read after the flags were found valid (EINVAL) and
///   before `no_new_privs` is asked for.
/// * `pidfd_getfd(-1, 0, ~0)`: EINVAL, flags that do not exist.
/// * `waitid(P_PIDFD, unused, NULL, WEXITED, NULL)`: EBADF; a kernel before 5.4 finds the type unknown (EINVAL).
const PROBES: [Probe; 16] = [
    probe(Features::CLONE3, libc::SYS_clone3, [0; 6], libc::EINVAL),
    probe(Features::PIDFD_OPEN, libc::SYS_pidfd_open, [NONE, 0, 0, 0, 0, 0], libc::EINVAL),
    probe(Features::PIDFD_SEND_SIGNAL, libc::SYS_pidfd_send_signal, [NONE, 0, 0, NONE, 0, 0], libc::EINVAL),
    probe(Features::OPENAT2, libc::SYS_openat2, [NONE, 0, 0, 0, 0, 0], libc::EINVAL),
    probe(Features::CLOSE_RANGE, libc::SYS_close_range, [1, 0, 0, 0, 0, 0], libc::EINVAL),
    probe(
        Features::CLOSE_RANGE_CLOEXEC,
        libc::SYS_close_range,
        [NONE, NONE, CLOSE_RANGE_CLOEXEC, 0, 0, 0],
        0,
    ),
    probe(Features::MOUNT_API, libc::SYS_open_tree, [NONE, 0, AT_RECURSIVE, 0, 0, 0], libc::EINVAL),
    probe(Features::MOUNT_API, libc::SYS_fsconfig, [NONE, 0, 0, 0, 0, 0], libc::EINVAL),
    probe(Features::MOUNT_SETATTR, libc::SYS_mount_setattr, [NONE, 0, 0, 0, 0, 0], libc::EINVAL),
    probe(Features::EXECVEAT, libc::SYS_execveat, [NONE, 0, 0, 0, 0, 0], libc::EFAULT),
    probe(Features::FACCESSAT2, libc::SYS_faccessat2, [NONE, 0, 8, 0, 0, 0], libc::EINVAL),
    probe(Features::KEYCTL, libc::SYS_keyctl, [NONE, 0, 0, 0, 0, 0], libc::EOPNOTSUPP),
    probe(Features::WAITID_PIDFD, libc::SYS_waitid, [P_PIDFD, UNUSED_FD, 0, WEXITED, 0, 0], libc::EBADF),
    probe(
        Features::SECCOMP_LISTENER,
        libc::SYS_seccomp,
        [SET_MODE_FILTER, NEW_LISTENER, 0, 0, 0, 0],
        libc::EFAULT,
    ),
    probe(
        Features::SECCOMP_WAIT_KILLABLE,
        libc::SYS_seccomp,
        [SET_MODE_FILTER, NEW_LISTENER | WAIT_KILLABLE, 0, 0, 0, 0],
        libc::EFAULT,
    ),
    probe(Features::PIDFD_GETFD, libc::SYS_pidfd_getfd, [NONE, 0, NONE, 0, 0, 0], libc::EINVAL),
];

const fn probe(feature: Features, number: c_long, args: [u64; 6], answer: i32) -> Probe {
    Probe { feature, number, args, answer }
}

/// What only the version tells.
///
/// The flags of clone3(2) stand in a structure that a probe would have to hand over for real. Options of proc are
/// checked by fsconfig(2) on an fd from fsopen(2), which asks for CAP_SYS_ADMIN. And what execve(2) does with a time
/// namespace shows only after making one. setns(2) on a pidfd asks for privileges before anything else.
const BY_VERSION: [(Features, KernelVersion, Features); 5] = [
    (Features::CLONE_CLEAR_SIGHAND, KernelVersion::new(5, 5, 0), Features::CLONE3),
    (Features::CLONE_INTO_CGROUP, KernelVersion::new(5, 7, 0), Features::CLONE3),
    (Features::PROC_SUBSET_PID, KernelVersion::new(5, 8, 0), Features::empty()),
    (Features::TIME_NS_ON_EXEC, KernelVersion::new(6, 2, 0), Features::empty()),
    (Features::SETNS_PIDFD, KernelVersion::new(5, 8, 0), Features::PIDFD_OPEN),
];

impl Features {
    /// Asks the kernel through `call`, which makes a system call and returns its errno.
    ///
    /// Careful: a filter that kills on unknown calls kills a caller that probes.
    pub(super) fn probe(kernel: KernelVersion, call: impl Fn(u32, [u64; 6]) -> Result<(), i32>) -> Self {
        let ask = |number: c_long, args| {
            let number = u32::try_from(number).map_err(|_| libc::ENOSYS)?;
            call(number, args)
        };
        let mut found = PROBES.iter().fold(Self::empty(), |found, probe| found | probe.feature);
        for probe in &PROBES {
            if ask(probe.number, probe.args).err().unwrap_or(0) != probe.answer {
                found.remove(probe.feature);
            }
        }
        let memfd = |flags| ask(libc::SYS_memfd_create, [0, flags, 0, 0, 0, 0]).err();
        found.set(Self::EXECUTABLE_MEMFD, makes_executable(memfd));
        for (feature, since, needs) in BY_VERSION {
            found.set(feature, kernel >= since && found.contains(needs));
        }
        found
    }

    /// What the features are called, and which Linux version brought the newest of them.
    pub(super) fn described(self) -> Option<(&'static str, &'static str)> {
        NAMES.iter().find(|(feature, ..)| self.contains(*feature)).map(|&(_, name, since)| (name, since))
    }
}

/// memfd_create(NULL, …) fails with EFAULT, and makes nothing, once its flags and vm.memfd_noexec are satisfied; EACCES
/// is the sysctl's no. Before 6.3 MFD_EXEC is an unknown flag (EINVAL) and every memfd may be executed.
fn makes_executable(memfd: impl Fn(u64) -> Option<i32>) -> bool {
    match memfd(MFD_CLOEXEC | MFD_EXEC) {
        Some(libc::EINVAL) => memfd(MFD_CLOEXEC) == Some(libc::EFAULT),
        answer => answer == Some(libc::EFAULT),
    }
}

/// Names for people, in the order of the flags.
pub(super) const NAMES: [(Features, &str, &str); 22] = [
    (Features::CLONE3, "clone3", "5.3"),
    (Features::PIDFD_OPEN, "pidfd_open", "5.3"),
    (Features::OPENAT2, "openat2", "5.6"),
    (Features::CLOSE_RANGE, "close_range", "5.9"),
    (Features::CLOSE_RANGE_CLOEXEC, "close_range with CLOSE_RANGE_CLOEXEC", "5.11"),
    (Features::MOUNT_API, "the mount calls open_tree, fsopen and move_mount", "5.2"),
    (Features::MOUNT_SETATTR, "mount_setattr", "5.12"),
    (Features::EXECVEAT, "execveat", "3.19"),
    (Features::FACCESSAT2, "faccessat2", "5.8"),
    (Features::KEYCTL, "keyctl (CONFIG_KEYS)", "2.6.10"),
    (Features::EXECUTABLE_MEMFD, "a memfd that can be executed", "3.17"),
    (Features::WAITID_PIDFD, "waitid with P_PIDFD", "5.4"),
    (Features::PIDFD_SEND_SIGNAL, "pidfd_send_signal", "5.1"),
    (Features::CLONE_CLEAR_SIGHAND, "clone3 with CLONE_CLEAR_SIGHAND", "5.5"),
    (Features::CLONE_INTO_CGROUP, "clone3 with CLONE_INTO_CGROUP", "5.7"),
    (Features::PROC_SUBSET_PID, "proc with subset=pid", "5.8"),
    (Features::TIME_NS_ON_EXEC, "time namespaces entered by execve", "6.2"),
    (Features::CLONE_TREES, "mounts copied by the caller", "5.2"),
    (Features::SECCOMP_LISTENER, "seccomp with a listener", "5.0"),
    (Features::SECCOMP_WAIT_KILLABLE, "seccomp with SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "5.19"),
    (Features::PIDFD_GETFD, "pidfd_getfd", "5.6"),
    (Features::SETNS_PIDFD, "setns on a pidfd", "5.8"),
];
