//! Functions of the caller behind the fence: how their results come back, how they end, and what the caller is afterwards.
#![cfg_attr(test, expect(unsafe_code, reason = "fork: a process with one thread, which libtest has not"))]

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::{self, File};
    use std::hint::black_box;
    use std::io::{Read, Write, pipe, stdout};
    use std::mem::forget;
    use std::os::fd::BorrowedFd;
    use std::panic::{set_hook, take_hook};
    use std::process::{Command, abort};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use nix::sys::signal::{Signal, raise};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, Pid, fork, getpgid, write};
    use ringfence::{
        Action, CallFailure, Clock, Closure, ErrorKind, Filter, FilterState, Init, Io, LaunchMethod, Outcome,
        Portable, Sandbox, Stdio, Step, Verdict,
    };

    use super::support::{alone, children, descriptors, eventually, rounds, skipped, system, watchdog};

    type Called<T> = Result<T, CallFailure>;

    /// libtest has threads of its own, which do nothing meanwhile.
    fn closure(sandbox: &Sandbox) -> Closure {
        let mut closure = sandbox.closure();
        closure.allow_threads().deadline(Duration::from_secs(100));
        closure
    }

    fn call<T: Portable>(sandbox: &Sandbox, function: impl FnOnce(Io) -> T) -> Called<T> {
        closure(sandbox).call(function)
    }

    fn value<T>(called: Called<T>) -> T {
        called.unwrap_or_else(|failure| panic!("{failure:#}"))
    }

    fn ended<T>(called: Called<T>) -> Outcome {
        match called {
            Err(CallFailure::Ended(outcome)) => *outcome,
            Err(failure) => panic!("{failure:#}"),
            Ok(_) => panic!("it returned"),
        }
    }

    const EXEC: [&str; 2] = ["execve", "execveat"];

    fn plain() -> Sandbox {
        system().build().unwrap()
    }

    #[test]
    fn a_value_comes_back_with_its_type() {
        let _watchdog = watchdog(200);
        let sandbox = plain();
        let borrowed = String::from("of the caller");
        assert_eq!(value(call(&sandbox, |_| borrowed.len())), 13);
        assert_eq!(value(call(&sandbox, |_| borrowed.clone())), borrowed);
        assert_eq!(value(call(&sandbox, |_| vec![7_u8; 3 << 20])), vec![7; 3 << 20]);
        value(call(&sandbox, |_| ()));
        assert!(value(call(&sandbox, |_| true)));
        assert_eq!(value(call(&sandbox, |_| -5_i64)), -5);
    }

    #[test]
    fn a_panic_comes_back_with_message_and_place() {
        let _watchdog = watchdog(200);
        let sandbox = plain();
        let seven = black_box(7);
        match call(&sandbox, |_| -> u32 { panic!("number {seven}") }) {
            Err(CallFailure::Panicked(panic)) => {
                assert_eq!(panic.message, "number 7");
                assert!(panic.location.starts_with("tests/call.rs:"), "{panic:?}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_signal_ends_it_with_that_verdict() {
        let _watchdog = watchdog(200);
        let outcome = ended(call(&plain(), |_| -> u32 { abort() }));
        assert!(matches!(outcome.verdict(), Verdict::Signaled { signal: libc::SIGABRT, .. }), "{outcome:?}");
        // Handlers of the caller, as that of std for a full stack, are not there.
        fn deep(level: u64) -> u64 {
            let here = black_box([level; 1024]);
            if level == u64::MAX { 0 } else { deep(level + 1) + here[0] }
        }
        let outcome = ended(call(&plain(), |_| deep(black_box(0))));
        assert!(matches!(outcome.verdict(), Verdict::Signaled { signal: libc::SIGSEGV, .. }), "{outcome:?}");
    }

    #[test]
    fn a_refused_call_ends_it_and_no_exec_is_let_through() {
        let _watchdog = watchdog(200);
        let kills = Filter::baseline().forget(["getpgid"]).deny(["getpgid"], Action::KillProcess);
        let sandbox = system().seccomp(kills).build().unwrap();
        let outcome = ended(call(&sandbox, |_| getpgid(None).map_or(0, Pid::as_raw)));
        assert!(matches!(outcome.verdict(), Verdict::Signaled { signal: libc::SIGSYS, .. }), "{outcome:?}");
        // The secret by which a launch's own exec passes such a filter is not in it.
        let sandbox = system().seccomp(Filter::baseline().forget(EXEC).launch_only()).build().unwrap();
        let errno = value(call(&sandbox, |_| {
            let error = Command::new("/bin/true").status().map(drop);
            error.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
        }));
        assert_ne!(errno, 0, "an exec was let through");
        let sandbox = system().seccomp(Filter::worker()).build().unwrap();
        assert_eq!(
            value(call(&sandbox, |_| (0..1000_u64).map(|n| n.to_string().len() as u64).sum::<u64>())),
            2890
        );
        let denied = value(call(&sandbox, |_| File::open("/etc/passwd").is_err()));
        assert!(denied, "the worker's filter lets it open files");
    }

    #[test]
    fn a_result_above_the_limit_is_not_received() {
        let _watchdog = watchdog(200);
        let called = closure(&plain()).result_limit(1000).call(|_| vec![0; 1 << 20]);
        assert!(matches!(called, Err(CallFailure::TooLarge { limit: 1000 })), "{called:?}");
        assert_eq!(value(closure(&plain()).result_limit(1000).call(|_| vec![1; 1000])).len(), 1000);
    }

    #[test]
    fn what_writes_its_own_answer_is_found_out() {
        let _watchdog = watchdog(200);
        // As a function would that was taken over: the socket for the answer is descriptor 3.
        let forged = |bytes: &'static [u8]| {
            call(&plain(), move |_| -> u32 {
                // SAFETY: it is open as long as this process lives.
                let socket = unsafe { BorrowedFd::borrow_raw(3) };
                write(socket, bytes).unwrap();
                raise(Signal::SIGKILL).unwrap();
                0
            })
        };
        let huge = forged(b"R\xff\xff\xff\xff\xff\xff\xff\xff");
        assert!(matches!(huge, Err(CallFailure::TooLarge { .. })), "{huge:?}");
        // A value and then a death is no value.
        let dead = ended(forged(b"R\x04\0\0\0\0\0\0\0\x07\0\0\0"));
        assert!(matches!(dead.verdict(), Verdict::Signaled { signal: libc::SIGKILL, .. }), "{dead:?}");
        let short = ended(forged(b"R\x04\0\0\0\0\0\0\0\x07"));
        assert!(matches!(short.verdict(), Verdict::Signaled { .. }), "{short:?}");
    }

    #[test]
    fn what_hangs_is_ended_by_its_deadline() {
        let _watchdog = watchdog(200);
        let limit = Duration::from_millis(300);
        let outcome = ended(closure(&plain()).deadline(limit).call(
            |_| loop {
                thread::sleep(Duration::from_secs(1));
            } as u32,
        ));
        assert_eq!(outcome.verdict(), Verdict::TimedOut { clock: Clock::Wall, limit });
    }

    #[test]
    fn a_limit_of_memory_ends_it_with_that_verdict() {
        let _watchdog = watchdog(200);
        let Ok(sandbox) = system().memory(256 << 20).build() else {
            return skipped(
                "a_limit_of_memory_ends_it_with_that_verdict",
                "no control group can hold memory here",
            );
        };
        if sandbox.command("true").status().is_err() {
            return skipped(
                "a_limit_of_memory_ends_it_with_that_verdict",
                "no control group can hold memory here",
            );
        }
        let outcome = ended(call(&sandbox, |_| black_box(vec![1_u8; 1 << 30]).len()));
        assert!(matches!(outcome.verdict(), Verdict::OutOfMemory { .. }), "{outcome:?}");
    }

    #[test]
    fn nothing_of_the_callers_frames_or_hooks_runs_there() {
        struct Loud;
        impl Drop for Loud {
            fn drop(&mut self) {
                write(stdout(), b"dropped").ok();
            }
        }
        alone(|| {
            set_hook(Box::new(|_| {
                write(stdout(), b"hook").ok();
            }));
            for panics in [false, true] {
                let loud = Loud;
                let mut calling = closure(&plain())
                    .stdout(Stdio::piped())
                    .spawn(|_| {
                        let _of_the_caller = &loud;
                        // Buffered by std, and written at the end.
                        write!(stdout(), "printed").unwrap();
                        assert!(!panics, "as asked");
                    })
                    .unwrap();
                let mut out = calling.child_mut().stdout.take().unwrap();
                let called = calling.join();
                let mut text = String::new();
                out.read_to_string(&mut text).unwrap();
                assert_eq!(text, "printed", "{called:?}");
                assert_eq!(matches!(called, Err(CallFailure::Panicked(_))), panics, "{called:?}");
                forget(loud);
            }
            drop(take_hook());
        });
    }

    #[test]
    fn channel_descriptors_and_streams_are_passed() {
        let _watchdog = watchdog(200);
        let (mut read, write) = pipe().unwrap();
        let mut calling = closure(&plain())
            .channel()
            .fd(write)
            .spawn(|io| {
                let channel = io.channel.unwrap();
                let message = channel.receive().unwrap().unwrap();
                channel.send(&[&b"got "[..], &message.bytes].concat(), &[]).unwrap();
                File::from(io.fds.into_iter().next().unwrap()).write_all(b"through the pipe").unwrap();
                7_u8
            })
            .unwrap();
        let channel = calling.child_mut().channel.take().unwrap();
        channel.send(b"word", &[]).unwrap();
        assert_eq!(channel.receive().unwrap().unwrap().bytes, b"got word");
        assert_eq!(value(calling.join()), 7);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through the pipe");
    }

    #[test]
    fn threads_and_children_of_its_own_work() {
        let _watchdog = watchdog(200);
        let sum = value(call(&plain(), |_| {
            let threads: Vec<_> = (0..8_u32).map(|n| thread::spawn(move || n * n)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>()
        }));
        assert_eq!(sum, 140);
        let code = value(call(&plain(), |_| {
            Command::new("/bin/sh").args(["-c", "exit 9"]).status().unwrap().code().unwrap()
        }));
        assert_eq!(code, 9);
    }

    #[test]
    fn libc_knows_the_thread_that_it_runs_on() {
        let _watchdog = watchdog(200);
        if !cfg!(target_env = "gnu") {
            return skipped(
                "libc_knows_the_thread_that_it_runs_on",
                "musl does not say where it keeps a thread's id",
            );
        }
        // The clock of a thread has its id in it, as libc remembers that.
        let known = value(call(&plain(), |_| {
            let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
            // SAFETY: the call takes no arguments.
            let own = unsafe { libc::pthread_self() };
            // SAFETY: the thread is this one, and `clock` lives across the call.
            let named = unsafe { libc::pthread_getcpuclockid(own, &raw mut clock) };
            // SAFETY: `time` lives across the call.
            let read = unsafe { libc::clock_gettime(clock, &raw mut time) };
            (named, read) == (0, 0)
        }));
        assert!(known, "the id is that of another process");
    }

    #[test]
    fn other_threads_are_refused_unless_that_is_allowed() {
        let error = match plain().call(|_| ()) {
            Err(CallFailure::Launch(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!((error.kind(), error.step()), (ErrorKind::Unsupported, Step::Threads));
        assert!(
            error.to_string().contains("allow_threads()") && error.to_string().contains("ForkServer"),
            "{error}"
        );
    }

    #[test]
    fn a_process_with_one_thread_needs_no_waiver_also_beside_the_crates_own_threads() {
        alone(|| {
            // SAFETY: the copy has this thread alone and uses only what libc's fork looks after.
            match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    let sandbox = system().wall_time(Duration::from_secs(100)).build().unwrap();
                    let mut fine = sandbox.command("true").status().unwrap().success();
                    for wanted in 0..5_u32 {
                        fine &= sandbox.call(|_| wanted).unwrap() == wanted;
                    }
                    // SAFETY: ends the process.
                    unsafe { libc::_exit(i32::from(!fine)) }
                }
                ForkResult::Parent { child } => {
                    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
                }
            }
        });
    }

    #[test]
    fn calls_beside_threads_that_allocate_never_hang() {
        let _watchdog = watchdog(400);
        let sandbox = plain();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        for size in [24, 200, 4_000, 70_000] {
                            black_box(vec![1_u8; size]);
                        }
                    }
                });
            }
            let wrong: Vec<_> = (0..rounds(200))
                .filter_map(|n| {
                    let called = call(&sandbox, |_| {
                        (0..50).map(|size| black_box(vec![2_u8; size * 100]).len()).sum::<usize>()
                    });
                    (!matches!(called, Ok(122_500))).then(|| format!("{n}: {called:?}"))
                })
                .collect();
            stop.store(true, Ordering::Relaxed);
            assert!(wrong.is_empty(), "{wrong:?}");
        });
    }

    #[test]
    fn many_calls_leave_nothing_behind() {
        alone(|| {
            let sandbox = plain();
            value(call(&sandbox, |_| ()));
            let before = (descriptors(), children(), env::current_dir().unwrap());
            let shared = shared_mappings();
            for n in 0..rounds(400) {
                assert_eq!(value(call(&sandbox, |_| n)), n);
            }
            assert_eq!(before, (descriptors(), children(), env::current_dir().unwrap()));
            assert_eq!(shared, shared_mappings());
        });
    }

    fn shared_mappings() -> usize {
        let text = fs::read_to_string("/proc/self/maps").unwrap();
        text.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.ends_with('s'))).count()
    }

    #[test]
    fn it_ends_when_the_callers_process_is_killed() {
        alone(|| {
            for _ in 0..5 {
                let (mut read, write) = pipe().unwrap();
                // SAFETY: as above.
                match unsafe { fork() }.unwrap() {
                    ForkResult::Child => {
                        let calling = closure(&plain()).fd(write).spawn(|io| -> u32 {
                            black_box(io);
                            loop {
                                thread::sleep(Duration::from_secs(100));
                            }
                        });
                        // The caller's own copy of the pipe ends with it.
                        let _calling = calling.unwrap();
                        raise(Signal::SIGKILL).unwrap();
                    }
                    ForkResult::Parent { child } => {
                        drop(write);
                        let killed = waitpid(child, None).unwrap();
                        assert!(matches!(killed, WaitStatus::Signaled(..)), "{killed:?}");
                        // Its end: the function held the other end.
                        assert!(eventually(10, || read.read(&mut [0]).unwrap() == 0));
                    }
                }
            }
        });
    }

    #[test]
    fn what_a_function_cannot_have_is_said() {
        let notifies = Filter::baseline().forget(["getpgid"]).deny(["getpgid"], Action::Notify);
        for (builder, object) in
            [(system().init(Init::Program), "init"), (system().seccomp(notifies), "supervisor")]
        {
            match call(&builder.build().unwrap(), |_| ()) {
                Err(CallFailure::Launch(error)) => {
                    assert_eq!(
                        (error.kind(), error.object().to_string()),
                        (ErrorKind::InvalidCommand, object.into())
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_report_says_how_it_runs() {
        let calling = closure(&plain()).spawn(|_| ()).unwrap();
        let report = calling.child().enforcement();
        assert!(matches!(report.method, LaunchMethod::Copy { .. }), "{report:?}");
        assert!(
            matches!(report.filter, FilterState::Attached { instructions } if instructions > 10),
            "{report:?}"
        );
        value(calling.join());
    }
}
