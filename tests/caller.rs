//! The caller is left alone: its state, its descriptors, its threads; and nothing that befalls the child harms it.
#![cfg_attr(
    test,
    expect(unsafe_code, reason = "the allocator that guards the child, and state of the process")
)]

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::collections::BTreeMap;
    use std::env;
    use std::fs::{self, File};
    use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::sys::prctl::{get_dumpable, set_dumpable};
    use nix::sys::resource::{Resource as Rlimit, getrlimit, setrlimit};
    use nix::sys::signal::{SigSet, Signal, kill};
    use nix::unistd::{Pid, getpgid, getsid};
    use ringfence::{Access, Error, Held, Init, Launch, LaunchMethod, Sandbox, Step, Verdict, prefer};

    use super::support::{
        alone, children, descriptors, eventually, is_root, rounds, said, shell, status_field, system,
        watchdog,
    };

    /// Ends every process that allocates and is not the one that allocated first: a child of this one.
    struct Guard;

    static OWNER: AtomicI64 = AtomicI64::new(0);

    impl Guard {
        fn check() {
            // SAFETY: the call takes nothing. libc's wrapper could cache.
            let own = unsafe { libc::syscall(libc::SYS_getpid) };
            let owner = OWNER
                .compare_exchange(0, own, Ordering::SeqCst, Ordering::SeqCst)
                .unwrap_or_else(|owner| owner);
            if owner != 0 && owner != own {
                let text = b"ALLOCATION IN A CHILD\n";
                // SAFETY: the text lives across the call.
                unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
                // SAFETY: it ends the process.
                unsafe { libc::_exit(99) };
            }
        }
    }

    // SAFETY: every call goes to the system's allocator with the arguments as they came.
    unsafe impl GlobalAlloc for Guard {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            Self::check();
            // SAFETY: the caller's promise is passed on.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            Self::check();
            // SAFETY: the caller's promise is passed on.
            unsafe { System.dealloc(pointer, layout) };
        }
    }

    #[global_allocator]
    static GUARD: Guard = Guard;

    const LAUNCHES: [Launch; 2] = [Launch::Image, Launch::Copy];

    fn sandbox(launch: Launch) -> Sandbox {
        system().launch(launch).build().unwrap()
    }

    /// What belongs to the whole process except its descriptors.
    fn state() -> BTreeMap<String, String> {
        let mut state = BTreeMap::new();
        let mut note = |name: &str, value: String| state.insert(name.to_owned(), value);
        for link in ["cwd", "root", "exe"] {
            note(link, format!("{:?}", fs::read_link(format!("/proc/self/{link}"))));
        }
        for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time", "pid_for_children"] {
            note(kind, format!("{:?}", fs::read_link(format!("/proc/thread-self/ns/{kind}"))));
        }
        for file in [
            "mountinfo",
            "cgroup",
            "oom_score_adj",
            "limits",
            "environ",
            "personality",
            "comm",
            "timerslack_ns",
        ] {
            note(file, format!("{:?}", fs::read_to_string(format!("/proc/self/{file}"))));
        }
        for name in [
            "Umask",
            "Uid",
            "Gid",
            "Groups",
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "Seccomp",
            "SigIgn",
            "SigCgt",
            "SigBlk",
            "Seccomp_filters",
            "NStgid",
            "NSsid",
            "NSpgid",
        ] {
            note(name, format!("{:?}", status_field("thread-self", name)));
        }
        note("env", format!("{:?}", env::vars_os().collect::<Vec<_>>()));
        note("dumpable", format!("{:?}", get_dumpable()));
        note("session", format!("{:?} {:?}", getsid(None), getpgid(None)));
        // SAFETY: KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING takes numbers only.
        note("keyring", unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) }.to_string());
        // SAFETY: both take numbers only.
        note("nice", unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }.to_string());
        state
    }

    /// Each descriptor with what it leads to, its flags and its status flags.
    fn table() -> Vec<(i32, String, i32, i32)> {
        let flags = |number, command| {
            // SAFETY: both commands take numbers only and change nothing.
            unsafe { libc::fcntl(number, command) }
        };
        let all = descriptors().into_iter();
        all.map(|(number, to)| (number, to, flags(number, libc::F_GETFD), flags(number, libc::F_GETFL)))
            .collect()
    }

    /// Threads of this process, less the two that the crate keeps for the whole process (its watchdog, and the thread that
    /// clones programs that are PID 1), which have its name.
    fn threads() -> usize {
        let own = |task: &fs::DirEntry| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.starts_with("ringfence"))
        };
        fs::read_dir("/proc/self/task").unwrap().flatten().filter(|task| !own(task)).count()
    }

    /// A failure of each kind, by name.
    fn failures(launch: Launch) -> Vec<(&'static str, Result<(), Error>)> {
        let sandbox = sandbox(launch);
        let source =
            system().launch(launch).bind("/no/such/source", "/data", Access::ReadOnly).build().unwrap();
        vec![
            ("program", sandbox.command("/no/such").spawn().map(drop)),
            ("directory", sandbox.command("true").current_dir("/no/such").spawn().map(drop)),
            ("source", source.command("true").spawn().map(drop)),
            ("argument", sandbox.command("true").arg("\0").spawn().map(drop)),
            ("arguments", sandbox.command("true").arg("x".repeat(200_000)).spawn().map(drop)),
            (
                "target",
                sandbox.command("true").fd(i32::MAX - 100, File::open("/").unwrap()).spawn().map(drop),
            ),
            ("clone", refused_clone(&sandbox)),
        ]
    }

    fn refused_clone(sandbox: &Sandbox) -> Result<(), Error> {
        let (soft, hard) = getrlimit(Rlimit::RLIMIT_NPROC).unwrap();
        setrlimit(Rlimit::RLIMIT_NPROC, 1, hard).unwrap();
        let tried = sandbox.command("true").spawn().map(drop);
        setrlimit(Rlimit::RLIMIT_NPROC, soft, hard).unwrap();
        tried
    }

    /// Root is exempt from RLIMIT_NPROC.
    fn be_unprivileged() {
        if is_root() {
            // SAFETY: the calls take numbers only; glibc changes every thread of this process.
            assert_eq!(unsafe { libc::setresgid(54_321, 54_321, 54_321) }, 0);
            // SAFETY: the same.
            assert_eq!(unsafe { libc::setresuid(54_321, 54_321, 54_321) }, 0);
            set_dumpable(true).unwrap();
        }
    }

    #[test]
    fn callers_state_is_the_same_after_every_spawn() {
        alone(|| {
            let mut blocked = SigSet::empty();
            blocked.add(Signal::SIGUSR1);
            blocked.thread_block().unwrap();
            let before = (state(), table());
            for launch in LAUNCHES {
                for init in [Init::Reaper, Init::Program] {
                    let builder = system().launch(launch).init(init).nice(5).oom_score_adj(700).umask(0o077);
                    let sandbox = builder
                        .deny_write_execute(prefer(()))
                        .disable_aslr(())
                        .hostname("other")
                        .build()
                        .unwrap();
                    shell(&sandbox, "exit 3").output().unwrap();
                    drop(sandbox.command("true").spawn_held().unwrap());
                    sandbox.command("sleep").arg("100").spawn().unwrap().kill().unwrap();
                    sandbox.command("/no/such").spawn().map(drop).unwrap_err();
                    drop(sandbox);
                    assert_eq!((state(), table()), before, "{launch:?} {init:?}");
                }
            }
        });
    }

    #[test]
    fn callers_state_is_the_same_after_every_failure_and_nothing_leaks() {
        alone(|| {
            be_unprivileged();
            for launch in LAUNCHES {
                let before = (state(), table(), children(), threads());
                for _ in 0..5 {
                    for (name, tried) in failures(launch) {
                        assert!(tried.is_err(), "{launch:?} {name}");
                    }
                }
                assert_eq!((state(), table(), children(), threads()), before, "{launch:?}");
            }
        });
    }

    /// Runs the body while other threads allocate, free and open files.
    fn busy(body: impl FnOnce()) {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for number in 0..4_usize {
                let stop = &stop;
                scope.spawn(move || {
                    let mut kept: Vec<Vec<u8>> = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        kept.push(vec![1; 1 + (kept.len() * 97 + number * 31) % 5000]);
                        let file = File::open("/proc/self/status").unwrap();
                        if kept.len() > 64 {
                            kept.clear();
                        }
                        drop(file);
                    }
                });
            }
            let _stop = Stop(&stop);
            body();
        });
    }

    #[test]
    fn callers_state_is_the_same_while_other_threads_work() {
        alone(|| {
            let before = state();
            busy(|| {
                for launch in LAUNCHES {
                    let sandbox = sandbox(launch);
                    for _ in 0..20 {
                        shell(&sandbox, "exit 0").output().unwrap();
                        sandbox.command("/no/such").spawn().map(drop).unwrap_err();
                    }
                }
            });
            assert_eq!(state(), before);
        });
    }

    #[test]
    fn nothing_is_allocated_in_the_child() {
        alone(|| {
            busy(|| {
                for launch in LAUNCHES {
                    for init in [Init::Reaper, Init::Program] {
                        let sandbox = system().launch(launch).init(init).build().unwrap();
                        for _ in 0..25 {
                            let child = shell(&sandbox, "exit 7").spawn().unwrap();
                            let image = matches!(child.enforcement().method, LaunchMethod::Image);
                            assert_eq!(image, launch == Launch::Image);
                            assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(7));
                        }
                        sandbox.command("/no/such").spawn().map(drop).unwrap_err();
                    }
                }
            });
            assert_ne!(OWNER.load(Ordering::SeqCst), 0, "the guard was there");
        });
    }

    #[test]
    fn many_threads_spawn_without_cross_talk() {
        alone(|| {
            let sandboxes = LAUNCHES.map(sandbox);
            let before = (table(), children());
            busy(|| {
                thread::scope(|scope| {
                    for thread in 0..32_usize {
                        let sandbox = &sandboxes[usize::from(thread % 8 == 0)];
                        scope.spawn(move || {
                            for run in 0..rounds(20) {
                                let script = "echo $1 $V; echo e$1 >&2; ls /proc/self/fd | wc -l; exit $2";
                                let (word, code) = (format!("{thread}-{run}"), thread + run);
                                let mut command = shell(sandbox, script);
                                let outcome = command
                                    .args(["sh", &word, &code.to_string()])
                                    .env("V", &word)
                                    .output()
                                    .unwrap();
                                assert_eq!(
                                    String::from_utf8_lossy(&outcome.stdout),
                                    format!("{word} {word}\n4\n")
                                );
                                assert_eq!(String::from_utf8_lossy(&outcome.stderr), format!("e{word}\n"));
                                assert_eq!(outcome.code(), Some(i32::try_from(code).unwrap()));
                            }
                        });
                    }
                });
            });
            assert_eq!((table(), children()), before);
        });
    }

    #[test]
    fn a_thousand_spawns_leak_nothing() {
        alone(|| {
            let sandbox = sandbox(Launch::Image);
            let dies = system().init(Init::Program).build().unwrap();
            dies.command("true").status().unwrap();
            let before = (table(), children(), threads(), state());
            let mappings = || fs::read_to_string("/proc/self/maps").unwrap().lines().count();
            let mapped = mappings();
            for run in 0..rounds(1_000) {
                match run % 10 {
                    0 => drop(sandbox.command("true").spawn_held().unwrap()),
                    1 => drop(sandbox.command("sleep").arg("100").spawn().unwrap()),
                    2 => sandbox.command("/no/such").spawn().map(drop).unwrap_err().to_string().clear(),
                    3 => assert!(dies.command("true").status().unwrap().success()),
                    4 => assert_eq!(said(&shell(&sandbox, "echo x").output().unwrap()), "x\n"),
                    _ => assert!(sandbox.command("true").status().unwrap().success()),
                }
            }
            assert_eq!((table(), children(), threads(), state()), before);
            // Each launch maps something: what is over would show. A thread's heap may come and stay.
            assert!(mappings() < mapped + 50, "{mapped} mappings before, {} after", mappings());
        });
    }

    #[test]
    fn a_held_child_that_is_killed_is_an_error() {
        let _watchdog = watchdog(60);
        for launch in LAUNCHES {
            for init in [Init::Reaper, Init::Program] {
                let sandbox = system().launch(launch).init(init).build().unwrap();
                let pids = [|held: &Held| held.id(), |held: &Held| held.init_id()];
                for (who, pid) in pids.into_iter().enumerate() {
                    let held = sandbox.command("true").spawn_held().unwrap();
                    kill(Pid::from_raw(pid(&held).cast_signed()), Signal::SIGKILL).unwrap();
                    match held.release() {
                        // Init's death takes the program along a moment later: it may have come to its exec.
                        Ok(child) => {
                            assert_eq!(who, 1, "{launch:?} {init:?}: it cannot run");
                            child.wait().unwrap();
                        }
                        Err(error) => {
                            // When init is killed, the program may come some steps further before it is, too.
                            let known = who == 1 || matches!(error.step(), Step::Gate | Step::Init);
                            assert!(
                                known && error.to_string().contains("SIGKILL"),
                                "{launch:?} {init:?}: {error}"
                            );
                        }
                    }
                }
            }
        }
    }

    /// Says stop when it is dropped, also by a panic.
    struct Stop<'a>(&'a AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// Does something to every child of this process, as soon as it is there, while the body runs.
    fn to_every_child(signal: Signal, body: impl FnOnce()) {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let end = Instant::now() + Duration::from_secs(20);
                while !stop.load(Ordering::SeqCst) {
                    // What hangs is ended, so that the test fails and does not hang.
                    let signal = if Instant::now() < end { signal } else { Signal::SIGKILL };
                    for pid in children() {
                        kill(Pid::from_raw(pid), signal).ok();
                    }
                }
            });
            let _stop = Stop(&stop);
            body();
        });
    }

    #[test]
    fn a_child_that_is_killed_during_set_up_is_an_error_and_the_caller_lives() {
        alone(|| {
            let before = (state(), table());
            for launch in LAUNCHES {
                let sandbox = sandbox(launch);
                let mut failed = 0;
                to_every_child(Signal::SIGKILL, || {
                    for _ in 0..60 {
                        match sandbox.command("sleep").arg("1000").spawn() {
                            Ok(child) => drop(child.wait().unwrap()),
                            Err(error) => {
                                failed += 1;
                                // Reading back what holds finds that there is nothing to read.
                                let gone = error.step() == Step::Verify;
                                assert!(gone || error.to_string().contains("SIGKILL"), "{error}");
                            }
                        }
                    }
                });
                assert!(failed > 0, "none was hit during its set-up");
            }
            assert!(children().is_empty());
            assert_eq!((state(), table()), before);
        });
    }

    #[test]
    fn a_child_that_is_stopped_during_set_up_is_an_error_within_the_time_limit() {
        alone(|| {
            let before = (state(), table());
            for launch in LAUNCHES {
                let limit = Duration::from_millis(200);
                let sandbox = system().launch(launch).setup_timeout(limit).build().unwrap();
                let mut failed = 0;
                to_every_child(Signal::SIGSTOP, || {
                    for _ in 0..15 {
                        match sandbox.command("true").spawn() {
                            Ok(child) => child.kill().unwrap(),
                            Err(error) => {
                                failed += 1;
                                assert!(error.to_string().contains("in time"), "{error}");
                            }
                        }
                    }
                });
                assert!(failed > 0, "none was hit during its set-up");
            }
            assert!(children().is_empty());
            assert_eq!((state(), table()), before);
        });
    }

    #[test]
    fn a_child_that_is_stopped_for_a_moment_goes_on() {
        let _watchdog = watchdog(60);
        let sandbox = sandbox(Launch::Image);
        let held = sandbox.command("true").spawn_held().unwrap();
        let pid = Pid::from_raw(held.id().cast_signed());
        kill(pid, Signal::SIGSTOP).unwrap();
        assert!(eventually(30, || status_field(pid, "State").is_some_and(|state| state.starts_with('T'))));
        let released = thread::spawn(|| held.release());
        kill(pid, Signal::SIGCONT).unwrap();
        assert!(released.join().unwrap().unwrap().wait().unwrap().success());
    }
}
