//! Why the kernel refused: what was seen, and what a stranger can do about it. It must not look at anything itself: a
//! cause carries what its evidence needs.

use std::borrow::Cow;
use std::fmt::Display;
use std::fmt::Formatter;
use std::fmt::Result as FmtResult;
use std::path::Path;
use std::path::PathBuf;

/// What runs a container, for the wording of advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Runtime {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// Kubernetes, whichever runtime it uses.
    Kubernetes,
    /// LXC, LXD or Incus.
    Lxc,
    /// systemd-nspawn.
    Nspawn,
    /// Flatpak.
    Flatpak,
    /// Something else.
    Other,
}

/// Why a helper such as newuidmap(1) gets no privilege from its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Powerless {
    /// no_new_privs is set on the caller (PR_SET_NO_NEW_PRIVS(2const)).
    NoNewPrivs,
    /// The mount that it lies on is `nosuid`.
    NoSuidMount,
}

/// Why the kernel refused a step, found by looking at the machine.
///
/// It holds as evidence what was seen when the [`Host`](crate::host::Host) was probed. Several may hold at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The limit on namespaces of this kind is 0 or reached. Linux 4.9, namespaces(7).
    NamespaceLimit {
        /// The limit's name.
        sysctl: &'static str,
        /// Its value.
        value: u64,
    },
    /// A user namespace above the caller's has a limit of its own, or namespaces lie 32 deep (33 for user
    /// namespaces). Neither can be seen from inside. user_namespaces(7), pid_namespaces(7).
    AncestorLimitOrNesting {
        /// What the limit in the caller's own user namespace is called.
        sysctl: &'static str,
        /// Its value there.
        value: u64,
    },
    /// kernel.unprivileged_userns_clone is 0 (a patch of Debian's, Ubuntu's and Arch's).
    DebianUserNamespacesOff,
    /// kernel.apparmor_restrict_unprivileged_userns is on (Ubuntu 23.10 and later): the user namespace is made, and its
    /// owner gets no capabilities in it.
    AppArmorRestriction {
        /// The caller's label.
        label: Option<String>,
    },
    /// An AppArmor profile confines the caller.
    AppArmorProfile {
        /// The caller's label.
        label: String,
    },
    /// SELinux is enforcing.
    SelinuxEnforcing {
        /// The caller's context.
        context: Option<String>,
    },
    /// A system-call filter is already around the caller. seccomp(2).
    SeccompFilterAroundCaller {
        /// How many; known since Linux 5.9.
        filters: Option<u32>,
    },
    /// The caller is in a chroot, where no user namespace can be made. user_namespaces(7), clone(2).
    ChrootedCaller,
    /// The caller's own id does not exist in its user namespace. clone(2), EPERM.
    UnmappedCaller {
        /// `uid` or `gid`.
        kind: &'static str,
        /// The id that it shows as.
        id: u32,
    },
    /// The kernel is too old, or was built without it, or a filter hides it.
    KernelLacks {
        /// What is missing.
        what: &'static str,
        /// The Linux version that brought it.
        since: &'static str,
        /// The kernel that runs.
        running: String,
    },
    /// Mounts hide parts of /proc, so a user namespace may not mount a fresh one. mount_namespaces(7).
    MaskedProc {
        /// What hides.
        mounts: Vec<PathBuf>,
    },
    /// The caller's /proc is read-only.
    ReadOnlyProc,
    /// There is no /proc.
    ProcNotMounted,
    /// The user has no subordinate ids to map. subuid(5), subgid(5).
    MissingSubordinateIds {
        /// The file without a line.
        file: &'static str,
        /// The user without ids, by name or number.
        user: String,
    },
    /// The caller's own user namespace knows a single id, and a new one can know no more.
    SingleIdMap {
        /// `uid` or `gid`.
        kind: &'static str,
    },
    /// The helper that maps a range of ids is not installed. newuidmap(1).
    HelperMissing {
        /// Its name.
        name: &'static str,
    },
    /// The helper is there, and its privilege does not take effect.
    HelperPowerless {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        reason: Powerless,
    },
    /// The caller lacks a capability. capabilities(7).
    NoPrivilege {
        /// Its name.
        capability: &'static str,
    },
    /// The caller's user namespace forbids setgroups(2). user_namespaces(7), Linux 3.19.
    SetgroupsDenied,
    /// vm.memfd_noexec forbids a memfd that can be executed. Linux 6.3.
    MemfdNoexec {
        /// The sysctl's value.
        value: u64,
    },
    /// The caller seems to run in a container, whose runtime may restrict it.
    ContainerRuntime {
        /// Which.
        runtime: Runtime,
        /// What was seen.
        seen: String,
    },
    /// The user may own no more keys. keyrings(7).
    KeyQuota {
        /// The limit's name.
        sysctl: &'static str,
        /// Its value.
        value: u64,
        /// How many keys, and bytes, counted against the quotas.
        used: Option<(u64, u64)>,
    },
    /// RLIMIT_NPROC bounds the user's processes. getrlimit(2).
    ProcessLimit {
        /// Its soft value.
        limit: u64,
    },
    /// pids.max of a control group bounds its processes. The kernel's admin-guide/cgroup-v2.
    CgroupProcessLimit {
        /// The control group.
        directory: PathBuf,
        /// pids.max
        max: u64,
        /// pids.current when it was looked at.
        current: u64,
    },
    /// The mount namespace may hold no more mounts: fs.mount-max. Linux 4.9.
    MountLimit {
        /// The sysctl's value.
        value: u64,
        /// How many mounts the caller sees.
        mounts: u64,
    },
}

