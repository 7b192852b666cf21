//! Tests of what is concluded from signs and labels, and of hosts made by hand. They must not look at real files.

use crate::error::Runtime;
use crate::host::Answer;
use crate::host::CapabilitySets;
use crate::host::Container;
use crate::host::Host;
use crate::host::Sysctl;
use crate::host::container::judge;
use crate::host::namespace;
use crate::host::security::Sources;

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn ubuntus_apparmor_label_is_read() {
    let sources = Sources {
        modules: text("lockdown,capability,landlock,yama,apparmor"),
        current: text("unconfined\n"),
        apparmor: text("unconfined\n"),
        apparmor_enabled: text("Y\n"),
        ..Sources::default()
    };
    let found = sources.judge();
    assert_eq!(found.modules.as_ref().map(Vec::len), Some(5));
    assert_eq!(
        (found.apparmor_label.as_deref(), found.selinux_context.as_deref()),
        (Some("unconfined"), None)
    );
    assert_eq!((found.selinux_enforcing, found.is_apparmor_confined()), (Answer::No, false));
}

#[test]
fn a_container_without_securityfs_still_shows_its_label() {
    let sources = Sources {
        current: text("docker-default (enforce)\n\0"),
        apparmor_enabled: text("Y\n"),
        ..Sources::default()
    };
    let found = sources.judge();
    assert_eq!(found.apparmor_label.as_deref(), Some("docker-default (enforce)"));
    assert!(found.is_apparmor_confined());
    assert_eq!((found.modules, found.selinux_enforcing), (None, Answer::Unknown));
}

#[test]
fn an_selinux_context_is_not_taken_for_an_apparmor_label() {
    let context = "system_u:system_r:container_t:s0:c1,c2\0";
    let sources = Sources { current: text(context), selinux_enforce: text("1"), ..Sources::default() };
    let found = sources.judge();
    assert_eq!(found.selinux_context.as_deref(), Some("system_u:system_r:container_t:s0:c1,c2"));
    assert_eq!((found.apparmor_label, found.selinux_enforcing), (None, Answer::Yes));
}

#[test]
fn no_module_means_no_label() {
    let found = Sources { current: text("whatever"), ..Sources::default() }.judge();
    assert_eq!((found.apparmor_label, found.selinux_context, found.modules), (None, None, None));
}

#[test]
fn containers_are_known_by_their_files_first() {
    let only = |wanted: &'static str| move |path: &str| path == wanted;
    let found = |file, manager, cgroup| judge(only(file), manager, cgroup).map(|found| found.runtime);
    assert_eq!(found("/.dockerenv", None, None), Some(Runtime::Docker));
    assert_eq!(found("/run/.containerenv", Some("systemd-nspawn\n"), None), Some(Runtime::Podman));
    assert_eq!(found("", Some("systemd-nspawn\n"), Some("0::/\n")), Some(Runtime::Nspawn));
    assert_eq!(
        found("", None, Some("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope\n")),
        Some(Runtime::Kubernetes)
    );
    assert_eq!(found("", None, Some("12:pids:/docker/0a1b\n0::/\n")), Some(Runtime::Docker));
    assert_eq!(found("", Some(""), Some("0::/user.slice/user-1000.slice\n")), None);
    assert_eq!(found("", None, None), None);
}

#[test]
fn the_sign_of_a_container_says_where_it_was_seen() {
    let found = judge(|_| false, None, Some("0::/docker/0a\n"));
    assert_eq!(found, Some(Container::new(Runtime::Docker, "/proc/self/cgroup names /docker/0a")));
}

#[test]
fn namespace_bits_are_those_of_clone_2() {
    let kernel = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWTIME,
    ];
    let own = namespace::KINDS.each_ref().map(|kind| kind.flag);
    assert_eq!(own, kernel.map(|flag| u64::try_from(flag).unwrap()));
    assert_eq!(own.iter().fold(0, |all, flag| all | flag), namespace::ALL);
    assert!(namespace::is_initial("user:[4026531837]") && !namespace::is_initial("user:[4026532450]"));
}

#[test]
fn sysctls_have_names_of_their_own_and_paths() {
    let mut names: Vec<&str> = Sysctl::ALL.iter().map(|sysctl| sysctl.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Sysctl::ALL.len());
    assert_eq!(Sysctl::MountMax.path(), "/proc/sys/fs/mount-max");
    assert_eq!(Sysctl::MaxKeys.path(), "/proc/sys/kernel/keys/maxkeys");
}

#[test]
fn hosts_made_by_hand_are_values() {
    assert_eq!(Host::ideal(), Host::ideal());
    let changed = Host::ideal().with_sysctl(Sysctl::MaxUserNamespaces, Some(0)).with_chrooted(Answer::Yes);
    assert_ne!(changed, Host::ideal());
    assert_eq!(changed.sysctl(Sysctl::MaxUserNamespaces), Some(0));
    assert_eq!(changed.with_sysctl(Sysctl::MaxUserNamespaces, None).sysctl(Sysctl::MaxUserNamespaces), None);
}

#[test]
fn root_made_by_hand_holds_every_capability_and_the_ideal_caller_none() {
    let all = (1 << 41) - 1;
    let root = Host::ideal().with_root();
    let sets = CapabilitySets { permitted: all, effective: all, bounding: all, ..CapabilitySets::default() };
    assert_eq!((root.capabilities(), root.identity().uid.effective), (Some(&sets), 0));
    assert_eq!(Host::ideal().capabilities().map(|sets| (sets.effective, sets.bounding)), Some((0, all)));
}

#[test]
fn kinds_of_namespace_that_cannot_be_seen_are_assumed() {
    assert_eq!(Host::ideal().with_namespace_flags(None).namespace_flags(), namespace::ALL);
    assert_eq!(Host::ideal().with_namespace_flags(Some(0)).namespace_flags(), 0);
}
