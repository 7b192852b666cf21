//! The calls that the default filter closes: arguments for which the kernel answers something else, and both answers. It
//! must not make them, and no row may change anything outside of the process that makes it.

use std::fmt::{self, Display, Formatter};

/// Where the call is made, with the filter and without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The default sandbox.
    Plain,
    /// One whose program has every capability in its own user namespace, and may make more of them.
    OwnRoot,
    /// One without a user namespace, whose program is the host's root with every capability.
    HostRoot,
}

/// One call, with arguments as Python expressions.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) place: Place,
    pub(crate) call: &'static str,
    pub(crate) args: String,
    /// The errno under the filter.
    pub(crate) closed: i32,
    /// The errno without it; 0 is success.
    pub(crate) open: i32,
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}) in the sandbox {:?}", self.call, self.args, self.place)
    }
}

/// Calls that no kernel has any more, or none has for programs: their answer is the kernel's own.
pub(crate) const GONE: &[&str] = &[
    "_sysctl",
    "afs_syscall",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "getpmsg",
    "nfsservctl",
    "putpmsg",
    "query_module",
    "security",
    "tuxcall",
    // Since Linux 6.18, which brought it, the kernel lets it by every filter.
    "uprobe",
    "vserver",
];

const EPERM: i32 = libc::EPERM;
const ENOSYS: i32 = libc::ENOSYS;
const FAMILY: i32 = libc::EAFNOSUPPORT;
use Place::{HostRoot, OwnRoot, Plain};

/// Place, call, arguments, errno under the filter, errno without.
type Short = (Place, &'static str, &'static str, i32, i32);

