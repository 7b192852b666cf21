//! Landlock as data: which rights are closed, and what is open all the same. It must not know what the kernel has.

mod mirror;
mod right;

use std::path::{Path, PathBuf};

pub(crate) use mirror::rules;
pub(crate) use right::Rights;
pub use right::{AccessFs, AccessNet, AuditLog, Scopes};

use super::wanted::{Need, Wanted};

/// The ABI that [`Landlock::closed`] requires: Linux 6.12, the first with scopes.
const FLOOR: u32 = 6;

/// Rights that are handled, by how much that is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Handled<F> {
    pub(crate) required: F,
    pub(crate) preferred: F,
}

impl<F: Rights> Handled<F> {
    pub(crate) fn all(self) -> F {
        self.required.union(self.preferred)
    }

    fn add(&mut self, Wanted { value, need }: Wanted<F>) {
        let (to, from) = match need {
            Need::Required => (&mut self.required, &mut self.preferred),
            Need::Preferred => (&mut self.preferred, &mut self.required),
        };
        *to = to.union(value);
        *from = from.difference(value);
    }

    fn split(&mut self, floor: F) {
        let all = self.all();
        (self.required, self.preferred) = (all.intersection(floor), all.difference(floor));
    }
}

/// A path and what is allowed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathRule {
    pub(crate) path: PathBuf,
    pub(crate) allow: AccessFs,
    pub(crate) need: Need,
}

/// A TCP port and what is allowed with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortRule {
    pub(crate) port: u16,
    pub(crate) allow: AccessNet,
    pub(crate) need: Need,
}

/// Whether the mount tree gives rules of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mirror {
    Nothing,
    Mounts,
}

/// What becomes of the mount tree in a namespace set without a mount namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StandIn {
    Never,
    ForMounts,
}

/// A Landlock domain (landlock(7), since Linux 5.13): the second fence of a sandbox, or the only one where no namespace
/// can be had. It needs no privilege but `no_new_privs`.
///
/// A right that is *handled* is refused everywhere but where a rule allows it. Each handled right is required, unless it is
/// handed over as [`crate::prefer`]red: a kernel that does not know a required one refuses the policy when it is compiled,
/// a preferred one is left out and stands in the report. Paths are those inside, opened once, after the mounts and with
/// the program's own ids. A path that does not exist there, or that the program could not reach anyway, is reported as
/// absent; the other rules and the domain hold all the same.
///
/// ```
/// use ringfence::{AccessFs, Landlock, Namespaces, Sandbox, Verdict};
///
/// # fn main() -> ringfence::Result<()> {
/// # if ringfence::Host::probe().landlock_abi().is_none() { return Ok(()) }
/// // No namespace, no root: Landlock is the fence.
/// let system = ["/usr", "/bin", "/lib", "/lib64"];
/// let rules = system.into_iter().fold(Landlock::closed().floor(1), |rules, path| {
///     rules.allow(path, AccessFs::READ_EXECUTE)
/// });
/// let sandbox = Sandbox::builder()
///     .namespaces(Namespaces::empty())
///     .landlock(rules.allow("/etc/ld.so.cache", AccessFs::READ))
///     .build()?;
/// let outcome = sandbox.command("/bin/sh").args(["-c", "read line < /etc/passwd || exit 7"]).output()?;
/// assert_eq!(outcome.verdict(), Verdict::Exited(7));
/// # Ok(())
/// # }
/// ```
///
/// As an ordered fallback, for hosts where user namespaces are off: first the whole sandbox with Landlock stacked in it,
/// then Landlock alone. The mount tree of the first set becomes rules in the second ([`Landlock::in_place_of_mounts`]).
///
/// ```
/// use ringfence::{Landlock, Namespaces, Sandbox};
///
/// # fn main() -> ringfence::Result<()> {
/// # if ringfence::Host::probe().landlock_abi().is_none() { return Ok(()) }
/// let sandbox = Sandbox::builder()
///     .system_read_only()
///     .namespaces([Namespaces::STANDARD, Namespaces::empty()])
///     .landlock(Landlock::from_mounts().floor(1).in_place_of_mounts())
///     .build()?;
/// let child = sandbox.command("true").spawn()?;
/// // The last attempt says which it was.
/// println!("{}", child.enforcement());
/// # Ok(())
/// # }
/// ```
///
/// # What it does not confine
///
/// Handled or not, these stay as the program's ids allow them. With a mount namespace only what is mounted is in reach, and
/// a read-only bind refuses changes of metadata (but no connect); in a set without one the report says what is open:
///
/// * metadata: `stat`, `access`, `readlink`, `chdir`, and `chmod`, `chown`, `utimensat`, `setxattr` **take effect**;
/// * files that are open already: passed descriptors keep the rights that they were opened with;
/// * connecting to pathname unix sockets (D-Bus, a container engine's, an ssh agent's), below ABI 9 (Linux 7.1);
/// * executing a memfd, whatever [`AccessFs::EXECUTE`] says (see [`crate::Builder::deny_memfd_exec`]);
/// * UDP, raw, netlink, vsock and packet sockets: only TCP ports are handled;
/// * ioctl on devices below ABI 5, truncation below ABI 3.
///
/// Inside, the program can neither mount nor unmount where any right of files is handled, and it can trace only what is
/// inside too.
///
/// # Why it is off by default
///
/// In namespaces of its own a program reaches neither a process nor an abstract socket of the host, so the scopes, the only
/// part that would break nothing, would add next to nothing; and each domain takes one of the 16 that the kernel stacks,
/// from callers that sandbox themselves and from programs inside that do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Landlock {
    pub(crate) files: Handled<AccessFs>,
    pub(crate) net: Handled<AccessNet>,
    pub(crate) scopes: Handled<Scopes>,
    pub(crate) log: Handled<AuditLog>,
    pub(crate) paths: Vec<PathRule>,
    pub(crate) ports: Vec<PortRule>,
    pub(crate) mirror: Mirror,
    pub(crate) stand_in: StandIn,
}

