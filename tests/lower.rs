//! A process that lowers itself: what holds afterwards in each thread, and that a refusal changes nothing. Each test runs in a
//! process of its own, as lowering cannot be undone; that process has one thread, which the test harness never has.
#![cfg_attr(
    test,
    expect(unsafe_code, reason = "fork, and system calls with arguments that no wrapper passes")
)]

#[cfg(test)]
#[path = "support/lowering.rs"]
mod lowering;
#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Error as IoError, pipe};
    use std::mem::forget;
    use std::net::TcpListener;
    use std::process::{Command, Stdio};
    use std::sync::mpsc::{Sender, channel};
    use std::thread::{self, Builder as Thread};

    use nix::sys::signal::Signal;
    use nix::unistd::{getppid, read as take, write};
    use ringfence::{
        AccessFs, Action, Capabilities, Capability, ErrorKind, Filter, FilterProof, Landlock,
        LandlockPathState, LoweredThread, Lowering, Mistake, Step, prefer,
    };

    use super::lowering::{
        Crew, SETS, abi, alone, apply, errno, filter_this_thread, forked, opening, own, state, try_apply,
        worker,
    };
    use super::support::{Scratch, is_inside, is_root, skip};

    #[test]
    fn the_filter_holds_in_each_of_nine_threads() {
        alone("the_filter_holds_in_each_of_nine_threads", || {
            let crew = Crew::of(8, opening);
            assert_eq!(crew.ask(), [0; 8]);
            let before: u32 = own("Seccomp_filters").parse().expect("a number");
            let lowered = apply(worker());
            assert_eq!(crew.ask(), [libc::ENOSYS; 8]);
            assert_eq!(opening(), libc::ENOSYS);
            // What is made later inherits it.
            assert_eq!(thread::spawn(opening).join().expect("an end"), libc::ENOSYS);
            assert_eq!(lowered.threads.len(), 9, "{lowered}");
            for thread in &lowered.threads {
                let proof = FilterProof::ReadBack { filters: Some(before + 1) };
                assert_eq!(thread.filter, proof, "{lowered}");
            }
            let mut names: Vec<&str> =
                lowered.threads[1..].iter().map(|thread| thread.name.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, (0..8).map(|number| format!("crew-{number}")).collect::<Vec<_>>());
            assert_eq!(lowered.filter.is_some(), lowered.to_string().contains("attached to all threads"));
        });
    }

    #[test]
    fn no_new_privs_reaches_every_thread_with_the_filter() {
        alone("no_new_privs_reaches_every_thread_with_the_filter", || {
            let crew = Crew::of(3, || own("NoNewPrivs"));
            // A caller may have it already.
            assert_eq!(crew.ask(), [own("NoNewPrivs"), own("NoNewPrivs"), own("NoNewPrivs")]);
            apply(Lowering::builder().seccomp(Filter::baseline()));
            assert_eq!(crew.ask(), ["1"; 3]);
            assert_eq!(own("NoNewPrivs"), "1");
        });
    }

    #[test]
    fn a_thread_with_more_filters_is_named_and_nothing_changes() {
        alone("a_thread_with_more_filters_is_named_and_nothing_changes", || {
            let crew = Crew::of(2, filter_this_thread);
            let (go, told) = &crew.0[1];
            go.send(()).expect("it waits");
            told.recv().expect("it answers");
            let before = (state(), own("NoNewPrivs"));
            let error = try_apply(worker()).expect_err("a thread cannot be had");
            assert_eq!((error.kind(), error.step()), (ErrorKind::Unsupported, Step::Seccomp), "{error:#}");
            assert!(error.to_string().contains("\"crew-1\""), "{error}");
            assert_eq!(error.applied(), []);
            assert_eq!(((state(), own("NoNewPrivs")), opening()), (before, 0));
        });
    }

    #[test]
    fn a_thread_with_another_filter_is_named_by_the_kernel() {
        alone("a_thread_with_another_filter_is_named_by_the_kernel", || {
            let crew = Crew::of(1, filter_this_thread);
            // As many as that thread has: only the kernel knows that they are not the same.
            filter_this_thread();
            crew.ask();
            let error = try_apply(worker()).expect_err("a thread cannot be had");
            assert_eq!((error.kind(), error.step()), (ErrorKind::Lowering, Step::Seccomp), "{error:#}");
            assert!(error.to_string().contains("\"crew-0\""), "{error}");
            assert_eq!(opening(), 0);
        });
    }

    #[test]
    fn capabilities_are_dropped_and_read_back() {
        alone("capabilities_are_dropped_and_read_back", || {
            let bounding = own("CapBnd");
            let lowered = apply(Lowering::builder().drop_capabilities());
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(own(set), "0000000000000000", "{set}");
            }
            assert_eq!(own("NoNewPrivs"), "1");
            let sets = lowered.threads[0].capabilities.expect("read back");
            assert_eq!((sets.effective, sets.permitted, lowered.threads.len()), (0, 0, 1));
            if is_root() {
                assert_eq!(own("CapBnd"), "0000000000000000");
                assert!(lowered.notes.is_empty(), "{lowered}");
            } else {
                assert_eq!(own("CapBnd"), bounding);
                assert!(lowered.to_string().contains("CAP_SETPCAP is not held"), "{lowered}");
            }
        });
    }

    #[test]
    fn kept_capabilities_stay_and_no_other() {
        const NAME: &str = "kept_capabilities_stay_and_no_other";
        if !is_root() {
            skip!(NAME, "it needs capabilities");
        }
        alone(NAME, || {
            apply(Lowering::builder().capabilities([Capability::NetBindService]));
            let wanted = format!("{:016x}", 1_u64 << 10);
            let seen = SETS.map(own);
            let none = format!("{:016x}", 0);
            assert_eq!(seen, [none.as_str(), &wanted, &wanted, &wanted, &none]);
            TcpListener::bind("127.0.0.1:80")
                .map(drop)
                .or_else(|error| {
                    // Another program may listen there.
                    if error.raw_os_error() == Some(libc::EADDRINUSE) { Ok(()) } else { Err(error) }
                })
                .expect("CAP_NET_BIND_SERVICE");
            fs::read("/proc/1/environ").expect_err("without CAP_SYS_PTRACE");
        });
    }

    #[test]
    fn what_is_kept_is_not_given_back_by_an_exec() {
        const NAME: &str = "what_is_kept_is_not_given_back_by_an_exec";
        if !is_root() {
            skip!(NAME, "it needs capabilities");
        }
        alone(NAME, || {
            // Nothing is there that is not kept, and still root is to gain nothing by an exec.
            apply(Lowering::builder().capabilities(Capabilities::from_bits(u64::MAX >> 1)));
            let program = "import ctypes; print(ctypes.CDLL(None).prctl(27, 0, 0, 0, 0) & 1)";
            let output = Command::new("/usr/bin/python3").args(["-c", program]).output().expect("python3");
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1", "SECBIT_NOROOT");
        });
    }

    #[test]
    fn capabilities_of_several_threads_are_refused_and_nothing_changes() {
        const NAME: &str = "capabilities_of_several_threads_are_refused_and_nothing_changes";
        if !is_root() {
            skip!(NAME, "it needs capabilities");
        }
        alone(NAME, || {
            let crew = Crew::of(2, opening);
            let before = state();
            let error = try_apply(worker().drop_capabilities()).expect_err("three threads");
            assert_eq!(
                (error.kind(), error.step()),
                (ErrorKind::Unsupported, Step::Capabilities),
                "{error:#}"
            );
            assert!(
                error.to_string().contains("3 threads") && error.to_string().contains("\"crew-"),
                "{error}"
            );
            assert_eq!(error.applied(), []);
            assert_eq!((state(), crew.ask()), (before, vec![0; 2]));
        });
    }

    #[test]
    fn several_threads_that_hold_no_more_are_no_obstacle() {
        alone("several_threads_that_hold_no_more_are_no_obstacle", || {
            // While it is alone; a thread inherits what is left.
            apply(Lowering::builder().drop_capabilities());
            let crew = Crew::of(4, opening);
            let lowered = apply(worker().drop_capabilities());
            assert_eq!(crew.ask(), [libc::ENOSYS; 4]);
            let none = |thread: &LoweredThread| thread.capabilities.is_some_and(|sets| sets.permitted == 0);
            assert!(lowered.threads.len() == 5 && lowered.threads.iter().all(none), "{lowered}");
        });
    }

    #[test]
    fn no_new_privs_of_several_threads_without_a_filter_is_refused() {
        alone("no_new_privs_of_several_threads_without_a_filter_is_refused", || {
            let _crew = Crew::of(1, opening);
            let all = (0..64).map(|bit| 1_u64 << bit).fold(0, |all, bit| all | bit);
            let keep = Capabilities::from_bits(all);
            let before = state();
            let tried = try_apply(Lowering::builder().capabilities(keep));
            if own("NoNewPrivs") == "1" && !is_root() {
                // Each thread has it from a caller's caller.
                assert_eq!((tried.map(|lowered| lowered.threads.len()).ok(), state()), (Some(2), before));
                return;
            }
            let error = tried.expect_err("two threads");
            // Root's securebits have to be locked first, and they are each thread's own, too.
            let step = if is_root() { Step::Capabilities } else { Step::NoNewPrivs };
            assert_eq!((error.kind(), error.step()), (ErrorKind::Unsupported, step), "{error:#}");
            assert_eq!(state(), before);
        });
    }

    #[test]
    fn a_landlock_domain_holds() {
        const NAME: &str = "a_landlock_domain_holds";
        if abi() < 3 {
            skip!(NAME, "Landlock ABI {}", abi());
        }
        alone(NAME, || {
            let scratch = Scratch::new();
            // It cannot be removed from inside: another process does that when this one is about to end.
            let mut remover = Command::new("sh");
            remover.args(["-c", "read word; exec rm -r \"$0\""]).arg(scratch.path()).stdin(Stdio::piped());
            let mut remover = remover.spawn().expect("sh");
            let (open, closed) = (scratch.file("open", "text"), scratch.file("closed", "text"));
            let absent = scratch.at("absent");
            let rules = Landlock::closed()
                .floor(abi())
                .allow(open.as_path(), AccessFs::READ)
                .allow(prefer(absent.as_path()), AccessFs::READ)
                .bind_tcp(0);
            let lowered = apply(Lowering::builder().landlock(rules));
            assert_eq!(fs::read_to_string(&open).expect("allowed"), "text");
            assert_eq!(errno(fs::write(&open, "x")), libc::EACCES);
            assert_eq!(errno(fs::read(&closed)), libc::EACCES);
            assert_eq!(errno(fs::remove_file(&open)), libc::EACCES);
            let landlock = lowered.landlock.as_ref().expect("a domain");
            let states: Vec<LandlockPathState> = landlock.paths.iter().map(|path| path.state).collect();
            let applied = LandlockPathState::Applied(AccessFs::READ_FILE);
            assert_eq!(states, [applied, LandlockPathState::Absent(libc::ENOENT)]);
            assert_eq!((landlock.abi, landlock.ports.len()), (abi(), 1));
            // /proc is closed too: the open file showed what holds.
            assert_eq!(lowered.threads[0].filter, FilterProof::NotAsked);
            forget(scratch);
            assert!(remover.wait().expect("sh").success());
        });
    }

    #[test]
    fn a_landlock_domain_of_several_threads_holds_in_all_or_is_refused() {
        const NAME: &str = "a_landlock_domain_of_several_threads_holds_in_all_or_is_refused";
        if abi() < 1 {
            skip!(NAME, "Landlock ABI {}", abi());
        }
        alone(NAME, || {
            let crew = Crew::of(3, opening);
            let before = state();
            let rules = Landlock::new().files(AccessFs::known_to(1));
            match try_apply(Lowering::builder().seccomp(Filter::baseline()).landlock(rules)) {
                Ok(_) => {
                    assert!(abi() >= 8, "the kernel covers threads since ABI 8");
                    assert_eq!(crew.ask(), [libc::EACCES; 3]);
                }
                Err(error) => {
                    assert!(abi() < 8, "{error:#}");
                    assert_eq!((error.kind(), error.step()), (ErrorKind::Unsupported, Step::Landlock));
                    let text = error.to_string();
                    assert!(text.contains("4 threads") && text.contains("ABI 8"), "{text}");
                    assert_eq!((state(), crew.ask(), opening()), (before, vec![0; 3], 0));
                }
            }
        });
    }

    #[test]
    fn lowerings_stack_as_far_as_the_filter_lets_them() {
        alone("lowerings_stack_as_far_as_the_filter_lets_them", || {
            let before: u32 = own("Seccomp_filters").parse().expect("a number");
            apply(Lowering::builder().seccomp(Filter::baseline()));
            assert_eq!(opening(), 0);
            let second = apply(worker());
            assert_eq!(opening(), libc::ENOSYS);
            assert_eq!(second.threads[0].filter, FilterProof::ReadBack { filters: Some(before + 2) });
            // worker() has no seccomp(): a third is an error that says so.
            let error = try_apply(worker()).expect_err("no seccomp()");
            assert_eq!((error.step(), error.raw_os_error()), (Step::Seccomp, Some(libc::ENOSYS)));
            assert!(error.applied().is_empty() && error.to_string().contains("with_lowering"), "{error}");
        });
    }

    #[test]
    fn a_worker_that_may_lower_itself_can_and_cannot_open_anything_before() {
        alone("a_worker_that_may_lower_itself_can_and_cannot_open_anything_before", || {
            apply(Lowering::builder().seccomp(Filter::worker().with_lowering()));
            assert_eq!(opening(), libc::ENOSYS);
            let crew = Crew::of(2, || getppid().as_raw());
            let rules = Landlock::new().files(AccessFs::known_to(1)).preferred();
            let builder = Lowering::builder().seccomp(Filter::worker());
            // /proc cannot be opened under it, so that the kernel is asked whether this is the only thread.
            if abi() > 0 && abi() < 8 {
                let lowered = apply(builder.clone().landlock(rules));
                assert!(lowered.landlock.is_none() && !lowered.missing.is_empty(), "{lowered}");
                assert_eq!(lowered.threads[0].filter, FilterProof::Answered, "{lowered}");
            } else {
                apply(builder);
            }
            assert_eq!(crew.ask().len(), 2);
            let error = try_apply(worker()).expect_err("no seccomp()");
            assert_eq!(error.raw_os_error(), Some(libc::ENOSYS), "{error}");
        });
    }

    #[test]
    fn threads_that_make_threads_meanwhile_are_covered() {
        alone("threads_that_make_threads_meanwhile_are_covered", || {
            // Each generation ends when it has made the next, and says what it may do.
            fn generation(told: &Sender<i32>) {
                let next = told.clone();
                if told.send(opening()).is_ok() {
                    let made = Thread::new().stack_size(64 << 10).spawn(move || generation(&next));
                    // Refused where too many end at once: the line dies out, the others go on.
                    made.map(drop).unwrap_or_default();
                }
            }
            let (tell, told) = channel();
            (0..4).for_each(|_| generation(&tell));
            drop(tell);
            told.iter().take(50).for_each(|errno| assert_eq!(errno, 0));
            apply(worker());
            // What was under way may still say 0; what comes 1,000 answers later may not.
            assert!(told.iter().skip(1_000).take(200).all(|errno| errno == libc::ENOSYS));
        });
    }

    #[test]
    fn a_failure_on_the_way_says_what_holds_already() {
        const NAME: &str = "a_failure_on_the_way_says_what_holds_already";
        if abi() < 1 {
            skip!(NAME, "Landlock ABI {}", abi());
        }
        alone(NAME, || {
            let rules = || Landlock::new().files(AccessFs::EXECUTE);
            let mut most = 0;
            while most < 20 && try_apply(Lowering::builder().landlock(rules())).is_ok() {
                most += 1;
            }
            assert_eq!(most, 16, "the kernel stacks so many");
            let error =
                try_apply(Lowering::builder().landlock(rules()).drop_capabilities()).expect_err("E2BIG");
            assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Lowering, Some(libc::E2BIG)));
            let applied: &[Step] = if is_root() { &[Step::Bounding, Step::Capabilities] } else { &[] };
            assert_eq!(error.applied(), applied, "{error}");
            let told = error.to_string().contains("applied before, for good: bounding set, capabilities");
            assert_eq!(told, is_root(), "{error}");
        });
    }

    #[test]
    fn strict_leaves_reading_and_writing() {
        alone("strict_leaves_reading_and_writing", || {
            let (read, out) = pipe().expect("a pipe");
            let lowered = apply(Lowering::builder().seccomp(Filter::strict()));
            write(&out, b"x").expect("write");
            take(&read, &mut [0]).expect("read");
            assert_eq!(lowered.threads[0].filter, FilterProof::Answered);
            // Closing is not allowed any more.
            forget((read, out, lowered));
        });
    }

    #[test]
    fn a_killing_filter_kills() {
        const NAME: &str = "a_killing_filter_kills";
        if !is_inside(NAME) {
            return alone(NAME, || {});
        }
        let ended = forked(|| {
            apply(Lowering::builder().seccomp(Filter::worker().otherwise(Action::KillProcess)));
            opening();
        });
        assert_eq!(ended, Err(Signal::SIGSYS));
    }

    #[test]
    fn a_filter_for_launches_lets_no_execve_through() {
        alone("a_filter_for_launches_lets_no_execve_through", || {
            apply(worker());
            for secret in [0, -1_i64] {
                let path = c"/bin/true".as_ptr();
                // SAFETY: the path is a C string; null lists mean empty ones to Linux.
                let result = unsafe { libc::syscall(libc::SYS_execve, path, 0, 0, 0, 0, secret) };
                assert_eq!((result, IoError::last_os_error().raw_os_error()), (-1, Some(libc::ENOSYS)));
            }
        });
    }

    #[test]
    fn every_mistake_is_reported_at_once_and_nothing_is_done() {
        let error = Lowering::builder().build().expect_err("nothing");
        assert_eq!(error.mistakes(), [Mistake::EmptyLowering]);
        let filter =
            Filter::worker().rule("no_such_call", [], Action::Allow).rule("openat", [], Action::Notify);
        let error = Lowering::builder()
            .seccomp(filter.deny(["exit_group"], Action::Errno(1)).forget(["exit_group"]))
            .landlock(Landlock::from_mounts().allow("relative", AccessFs::READ))
            .build()
            .expect_err("mistakes");
        let text = error.to_string();
        for part in
            ["no_such_call", "openat is answered with notify", "relative", "no mount tree", "exit_group"]
        {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert_eq!(error.kind(), ErrorKind::InvalidPolicy);
        assert!(
            Lowering::builder().seccomp(Filter::strict()).build().is_ok(),
            "it forbids execve, as it should"
        );
    }
}
