//! Hosts made by hand, for tests and dry runs. It must not look at the machine that it runs on.

use std::collections::BTreeMap;

use super::Host;
use super::answer::Answer;
use super::cgroup::{Cgroups, Unified, UnifiedGroup};
use super::container::Container;
use super::features::Features;
use super::identity::Identity;
use super::idmap::IdMap;
use super::kernel::KernelVersion;
use super::mountinfo::MountTable;
use super::namespace;
use super::process_limit::KeyUsage;
use super::process_limit::ProcessLimits;
use super::security::Security;
use super::status::CapabilitySets;
use super::status::SeccompMode;
use super::subid::Subordinate;
use super::sysctl::Sysctl;
use super::systemd::Systemd;

/// CAP_CHECKPOINT_RESTORE, the last capability since Linux 5.9.
const LAST_CAPABILITY: u32 = 40;

/// The controllers of cgroup v2 that limit something.
const CONTROLLERS: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

/// Of Linux 6.12.
const LANDLOCK_ABI: u32 = 6;

/// A root file system with a writable /proc that nothing hides.
const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
24 22 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:2 - sysfs sysfs rw
25 22 0:5 / /dev rw,nosuid,relatime shared:8 - devtmpfs udev rw,size=4096k,mode=755
26 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw
";

impl Host {
    /// A machine without restrictions: Linux 6.12, uid and gid 1000 without capabilities, every feature and kind of
    /// namespace, the initial user namespace, nothing around the caller, no subordinate ids. The same on every machine.
    #[must_use]
    pub fn ideal() -> Self {
        Self {
            kernel: KernelVersion::new(6, 12, 0),
            features: Features::all().difference(Features::CLONE_TREES),
            namespaces: Some(namespace::ALL),
            in_initial_user_namespace: Answer::Yes,
            identity: Identity::of(1000, 1000),
            host_root: Answer::No,
            capabilities: Some(CapabilitySets {
                bounding: (1 << (LAST_CAPABILITY + 1)) - 1,
                ..CapabilitySets::default()
            }),
            last_capability: LAST_CAPABILITY,
            no_new_privs: Answer::No,
            seccomp_mode: Some(SeccompMode::Disabled),
            seccomp_filters: Some(0),
            uid_map: Some(IdMap::identity()),
            gid_map: Some(IdMap::identity()),
            setgroups_allowed: Answer::Yes,
            subordinate: Subordinate::default(),
            sysctls: ideal_sysctls(),
            security: Security { selinux_enforcing: Answer::No, ..Security::default() },
            chrooted: Answer::No,
            container: None,
            mounts: Some(MountTable::parse(MOUNTS)),
            process_limits: ProcessLimits::default(),
            key_usage: None,
            landlock_abi: Some(LANDLOCK_ABI),
            cgroups: delegated(),
            systemd: Systemd::NotBuilt,
        }
    }

    /// With this kernel version. [`Host::features`] stay as they are.
    #[must_use]
    pub fn with_kernel(mut self, kernel: KernelVersion) -> Self {
        self.kernel = kernel;
        self
    }

    /// With exactly these features.
    #[must_use]
    pub fn with_features(mut self, features: Features) -> Self {
        self.features = features;
        self
    }

    /// Without these features.
    #[must_use]
    pub fn without_features(mut self, features: Features) -> Self {
        self.features.remove(features);
        self
    }

    /// With exactly the kinds of namespace of these CLONE_NEW* bits; `None` if they cannot be seen.
    #[must_use]
    pub fn with_namespace_flags(mut self, flags: Option<u64>) -> Self {
        self.namespaces = flags;
        self
    }

    /// Within the initial user namespace or not.
    #[must_use]
    pub fn with_initial_user_namespace(mut self, initial: Answer) -> Self {
        self.in_initial_user_namespace = initial;
        self
    }

    /// With a caller of this identity. Its capabilities stay as they are.
    #[must_use]
    pub fn with_identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    /// With a caller that holds these capabilities.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Option<CapabilitySets>) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// With a caller who is root and holds every capability.
    #[must_use]
    pub fn with_root(self) -> Self {
        let all = (2u64 << self.last_capability.min(62)) - 1;
        let sets =
            CapabilitySets { permitted: all, effective: all, bounding: all, ..CapabilitySets::default() };
        let mut host = self.with_identity(Identity::of(0, 0)).with_capabilities(Some(sets));
        host.features.insert(Features::CLONE_TREES);
        host.host_root = Answer::Yes;
        host
    }

    /// With a caller whose uid is the machine's uid 0, or is not.
    #[must_use]
    pub fn with_host_root(mut self, host_root: Answer) -> Self {
        self.host_root = host_root;
        self
    }

    /// With a kernel whose last capability is this one.
    #[must_use]
    pub fn with_last_capability(mut self, number: u32) -> Self {
        self.last_capability = number;
        self
    }

