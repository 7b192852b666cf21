//! Fails every call of every golden plan with every plausible errno, and looks where each run ends.

use std::collections::BTreeMap;

use super::super::Arrival;
use super::super::Controlling;
use super::super::Plan;
use super::super::compile;
use super::hosts;
use super::launch::Finish;
use super::launch::Found;
use super::launch::How;
use super::launch::Launch;
use super::launch::Variant;
use super::policies;
use super::rules;
use super::world::Role;
use super::world::Scripted;
use crate::error::Step;
use crate::host::Features;
use crate::host::Host;
use crate::machine::layout::BRIEF_BASE;
use crate::machine::layout::DETACHED;
use crate::machine::layout::STATUS_VALID;
use crate::machine::layout::SUPERVISED;
use crate::machine::layout::TAIL_ENTRY;
use crate::policy::Action;
use crate::policy::Filter;
use crate::policy::Init;
use crate::policy::Policy;
use crate::policy::Tether;

/// What a kernel call plausibly fails with.
pub(super) const ERRNOS: [i32; 13] = [
    libc::EPERM,
    libc::EACCES,
    libc::EINVAL,
    libc::ENOMEM,
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOSPC,
    libc::ENOSYS,
    libc::EAGAIN,
    libc::EINTR,
    libc::EIO,
    libc::EBUSY,
    libc::ENOENT,
];

/// For launches that differ from a fully explored one in a few rows: one of each sort.
const FEW: [i32; 3] = [libc::EPERM, libc::ENOENT, libc::EIO];

/// What an exploration found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) calls: usize,
    pub(super) runs: usize,
    /// Runs with a failure that reached their end all the same.
    pub(super) went_on: usize,
    pub(super) broken: Vec<String>,
}

impl Seen {
    pub(super) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.runs += other.runs;
        self.went_on += other.went_on;
        self.broken.extend(other.broken);
    }
}

/// The rules for a run that came to its end.
pub(super) fn at_end(launch: &Launch<'_>, world: &Scripted, finish: Finish) -> Vec<String> {
    match finish {
        Finish::Exec if launch.variant.role == Role::Program => rules::at_exec(launch, world),
        Finish::Exec => vec!["init executed something".into()],
        Finish::Exit => rules::at_exit(launch, world),
        Finish::GaveUp => Vec::new(),
        Finish::Endless => vec!["the run does not end".into()],
        Finish::Fault(address) => vec![format!("memory that is not there: {address:#x}")],
        Finish::Returned => vec!["the table returned to a caller".into()],
    }
}

/// The run without a failure, and a copy of the world before each of its calls.
pub(super) fn undisturbed(launch: &Launch<'_>) -> (Vec<(u64, Scripted)>, Vec<String>) {
    let mut world = launch.world.clone();
    world.recording = true;
    let finish = launch.run(&mut world, launch.entry());
    let mut broken = at_end(launch, &world, finish);
    let wanted = if launch.variant.role == Role::Program { Finish::Exec } else { Finish::Exit };
    if finish != wanted {
        let last = world.last().map(|event| launch.named(event.pc));
        broken.push(format!("without any failure the run ends in {finish:?} after {last:?}"));
    }
    broken.append(&mut world.faults);
    let snapshots = world.share();
    (snapshots, broken)
}

/// Fails the call that `before` is about to make, and goes on.
pub(super) fn fail_one(
    launch: &Launch<'_>,
    before: &(u64, Scripted),
    errno: i32,
) -> (Scripted, Finish, Vec<String>) {
    let (pc, world) = before;
    let mut world = world.clone();
    let index = world.made();
    world.fail = Some(errno);
    let finish = launch.run(&mut world, *pc);
    let mut broken = at_end(launch, &world, finish);
    broken.extend(rules::after_failure(launch, &world, finish, (index, errno)));
    let unknown = world.faults.iter().filter(|fault| fault.contains("does not know"));
    broken.extend(unknown.cloned());
    (world, finish, broken)
}

