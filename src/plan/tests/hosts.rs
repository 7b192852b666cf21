//! Hosts made by hand, each with a sentence for a name and the namespace sets that make sense there.

use crate::error::Runtime;
use crate::host::Answer;
use crate::host::CapabilitySets;
use crate::host::Container;
use crate::host::Features;
use crate::host::Host;
use crate::host::IdExtent;
use crate::host::IdMap;
use crate::host::IdRange;
use crate::host::KernelVersion;
use crate::host::MountTable;
use crate::host::SeccompMode;
use crate::host::Subordinate;
use crate::host::Sysctl;
use crate::policy::Capability;
use crate::policy::Namespaces;

/// A host, and one namespace set that is tried on it.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) host: Host,
    pub(super) set: Namespaces,
}

const STANDARD: Namespaces = Namespaces::STANDARD;

pub(super) fn all() -> Vec<Case> {
    let case = |name, host, set| Case { name, host, set };
    let ideal = Host::ideal;
    let no_user = STANDARD.difference(Namespaces::USER);
    let plain = Namespaces::empty();
    vec![
        case("an_ideal_host_unprivileged", ideal(), STANDARD),
        case("an_ideal_host_as_root", ideal().with_root(), STANDARD),
        case("linux_5_10_unprivileged", linux_5_10(), STANDARD),
        case("linux_5_10_as_root", linux_5_10().with_root(), STANDARD),
        case("ubuntu_24_04_with_its_apparmor_restriction", ubuntu_24_04(), STANDARD),
        case("docker_with_its_default_filter", docker(), STANDARD),
        case("a_host_without_openat2_and_close_range", without_late_calls(ideal()), STANDARD),
        case("a_root_without_openat2_and_close_range", without_late_calls(ideal().with_root()), STANDARD),
        case("a_host_that_executes_no_memfd", without_memfd(), STANDARD),
        case("root_of_a_namespace_that_maps_only_itself", root_of_one_id(), STANDARD),
        case("root_without_setuid", root_without_setuid(), STANDARD),
        case("a_kernel_without_time_and_cgroup_namespaces", no_time_no_cgroup(), STANDARD),
        case(
            "a_kernel_without_them_and_a_set_that_knows",
            no_time_no_cgroup(),
            STANDARD.difference(Namespaces::CGROUP),
        ),
        case("root_without_a_user_namespace", ideal().with_root(), no_user),
        case("root_without_a_user_namespace_on_linux_5_10", linux_5_10().with_root(), no_user),
        case("root_without_any_namespace", ideal().with_root(), plain),
        case("no_namespace_at_all_unprivileged", ideal(), plain),
        case("only_user_and_mount_namespaces", ideal(), Namespaces::USER | Namespaces::MOUNT),
        case("subordinate_ids_and_their_helpers", with_helpers(), STANDARD),
    ]
}

/// The features that Linux 5.10 had.
fn linux_5_10() -> Host {
    let later = Features::CLOSE_RANGE_CLOEXEC
        | Features::MOUNT_SETATTR
        | Features::TIME_NS_ON_EXEC
        | Features::SECCOMP_WAIT_KILLABLE;
    Host::ideal().with_kernel(KernelVersion::new(5, 10, 0)).with_landlock_abi(None).without_features(later)
}

fn ubuntu_24_04() -> Host {
    Host::ideal()
        .with_kernel(KernelVersion::new(6, 8, 0))
        .with_landlock_abi(Some(4))
        .with_apparmor_label("unconfined")
        .with_sysctl(Sysctl::ApparmorRestrictUnprivilegedUserns, Some(1))
}

const DOCKER_MOUNTS: &str = "\
600 500 0:50 / / rw,relatime - overlay overlay rw
601 600 0:51 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
602 601 0:51 /sys /proc/sys ro,nosuid,nodev,noexec,relatime - proc proc rw
603 601 0:52 / /proc/kcore rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
604 601 0:53 / /proc/acpi ro,relatime - tmpfs tmpfs ro
605 600 0:54 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
";

fn docker() -> Host {
    let refused = Features::KEYCTL
        | Features::MOUNT_API
        | Features::MOUNT_SETATTR
        | Features::CLONE3
        | Features::CLONE_CLEAR_SIGHAND
        | Features::CLONE_INTO_CGROUP
        | Features::PIDFD_GETFD;
    Host::ideal()
        .without_features(refused)
        .with_seccomp(Some(SeccompMode::Filter), Some(1))
        .with_apparmor_label("docker-default (enforce)")
        .with_container(Some(Container::new(Runtime::Docker, "/.dockerenv")))
        .with_mounts(Some(MountTable::parse(DOCKER_MOUNTS)))
}

fn without_late_calls(host: Host) -> Host {
    host.without_features(Features::OPENAT2 | Features::CLOSE_RANGE | Features::CLOSE_RANGE_CLOEXEC)
}

fn without_memfd() -> Host {
    Host::ideal().without_features(Features::EXECUTABLE_MEMFD).with_sysctl(Sysctl::MemfdNoexec, Some(2))
}

fn root_of_one_id() -> Host {
    let map = || Some(IdMap::new([IdExtent { inside: 0, outside: 1000, count: 1 }]));
    Host::ideal()
        .with_root()
        .with_initial_user_namespace(Answer::No)
        .with_id_maps(map(), map())
        .with_setgroups_allowed(Answer::No)
}

fn root_without_setuid() -> Host {
    let host = Host::ideal().with_root();
    let without = |sets: u64| sets & !(1 << Capability::Setuid as u8);
    let sets = host.capabilities().map(|sets| CapabilitySets {
        permitted: without(sets.permitted),
        effective: without(sets.effective),
        ..*sets
    });
    host.with_capabilities(sets)
}

fn no_time_no_cgroup() -> Host {
    let flags = Namespaces::all().difference(Namespaces::TIME | Namespaces::CGROUP);
    Host::ideal().with_namespace_flags(Some(u64::from(flags.bits())))
}

fn with_helpers() -> Host {
    let mut subordinate = Subordinate::default();
    subordinate.uids.push(IdRange { start: 100_000, count: 65_536 });
    subordinate.gids.push(IdRange { start: 100_000, count: 65_536 });
    subordinate.newuidmap = Some("/usr/bin/newuidmap".into());
    subordinate.newgidmap = Some("/usr/bin/newgidmap".into());
    Host::ideal().with_subordinate(subordinate)
}
