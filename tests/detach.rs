//! A sandbox that was let go outlives its caller, and only one that was: the tether holds until then.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::env;
    use std::fs::{self, OpenOptions};
    use std::io::{Read, Write, stdout};
    use std::path::PathBuf;
    use std::process::{Child as Caller, Command as Process, Stdio as ProcessStdio, id};
    use std::thread;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::sys::prctl::set_child_subreaper;
    use nix::sys::signal::{Signal, kill};
    use nix::sys::stat::Mode;
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::{Pid, mkfifo};
    use ringfence::{
        Action, Builder, ErrorKind, Filter, Host, Init, Launch, Lowering, Mistake, Stdio, Step, Tether,
    };

    use super::support::{
        again, alone, children, eventually, is_root, role, shell, skipped, system, watchdog,
    };

    fn outliving(launch: Launch) -> Builder {
        system().allow_outliving_caller().launch(launch)
    }

    const LAUNCHES: [Launch; 2] = [Launch::Image, Launch::Copy];

    fn launch(role: &str) -> Launch {
        LAUNCHES[role.rsplit('-').next().unwrap().parse::<usize>().unwrap()]
    }

    /// This test binary as a caller of its own; returns with what it says.
    fn caller(name: &str, role: &str) -> (Caller, String) {
        started(again(name, role))
    }

    fn say(text: &str) {
        let mut to = stdout();
        to.write_all(format!("SAYS {text}\n").as_bytes()).unwrap();
        to.flush().unwrap();
    }

    fn end(mut caller: Caller) {
        caller.kill().unwrap();
        caller.wait().unwrap();
    }

    /// Reaps what this process inherits; whether nothing is left.
    fn reaped() -> bool {
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return true,
                Ok(WaitStatus::StillAlive) => return false,
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn is_there(pid: i32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// Clock ticks that a process has used (proc_pid_stat(5), fields 14 and 15).
    fn ticks(pid: i32) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    #[test]
    fn without_the_word_in_the_policy_nothing_is_let_go() {
        let _watchdog = watchdog(60);
        let child = shell(&system().build().unwrap(), "sleep 1000").spawn().unwrap();
        let pid = child.init_id().cast_signed();
        let error = child.detach().unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Process, Step::Tether), "{error}");
        assert!(error.to_string().contains("allow_outliving_caller()"), "{error}");
        assert!(!is_there(pid), "it has ended");
        assert_eq!(Tether::default(), Tether::Always);
    }

    #[test]
    fn a_policy_that_cannot_let_go_is_a_mistake() {
        let error = outliving(Launch::Auto).init(Init::Program).policy().unwrap_err();
        assert!(error.mistakes().contains(&Mistake::DetachWithoutInit), "{error}");
    }

    #[test]
    fn a_program_whose_calls_somebody_has_to_answer_is_not_let_go() {
        let _watchdog = watchdog(60);
        let sandbox = outliving(Launch::Auto).seccomp(Filter::strict()).build().unwrap();
        let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
        let text = format!("{:?}", child.enforcement().supervisor);
        if !text.starts_with("Running") {
            return skipped("a_program_whose_calls", &text);
        }
        let error = child.detach().unwrap_err();
        assert_eq!(error.step(), Step::Tether, "{error}");
    }

    #[test]
    fn until_it_is_let_go_a_program_ends_with_its_caller() {
        let body = || match role().unwrap().as_str() {
            "alone" => {
                set_child_subreaper(true).unwrap();
                for index in 0..LAUNCHES.len() {
                    let name = "tests::until_it_is_let_go_a_program_ends_with_its_caller";
                    let (caller, _) = caller(name, &format!("run-{index}"));
                    end(caller);
                    assert!(eventually(10, reaped), "{:?}", children());
                }
            }
            run => {
                let child = shell(&outliving(launch(run)).build().unwrap(), "sleep 1000").spawn().unwrap();
                say("ready");
                child.wait().unwrap();
            }
        };
        alone(body);
    }

    #[test]
    fn what_was_let_go_outlives_its_caller_and_its_init_sleeps() {
        let body = || match role().unwrap().as_str() {
            "alone" => {
                set_child_subreaper(true).unwrap();
                for index in 0..LAUNCHES.len() {
                    outlives(index);
                }
            }
            run => {
                let sandbox = outliving(launch(run)).build().unwrap();
                let fifo = PathBuf::from(env::var_os("RINGFENCE_TEST_FIFO").unwrap());
                let input = OpenOptions::new().read(true).write(true).open(fifo).unwrap();
                let mut command = shell(&sandbox, "read line; exit 7");
                let detached = command.stdin(input).spawn().unwrap().detach().unwrap();
                say(&format!("{} {}", detached.init_id(), detached.id()));
                detached.wait().unwrap();
            }
        };
        alone(body);
    }

    fn outlives(index: usize) {
        let name = "tests::what_was_let_go_outlives_its_caller_and_its_init_sleeps";
        let fifo = env::temp_dir().join(format!("ringfence-detach-{}-{index}", id()));
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let mut process = again(name, &format!("run-{index}"));
        process.env("RINGFENCE_TEST_FIFO", &fifo);
        let mut input = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        let (caller, said) = started(process);
        let pids: Vec<i32> = said.split(' ').map(|pid| pid.parse().unwrap()).collect();
        end(caller);
        let before = ticks(pids[0]);
        thread::sleep(Duration::from_millis(300));
        assert!(pids.iter().all(|pid| is_there(*pid)), "{:?}: it lives on", LAUNCHES[index]);
        // A descriptor that stays readable would keep init busy: 30 ticks.
        assert!(ticks(pids[0]) - before < 10, "init goes round and round");
        input.write_all(b"go\n").unwrap();
        assert!(eventually(20, reaped), "its end is the sandbox's end");
        fs::remove_file(fifo).unwrap();
    }

    fn started(mut process: Process) -> (Caller, String) {
        let mut caller = process.stdout(ProcessStdio::piped()).spawn().unwrap();
        let stdout = caller.stdout.as_mut().unwrap();
        let (mut seen, mut byte) = (String::new(), [0]);
        while !(seen.contains("SAYS ") && seen.ends_with('\n')) {
            assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{seen}");
            seen.push(char::from(byte[0]));
        }
        (caller, seen.split("SAYS ").nth(1).unwrap().trim().to_owned())
    }

    #[test]
    fn dropping_what_was_let_go_ends_nothing() {
        let body = || {
            let sandbox = outliving(Launch::Auto).build().unwrap();
            let mut child = shell(&sandbox, "read line; exit 5").stdin(Stdio::piped()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let detached = child.detach().unwrap();
            let (pid, pidfd) = (detached.init_id().cast_signed(), detached.pidfd().unwrap());
            drop(detached);
            thread::sleep(Duration::from_millis(100));
            assert!(is_there(pid));
            stdin.write_all(b"go\n").unwrap();
            assert!(eventually(20, || !is_there(pid)));
            drop(pidfd);
            assert!(reaped(), "a zombie is the caller's to reap");
            let mut child = shell(&sandbox, "read line; exit 5").stdin(Stdio::piped()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let detached = child.detach().unwrap();
            stdin.write_all(b"go\n").unwrap();
            assert_eq!(detached.wait().unwrap().unwrap().code(), Some(5));
        };
        alone(body);
    }

    /// Groups that a process has made.
    fn groups_of(pid: u32) -> Vec<PathBuf> {
        let cgroups = Host::probe().cgroups().clone();
        let own = cgroups.legacy.iter().filter_map(|legacy| legacy.own.clone());
        let unified = cgroups.unified.iter().flat_map(|u| u.groups.iter().map(|g| g.directory.clone()));
        let parents: BTreeSet<PathBuf> = own.chain(unified).collect();
        let entries = parents.iter().filter_map(|parent| fs::read_dir(parent).ok()).flatten();
        let prefix = format!("ringfence-{pid}-");
        let ours = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&prefix);
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(ours).collect()
    }

    #[test]
    fn groups_without_an_owner_stay_as_long_as_something_runs_in_them() {
        let body = || match role().unwrap().as_str() {
            "alone" => {
                if !is_root() || Host::probe().cgroups().legacy.is_empty() {
                    return skipped("groups_without_an_owner", "only root may make groups here");
                }
                set_child_subreaper(true).unwrap();
                let name = "tests::groups_without_an_owner_stay_as_long_as_something_runs_in_them";
                let (first, said) = caller(name, "run");
                let (owner, pid) = (first.id(), said.parse::<i32>().unwrap());
                end(first);
                assert!(!groups_of(owner).is_empty());
                end(caller(name, "sweep").0);
                assert!(is_there(pid), "it was swept");
                // Nor by one who cannot tell whether it was let go.
                end(caller(name, "blind").0);
                assert!(is_there(pid), "it was swept by one who cannot read the mark");
                assert!(!groups_of(owner).is_empty());
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
                assert!(eventually(20, reaped));
                end(caller(name, "sweep").0);
                assert_eq!(groups_of(owner), Vec::<PathBuf>::new(), "empty groups go");
            }
            "run" => {
                let sandbox = outliving(Launch::Auto).own_cgroup(()).build().unwrap();
                let detached = shell(&sandbox, "sleep 1000").spawn().unwrap().detach().unwrap();
                say(&detached.id().to_string());
                detached.wait().unwrap();
            }
            role => {
                if role == "blind" {
                    let filter = Filter::deny_list().deny(["getxattr"], Action::Errno(libc::EIO));
                    Lowering::builder().seccomp(filter).build().unwrap().apply().unwrap();
                }
                let sandbox = system().own_cgroup(()).build().unwrap();
                sandbox.command("true").status().unwrap();
                say("swept");
                thread::sleep(Duration::from_secs(1000));
            }
        };
        alone(body);
    }
}
