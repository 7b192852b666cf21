//! What the program's process looks like from inside: environment, directory, descriptors, limits, session, signals.
#![cfg_attr(
    test,
    expect(unsafe_code, reason = "descriptors by number, signal dispositions, memory mappings")
)]

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::env;
    use std::fs::{self, File};
    use std::io::Error;
    use std::os::fd::{AsRawFd, RawFd};
    use std::ptr;
    use std::time::Duration;

    use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
    use ringfence::host::KernelVersion;
    use ringfence::{Host, Init, Launch, Limit, Need, Resource, Sandbox, Stdio, Step, Verdict};

    use super::support::{alone, field, full_pipe, inside, is_root, said, shell, skipped, system, watchdog};

    fn sandbox() -> Sandbox {
        system().build().unwrap()
    }

    fn run(sandbox: &Sandbox, script: &str) -> String {
        said(&shell(sandbox, script).output().unwrap())
    }

    /// Each init with each launch.
    fn every_way() -> Vec<Sandbox> {
        let ways = [Init::Reaper, Init::Program].map(|init| {
            [Launch::Image, Launch::Copy].map(|launch| system().init(init).launch(launch).build().unwrap())
        });
        ways.into_iter().flatten().collect()
    }

    #[test]
    fn environment_is_exactly_what_was_set() {
        let _watchdog = watchdog(60);
        for sandbox in every_way() {
            let nothing = sandbox.command("env").arg("-0").output().unwrap();
            assert_eq!(said(&nothing), "");
            let mut command = sandbox.command("env");
            command.arg("-0").env("A", "1").env("B", "").envs([("C", "x=y\nz"), ("A", "2")]);
            assert_eq!(said(&command.output().unwrap()), "A=2\0B=\0C=x=y\nz\0");
            assert_eq!(said(&command.env_clear().env("D", "4").output().unwrap()), "D=4\0");
        }
    }

    #[test]
    fn environment_is_inherited_by_name_only() {
        let _watchdog = watchdog(60);
        let sandbox = sandbox();
        let mut command = sandbox.command("/usr/bin/env");
        command.arg("-0").env_inherit("PATH").env_inherit("NO_SUCH_VARIABLE_HERE");
        let expected = format!("PATH={}\0", env::var("PATH").unwrap());
        assert_eq!(said(&command.output().unwrap()), expected);
    }

    #[test]
    fn large_arguments_and_environments_arrive() {
        let _watchdog = watchdog(60);
        let big = "x".repeat(100_000);
        for sandbox in every_way() {
            let mut command = shell(&sandbox, "echo ${#1} ${#2} ${#V} $#");
            let outcome = command.arg("sh").args([&big, &big]).env("V", &big).output().unwrap();
            assert_eq!(said(&outcome), "100000 100000 100000 2\n");
            let mut many = shell(&sandbox, "echo $#");
            assert_eq!(said(&many.arg("sh").args(vec!["a"; 20_000]).output().unwrap()), "20000\n");
        }
    }

    #[test]
    fn working_directory_is_inside() {
        let _watchdog = watchdog(60);
        for sandbox in every_way() {
            assert_eq!(said(&sandbox.command("pwd").output().unwrap()), "/\n");
            for directory in ["/usr/bin", "/tmp", "/proc/self"] {
                let outcome = sandbox.command("pwd").current_dir(directory).output().unwrap();
                let seen = said(&outcome);
                assert!(seen == format!("{directory}\n") || directory == "/proc/self", "{seen}");
                assert!(seen.starts_with('/'), "{seen}");
            }
        }
    }

    #[test]
    fn argument_zero_can_be_chosen() {
        let _watchdog = watchdog(60);
        let sandbox = sandbox();
        let mut command = sandbox.command("/bin/cat");
        command.arg("/proc/self/cmdline");
        assert_eq!(said(&command.output().unwrap()), "/bin/cat\0/proc/self/cmdline\0");
        assert_eq!(said(&command.arg0("a name").output().unwrap()), "a name\0/proc/self/cmdline\0");
    }

    #[test]
    fn program_is_found_by_path_by_name_and_by_descriptor() {
        let _watchdog = watchdog(60);
        for sandbox in every_way() {
            assert_eq!(said(&sandbox.command("/bin/echo").arg("a").output().unwrap()), "a\n");
            assert_eq!(said(&sandbox.command("echo").arg("b").output().unwrap()), "b\n");
            let relative = sandbox.command("bin/echo").current_dir("/usr").arg("c").output().unwrap();
            assert_eq!(said(&relative), "c\n");
            let mut by_path = sandbox.command("echo");
            by_path.env("PATH", "/nowhere:/etc/passwd:/tmp:/usr/bin").arg("d");
            assert_eq!(said(&by_path.output().unwrap()), "d\n");
            let mut empty_entry = sandbox.command("echo");
            empty_entry.env("PATH", "/nowhere:").current_dir("/usr/bin").arg("e");
            assert_eq!(said(&empty_entry.output().unwrap()), "e\n");
            let mut by_fd = sandbox.command("any name");
            by_fd.program_fd(File::open("/usr/bin/cat").unwrap()).arg("/proc/self/cmdline");
            assert_eq!(said(&by_fd.output().unwrap()), "any name\0/proc/self/cmdline\0");
            by_fd.fd(3, full_pipe(b"")).fd(50, full_pipe(b""));
            assert_eq!(said(&by_fd.output().unwrap()), "any name\0/proc/self/cmdline\0");
        }
    }

    /// `ls` of its own table: what was passed, and the directory that it reads.
    fn table(text: &str) -> Vec<RawFd> {
        let mut numbers: Vec<RawFd> = text.lines().map(|line| line.parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn descriptors_are_exactly_the_allow_list() {
        alone(|| {
            let null = File::open("/dev/null").unwrap();
            let leaks: Vec<RawFd> = (0..500)
                .map(|_| {
                    // SAFETY: the new number belongs to nobody and is never closed: this process ends with the test.
                    unsafe { libc::dup(null.as_raw_fd()) }
                })
                .collect();
            assert!(leaks.iter().all(|number| *number >= 0));
            let directory = File::open("/").unwrap();
            for sandbox in every_way() {
                let mut command = sandbox.command("ls");
                command.arg("/proc/self/fd");
                assert_eq!(table(&said(&command.output().unwrap())), [0, 1, 2, 3]);
                command.fd(5, directory.try_clone().unwrap()).fd(77, directory.try_clone().unwrap());
                command.fd(600, directory.try_clone().unwrap());
                assert_eq!(table(&said(&command.output().unwrap())), [0, 1, 2, 3, 5, 77, 600]);
                command.stdin(Stdio::inherit()).stderr(Stdio::inherit());
                assert_eq!(table(&said(&command.output().unwrap())), [0, 1, 2, 3, 5, 77, 600]);
            }
        });
    }

    #[test]
    fn passed_descriptors_get_their_numbers_even_if_they_clash() {
        alone(|| {
            let (a, b) = (full_pipe(b"").as_raw_fd(), full_pipe(b"").as_raw_fd());
            let lists: [&[RawFd]; 7] = [
                &[3, 4, 5, 8],
                &[8, 5, 4, 3],
                &[5, 3, 8, 4],
                &[3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
                &[16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3],
                &[100, 3, 999, 4],
                &[b, a],
            ];
            for sandbox in every_way() {
                for list in lists {
                    let mut command = sandbox.command("bash");
                    let mut script = String::new();
                    for number in list {
                        // The caller's own numbers overlap with the targets: the table is small.
                        command.fd(*number, full_pipe(format!("<{number}>").as_bytes()));
                        script.push_str(&format!("cat <&{number}; "));
                    }
                    let expected: String = list.iter().map(|number| format!("<{number}>")).collect();
                    let outcome = command.args(["-c", &script]).output().unwrap();
                    assert_eq!(said(&outcome), expected, "{list:?}");
                }
            }
        });
    }

    #[test]
    fn two_descriptors_can_swap_their_numbers() {
        alone(|| {
            let (first, second) = (full_pipe(b"first"), full_pipe(b"second"));
            let (a, b) = (first.as_raw_fd(), second.as_raw_fd());
            let sandbox = sandbox();
            let mut command = sandbox.command("bash");
            command.fd(b, first).fd(a, second).args(["-c", &format!("cat <&{b}; echo; cat <&{a}")]);
            assert_eq!(said(&command.output().unwrap()), "first\nsecond");
        });
    }

    #[test]
    fn standard_streams_can_be_files() {
        let _watchdog = watchdog(60);
        let sandbox = sandbox();
        let mut command = sandbox.command("cat");
        let outcome = command.stdin(full_pipe(b"through")).output().unwrap();
        assert_eq!(said(&outcome), "through");
        let both = shell(&sandbox, "[ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo none").output().unwrap();
        assert_eq!(said(&both), "none\n");
    }

    #[test]
    fn limits_are_what_was_asked() {
        let _watchdog = watchdog(60);
        for launch in [Launch::Image, Launch::Copy] {
            let sandbox = system()
                .launch(launch)
                .limit(Resource::OpenFiles, 64)
                .limit(Resource::Processes, 5_000)
                .limit(Resource::CpuTime, 100)
                .limit(Resource::AddressSpace, 3 << 30)
                .limits(Limit {
                    resource: Resource::FileSize,
                    soft: 1 << 20,
                    hard: 2 << 20,
                    need: Need::Required,
                })
                .build()
                .unwrap();
            let text = run(&sandbox, "cat /proc/self/limits");
            let mut seen = BTreeMap::new();
            for line in text.lines().skip(1) {
                let (name, rest) = line.split_at(26);
                let values: Vec<String> = rest.split_whitespace().take(2).map(str::to_owned).collect();
                seen.insert(name.trim().to_owned(), values);
            }
            for (name, soft, hard) in [
                ("Max core file size", "0", "0"),
                ("Max open files", "64", "64"),
                ("Max processes", "5000", "5000"),
                ("Max cpu time", "100", "100"),
                ("Max address space", "3221225472", "3221225472"),
                ("Max file size", "1048576", "2097152"),
            ] {
                assert_eq!(seen[name], [soft, hard], "{name} {launch:?}");
            }
        }
    }

    #[test]
    fn a_limit_on_files_that_the_set_up_itself_exceeds_is_the_programs_alone() {
        let _watchdog = watchdog(60);
        let sandbox = system().limit(Resource::OpenFiles, 4).build().unwrap();
        assert_eq!(run(&sandbox, "ulimit -n"), "4\n");
    }

    #[test]
    fn umask_is_set() {
        let _watchdog = watchdog(60);
        let script = "umask; >/tmp/f; stat -c %a /tmp/f";
        assert_eq!(run(&sandbox(), script), "0022\n644\n");
        let sandbox = system().umask(0o077).build().unwrap();
        assert_eq!(run(&sandbox, script), "0077\n600\n");
    }

    /// Fields of `/proc/self/stat` behind the name: state ppid pgrp session tty …
    fn stat(text: &str) -> Vec<i64> {
        let (_, rest) = text.trim().rsplit_once(") ").unwrap();
        rest.split(' ').skip(1).map(|word| word.parse().unwrap_or(i64::MAX)).collect()
    }

    #[test]
    fn program_has_a_session_of_its_own_and_no_terminal() {
        let _watchdog = watchdog(60);
        for sandbox in every_way() {
            let fields = stat(&said(&sandbox.command("cat").arg("/proc/self/stat").output().unwrap()));
            let (session, terminal) = (fields[2], fields[3]);
            assert_eq!((session, terminal), (1, 0), "0 would be the caller's session: {fields:?}");
            let tty = shell(&sandbox, "(: </dev/tty) 2>/dev/null && echo had; true").output().unwrap();
            assert_eq!(said(&tty), "");
        }
        let shared = system().share_session().build().unwrap();
        let fields = stat(&said(&shared.command("cat").arg("/proc/self/stat").output().unwrap()));
        assert_eq!(fields[2], 0, "the caller's session has no number inside");
    }

    #[test]
    fn nice_and_oom_score_are_set() {
        let _watchdog = watchdog(60);
        let sandbox = system().nice(7).oom_score_adj(500).build().unwrap();
        let text = run(&sandbox, "nice; cat /proc/self/oom_score_adj");
        assert_eq!(text, "7\n500\n");
        let sandbox = self::sandbox();
        let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert_eq!(run(&sandbox, "cat /proc/self/oom_score_adj"), own, "otherwise the caller's");
    }

    #[test]
    fn nice_below_the_callers_is_had_by_root_only() {
        let _watchdog = watchdog(60);
        let sandbox = system().nice(-5).build().unwrap();
        let tried = sandbox.command("nice").output();
        if is_root() {
            assert_eq!(said(&tried.unwrap()), "-5\n");
        } else {
            let error = tried.unwrap_err();
            assert!(matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)), "{error}");
            assert!(error.to_string().contains("nice=-5"), "{error}");
        }
    }

    #[test]
    fn signals_are_as_a_fresh_program_expects_them() {
        alone(|| {
            for ignored in [Signal::SIGPIPE, Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGCHLD] {
                // SAFETY: no handler is set, so nothing runs in one.
                unsafe { signal(ignored, SigHandler::SigIgn) }.unwrap();
            }
            // SAFETY: the disposition of a real-time signal is set to "ignore"; no handler runs.
            assert_ne!(unsafe { libc::signal(40, libc::SIG_IGN) }, libc::SIG_ERR);
            let mut blocked = SigSet::empty();
            blocked.add(Signal::SIGTERM);
            blocked.add(Signal::SIGINT);
            blocked.thread_block().unwrap();
            for sandbox in every_way() {
                let outcome = sandbox.command("cat").arg("/proc/self/status").output().unwrap();
                // Where SIGCHLD is ignored the kernel reaps, and tells only init, or since Linux 6.15 a pidfd, how it ended.
                assert!(outcome.success() || outcome.verdict() == Verdict::Lost, "{outcome:?}");
                let text = String::from_utf8_lossy(&outcome.stdout);
                for set in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
                    let bits = u64::from_str_radix(&field(&text, set).unwrap(), 16).unwrap();
                    assert_eq!(bits, 0, "{set}");
                }
            }
            assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM), "the caller's own stays");
        });
    }

    /// Whether memory that is writable and executable can be had.
    fn write_execute() -> Result<(), i32> {
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new private mapping at an address of the kernel's choice; nothing refers to it.
        let at = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0) };
        if at == libc::MAP_FAILED { Err(Error::last_os_error().raw_os_error().unwrap()) } else { Ok(()) }
    }

    #[test]
    fn memory_is_never_writable_and_executable_when_that_is_denied() {
        if Host::probe().kernel() < KernelVersion::new(6, 3, 0) {
            let name = "memory_is_never_writable_and_executable_when_that_is_denied";
            return skipped(name, "this kernel has no PR_SET_MDWE");
        }
        inside(system().deny_write_execute(()), || {
            assert_eq!(write_execute(), Err(libc::EACCES));
        });
    }

    #[test]
    fn a_kernel_that_cannot_deny_it_is_an_error_of_that_step() {
        let _watchdog = watchdog(60);
        let ran = system().deny_write_execute(()).build().unwrap().command("true").status();
        let is_older = Host::probe().kernel() < KernelVersion::new(6, 3, 0);
        let refused = ran.err().map(|error| (error.step(), error.raw_os_error()));
        assert_eq!(refused, is_older.then_some((Step::Limits, Some(libc::EINVAL))));
    }

    #[test]
    fn memory_can_be_writable_and_executable_otherwise() {
        inside(system(), || assert_eq!(write_execute(), Ok(())));
    }

    #[test]
    fn addresses_differ_unless_randomisation_is_off() {
        let _watchdog = watchdog(60);
        let stacks = |sandbox: &Sandbox| -> BTreeSet<String> {
            let stack = || {
                let text = said(&sandbox.command("cat").arg("/proc/self/maps").output().unwrap());
                text.lines().find(|line| line.ends_with("[stack]")).unwrap().to_owned()
            };
            (0..4).map(|_| stack()).collect()
        };
        assert!(stacks(&sandbox()).len() > 1);
        for launch in [Launch::Image, Launch::Copy] {
            let same = system().launch(launch).disable_aslr(()).build().unwrap();
            assert_eq!(stacks(&same).len(), 1, "{launch:?}");
        }
    }

    #[test]
    fn timer_slack_is_set() {
        let _watchdog = watchdog(60);
        let sandbox = system().timer_slack(Duration::from_nanos(123_456)).build().unwrap();
        let outcome = sandbox.command("cat").arg("/proc/self/timerslack_ns").output().unwrap();
        if fs::metadata("/proc/self/timerslack_ns").is_err() {
            skipped("timer_slack_is_set", "this kernel does not show it");
            return;
        }
        assert_eq!(said(&outcome), "123456\n");
    }

    #[test]
    fn no_new_privs_is_set_and_can_be_allowed_by_name() {
        let _watchdog = watchdog(60);
        let script = "grep NoNewPrivs /proc/self/status";
        assert_eq!(run(&sandbox(), script), "NoNewPrivs:\t1\n");
        let weaker = system().allow_new_privileges().allow_all_calls().build().unwrap();
        // A caller that has it cannot give it up.
        let own = fs::read_to_string("/proc/thread-self/status").unwrap();
        let own = own.lines().find(|line| line.starts_with("NoNewPrivs")).unwrap();
        assert_eq!(run(&weaker, script), format!("{own}\n"));
    }

    #[test]
    fn outcome_of_a_shell_pipeline_is_its_last() {
        let _watchdog = watchdog(60);
        let outcome = shell(&sandbox(), "seq 1000 | sort -rn | head -1; exit 3").output().unwrap();
        assert_eq!((outcome.stdout.as_slice(), outcome.verdict()), (&b"1000\n"[..], Verdict::Exited(3)));
    }
}
