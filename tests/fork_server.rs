//! The fork server: what workers are given, how they end, and what survives whom.
#![cfg_attr(test, expect(unsafe_code, reason = "fork: a caller that can be killed"))]

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::hint::black_box;
    use std::io::{Read, Write, pipe, stderr, stdout};
    use std::process::{Command, abort};
    use std::thread;
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill, raise};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, Pid, fork, getpgid};
    use ringfence::{
        Action, Builder, Child, Clock, Error, ErrorKind, ExitStatus, Filter, ForkServer, Init, StatusFrom,
        Stdio, Step, Verdict, Worker, WorkerIo, living,
    };

    use super::support::{alone, children, descriptors, eventually, kernel, system, watchdog};

    fn code(io: &mut WorkerIo) -> i32 {
        i32::from(io.arguments[0])
    }

    fn echo(io: &mut WorkerIo) -> i32 {
        let channel = io.channel.take().unwrap();
        let message = channel.receive().unwrap().unwrap();
        channel.send(&[&io.arguments[..], &message.bytes].concat(), &[]).unwrap();
        let mut text = String::new();
        File::from(io.fds.remove(0)).read_to_string(&mut text).unwrap();
        File::from(io.fds.remove(0)).write_all(text.to_uppercase().as_bytes()).unwrap();
        // Past libtest's capture, which is copied too.
        stdout().write_all(b"out").unwrap();
        stderr().write_all(b"err").unwrap();
        0
    }

    fn hang(_io: &mut WorkerIo) -> i32 {
        loop {
            thread::sleep(Duration::from_secs(100));
        }
    }

    fn crash(io: &mut WorkerIo) -> i32 {
        match io.arguments.first() {
            Some(b'p') => panic!("as asked"),
            Some(b's') => {
                raise(Signal::SIGSEGV).unwrap();
                0
            }
            Some(b'k') => {
                black_box(getpgid(None).is_ok());
                0
            }
            _ => abort(),
        }
    }

    fn start(builder: Builder) -> ForkServer {
        let server = builder.build().unwrap().fork_server().allow_threads();
        let server = server.function("code", code).function("echo", echo).function("hang", hang);
        server.function("crash", crash).start().unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn spawn(worker: &Worker<'_>) -> Child {
        worker.spawn().unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn code_of(server: &ForkServer, code: u8) -> Verdict {
        spawn(server.worker("code").arguments([code])).wait().unwrap().verdict()
    }

    #[test]
    fn a_worker_is_given_arguments_descriptors_and_a_channel() {
        let _watchdog = watchdog(200);
        let server = start(system());
        let (from, mut feed) = pipe().unwrap();
        let (mut result, to) = pipe().unwrap();
        let mut worker = server.worker("echo");
        worker.arguments("hello ").fd(from).fd(to).channel().stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(&worker);
        drop(worker);
        let channel = child.channel.take().unwrap();
        channel.send(b"world", &[]).unwrap();
        assert_eq!(channel.receive().unwrap().unwrap().bytes, b"hello world");
        feed.write_all(b"loud").unwrap();
        drop(feed);
        let mut text = String::new();
        result.read_to_string(&mut text).unwrap();
        assert_eq!(text, "LOUD");
        let outcome = child.wait_with_output().unwrap();
        assert_eq!((&outcome.stdout[..], &outcome.stderr[..]), (&b"out"[..], &b"err"[..]));
        assert!(outcome.success(), "{outcome:?}");
    }

    #[test]
    fn each_end_is_told_exactly_and_the_server_goes_on() {
        let _watchdog = watchdog(200);
        let kills = Filter::baseline().forget(["getpgid"]).deny(["getpgid"], Action::KillProcess);
        let server = start(system().seccomp(kills));
        for wanted in [0_u8, 1, 42, 125, 255] {
            let outcome = spawn(server.worker("code").arguments([wanted])).wait().unwrap();
            assert_eq!(outcome.verdict(), Verdict::Exited(i32::from(wanted)));
            // The kernel keeps it since Linux 6.15; before, it is the server's word.
            let from = if kernel() >= (6, 15) { StatusFrom::Kernel } else { StatusFrom::Server };
            assert_eq!(outcome.status_from, from);
            assert!(outcome.tree_usage.max_resident > 0, "the server told what it used: {outcome:?}");
        }
        for (how, signal) in [("s", libc::SIGSEGV), ("k", libc::SIGSYS), ("a", libc::SIGABRT)] {
            let outcome = spawn(server.worker("crash").arguments(how)).wait().unwrap();
            assert_eq!(outcome.status.and_then(ExitStatus::signal), Some(signal), "{how}: {outcome:?}");
        }
        let mut worker = server.worker("crash");
        let outcome = spawn(worker.arguments("p").stderr(Stdio::piped())).wait_with_output().unwrap();
        assert_eq!(outcome.verdict(), Verdict::Exited(101));
        let text = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert!(
            text.starts_with("panicked at tests/fork_server.rs:") && text.ends_with(": as asked\n"),
            "{text}"
        );
        assert_eq!(code_of(&server, 7), Verdict::Exited(7));
    }

    #[test]
    fn a_hung_worker_is_killed_and_nobody_else() {
        let _watchdog = watchdog(200);
        let server = start(system());
        let (hung, other) = (spawn(&server.worker("hang")), spawn(&server.worker("hang")));
        assert!(hung.try_wait().unwrap().is_none());
        hung.kill().unwrap();
        assert_eq!(hung.wait().unwrap().verdict(), Verdict::Killed);
        assert!(other.wait_timeout(Duration::from_millis(50)).unwrap().is_none());
        assert_eq!(code_of(&server, 3), Verdict::Exited(3));
        let mut end = server.worker("hang");
        let ended = spawn(end.name("hung")).id();
        assert!(!living().iter().any(|one| one.id() == ended), "dropping it ended it");
    }

    #[test]
    fn the_clocks_of_the_policy_are_each_workers_own() {
        let _watchdog = watchdog(200);
        let limit = Duration::from_millis(400);
        let server = start(system().wall_time(limit));
        thread::sleep(limit * 2);
        let hung = spawn(&server.worker("hang"));
        assert_eq!(hung.wait().unwrap().verdict(), Verdict::TimedOut { clock: Clock::Wall, limit });
        assert_eq!(code_of(&server, 3), Verdict::Exited(3));
    }

    fn gone(error: &Error) {
        assert_eq!(
            (error.kind(), error.object().to_string()),
            (ErrorKind::Process, "fork server".to_owned()),
            "{error}"
        );
    }

    #[test]
    fn a_server_that_is_gone_is_an_error_and_its_workers_end() {
        let _watchdog = watchdog(200);
        let server = start(system());
        let (one, other) = (spawn(&server.worker("hang")), spawn(&server.worker("hang")));
        kill(Pid::from_raw(server.child().id().cast_signed()), Signal::SIGKILL).unwrap();
        for worker in [one, other] {
            let outcome = worker.wait().unwrap();
            let killed =
                matches!(outcome.verdict(), Verdict::Signaled { signal: libc::SIGKILL, .. } | Verdict::Lost);
            assert!(killed, "{outcome:?}");
        }
        for _ in 0..3 {
            gone(&server.worker("code").arguments([1]).spawn().unwrap_err());
        }
    }

    #[test]
    fn a_server_that_does_not_answer_is_an_error_in_time() {
        let _watchdog = watchdog(200);
        let server = start(system().setup_timeout(Duration::from_secs(3)));
        assert_eq!(code_of(&server, 1), Verdict::Exited(1));
        let pid = Pid::from_raw(server.child().id().cast_signed());
        kill(pid, Signal::SIGSTOP).unwrap();
        let error = server.worker("hang").spawn().unwrap_err();
        assert!(error.to_string().contains("did not answer in time"), "{error}");
        kill(pid, Signal::SIGCONT).unwrap();
        // Whom nobody owns the server ends: only itself and init are left.
        assert_eq!(code_of(&server, 5), Verdict::Exited(5));
        assert!(
            eventually(20, || server.child().processes().unwrap().len() == 2),
            "{:?}",
            server.child().processes()
        );
    }

    #[test]
    fn requests_above_the_limits_are_mistakes() {
        let _watchdog = watchdog(200);
        let server = start(system());
        let mistake = |worker: &mut Worker<'_>, object: &str| {
            let error = worker.spawn().unwrap_err();
            assert_eq!((error.kind(), error.step()), (ErrorKind::InvalidCommand, Step::Command));
            assert_eq!(error.object().to_string(), object);
        };
        mistake(&mut server.worker("nobody"), "function \"nobody\"");
        mistake(server.worker("code").arguments(vec![1; Worker::ARGUMENTS_MAX + 1]), "arguments");
        let mut many = server.worker("code");
        for _ in 0..=Worker::DESCRIPTORS_MAX {
            many.fd(File::open("/dev/null").unwrap());
        }
        mistake(&mut many, "descriptors");
        let mut most = server.worker("code");
        for _ in 0..Worker::DESCRIPTORS_MAX {
            most.fd(File::open("/dev/null").unwrap());
        }
        let child = spawn(most.arguments(vec![9; Worker::ARGUMENTS_MAX]));
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(9));
    }

    #[test]
    fn a_narrow_filter_is_the_workers_and_not_the_servers() {
        let _watchdog = watchdog(200);
        let sandbox = system().seccomp(Filter::worker()).build().unwrap();
        fn tries(_io: &mut WorkerIo) -> i32 {
            let opens = File::open("/etc/passwd").is_ok();
            let forks = Command::new("/bin/true").status().is_ok();
            i32::from(opens) + 2 * i32::from(forks)
        }
        let server = sandbox.fork_server().function("tries", tries).function("code", code).allow_threads();
        let server = server.start().unwrap();
        for _ in 0..3 {
            assert_eq!(spawn(&server.worker("tries")).wait().unwrap().verdict(), Verdict::Exited(0));
            assert_eq!(code_of(&server, 8), Verdict::Exited(8));
        }
    }

    #[test]
    fn sixteen_threads_ask_at_once() {
        let _watchdog = watchdog(300);
        let server = start(system());
        thread::scope(|scope| {
            for thread in 0..16_u8 {
                let server = &server;
                scope.spawn(move || {
                    for n in 0..20_u8 {
                        let wanted = thread.wrapping_mul(16).wrapping_add(n);
                        assert_eq!(code_of(server, wanted), Verdict::Exited(i32::from(wanted)));
                    }
                });
            }
        });
    }

    #[test]
    fn many_threads_wait_for_one_worker() {
        let _watchdog = watchdog(200);
        let server = start(system());
        let child = spawn(&server.worker("hang"));
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..8).map(|_| scope.spawn(|| child.wait().unwrap().verdict())).collect();
            child.kill().unwrap();
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), Verdict::Killed);
            }
        });
    }

    #[test]
    fn many_workers_leave_nothing_behind() {
        alone(|| {
            let server = start(system());
            assert_eq!(code_of(&server, 1), Verdict::Exited(1));
            let before = (descriptors(), children());
            for n in 0..1000_u32 {
                let code = u8::try_from(n % 256).unwrap();
                assert_eq!(code_of(&server, code), Verdict::Exited(i32::from(code)));
            }
            assert_eq!(before, (descriptors(), children()));
            assert!(eventually(10, || server.child().processes().unwrap().len() == 2));
            let server_fds = || fs::read_dir(format!("/proc/{}/fd", server.child().id()));
            // An ordinary user may not look into what is not dumpable.
            if server_fds().is_ok() {
                let few = || server_fds().is_ok_and(|list| list.count() <= 6);
                assert!(eventually(10, few), "the server keeps descriptors of its workers");
            }
        });
    }

    #[test]
    fn workers_end_when_the_callers_process_is_killed() {
        alone(|| {
            for _ in 0..5 {
                let (mut read, write) = pipe().unwrap();
                // SAFETY: the copy uses only what libc's fork looks after.
                match unsafe { fork() }.unwrap() {
                    ForkResult::Child => {
                        let server = start(system());
                        let mut worker = server.worker("hang");
                        let _child = spawn(worker.fd(write));
                        raise(Signal::SIGKILL).unwrap();
                    }
                    ForkResult::Parent { child } => {
                        drop(write);
                        assert!(matches!(waitpid(child, None).unwrap(), WaitStatus::Signaled(..)));
                        assert!(eventually(10, || read.read(&mut [0]).unwrap() == 0));
                    }
                }
            }
        });
    }

    #[test]
    fn threads_and_policies_that_cannot_be_had_are_refused() {
        let sandbox = system().build().unwrap();
        let error = sandbox.fork_server().function("code", code).start().unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Unsupported, Step::Threads));
        let sandbox = system().init(Init::Program).build().unwrap();
        let error = sandbox.fork_server().allow_threads().start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidCommand);
    }
}