#[rustfmt::skip]
const CALLS: &[Short] = &[
    // Parts of the kernel that are large, often faulty, or windows into it.
    (Plain, "io_uring_setup", "1, 0", ENOSYS, libc::EFAULT),
    (Plain, "io_uring_enter", "999, 0, 0, 0, 0, 0", ENOSYS, libc::EBADF),
    (Plain, "io_uring_register", "999, 0, 0, 0", ENOSYS, libc::EBADF),
    (HostRoot, "bpf", "999, 0, 0", EPERM, libc::EINVAL),
    (HostRoot, "perf_event_open", "0, 0, -1, -1, 0", EPERM, libc::EFAULT),
    (Plain, "perf_event_open", "0, 0, -1, -1, -1", EPERM, libc::EINVAL),
    (HostRoot, "userfaultfd", "0", EPERM, 0),
    (Plain, "userfaultfd", "1", EPERM, 0),
    (HostRoot, "fanotify_init", "-1, 0", EPERM, libc::EINVAL),
    (Plain, "fanotify_mark", "999, -1, 0, 999, 0", EPERM, libc::EINVAL),
    (HostRoot, "lookup_dcookie", "0, 0, 0", EPERM, libc::EINVAL),
    // Keys. -3 is the session keyring; 1 joins a new one.
    (Plain, "keyctl", "0, -3, 1", EPERM, 0),
    (Plain, "keyctl", "1, 0", EPERM, 0),
    (Plain, "add_key", "0, 0, 0, 0, 0", EPERM, libc::EFAULT),
    (Plain, "request_key", "0, 0, 0, 0", EPERM, libc::EFAULT),
    // Other processes. 0x4206 is PTRACE_SEIZE, which does not stop.
    (Plain, "ptrace", "16, 0, 0, 0", EPERM, libc::ESRCH),
    (OwnRoot, "ptrace", "0x4206, os.getppid(), 0, 0", EPERM, 0),
    (OwnRoot, "process_vm_readv", "os.getppid(), vector(8), 1, vector(8), 1, 0", EPERM, 0),
    (OwnRoot, "process_vm_writev", "os.getppid(), vector(8), 1, vector(8), 1, 0", EPERM, 0),
    (Plain, "process_vm_readv", "0, 0, 0, 0, 0, 1", EPERM, libc::EINVAL),
    (Plain, "process_vm_writev", "0, 0, 0, 0, 0, 1", EPERM, libc::EINVAL),
    (Plain, "pidfd_getfd", "-1, 0, 0", EPERM, libc::EBADF),
    (Plain, "kcmp", "0, 0, 0, 0, 0", EPERM, libc::ESRCH),
    (Plain, "move_pages", "0, 0, 0, 0, 0, 0x100", EPERM, libc::EINVAL),
    (Plain, "migrate_pages", "0, -1, 0, 0", EPERM, libc::EINVAL),
    // The machine itself.
    (HostRoot, "kexec_load", "0, 0, 0, -1", EPERM, libc::EINVAL),
    (HostRoot, "kexec_file_load", "-1, -1, 0, 0, -1", EPERM, libc::EINVAL),
    (HostRoot, "init_module", "0, 0, 0", EPERM, libc::ENOEXEC),
    (HostRoot, "finit_module", "-1, 0, -1", EPERM, libc::EINVAL),
    (HostRoot, "delete_module", "0, 0", EPERM, libc::EFAULT),
    (OwnRoot, "reboot", "0, 0, 0, 0", EPERM, libc::EINVAL),
    (HostRoot, "swapon", "0, -1", EPERM, libc::EINVAL),
    (HostRoot, "swapoff", "0", EPERM, libc::EFAULT),
    (HostRoot, "acct", "1", EPERM, libc::EFAULT),
    (Plain, "quotactl", "-1, 0, 0, 0", EPERM, libc::EINVAL),
    (Plain, "quotactl_fd", "-1, 0, 0, 0", EPERM, libc::EBADF),
    (HostRoot, "syslog", "99, 0, 0", EPERM, libc::EINVAL),
    (HostRoot, "iopl", "4", EPERM, libc::EINVAL),
    (HostRoot, "ioperm", "0x20000, 1, 1", EPERM, libc::EINVAL),
    (Plain, "settimeofday", "1, 0", EPERM, libc::EFAULT),
    (Plain, "clock_settime", "0, 1", EPERM, libc::EFAULT),
    (HostRoot, "vhangup", "", EPERM, 0),
    (OwnRoot, "sethostname", "0, -1", EPERM, libc::EINVAL),
    (OwnRoot, "setdomainname", "0, -1", EPERM, libc::EINVAL),
    // Mounts, and files past the mount tree.
    (Plain, "mount", "0, 0, 0, 0, 0", EPERM, libc::EFAULT),
    (OwnRoot, "mount", "b'x', b'/tmp', b'tmpfs', 0, 0", EPERM, 0),
    (Plain, "umount2", "0, -1", EPERM, libc::EINVAL),
    (OwnRoot, "pivot_root", "0, 0", EPERM, libc::EFAULT),
    (OwnRoot, "chroot", "b'/'", EPERM, 0),
    (OwnRoot, "fsopen", "b'tmpfs', 0", ENOSYS, 0),
    (OwnRoot, "fsconfig", "999, 6, 0, 0, 0", ENOSYS, libc::EBADF),
    (OwnRoot, "fsmount", "999, 0, 0", ENOSYS, libc::EBADF),
    (OwnRoot, "fspick", "-1, 0, -1", ENOSYS, libc::EINVAL),
    (OwnRoot, "move_mount", "-1, 0, -1, 0, -1", ENOSYS, libc::EINVAL),
    (OwnRoot, "open_tree", "-100, b'/', 1", ENOSYS, 0),
    (Plain, "open_tree", "-1, 0, -1", ENOSYS, libc::EINVAL),
    (Plain, "open_tree_attr", "-1, 0, -1, 0, 0", ENOSYS, libc::EINVAL),
    (Plain, "mount_setattr", "-1, 0, -1, 0, 0", ENOSYS, libc::EINVAL),
    (Plain, "statmount", "0, 0, 0, -1", ENOSYS, libc::EINVAL),
    (Plain, "listmount", "0, 0, 0, -1", ENOSYS, libc::EINVAL),
    (HostRoot, "open_by_handle_at", "-100, 0, 0", EPERM, libc::EFAULT),
    (Plain, "name_to_handle_at", "-1, 0, 0, 0, -1", EPERM, libc::EINVAL),
    // Namespaces: new ones, and foreign ones.
    (Plain, "clone3", "0, 0", ENOSYS, libc::EINVAL),
    (Plain, "setns", "-1, 0", EPERM, libc::EBADF),
    (Plain, "listns", "0, 0, 0, -1", ENOSYS, libc::EINVAL),
    (Plain, "unshare", "0x10000000 | 1 << 40", EPERM, libc::EINVAL),
    // Terminals. The kernel looks at the low 32 bits of the command, so a filter that looks at all 64 is passed by.
    (Plain, "ioctl", "-1, 0x5412, 0", EPERM, libc::EBADF),
    (Plain, "ioctl", "-1, 0x5412 | 1 << 32, 0", EPERM, libc::EBADF),
    (Plain, "ioctl", "-1, 0x5412 | 0xffffffff << 32, 0", EPERM, libc::EBADF),
    (Plain, "ioctl", "-1, 0x541c, 0", EPERM, libc::EBADF),
    (Plain, "ioctl", "-1, 0x541c | 1 << 32, 0", EPERM, libc::EBADF),
    (Plain, "ioctl", "-1, 0x541c | 0xffffffff << 32, 0", EPERM, libc::EBADF),
    (Plain, "ioctl", "terminal(), 0x5412, b'x'", EPERM, 0),
    (Plain, "ioctl", "terminal(), 0x5412 | 1 << 32, b'x'", EPERM, 0),
    // Personalities: no randomisation, executable data, another layout, page zero, 32 bits; and past the low 32 bits.
    (Plain, "personality", "0x0040000", EPERM, 0),
    (Plain, "personality", "0x0400000", EPERM, 0),
    (Plain, "personality", "0x0200000", EPERM, 0),
    (Plain, "personality", "0x0100000", EPERM, 0),
    (Plain, "personality", "0x8", EPERM, 0),
    (Plain, "personality", "0x0040000 | 1 << 32", EPERM, 0),
    // Sockets: the host's side of a virtual machine, the kernel's ciphers, raw frames, audit.
    (Plain, "socket", "40, 1, 0", FAMILY, 0),
    (Plain, "socket", "38, 5, 0", FAMILY, 0),
    (OwnRoot, "socket", "17, 3, 0", FAMILY, 0),
    (Plain, "socket", "16, 3, 9", FAMILY, 0),
    (Plain, "socket", "40 | 1 << 32, 1, 0", FAMILY, 0),
    (Plain, "socketpair", "2, 1, 0, 0", FAMILY, libc::EFAULT),
    // Left to the default, as nothing needs them.
    (Plain, "modify_ldt", "0, 0, 0", ENOSYS, 0),
    (Plain, "ustat", "-1, 0", ENOSYS, libc::EINVAL),
    (Plain, "sysfs", "3, 0, 0", ENOSYS, 0),
    (Plain, "uselib", "0", ENOSYS, libc::EFAULT),
    (Plain, "lsm_set_self_attr", "0, 0, 0, -1", ENOSYS, libc::EINVAL),
];

