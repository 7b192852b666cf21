//! Limits of a tree on hosts made by hand: which rungs there are, where groups are made, and what the child does about it.

use std::result::Result as StdResult;
use std::time::Duration;

use super::super::Plan;
use super::super::cgroup::Join;
use super::super::compile;
use super::explore::{Errnos, explore, variants};
use super::launch::Launch;
use crate::error::Result;
use crate::host::{
    Answer, Cgroups, Features, Host, KernelVersion, Legacy, Systemd, SystemdManager, Unified, UnifiedGroup,
};
use crate::plan::{Deed, GroupPlan, LimitRung};
use crate::policy::{
    Builder, CpuQuota, CpuSet, DeviceNumber, DeviceRule, GroupLimit, IoMax, Namespaces, Policy, Wanted,
    prefer,
};

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn hierarchy(controllers: &[&str], path: &str, access: Answer) -> Legacy {
    let mount = format!("/sys/fs/cgroup/{}", controllers.join(","));
    Legacy {
        controllers: words(controllers),
        own: Some(format!("{mount}{path}").into()),
        mount: mount.into(),
        access,
    }
}

fn version_1(access: Answer) -> Vec<Legacy> {
    [&["cpu", "cpuacct"][..], &["memory"], &["pids"], &["freezer"], &["blkio"], &["net_cls", "net_prio"], &[]]
        .into_iter()
        .map(|controllers| hierarchy(controllers, "/own", access))
        .collect()
}

fn group(directory: &str, controllers: &[&str], (delegated, root): (Answer, Answer)) -> UnifiedGroup {
    let controllers = words(controllers);
    let access = Answer::Yes;
    UnifiedGroup { directory: directory.into(), controllers, enabled: Vec::new(), access, delegated, root }
}

fn unified(mount: &str, groups: Vec<UnifiedGroup>) -> Option<Unified> {
    Some(Unified { mount: mount.into(), groups })
}

const ALL: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// Root in a session that systemd has made: every file can be written, and nothing was given away.
fn session() -> Cgroups {
    let plain = (Answer::No, Answer::No);
    let groups = vec![
        group("/sys/fs/cgroup/user.slice/session-1.scope", &ALL, plain),
        group("/sys/fs/cgroup/user.slice", &ALL, plain),
        group("/sys/fs/cgroup", &ALL, (Answer::No, Answer::Yes)),
    ];
    Cgroups { unified: unified("/sys/fs/cgroup", groups), legacy: Vec::new() }
}

fn in_the_root() -> Cgroups {
    let groups = vec![group("/sys/fs/cgroup", &ALL, (Answer::No, Answer::Yes))];
    Cgroups { unified: unified("/sys/fs/cgroup", groups), legacy: Vec::new() }
}

fn in_a_leaf() -> Cgroups {
    let plain = (Answer::No, Answer::No);
    let leaf = "/sys/fs/cgroup/a/ringfence-leaf-1-2-3-4-0123456789abcdef";
    let groups = vec![group(leaf, &ALL, plain), group("/sys/fs/cgroup/a", &ALL, plain)];
    Cgroups { unified: unified("/sys/fs/cgroup", groups), legacy: Vec::new() }
}

fn hybrid() -> Cgroups {
    let groups = vec![group("/sys/fs/cgroup/unified", &["hugetlb"], (Answer::No, Answer::Yes))];
    Cgroups { unified: unified("/sys/fs/cgroup/unified", groups), legacy: version_1(Answer::Yes) }
}

fn legacy() -> Cgroups {
    Cgroups { unified: None, legacy: version_1(Answer::Yes) }
}

fn legacy_of_others() -> Cgroups {
    Cgroups { unified: None, legacy: version_1(Answer::No) }
}

fn manager(manager: SystemdManager) -> Systemd {
    let address = match manager {
        SystemdManager::System => "unix:path=/run/dbus/system_bus_socket",
        SystemdManager::User => "unix:path=/run/user/1000/bus",
    };
    Systemd::Manager { manager, address: address.to_owned() }
}

