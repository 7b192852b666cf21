//! Tests of the causes that hosts made by hand give. They must not look at the machine that they run on.

use std::path::PathBuf;
use std::slice;

use crate::error::Cause;
use crate::error::Powerless;
use crate::error::Runtime;
use crate::host::Answer;
use crate::host::CapabilitySets;
use crate::host::CgroupProcesses;
use crate::host::Container;
use crate::host::Diagnosis;
use crate::host::Features;
use crate::host::Host;
use crate::host::IdExtent;
use crate::host::IdMap;
use crate::host::IdRange;
use crate::host::Identity;
use crate::host::KernelVersion;
use crate::host::KeyUsage;
use crate::host::MountTable;
use crate::host::ProcessLimits;
use crate::host::Refusal;
use crate::host::RefusedStep;
use crate::host::SeccompMode;
use crate::host::Security;
use crate::host::Subordinate;
use crate::host::Sysctl;
use crate::host::Within;
use crate::host::diagnose;
use crate::host::namespace::ALL;
use crate::host::namespace::NEWNET;
use crate::host::namespace::NEWNS;
use crate::host::namespace::NEWTIME;
use crate::host::namespace::NEWUSER;
use crate::host::tests::mounts::DOCKER;
use crate::host::tests::mounts::UBUNTU;

const USER: RefusedStep = RefusedStep::Clone { namespaces: NEWUSER | NEWNS };

fn fresh(host: &Host, step: RefusedStep, errno: i32) -> Vec<Cause> {
    diagnose(host, &Refusal { step, errno, within: Within::FreshUserNamespace })
}

fn callers(host: &Host, step: RefusedStep, errno: i32) -> Vec<Cause> {
    diagnose(host, &Refusal { step, errno, within: Within::CallersUserNamespace })
}

/// Ubuntu 24.04 with a program that has no profile.
fn ubuntu() -> Host {
    Host::ideal()
        .with_kernel(KernelVersion::new(6, 8, 0))
        .with_sysctl(Sysctl::ApparmorRestrictUnprivilegedUserns, Some(1))
        .with_sysctl(Sysctl::UnprivilegedUsernsClone, Some(1))
        .with_apparmor_label("unconfined")
        .with_mounts(Some(MountTable::parse(UBUNTU)))
}

/// Docker with its default profile, on Debian.
fn docker() -> Host {
    let sets = 0xa804_25fb;
    Host::ideal()
        .with_identity(Identity::of(0, 0))
        .with_capabilities(Some(CapabilitySets {
            permitted: sets,
            effective: sets,
            bounding: sets,
            ..CapabilitySets::default()
        }))
        .with_seccomp(Some(SeccompMode::Filter), Some(1))
        .without_features(Features::CLONE3 | Features::MOUNT_API | Features::MOUNT_SETATTR | Features::KEYCTL)
        .with_apparmor_label("docker-default (enforce)")
        .with_mounts(Some(MountTable::parse(DOCKER)))
        .with_container(Some(Container::new(Runtime::Docker, "/.dockerenv")))
}

/// A user namespace of one's own, as `unshare -Ur` makes it.
fn nested() -> Host {
    let map = |id| Some(IdMap::new([IdExtent { inside: 0, outside: id, count: 1 }]));
    Host::ideal()
        .with_root()
        .with_initial_user_namespace(Answer::No)
        .with_id_maps(map(1000), map(1000))
        .with_setgroups_allowed(Answer::No)
        .with_sysctl(Sysctl::MaxUserNamespaces, Some(2_147_483_647))
        .with_sysctl(Sysctl::MaxMountNamespaces, Some(2_147_483_647))
}

#[test]
fn the_ideal_host_has_no_excuse() {
    let steps = [
        USER,
        RefusedStep::IdMap,
        RefusedStep::Mount,
        RefusedStep::ProcMount,
        RefusedStep::MemfdExec,
        RefusedStep::Keyring,
        RefusedStep::Pidfd,
        RefusedStep::Capabilities,
        RefusedStep::Groups,
        RefusedStep::Ids,
        RefusedStep::Limits,
        RefusedStep::Priority,
    ];
    for step in steps {
        for errno in [libc::EPERM, libc::EACCES, libc::EINVAL, libc::ENOSYS, libc::EAGAIN, libc::EIO] {
            assert_eq!(fresh(&Host::ideal(), step, errno), [], "{step:?} {errno}");
        }
    }
}

