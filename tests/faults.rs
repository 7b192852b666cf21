//! Every system call that a launch makes is made to fail, on either side: an error that names it, or success; never a hang,
//! never less than was required, nothing left behind. `RINGFENCE_SWEEP=full` tries every call with every errno.
#![cfg_attr(test, expect(unsafe_code, reason = "ptrace(2), and calls that only mark a place"))]

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
#[path = "faults/caller.rs"]
mod caller;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
#[path = "faults/calls.rs"]
mod calls;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
#[path = "faults/judge.rs"]
mod judge;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
#[path = "faults/scenario.rs"]
mod scenario;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
#[path = "faults/tracer.rs"]
mod tracer;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
#[path = "faults/watch.rs"]
mod watch;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
#[path = "faults/words.rs"]
mod words;

#[cfg(test)]
#[cfg(not(target_arch = "x86_64"))]
mod tests {
    #[test]
    fn a_failed_call_is_an_error_that_names_it_or_nothing_at_all() {
        super::support::skipped("faults", "the tracer knows the registers of x86_64 only");
    }
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::env;
    use std::fs;
    use std::os::unix::fs::chown;
    use std::os::unix::process::CommandExt;
    use std::path::{Path, PathBuf};
    use std::process::{self, Command};
    use std::time::Instant;

    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::{Pid, User};

    use super::caller::{SCENARIO, groups_of, serve};
    use super::judge::{self, Told};
    use super::scenario::{RANGES, SCENARIOS, Scenario};
    use super::support::{again, eventually, is_root, role, say, skipped};
    use super::tracer::Session;
    use super::words::{Act, Edge, End, Fault, Point, Round, Seen, Side};

    /// `full` for every call with every errno, `wide` for every call with some of them, others in each scenario, or a number:
    /// about so many faults in each scenario.
    const SWEEP: &str = "RINGFENCE_SWEEP";
    /// Only this scenario, and only faults whose text begins so.
    const ONLY: &str = "RINGFENCE_SWEEP_ONLY";
    const POINT: &str = "RINGFENCE_SWEEP_POINT";

    /// This test binary, where a user may read it.
    const COPY: &str = "caller";

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum What {
        Failures,
        Signals,
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Width {
        Full,
        Wide,
        Sample(usize),
    }

    /// A round takes some 35 ms, and a caller that was killed as long again.
    const FEW: usize = 90;
    /// So many of the acts at each call are tried in a wide sweep.
    const SOME: usize = 4;

    /// What once went wrong, in every sweep: an errno that was lost or another step's, a panic, a wrong verdict.
    const KNOWN: &[&str] = &[
        "child mmap(0x11)#1 Fail(12)",
        "child seccomp#1 Fail(22)",
        "child prctl(0xf)#2 Fail(5)",
        "child wait4#1 Fail(5)",
        "child read#1 Fail(12)",
        "child ppoll#4 Fail(12)",
        "caller flock(0x8)#1 Fail(13)",
        "caller readlink#17 Fail(11)",
        "caller statx#14 Fail(5)",
        "ringfence-super fcntl(0x406)#1 Fail(24)",
        // What a running program ends by, and what watches over a frozen one.
        "caller pidfd_send_signal#1 Fail(1)",
        "caller epoll_ctl#1 Fail(38)",
        "caller wait4#1 Fail(28)",
        "child close_range#3 Kill(Same, Exit)",
        // A thread that lasts.
        "caller mmap(0x20022)#1 Fail(12)",
        // A new group is locked.
        "caller flock(0x6)#1 Fail(5)",
    ];

    fn width() -> Width {
        match env::var(SWEEP).as_deref() {
            Ok("full") => Width::Full,
            Ok("wide") => Width::Wide,
            Ok(number) => Width::Sample(number.parse().unwrap_or(FEW)),
            Err(_) => Width::Sample(FEW),
        }
    }

    fn acts(seen: &Seen, what: What) -> Vec<Act> {
        if what == What::Failures {
            return judge::acts(seen);
        }
        let of_child = seen.point.who.starts_with("child");
        let sides = [Side::Caller, Side::Same].into_iter().filter(|side| *side == Side::Caller || of_child);
        let edges = sides.flat_map(|side| [Edge::Entry, Edge::Exit].map(|edge| (side, edge)));
        edges.flat_map(|(side, edge)| [Act::Kill(side, edge), Act::Stop(side, edge)]).collect()
    }

    /// In which round of a process a call is made: some are made once, such as those that start its threads.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Turn {
        First,
        Any,
    }

