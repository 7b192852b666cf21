//! Why a run ended: bombs of every sort, each with its verdict and the evidence, while the caller goes on; and programs that
//! only look as if a limit had ended them.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process;
    use std::thread;
    use std::time::Duration;

    use ringfence::{
        Builder, Clock, Core, Host, Init, Launch, Mount, Outcome, Resource, Strength, Tmpfs, Verdict, prefer,
    };

    use super::support::{eventually, is_root, shell, skipped, system, watchdog};

    const MEMORY: u64 = 48 << 20;
    /// A guard: none of the bombs is meant to last.
    const GUARD: Duration = Duration::from_secs(60);

    fn bounded() -> Builder {
        system().memory(MEMORY).processes(32).wall_time(GUARD).tmpfs("/big", 1 << 30)
    }

    /// With memory for as many processes as there may be.
    fn roomy() -> Builder {
        bounded().memory(1 << 30)
    }

    /// Whether this machine can hold the tree to its limits; a line says so if not.
    fn can_hold(test: &str) -> bool {
        match bounded().build().and_then(|sandbox| sandbox.command("true").status()) {
            Ok(outcome) => {
                assert!(outcome.success(), "{:?}", outcome.verdict());
                true
            }
            Err(error) => {
                assert!(error.to_string().contains("limit memory"), "{error}");
                skipped(test, "no control group can hold memory here");
                false
            }
        }
    }

    fn run(builder: Builder, script: &str) -> Outcome {
        shell(&builder.build().unwrap(), script).output().unwrap()
    }

    fn python(builder: Builder, script: &str) -> Outcome {
        let sandbox = builder.build().unwrap();
        sandbox.command("/usr/bin/python3").args(["-c", script]).output().unwrap()
    }

    fn out_of_memory(outcome: &Outcome, what: &str) {
        let Verdict::OutOfMemory { limit: Some(MEMORY), peak } = outcome.verdict() else {
            let text = String::from_utf8_lossy(&outcome.stderr);
            panic!("{what}: {:?} {:?}\n{text}", outcome.verdict(), outcome.stats)
        };
        // cgroup v2 tells it since Linux 5.19.
        assert!(peak.is_none_or(|peak| peak > MEMORY / 2 && peak <= MEMORY), "{what}: {peak:?}");
        assert!(outcome.stats.unwrap().memory.oom_kills.unwrap() >= 1, "{what}");
    }

    #[test]
    fn a_memory_bomb_of_any_sort_is_out_of_memory() {
        let _watchdog = watchdog(240);
        if !can_hold("a_memory_bomb_of_any_sort_is_out_of_memory") {
            return;
        }
        for (what, script) in [
            ("touched", "x = bytearray(512 << 20)\nx[::4096] = b'x' * len(x[::4096])"),
            ("many small ones", "x = []\nwhile True: x.append(bytes(100000))"),
            ("shared", "import mmap\nx = mmap.mmap(-1, 512 << 20)\nwhile True: x.write(bytes(1 << 20))"),
            ("a file in memory", "f = open('/big/f', 'wb')\nwhile True: f.write(bytes(1 << 20))"),
            ("memfd", "import os\nf = os.memfd_create('f')\nwhile True: os.write(f, bytes(1 << 20))"),
            (
                "in pieces, by processes",
                "import os, time\nfor i in range(20):\n if os.fork() == 0:\n  x = b'x' * (8 << 20); time.sleep(1000)\nfor i in range(20):\n if os.wait()[1]: exit(1)",
            ),
        ] {
            out_of_memory(&python(bounded(), script), what);
        }
        for builder in [bounded().init(Init::Program), bounded().launch(Launch::Copy)] {
            out_of_memory(
                &python(builder, "x = bytearray(512 << 20)\nx[::4096] = b'x' * len(x[::4096])"),
                "kinds",
            );
        }
    }

    #[test]
    fn what_a_program_gets_over_is_not_its_verdict() {
        let _watchdog = watchdog(120);
        if !can_hold("what_a_program_gets_over_is_not_its_verdict") {
            return;
        }
        let outcome = run(bounded(), "tail /dev/zero; exit 0");
        assert_eq!(outcome.verdict(), Verdict::Exited(0), "{outcome:?}");
        assert_eq!(outcome.stats.unwrap().memory.oom_kills, Some(1), "the evidence stays");
        out_of_memory(&run(bounded(), "tail /dev/zero; exit 3"), "its child's end became its own");
        let patient = "import os\nn = 0\nwhile True:\n try:\n  if os.fork() == 0: os.pause() if hasattr(os, 'pause') else __import__('signal').pause()\n  n += 1\n except OSError: break\nprint(n)";
        let outcome = python(roomy(), patient);
        assert_eq!(outcome.verdict(), Verdict::Exited(0), "{}", String::from_utf8_lossy(&outcome.stderr));
        let count: u64 = String::from_utf8_lossy(&outcome.stdout).trim().parse().unwrap();
        assert!((20..32).contains(&count), "{count}");
        assert!(outcome.stats.unwrap().processes.refused.unwrap() >= 1);
    }

    #[test]
    fn a_fork_bomb_is_too_many_processes() {
        let _watchdog = watchdog(240);
        if !can_hold("a_fork_bomb_is_too_many_processes") {
            return;
        }
        let bomb = "bomb() { bomb | bomb & }; bomb; i=0; while [ $i -lt 200 ]; do sh -c 'sleep 0.01' & i=$((i+1)); done; wait";
        for script in [
            "import os\nwhile True: os.fork()",
            "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
        ] {
            let outcome = python(roomy(), script);
            assert_eq!(outcome.verdict(), Verdict::TooManyProcesses { limit: 32 }, "{script}: {outcome:?}");
            let peak = outcome.stats.unwrap().processes.peak;
            assert!(peak.is_none_or(|peak| peak <= 32), "{peak:?}");
        }
        let outcome = run(roomy(), bomb);
        assert_eq!(outcome.verdict(), Verdict::TooManyProcesses { limit: 32 }, "{outcome:?}");
    }

    #[test]
    fn the_caller_and_other_sandboxes_go_on_meanwhile() {
        let _watchdog = watchdog(240);
        if !can_hold("the_caller_and_other_sandboxes_go_on_meanwhile") {
            return;
        }
        thread::scope(|scope| {
            let bombs = [
                scope.spawn(|| python(roomy(), "import os\nwhile True: os.fork()")),
                scope.spawn(|| python(bounded(), "x = []\nwhile True: x.append(bytes(100000))")),
                scope.spawn(|| python(bounded().wall_time(Duration::from_secs(1)), "while True: pass")),
            ];
            for _ in 0..20 {
                assert_eq!(run(bounded(), "echo alive; exit 3").verdict(), Verdict::Exited(3));
            }
            for bomb in bombs {
                assert!(!bomb.join().unwrap().success());
            }
        });
    }

    #[test]
    fn a_burner_with_eight_threads_runs_out_of_cpu_time_by_the_groups_count() {
        let _watchdog = watchdog(120);
        if !can_hold("a_burner_with_eight_threads_runs_out_of_cpu_time_by_the_groups_count") {
            return;
        }
        // Enough for the interpreter to start in, under emulation too.
        let limit = Duration::from_secs(2);
        // Without the group's count these would not be seen: nobody waits for them.
        let hidden = "import os, signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
                      while True:\n try:\n  if os.fork() == 0:\n   for i in range(300000): pass\n   os._exit(0)\n except OSError: pass\n";
        let processes = "import os\nfor i in range(7):\n if os.fork() == 0: break\nwhile True: pass";
        // A checksum is made without the interpreter's lock, so that all of them burn.
        let threads = "import _thread, os, zlib\ndata = bytes(1 << 20)\n\
                       def burn():\n while True: zlib.crc32(data)\n\
                       for i in range(7): _thread.start_new_thread(burn, ())\n\
                       print(len(os.listdir('/proc/self/task')), flush=True)\nburn()";
        for (script, said) in [(hidden, ""), (processes, ""), (threads, "8\n")] {
            let outcome = python(system().cpu_time(limit).processes(64).wall_time(GUARD), script);
            assert_eq!(outcome.verdict(), Verdict::TimedOut { clock: Clock::Cpu, limit }, "{outcome:?}");
            assert_eq!(String::from_utf8_lossy(&outcome.stdout), said, "{script}");
            let cpu = outcome.stats.unwrap().cpu;
            assert!(cpu.user.unwrap() + cpu.system.unwrap() >= limit, "{cpu:?}");
        }
    }

    #[test]
    fn a_limit_that_was_not_reached_is_not_named() {
        const NAME: &str = "a_limit_that_was_not_reached_is_not_named";
        let _watchdog = watchdog(120);
        let cgroups = Host::probe().cgroups().clone();
        let own = cgroups.legacy_with("memory").and_then(|legacy| legacy.own.clone());
        let Some(own) = own.filter(|_| is_root()) else {
            return skipped(NAME, "needs root and the cgroup v1 hierarchy of memory");
        };
        let above = own.join(format!("ringfence-test-{}", process::id()));
        fs::create_dir(&above).unwrap();
        fs::write(above.join("memory.limit_in_bytes"), MEMORY.to_string()).unwrap();
        let builder = system().memory(1 << 30).cgroup_parent(&above).wall_time(GUARD);
        let outcome = run(builder, "exec tail /dev/zero");
        let verdict = outcome.verdict();
        assert!(eventually(10, || fs::remove_dir(&above).is_ok()));
        assert!(matches!(verdict, Verdict::OutOfMemory { limit: None, .. }), "{outcome:?}");
    }

    #[test]
    fn a_writer_fills_its_own_disk_and_no_more() {
        let _watchdog = watchdog(120);
        let small = Tmpfs { size: 1 << 20, inodes: 50, mode: 0o1777, ..Tmpfs::default() };
        let builder = || system().mount(Mount::tmpfs("/small", small)).wall_time(GUARD);
        let outcome = run(builder(), "cat /dev/zero > /small/f; s=$?; stat -c %s /small/f; exit $s");
        assert_eq!(outcome.verdict(), Verdict::Exited(1), "{outcome:?}");
        assert!(String::from_utf8_lossy(&outcome.stderr).contains("No space left"), "{outcome:?}");
        let size: u64 = String::from_utf8_lossy(&outcome.stdout).trim().parse().unwrap();
        assert!(size > 0 && size <= 1 << 20, "{size}");
        let outcome = run(builder(), "i=0; while touch /small/$i; do i=$((i+1)); done 2>/dev/null; echo $i");
        let count: u64 = String::from_utf8_lossy(&outcome.stdout).trim().parse().unwrap();
        assert!((30..=50).contains(&count), "{outcome:?}");
        let outcome = run(builder().limit(Resource::FileSize, 1 << 16), "exec cat /dev/zero > /small/f");
        let ended = Verdict::Signaled { signal: libc::SIGXFSZ, core: Core::None };
        assert_eq!(outcome.verdict(), ended, "{outcome:?}");
    }

    #[test]
    fn what_looks_like_a_limit_and_is_none_is_told_apart() {
        let _watchdog = watchdog(120);
        let killed = Verdict::Signaled { signal: libc::SIGKILL, core: Core::None };
        let builder = || system().memory(prefer(MEMORY)).processes(prefer(64)).wall_time(GUARD);
        assert_eq!(run(builder(), "exit 137").verdict(), Verdict::Exited(137));
        assert_eq!(run(builder(), "kill -KILL $$").verdict(), killed);
        assert_eq!(run(builder(), "kill -XFSZ $$; sleep 1").verdict().to_string(), "killed by SIGXFSZ");
        let sandbox = builder().build().unwrap();
        let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Killed);
    }

    #[test]
    fn without_a_group_limits_are_approximate_and_still_bound() {
        let _watchdog = watchdog(120);
        let sandbox = system().memory(prefer(256 << 20)).processes(prefer(40)).build().unwrap();
        let mut command = sandbox.command("/usr/bin/python3");
        let child = command
            .args(["-c", "x = bytearray(1 << 30)\nx[::4096] = b'x' * len(x[::4096])"])
            .spawn()
            .unwrap();
        let states = child.enforcement().limits.clone();
        assert_eq!(states.len(), 2);
        for state in &states {
            assert_ne!(state.strength, Strength::None, "{state}");
            if state.strength == Strength::Approximate {
                assert!(!state.reasons.is_empty(), "the report says why: {state}");
            }
        }
        let outcome = child.wait().unwrap();
        assert!(!outcome.success(), "{outcome:?}");
    }
}