#[test]
fn a_limit_of_zero_is_the_cause_of_enospc() {
    let host = Host::ideal().with_sysctl(Sysctl::MaxUserNamespaces, Some(0));
    let cause = Cause::NamespaceLimit { sysctl: "user.max_user_namespaces", value: 0 };
    for errno in [libc::ENOSPC, libc::EUSERS] {
        assert_eq!(fresh(&host, USER, errno), slice::from_ref(&cause));
    }
    assert_eq!(cause.evidence(), "/proc/sys/user/max_user_namespaces is 0");
    assert!(cause.remedy().contains("sysctl -w user.max_user_namespaces=15000"));
    // The limit answers with no other errno.
    assert_eq!(fresh(&host, USER, libc::EPERM), []);
}

#[test]
fn a_limit_of_zero_on_another_kind_is_named_only_where_that_kind_is_wanted() {
    let host = Host::ideal().with_sysctl(Sysctl::MaxNetworkNamespaces, Some(0));
    let cause = Cause::NamespaceLimit { sysctl: "user.max_net_namespaces", value: 0 };
    assert_eq!(fresh(&host, RefusedStep::Clone { namespaces: NEWUSER | NEWNET }, libc::ENOSPC), [cause]);
    assert!(fresh(&host, USER, libc::ENOSPC).iter().all(|cause| !cause.evidence().contains("net")));
}

#[test]
fn in_the_initial_user_namespace_a_limit_above_zero_was_reached() {
    let host = Host::ideal().with_sysctl(Sysctl::MaxUserNamespaces, Some(5));
    let causes = fresh(&host, RefusedStep::Clone { namespaces: NEWUSER }, libc::ENOSPC);
    assert_eq!(causes, [Cause::NamespaceLimit { sysctl: "user.max_user_namespaces", value: 5 }]);
    assert!(causes[0].remedy().contains("user.max_user_namespaces=10"));
}

#[test]
fn further_in_an_outer_limit_or_the_depth_is_likelier() {
    let outer = Cause::AncestorLimitOrNesting { sysctl: "user.max_user_namespaces", value: 2_147_483_647 };
    assert_eq!(fresh(&nested(), USER, libc::ENOSPC), [outer]);
    let own = nested().with_sysctl(Sysctl::MaxUserNamespaces, Some(9));
    let causes = fresh(&own, USER, libc::ENOSPC);
    assert!(matches!(
        causes.as_slice(),
        [Cause::AncestorLimitOrNesting { value: 9, .. }, Cause::NamespaceLimit { value: 9, .. }]
    ));
}

#[test]
fn debians_switch_counts_for_the_unprivileged() {
    let host = Host::ideal().with_sysctl(Sysctl::UnprivilegedUsernsClone, Some(0));
    assert_eq!(fresh(&host, USER, libc::EPERM), [Cause::DebianUserNamespacesOff]);
    assert_eq!(fresh(&host.with_root(), USER, libc::EPERM), []);
}

#[test]
fn ubuntus_restriction_shows_at_the_id_map_and_the_mount() {
    let cause = Cause::AppArmorRestriction { label: Some("unconfined".to_owned()) };
    for step in [RefusedStep::IdMap, RefusedStep::Mount, RefusedStep::ProcMount, USER] {
        for errno in [libc::EPERM, libc::EACCES] {
            assert_eq!(fresh(&ubuntu(), step, errno), slice::from_ref(&cause), "{step:?}");
        }
    }
    assert!(cause.evidence().contains("label is \"unconfined\""));
    assert!(cause.remedy().contains("userns,"));
    assert_eq!(fresh(&ubuntu().with_root(), RefusedStep::Mount, libc::EPERM), []);
}

#[test]
fn root_of_a_nested_user_namespace_is_no_administrator() {
    let label = "unprivileged_userns (enforce)";
    let host = nested()
        .with_sysctl(Sysctl::ApparmorRestrictUnprivilegedUserns, Some(1))
        .with_sysctl(Sysctl::UnprivilegedUsernsClone, Some(0))
        .with_apparmor_label(label);
    assert_eq!(
        fresh(&host, USER, libc::EACCES),
        [
            Cause::DebianUserNamespacesOff,
            Cause::AppArmorRestriction { label: Some(label.to_owned()) },
            Cause::AppArmorProfile { label: label.to_owned() },
        ]
    );
}

