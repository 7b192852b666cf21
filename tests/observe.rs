//! Looking at a running sandbox: its processes, a signal to all of them, who lives. Seen from inside as well.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::{BufRead, BufReader, Write};
    use std::process::id;
    use std::thread;
    use std::time::Duration;

    use ringfence::{
        Access, Child, ChildStdout, ErrorKind, Host, Init, Mount, MountKind, Namespaces, ProcMount, ProcRung,
        ProcessInfo, ProcessRole, ProcessState, Sandbox, Stdio, Step, Verdict, living,
    };

    use super::support::{alone, eventually, is_root, shell, skipped, status_field, system, watchdog};

    /// With groups where there can be some, and without.
    fn ways() -> Vec<(&'static str, Sandbox)> {
        let mut ways = vec![("no group", system().build().unwrap())];
        let proc = ProcMount { ladder: vec![ProcRung::Absent] };
        let tree = Sandbox::builder()
            .bind("/usr", "/usr", Access::ReadOnly)
            .symlink("usr/bin", "/bin")
            .symlink("usr/lib", "/lib")
            .symlink("usr/lib64", "/lib64")
            .dev()
            .mount(Mount::new("/proc", MountKind::Proc(proc)))
            .namespaces(Namespaces::STANDARD.difference(Namespaces::PID));
        ways.push(("no pid namespace", tree.build().unwrap()));
        if is_root() && !Host::probe().cgroups().legacy.is_empty() {
            ways.push(("groups", system().own_cgroup(()).build().unwrap()));
            let mut cgroups = Host::probe().cgroups().clone();
            cgroups.unified = None;
            let policy = system().own_cgroup(()).policy().unwrap();
            let host = Host::probe().with_cgroups(cgroups);
            ways.push(("groups of version 1", Sandbox::new(policy, host).unwrap()));
        } else {
            skipped("groups", "only root may make groups here");
        }
        ways
    }

    /// A program that has started what it wants to, and says so.
    fn started(sandbox: &Sandbox, script: &str) -> (Child, BufReader<ChildStdout>) {
        let mut command = shell(sandbox, script);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        (child, lines)
    }

    fn named<'p>(processes: &'p [ProcessInfo], command: &str) -> Vec<&'p ProcessInfo> {
        processes.iter().filter(|process| process.command == command).collect()
    }

    #[test]
    fn processes_inside_are_those_that_are_there() {
        let _watchdog = watchdog(120);
        for (way, sandbox) in ways() {
            let script = "sleep 1001 & (setsid sleep 1002 &) ; (sleep 1003 & sleep 0.3; kill -STOP $!; echo ready; wait) & wait";
            let (child, _lines) = started(&sandbox, script);
            let stopped = |processes: &[ProcessInfo]| {
                let sleeps = named(processes, "sleep");
                sleeps.len() == 3 && sleeps.iter().any(|process| process.state == ProcessState::Stopped)
            };
            assert!(
                eventually(20, || stopped(&child.processes().unwrap())),
                "{way}: {:?}",
                child.processes()
            );
            let processes = child.processes().unwrap();
            assert_eq!(processes.len(), 6, "{way}: {processes:#?}");
            let own = id();
            assert!(processes.iter().all(|process| process.pid != own), "{way}");
            for process in &processes {
                let numbers = status_field(process.pid.cast_signed(), "NSpid").unwrap();
                let inside = numbers.split_whitespace().last().map(|pid| pid.parse().unwrap());
                assert_eq!(process.pid_inside, inside, "{way}: {process:?}");
                assert_eq!(process.threads, 1, "{way}: {process:?}");
            }
            let role =
                |role| processes.iter().filter(move |process| process.role == role).collect::<Vec<_>>();
            let [init] = role(ProcessRole::Init)[..] else { panic!("{way}: {processes:#?}") };
            assert_eq!((init.pid, init.parent), (child.init_id(), own), "{way}");
            assert_eq!(init.command, "ringfence-init", "{way}");
            let [program] = role(ProcessRole::Program)[..] else { panic!("{way}: {processes:#?}") };
            assert_eq!((program.pid, program.parent), (child.id(), init.pid), "{way}");
            assert_eq!(program.arguments, ["sh", "-c", script], "{way}");
            assert!(program.resident > 0, "{way}: {program:?}");
            let orphan = processes.iter().find(|process| process.arguments == ["sleep", "1002"]).unwrap();
            assert_eq!(orphan.parent, init.pid, "{way}: init has it now");
            child.kill().unwrap();
            assert_eq!(child.processes().unwrap(), [], "{way}");
        }
    }

    /// Many processes come and go, here and in the sandbox; none of another sandbox or of this process is ever shown.
    #[test]
    fn no_foreign_process_is_ever_shown() {
        let _watchdog = watchdog(120);
        for (way, sandbox) in ways() {
            let churn = "echo ready; while :; do /bin/true & /bin/true; done";
            let (child, _lines) = started(&sandbox, churn);
            let (_other, _others) = started(&sandbox, churn);
            let mut seen = BTreeSet::new();
            for _ in 0..100 {
                for process in child.processes().unwrap() {
                    let ours = match process.role {
                        ProcessRole::Init => process.pid == child.init_id(),
                        ProcessRole::Program => process.pid == child.id(),
                        ProcessRole::Attendant => false,
                        ProcessRole::Other => {
                            [child.id(), child.init_id()].contains(&process.parent) || process.parent == 0
                        }
                    };
                    assert!(ours, "{way}: {process:?}");
                    seen.insert(process.pid);
                }
            }
            assert!(seen.len() > 2, "{way}: {seen:?}");
        }
    }

    #[test]
    fn a_zombie_and_a_command_with_brackets_are_shown() {
        let _watchdog = watchdog(60);
        let script = "import os, sys, time, ctypes
if os.fork() == 0: os._exit(0)
ctypes.CDLL(None).prctl(15, b') Z 1 (x', 0, 0, 0)
print('ready', flush=True)
sys.stdin.readline()";
        for (way, sandbox) in ways() {
            let mut command = sandbox.command("/usr/bin/python3");
            let mut child =
                command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            let zombies = |processes: &[ProcessInfo]| {
                processes.iter().filter(|process| process.state == ProcessState::Zombie).count()
            };
            assert!(eventually(20, || zombies(&child.processes().unwrap()) == 1), "{way}");
            let processes = child.processes().unwrap();
            assert_eq!(named(&processes, ") Z 1 (x").len(), 1, "{way}: {processes:?}");
            child.stdin.take().unwrap().write_all(b"\n").unwrap();
        }
    }

    #[test]
    fn a_signal_reaches_all_but_init() {
        let _watchdog = watchdog(120);
        let script = "import os, signal
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b'got\\n'))
for i in range(3):
  if os.fork() == 0: break
