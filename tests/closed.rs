//! Every call that the default filter closes, made with it and without it: both answers are the ones that are written down.

#[cfg(test)]
#[path = "support/closed_calls.rs"]
mod closed_calls;
#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use ringfence::{Action, Architecture, Builder, Capabilities, Filter, Namespaces};

    use super::closed_calls::{GONE, Place, Row, rows};
    use super::support::{build, field, is_root, python, sandbox, say, skip};

    const NATIVE: Architecture = if cfg!(target_arch = "x86_64") {
        Architecture::X86_64
    } else if cfg!(target_arch = "aarch64") {
        Architecture::Aarch64
    } else {
        Architecture::Riscv64
    };

    /// `call(number, …)`: the errno that the call gave, in a process of its own, which may be changed or ended by it.
    const PRELUDE: &str = "
import ctypes, os, pty, fcntl, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
room = ctypes.create_string_buffer(64)
def vector(size):
    global held
    held = ctypes.create_string_buffer(struct.pack('QQ', ctypes.addressof(room), size))
    return ctypes.addressof(held)
def terminal():
    os.setsid()
    master, slave = pty.openpty()
    fcntl.ioctl(slave, 0x540e, 0)
    return slave
def call(number, make):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            args = [a if isinstance(a, bytes) else ctypes.c_long(a) for a in make()]
            ctypes.set_errno(0)
            failed = libc.syscall(ctypes.c_long(number), *args) == -1
            os._exit(ctypes.get_errno() if failed else 0)
        except BaseException as fault:
            print(fault)
            os._exit(255)
    status = os.waitpid(child, 0)[1]
    print(os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status))