#[test]
fn without_a_user_namespace_of_its_own_the_missing_privilege_is_named() {
    let cause = |capability| [Cause::NoPrivilege { capability }];
    let host = ubuntu();
    assert_eq!(callers(&host, RefusedStep::Mount, libc::EPERM), cause("CAP_SYS_ADMIN"));
    let other = RefusedStep::Clone { namespaces: NEWNS };
    assert_eq!(callers(&host, other, libc::EPERM), cause("CAP_SYS_ADMIN"));
    assert_eq!(callers(&host, RefusedStep::Capabilities, libc::EPERM), cause("CAP_SETPCAP"));
    assert_eq!(callers(&host, RefusedStep::Limits, libc::EPERM), cause("CAP_SYS_RESOURCE"));
    assert_eq!(callers(&host, RefusedStep::Priority, libc::EACCES), cause("CAP_SYS_NICE"));
    assert_eq!(callers(&host.with_capabilities(None), RefusedStep::Mount, libc::EPERM), []);
}

#[test]
fn dockers_filter_and_profile_are_named_before_docker() {
    let causes = fresh(&docker(), USER, libc::EPERM);
    assert!(matches!(
        causes.as_slice(),
        [
            Cause::SeccompFilterAroundCaller { filters: Some(1) },
            Cause::AppArmorProfile { .. },
            Cause::ContainerRuntime { runtime: Runtime::Docker, .. }
        ]
    ));
    assert!(causes[2].remedy().contains("--security-opt seccomp="));
}

#[test]
fn a_call_that_a_filter_hides_is_not_blamed_on_the_kernel() {
    let causes = fresh(&docker(), USER, libc::ENOSYS);
    assert!(matches!(
        causes.as_slice(),
        [Cause::SeccompFilterAroundCaller { .. }, Cause::ContainerRuntime { .. }]
    ));
}

#[test]
fn a_call_that_the_kernel_lacks_is() {
    let host =
        Host::ideal().with_kernel(KernelVersion::new(5, 10, 0)).without_features(Features::MOUNT_SETATTR);
    let causes = fresh(&host, RefusedStep::Mount, libc::ENOSYS);
    assert_eq!(causes.len(), 1);
    assert_eq!(causes[0].evidence(), "Linux 5.10.0 does not offer mount_setattr (since Linux 5.12)");
    // Behind a filter too, for the version settles it.
    let filtered =
        fresh(&host.with_seccomp(Some(SeccompMode::Filter), None), RefusedStep::Mount, libc::ENOSYS);
    assert!(matches!(
        filtered.as_slice(),
        [Cause::KernelLacks { .. }, Cause::SeccompFilterAroundCaller { filters: None }]
    ));
}

#[test]
fn a_pidfd_that_cannot_be_had_is_the_filters_or_the_kernels_doing() {
    let host = Host::ideal().without_features(Features::PIDFD_OPEN);
    let filtered = host.clone().with_seccomp(Some(SeccompMode::Filter), Some(1));
    for errno in [libc::ENOSYS, libc::EPERM] {
        let causes = fresh(&filtered, RefusedStep::Pidfd, errno);
        assert_eq!(causes, [Cause::SeccompFilterAroundCaller { filters: Some(1) }], "{errno}");
    }
    let old = host.with_kernel(KernelVersion::new(5, 2, 0));
    let causes = fresh(&old, RefusedStep::Pidfd, libc::ENOSYS);
    assert_eq!(causes[0].evidence(), "Linux 5.2.0 does not offer pidfd_open (since Linux 5.3)");
}

#[test]
fn a_kind_of_namespace_that_the_kernel_lacks_is_the_cause_of_einval() {
    let host = Host::ideal().with_namespace_flags(Some(ALL & !NEWTIME & !NEWUSER));
    let causes = fresh(&host, RefusedStep::Clone { namespaces: NEWUSER | NEWTIME | NEWNS }, libc::EINVAL);
    let named: Vec<String> = causes.iter().map(Cause::evidence).collect();
    assert_eq!(named.len(), 2);
    assert!(named[0].contains("CONFIG_USER_NS") && named[1].contains("CONFIG_TIME_NS"));
    assert_eq!(fresh(&host.with_namespace_flags(None), USER, libc::EINVAL), []);
}

