//! Plans of commands that join a living sandbox: golden dry runs, every failure of every call, and what has to hold besides.

use std::collections::BTreeMap;

use super::super::Entry;
use super::super::Plan;
use super::super::enter;
use super::explore::Errnos;
use super::explore::explore;
use super::explore::undisturbed;
use super::explore::variants;
use super::hosts;
use super::launch::How;
use super::launch::Launch;
use super::launch::Variant;
use super::policies;
use super::world::Event;
use super::world::Role;
use crate::host::Features;
use crate::host::Host;
use crate::machine::isa::Opcode;
use crate::machine::layout::FD_FIRST_FREE;
use crate::machine::segment::Row;
use crate::policy::Namespaces;
use crate::policy::Policy;

/// The hosts that differ in how a sandbox is joined.
const HOSTS: [&str; 7] = [
    "an_ideal_host_unprivileged",
    "an_ideal_host_as_root",
    "a_root_without_openat2_and_close_range",
    "root_without_a_user_namespace",
    "root_without_any_namespace",
    "only_user_and_mount_namespaces",
    "subordinate_ids_and_their_helpers",
];

fn bits(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

/// Every plan with its policy and host; each host with setns(2) on a pidfd and without.
fn plans() -> Vec<(String, Plan, Policy, Host)> {
    let mut list = Vec::new();
    for case in hosts::all().into_iter().filter(|case| HOSTS.contains(&case.name)) {
        for named in policies::ALL {
            let Ok(policy) = named.with_set(case.set) else { continue };
            let set = policy.namespaces().sets[0];
            for (how, host) in [
                ("at_once", case.host.clone()),
                ("one_by_one", case.host.clone().without_features(Features::SETNS_PIDFD)),
            ] {
                let Ok(plan) = enter(&policy, &host, set) else { continue };
                list.push((format!("{}_joins_{how}_{}", case.name, named.name), plan, policy.clone(), host));
            }
        }
    }
    list
}

/// Golden dry runs: for each way of joining the richest policy, and one with a domain.
pub(super) fn goldens() -> Vec<(String, String)> {
    let shown = |name: &str| {
        let rich = name.ends_with("every_kind_of_mount_and_option");
        let landlock = name.ends_with("landlock_that_stands_in_for_mounts") && name.contains("_at_once_");
        let few =
            ["an_ideal_host_", "root_without_a_user_namespace"].iter().any(|host| name.starts_with(host));
        few && (rich || landlock)
    };
    plans()
        .into_iter()
        .filter(|(name, ..)| shown(name))
        .map(|(name, plan, ..)| (name, plan.to_string()))
        .collect()
}

fn joining(policy: &Policy, host: &Host) -> Vec<Variant> {
    let mut list: Vec<Variant> =
        variants(policy, host).into_iter().map(|variant| Variant { how: How::Image, ..variant }).collect();
    if list.iter().all(|variant| variant.role != Role::Init) {
        list.push(Variant { role: Role::Init, ..list[0] });
    }
    list
}

#[test]
fn no_required_failure_reaches_a_program_that_joins() {
    let (mut calls, mut broken) = (0, Vec::new());
    for (name, plan, policy, host) in plans() {
        for (index, variant) in joining(&policy, &host).into_iter().enumerate() {
            let thorough = name.starts_with("an_ideal_host") && index == 0;
            let launch = Launch::new(&plan, (&policy, &host), variant);
            let seen = explore(&launch, if thorough { Errnos::Enough } else { Errnos::Two });
            calls += seen.calls;
            broken.extend(seen.broken.into_iter().map(|rule| format!("{name}: {rule}")));
        }
    }
    broken.truncate(10);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(calls > 5_000, "{calls}");
}

/// The calls of an undisturbed run, up to the program's or the attendant's end.
fn calls(launch: &Launch<'_>) -> Vec<Event> {
    let mut world = launch.world.clone();
    launch.run(&mut world, launch.entry());
    world.events().copied().collect()
}

#[test]
fn it_joins_exactly_the_namespaces_of_the_sandbox_before_it_forks() {
    for (name, plan, policy, host) in plans() {
        let launch = Launch::new(&plan, (&policy, &host), joining(&policy, &host)[0]);
        let events = calls(&launch);
        let at = |nr: i64| events.iter().position(|event| event.nr == nr).unwrap_or(usize::MAX);
        let joined = events.iter().filter(|event| event.nr == libc::SYS_setns).map(|event| event.args[1]);
        let joined: Vec<u64> = joined.collect();
        let all = joined.iter().fold(0, |all, flags| all | flags);
        assert_eq!(all, u64::from(plan.set.bits()), "{name}");
        assert_eq!(joined.iter().map(|flags| flags.count_ones()).sum::<u32>(), plan.set.bits().count_ones());
        let last = events.iter().rposition(|event| event.nr == libc::SYS_setns).unwrap_or(0);
        assert!(last < at(libc::SYS_clone), "{name}");
        assert_eq!(plan.cloned(), Namespaces::empty(), "{name}");
        let Entry::Living(join) = &plan.entry else { panic!("{name} joins") };
        assert_eq!(
            join.seen.iter().fold(Namespaces::empty(), |set, (kind, _)| set | *kind),
            plan.set,
            "{name}"
        );
        // The user namespace gives the right to the others.
        if plan.set.contains(Namespaces::USER) {
            assert_ne!(joined[0] & u64::from(Namespaces::USER.bits()), 0, "{name}");
        }
    }
}

#[test]
fn nobody_inside_may_ever_look_into_it() {
    for (name, plan, policy, host) in plans() {
        for variant in joining(&policy, &host) {
            let launch = Launch::new(&plan, (&policy, &host), variant);
            let events = calls(&launch);
            let dumpable: Vec<usize> = (0..events.len())
                .filter(|at| {
                    events[*at].nr == libc::SYS_prctl && events[*at].args[0] == bits(libc::PR_SET_DUMPABLE)
                })
                .collect();
            assert!(dumpable.iter().all(|at| events[*at].args[1] == 0), "{name}: it can be traced");
            // Before the caller puts it into a group, and before it joins.
            let gate = events.iter().position(|event| event.nr == libc::SYS_recvfrom).unwrap();
            assert!(dumpable[0] < gate, "{name}");
        }
    }
}

#[test]
fn nothing_of_the_host_is_open_where_it_forks() {
    for (name, plan, policy, host) in plans() {
        let launch = Launch::new(&plan, (&policy, &host), joining(&policy, &host)[1]);
        let (snapshots, broken) = undisturbed(&launch);
        assert_eq!(broken, Vec::<String>::new(), "{name}");
        let forks = |pc: u64| launch.op(pc).is_some_and(|op| op.name == "clone");
        let (_, world) = snapshots.iter().find(|(pc, _)| forks(*pc)).unwrap();
        // Streams, socket, caller, signals (both of them), sandbox; the brief's and the namespaces' are closed.
        // What was opened since has the lowest free number, which is taken by the signals.
        let stray: Vec<i32> =
            (FD_FIRST_FREE + 1..plan.passed_at).filter(|fd| world.fds.contains_key(fd)).collect();
        assert_eq!(stray, Vec::<i32>::new(), "{name}");
    }
}

/// Spoils the rows of a plan and says what the rules find.
fn spoiled(spoil: impl FnOnce(&Plan, &mut Vec<Row>)) -> usize {
    let (_, mut plan, policy, host) =
        plans().into_iter().find(|(name, ..)| name.ends_with("every_kind_of_mount_and_option")).unwrap();
    let mut rows = plan.code.segment.rows.clone();
    spoil(&plan, &mut rows);
    assert_ne!(rows, plan.code.segment.rows);
    plan.code.segment.rows = rows;
    let found: BTreeMap<usize, usize> = joining(&policy, &host)
        .into_iter()
        .enumerate()
        .map(|(index, variant)| {
            (index, explore(&Launch::new(&plan, (&policy, &host), variant), Errnos::Two).broken.len())
        })
        .collect();
    found.into_values().sum()
}

#[test]
fn a_table_that_does_not_join_is_found_out() {
    let without = |name: &'static str| {
        spoiled(move |plan, rows| {
            let at = plan.code.ops.iter().position(|op| op.name == name).unwrap();
            rows[at] = Row::new(Opcode::Set, 0, &[]);
            rows[at].result = plan.code.ops.iter().find_map(|op| op.row.result);
        })
    };
    assert!(without("setns") > 0);
}