";

    fn script(calls: &[(u32, &str)]) -> String {
        let line = |(number, args): &(u32, &str)| {
            let comma = if args.is_empty() { "" } else { "," };
            format!("call({number}, lambda: ({args}{comma}))\n")
        };
        calls.iter().map(line).fold(PRELUDE.to_owned(), |script, line| script + &line)
    }

    fn answers(builder: Builder, calls: &[(u32, &str)]) -> Vec<String> {
        python(&build(builder), &script(calls)).lines().map(str::to_owned).collect()
    }

    /// Those that the calling process has: what no row needs may be missing in a container.
    fn capabilities() -> Capabilities {
        let status = fs::read_to_string("/proc/self/status").expect("status");
        let bits = |set| u64::from_str_radix(field(&status, set), 16).expect("a mask");
        Capabilities::from_bits(if is_root() { bits("CapPrm") } else { u64::MAX >> 23 })
    }

    fn builder(place: Place) -> Builder {
        match place {
            Place::Plain => sandbox(),
            Place::OwnRoot => {
                let every = Capabilities::from_bits(u64::MAX >> 23);
                sandbox().ids(0, 0).capabilities(every).allow_user_namespaces()
            }
            Place::HostRoot => {
                let sets = Namespaces::STANDARD.difference(Namespaces::USER);
                sandbox().namespaces(sets).keep_host_root().ids(0, 0).capabilities(capabilities())
            }
        }
    }

    fn setting(path: &str) -> i32 {
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(-1)
    }

    /// Why the control shows nothing on this machine, where that is so.
    fn impossible(row: &Row, open: &str) -> Option<&'static str> {
        let is = |errno: i32| row.open != errno && open == errno.to_string();
        let sysctl = |path, refuses: fn(i32) -> bool| refuses(setting(path)).then_some(path);
        let settings = match row.call {
            "ptrace" | "process_vm_readv" | "process_vm_writev" if row.open == 0 => {
                sysctl("/proc/sys/kernel/yama/ptrace_scope", |scope| scope > 0)
            }
            "ioctl" if row.open == 0 => sysctl("/proc/sys/dev/tty/legacy_tiocsti", |on| on == 0),
            "userfaultfd" if row.place == Place::Plain && (is(libc::EPERM) || is(libc::EINVAL)) => {
                Some("before Linux 5.11 an unprivileged process gets none")
            }
            "io_uring_setup" => sysctl("/proc/sys/kernel/io_uring_disabled", |level| level > 0),
            "init_module" | "finit_module" | "delete_module" => {
                sysctl("/proc/sys/kernel/modules_disabled", |off| off > 0)
            }
            "kexec_load" | "kexec_file_load" => sysctl("/proc/sys/kernel/kexec_load_disabled", |off| off > 0),
            _ => None,
        };
        if is(libc::ENOSYS) {
            Some("this kernel does not have the call")
        } else if row.closed == libc::EAFNOSUPPORT && is(libc::EAFNOSUPPORT) {
            Some("this kernel does not have the family")
        } else {
            settings
        }
    }

    /// A filter around the tests would answer the controls.
    fn is_filtered() -> bool {
        let status = fs::read_to_string("/proc/self/status").expect("status");
        field(&status, "Seccomp") != "0"
    }

    /// What is wrong with the answers to the rows of one place.
    fn faults(place: Place) -> Vec<String> {
        let rows: Vec<Row> = rows().into_iter().filter(|row| row.place == place).collect();
        let known: Vec<(u32, &Row)> =
            rows.iter().filter_map(|row| Some((NATIVE.number(row.call)?, row))).collect();
        let calls: Vec<(u32, &str)> =
            known.iter().map(|(number, row)| (*number, row.args.as_str())).collect();
        let closed = answers(builder(place), &calls);
        let open = answers(builder(place).allow_all_calls(), &calls);
        assert_eq!((closed.len(), open.len()), (calls.len(), calls.len()), "{closed:?}\n{open:?}");
        let mut faults = Vec::new();
        for ((_, row), (closed, open)) in known.iter().zip(closed.iter().zip(&open)) {
            if *closed != row.closed.to_string() {
                faults.push(format!("{row}: {closed} under the filter, wanted {}", row.closed));
            }
            match impossible(row, open) {
                Some(why) => say(&format!("SKIPPED control of {row}: {why}")),
                None if *open != row.open.to_string() => {
                    faults.push(format!("{row}: {open} without the filter, wanted {}", row.open));
                }
                None => {}
            }
        }
        faults
    }

    #[test]
    fn every_closed_call_answers_otherwise_without_the_filter() {
        if is_filtered() {
            skip!("every_closed_call_answers_otherwise_without_the_filter", "the caller is under a filter");
        }
        let faults: Vec<String> = [Place::Plain, Place::OwnRoot].into_iter().flat_map(faults).collect();
        assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    }

    #[test]
    fn a_host_root_with_every_capability_is_refused_by_the_filter_alone() {
        let name = "a_host_root_with_every_capability_is_refused_by_the_filter_alone";
        if !is_root() {
            skip!(name, "only the host's root has the capabilities without which the kernel refuses first");
        }
        if is_filtered() {
            skip!(name, "the caller is under a filter");
        }
        let faults = faults(Place::HostRoot);
        assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    }

    #[test]
    fn every_call_that_the_baseline_refuses_has_a_row() {
        let baseline = Filter::baseline();
        let tried: BTreeSet<&str> = rows().iter().map(|row| row.call).collect();
        let refused = |number| {
            let all = [0, u64::from(u32::MAX), u64::MAX];
            all.into_iter()
                .any(|value| baseline.answer(NATIVE, NATIVE.audit(), number, &[value; 6]) != Action::Allow)
        };
        let missing: Vec<&str> = NATIVE
            .calls()
            .filter(|(call, number)| refused(*number) && !tried.contains(call))
            .map(|(call, _)| call)
            .filter(|call| !GONE.contains(call))
            .collect();
        assert_eq!(missing, Vec::<&str>::new());
        assert!(tried.iter().all(|call| Architecture::X86_64.number(call).is_some()), "a name is wrong");
    }

    /// Whether this kernel has x32 or not: a default other than its own ENOSYS shows whose answer it is.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn x32_numbers_are_absent_under_every_filter() {
        // getpid, execve of x32, ioctl of x32, the bit alone, and the topmost number.
        let twins = [0x4000_0027, 0x4000_0208, 0x4000_0202, 0x4000_0000, u32::MAX].map(|number| (number, ""));
        let calls: Vec<(u32, &str)> = twins.into_iter().chain([(600, ""), (0x3fff_ffff, "")]).collect();
        let (none, mine) = (libc::ENOSYS.to_string(), libc::EDOM.to_string());
        let other = Filter::baseline().otherwise(Action::Errno(libc::EDOM));
        let seen = answers(sandbox().seccomp(other), &calls);
        assert_eq!(seen[..5], [none.as_str(); 5]);
        assert_eq!(seen[5..], [mine.as_str(); 2], "the default of this filter");
        assert_eq!(answers(sandbox(), &calls), [none.as_str(); 7]);
        let every = Filter::deny_list();
        assert_eq!(answers(sandbox().seccomp(every), &calls[..5]), [none.as_str(); 5]);
        let open = answers(sandbox().allow_all_calls(), &calls[..1]);
        match open[..] {
            [ref answer] if *answer == none => say("SKIPPED control of x32 getpid(): this kernel has no x32"),
            ref answer => assert_eq!(answer, ["0"], "x32 getpid() without a filter"),
        }
    }
}