#[test]
fn a_masked_proc_refuses_a_fresh_one() {
    let causes = fresh(&docker(), RefusedStep::ProcMount, libc::EPERM);
    let masks =
        ["/proc/bus", "/proc/sys", "/proc/acpi", "/proc/kcore", "/proc/keys"].map(PathBuf::from).to_vec();
    assert_eq!(causes[0], Cause::MaskedProc { mounts: masks });
    assert_eq!(
        causes[0].evidence(),
        "/proc is partly hidden by /proc/bus, /proc/sys, /proc/acpi, /proc/kcore and 1 more"
    );
    assert!(causes[0].remedy().contains("systempaths=unconfined"));
    for errno in [libc::ENOENT, libc::EROFS] {
        assert_eq!(fresh(&docker(), RefusedStep::Knob, errno), [causes[0].clone()]);
    }
    assert_eq!(fresh(&docker(), RefusedStep::Knob, libc::EIO), []);
    assert_eq!(fresh(&Host::ideal(), RefusedStep::Knob, libc::ENOENT), []);
    let without_user_namespace = callers(&docker(), RefusedStep::ProcMount, libc::EPERM);
    assert!(!without_user_namespace.iter().any(|cause| matches!(cause, Cause::MaskedProc { .. })));
}

#[test]
fn a_read_only_or_missing_proc_is_named() {
    let with = |text| Host::ideal().with_mounts(Some(MountTable::parse(text)));
    let read_only = with("1 1 0:1 / / rw - tmpfs t rw\n2 1 0:2 / /proc ro,relatime - proc proc rw\n");
    assert_eq!(fresh(&read_only, RefusedStep::ProcMount, libc::EPERM), [Cause::ReadOnlyProc]);
    assert_eq!(fresh(&read_only, RefusedStep::IdMap, libc::EROFS), [Cause::ReadOnlyProc]);
    let none = with("1 1 0:1 / / rw - tmpfs t rw\n");
    assert_eq!(fresh(&none, RefusedStep::ProcMount, libc::EPERM), [Cause::ProcNotMounted]);
    assert_eq!(fresh(&none.with_mounts(None), RefusedStep::IdMap, libc::ENOENT), [Cause::ProcNotMounted]);
}

#[test]
fn a_chroot_refuses_user_namespaces() {
    let host = Host::ideal().with_chrooted(Answer::Yes);
    assert_eq!(fresh(&host, USER, libc::EPERM), [Cause::ChrootedCaller]);
    assert_eq!(fresh(&host.with_chrooted(Answer::Unknown), USER, libc::EPERM), []);
}

#[test]
fn a_caller_whose_ids_are_not_mapped_makes_no_user_namespace() {
    let empty = || Some(IdMap::default());
    let host = nested().with_identity(Identity::of(65534, 65534)).with_id_maps(empty(), empty());
    let causes = fresh(&host, USER, libc::EPERM);
    let of = |kind| Cause::UnmappedCaller { kind, id: 65534 };
    assert_eq!(causes, [of("uid"), of("gid")]);
}

#[test]
fn a_range_of_ids_takes_subordinate_ids_and_helpers() {
    let host = Host::ideal();
    let evidence: Vec<String> =
        fresh(&host, RefusedStep::IdRange, libc::EPERM).iter().map(Cause::evidence).collect();
    assert_eq!(
        evidence,
        [
            "/etc/subuid has no range for user 1000",
            "/etc/subgid has no range for user 1000",
            "newuidmap is in none of the system's program directories",
            "newgidmap is in none of the system's program directories",
        ]
    );
    assert_eq!(fresh(&host.with_root(), RefusedStep::IdRange, libc::EPERM), []);
}

fn with_helpers(place: &str) -> Host {
    let range = vec![IdRange { start: 100_000, count: 65536 }];
    let helper = |name| Some(PathBuf::from(place).join(name));
    let own = Subordinate {
        uids: range.clone(),
        gids: range,
        service: None,
        newuidmap: helper("newuidmap"),
        newgidmap: helper("newgidmap"),
    };
    Host::ideal().with_subordinate(own)
}

