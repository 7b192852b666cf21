//! The life of a program: statuses, signals, waiting, killing, dropping.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::sync::{Arc, Barrier};
    use std::thread;
    use std::time::Duration;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use ringfence::{Child, Core, ErrorKind, Init, Launch, Outcome, Sandbox, Stdio, Step, Verdict};

    use super::support::{
        alone, children, eventually, members, pid_namespace, shell, skipped, status_field, system, watchdog,
    };

    fn sandbox() -> Sandbox {
        system().build().unwrap()
    }

    fn program_first() -> Sandbox {
        system().init(Init::Program).build().unwrap()
    }

    fn raw(pid: u32) -> Pid {
        Pid::from_raw(pid.cast_signed())
    }

    fn line(child: &mut Child) -> String {
        let stream = child.stdout.as_mut().unwrap();
        let (mut text, mut byte) = (String::new(), [0]);
        while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            text.push(char::from(byte[0]));
        }
        text
    }

    fn is_zombie_or_there(pid: u32) -> bool {
        fs::metadata(format!("/proc/{pid}")).is_ok()
    }

    #[test]
    fn spawn_is_ok_only_after_exec() {
        let _watchdog = watchdog(60);
        for launch in [Launch::Image, Launch::Copy] {
            let sandbox = system().launch(launch).build().unwrap();
            for _ in 0..20 {
                let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
                let exe = fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
                let exe = exe.to_string_lossy().into_owned();
                assert!(exe.contains("/bin/") && !exe.contains("memfd"), "{launch:?}: {exe}");
            }
            let error = sandbox.command("/no/such/program").spawn().map(drop).unwrap_err();
            assert_eq!((error.kind(), error.step()), (ErrorKind::Exec, Step::Exec), "{error}");
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
        }
    }

    #[test]
    fn exit_codes_pass_through_exactly() {
        let _watchdog = watchdog(60);
        for sandbox in [sandbox(), program_first()] {
            for code in [0, 1, 2, 77, 125, 126, 127, 128, 137, 139, 254, 255] {
                let outcome = shell(&sandbox, &format!("exit {code}")).status().unwrap();
                assert_eq!(outcome.verdict(), Verdict::Exited(code));
                assert_eq!(outcome.code(), Some(code));
                assert_eq!(outcome.success(), code == 0);
                let status = outcome.status.unwrap();
                assert_eq!((status.into_raw(), status.signal()), (code << 8, None));
            }
        }
    }

    #[test]
    fn signals_pass_through_exactly() {
        let _watchdog = watchdog(60);
        let sandbox = sandbox();
        for signal in [
            Signal::SIGSEGV,
            Signal::SIGKILL,
            Signal::SIGABRT,
            Signal::SIGTERM,
            Signal::SIGUSR1,
            Signal::SIGHUP,
            Signal::SIGPIPE,
            Signal::SIGXCPU,
        ] {
            let number = signal as i32;
            let outcome = shell(&sandbox, &format!("kill -{number} $$; sleep 100")).status().unwrap();
            let expected = Verdict::Signaled { signal: number, core: Core::None };
            assert_eq!(outcome.verdict(), expected, "{signal}");
            assert_eq!(outcome.code(), None);
            let status = outcome.status.unwrap();
            assert_eq!((status.signal(), status.core_dumped()), (Some(number), false));
        }
    }

    #[test]
    fn killed_by_the_handle_is_told_from_killed_by_itself() {
        let _watchdog = watchdog(60);
        for sandbox in [sandbox(), program_first()] {
            let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().verdict(), Verdict::Killed);
            let child = sandbox.command("true").spawn().unwrap();
            child.wait().unwrap();
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(0), "it had ended before");
        }
    }

    #[test]
    fn program_killed_from_outside_gives_its_signal() {
        let _watchdog = watchdog(60);
        for sandbox in [sandbox(), program_first()] {
            let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
            if let Err(errno) = kill(raw(child.id()), Signal::SIGKILL) {
                skipped("program_killed_from_outside_gives_its_signal", errno.desc());
                return;
            }
            let expected = Verdict::Signaled { signal: libc::SIGKILL, core: Core::None };
            assert_eq!(child.wait().unwrap().verdict(), expected);
        }
    }

    #[test]
    fn init_killed_from_outside_ends_everything() {
        let _watchdog = watchdog(60);
        let child = sandbox().command("sleep").arg("1000").spawn().unwrap();
        let inode = pid_namespace(&child);
        kill(raw(child.init_id()), Signal::SIGKILL).unwrap();
        let outcome = child.wait().unwrap();
        assert_eq!(outcome.verdict(), Verdict::Signaled { signal: libc::SIGKILL, core: Core::None });
        assert_eq!(members(&inode), Vec::<i32>::new());
    }

    #[test]
    fn try_wait_says_none_while_it_runs_and_the_outcome_after() {
        let _watchdog = watchdog(60);
        let sandbox = sandbox();
        let mut child = shell(&sandbox, "read line; exit 9").stdin(Stdio::piped()).spawn().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let mut seen = None;
        assert!(eventually(30, || {
            seen = child.try_wait().unwrap();
            seen.is_some()
        }));
        assert_eq!(seen.unwrap().verdict(), Verdict::Exited(9));
        assert_eq!(child.try_wait().unwrap().unwrap().verdict(), Verdict::Exited(9), "and again");
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(9));
    }

    #[test]
    fn wait_timeout_counts_parts_of_a_second() {
        let _watchdog = watchdog(60);
        let sandbox = sandbox();
        let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
        for limit in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(30)] {
            assert!(child.wait_timeout(limit).unwrap().is_none(), "{limit:?}");
        }
        child.kill().unwrap();
        assert!(child.wait_timeout(Duration::ZERO).unwrap().is_some());
        let child = shell(&sandbox, "exit 4").spawn().unwrap();
        for limit in [Duration::from_secs(50), Duration::from_secs(u64::MAX), Duration::MAX] {
            let outcome = child.wait_timeout(limit).unwrap().unwrap();
            assert_eq!(outcome.verdict(), Verdict::Exited(4));
        }
    }

    #[test]
    fn many_threads_wait_at_once_and_all_see_the_same() {
        let _watchdog = watchdog(60);
        let sandbox = sandbox();
        let mut child = shell(&sandbox, "read line; exit 33").stdin(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let child = Arc::new(child);
        let start = Arc::new(Barrier::new(17));
        let threads: Vec<_> = (0..16)
            .map(|index| {
                let (child, start) = (Arc::clone(&child), Arc::clone(&start));
                thread::spawn(move || {
                    start.wait();
                    match index % 3 {
                        0 => child.wait().unwrap(),
                        1 => child.wait_timeout(Duration::from_secs(50)).unwrap().unwrap(),
                        _ => loop {
                            if let Some(outcome) = child.try_wait().unwrap() {
                                break outcome;
                            }
                            thread::yield_now();
                        },
                    }
                })
            })
            .collect();
        start.wait();
        drop(stdin);
        let outcomes: Vec<Outcome> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(outcomes[0].verdict(), Verdict::Exited(33));
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:#?}");
    }

    #[test]
    fn output_of_both_streams_does_not_deadlock() {
        let _watchdog = watchdog(120);
        let script = "head -c 8388608 /dev/zero & head -c 8388608 /dev/zero >&2; wait";
        let outcome = shell(&sandbox(), script).output().unwrap();
        assert_eq!((outcome.stdout.len(), outcome.stderr.len()), (8 << 20, 8 << 20));
        assert_eq!(outcome.verdict(), Verdict::Exited(0));
        // One after the other, in either order.
        for script in [
            "head -c 8388608 /dev/zero; head -c 8388608 /dev/zero >&2",
            "head -c 8388608 /dev/zero >&2; head -c 8388608 /dev/zero",
        ] {
            let outcome = shell(&sandbox(), script).output().unwrap();
            assert_eq!((outcome.stdout.len(), outcome.stderr.len()), (8 << 20, 8 << 20));
        }
    }

    #[test]
    fn standard_input_can_be_piped() {
        let _watchdog = watchdog(60);
        let sandbox = sandbox();
        let mut child = sandbox.command("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = thread::spawn(move || {
            for _ in 0..1024 {
                stdin.write_all(&[b'x'; 1024]).unwrap();
            }
        });
        let outcome = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert_eq!(outcome.stdout, vec![b'x'; 1 << 20]);
        let outcome = sandbox.command("cat").output().unwrap();
        assert_eq!(outcome.stdout, b"", "by default there is nothing to read");
    }

    #[test]
    fn kill_ends_a_tree_of_daemons() {
        let _watchdog = watchdog(120);
        let script =
            "i=0; while [ $i -lt 50 ]; do (setsid sh -c 'sleep 1000 & sleep 1000' &) ; i=$((i+1)); done
            while [ $(grep -lx sleep /proc/[0-9]*/comm 2>/dev/null | wc -l) -lt 100 ]; do :; done
            echo up; sleep 1000";
        for sandbox in [sandbox(), program_first()] {
            let mut child = shell(&sandbox, script).stdout(Stdio::piped()).spawn().unwrap();
            assert_eq!(line(&mut child), "up");
            let inode = pid_namespace(&child);
            assert!(members(&inode).len() >= 100, "{:?}", members(&inode));
            child.kill().unwrap();
            assert_eq!(members(&inode), Vec::<i32>::new());
            assert_eq!(child.wait().unwrap().verdict(), Verdict::Killed);
        }
    }

    #[test]
    fn what_outlives_the_program_ends_with_it() {
        let _watchdog = watchdog(60);
        let script =
            "for i in 1 2 3 4 5; do (setsid sleep 1000 >/dev/null 2>&1 &) ; done; echo up; read x; exit 5";
        for sandbox in [sandbox(), program_first()] {
            let mut command = shell(&sandbox, script);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            assert_eq!(line(&mut child), "up");
            let inode = pid_namespace(&child);
            drop(child.stdin.take());
            assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(5));
            assert_eq!(members(&inode), Vec::<i32>::new());
        }
    }

    #[test]
    fn dropping_kills_and_reaps() {
        alone(|| {
            let before = children();
            for sandbox in [sandbox(), program_first()] {
                let child = shell(&sandbox, "sleep 1000 & sleep 1000").spawn().unwrap();
                let (inode, init) = (pid_namespace(&child), child.init_id());
                drop(child);
                assert!(!is_zombie_or_there(init));
                assert_eq!(members(&inode), Vec::<i32>::new());
                assert_eq!(children(), before);
                let held = sandbox.command("true").spawn_held().unwrap();
                let (id, init) = (held.id(), held.init_id());
                assert!(is_zombie_or_there(id) && is_zombie_or_there(init));
                drop(held);
                assert!(!is_zombie_or_there(id) && !is_zombie_or_there(init));
                assert_eq!(children(), before);
                let ended = sandbox.command("true").spawn().unwrap();
                ended.as_fd();
                assert!(eventually(30, || {
                    status_field(ended.init_id(), "State").is_some_and(|state| state.starts_with('Z'))
                }));
                drop(ended);
                assert_eq!(children(), before, "an ended child is reaped when it is dropped");
            }
        });
    }

    #[test]
    fn signals_go_to_the_program() {
        let _watchdog = watchdog(60);
        let script = "trap 'echo term' TERM; trap 'echo usr1' USR1; trap 'exit 21' INT; echo up
            while :; do sleep 0.01; done";
        for sandbox in [sandbox(), program_first()] {
            let mut child = shell(&sandbox, script).stdout(Stdio::piped()).spawn().unwrap();
            assert_eq!(line(&mut child), "up");
            child.signal(libc::SIGTERM).unwrap();
            assert_eq!(line(&mut child), "term");
            child.signal(libc::SIGUSR1).unwrap();
            assert_eq!(line(&mut child), "usr1");
            kill(raw(child.init_id()), Signal::SIGUSR1).unwrap();
            assert_eq!(line(&mut child), "usr1");
            kill(raw(child.init_id()), Signal::SIGTERM).unwrap();
            assert_eq!(line(&mut child), "term");
            child.signal(libc::SIGINT).unwrap();
            assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(21));
        }
    }

    #[test]
    fn every_signal_that_can_be_forwarded_arrives() {
        let _watchdog = watchdog(60);
        let numbers: Vec<i32> = (1..=64)
            .filter(|number| ![libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD, 32, 33].contains(number))
            .collect();
        let list: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        let script = format!(
            "for s in {}; do trap \"echo $s\" $s; done; echo up; while :; do sleep 0.01; done",
            list.join(" ")
        );
        let mut child =
            sandbox().command("bash").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(line(&mut child), "up");
        for _ in 0..2 {
            for number in &numbers {
                child.signal(*number).unwrap();
                assert_eq!(line(&mut child), number.to_string());
            }
        }
        child.kill().unwrap();
    }

    #[test]
    fn a_signal_without_handler_ends_the_program_behind_init() {
        let _watchdog = watchdog(60);
        for signal in [libc::SIGTERM, libc::SIGUSR2, libc::SIGALRM, 40] {
            let child = sandbox().command("sleep").arg("1000").spawn().unwrap();
            child.signal(signal).unwrap();
            let outcome = child.wait().unwrap();
            assert_eq!(outcome.verdict(), Verdict::Signaled { signal, core: Core::None });
        }
    }

    #[test]
    fn signalling_what_has_ended_says_so() {
        let _watchdog = watchdog(60);
        let child = sandbox().command("true").spawn().unwrap();
        child.wait().unwrap();
        let error = child.signal(libc::SIGTERM).unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::Kill, Some(libc::ESRCH)), "{error}");
        let child = sandbox().command("sleep").arg("1000").spawn().unwrap();
        let error = child.signal(9999).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        child.signal(libc::SIGKILL).unwrap();
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Killed);
    }

    #[test]
    fn a_stopped_program_has_not_ended_and_goes_on_when_told() {
        let _watchdog = watchdog(60);
        // SIGTSTP would do nothing: the program's process group is orphaned (setpgid(2)).
        let child = shell(&sandbox(), "kill -STOP $$; sleep 1000").spawn().unwrap();
        let state = || status_field(child.id(), "State").unwrap_or_default();
        assert!(eventually(30, || state().starts_with('T')), "{}", state());
        assert!(child.wait_timeout(Duration::from_millis(30)).unwrap().is_none());
        child.signal(libc::SIGCONT).unwrap();
        assert!(eventually(30, || state().starts_with('S')), "{}", state());
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        let stopped = shell(&sandbox(), "kill -STOP $$").spawn().unwrap();
        stopped.kill().unwrap();
        assert_eq!(stopped.wait().unwrap().verdict(), Verdict::Killed);
    }

    #[test]
    fn usage_is_the_programs() {
        let _watchdog = watchdog(60);
        let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        for sandbox in [sandbox(), program_first()] {
            let outcome = shell(&sandbox, script).status().unwrap();
            let usage = outcome.usage;
            assert!(usage.user + usage.system > Duration::from_millis(20), "{usage:?}");
            assert!(usage.max_resident > 500_000 && usage.faults.0 > 50, "{usage:?}");
            assert!(outcome.tree_usage.user + outcome.tree_usage.system >= usage.user, "{outcome:?}");
            let idle = sandbox.command("true").status().unwrap().usage;
            assert!(idle.user + idle.system < usage.user + usage.system);
        }
    }

    #[test]
    fn the_pidfd_can_be_polled() {
        let _watchdog = watchdog(60);
        let sandbox = sandbox();
        let mut child = shell(&sandbox, "read x").stdin(Stdio::piped()).spawn().unwrap();
        let ready = |child: &Child, wait: u16| {
            let mut list = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
            poll(&mut list, PollTimeout::from(wait)).unwrap()
        };
        assert_eq!(ready(&child, 0), 0);
        drop(child.stdin.take());
        assert_eq!(ready(&child, 50_000), 1);
        assert_eq!(child.try_wait().unwrap().unwrap().verdict(), Verdict::Exited(1));
        let held = sandbox.command("true").spawn_held().unwrap();
        let mut list = [PollFd::new(held.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut list, PollTimeout::ZERO).unwrap(), 0);
    }

    #[test]
    fn a_command_can_be_spawned_many_times() {
        let _watchdog = watchdog(60);
        let sandbox = sandbox();
        let mut command = sandbox.command("sleep");
        command.arg("1000");
        // All at once: a number is used again when its namespace is gone.
        let living: Vec<Child> = (0..5).map(|_| command.spawn().unwrap()).collect();
        let inodes: BTreeSet<String> = living.iter().map(pid_namespace).collect();
        assert_eq!(inodes.len(), 5, "each run has namespaces of its own");
    }
}
