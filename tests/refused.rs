//! What was refused is told: a call that a filter kills for is in the verdict, with its name and arguments; and where it
//! cannot be, that is in the report.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
#[path = "support/compiled.rs"]
mod compiled;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{env, fs, thread};

    use ringfence::host::Features;
    use ringfence::{
        Access, Action, Argument, Builder, Filter, Host, Init, Launch, Namespaces, Outcome, RefusedCall,
        Resource, Response, Sandbox, Stdio, SupervisorState, Verdict,
    };

    use super::compiled::compile;
    use super::support::{alone, descriptors, eventually, role, said, shell, system, watchdog};

    /// The baseline, and this call ends the process.
    fn killing(call: &'static str) -> Filter {
        Filter::baseline().forget([call]).deny([call], Action::KillProcess)
    }

    fn python(sandbox: &Sandbox, script: &str) -> Outcome {
        let prelude = "import ctypes, os, signal, sys, threading\nlibc = ctypes.CDLL(None)\n\
            def call(*args): return libc.syscall(*[ctypes.c_long(a) for a in args])\n";
        let mut command = sandbox.command("/usr/bin/python3");
        command.args(["-c", &format!("{prelude}{script}")]);
        command.output().unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn getpgid(args: &str) -> String {
        format!("call({}, {args})\n", libc::SYS_getpgid)
    }

    #[track_caller]
    fn refused(outcome: &Outcome) -> RefusedCall {
        let Verdict::Refused { call } = outcome.verdict() else {
            panic!("{:?} {}", outcome.verdict(), String::from_utf8_lossy(&outcome.stderr))
        };
        call
    }

    #[test]
    fn the_verdict_has_the_call_and_its_arguments() {
        let _watchdog = watchdog(120);
        let bases = [system(), system().init(Init::Program), system().launch(Launch::Copy)];
        for builder in bases {
            let sandbox = builder.seccomp(killing("getpgid")).build().unwrap();
            let outcome = python(
                &sandbox,
                &format!("print('before', flush=True)\n{}print('after')", getpgid("1, -2, 3, 4, 5, 6")),
            );
            let call = refused(&outcome);
            assert_eq!((call.name, i64::from(call.number)), ("getpgid", libc::SYS_getpgid));
            assert_eq!(call.arguments, [1, (-2_i64).cast_unsigned(), 3, 4, 5, 6]);
            assert!(call.instruction_pointer != 0 && call.process != 0);
            assert_eq!(outcome.stdout, b"before\n", "the call was not made");
            assert_eq!(
                (outcome.refused_calls.as_slice(), outcome.refused_calls_more),
                ([call].as_slice(), 0)
            );
            let text = outcome.verdict().to_string();
            assert!(
                text.starts_with("ended by its filter for getpgid(0x1, 0xfffffffffffffffe, 0x3,"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_program_that_handles_or_ignores_sigsys_ends_all_the_same() {
        let _watchdog = watchdog(60);
        let sandbox = system().seccomp(killing("getpgid")).build().unwrap();
        for handler in ["signal.SIG_IGN", "lambda *_: print('caught')"] {
            let script = format!(
                "signal.signal(signal.SIGSYS, {handler})\n\
                 signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n{}print('after')",
                getpgid("9")
            );
            let outcome = python(&sandbox, &script);
            assert_eq!((refused(&outcome).arguments[0], outcome.stdout.len()), (9, 0));
        }
    }

    #[test]
    fn a_thread_s_call_ends_its_process() {
        let _watchdog = watchdog(60);
        let sandbox = system().seccomp(killing("getpgid")).build().unwrap();
        let script = format!(
            "def work(): {}t = threading.Thread(target=work); t.start(); t.join(); print('after')",
            getpgid("9")
        );
        let outcome = python(&sandbox, &script);
        let call = refused(&outcome);
        assert!(call.thread != call.process && outcome.stdout.is_empty(), "{call:?}");
    }

    #[test]
    fn what_others_inside_were_refused_is_listed() {
        let _watchdog = watchdog(120);
        let sandbox = system().seccomp(killing("getpgid")).build().unwrap();
        let script = format!(
            "for n in range(70):\n  pid = os.fork()\n  if pid == 0:\n    {}\
             \n  assert os.waitpid(pid, 0)[1] == signal.SIGKILL\nprint('all')",
            getpgid("n")
        );
        let outcome = python(&sandbox, &script);
        assert_eq!(said(&outcome), "all\n");
        let seen: Vec<u64> = outcome.refused_calls.iter().map(|call| call.arguments[0]).collect();
        assert_eq!((seen, outcome.refused_calls_more), ((0..64).collect(), 6));
        // The program's own is told, whatever its children fill the list with.
        let script = format!(
            "for n in range(70):\n  pid = os.fork()\n  if pid == 0: {}  os.waitpid(pid, 0)\n{}",
            getpgid("n"),
            getpgid("999")
        );
        let outcome = python(&sandbox, &script);
        assert_eq!(refused(&outcome).arguments[0], 999);
        assert_eq!((outcome.refused_calls.len(), outcome.refused_calls_more), (65, 6));
        // A grandchild that was started by exec.
        let outcome =
            shell(&sandbox, "sh -c 'python3 -c \"import os; os.getpgid(0)\"; echo $?'").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&outcome.stdout).lines().last(), Some("137"));
        assert_eq!(outcome.refused_calls.len(), 1);
    }

    fn only(program: &Path) -> Builder {
        Sandbox::builder().bind(program.parent().unwrap(), "/p", Access::ReadOnly)
    }

    #[cfg(target_arch = "x86_64")]
    const RAW: &str = "static long call(long n, long a) { long r;\n\
        __asm__ volatile(\"syscall\" : \"=a\"(r) : \"a\"(n), \"D\"(a) : \"rcx\", \"r11\", \"memory\"); return r; }\n\
        void _start(void) { call(NUMBER, 5); call(231, 3); }";

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_strict_preset_tells_what_it_killed_for() {
        let _watchdog = watchdog(120);
        for (number, name) in [(39, "getpid"), (59, "execve"), (600, "")] {
            let program =
                compile(&format!("strict{number}"), RAW, &["-nostdlib", &format!("-DNUMBER={number}")]);
            let outcome = only(&program).seccomp(Filter::strict()).build().unwrap().command("/p/p").output();
            let call = refused(&outcome.unwrap_or_else(|error| panic!("{error:#}")));
            assert_eq!((call.name, call.number, call.arguments[0]), (name, number, 5));
        }
        // A call of another architecture is the kernel's to kill for, whatever the rules say.
        let source = "void _start(void) { int r; __asm__ volatile(\"int $0x80\" : \"=a\"(r) : \"a\"(20)); }";
        let program = compile("int80", source, &["-nostdlib"]);
        let outcome =
            only(&program).seccomp(Filter::strict()).build().unwrap().command("/p/p").output().unwrap();
        assert!(matches!(outcome.verdict(), Verdict::Signaled { signal: libc::SIGSYS, .. }), "{outcome:?}");
        assert!(outcome.verdict().to_string().contains("which one is not known"), "{}", outcome.verdict());
    }

    #[test]
    fn a_thread_that_the_filter_kills_is_the_kernels() {
        let _watchdog = watchdog(60);
        let filter = Filter::baseline().forget(["getpgid"]).deny(["getpgid"], Action::KillThread);
        let sandbox = system().seccomp(filter).build().unwrap();
        let outcome = python(&sandbox, &getpgid("0"));
        assert!(matches!(outcome.verdict(), Verdict::Signaled { signal: libc::SIGSYS, .. }), "{outcome:?}");
    }

    /// The kernel kills by itself, and the report has the reason.
    #[track_caller]
    fn untold(sandbox: &Sandbox, wanted: &str) {
        let mut command = sandbox.command("/usr/bin/python3");
        command.args(["-c", "import os, sys; sys.stdin.read(1); os.getpgid(0)"]).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{error:#}"));
        let SupervisorState::KernelKills { why } = child.enforcement().supervisor.clone() else {
            panic!("{:?}", child.enforcement().supervisor)
        };
        assert!(why.contains(wanted), "{why}");
        assert!(child.enforcement().to_string().contains("the call is not told"), "{}", child.enforcement());
        drop(child.stdin.take());
        let outcome = child.wait().unwrap();
        assert!(matches!(outcome.verdict(), Verdict::Signaled { signal: libc::SIGSYS, .. }), "{outcome:?}");
        assert!(outcome.refused_calls.is_empty());
    }

    #[test]
    fn without_a_supervisor_the_kernel_kills_and_the_report_says_so() {
        let _watchdog = watchdog(120);
        untold(&system().seccomp(killing("getpgid").untold_kills()).build().unwrap(), "asked for");
        for feature in [Features::SECCOMP_LISTENER, Features::PIDFD_GETFD] {
            let policy = system().seccomp(killing("getpgid")).policy().unwrap();
            untold(&Sandbox::new(policy, Host::probe().without_features(feature)).unwrap(), "does not offer");
        }
        // No number is left for a listener.
        let source = "#include <unistd.h>\n#include <sys/syscall.h>\nint main(void) { return syscall(SYS_getpgid, 0); }";
        let program = compile("full", source, &[]);
        let builder = only(&program).seccomp(killing("getpgid")).limit(Resource::OpenFiles, 3);
        let child = builder.build().unwrap().command("/p/p").spawn().unwrap();
        assert_eq!(
            child.enforcement().supervisor,
            SupervisorState::KernelKills { why: "seccomp: EMFILE (too many open files)".to_owned() }
        );
        let verdict = child.wait().unwrap().verdict();
        assert!(matches!(verdict, Verdict::Signaled { signal: libc::SIGSYS, .. }), "{verdict}");
    }

    /// The caller is behind a fence itself.
    fn nested(outer: Filter, body: fn()) {
        if role().as_deref() == Some("inside") {
            body();
            return;
        }
        let _watchdog = watchdog(120);
        let name = thread::current().name().unwrap().to_owned();
        let program = ringfence::Mount::bind(env::current_exe().unwrap(), "/test");
        let builder = system().mount(program).allow_user_namespaces().seccomp(outer);
        let sandbox = builder.build().unwrap();
        let mut command = sandbox.command("/test");
        command
            .args(["--exact", &name, "--nocapture", "--test-threads=1"])
            .env("RINGFENCE_TEST_ROLE", "inside");
        let notifies = name.contains("supervised");
        if notifies {
            command.on_notify(|_| Response::ContinueUnchecked);
        }
        let outcome = command.output().unwrap_or_else(|error| panic!("{error:#}"));
        let (out, err) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
        assert!(outcome.success() && out.contains("1 passed"), "{:?}\n{out}\n{err}", outcome.verdict());
    }

    /// A fence that can be had behind another: without mounts, and the files are the outer one's.
    fn inner() -> Builder {
        let set = Namespaces::USER | Namespaces::PID;
        Sandbox::builder().namespaces(set).allow_user_namespaces()
    }

    #[test]
    fn inside_a_supervised_sandbox_another_has_no_supervisor() {
        let open = Filter::deny_list().rule("getpriority", [Argument::int(0).equal(77)], Action::Notify);
        nested(open, || {
            untold(&inner().seccomp(killing("getpgid")).build().unwrap(), "seccomp: EBUSY");
            // What only a supervisor can answer is not started.
            let filter = Filter::baseline().forget(["getpgid"]).deny(["getpgid"], Action::Notify);
            let sandbox = inner().seccomp(filter).build().unwrap();
            let error = sandbox.command("/bin/true").on_notify(|_| Response::Value(0)).spawn().unwrap_err();
            assert_eq!(
                (error.failed_call(), error.raw_os_error()),
                (Some("seccomp"), Some(libc::EBUSY)),
                "{error:#}"
            );
        });
    }

    #[test]
    fn a_caller_that_may_not_fetch_descriptors_has_no_supervisor() {
        // Only the call that matters is refused: the probe of it, with a flag that does not exist, is not.
        let filter =
            Filter::deny_list().rule("pidfd_getfd", [Argument::int(2).equal(0)], Action::Errno(libc::EPERM));
        nested(filter, || {
            untold(&inner().seccomp(killing("getpgid")).build().unwrap(), "pidfd_getfd: EPERM");
            let filter = Filter::baseline().forget(["getpgid"]).deny(["getpgid"], Action::Notify);
            let sandbox = inner().seccomp(filter).build().unwrap();
            let error = sandbox.command("/bin/true").on_notify(|_| Response::Value(0)).spawn().unwrap_err();
            assert_eq!((error.failed_call(), error.raw_os_error()), (Some("pidfd_getfd"), Some(libc::EPERM)));
            assert!(error.to_string().contains("may trace its child"), "{error:#}");
        });
    }

    #[test]
    fn no_thread_and_no_descriptor_is_left_of_what_was_told() {
        alone(|| {
            let sandbox = system().seccomp(killing("getpgid")).build().unwrap();
            refused(&python(&sandbox, &getpgid("0")));
            let threads = || fs::read_dir("/proc/self/task").unwrap().count();
            let before = (descriptors(), threads());
            for _ in 0..5 {
                refused(&python(&sandbox, &getpgid("0")));
                drop(sandbox.command("/bin/sleep").arg("1000").spawn().unwrap());
            }
            assert!(
                eventually(30, || (descriptors(), threads()) == before),
                "{:?} {before:?}",
                descriptors()
            );
        });
    }
}