    fn faults(seen: &[(Turn, Seen)], what: What, scenario: Scenario) -> Vec<(Turn, Fault)> {
        let mut all = Vec::new();
        let offset = SCENARIOS.iter().position(|other| *other == scenario).unwrap();
        for (number, (turn, one)) in seen.iter().enumerate() {
            let acts = acts(one, what);
            let chosen = match (width(), acts.len()) {
                (Width::Wide, count @ 5..) => {
                    (0..SOME).map(|n| acts[(number + SOME * offset + 5 * n) % count]).collect()
                }
                _ => acts,
            };
            all.extend(chosen.into_iter().map(|act| (*turn, Fault { point: one.point.clone(), act })));
        }
        let text = |fault: &Fault| format!("{} {:?}", judge::text(&fault.point), fault.act);
        if let Ok(begin) = env::var(POINT) {
            all.retain(|(_, fault)| text(fault).starts_with(&begin));
            return all;
        }
        let Width::Sample(few) = width() else { return all };
        // No divisor in common with the errnos, so that every one has its turn.
        let step = (all.len() / few.max(1)).max(1);
        let step = (step..).find(|step| step % 2 == 1 && step % 3 != 0).unwrap_or(1);
        let known = |fault: &Fault| KNOWN.contains(&text(fault).as_str());
        let chosen = |(number, (turn, fault)): (usize, (Turn, Fault))| {
            ((number + offset) % step == 0 || known(&fault)).then_some((turn, fault))
        };
        all.into_iter().enumerate().filter_map(chosen).collect()
    }

    /// A directory for temporary files, and the groups of that name. They are gone with it.
    struct Place(PathBuf);

    /// One scenario: the traced process, what its plain run comes to, and its place, which has to be dropped last.
    struct Stage {
        test: &'static str,
        scenario: Scenario,
        session: Session,
        place: Place,
        plain: Told,
        seen: Vec<(Turn, Seen)>,
    }

    impl Stage {
        fn open(test: &'static str, scenario: Scenario) -> Result<Self, String> {
            let name = format!("ringfence-faults-{}-{}-{}", process::id(), scenario.name(), test.len());
            let directory = env::temp_dir().join(name);
            fs::create_dir_all(&directory).unwrap();
            let place = Place(directory);
            let mut session = Self::session(test, scenario, &place.0)?;
            let first = session.round(None);
            let (left, plain) = judge::read(&first.end);
            if let Told::Failed { step, text, .. } = &plain
                && step == "Cgroup"
            {
                return Err(text.clone());
            }
            let ran = left.is_empty() && matches!(plain, Told::Ran { .. });
            assert!(ran, "{scenario:?}: {left} {plain:?} {}", session.noise);
            let again = session.round(None);
            let (left, second) = judge::read(&again.end);
            let unlike = judge::unlike(&plain, &second).unwrap_or_default();
            assert!(left.is_empty() && unlike.is_empty(), "{scenario:?}: a plain run again: {left} {unlike}");
            let known: BTreeSet<Point> = again.seen.iter().map(|seen| seen.point.clone()).collect();
            let only = first.seen.into_iter().filter(|seen| !known.contains(&seen.point));
            let seen = only.map(|seen| (Turn::First, seen));
            let seen = seen.chain(again.seen.into_iter().map(|seen| (Turn::Any, seen))).collect();
            Ok(Self { test, scenario, session, place, plain, seen })
        }

