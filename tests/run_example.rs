//! The command of `examples/run.rs`, run as its users run it. `cargo test` builds the examples before it runs this.

/// Its own tests, which `cargo test` runs nowhere else: it builds examples as programs.
#[cfg(test)]
#[path = "../examples/run.rs"]
#[expect(dead_code, reason = "its main")]
mod example;

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs::{self, DirBuilder, File, Permissions};
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    use std::os::unix::process::ExitStatusExt;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};
    use std::{env, process};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use ringfence::Host;
    use ringfence::host::Features;

    /// Tests lie in `target/PROFILE/deps`, examples in `target/PROFILE/examples`.
    fn command() -> Command {
        let own = env::current_exe().unwrap();
        let path = own.parent().and_then(Path::parent).unwrap().join("examples/run");
        assert!(
            path.is_file(),
            "{} is not built: run all of `cargo test`, or `cargo build --examples`",
            path.display()
        );
        let mut command = Command::new(path);
        command.stdin(Stdio::null());
        command
    }

    fn run(args: &[&str]) -> Output {
        command().args(args).output().unwrap()
    }

    fn stdout(output: &Output) -> &str {
        str::from_utf8(&output.stdout).unwrap()
    }

    fn stderr(output: &Output) -> &str {
        str::from_utf8(&output.stderr).unwrap()
    }

    /// The program ended with `code`; shows what it said where it did not.
    #[track_caller]
    fn ended_with(output: &Output, code: i32) {
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }

    /// A directory of this test's own, gone when it ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = env::temp_dir().join(format!("ringfence-run-{}-{number}", process::id()));
            DirBuilder::new().mode(0o755).create(&path).unwrap();
            Self(path)
        }

        fn join(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    /// A static program that exits with 9.
    fn static_program(scratch: &Scratch) -> PathBuf {
        let (source, program) = (scratch.join("prog.c"), scratch.join("prog"));
        fs::write(&source, "int main(void) { return 9; }\n").unwrap();
        let gcc = Command::new("gcc").arg("-static").arg("-o").args([&program, &source]).output();
        let gcc = gcc.expect("this test needs gcc and a static libc (packages gcc and libc6-dev)");
        assert!(gcc.status.success(), "{}", stderr(&gcc));
        program
    }

    /// `SRC:DST` as one argument.
    fn bind(source: &Path, target: &str) -> String {
        format!("{}:{target}", source.display())
    }

    #[test]
    fn python_computes() {
        let output = run(&["--", "python3", "-c", "print(sum(range(10)))"]);
        ended_with(&output, 0);
        assert_eq!(stdout(&output), "45\n");
    }

    #[test]
    fn exit_status_is_the_programs_own() {
        for code in [0, 1, 2, 125, 126, 127, 255] {
            ended_with(&run(&["sh", "-c", &format!("exit {code}")]), code);
        }
    }

    #[test]
    fn signal_becomes_128_plus_its_number() {
        for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGSEGV] {
            let number = signal as i32;
            ended_with(&run(&["sh", "-c", &format!("kill -{number} $$")]), 128 + number);
        }
    }

    #[test]
    fn pipeline_of_a_shell_runs() {
        let output = run(&["sh", "-c", "seq 1 1000 | sort -rn | head -n 3 | tr '\\n' ' '"]);
        ended_with(&output, 0);
        assert_eq!(stdout(&output), "1000 999 998 ");
    }

    #[test]
    fn c_program_is_compiled_and_run_inside() {
        let script = "cat > a.c && gcc -O1 -o a a.c && ./a";
        let scratch = Scratch::new();
        let source = scratch.join("a.c");
        fs::write(&source, "#include <stdio.h>\nint main(void) { puts(\"compiled inside\"); return 5; }\n")
            .unwrap();
        let mut command = command();
        command.args(["--cwd", "/tmp", "sh", "-c", script]).stdin(File::open(&source).unwrap());
        let output = command.output().unwrap();
        ended_with(&output, 5);
        assert_eq!(stdout(&output), "compiled inside\n");
    }

    #[test]
    fn static_program_runs_in_an_empty_root() {
        let scratch = Scratch::new();
        let program = static_program(&scratch);
        ended_with(&run(&["--empty", "--ro-bind", &bind(&program, "/prog"), "/prog"]), 9);
        // And nothing else is there.
        ended_with(&run(&["--empty", "--ro-bind", &bind(&program, "/prog"), "/bin/sh"]), 2);
    }

    #[test]
    fn root_file_system_of_a_directory_is_used() {
        let scratch = Scratch::new();
        for name in ["proc", "dev", "tmp", "bin"] {
            DirBuilder::new().mode(0o755).create(scratch.join(name)).unwrap();
        }
        fs::rename(static_program(&scratch), scratch.join("bin/prog")).unwrap();
        let output = run(&["--rootfs", scratch.0.to_str().unwrap(), "prog"]);
        ended_with(&output, 9);
    }

    #[test]
    fn missing_program_is_2_with_a_text() {
        for program in ["/no/such/program", "no-such-program"] {
            let output = run(&[program]);
            ended_with(&output, 2);
            let text = stderr(&output);
            assert!(text.starts_with("ringfence: exec ") && text.contains(program), "{text}");
            assert!(text.contains("ENOENT"), "{text}");
        }
    }

    #[test]
    fn missing_interpreter_is_told_apart() {
        let scratch = Scratch::new();
        let script = scratch.join("script");
        fs::write(&script, "#!/no/such/interpreter\n").unwrap();
        fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        let output = run(&["--ro-bind", &bind(&script, "/script"), "/script"]);
        ended_with(&output, 2);
        assert!(stderr(&output).contains("interpreter"), "{}", stderr(&output));
    }

    #[test]
    fn missing_source_is_2_with_its_name() {
        let output = run(&["--bind", "/no/such/source:/data", "true"]);
        ended_with(&output, 2);
        assert!(stderr(&output).contains("/no/such/source"), "{}", stderr(&output));
    }

    #[test]
    fn mistakes_are_reported_all_at_once() {
        let output = run(&["--hostname", "", "--bind", "/usr:/a/../b", "true"]);
        ended_with(&output, 2);
        let text = stderr(&output);
        assert!(text.contains("host name") && text.contains(".."), "{text}");
    }

    #[test]
    fn explain_prints_the_plan_and_runs_nothing() {
        let output = run(&["--explain", "sh", "-c", "echo this ran"]);
        ended_with(&output, 0);
        let text = stdout(&output);
        assert!(text.starts_with("# namespaces {"), "{text}");
        // By whichever call this kernel has for it.
        let at_once = Host::probe().features().contains(Features::MOUNT_API | Features::MOUNT_SETATTR);
        let read_only = if at_once { "mount_setattr" } else { "MS_REMOUNT" };
        for call in ["pivot_root", "no_new_privs", "capset", read_only] {
            assert!(text.contains(call), "no {call} in the plan");
        }
        assert!(!text.contains("this ran"), "{text}");
    }

    #[test]
    fn explain_survives_a_reader_that_leaves() {
        let mut child = command().args(["--explain", "true"]).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }

    #[test]
    fn report_tells_what_holds() {
        let output = run(&["--report", "--memory", "1G", "true"]);
        ended_with(&output, 0);
        let text = stderr(&output);
        let line =
            |start: &str, end: &str| text.lines().any(|line| line.starts_with(start) && line.contains(end));
        assert!(line("no_new_privs", " set"), "{text}");
        assert!(line("capabilities", "none"), "{text}");
        assert!(line("  net", "its own"), "{text}");
        assert!(text.lines().any(|line| line.contains("memory=1073741824")), "{text}");
    }

    #[test]
    fn time_limit_kills_everything_and_says_so() {
        let begun = Instant::now();
        // The sleeper in the background would keep standard output open if it lived on.
        let output = run(&["--timeout", "0.5", "sh", "-c", "sleep 60 & sleep 60"]);
        ended_with(&output, 128 + 9);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert!(stderr(&output).contains("out of time: the limit is 500ms"), "{}", stderr(&output));
    }

    #[test]
    fn program_within_its_time_limit_is_left_alone() {
        let output = run(&["--timeout", "30", "sh", "-c", "exit 4"]);
        ended_with(&output, 4);
        assert_eq!(stderr(&output), "");
    }

    #[test]
    fn network_is_its_own_unless_asked_for() {
        let host = fs::read_link("/proc/self/ns/net").unwrap();
        let seen = |args: &[&str]| {
            let output = run(&[args, &["readlink", "/proc/self/ns/net"]].concat());
            ended_with(&output, 0);
            PathBuf::from(stdout(&output).trim_end())
        };
        assert_eq!(seen(&["--net"]), host);
        assert_ne!(seen(&[]), host);
        let output = run(&["sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1"]);
        assert_eq!(stdout(&output).trim(), "lo");
    }

    #[test]
    fn read_only_bind_is_read_only() {
        let scratch = Scratch::new();
        fs::write(scratch.join("kept"), "kept").unwrap();
        fs::set_permissions(&scratch.0, Permissions::from_mode(0o777)).unwrap();
        let output =
            run(&["--ro-bind", &bind(&scratch.0, "/data"), "sh", "-c", "cat /data/kept; echo x > /data/new"]);
        ended_with(&output, 2);
        assert_eq!(stdout(&output), "kept");
        assert!(!scratch.join("new").try_exists().unwrap());
    }

    #[test]
    fn writable_bind_is_writable() {
        let scratch = Scratch::new();
        fs::set_permissions(&scratch.0, Permissions::from_mode(0o777)).unwrap();
        ended_with(&run(&["--bind", &bind(&scratch.0, "/data"), "sh", "-c", "echo new > /data/new"]), 0);
        assert_eq!(fs::read_to_string(scratch.join("new")).unwrap(), "new\n");
    }

    #[test]
    fn environment_is_clean_but_for_what_is_named() {
        let mut command = command();
        command.env("SECRET", "s").env("SHOWN", "yes").env("TERM", "dumb");
        command.args(["--env", "SHOWN", "--env", "GIVEN=a=b", "env"]);
        let output = command.output().unwrap();
        ended_with(&output, 0);
        let mut lines: Vec<&str> =
            stdout(&output).lines().filter(|line| !line.starts_with("PATH=")).collect();
        lines.sort_unstable();
        assert_eq!(lines, ["GIVEN=a=b", "HOME=/home/sandbox", "LANG=C.UTF-8", "SHOWN=yes", "TERM=dumb"]);
    }

    #[test]
    fn ids_host_name_and_directory_are_as_asked() {
        let args = ["--uid", "4321", "--hostname", "box", "--cwd", "/usr"];
        let output = run(&[&args[..], &["sh", "-c", "id -u; uname -n; pwd"]].concat());
        ended_with(&output, 0);
        assert_eq!(stdout(&output), "4321\nbox\n/usr\n");
    }

    #[test]
    fn memory_is_limited() {
        // dd needs a buffer of that size, and fills it.
        let dd = ["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"];
        ended_with(&run(&dd), 0);
        let output = run(&[&["--memory", "128M"], &dd[..]].concat());
        // By a group the kernel ends it and this command says so; by its address space dd is refused the buffer.
        match output.status.code() {
            Some(137) => assert!(stderr(&output).contains("out of memory"), "{}", stderr(&output)),
            code => assert_eq!(code, Some(1), "{}", stderr(&output)),
        }
    }

    #[test]
    fn cpu_time_of_everything_inside_is_limited() {
        let script = "i=0; while [ $i -lt 4 ]; do sh -c 'while :; do :; done' & i=$((i+1)); done; wait";
        let output = run(&["--cpu-time", "0.4", "sh", "-c", script]);
        ended_with(&output, 128 + 9);
        assert!(stderr(&output).contains("out of CPU time"), "{}", stderr(&output));
    }

    #[test]
    fn strict_limits_hold_or_nothing_runs() {
        let output = run(&["--strict", "--memory", "64M", "--processes", "20", "--report", "true"]);
        match output.status.code() {
            Some(0) => assert!(stderr(&output).contains("hard"), "{}", stderr(&output)),
            code => {
                assert_eq!(code, Some(2), "{}", stderr(&output));
                assert!(stderr(&output).contains("cgroup"), "{}", stderr(&output));
            }
        }
    }

    #[test]
    fn signals_reach_the_program() {
        let script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done";
        let mut command = command();
        let mut child = command.args(["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "caught");
        assert_eq!(child.wait().unwrap().code(), Some(3));
    }

    #[test]
    fn a_second_signal_kills_a_program_that_ignores_the_first() {
        let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
        let mut command = command();
        let mut child = command.args(["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let pid = Pid::from_raw(child.id().cast_signed());
        kill(pid, Signal::SIGTERM).unwrap();
        thread::sleep(Duration::from_millis(300));
        assert_eq!(child.try_wait().unwrap(), None, "the program ignores the first");
        kill(pid, Signal::SIGTERM).unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(128 + 9), None));
    }

    #[test]
    fn help_names_every_option() {
        let output = run(&["--help"]);
        ended_with(&output, 0);
        let options = [
            "--bind",
            "--ro-bind",
            "--rootfs",
            "--empty",
            "--net",
            "--hostname",
            "--memory",
            "--timeout",
            "--processes",
            "--cpu-time",
            "--strict",
        ];
        for option in options.iter().chain(&["--env", "--cwd", "--uid", "--explain", "--report"]) {
            assert!(stdout(&output).contains(option), "{option}");
        }
        assert!(OsStr::new(stdout(&output)).len() > 1000);
    }
}
