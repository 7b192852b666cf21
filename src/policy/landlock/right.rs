//! The rights of Landlock and which ABI brought each: from the `landlock` crate. It must not know the running kernel.

use std::fmt::{self, Display, Formatter};

use ::landlock::{ABI, Access as _, AccessFs as KernelFs, AccessNet as KernelNet, Scope as KernelScope};
use bitflags::{Flags, bitflags};

bitflags! {
    /// What can be done with files (landlock(7), "Filesystem actions"); the bits are the kernel's.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct AccessFs: u64 {
        /// Execute a file.
        const EXECUTE = KernelFs::Execute as u64;
        /// Open a file for writing.
        const WRITE_FILE = KernelFs::WriteFile as u64;
        /// Open a file for reading.
        const READ_FILE = KernelFs::ReadFile as u64;
        /// List a directory.
        const READ_DIR = KernelFs::ReadDir as u64;
        /// Remove a directory, or rename one.
        const REMOVE_DIR = KernelFs::RemoveDir as u64;
        /// Unlink a file, or rename one.
        const REMOVE_FILE = KernelFs::RemoveFile as u64;
        /// Make, rename or link a character device.
        const MAKE_CHAR = KernelFs::MakeChar as u64;
        /// Make or rename a directory.
        const MAKE_DIR = KernelFs::MakeDir as u64;
        /// Make, rename or link a regular file.
        const MAKE_REG = KernelFs::MakeReg as u64;
        /// Make, rename or link a unix socket.
        const MAKE_SOCK = KernelFs::MakeSock as u64;
        /// Make, rename or link a named pipe.
        const MAKE_FIFO = KernelFs::MakeFifo as u64;
        /// Make, rename or link a block device.
        const MAKE_BLOCK = KernelFs::MakeBlock as u64;
        /// Make, rename or link a symlink.
        const MAKE_SYM = KernelFs::MakeSym as u64;
        /// Link or rename a file between directories (ABI 2, Linux 5.19). Before, and wherever this is not handled, that
        /// is always refused in a domain that handles any right of files.
        const REFER = KernelFs::Refer as u64;
        /// Truncate a file (ABI 3, Linux 6.2).
        const TRUNCATE = KernelFs::Truncate as u64;
        /// ioctl(2) on a device that is opened inside (ABI 5, Linux 6.10).
        const IOCTL_DEV = KernelFs::IoctlDev as u64;
        /// Connect to a pathname unix socket that was made outside (ABI 9, Linux 7.1).
        const RESOLVE_UNIX = KernelFs::ResolveUnix as u64;
    }
}

bitflags! {
    /// What can be done with TCP ports (landlock(7), "Network actions"; ABI 4, Linux 6.7).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct AccessNet: u64 {
        /// Bind a TCP socket to a port.
        const BIND_TCP = KernelNet::BindTcp as u64;
        /// Connect a TCP socket to a port.
        const CONNECT_TCP = KernelNet::ConnectTcp as u64;
    }
}

bitflags! {
    /// What does not reach out of the sandbox (landlock(7), "Scope flags"; ABI 6, Linux 6.12).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Scopes: u64 {
        /// No connection to an abstract unix socket that was made outside.
        const ABSTRACT_UNIX_SOCKET = KernelScope::AbstractUnixSocket as u64;
        /// No signal to a process outside.
        const SIGNAL = KernelScope::Signal as u64;
    }
}

bitflags! {
    /// What the kernel's audit log tells of refusals (landlock_restrict_self(2); ABI 7, Linux 6.15). With none of these it
    /// logs what the program itself is refused, and nothing of what it executes.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct AuditLog: u64 {
        /// Nothing that is refused before an exec. Inside a sandbox that is the set-up alone.
        const SAME_EXEC_OFF = 1;
        /// What is refused after an exec too: what the program is refused is logged only with this.
        const NEW_EXEC_ON = 2;
        /// Nothing of domains that the program makes for itself.
        const SUBDOMAINS_OFF = 4;
    }
}