        fn session(test: &str, scenario: Scenario, directory: &Path) -> Result<Session, String> {
            let mut command = again(&format!("tests::{test}"), "caller");
            if scenario == Scenario::Helpers {
                command = as_user_with_ranges(&command, directory)?;
            } else if is_root() {
                command = in_groups_of_its_own(&command, directory);
            }
            command.env(SCENARIO, scenario.name()).env("TMPDIR", directory).env("RUST_BACKTRACE", "0");
            Session::start(&mut command)
        }

        /// What befell, or what is wrong with what came of it.
        fn try_one(&mut self, fault: &Fault, what: What) -> (Round, Result<String, String>) {
            let round = self.session.round(Some(fault));
            let judged = match what {
                What::Failures => judge::of_failure(&self.plain, fault, &round),
                What::Signals => judge::of_signal(&self.plain, fault, &round),
            };
            let (left, _) = judge::read(&round.end);
            if matches!(round.end, End::Line(_)) && left.is_empty() {
                return (round, judged);
            }
            let gone = self.session.pid();
            self.restart();
            (round, judged.and_then(|kind| self.sweeps(gone).map(|()| kind)))
        }

        fn restart(&mut self) {
            self.session.close();
            self.session = Self::session(self.test, self.scenario, &self.place.0).unwrap();
        }

        /// The next caller removes the groups of one that was killed.
        fn sweeps(&mut self, gone: i32) -> Result<(), String> {
            if ![Scenario::Group, Scenario::Detached].contains(&self.scenario) {
                return Ok(());
            }
            let (left, told) = judge::read(&self.session.round(None).end);
            if !left.is_empty() || judge::unlike(&self.plain, &told).is_some() {
                return Err(format!("the next launch: {left} {told:?}"));
            }
            if eventually(30, || groups_of(gone).is_empty()) {
                Ok(())
            } else {
                Err(groups_of(gone).join(", "))
            }
        }
    }

    /// The same behind a shell that moves itself into groups of its own, where the hierarchies take one: there are no others'
    /// to look through. It leaves their list in the directory.
    fn in_groups_of_its_own(command: &Command, directory: &Path) -> Command {
        let name = directory.file_name().unwrap().to_str().unwrap();
        let script = format!(
            "for d in /sys/fs/cgroup/*; do [ -e $d/release_agent ] || [ -e $d/cgroup.max.depth ] || continue; \
             [ -e $d/cpuset.cpus ] || {{ mkdir -p $d/{name} && echo $$ >$d/{name}/cgroup.procs; }}; done 2>/dev/null; \
             exec \"$@\""
        );
        let mut outer = Command::new("sh");
        outer.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
        outer.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        outer
    }

