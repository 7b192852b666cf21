//! The mount tree, looked at from inside: what stands where, what can be written, what is hidden.

#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use ringfence::host::Features;
    use ringfence::{
        Access, Builder, Execution, FileItem, Mistake, Mount, MountKind, NamespaceSets, Namespaces,
        ProcMount, ProcRung, Root, Sandbox, Step, Submounts, Tmpfs,
    };

    use super::support::{
        Scratch, build, compile, handed, is_inside, is_root, mode, mountinfo, offers, python, refused,
        rerun_with_mounts, rerun_without, run_sh, sandbox, sh,
    };

    /// Every namespace but the user namespace, for what is different with it.
    fn without_user() -> NamespaceSets {
        Namespaces::STANDARD.difference(Namespaces::USER).into()
    }

    #[test]
    fn read_only_bind_refuses_every_write() {
        let scratch = Scratch::new();
        let tree = scratch.directory("tree");
        scratch.file("tree/file", "old");
        let sandbox = build(sandbox().bind(&tree, "/data", Access::ReadOnly));
        let script = "cat /data/file; for c in 'echo x >/data/file' 'echo x >/data/new' 'mkdir /data/d' \
            'rm -f /data/file' 'chmod 600 /data/file' 'ln -s x /data/l' 'mv /data/file /data/g' \
            'touch /data/file'; do if sh -c \"$c\" 2>/tmp/e; then echo WORKED $c; \
            else grep -q 'Read-only' /tmp/e || cat /tmp/e; fi; done";
        assert_eq!(sh(&sandbox, script), "old");
        assert_eq!(fs::read_to_string(tree.join("file")).expect("file"), "old");
    }

    #[test]
    fn read_only_bind_covers_submounts() {
        const NAME: &str = "read_only_bind_covers_submounts";
        if !is_inside(NAME) {
            let scratch = Scratch::new();
            let tree = scratch.directory("tree");
            let script = "mount -t tmpfs -o mode=1777 a \"$TREE\"; mkdir -m 777 \"$TREE/sub\"; \
                mount -t tmpfs -o mode=1777 b \"$TREE/sub\"; mkdir -m 777 \"$TREE/sub/deep\"; \
                mount -t tmpfs -o mode=1777 c \"$TREE/sub/deep\"; echo below > \"$TREE/sub/deep/file\"";
            return rerun_with_mounts(NAME, script, &[("TREE", &tree)]);
        }
        let tree = handed("TREE");
        let read_only = build(sandbox().bind(&tree, "/data", Access::ReadOnly));
        let script = "cat /data/sub/deep/file; for d in /data /data/sub /data/sub/deep; do \
            touch $d/new 2>/dev/null && echo WROTE $d; done; true";
        assert_eq!(sh(&read_only, script), "below");
        let lines = mountinfo(&sh(&read_only, "cat /proc/self/mountinfo"));
        let below: Vec<_> = lines.iter().filter(|line| line.at.starts_with("/data")).collect();
        assert_eq!(below.len(), 3, "{below:?}");
        assert!(
            below.iter().all(|line| line.has("ro") && line.has("nosuid") && line.has("nodev")),
            "{below:?}"
        );
        let read_write = build(sandbox().bind(&tree, "/data", Access::ReadWrite));
        assert_eq!(sh(&read_write, "echo hi > /data/sub/deep/new; cat /data/sub/deep/new"), "hi");
        assert_eq!(fs::read_to_string(tree.join("sub/deep/new")).expect("new"), "hi\n");
    }

    #[test]
    fn a_bind_can_leave_submounts_out() {
        const NAME: &str = "a_bind_can_leave_submounts_out";
        if !is_inside(NAME) {
            let scratch = Scratch::new();
            let tree = scratch.directory("tree");
            scratch.directory("tree/sub");
            scratch.file("tree/sub/under", "");
            let script = "mount -t tmpfs -o mode=1777 b \"$TREE/sub\"; touch \"$TREE/sub/over\"";
            return rerun_with_mounts(NAME, script, &[("TREE", &tree)]);
        }
        let bind = Mount::bind(handed("TREE"), "/data").submounts(Submounts::Exclude);
        let builder = sandbox().mount(bind);
        if is_root() {
            assert_eq!(sh(&build(builder.clone().namespaces(without_user())), "ls /data/sub"), "under");
        }
        if is_root() && offers(Features::CLONE_TREES) {
            assert_eq!(sh(&build(builder), "ls /data/sub"), "under");
        } else {
            // In a user namespace the kernel refuses to uncover what a mount hides.
            let error = refused(builder);
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error:#}");
            assert!(error.to_string().contains("/data"), "{error:#}");
        }
    }

    #[test]
    fn a_read_only_bind_covers_what_is_stacked_below_it() {
        const NAME: &str = "a_read_only_bind_covers_what_is_stacked_below_it";
        if !is_inside(NAME) {
            let scratch = Scratch::new();
            let tree = scratch.directory("tree");
            scratch.directory("tree/sub");
            let script = "mount -t tmpfs -o mode=1777,nosuid,nodev a \"$TREE/sub\"; mkdir \"$TREE/sub/deep\"
                mount -t tmpfs -o mode=1777,noexec b \"$TREE/sub/deep\"; mount -t tmpfs -o mode=1777 c \"$TREE/sub\"";
            return rerun_with_mounts(NAME, script, &[("TREE", &tree)]);
        }
        let sandbox = build(sandbox().bind(handed("TREE"), "/data", Access::ReadOnly));
        let (_, out, err) = run_sh(&sandbox, "ls /data/sub; echo x >/data/sub/x");
        assert!(out.is_empty() && err.contains("Read-only file system"), "{out} {err}");
    }

    #[test]
    fn read_write_bind_goes_to_another_target() {
        let scratch = Scratch::new();
        let work = scratch.directory("work");
        let sandbox = build(sandbox().bind(&work, "/some/deep/place", Access::ReadWrite));
        sh(&sandbox, "echo result > /some/deep/place/out; mkdir /some/deep/place/dir");
        assert_eq!(fs::read_to_string(work.join("out")).expect("out"), "result\n");
        // Mount points on the way are in the root, which is read-only.
        assert_ne!(run_sh(&sandbox, "touch /some/x").0, 0);
        assert_ne!(run_sh(&sandbox, "touch /some/deep/x").0, 0);
    }

    #[test]
    fn a_file_can_be_bound() {
        let scratch = Scratch::new();
        let (a, b) = (scratch.file("a", "contents"), scratch.file("b", ""));
        let builder = sandbox().bind(&a, "/etc/a", Access::ReadOnly).bind(&b, "/etc/b", Access::ReadWrite);
        let sandbox = build(builder);
        assert_eq!(
            sh(&sandbox, "cat /etc/a; echo w > /etc/b; echo w 2>/dev/null > /etc/a || true"),
            "contents"
        );
        assert_eq!(fs::read_to_string(b).expect("b"), "w\n");
        assert_eq!(fs::read_to_string(a).expect("a"), "contents");
    }

    #[test]
    fn an_open_descriptor_can_be_bound() {
        let scratch = Scratch::new();
        let tree = scratch.directory("tree");
        scratch.file("tree/file", "by fd");
        let open = File::open(&tree).expect("open");
        // What is bound is what was opened, wherever it has gone.
        fs::rename(&tree, scratch.at("moved")).expect("rename");
        scratch.directory("tree");
        let whole = Mount::bind_fd(open, "/data");
        if !offers(Features::MOUNT_SETATTR) {
            let error = compile(&sandbox().mount(whole.clone())).map(drop).unwrap_err();
            assert!(error.to_string().contains("exclude them"), "{error}");
        }
        let sandbox = build(sandbox().mount(whole.submounts(Submounts::Exclude)));
        for _ in 0..2 {
            assert_eq!(
                sh(&sandbox, "cat /data/file; touch /data/x 2>/dev/null && echo WROTE; true"),
                "by fd"
            );
        }
    }

    #[test]
    fn an_absent_optional_source_is_in_the_report() {
        let scratch = Scratch::new();
        let (there, gone) = (scratch.file("there", "x"), scratch.at("gone"));
        let builder = sandbox()
            .mount(Mount::bind(&gone, "/a").if_exists())
            .mount(Mount::bind(&there, "/b").if_exists());
        let child = build(builder).command("sh").args(["-c", "! test -e /a && test -e /b"]).spawn();
        let child = child.unwrap_or_else(|error| panic!("{error:#}"));
        assert!(child.enforcement().absent.contains(&gone), "{:?}", child.enforcement().absent);
        assert!(!child.enforcement().absent.contains(&there));
        assert_eq!(child.wait().expect("wait").code(), Some(0));
    }

    #[test]
    fn a_missing_required_source_is_named() {
        let scratch = Scratch::new();
        let gone = scratch.at("gone");
        let error = refused(sandbox().bind(&gone, "/data", Access::ReadOnly));
        assert_eq!(error.step(), Step::OpenSource);
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        let text = error.to_string();
        assert!(text.contains(gone.to_str().expect("utf8")) && text.contains("/data"), "{text}");
    }

    #[test]
    fn noexec_refuses_programs() {
        let scratch = Scratch::new();
        let tree = scratch.directory("tree");
        fs::copy("/bin/true", tree.join("true")).expect("copy");
        let tmpfs = Tmpfs { mode: 0o1777, execution: Execution::Denied, ..Tmpfs::default() };
        let builder = sandbox()
            .bind(&tree, "/yes", Access::ReadOnly)
            .mount(Mount::bind(&tree, "/no").no_exec())
            .mount(Mount::tmpfs("/scratch", tmpfs));
        let script = "/yes/true || echo 1; /no/true 2>/dev/null && echo 2; cp /bin/true /scratch; \
            /scratch/true 2>/dev/null && echo 3; cp /bin/true /tmp; /tmp/true || echo 4; true";
        assert_eq!(sh(&build(builder), script), "");
    }

    #[test]
    fn size_inodes_and_mode_of_a_tmpfs_hold() {
        let tmpfs = Tmpfs { size: 1 << 20, inodes: 16, mode: 0o1777, ..Tmpfs::default() };
        let closed = Tmpfs { mode: 0o700, ..Tmpfs::default() };
        let builder = sandbox().mount(Mount::tmpfs("/small", tmpfs)).mount(Mount::tmpfs("/mine", closed));
        let sandbox = build(builder);
        assert_eq!(sh(&sandbox, "stat -c %a /small /mine"), "1777\n700");
        let (code, _, err) = run_sh(&sandbox, "dd if=/dev/zero of=/small/f bs=64k count=17 2>&1 >/dev/null");
        assert_ne!(code, 0, "{err}");
        assert_eq!(
            sh(&sandbox, "dd if=/dev/zero of=/small/f bs=64k count=64 2>/dev/null; stat -c %s /small/f"),
            (1 << 20).to_string()
        );
        let made = sh(
            &sandbox,
            "for i in $(seq 40); do touch /small/$i 2>/dev/null || break; done; ls /small | wc -l",
        );
        assert!(made.parse::<u32>().expect("number") <= 15, "{made}");
    }

    #[test]
    fn files_directories_and_symlinks_are_as_given() {
        let secret = MountKind::File(FileItem { contents: b"s".to_vec(), mode: 0o640 });
        let large = vec![b'x'; 1 << 20];
        let builder = sandbox()
            .file("/etc/motd", "two\nlines")
            .file("/etc/nothing", "")
            .file("/etc/large", large)
            .mount(Mount::new("/a/b/secret", secret))
            .directory("/some/dir")
            .mount(Mount::new("/some/open", MountKind::Directory(0o1777)))
            .symlink("../etc/motd", "/some/link");
        let sandbox = build(builder);
        let script = "cat /etc/motd /some/link; echo; stat -c '%a %s %n' /etc/motd /etc/nothing /etc/large \
            /a/b/secret /some/dir /some/open; readlink /some/link; touch /some/dir/x 2>/dev/null && echo WROTE; \
            echo x 2>/dev/null >/etc/motd && echo WROTE; true";
        let expected = "two\nlinestwo\nlines\n444 9 /etc/motd\n444 0 /etc/nothing\n444 1048576 /etc/large\n\
            640 1 /a/b/secret\n755 0 /some/dir\n1777 0 /some/open\n../etc/motd";
        let seen = sh(&sandbox, script);
        // The size of a tmpfs directory depends on what is in it.
        let seen = seen.replace("755 40 /some/dir", "755 0 /some/dir").replace("1777 40", "1777 0");
        assert_eq!(seen, expected);
    }

    /// The host's programs and nothing else.
    fn programs() -> Builder {
        let paths = ["/usr", "/bin", "/lib", "/lib64"];
        paths
            .iter()
            .fold(Sandbox::builder(), |builder, path| builder.mount(Mount::bind(*path, *path).mirror()))
    }

    #[test]
    fn a_device_node_works() {
        let builder = programs()
            .mount(Mount::new("/dev/null", MountKind::Device))
            .mount(Mount::new("/dev/zero", MountKind::Device));
        let script = "echo x > /dev/null && head -c 3 /dev/zero | od -An -tx1; ls /dev";
        assert_eq!(sh(&build(builder), script), " 00 00 00\nnull\nzero");
    }

    #[test]
    fn minimal_dev_holds_exactly_these() {
        let sandbox = build(sandbox());
        let mut expected = vec![
            "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "urandom",
            "zero",
        ];
        if Path::new("/dev/tty").try_exists().expect("tty") {
            expected.push("tty");
        }
        expected.sort_unstable();
        assert_eq!(sh(&sandbox, "ls -A /dev").lines().collect::<Vec<_>>(), expected);
        let script = "stat -c '%n %t:%T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom; \
            readlink /dev/ptmx /dev/fd /dev/stdin; stat -c %a /dev/shm; echo x > /dev/shm/x && cat /dev/shm/x; \
            head -c 4 /dev/urandom | wc -c; echo x 2>/dev/null > /dev/full || echo full; \
            touch /dev/x 2>/dev/null || echo sealed";
        let numbers = "/dev/null 1:3\n/dev/zero 1:5\n/dev/full 1:7\n/dev/random 1:8\n/dev/urandom 1:9";
        let expected =
            format!("{numbers}\npts/ptmx\n/proc/self/fd\n/proc/self/fd/0\n1777\nx\n4\nfull\nsealed");
        assert_eq!(sh(&sandbox, script), expected);
    }

    #[test]
    fn private_devpts_gives_terminals() {
        // What is read may come in parts.
        let script = "import pty, os; a, b = pty.openpty(); os.write(b, b'hi\\n'); \
            print(os.ttyname(b), open(a, 'rb', closefd=False).readline(), sorted(os.listdir('/dev/pts')))";
        assert_eq!(python(&build(sandbox()), script), "/dev/pts/0 b'hi\\r\\n' ['0', 'ptmx']");
    }

    #[test]
    fn fresh_proc_shows_only_processes_inside() {
        let sandbox = build(sandbox());
        let pids = sh(&sandbox, "ls /proc | grep -c '^[0-9]'");
        assert!(pids.parse::<u32>().expect("number") <= 5, "{pids}");
        assert_eq!(sh(&sandbox, "cat /proc/1/comm"), "ringfence-init");
        let mut command = sandbox.command("true");
        let child = command.spawn().expect("spawn");
        let choices = &child.enforcement().choices;
        assert!(choices.iter().any(|(_, choice)| *choice == "fresh"), "{choices:?}");
    }

    #[test]
    fn proc_ladder_goes_on_to_what_is_asked_for() {
        for (rung, probe, expected) in [
            (ProcRung::FreshPidSubset, "test -d /proc/self && ! test -e /proc/sys && echo yes", "yes"),
            (ProcRung::HostReadOnly, "test -e /proc/sys && echo yes", "yes"),
            (ProcRung::Absent, "ls -A /proc", ""),
        ] {
            if rung == ProcRung::FreshPidSubset && !offers(Features::PROC_SUBSET_PID) {
                continue;
            }
            let proc = MountKind::Proc(ProcMount { ladder: vec![rung] });
            let builder = programs().mount(Mount::new("/proc", proc));
            assert_eq!(sh(&build(builder), probe), expected, "{rung:?}");
        }
    }

    const DANGEROUS: [&str; 14] = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/vm/panic_on_oom",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sysrq-trigger",
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/irq/default_smp_affinity",
        "/proc/bus/pci/devices",
        "/proc/fs/ext4",
        "/proc/1/mem",
    ];

    #[test]
    fn dangerous_entries_of_proc_cannot_be_opened_for_writing() {
        let list = DANGEROUS.map(|path| format!("'{path}'")).join(",");
        let script = format!(
            "import os, errno\nfor p in [{list}]:\n try:\n  os.open(p, os.O_WRONLY); print('OPEN', p)\n \
             except OSError as e:\n  assert e.errno in (13, 1, 30, 2, 21), (p, e)"
        );
        let mut builders = vec![sandbox()];
        if is_root() {
            // The worst that a caller can ask for: host uid 0, with and without a user namespace.
            builders.push(sandbox().keep_host_root().ids(0, 0));
            builders.push(sandbox().keep_host_root().ids(0, 0).namespaces(without_user()));
        }
        for builder in builders {
            assert_eq!(python(&build(builder), &script), "");
        }
        let kept = build(sandbox().keep_host_root().ids(0, 0));
        let read = "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | head -c 9 | wc -c";
        assert_eq!(sh(&kept, read), "0", "masked");
    }

    #[test]
    fn masks_hide_files_and_directories_of_an_allowed_tree() {
        let scratch = Scratch::new();
        let tree = scratch.directory("tree");
        scratch.directory("tree/private");
        scratch.file("tree/private/key", "secret");
        scratch.file("tree/token", "secret");
        scratch.file("tree/open", "open");
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let builder = sandbox().bind(&tree, "/data", access).mask("/data/private").mask("/data/token");
            let script = "cat /data/open; echo; ls -A /data/private; cat /data/token 2>/dev/null; \
                cat /data/private/key 2>/dev/null; touch /data/private/x 2>/dev/null && echo WROTE; \
                echo 2>/dev/null > /data/token && echo WROTE; rm -rf /data/private /data/token 2>/dev/null; true";
            assert_eq!(sh(&build(builder), script), "open");
        }
        assert_eq!(fs::read_to_string(tree.join("private/key")).expect("key"), "secret");
        assert_eq!(fs::read_to_string(tree.join("token")).expect("token"), "secret");
    }

    #[test]
    fn root_is_read_only_unless_asked() {
        let script = "touch /x 2>/dev/null && echo WROTE; mkdir /etc/x 2>/dev/null && echo WROTE; true";
        assert_eq!(sh(&build(sandbox()), script), "");
        let root =
            Root::Empty { tmpfs: Tmpfs { mode: 0o777, ..Tmpfs::default() }, access: Access::ReadWrite };
        assert_eq!(sh(&build(sandbox().root(root)), "touch /x && ls /x"), "/x");
    }

    /// A root file system: a shell and what it needs, copied from the host.
    fn assemble(root: &Path) -> bool {
        for name in ["bin", "proc", "dev", "tmp", "data", "etc"] {
            fs::create_dir_all(root.join(name)).expect("directory");
            mode(&root.join(name), 0o755);
        }
        let script = "umask 022; for p in sh ls cat touch; do f=$(command -v $p); cp $f \"$1/bin/$p\"; ldd $f; done \
            | grep -o '/[^ ]*' | sort -u | while read l; do mkdir -p \"$1$(dirname $l)\"; cp -L $l \"$1$l\"; done";
        Command::new("sh").args(["-ec", script, "sh"]).arg(root).status().is_ok_and(|status| status.success())
    }

    #[test]
    fn a_directory_can_be_the_root() {
        let scratch = Scratch::new();
        let root = scratch.directory("root");
        assert!(assemble(&root));
        mode(&root.join("data"), 0o777);
        let script = "ls /; touch /data/x 2>/dev/null && echo WROTE; echo $$ > /tmp/t && cat /proc/self/comm";
        let tree =
            |access| Sandbox::builder().root_directory(&root, access).proc().dev().tmpfs("/tmp", 1 << 20);
        let seen = sh(&build(tree(Access::ReadOnly)), script);
        let listed = "bin\ndata\ndev\netc\nlib\nlib64\nproc\ntmp";
        assert!(seen.ends_with("cat") && !seen.contains("WROTE"), "{seen}");
        assert!(seen.starts_with(listed) || seen.contains("etc\nlib"), "{seen}");
        assert!(sh(&build(tree(Access::ReadWrite)), script).contains("WROTE"));
        assert!(root.join("data/x").try_exists().expect("x"));
        let error = refused(tree(Access::ReadOnly).file("/etc/passwd", "x"));
        assert!(error.to_string().contains("/etc/passwd"), "{error}");
    }

    #[test]
    fn a_mount_point_that_is_missing_in_a_tmpfs_on_a_root_of_the_host_is_named() {
        let scratch = Scratch::new();
        let (root, source) = (scratch.directory("root"), scratch.directory("source"));
        fs::create_dir(root.join("t")).expect("directory");
        let tree = Sandbox::builder().root_directory(&root, Access::ReadOnly).tmpfs("/t", 1 << 20);
        let error = refused(tree.bind(&source, "/t/b/b", Access::ReadOnly));
        assert_eq!((error.step(), error.raw_os_error()), (Step::Mount, Some(libc::ENOENT)), "{error:#}");
        assert!(error.to_string().contains("\"/t/b/b\""), "{error}");
    }

    fn mistakes(builder: &Builder) -> Vec<Mistake> {
        builder.policy().expect_err("a mistake").mistakes().to_vec()
    }

    #[test]
    fn second_mounts_and_hiding_are_mistakes_unless_asked_for() {
        let path = PathBuf::from;
        let twice = Sandbox::builder().tmpfs("/a", 1).bind("/usr", "/a", Access::ReadOnly);
        assert_eq!(mistakes(&twice), [Mistake::SameTarget { target: path("/a") }]);
        let hides = Sandbox::builder().file("/a/b", "x").file("/a/c", "x").tmpfs("/a", 1);
        let hidden = |name| Mistake::Hides { target: path("/a"), hidden: path(name) };
        assert_eq!(mistakes(&hides), [hidden("/a/b"), hidden("/a/c")]);
        let system = sandbox().tmpfs("/etc", 1);
        assert!(mistakes(&system).iter().all(|mistake| matches!(mistake, Mistake::Hides { .. })));
        let slash = Sandbox::builder().tmpfs("/a", 1).tmpfs("/a/", 1);
        assert_eq!(mistakes(&slash).len(), 1, "one target under two names");
        let dots = Sandbox::builder().tmpfs("/a", 1).tmpfs("/./a", 1);
        assert_eq!(mistakes(&dots).len(), 1, "one target under two names");
    }

    #[test]
    fn over_allows_a_second_mount() {
        let scratch = Scratch::new();
        scratch.file("file", "below");
        let tmpfs = Tmpfs { mode: 0o1777, ..Tmpfs::default() };
        let builder = sandbox()
            .bind(scratch.path(), "/data", Access::ReadOnly)
            .mount(Mount::tmpfs("/data", tmpfs).over());
        assert_eq!(sh(&build(builder), "ls /data; touch /data/x; ls /data"), "x");
        // What was made on the way to the first is not there for the third.
        let over = Mount::tmpfs("/a", Tmpfs::default()).over();
        let builder = sandbox().file("/a/b/c/first", "x").mount(over).file("/a/b/c/second", "y");
        assert_eq!(sh(&build(builder), "ls /a/b/c"), "second");
    }

    #[test]
    fn every_bad_target_is_a_mistake() {
        for target in ["relative", "/a/../b", "/", "", "/a\0b"] {
            assert!(!mistakes(&Sandbox::builder().tmpfs(target, 1)).is_empty(), "{target:?}");
        }
        assert!(!mistakes(&Sandbox::builder().bind("relative", "/a", Access::ReadOnly)).is_empty());
        let many = (0..10_000).fold(Sandbox::builder(), |builder, n| builder.directory(format!("/{n}")));
        assert!(matches!(mistakes(&many)[..], [Mistake::TooManyMounts { .. }]));
    }

    #[test]
    fn a_source_that_is_a_symlink_is_followed_and_mirrored_as_asked() {
        let scratch = Scratch::new();
        scratch.file("real", "real");
        symlink("real", scratch.at("link")).expect("symlink");
        let builder = sandbox()
            .bind(scratch.at("link"), "/t/followed", Access::ReadOnly)
            .mount(Mount::bind(scratch.at("link"), "/t/mirrored").mirror());
        assert_eq!(sh(&build(builder), "cat /t/followed; echo; readlink /t/mirrored"), "real\nreal");
    }

    #[test]
    fn older_kernels_give_the_same() {
        rerun_without(
            "older_kernels_give_the_same",
            &[
                "OPENAT2",
                "CLONE_TREES",
                "MOUNT_SETATTR,CLONE_TREES",
                "MOUNT_API,MOUNT_SETATTR,CLONE_TREES",
                "MOUNT_API,MOUNT_SETATTR,CLONE_TREES,OPENAT2,CLOSE_RANGE,CLONE3,KEYCTL,PROC_SUBSET_PID",
            ],
        );
    }
}