/// A user who has logged in: the session is the machine's manager's.
fn login() -> Cgroups {
    let mut cgroups = session();
    for group in cgroups.unified.iter_mut().flat_map(|unified| &mut unified.groups) {
        group.access = Answer::No;
    }
    cgroups
}

/// A delegated subtree, without this controller.
fn without(controller: &str) -> Cgroups {
    let mut cgroups = Host::ideal().cgroups().clone();
    for group in cgroups.unified.iter_mut().flat_map(|unified| &mut unified.groups) {
        group.controllers.retain(|name| name != controller);
        group.enabled.retain(|name| name != controller);
    }
    cgroups
}

fn hosts_with_systemd() -> Vec<(&'static str, Host)> {
    let (user, system) = (manager(SystemdManager::User), manager(SystemdManager::System));
    let root = || Host::ideal().with_root().with_systemd(system.clone());
    let looked_at = "/run/user/1000/bus".to_owned();
    let no_bus = Systemd::NoBus { manager: SystemdManager::User, looked_at };
    vec![
        ("a_session_of_root_with_systemd", root().with_cgroups(session())),
        ("a_login_with_a_user_manager", Host::ideal().with_cgroups(login()).with_systemd(user.clone())),
        ("a_login_without_a_bus", Host::ideal().with_cgroups(login()).with_systemd(no_bus)),
        ("a_delegated_subtree_with_systemd", Host::ideal().with_systemd(user)),
        ("a_hybrid_host_with_systemd", root().with_cgroups(hybrid())),
        ("version_1_alone_with_systemd", root().with_cgroups(legacy())),
        ("a_container_without_systemd", Host::ideal().with_cgroups(login()).with_systemd(Systemd::NotBooted)),
    ]
}

fn hosts() -> Vec<(&'static str, Host)> {
    let root = || Host::ideal().with_root();
    vec![
        ("a_delegated_subtree", Host::ideal()),
        ("a_session_of_root", root().with_cgroups(session())),
        ("the_root_group", root().with_cgroups(in_the_root())),
        ("a_leaf_of_an_earlier_sandbox", root().with_cgroups(in_a_leaf())),
        ("a_hybrid_host", root().with_cgroups(hybrid())),
        ("version_1_alone", root().with_cgroups(legacy())),
        ("hierarchies_of_others", Host::ideal().with_cgroups(legacy_of_others())),
        ("a_host_without_control_groups", Host::ideal().with_cgroups(Cgroups::default())),
        ("a_kernel_that_clones_into_no_group", Host::ideal().without_features(Features::CLONE_INTO_CGROUP)),
    ]
}

/// Every limit, wanted so much.
fn all(wanted: fn(u64) -> Wanted<u64>) -> Builder {
    let need = wanted(0).need;
    let as_wanted = |value| Wanted { value, need };
    let quota = Wanted { value: CpuQuota::percent(50), need };
    Builder::default()
        .memory(wanted(64 << 20))
        .memory_high(wanted(48 << 20))
        .memory_low(wanted(2 << 20))
        .memory_min(wanted(1 << 20))
        .swap(wanted(0))
        .oom_group(as_wanted(()))
        .processes(wanted(32))
        .cpu(quota)
        .cpu_weight(wanted(1000))
        .cpu_burst(Wanted { value: Duration::from_millis(5), need })
        .cpus(Wanted { value: CpuSet::from(0..=3), need })
        .mems(Wanted { value: CpuSet::from([0]), need })
        .io_max(
            DeviceNumber { major: 8, minor: 0 },
            Wanted { value: IoMax { write_bytes: Some(1 << 20), ..IoMax::default() }, need },
        )
        .io_weight(wanted(500))
        .hugetlb(2 << 20, wanted(4 << 20))
        .devices(Wanted { value: DeviceRule::minimal(), need })
        .net_class(Wanted { value: 0x10_0001, need })
        .net_priority("eth0", Wanted { value: 5, need })
        .own_cgroup(as_wanted(()))
}

