//! Clocks, grace periods and the bound of collected output: each ends what runs too long or writes too much, and says so.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use ringfence::{Builder, Clock, ErrorKind, Init, Mistake, Outcome, Sandbox, Stdio, Verdict, prefer};

    use super::support::{alone, descriptors, eventually, shell, status_field, system, watchdog};

    const WALL: Duration = Duration::from_millis(300);
    /// For programs that have to get somewhere first, on a machine that does other things.
    const ROOMY: Duration = Duration::from_secs(2);
    const SPIN: &str = "while :; do :; done";

    fn run(builder: Builder, script: &str) -> Outcome {
        shell(&builder.build().unwrap(), script).output().unwrap()
    }

    fn both(builder: impl Fn() -> Builder) -> [Builder; 2] {
        [builder(), builder().init(Init::Program)]
    }

    #[test]
    fn a_sleeper_runs_out_of_time() {
        let _watchdog = watchdog(60);
        for builder in both(|| system().wall_time(WALL)) {
            let begun = Instant::now();
            let outcome = run(builder, "sleep 1000 & sleep 1000");
            assert_eq!(outcome.verdict(), Verdict::TimedOut { clock: Clock::Wall, limit: WALL });
            assert!(begun.elapsed() >= WALL, "it was ended too early: {:?}", begun.elapsed());
            assert_eq!(outcome.verdict().to_string(), "out of time: the limit is 300ms");
        }
    }

    #[test]
    fn nobody_has_to_wait_for_a_clock_to_hold() {
        let _watchdog = watchdog(60);
        let sandbox = system().wall_time(WALL).build().unwrap();
        let mut command = shell(&sandbox, "sleep 1000");
        let children: Vec<_> = (0..8).map(|_| command.spawn().unwrap()).collect();
        thread::sleep(WALL);
        for child in &children {
            assert!(eventually(20, || child.try_wait().unwrap().is_some()));
            let verdict = child.try_wait().unwrap().unwrap().verdict();
            assert_eq!(verdict, Verdict::TimedOut { clock: Clock::Wall, limit: WALL });
        }
    }

    #[test]
    fn a_program_that_ends_in_time_is_left_alone() {
        let _watchdog = watchdog(60);
        let limit = Duration::from_secs(50);
        for builder in both(|| system().wall_time(limit).cpu_time(prefer(limit))) {
            assert_eq!(run(builder, "sleep 0.05; exit 3").verdict(), Verdict::Exited(3));
        }
        // What it does to itself is not the clock's.
        for (script, code) in [("exit 137", Some(137)), ("kill -KILL $$", None)] {
            let outcome = run(system().wall_time(limit), script);
            assert_eq!(outcome.code(), code);
            assert!(!matches!(outcome.verdict(), Verdict::TimedOut { .. }), "{:?}", outcome.verdict());
        }
    }

    #[test]
    fn a_held_child_is_not_on_the_clock() {
        let _watchdog = watchdog(60);
        let sandbox = system().wall_time(ROOMY).build().unwrap();
        let held = shell(&sandbox, "exit 4").spawn_held().unwrap();
        thread::sleep(ROOMY + WALL);
        assert_eq!(held.release().unwrap().wait().unwrap().verdict(), Verdict::Exited(4));
    }

    #[test]
    fn a_burner_runs_out_of_cpu_time_with_all_its_processes() {
        let _watchdog = watchdog(120);
        let limit = Duration::from_millis(400);
        // No single process of them uses so much.
        let script = "i=0; while [ $i -lt 8 ]; do sh -c 'while :; do :; done' & i=$((i+1)); done; wait";
        for builder in both(|| system().cpu_time(prefer(limit))) {
            let outcome = run(builder, script);
            assert_eq!(outcome.verdict(), Verdict::TimedOut { clock: Clock::Cpu, limit });
        }
        // Processes that have ended count, too.
        let script = "while :; do sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'; done";
        let outcome = run(system().cpu_time(prefer(limit)), script);
        assert_eq!(outcome.verdict(), Verdict::TimedOut { clock: Clock::Cpu, limit });
    }

    #[test]
    fn sleeping_costs_no_cpu_time() {
        let _watchdog = watchdog(60);
        // The start of a shell may use half a second where a processor is emulated.
        let limit = Duration::from_secs(2);
        assert_eq!(run(system().cpu_time(prefer(limit)), "sleep 3; exit 5").verdict(), Verdict::Exited(5));
    }

    #[test]
    fn the_stricter_of_two_clocks_is_named() {
        let _watchdog = watchdog(60);
        let long = Duration::from_secs(50);
        let verdict = run(system().wall_time(long).cpu_time(prefer(WALL)), SPIN).verdict();
        assert_eq!(verdict, Verdict::TimedOut { clock: Clock::Cpu, limit: WALL });
        let verdict = run(system().wall_time(WALL).cpu_time(prefer(long)), "sleep 1000").verdict();
        assert_eq!(verdict, Verdict::TimedOut { clock: Clock::Wall, limit: WALL });
    }

    #[test]
    fn a_grace_period_lets_a_program_end_in_good_order() {
        let _watchdog = watchdog(60);
        let long = Duration::from_secs(50);
        let polite = "trap 'echo bye; exit 9' TERM; while :; do sleep 0.01; done";
        let outcome = run(system().wall_time(ROOMY).grace(libc::SIGTERM, long), polite);
        assert_eq!(outcome.verdict(), Verdict::TimedOut { clock: Clock::Wall, limit: ROOMY });
        assert_eq!((outcome.code(), &*outcome.stdout), (Some(9), &b"bye\n"[..]), "its status is told");
    }

    #[test]
    fn a_program_that_ignores_the_signal_is_killed_behind_the_grace_period() {
        let _watchdog = watchdog(60);
        let deaf = "trap 'echo no' TERM; while :; do sleep 0.01; done";
        for builder in both(|| system().wall_time(ROOMY).grace(libc::SIGTERM, ROOMY)) {
            let begun = Instant::now();
            let outcome = run(builder, deaf);
            assert_eq!(outcome.verdict(), Verdict::TimedOut { clock: Clock::Wall, limit: ROOMY });
            assert_eq!(outcome.stdout, b"no\n", "it was told, once");
            assert_eq!(outcome.code(), None);
            assert!(begun.elapsed() >= 2 * ROOMY, "{:?}", begun.elapsed());
        }
    }

    #[test]
    fn a_stopped_program_runs_out_of_time() {
        let _watchdog = watchdog(60);
        let outcome = run(system().wall_time(WALL).grace(libc::SIGTERM, WALL), "kill -STOP $$");
        assert_eq!(outcome.verdict(), Verdict::TimedOut { clock: Clock::Wall, limit: WALL });
    }

    #[test]
    fn a_writer_is_cut_off() {
        let _watchdog = watchdog(60);
        for script in ["cat /dev/zero", "cat /dev/zero >&2", "cat /dev/zero & cat /dev/zero >&2"] {
            for builder in both(|| system().output_limit(100_000)) {
                let outcome = run(builder, script);
                assert_eq!(outcome.verdict(), Verdict::TooMuchOutput { limit: 100_000 }, "{script}");
                assert_eq!(outcome.stdout.len() + outcome.stderr.len(), 100_000);
            }
        }
        let exact = "head -c 60000 /dev/zero; head -c 40000 /dev/zero >&2";
        let outcome = run(system().output_limit(100_000), exact);
        assert_eq!(outcome.verdict(), Verdict::Exited(0));
        assert_eq!((outcome.stdout.len(), outcome.stderr.len()), (60_000, 40_000));
        // A handler cannot outlive it.
        let stubborn = "trap '' PIPE TERM; while :; do echo yes; done";
        let outcome = run(system().output_limit(1_000), stubborn);
        assert_eq!(outcome.verdict(), Verdict::TooMuchOutput { limit: 1_000 });
    }

    /// A machine that has no thread left is no reason for the caller to panic.
    #[test]
    fn output_is_collected_without_a_thread() {
        alone(|| {
            let threads = || fs::read_dir("/proc/self/task").unwrap().count();
            // What the crate keeps for itself is made now.
            run(system(), "true");
            let before = threads();
            let child = shell(&system().build().unwrap(), "echo out; sleep 1; echo err >&2; echo more")
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let waiting = thread::spawn(move || child.wait_with_output().unwrap());
            let mut most = 0;
            while !waiting.is_finished() {
                most = most.max(threads());
                thread::sleep(Duration::from_millis(5));
            }
            let outcome = waiting.join().unwrap();
            assert_eq!(outcome.stdout, b"out\nmore\n");
            assert_eq!(outcome.stderr, b"err\n");
            assert_eq!(most, before + 1, "the one that waits, and no other");
        });
    }

    #[test]
    fn one_odd_limit_stops_no_other_clock() {
        let _watchdog = watchdog(60);
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        let endless = system().wall_time(Duration::MAX).setup_timeout(Duration::MAX).build().unwrap();
        let odd = system().wall_time(WALL).grace(libc::SIGCONT, year).build().unwrap();
        let children =
            [shell(&endless, "sleep 1000").spawn().unwrap(), shell(&odd, "sleep 1000").spawn().unwrap()];
        thread::sleep(2 * WALL);
        let verdict = run(system().wall_time(WALL), "sleep 1000").verdict();
        assert_eq!(verdict, Verdict::TimedOut { clock: Clock::Wall, limit: WALL });
        for child in &children {
            assert!(child.try_wait().unwrap().is_none());
        }
    }

    #[test]
    fn a_caller_without_descriptors_still_keeps_cpu_time() {
        alone(|| [0, 1, 2].into_iter().for_each(out_of_cpu_time_with));
    }

    fn out_of_cpu_time_with(left: usize) {
        let limit = Duration::from_millis(400);
        let script = format!("({SPIN}) & wait");
        let child = shell(&system().cpu_time(prefer(limit)).build().unwrap(), &script).spawn().unwrap();
        let (before, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 40, most).unwrap();
        let mut open = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            open.push(file);
        }
        // With one left the first process can be read, and what it has started cannot.
        open.truncate(open.len() - left);
        let outcome = child.wait_timeout(Duration::from_secs(60)).unwrap();
        drop(open);
        setrlimit(Resource::RLIMIT_NOFILE, before, most).unwrap();
        let verdict = outcome.unwrap().verdict();
        assert_eq!(verdict, Verdict::TimedOut { clock: Clock::Cpu, limit }, "{left} left");
    }

    #[test]
    fn clocks_leave_nothing_behind() {
        alone(|| {
            let sandbox = system()
                .wall_time(Duration::from_secs(1000))
                .cpu_time(prefer(Duration::from_secs(100)))
                .build()
                .unwrap();
            assert!(sandbox.command("true").status().unwrap().success());
            let count = || (descriptors().len(), status_field("self", "Threads"));
            let before = count();
            for _ in 0..20 {
                assert!(sandbox.command("true").status().unwrap().success());
                let child = sandbox.command("sleep").arg("1000").stdin(Stdio::piped()).spawn().unwrap();
                drop(child);
            }
            // The thread itself has some open for a moment, at either look.
            let no_more = || count().0 <= before.0 && count().1 == before.1;
            assert!(eventually(10, no_more), "one thread for all, no descriptor: {before:?} {:?}", count());
        });
    }

    #[test]
    fn mistakes_of_clocks_are_named() {
        let builder = || Sandbox::builder();
        let mistakes = |builder: Builder| {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidPolicy);
            error.mistakes().to_vec()
        };
        let found =
            mistakes(builder().wall_time(Duration::ZERO).cpu_time(prefer(Duration::ZERO)).grace(9, WALL));
        let zero = |what| Mistake::ZeroLimit { what };
        let signal = Mistake::BadGraceSignal { signal: 9 };
        assert_eq!(found, [zero("wall_time()"), zero("cpu_time()"), signal]);
        assert_eq!(mistakes(builder().grace(15, WALL)), [Mistake::GraceWithoutClock]);
        let found = mistakes(builder().wall_time(WALL).grace(15, Duration::MAX));
        assert!(matches!(found[..], [Mistake::OutOfRange { what: "grace(), seconds", .. }]), "{found:?}");
    }
}
