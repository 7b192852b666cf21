//! The builder: setters that never fail and one check at the end. It must not touch the host.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::capability::Capabilities;
use super::cgroup::Cgroup;
use super::check;
use super::clock::Clocks;
use super::identity::{Identity, Mapping};
use super::landlock::Landlock;
use super::limit::{Limit, Resource};
use super::mount::{Access, FileItem, Mount, MountKind, ProcMount, Root, Source, Tmpfs};
use super::namespace::{NamespaceSets, Namespaces};
use super::preset;
use super::process::{Hardening, Init, Launch, NewPrivileges, Session, Tether, TimeOffsets};
use super::seccomp::Filter;
use super::wanted::Wanted;
use super::{Need, Policy};
use crate::error::Result;

/// Describes a sandbox. Setters never fail; [`Builder::policy`] and [`Builder::build`] report every mistake at once.
///
/// What a fresh builder holds: every namespace except time, no network but a loopback interface, an empty read-only root,
/// an unprivileged identity, no capability, `no_new_privs`, the system-call filter [`Filter::baseline`], a session and a
/// session keyring of its own, no core dumps, an init as PID 1, and everything required.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    pub(super) policy: Policy,
    presets: Vec<Preset>,
}

/// Presets are expanded by [`Builder::policy`], as they need to know the final ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preset {
    SystemReadOnly,
}

impl Default for Builder {
    fn default() -> Self {
        let core = Limit { resource: Resource::Core, soft: 0, hard: 0, need: Need::Required };
        let policy = Policy {
            namespaces: NamespaceSets::default(),
            time_offsets: None,
            identity: Identity::default(),
            root: Root::default(),
            mounts: Vec::new(),
            hostname: None,
            domain_name: None,
            loopback: Some(().into()),
            capabilities: Capabilities::NONE,
            limits: vec![core],
            clocks: Clocks::default(),
            cgroup: Cgroup::default(),
            hardening: Hardening::default(),
            seccomp: Some(Filter::baseline()),
            landlock: None,
            init: Init::default(),
            launch: Launch::default(),
            setup_timeout: Duration::from_secs(10),
        };
        Self { policy, presets: Vec::new() }
    }
}

impl Builder {
    /// The policy, checked.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidPolicy`] with every mistake, each naming its item.
    pub fn policy(&self) -> Result<Policy> {
        let mut policy = self.policy.clone();
        let Identity { uid, gid, .. } = policy.identity;
        let mut mounts = Vec::new();
        for preset in &self.presets {
            match preset {
                Preset::SystemReadOnly => mounts.extend(preset::system_read_only(uid, gid)),
            }
        }
        mounts.append(&mut policy.mounts);
        policy.mounts = mounts;
        if policy.hardening.deny_memfd_exec.is_some() {
            policy.seccomp = policy.seccomp.map(Filter::without_executable_memfd);
        }
        check::check(&policy)?;
        Ok(policy)
    }

