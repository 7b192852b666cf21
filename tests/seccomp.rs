//! The system-call filter seen from inside real sandboxes: foreign calls, the narrow presets, actions, what is told of it.

#[cfg(test)]
#[path = "support/compiled.rs"]
mod compiled;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process;

    use ringfence::{
        Access, Action, Argument, Builder, ErrorKind, Filter, FilterState, Mistake, Outcome, Sandbox, Stdio,
        Verdict,
    };

    use super::compiled::compile;

    const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

    fn run(builder: Builder, program: &str, args: &[&str]) -> Outcome {
        let sandbox = builder.build().expect("a policy");
        let mut command = sandbox.command(program);
        command.args(args).env("PATH", PATH).env("HOME", "/tmp").current_dir("/tmp");
        command.output().unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn system() -> Builder {
        Sandbox::builder().system_read_only()
    }

    fn shown(outcome: &Outcome) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        format!("{:?}\n{}{}", outcome.verdict(), text(&outcome.stdout), text(&outcome.stderr))
    }

    /// `call(number, …)` by libc's syscall(2), printing result and errno.
    fn python(builder: Builder, calls: &[(i64, &[&str])]) -> Vec<i64> {
        let mut script = String::from(
            "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.syscall.restype = ctypes.c_long\n\
             def call(*args):\n  ctypes.set_errno(0)\n  r = libc.syscall(*[ctypes.c_long(a) for a in args])\n  \
             print(ctypes.get_errno() if r == -1 else -abs(r), flush=True)\n",
        );
        for (number, args) in calls {
            script.push_str(&format!(
                "call({number}{}{})\n",
                if args.is_empty() { "" } else { ", " },
                args.join(", ")
            ));
        }
        let outcome = run(builder, "/usr/bin/python3", &["-c", &script]);
        assert_eq!(outcome.verdict(), Verdict::Exited(0), "{}", shown(&outcome));
        let text = String::from_utf8(outcome.stdout).expect("text");
        text.lines().map(|line| line.parse().expect("a number")).collect()
    }

    fn alone(filter: Filter, program: &Path) -> Outcome {
        let directory = program.parent().expect("a directory");
        let builder = Sandbox::builder().bind(directory, "/p", Access::ReadOnly).seccomp(filter);
        run_at_root(builder, "/p/p")
    }

    fn run_at_root(builder: Builder, program: &str) -> Outcome {
        let sandbox = builder.build().expect("a policy");
        sandbox.command(program).output().unwrap_or_else(|error| panic!("{error:#}"))
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn foreign_calls_kill() {
        let source = "int main(void) { int r; __asm__ volatile(\"int $0x80\" : \"=a\"(r) : \"a\"(20)); return r > 0 ? 0 : 1; }";
        let program = compile("int80", source, &[]);
        let directory = program.parent().expect("a directory");
        let with =
            |builder: Builder| run(builder.bind(directory, "/p", Access::ReadOnly), "/p/p", &[]).verdict();
        assert!(
            matches!(with(system()), Verdict::Signaled { signal: libc::SIGSYS, .. }),
            "{:?}",
            with(system())
        );
        assert_eq!(with(system().allow_all_calls()), Verdict::Exited(0));
    }

    #[test]
    fn a_worker_computes_and_does_nothing_else() {
        let source = "#include <errno.h>\n#include <fcntl.h>\n#include <pthread.h>\n#include <stdio.h>\n#include <stdlib.h>\n\
            #include <sys/socket.h>\n#include <unistd.h>\n\
            static void *work(void *p) { *(int *)p = 7; return p; }\n\
            static int refused(long r) { return r == -1 ? errno : 0; }\n\
            int main(void) { int x = 0; pthread_t t; char *m = malloc(1 << 20); m[5] = 1;\n\
            int r = pthread_create(&t, 0, work, &x); if (!r) pthread_join(t, 0);\n\
            char *argv[] = {\"/p/p\", 0};\n\
            printf(\"%d %d open %d socket %d fork %d exec %d\\n\", r, x, refused(open(\"/p/p\", O_RDONLY)),\n\
            refused(socket(AF_UNIX, SOCK_STREAM, 0)), refused(fork()), refused(execv(\"/p/p\", argv)));\n\
            return 0; }";
        let program = compile("worker", source, &["-pthread"]);
        let outcome = alone(Filter::worker(), &program);
        assert_eq!(shown(&outcome), "Exited(0)\n0 7 open 38 socket 38 fork 1 exec 38\n");
    }

    #[test]
    fn a_dynamic_worker_starts() {
        let outcome = run(system().seccomp(Filter::worker_dynamic()), "/bin/echo", &["started"]);
        assert_eq!(shown(&outcome), "Exited(0)\nstarted\n");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn strict_reads_writes_and_ends() {
        let source = "static long call(long n, long a, long b, long c) { long r;\n\
            __asm__ volatile(\"syscall\" : \"=a\"(r) : \"a\"(n), \"D\"(a), \"S\"(b), \"d\"(c) : \"rcx\", \"r11\", \"memory\");\n\
            return r; }\n\
            void _start(void) { call(1, 1, (long)\"hello\\n\", 6); if (EXTRA) call(EXTRA, 0, 0, 0); call(231, 3, 0, 0); }";
        let build = |name: &str, extra: &str| compile(name, source, &["-nostdlib", extra]);
        assert_eq!(shown(&alone(Filter::strict(), &build("strict", "-DEXTRA=0"))), "Exited(3)\nhello\n");
        // execve (59), getpid (39): the launch's own execve was let through, no other is.
        for (name, extra) in [("strict-exec", "-DEXTRA=59"), ("strict-pid", "-DEXTRA=39")] {
            let outcome = alone(Filter::strict(), &build(name, extra));
            assert!(matches!(outcome.verdict(), Verdict::Refused { .. }), "{}", shown(&outcome));
            let outcome = alone(Filter::strict().untold_kills(), &build(name, extra));
            assert!(
                matches!(outcome.verdict(), Verdict::Signaled { signal: libc::SIGSYS, .. }),
                "{}",
                shown(&outcome)
            );
        }
    }

    #[test]
    fn different_actions_work_in_one_policy() {
        let filter = Filter::baseline()
            .forget(["getppid", "getpgid"])
            .deny(["getppid"], Action::Errno(libc::EBUSY))
            .rule("getpgid", [Argument::int(0).inside(5..=9)], Action::Errno(libc::EDOM))
            .allow(["getpgid"])
            .forget(["uname"])
            .deny(["uname"], Action::KillProcess);
        let busy = libc::EBUSY.into();
        let calls: &[(i64, &[&str])] =
            &[(libc::SYS_getppid, &[]), (libc::SYS_getpgid, &["7"]), (libc::SYS_getpgid, &["0"])];
        let seen = python(system().seccomp(filter.clone()), calls);
        assert_eq!(seen[..2], [busy, libc::EDOM.into()]);
        assert!(seen[2] <= 0, "{seen:?}");
        let outcome = run(system().seccomp(filter), "/bin/uname", &[]);
        assert!(
            matches!(outcome.verdict(), Verdict::Refused { call } if call.name == "uname"),
            "{}",
            shown(&outcome)
        );
    }

    #[test]
    fn what_is_attached_is_told() {
        let sandbox = system().build().expect("a policy");
        let held = sandbox.command("/bin/cat").stdin(Stdio::piped()).spawn_held().expect("a sandbox");
        assert!(matches!(held.enforcement().filter, FilterState::AtExec { .. }));
        let around = held.enforcement().seccomp_filters.expect("Linux 5.9");
        let child = held.release().expect("cat");
        assert!(
            matches!(child.enforcement().filter, FilterState::Attached { instructions } if instructions > 100)
        );
        assert_eq!(child.seccomp_filters(), Some(around + 1));
        let init = fs::read_to_string(format!("/proc/{}/status", child.init_id())).expect("init");
        assert!(init.contains(&format!("Seccomp_filters:\t{}\n", around + 1)), "{init}");
        child.kill().expect("the end");
        let open = system().allow_all_calls().build().expect("a policy");
        let child = open.command("/bin/cat").stdin(Stdio::piped()).spawn().expect("cat");
        assert_eq!((child.enforcement().filter, child.seccomp_filters()), (FilterState::None, Some(around)));
    }

    #[test]
    fn a_child_that_waits_is_filtered_and_read_back_where_its_filter_lets_the_command_come() {
        let filters = |pid: u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a child that waits");
            let line =
                text.lines().find_map(|line| line.strip_prefix("Seccomp_filters:")).expect("Linux 5.9");
            line.trim().parse::<u32>().expect("a number")
        };
        let around = filters(process::id());
        // (the filter, whether it is there before the command is)
        let exec = Filter::baseline().forget(["execve"]).deny(["execve"], Action::Errno(libc::EACCES));
        let cases = [
            (Filter::baseline(), true),
            (Filter::no_network(), true),
            (
                Filter::baseline().forget(["close_range"]).deny(["close_range"], Action::Errno(libc::EPERM)),
                false,
            ),
            (Filter::baseline().forget(["ioctl"]).deny(["ioctl"], Action::Errno(libc::ENOTTY)), false),
            (Filter::baseline().forget(["uname"]).deny(["uname"], Action::KillProcess), false),
            (exec.launch_only(), false),
        ];
        for (filter, early) in cases {
            let shown = format!("{filter:?}");
            let sandbox = system().seccomp(filter).build().expect("a policy");
            let idle = sandbox.hold().expect("a child that waits");
            assert_eq!(filters(idle.id()), around + u32::from(early), "{shown}");
            let state = idle.enforcement().filter;
            assert_eq!(matches!(state, FilterState::Attached { .. }), early, "{state:?} {shown}");
            assert_eq!(idle.enforcement().seccomp_filters, Some(around), "{shown}");
            let child = idle.spawn(sandbox.command("/bin/cat").stdin(Stdio::piped())).expect("cat");
            assert_eq!(child.seccomp_filters(), Some(around + 1), "{shown}");
            child.kill().expect("the end");
        }
    }

    #[test]
    fn mistakes_are_reported_when_the_policy_is_built() {
        let mistakes = |builder: Builder| {
            let error = builder.build().expect_err("a mistake");
            assert_eq!(error.kind(), ErrorKind::InvalidPolicy);
            error.mistakes().to_vec()
        };
        let unknown = mistakes(system().seccomp(Filter::baseline().allow(["opne"])));
        assert_eq!(unknown, [Mistake::UnknownCall { name: "opne".into() }]);
        let closed = mistakes(system().seccomp(Filter::allow_list().allow(["read", "exit_group"])));
        assert_eq!(closed, [Mistake::FilterForbidsLaunch]);
        assert_eq!(mistakes(system().allow_new_privileges()), [Mistake::FilterNeedsNoNewPrivs]);
    }

    #[test]
    fn a_program_that_cannot_be_executed_is_still_explained_under_strict() {
        let sandbox = Sandbox::builder().seccomp(Filter::strict()).build().expect("a policy");
        let error = sandbox.command("/nowhere").output().expect_err("no program");
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Exec, Some(libc::ENOENT)), "{error:#}");
    }
}
