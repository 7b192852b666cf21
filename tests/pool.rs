//! Pools of children that wait: each is used once, one that has ended is never handed out, and nothing of a pool outlives
//! it, or the caller.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::io::{Read, Write, stdout};
    use std::process::Stdio as ProcessStdio;
    use std::thread;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::sys::prctl::set_child_subreaper;
    use nix::sys::resource::{Resource as OwnResource, getrlimit, setrlimit};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;
    use ringfence::host::Features;
    use ringfence::{
        Action, Builder, Command, ErrorKind, Filter, Host, Init, Launch, Mount, Outcome, Pool, Response,
        Sandbox, Stdio, Step, SupervisorState, Verdict,
    };

    use super::support::{
        again, alone, children, descriptors, eventually, is_root, namespace, role, rounds, said, shell,
        skipped, status_field, system, watchdog,
    };

    const LONG: Duration = Duration::from_secs(60);

    fn ways() -> Vec<Sandbox> {
        let ways = [Init::Reaper, Init::Program].map(|init| {
            [Launch::Image, Launch::Copy].map(|launch| system().init(init).launch(launch).build().unwrap())
        });
        ways.into_iter().flatten().collect()
    }

    /// Runs in a child that waited: never by the pool's way out.
    fn told(sandbox: &Sandbox, command: &mut Command) -> Outcome {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = sandbox.hold().unwrap_or_else(|error| panic!("hold: {error:#}")).spawn(command);
        child.unwrap_or_else(|error| panic!("spawn: {error:#}")).wait_with_output().unwrap()
    }

    #[test]
    fn large_arguments_arrive_and_what_is_too_large_is_told_or_launched_directly() {
        let _watchdog = watchdog(120);
        let sandbox = system().build().unwrap();
        let big = "x".repeat(100_000);
        let script = "echo ${#1} ${#2} ${#V} $#";
        let mut command = shell(&sandbox, script);
        command.arg("sh").args([&big, &big]).env("V", &big);
        assert_eq!(said(&told(&sandbox, &mut command)), "100000 100000 100000 2\n");
        // More than a child that waits has room for, and the kernel takes it.
        command.args(vec![&big; 8]);
        let error = sandbox.hold().unwrap().spawn(&command).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Exec, Step::Exec));
        assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
        let pool = Pool::new(&sandbox, 1).unwrap();
        assert_eq!(said(&pool.output(&command).unwrap()), "100000 100000 100000 10\n");
        assert_eq!((pool.stats().hits, pool.stats().misses), (0, 1));
        // More than the kernel takes.
        command.args(vec![&big; 80]);
        assert_eq!(pool.output(&command).unwrap_err().raw_os_error(), Some(libc::E2BIG));
    }

    /// One after the other in one sandbox, each unlike the one before it in one thing that stands in its table.
    #[test]
    fn each_command_gets_its_own_whatever_the_one_before_it_was() {
        let _watchdog = watchdog(120);
        for sandbox in ways() {
            let say = "pwd; echo $0 $1; for n in 0 1 2 7 9; do readlink /proc/self/fd/$n || echo none; done";
            let command = |program: &str| {
                let mut command = sandbox.command(program);
                command.args(["-c", say, "name", "argument"]);
                command
            };
            let run = |command: &Command| {
                let child = sandbox.hold().unwrap().spawn(command).unwrap();
                let outcome = child.wait_with_output().unwrap();
                assert_eq!(outcome.verdict(), Verdict::Exited(0), "{outcome:?}");
                let text = said(&outcome);
                text.lines().map(|line| line.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
            };
            let null = "/dev/null";
            let plain = ["/", "name argument", null, "pipe", null, "none", "none"];
            for turn in 0..2 {
                let mut first = command("/bin/sh");
                assert_eq!(run(first.stdout(Stdio::piped())), plain, "{turn}");
                let before = || assert_eq!(run(&first), plain, "{turn}: the same again");
                before();
                let mut other = command("/bin/bash");
                assert_eq!(run(other.stdout(Stdio::piped())), plain);
                before();
                let mut moved = command("/bin/sh");
                let there = run(moved.stdout(Stdio::piped()).current_dir("/usr"));
                assert_eq!((there[0].as_str(), &there[1..]), ("/usr", &plain.map(str::to_owned)[1..]));
                before();
                let mut heard = command("/bin/sh");
                let heard = run(heard.stdout(Stdio::piped()).stdin(Stdio::piped()));
                assert_eq!(heard[2..5], ["pipe", "pipe", null]);
                before();
                let mut swapped = command("/bin/sh");
                let swapped = run(swapped.stdout(Stdio::piped()).stderr(Stdio::piped()));
                assert_eq!(swapped[2..5], [null, "pipe", "pipe"]);
                before();
                for number in [7, 9] {
                    let mut passed = command("/bin/sh");
                    passed.stdout(Stdio::piped()).fd(number, fs::File::open("/proc/version").unwrap());
                    let passed = run(&passed);
                    let given = |n: i32| if n == number { "/proc/version" } else { "none" };
                    assert_eq!(passed[5..], [given(7), given(9)], "{number}");
                }
                // Nothing arrives at all.
                let mut silent = sandbox.command("/bin/sh");
                let silent = sandbox.hold().unwrap().spawn(silent.args(["-c", "exit 5"])).unwrap();
                assert_eq!(silent.wait().unwrap().verdict(), Verdict::Exited(5));
                let missing = sandbox.hold().unwrap().spawn(&sandbox.command("/no/such/program"));
                let error = missing.map(drop).unwrap_err().to_string();
                assert!(error.contains("/no/such/program") && error.contains("ENOENT"), "{error}");
            }
        }
    }

    #[test]
    fn a_mistake_in_the_command_uses_up_no_child() {
        let _watchdog = watchdog(60);
        let sandbox = system().build().unwrap();
        let pool = Pool::new(&sandbox, 2).unwrap();
        assert!(pool.wait_until_full(LONG));
        let error = pool.spawn(sandbox.command("true").arg("a\0b")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidCommand);
        let other = system().hostname("other").build().unwrap();
        let error = pool.spawn(&other.command("true")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidCommand);
        assert!(error.to_string().contains("another sandbox"), "{error}");
        let error = sandbox.hold().unwrap().spawn(&other.command("true")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidCommand);
        assert_eq!((pool.stats().waiting, pool.stats().hits), (2, 0));
        // A clone is the same sandbox.
        assert!(pool.spawn(&sandbox.clone().command("true")).unwrap().wait().unwrap().success());
        assert_eq!(Pool::new(&sandbox, 0).unwrap_err().kind(), ErrorKind::InvalidCommand);
        assert_eq!(Pool::new(&sandbox, 1001).unwrap_err().kind(), ErrorKind::InvalidCommand);
    }

    #[test]
    fn calls_are_notified_and_each_command_brings_its_supervisor() {
        let _watchdog = watchdog(60);
        if !Host::probe().features().contains(Features::SECCOMP_LISTENER | Features::PIDFD_GETFD) {
            skipped("calls_are_notified_and_each_command_brings_its_supervisor", "no listener here");
            return;
        }
        let filter = Filter::baseline().forget(["getpgid"]).deny(["getpgid"], Action::Notify);
        let sandbox = system().seccomp(filter).build().unwrap();
        let pool = Pool::new(&sandbox, 2).unwrap();
        for answer in [1111, 2222] {
            let mut command = sandbox.command("python3");
            command.args(["-c", "import os; print(os.getpgid(0))"]);
            let outcome = pool.output(command.on_notify(move |_| Response::Value(answer))).unwrap();
            assert_eq!(said(&outcome), format!("{answer}\n"));
            let mut long = shell(&sandbox, "read x");
            let child =
                pool.spawn(long.on_notify(|_| Response::Errno(libc::EPERM)).stdin(Stdio::piped())).unwrap();
            assert!(matches!(child.enforcement().supervisor, SupervisorState::Running));
        }
        // Without one nothing is started.
        assert_eq!(pool.spawn(&sandbox.command("true")).unwrap_err().kind(), ErrorKind::InvalidCommand);
    }

    #[test]
    fn a_groups_limit_holds() {
        let _watchdog = watchdog(60);
        if !is_root() {
            skipped("a_groups_limit_holds", "only root may make groups here");
            return;
        }
        let sandbox = match system().memory(64 << 20).build() {
            Ok(sandbox) => sandbox,
            Err(error) => return skipped("a_groups_limit_holds", &format!("{error:#}")),
        };
        let outcome = told(&sandbox, sandbox.command("python3").args(["-c", "b = bytearray(200 << 20)"]));
        assert!(
            matches!(outcome.verdict(), Verdict::OutOfMemory { .. } | Verdict::Exited(1)),
            "{}",
            outcome.verdict()
        );
        let pool = Pool::new(&sandbox, 2).unwrap();
        assert!(pool.output(&sandbox.command("true")).unwrap().success());
    }

    /// Init has the brief mapped to its end. This looks through the caller's mapping, which is the same memory.
    #[test]
    fn each_child_is_used_once() {
        let _watchdog = watchdog(120);
        let sandbox = system().build().unwrap();
        let pool = Pool::new(&sandbox, 3).unwrap();
        let mut running = Vec::new();
        for _ in 0..20 {
            let mut command = shell(&sandbox, "touch /tmp/mark && read x");
            running.push(pool.spawn(command.stdin(Stdio::piped())).unwrap());
            let outcome = pool.output(&shell(&sandbox, "ls -A /tmp")).unwrap();
            assert_eq!(said(&outcome), "", "nothing of another command's");
        }
        let inside: BTreeSet<_> = running.iter().map(|child| namespace(child.id(), "mnt").unwrap()).collect();
        assert_eq!(inside.len(), 20);
        let stats = pool.stats();
        assert_eq!((stats.hits + stats.misses, stats.lost, stats.failures), (40, 0, 0), "{stats:?}");
        assert!(stats.hits > 0);
    }

    #[test]
    fn sixteen_threads_share_a_pool() {
        alone(|| {
            let sandbox = system().build().unwrap();
            let before = descriptors();
            let pool = Pool::new(&sandbox, 8).unwrap();
            assert!(pool.wait_until_full(LONG));
            thread::scope(|scope| {
                for thread in 0..16 {
                    let (pool, sandbox) = (&pool, &sandbox);
                    scope.spawn(move || {
                        for job in 0..rounds(50) {
                            let text = format!("{thread} {job}");
                            let outcome = pool.output(sandbox.command("echo").arg(&text)).unwrap();
                            assert_eq!(said(&outcome), format!("{text}\n"));
                        }
                    });
                }
            });
            let stats = pool.stats();
            let jobs = u64::try_from(16 * rounds(50)).unwrap();
            assert_eq!((stats.hits + stats.misses, stats.lost, stats.failures), (jobs, 0, 0), "{stats:?}");
            assert!(stats.hits >= 8, "{stats:?}");
            assert!(pool.wait_until_full(LONG), "{:?}", pool.last_error());
            drop(pool);
            assert!(children().is_empty());
            // What takes long to close is closed a moment later.
            assert!(
                eventually(10, || descriptors().len() == before.len()),
                "{before:?}\n{:?}",
                descriptors()
            );
        });
    }

    #[test]
    fn a_child_that_was_killed_is_not_handed_out() {
        alone(|| {
            for init in [Init::Reaper, Init::Program] {
                let sandbox = system().init(init).build().unwrap();
                let pool = Pool::new(&sandbox, 3).unwrap();
                assert!(pool.wait_until_full(LONG));
                let waiting = children();
                assert_eq!(waiting.len(), 3);
                for pid in &waiting {
                    kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
                }
                // A signal that has not taken effect yet is one to a running program.
                let ended =
                    |pid: &i32| status_field(*pid, "State").is_none_or(|state| state.starts_with('Z'));
                assert!(eventually(10, || waiting.iter().all(ended)));
                for _ in 0..5 {
                    assert!(pool.output(&sandbox.command("true")).unwrap().success());
                }
                let stats = pool.stats();
                assert_eq!((stats.lost, stats.hits + stats.misses), (3, 5), "{stats:?}");
                assert!(pool.wait_until_full(LONG));
                assert!(children().is_disjoint(&waiting));
            }
        });
    }

    #[test]
    fn dropping_a_pool_ends_what_waits_and_nothing_else() {
        alone(|| {
            let sandbox = system().build().unwrap();
            for _ in 0..5 {
                let pool = Pool::new(&sandbox, 6).unwrap();
                let running = pool.spawn(shell(&sandbox, "read x; exit 5").stdin(Stdio::piped())).unwrap();
                drop(pool);
                assert_eq!(children(), BTreeSet::from([running.init_id().cast_signed()]));
                let threads = || {
                    let tasks = fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
                    tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
                };
                assert!(eventually(10, || threads().all(|name| name.trim() != "ringfence-pool")));
                let outcome = running.wait_with_output().unwrap();
                assert_eq!(outcome.verdict(), Verdict::Exited(5));
            }
        });
    }

    #[test]
    fn what_waits_ends_when_the_callers_process_is_killed() {
        const NAME: &str = "tests::what_waits_ends_when_the_callers_process_is_killed";
        let body = || match role().unwrap().as_str() {
            "alone" => {
                set_child_subreaper(true).unwrap();
                for way in 0..4 {
                    let mut caller =
                        again(NAME, &format!("pool-{way}")).stdout(ProcessStdio::piped()).spawn().unwrap();
                    let mut seen = String::new();
                    let mut byte = [0];
                    while !seen.ends_with("READY\n") {
                        assert_eq!(caller.stdout.as_mut().unwrap().read(&mut byte).unwrap(), 1, "{seen}");
                        seen.push(char::from(byte[0]));
                    }
                    caller.kill().unwrap();
                    caller.wait().unwrap();
                    let gone = eventually(10, || {
                        loop {
                            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                                Err(Errno::ECHILD) => return true,
                                Ok(WaitStatus::StillAlive) => return false,
                                Ok(_) | Err(_) => {}
                            }
                        }
                    });
                    assert!(gone, "{way}: {:?} outlived the caller", children());
                }
            }
            role => {
                let way: usize = role.rsplit('-').next().unwrap().parse().unwrap();
                let pool = Pool::new(&ways()[way], 3).unwrap();
                assert!(pool.wait_until_full(LONG));
                assert_eq!(children().len(), 3);
                stdout().write_all(b"READY\n").unwrap();
                thread::sleep(LONG);
                drop(pool);
            }
        };
        alone(body);
    }

    #[test]
    fn a_refill_that_fails_is_told_and_tried_again() {
        alone(|| {
            let (soft, hard) = getrlimit(OwnResource::RLIMIT_NOFILE).unwrap();
            let sandbox = system().build().unwrap();
            let pool = Pool::new(&sandbox, 4).unwrap();
            assert!(pool.wait_until_full(LONG));
            // No launch has enough descriptors any more.
            let waiting = children();
            setrlimit(OwnResource::RLIMIT_NOFILE, 4, hard).unwrap();
            for pid in &waiting {
                kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
            }
            assert!(!pool.wait_until_full(Duration::ZERO) || pool.stats().waiting == 4);
            let failed = eventually(20, || pool.stats().failures >= 2);
            setrlimit(OwnResource::RLIMIT_NOFILE, soft, hard).unwrap();
            assert!(failed, "{:?}", pool.stats());
            assert!(pool.last_error().is_some() || pool.stats().waiting > 0);
            assert!(pool.wait_until_full(LONG), "{:?}", pool.last_error());
            assert!(pool.last_error().is_none());
            assert!(pool.output(&sandbox.command("true")).unwrap().success());
        });
    }

    #[test]
    fn a_fence_that_cannot_be_set_up_makes_no_pool() {
        let _watchdog = watchdog(60);
        let missing = Mount::bind("/no/such/file/here", "/file");
        let builder: Builder = system().mount(missing);
        let sandbox = builder.build().unwrap();
        let error = Pool::new(&sandbox, 2).unwrap_err();
        assert_eq!(error.step(), sandbox.command("true").spawn().unwrap_err().step());
    }
}
