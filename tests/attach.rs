//! Another command in a living sandbox: that it is where the program is and confined as that is, that it is a child of its
//! own, and how joining fails.
#![cfg_attr(test, expect(unsafe_code, reason = "capabilities of one thread"))]

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
#[path = "support/attach.rs"]
mod joined;

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::{self, Permissions};
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process;
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use ringfence::{
        Access, AccessFs, Action, Child, Error, ErrorKind, Filter, FrozenBy, Host, Init, Landlock, Lowering,
        Namespaces, ProcessRole, Response, Sandbox, Stdio, Step, SupervisorState, Verdict, WindowSize,
        prefer,
    };

    use super::joined::{STATE, joining, kinds, living, until};
    use super::support::{
        alone, children, eventually, is_root, pids, said, shell, skipped, status_field, system, watchdog,
    };

    fn ends(child: &Child) -> Verdict {
        child.wait().unwrap().verdict()
    }

    #[test]
    fn it_is_where_the_program_is_and_confined_as_that_is() {
        let _watchdog = watchdog(300);
        for (name, sandbox) in kinds() {
            let (child, first) = living(&sandbox);
            for run in 0..2 {
                let outcome =
                    joining(&child, STATE).output().unwrap_or_else(|error| panic!("{name}: {error:#}"));
                let second = said(&outcome);
                let differs = first.lines().zip(second.lines()).find(|(one, other)| one != other);
                assert!(first == second, "{name}, run {run}: {differs:?}\n{first}\n{second}");
            }
            assert!(child.try_wait().unwrap().is_none(), "{name}: the sandbox goes on");
        }
    }

    #[test]
    fn its_report_is_what_the_kernel_says() {
        let _watchdog = watchdog(120);
        for (name, sandbox) in kinds() {
            let (child, _) = living(&sandbox);
            let held =
                joining(&child, "exit 3").spawn_held().unwrap_or_else(|error| panic!("{name}: {error:#}"));
            let (report, main) = (held.enforcement().clone(), child.enforcement());
            assert_eq!(report.capabilities, main.capabilities, "{name}");
            assert_eq!(report.attempts, main.attempts, "{name}");
            assert_eq!(report.attempts.len() == 2, name == "a weaker set than the first", "{name}");
            assert_eq!((report.host_uid, report.host_gid), (main.host_uid, main.host_gid), "{name}");
            for (own, theirs) in main.namespaces.iter().zip(&report.namespaces) {
                // A time namespace is entered behind the first one's report where there is no init.
                if own.kind != Namespaces::TIME {
                    assert_eq!((own.inode, own.shared), (theirs.inode, theirs.shared), "{name} {}", own.kind);
                }
            }
            assert!(report.notes.iter().any(|note| note.contains(&child.init_id().to_string())), "{report}");
            let id = held.id();
            let seen = |field| status_field(id, field);
            let session = |pid: u32| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
                stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().to_owned()
            };
            assert_eq!(session(id) == session(process::id()), name == "a shared session", "{name}");
            assert_eq!(seen("NoNewPrivs").as_deref(), Some("1"), "{name}");
            assert_eq!(seen("CapEff").as_deref(), Some("0000000000000000"), "{name}");
            let attached = held.release().unwrap();
            assert_eq!(ends(&attached), Verdict::Exited(3), "{name}");
        }
    }

    #[test]
    fn it_is_a_child_of_its_own() {
        let _watchdog = watchdog(120);
        let (child, _) = living(&system().build().unwrap());
        assert_eq!(ends(&joining(&child, "exit 7").spawn().unwrap()), Verdict::Exited(7));
        let outcome = joining(&child, "kill -TERM $$").status().unwrap();
        assert!(matches!(outcome.verdict(), Verdict::Signaled { signal: libc::SIGTERM, .. }), "{outcome:?}");
        let outcome = joining(&child, "echo out; echo err >&2; cat /proc/self/cmdline").output().unwrap();
        assert!(outcome.stdout.starts_with(b"out\n") && outcome.stderr == b"err\n", "{outcome:?}");
        let mut command = joining(&child, "trap 'exit 9' USR1; echo up; while :; do sleep 0.01; done");
        let mut waiting = command.stdout(Stdio::piped()).spawn().unwrap();
        until(&mut waiting, "up\n");
        waiting.signal(libc::SIGUSR1).unwrap();
        assert_eq!(ends(&waiting), Verdict::Exited(9));
        let error = child.command("/no/such").spawn().map(drop).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Exec, Some(libc::ENOENT)), "{error}");
        // What has joined is joined by joining the same sandbox.
        let first = joining(&child, "exec sleep 1000").spawn().unwrap();
        assert_eq!(ends(&first.command("true").spawn().unwrap()), Verdict::Exited(0));
        assert!(child.try_wait().unwrap().is_none());
    }

    #[test]
    fn it_has_a_terminal_of_its_own() {
        let _watchdog = watchdog(60);
        let (child, _) = living(&system().build().unwrap());
        let size = WindowSize { rows: 31, columns: 97 };
        let attached = joining(&child, "stty size; echo to-tty > /dev/tty").terminal(size).spawn().unwrap();
        let mut text = String::new();
        attached.terminal.as_ref().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text.replace('\r', ""), "31 97\nto-tty\n");
        assert_eq!(ends(&attached), Verdict::Exited(0));
    }

    #[test]
    fn a_kill_ends_what_it_started_and_nothing_else() {
        let _watchdog = watchdog(120);
        for (name, sandbox) in kinds() {
            let (child, _) = living(&sandbox);
            let script = "setsid sleep 1001 & (trap '' TERM HUP; sleep 1002; :) & echo up; sleep 1003; :";
            let mut command = joining(&child, script);
            let mut attached = command.stdout(Stdio::piped()).spawn().unwrap();
            until(&mut attached, "up\n");
            let many = || attached.processes().unwrap();
            assert!(eventually(10, || many().len() >= 6), "{name}: {:?}", many());
            let inside = many();
            assert_eq!(
                inside.iter().filter(|info| info.role == ProcessRole::Program).count(),
                1,
                "{inside:?}"
            );
            assert_eq!(
                inside.iter().filter(|info| info.role == ProcessRole::Attendant).count(),
                1,
                "{inside:?}"
            );
            attached.kill().unwrap();
            let left: Vec<_> = inside
                .iter()
                .filter(|info| {
                    status_field(info.pid, "State").is_some_and(|state| !state.starts_with(['Z', 'X']))
                })
                .collect();
            assert!(left.is_empty(), "{name}: {left:?}");
            assert_eq!(ends(&attached), Verdict::Killed, "{name}");
            assert!(child.try_wait().unwrap().is_none(), "{name}: the sandbox goes on");
            assert_eq!(ends(&joining(&child, "exit 4").spawn().unwrap()), Verdict::Exited(4), "{name}");
        }
    }

    #[test]
    fn too_much_output_ends_it_alone() {
        let _watchdog = watchdog(60);
        let (child, _) = living(&system().output_limit(100_000).build().unwrap());
        let outcome = joining(&child, "yes").output().unwrap();
        assert_eq!(outcome.verdict(), Verdict::TooMuchOutput { limit: 100_000 });
        assert!(child.try_wait().unwrap().is_none());
    }

    #[test]
    fn it_ends_with_its_sandbox_and_says_so() {
        let _watchdog = watchdog(120);
        for (name, sandbox) in kinds() {
            let (mut child, _) = living(&sandbox);
            let [one, other] = [(); 2].map(|()| joining(&child, "exec sleep 1000").spawn().unwrap());
            // The program ends by itself; then by a kill.
            drop(child.stdin.take());
            assert_eq!(ends(&child), Verdict::Exited(0), "{name}");
            for attached in [one, other] {
                let verdict = attached.wait_timeout(Duration::from_secs(20)).unwrap();
                let verdict = verdict.unwrap_or_else(|| panic!("{name}: it outlives its sandbox")).verdict();
                assert_eq!(verdict, Verdict::SandboxEnded, "{name}");
            }
            let (child, _) = living(&sandbox);
            let attached = joining(&child, "exec sleep 1000").spawn().unwrap();
            child.kill().unwrap();
            assert_eq!(ends(&attached), Verdict::SandboxEnded, "{name}");
            let error = child.command("true").spawn().map(drop).unwrap_err();
            assert_eq!(
                (error.step(), error.raw_os_error()),
                (Step::Join, Some(libc::ESRCH)),
                "{name}: {error}"
            );
            assert!(error.to_string().contains("has ended"), "{error}");
        }
    }

    #[test]
    fn a_sandbox_that_ends_meanwhile_leaves_nothing() {
        alone(|| {
            let sandbox = system().build().unwrap();
            let (mut ran, mut refused) = (0, 0);
            for run in 0..60 {
                let child = shell(&sandbox, "sleep 1000").spawn().unwrap();
                let mut command = child.command("true");
                thread::scope(|scope| {
                    scope.spawn(|| {
                        thread::sleep(Duration::from_micros(200 * run));
                        child.kill().unwrap();
                    });
                    match command.status() {
                        Ok(_) => ran += 1,
                        Err(error) => {
                            refused += 1;
                            assert!(error.to_string().contains("the sandbox has ended"), "{error:#}");
                        }
                    }
                });
            }
            assert!(refused > 0 && ran + refused == 60, "{ran} {refused}");
            assert!(eventually(10, || children().is_empty()), "{:?}", children());
        });
    }

    /// The freezer of version 1 holds what is killed: so its first process stands for one that has not run again yet.
    #[test]
    fn a_sandbox_that_is_killed_has_ended_though_it_has_not_run_since() {
        let _watchdog = watchdog(120);
        let name = "a_sandbox_that_is_killed_has_ended_though_it_has_not_run_since";
        let host = Host::probe();
        let mut cgroups = host.cgroups().clone();
        cgroups.unified = None;
        let policy = system().own_cgroup(()).policy().unwrap();
        if cgroups.legacy_with("freezer").is_none_or(|found| found.own.is_none()) {
            return skipped(name, "no freezer of cgroup v1");
        }
        let Ok(sandbox) = Sandbox::new(policy, host.with_cgroups(cgroups)) else {
            return skipped(name, "no group of cgroup v1 to make groups in");
        };
        let (child, _) = living(&sandbox);
        assert_eq!(child.freeze().unwrap(), FrozenBy::CgroupV1);
        kill(Pid::from_raw(child.init_id().cast_signed()), Signal::SIGKILL).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "it is held");
        let error = child.command("true").spawn().map(drop).unwrap_err();
        assert!(error.to_string().contains("has ended"), "{error}");
        child.thaw().unwrap();
        let verdict = ends(&child);
        assert!(matches!(verdict, Verdict::Signaled { signal: libc::SIGKILL, .. }), "{verdict:?}");
    }

    #[test]
    fn a_frozen_sandbox_is_an_error_and_holds_nobody_up() {
        let _watchdog = watchdog(120);
        let name = "a_frozen_sandbox_is_an_error_and_holds_nobody_up";
        let sandbox = system().own_cgroup(prefer(())).setup_timeout(Duration::from_secs(3)).build().unwrap();
        let (child, _) = living(&sandbox);
        if child.freeze().unwrap() == FrozenBy::Stop {
            return skipped(name, "no group that freezes");
        }
        let error = child.command("true").spawn().map(drop).unwrap_err();
        assert!(error.step() == Step::Join && error.to_string().contains("thaw it first"), "{error}");
        child.thaw().unwrap();
        assert_eq!(ends(&child.command("true").spawn().unwrap()), Verdict::Exited(0));
        // Frozen in the middle of it: it waits, and goes on; or the time is over.
        let begun = Instant::now();
        thread::scope(|scope| {
            let joins = scope.spawn(|| {
                for _ in 0..20 {
                    match child.command("true").status() {
                        Ok(outcome) => assert!(outcome.success(), "{outcome:?}"),
                        Err(error) => assert!(error.to_string().contains("frozen"), "{error:#}"),
                    }
                }
            });
            while !joins.is_finished() {
                child.freeze().unwrap();
                thread::sleep(Duration::from_millis(5));
                child.thaw().unwrap();
                thread::sleep(Duration::from_millis(20));
            }
        });
        assert!(begun.elapsed() < Duration::from_secs(100));
    }

    #[test]
    fn the_sandboxes_limit_of_processes_is_its_own_too() {
        let _watchdog = watchdog(60);
        let name = "the_sandboxes_limit_of_processes_is_its_own_too";
        let Ok(sandbox) = system().processes(3).build() else {
            return skipped(name, "no limit of processes");
        };
        let Ok(child) = shell(&sandbox, "read line").stdin(Stdio::piped()).spawn() else {
            return skipped(name, "no group with a limit of processes");
        };
        let error = child.command("true").spawn().map(drop).unwrap_err();
        assert_eq!(
            (error.step(), error.failed_call(), error.raw_os_error()),
            (Step::Init, Some("clone"), Some(libc::EAGAIN)),
            "{error:#}"
        );
        assert!(child.try_wait().unwrap().is_none());
    }

    #[test]
    fn a_rule_of_landlock_is_for_what_the_programs_own_was() {
        let _watchdog = watchdog(60);
        let scratch = env::temp_dir().join(format!("ringfence-attach-{}", process::id()));
        for part in ["open", "closed"] {
            fs::create_dir_all(scratch.join(part)).unwrap();
            fs::set_permissions(scratch.join(part), Permissions::from_mode(0o777)).unwrap();
            fs::write(scratch.join(part).join("file"), part).unwrap();
        }
        let rules = Landlock::from_mounts().allow("/shared/open", AccessFs::READ_WRITE);
        let builder = system().bind(&scratch, "/shared", Access::ReadWrite).landlock(rules);
        let Ok(sandbox) = builder.build() else {
            fs::remove_dir_all(&scratch).unwrap();
            return skipped("a_rule_of_landlock_is_for_what_the_programs_own_was", "no Landlock");
        };
        let (child, _) = living(&sandbox);
        assert_eq!(said(&joining(&child, "cat /shared/open/file").output().unwrap()), "open");
        let report = joining(&child, "true").spawn_held().unwrap().enforcement().clone();
        assert_eq!(report.landlock, child.enforcement().landlock);
        // As the program could, where it may write.
        fs::rename(scratch.join("open"), scratch.join("away")).unwrap();
        symlink("closed", scratch.join("open")).unwrap();
        let error = joining(&child, "cat /shared/open/file").spawn().map(drop).unwrap_err();
        assert_eq!(error.step(), Step::Landlock, "{error}");
        assert!(error.to_string().contains("/shared/open"), "{error}");
        fs::remove_dir_all(&scratch).unwrap();
    }

    #[test]
    fn a_sandbox_that_was_let_go_can_be_joined() {
        let _watchdog = watchdog(60);
        let sandbox = system().allow_outliving_caller().build().unwrap();
        let (mut child, state) = living(&sandbox);
        let _stdin = child.stdin.take();
        let detached = child.detach().unwrap();
        let mut command = detached.command("sh");
        assert_eq!(said(&command.args(["-c", STATE]).output().unwrap()), state);
        let attached = detached.command("sleep").arg("1000").spawn().unwrap();
        drop(attached);
        assert!(pids().contains(&detached.init_id().cast_signed()));
        kill(Pid::from_raw(detached.init_id().cast_signed()), Signal::SIGKILL).unwrap();
        detached.wait().unwrap();
        let error = detached.command("true").spawn().map(drop).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "{error}");
    }

    #[test]
    fn a_name_and_a_pool_are_not_for_it() {
        let _watchdog = watchdog(60);
        let sandbox = system().build().unwrap();
        let child = shell(&sandbox, "sleep 1000").spawn().unwrap();
        let error = child.command("true").name("job").spawn().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidCommand, "{error}");
        let idle = sandbox.hold().unwrap();
        let error = idle.spawn(&child.command("true")).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidCommand, "{error}");
        assert!(child.command("true").explain().unwrap().contains("setns"));
    }

    #[test]
    fn told_kills_and_notices_need_a_caller_that_may_take_the_listener() {
        let _watchdog = watchdog(60);
        let filter = Filter::baseline().forget(["uname"]).deny(["uname"], Action::Notify);
        let sandbox = system().seccomp(filter).build().unwrap();
        let mut command = shell(&sandbox, "echo up; read line");
        command.stdin(Stdio::piped()).on_notify(|_| Response::Errno(libc::EXDEV));
        let child = command.spawn().unwrap();
        let mut attached = joining(&child, "uname");
        attached.on_notify(|_| Response::Errno(libc::EXDEV));
        if is_root() {
            let outcome = attached.output().unwrap();
            let text = String::from_utf8_lossy(&outcome.stderr).into_owned();
            assert!(text.contains("cross-device"), "{text}");
        } else {
            let error = attached.output().unwrap_err();
            assert_eq!((error.step(), error.failed_call()), (Step::Seccomp, Some("pidfd_getfd")), "{error}");
        }
        let kills = Filter::baseline().forget(["uname"]).deny(["uname"], Action::KillProcess);
        let sandbox = system().seccomp(kills).build().unwrap();
        let child = shell(&sandbox, "read line").stdin(Stdio::piped()).spawn().unwrap();
        let attached = joining(&child, "exit 0").spawn().unwrap();
        let told = attached.enforcement().supervisor == SupervisorState::Running;
        assert_eq!(told, is_root(), "{}", attached.enforcement());
        assert_eq!(ends(&attached), Verdict::Exited(0));
    }

    fn refused_by(call: &'static str, errno: i32) -> Error {
        let child = shell(&system().build().unwrap(), "sleep 1000").spawn().unwrap();
        let filter = Filter::deny_list().deny([call], Action::Errno(errno));
        Lowering::builder().seccomp(filter).build().unwrap().apply().unwrap();
        child.command("true").spawn().map(drop).unwrap_err()
    }

    #[test]
    fn a_filter_around_the_caller_that_hides_setns_is_named() {
        alone(|| {
            let error = refused_by("setns", libc::EPERM);
            let call = (error.step(), error.failed_call(), error.raw_os_error());
            assert_eq!(call, (Step::Join, Some("setns"), Some(libc::EPERM)), "{error:#}");
            assert!(error.to_string().contains("system-call filter"), "{error}");
        });
    }

    #[test]
    fn without_an_image_nothing_joins() {
        alone(|| {
            let error = refused_by("memfd_create", libc::EPERM);
            let what = (error.kind(), error.step());
            assert_eq!(what, (ErrorKind::Unsupported, Step::Image), "{error:#}");
        });
    }

    /// This thread, which clones, has every capability but one.
    fn without_sys_admin() {
        const SYS_ADMIN: u32 = 1 << 21;
        let header = [0x2008_0522_u32, 0];
        let low = !SYS_ADMIN;
        let mut sets = [0_u32; 6];
        // SAFETY: capget writes two structures of three words to `sets`.
        let got = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
        assert_eq!(got, 0);
        sets[..3].iter_mut().for_each(|word| *word &= low);
        // SAFETY: capset reads the same.
        let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
        assert_eq!(set, 0);
    }

    #[test]
    fn a_caller_that_gave_its_rights_away_is_told() {
        alone(|| {
            const NAME: &str = "a_caller_that_gave_its_rights_away_is_told";
            if !is_root() {
                return skipped(NAME, "only root has rights to give away");
            }
            let set = Namespaces::STANDARD.difference(Namespaces::USER);
            let child = shell(&system().namespaces(set).build().unwrap(), "sleep 1000").spawn().unwrap();
            without_sys_admin();
            let error = child.command("true").spawn().map(drop).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error:#}");
            assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{error:#}");
            assert!(child.try_wait().unwrap().is_none());
        });
    }

    #[test]
    fn the_first_process_may_be_the_program() {
        let _watchdog = watchdog(60);
        let child = shell(&system().init(Init::Program).build().unwrap(), "sleep 1000").spawn().unwrap();
        let outcome = joining(&child, "echo $$; cat /proc/1/comm").output().unwrap();
        let text = said(&outcome);
        assert!(text.ends_with("sh\n") || text.ends_with("sleep\n"), "{text}");
    }
}