fn plan(policy: &Policy, host: &Host) -> Result<Plan> {
    compile(policy, host, Namespaces::STANDARD)
}

/// What prints of the groups, for the goldens.
pub(super) fn goldens() -> Vec<(String, String)> {
    let policy = all(prefer).policy().expect("a policy");
    let text = |host: &Host| match plan(&policy, host) {
        Ok(plan) => plan.group.expect("a group").to_string(),
        Err(error) => format!("{error:#}\n"),
    };
    let hosts = hosts().into_iter().chain(hosts_with_systemd());
    hosts.map(|(name, host)| (format!("limits_of_a_tree_in_{name}"), text(&host))).collect()
}

fn join(builder: &Builder, host: &Host) -> Join {
    let policy = builder.policy().expect("a policy");
    plan(&policy, host).expect("a plan").group.expect("a group").join
}

fn group_plan(builder: &Builder, host: &Host) -> GroupPlan {
    let policy = builder.policy().expect("a policy");
    plan(&policy, host).expect("a plan").group.expect("a group")
}

fn deed(plan: &GroupPlan, rung: LimitRung) -> StdResult<Deed, String> {
    let rungs = &plan.limits.first().expect("a limit").rungs;
    rungs.iter().find(|other| other.rung == rung).expect("a rung").deed.clone()
}

#[test]
fn a_scope_comes_after_a_group_of_ones_own_and_before_version_1() {
    let order = |plan: &GroupPlan| plan.limits[0].rungs.iter().map(|rung| rung.rung).collect::<Vec<_>>();
    let ladder = [LimitRung::CgroupV2, LimitRung::Systemd, LimitRung::CgroupV1, LimitRung::ResourceLimit];
    for (name, host) in hosts().into_iter().chain(hosts_with_systemd()) {
        assert_eq!(order(&group_plan(&Builder::default().processes(prefer(5)), &host)), ladder, "{name}");
    }
}

#[test]
fn a_required_limit_is_left_to_a_scope_where_the_callers_own_group_cannot_hold_it() {
    let host = |cgroups| Host::ideal().with_cgroups(cgroups).with_systemd(manager(SystemdManager::User));
    let both = |memory, cpus| Builder::default().memory(memory).cpus(cpus);
    let (memory, cpus) = (Wanted::from(64 << 20), Wanted::from(CpuSet::from([0])));
    // All is in the group of the caller's own: a scope would be asked for only if the kernel refused that.
    let own = group_plan(&both(memory, cpus.clone()), &host(Host::ideal().cgroups().clone()));
    assert!(own.unified.is_some() && own.scope.is_some());
    // One that is required is not: both go to the scope, as all processes are in one group.
    let scope = group_plan(&both(memory, cpus.clone()), &host(without("cpuset")));
    assert_eq!(scope.unified, None);
    assert_eq!(scope.scope.as_ref().expect("a scope").enable, ["cpuset", "memory"]);
    assert!(deed(&scope, LimitRung::CgroupV2).is_err_and(|why| why.contains("cannot hold cpus=0")));
    // One that is preferred is not: the others stay.
    let preferred = group_plan(&both(memory, prefer(CpuSet::from([0]))), &host(without("cpuset")));
    assert!(preferred.unified.is_some());
    // There is nothing to hold a place for: the scope.
    let alone = group_plan(&Builder::default().cpus(prefer(CpuSet::from([0]))), &host(without("cpuset")));
    assert!(alone.unified.is_none() && alone.scope.is_some());
}