    /// With no_new_privs already set or not.
    #[must_use]
    pub fn with_no_new_privs(mut self, set: Answer) -> Self {
        self.no_new_privs = set;
        self
    }

    /// With a system-call filter around the caller, or without.
    #[must_use]
    pub fn with_seccomp(mut self, mode: Option<SeccompMode>, filters: Option<u32>) -> Self {
        self.seccomp_mode = mode;
        self.seccomp_filters = filters;
        self
    }

    /// With these id maps in the caller's user namespace.
    #[must_use]
    pub fn with_id_maps(mut self, uid_map: Option<IdMap>, gid_map: Option<IdMap>) -> Self {
        self.uid_map = uid_map;
        self.gid_map = gid_map;
        self
    }

    /// With setgroups(2) allowed in the caller's user namespace or not.
    #[must_use]
    pub fn with_setgroups_allowed(mut self, allowed: Answer) -> Self {
        self.setgroups_allowed = allowed;
        self
    }

    /// With these subordinate ids and helpers.
    #[must_use]
    pub fn with_subordinate(mut self, subordinate: Subordinate) -> Self {
        self.subordinate = subordinate;
        self
    }

    /// With this value of a sysctl; `None` for a kernel that lacks it.
    #[must_use]
    pub fn with_sysctl(mut self, sysctl: Sysctl, value: Option<u64>) -> Self {
        match value {
            Some(value) => self.sysctls.insert(sysctl, value),
            None => self.sysctls.remove(&sysctl),
        };
        self
    }

    /// With these security modules around the caller.
    #[must_use]
    pub fn with_security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// With AppArmor, and the caller under this label.
    #[must_use]
    pub fn with_apparmor_label(mut self, label: &str) -> Self {
        self.security.apparmor_label = Some(label.to_owned());
        self
    }

    /// With a caller in a chroot or not.
    #[must_use]
    pub fn with_chrooted(mut self, chrooted: Answer) -> Self {
        self.chrooted = chrooted;
        self
    }

    /// With the signs of a container.
    #[must_use]
    pub fn with_container(mut self, container: Option<Container>) -> Self {
        self.container = container;
        self
    }

    /// With these mounts; `None` for a caller without /proc.
    #[must_use]
    pub fn with_mounts(mut self, mounts: Option<MountTable>) -> Self {
        self.mounts = mounts;
        self
    }

    /// With these bounds on the number of processes.
    #[must_use]
    pub fn with_process_limits(mut self, limits: ProcessLimits) -> Self {
        self.process_limits = limits;
        self
    }

    /// With this version of Landlock; `None` for a kernel without it.
    #[must_use]
    pub fn with_landlock_abi(mut self, abi: Option<u32>) -> Self {
        self.landlock_abi = abi;
        self
    }

    /// With these control groups around the caller.
    #[must_use]
    pub fn with_cgroups(mut self, cgroups: Cgroups) -> Self {
        self.cgroups = cgroups;
        self
    }

    /// With this to be had of systemd.
    #[must_use]
    pub fn with_systemd(mut self, systemd: Systemd) -> Self {
        self.systemd = systemd;
        self
    }

    /// With this much of the key quota in use.
    #[must_use]
    pub fn with_key_usage(mut self, usage: Option<KeyUsage>) -> Self {
        self.key_usage = usage;
        self
    }
}

/// What a large machine of any distribution has: limits far away, and no patch of a distribution's.
/// A service of cgroup v2 in a slice that was given to its user.
fn delegated() -> Cgroups {
    let group = |path: &str, enabled: &[&str], given: Answer| UnifiedGroup {
        directory: path.into(),
        controllers: CONTROLLERS.map(str::to_owned).to_vec(),
        enabled: enabled.iter().map(|name| (*name).to_owned()).collect(),
        access: given,
        delegated: given,
        root: Answer::from(Some(path == "/sys/fs/cgroup")),
    };
    let groups = vec![
        group("/sys/fs/cgroup/user.slice/app.slice/app.service", &[], Answer::Yes),
        group("/sys/fs/cgroup/user.slice/app.slice", &CONTROLLERS, Answer::Yes),
        group("/sys/fs/cgroup/user.slice", &CONTROLLERS, Answer::No),
        group("/sys/fs/cgroup", &CONTROLLERS, Answer::No),
    ];
    let unified = Some(Unified { mount: "/sys/fs/cgroup".into(), groups });
    Cgroups { unified, legacy: Vec::new() }
}

fn ideal_sysctls() -> BTreeMap<Sysctl, u64> {
    let namespaces = namespace::KINDS.iter().map(|kind| (kind.limit, 63_000));
    let others = [
        (Sysctl::MemfdNoexec, 0),
        (Sysctl::LegacyTiocsti, 0),
        (Sysctl::MaxKeys, 200),
        (Sysctl::RootMaxKeys, 1_000_000),
        (Sysctl::MountMax, 100_000),
    ];
    namespaces.chain(others).collect()
}
