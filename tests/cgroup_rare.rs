//! Controllers that few machines have at hand: net_cls and net_prio in a throw-away mount namespace, blkio on the real disks,
//! huge pages. What was mounted for a test is gone behind it.

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
    use std::env;
    use std::fs;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::{Path, PathBuf};
    use std::process::{self, Command as Process};
    use std::time::Instant;

    use ringfence::{
        DeviceNumber, GroupLimit, Host, IoMax, LimitKind, LimitRung, Stdio, Strength, Verdict, prefer,
    };

    use super::groups::{MIB, group, line, python, state};
    use super::support::{again, eventually, is_root, role, said, skipped, system, test_name, watchdog};

    /// The number of the hierarchy that a controller is in (0 is none, or version 2) and how many groups that has, with those
    /// that were removed and are not free yet. `None`: the kernel has no such controller.
    fn hierarchy(controller: &str) -> Option<(u32, u32)> {
        let text = fs::read_to_string("/proc/cgroups").ok()?;
        let line = text.lines().find(|line| line.split('\t').next() == Some(controller))?;
        let fields: Vec<&str> = line.split('\t').collect();
        (fields.get(3) == Some(&"1")).then(|| Some((fields[1].parse().ok()?, fields[2].parse().ok()?)))?
    }

    fn is_mounted(controller: &str) -> Option<bool> {
        hierarchy(controller).map(|(number, _)| number != 0)
    }

    /// In a mount namespace of its own, with these controllers of version 1 mounted.
    fn with_mounted(name: &str, controllers: &[&str], body: fn()) {
        if let Some(place) = role() {
            for controller in controllers {
                let directory = Path::new(&place).join(controller);
                fs::create_dir_all(&directory).unwrap();
                let mount = Process::new("mount")
                    .args(["-t", "cgroup", "-o", controller, "cgroup"])
                    .arg(&directory)
                    .status();
                assert!(mount.unwrap().success(), "{controller}");
            }
            body();
            // The kernel keeps a hierarchy for good that is unmounted while one of its groups is not free yet.
            for controller in controllers {
                let groups = || hierarchy(controller).map(|(_, groups)| groups);
                assert!(eventually(60, || groups() == Some(1)), "{controller}: {:?} groups", groups());
            }
            return;
        }
        let unmounted = |controller: &&&str| is_mounted(controller) == Some(false);
        if !is_root() || controllers.iter().filter(unmounted).count() != controllers.len() {
            return skipped(name, &format!("{controllers:?} of cgroup v1 cannot be mounted for it"));
        }
        let place = env::temp_dir().join(format!("ringfence-rare-{}", process::id()));
        fs::create_dir_all(&place).unwrap();
        let inner = again(name, place.to_str().unwrap());
        let mut outer = Process::new("unshare");
        outer
            .args(["--mount", "--propagation", "private", "--"])
            .arg(inner.get_program())
            .args(inner.get_args());
        for (key, value) in inner.get_envs() {
            outer.env(key, value.unwrap());
        }
        let output = outer.output().unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() && text.contains("must be superuser") {
            return skipped(name, "this caller may not mount");
        }
        assert!(output.status.success(), "{text}");
        fs::remove_dir_all(&place).unwrap();
        for controller in controllers {
            assert!(eventually(60, || is_mounted(controller) == Some(false)), "{controller} stays mounted");
        }
    }

    #[test]
    fn packets_have_a_class_and_a_priority() {
        let _watchdog = watchdog(120);
        let here = || ();
        with_mounted(&test_name(&here), &["net_cls", "net_prio"], || {
            let sandbox = system().net_class(0x10_0001).net_priority("lo", 5).build().unwrap();
            let mut command = sandbox.command("sh");
            let mut child = command
                .args(["-c", "echo in; read x"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            assert_eq!(line(&mut child), "in");
            let cgroups = Host::probe().cgroups().clone();
            for (kind, controller, file, shown) in [
                (LimitKind::NetClass, "net_cls", "net_cls.classid", "1048577"),
                (LimitKind::NetPriority, "net_prio", "net_prio.ifpriomap", "lo 5"),
            ] {
                let state = state(&child.limits(), kind);
                assert_eq!(
                    (state.strength, state.rung),
                    (Strength::Hard, Some(LimitRung::CgroupV1)),
                    "{state}"
                );
                for pid in [child.id(), child.init_id()] {
                    let group = group(&cgroups, pid, controller);
                    let text = fs::read_to_string(group.join(file)).unwrap();
                    assert!(text.lines().any(|line| line.trim() == shown), "{file}: {text}");
                    assert!(
                        group.file_name().unwrap().to_string_lossy().starts_with("ringfence-"),
                        "{group:?}"
                    );
                }
            }
            let changed = child.set_limit(GroupLimit::NetClass(0x20_0002)).unwrap();
            assert_eq!(changed.strength, Strength::Hard, "{changed}");
            let groups: Vec<PathBuf> =
                ["net_cls", "net_prio"].iter().map(|name| group(&cgroups, child.id(), name)).collect();
            child.kill().unwrap();
            assert!(groups.iter().all(|group| !group.try_exists().unwrap()), "{groups:?}");
            let error = system().net_priority("no-such-if0", 1).build().unwrap().command("true").spawn();
            let error = error.map(drop).unwrap_err();
            assert!(error.to_string().contains("net_prio.ifpriomap: write: "), "{error}");
        });
    }

    /// A disk and its file: a real one first, or a loop device that has a file.
    fn disk() -> Option<(DeviceNumber, PathBuf)> {
        let virtual_ones = ["ram", "zram", "dm-", "md", "sr", "fd", "nbd"];
        let mut found = Vec::new();
        for entry in fs::read_dir("/sys/block").into_iter().flatten().filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let text = fs::read_to_string(entry.path().join("dev")).unwrap_or_default();
            let Some((major, minor)) = text.trim().split_once(':') else { continue };
            let is_loop = name.starts_with("loop");
            let is_none = is_loop && !entry.path().join("loop/backing_file").try_exists().unwrap();
            if !is_none && !virtual_ones.iter().any(|prefix| name.starts_with(prefix)) {
                let number = DeviceNumber { major: major.parse().unwrap(), minor: minor.parse().unwrap() };
                found.push((is_loop, number, Path::new("/dev").join(name)));
            }
        }
        found.sort();
        found.into_iter().next().map(|(_, number, file)| (number, file))
    }

    /// Reads 4 MiB past the page cache from its standard input.
    const READ: &str = "import os, mmap
b = mmap.mmap(-1, 1 << 16)
n = sum(os.preadv(0, [b], i << 16) for i in range(64))
print(n)";

    #[test]
    fn a_reader_of_a_disk_is_held_to_its_speed() {
        let _watchdog = watchdog(120);
        let here = || ();
        let name = test_name(&here);
        let Some((disk, file)) = disk() else { return skipped(&name, "no disk in /sys/block") };
        let open = || fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&file);
        if let Err(error) = open() {
            return skipped(&name, &format!("{}: {error}", file.display()));
        }
        let run = |max: IoMax| {
            let sandbox = system().io_max(disk, prefer(max)).build().unwrap();
            let begun = Instant::now();
            let child = python(&sandbox, READ).stdin(open().unwrap()).stdout(Stdio::piped()).spawn().unwrap();
            let told = state(&child.limits(), LimitKind::IoMax);
            let outcome = child.wait_with_output().unwrap();
            (told, outcome, begun.elapsed())
        };
        let slow = IoMax { read_bytes: Some(MIB), ..IoMax::default() };
        let (told, outcome, elapsed) = run(slow);
        if told.rung.is_none() {
            return skipped(&name, &format!("no controller for disks here: {told}"));
        }
        assert_eq!(told.strength, Strength::Hard, "{told}");
        assert_eq!(said(&outcome).trim(), "4194304");
        let stats = outcome.stats.expect("there is a group").io;
        let read = stats.read_bytes.expect("it counts");
        assert!(read >= 4 * MIB, "{stats:?}");
        // A load makes it slower still: never faster. One second is for what the kernel lets through before it counts.
        let most = MIB.saturating_mul(u64::try_from(elapsed.as_millis()).unwrap() + 1000) / 1000;
        assert!(read <= most, "{read} bytes in {elapsed:?}");
        let (_, outcome, _) = run(IoMax { read_bytes: Some(1 << 40), ..IoMax::default() });
        assert_eq!(said(&outcome).trim(), "4194304");
    }

    #[test]
    fn a_real_disk_has_a_speed_in_either_version() {
        let _watchdog = watchdog(120);
        let here = || ();
        let name = test_name(&here);
        let Some((disk, _)) = disk() else { return skipped(&name, "no disk in /sys/block") };
        let max = IoMax { read_bytes: Some(64 * MIB), read_operations: Some(5000), ..IoMax::default() };
        let held = system().io_max(disk, prefer(max)).build().unwrap().command("true").spawn_held().unwrap();
        let told = state(&held.enforcement().limits, LimitKind::IoMax);
        let cgroups = Host::probe().cgroups().clone();
        let text = match told.rung {
            Some(LimitRung::CgroupV1) => {
                let group = group(&cgroups, held.id(), "blkio");
                let files = ["blkio.throttle.read_bps_device", "blkio.throttle.read_iops_device"];
                files.map(|file| fs::read_to_string(group.join(file)).unwrap()).join("")
            }
            Some(LimitRung::CgroupV2) => {
                fs::read_to_string(group(&cgroups, held.id(), "").join("io.max")).unwrap()
            }
            _ => return skipped(&name, &format!("no controller for disks here: {told}")),
        };
        assert_eq!(told.strength, Strength::Hard, "{told}");
        assert!(
            text.contains(&format!("{disk} ")) && text.contains("67108864") && text.contains("5000"),
            "{text}"
        );
        // What writes is held to it in version 1 only where it goes to the disk at once, and so it is said.
        let max = IoMax { write_bytes: Some(64 * MIB), ..IoMax::default() };
        let both = system().io_max(disk, prefer(max)).build().unwrap().command("true").spawn_held().unwrap();
        let told = state(&both.enforcement().limits, LimitKind::IoMax);
        let buffered = told.reasons.iter().any(|why| why.contains("buffered writes"));
        match told.rung {
            Some(LimitRung::CgroupV1) => {
                assert!(told.strength == Strength::Approximate && buffered, "{told}");
            }
            _ => assert!(told.strength == Strength::Hard && !buffered, "{told}"),
        }
        // A device that is none is refused by name.
        let none = DeviceNumber { major: 4095, minor: 77 };
        let error = system().io_max(none, IoMax { read_bytes: Some(MIB), ..IoMax::default() });
        let error = error.build().unwrap().command("true").spawn().map(drop).unwrap_err().to_string();
        let file = if told.rung == Some(LimitRung::CgroupV2) {
            "/io.max: "
        } else {
            "/blkio.throttle.read_bps_device: "
        };
        assert!(error.contains(file) && error.contains("write: ENODEV"), "{error}");
    }

    /// The scheduler of each device, and where io.cost is on for one.
    fn is_weight_heeded() -> bool {
        let texts = |directory: &str, file: &str| {
            let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
            entries.filter_map(|entry| fs::read_to_string(entry.path().join(file)).ok()).collect::<String>()
        };
        texts("/sys/block", "queue/scheduler").contains("[bfq]")
            || texts("/sys/fs", "io.cost.qos").contains("enable=1")
            || texts("/sys/fs/cgroup", "io.cost.qos").contains("enable=1")
    }

    #[test]
    fn a_share_of_disks_is_in_each_file_and_its_lack_is_told() {
        let _watchdog = watchdog(120);
        let here = || ();
        let held = system().io_weight(prefer(500)).build().unwrap().command("true").spawn_held().unwrap();
        let told = state(&held.enforcement().limits, LimitKind::IoWeight);
        let required = system().io_weight(500).build();
        let required = required.and_then(|sandbox| sandbox.command("true").spawn_held().map(drop));
        assert_eq!(required.is_ok(), told.strength == Strength::Hard, "{required:?} {told}");
        if told.strength == Strength::None {
            assert!(told.reasons.len() >= 3 && told.rung.is_none(), "{told}");
            return skipped(&test_name(&here), &format!("no file of a weight: {told}"));
        }
        let legacy = told.rung == Some(LimitRung::CgroupV1);
        let place = group(Host::probe().cgroups(), held.id(), if legacy { "blkio" } else { "" });
        let by = told.by.as_ref().unwrap();
        let mut there = 0;
        for name in ["io.weight", "io.bfq.weight", "blkio.weight", "blkio.bfq.weight"] {
            let file = place.join(name);
            let Ok(text) = fs::read_to_string(&file) else { continue };
            there += 1;
            assert_ne!(text.split_whitespace().last(), Some("100"), "the default in {file:?}");
            assert!(by.contains(&format!("{} = {}", file.display(), text.trim())), "{file:?}: {told}");
        }
        assert!(there > 0, "{told}");
        assert_eq!(told.strength == Strength::Hard, is_weight_heeded(), "{told}");
        let why = told.reasons.iter().any(|why| why.contains("divided by weights"));
        assert_eq!(why, told.strength == Strength::Approximate, "{told}");
        // A machine of the test's own can have it either way.
        let scheduler = "/sys/block/loop0/queue/scheduler";
        if env::var_os("RINGFENCE_THROW_AWAY_MACHINE").is_none() || !is_root() || !is_weight_heeded() {
            return;
        }
        fs::write(scheduler, "none").unwrap();
        let error = system().io_weight(500).build().unwrap().command("true").spawn_held().map(drop);
        fs::write(scheduler, "bfq").unwrap();
        let error = error.unwrap_err().to_string();
        assert!(error.contains("limit io_weight=500") && error.contains("divided by weights"), "{error}");
    }

    #[test]
    fn huge_pages_are_counted() {
        let _watchdog = watchdog(120);
        let here = || ();
        let name = test_name(&here);
        let sandbox = system().hugetlb(2 * MIB, prefer(4 * MIB)).build().unwrap();
        let held = sandbox.command("true").spawn_held().unwrap();
        let told = state(&held.enforcement().limits, LimitKind::Hugetlb);
        if told.rung.is_none() {
            return skipped(&name, &format!("no controller for huge pages here: {told}"));
        }
        assert_eq!(told.strength, Strength::Hard, "{told}");
        assert!(told.by.as_ref().unwrap().ends_with(" = 4194304"), "{told}");
        drop(held);
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
        let free = meminfo.lines().find_map(|line| line.strip_prefix("HugePages_Free:")).unwrap_or("0");
        if free.trim().parse::<u64>().unwrap() < 4 {
            return skipped(&name, "this machine has set no huge pages aside (vm.nr_hugepages)");
        }
        // Two may be touched, and a third is a SIGBUS.
        let take = |pages: u64| {
            format!(
                "import mmap\nm = mmap.mmap(-1, {pages} << 21, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)\n\
                 for page in range({pages}): m[page << 21] = 1\nprint('had')"
            )
        };
        assert_eq!(said(&python(&sandbox, &take(2)).output().unwrap()).trim(), "had");
        let outcome = python(&sandbox, &take(3)).output().unwrap();
        let bus = matches!(outcome.verdict(), Verdict::Signaled { signal: libc::SIGBUS, .. });
        assert!(bus || !outcome.success(), "{outcome:?}");
        let free = system().build().unwrap();
        assert_eq!(said(&python(&free, &take(3)).output().unwrap()).trim(), "had", "without the limit");
    }
}
