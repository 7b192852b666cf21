//! Init and held children: who PID 1 is, what it holds, and what a child that waits may do.
#![cfg_attr(test, expect(unsafe_code, reason = "ptrace and pidfd_getfd, as the program would try them"))]

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read;
    use std::thread;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::unistd::getppid;
    use ringfence::{FilterState, Init, Launch, LaunchMethod, Sandbox, Step, Verdict};

    use super::support::{
        alone, children, eventually, inside, is_root, namespace, said, shell, status_field, system, watchdog,
    };

    fn sandbox() -> Sandbox {
        system().build().unwrap()
    }

    fn program_first() -> Sandbox {
        system().init(Init::Program).build().unwrap()
    }

    #[test]
    fn orphans_are_reaped_by_init() {
        let _watchdog = watchdog(120);
        let script = "i=0; while [ $i -lt 1000 ]; do (true & ) ; i=$((i+1)); done
            n=0; while [ $n -lt 500 ]; do
              zombies=$(cat /proc/[0-9]*/status 2>/dev/null | grep -c '^State:.Z')
              [ \"$zombies\" = 0 ] && break; sleep 0.02; n=$((n+1)); done
            echo zombies $zombies; ls -d /proc/[0-9]* | wc -l";
        let outcome = shell(&sandbox(), script).output().unwrap();
        let text = said(&outcome);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "zombies 0");
        assert!(lines[1].trim().parse::<u32>().unwrap() <= 5, "{text}");
    }

    #[test]
    fn orphans_that_outlast_their_parents_are_reaped_and_the_status_is_still_the_programs() {
        let _watchdog = watchdog(60);
        let script =
            "for i in 1 2 3 4 5 6 7 8 9; do (sh -c 'sleep 0.05; exit 99' &) ; done; sleep 0.3; exit 12";
        let outcome = shell(&sandbox(), script).status().unwrap();
        assert_eq!(outcome.verdict(), Verdict::Exited(12));
    }

    #[test]
    fn init_holds_no_capability_and_few_descriptors() {
        let _watchdog = watchdog(60);
        for launch in [Launch::Image, Launch::Copy] {
            let child =
                system().launch(launch).build().unwrap().command("sleep").arg("1000").spawn().unwrap();
            let init = child.init_id();
            // Init goes on while the program starts.
            assert!(eventually(30, || status_field(init, "Name").as_deref() == Some("ringfence-init")));
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                let seen = status_field(init, set).unwrap();
                assert_eq!(u64::from_str_radix(&seen, 16).unwrap(), 0, "{set} {launch:?}");
            }
            assert_eq!(status_field(init, "NoNewPrivs").as_deref(), Some("1"));
            let uids = status_field(init, "Uid").unwrap();
            assert!(uids.split_whitespace().all(|uid| uid != "0"), "{uids}");
            let ids = |pid| (status_field(pid, "Uid"), status_field(pid, "Gid"), status_field(pid, "Groups"));
            assert_eq!(ids(init), ids(child.id()));
            if !is_root() {
                continue;
            }
            let list = || -> Vec<String> {
                let entries = fs::read_dir(format!("/proc/{init}/fd")).unwrap().filter_map(Result::ok);
                entries.filter_map(|e| Some(fs::read_link(e.path()).ok()?.display().to_string())).collect()
            };
            assert!(eventually(30, || list().len() == 2), "{:?}", list());
            for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
                assert_eq!(namespace(init, kind), namespace(child.id(), kind), "{kind}");
            }
        }
    }

    #[test]
    fn init_cannot_be_looked_into_from_inside() {
        inside(system(), || {
            assert_eq!(
                (getppid().as_raw(), fs::read_to_string("/proc/1/comm").unwrap().trim()),
                (1, "ringfence-init")
            );
            for request in [libc::PTRACE_ATTACH, libc::PTRACE_SEIZE] {
                // SAFETY: neither request reads or writes memory of this process.
                let result = unsafe { libc::ptrace(request, 1, 0, 0) };
                assert_eq!((result, Errno::last()), (-1, Errno::EPERM), "{request}");
            }
            for name in ["exe", "root", "cwd", "ns/net"] {
                fs::read_link(format!("/proc/1/{name}")).unwrap_err();
            }
            for name in ["fd", "map_files"] {
                fs::read_dir(format!("/proc/1/{name}")).map(drop).unwrap_err();
            }
            for name in ["mem", "environ", "maps", "auxv", "stack", "syscall"] {
                let read = File::open(format!("/proc/1/{name}")).and_then(|mut file| file.read(&mut [0; 16]));
                assert!(!matches!(read, Ok(1..)), "{name}: {read:?}");
            }
            // SAFETY: the call takes numbers only.
            let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, 1, 0) };
            // SAFETY: the same.
            assert_eq!(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, 5, 0) }, -1);
        });
    }

    #[test]
    fn init_cannot_be_killed_from_inside() {
        let _watchdog = watchdog(60);
        let script = "for s in 1 2 3 6 9 11 15 19 20 23; do kill -$s 1 2>/dev/null; done; sleep 0.1; exit 6";
        // What can be forwarded comes back to the shell, which ignores it here.
        let script = format!("trap '' 1 2 3 6 11 15 20 23; {script}");
        let outcome = shell(&sandbox(), &script).status().unwrap();
        assert_eq!(outcome.verdict(), Verdict::Exited(6));
    }

    #[test]
    fn program_can_be_pid_1() {
        let _watchdog = watchdog(60);
        let sandbox = program_first();
        let outcome = shell(&sandbox, "echo $$; cat /proc/1/comm").output().unwrap();
        assert_eq!(said(&outcome), "1\nsh\n");
        let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
        assert_eq!(child.id(), child.init_id());
        drop(child);
        let behind = shell(&self::sandbox(), "echo $$; cat /proc/1/comm").output().unwrap();
        assert_ne!(said(&behind).lines().next(), Some("1"));
        assert!(said(&behind).ends_with("ringfence-init\n"));
    }

    #[test]
    fn a_held_child_is_confined_and_waits() {
        let _watchdog = watchdog(60);
        for (init, launch) in [
            (Init::Reaper, Launch::Image),
            (Init::Reaper, Launch::Copy),
            (Init::Program, Launch::Image),
            (Init::Program, Launch::Copy),
        ] {
            let sandbox = system().init(init).launch(launch).build().unwrap();
            let held = sandbox.command("sleep").arg("1000").spawn_held().unwrap();
            let pid = held.id();
            thread::sleep(Duration::from_millis(20));
            let exe = fs::read_link(format!("/proc/{pid}/exe"));
            assert!(!exe.is_ok_and(|exe| exe.ends_with("sleep")), "it has not run");
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                let seen = status_field(pid, set).unwrap();
                assert_eq!(u64::from_str_radix(&seen, 16).unwrap(), 0, "{set} {launch:?} {init:?}");
            }
            assert_eq!(status_field(pid, "NoNewPrivs").as_deref(), Some("1"));
            for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
                let theirs = namespace(pid, kind);
                assert!(
                    theirs.is_some() && theirs != namespace("self", kind),
                    "{kind} {theirs:?} {launch:?} {init:?}"
                );
            }
            let report = held.enforcement().clone();
            assert_eq!(report.no_new_privs, Some(true));
            assert!(report.host_uid.is_some_and(|uid| uid != 0));
            assert!(report.namespaces.iter().filter(|state| state.shared == Some(false)).count() >= 7);
            assert_eq!(matches!(report.method, LaunchMethod::Image), launch == Launch::Image);
            let child = held.release().unwrap();
            assert_eq!(child.id(), pid);
            // The filter is the one thing that comes after.
            let mut then = child.enforcement().clone();
            assert!(matches!(then.filter, FilterState::Attached { .. }));
            then.filter = report.filter;
            assert_eq!(then, report);
            assert!(fs::read_link(format!("/proc/{pid}/exe")).unwrap().ends_with("sleep"));
            child.kill().unwrap();
        }
    }

    #[test]
    fn the_report_prints_what_holds() {
        let _watchdog = watchdog(60);
        let child = sandbox().command("true").spawn().unwrap();
        let text = child.enforcement().to_string();
        for word in ["namespaces", "user", "mnt", "pid", "net", "launch", "capabilities", "no_new_privs  set"]
        {
            assert!(text.contains(word), "{word}\n{text}");
        }
    }

    #[test]
    fn a_held_child_whose_program_is_missing_fails_at_release() {
        alone(|| {
            let before = children();
            let held = sandbox().command("/no/such").spawn_held().unwrap();
            let error = held.release().map(drop).unwrap_err();
            assert_eq!((error.step(), error.raw_os_error()), (Step::Exec, Some(libc::ENOENT)), "{error}");
            assert_eq!(children(), before);
        });
    }
}