impl Cause {
    /// What was seen, and where.
    #[must_use]
    pub fn evidence(&self) -> String {
        match self {
            Self::NamespaceLimit { sysctl, value } => format!("{} is {value}", file(sysctl)),
            Self::AncestorLimitOrNesting { sysctl, value } => nested(sysctl, *value),
            Self::DebianUserNamespacesOff => format!("{} is 0", file("kernel.unprivileged_userns_clone")),
            Self::AppArmorRestriction { label } => restricted(label.as_deref()),
            Self::AppArmorProfile { label } => format!("the caller's AppArmor label is \"{label}\""),
            Self::SelinuxEnforcing { context } => enforcing(context.as_deref()),
            Self::SeccompFilterAroundCaller { filters } => filtered(*filters),
            Self::ChrootedCaller => {
                "the caller's root directory is not that of its mount namespace".to_owned()
            }
            Self::UnmappedCaller { kind, id } => {
                format!("the caller's {kind} shows as {id}, which /proc/self/{kind}_map does not contain")
            }
            Self::KernelLacks { what, since, running } => {
                format!("Linux {running} does not offer {what} (since Linux {since})")
            }
            Self::MaskedProc { mounts } => format!("/proc is partly hidden by {}", listed(mounts)),
            Self::ReadOnlyProc => "/proc is mounted read-only".to_owned(),
            Self::ProcNotMounted => "no proc file system can be read at /proc".to_owned(),
            Self::MissingSubordinateIds { file, user } => format!("{file} has no range for user {user}"),
            Self::SingleIdMap { kind } => format!("/proc/self/{kind}_map contains a single id"),
            Self::HelperMissing { name } => format!("{name} is in none of the system's program directories"),
            Self::HelperPowerless { path, reason } => powerless(path, *reason),
            Self::NoPrivilege { capability } => format!("{capability} is not in the caller's effective set"),
            Self::SetgroupsDenied => "/proc/self/setgroups is \"deny\"".to_owned(),
            Self::MemfdNoexec { value } => format!("{} is {value}", file("vm.memfd_noexec")),
            Self::ContainerRuntime { seen, .. } => format!("the caller seems to run in a container: {seen}"),
            Self::KeyQuota { sysctl, value, used } => quota(sysctl, *value, *used),
            Self::ProcessLimit { limit } => {
                format!("RLIMIT_NPROC allows the user {limit} processes and threads")
            }
            Self::CgroupProcessLimit { directory, max, current } => {
                format!("pids.max in {} is {max}, pids.current was {current}", directory.display())
            }
            Self::MountLimit { value, mounts } => {
                format!("{} is {value}, and the caller already sees {mounts} mounts", file("fs.mount-max"))
            }
        }
    }