#[test]
fn each_host_without_a_scope_says_why() {
    for (name, reason) in [
        ("a_login_without_a_bus", "no bus of the user manager at \"/run/user/1000/bus\""),
        ("a_hybrid_host_with_systemd", "systemd keeps its controllers in cgroup v1 here"),
        ("version_1_alone_with_systemd", "cgroup v2 is not mounted"),
        ("a_container_without_systemd", "systemd is not process 1 here"),
        ("a_delegated_subtree", "built without the feature `systemd`"),
    ] {
        let mut hosts = hosts().into_iter().chain(hosts_with_systemd());
        let (_, host) = hosts.find(|(other, _)| *other == name).expect("a host");
        let plan = group_plan(&Builder::default().processes(prefer(5)), &host);
        assert_eq!(plan.scope, None, "{name}");
        let why = deed(&plan, LimitRung::Systemd).expect_err("there is none");
        assert!(why.contains(reason), "{name}: {why}");
    }
    let named = Builder::default().processes(prefer(5)).cgroup_parent("/sys/fs/cgroup/mine");
    let host = Host::ideal().with_systemd(manager(SystemdManager::User));
    let why = deed(&group_plan(&named, &host), LimitRung::Systemd).expect_err("a place was named");
    assert!(why.contains("cgroup_parent()"), "{why}");
    let class = group_plan(&Builder::default().net_class(prefer(1)), &host);
    assert!(deed(&class, LimitRung::Systemd).is_err_and(|why| why.contains("no controller")));
}

#[test]
fn a_user_whose_manager_may_have_to_move_the_child_waits_for_it() {
    let own = Builder::default().processes(5);
    for (name, expected) in [
        ("a_session_of_root_with_systemd", Join::Clone),
        ("a_login_with_a_user_manager", Join::CloneAndAttach),
    ] {
        let (_, host) = hosts_with_systemd().into_iter().find(|(other, _)| *other == name).expect("a host");
        assert_eq!(join(&own, &host), expected, "{name}");
        assert!(group_plan(&own, &host).unified.is_none(), "{name}");
    }
}

#[test]
fn the_child_waits_only_where_it_has_to_be_moved() {
    let processes = || Builder::default().processes(prefer(5));
    for (name, expected) in [
        ("a_delegated_subtree", Join::Clone),
        ("a_hybrid_host", Join::CloneAndAttach),
        ("version_1_alone", Join::Attach),
        ("a_host_without_control_groups", Join::Nowhere),
        ("a_kernel_that_clones_into_no_group", Join::Attach),
    ] {
        let (_, host) = hosts().into_iter().find(|(other, _)| *other == name).expect("a host");
        assert_eq!(join(&processes(), &host), expected, "{name}");
        let policy = processes().policy().expect("a policy");
        let plan = plan(&policy, &host).expect("a plan");
        assert_eq!(plan.cloned().contains(Namespaces::CGROUP), !expected.attaches(), "{name}");
        let text = plan.to_string();
        assert_eq!(text.contains("unshare(CLONE_NEWCGROUP"), expected.attaches(), "{name}\n{text}");
    }
}

#[test]
fn a_kernel_that_forgets_the_cpus_of_a_group_gets_the_child_moved() {
    let cpus = Builder::default().cpus(CpuSet::from([0]));
    let old = Host::ideal().with_kernel(KernelVersion::new(6, 1, 0));
    assert_eq!(join(&cpus, &old), Join::Attach);
    assert_eq!(join(&cpus, &Host::ideal()), Join::Clone);
    assert_eq!(join(&Builder::default().processes(5), &old), Join::Clone);
}

#[test]
fn without_limits_nothing_changes() {
    let plain = Builder::default().policy().expect("a policy");
    for (name, host) in hosts() {
        assert_eq!(plan(&plain, &host).expect("a plan").group, None, "{name}");
    }
}

