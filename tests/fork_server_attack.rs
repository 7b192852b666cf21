//! A worker that was taken over: what it tries against the server, against another worker, and what it reaches.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::IoSliceMut;
    use std::ptr;
    use std::thread;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::sys::signal::{Signal, kill, killpg};
    use nix::sys::uio::{RemoteIoVec, process_vm_readv};
    use nix::unistd::Pid;
    use ringfence::{Child, Error, Filter, ForkServer, Verdict, WorkerIo, WorkerIsolation};

    use super::support::{field, skipped, system, watchdog};

    fn hang(_io: &mut WorkerIo) -> i32 {
        loop {
            thread::sleep(Duration::from_secs(100));
        }
    }

    /// `what pid`: the errno of the attempt, 0 where it succeeded.
    fn attack(io: &mut WorkerIo) -> i32 {
        let text = String::from_utf8(io.arguments.clone()).unwrap();
        let (what, pid) = text.split_once(' ').unwrap();
        let pid = Pid::from_raw(pid.parse().unwrap());
        let result = match what {
            "kill" => kill(pid, Signal::SIGKILL),
            "stop" => kill(pid, Signal::SIGSTOP),
            "everybody" => kill(Pid::from_raw(-1), Signal::SIGKILL),
            "group" => killpg(pid, Signal::SIGKILL),
            "memory" => OpenOptions::new()
                .read(true)
                .write(true)
                .open(format!("/proc/{pid}/mem"))
                .map(drop)
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0))),
            "descriptors" => fs::read_dir(format!("/proc/{pid}/fd"))
                .map(drop)
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0))),
            "read" => {
                let at = ptr::from_ref(&text).addr();
                let mut buffer = [0; 8];
                let remote = [RemoteIoVec { base: at, len: 8 }];
                process_vm_readv(pid, &mut [IoSliceMut::new(&mut buffer)], &remote).map(drop)
            }
            other => panic!("{other}"),
        };
        result.map_or_else(|errno| errno as i32, |()| 0)
    }

    /// A filter that refuses nothing: what holds is the other fences' work.
    fn server() -> ForkServer {
        let sandbox = system().seccomp(Filter::deny_list()).build().unwrap();
        let server = sandbox.fork_server().function("hang", hang).function("attack", attack);
        server.allow_threads().start().unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn inside(pid: u32) -> u32 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let pids = field(&status, "NSpid").unwrap();
        pids.split_whitespace().next_back().unwrap().parse().unwrap()
    }

    fn tried(server: &ForkServer, what: &str, pid: u32) -> Errno {
        let mut worker = server.worker("attack");
        let outcome = worker.arguments(format!("{what} {pid}")).spawn().unwrap().wait().unwrap();
        let Verdict::Exited(errno) = outcome.verdict() else { panic!("{what}: {}", outcome.verdict()) };
        Errno::from_raw(errno)
    }

    fn lives(child: &Child) -> bool {
        child.try_wait().unwrap().is_none()
    }

    #[test]
    fn nobody_can_be_looked_into() {
        let _watchdog = watchdog(200);
        let server = server();
        let victim = server.worker("hang").spawn().unwrap();
        for pid in [inside(victim.id()), inside(server.child().id()), 1] {
            for what in ["memory", "read", "descriptors"] {
                let errno = tried(&server, what, pid);
                assert!(matches!(errno, Errno::EPERM | Errno::EACCES), "{what} of {pid}: {errno:?}");
            }
        }
        assert!(lives(&victim) && lives(server.child()));
    }

    #[test]
    fn nobody_can_be_signalled_where_the_kernel_has_scopes() {
        let _watchdog = watchdog(200);
        let server = server();
        if let WorkerIsolation::SignalsOpen { why } = server.isolation() {
            return skipped("nobody_can_be_signalled_where_the_kernel_has_scopes", why);
        }
        let victim = server.worker("hang").spawn().unwrap();
        for pid in [inside(victim.id()), inside(server.child().id()), 1] {
            // The group of PID 1 would be a word for everybody.
            for what in ["kill", "stop", "group"].into_iter().filter(|what| pid != 1 || *what != "group") {
                let errno = tried(&server, what, pid);
                assert!(matches!(errno, Errno::EPERM | Errno::ESRCH), "{what} of {pid}: {errno:?}");
            }
        }
        // To everybody at once the kernel says yes, whomever it reaches (kill(2)).
        tried(&server, "everybody", 0);
        assert!(lives(&victim) && lives(server.child()));
    }

    #[test]
    fn what_a_worker_can_do_to_its_server_is_to_end_it_at_most() {
        let _watchdog = watchdog(200);
        let server = server();
        let pid = inside(server.child().id());
        let worker = server.worker("attack").arguments(format!("kill {pid}")).spawn();
        if *server.isolation() == WorkerIsolation::Landlock {
            assert_eq!(worker.unwrap().wait().unwrap().verdict(), Verdict::Exited(libc::EPERM));
            assert!(lives(server.child()));
        } else {
            // Then everything in that sandbox ends, maybe before its caller has seen it begin, and the next request says so.
            let told = |error: Error| assert!(error.to_string().contains("fork server"), "{error}");
            worker.map_or_else(told, |worker| drop(worker.wait().unwrap()));
            told(server.worker("hang").spawn().unwrap_err());
        }
    }
}