    /// What can be done about it, and by whom.
    #[must_use]
    pub fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::NamespaceLimit { sysctl, value } => raise(sysctl, *value).into(),
            Self::AncestorLimitOrNesting { .. } => NESTING.into(),
            Self::DebianUserNamespacesOff => DEBIAN.into(),
            Self::AppArmorRestriction { .. } => APPARMOR_RESTRICTION.into(),
            Self::AppArmorProfile { .. } => APPARMOR_PROFILE.into(),
            Self::SelinuxEnforcing { .. } => SELINUX.into(),
            Self::SeccompFilterAroundCaller { .. } => SECCOMP.into(),
            Self::ChrootedCaller => CHROOT.into(),
            Self::UnmappedCaller { .. } => UNMAPPED.into(),
            Self::KernelLacks { since, .. } => format!(
                "use Linux {since} or later, with this built in, or allow it in the filter around the caller"
            )
            .into(),
            Self::MaskedProc { .. } => MASKED.into(),
            Self::ReadOnlyProc => READ_ONLY_PROC.into(),
            Self::ProcNotMounted => "as root, mount -t proc proc /proc".into(),
            Self::MissingSubordinateIds { file, user } => subordinate(file, user).into(),
            Self::SingleIdMap { .. } => SINGLE.into(),
            Self::HelperMissing { .. } => HELPER.into(),
            Self::HelperPowerless { reason: Powerless::NoNewPrivs, .. } => HELPER_NO_NEW_PRIVS.into(),
            Self::HelperPowerless { reason: Powerless::NoSuidMount, .. } => HELPER_NO_SUID.into(),
            Self::NoPrivilege { capability } => format!(
                "ask for a user namespace of its own in the policy, or run the caller with {capability}"
            )
            .into(),
            Self::SetgroupsDenied => SETGROUPS.into(),
            Self::MemfdNoexec { .. } => MEMFD.into(),
            Self::ContainerRuntime { runtime, .. } => container(*runtime).into(),
            Self::KeyQuota { sysctl, value, .. } => format!(
                "as root, sysctl -w {sysctl}={}, or let the policy keep the session keyring",
                doubled(*value)
            )
            .into(),
            Self::ProcessLimit { .. } => PROCESSES.into(),
            Self::CgroupProcessLimit { .. } => "raise pids.max there, or run fewer processes at once".into(),
            Self::MountLimit { value, .. } => {
                format!("as root, sysctl -w fs.mount-max={}", doubled(*value)).into()
            }
        }
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str(&self.evidence())
    }
}

fn file(sysctl: &str) -> String {
    format!("/proc/sys/{}", sysctl.replace('.', "/"))
}

fn nested(sysctl: &str, value: u64) -> String {
    let own = file(sysctl);
    format!(
        "the caller is in a nested user namespace where {own} is {value}; limits further out are not visible here"
    )
}

fn restricted(label: Option<&str>) -> String {
    let restriction = format!("{} is on", file("kernel.apparmor_restrict_unprivileged_userns"));
    match label {
        Some(label) => format!("{restriction}, the caller's AppArmor label is \"{label}\""),
        None => restriction,
    }
}

fn enforcing(context: Option<&str>) -> String {
    match context {
        Some(context) => format!("SELinux is enforcing, the caller's context is \"{context}\""),
        None => "SELinux is enforcing".to_owned(),
    }
}

fn filtered(filters: Option<u32>) -> String {
    match filters {
        Some(1) => "the caller runs under a system-call filter (Seccomp in /proc/self/status)".to_owned(),
        Some(count) => format!(
            "the caller runs under {count} system-call filters (Seccomp_filters in /proc/self/status)"
        ),
        None => "the caller runs under a system-call filter (Seccomp in /proc/self/status)".to_owned(),
    }
}

fn powerless(path: &Path, reason: Powerless) -> String {
    match reason {
        Powerless::NoNewPrivs => {
            format!("no_new_privs is set on the caller, so {} has no privilege", path.display())
        }
        Powerless::NoSuidMount => format!("{} lies on a nosuid mount", path.display()),
    }
}

fn quota(sysctl: &str, value: u64, used: Option<(u64, u64)>) -> String {
    match used {
        Some((keys, bytes)) => {
            format!("{} is {value}, /proc/key-users showed {keys} keys of {bytes} bytes in use", file(sysctl))
        }
        None => format!("{} is {value}", file(sysctl)),
    }
}

/// A few paths in full; a container hides a dozen.
fn listed(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().take(4).map(|path| path.display().to_string()).collect();
    match paths.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn raise(sysctl: &str, value: u64) -> String {
    // What RHEL's documentation raises it to, and far more than a machine ordinarily uses.
    let wanted = if value == 0 { 15_000 } else { doubled(value) };
    format!("as root, sysctl -w {sysctl}={wanted}; a line in /etc/sysctl.d/ makes it last")
}

fn doubled(value: u64) -> u64 {
    value.saturating_mul(2).max(1)
}

fn subordinate(file: &str, user: &str) -> String {
    format!(
        "as root, add the line {user}:100000:65536 to {file}, with a first id whose range nobody else has; or map a \
         single id"
    )
}

fn container(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Docker => DOCKER,
        Runtime::Podman => PODMAN,
        Runtime::Kubernetes => KUBERNETES,
        Runtime::Lxc => {
            "set security.nesting=true (lxc.include = nesting.conf with plain LXC) for the container"
        }
        Runtime::Nspawn => {
            "give systemd-nspawn --system-call-filter= and --private-users= as the sandbox needs them"
        }
        Runtime::Flatpak => {
            "a Flatpak makes no namespaces of its own; ask the portal: flatpak-spawn --sandbox"
        }
        Runtime::Other => "let the runtime allow clone, unshare, setns and the mount calls in the container",
    }
}