#[test]
fn a_required_limit_is_refused_with_every_reason_where_no_rung_is_hard() {
    let memory = Builder::default().memory(64 << 20).policy().expect("a policy");
    for (host, reasons) in [
        (
            Cgroups::default(),
            &["cgroup v2: it is not mounted", "controller memory is mounted", "address space"][..],
        ),
        (
            session(),
            &[
                "the caller itself is in that group",
                "manage_own_cgroup()",
                "built without the feature `systemd`",
            ],
        ),
        (legacy_of_others(), &["the caller may not make groups in \"/sys/fs/cgroup/memory/own\""]),
    ] {
        let error = plan(&memory, &Host::ideal().with_cgroups(host)).expect_err("it cannot be hard");
        for reason in reasons {
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
    let own = Builder::default().own_cgroup(()).policy().expect("a policy");
    let error = plan(&own, &Host::ideal().with_cgroups(Cgroups::default())).expect_err("there is none");
    assert!(error.to_string().contains("a group of its own"), "{error}");
}

#[test]
fn every_failure_of_a_child_that_waits_for_its_groups_ends_it() {
    let policy = Builder::default().processes(5).own_cgroup(()).policy().expect("a policy");
    let host = Host::ideal().with_root().with_cgroups(hybrid());
    let plan = plan(&policy, &host).expect("a plan");
    for variant in variants(&policy, &host) {
        let seen = explore(&Launch::new(&plan, (&policy, &host), variant), Errnos::Two);
        assert!(seen.calls > 50 && seen.broken.is_empty(), "{:#?}", seen.broken);
    }
}

#[test]
fn mistakes_in_limits_are_found() {
    let empty = CpuSet::from([]);
    let device = DeviceNumber { major: 8, minor: 0 };
    let quota = |quota, period| CpuQuota {
        quota: Duration::from_micros(quota),
        period: Duration::from_micros(period),
    };
    for (builder, expected) in [
        (Builder::default().memory(100), "limit memory=100: less than a page"),
        (
            Builder::default().memory(1 << 20).memory_high(2 << 20),
            "limit memory_high=2097152: above the limit",
        ),
        (Builder::default().processes(0), "limit processes=0: no program could run"),
        (Builder::default().cpu_weight(0), "limit cpu_weight=0: possible are 1 to 10000"),
        (Builder::default().io_weight(10_001), "limit io_weight=10001: possible are 1 to 10000"),
        (Builder::default().cpu(quota(500, 100_000)), "a quota is 1 ms"),
        (Builder::default().cpu(quota(5000, 2_000_000)), "a period is 1 ms to 1 s"),
        (Builder::default().cpu_burst(Duration::from_millis(1)), "there is no quota that it could exceed"),
        (Builder::default().cpus(empty.clone()), "limit cpus=: the set is empty"),
        (Builder::default().mems(empty), "limit mems=: the set is empty"),
        (Builder::default().cpus(CpuSet::from([9000])), "a number is above 8191"),
        (Builder::default().io_max(device, IoMax::default()), "it limits nothing"),
        (Builder::default().hugetlb(3000, 1), "no size of a huge page"),
        (Builder::default().net_priority("a b", 1), "no name of an interface"),
        (Builder::default().cgroup_parent("relative"), "a parent group is an absolute path"),
    ] {
        let error = builder.policy().expect_err("a mistake");
        assert!(error.to_string().contains(expected), "{error}, wanted {expected}");
    }
    let policy = all(Into::into).policy().expect("no mistake");
    assert_eq!(policy.tree_limits().len(), 18);
    let twice = Builder::default().processes(5).processes(prefer(6)).policy().expect("the last one counts");
    assert_eq!(twice.tree_limits(), [prefer(GroupLimit::Processes(6))]);
}

#[test]
fn sets_of_cpus_are_read_and_written_as_the_kernel_does() {
    for (text, shown) in [("0-3,7", "0-3,7"), ("0,1,2", "0-2"), ("5\n", "5"), ("", ""), ("3,1-2,1", "1-3")] {
        assert_eq!(CpuSet::parse(text).expect(text).to_string(), shown);
    }
    for text in ["3-1", "a", "1-", "-1", "9000", "0-99999999999", "1--2"] {
        assert_eq!(CpuSet::parse(text), None, "{text:?}");
    }
}
