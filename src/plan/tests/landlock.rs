//! Landlock's rows on kernels of every version: what is handled, what is refused, what is said.

use std::path::PathBuf;

use super::super::Plan;
use super::super::compile;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Mistake;
use crate::error::Step;
use crate::host::Answer;
use crate::host::Host;
use crate::policy::Access;
use crate::policy::AccessFs;
use crate::policy::AccessNet;
use crate::policy::AuditLog;
use crate::policy::Builder;
use crate::policy::Capability;
use crate::policy::Landlock;
use crate::policy::Namespaces;
use crate::policy::Scopes;
use crate::policy::prefer;

const ABIS: [Option<u32>; 10] =
    [None, Some(1), Some(2), Some(3), Some(4), Some(5), Some(6), Some(7), Some(9), Some(12)];

fn on(abi: Option<u32>, builder: Builder) -> Result<Plan, Error> {
    let policy = builder.namespaces(Namespaces::empty()).policy().expect("a policy");
    compile(&policy, &Host::ideal().with_landlock_abi(abi), Namespaces::empty())
}

fn alone(abi: Option<u32>, landlock: Landlock) -> Result<Plan, Error> {
    on(abi, Builder::default().landlock(landlock))
}

fn calls(plan: &Plan, name: &str) -> Vec<String> {
    plan.code.ops.iter().filter(|op| op.name == name).map(|op| op.text.clone()).collect()
}

#[test]
fn a_required_right_that_the_kernel_lacks_is_named_with_its_version() {
    let one = |files: AccessFs| Landlock::new().files(files);
    let cases: [(Landlock, u32, &str, &str); 7] = [
        (one(AccessFs::READ_FILE), 1, "LANDLOCK_ACCESS_FS_READ_FILE", "5.13"),
        (one(AccessFs::REFER), 2, "LANDLOCK_ACCESS_FS_REFER", "5.19"),
        (one(AccessFs::TRUNCATE), 3, "LANDLOCK_ACCESS_FS_TRUNCATE", "6.2"),
        (Landlock::new().net(AccessNet::CONNECT_TCP), 4, "LANDLOCK_ACCESS_NET_CONNECT_TCP", "6.7"),
        (one(AccessFs::IOCTL_DEV), 5, "LANDLOCK_ACCESS_FS_IOCTL_DEV", "6.10"),
        (Landlock::new().scope(Scopes::SIGNAL), 6, "LANDLOCK_SCOPE_SIGNAL", "6.12"),
        (one(AccessFs::RESOLVE_UNIX), 9, "LANDLOCK_ACCESS_FS_RESOLVE_UNIX", "7.1"),
    ];
    for (landlock, since, name, linux) in cases {
        for abi in ABIS {
            let made = alone(abi, landlock.clone());
            if abi.is_some_and(|abi| abi >= since) {
                assert!(made.is_ok(), "{name} on {abi:?}");
                continue;
            }
            let error = made.expect_err("a required right");
            assert_eq!((error.kind(), error.step()), (ErrorKind::Unsupported, Step::Landlock));
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(&format!("Linux {linux}")), "{text}");
            let plan = alone(abi, landlock.clone().preferred()).expect("only preferred");
            let domain = plan.landlock.expect("Landlock");
            assert_eq!(domain.known.unknown, [name], "{abi:?}");
            assert_eq!(domain.holds, None, "{abi:?}");
        }
    }
    let log = Landlock::new().files(AccessFs::READ).log(AuditLog::NEW_EXEC_ON);
    alone(Some(6), log.clone()).expect_err("flags that came with ABI 7");
    let plan = alone(Some(7), log).expect("ABI 7");
    assert!(calls(&plan, "landlock_restrict_self")[0].contains("NEW_EXEC_ON"));
}

#[test]
fn each_abi_gets_the_structure_and_the_rights_that_it_knows() {
    for abi in ABIS.into_iter().flatten() {
        let plan = alone(Some(abi), Landlock::closed().floor(1)).expect("a plan");
        let size = [(4, 8), (6, 16)].iter().find(|(before, _)| abi < *before).map_or(24, |(_, size)| *size);
        let [made] = &calls(&plan, "landlock_create_ruleset")[..] else { panic!("one ruleset") };
        assert!(made.contains(&format!("}}, {size}, 0)")), "{abi}: {made}");
        let known = plan.landlock.expect("Landlock").known;
        assert_eq!(known.files, AccessFs::known_to(abi), "{abi}");
        assert_eq!(known.net.is_empty(), abi < 4);
        assert_eq!(known.scopes.is_empty(), abi < 6);
        assert_eq!(known.files.bits() >> [13, 14, 15, 15, 16, 16, 16, 16, 17][known_abi(abi)], 0, "{abi}");
    }
}

fn known_abi(abi: u32) -> usize {
    usize::try_from(abi.min(9)).expect("small") - 1
}

#[test]
fn the_default_floor_is_linux_6_12() {
    for abi in ABIS {
        assert_eq!(alone(abi, Landlock::closed()).is_ok(), abi.is_some_and(|abi| abi >= 6), "{abi:?}");
    }
}

#[test]
fn rules_hold_no_right_that_is_not_handled() {
    let rules = Landlock::closed().floor(1).allow("/a", AccessFs::all()).connect_tcp(443);
    let plan = alone(Some(2), rules).expect("a plan");
    let domain = plan.landlock.as_ref().expect("Landlock");
    assert_eq!(domain.paths[0].unknown, AccessFs::all().difference(AccessFs::known_to(2)));
    assert_eq!(calls(&plan, "landlock_add_rule").len(), 1, "a port needs ABI 4");
    let beneath = |bits: u64| plan.code.segment.data.windows(8).any(|bytes| bytes == bits.to_le_bytes());
    assert!(beneath(AccessFs::known_to(2).bits()) && !beneath(AccessFs::all().bits()));
    let text = plan.to_string();
    assert!(text.contains(&format!("set $beneath = {} + 0", AccessFs::known_to(2).for_files())), "{text}");
}