#[test]
fn helpers_have_no_power_under_no_new_privs_or_on_a_nosuid_mount() {
    assert_eq!(fresh(&with_helpers("/usr/bin"), RefusedStep::IdRange, libc::EPERM), []);
    let powerless = |path: &str, reason| Cause::HelperPowerless { path: PathBuf::from(path), reason };
    let bound = with_helpers("/usr/bin").with_no_new_privs(Answer::Yes);
    let causes = fresh(&bound, RefusedStep::IdRange, libc::EPERM);
    let reason = Powerless::NoNewPrivs;
    assert_eq!(causes, [powerless("/usr/bin/newuidmap", reason), powerless("/usr/bin/newgidmap", reason)]);
    let causes = fresh(&with_helpers("/dev/bin"), RefusedStep::IdRange, libc::EPERM);
    let reason = Powerless::NoSuidMount;
    assert_eq!(causes, [powerless("/dev/bin/newuidmap", reason), powerless("/dev/bin/newgidmap", reason)]);
}

#[test]
fn a_user_namespace_of_one_id_has_no_range_to_give() {
    let causes = fresh(&nested(), RefusedStep::IdRange, libc::EPERM);
    assert_eq!(causes, [Cause::SingleIdMap { kind: "uid" }, Cause::SingleIdMap { kind: "gid" }]);
}

#[test]
fn mapping_root_takes_cap_setfcap_since_5_12() {
    let sets = CapabilitySets { effective: !(1 << 31), ..CapabilitySets::default() };
    let host = Host::ideal().with_root().with_capabilities(Some(sets));
    let cause = Cause::NoPrivilege { capability: "CAP_SETFCAP" };
    assert_eq!(fresh(&host, RefusedStep::IdMap, libc::EPERM), [cause]);
    assert_eq!(fresh(&host.with_kernel(KernelVersion::new(5, 11, 9)), RefusedStep::IdMap, libc::EPERM), []);
}

#[test]
fn memfd_noexec_refuses_the_image_from_two_on() {
    let host = |value| Host::ideal().with_sysctl(Sysctl::MemfdNoexec, Some(value));
    let cause = Cause::MemfdNoexec { value: 2 };
    assert_eq!(fresh(&host(2), RefusedStep::MemfdExec, libc::EACCES), [cause]);
    assert_eq!(fresh(&host(1), RefusedStep::MemfdExec, libc::EACCES), []);
}

#[test]
fn the_doctor_tells_a_remedy_once_and_blames_the_sysctl_not_the_kernel() {
    let host =
        Host::ideal().with_sysctl(Sysctl::MemfdNoexec, Some(2)).without_features(Features::EXECUTABLE_MEMFD);
    let report = Diagnosis::of(host, |_| Ok(())).to_string();
    let count = |text: &str| report.matches(text).count();
    assert_eq!(count("- /proc/sys/vm/memfd_noexec is 2\n"), 2, "{report}");
    assert_eq!(count("vm.memfd_noexec=1"), 1, "{report}");
    assert_eq!(count("does not offer"), 0, "{report}");
}

#[test]
fn selinux_refuses_with_eacces() {
    let context = Some("user_u:user_r:user_t:s0".to_owned());
    let security =
        Security { selinux_enforcing: Answer::Yes, selinux_context: context, ..Security::default() };
    let host = Host::ideal().with_security(security);
    let causes = fresh(&host, RefusedStep::MemfdExec, libc::EACCES);
    assert!(matches!(causes.as_slice(), [Cause::SelinuxEnforcing { context: Some(_) }]));
    assert_eq!(fresh(&host, RefusedStep::MemfdExec, libc::EPERM), []);
}

#[test]
fn the_key_quota_is_told_with_what_was_in_use() {
    let usage = KeyUsage { keys: 200, max_keys: 200, bytes: 900, max_bytes: 20000 };
    let host = Host::ideal().with_key_usage(Some(usage));
    let causes = fresh(&host, RefusedStep::Keyring, libc::EDQUOT);
    assert_eq!(causes.len(), 1);
    assert!(causes[0].evidence().starts_with("/proc/sys/kernel/keys/maxkeys is 200"));
    assert!(causes[0].evidence().contains("200 keys"));
    let root = fresh(&host.with_root(), RefusedStep::Keyring, libc::EDQUOT);
    assert!(matches!(root.as_slice(), [Cause::KeyQuota { sysctl: "kernel.keys.root_maxkeys", .. }]));
}