    pub(super) fn set(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.policy);
        self
    }

    fn harden(self, change: impl FnOnce(&mut Hardening)) -> Self {
        self.set(|policy| change(&mut policy.hardening))
    }

    /// Ordered namespace sets with a floor; a single [`Namespaces`] value is a set without a fallback.
    pub fn namespaces(self, sets: impl Into<NamespaceSets>) -> Self {
        self.set(|policy| policy.namespaces = sets.into())
    }

    /// A weakening: leaves the program in the host's network, in every set.
    pub fn allow_host_network(self) -> Self {
        self.set(|policy| {
            for set in &mut policy.namespaces.sets {
                set.remove(Namespaces::NET);
            }
            policy.namespaces.floor.remove(Namespaces::NET);
            policy.loopback = None;
        })
    }

    /// A time namespace with these offsets, added to every set and to the floor.
    pub fn time_offsets(self, offsets: TimeOffsets) -> Self {
        self.set(|policy| {
            for set in &mut policy.namespaces.sets {
                set.insert(Namespaces::TIME);
            }
            policy.namespaces.floor.insert(Namespaces::TIME);
            policy.time_offsets = Some(offsets);
        })
    }

    /// uid and gid inside.
    pub fn ids(self, uid: u32, gid: u32) -> Self {
        self.set(|policy| (policy.identity.uid, policy.identity.gid) = (uid, gid))
    }

    /// Supplementary groups inside.
    pub fn groups(self, groups: impl IntoIterator<Item = u32>) -> Self {
        self.set(|policy| policy.identity.groups = groups.into_iter().collect())
    }

    /// Which host ids stand behind the ids inside.
    pub fn mapping(self, mapping: Mapping) -> Self {
        self.set(|policy| policy.identity.mapping = mapping)
    }

    /// A weakening: a caller that is root leaves the program with host uid 0.
    pub fn keep_host_root(self) -> Self {
        self.mapping(Mapping::KeepHostRoot)
    }

    /// The host's programs and libraries read-only, a minimal `/dev`, `/proc`, a private `/tmp`, an account database of
    /// its own. It stands before every mount of the builder, whenever it is called. The account database names the ids of
    /// [`Builder::ids`], which a root caller without a user namespace cannot have: there the program sees its host ids.
    pub fn system_read_only(mut self) -> Self {
        if !self.presets.contains(&Preset::SystemReadOnly) {
            self.presets.push(Preset::SystemReadOnly);
        }
        self
    }

    /// No preset and no mount: an empty read-only root.
    pub fn empty(mut self) -> Self {
        self.presets.clear();
        self.set(|policy| {
            policy.root = Root::default();
            policy.mounts.clear();
        })
    }

    /// A directory of the host as the root file system (another distribution). Mount targets have to exist in it.
    pub fn root_directory(self, source: impl Into<PathBuf>, access: Access) -> Self {
        let source = Source::Path(source.into());
        self.set(|policy| policy.root = Root::Directory { source, access })
    }

    /// What the tree stands on.
    pub fn root(self, root: Root) -> Self {
        self.set(|policy| policy.root = root)
    }

    /// One item of the mount tree, after those already there.
    pub fn mount(self, mount: Mount) -> Self {
        self.set(|policy| policy.mounts.push(mount))
    }

    /// The host's `source` at `target` inside, submounts included.
    pub fn bind(self, source: impl Into<PathBuf>, target: impl Into<PathBuf>, access: Access) -> Self {
        self.mount(Mount::bind(source, target).access(access))
    }

    /// A memory file system of at most `size` bytes at `target`, mode 1777.
    pub fn tmpfs(self, target: impl Into<PathBuf>, size: u64) -> Self {
        self.mount(Mount::tmpfs(target, Tmpfs { size, mode: 0o1777, ..Tmpfs::default() }))
    }

    /// A read-only file with these contents.
    pub fn file(self, target: impl Into<PathBuf>, contents: impl Into<Vec<u8>>) -> Self {
        self.mount(Mount::new(target, MountKind::File(FileItem { contents: contents.into(), mode: 0o444 })))
    }

    /// A directory, mode 755.
    pub fn directory(self, target: impl Into<PathBuf>) -> Self {
        self.mount(Mount::new(target, MountKind::Directory(0o755)))
    }

    /// A symlink at `target` with the text `to`.
    pub fn symlink(self, to: impl AsRef<Path>, target: impl Into<PathBuf>) -> Self {
        self.mount(Mount::new(target, MountKind::Symlink(to.as_ref().to_path_buf())))
    }

    /// A minimal `/dev`.
    pub fn dev(self) -> Self {
        self.mount(Mount::new("/dev", MountKind::Dev))
    }

    /// A fresh `/proc`, by [`ProcMount::default`]'s ladder.
    pub fn proc(self) -> Self {
        self.mount(Mount::new("/proc", MountKind::Proc(ProcMount::default())))
    }

    /// Hides a path inside an allowed tree.
    pub fn mask(self, target: impl Into<PathBuf>) -> Self {
        self.mount(Mount::new(target, MountKind::Mask).over())
    }

    /// The host name inside, at most 64 bytes. Default `sandbox`, in a UTS namespace.
    pub fn hostname(self, name: impl Into<Wanted<String>>) -> Self {
        self.set(|policy| policy.hostname = Some(name.into()))
    }

    /// The NIS domain name inside, at most 64 bytes. Default: the host's.
    pub fn domain_name(self, name: impl Into<Wanted<String>>) -> Self {
        self.set(|policy| policy.domain_name = Some(name.into()))
    }

    /// Keeps these capabilities in all five sets. Default none.
    pub fn capabilities(self, keep: impl Into<Capabilities>) -> Self {
        self.set(|policy| policy.capabilities = keep.into())
    }

    /// A resource limit, soft and hard alike, in the unit that [`Resource`] names; the last one for a resource counts.
    pub fn limit(self, resource: Resource, value: impl Into<Wanted<u64>>) -> Self {
        let Wanted { value, need } = value.into();
        self.limits(Limit { resource, soft: value, hard: value, need })
    }

    /// A resource limit in full.
    pub fn limits(self, limit: Limit) -> Self {
        self.set(|policy| {
            policy.limits.retain(|other| other.resource != limit.resource);
            policy.limits.push(limit);
        })
    }

    /// Which system calls the program may make. Default [`Filter::baseline`]. It is attached last, directly before the
    /// program is executed (seccomp(2), since Linux 3.17), and is always required.
    pub fn seccomp(self, filter: Filter) -> Self {
        self.set(|policy| policy.seccomp = Some(filter))
    }

    /// A weakening: no system-call filter at all. The kernel's whole surface is the program's.
    pub fn allow_all_calls(self) -> Self {
        self.set(|policy| policy.seccomp = None)
    }

    /// A Landlock domain around the program and its init. Default none: [`Landlock`] says why.
    pub fn landlock(self, landlock: Landlock) -> Self {
        self.set(|policy| policy.landlock = Some(landlock))
    }

    /// Who is PID 1.
    pub fn init(self, init: Init) -> Self {
        self.set(|policy| policy.init = init)
    }

    /// How the set-up gets an address space of its own.
    pub fn launch(self, launch: Launch) -> Self {
        self.set(|policy| policy.launch = launch)
    }

    /// How long a spawn may take until the program runs. Default 10 s. Past it the child is killed and the spawn fails.
    pub fn setup_timeout(self, limit: Duration) -> Self {
        self.set(|policy| policy.setup_timeout = limit)
    }

    /// File mode creation mask. Default 0o022.
    pub fn umask(self, mask: u32) -> Self {
        self.harden(|hardening| hardening.umask = mask)
    }

    /// Nice value, -20 to 19.
    pub fn nice(self, nice: impl Into<Wanted<i32>>) -> Self {
        self.harden(|hardening| hardening.nice = Some(nice.into()))
    }

    /// Score added by the kernel's choice of a process to kill when memory is short, -1000 to 1000.
    pub fn oom_score_adj(self, score: impl Into<Wanted<i32>>) -> Self {
        self.harden(|hardening| hardening.oom_score_adj = Some(score.into()))
    }

    /// `PR_SET_MDWE`: no mapping is both writable and executable (since Linux 6.3).
    pub fn deny_write_execute(self, wanted: impl Into<Wanted<()>>) -> Self {
        self.harden(|hardening| hardening.deny_write_execute = Some(wanted.into()))
    }

    /// A weakening: no address space randomisation.
    pub fn disable_aslr(self, wanted: impl Into<Wanted<()>>) -> Self {
        self.harden(|hardening| hardening.disable_aslr = Some(wanted.into()))
    }

    /// Timer slack of the program (prctl(2)).
    pub fn timer_slack(self, slack: impl Into<Wanted<Duration>>) -> Self {
        self.harden(|hardening| hardening.timer_slack = Some(slack.into()))
    }

    /// No memfd that the program makes can be executed. The filter refuses memfd_create(2) without `MFD_NOEXEC_SEAL` with
    /// `EACCES`, on every kernel; before Linux 6.3, which brought the flag, the program can make no memfd at all. Without a
    /// filter it is `vm.memfd_noexec=2` (since Linux 6.3), which the kernel lets only the host's uid 0 write: anybody else's
    /// spawn fails then.
    pub fn deny_memfd_exec(self, wanted: impl Into<Wanted<()>>) -> Self {
        self.harden(|hardening| hardening.deny_memfd_exec = Some(wanted.into()))
    }

    /// User namespaces inside are closed (`user.max_user_namespaces=0`) by default; this says how much it is wanted.
    pub fn deny_user_namespaces(self, wanted: impl Into<Wanted<()>>) -> Self {
        self.harden(|hardening| hardening.deny_user_namespaces = Some(wanted.into()))
    }

    /// A weakening: the program may make user namespaces of its own. The filter has to allow the calls too:
    /// [`Filter::baseline`] refuses them in `clone` and `unshare`.
    pub fn allow_user_namespaces(self) -> Self {
        self.harden(|hardening| hardening.deny_user_namespaces = None)
    }

    /// A weakening: the program keeps the caller's session keyring.
    pub fn share_session_keyring(self) -> Self {
        self.harden(|hardening| hardening.own_keyring = None)
    }

    /// How much a session keyring of its own is wanted.
    pub fn own_keyring(self, wanted: impl Into<Wanted<()>>) -> Self {
        self.harden(|hardening| hardening.own_keyring = Some(wanted.into()))
    }

    /// A weakening: an exec inside may gain privileges (setuid programs, file capabilities).
    pub fn allow_new_privileges(self) -> Self {
        self.harden(|hardening| hardening.no_new_privs = NewPrivileges::Allowed)
    }

    /// A weakening: the program stays in the caller's session and can reach its terminal.
    pub fn share_session(self) -> Self {
        self.harden(|hardening| hardening.session = Session::Shared)
    }

    /// A weakening: [`crate::Child::detach`] may give the tether up, and then what runs inside outlives the caller's process.
    /// Until then it ends with the caller as ever. It needs the crate's init.
    pub fn allow_outliving_caller(self) -> Self {
        self.harden(|hardening| hardening.tether = Tether::UntilDetached)
    }

    /// Whether `path` is the target of an item that stands already.
    #[must_use]
    pub fn has_target(&self, path: impl AsRef<OsStr>) -> bool {
        let path = Path::new(path.as_ref());
        self.policy.mounts.iter().any(|mount| mount.target == path)
    }
}