else:
  if os.fork() == 0:
    os.setsid()
    if os.fork() != 0: os._exit(0)
os.write(1, b'up\\n')
while True: signal.pause()";
        for (way, sandbox) in ways() {
            let mut command = sandbox.command("/usr/bin/python3");
            let mut child = command.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let up = lines.by_ref().take(5).map(Result::unwrap).filter(|line| line == "up").count();
            assert_eq!(up, 5, "{way}");
            // The orphan's parent may still be about to end.
            assert!((5..=6).contains(&child.signal_all(libc::SIGUSR1).unwrap()), "{way}");
            let got = lines.by_ref().take(5).map(Result::unwrap).filter(|line| line == "got").count();
            assert_eq!(got, 5, "{way}");
            assert!(child.try_wait().unwrap().is_none(), "{way}: init goes on");
            let error = child.signal_all(99).unwrap_err();
            assert_eq!((error.kind(), error.step()), (ErrorKind::Process, Step::Kill), "{way}: {error}");
            child.signal_all(libc::SIGKILL).unwrap();
            let outcome = child.wait().unwrap();
            assert!(
                matches!(outcome.verdict(), Verdict::Signaled { signal: libc::SIGKILL, .. }),
                "{way}: {outcome:?}"
            );
            assert_eq!(child.signal_all(libc::SIGTERM).unwrap(), 0, "{way}: nobody is left");
        }
    }

    /// A tree that forks all the time is caught whole where it can be frozen.
    #[test]
    fn a_tree_that_forks_all_the_time_is_caught_where_it_can_be_frozen() {
        let _watchdog = watchdog(120);
        for (way, sandbox) in ways().into_iter().filter(|(way, _)| way.starts_with("groups")) {
            let script = "run() { (sleep 0.01; run) & }; trap '' TERM; for i in 1 2 3 4 5; do run; done; echo ready; exec sleep 1000";
            let (child, _lines) = started(&sandbox, script);
            let count = child.signal_all(libc::SIGKILL).unwrap();
            assert!(count >= 6, "{way}: {count}");
            child.wait().unwrap();
        }
    }

    #[test]
    fn what_was_frozen_stays_so() {
        let _watchdog = watchdog(60);
        for (way, sandbox) in ways().into_iter().filter(|(way, _)| way.starts_with("groups")) {
            let (child, mut lines) =
                started(&sandbox, "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.05; done");
            child.freeze().unwrap();
            child.signal_all(libc::SIGTERM).unwrap();
            thread::sleep(Duration::from_millis(200));
            assert!(child.try_wait().unwrap().is_none(), "{way}: it does not stand still");
            child.thaw().unwrap();
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            assert_eq!(line, "got\n", "{way}");
            assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(3), "{way}");
        }
    }

    #[test]
    fn an_application_lists_what_lives_under_its_names() {
        let body = || {
            let root = is_root() && !Host::probe().cgroups().legacy.is_empty();
            let builder = if root { system().own_cgroup(()) } else { system() };
            let sandbox = builder.build().unwrap();
            assert!(living().is_empty());
            let mut job = shell(&sandbox, "read line");
            job.stdin(Stdio::piped());
            let mut first = job.name("job-17").spawn().unwrap();
            let second = job.name("job-18").spawn().unwrap();
            let nameless = shell(&sandbox, "sleep 1000").spawn().unwrap();
            assert_eq!((first.name(), nameless.name()), (Some("job-17"), None));
            let all = living();
            let names: Vec<&str> = all.iter().map(|one| one.name()).collect();
            assert_eq!(names, ["job-17", "job-18"]);
            assert_eq!((all[0].id(), all[0].init_id()), (first.id(), first.init_id()));
            assert!(all[0].age() >= all[1].age());
            assert_eq!(all[0].stats().is_some(), root);
            drop(second);
            assert_eq!(living().len(), 1, "dropped");
            first.stdin.take().unwrap().write_all(b"\n").unwrap();
            assert!(eventually(20, || living().is_empty()), "ended, and nobody has waited for it");
            assert_eq!(all[0].name(), "job-17", "who holds one may go on asking");
            first.wait().unwrap();
            let error = shell(&sandbox, "exit").name("a\nb").spawn().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidCommand, "{error}");
            thread::scope(|scope| {
                for number in 0..4 {
                    let sandbox = &sandbox;
                    scope.spawn(move || {
                        for _ in 0..5 {
                            let name = format!("worker-{number}");
                            let child = shell(sandbox, "sleep 1000").name(&*name).spawn().unwrap();
                            assert!(living().iter().any(|one| one.name() == name && one.id() == child.id()));
                        }
                    });
                }
            });
            assert!(living().is_empty());
        };
        alone(body);
    }

    #[test]
    fn without_a_group_and_an_init_the_program_is_all_there_is() {
        let sandbox = system().init(Init::Program).build().unwrap();
        let (child, _lines) = started(&sandbox, "echo ready; read line");
        let [program] = &child.processes().unwrap()[..] else { panic!("{:?}", child.processes()) };
        assert_eq!((program.role, program.pid_inside), (ProcessRole::Program, Some(1)));
    }
}
