//! The mount tree and the host: nothing leads outside, nothing leaks either way, nothing is left behind.

#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::env;
    use std::ffi::OsString;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::process::{self, Stdio};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;
    use ringfence::{
        Access, Builder, Error, FileItem, Mount, MountKind, NamespaceSets, Namespaces, ProcMount, Sandbox,
        Stdio as Stream, Step, Tmpfs,
    };

    use super::support::{
        MountLine, Scratch, build, compile, handed, is_inside, is_root, mountinfo, rerun_with_mounts,
        rerun_without, run_sh, sandbox, sh, snapshot,
    };

    /// With a user namespace and, where the caller can do without, without one.
    fn both() -> Vec<NamespaceSets> {
        let mut sets = vec![NamespaceSets::default()];
        if is_root() {
            sets.push(Namespaces::STANDARD.difference(Namespaces::USER).into());
        }
        sets
    }

    /// Runs, or is refused: either is fine where only the host counts.
    #[expect(clippy::needless_pass_by_value, reason = "a builder is made to be used up")]
    fn run_or_refuse(builder: Builder, script: &str) -> Result<(), Error> {
        compile(&builder)?.command("sh").args(["-c", script]).output().map(drop)
    }

    #[test]
    fn planted_symlinks_send_nothing_outside() {
        let scratch = Scratch::new();
        let (tree, outside) = (scratch.directory("tree"), scratch.directory("outside"));
        scratch.directory("outside/dir");
        scratch.file("outside/file", "host");
        let before = snapshot(&outside);
        let mut ran = 0;
        let up = Path::new("../../../../../../../..").join(outside.strip_prefix("/").expect("absolute"));
        for to in [outside.clone(), outside.join("dir"), outside.join("file"), outside.join("new"), up] {
            for (name, target) in [("planted", "/data/planted"), ("dir", "/data/dir/planted")] {
                fs::create_dir_all(tree.join("dir")).expect("dir");
                let link = if name == "dir" { tree.join("dir/planted") } else { tree.join(name) };
                symlink(&to, &link).expect("symlink");
                for sets in both() {
                    for mount in items(&scratch, target) {
                        let shown = format!("{mount:?}");
                        // The places that the links name exist inside as well: there the mounts go.
                        let data = sandbox()
                            .namespaces(sets.clone())
                            .directory(outside.join("dir"))
                            .file(outside.join("file"), "inside")
                            .bind(&tree, "/data", Access::ReadWrite);
                        let script =
                            format!("echo w > {target}/x; echo w > {target}; mkdir {target}/y; true");
                        let result = run_or_refuse(data.mount(mount.over()), &script);
                        ran += u32::from(result.is_ok());
                        assert_eq!(snapshot(&outside), before, "{to:?} {shown} {result:?}");
                    }
                }
                fs::remove_file(&link).expect("unlink");
            }
        }
        // Links to what does not exist inside, and files in a tree of the host, are refused; the rest runs.
        assert!(ran > 0, "not one of them ran");
    }

    /// One of each kind.
    fn items(scratch: &Scratch, target: &str) -> Vec<Mount> {
        let file = scratch.file("source", "source");
        let below = format!("{target}/below");
        let file_item = FileItem { contents: b"inside".to_vec(), mode: 0o444 };
        vec![
            Mount::tmpfs(target, Tmpfs { mode: 0o1777, ..Tmpfs::default() }),
            Mount::tmpfs(&below, Tmpfs::default()),
            Mount::bind("/usr", target),
            Mount::bind(&file, target).access(Access::ReadWrite),
            Mount::bind(&file, below.as_str()),
            Mount::new(target, MountKind::Dev),
            Mount::new(target, MountKind::Proc(ProcMount::default())),
            Mount::new(target, MountKind::Mask),
            Mount::new(target, MountKind::File(file_item.clone())),
            Mount::new(&below, MountKind::File(file_item)),
            Mount::new(&below, MountKind::Directory(0o755)),
            Mount::new(&below, MountKind::Symlink("x".into())),
        ]
    }

    #[test]
    fn a_tmpfs_on_a_planted_symlink_takes_no_file_outside() {
        let scratch = Scratch::new();
        let (tree, outside) = (scratch.directory("tree"), scratch.directory("outside"));
        symlink(&outside, tree.join("t")).expect("symlink");
        let before = snapshot(&outside);
        for sets in both() {
            // The place that the symlink names exists inside too, so that the tmpfs can be attached there.
            let builder = sandbox()
                .namespaces(sets)
                .mount(Mount::new(&outside, MountKind::Directory(0o755)))
                .bind(&tree, "/data", Access::ReadWrite)
                .mount(Mount::tmpfs("/data/t", Tmpfs::default()))
                .file("/data/t/file", "x")
                .directory("/data/t/dir")
                .symlink("x", "/data/t/link")
                .bind("/usr", "/data/t/a/usr", Access::ReadOnly);
            let result = run_or_refuse(builder, "true");
            assert_eq!(snapshot(&outside), before, "{result:?}");
        }
    }

    #[test]
    fn a_root_directory_with_planted_symlinks_takes_nothing_outside() {
        let scratch = Scratch::new();
        let outside = scratch.directory("outside");
        scratch.file("outside/passwd", "host");
        let before = snapshot(&outside);
        let root = scratch.directory("root");
        for name in ["tmp", "proc", "dev", "etc"] {
            symlink(&outside, root.join(name)).expect("symlink");
        }
        symlink(outside.join("passwd"), root.join("file")).expect("symlink");
        for sets in both() {
            let base =
                || Sandbox::builder().namespaces(sets.clone()).root_directory(&root, Access::ReadWrite);
            for builder in [
                base().tmpfs("/tmp", 1 << 20),
                base().tmpfs("/tmp", 1 << 20).file("/tmp/x", "x"),
                base().proc(),
                base().dev(),
                base().file("/etc/passwd", "x"),
                base().file("/file", "x"),
                base().bind("/usr", "/tmp", Access::ReadOnly),
                base().mask("/file"),
            ] {
                let result = run_or_refuse(builder, "true");
                assert_eq!(snapshot(&outside), before, "{result:?}");
                assert_eq!(snapshot(&root).len(), 5, "{result:?}");
            }
        }
    }

    #[test]
    fn a_rename_race_sends_nothing_outside() {
        let scratch = Scratch::new();
        let (tree, outside) = (scratch.directory("tree"), scratch.directory("outside"));
        scratch.file("outside/file", "host");
        scratch.directory("outside/sub");
        scratch.directory("tree/swap");
        scratch.directory("tree/swap/sub");
        let before = snapshot(&outside);
        let (stop, ran) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                symlink(&outside, tree.join("link")).expect("symlink");
                while !stop.load(Ordering::Relaxed) {
                    // Each may fail while the other name is in the way: the next round sees to it.
                    let [swap, kept, link] = ["swap", "kept", "link"].map(|name| tree.join(name));
                    let results = [
                        fs::rename(&swap, &kept),
                        fs::rename(&link, &swap),
                        fs::rename(&swap, &link),
                        fs::rename(&kept, &swap),
                    ];
                    assert!(results.iter().all(Result::is_ok), "{results:?}");
                }
            });
            for sets in both() {
                let builder = sandbox()
                    .namespaces(sets)
                    .bind(&tree, "/data", Access::ReadWrite)
                    .mount(Mount::tmpfs("/data/swap/sub", Tmpfs { mode: 0o1777, ..Tmpfs::default() }))
                    .mount(
                        Mount::bind(scratch.at("tree/swap/sub"), "/other")
                            .if_exists()
                            .access(Access::ReadWrite),
                    );
                for _ in 0..60 / both().len() {
                    let script = "echo w > /data/swap/sub/x; mkdir /data/swap/sub/y";
                    match run_or_refuse(builder.clone(), script) {
                        Ok(()) => ran.store(true, Ordering::Relaxed),
                        Err(error) => {
                            assert!(matches!(error.step(), Step::Mount | Step::OpenSource), "{error:#}");
                        }
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        // What was bound through the link by the caller's own word may be written to; nothing else may appear.
        let now = snapshot(&outside);
        let new: Vec<_> = now.iter().filter(|(path, what)| before.get(*path) != Some(what)).collect();
        assert!(new.is_empty() && now.len() == before.len(), "{new:?}");
        assert!(ran.load(Ordering::Relaxed), "not one of them ran");
    }

    #[test]
    fn propagation_leaks_neither_way() {
        const NAME: &str = "propagation_leaks_neither_way";
        if !is_inside(NAME) {
            let scratch = Scratch::new();
            let tree = scratch.directory("tree");
            let script = "mount -t tmpfs -o mode=1777 a \"$TREE\"; mount --make-rshared \"$TREE\"; \
                mkdir -m 777 \"$TREE/host\" \"$TREE/in\"; mkfifo -m 666 \"$TREE/ask\" \"$TREE/done\"; \
                (read x < \"$TREE/ask\"; mount -t tmpfs late \"$TREE/host\"; touch \"$TREE/host/late\"; \
                echo > \"$TREE/done\") &";
            return rerun_with_mounts(NAME, script, &[("TREE", &tree)]);
        }
        let tree = handed("TREE");
        let shared = mountinfo(&fs::read_to_string("/proc/self/mountinfo").expect("mountinfo"));
        let line = shared.iter().find(|line| line.at == tree).expect("tree");
        let held: Vec<_> = both()
            .into_iter()
            .map(|sets| {
                let builder = sandbox()
                    .namespaces(sets)
                    .bind(&tree, "/data", Access::ReadWrite)
                    .mount(Mount::tmpfs("/data/in", Tmpfs::default()));
                let sandbox = build(builder);
                let script =
                    "cat /proc/self/mountinfo; echo; read x; ls -A /data/host; cat /proc/self/mountinfo";
                let mut command = sandbox.command("sh");
                command.args(["-c", script]).stdin(Stream::piped()).stdout(Stream::piped());
                command.spawn().unwrap_or_else(|error| panic!("{error:#}"))
            })
            .collect();
        let after = mountinfo(&fs::read_to_string("/proc/self/mountinfo").expect("mountinfo"));
        assert_eq!(after, shared, "a mount came out");
        fs::write(tree.join("ask"), "go\n").expect("ask");
        fs::read(tree.join("done")).expect("done");
        assert!(tree.join("host/late").try_exists().expect("late"), "the test itself mounted nothing");
        // An unprivileged caller is in a mount namespace that it does not own; the mount is in it, if it is shared.
        assert!(line.propagation.iter().any(|word| word.starts_with("shared:")), "{line:?}");
        for child in held {
            let outcome = child.wait_with_output().expect("wait");
            let out = String::from_utf8_lossy(&outcome.stdout).into_owned();
            let (before, after) = out.split_once("\n\n").expect("two parts");
            assert_eq!(before.trim(), after.trim(), "a mount came in");
            for line in mountinfo(before) {
                assert_eq!(line.propagation, Vec::<String>::new(), "{line:?}");
            }
        }
    }

    /// The mount points that a policy declares on this machine.
    fn declared(sandbox: &Sandbox, proc_entries: &BTreeSet<String>) -> BTreeSet<PathBuf> {
        let host = mountinfo(&fs::read_to_string("/proc/self/mountinfo").expect("mountinfo"));
        let mut all = BTreeSet::from([PathBuf::from("/")]);
        for mount in sandbox.policy().mounts() {
            let target = mount.target();
            match mount.kind() {
                // The system preset binds each path to its own name.
                MountKind::Bind(_) if fs::symlink_metadata(target).is_ok_and(|found| !found.is_symlink()) => {
                    all.insert(target.to_path_buf());
                    all.extend(host.iter().map(|line| line.at.clone()).filter(|at| at.starts_with(target)));
                }
                MountKind::Tmpfs(_) => {
                    all.insert(target.to_path_buf());
                }
                MountKind::Proc(_) => {
                    all.insert(target.to_path_buf());
                    all.extend(proc_entries.iter().map(|name| target.join(name)));
                }
                MountKind::Dev => {
                    let nodes = ["null", "zero", "full", "random", "urandom", "tty", "shm", "pts"];
                    let there =
                        |name: &&str| *name != "tty" || Path::new("/dev/tty").try_exists().is_ok_and(|y| y);
                    all.insert(target.to_path_buf());
                    all.extend(nodes.iter().filter(|name| there(name)).map(|name| target.join(name)));
                }
                MountKind::Bind(_) | MountKind::File(_) | MountKind::Directory(_) | MountKind::Symlink(_) => {
                }
                other @ (MountKind::Device | MountKind::Mask | _) => panic!("the preset has no {other:?}"),
            }
        }
        all
    }

    #[test]
    fn only_declared_mounts_are_there() {
        let covered = [
            "sys",
            "sysrq-trigger",
            "irq",
            "bus",
            "fs",
            "kcore",
            "keys",
            "key-users",
            "timer_list",
            "latency_stats",
            "sched_debug",
            "kpagecount",
            "acpi",
            "asound",
            "scsi",
        ];
        for sets in both() {
            let sandbox = build(sandbox().namespaces(sets));
            let listed = sh(&sandbox, "ls /proc");
            let entries = listed.lines().filter(|name| covered.contains(name)).map(str::to_owned).collect();
            let lines = mountinfo(&sh(&sandbox, "cat /proc/self/mountinfo"));
            let seen: Vec<PathBuf> = lines.iter().map(|line| line.at.clone()).collect();
            let set: BTreeSet<PathBuf> = seen.iter().cloned().collect();
            assert_eq!(set.len(), seen.len(), "one mount at each place: {seen:?}");
            assert_eq!(set, declared(&sandbox, &entries));
            flags(&lines);
        }
    }

    /// No setuid program anywhere, devices only where they are meant, nothing of the host writable.
    fn flags(lines: &[MountLine]) {
        for line in lines {
            assert!(line.has("nosuid"), "{line:?}");
            let device = line.at.starts_with("/dev")
                && line.at != Path::new("/dev/shm")
                && line.at != Path::new("/dev");
            assert!(device || line.has("nodev"), "{line:?}");
            let own = ["/tmp", "/run", "/home", "/proc", "/dev/shm", "/dev/pts"].map(Path::new);
            assert!(line.has("ro") || own.contains(&line.at.as_path()) || device, "{line:?}");
            assert!(!line.propagation.iter().any(|word| word.starts_with("shared")), "{line:?}");
        }
    }

    #[test]
    fn the_old_root_is_out_of_reach() {
        let scratch = Scratch::new();
        let file = scratch.file("secret", "host");
        let path = file.to_str().expect("utf8");
        for sets in both() {
            let sandbox = build(sandbox().namespaces(sets));
            let script = format!(
                "cat {path}; cd /; cat ../../../../..{path}; cat /proc/1/root{path}; cat /proc/self/root{path}; \
                 cat /proc/1/cwd{path}; ls -d /oldroot /newroot /.old /put_old; pwd; \
                 umount /proc; umount -l /; umount -l ."
            );
            let (_, out, _) = run_sh(&sandbox, &script);
            assert_eq!(out.trim(), "/");
        }
    }

    #[test]
    fn a_directory_left_open_by_the_caller_leads_nowhere() {
        // A descriptor without close-on-exec, as another part of the host program may have.
        let scratch = Scratch::new();
        let file = scratch.file("secret", "host");
        let child = process::Command::new("sh")
            .args(["-c", "exec 9</; exec \"$@\"", "sh"])
            .arg(env::current_exe().expect("current_exe"))
            .args(["--exact", "tests::the_old_root_is_out_of_reach", "--nocapture"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .expect("rerun");
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        let directory = open("/", OFlag::O_DIRECTORY, Mode::empty()).expect("/");
        let fds = sh(&build(sandbox()), "ls /proc/self/fd");
        drop(directory);
        // ls itself has the directory open.
        assert_eq!(fds, "0\n1\n2\n3");
        drop(file);
    }

    /// What bears the crate's name where programs leave things, other than what tests and CI make.
    fn own_names(names: &impl Fn(&Path) -> BTreeSet<OsString>) -> BTreeSet<OsString> {
        let places = ["/tmp", "/run", "/dev/shm", "/var/tmp", "/"].map(Path::new);
        let own = |name: &OsString| {
            let name = name.to_string_lossy();
            name.contains("ringfence") && !name.starts_with("ringfence-ci")
        };
        places.into_iter().flat_map(names).filter(own).collect()
    }

    #[test]
    fn nothing_is_left_on_the_host() {
        const NAME: &str = "nothing_is_left_on_the_host";
        let scratch = Scratch::new();
        if !is_inside(NAME) {
            // In a working directory that nobody else uses.
            let cwd = scratch.directory("cwd");
            return rerun_with_mounts(NAME, "cd \"$CWD\"", &[("CWD", &cwd)]);
        }
        let names = |path: &Path| -> BTreeSet<OsString> {
            let entries = fs::read_dir(path).expect("read_dir").flatten().map(|entry| entry.file_name());
            entries.filter(|name| !name.to_string_lossy().starts_with("ringfence-test-")).collect()
        };
        let source = scratch.directory("source");
        let cwd = env::current_dir().expect("cwd");
        let mounts = || fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let (before, left) = ((names(&cwd), names(&source), mounts()), own_names(&names));
        for sets in both() {
            let base = || {
                let builder = sandbox().namespaces(sets.clone()).bind(&source, "/data", Access::ReadWrite);
                builder.bind(&source, "/tmp/data", Access::ReadOnly).file("/tmp/file", "x")
            };
            sh(&build(base()), "touch /tmp/x /run/y 2>/dev/null; mkdir /tmp/z");
            let failing = base().bind(scratch.at("gone"), "/gone", Access::ReadOnly);
            assert!(run_or_refuse(failing, "true").is_err());
            let late = base().mount(Mount::tmpfs("/data/absent", Tmpfs::default()));
            assert!(
                run_or_refuse(late, "true").is_err(),
                "a mount point that does not exist in a tree of the host"
            );
        }
        assert_eq!((names(&cwd), names(&source), mounts()), before);
        assert_eq!(own_names(&names), left);
    }

    #[test]
    fn older_kernels_give_the_same() {
        rerun_without(
            "older_kernels_give_the_same",
            &[
                "OPENAT2,CLONE_TREES",
                "MOUNT_API,MOUNT_SETATTR,CLONE_TREES,OPENAT2,CLOSE_RANGE,CLONE3,KEYCTL,PROC_SUBSET_PID",
            ],
        );
    }
}