#[test]
fn a_domain_needs_no_new_privs_or_cap_sys_admin() {
    let rules = || Landlock::closed();
    let free = || Builder::default().allow_new_privileges().allow_all_calls();
    let error = on(Some(6), free().landlock(rules())).expect_err("EPERM");
    assert_eq!((error.step(), error.raw_os_error()), (Step::Landlock, Some(libc::EPERM)));
    let plan = on(Some(6), free().landlock(rules().preferred())).expect("preferred");
    assert!(calls(&plan, "landlock_restrict_self").is_empty());
    assert!(plan.notes.iter().any(|note| note.contains("no Landlock domain")), "{:?}", plan.notes);
    let set = Namespaces::STANDARD;
    let keeps = free().capabilities([Capability::SysAdmin]).landlock(rules()).policy().expect("a policy");
    compile(&keeps, &Host::ideal(), set).expect("CAP_SYS_ADMIN is kept");
    let inherited = free().landlock(rules()).policy().expect("a policy");
    compile(&inherited, &Host::ideal().with_no_new_privs(Answer::Yes), set)
        .expect("no_new_privs is inherited");
}

#[test]
fn the_domain_stands_behind_no_new_privs_and_before_the_fork() {
    let policy = Builder::default().system_read_only().landlock(Landlock::from_mounts()).policy();
    let plan = compile(&policy.expect("a policy"), &Host::ideal(), Namespaces::STANDARD).expect("a plan");
    let at = |step: Step| plan.code.ops.iter().position(|op| op.step == step).expect("the step");
    let order = [Step::Pivot, Step::Ids, Step::NoNewPrivs, Step::Landlock, Step::Signals, Step::Init];
    // Without the ids, which a user namespace has earlier.
    let places: Vec<usize> = order.into_iter().filter(|step| *step != Step::Ids).map(at).collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn mounts_are_mirrored_and_without_a_mount_namespace_only_under_their_own_names() {
    let rules = Landlock::from_mounts().in_place_of_mounts();
    let builder = Builder::default()
        .system_read_only()
        .bind("/srv/a", "/srv/b", Access::ReadWrite)
        .namespaces([Namespaces::STANDARD, Namespaces::empty()])
        .landlock(rules);
    let policy = builder.policy().expect("a policy");
    let paths = |set| {
        let plan = compile(&policy, &Host::ideal(), set).expect("a plan");
        plan.landlock.expect("Landlock").paths.iter().map(|rule| rule.path.clone()).collect::<Vec<_>>()
    };
    let (inside, outside) = (paths(Namespaces::STANDARD), paths(Namespaces::empty()));
    let has = |list: &[PathBuf], path: &str| list.iter().any(|other| other.as_os_str() == path);
    for path in ["/", "/usr", "/srv/b", "/tmp", "/proc", "/dev"] {
        assert!(has(&inside, path), "{path}");
    }
    for path in ["/", "/srv/a", "/srv/b", "/tmp", "/proc", "/dev", "/etc/passwd", "/home"] {
        assert!(!has(&outside, path), "{path} is allowed on the host");
    }
    assert!(has(&outside, "/usr") && has(&outside, "/dev/null"));
}

#[test]
fn mistakes_are_found() {
    let found = |landlock: Landlock| {
        let error = Builder::default().landlock(landlock).policy().expect_err("a mistake");
        error.mistakes().to_vec()
    };
    assert_eq!(found(Landlock::new()), [Mistake::EmptyLandlock]);
    let relative = found(Landlock::closed().allow("a", AccessFs::READ));
    assert!(matches!(relative[..], [Mistake::BadPath { .. }]), "{relative:?}");
    let free = found(Landlock::new().scope(Scopes::all()).allow("/a", AccessFs::READ).bind_tcp(1));
    assert!(free.iter().all(|mistake| matches!(mistake, Mistake::LandlockRuleUnhandled { .. })), "{free:?}");
    assert_eq!(free.len(), 2);
    assert_eq!(found(Landlock::from_mounts().preferred().in_place_of_mounts()), [Mistake::WeakStandIn]);
    let last = Landlock::new().files(AccessFs::all()).files(prefer(AccessFs::IOCTL_DEV));
    assert_eq!(last.files.preferred, AccessFs::IOCTL_DEV);
}

#[test]
fn gaps_are_notes_where_no_namespace_closes_them() {
    let notes = |set, abi| {
        let policy = Builder::default().landlock(Landlock::closed().floor(1)).policy().expect("a policy");
        let host = Host::ideal().with_landlock_abi(Some(abi));
        compile(&policy, &host, set).expect("a plan").notes.join("\n")
    };
    let open = notes(Namespaces::empty(), 6);
    for word in ["stat", "chmod", "UDP", "pathname unix sockets", "memfd"] {
        assert!(open.contains(word), "nothing about {word}: {open}");
    }
    assert!(!open.contains("TRUNCATE") && notes(Namespaces::empty(), 2).contains("TRUNCATE"));
    assert!(!notes(Namespaces::empty(), 9).contains("pathname unix sockets"));
    let full = notes(Namespaces::STANDARD, 6);
    assert!(!full.contains("Landlock"), "{full}");
}