    /// The same by a user who has subordinate ids. Root traces it: else the helpers have no rights.
    fn as_user_with_ranges(command: &Command, directory: &Path) -> Result<Command, String> {
        let first = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let (first, count) =
                text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split_once(':'))?;
            (count.parse::<u32>().ok()? >= 10).then(|| first.to_owned())
        };
        let owners = fs::read_to_string("/etc/subuid").unwrap_or_default();
        let names = owners.lines().filter_map(|line| line.split(':').next());
        let found = names.filter_map(|name| {
            let user = User::from_name(name).ok()??;
            Some((user, first("/etc/subuid", name)?, first("/etc/subgid", name)?))
        });
        let Some((user, uid, gid)) = found.into_iter().find(|(user, ..)| !user.uid.is_root()) else {
            return Err("no user has subordinate ids".to_owned());
        };
        if ["newuidmap", "newgidmap"].iter().any(|name| Command::new(name).output().is_err()) {
            return Err("newuidmap and newgidmap are not installed".to_owned());
        }
        chown(directory, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        let copy = directory.join(COPY);
        if !copy.try_exists().unwrap() {
            fs::copy(env::current_exe().unwrap(), &copy).unwrap();
        }
        let mut other = Command::new(copy);
        other
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        other
            .env(RANGES, format!("{uid} {gid}"))
            .uid(user.uid.as_raw())
            .gid(user.gid.as_raw())
            .current_dir("/");
        Ok(other)
    }

    impl Drop for Place {
        fn drop(&mut self) {
            for mount in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
                let group = mount.path().join(self.0.file_name().unwrap());
                // The last process is gone in a moment, if there is such a group.
                eventually(5, || fs::remove_dir(&group).is_ok() || !group.is_dir());
            }
            // Only in one scenario.
            fs::remove_file(self.0.join(COPY)).ok();
            // It is empty, or the test has failed.
            fs::remove_dir(&self.0).ok();
        }
    }

    fn sweep(test: &'static str, scenario: Scenario, what: What) {
        let mut stage = match Stage::open(test, scenario) {
            Ok(stage) => stage,
            Err(why) => return skipped(&format!("{test} {scenario:?}"), &why),
        };
        let faults = faults(&stage.seen, what, scenario);
        let (mut kinds, mut wrong, mut missed) = (BTreeMap::<String, usize>::new(), Vec::new(), 0);
        let begun = Instant::now();
        for (number, (turn, fault)) in faults.iter().enumerate() {
            if *turn == Turn::First {
                stage.restart();
            }
            if number % 200 == 199 {
                say(&format!("{scenario:?}: {} of {} after {:?}", number + 1, faults.len(), begun.elapsed()));
            }
            let (round, judged) = stage.try_one(fault, what);
            missed += usize::from(!round.hit);
            match judged {
                Ok(kind) => *kinds.entry(kind).or_default() += 1,
                Err(why) => {
                    let line = format!("{} {:?}: {why}", judge::text(&fault.point), fault.act);
                    say(&format!("WRONG {scenario:?} {line} {}", stage.session.noise));
                    stage.session.noise.clear();
                    wrong.push(line);
                }
            }
        }
        let (count, calls) = (faults.len(), stage.seen.len());
        say(&format!(
            "{test} {scenario:?}: {count} faults at {calls} calls, {missed} not come by: {kinds:?}"
        ));
        assert!(missed * 2 <= count.max(50), "{missed} of {count} points were not come by");
        assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    }

    /// This thread and all that it starts on one processor, another one for each test: a stop of a traced process then costs a
    /// switch, and not the waking of a processor, which takes ten times as long.
    fn on_one_processor(what: What) {
        let own = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let usable: Vec<usize> = (0..CpuSet::count()).filter(|cpu| own.is_set(*cpu).unwrap()).collect();
        let mut one = CpuSet::new();
        one.set(usable[if what == What::Failures { usable.len() - 1 } else { 0 }]).unwrap();
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
    }

    fn each(test: &'static str, what: What, scenarios: &[Scenario]) {
        if role().as_deref() == Some("caller") {
            return serve();
        }
        on_one_processor(what);
        for scenario in scenarios {
            if env::var(ONLY).is_ok_and(|only| only != scenario.name()) {
                continue;
            }
            if [Scenario::Group, Scenario::Helpers].contains(scenario) && !is_root() {
                skipped(&format!("{test} {scenario:?}"), "needs root");
                continue;
            }
            sweep(test, *scenario, what);
        }
    }

    #[test]
    fn a_failed_call_is_an_error_that_names_it_or_nothing_at_all() {
        each("a_failed_call_is_an_error_that_names_it_or_nothing_at_all", What::Failures, &SCENARIOS);
    }

    #[test]
    fn a_side_that_is_killed_or_stopped_at_any_call_leaves_nothing() {
        let scenarios = [
            Scenario::Default,
            Scenario::Copy,
            Scenario::Bare,
            Scenario::Group,
            Scenario::Idle,
            Scenario::Helpers,
            Scenario::Detached,
            Scenario::Broker,
        ];
        each("a_side_that_is_killed_or_stopped_at_any_call_leaves_nothing", What::Signals, &scenarios);
    }
}
