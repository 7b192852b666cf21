//! Limits of a tree of processes by the cgroup v1 hierarchies of this machine, seen from inside. For root, where they are mounted.

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
    use std::io::{BufRead, BufReader, Write, stdout};
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;
    use std::process;
    use std::thread;
    use std::time::Duration;

    use nix::sys::signal::{Signal, raise};
    use ringfence::host::{Cgroups, KernelVersion};
    use ringfence::{
        Builder, Child, CpuQuota, CpuSet, DeviceNumber, DeviceRule, ErrorKind, FrozenBy, GroupLimit, Host,
        Init, IoMax, Launch, LimitKind, LimitRung, Sandbox, Stdio, Step, Strength, Verdict, prefer,
    };

    use super::groups::{
        AFFINITY, BOMB, BUSY, GROW, MIB, TOUCH, all_roots, cpu, group, groups_of, line, python, stands_still,
        state, ticking, with,
    };
    use super::support::{again, alone, is_root, role, said, shell, skipped, system, test_name, watchdog};

    /// The hierarchies, where root finds all of these controllers in version 1.
    fn legacy(name: &str, controllers: &[&str]) -> Option<Cgroups> {
        let cgroups = Host::probe().cgroups().clone();
        let missing =
            controllers.iter().find(|name| cgroups.legacy_with(name).is_none_or(|l| l.own.is_none()));
        match missing {
            _ if !is_root() => skipped(name, "only root may make groups here"),
            Some(controller) => skipped(name, &format!("no cgroup v1 hierarchy of {controller}")),
            None => return Some(cgroups),
        }
        None
    }

    macro_rules! legacy {
        ($($controller:literal),*) => {{
            let here = || ();
            match legacy(&test_name(&here), &[$($controller),*]) {
                Some(cgroups) => cgroups,
                None => return,
            }
        }};
    }

    /// As on a machine without version 2.
    fn without_unified(builder: Builder, cgroups: &Cgroups) -> Sandbox {
        let mut cgroups = cgroups.clone();
        cgroups.unified = None;
        with(builder, cgroups)
    }

    #[test]
    fn every_limit_is_in_its_file_before_the_program_runs() {
        let _watchdog = watchdog(60);
        let cgroups = legacy!("memory", "pids", "cpu", "cpuset", "blkio", "devices");
        let builder = system()
            .memory(64 * MIB + 1)
            .swap(MIB)
            .processes(30)
            .cpu(CpuQuota::percent(50))
            .cpu_weight(50)
            .cpus(CpuSet::from([0]))
            .mems(CpuSet::from([0]))
            .io_max(
                DeviceNumber { major: 254, minor: 0 },
                prefer(IoMax { read_bytes: Some(MIB), ..IoMax::default() }),
            )
            .devices(DeviceRule::minimal());
        let bursts = Host::probe().kernel() >= KernelVersion::new(5, 14, 0);
        let builder = if bursts { builder.cpu_burst(Duration::from_millis(20)) } else { builder };
        let held = without_unified(builder, &cgroups).command("true").spawn_held().unwrap();
        let states = held.enforcement().limits.clone();
        for state in &states {
            let hard = state.strength == Strength::Hard && state.rung == Some(LimitRung::CgroupV1);
            assert!(hard || state.limit.kind() == LimitKind::IoMax, "{state}");
        }
        assert_eq!(states.len(), 9 + usize::from(bursts));
        for (controller, file, value) in [
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("memory", "memory.memsw.limit_in_bytes", "68157440"),
            ("pids", "pids.max", "30"),
            ("cpu", "cpu.cfs_quota_us", "50000"),
            ("cpu", "cpu.cfs_period_us", "100000"),
            ("cpu", "cpu.shares", "512"),
            ("cpu", "cpu.cfs_burst_us", "20000"),
            ("cpuset", "cpuset.cpus", "0"),
            ("cpuset", "cpuset.mems", "0"),
        ]
        .into_iter()
        .filter(|(_, file, _)| bursts || *file != "cpu.cfs_burst_us")
        {
            for pid in [held.id(), held.init_id()] {
                let file = group(&cgroups, pid, controller).join(file);
                assert_eq!(fs::read_to_string(&file).unwrap().trim(), value, "{file:?}");
            }
        }
        let list = fs::read_to_string(group(&cgroups, held.id(), "devices").join("devices.list")).unwrap();
        assert!(list.contains("c 1:3 rw") && !list.contains("a *:*"), "{list}");
        let text = held.enforcement().to_string();
        assert!(text.contains("limit         processes=30 hard, by cgroup v1: "), "{text}");
    }

    #[test]
    fn a_fork_bomb_stays_within_its_processes() {
        let _watchdog = watchdog(60);
        legacy!("pids");
        let outcome = python(&system().processes(20).build().unwrap(), BOMB).output().unwrap();
        // Init and the first process are counted too.
        assert_eq!(said(&outcome).trim(), format!("18 {}", libc::EAGAIN));
        assert_eq!(outcome.stats.unwrap().processes.refused, Some(1));
        let free = python(&system().own_cgroup(()).build().unwrap(), BOMB).output().unwrap();
        assert_eq!(said(&free).trim(), "", "without the limit it makes them all");
    }

    #[test]
    fn memory_beyond_the_limit_ends_the_program() {
        let _watchdog = watchdog(60);
        legacy!("memory");
        for launch in [Launch::Image, Launch::Copy] {
            let builder = system().memory(64 * MIB).swap(0).launch(launch);
            let outcome = python(&builder.build().unwrap(), TOUCH).output().unwrap();
            let ended = matches!(outcome.verdict(), Verdict::OutOfMemory { .. });
            assert!(ended && outcome.stdout.is_empty(), "{launch:?} {outcome:?}");
            let stats = outcome.stats.unwrap();
            assert!(stats.memory.oom_kills >= Some(1), "{stats:?}");
            assert!(stats.memory.peak.unwrap() <= 64 * MIB, "{stats:?}");
        }
        let free = python(&system().memory(400 * MIB).swap(0).build().unwrap(), TOUCH).output().unwrap();
        assert_eq!(said(&free).trim(), "done");
    }

    #[test]
    fn the_program_sees_only_its_cpus() {
        let _watchdog = watchdog(60);
        legacy!("cpuset");
        let all = said(&python(&system().build().unwrap(), AFFINITY).output().unwrap());
        let one = CpuSet::from([0]);
        let outcome = python(&system().cpus(one).build().unwrap(), AFFINITY).output().unwrap();
        assert_eq!(said(&outcome).trim(), "[0]");
        if all.trim() == "[0]" {
            skipped("the_program_sees_only_its_cpus", "this machine has one CPU, so nothing was taken away");
        }
    }

    #[test]
    fn a_quota_throttles() {
        let _watchdog = watchdog(120);
        legacy!("cpu", "cpuacct");
        let builder = system().cpu(CpuQuota::percent(20)).own_cgroup(());
        let outcome = python(&builder.build().unwrap(), BUSY).output().unwrap();
        let used = outcome.stats.unwrap().cpu;
        assert!(used.throttled_periods.unwrap() > 0 && used.throttled.unwrap() > Duration::ZERO, "{used:?}");
        assert!(used.user.unwrap() + used.system.unwrap() > Duration::from_millis(250), "{used:?}");
        let free = python(&system().own_cgroup(()).build().unwrap(), BUSY).output().unwrap();
        assert_eq!(free.stats.unwrap().cpu.throttled_periods, Some(0));
    }

    #[test]
    fn a_device_that_is_not_listed_cannot_be_opened() {
        let _watchdog = watchdog(60);
        let cgroups = legacy!("devices");
        let script = "cat /dev/null && echo null; head -c 1 /dev/zero >/dev/null && echo zero";
        let null = vec![DeviceRule::character(1, 3)];
        let sandbox = without_unified(system().devices(null.clone()), &cgroups);
        let outcome = shell(&sandbox, &format!("{script}; true")).output().unwrap();
        assert_eq!(said(&outcome), "null\n", "cgroup v1");
        // The same by a BPF program, which the hierarchy of version 2 takes whatever controllers it has.
        if cgroups.unified.is_some() {
            let sandbox = with(system().devices(null), cgroups);
            let held = sandbox.command("true").spawn_held().unwrap();
            let state = state(&held.enforcement().limits, LimitKind::Devices);
            assert_eq!((state.strength, state.rung), (Strength::Hard, Some(LimitRung::CgroupV2)), "{state}");
            let outcome = shell(&sandbox, &format!("{script}; true")).output().unwrap();
            assert_eq!(said(&outcome), "null\n", "cgroup v2");
        }
        assert_eq!(said(&shell(&system().build().unwrap(), script).output().unwrap()), "null\nzero\n");
    }

    #[test]
    fn a_tree_is_frozen_thawed_and_killed_while_frozen() {
        let _watchdog = watchdog(120);
        let cgroups = legacy!("freezer", "cpuacct", "cpu");
        let builder = || system().own_cgroup(());
        let mut cases = vec![(without_unified(builder(), &cgroups), FrozenBy::CgroupV1)];
        if cgroups.unified.is_some() {
            cases.push((with(builder(), cgroups.clone()), FrozenBy::CgroupV2));
        }
        for (sandbox, by) in cases {
            let mut child = ticking(&sandbox);
            assert_eq!(child.freeze().unwrap(), by);
            assert!(stands_still(&child), "{by}");
            assert_eq!(child.thaw().unwrap(), by);
            // What the pipe held when it was frozen, and then what comes after.
            for _ in 0..20 {
                assert_eq!(line(&mut child), "tick", "{by}");
            }
            assert_eq!(child.freeze().unwrap(), by);
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().verdict(), Verdict::Killed, "{by}");
            assert_eq!(child.freeze().unwrap_err().raw_os_error(), Some(libc::ESRCH));
            // Dropped while it is frozen.
            let child = ticking(&sandbox);
            let pid = child.id();
            child.freeze().unwrap();
            drop(child);
            assert!(fs::metadata(format!("/proc/{pid}")).is_err(), "{by}");
        }
    }

    #[test]
    fn stats_follow_the_tree() {
        let _watchdog = watchdog(60);
        legacy!("memory", "cpuacct", "pids");
        let sandbox = system().own_cgroup(()).build().unwrap();
        let mut command = python(&sandbox, GROW);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(line(&mut child), "a");
        let before = child.stats().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        assert_eq!(line(&mut child), "b");
        let after = child.stats().unwrap();
        assert_eq!((before.processes.current, after.processes.current), (Some(2), Some(3)));
        let grown = after.memory.current.unwrap().saturating_sub(before.memory.current.unwrap());
        assert!((45 * MIB..60 * MIB).contains(&grown), "{before:?} {after:?}");
        assert!(after.memory.peak >= after.memory.current && after.memory.faults > before.memory.faults);
        assert!(cpu(after) > Duration::ZERO, "{after:?}");
        child.kill().unwrap();
        let outcome = child.wait().unwrap();
        let last = outcome.stats.unwrap();
        assert!(
            last.memory.peak >= after.memory.peak && last.memory.faults >= after.memory.faults,
            "{last:?}"
        );
        assert_eq!(child.stats().unwrap(), last, "what was counted at the end stays");
    }

    #[test]
    fn limits_are_changed_while_it_runs() {
        let _watchdog = watchdog(60);
        let cgroups = legacy!("memory", "pids", "cpu");
        let builder = system().memory(64 * MIB).swap(0).processes(10).cpu(CpuQuota::percent(50));
        let child = with(builder, cgroups.clone()).command("sleep").arg("1000").spawn().unwrap();
        let shows = |controller: &str, file: &str| {
            let file = group(&cgroups, child.id(), controller).join(file);
            fs::read_to_string(file).unwrap().trim().to_owned()
        };
        // Memory with swap may never be below memory, so the order of the writes is another for more and for less.
        for bytes in [128 * MIB, 32 * MIB] {
            let state = child.set_limit(GroupLimit::Memory(bytes)).unwrap();
            assert_eq!(state.strength, Strength::Hard, "{state}");
            assert_eq!(shows("memory", "memory.limit_in_bytes"), bytes.to_string());
            assert_eq!(shows("memory", "memory.memsw.limit_in_bytes"), bytes.to_string());
        }
        child.set_limit(GroupLimit::Processes(7)).unwrap();
        assert_eq!(shows("pids", "pids.max"), "7");
        child.set_limit(GroupLimit::CpuWeight(200)).unwrap();
        assert_eq!(shows("cpu", "cpu.shares"), "2048");
        assert_eq!(state(&child.limits(), LimitKind::Processes).limit, GroupLimit::Processes(7));
        let error = child.set_limit(GroupLimit::Cpus(CpuSet::from([0]))).unwrap_err();
        assert!(error.to_string().contains("no group of cpuset"), "{error}");
        child.kill().unwrap();
        let error = child.set_limit(GroupLimit::Processes(8)).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Process, Step::Cgroup), "{error}");
    }

    #[test]
    fn nothing_is_left_however_it_ends() {
        alone(|| {
            legacy!("memory", "pids", "freezer");
            let own = process::id();
            for init in [Init::Reaper, Init::Program] {
                let sandbox =
                    system().processes(50).memory(64 * MIB).own_cgroup(()).init(init).build().unwrap();
                shell(&sandbox, "true").status().unwrap();
                assert_eq!(groups_of(own), Vec::<PathBuf>::new(), "after an end");
                let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
                assert!(!groups_of(own).is_empty(), "while it runs");
                child.kill().unwrap();
                assert_eq!(groups_of(own), Vec::<PathBuf>::new(), "after a kill");
                drop(sandbox.command("sleep").arg("1000").spawn().unwrap());
                assert_eq!(groups_of(own), Vec::<PathBuf>::new(), "after a drop");
                drop(sandbox.command("sleep").spawn_held().unwrap());
                assert_eq!(groups_of(own), Vec::<PathBuf>::new(), "after a drop before exec");
                sandbox.command("/no/such/program").spawn().map(drop).unwrap_err();
                assert_eq!(groups_of(own), Vec::<PathBuf>::new(), "after a failed exec");
            }
            let refused = system().processes(50).cpus(CpuSet::from([4000])).build().unwrap();
            refused.command("true").spawn().map(drop).unwrap_err();
            assert_eq!(groups_of(own), Vec::<PathBuf>::new(), "after a limit that was refused");
        });
    }

    #[test]
    fn what_an_application_started_in_its_leaf_lives_on() {
        let _watchdog = watchdog(60);
        let cgroups = legacy!("pids", "freezer");
        let own = cgroups.legacy_with("pids").and_then(|legacy| legacy.own.clone()).unwrap();
        // Of a process that began at another time than whoever has that pid now.
        let namespace = fs::metadata("/proc/self/ns/pid").unwrap().ino();
        let leaf = own.join(format!("ringfence-leaf-{}-1-{namespace}-0-{:016x}", process::id(), 7));
        fs::create_dir(&leaf).unwrap();
        let mut helper = process::Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(leaf.join("cgroup.procs"), helper.id().to_string()).unwrap();
        let outcome = without_unified(system().processes(50), &cgroups).command("true").status().unwrap();
        assert!(outcome.success());
        assert!(helper.try_wait().unwrap().is_none(), "it is no sandbox's");
        helper.kill().unwrap();
        helper.wait().unwrap();
        fs::remove_dir(&leaf).ok();
    }

    #[test]
    fn what_a_killed_caller_left_is_swept_by_the_next() {
        let _watchdog = watchdog(120);
        legacy!("pids", "freezer");
        let here = || ();
        let name = test_name(&here);
        if role().as_deref() == Some("caller") {
            let child =
                system().processes(50).own_cgroup(()).build().unwrap().command("sleep").arg("1000").spawn();
            let child = child.unwrap();
            // It cannot see its caller's end.
            child.freeze().unwrap();
            raise(Signal::SIGKILL).unwrap();
        }
        if let Some(role) = role() {
            let sandbox = system().processes(50).own_cgroup(()).build().unwrap();
            if role == "living" {
                let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
                writeln!(stdout(), "living").unwrap();
                thread::sleep(Duration::from_secs(60));
                drop(child);
            }
            shell(&sandbox, "true").status().unwrap();
            return;
        }
        let mut living = again(&name, "living").stdout(process::Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut out = BufReader::new(living.stdout.take().unwrap());
        while !said.contains("living") {
            assert!(out.read_line(&mut said).unwrap() > 0, "{said}");
        }
        let mut caller = again(&name, "caller").spawn().unwrap();
        let pid = caller.id();
        caller.wait().unwrap();
        assert!(!groups_of(pid).is_empty(), "its groups are still there, and frozen");
        assert!(again(&name, "next").status().unwrap().success());
        assert_eq!(groups_of(pid), Vec::<PathBuf>::new());
        assert!(!groups_of(living.id()).is_empty(), "of a caller that lives nothing is swept");
        living.kill().unwrap();
        living.wait().unwrap();
        assert!(again(&name, "last").status().unwrap().success());
        assert_eq!(groups_of(living.id()), Vec::<PathBuf>::new());
    }

    #[test]
    fn groups_of_many_threads_do_not_collide() {
        let _watchdog = watchdog(120);
        legacy!("pids");
        let sandbox = system().processes(50).build().unwrap();
        let children: Vec<Child> = thread::scope(|scope| {
            let spawn =
                || (0..3).map(|_| sandbox.command("sleep").arg("1000").spawn().unwrap()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(spawn)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let by = |child: &Child| state(&child.limits(), LimitKind::Processes).by.unwrap();
        let files: BTreeSet<String> = children.iter().map(by).collect();
        assert_eq!(files.len(), 48);
    }

    #[test]
    fn a_controller_that_is_not_there_is_a_named_gap() {
        let _watchdog = watchdog(60);
        let mut cgroups = legacy!("pids");
        cgroups.legacy.retain(|legacy| !legacy.controllers.iter().any(|name| name == "net_cls"));
        let builder = || system().processes(50);
        let sandbox = with(builder().net_class(prefer(0x10_0001)).oom_group(prefer(())), cgroups.clone());
        let held = sandbox.command("true").spawn_held().unwrap();
        let gap = state(&held.enforcement().limits, LimitKind::NetClass);
        assert_eq!((gap.strength, gap.rung), (Strength::None, None));
        let reason = "no hierarchy with the controller net_cls is mounted";
        assert!(gap.reasons.iter().any(|why| why.contains(reason)), "{gap}");
        assert!(gap.reasons.iter().any(|why| why.starts_with("systemd scope: ")), "{gap}");
        let policy = builder().net_class(0x10_0001).policy().unwrap();
        let error = Sandbox::new(policy, Host::probe().with_cgroups(cgroups)).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Unsupported, Step::Cgroup));
        assert!(error.to_string().contains(reason), "{error}");
    }

    #[test]
    fn what_the_kernel_refuses_is_told_with_its_file() {
        let _watchdog = watchdog(60);
        legacy!("cpuset", "pids");
        let no_such = CpuSet::from([4000]);
        let sandbox = system().processes(50).cpus(no_such.clone()).build().unwrap();
        let error = sandbox.command("true").spawn().map(drop).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Setup, Step::Cgroup), "{error}");
        // ERANGE for a number that the kernel has no bit for, EINVAL for a CPU that is not there.
        assert!(matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ERANGE)), "{error}");
        assert!(error.to_string().contains("/cpuset.cpus: write: E"), "{error}");
        let sandbox = system().processes(50).cpus(prefer(no_such)).build().unwrap();
        let held = sandbox.command("true").spawn_held().unwrap();
        let states = &held.enforcement().limits;
        let state_of = |kind| state(states, kind);
        assert_eq!(state_of(LimitKind::Cpus).strength, Strength::None);
        assert!(state_of(LimitKind::Cpus).reasons.iter().any(|why| why.contains("/cpuset.cpus: write: E")));
        assert_eq!(state_of(LimitKind::Processes).strength, Strength::Hard);
    }

    #[test]
    fn a_limit_that_is_too_small_for_the_set_up_ends_it() {
        alone(|| {
            legacy!("pids", "memory");
            let error = system().processes(1).build().unwrap().command("true").spawn().map(drop).unwrap_err();
            assert_eq!((error.step(), error.raw_os_error()), (Step::Init, Some(libc::EAGAIN)), "{error}");
            let builder = system().memory(64 << 10).swap(0);
            let error = builder.build().unwrap().command("true").spawn().map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Setup, "{error}");
            assert!(error.to_string().contains("memory"), "{error}");
            assert_eq!(groups_of(process::id()), Vec::<PathBuf>::new());
        });
    }

    #[test]
    fn a_parent_that_takes_no_group_is_told_and_passed_over() {
        let _watchdog = watchdog(60);
        let cgroups = legacy!("pids", "memory");
        let mount = cgroups.legacy_with("pids").unwrap().mount.clone();
        let parent = mount.join("no-such-group");
        let builder = || system().cgroup_parent(&parent);
        let error =
            with(builder().processes(20), cgroups.clone()).command("true").spawn().map(drop).unwrap_err();
        assert!(
            error.to_string().contains("no-such-group") && error.raw_os_error() == Some(libc::ENOENT),
            "{error}"
        );
        let sandbox = with(builder().processes(prefer(20)), cgroups.clone());
        let held = sandbox.command("true").spawn_held().unwrap();
        let state = state(&held.enforcement().limits, LimitKind::Processes);
        assert_eq!(
            (state.strength, state.rung),
            (Strength::Approximate, Some(LimitRung::ResourceLimit)),
            "{state}"
        );
        assert!(state.reasons.iter().any(|why| why.contains("no-such-group")), "{state}");
        let policy = system().cgroup_parent("/tmp").processes(20).policy().unwrap();
        let error = Sandbox::new(policy, Host::probe().with_cgroups(cgroups)).unwrap_err();
        assert!(error.to_string().contains("no cgroup file system is mounted there"), "{error}");
    }

    #[test]
    fn a_named_parent_is_used() {
        let _watchdog = watchdog(60);
        let cgroups = legacy!("pids");
        let own = cgroups.legacy_with("pids").unwrap().own.clone().unwrap();
        let parent = own.join(format!("test-parent-{}", process::id()));
        fs::create_dir(&parent).unwrap();
        let held =
            with(system().cgroup_parent(&parent).processes(20), cgroups.clone()).command("true").spawn_held();
        let held = held.unwrap();
        assert_eq!(group(&cgroups, held.id(), "pids").parent(), Some(parent.as_path()));
        drop(held);
        fs::remove_dir(&parent).unwrap();
    }

    #[test]
    fn the_program_sees_its_groups_as_roots() {
        let _watchdog = watchdog(60);
        let cgroups = legacy!("pids", "memory");
        for launch in [Launch::Image, Launch::Copy] {
            let builder = || system().processes(50).memory(64 * MIB).launch(launch);
            for sandbox in [with(builder(), cgroups.clone()), without_unified(builder(), &cgroups)] {
                let text = said(&shell(&sandbox, "cat /proc/self/cgroup").output().unwrap());
                all_roots(&text);
            }
        }
    }
}
