//! The exploration has to be able to fail: tables are spoiled on purpose, and the rules have to say so.

use super::super::Plan;
use super::super::compile;
use super::explore::Errnos;
use super::explore::explore;
use super::explore::fail_one;
use super::explore::undisturbed;
use super::explore::variants;
use super::hosts;
use super::launch::Finish;
use super::launch::Launch;
use super::policies;
use crate::host::Host;
use crate::machine::isa::Condition;
use crate::machine::isa::Opcode;
use crate::machine::segment::Arg;
use crate::machine::segment::Row;
use crate::policy::Need;
use crate::policy::Policy;

/// Where the fine errnos stand in an instruction (see the table of `Insn`).
const FINE_AT: u64 = 12;

fn case(host: &str, policy: usize) -> (Plan, Policy, Host) {
    let case = hosts::all().into_iter().find(|case| case.name == host).expect("there is such a host");
    let policy = policies::ALL[policy].with_set(case.set).expect("a policy without mistakes");
    let plan = compile(&policy, &case.host, policy.namespaces().sets[0]).expect("a plan");
    (plan, policy, case.host)
}

/// Spoils the rows of a plan; the ops beside them still say what was meant.
fn spoiled(host: &str, spoil: impl FnOnce(&Plan, &mut Vec<Row>)) -> Vec<String> {
    let (mut plan, policy, host) = case(host, 2);
    let mut rows = plan.code.segment.rows.clone();
    spoil(&plan, &mut rows);
    assert_ne!(rows, plan.code.segment.rows, "something was spoiled");
    plan.code.segment.rows = rows;
    let launch = Launch::new(&plan, (&policy, &host), variants(&policy, &host)[0]);
    explore(&launch, Errnos::Two).broken
}

/// A row that goes on to the next one and does nothing.
fn nothing(row: &mut Row) {
    // 0 < 0 never holds.
    *row = Row::new(Opcode::Branch, Condition::Less as u32, &[]);
}

fn goto(target: usize) -> Row {
    let mut row = Row::new(Opcode::Branch, Condition::MaskEqual as u32, &[]);
    row.jump = Some(target);
    row
}

fn named(plan: &Plan, name: &str, text: &str) -> usize {
    let fits = |op: &super::super::Op| op.name == name && op.text.contains(text);
    plan.code.ops.iter().position(fits).unwrap_or_else(|| panic!("a row {name} {text}"))
}

fn without(host: &str, name: &'static str, text: &'static str) -> Vec<String> {
    spoiled(host, |plan, rows| nothing(&mut rows[named(plan, name, text)]))
}

const ROOT: &str = "an_ideal_host_as_root";
const USER: &str = "an_ideal_host_unprivileged";

#[test]
fn a_plan_that_was_not_spoiled_breaks_no_rule() {
    let (plan, policy, host) = case(ROOT, 2);
    let launch = Launch::new(&plan, (&policy, &host), variants(&policy, &host)[0]);
    let (snapshots, broken) = undisturbed(&launch);
    assert_eq!(broken, Vec::<String>::new());
    assert!(snapshots.len() > 300);
}

/// For every required call in turn: its row is made to take EPERM for success.
#[test]
fn a_required_call_that_forgives_is_found() {
    for (host, policy) in [(USER, 1), (ROOT, 2), ("a_root_without_openat2_and_close_range", 3)] {
        let (plan, policy, host) = case(host, policy);
        let launch = Launch::new(&plan, (&policy, &host), variants(&policy, &host)[0]);
        let (snapshots, _) = undisturbed(&launch);
        let (mut spoiled, mut reached) = (0, 0);
        for (pc, world) in snapshots {
            let Some(op) = launch.op(pc) else { continue };
            let forgives = op.row.fine.contains(&1) || op.row.jump.is_some() || op.need == Need::Preferred;
            if forgives || op.name.starts_with("execve") {
                continue;
            }
            let mut world = world;
            world.put(pc + FINE_AT, &[1]);
            let (_, finish, broken) = fail_one(&launch, &(pc, world), libc::EPERM);
            // A later check of the table's own may end the run all the same; else a rule has to be broken.
            assert!(!broken.is_empty() || finish == Finish::GaveUp, "{}", launch.named(pc));
            spoiled += 1;
            reached += usize::from(finish == Finish::Exec);
        }
        // The rest trips over a descriptor that it did not get.
        assert!(reached * 3 > spoiled, "{reached} of {spoiled} spoiled runs reached the program");
    }
}