/// How many errnos a call is failed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errnos {
    All,
    /// All where the failure ends the run, as that costs nothing; a few where it goes on.
    Enough,
    Few,
    Two,
}

impl Errnos {
    fn of(self, launch: &Launch<'_>, pc: u64) -> Vec<i32> {
        let Some(op) = launch.op(pc) else { return Vec::new() };
        let goes_on = |errno: &i32| op.row.jump.is_some() || *errno == libc::EINTR;
        match self {
            Self::All => ERRNOS.to_vec(),
            Self::Enough => {
                ERRNOS.into_iter().filter(|errno| !goes_on(errno) || FEW.contains(errno)).collect()
            }
            Self::Few => FEW.to_vec(),
            Self::Two => vec![libc::EPERM, libc::EINTR],
        }
    }
}

/// A child that waits is woken, and nobody has told it a command.
fn woken_for_nothing(launch: &Launch<'_>) -> Option<String> {
    let mut world = launch.world.clone();
    if launch.variant.arrival != Arrival::Messages || launch.variant.role != Role::Program {
        return None;
    }
    assert!(world.put(BRIEF_BASE + u64::from(TAIL_ENTRY), &[0; 8]), "it is in the brief");
    let finish = launch.run(&mut world, launch.entry());
    (finish != Finish::GaveUp).then(|| format!("woken without a command it ends in {finish:?}"))
}

pub(super) fn explore(launch: &Launch<'_>, errnos: Errnos) -> Seen {
    let (snapshots, mut broken) = undisturbed(launch);
    broken.extend(woken_for_nothing(launch));
    let mut seen = Seen { calls: snapshots.len(), broken, ..Seen::default() };
    for before in &snapshots {
        for errno in errnos.of(launch, before.0) {
            let (_, finish, broken) = fail_one(launch, before, errno);
            seen.runs += 1;
            seen.went_on += usize::from(matches!(finish, Finish::Exec | Finish::Exit));
            let at = |rule: String| format!("{} fails with {errno}: {rule}", launch.named(before.0));
            seen.broken.extend(broken.into_iter().map(at));
        }
    }
    seen
}

/// The place of the launch without a command among the [`variants`].
const LATE: usize = 3;

/// Launches of one plan that together go through all of it.
pub(super) fn variants(policy: &Policy, host: &Host) -> Vec<Variant> {
    let memfd = host.features().contains(Features::EXECUTABLE_MEMFD);
    let how = if memfd { How::Image } else { How::Copy };
    let base = Variant {
        found: Found::Directories,
        how,
        role: Role::Program,
        targets: &[9, 3],
        by_fd: false,
        terminal: Controlling::No,
        arrival: Arrival::Window,
    };
    let mut list = vec![
        base,
        Variant { found: Found::Little, how: How::Copy, targets: &[], ..base },
        Variant { found: Found::Files, targets: &[4, 40], by_fd: true, terminal: Controlling::Stdin, ..base },
        Variant { arrival: Arrival::Messages, targets: &[9, 3], by_fd: true, ..base },
        Variant { arrival: Arrival::Messages, terminal: Controlling::Stdin, targets: &[], ..base },
    ];
    if policy.init == Init::Reaper {
        list.push(Variant { role: Role::Init, ..base });
    }
    list
}

/// Every plan that can be had, with its policy and host.
pub(super) fn plans(change: fn(Policy) -> Policy) -> Vec<(String, Plan, Policy, Host)> {
    let mut list: Vec<(String, Plan, Policy, Host)> = Vec::new();
    for case in hosts::all() {
        for named in policies::ALL {
            let Ok(policy) = named.with_set(case.set).map(change) else { continue };
            let set = policy.namespaces().sets[0];
            let Ok(plan) = compile(&policy, &case.host, set) else { continue };
            // Many hosts get the same plan, and one exploration is enough.
            let known = |other: &(String, Plan, Policy, Host)| {
                other.1 == plan && other.3.features() == case.host.features()
            };
            if list.iter().any(known) {
                continue;
            }
            list.push((format!("{} runs {}", case.name, named.name), plan, policy, case.host.clone()));
        }
    }
    list
}