const NESTING: &str = "\
    ask whoever made the outer container or sandbox to raise user.max_*_namespaces there, or nest less \
    deeply";
const DEBIAN: &str = "\
    as root, sysctl -w kernel.unprivileged_userns_clone=1; a line in /etc/sysctl.d/ makes it last";
const APPARMOR_RESTRICTION: &str = "\
    as root, give the program an AppArmor profile with the rule \"userns,\" (a file in /etc/apparmor.d/ \
    such as: abi <abi/4.0>, profile NAME /path/to/program flags=(unconfined) { userns, }), then \
    apparmor_parser -r it; or, for all programs at once, sysctl -w \
    kernel.apparmor_restrict_unprivileged_userns=0";
const APPARMOR_PROFILE: &str = "\
    add the rules \"userns,\", \"mount,\" and \"pivot_root,\" to that profile, or run the program \
    outside it (Docker: --security-opt apparmor=unconfined); the kernel log names what was denied";
const SELINUX: &str = "\
    look for the denial with ausearch -m AVC -ts recent, and let audit2allow make a module of it \
    (Docker, Podman: --security-opt label=disable)";
const SECCOMP: &str = "\
    let the filter allow clone3, unshare, mount, pivot_root and what the plan lists (Docker, Podman: \
    --security-opt seccomp=PROFILE; systemd: SystemCallFilter=, RestrictNamespaces=)";
const CHROOT: &str = "\
    enter the directory with pivot_root(2) in a mount namespace of its own (bwrap, systemd-nspawn, \
    unshare --mount) instead of chroot(2)";
const UNMAPPED: &str = "\
    write /proc/PID/uid_map and gid_map of the user namespace that the caller runs in so that they \
    contain its ids";
const MASKED: &str = "\
    let the policy bind the /proc that is there or go without, or let the container show it whole \
    (Docker: --security-opt systempaths=unconfined; Podman: --security-opt unmask=ALL; Kubernetes: \
    procMount: Unmasked)";
const READ_ONLY_PROC: &str = "\
    give the caller a writable /proc: id maps are written there, and a fresh one may not be more writable";
const SINGLE: &str = "\
    let whoever made the caller's user namespace map a range there (newuidmap, subuid), or map a single id";
const HELPER: &str = "\
    install newuidmap and newgidmap (Debian, Ubuntu: package uidmap; Fedora: shadow-utils-subid; Arch: \
    shadow), or map a single id";
const HELPER_NO_NEW_PRIVS: &str = "\
    start the caller without no_new_privs (systemd: NoNewPrivileges=no; Docker: without --security-opt \
    no-new-privileges; Kubernetes: allowPrivilegeEscalation: true), or map a single id";
const HELPER_NO_SUID: &str = "mount that file system without nosuid, or map a single id";
const SETGROUPS: &str = "\
    let the policy keep the supplementary groups; whoever made the user namespace must write \"allow\" \
    before its gid_map";
const MEMFD: &str = "\
    nothing is lost but speed, for the set-up then runs in a copy of the caller; as root, sysctl -w \
    vm.memfd_noexec=1 allows it";
const PROCESSES: &str = "\
    raise it (ulimit -u, LimitNPROC= in a systemd unit, nproc in limits.conf), or run fewer processes \
    at once";
const DOCKER: &str = "\
    start the container with --security-opt seccomp=PROFILE, a profile that allows clone, unshare, \
    setns and the mount calls (or unconfined), --security-opt apparmor=unconfined and, for a fresh \
    /proc, --security-opt systempaths=unconfined";
const PODMAN: &str = "\
    start the container with --security-opt seccomp=PROFILE (or unconfined), --security-opt \
    label=disable and, for a fresh /proc, --security-opt unmask=ALL";
const KUBERNETES: &str = "\
    set in the pod seccompProfile: Unconfined (or a Localhost profile), appArmorProfile: Unconfined \
    and, for a fresh /proc, procMount: Unmasked with hostUsers: false";
