//! The bond between caller and program: no program outlives its caller's process, whatever the caller does to its threads,
//! signals and descriptors.
#![cfg_attr(
    test,
    expect(unsafe_code, reason = "fork, signal dispositions and closing descriptors by number")
)]

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::fs::File;
    use std::io::{Read, Write, pipe, stdout};
    use std::os::fd::{AsFd, OwnedFd};
    use std::panic::catch_unwind;
    use std::process::{Child as Caller, Stdio as ProcessStdio};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::sys::prctl::set_child_subreaper;
    use nix::sys::signal::{SigHandler, Signal, kill, signal};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::{ForkResult, Pid, fork};
    use ringfence::{Init, Launch, Sandbox, Stdio, Verdict};

    use super::support::{
        again, alone, children, descriptors, eventually, kernel, role, rounds, shell, status_field, system,
        watchdog,
    };

    const WAYS: [(Init, Launch); 4] = [
        (Init::Reaper, Launch::Image),
        (Init::Reaper, Launch::Copy),
        (Init::Program, Launch::Image),
        (Init::Program, Launch::Copy),
    ];

    fn sandbox((init, launch): (Init, Launch)) -> Sandbox {
        system().init(init).launch(launch).build().unwrap()
    }

    /// The way with the index that a role ends with.
    fn way(role: &str) -> (Init, Launch) {
        WAYS[role.rsplit('-').next().unwrap().parse::<usize>().unwrap()]
    }

    /// Starts this test binary as a caller of its own, and waits until it says that it is ready.
    fn caller(name: &str, role: &str) -> Caller {
        let mut caller = again(name, role).stdout(ProcessStdio::piped()).spawn().unwrap();
        let stdout = caller.stdout.as_mut().unwrap();
        let mut seen = String::new();
        let mut byte = [0];
        while !seen.ends_with("READY\n") {
            assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{role}: {seen}");
            seen.push(char::from(byte[0]));
        }
        caller
    }

    fn ready() {
        let mut to = File::from(duplicate_of_stdout());
        to.write_all(b"READY\n").unwrap();
    }

    fn duplicate_of_stdout() -> OwnedFd {
        stdout().as_fd().try_clone_to_owned().unwrap()
    }

    /// Kills the caller; then this process, which inherits all orphans, must soon have no child.
    fn kill_and_look(mut caller: Caller, what: &impl Debug) {
        caller.kill().unwrap();
        caller.wait().unwrap();
        // The limit is a guard for a loaded machine; it takes milliseconds.
        let gone = eventually(10, || {
            loop {
                match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                    Err(Errno::ECHILD) => return true,
                    Ok(WaitStatus::StillAlive) => return false,
                    Ok(_) | Err(_) => {}
                }
            }
        });
        if gone {
            return;
        }
        let left: Vec<_> = children()
            .into_iter()
            .map(|pid| (pid, status_field(pid, "Name"), status_field(pid, "State")))
            .collect();
        for (pid, _, _) in &left {
            kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
        }
        panic!("{what:?}: these outlived their caller: {left:?}");
    }

    fn observe(what: &str, name: &str) {
        set_child_subreaper(true).unwrap();
        for (index, way) in WAYS.iter().enumerate() {
            for _ in 0..3 {
                kill_and_look(caller(name, &format!("{what}-{index}")), way);
            }
        }
    }

    #[test]
    fn program_ends_when_the_callers_process_is_killed() {
        let body = || match role().unwrap().as_str() {
            "alone" => observe("run", "tests::program_ends_when_the_callers_process_is_killed"),
            run => {
                let script = "(setsid sleep 1000 &); (trap '' TERM HUP; sleep 1000) & sleep 1000";
                let child = shell(&sandbox(way(run)), script).spawn().unwrap();
                ready();
                child.wait().unwrap();
            }
        };
        alone(body);
    }

    #[test]
    fn held_child_ends_when_the_callers_process_is_killed() {
        let body = || match role().unwrap().as_str() {
            "alone" => observe("held", "tests::held_child_ends_when_the_callers_process_is_killed"),
            held => {
                let _held = sandbox(way(held)).command("sleep").arg("1000").spawn_held().unwrap();
                ready();
                thread::sleep(Duration::from_secs(100));
            }
        };
        alone(body);
    }

    #[test]
    fn nothing_survives_a_caller_that_is_killed_during_set_up() {
        let body = || match role().unwrap().as_str() {
            "alone" => {
                set_child_subreaper(true).unwrap();
                let name = "tests::nothing_survives_a_caller_that_is_killed_during_set_up";
                for run in 0..80_u64 {
                    let caller = caller(name, &format!("setup-{}", run % 4));
                    let delay = Duration::from_micros(run * 83);
                    thread::sleep(delay);
                    kill_and_look(caller, &(WAYS[usize::try_from(run % 4).unwrap()], delay));
                }
            }
            setup => {
                let sandbox = sandbox(way(setup));
                ready();
                let work = || loop {
                    let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
                    drop(child);
                };
                thread::scope(|scope| {
                    scope.spawn(work);
                    scope.spawn(work);
                });
            }
        };
        alone(body);
    }

    #[test]
    fn program_lives_on_when_the_thread_that_spawned_it_ends() {
        let _watchdog = watchdog(60);
        for way in WAYS {
            let sandbox = sandbox(way);
            let script = "read line; exit 17";
            let (mut child, held) = thread::scope(|scope| {
                let spawned = scope.spawn(|| {
                    let child = shell(&sandbox, script).stdin(Stdio::piped()).spawn().unwrap();
                    (child, shell(&sandbox, "exit 18").spawn_held().unwrap())
                });
                spawned.join().unwrap()
            });
            // A signal for the parent's death would have arrived by now.
            assert!(child.wait_timeout(Duration::from_millis(100)).unwrap().is_none(), "{way:?}");
            child.stdin.take().unwrap().write_all(b"go\n").unwrap();
            assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(17), "{way:?}");
            let released = thread::spawn(|| held.release().unwrap()).join().unwrap();
            assert_eq!(released.wait().unwrap().verdict(), Verdict::Exited(18), "{way:?}");
        }
    }

    /// What a program without init ended with, when someone else reaped it, is known since Linux 6.15.
    fn exact(way: (Init, Launch)) -> bool {
        way.0 == Init::Reaper || kernel() >= (6, 15)
    }

    fn statuses_are_exact() {
        for way in WAYS {
            let sandbox = sandbox(way);
            for code in [0, 1, 33, 127, 255] {
                let child = shell(&sandbox, &format!("exit {code}")).spawn().unwrap();
                let verdict = child.wait().unwrap().verdict();
                let known = verdict == Verdict::Exited(code) || (!exact(way) && verdict == Verdict::Lost);
                assert!(known, "{way:?} {code}: {verdict:?}");
                assert_eq!(child.try_wait().unwrap().unwrap().verdict(), verdict);
            }
            let outcome = shell(&sandbox, "echo a; echo b >&2; kill -SEGV $$; exit 3").output().unwrap();
            assert_eq!((outcome.stdout.as_slice(), outcome.stderr.as_slice()), (&b"a\n"[..], &b"b\n"[..]));
            let signal = outcome.status.and_then(|status| status.signal());
            // Without a handler, PID 1 does not end by a signal of its own.
            if way.0 == Init::Reaper {
                assert_eq!(signal, Some(libc::SIGSEGV), "{way:?}");
            }
            let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
            assert!(child.wait_timeout(Duration::from_millis(20)).unwrap().is_none(), "{way:?}");
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().verdict(), Verdict::Killed, "{way:?}");
            drop(sandbox.command("sleep").arg("1000").spawn_held().unwrap());
            let error = sandbox.command("/no/such").spawn().map(drop).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{way:?} {error}");
        }
    }

    #[test]
    fn caller_that_ignores_sigchld_gets_exact_statuses() {
        alone(|| {
            // SAFETY: no handler is set, so nothing runs in one.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.unwrap();
            statuses_are_exact();
            assert!(eventually(10, || children().is_empty()));
        });
    }

    #[test]
    fn caller_with_a_thread_that_reaps_everything_gets_exact_statuses() {
        alone(|| {
            let stop = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&stop);
            let reaper = thread::spawn(move || {
                while !seen.load(Ordering::SeqCst) {
                    if waitpid(None::<Pid>, None).is_err() {
                        thread::yield_now();
                    }
                }
            });
            for _ in 0..3 {
                statuses_are_exact();
            }
            assert!(eventually(10, || children().is_empty()));
            stop.store(true, Ordering::SeqCst);
            reaper.join().unwrap();
        });
    }

    fn is_open(number: i32) -> bool {
        // SAFETY: F_GETFD takes a number and changes nothing.
        unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
    }

    /// Runs with these standard descriptors closed.
    fn with_closed(subset: i32) {
        let closed: Vec<i32> = (0..3).filter(|number| subset >> number & 1 == 1).collect();
        for number in &closed {
            // SAFETY: nothing of this process uses the number from here on: the process ends without a word.
            assert_eq!(unsafe { libc::close(*number) }, 0);
        }
        let before = descriptors();
        for way in WAYS {
            let sandbox = sandbox(way);
            let outcome = shell(&sandbox, "echo out; echo err >&2; ls /proc/self/fd").output().unwrap();
            assert_eq!(String::from_utf8_lossy(&outcome.stdout), "out\n0\n1\n2\n3\n", "{way:?} {closed:?}");
            assert_eq!(outcome.stderr, b"err\n", "{way:?} {closed:?}");
            let mut inheriting =
                shell(&sandbox, "for n in 0 1 2; do [ -e /proc/self/fd/$n ] || exit 9; done");
            inheriting.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
            assert_eq!(inheriting.status().unwrap().verdict(), Verdict::Exited(0), "{way:?} {closed:?}");
            let (read, write) = pipe().unwrap();
            let mut passing = shell(&sandbox, "cat <&5; cat <&9");
            let file = File::open("/dev/null").unwrap();
            let outcome = passing.fd(5, read).fd(9, file).stdin(Stdio::piped()).spawn_held().unwrap();
            drop(passing);
            (&write).write_all(b"x").unwrap();
            drop(write);
            assert_eq!(outcome.release().unwrap().wait().unwrap().verdict(), Verdict::Exited(0));
            drop(sandbox.command("sleep").arg("100").spawn_held().unwrap());
            sandbox.command("/no/such").spawn().map(drop).unwrap_err();
        }
        assert_eq!(descriptors(), before, "{closed:?}");
        for number in closed {
            assert!(!is_open(number), "{number}");
        }
    }

    #[test]
    fn caller_with_closed_standard_descriptors_works() {
        let body = || match role().unwrap().as_str() {
            "alone" => {
                for subset in 0..8 {
                    let name = "tests::caller_with_closed_standard_descriptors_works";
                    let output = again(name, &subset.to_string()).output().unwrap();
                    assert_eq!(output.status.code(), Some(42), "subset {subset:#b}: {output:?}");
                }
            }
            subset => {
                let subset = subset.parse().unwrap();
                let code = if catch_unwind(|| with_closed(subset)).is_ok() { 42 } else { 1 };
                // SAFETY: it ends the process and returns nowhere; the harness would write to closed descriptors.
                unsafe { libc::_exit(code) };
            }
        };
        alone(body);
    }

    /// A fork of this process that holds a copy of every descriptor.
    fn unrelated_fork() -> Pid {
        // SAFETY: the child of this process with many threads calls only pause(2), which is async-signal-safe.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => child,
            ForkResult::Child => loop {
                // SAFETY: it takes nothing.
                unsafe { libc::pause() };
            },
        }
    }

    fn end(pid: Pid) {
        kill(pid, Signal::SIGKILL).unwrap();
        waitpid(pid, None).unwrap();
    }

    #[test]
    fn unrelated_fork_with_a_copy_of_the_socket_hangs_nothing() {
        alone(|| {
            for way in WAYS {
                let sandbox = sandbox(way);
                let held = sandbox.command("true").spawn_held().unwrap();
                let forked = unrelated_fork();
                assert_eq!(held.release().unwrap().wait().unwrap().verdict(), Verdict::Exited(0));
                drop(sandbox.command("true").spawn_held().unwrap());
                let held = sandbox.command("/no/such").spawn_held().unwrap();
                let other = unrelated_fork();
                let error = held.release().map(drop).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{way:?} {error}");
                end(forked);
                end(other);
            }
        });
    }

    #[test]
    fn unrelated_forks_at_any_moment_of_a_spawn_hang_nothing() {
        alone(|| {
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    // They live on to the end, so that what one of them holds stays held.
                    let mut forked = Vec::new();
                    while !stop.load(Ordering::SeqCst) {
                        if forked.len() < 400 {
                            forked.push(unrelated_fork());
                        }
                        thread::sleep(Duration::from_micros(500));
                    }
                    forked.into_iter().for_each(end);
                });
                let spawns = || {
                    for way in [WAYS[0], WAYS[2]] {
                        let sandbox = sandbox(way);
                        for run in 0..rounds(60) {
                            // A program that ends by itself would be noticed by its pidfd.
                            let child = sandbox.command("sleep").arg("1000").spawn();
                            let child = child.unwrap_or_else(|error| panic!("{way:?} {run}: {error}"));
                            child.kill().unwrap();
                            assert_eq!(child.wait().unwrap().verdict(), Verdict::Killed);
                            let error = sandbox.command("/no/such").spawn().map(drop).unwrap_err();
                            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{way:?} {error}");
                        }
                    }
                };
                let done = scope.spawn(spawns).join();
                stop.store(true, Ordering::SeqCst);
                assert!(done.is_ok(), "a spawn was held up by a fork of the caller");
            });
        });
    }

    #[test]
    fn a_fork_of_the_caller_can_spawn_too() {
        let body = || {
            // The thread that lasts is there by now; a fork does not have it.
            let sandbox = sandbox(WAYS[2]);
            shell(&sandbox, "exit 0").status().unwrap();
            // SAFETY: the harness runs one test and its threads hold no lock that the child needs: glibc's fork takes
            // care of its own.
            let forked = unsafe { fork() }.unwrap();
            let ForkResult::Parent { child } = forked else {
                let verdict = shell(&sandbox, "exit 44").status().map(|outcome| outcome.verdict());
                let code = if matches!(verdict, Ok(Verdict::Exited(44))) { 44 } else { 1 };
                // SAFETY: it ends the process and returns nowhere.
                unsafe { libc::_exit(code) };
            };
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 44));
        };
        alone(body);
    }
}
