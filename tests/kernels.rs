//! What every sandbox needs of a kernel, on whatever kernel this is: `tests/vm/run` boots old and new ones for it.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{self, Write};
    use std::os::fd::AsFd;
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};
    use std::{env, path::Path};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::unistd::dup;
    use ringfence::host::{Features, KernelVersion};
    use ringfence::{
        Access, Builder, Error, ErrorKind, Host, Launch, LaunchMethod, Namespaces, Sandbox, Step,
        TimeOffsets, Verdict,
    };

    fn system() -> Builder {
        Sandbox::builder().system_read_only().setup_timeout(Duration::from_secs(60))
    }

    /// What a script says in this sandbox; it has to end well.
    #[track_caller]
    fn says(builder: Builder, script: &str) -> String {
        let sandbox = builder.build().unwrap_or_else(|error| panic!("{error:#}"));
        let outcome = sandbox.command("/bin/sh").args(["-c", script]).output();
        let outcome = outcome.unwrap_or_else(|error| panic!("{error:#}"));
        let (out, err) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
        assert_eq!(outcome.verdict(), Verdict::Exited(0), "{script}\n{out}{err}");
        out.into_owned()
    }

    /// The value of a line of /proc/PID/status.
    fn field<'a>(status: &'a str, name: &str) -> &'a str {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("{name} is not in {status}")).trim()
    }

    #[test]
    fn a_default_sandbox_runs_and_its_program_has_no_privilege() {
        let status = says(system(), "while read -r line; do echo \"$line\"; done < /proc/self/status");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(&status, set), "0000000000000000", "{set}");
        }
        assert_eq!(field(&status, "NoNewPrivs"), "1");
        let uid = field(&status, "Uid").split_whitespace().next().unwrap();
        assert_ne!(uid, "0");
        assert_eq!(says(system(), "read -r most < /proc/sys/user/max_user_namespaces; echo $most"), "0\n");
    }

    #[test]
    fn the_report_names_each_namespace_as_the_programs_own_and_nothing_missing() {
        let sandbox = system().build().unwrap();
        let held = sandbox.command("/bin/sh").spawn_held().unwrap_or_else(|error| panic!("{error:#}"));
        let report = held.enforcement();
        for (kind, name) in Namespaces::NAMES {
            if !Namespaces::STANDARD.contains(kind) {
                continue;
            }
            let state = report.namespaces.iter().find(|state| state.kind == kind);
            assert_eq!(state.and_then(|state| state.shared), Some(false), "{name}\n{report}");
        }
        assert!(report.missing.is_empty(), "{report}");
        assert_eq!(report.no_new_privs, Some(true), "{report}");
        let host_uid = report.host_uid.unwrap();
        assert_ne!(host_uid, 0, "{report}");
        let line = fs::read_to_string(format!("/proc/{}/status", held.id())).unwrap();
        assert_eq!(field(&line, "Uid").split_whitespace().next(), Some(host_uid.to_string().as_str()));
    }

    #[test]
    fn a_read_only_bind_covers_what_is_mounted_below_it() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let submounts: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|place| place.starts_with("/dev/"))
            .collect();
        assert!(submounts.contains(&"/dev/shm"), "nothing is mounted on /dev/shm: nothing would be tested");
        let builder = || system().bind("/dev", "/host", Access::ReadOnly);
        let seen = says(builder(), "while read -r line; do echo \"$line\"; done < /proc/self/mountinfo");
        let lines: Vec<Vec<&str>> = seen.lines().map(|line| line.split(' ').collect()).collect();
        let mut found = 0;
        for parts in &lines {
            if parts[4] == "/host" || parts[4].starts_with("/host/") {
                found += 1;
                // What another mount covers nobody reaches; before Linux 5.12 it cannot be restricted either.
                let covered = lines.iter().any(|other| other[1] == parts[0] && other[4] == parts[4]);
                assert!(covered || parts[5].split(',').any(|option| option == "ro"), "{parts:?}");
            }
        }
        assert_eq!(found, submounts.len() + 1, "{seen}");
        // Everybody may write to the host's, so the mount alone refuses it.
        let error = says(builder(), "(echo x > /host/shm/ringfence-kernels) 2>&1 && echo written; true");
        assert!(error.contains("Read-only file system"), "{error}");
        assert!(!Path::new("/dev/shm/ringfence-kernels").try_exists().unwrap());
    }

    #[test]
    fn a_fresh_proc_shows_the_sandbox_alone() {
        let seen = says(system(), "cd /proc; for entry in [0-9]*; do echo $entry; done");
        let pids: Vec<u32> = seen.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(pids, [1, 2], "init and the shell");
        let file = says(system(), "(echo x > /proc/sys/kernel/core_pattern) 2>&1 || true; echo $$");
        assert!(file.ends_with("2\n"), "{file}");
        assert!(file.lines().count() > 1, "core_pattern was written: {file}");
    }

    #[test]
    fn each_way_to_launch_leads_to_the_program_and_is_reported() {
        for launch in [Launch::Auto, Launch::Image, Launch::Copy] {
            let sandbox = system().launch(launch).build().unwrap();
            let held = sandbox.command("/bin/sh").args(["-c", "exit 7"]).spawn_held();
            let held = held.unwrap_or_else(|error| panic!("{launch:?}: {error:#}"));
            let method = held.enforcement().method.clone();
            let copied = matches!(method, LaunchMethod::Copy { .. });
            assert_eq!(copied, launch == Launch::Copy, "{launch:?} led to {method:?}");
            let outcome =
                held.release().unwrap_or_else(|error| panic!("{launch:?}: {error:#}")).wait().unwrap();
            assert_eq!(outcome.verdict(), Verdict::Exited(7), "{launch:?}");
        }
    }

    #[test]
    fn init_reaps_orphans_and_ends_when_the_program_ends() {
        // The inner shell ends at once, and what it left behind becomes init's.
        let script = "sh -c 'sleep 0.1 & sleep 0.2 & sleep 0.3 &'; sleep 1
            for file in /proc/[0-9]*/stat; do read -r line < $file; echo \"$line\"; done";
        let seen = says(system(), script);
        assert_eq!(seen.lines().count(), 2, "init and the shell: {seen}");
        let sandbox = system().build().unwrap();
        let begun = Instant::now();
        let outcome = sandbox.command("/bin/sh").args(["-c", "sleep 1000 & exit 5"]).status().unwrap();
        assert_eq!(outcome.verdict(), Verdict::Exited(5));
        assert!(begun.elapsed() < Duration::from_secs(60), "the orphan held it");
    }

    #[test]
    fn killing_ends_everything_inside_and_the_pidfd_says_so() {
        let sandbox = system().build().unwrap();
        let child = sandbox.command("/bin/sh").args(["-c", "sleep 1000 & sleep 1000; true"]).spawn().unwrap();
        let ended = |limit| {
            let mut polled = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, PollTimeout::try_from(Duration::from_millis(limit)).unwrap()).unwrap() == 1
        };
        assert!(!ended(300), "it has ended by itself");
        assert_eq!(child.wait_timeout(Duration::from_millis(10)).unwrap().map(|it| it.verdict()), None);
        let inside = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        assert_eq!(field(&inside, "NSpid").split_whitespace().nth(1), Some("2"));
        child.kill().unwrap();
        assert!(ended(20_000), "the pidfd was not readable");
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Killed);
        for pid in [child.id(), child.init_id()] {
            let state = fs::read_to_string(format!("/proc/{pid}/stat"));
            assert!(state.is_err(), "{pid} is left: {state:?}");
        }
    }

    #[test]
    fn a_signal_reaches_the_program_through_init() {
        let sandbox = system().build().unwrap();
        let script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done";
        let mut command = sandbox.command("/bin/sh");
        let mut child = command.args(["-c", script]).stdout(ringfence::Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        child.signal(10).unwrap();
        let outcome =
            child.wait_timeout(Duration::from_secs(20)).unwrap().expect("the signal did not arrive");
        assert_eq!(outcome.verdict(), Verdict::Exited(9));
        let script = "kill -SEGV $$";
        let outcome = sandbox.command("/bin/sh").args(["-c", script]).status().unwrap();
        assert!(matches!(outcome.verdict(), Verdict::Signaled { signal: 11, .. }), "{:?}", outcome.verdict());
    }

    #[test]
    fn time_offsets_hold_for_the_program_itself() {
        let uptime = |text: &str| text.split('.').next().unwrap().parse::<i64>().unwrap();
        let before = uptime(&fs::read_to_string("/proc/uptime").unwrap());
        for launch in [Launch::Image, Launch::Copy] {
            let offsets = TimeOffsets { monotonic: 50_000, boottime: 100_000 };
            let builder = || system().launch(launch).time_offsets(offsets);
            let seen = uptime(&says(builder(), "read -r line < /proc/uptime; echo $line"));
            assert!((100_000..101_000).contains(&(seen - before)), "{launch:?}: {before} {seen}");
            let set = says(builder(), "while read -r line; do echo $line; done < /proc/self/timens_offsets");
            let set: Vec<Vec<&str>> = set.lines().map(|line| line.split_whitespace().collect()).collect();
            assert_eq!(set, [["monotonic", "50000", "0"], ["boottime", "100000", "0"]], "{launch:?}");
        }
    }

    #[test]
    fn no_descriptor_of_the_caller_is_inherited() {
        // dup(2) makes one without close-on-exec.
        let leaked: Vec<_> = (0..5).map(|_| dup(io::stderr()).unwrap()).collect();
        for launch in [Launch::Image, Launch::Copy] {
            let script = "cd /proc/self/fd; for fd in *; do echo $fd; done";
            let seen = says(system().launch(launch), script);
            // The shell reads the directory through one more.
            let open = seen.lines().filter(|fd| ["0", "1", "2"].contains(fd)).count();
            assert_eq!((open, seen.lines().count() <= 4), (3, true), "{launch:?}: {seen}");
        }
        drop(leaked);
    }

    #[test]
    fn failures_name_their_step_and_errno() {
        #[track_caller]
        fn is(error: &Error, kind: ErrorKind, step: Step, errno: i32) {
            let seen = (error.kind(), error.step(), error.raw_os_error());
            assert_eq!(seen, (kind, step, Some(errno)), "{error:#}");
        }
        const ENOENT: i32 = 2;
        const EACCES: i32 = 13;
        for launch in [Launch::Image, Launch::Copy] {
            let sandbox = system().launch(launch).build().unwrap();
            let spawn = |program: &str| sandbox.command(program).spawn().map(drop).unwrap_err();
            is(&spawn("/absent"), ErrorKind::Exec, Step::Exec, ENOENT);
            is(&spawn("/etc/passwd"), ErrorKind::Exec, Step::Exec, EACCES);
            let mut command = sandbox.command("/bin/sh");
            let error = command.current_dir("/absent").spawn().map(drop).unwrap_err();
            is(&error, ErrorKind::Setup, Step::WorkingDirectory, ENOENT);
            let absent = system().launch(launch).bind("/absent-source", "/mnt", Access::ReadOnly).build();
            let error = absent.unwrap().command("/bin/sh").spawn().map(drop).unwrap_err();
            is(&error, ErrorKind::Setup, Step::OpenSource, ENOENT);
        }
        let relative = Sandbox::builder().bind("/usr", "usr", Access::ReadOnly).build().map(drop);
        assert_eq!(relative.unwrap_err().kind(), ErrorKind::InvalidPolicy);
    }

    #[test]
    fn many_threads_launch_at_once_and_leave_nothing() {
        let sandbox = system().build().unwrap();
        thread::scope(|scope| {
            for number in 0..4 {
                let sandbox = &sandbox;
                scope.spawn(move || {
                    for _ in 0..5 {
                        let mut command = sandbox.command("/bin/sh");
                        let outcome = command.args(["-c", &format!("exit {number}")]).status();
                        let outcome = outcome.unwrap_or_else(|error| panic!("{error:#}"));
                        assert_eq!(outcome.verdict(), Verdict::Exited(number));
                    }
                });
            }
        });
    }

    /// What Linux had when, of what a caller without a filter around it is to be offered.
    const SINCE: [(Features, u32, u32); 16] = [
        (Features::EXECVEAT, 3, 19),
        (Features::KEYCTL, 2, 6),
        (Features::EXECUTABLE_MEMFD, 3, 17),
        (Features::PIDFD_SEND_SIGNAL, 5, 1),
        (Features::MOUNT_API, 5, 2),
        (Features::CLONE3, 5, 3),
        (Features::PIDFD_OPEN, 5, 3),
        (Features::WAITID_PIDFD, 5, 4),
        (Features::CLONE_CLEAR_SIGHAND, 5, 5),
        (Features::OPENAT2, 5, 6),
        (Features::CLONE_INTO_CGROUP, 5, 7),
        (Features::FACCESSAT2, 5, 8),
        (Features::PROC_SUBSET_PID, 5, 8),
        (Features::CLOSE_RANGE, 5, 9),
        (Features::CLOSE_RANGE_CLOEXEC, 5, 11),
        (Features::MOUNT_SETATTR, 5, 12),
    ];

    #[test]
    fn features_found_are_those_of_the_release() {
        let host = Host::probe();
        let (kernel, found) = (host.kernel(), host.features());
        let uname = Command::new("uname").arg("-r").output().unwrap();
        let uname = String::from_utf8_lossy(&uname.stdout).into_owned();
        // Past the test harness, which would keep it to itself: the table of kernels is made of it.
        writeln!(io::stdout(), "features of {}: {found:?}", uname.trim()).unwrap();
        if env::var_os("RINGFENCE_UNFILTERED").is_none() {
            // A filter or a distribution may take away and add.
            return;
        }
        for (feature, major, minor) in SINCE {
            let expected = kernel >= KernelVersion::new(major, minor, 0);
            assert_eq!(found.contains(feature), expected, "{feature:?} on {kernel}");
        }
        let expected = kernel >= KernelVersion::new(6, 2, 0);
        assert_eq!(found.contains(Features::TIME_NS_ON_EXEC), expected, "{kernel}");
    }
}
