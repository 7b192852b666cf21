//! A child that waits, and is told late what to run: whatever a plain spawn gives a program, this gives it too.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsStr;
    use std::fs::{self, File};
    use std::io::Read;
    use std::os::fd::RawFd;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::FileExt;
    use std::process::Command as Process;
    use std::thread;
    use std::time::Duration;

    use nix::sys::resource::{Resource as OwnResource, getrlimit, setrlimit};
    use ringfence::{
        Action, Channel, Clock, Command, ErrorKind, Filter, Init, Launch, Outcome, Resource, Sandbox, Stdio,
        Step, Verdict, WindowSize,
    };

    use super::support::{alone, children, full_pipe, namespace, said, shell, skipped, system, watchdog};

    fn ways() -> Vec<Sandbox> {
        let ways = [Init::Reaper, Init::Program].map(|init| {
            [Launch::Image, Launch::Copy].map(|launch| system().init(init).launch(launch).build().unwrap())
        });
        ways.into_iter().flatten().collect()
    }

    /// Runs in a child that waited: never by the pool's way out.
    fn told(sandbox: &Sandbox, command: &mut Command) -> Outcome {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = sandbox.hold().unwrap_or_else(|error| panic!("hold: {error:#}")).spawn(command);
        child.unwrap_or_else(|error| panic!("spawn: {error:#}")).wait_with_output().unwrap()
    }

    fn told_shell(sandbox: &Sandbox, script: &str) -> String {
        said(&told(sandbox, &mut shell(sandbox, script)))
    }

    #[test]
    fn arguments_and_environment_arrive_byte_for_byte() {
        let _watchdog = watchdog(120);
        let odd: Vec<u8> = (1..=255).collect();
        for sandbox in ways() {
            let mut command = sandbox.command("/usr/bin/printf");
            command.args([&b"%s."[..], b"", &odd, b"", b"last"].map(OsStr::from_bytes));
            let wanted = [b".", &odd[..], b"..last."].concat();
            assert_eq!(told(&sandbox, &mut command).stdout, wanted);
            let mut empty = sandbox.command("/bin/cat");
            empty.arg0("").arg("/proc/self/cmdline");
            assert_eq!(said(&told(&sandbox, &mut empty)), "\0/proc/self/cmdline\0");
            let mut env = sandbox.command("env");
            env.arg("-0");
            assert_eq!(said(&told(&sandbox, &mut env)), "");
            env.env("A", OsStr::from_bytes(&odd)).env("B", "").env("C", "x=y\nz");
            let wanted = [b"A=", &odd[..], b"\0B=\0C=x=y\nz\0"].concat();
            assert_eq!(told(&sandbox, &mut env).stdout, wanted);
        }
    }

    #[test]
    fn directory_streams_and_the_program_itself_are_the_commands() {
        let _watchdog = watchdog(120);
        for sandbox in ways() {
            assert_eq!(said(&told(&sandbox, &mut sandbox.command("pwd"))), "/\n");
            assert_eq!(said(&told(&sandbox, sandbox.command("pwd").current_dir("/usr/bin"))), "/usr/bin\n");
            assert_eq!(said(&told(&sandbox, sandbox.command("cat").stdin(full_pipe(b"in")))), "in");
            let outcome = told(&sandbox, &mut shell(&sandbox, "echo out; echo err >&2; exit 7"));
            assert_eq!((&outcome.stdout[..], &outcome.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
            assert_eq!(outcome.verdict(), Verdict::Exited(7));
            let mut by_fd = sandbox.command("any name");
            by_fd.program_fd(File::open("/usr/bin/cat").unwrap()).arg("/proc/self/cmdline");
            assert_eq!(said(&told(&sandbox, &mut by_fd)), "any name\0/proc/self/cmdline\0");
            by_fd.fd(3, full_pipe(b"")).fd(50, full_pipe(b""));
            assert_eq!(said(&told(&sandbox, &mut by_fd)), "any name\0/proc/self/cmdline\0");
        }
    }

    /// Numbers in the program's table.
    fn table(text: &str) -> Vec<RawFd> {
        let mut numbers: Vec<RawFd> = text.lines().map(|line| line.parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn descriptors_get_their_numbers_and_no_other_is_open() {
        alone(|| {
            let lists: [&[RawFd]; 6] = [
                &[],
                &[3, 4, 5, 8],
                &[8, 5, 4, 3],
                &[5, 3, 8, 4, 13, 12, 11, 10, 9, 7, 6],
                &[100, 3, 999, 4],
                &[60, 61, 59],
            ];
            for sandbox in ways() {
                for list in lists {
                    let mut command = sandbox.command("bash");
                    let mut script = "ls /proc/self/fd; ".to_owned();
                    for number in list {
                        command.fd(*number, full_pipe(format!("<{number}>").as_bytes()));
                        script.push_str(&format!("cat <&{number} >&2; "));
                    }
                    let outcome = told(&sandbox, command.args(["-c", &script]));
                    let contents: String = list.iter().map(|number| format!("<{number}>")).collect();
                    assert_eq!(String::from_utf8_lossy(&outcome.stderr), contents, "{list:?}");
                    // `ls` has the directory open too, at the lowest free number.
                    let mut wanted: BTreeSet<RawFd> =
                        [0, 1, 2].into_iter().chain(list.iter().copied()).collect();
                    wanted.extend((3..).find(|number| !wanted.contains(number)));
                    assert_eq!(table(&said(&outcome)), wanted.into_iter().collect::<Vec<_>>(), "{list:?}");
                }
            }
        });
    }

    #[test]
    fn a_thousand_descriptors_arrive_in_several_messages() {
        alone(|| {
            let (_, hard) = getrlimit(OwnResource::RLIMIT_NOFILE).unwrap();
            if hard < 8192 {
                skipped("a_thousand_descriptors_arrive_in_several_messages", "RLIMIT_NOFILE is below 8192");
                return;
            }
            setrlimit(OwnResource::RLIMIT_NOFILE, 8192, hard).unwrap();
            let sandbox = system().build().unwrap();
            let mut command = sandbox.command("bash");
            for number in 10..1010 {
                command.fd(number, full_pipe(number.to_string().as_bytes()));
            }
            command.args(["-c", "for n in {10..1009}; do read v <&$n; echo $n $v; done"]);
            let wanted: String = (10..1010).map(|number| format!("{number} {number}\n")).collect();
            assert_eq!(said(&told(&sandbox, &mut command)), wanted);
        });
    }

    #[test]
    fn a_table_that_is_too_small_is_a_named_error_and_nothing_runs() {
        alone(|| {
            let sandbox = system().build().unwrap();
            let mut command = shell(&sandbox, "echo ran");
            for number in 10..60 {
                command.fd(number, full_pipe(b""));
            }
            let idle = sandbox.hold().unwrap();
            let pid = idle.id().to_string();
            // The child's own limit, not this process's.
            let lowered = Process::new("prlimit").args(["--pid", &pid, "--nofile=20:20"]).status();
            assert!(lowered.unwrap().success());
            command.stdout(Stdio::piped());
            let error = idle.spawn(&command).unwrap_err();
            assert_eq!((error.kind(), error.step()), (ErrorKind::Setup, Step::Descriptors), "{error:#}");
            assert!(error.to_string().contains("not every descriptor arrived"), "{error:#}");
            assert!(children().is_empty(), "the child is gone");
        });
    }

    #[test]
    fn errors_are_those_of_a_plain_spawn() {
        alone(|| {
            for sandbox in ways() {
                let mut wrong = vec![
                    sandbox.command("no-such-program"),
                    sandbox.command("/no/such/program"),
                    sandbox.command("/etc/passwd"),
                    sandbox.command("/tmp"),
                ];
                wrong.push(sandbox.command("pwd"));
                wrong[4].current_dir("/no/such/directory");
                wrong.push(sandbox.command("passwd"));
                wrong[5].env("PATH", "/nowhere:/etc:/tmp");
                let before = children();
                for command in &mut wrong {
                    let plain = command.spawn().unwrap_err();
                    let late = sandbox.hold().unwrap().spawn(command).unwrap_err();
                    assert_eq!(late.to_string(), plain.to_string());
                    assert_eq!((late.kind(), late.step()), (plain.kind(), plain.step()));
                    assert_eq!(late.raw_os_error(), plain.raw_os_error());
                }
                assert_eq!(children(), before, "nothing is left");
            }
        });
    }

    #[test]
    fn the_filter_knows_the_launchs_own_exec() {
        let _watchdog = watchdog(60);
        let filter = Filter::baseline().forget(["execve", "execveat"]).launch_only();
        let filter = filter.deny(["execve", "execveat"], Action::Errno(libc::EACCES));
        for init in [Init::Reaper, Init::Program] {
            let sandbox = system().init(init).seccomp(filter.clone()).build().unwrap();
            assert_eq!(told_shell(&sandbox, "/bin/true || echo refused"), "refused\n");
            let idle = sandbox.hold().unwrap();
            let mut waits = shell(&sandbox, "read x");
            let child = idle.spawn(waits.stdin(Stdio::piped())).unwrap();
            let plain = waits.spawn().unwrap();
            assert_eq!(child.seccomp_filters(), plain.seccomp_filters());
            assert!(child.seccomp_filters().is_some());
        }
    }

    #[test]
    fn terminal_and_channel_are_the_commands() {
        let _watchdog = watchdog(60);
        let sandbox = system().build().unwrap();
        let mut command = shell(&sandbox, "stty size; tty >/dev/null; : </dev/tty && echo had");
        let child =
            sandbox.hold().unwrap().spawn(command.terminal(WindowSize { rows: 33, columns: 101 })).unwrap();
        let mut text = Vec::new();
        child.terminal.as_ref().unwrap().read_to_end(&mut text).unwrap();
        assert_eq!(String::from_utf8_lossy(&text).replace('\r', ""), "33 101\nhad\n");
        let script = format!(
            "import os, socket\ns = socket.socket(fileno=int(os.environ['{}']))\ns.send(s.recv(99) * 2)",
            Channel::VARIABLE
        );
        let mut command = sandbox.command("python3");
        let child = sandbox.hold().unwrap().spawn(command.args(["-c", &script]).channel(7)).unwrap();
        let channel = child.channel.as_ref().unwrap();
        channel.send(b"twice ", &[]).unwrap();
        assert_eq!(channel.receive().unwrap().unwrap().bytes, b"twice twice ");
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn clocks_begin_with_the_command_and_not_with_the_wait() {
        let _watchdog = watchdog(60);
        let limit = Duration::from_millis(700);
        let sandbox = system().wall_time(limit).build().unwrap();
        let idle = sandbox.hold().unwrap();
        thread::sleep(limit + Duration::from_millis(100));
        let child = idle.spawn(&sandbox.command("true")).unwrap();
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(0));
        let child = sandbox.hold().unwrap().spawn(sandbox.command("sleep").arg("50")).unwrap();
        assert_eq!(child.wait().unwrap().verdict(), Verdict::TimedOut { clock: Clock::Wall, limit });
    }

    #[test]
    fn limits_hold_and_what_is_read_back_is_the_childs() {
        let _watchdog = watchdog(60);
        let sandbox = system().limit(Resource::OpenFiles, 9).limit(Resource::Processes, 500).build().unwrap();
        assert_eq!(
            said(&told(&sandbox, sandbox.command("bash").args(["-c", "ulimit -n; ulimit -u"]))),
            "9\n500\n"
        );
        let idle = sandbox.hold().unwrap();
        let inside = namespace(idle.id(), "mnt");
        let capabilities = idle.enforcement().capabilities;
        assert!(capabilities.is_some());
        assert_ne!(inside, namespace("self", "mnt"));
        let child = idle.spawn(shell(&sandbox, "read x").stdin(Stdio::piped())).unwrap();
        assert_eq!(namespace(child.id(), "mnt"), inside);
        assert_eq!(child.enforcement().no_new_privs, Some(true));
        assert_eq!(child.enforcement().capabilities, capabilities);
        let verdict = told(&sandbox, &mut shell(&sandbox, "kill -SEGV $$")).verdict();
        assert!(matches!(verdict, Verdict::Signaled { signal: libc::SIGSEGV, .. }), "{verdict}");
    }

    #[test]
    fn what_the_command_was_told_is_gone_once_it_runs() {
        alone(|| {
            let sandbox = system().build().unwrap();
            for length in [20, 100_000] {
                let secret = format!("secret-{}", "s".repeat(length));
                let mut command = shell(&sandbox, "read x");
                command.env("SECRET", &secret).stdin(Stdio::piped());
                let child = sandbox.hold().unwrap().spawn(&command).unwrap();
                let maps = fs::read_to_string("/proc/self/maps").unwrap();
                let brief = maps.lines().filter(|line| line.contains("ringfence-brief"));
                let memory = File::open("/proc/self/mem").unwrap();
                let mut looked = 0;
                for line in brief {
                    let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
                    let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).unwrap());
                    let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
                    memory.read_exact_at(&mut bytes, from).unwrap();
                    assert!(!bytes.windows(12).any(|window| window == b"SECRET=secre"), "{length}");
                    looked += 1;
                }
                // That of the child before is let go a moment after it, and has nothing either.
                assert!((1..=2).contains(&looked), "{looked}");
                drop(child);
            }
        });
    }
}