/// How much of a plan is explored, by its name and the number of the variant.
type Effort = fn(&str, usize) -> Option<Errnos>;

fn explore_all(change: fn(Policy) -> Policy, effort: Effort) -> Seen {
    let mut total = Seen::default();
    for (name, plan, policy, host) in plans(change) {
        for (index, variant) in variants(&policy, &host).into_iter().enumerate() {
            let Some(errnos) = effort(&name, index) else { continue };
            let launch = Launch::new(&plan, (&policy, &host), variant);
            let mut seen = explore(&launch, errnos);
            seen.broken.iter_mut().for_each(|broken| *broken = format!("{broken}\n  ({name}, {variant:?})"));
            total.add(seen);
        }
    }
    total
}

fn report(seen: &Seen) {
    // A few of each sort: by the rule that is broken.
    let mut sorts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for broken in &seen.broken {
        let rule =
            broken.split(" fails with ").nth(1).unwrap_or(broken).split(": ").nth(1).unwrap_or_default();
        let sort = sorts.entry(rule.get(..22).unwrap_or(rule)).or_default();
        if sort.len() < 4 {
            sort.push(broken);
        }
    }
    let (count, runs) = (seen.broken.len(), seen.runs);
    let shown: Vec<&str> = sorts.into_values().flatten().collect();
    assert!(
        shown.is_empty(),
        "{count} of {runs} runs break a rule, a few of each sort:\n{}",
        shown.join("\n")
    );
}

#[test]
fn no_required_failure_reaches_the_program() {
    let effort: Effort = |name, variant| {
        Some(match variant {
            0 if name.starts_with("an_ideal_host") => Errnos::All,
            0 => Errnos::Enough,
            // What comes late differs in a few rows, the same on every host.
            LATE if name.starts_with("an_ideal_host") => Errnos::All,
            LATE => return None,
            _ => Errnos::Few,
        })
    };
    let seen = explore_all(|policy| policy, effort);
    report(&seen);
    assert!(seen.calls > 10_000 && seen.runs > 5 * seen.calls, "{} calls", seen.calls);
}

#[test]
fn a_preferred_failure_reaches_the_program_and_the_report() {
    // Nearly every failure goes on here, and each of those runs is a long one.
    let effort: Effort = |name, variant| {
        let hosts =
            ["an_ideal_host", "linux_5_10_unp", "docker", "a_host_without_openat2", "root_without_a_user"];
        let chosen = hosts.iter().any(|host| name.starts_with(host)) && !name.ends_with("empty_policy");
        (chosen && variant < 2).then_some(Errnos::Two)
    };
    let seen = explore_all(policies::prefer_everything, effort);
    report(&seen);
    assert!(seen.went_on > seen.runs / 4, "{} of {} runs went on", seen.went_on, seen.runs);
}