/// Each ABI with the Linux version that brought it.
const ABIS: [(u32, ABI, &str); 9] = [
    (1, ABI::V1, "5.13"),
    (2, ABI::V2, "5.19"),
    (3, ABI::V3, "6.2"),
    (4, ABI::V4, "6.7"),
    (5, ABI::V5, "6.10"),
    (6, ABI::V6, "6.12"),
    (7, ABI::V7, "6.15"),
    (8, ABI::V8, "7.0"),
    (9, ABI::V9, "7.1"),
];
/// The ABI with the audit log's flags, which the `landlock` crate keeps apart from the rights.
const AUDIT_LOG: u32 = 7;

/// The newest known ABI that is not newer than `number`.
fn known(number: u32) -> ABI {
    ABIS.iter().rev().find(|(abi, ..)| *abi <= number).map_or(ABI::Unsupported, |(_, abi, _)| *abi)
}

/// A set of rights of one kind.
pub(crate) trait Rights: Flags<Bits = u64> + Copy + Default + PartialEq {
    /// What the kernel's header says before the names.
    const PREFIX: &'static str;

    /// All that a kernel of this ABI knows.
    fn of_abi(abi: u32) -> Self;

    /// The kernel's names.
    fn kernel_names(self) -> Vec<String> {
        self.iter_names().map(|(name, _)| format!("{}{name}", Self::PREFIX)).collect()
    }

    /// The ABI that knows all of these, and its Linux version.
    fn since(self) -> (u32, &'static str) {
        let knows = |abi: u32| Self::of_abi(abi).contains(self);
        ABIS.iter().find(|(abi, ..)| knows(*abi)).map_or((u32::MAX, "?"), |(abi, _, since)| (*abi, since))
    }
}

impl Rights for AccessFs {
    const PREFIX: &'static str = "LANDLOCK_ACCESS_FS_";

    fn of_abi(abi: u32) -> Self {
        Self::from_bits_truncate(KernelFs::from_all(known(abi)).bits())
    }
}

impl Rights for AccessNet {
    const PREFIX: &'static str = "LANDLOCK_ACCESS_NET_";

    fn of_abi(abi: u32) -> Self {
        Self::from_bits_truncate(KernelNet::from_all(known(abi)).bits())
    }
}

impl Rights for Scopes {
    const PREFIX: &'static str = "LANDLOCK_SCOPE_";

    fn of_abi(abi: u32) -> Self {
        Self::from_bits_truncate(KernelScope::from_all(known(abi)).bits())
    }
}

impl Rights for AuditLog {
    const PREFIX: &'static str = "LANDLOCK_RESTRICT_SELF_LOG_";

    fn of_abi(abi: u32) -> Self {
        if abi < AUDIT_LOG { Self::empty() } else { Self::all() }
    }
}

impl AccessFs {
    /// Open files for reading, list directories.
    pub const READ: Self = Self::READ_FILE.union(Self::READ_DIR);
    /// As [`AccessFs::READ`], and execute: what programs and libraries need.
    pub const READ_EXECUTE: Self = Self::READ.union(Self::EXECUTE);
    /// Read, write, make and remove anything but devices; link and rename between directories. No executing, no ioctl on
    /// devices, no sockets of others.
    pub const READ_WRITE: Self = Self::READ
        .union(Self::WRITE_FILE)
        .union(Self::TRUNCATE)
        .union(Self::REMOVE_DIR)
        .union(Self::REMOVE_FILE)
        .union(Self::MAKE_DIR)
        .union(Self::MAKE_REG)
        .union(Self::MAKE_SOCK)
        .union(Self::MAKE_FIFO)
        .union(Self::MAKE_SYM)
        .union(Self::REFER);

    /// All that a kernel with this Landlock ABI knows.
    #[must_use]
    pub fn known_to(abi: u32) -> Self {
        Self::of_abi(abi)
    }

    /// Those of them that mean something for a file that is not a directory; the kernel refuses the others in a rule for
    /// one (EINVAL).
    #[must_use]
    pub fn for_files(self) -> Self {
        self & Self::from_bits_truncate(KernelFs::from_file(ABI::V9).bits())
    }
}

macro_rules! display {
    ($($kind:ty),*) => {$(
        impl Display for $kind {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                if self.is_empty() { f.write_str("none") } else { bitflags::parser::to_writer(self, f) }
            }
        }
    )*};
}

display!(AccessFs, AccessNet, Scopes, AuditLog);
