//! Launches where something runs out or is taken away: descriptors, processes, memory, namespaces, disk, groups, sources; and
//! signals in a storm. Each gives a program or a clear error, and leaves the caller as it was.
#![cfg_attr(
    test,
    expect(unsafe_code, reason = "changes ids and limits of the process, handles and sends signals")
)]

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::env;
    use std::fs::{self, File};
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::process::{self, Command as Process};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use nix::sys::prctl::set_dumpable;
    use nix::sys::resource::{Resource as Rlimit, getrlimit, setrlimit};

    use ringfence::host::Cgroups;
    use ringfence::{Access, Error, ErrorKind, Host, Init, Launch, Outcome, Sandbox, Stdio, Step, Verdict};

    use super::support::{
        again, alone, children, descriptors, eventually, is_root, role, said, shell, skipped, system,
    };

    const LAUNCHES: [Launch; 2] = [Launch::Image, Launch::Copy];

    fn sandboxes() -> Vec<Sandbox> {
        let one = |(launch, init)| system().launch(launch).init(init).build().unwrap();
        let ways =
            [(Launch::Image, Init::Reaper), (Launch::Image, Init::Program), (Launch::Copy, Init::Reaper)];
        ways.into_iter().map(one).collect()
    }

    /// Root is exempt from limits of processes.
    fn be_unprivileged() {
        if is_root() {
            // SAFETY: the calls take numbers only; glibc changes every thread of this process.
            assert_eq!(unsafe { libc::setresgid(54_321, 54_321, 54_321) }, 0);
            // SAFETY: the same.
            assert_eq!(unsafe { libc::setresuid(54_321, 54_321, 54_321) }, 0);
            set_dumpable(true).unwrap();
        }
    }

    /// A set-up that failed has a step, and a call with one of these errnos.
    fn is_typed(error: &Error, errnos: &[i32]) {
        assert!(matches!(error.kind(), ErrorKind::Setup | ErrorKind::Exec), "{error}");
        let known = error.raw_os_error().is_some_and(|errno| errnos.contains(&errno));
        assert!(known && error.failed_call().is_some(), "{error}");
    }

    fn at_most(tried: Result<Outcome, Error>, errnos: &[i32], code: i32) -> usize {
        match tried {
            Ok(outcome) => {
                assert_eq!(outcome.verdict(), Verdict::Exited(code));
                1
            }
            Err(error) => {
                is_typed(&error, errnos);
                0
            }
        }
    }

    #[test]
    fn few_processes_of_the_user_give_a_program_or_a_clean_error() {
        alone(|| {
            be_unprivileged();
            let sandboxes = sandboxes();
            // The threads of the crate are there from now on.
            sandboxes.iter().for_each(|sandbox| drop(sandbox.command("true").status().unwrap()));
            let (soft, hard) = getrlimit(Rlimit::RLIMIT_NPROC).unwrap();
            let before = (descriptors(), children());
            let (mut had, mut refused) = (0, 0);
            for limit in 1..=24 {
                for sandbox in &sandboxes {
                    setrlimit(Rlimit::RLIMIT_NPROC, limit, hard).unwrap();
                    let tried = sandbox.command("true").output();
                    setrlimit(Rlimit::RLIMIT_NPROC, soft, hard).unwrap();
                    let ran = at_most(tried, &[libc::EAGAIN], 0);
                    (had, refused) = (had + ran, refused + 1 - ran);
                    assert_eq!((descriptors(), children()), before, "{limit}");
                }
            }
            assert!(had > 0 && refused > 0, "{had} ran, {refused} were refused");
        });
    }

    #[test]
    fn output_is_collected_where_no_thread_can_be_made() {
        alone(|| {
            be_unprivileged();
            let sandbox = system().build().unwrap();
            let mut command = shell(&sandbox, "echo out; echo err >&2; exit 3");
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let (soft, hard) = getrlimit(Rlimit::RLIMIT_NPROC).unwrap();
            setrlimit(Rlimit::RLIMIT_NPROC, 1, hard).unwrap();
            let outcome = child.wait_with_output();
            setrlimit(Rlimit::RLIMIT_NPROC, soft, hard).unwrap();
            let outcome = outcome.unwrap();
            assert_eq!(
                (outcome.code(), outcome.stdout, outcome.stderr),
                (Some(3), b"out\n".into(), b"err\n".into())
            );
        });
    }

    #[test]
    fn little_address_space_of_the_caller_gives_a_program_or_a_clean_error() {
        alone(|| {
            let sandboxes = sandboxes();
            sandboxes.iter().for_each(|sandbox| drop(sandbox.command("true").status().unwrap()));
            let (soft, hard) = getrlimit(Rlimit::RLIMIT_AS).unwrap();
            let before = (descriptors(), children());
            let used = || {
                let text = fs::read_to_string("/proc/self/statm").unwrap();
                text.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
            };
            let mut had = 0;
            for more in (1..=16).chain([24, 32, 64]) {
                for sandbox in &sandboxes {
                    // The image maps more than the smallest of these is; a program has the limit too.
                    setrlimit(Rlimit::RLIMIT_AS, used() + (more << 19), hard).unwrap();
                    let tried = sandbox.command("true").status();
                    setrlimit(Rlimit::RLIMIT_AS, soft, hard).unwrap();
                    match tried {
                        Ok(_) => had += 1,
                        Err(error) => is_typed(&error, &[libc::ENOMEM, libc::EAGAIN]),
                    }
                    assert_eq!((descriptors(), children()), before, "{more}");
                }
            }
            for limit in [1, 2, 3] {
                let sandbox = system().build().unwrap();
                let held = sandbox.command("true").spawn_held();
                drop(held.unwrap_or_else(|error| panic!("{limit}: {error}")));
            }
            assert!(had > 0, "32 MiB are enough");
        });
    }

    /// Hierarchies of version 1 that root may make groups in.
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

    fn groups_of(cgroups: &Cgroups, pid: u32) -> Vec<PathBuf> {
        let prefix = format!("ringfence-{pid}-");
        let own = cgroups.legacy.iter().filter_map(|legacy| legacy.own.as_ref());
        let entries = own.filter_map(|parent| fs::read_dir(parent).ok()).flatten().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        ours.map(|entry| entry.path()).collect()
    }

    #[test]
    fn little_memory_of_the_sandbox_never_harms_the_caller() {
        let body = || {
            let name = "little_memory_of_the_sandbox_never_harms_the_caller";
            let Some(cgroups) = legacy(name, &["memory"]) else { return };
            let before = (descriptors(), children());
            let mut ran = BTreeSet::new();
            for step in 1..=16 {
                for launch in LAUNCHES {
                    let builder = system().launch(launch).memory(step * (512 << 10)).swap(0);
                    let sandbox = builder.build().unwrap();
                    let tried = sandbox.command("true").status();
                    drop(sandbox);
                    match tried {
                        Ok(outcome) => drop(ran.insert(outcome.verdict().to_string())),
                        Err(error) => {
                            let killed = error.to_string().contains("memory");
                            assert!(killed || error.raw_os_error() == Some(libc::ENOMEM), "{step}: {error}");
                        }
                    }
                    assert_eq!((descriptors(), children()), before, "{step}");
                }
            }
            assert!(ran.contains("exited with 0"), "8 MiB are enough: {ran:?}");
            assert_eq!(groups_of(&cgroups, process::id()), Vec::<PathBuf>::new());
        };
        alone(body);
    }

    #[test]
    fn few_processes_of_the_sandbox_give_a_program_or_a_clean_error() {
        let body = || {
            let name = "few_processes_of_the_sandbox_give_a_program_or_a_clean_error";
            let Some(cgroups) = legacy(name, &["pids"]) else { return };
            let before = (descriptors(), children());
            let mut had = 0;
            for limit in 1..=8 {
                for (launch, init) in [
                    (Launch::Image, Init::Reaper),
                    (Launch::Copy, Init::Reaper),
                    (Launch::Image, Init::Program),
                ] {
                    let sandbox = system().launch(launch).init(init).processes(limit).build().unwrap();
                    had += at_most(sandbox.command("true").status(), &[libc::EAGAIN], 0);
                    drop(sandbox);
                    assert_eq!((descriptors(), children()), before, "{limit}");
                }
            }
            assert!(had >= 21, "only an init needs a second process: {had}");
            assert_eq!(groups_of(&cgroups, process::id()), Vec::<PathBuf>::new());
        };
        alone(body);
    }

    #[test]
    fn few_processes_of_the_callers_group_give_a_program_or_a_clean_error() {
        let body = || {
            let name = "few_processes_of_the_callers_group_give_a_program_or_a_clean_error";
            let Some(cgroups) = legacy(name, &["pids"]) else { return };
            let own = cgroups.legacy_with("pids").unwrap().own.clone().unwrap();
            let group = own.join(format!("ringfence-edges-{}", process::id()));
            let sandboxes = sandboxes();
            sandboxes.iter().for_each(|sandbox| drop(sandbox.command("true").status().unwrap()));
            fs::create_dir(&group).unwrap();
            fs::write(group.join("cgroup.procs"), process::id().to_string()).unwrap();
            let threads: u64 =
                fs::read_to_string(group.join("pids.current")).unwrap().trim().parse().unwrap();
            let before = (descriptors(), children());
            let mut had = 0;
            for more in 0..=8 {
                for sandbox in &sandboxes {
                    fs::write(group.join("pids.max"), (threads + more).to_string()).unwrap();
                    let tried = sandbox.command("true").output();
                    fs::write(group.join("pids.max"), "max").unwrap();
                    had += at_most(tried, &[libc::EAGAIN], 0);
                    assert_eq!((descriptors(), children()), before, "{more}");
                }
            }
            fs::write(own.join("cgroup.procs"), process::id().to_string()).unwrap();
            assert!(eventually(10, || fs::remove_dir(&group).is_ok()));
            assert!(had > 0, "8 are enough");
        };
        alone(body);
    }

    /// Runs this test again in a user namespace of its own after `script`, as a caller that is not root there.
    fn in_user_namespace(name: &str, script: &str, inner_role: &str) -> process::Output {
        let inner = again(&format!("tests::{name}"), inner_role);
        let mut outer = Process::new("unshare");
        outer.args(["-U", "--map-user=4242", "--map-group=4242", "--keep-caps", "sh", "-c"]);
        outer
            .args([&format!("{script} && exec \"$@\""), "sh"])
            .arg(inner.get_program())
            .args(inner.get_args());
        outer.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        outer.output().unwrap()
    }

    #[test]
    fn few_namespaces_give_a_program_or_a_clean_error() {
        let kinds = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];
        let body = || match role().unwrap().as_str() {
            "alone" => {
                for kind in kinds {
                    for most in [0, 1] {
                        let name = "few_namespaces_give_a_program_or_a_clean_error";
                        let script = format!("echo {most} >/proc/sys/user/max_{kind}_namespaces");
                        let output = in_user_namespace(name, &script, &format!("{kind}{most}"));
                        assert!(output.status.success(), "{kind} {most}: {output:?}");
                    }
                }
            }
            inner => {
                let before = (descriptors(), children());
                let tried =
                    system().keep_host_root().build().and_then(|sandbox| sandbox.command("true").status());
                match tried {
                    // The network namespace of an ended one may be counted for a moment; each is used once here.
                    Ok(outcome) => assert!(inner.ends_with('1') && outcome.success(), "{inner}: {outcome:?}"),
                    Err(error) => {
                        // A detached mount is in a mount namespace of its own, and so counts too.
                        let steps: &[Step] =
                            if inner == "mnt1" { &[Step::Root, Step::Proc] } else { &[Step::Clone] };
                        assert!(steps.contains(&error.step()), "{inner}: {error}");
                        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{inner}: {error}");
                        assert!(
                            inner.ends_with('0') || ["user1", "mnt1"].contains(&inner),
                            "{inner}: {error}"
                        );
                    }
                }
                assert_eq!((descriptors(), children()), before, "{inner}");
            }
        };
        alone(body);
    }

    /// Goes down one user namespace after the other; at each depth a launch has to succeed or say why not.
    #[test]
    fn a_caller_in_nested_user_namespaces_gets_a_program_or_a_clean_error() {
        let name = "a_caller_in_nested_user_namespaces_gets_a_program_or_a_clean_error";
        let body = || {
            let depth: u32 = role().unwrap().parse().unwrap_or(0);
            let before = (descriptors(), children());
            let tried =
                system().keep_host_root().build().and_then(|sandbox| sandbox.command("true").status());
            match tried {
                Ok(outcome) => assert!(outcome.success(), "{depth}: {outcome:?}"),
                Err(error) => {
                    is_typed(&error, &[libc::ENOSPC, libc::EUSERS]);
                    assert!(depth > 20, "{depth}: {error}");
                }
            }
            assert_eq!((descriptors(), children()), before, "{depth}");
            if depth < 33 {
                let output = in_user_namespace(name, "true", &(depth + 1).to_string());
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                // The kernel nests 32 (user_namespaces(7)); this may run in one already.
                let deepest = text.contains("unshare") && depth > 20;
                assert!(output.status.success() || deepest, "{depth}: {output:?}");
            }
        };
        alone(body);
    }

    /// Runs this test again in a mount namespace of its own after `script`.
    fn with_mounts(name: &str, script: &str) -> process::Output {
        let inner = again(&format!("tests::{name}"), "inside");
        let mut outer = Process::new("unshare");
        if !is_root() {
            outer.args(["-U", "--map-root-user"]);
        }
        outer.args(["-m", "--propagation", "private", "sh", "-ec"]);
        outer.args([&format!("{script}\nexec \"$@\""), "sh"]).arg(inner.get_program()).args(inner.get_args());
        outer.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        outer.output().unwrap()
    }

    fn on_full_disk(launch: Launch, full: &str) -> Sandbox {
        let builder = system().launch(launch).bind(full, "/full", Access::ReadWrite).keep_host_root();
        builder.build().unwrap_or_else(|error| panic!("{error:#}"))
    }

    #[test]
    fn a_full_disk_is_the_programs_alone() {
        let name = "a_full_disk_is_the_programs_alone";
        let body = || match role().unwrap().as_str() {
            "alone" => {
                let script = "d=$(mktemp -d); mount -t tmpfs -o size=4k,nr_inodes=4,mode=777 none $d; \
                    dd if=/dev/zero of=$d/full bs=4k count=1 2>/dev/null; cd $d; export TMPDIR=$d FULL=$d";
                let output = with_mounts(name, script);
                assert!(output.status.success(), "{output:?}");
            }
            _ => {
                let full = env::var("FULL").unwrap();
                File::create(Path::new(&full).join("more"))
                    .and_then(|mut file| file.write_all(b"x"))
                    .unwrap_err();
                let sandboxes: Vec<Sandbox> = LAUNCHES.map(|launch| on_full_disk(launch, &full)).into();
                let before = (descriptors(), children());
                for sandbox in &sandboxes {
                    let script = "test -s /full/full && ! { echo x >>/full/full; } 2>/dev/null && echo full";
                    assert_eq!(said(&shell(sandbox, script).output().unwrap()), "full\n");
                    assert_eq!((descriptors(), children()), before);
                }
            }
        };
        alone(body);
    }

    /// Does something again and again on another thread while the body runs; how often it took effect.
    fn meanwhile(mut act: impl FnMut() -> bool + Send, body: impl FnOnce()) -> usize {
        let (stop, effects) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    if act() {
                        effects.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
            let stop = StopOnDrop(&stop);
            body();
            drop(stop);
        });
        effects.load(Ordering::SeqCst)
    }

    struct StopOnDrop<'a>(&'a AtomicBool);

    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn groups_that_are_removed_underneath_are_an_error_and_no_missing_limit() {
        let body = || {
            let name = "groups_that_are_removed_underneath_are_an_error_and_no_missing_limit";
            let Some(cgroups) = legacy(name, &["pids", "memory"]) else { return };
            let sandbox = system().processes(40).memory(200 << 20).build().unwrap();
            sandbox.command("true").status().unwrap();
            let before = (descriptors(), children());
            let own = process::id();
            let (mut had, mut failed) = (0, 0);
            let removed = meanwhile(
                || groups_of(&cgroups, own).iter().filter(|group| fs::remove_dir(group).is_ok()).count() > 0,
                || {
                    for _ in 0..60 {
                        match shell(&sandbox, "cat /proc/self/cgroup").output() {
                            Ok(outcome) => {
                                let text = said(&outcome);
                                let roots = text.lines().all(|line| line.ends_with(":/"));
                                assert!(roots, "it is in the groups that are its roots: {text}");
                                had += 1;
                            }
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Setup, "{error}");
                                let steps = [Step::Cgroup, Step::Clone, Step::Verify];
                                assert!(steps.contains(&error.step()), "{error}");
                                failed += 1;
                            }
                        }
                    }
                },
            );
            assert_eq!((descriptors(), children()), before);
            assert!(removed > 0 && failed > 0, "{removed} removed, {had} ran, {failed} failed");
            assert!(eventually(10, || groups_of(&cgroups, own).is_empty()));
        };
        alone(body);
    }

    #[test]
    fn a_parent_group_that_is_removed_underneath_is_an_error() {
        let body = || {
            let name = "a_parent_group_that_is_removed_underneath_is_an_error";
            let Some(cgroups) = legacy(name, &["pids"]) else { return };
            let own = cgroups.legacy_with("pids").unwrap().own.clone().unwrap();
            let parent = own.join(format!("ringfence-parent-{}", process::id()));
            fs::create_dir(&parent).unwrap();
            let sandbox = system().processes(40).cgroup_parent(&parent).build().unwrap();
            assert!(sandbox.command("true").status().unwrap().success());
            let before = (descriptors(), children());
            fs::remove_dir(&parent).unwrap();
            let error = sandbox.command("true").spawn().map(drop).unwrap_err();
            assert_eq!((error.step(), error.raw_os_error()), (Step::Cgroup, Some(libc::ENOENT)), "{error}");
            assert!(error.to_string().contains("ringfence-parent"), "{error}");
            assert_eq!((descriptors(), children()), before);
        };
        alone(body);
    }

    #[test]
    fn a_source_that_is_removed_or_exchanged_underneath_is_an_error_or_the_source() {
        alone(|| {
            let place = env::temp_dir().join(format!("ringfence-edges-source-{}", process::id()));
            let (source, aside) = (place.join("source"), place.join("aside"));
            for (path, word) in [(&source, "first"), (&aside, "second")] {
                fs::create_dir_all(path).unwrap();
                fs::write(path.join("word"), word).unwrap();
            }
            let sandbox = system().bind(&source, "/source", Access::ReadOnly).build().unwrap();
            let before = (descriptors(), children());
            let other = place.join("other");
            let (mut had, mut failed) = (0, 0);
            let exchanged = meanwhile(
                || {
                    let moves = [(&source, &other), (&aside, &source), (&other, &aside)];
                    let moved = moves.iter().all(|(from, to)| fs::rename(from, to).is_ok());
                    thread::sleep(Duration::from_micros(300));
                    moved
                },
                || {
                    for _ in 0..80 {
                        match shell(&sandbox, "cat /source/word").output() {
                            Ok(outcome) => {
                                let word = said(&outcome);
                                assert!(word == "first" || word == "second", "{word}");
                                had += 1;
                            }
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Setup, "{error}");
                                let steps = [Step::OpenSource, Step::Mount];
                                assert!(steps.contains(&error.step()), "{error}");
                                assert!(error.to_string().contains("source"), "it names its object: {error}");
                                failed += 1;
                            }
                        }
                    }
                },
            );
            assert!(exchanged > 0 && had + failed == 80);
            assert_eq!((descriptors(), children()), before);
            fs::remove_dir_all(&place).unwrap();
            let error = sandbox.command("true").spawn().map(drop).unwrap_err();
            assert_eq!(
                (error.step(), error.raw_os_error()),
                (Step::OpenSource, Some(libc::ENOENT)),
                "{error}"
            );
        });
    }
}
