//! Launches where something runs out: descriptors, processes, memory, namespaces. Each gives a program or a clear error, and leaves the caller as it was.
#![cfg_attr(test, expect(unsafe_code, reason = "changes ids of the process"))]

#[cfg(test)]
#[path = "support/edge.rs"]
mod edge;
#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::path::PathBuf;
    use std::process::{self, Command as Process};
    use std::thread;
    use std::time::Duration;

    use nix::sys::prctl::set_dumpable;
    use nix::sys::ptrace;
    use nix::sys::resource::{Resource as Rlimit, getrlimit, setrlimit};

    use nix::sys::wait::{WaitPidFlag, waitpid};
    use nix::unistd::Pid;
    use ringfence::{Error, ErrorKind, Init, Launch, Outcome, Sandbox, Stdio, Step, Verdict};

    use super::edge::{groups_of, legacy};
    use super::support::{
        again, alone, children, descriptors, eventually, is_root, role, say, shell, skipped, status_field,
        system,
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
            // What else this user runs counts too.
            for limit in (1..=24).chain([48, 96, 192, 384, 768]) {
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

    /// As under strace or a debugger: the kernel lets nobody but the tracer reap it first (ptrace(2), "Death under ptrace").
    #[test]
    fn a_child_that_someone_traces_is_waited_for_until_its_end_was_seen() {
        let name = "a_child_that_someone_traces_is_waited_for_until_its_end_was_seen";
        let body = || match role().unwrap().as_str() {
            "alone" => {
                let sandbox = system().init(Init::Program).build().unwrap();
                let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
                let mut tracer = again(&format!("tests::{name}"), &child.id().to_string());
                let mut tracer = tracer.stderr(process::Stdio::piped()).spawn().unwrap();
                let mut said = String::new();
                BufReader::new(tracer.stderr.take().unwrap()).read_line(&mut said).unwrap();
                if said == "traced\n" {
                    child.kill().unwrap();
                    let outcome = child.wait().unwrap();
                    assert_eq!(outcome.verdict(), Verdict::Killed);
                    assert!(outcome.tree_usage.max_resident > 0, "it was reaped: {outcome:?}");
                } else {
                    skipped(name, &format!("it may not be traced: {said}"));
                }
                drop(child);
                tracer.wait().unwrap();
            }
            pid => {
                let pid = Pid::from_raw(pid.parse().unwrap());
                if let Err(errno) = ptrace::seize(pid, ptrace::Options::empty()) {
                    return say(&errno.to_string());
                }
                say("traced");
                let ended = || status_field(pid, "State").is_none_or(|state| state.starts_with('Z'));
                assert!(eventually(60, ended));
                thread::sleep(Duration::from_millis(300));
                waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap();
            }
        };
        alone(body);
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
}
