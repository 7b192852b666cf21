//! What a memory cgroup or a freezer does to a child does not reach its caller. For root, where the host has cgroup v1.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use ringfence::{Core, Launch, Verdict};

    use super::support::{children, eventually, is_root, skipped, system, watchdog};

    /// A cgroup of this test, removed when dropped.
    struct Group(PathBuf);

    impl Group {
        /// None, with a line that says why, where it cannot be had.
        fn new(controller: &str, file: &str, test: &str) -> Option<Self> {
            let parent = Path::new("/sys/fs/cgroup").join(controller);
            if !is_root() || fs::metadata(parent.join("tasks")).is_err() {
                skipped(test, &format!("it needs root and the cgroup v1 hierarchy {controller}"));
                return None;
            }
            let path = parent.join(format!("ringfence-{test}-{}", process::id()));
            if let Err(error) = fs::create_dir(&path).and_then(|()| fs::metadata(path.join(file))) {
                skipped(test, &format!("{}: {error}", path.display()));
                return None;
            }
            Some(Self(path))
        }

        fn write(&self, file: &str, value: &str) {
            fs::write(self.0.join(file), value).unwrap();
        }

        fn add(&self, pid: u32) {
            self.write("cgroup.procs", &pid.to_string());
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            // Its processes are reaped by now; the kernel may need a moment more.
            eventually(10, || fs::remove_dir(&self.0).is_ok());
        }
    }

    #[test]
    fn out_of_memory_inside_is_the_programs_alone() {
        let _watchdog = watchdog(120);
        let name = "out_of_memory_inside_is_the_programs_alone";
        let Some(group) = Group::new("memory", "memory.limit_in_bytes", name) else { return };
        group.write("memory.limit_in_bytes", "8388608");
        for launch in [Launch::Image, Launch::Copy] {
            let sandbox = system().launch(launch).build().unwrap();
            // It keeps its last line, which never ends.
            let held = sandbox.command("tail").arg("/dev/zero").spawn_held().unwrap();
            group.add(held.id());
            let child = held.release().unwrap();
            let outcome = child.wait_timeout(Duration::from_secs(60)).unwrap().unwrap();
            let expected = Verdict::Signaled { signal: libc::SIGKILL, core: Core::None };
            assert_eq!(outcome.verdict(), expected, "{launch:?}");
            drop(child);
            // And with init in the group, too.
            let held = sandbox.command("tail").arg("/dev/zero").spawn_held().unwrap();
            group.add(held.init_id());
            group.add(held.id());
            let outcome = held.release().unwrap().wait().unwrap();
            assert_eq!(outcome.verdict(), expected, "{launch:?}");
        }
        assert!(system().build().unwrap().command("true").status().unwrap().success(), "the caller goes on");
    }

    #[test]
    fn frozen_held_child_is_an_error_within_the_time_limit() {
        let _watchdog = watchdog(120);
        let name = "frozen_held_child_is_an_error_within_the_time_limit";
        let Some(group) = Group::new("freezer", "freezer.state", name) else { return };
        let before = children();
        let sandbox = system().setup_timeout(Duration::from_secs(3)).build().unwrap();
        let held = sandbox.command("true").spawn_held().unwrap();
        let init = held.init_id();
        group.add(init);
        group.add(held.id());
        group.write("freezer.state", "FROZEN");
        let (sender, receiver) = channel();
        let release = thread::spawn(move || {
            let error = held.release().map(drop).unwrap_err();
            sender.send(error.to_string()).unwrap();
        });
        // A generous guard; a frozen process of v1 dies only when it is thawed.
        let heard = receiver.recv_timeout(Duration::from_secs(60));
        group.write("freezer.state", "THAWED");
        release.join().unwrap();
        let text = heard.unwrap_or_else(|_| panic!("release() hung until the child was thawed"));
        assert!(text.contains("in time"), "{text}");
        assert!(eventually(10, || children().is_subset(&before) || !children().contains(&init.cast_signed())));
    }

    #[test]
    fn frozen_program_can_be_killed_once_it_is_thawed() {
        let _watchdog = watchdog(120);
        let name = "frozen_program_can_be_killed_once_it_is_thawed";
        let Some(group) = Group::new("freezer", "freezer.state", name) else { return };
        let child = system().build().unwrap().command("sleep").arg("1000").spawn().unwrap();
        group.add(child.id());
        group.write("freezer.state", "FROZEN");
        assert!(child.wait_timeout(Duration::from_millis(50)).unwrap().is_none());
        thread::scope(|scope| {
            let killed = scope.spawn(|| child.kill());
            thread::sleep(Duration::from_millis(100));
            group.write("freezer.state", "THAWED");
            killed.join().unwrap().unwrap();
        });
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Killed);
    }
}