#[test]
fn limits_on_processes_are_the_cause_of_eagain() {
    let limits = |current| ProcessLimits {
        resource_limit: Some(4096),
        cgroup: Some(CgroupProcesses { directory: PathBuf::from("/sys/fs/cgroup/a"), max: 100, current }),
    };
    let host = |current| Host::ideal().with_process_limits(limits(current));
    let user = Cause::ProcessLimit { limit: 4096 };
    let group = |current| Cause::CgroupProcessLimit {
        directory: PathBuf::from("/sys/fs/cgroup/a"),
        max: 100,
        current,
    };
    assert_eq!(fresh(&host(95), USER, libc::EAGAIN), [group(95), user.clone()]);
    assert_eq!(fresh(&host(5), USER, libc::EAGAIN), [user, group(5)]);
    // The resource limit does not bind root.
    assert_eq!(fresh(&host(5).with_root(), USER, libc::EAGAIN), [group(5)]);
}

#[test]
fn the_mount_limit_is_named_only_where_it_is_near() {
    let limited = |value| Host::ideal().with_sysctl(Sysctl::MountMax, Some(value));
    let causes = fresh(&limited(8), RefusedStep::Mount, libc::ENOSPC);
    assert_eq!(causes, [Cause::MountLimit { value: 8, mounts: 5 }]);
    assert_eq!(fresh(&limited(100_000), RefusedStep::Mount, libc::ENOSPC), []);
}

#[test]
fn setgroups_may_be_forbidden_by_the_user_namespace() {
    assert_eq!(callers(&nested(), RefusedStep::Groups, libc::EPERM), [Cause::SetgroupsDenied]);
}

#[test]
fn the_doctor_names_the_causes_that_an_error_would() {
    let diagnosis =
        Diagnosis::of(docker(), |flags| if flags & NEWUSER == 0 { Ok(()) } else { Err(libc::EPERM) });
    let user = &diagnosis.findings()[0];
    assert_eq!((user.subject.as_str(), user.available), ("user namespace", Answer::No));
    assert_eq!(user.causes, fresh(diagnosis.host(), USER, libc::EPERM));
    let report = diagnosis.to_string();
    assert!(report.contains("no      user namespace: EPERM, Operation not permitted\n"), "{report}");
    assert!(report.contains("        - the caller runs under a system-call filter"), "{report}");
    assert!(report.contains("no      keyctl"), "{report}");
}

#[test]
fn the_doctor_is_not_fooled_by_a_clone_that_succeeds_on_ubuntu() {
    let diagnosis = Diagnosis::of(ubuntu(), |_| Ok(()));
    let rights = diagnosis.findings().iter().find(|finding| finding.subject.starts_with("id maps")).unwrap();
    assert_eq!(rights.available, Answer::No);
    assert!(matches!(rights.causes.as_slice(), [Cause::AppArmorRestriction { .. }]));
    let profiled = Diagnosis::of(ubuntu().with_apparmor_label("mysandbox (unconfined)"), |_| Ok(()));
    let rights = profiled.findings().iter().find(|finding| finding.subject.starts_with("id maps")).unwrap();
    assert_eq!(rights.available, Answer::Unknown);
}

#[test]
fn the_doctor_finds_nothing_wrong_with_the_ideal_host_but_what_takes_privilege() {
    let diagnosis = Diagnosis::of(Host::ideal(), |_| Ok(()));
    let copies =
        diagnosis.findings().iter().find(|finding| finding.subject.starts_with("mounts copied")).unwrap();
    assert_eq!(copies.causes, [Cause::NoPrivilege { capability: "CAP_SYS_ADMIN" }]);
    let wrong: Vec<&str> = diagnosis
        .findings()
        .iter()
        .filter(|finding| finding.available != Answer::Yes)
        .map(|finding| finding.subject.as_str())
        .collect();
    assert_eq!(wrong, ["a range of ids in a user namespace", "mounts copied by the caller"]);
}

#[test]
fn every_cause_has_evidence_and_a_remedy_on_one_line() {
    let hosts = [docker(), ubuntu(), nested(), Host::ideal().with_chrooted(Answer::Yes)];
    let steps = [USER, RefusedStep::IdMap, RefusedStep::IdRange, RefusedStep::ProcMount, RefusedStep::Groups];
    for host in &hosts {
        for step in steps {
            for errno in [libc::EPERM, libc::ENOSPC, libc::EINVAL] {
                for cause in [fresh(host, step, errno), callers(host, step, errno)].concat() {
                    for text in [cause.evidence(), cause.remedy().into_owned()] {
                        assert!(!text.is_empty() && !text.contains('\n') && !text.contains("  "), "{text}");
                    }
                    assert_eq!(cause.to_string(), cause.evidence());
                }
            }
        }
    }
}
