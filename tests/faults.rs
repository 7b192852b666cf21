//! Every system call that a launch makes is made to fail, on either side: an error that names it, or success; never a hang,
//! never less than was required, nothing left behind. `RINGFENCE_SWEEP=full` tries every call with every errno.
#![cfg(target_arch = "x86_64")]
#![cfg_attr(test, expect(unsafe_code, reason = "ptrace(2), and calls that only mark a place"))]

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
#[path = "faults/caller.rs"]
mod caller;
#[cfg(test)]
#[path = "faults/judge.rs"]
mod judge;
#[cfg(test)]
#[path = "faults/tracer.rs"]
mod tracer;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::env;
    use std::fs;
    use std::process::Command;
    use std::time::Instant;

    use super::caller::{SCENARIO, SCENARIOS, Scenario, serve};
    use super::judge::{self, Told};
    use super::support::{again, is_root, role, say, skipped};
    use super::tracer::{Act, Fault, Seen, Session, Side};

    /// `full` for every call with every errno, `wide` for every call with some of them, others in each scenario; else a sample.
    const SWEEP: &str = "RINGFENCE_SWEEP";

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum What {
        Failures,
        Signals,
    }

    fn command(test: &str, scenario: Scenario) -> Command {
        let mut command = again(&format!("tests::{test}"), "caller");
        let directory =
            env::temp_dir().join(format!("ringfence-faults-{}-{}", std::process::id(), scenario.name()));
        fs::create_dir_all(&directory).unwrap();
        command.env(SCENARIO, scenario.name()).env("TMPDIR", directory).env("RUST_BACKTRACE", "0");
        command
    }

    fn start(test: &str, scenario: Scenario) -> Option<Session> {
        Session::start(&mut command(test, scenario))
    }

    /// So many of the acts at each call are tried where not all are.
    const SOME: usize = 4;

    fn faults(seen: &[Seen], what: What, scenario: Scenario) -> Vec<Fault> {
        let mut all = Vec::new();
        let offset = SCENARIOS.iter().position(|other| *other == scenario).unwrap();
        for (number, one) in seen.iter().enumerate() {
            let acts = match what {
                What::Failures => judge::acts(one),
                What::Signals => {
                    let caller = [Act::Kill(Side::Caller), Act::Stop(Side::Caller)];
                    let child = [Act::Kill(Side::Same), Act::Stop(Side::Same)];
                    let of_child = one.point.who.starts_with("child");
                    caller.into_iter().chain(child.into_iter().filter(|_| of_child)).collect()
                }
            };
            let chosen = match (width(), acts.len()) {
                (Width::Full, _) | (_, 0..=SOME) => acts,
                (_, count) => (0..SOME).map(|n| acts[(number + SOME * offset + 5 * n) % count]).collect(),
            };
            all.extend(chosen.into_iter().map(|act| Fault { point: one.point.clone(), act }));
        }
        all
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Width {
        Full,
        Wide,
        Sample,
    }

    fn width() -> Width {
        match env::var(SWEEP).as_deref() {
            Ok("full") => Width::Full,
            Ok("wide") => Width::Wide,
            _ => Width::Sample,
        }
    }

    fn sampled(faults: Vec<Fault>, number: usize) -> Vec<Fault> {
        if width() != Width::Sample {
            return faults;
        }
        let step = (faults.len() / number).max(1);
        let step = (step..).find(|step| step % 2 == 1 && step % 3 != 0).unwrap_or(1);
        faults.into_iter().step_by(step).collect()
    }

    fn sweep(test: &str, scenario: Scenario, what: What, number: usize) {
        let Some(mut session) = start(test, scenario) else {
            return skipped(test, "a process may not be traced here");
        };
        let first = session.round(None);
        let (left, plain) = judge::read(&first.end);
        assert!(left.is_empty() && matches!(plain, Told::Ran { .. }), "{left} {plain:?} {}", session.noise);
        let again = session.round(None);
        let (left, second) = judge::read(&again.end);
        assert!(left.is_empty(), "{left}");
        if let Some(why) = judge::unlike(&plain, &second) {
            panic!("{scenario:?}: a plain run is not as the one before: {why}");
        }
        let seen = first.seen;
        let faults = sampled(faults(&seen, what, scenario), number);
        let faults: Vec<Fault> = match env::var("RINGFENCE_SWEEP_POINT") {
            Ok(only) => faults
                .into_iter()
                .filter(|f| format!("{} {:?}", judge::text(&f.point), f.act).starts_with(&only))
                .collect(),
            Err(_) => faults,
        };
        let (mut kinds, mut wrong, mut missed) = (BTreeMap::<String, usize>::new(), Vec::new(), 0);
        let begun = Instant::now();
        for (number, fault) in faults.iter().enumerate() {
            if number % 200 == 199 && width() != Width::Sample {
                say(&format!("{scenario:?}: {} of {} after {:?}", number + 1, faults.len(), begun.elapsed()));
            }
            let round = session.round(Some(fault));
            if !round.hit {
                missed += 1;
            }
            let judged = match what {
                What::Failures => judge::of_failure(&plain, fault, &round),
                What::Signals => judge::of_signal(&plain, fault, &round),
            };
            match judged {
                Ok(kind) => *kinds.entry(kind).or_default() += 1,
                Err(why) => {
                    let line = format!("{} {:?}: {why}", judge::text(&fault.point), fault.act);
                    if env::var_os("RINGFENCE_SWEEP_SHOW").is_some() {
                        say(&format!("WRONG {scenario:?} {line} {}", session.noise));
                    }
                    session.noise.clear();
                    wrong.push(line);
                }
            }
            let over =
                !matches!(round.end, super::tracer::End::Line(_)) || !judge::read(&round.end).0.is_empty();
            if over {
                drop(session);
                session = start(test, scenario).unwrap();
            }
        }
        say(&format!(
            "{test} {scenario:?}: {} faults at {} calls, {missed} not come by: {kinds:?}",
            faults.len(),
            seen.len()
        ));
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), faults.len(), wrong.join("\n"));
    }

    fn each(test: &str, what: What, number: usize, scenarios: &[Scenario]) {
        if role().as_deref() == Some("caller") {
            return serve();
        }
        for scenario in scenarios {
            if env::var("RINGFENCE_SWEEP_ONLY").is_ok_and(|only| only != scenario.name()) {
                continue;
            }
            sweep(test, *scenario, what, number);
        }
    }

    #[test]
    fn a_failed_call_is_an_error_that_names_it_or_nothing_at_all() {
        let test = "a_failed_call_is_an_error_that_names_it_or_nothing_at_all";
        let fit: Vec<Scenario> =
            SCENARIOS.into_iter().filter(|scenario| is_root() || *scenario != Scenario::Group).collect();
        each(test, What::Failures, 60, &fit);
    }

    #[test]
    fn a_side_that_is_killed_or_stopped_at_any_call_leaves_nothing() {
        let test = "a_side_that_is_killed_or_stopped_at_any_call_leaves_nothing";
        each(test, What::Signals, 60, &[Scenario::Default, Scenario::Copy, Scenario::Bare]);
    }
}
