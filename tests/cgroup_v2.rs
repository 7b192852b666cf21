//! Limits of a tree of processes by cgroup v2, seen from inside: as root in the root group, and in a subtree given to a user.

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
    use std::io::Write;
    use std::path::PathBuf;
    use std::process;
    use std::thread;
    use std::time::Duration;

    use nix::sys::signal::{Signal, raise};
    use ringfence::host::{Answer, Cgroups, Features};
    use ringfence::{
        Child, CpuQuota, CpuSet, DeviceRule, ErrorKind, FrozenBy, GroupLimit, Host, Init, Launch, LimitKind,
        LimitRung, Sandbox, Stdio, Step, Strength, Verdict, prefer,
    };

    use super::groups::{
        AFFINITY, BOMB, BUSY, GROW, MIB, TOUCH, all_roots, cpu, group, groups_of, line, python, stands_still,
        state, ticking, with,
    };
    use super::support::{again, alone, is_root, role, said, shell, skipped, system, test_name, watchdog};

    const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "cpuset"];

    /// The hierarchy, where the caller may make groups with all controllers.
    fn unified(name: &str) -> Option<Cgroups> {
        let cgroups = Host::probe().cgroups().clone();
        let Some(unified) = &cgroups.unified else {
            skipped(name, "no cgroup v2 is mounted");
            return None;
        };
        let usable = unified.groups.iter().enumerate().any(|(index, group)| {
            let given =
                index == 0 && group.root == Answer::Yes || index > 0 && group.delegated == Answer::Yes;
            let has = |name: &&str| group.controllers.iter().any(|own| own == name);
            given && group.access == Answer::Yes && CONTROLLERS.iter().all(has)
        });
        if !usable {
            skipped(name, "no group of cgroup v2 with memory, pids, cpu and cpuset is the caller's");
            return None;
        }
        Some(cgroups)
    }

    macro_rules! unified {
        () => {{
            let here = || ();
            match unified(&test_name(&here)) {
                Some(cgroups) => cgroups,
                None => return,
            }
        }};
    }

    #[test]
    fn every_limit_is_in_its_file_before_the_program_runs() {
        let _watchdog = watchdog(60);
        let cgroups = unified!();
        let builder = system()
            .memory(64 * MIB + 1)
            .memory_high(48 * MIB)
            .memory_low(prefer(2 * MIB))
            .memory_min(prefer(MIB))
            .oom_group(())
            .processes(30)
            .cpu(CpuQuota::percent(50))
            .cpu_weight(50)
            .cpu_burst(prefer(Duration::from_millis(20)))
            .cpus(CpuSet::from([0]))
            .mems(CpuSet::from([0]));
        let held = builder.build().unwrap().command("true").spawn_held().unwrap();
        let late = !group(&cgroups, held.id(), "").join("cpu.max.burst").try_exists().unwrap();
        let above = group(&cgroups, held.id(), "").parent().unwrap().join("memory.min");
        let bounded = fs::read_to_string(above).is_ok_and(|text| text.trim() != "max");
        for state in &held.enforcement().limits {
            // Since Linux 5.14.
            if late && state.limit.kind() == LimitKind::CpuBurst {
                assert_eq!(state.strength, Strength::None, "{state}");
                continue;
            }
            // No group is protected beyond what those above it are given.
            let protects = [LimitKind::MemoryLow, LimitKind::MemoryMin].contains(&state.limit.kind());
            let strength = if protects && bounded { Strength::Approximate } else { Strength::Hard };
            assert_eq!((state.strength, state.rung), (strength, Some(LimitRung::CgroupV2)), "{state}");
        }
        assert_eq!(group(&cgroups, held.id(), ""), group(&cgroups, held.init_id(), ""));
        for (file, value) in [
            ("memory.max", "67108864"),
            ("memory.high", "50331648"),
            ("memory.low", "2097152"),
            ("memory.min", "1048576"),
            ("memory.oom.group", "1"),
            ("pids.max", "30"),
            ("cpu.max", "50000 100000"),
            ("cpu.weight", "50"),
            ("cpu.max.burst", "20000"),
            ("cpuset.cpus", "0"),
            ("cpuset.mems", "0"),
        ] {
            if late && file == "cpu.max.burst" {
                continue;
            }
            let file = group(&cgroups, held.id(), "").join(file);
            assert_eq!(fs::read_to_string(&file).unwrap().trim(), value, "{file:?}");
        }
    }

    #[test]
    fn the_child_is_made_in_its_group_or_waits_until_it_is_there() {
        let _watchdog = watchdog(60);
        let cgroups = unified!();
        for absent in [Features::empty(), Features::CLONE_INTO_CGROUP, Features::CLONE3] {
            for (launch, init) in
                [(Launch::Image, Init::Reaper), (Launch::Copy, Init::Reaper), (Launch::Image, Init::Program)]
            {
                let policy = system().processes(30).launch(launch).init(init).policy().unwrap();
                let sandbox = Sandbox::new(policy, Host::probe().without_features(absent)).unwrap();
                let plan = sandbox.plans().next().unwrap().to_string();
                // The machine may lack it too.
                let made = sandbox.host().features().contains(Features::CLONE_INTO_CGROUP | Features::CLONE3);
                assert_eq!(plan.contains("the child is made in"), made, "{plan}");
                all_roots(&said(&shell(&sandbox, "cat /proc/self/cgroup").output().unwrap()));
                let held = sandbox.command("true").spawn_held().unwrap();
                let own = group(&cgroups, process::id(), "");
                assert_ne!(group(&cgroups, held.id(), ""), own, "{absent:?}");
                assert_ne!(group(&cgroups, held.init_id(), ""), own, "{absent:?}");
            }
        }
    }

    #[test]
    fn a_fork_bomb_stays_within_its_processes() {
        let _watchdog = watchdog(60);
        unified!();
        let outcome = python(&system().processes(20).build().unwrap(), BOMB).output().unwrap();
        // Init and the first process are counted too.
        assert_eq!(said(&outcome).trim(), format!("18 {}", libc::EAGAIN));
        assert_eq!(outcome.stats.unwrap().processes.refused, Some(1));
    }

    #[test]
    fn memory_beyond_the_limit_ends_the_program_or_all() {
        let _watchdog = watchdog(120);
        unified!();
        let outcome =
            python(&system().memory(64 * MIB).swap(prefer(0)).build().unwrap(), TOUCH).output().unwrap();
        let ended = Verdict::OutOfMemory { limit: Some(64 * MIB), peak: outcome.stats.unwrap().memory.peak };
        assert_eq!((outcome.verdict(), outcome.stdout.len()), (ended, 0), "{outcome:?}");
        let stats = outcome.stats.unwrap();
        assert!(stats.memory.oom_kills >= Some(1) && stats.memory.current < Some(64 * MIB), "{stats:?}");
        // The child that takes too much is not the program, and yet the program goes with it.
        let script = format!(
            "import os, time\nif os.fork() == 0:\n  {}\ntime.sleep(1000)",
            TOUCH.replace('\n', "\n  ")
        );
        let builder = system().memory(64 * MIB).swap(prefer(0)).oom_group(());
        let outcome = python(&builder.build().unwrap(), &script).output().unwrap();
        assert!(matches!(outcome.verdict(), Verdict::OutOfMemory { .. }), "{outcome:?}");
    }

    #[test]
    fn the_program_sees_only_its_cpus() {
        let _watchdog = watchdog(60);
        unified!();
        let outcome = python(&system().cpus(CpuSet::from([0])).build().unwrap(), AFFINITY).output().unwrap();
        assert_eq!(said(&outcome).trim(), "[0]");
    }

    #[test]
    fn a_quota_throttles() {
        let _watchdog = watchdog(120);
        unified!();
        let builder = system().cpu(CpuQuota::percent(20));
        let used = python(&builder.build().unwrap(), BUSY).output().unwrap().stats.unwrap().cpu;
        assert!(used.throttled_periods.unwrap() > 0 && used.throttled.unwrap() > Duration::ZERO, "{used:?}");
        let free = python(&system().own_cgroup(()).build().unwrap(), BUSY).output().unwrap();
        assert_eq!(free.stats.unwrap().cpu.throttled_periods, Some(0));
    }

    #[test]
    fn a_tree_is_frozen_thawed_and_killed_while_frozen() {
        let _watchdog = watchdog(120);
        unified!();
        let sandbox = system().own_cgroup(()).build().unwrap();
        let mut child = ticking(&sandbox);
        assert_eq!(child.freeze().unwrap(), FrozenBy::CgroupV2);
        assert!(stands_still(&child));
        assert_eq!(child.thaw().unwrap(), FrozenBy::CgroupV2);
        for _ in 0..20 {
            assert_eq!(line(&mut child), "tick");
        }
        child.freeze().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Killed);
    }

    #[test]
    fn stats_follow_the_tree() {
        let _watchdog = watchdog(60);
        unified!();
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
        assert!(cpu(after) > Duration::ZERO && after.memory.faults > before.memory.faults, "{after:?}");
        child.kill().unwrap();
        assert!(child.wait().unwrap().stats.unwrap().memory.faults >= after.memory.faults);
    }

    #[test]
    fn limits_are_changed_while_it_runs() {
        let _watchdog = watchdog(60);
        let cgroups = unified!();
        let sandbox = system().memory(64 * MIB).processes(10).build().unwrap();
        let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
        let shows =
            |file| fs::read_to_string(group(&cgroups, child.id(), "").join(file)).unwrap().trim().to_owned();
        for bytes in [128 * MIB, 32 * MIB] {
            assert_eq!(child.set_limit(GroupLimit::Memory(bytes)).unwrap().strength, Strength::Hard);
            assert_eq!(shows("memory.max"), bytes.to_string());
        }
        child.set_limit(GroupLimit::Processes(7)).unwrap();
        assert_eq!(shows("pids.max"), "7");
        let error = child.set_limit(GroupLimit::Cpus(CpuSet::from([4000]))).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Process, Step::Cgroup), "{error}");
        assert!(error.to_string().contains("/cpuset.cpus: "), "{error}");
    }

    #[test]
    fn nothing_is_left_however_it_ends() {
        alone(|| {
            unified!();
            let own = process::id();
            for init in [Init::Reaper, Init::Program] {
                let sandbox = system().processes(50).memory(64 * MIB).init(init).build().unwrap();
                shell(&sandbox, "true").status().unwrap();
                assert_eq!(groups_of(own), Vec::<PathBuf>::new(), "after an end");
                let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
                assert!(!groups_of(own).is_empty(), "while it runs");
                child.kill().unwrap();
                assert_eq!(groups_of(own), Vec::<PathBuf>::new(), "after a kill");
                drop(sandbox.command("sleep").spawn_held().unwrap());
                assert_eq!(groups_of(own), Vec::<PathBuf>::new(), "after a drop before exec");
                sandbox.command("/no/such/program").spawn().map(drop).unwrap_err();
                assert_eq!(groups_of(own), Vec::<PathBuf>::new(), "after a failed exec");
            }
        });
    }

    #[test]
    fn what_a_killed_caller_left_is_swept_by_the_next() {
        let _watchdog = watchdog(120);
        unified!();
        let here = || ();
        let name = test_name(&here);
        if let Some(role) = role() {
            let sandbox = system().processes(50).build().unwrap();
            if role == "caller" {
                let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
                // It cannot see its caller's end.
                child.freeze().unwrap();
                raise(Signal::SIGKILL).unwrap();
            }
            shell(&sandbox, "true").status().unwrap();
            return;
        }
        let mut caller = again(&name, "caller").spawn().unwrap();
        let pid = caller.id();
        caller.wait().unwrap();
        assert!(!groups_of(pid).is_empty(), "its group is still there, and frozen");
        assert!(again(&name, "next").status().unwrap().success());
        assert_eq!(groups_of(pid), Vec::<PathBuf>::new());
    }

    #[test]
    fn groups_of_many_threads_do_not_collide() {
        let _watchdog = watchdog(120);
        unified!();
        let sandbox = system().processes(50).build().unwrap();
        let children: Vec<Child> = thread::scope(|scope| {
            let spawn = || sandbox.command("sleep").arg("1000").spawn().unwrap();
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(spawn)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let by = |child: &Child| state(&child.limits(), LimitKind::Processes).by.unwrap();
        assert_eq!(children.iter().map(by).collect::<BTreeSet<String>>().len(), 16);
    }

    #[test]
    fn a_caller_in_the_way_is_told_and_moved_where_the_policy_says_so() {
        let _watchdog = watchdog(120);
        let cgroups = unified!();
        let here = || ();
        let name = test_name(&here);
        if !is_root() {
            return skipped(&name, "only root makes a group for it");
        }
        let top = cgroups.unified.as_ref().unwrap().mount.join(format!("test-occupied-{}", process::id()));
        if role().is_none() {
            fs::create_dir(&top).unwrap();
            let status = again(&name, top.to_str().unwrap()).status().unwrap();
            for entry in
                fs::read_dir(&top).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
            {
                fs::remove_dir(entry).unwrap();
            }
            fs::remove_dir(&top).unwrap();
            assert!(status.success());
            return;
        }
        let top = PathBuf::from(role().unwrap());
        fs::write(top.join("cgroup.procs"), "0").unwrap();
        let error = system().processes(20).build().unwrap_err();
        assert!(error.to_string().contains("the caller itself is in that group"), "{error}");
        // Named, nobody looks before the kernel does.
        let named = system().processes(20).cgroup_parent(&top);
        let error = named.build().unwrap().command("true").spawn().map(drop).unwrap_err();
        let text = error.to_string();
        assert!(
            error.raw_os_error() == Some(libc::EBUSY) && text.contains("cgroup.procs: read: EBUSY"),
            "{text}"
        );
        assert!(text.contains("say manage_own_cgroup()"), "{text}");
        let managed = || system().processes(20).manage_own_cgroup();
        let outcome = python(&managed().build().unwrap(), BOMB).output().unwrap();
        assert_eq!(said(&outcome).trim(), format!("18 {}", libc::EAGAIN));
        let leaf = group(&cgroups, process::id(), "");
        let is_leaf = leaf.file_name().unwrap().to_string_lossy().starts_with("ringfence-leaf-");
        assert!(is_leaf && leaf.parent() == Some(top.as_path()), "{leaf:?}");
        // Another sandbox of the same process finds it in its leaf.
        let held = managed().build().unwrap().command("true").spawn_held().unwrap();
        assert_eq!(group(&cgroups, held.id(), "").parent(), Some(top.as_path()));
    }

    #[test]
    fn devices_are_allowed_by_a_program_or_the_refusal_is_told() {
        let _watchdog = watchdog(60);
        let cgroups = unified!();
        let script = "cat /dev/null && echo null; head -c 1 /dev/zero >/dev/null && echo zero; true";
        let rules = vec![DeviceRule::character(1, 3)];
        let sandbox = with(system().processes(50).devices(prefer(rules)), cgroups);
        let held = sandbox.command("true").spawn_held().unwrap();
        let state = state(&held.enforcement().limits, LimitKind::Devices);
        let text = said(&shell(&sandbox, script).output().unwrap());
        if is_root() {
            assert_eq!((state.strength, text.as_str()), (Strength::Hard, "null\n"), "{state}");
        } else {
            assert_eq!((state.strength, text.as_str()), (Strength::None, "null\nzero\n"), "{state}");
            assert!(state.reasons.iter().any(|why| why.contains("bpf(BPF_PROG_LOAD)")), "{state}");
        }
    }
}