#[test]
fn a_call_that_is_left_out_is_found() {
    let rows = [
        (ROOT, "prctl", "PR_SET_NO_NEW_PRIVS", "PR_SET_NO_NEW_PRIVS did not happen"),
        (ROOT, "prctl", "CAP_SYS_ADMIN", "dropped from the bounding set"),
        (ROOT, "prctl", "PR_SET_SECUREBITS, NOROOT", "locking the securebits did not happen"),
        (ROOT, "prctl", "CLEAR_ALL", "clearing the ambient set did not happen"),
        (ROOT, "setresuid", "", "setresuid did not happen"),
        (ROOT, "setgroups", "", "setgroups did not happen"),
        (ROOT, "setsid", "", "setsid did not happen"),
        (ROOT, "pivot_root", "", "pivot_root did not happen"),
        (ROOT, "mount", "MS_PRIVATE", "private propagation did not happen"),
        (USER, "write", "deny", "/proc/self/setgroups did not happen"),
        (USER, "write", "1000 1000 1", "/proc/self/uid_map did not happen"),
        (USER, "mount_setattr", "AT_RECURSIVE", "attached without a restriction"),
    ];
    for (host, name, text, wanted) in rows {
        let broken = without(host, name, text);
        assert!(broken.iter().any(|rule| rule.contains(wanted)), "{name} {text}: {:?}", broken.first());
    }
}

#[test]
fn the_wrong_capabilities_are_found() {
    let broken = spoiled(ROOT, |plan, rows| {
        let last = plan.code.ops.iter().rposition(|op| op.name == "capset" && op.text.contains("0x401"));
        nothing(&mut rows[last.expect("a capset of what is kept")]);
    });
    assert!(broken.iter().any(|rule| rule.contains("last capset")), "{:?}", broken.first());
}

#[test]
fn a_descriptor_that_leaks_is_found() {
    // Opened without close-on-exec at a number that the command did not ask for, behind everything that is closed.
    let (plan, policy, host) = case(USER, 0);
    let launch = Launch::new(&plan, (&policy, &host), variants(&policy, &host)[0]);
    let (snapshots, _) = undisturbed(&launch);
    let (pc, mut world) = snapshots.into_iter().next_back().expect("a last call");
    let leaked = super::world::Fd { what: super::world::What::Other, serial: 0, cloexec: false };
    world.fds.insert(77, leaked);
    let finish = launch.run(&mut world, pc);
    let broken = super::explore::at_end(&launch, &world, finish);
    assert!(broken.iter().any(|rule| rule.contains("open over the exec")), "{broken:?}");
}

#[test]
fn a_table_without_an_end_is_found() {
    let broken = spoiled(USER, |plan, rows| {
        let row = named(plan, "setsid", "");
        rows[row] = goto(row - 1);
        rows[row - 1] = goto(row);
    });
    assert!(broken.iter().any(|rule| rule.contains("does not end")), "{:?}", broken.first());
}

#[test]
fn a_preferred_item_that_keeps_silent_is_found() {
    let (mut plan, policy, host) = case(USER, 2);
    let policy = policies::prefer_everything(policy);
    let set = policy.namespaces().sets[0];
    plan.clone_from(&compile(&policy, &host, set).expect("a plan"));
    for (op, row) in plan.code.ops.iter().zip(&mut plan.code.segment.rows) {
        if op.name == "set" && op.text.starts_with(" $missing") && row.opcode == Opcode::Set {
            nothing(row);
        }
    }
    let launch = Launch::new(&plan, (&policy, &host), variants(&policy, &host)[0]);
    let broken = explore(&launch, Errnos::Two).broken;
    assert!(
        broken.iter().any(|rule| rule.contains("the report of the preferred item")),
        "{:?}",
        broken.first()
    );
}

#[test]
fn a_ladder_that_tells_the_wrong_rung_is_found() {
    let broken = spoiled(USER, |plan, rows| {
        let taken = plan.code.ops.iter().position(|op| op.text.starts_with(" $proc = 2"));
        rows[taken.expect("the second rung")].args[0] = Arg::Value(1);
    });
    assert!(broken.iter().any(|rule| rule.contains("the ladder says")), "{:?}", broken.first());
}
