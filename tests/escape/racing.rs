//! Programs that change things under whoever looks at them: a directory while it is mounted, a path while it is decided about,
//! the file that is executed.

#[cfg(test)]
mod tests {
    use std::env;
    use std::ffi::CString;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use ringfence::{
        Access, Action, Broker, Builder, Child, Filter, Mount, MountKind, NotifiedCall, OpenDecision,
        Response, Sandbox, Stdio, Step, Submounts, Tmpfs,
    };

    use crate::arena::{at, enter};
    use crate::support::{is_root, mode, snapshot};

    /// For each kind of mount; fewer on an emulated machine, where a launch takes a hundred times as long.
    fn launches() -> u32 {
        if env::var_os("ESC_MACHINE_OF_ITS_OWN").is_some() { 10 } else { 70 }
    }

    fn directory(name: &str) -> PathBuf {
        let path = at(name);
        fs::create_dir_all(&path).expect("a directory");
        mode(&path, 0o777);
        path
    }

    /// A tree that both sandboxes write to: in it a directory, and a symlink that leads out of it.
    fn raced_tree() -> (PathBuf, PathBuf) {
        let (tree, outside) = (directory("race/tree"), directory("race/outside"));
        directory("race/tree/swap/sub");
        directory("race/outside/sub");
        fs::write(at("race/tree/swap/sub/inside"), "inside").expect("a file");
        fs::write(at("race/outside/sub/host"), "host").expect("a file");
        symlink(&outside, at("race/tree/link")).expect("a symlink");
        (tree, outside)
    }

    /// A sandboxed program that swaps the two until it is dropped.
    fn attacker(tree: &Path) -> Child {
        let sandbox = Sandbox::builder().bind(at("escape"), "/escape", Access::ReadOnly).bind(
            tree,
            "/tree",
            Access::ReadWrite,
        );
        let mut command = sandbox.build().expect("a sandbox").command("/escape");
        command.args(["swap", "/tree"]).stdout(Stdio::piped()).spawn().expect("the attacker")
    }

    fn is_swapped(tree: &Path) -> bool {
        fs::symlink_metadata(tree.join("swap")).is_ok_and(|found| found.is_symlink())
    }

    fn mounts() -> String {
        fs::read_to_string("/proc/self/mountinfo").expect("mountinfo")
    }

    /// Launches that sandbox again and again; how many ran and how many were refused, each at a mount.
    fn launch(builder: &Builder, script: &str) -> (u32, u32) {
        let sandbox = builder.clone().build().unwrap_or_else(|error| panic!("{error:#}"));
        let (mut ran, mut refused) = (0, 0);
        for _ in 0..launches() {
            match sandbox.command("/bin/sh").args(["-c", script]).output() {
                Ok(_) => ran += 1,
                Err(error) => {
                    assert!(matches!(error.step(), Step::Mount | Step::OpenSource), "{error:#}");
                    refused += 1;
                }
            }
        }
        (ran, refused)
    }

