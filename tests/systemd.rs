//! Limits in a scope of systemd, against a real manager: as root that of the machine, as anyone else that of the user. The
//! caller's own groups are hidden from the sandbox, so that the rung is reached wherever these tests run.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
#[path = "support/cgroup.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod groups;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::io::{Write, stdout};
    use std::os::unix::process::ExitStatusExt;
    use std::path::{Path, PathBuf};
    use std::process::{self, Command as Process, Stdio as Streams};
    use std::sync::{PoisonError, RwLock};
    use std::thread;
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill, raise};
    use nix::unistd::Pid;
    use ringfence::host::{Answer, Cgroups, Systemd, SystemdManager};
    use ringfence::{
        Builder, Child, Core, CpuQuota, CpuSet, ErrorKind, Event, FrozenBy, GroupLimit, Host, LimitKind,
        LimitRung, Sandbox, Stdio, Strength, Verdict, prefer,
    };

    use super::groups::{
        BOMB, GROW, MIB, TOUCH, all_roots, group, line, python, stands_still, state, ticking,
    };
    use super::support::{
        again, alone, children, eventually, is_root, role, said, shell, skipped, system, test_name, watchdog,
    };

    /// The groups around the caller, none of which it may divide.
    fn of_others() -> Cgroups {
        let mut cgroups = Host::probe().cgroups().clone();
        for group in cgroups.unified.iter_mut().flat_map(|unified| &mut unified.groups) {
            (group.access, group.delegated) = (Answer::No, Answer::No);
        }
        cgroups
    }

    /// A host with a manager that can be asked; says that there is none.
    fn host(name: &str) -> Option<Host> {
        let host = Host::probe().with_cgroups(of_others());
        let mount = host.cgroups().unified.as_ref().map(|unified| unified.mount.clone());
        match (host.systemd(), mount) {
            (Systemd::Manager { .. }, Some(mount)) if mount == Path::new("/sys/fs/cgroup") => Some(host),
            (Systemd::Manager { .. }, _) => {
                skipped(name, "systemd has its controllers in cgroup v1 here");
                None
            }
            (without, _) => {
                skipped(name, &format!("no manager of systemd to ask: {without:?}"));
                None
            }
        }
    }

    /// Held alone where others meddle, as who launches sweeps what nobody watches over, or would be meddled with, as a manager
    /// that executes itself anew answers nobody meanwhile.
    static LAUNCHES: RwLock<()> = RwLock::new(());

    macro_rules! host {
        () => {
            host!(read)
        };
        ($access:ident) => {{
            let here = || ();
            match host(&test_name(&here)) {
                Some(host) => (host, LAUNCHES.$access().unwrap_or_else(PoisonError::into_inner)),
                None => return,
            }
        }};
    }

    /// With time for a manager that is slow: executing itself anew takes one many seconds under emulation.
    fn build(builder: &Builder, host: &Host) -> Sandbox {
        let builder = builder.clone().setup_timeout(Duration::from_secs(60));
        Sandbox::new(builder.policy().unwrap(), host.clone()).unwrap()
    }

    /// The group of a child, and the scope that it lies in.
    fn places(host: &Host, pid: u32) -> (PathBuf, PathBuf) {
        let group = group(host.cgroups(), pid, "");
        let scope = group.parent().unwrap().to_path_buf();
        assert!(scope.extension().is_some_and(|kind| kind == "scope"), "{scope:?}");
        (group, scope)
    }

    fn unit(scope: &Path) -> String {
        scope.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn systemctl(arguments: &[&str]) -> String {
        let mut command = Process::new("systemctl");
        if !is_root() {
            command.arg("--user");
        }
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn show(unit: &str, property: &str) -> String {
        systemctl(&["show", "--value", "--property", property, unit])
    }

    #[test]
    fn limits_hold_in_a_scope_before_the_program_runs() {
        let _watchdog = watchdog(600);
        let (host, _launches) = host!();
        let quota = CpuQuota::percent(50);
        let builder = system().memory(64 * MIB).memory_high(48 * MIB).processes(30).cpu(quota).oom_group(());
        let sandbox = build(&builder, &host);
        let held = sandbox.command("true").spawn_held().unwrap();
        let (group, scope) = places(&host, held.id());
        let limits = &held.enforcement().limits;
        assert_eq!(limits.len(), 5);
        for state in limits {
            assert_eq!((state.strength, state.rung), (Strength::Hard, Some(LimitRung::Systemd)), "{state}");
            assert!(state.by.as_ref().unwrap().contains(group.to_str().unwrap()), "{state}");
        }
        for (file, expected) in [
            ("memory.max", (64 * MIB).to_string()),
            ("memory.high", (48 * MIB).to_string()),
            ("pids.max", "30".into()),
            ("cpu.max", "50000 100000".into()),
            ("memory.oom.group", "1".into()),
        ] {
            assert_eq!(fs::read_to_string(group.join(file)).unwrap().trim(), expected, "{file}");
        }
        // The unit has no limit of its own, and is no failure to be reset when it goes.
        let unit = unit(&scope);
        for (property, expected) in [
            ("Delegate", "yes"),
            ("TasksMax", "infinity"),
            ("CollectMode", "inactive-or-failed"),
            ("ActiveState", "active"),
        ] {
            assert_eq!(show(&unit, property), expected, "{property}");
        }
        drop(held);
        all_roots(&said(&shell(&sandbox, "cat /proc/self/cgroup").output().unwrap()));
    }

    #[test]
    fn a_bomb_in_a_scope_gets_its_verdict() {
        let _watchdog = watchdog(600);
        let (host, _launches) = host!();
        let sandbox = build(&system().memory(64 * MIB).swap(prefer(0)).processes(20), &host);
        // More than once: the manager takes an empty scope away, and what was counted is read before.
        for _ in 0..5 {
            let outcome = python(&sandbox, TOUCH).output().unwrap();
            let verdict = outcome.verdict();
            assert!(matches!(verdict, Verdict::OutOfMemory { limit: Some(limit), .. } if limit == 64 * MIB));
            assert!(outcome.stats.unwrap().memory.oom_kills >= Some(1), "{outcome:?}");
        }
        let outcome = python(&sandbox, BOMB).output().unwrap();
        assert_eq!(said(&outcome).trim(), format!("18 {}", libc::EAGAIN));
        assert!(outcome.stats.unwrap().processes.refused >= Some(1), "{outcome:?}");
        let outcome = shell(&sandbox, "kill -9 $$").output().unwrap();
        assert_eq!(outcome.verdict(), Verdict::Signaled { signal: 9, core: Core::None });
    }

    #[test]
    fn a_sandbox_in_a_scope_is_counted_frozen_changed_and_killed() {
        let _watchdog = watchdog(600);
        let (host, _launches) = host!();
        let sandbox = build(&system().memory(100 * MIB).processes(20), &host);
        let mut child = python(&sandbox, GROW).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(line(&mut child), "a");
        let before = child.stats().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        assert_eq!(line(&mut child), "b");
        let after = child.stats().unwrap();
        assert!(after.memory.current.unwrap() > before.memory.current.unwrap() + 40 * MIB, "{after:?}");
        assert_eq!(after.processes.current.unwrap(), before.processes.current.unwrap() + 1);
        let changed = child.set_limit(GroupLimit::Processes(7)).unwrap();
        assert_eq!((changed.strength, changed.rung), (Strength::Hard, Some(LimitRung::Systemd)), "{changed}");
        let (group, _) = places(&host, child.id());
        assert_eq!(fs::read_to_string(group.join("pids.max")).unwrap().trim(), "7");
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Killed);
        assert!(!group.try_exists().unwrap());
        let child = ticking(&sandbox);
        assert_eq!(child.freeze().unwrap(), FrozenBy::CgroupV2);
        assert!(stands_still(&child));
        child.thaw().unwrap();
        let mut events = child.events().unwrap();
        child.kill().unwrap();
        let mut seen = Vec::new();
        while let Some(event) = events.next(Some(Duration::from_secs(60))).unwrap() {
            seen.push(event);
        }
        assert_eq!(seen.last(), Some(&Event::Exited), "{seen:?}");
    }

    #[test]
    fn one_scope_has_all_sandboxes_of_a_process_and_a_keeper() {
        let _watchdog = watchdog(600);
        let (host, _launches) = host!();
        alone(|| {
            let sandbox = build(&system().processes(20), &host);
            let spawn = || sandbox.command("sleep").arg("1000").spawn().unwrap();
            let children: Vec<Child> = thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(spawn)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let places: Vec<_> = children.iter().map(|child| places(&host, child.id())).collect();
            let groups: BTreeSet<_> = places.iter().map(|(group, _)| group).collect();
            let scopes: BTreeSet<_> = places.iter().map(|(_, scope)| scope).collect();
            assert_eq!((groups.len(), scopes.len()), (8, 1));
            let scope = scopes.into_iter().next().unwrap();
            let kept = fs::read_to_string(scope.join("keeper/cgroup.procs")).unwrap();
            let keeper = kept.trim();
            let name = fs::read_to_string(format!("/proc/{keeper}/comm")).unwrap();
            assert_eq!(name.trim(), "ringfence-keep");
            // It holds nothing of its caller's.
            for fd in fs::read_dir(format!("/proc/{keeper}/fd")).unwrap() {
                let target = fs::read_link(fd.unwrap().path()).unwrap();
                let target = target.to_string_lossy();
                let own = ["/dev/null", "socket:", "anon_inode:[pidfd]", "pidfd:"];
                assert!(own.iter().any(|own| target.starts_with(own)), "{target}");
            }
            assert_eq!(fs::read_link(format!("/proc/{keeper}/cwd")).unwrap(), Path::new("/"));
            // Without it there is another scope for what comes, and the first one stays for what is in it.
            kill(Pid::from_raw(keeper.parse().unwrap()), Signal::SIGKILL).unwrap();
            let kept = || fs::read_to_string(scope.join("keeper/cgroup.procs"));
            assert!(eventually(30, || kept().is_ok_and(|text| text.trim().is_empty())));
            let other = spawn();
            assert_ne!(&self::places(&host, other.id()).1, scope);
            children.iter().for_each(|child| child.kill().unwrap());
            assert!(eventually(20, || !scope.try_exists().unwrap()), "{scope:?}");
            other.kill().unwrap();
        });
    }

    /// The scope of a caller with this role, which ends as that says.
    fn scope_of(name: &str, role: &str) -> PathBuf {
        let output = again(name, role).stdin(Streams::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = text.lines().find_map(|line| line.split_once("SCOPE "));
        let Some((_, scope)) = said else {
            panic!("{:?} {text} {}", output.status, String::from_utf8_lossy(&output.stderr))
        };
        if role != "ends" {
            assert_eq!(output.status.signal(), Some(libc::SIGKILL), "{text}");
        }
        scope.into()
    }

    /// It holds a sandbox in a scope, and ends as its role says.
    fn caller(host: &Host, role: &str) {
        let sandbox = build(&system().processes(20), host);
        let mut command = sandbox.command("sleep");
        // A frozen one would hold this process's output.
        let child = command.arg("1000").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        writeln!(stdout(), "SCOPE {}", places(host, child.id()).1.display()).unwrap();
        match role {
            "ends" => {}
            "is killed" => raise(Signal::SIGKILL).unwrap(),
            "freezes" => {
                child.freeze().unwrap();
                raise(Signal::SIGKILL).unwrap();
            }
            "unwatched" => {
                child.freeze().unwrap();
                let comm = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                let ward = || children().into_iter().find(|pid| comm(*pid).trim() == "ringfence-ward");
                assert!(eventually(60, || ward().is_some()));
                kill(Pid::from_raw(ward().unwrap()), Signal::SIGKILL).unwrap();
                raise(Signal::SIGKILL).unwrap();
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn nothing_is_left_of_a_caller_however_it_ends() {
        let _watchdog = watchdog(600);
        let (host, _launches) = host!();
        let here = || ();
        let name = test_name(&here);
        if let Some(role) = role() {
            return caller(&host, &role);
        }
        for role in ["ends", "is killed", "freezes"] {
            let scope = scope_of(&name, role);
            assert!(eventually(30, || !scope.try_exists().unwrap()), "{role}: {scope:?}");
            assert!(eventually(30, || show(&unit(&scope), "LoadState") == "not-found"), "{role}");
        }
    }

    #[test]
    fn a_frozen_scope_that_nobody_watches_over_is_swept_by_the_next_launch_beside_it() {
        let _watchdog = watchdog(600);
        let (host, _launches) = host!(write);
        let here = || ();
        let name = test_name(&here);
        if let Some(role) = role() {
            return caller(&host, &role);
        }
        let frozen = scope_of(&name, "unwatched");
        thread::sleep(Duration::from_millis(500));
        assert!(frozen.try_exists().unwrap(), "{frozen:?}");
        let next = scope_of(&name, "ends");
        assert_eq!(next.parent(), frozen.parent());
        assert!(eventually(30, || !frozen.try_exists().unwrap()), "{frozen:?}");
    }

    #[test]
    fn who_stops_the_unit_ends_what_is_in_it() {
        let _watchdog = watchdog(600);
        let (host, _launches) = host!();
        alone(|| {
            let sandbox = build(&system().processes(20), &host);
            let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
            let (_, scope) = places(&host, child.id());
            systemctl(&["stop", &unit(&scope)]);
            let verdict = child.wait().unwrap().verdict();
            assert!(matches!(verdict, Verdict::Signaled { .. } | Verdict::Lost), "{verdict:?}");
            assert!(eventually(30, || !scope.try_exists().unwrap()));
            let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
            assert_ne!(places(&host, child.id()).1, scope);
        });
    }

    #[test]
    fn a_manager_that_executes_itself_anew_makes_scopes_all_the_same() {
        let _watchdog = watchdog(600);
        let (host, _launches) = host!(write);
        let here = || ();
        let name = test_name(&here);
        if role().is_some() {
            let child = build(&system().processes(20), &host).command("sleep").arg("1000").spawn().unwrap();
            writeln!(stdout(), "SCOPE {}", places(&host, child.id()).1.display()).unwrap();
            return;
        }
        // Started one after the other, so that some meet a manager that is not there.
        let mut anew = Process::new("systemctl");
        if !is_root() {
            anew.arg("--user");
        }
        let mut anew = anew.arg("daemon-reexec").spawn().unwrap();
        for _ in 0..4 {
            scope_of(&name, "ends");
        }
        assert!(anew.wait().unwrap().success());
        scope_of(&name, "ends");
    }

    #[test]
    fn a_controller_that_the_manager_does_not_pass_on_is_named() {
        let _watchdog = watchdog(600);
        let (host, _launches) = host!();
        let here = || ();
        let name = test_name(&here);
        let probe = build(&system().processes(20), &host).command("sleep").arg("1000").spawn().unwrap();
        let (_, scope) = places(&host, probe.id());
        let controllers = fs::read_to_string(scope.join("cgroup.controllers")).unwrap();
        if controllers.split_whitespace().any(|name| name == "cpuset") {
            return skipped(&name, "the manager passes cpuset on");
        }
        let sandbox = build(&system().processes(20).cpus(prefer(CpuSet::from([0]))), &host);
        let held = sandbox.command("true").spawn_held().unwrap();
        let none = state(&held.enforcement().limits, LimitKind::Cpus);
        let why = |text: &str| none.reasons.iter().any(|reason| reason.contains(text));
        assert_eq!((none.strength, none.rung), (Strength::None, None), "{none}");
        assert!(why("cgroup.subtree_control") && why("Delegate= of user@.service"), "{none}");
        assert_eq!(state(&held.enforcement().limits, LimitKind::Processes).rung, Some(LimitRung::Systemd));
        let sandbox = build(&system().processes(20).cpus(CpuSet::from([0])), &host);
        let error = sandbox.command("true").spawn().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setup, "{error}");
        for part in ["limit cpus=0", &unit(&scope), "user manager", "Delegate= of user@.service"] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_manager_that_refuses_is_named_and_the_ladder_goes_on() {
        let _watchdog = watchdog(600);
        let (host, _launches) = host!();
        let here = || ();
        let name = test_name(&here);
        if is_root() {
            return skipped(&name, "root is refused nothing");
        }
        let address = "unix:path=/run/dbus/system_bus_socket".to_owned();
        let host = host.with_systemd(Systemd::Manager { manager: SystemdManager::System, address });
        let error = build(&system().memory(64 * MIB), &host).command("true").spawn().map(drop).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
        for part in ["limit memory=67108864", ".scope of the system manager: StartTransientUnit", "polkit"] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        let sandbox = build(&system().memory(prefer(900 * MIB)), &host);
        let held = sandbox.command("true").spawn_held().unwrap();
        let state = state(&held.enforcement().limits, LimitKind::Memory);
        assert_eq!(state.rung, Some(LimitRung::ResourceLimit), "{state}");
        assert!(state.reasons.iter().any(|why| why.contains("StartTransientUnit")), "{state}");
    }

    #[test]
    fn what_this_machine_gives_is_used_from_the_first_rung() {
        let _watchdog = watchdog(600);
        let _host = host!();
        let held = system().processes(20).build().unwrap().command("true").spawn_held().unwrap();
        let state = state(&held.enforcement().limits, LimitKind::Processes);
        assert_eq!(state.strength, Strength::Hard, "{state}");
        let first = state.rung == Some(LimitRung::CgroupV2);
        let why = state.reasons.iter().any(|why| why.starts_with("cgroup v2: "));
        assert!(first || why && state.rung == Some(LimitRung::Systemd), "{state}");
        assert_ne!(
            group(Host::probe().cgroups(), process::id(), ""),
            group(Host::probe().cgroups(), held.id(), "")
        );
    }
}
