//! A caller that cannot look at what runs inside, for want of descriptors: each look says so, and none is taken for one that
//! found nothing.

#[cfg(test)]
#[path = "support/attach.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod attach;
#[cfg(test)]
#[path = "support/edge.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod edge;
#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::process;

    use nix::sys::resource::{Resource as Rlimit, getrlimit, setrlimit};
    use nix::unistd::Pid;
    use ringfence::{
        Access, Builder, Child, Error, FrozenBy, Host, Mount, MountKind, Namespaces, ProcMount, ProcRung,
        ProcessState, Sandbox, Stdio, Step, Verdict,
    };

    use super::attach::{joining, until};
    use super::edge::groups_of;
    use super::support::{alone, eventually, say, shell, skipped, status_field, system};

    /// No descriptor can be had meanwhile, and none that is there be polled.
    fn blind<T>(look: impl FnOnce() -> T) -> T {
        let (soft, hard) = getrlimit(Rlimit::RLIMIT_NOFILE).unwrap();
        setrlimit(Rlimit::RLIMIT_NOFILE, 0, hard).unwrap();
        let seen = look();
        setrlimit(Rlimit::RLIMIT_NOFILE, soft, hard).unwrap();
        seen
    }

    /// None can be had meanwhile.
    fn short<T>(look: impl FnOnce() -> T) -> T {
        let (soft, hard) = getrlimit(Rlimit::RLIMIT_NOFILE).unwrap();
        let mut full = Vec::new();
        setrlimit(Rlimit::RLIMIT_NOFILE, 200, hard).unwrap();
        while let Ok(file) = fs::File::open("/dev/null") {
            full.push(file);
        }
        let seen = look();
        drop(full);
        setrlimit(Rlimit::RLIMIT_NOFILE, soft, hard).unwrap();
        seen
    }

    fn without_pid_namespace() -> Builder {
        Sandbox::builder()
            .bind("/usr", "/usr", Access::ReadOnly)
            .symlink("usr/bin", "/bin")
            .symlink("usr/lib", "/lib")
            .symlink("usr/lib64", "/lib64")
            .dev()
            .mount(Mount::new("/proc", MountKind::Proc(ProcMount { ladder: vec![ProcRung::Absent] })))
            .namespaces(Namespaces::STANDARD.difference(Namespaces::PID))
    }

    fn refused(tried: Result<impl Debug, Error>, step: Step) {
        let error = tried.map(|seen| panic!("{step:?} {seen:?}")).unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (step, Some(libc::EMFILE)), "{error}");
        assert!(error.failed_call().is_some() && error.to_string().contains("/proc"), "{error}");
    }

    /// A program with two children of which one has a child, all of them asleep.
    fn family(sandbox: &Sandbox) -> Child {
        let mut command = shell(sandbox, "sleep 1000 & (sleep 1000; :) & echo up; sleep 1000; :");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{error:#}"));
        until(&mut child, "up\n");
        // A shell that has not executed yet what it forked with vfork(2) could not stop.
        let asleep = || child.processes().unwrap().iter().filter(|info| info.command == "sleep").count();
        assert!(eventually(10, || asleep() == 3));
        child
    }

    fn states(child: &Child) -> Vec<ProcessState> {
        child.processes().unwrap().into_iter().map(|info| info.state).collect()
    }

    #[test]
    fn what_runs_inside_is_not_nothing_when_it_cannot_be_looked_at() {
        alone(|| {
            for sandbox in [system().build().unwrap(), without_pid_namespace().build().unwrap()] {
                let child = family(&sandbox);
                short(|| refused(child.processes(), Step::Observe));
                short(|| refused(child.signal_all(libc::SIGURG), Step::Observe));
                short(|| refused(child.freeze(), Step::Cgroup));
                let all = states(&child);
                assert!(all.len() == 6 && !all.contains(&ProcessState::Stopped), "{all:?}");
                assert_eq!(child.freeze().unwrap(), FrozenBy::Stop);
                let stopped = |state: &&ProcessState| **state == ProcessState::Stopped;
                assert!(eventually(10, || states(&child).iter().filter(stopped).count() == 5));
                short(|| refused(child.thaw(), Step::Cgroup));
                assert_eq!(child.thaw().unwrap(), FrozenBy::Stop);
                assert!(eventually(10, || !states(&child).contains(&ProcessState::Stopped)));
                child.kill().unwrap();
            }
        });
    }

    #[test]
    fn a_kill_of_a_command_that_joined_ends_all_of_it_or_nothing() {
        alone(|| {
            let sandbox = system().build().unwrap();
            let site = sandbox.command("sleep").arg("1000").spawn().unwrap();
            let mut command = joining(&site, "setsid sleep 1001 & (sleep 1002; :) & echo up; sleep 1003; :");
            let mut joined =
                command.stdout(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{error:#}"));
            until(&mut joined, "up\n");
            assert!(eventually(10, || joined.processes().unwrap().len() >= 6));
            let inside = joined.processes().unwrap();
            let alive = || {
                let state = |pid| status_field(pid, "State");
                let lives = |pid| state(pid).is_some_and(|state| !state.starts_with(['Z', 'X']));
                inside.iter().filter(|info| lives(info.pid)).count()
            };
            short(|| refused(joined.kill(), Step::Kill));
            short(|| refused(joined.start_kill(), Step::Kill));
            assert_eq!((alive(), joined.try_wait().unwrap()), (inside.len(), None));
            assert!(!states(&joined).contains(&ProcessState::Stopped));
            joined.kill().unwrap();
            assert_eq!(alive(), 0);
            assert!(site.try_wait().unwrap().is_none());
        });
    }

    #[test]
    fn a_counter_that_cannot_be_read_for_want_of_a_descriptor_is_not_one_that_is_not_there() {
        let name = "a_counter_that_cannot_be_read_for_want_of_a_descriptor_is_not_one_that_is_not_there";
        let body = || {
            let sandbox = match system().own_cgroup(()).build() {
                Ok(sandbox) => sandbox,
                Err(error) => return skipped(name, &error.to_string()),
            };
            let child = shell(&sandbox, "sleep 1000").spawn().unwrap();
            let before = child.stats().unwrap();
            assert_eq!(before.unread, None);
            let (refused, status, killed, outcome) =
                blind(|| (child.stats(), child.try_wait(), child.kill(), child.wait()));
            let error = refused.unwrap_err();
            let said = (error.step(), error.failed_call(), error.raw_os_error());
            assert_eq!(said, (Step::Cgroup, Some("read"), Some(libc::EMFILE)), "{error}");
            assert!(status.unwrap().is_none());
            killed.unwrap_or_else(|error| panic!("{error}"));
            let outcome = outcome.unwrap_or_else(|error| panic!("{error}"));
            let unread = outcome.stats.unwrap().unread.unwrap();
            assert_eq!((unread.errno, outcome.verdict()), (libc::EMFILE, Verdict::Killed));
            assert!(error.to_string().contains(unread.file), "{error} {}", unread.file);
        };
        alone(body);
    }

    /// How what could not be ended is tried again.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Again {
        Kill,
        Launch,
    }

    /// Without a pid namespace it is the group that a kill reaches everything by.
    #[test]
    fn a_kill_that_cannot_look_into_the_group_says_so() {
        let name = "a_kill_that_cannot_look_into_the_group_says_so";
        let tried = |with: Again| {
            let sandbox = match without_pid_namespace().own_cgroup(()).build() {
                Ok(sandbox) => sandbox,
                Err(error) => return skipped(name, &error.to_string()),
            };
            let mut script = shell(&sandbox, "setsid sleep 1000 >&2 & sleep 0.1; echo $!; exec sleep 1000");
            let mut child = script.stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            let pid = Pid::from_raw(line.trim().parse().unwrap());
            let lives =
                || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| !text.contains(") Z"));
            assert!(lives());
            let killed = blind(|| child.kill());
            let left = lives();
            let error = killed.err().map(|error| error.to_string());
            assert!(!left || error.as_ref().is_some_and(|text| text.starts_with("kill ")), "{error:?}");
            say(&format!("{name}: {error:?}, still alive: {left}"));
            if with == Again::Kill {
                child.kill().unwrap_or_else(|error| panic!("{error}"));
                assert!(!lives());
            }
            drop(child);
            // Each launch looks again.
            let cleared = || {
                assert_eq!(sandbox.command("true").status().unwrap().code(), Some(0));
                !lives() && groups_of(Host::probe().cgroups(), process::id()).is_empty()
            };
            assert!(eventually(20, cleared));
        };
        alone(|| [Again::Kill, Again::Launch].into_iter().for_each(tried));
    }
}