impl Landlock {
    /// Nothing handled yet.
    #[expect(
        clippy::new_without_default,
        reason = "a domain that handles nothing is a mistake, not a default"
    )]
    pub fn new() -> Self {
        Self {
            files: Handled::default(),
            net: Handled::default(),
            scopes: Handled::default(),
            log: Handled::default(),
            paths: Vec::new(),
            ports: Vec::new(),
            mirror: Mirror::Nothing,
            stand_in: StandIn::Never,
        }
    }

    /// Everything handled that this version of the crate knows: all rights of files, TCP bind and connect, both scopes.
    /// Required is what ABI 6 knows (Linux 6.12), see [`Landlock::floor`].
    pub fn closed() -> Self {
        Self::new().files(AccessFs::all()).net(AccessNet::all()).scope(Scopes::all()).floor(FLOOR)
    }

    /// All rights of files and both scopes handled, with rules that repeat the mount tree: read-only binds may be read and
    /// executed, read-write ones and memory file systems everything, `/proc` read and written, devices used. More rules can
    /// be added. The network is left to its namespace.
    pub fn from_mounts() -> Self {
        let mut landlock = Self::new().files(AccessFs::all()).scope(Scopes::all()).floor(FLOOR);
        landlock.mirror = Mirror::Mounts;
        landlock
    }

    /// Requires what a kernel with this Landlock ABI knows of all that is handled so far, and prefers the rest. ABI 1 is
    /// Linux 5.13, 2 is 5.19, 3 is 6.2, 4 is 6.7, 5 is 6.10, 6 is 6.12, 7 is 6.15, 8 is 7.0, 9 is 7.1.
    pub fn floor(mut self, abi: u32) -> Self {
        self.files.split(AccessFs::of_abi(abi));
        self.net.split(AccessNet::of_abi(abi));
        self.scopes.split(Scopes::of_abi(abi));
        self.log.split(AuditLog::of_abi(abi));
        self
    }

    /// A weakening: prefers all that is handled so far. Without Landlock the program runs, and the report says so.
    pub fn preferred(self) -> Self {
        self.floor(0)
    }

    /// Handles these rights of files; the last call for a right counts.
    pub fn files(mut self, rights: impl Into<Wanted<AccessFs>>) -> Self {
        self.files.add(rights.into());
        self
    }

    /// Handles these rights of TCP ports; the last call for a right counts.
    pub fn net(mut self, rights: impl Into<Wanted<AccessNet>>) -> Self {
        self.net.add(rights.into());
        self
    }

    /// Closes these scopes; the last call for a scope counts.
    pub fn scope(mut self, scopes: impl Into<Wanted<Scopes>>) -> Self {
        self.scopes.add(scopes.into());
        self
    }

    /// What the kernel's audit log tells; the last call for a flag counts.
    pub fn log(mut self, flags: impl Into<Wanted<AuditLog>>) -> Self {
        self.log.add(flags.into());
        self
    }

    /// Allows these rights at an absolute path inside and below it. Presets: [`AccessFs::READ`],
    /// [`AccessFs::READ_EXECUTE`], [`AccessFs::READ_WRITE`]. Rights that mean nothing for what is found there are left out.
    ///
    /// A path that is absent is reported, required or not. Required means that no other failure is taken.
    pub fn allow(mut self, path: impl Into<Wanted<PathBuf>>, rights: AccessFs) -> Self {
        let Wanted { value: path, need } = path.into();
        self.paths.push(PathRule { path, allow: rights, need });
        self
    }

    /// Allows binding TCP sockets to this port; 0 stands for a port of the kernel's choice.
    pub fn bind_tcp(self, port: impl Into<Wanted<u16>>) -> Self {
        self.port(port.into(), AccessNet::BIND_TCP)
    }

    /// Allows connecting TCP sockets to this port.
    pub fn connect_tcp(self, port: impl Into<Wanted<u16>>) -> Self {
        self.port(port.into(), AccessNet::CONNECT_TCP)
    }

    fn port(mut self, Wanted { value: port, need }: Wanted<u16>, allow: AccessNet) -> Self {
        self.ports.push(PortRule { port, allow, need });
        self
    }

    /// A weakening: in a namespace set without a mount namespace these rules stand in for the mount tree, which otherwise
    /// is a mistake there. The program then sees the host's tree, and the gaps above are open.
    ///
    /// Of [`Landlock::from_mounts`] only what has the same name on the host is allowed there: binds with source and target
    /// alike, and the harmless devices. Memory file systems, `/proc`, given files and other binds are not there, and masks
    /// hide nothing below an allowed path.
    pub fn in_place_of_mounts(mut self) -> Self {
        self.stand_in = StandIn::ForMounts;
        self
    }

    /// Whether anything is handled.
    pub(crate) fn handles_nothing(&self) -> bool {
        self.files.all().is_empty() && self.net.all().is_empty() && self.scopes.all().is_empty()
    }
}

macro_rules! wanted_path {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Wanted<PathBuf> {
            fn from(path: $kind) -> Self {
                PathBuf::from(path).into()
            }
        }

        impl From<Wanted<$kind>> for Wanted<PathBuf> {
            fn from(wanted: Wanted<$kind>) -> Self {
                Self { value: wanted.value.into(), need: wanted.need }
            }
        }
    )*};
}

wanted_path!(&str, &Path, String);
