//! User notification: what a supervisor answers, what it may look at, and what becomes of a call when the supervisor fails.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read, Write, pipe};
    use std::os::unix::fs::MetadataExt;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::{Duration, Instant};

    use ringfence::host::Features;
    use ringfence::{
        Action, Argument, Builder, CallError, Child, Command, ErrorKind, Filter, Host, Init, Launch,
        NotifiedCall, OnExec, Outcome, Response, Sandbox, Stdio, Step, SupervisorState, Verdict,
    };

    use super::support::{alone, descriptors, eventually, said, shell, system, watchdog};

    const PRELUDE: &str = "import ctypes, os, sys, threading\nlibc = ctypes.CDLL(None, use_errno=True)\n\
        libc.syscall.restype = ctypes.c_long\n\
        def call(*args):\n  ctypes.set_errno(0)\n  r = libc.syscall(*[ctypes.c_long(a) for a in args])\n  \
        return -ctypes.get_errno() if r == -1 else r\n";

    /// The baseline, and these calls are notified.
    fn asking(calls: &[&'static str]) -> Filter {
        Filter::baseline().forget(calls).deny(calls.iter().copied(), Action::Notify)
    }

    fn sandbox(calls: &[&'static str]) -> Sandbox {
        system().seccomp(asking(calls)).build().unwrap()
    }

    fn python(sandbox: &Sandbox, script: &str) -> Command {
        let mut command = sandbox.command("/usr/bin/python3");
        command.args(["-c", &format!("{PRELUDE}{script}")]);
        command
    }

    fn answered(
        response: impl Fn(&NotifiedCall<'_>) -> Response + Send + Sync + 'static,
        script: &str,
    ) -> String {
        let sandbox = sandbox(&["getpgid"]);
        let outcome = python(&sandbox, script).on_notify(response).output();
        said(&outcome.unwrap_or_else(|error| panic!("{error:#}")))
    }

    /// `print(call(getpgid, ARGS))`.
    fn ask(args: &str) -> String {
        format!("print(call({}, {args}))\n", libc::SYS_getpgid)
    }

    #[test]
    fn each_answer_arrives() {
        let _watchdog = watchdog(120);
        assert_eq!(answered(|_| Response::Errno(libc::EXDEV), &ask("0")), format!("-{}\n", libc::EXDEV));
        assert_eq!(answered(|_| Response::Value(1 << 40), &ask("0")), format!("{}\n", 1_u64 << 40));
        // Numbers that are no errno refuse all the same.
        for wrong in [0, -1, 4096, i32::MAX, i32::MIN] {
            assert_eq!(answered(move |_| Response::Errno(wrong), &ask("0")), format!("-{}\n", libc::EPERM));
        }
        let own = answered(
            |_| Response::ContinueUnchecked,
            &format!("print(call({}, 0) == os.getpgrp())", libc::SYS_getpgid),
        );
        assert_eq!(own, "True\n");
    }

    #[test]
    fn the_call_is_seen_as_it_was_made() {
        let _watchdog = watchdog(60);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&seen);
        let note = move |call: &NotifiedCall<'_>| {
            let process = call.process_id().unwrap();
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap();
            list.lock().unwrap().push((call.name(), call.number(), call.arguments(), name));
            assert!(call.waits() && call.instruction_pointer() != 0 && call.thread_id() == process);
            Response::Value(7)
        };
        assert_eq!(answered(note, &ask("1, 2, 3, -4, 5, 6")), "7\n");
        let number = u32::try_from(libc::SYS_getpgid).unwrap();
        let args = [1, 2, 3, (-4_i64).cast_unsigned(), 5, 6];
        assert_eq!(*seen.lock().unwrap(), [(Some("getpgid"), number, args, "python3\n".to_owned())]);
    }

    #[test]
    fn a_descriptor_is_injected() {
        let _watchdog = watchdog(60);
        let inject = |call: &NotifiedCall<'_>| {
            let (read, mut write) = pipe().unwrap();
            write.write_all(b"through the fence").unwrap();
            let at = i32::try_from(call.arguments()[0]).ok().filter(|number| *number != 0);
            let on_exec = if call.arguments()[1] == 1 { OnExec::Close } else { OnExec::Keep };
            Response::Fd { fd: read.into(), at, on_exec }
        };
        let script = format!(
            "a = call({0}, 0, 1); print(os.read(a, 99), os.get_inheritable(a))\n\
             b = call({0}, 77, 0); print(b, os.read(b, 99), os.get_inheritable(b))\n\
             print(call({0}, 1 << 25, 0))",
            libc::SYS_getpgid
        );
        let told = answered(inject, &script);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[..2], ["b'through the fence' False", "77 b'through the fence' True"]);
        // A number over every limit is the program's mistake.
        assert!(lines[2].starts_with('-'), "{told}");
    }

    #[test]
    fn memory_is_read_and_written_while_the_call_waits() {
        let _watchdog = watchdog(60);
        let look = |call: &NotifiedCall<'_>| {
            let [what, address, ..] = call.arguments();
            let done = match what {
                0 => call
                    .read_c_string(address, 4096)
                    .map(|text| i64::try_from(text.as_bytes().len()).unwrap()),
                1 => call.read_c_string(address, 3).map(|_| 0),
                2 => call.read_bytes(8, 4).map(|_| 0),
                3 => call.write_bytes(address, b"WRITTEN").map(|()| 0),
                4 => call.read_bytes(address, 2 << 20).map(|_| 0),
                _ => call.write_bytes(8, b"x").map(|()| 0),
            };
            done.map_or_else(Response::from, Response::Value)
        };
        // The string ends with its page, and behind that nothing is mapped.
        let script = format!(
            "import mmap\nm = mmap.mmap(-1, 8192)\nat = ctypes.addressof(ctypes.c_char.from_buffer(m))\n\
             m[4086:4096] = b'123456789\\0'\ncall({}, at + 4096, 4096)\n\
             b = ctypes.create_string_buffer(b'a string that is here')\n\
             print([call({}, *a) for a in ((0, at + 4086), (0, ctypes.addressof(b)), (1, at + 4086), (2, 0),\n\
             (3, ctypes.addressof(b)), (4, at), (5, 0))], b.value)",
            libc::SYS_munmap,
            libc::SYS_getpgid
        );
        let (long, fault) = (libc::ENAMETOOLONG, libc::EFAULT);
        let wanted = format!("[9, 21, -{long}, -{fault}, 0, -{long}, -{fault}] b'WRITTENg that is here'\n");
        assert_eq!(answered(look, &script), wanted);
    }

    #[test]
    fn what_was_decided_on_is_what_is_opened_whatever_another_thread_writes() {
        let _watchdog = watchdog(120);
        // A thread flips the path between an allowed and a forbidden one all the time.
        let script = format!(
            "good, bad = b'/etc/passwd\\0', b'/etc/shadow\\0'\nb = ctypes.create_string_buffer(good)\n\
             def flip():\n  while True: b.raw = bad + b'\\0'; b.raw = good + b'\\0'\n\
             threading.Thread(target=flip, daemon=True).start()\n\
             import time\nsys.setswitchinterval(1e-6)\nseen, good_ones, bad_ones, end = set(), 0, 0, time.time() + 30\n\
             while (good_ones < 100 or bad_ones < 100) and time.time() < end:\n  \
             fd = call({}, ctypes.addressof(b))\n  good_ones += fd >= 0; bad_ones += fd < 0\n  \
             if fd >= 0: seen.add(os.fstat(fd).st_ino); os.close(fd)\n\
             print(seen)\nsys.stdout.flush(); os._exit(0)",
            libc::SYS_getpgid
        );
        let refused = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&refused);
        let open = move |call: &NotifiedCall<'_>| {
            let path = match call.read_c_string(call.arguments()[0], 100) {
                Ok(path) => path.into_string().unwrap(),
                Err(error) => return error.into(),
            };
            if path == "/etc/passwd" {
                let fd = File::open("/etc/passwd").unwrap().into();
                return Response::Fd { fd, at: None, on_exec: OnExec::Close };
            }
            count.fetch_add(1, Ordering::SeqCst);
            Response::Errno(libc::EACCES)
        };
        let wanted = fs::metadata("/etc/passwd").unwrap().ino();
        assert_eq!(answered(open, &script), format!("{{{wanted}}}\n"));
        assert!(refused.load(Ordering::SeqCst) > 0, "the other path was never seen: nothing was shown");
    }

    #[test]
    fn a_panic_refuses_now_and_later_and_is_told() {
        let _watchdog = watchdog(60);
        let sandbox = sandbox(&["getpgid"]);
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let script = ask("0").repeat(3);
        let mut command = python(&sandbox, &script);
        command.on_notify(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            panic!("no answer to this")
        });
        let outcome = command.output().unwrap();
        assert_eq!(said(&outcome), format!("-{}\n", libc::EPERM).repeat(3));
        assert_eq!(asked.load(Ordering::SeqCst), 1, "it is not asked again");
        assert_eq!(outcome.supervisor_faults, ["panic at getpgid: no answer to this"]);
    }

    /// A child whose one call hangs in the callback, until the returned sender is dropped.
    fn hanging(builder: Builder) -> (Child, Sender<()>) {
        let sandbox = builder.seccomp(asking(&["getpgid"])).build().unwrap();
        let (hold, held) = channel::<()>();
        let (asked, was_asked) = channel();
        let held = Mutex::new(held);
        let mut command = python(&sandbox, &ask("0"));
        command.on_notify(move |_| {
            asked.send(()).unwrap();
            held.lock().unwrap().recv().ok();
            Response::Value(0)
        });
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        was_asked.recv_timeout(Duration::from_secs(60)).unwrap();
        (child, hold)
    }

    #[test]
    fn a_hanging_callback_holds_the_call_and_neither_kill_nor_drop() {
        let _watchdog = watchdog(120);
        for builder in [system(), system().init(Init::Program), system().launch(Launch::Copy)] {
            let (mut child, hold) = hanging(builder.clone());
            assert_eq!(child.wait_timeout(Duration::from_millis(200)).unwrap(), None, "it is not free");
            let begin = Instant::now();
            child.kill().unwrap();
            let mut out = String::new();
            child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
            assert_eq!((child.wait().unwrap().verdict(), out.as_str()), (Verdict::Killed, ""));
            drop(child);
            let (child, other) = hanging(builder);
            drop(child);
            assert!(begin.elapsed() < Duration::from_secs(20), "a callback was waited for");
            drop((hold, other));
        }
    }

    #[test]
    fn a_call_that_is_gone_gives_nothing_out() {
        let _watchdog = watchdog(60);
        let (told, tell) = channel();
        let sandbox = sandbox(&["getpgid"]);
        // A child of the program calls, and is killed while the callback runs.
        let script = format!(
            "import time, signal\npid = os.fork()\nif pid == 0: call({}, 0); os._exit(9)\n\
             time.sleep(0.3); os.kill(pid, signal.SIGKILL); print(os.waitpid(pid, 0)[1])",
            libc::SYS_getpgid
        );
        let mut command = python(&sandbox, &script);
        command.on_notify(move |call| {
            assert!(eventually(30, || !call.waits()), "it was killed");
            let read = call.read_bytes(call.instruction_pointer(), 8);
            let rest = (
                call.fetch_fd(0).err(),
                call.process_id().err(),
                call.inject_fd(File::open("/").unwrap(), None, OnExec::Keep).err(),
            );
            told.send((read.err(), rest)).unwrap();
            Response::ContinueUnchecked
        });
        assert_eq!(said(&command.output().unwrap()), "9\n");
        let gone = Some(CallError::Gone);
        assert_eq!(tell.recv().unwrap(), (gone, (gone, gone, gone)));
    }

    #[test]
    fn calls_of_eight_threads_are_all_answered() {
        let _watchdog = watchdog(120);
        let script = format!(
            "def work(n):\n  for i in range(100): assert call({}, n * 1000 + i) == n * 1000 + i\n\
             ts = [threading.Thread(target=work, args=(n,)) for n in range(8)]\n\
             [t.start() for t in ts]; [t.join() for t in ts]; print('all')",
            libc::SYS_getpgid
        );
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let echo = move |call: &NotifiedCall<'_>| {
            if counted.fetch_add(1, Ordering::SeqCst).is_multiple_of(100) {
                thread::sleep(Duration::from_millis(2));
            }
            Response::Value(call.arguments()[0].cast_signed())
        };
        assert_eq!(answered(echo, &script), "all\n");
        assert_eq!(count.load(Ordering::SeqCst), 800);
    }

    #[test]
    fn a_signal_that_can_be_handled_does_not_call_twice() {
        if !Host::probe().features().contains(Features::SECCOMP_WAIT_KILLABLE) {
            super::support::skipped("a_signal_that_can_be_handled_does_not_call_twice", "needs Linux 5.19");
            return;
        }
        let _watchdog = watchdog(60);
        let script = format!(
            "import signal\nhits = []\nsignal.signal(signal.SIGALRM, lambda *_: hits.append(1))\n\
             signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)\nr = call({}, 0)\n\
             signal.setitimer(signal.ITIMER_REAL, 0)\nprint(r, len(hits) > 0)",
            libc::SYS_getpgid
        );
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let slow = move |_: &NotifiedCall<'_>| {
            counted.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(400));
            Response::Value(5)
        };
        assert_eq!(answered(slow, &script), "5 True\n");
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_launch_is_no_notified_call_and_every_later_exec_is() {
        let _watchdog = watchdog(120);
        let calls = ["execve", "execveat"];
        for builder in [system(), system().init(Init::Program), system().launch(Launch::Copy)] {
            let sandbox = builder.seccomp(asking(&calls)).build().unwrap();
            let seen = Arc::new(Mutex::new(Vec::new()));
            let list = Arc::clone(&seen);
            // Found in the third directory of PATH: the launch itself fails to execute twice.
            let mut command = shell(&sandbox, "/bin/true; echo $?");
            command.env("PATH", "/nowhere:/etc:/usr/bin:/bin").on_notify(move |call| {
                let path = call.read_c_string(call.arguments()[0], 4096).unwrap();
                list.lock().unwrap().push(path.into_string().unwrap());
                Response::Errno(libc::EACCES)
            });
            let outcome = command.output().unwrap_or_else(|error| panic!("{error:#}"));
            assert_eq!(String::from_utf8_lossy(&outcome.stdout), "126\n");
            assert_eq!(*seen.lock().unwrap(), ["/bin/true"]);
            let mut command = sandbox.command("/nowhere/at/all");
            let error = command.on_notify(|_| Response::Value(0)).output().unwrap_err();
            assert_eq!(
                (error.kind(), error.raw_os_error()),
                (ErrorKind::Exec, Some(libc::ENOENT)),
                "{error:#}"
            );
            let mut command = sandbox.command("true");
            command.program_fd(File::open("/bin/true").unwrap()).on_notify(|_| Response::Errno(libc::EPERM));
            assert!(command.output().unwrap_or_else(|error| panic!("{error:#}")).success());
        }
    }

    #[test]
    fn nothing_of_the_listener_stays_inside_or_here() {
        alone(|| {
            let sandbox = sandbox(&["getpgid"]);
            let list = "print([os.readlink('/proc/self/fd/' + f) for f in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + f)])";
            let run = || -> Outcome {
                let mut command = python(&sandbox, &format!("{}{list}", ask("0")));
                command.on_notify(|_| Response::Value(0)).output().unwrap()
            };
            let text = said(&run());
            assert!(!text.contains("seccomp"), "{text}");
            let threads = || fs::read_dir("/proc/self/task").unwrap().count();
            let before = (descriptors(), threads());
            for _ in 0..5 {
                run();
                let (child, hold) = hanging(system());
                drop(child);
                drop(hold);
            }
            assert!(
                eventually(30, || (descriptors(), threads()) == before),
                "{:?} {before:?}",
                descriptors()
            );
        });
    }

    #[test]
    fn who_answers_is_in_the_report() {
        let _watchdog = watchdog(60);
        let sandbox = sandbox(&["getpgid"]);
        let mut command = sandbox.command("/bin/cat");
        let held = command.stdin(Stdio::piped()).on_notify(|_| Response::Value(0)).spawn_held().unwrap();
        assert_eq!(held.enforcement().supervisor, SupervisorState::AtExec);
        let child = held.release().unwrap();
        assert_eq!(child.enforcement().supervisor, SupervisorState::Running);
        assert!(child.enforcement().to_string().contains("supervisor    a thread of the caller's\n"));
        assert!(command.explain().unwrap().contains("NEW_LISTENER"));
        // The default filter refuses by errno and costs no thread.
        let plain = system().build().unwrap();
        let mut command = plain.command("/bin/cat");
        let child = command.stdin(Stdio::piped()).spawn().unwrap();
        assert_eq!(child.enforcement().supervisor, SupervisorState::NotNeeded);
        assert!(!command.explain().unwrap().contains("NEW_LISTENER"));
    }

    #[test]
    fn mistakes_are_errors_before_anything_runs() {
        let sandbox = sandbox(&["getpgid"]);
        let error = sandbox.command("/bin/true").spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidCommand, "{error:#}");
        let plain = system().build().unwrap();
        let error = plain.command("/bin/true").on_notify(|_| Response::Value(0)).spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidCommand, "{error:#}");
        for feature in [Features::SECCOMP_LISTENER, Features::PIDFD_GETFD] {
            let policy = system().seccomp(asking(&["getpgid"])).policy().unwrap();
            let error = Sandbox::new(policy, Host::probe().without_features(feature)).unwrap_err();
            assert_eq!((error.kind(), error.step()), (ErrorKind::Unsupported, Step::Seccomp), "{error:#}");
        }
        // An old kernel's listener, which signals interrupt, does.
        let policy = system().seccomp(asking(&["getpgid"])).policy().unwrap();
        let host = Host::probe().without_features(Features::SECCOMP_WAIT_KILLABLE);
        let sandbox = Sandbox::new(policy, host).unwrap();
        let outcome = python(&sandbox, &ask("0")).on_notify(|_| Response::Value(3)).output().unwrap();
        assert_eq!(said(&outcome), "3\n");
    }

    #[test]
    fn conditions_decide_what_is_asked() {
        let _watchdog = watchdog(60);
        let filter = Filter::baseline()
            .forget(["getpgid"])
            .rule("getpgid", [Argument::int(0).equal(5)], Action::Notify)
            .deny(["getpgid"], Action::Errno(libc::EDOM));
        let sandbox = system().seccomp(filter).build().unwrap();
        let script = format!("{}{}", ask("5"), ask("6"));
        let outcome = python(&sandbox, &script).on_notify(|_| Response::Value(1)).output().unwrap();
        assert_eq!(said(&outcome), format!("1\n-{}\n", libc::EDOM));
    }
}