    #[test]
    fn targets_that_are_swapped_for_symlinks_lead_nowhere() {
        const NAME: &str = "targets_that_are_swapped_for_symlinks_lead_nowhere";
        if !enter(module_path!(), NAME) {
            return;
        }
        let (tree, outside) = raced_tree();
        let (before, mounted) = (snapshot(&outside), mounts());
        let attacker = attacker(&tree);
        let tmpfs = Mount::tmpfs("/data/swap/sub", Tmpfs { mode: 0o1777, ..Tmpfs::default() });
        let bind = Mount::bind("/usr", "/data/swap/sub");
        let mask = Mount::new("/data/swap/sub", MountKind::Mask);
        let mut seen = (0, 0);
        for mount in [tmpfs, bind, mask] {
            // What the symlink names is there inside too, so a mount through it would be one that works.
            let builder = Sandbox::builder()
                .system_read_only()
                .directory(outside.join("sub"))
                .bind(&tree, "/data", Access::ReadWrite)
                .mount(mount.over());
            let (ran, refused) = launch(&builder, "echo w >/data/swap/sub/x; mkdir /data/swap/sub/y");
            seen = (seen.0 + ran, seen.1 + refused);
            assert_eq!(snapshot(&outside), before, "{ran} ran, {refused} were refused");
            assert_eq!(mounts(), mounted, "a mount came out");
        }
        assert!(seen.0 > 0, "not one of them ran: {seen:?}");
        assert!(attacker.try_wait().expect("try_wait").is_none(), "the attacker has ended");
        drop(attacker);
        // The control: whoever looks first and mounts by the path then is fooled.
        if is_swapped(&tree) {
            fs::rename(tree.join("swap"), tree.join("other")).expect("rename");
            fs::rename(tree.join("link"), tree.join("swap")).expect("rename");
            fs::rename(tree.join("other"), tree.join("link")).expect("rename");
        }
        let output = Command::new(at("escape")).arg("careless-mounts").arg(&tree).output().expect("it");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let fooled: u32 =
            text.lines().last().and_then(|line| line.split(' ').next()?.parse().ok()).unwrap_or(0);
        assert!(fooled > 0, "{text} {}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn a_source_that_is_open_is_not_swapped_and_a_path_is_the_callers_word() {
        const NAME: &str = "a_source_that_is_open_is_not_swapped_and_a_path_is_the_callers_word";
        if !enter(module_path!(), NAME) {
            return;
        }
        let (tree, outside) = raced_tree();
        let before = snapshot(&outside);
        let source = File::open(tree.join("swap/sub")).expect("a directory");
        let attacker = attacker(&tree);
        let system = || Sandbox::builder().system_read_only();
        // Before Linux 5.12 only what is alone can be bound by a descriptor.
        let by_fd = Mount::bind_fd(source, "/data").access(Access::ReadWrite).submounts(Submounts::Exclude);
        let by_fd = system().mount(by_fd);
        let (ran, refused) = launch(&by_fd, "echo w >/data/x");
        assert!(ran > 0, "not one of {refused} ran");
        assert_eq!(snapshot(&outside), before, "{ran} ran, {refused} were refused");
        // The control: a path goes where it leads at that moment.
        let by_path = system().mount(Mount::bind(tree.join("swap/sub"), "/data").access(Access::ReadWrite));
        let fooled = (0..10).any(|_| {
            launch(&by_path, "echo w >/data/x");
            snapshot(&outside) != before
        });
        assert!(fooled, "the attacker was too slow");
        drop(attacker);
    }

    /// Reads, as the broker does, and then lets the kernel read it anew.
    fn look_and_continue(good: &Path) -> impl Fn(&NotifiedCall<'_>) -> Response + Send + Sync + 'static {
        let good = CString::new(good.as_os_str().as_encoded_bytes()).expect("a path");
        move |call| {
            let asked = call.read_c_string(call.arguments()[1], 4096);
            match asked {
                Ok(path) if path == good => Response::ContinueUnchecked,
                Ok(_) => Response::Errno(libc::EACCES),
                Err(error) => Response::Errno(error.errno()),
            }
        }
    }

    /// good, bad, refused
    fn change_memory(sandbox: &Sandbox, prepare: impl FnOnce(&mut ringfence::Command)) -> [u64; 3] {
        let mut command = sandbox.command("/escape");
        command.arg("change-memory").env("ESC_ROUNDS", "1500").env("ESC_GOOD", at("race/files/good"));
        command.env("ESC_BAD", at("race/files/evil")).env("ESC_TOKEN", "forbidden");
        prepare(&mut command);
        let outcome = command.output().unwrap_or_else(|error| panic!("{error:#}"));
        let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
        let counts: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let err = String::from_utf8_lossy(&outcome.stderr);
        counts.try_into().unwrap_or_else(|_| panic!("{text}{err} {:?}", outcome.verdict()))
    }

    #[test]
    fn memory_that_changes_under_the_broker_opens_nothing_else() {
        const NAME: &str = "memory_that_changes_under_the_broker_opens_nothing_else";
        if !enter(module_path!(), NAME) {
            return;
        }
        let files = directory("race/files");
        fs::write(files.join("good"), "allowed").expect("a file");
        fs::write(files.join("evil"), "forbidden").expect("a file");
        let base = || {
            Sandbox::builder().bind(at("escape"), "/escape", Access::ReadOnly).bind(
                &files,
                &files,
                Access::ReadOnly,
            )
        };
        let allowed = files.join("good");
        let broker = Broker::new().on_open(move |request| {
            if request.path == allowed { OpenDecision::Open } else { OpenDecision::Refuse(libc::EACCES) }
        });
        let filter = broker.filter(Filter::baseline());
        let sandbox = base().seccomp(filter).build().expect("a sandbox");
        let [good, bad, refused] = change_memory(&sandbox, |command| {
            command.supervise(broker);
        });
        assert!(good > 0 && refused > 0, "nothing was raced: {good} {bad} {refused}");
        assert_eq!(bad, 0, "the broker opened what it refuses");
        // The control: a supervisor that looks and lets the call go on.
        let asking = Filter::baseline().forget(["openat"]).deny(["openat"], Action::Notify);
        let sandbox = base().seccomp(asking).build().expect("a sandbox");
        let fooled = (0..20).any(|_| {
            let [_, bad, _] = change_memory(&sandbox, |command| {
                command.on_notify(look_and_continue(&files.join("good")));
            });
            bad > 0
        });
        assert!(fooled, "the program was too slow");
    }

    #[test]
    fn a_program_changes_its_own_file_only_where_it_may_write() {
        const NAME: &str = "a_program_changes_its_own_file_only_where_it_may_write";
        if !enter(module_path!(), NAME) {
            return;
        }
        let own = at("rw/own");
        fs::copy(at("escape"), &own).expect("a copy");
        mode(&own, 0o777);
        let before = fs::read(&own).expect("the copy");
        let run = |access| {
            let builder = Sandbox::builder().system_read_only().bind(at("rw"), "/rw", access);
            let sandbox = builder.build().expect("a sandbox");
            sandbox.command("/rw/own").arg("change-own-file").output().expect("it runs").code()
        };
        assert_eq!(run(Access::ReadOnly), Some(11));
        assert_eq!(fs::read(&own).expect("the copy"), before);
        // The control.
        assert_eq!(run(Access::ReadWrite), Some(10));
        assert_ne!(fs::read(&own).expect("the copy"), before);
        // A program that is passed open: its mode decides, as SECURITY.md says of whatever is passed.
        let file = at("own");
        fs::copy(at("escape"), &file).expect("a copy");
        mode(&file, 0o755);
        let sandbox = Sandbox::builder().system_read_only().build().expect("a sandbox");
        let mut command = sandbox.command("own");
        command.program_fd(File::open(&file).expect("the copy")).arg("change-own-file");
        let code = command.output().expect("it runs").code();
        assert_eq!(code, Some(if is_root() { 11 } else { 10 }));
    }
}
