//! Events of a running sandbox on one descriptor: what is told, that nothing is lost or invented, and what is said of the rest.

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
    use std::os::fd::AsFd;
    use std::path::Path;
    use std::thread;
    use std::time::Duration;

    use nix::poll::{PollFd, PollFlags, poll};
    use ringfence::host::Cgroups;
    use ringfence::{
        Builder, Child, Contended, ErrorKind, Event, EventKind, Events, Host, Sandbox, Stalled, Stdio, Step,
        Threshold, Told, Verdict,
    };

    use super::groups::{BOMB, MIB, TOUCH, line, python, ticking, with};
    use super::support::{alone, is_root, shell, skipped, system, test_name, watchdog};

    /// The machine's groups, where root finds these controllers in version 1.
    fn legacy(name: &str, controllers: &[&str]) -> Option<Cgroups> {
        let cgroups = Host::probe().cgroups().clone();
        let lacks = |name: &&&str| cgroups.legacy_with(name).is_none_or(|legacy| legacy.own.is_none());
        match controllers.iter().find(lacks) {
            _ if !is_root() => skipped(name, "only root may make groups here"),
            Some(controller) => skipped(name, &format!("no cgroup v1 hierarchy of {controller}")),
            None => return Some(cgroups),
        }
        None
    }

    /// Version 1 alone.
    fn legacy_only(builder: Builder, cgroups: &Cgroups) -> Sandbox {
        let mut cgroups = cgroups.clone();
        cgroups.unified = None;
        with(builder, cgroups)
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

    /// A program with a group of version 2, that waits to be told to end.
    fn in_unified(name: &str) -> Option<Child> {
        let cgroups = Host::probe().cgroups().clone();
        if !is_root() || cgroups.unified.is_none() {
            skipped(name, "needs root and cgroup v2");
            return None;
        }
        let sandbox = system().own_cgroup(()).build().unwrap();
        let child = shell(&sandbox, "read line").stdin(Stdio::piped()).spawn().unwrap();
        let text = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
        if !text.lines().any(|line| line.starts_with("0::") && line.contains("ringfence-")) {
            skipped(name, "no group of cgroup v2 could be made");
            return None;
        }
        Some(child)
    }

    fn rest(events: &mut Events) -> Vec<Event> {
        let mut all = Vec::new();
        while let Some(event) = events.next(None).unwrap() {
            all.push(event);
        }
        all
    }

    /// Whether somebody else's poll finds it readable.
    fn readable(events: &Events, milliseconds: u16) -> bool {
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, milliseconds).unwrap() == 1
    }

    fn sum(events: &[Event], pick: impl Fn(&Event) -> Option<u64>) -> u64 {
        events.iter().filter_map(pick).sum()
    }

    fn kills(event: &Event) -> Option<u64> {
        if let Event::OutOfMemoryKill { count } = event { Some(*count) } else { None }
    }

    fn refusals(event: &Event) -> Option<u64> {
        if let Event::ProcessesMax { count } = event { Some(*count) } else { None }
    }

    #[test]
    fn the_end_is_told_everywhere_and_what_is_not_has_a_reason() {
        let _watchdog = watchdog(60);
        let sandbox = system().build().unwrap();
        let mut child = shell(&sandbox, "read line").stdin(Stdio::piped()).spawn().unwrap();
        let threshold = Threshold::some(Contended::Cpu, Duration::from_millis(100));
        let mut events = child.watch().pressure(threshold).start().unwrap();
        let kinds: BTreeSet<EventKind> = events.unavailable().iter().map(|gap| gap.kind).collect();
        let all = [
            EventKind::MemoryHigh,
            EventKind::MemoryMax,
            EventKind::OutOfMemory,
            EventKind::OutOfMemoryKill,
            EventKind::ProcessesMax,
            EventKind::Pressure,
            EventKind::Frozen,
        ];
        assert_eq!(kinds, BTreeSet::from(all), "{:?}", events.unavailable());
        for gap in events.unavailable() {
            assert_eq!(gap.told, Told::Never, "{gap}");
            assert!(gap.why.contains("own_cgroup()"), "{gap}");
        }
        assert_eq!(events.try_next().unwrap(), None);
        assert_eq!(events.next(Some(Duration::from_millis(20))).unwrap(), None);
        assert!(!readable(&events, 0));
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(readable(&events, 30_000), "the end");
        assert_eq!(events.try_next().unwrap(), Some(Event::Exited));
        assert!(!readable(&events, 0), "nothing comes behind it");
        assert_eq!(events.next(None).unwrap(), None);
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(0));
    }

    #[test]
    fn events_outlive_the_child_that_they_tell_of() {
        let _watchdog = watchdog(60);
        let child = shell(&system().build().unwrap(), "sleep 1000").spawn().unwrap();
        let mut events = child.events().unwrap();
        let waits = thread::spawn(move || events.next(None).unwrap());
        drop(child);
        assert_eq!(waits.join().unwrap(), Some(Event::Exited));
    }

    #[test]
    fn a_tree_out_of_memory_is_told_before_its_end() {
        let _watchdog = watchdog(120);
        let cgroups = legacy!("memory");
        let sandbox = legacy_only(system().memory(48 * MIB), &cgroups);
        let child = python(&sandbox, TOUCH).spawn().unwrap();
        let mut events = child.events().unwrap();
        assert!(readable(&events, 60_000), "reclaim, or the lack of memory");
        let all = rest(&mut events);
        let outcome = child.wait().unwrap();
        let seen = outcome.stats.unwrap().memory.oom_kills.unwrap();
        assert!(seen > 0, "{outcome:?}");
        assert_eq!(sum(&all, kills), seen, "{all:?}");
        assert!(all.iter().any(|event| matches!(event, Event::OutOfMemory { .. })), "{all:?}");
        assert!(all.iter().any(|event| matches!(event, Event::MemoryMax { .. })), "{all:?}");
        assert_eq!(all.last(), Some(&Event::Exited), "{all:?}");
        let gap = |kind| events.unavailable().iter().find(|gap| gap.kind == kind).map(|gap| gap.told);
        assert_eq!(gap(EventKind::MemoryHigh), Some(Told::Never));
        assert_eq!(gap(EventKind::OutOfMemory), None, "{:?}", events.unavailable());
    }

    /// The kernel notifies before it kills, and not again.
    #[test]
    fn a_kill_is_told_while_the_program_goes_on() {
        let _watchdog = watchdog(120);
        let cgroups = legacy!("memory");
        let sandbox = legacy_only(system().memory(48 * MIB), &cgroups);
        let script = format!("python3 -c '{TOUCH}'; echo killed; read line");
        let mut command = shell(&sandbox, &script);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut events = child.events().unwrap();
        let mut all = Vec::new();
        while sum(&all, kills) == 0 {
            // A guard only: without an answer to the notification nothing would ever come.
            all.push(events.next(Some(Duration::from_secs(60))).unwrap().expect("a kill"));
        }
        assert_eq!(line(&mut child), "killed");
        assert_eq!(sum(&all, kills), child.stats().unwrap().memory.oom_kills.unwrap());
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        all = rest(&mut events);
        assert_eq!((all.last(), sum(&all, kills)), (Some(&Event::Exited), 0), "{all:?}");
    }

    #[test]
    fn what_was_counted_is_told_when_the_groups_are_gone() {
        let _watchdog = watchdog(120);
        let cgroups = legacy!("memory", "pids");
        let sandbox = legacy_only(system().memory(48 * MIB).processes(20), &cgroups);
        let script = format!("{BOMB}\nos.kill(-1, 9) if made == 0 else None\n{TOUCH}");
        let child = python(&sandbox, &script).spawn().unwrap();
        let mut events = child.events().unwrap();
        let outcome = child.wait().unwrap();
        let stats = outcome.stats.unwrap();
        let all = rest(&mut events);
        assert_eq!(Some(sum(&all, kills)), stats.memory.oom_kills, "{all:?}");
        assert_eq!(Some(sum(&all, refusals)), stats.processes.refused, "{all:?}");
        assert!(sum(&all, kills) > 0 && sum(&all, refusals) > 0, "{all:?}");
        assert_eq!(all.last(), Some(&Event::Exited));
    }

    #[test]
    fn refused_processes_are_told_as_often_as_they_are_looked_for() {
        let _watchdog = watchdog(60);
        let cgroups = legacy!("pids");
        let sandbox = legacy_only(system().processes(10), &cgroups);
        let script = format!("{BOMB}\nimport sys\nsys.stdin.readline()\nos.kill(-1, 9)");
        let mut child = python(&sandbox, &script).stdin(Stdio::piped()).spawn().unwrap();
        let mut events = child.watch().look_every(Duration::from_millis(20)).start().unwrap();
        let gap = events.unavailable().iter().find(|gap| gap.kind == EventKind::ProcessesMax);
        assert_eq!(gap.map(|gap| gap.told), Some(Told::Late));
        let first = loop {
            assert!(readable(&events, 30_000), "a look now and then");
            if let Some(event) = events.try_next().unwrap() {
                break event;
            }
        };
        assert!(matches!(first, Event::ProcessesMax { count: 1.. }), "{first:?}");
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert_eq!(rest(&mut events).last(), Some(&Event::Exited));
        let seen = child.wait().unwrap().stats.unwrap().processes.refused;
        assert_eq!(refusals(&first), seen);
    }

    #[test]
    fn a_freezer_is_told_by_version_2() {
        let _watchdog = watchdog(60);
        let here = || ();
        let Some(mut child) = in_unified(&test_name(&here)) else { return };
        let mut events = child.events().unwrap();
        assert!(events.unavailable().iter().all(|gap| gap.kind != EventKind::Frozen), "{events:?}");
        for _ in 0..3 {
            child.freeze().unwrap();
            assert!(readable(&events, 30_000), "frozen");
            assert_eq!(events.try_next().unwrap(), Some(Event::Frozen));
            assert_eq!(events.try_next().unwrap(), None);
            child.thaw().unwrap();
            assert!(readable(&events, 30_000), "thawed");
            assert_eq!(events.next(None).unwrap(), Some(Event::Thawed));
        }
        child.freeze().unwrap();
        let mut later = child.events().unwrap();
        assert_eq!(later.try_next().unwrap(), Some(Event::Frozen), "what was before is told too");
        child.thaw().unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert_eq!(rest(&mut later), [Event::Thawed, Event::Exited]);
    }

    #[test]
    fn a_freezer_of_version_1_is_told_late() {
        let _watchdog = watchdog(60);
        let cgroups = legacy!("freezer");
        let child = ticking(&legacy_only(system().own_cgroup(()), &cgroups));
        let mut events = child.events().unwrap();
        let gap = events.unavailable().iter().find(|gap| gap.kind == EventKind::Frozen).unwrap();
        assert_eq!(gap.told, Told::Late, "{gap}");
        child.freeze().unwrap();
        assert_eq!(events.try_next().unwrap(), Some(Event::Frozen));
        child.thaw().unwrap();
        child.kill().unwrap();
        assert_eq!(rest(&mut events), [Event::Thawed, Event::Exited]);
    }

    /// Another poll of the descriptor must not use up what a threshold has to tell.
    #[test]
    fn a_threshold_of_pressure_survives_another_poll() {
        let _watchdog = watchdog(120);
        let here = || ();
        let name = test_name(&here);
        if in_unified(&name).is_none() {
            return;
        }
        let sandbox = system().own_cgroup(()).build().unwrap();
        let script = "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; wait";
        let child = shell(&sandbox, script).spawn().unwrap();
        let threshold = Threshold::some(Contended::Cpu, Duration::from_millis(10));
        let other = Threshold::full(Contended::Io, Duration::from_secs(2));
        let mut events = child.watch().pressure(other).pressure(threshold).start().unwrap();
        let gap = events.unavailable().iter().find(|gap| gap.kind == EventKind::Pressure).cloned();
        if let Some(gap) = gap.as_ref().filter(|gap| gap.told == Told::Never) {
            return skipped(&name, &gap.to_string());
        }
        for _ in 0..2 {
            // Before Linux 6.5 it does not, and so it is said.
            if gap.is_some() {
                let told = events.next(Some(Duration::from_secs(60))).unwrap();
                assert_eq!(told, Some(Event::Pressure { threshold }), "{gap:?}");
                continue;
            }
            assert!(readable(&events, 60_000), "the tree waits for CPUs");
            assert!(readable(&events, 0), "still");
            assert_eq!(events.try_next().unwrap(), Some(Event::Pressure { threshold }));
        }
        child.kill().unwrap();
        let last = rest(&mut events);
        assert_eq!(last.last(), Some(&Event::Exited), "{last:?}");
    }

    #[test]
    fn a_threshold_that_no_host_can_have_is_a_mistake() {
        let child = shell(&system().build().unwrap(), "sleep 1000").spawn().unwrap();
        let threshold = Threshold {
            resource: Contended::Memory,
            stalled: Stalled::Full,
            stall: Duration::from_secs(1),
            window: Duration::from_millis(1),
        };
        let error = child.watch().pressure(threshold).start().unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Process, Step::Observe), "{error}");
        assert!(error.to_string().contains("memory.pressure full 1000000 1000"), "{error}");
    }

    fn open() -> Vec<(String, String)> {
        let entries = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        let to = |path: &Path| fs::read_link(path).unwrap_or_default().display().to_string();
        let all = entries.map(|path| (name(&path), to(&path)));
        all.filter(|(_, to)| !to.starts_with("/proc/")).collect()
    }

    #[test]
    fn descriptors_are_closed_on_exec_and_at_the_end_and_no_thread_is_made() {
        let body = || {
            let root = is_root() && Host::probe().cgroups().legacy_with("memory").is_some();
            let builder = if root { system().own_cgroup(()) } else { system() };
            let mut sandboxes = vec![builder.build().unwrap()];
            if root {
                sandboxes.push(legacy_only(system().own_cgroup(()), Host::probe().cgroups()));
            }
            for sandbox in sandboxes {
                let mut child = shell(&sandbox, "read line").stdin(Stdio::piped()).spawn().unwrap();
                let threads = || fs::read_dir("/proc/self/task").unwrap().count();
                let (before, threads_before) = (open(), threads());
                let threshold = Threshold::some(Contended::Cpu, Duration::from_secs(1));
                let mut events = child.watch().pressure(threshold).start().unwrap();
                let ours: Vec<_> = open().into_iter().filter(|entry| !before.contains(entry)).collect();
                assert!(ours.len() >= 4, "{ours:?}");
                for (number, to) in &ours {
                    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
                    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
                    let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
                    assert_ne!(flags & 0o2_000_000, 0, "{number} {to}: inherited");
                }
                assert_eq!(threads(), threads_before);
                child.stdin.take().unwrap().write_all(b"\n").unwrap();
                assert_eq!(rest(&mut events), [Event::Exited]);
                drop(events);
                let left: Vec<_> = open().into_iter().filter(|entry| !before.contains(entry)).collect();
                assert!(left.is_empty(), "{left:?}");
            }
        };
        alone(body);
    }
}