#[test]
fn two_failures_of_the_proc_ladder_take_a_later_rung_or_end() {
    let (mut pairs, mut broken) = (0, Vec::new());
    for (name, plan, policy, host) in plans(|policy| policy) {
        if !name.contains("every_kind") {
            continue;
        }
        let launch = Launch::new(&plan, (&policy, &host), variants(&policy, &host)[0]);
        let (snapshots, _) = undisturbed(&launch);
        let in_ladder = |pc: u64| launch.op(pc).is_some_and(|op| op.step == Step::Proc);
        for before in snapshots.iter().filter(|(pc, _)| in_ladder(*pc)) {
            let mut first = before.1.clone();
            (first.fail, first.recording) = (Some(libc::EPERM), true);
            launch.run(&mut first, before.0);
            let snapshots = first.share();
            let later = snapshots.iter().skip(1).filter(|(pc, _)| in_ladder(*pc));
            for second in later {
                let (_, _, found) = fail_one(&launch, second, libc::ENODEV);
                let at = |rule| {
                    format!("{name}: {} and {}: {rule}", launch.named(before.0), launch.named(second.0))
                };
                broken.extend(found.into_iter().map(at));
                pairs += 1;
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(pairs > 200, "{pairs}");
}

#[test]
fn init_goes_on_without_a_caller_that_has_let_go() {
    let mut seen = 0;
    for (name, plan, policy, host) in plans(|policy| policy) {
        if policy.hardening.tether != Tether::UntilDetached {
            continue;
        }
        for variant in variants(&policy, &host).into_iter().filter(|variant| variant.role == Role::Init) {
            let mut launch = Launch::new(&plan, (&policy, &host), variant);
            launch.world.script.caller_dies = true;
            launch.world.put(BRIEF_BASE + u64::from(DETACHED), &1_u64.to_le_bytes());
            let mut world = launch.world.clone();
            let finish = launch.run(&mut world, launch.entry());
            assert_eq!(finish, Finish::Exit, "{name}");
            // It has served to the program's end, which only wait4 tells.
            let word = world.word_at(BRIEF_BASE + u64::from(STATUS_VALID));
            assert_eq!(word, Some(1), "{name}");
            seen += 1;
        }
    }
    assert!(seen > 0, "no policy lets go");
}

#[test]
fn init_ends_with_the_caller() {
    for (name, plan, policy, host) in plans(|policy| policy) {
        for variant in variants(&policy, &host).into_iter().filter(|variant| variant.role == Role::Init) {
            let mut launch = Launch::new(&plan, (&policy, &host), variant);
            launch.world.script.caller_dies = true;
            let mut world = launch.world.clone();
            let finish = launch.run(&mut world, launch.entry());
            assert_eq!(finish, Finish::Exit, "{name}");
            assert_eq!(at_end(&launch, &world, finish), Vec::<String>::new(), "{name}");
        }
    }
}

fn with_a_notice(mut policy: Policy) -> Policy {
    policy.seccomp = Some(Filter::baseline().forget(["getpgid"]).deny(["getpgid"], Action::Notify));
    policy
}

#[test]
fn a_filter_that_notifies_has_its_listener_or_nothing_runs() {
    let effort: Effort = |name, _| {
        let hosts = ["an_ideal_host", "linux_5_10_unp"];
        let chosen = hosts.iter().any(|host| name.starts_with(host)) && name.ends_with("empty_policy");
        chosen.then_some(Errnos::All)
    };
    let seen = explore_all(with_a_notice, effort);
    report(&seen);
    assert!(seen.calls > 100, "{} calls", seen.calls);
    // Where a listener cannot be taken over there is no plan at all.
    assert!(!plans(with_a_notice).iter().any(|(name, ..)| name.starts_with("docker")));
}

#[test]
fn told_kills_do_without_a_listener_where_the_caller_cannot_supervise() {
    let (mut told, mut plain) = (0, 0);
    for (name, plan, policy, host) in plans(|policy| policy) {
        if !name.ends_with("a_root_directory_and_no_init") {
            continue;
        }
        for supervised in [0, 1_u64] {
            let mut launch = Launch::new(&plan, (&policy, &host), variants(&policy, &host)[0]);
            launch.world.put(BRIEF_BASE + u64::from(SUPERVISED), &supervised.to_le_bytes());
            let mut world = launch.world.clone();
            let finish = launch.run(&mut world, launch.entry());
            assert_eq!(at_end(&launch, &world, finish), Vec::<String>::new(), "{name}");
            let attached: Vec<u64> = world
                .events()
                .filter(|event| event.nr == libc::SYS_seccomp)
                .map(|event| event.args[1])
                .collect();
            assert_eq!(attached.len(), 1, "{name}: {attached:?}");
            let counted = if attached == [0] { &mut plain } else { &mut told };
            *counted += 1;
            // Docker's filter hides pidfd_getfd: there no listener is asked for.
            let can = supervised == 1 && !name.starts_with("docker");
            assert_eq!(attached != [0], can, "{name}");
        }
    }
    assert!(plain == told + 2 && told > 5, "{told} {plain}");
}