/// `CLONE_NEW*`: namespace, and the bit.
const NEW: [(&str, u64); 8] = [
    ("time", 0x80),
    ("mnt", 0x0002_0000),
    ("cgroup", 0x0200_0000),
    ("uts", 0x0400_0000),
    ("ipc", 0x0800_0000),
    ("user", 0x1000_0000),
    ("pid", 0x2000_0000),
    ("net", 0x4000_0000),
];
const NEWTIME: u64 = 0x80;
/// `CLONE_SIGHAND`, which without `CLONE_VM` is refused whatever else is asked for.
const SIGHAND: u64 = 0x800;
/// `SOCK_MAX`: a type that no family has, and the kernel says so before it looks for the family.
const NO_TYPE: u32 = 11;
const FAMILIES: u32 = 46;
const OPEN_FAMILIES: [u32; 4] = [1, 2, 10, 16];

/// All rows.
pub(crate) fn rows() -> Vec<Row> {
    let row = |place, call, args: String, closed, open| Row { place, call, args, closed, open };
    let mut rows: Vec<Row> = CALLS
        .iter()
        .map(|(place, call, args, closed, open)| row(*place, call, (*args).to_owned(), *closed, *open))
        .collect();
    for (_, flag) in NEW {
        rows.push(row(OwnRoot, "unshare", format!("{flag:#x}"), EPERM, 0));
        // In clone(2) the bit of a time namespace is part of the exit signal.
        if flag != NEWTIME {
            rows.push(row(Plain, "clone", format!("{:#x}, 0, 0, 0, 0", flag | SIGHAND), EPERM, libc::EINVAL));
            let high = format!("{:#x} | 1 << 32, 0, 0, 0, 0", flag | SIGHAND);
            rows.push(row(Plain, "clone", high, EPERM, libc::EINVAL));
        }
    }
    for family in (0..FAMILIES).filter(|family| !OPEN_FAMILIES.contains(family)) {
        rows.push(row(Plain, "socket", format!("{family}, {NO_TYPE}, 0"), FAMILY, libc::EINVAL));
    }
    for protocol in 1..23 {
        rows.push(row(Plain, "socket", format!("16, {NO_TYPE}, {protocol}"), FAMILY, libc::EINVAL));
    }
    rows
}
