//! Limits of a tree of processes without any control group: the last rung, that it is labelled, and that it limits.

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
    use std::fs;
    use std::thread;
    use std::time::Duration;

    use ringfence::host::{Cgroups, KernelVersion};
    use ringfence::{
        Builder, ErrorKind, FrozenBy, GroupLimit, Host, LimitKind, LimitRung, Resource, Sandbox, Step,
        Strength, Verdict, prefer,
    };

    use super::groups::{BOMB, MIB, python, state, ticking, with};
    use super::support::{said, skipped, system, watchdog};

    fn without(builder: Builder) -> Sandbox {
        with(builder, Cgroups::default())
    }

    #[test]
    fn a_preferred_limit_of_memory_bounds_each_process_and_says_so() {
        let _watchdog = watchdog(60);
        let take = "try:\n  b = bytearray(200 << 20)\n  print('had')\nexcept MemoryError: print('refused')";
        let sandbox = without(system().memory(prefer(100 * MIB)));
        let held = sandbox.command("true").spawn_held().unwrap();
        let state = state(&held.enforcement().limits, LimitKind::Memory);
        assert_eq!((state.strength, state.rung), (Strength::Approximate, Some(LimitRung::ResourceLimit)));
        assert_eq!(state.by.as_deref(), Some("RLIMIT_AS = 104857600 of the program"));
        assert!(state.reasons.iter().any(|why| why.contains("of each process")), "{state}");
        assert_eq!(said(&python(&sandbox, take).output().unwrap()).trim(), "refused");
        assert_eq!(said(&python(&without(system()), take).output().unwrap()).trim(), "had");
    }

    #[test]
    fn a_preferred_number_of_processes_bounds_the_uid_in_its_namespace() {
        let _watchdog = watchdog(60);
        let sandbox = without(system().processes(prefer(20)));
        let held = sandbox.command("true").spawn_held().unwrap();
        let state = state(&held.enforcement().limits, LimitKind::Processes);
        assert_eq!(state.strength, Strength::Approximate, "{state}");
        drop(held);
        let text = said(&python(&sandbox, BOMB).output().unwrap());
        let (made, errno) = text.trim().split_once(' ').unwrap();
        assert_eq!(errno.parse(), Ok(libc::EAGAIN));
        assert!(made.parse::<u32>().unwrap() <= 20, "{made}");
        if Host::probe().kernel() < KernelVersion::new(5, 14, 0) {
            return skipped("one_does_not_take_from_the_other", "processes are counted over all namespaces");
        }
        // Each sandbox has a namespace of its own, so one does not take from the other.
        let first = sandbox.command("sleep").arg("1000").spawn().unwrap();
        assert_eq!(said(&python(&sandbox, BOMB).output().unwrap()), text);
        first.kill().unwrap();
    }

    #[test]
    fn a_limit_of_the_process_that_is_lower_stays() {
        let _watchdog = watchdog(60);
        for (own, expected) in [(7, "7"), (100, "20")] {
            let builder = system().processes(prefer(20)).limit(Resource::Processes, own);
            let script = "import resource; print(resource.getrlimit(resource.RLIMIT_NPROC))";
            let text = said(&python(&without(builder), script).output().unwrap());
            assert_eq!(text.trim(), format!("({expected}, {expected})"));
        }
        let builder = system().memory(prefer(900 * MIB)).limit(Resource::AddressSpace, 500 * MIB);
        let script = "import resource; print(resource.getrlimit(resource.RLIMIT_AS))";
        let text = said(&python(&without(builder), script).output().unwrap());
        assert_eq!(text.trim(), format!("({0}, {0})", 500 * MIB));
    }

    #[test]
    fn a_required_limit_is_refused_before_anything_runs() {
        let policy = system().memory(64 * MIB).policy().unwrap();
        let host = Host::probe().with_cgroups(Cgroups::default());
        let error = Sandbox::new(policy, host).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Unsupported, Step::Cgroup));
        let text = error.to_string();
        for reason in ["limit memory=67108864", "cgroup v2: it is not mounted", "systemd scope: "] {
            assert!(text.contains(reason), "{text}");
        }
    }

    #[test]
    fn a_limit_with_nothing_like_it_is_none_and_says_why() {
        let _watchdog = watchdog(60);
        let sandbox = without(system().cpu_weight(prefer(50)).own_cgroup(prefer(())));
        let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
        let state = state(&child.enforcement().limits, LimitKind::CpuWeight);
        assert_eq!((state.strength, state.rung, state.reasons.len()), (Strength::None, None, 4), "{state}");
        let notes = &child.enforcement().notes;
        assert!(notes.iter().any(|note| note.starts_with("no control group of its own")), "{notes:?}");
        let error = child.stats().unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Process, Step::Cgroup), "{error}");
        let error = child.set_limit(GroupLimit::Processes(5)).unwrap_err();
        assert_eq!(error.step(), Step::Cgroup, "{error}");
        child.kill().unwrap();
    }

    #[test]
    fn a_tree_is_stopped_by_signals_and_labelled_so() {
        let _watchdog = watchdog(60);
        let child = ticking(&without(system()));
        assert_eq!(child.freeze().unwrap(), FrozenBy::Stop);
        let stopped = |pid: &str| {
            // Who waits for a child that was stopped before its exec does not run either (vfork(2)).
            let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            text.contains(") T ") || text.contains(") D ")
        };
        let below =
            |pid: u32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        thread::sleep(Duration::from_millis(50));
        assert!(stopped(&child.id().to_string()));
        let children = below(child.id());
        assert!(!children.trim().is_empty() && children.split_whitespace().all(stopped), "{children}");
        assert_eq!(child.thaw().unwrap(), FrozenBy::Stop);
        assert!(!stopped(&child.id().to_string()));
        child.freeze().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Killed);
    }
}
