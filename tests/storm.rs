//! Launches while signals rain on the caller's threads and on its process group: handled ones, with and without `SA_RESTART`.
//! No launch fails, no handler runs in a child, and no thread of the crate takes a signal. A caller that is stopped goes on
//! answering as if nothing were.
#![cfg_attr(test, expect(unsafe_code, reason = "handles and sends signals"))]

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, pipe};
    use std::os::fd::AsRawFd;
    use std::path::Path;
    use std::process;
    use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, killpg, sigaction, signal};
    use nix::unistd::{Pid, getpgrp, gettid, setpgid};
    use ringfence::host::Features;
    use ringfence::{Action, Broker, Filter, Host, Init, Launch, OpenDecision, Pool, Response, Sandbox};

    use super::support::{
        again, alone, children, descriptors, eventually, field, role, said, shell, skipped, system, watchdog,
    };

    static OWN: AtomicI32 = AtomicI32::new(0);
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    /// Where a handler that runs in another process says so: a copy's memory is its own.
    static STRAY: AtomicI32 = AtomicI32::new(-1);

    extern "C" fn handler(_: libc::c_int) {
        // SAFETY: the call takes nothing.
        let own = unsafe { libc::getpid() };
        if own == OWN.load(Ordering::SeqCst) {
            HANDLED.fetch_add(1, Ordering::SeqCst);
        } else {
            // SAFETY: the byte lives across the call.
            unsafe { libc::write(STRAY.load(Ordering::SeqCst), b"x".as_ptr().cast(), 1) };
        }
    }

    const SIGNALS: [Signal; 3] = [Signal::SIGUSR1, Signal::SIGALRM, Signal::SIGCHLD];

    fn handle(flags: SaFlags) {
        OWN.store(process::id().cast_signed(), Ordering::SeqCst);
        for signal in SIGNALS {
            let action = SigAction::new(SigHandler::Handler(handler), flags, SigSet::empty());
            // SAFETY: the handler touches atomics only.
            unsafe { sigaction(signal, &action) }.unwrap();
        }
    }

    /// Sends every signal about ten thousand times a second, to this thread and to the process group, while the body runs.
    fn storm(body: impl FnOnce()) {
        let (stop, target) = (AtomicBool::new(false), gettid());
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    for signal in SIGNALS {
                        let own = process::id().cast_signed();
                        // SAFETY: the call takes numbers only.
                        unsafe {
                            libc::syscall(libc::SYS_tgkill, own, target.as_raw(), signal as libc::c_int)
                        };
                        killpg(getpgrp(), signal).unwrap();
                    }
                    thread::sleep(Duration::from_micros(50));
                }
            });
            let stop = Stop(&stop);
            body();
            drop(stop);
        });
    }

    struct Stop<'a>(&'a AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn launches(count: usize) {
        let ways =
            [(Launch::Image, Init::Reaper), (Launch::Image, Init::Program), (Launch::Copy, Init::Reaper)];
        let plain: Vec<Sandbox> =
            ways.map(|(launch, init)| system().launch(launch).init(init).build().unwrap()).into();
        let filter = Filter::baseline().forget(["uname"]).deny(["uname"], Action::Notify);
        let supervised = system().seccomp(filter).build().unwrap();
        let pool = Pool::new(&plain[0], 2).unwrap();
        for run in 0..count {
            let script = format!("echo {run}; exit 0");
            let outcome = match run % 5 {
                3 => {
                    let mut command = shell(&supervised, &script);
                    command.on_notify(|_| Response::Errno(libc::EPERM)).output()
                }
                4 => pool.output(&shell(&plain[0], &script)),
                way => shell(&plain[way], &script).output(),
            };
            assert_eq!(said(&outcome.unwrap_or_else(|error| panic!("{run}: {error:#}"))), format!("{run}\n"));
        }
    }

    /// Threads that have the crate's name and may take one of the signals.
    fn threads_that_take_signals() -> Vec<String> {
        let bits: u64 = SIGNALS.iter().map(|signal| 1_u64 << (*signal as u32 - 1)).sum();
        let mut found = Vec::new();
        for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let name = field(&status, "Name").unwrap_or_default();
            let blocked = field(&status, "SigBlk").and_then(|hex| u64::from_str_radix(&hex, 16).ok());
            if name.starts_with("ringfence") && blocked.is_some_and(|blocked| blocked & bits != bits) {
                found.push(name);
            }
        }
        found
    }

    #[test]
    fn launches_in_a_storm_of_signals_succeed() {
        alone(|| {
            setpgid(Pid::from_raw(0), Pid::from_raw(0)).unwrap();
            let sandbox = system().build().unwrap();
            sandbox.command("true").status().unwrap();
            drop(sandbox);
            let (mut told, stray) = pipe().unwrap();
            STRAY.store(stray.as_raw_fd(), Ordering::SeqCst);
            let before = (descriptors(), children());
            for flags in [SaFlags::empty(), SaFlags::SA_RESTART] {
                handle(flags);
                storm(|| launches(100));
                assert_eq!(threads_that_take_signals(), Vec::<String>::new());
            }
            let handled = HANDLED.load(Ordering::SeqCst);
            assert!(handled > 1_000, "{handled} signals");
            // Mount namespaces of a pool's children are let go a moment later.
            assert!(eventually(10, || (descriptors(), children()) == before), "{:?}", descriptors());
            for one in SIGNALS {
                // SAFETY: nothing of the process depends on a handler.
                unsafe { signal(one, SigHandler::SigDfl) }.unwrap();
            }
            drop(stray);
            let mut text = String::new();
            told.read_to_string(&mut text).unwrap();
            assert_eq!(text, "", "a handler ran in a child");
        });
    }

    /// Opens a file again and again by way of the caller, on the processor that the caller has too: so the one waits for the
    /// other while a descriptor is handed over.
    fn opens() {
        let _watchdog = watchdog(200);
        let own = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let mut one = CpuSet::new();
        one.set((0..CpuSet::count()).find(|cpu| own.is_set(*cpu).unwrap()).unwrap()).unwrap();
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
        let broker = Broker::new().on_open(|request| {
            if request.path == Path::new("/etc/passwd") { OpenDecision::Open } else { OpenDecision::Inside }
        });
        let sandbox = system().seccomp(broker.filter(Filter::baseline())).build().unwrap();
        let script = "n=0; while [ $n -lt 2000 ]; do line=; read -r line </etc/passwd; \
            case $line in root:*) n=$((n+1));; *) echo \"open $n: $line\"; exit 1;; esac; done; echo all";
        let mut command = shell(&sandbox, script);
        let outcome = command.supervise(broker).output().unwrap();
        let told = format!("{} {:?}", outcome.verdict(), outcome.supervisor_faults);
        assert_eq!(
            String::from_utf8_lossy(&outcome.stdout),
            "all\n",
            "{told} {}",
            String::from_utf8_lossy(&outcome.stderr)
        );
    }

    #[test]
    fn a_caller_that_is_stopped_again_and_again_answers_every_call() {
        const NAME: &str = "a_caller_that_is_stopped_again_and_again_answers_every_call";
        if role().is_some() {
            return opens();
        }
        if !Host::probe().features().contains(Features::SECCOMP_WAIT_KILLABLE) {
            return skipped(NAME, "Linux 5.19: before, such a stop may end the sandbox");
        }
        let mut caller = again(&format!("tests::{NAME}"), "opens").spawn().unwrap();
        let pid = Pid::from_raw(caller.id().cast_signed());
        let status = loop {
            if let Some(status) = caller.try_wait().unwrap() {
                break status;
            }
            kill(pid, Signal::SIGSTOP).unwrap();
            thread::sleep(Duration::from_micros(50));
            kill(pid, Signal::SIGCONT).unwrap();
            thread::sleep(Duration::from_micros(250));
        };
        assert!(status.success(), "{status}");
    }
}
