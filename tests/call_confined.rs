//! What a function of the caller sees behind the fence is what a program sees there, and it reaches nothing of the caller.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::io::{Write, stdout};
    use std::str::from_utf8;
    use std::time::Duration;

    use ringfence::{Portable, Sandbox, Stdio, WorkerIo};

    use super::support::{field, said, shell, system, watchdog};

    /// What has to be the same, line by line.
    const FIELDS: [&str; 19] = [
        "Uid",
        "Gid",
        "Groups",
        "NStgid",
        "NSpid",
        "NSpgid",
        "NSsid",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "ShdPnd",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
    ];

    fn call<T: Portable>(sandbox: &Sandbox, function: impl FnOnce() -> T) -> T {
        let mut closure = sandbox.closure();
        closure.allow_threads().deadline(Duration::from_secs(100));
        closure.call(|_| function()).unwrap_or_else(|failure| panic!("{failure:#}"))
    }

    fn read(path: &str) -> String {
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn links(directory: &str) -> String {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mut list: Vec<String> = entries
            .filter_map(|path| {
                let to = fs::read_link(&path).ok()?;
                Some(format!("{} {}", path.file_name()?.to_str()?, to.display()))
            })
            .collect();
        list.sort();
        list.join("\n")
    }

    #[test]
    fn its_status_is_that_of_a_program() {
        let _watchdog = watchdog(200);
        let sandbox = system().build().unwrap();
        // Of the shell's own process, without a fork.
        let script = "while read -r line; do echo \"$line\"; done </proc/self/status";
        let program = said(&shell(&sandbox, script).stdout(Stdio::piped()).output().unwrap());
        let function = call(&sandbox, || read("/proc/self/status"));
        for name in FIELDS {
            let (wanted, seen) = (field(&program, name), field(&function, name));
            if name == "SigCgt" {
                // A shell catches what it likes; the function catches nothing.
                assert_eq!(seen.as_deref(), Some("0000000000000000"));
                continue;
            }
            assert_eq!(seen, wanted, "{name}");
        }
        assert_eq!(field(&function, "Threads").as_deref(), Some("1"));
    }

    #[test]
    fn its_mounts_limits_and_namespaces_are_those_of_a_program() {
        let _watchdog = watchdog(200);
        let sandbox = system().build().unwrap();
        let cat = |path: &str| said(&sandbox.command("cat").arg(path).output().unwrap());
        // Numbers of mounts and devices differ from sandbox to sandbox: places, types and options do not.
        let shape = |text: String| -> Vec<String> {
            let line = |line: &str| {
                let words: Vec<&str> = line.split(' ').collect();
                let kind =
                    line.split_once(" - ").map_or("", |(_, rest)| rest.split(' ').next().unwrap_or(""));
                format!("{} {} {kind}", words[4], words[5])
            };
            text.lines().map(line).collect()
        };
        let function = call(&sandbox, || read("/proc/self/mountinfo"));
        assert_eq!(shape(function), shape(cat("/proc/self/mountinfo")));
        assert_eq!(call(&sandbox, || read("/proc/self/limits")), cat("/proc/self/limits"));
        let own = links("/proc/self/ns");
        let inside = call(&sandbox, || links("/proc/self/ns"));
        for (ours, theirs) in own.lines().zip(inside.lines()).filter(|(ours, _)| !ours.starts_with("time")) {
            assert_ne!(ours, theirs);
        }
        assert_eq!(call(&sandbox, || env::current_dir().unwrap().display().to_string()), "/");
        assert_eq!(call(&sandbox, || read("/proc/self/oom_score_adj")), cat("/proc/self/oom_score_adj"));
    }

    #[test]
    fn it_has_no_descriptor_and_no_variable_of_the_callers() {
        let _watchdog = watchdog(200);
        let sandbox = system().build().unwrap();
        let _open = fs::File::open("/etc/passwd").unwrap();
        let _other = sandbox.hold().unwrap();
        let list = call(&sandbox, || links("/proc/self/fd"));
        let numbers: Vec<&str> = list.lines().filter_map(|line| line.split(' ').next()).collect();
        // The streams, the socket for the result, and the directory that is listed.
        assert_eq!(numbers[..4], ["0", "1", "2", "3"], "{list}");
        assert!(numbers.len() <= 5 && !list.contains("passwd"), "{list}");
        assert!(env::vars_os().count() > 0);
        assert_eq!(call(&sandbox, || env::vars_os().count()), 0);
    }

    #[test]
    fn it_shares_no_memory_that_could_be_written_to() {
        let _watchdog = watchdog(200);
        let sandbox = system().build().unwrap();
        // The caller's mapping by which it directs another sandbox.
        let _other = sandbox.hold().unwrap();
        let shared = |maps: &str| -> Vec<String> {
            let lines =
                maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.ends_with('s')));
            lines.filter(|line| line.contains("memfd:") || line.contains("rw")).map(str::to_owned).collect()
        };
        assert!(!shared(&read("/proc/self/maps")).is_empty(), "the caller shares memory with its sandboxes");
        let inside = call(&sandbox, || read("/proc/self/maps"));
        assert!(inside.contains("[stack]"), "{inside}");
        assert_eq!(shared(&inside), Vec::<String>::new());
    }

    fn tell(io: &mut WorkerIo) -> i32 {
        let path = from_utf8(&io.arguments).unwrap();
        let text = if path.ends_with('/') { links(path) } else { read(path) };
        // Past libtest's capture, which is copied too.
        i32::from(stdout().write_all(text.as_bytes()).is_err())
    }

    #[test]
    fn a_workers_status_and_descriptors_are_those_of_a_program() {
        let _watchdog = watchdog(200);
        let sandbox = system().build().unwrap();
        let server = sandbox.fork_server().function("tell", tell).allow_threads().start().unwrap();
        let ask = |path: &str| {
            let mut worker = server.worker("tell");
            worker.arguments(path).stdout(Stdio::piped()).stderr(Stdio::piped());
            said(&worker.spawn().unwrap().wait_with_output().unwrap())
        };
        let program = said(&sandbox.command("cat").arg("/proc/self/status").output().unwrap());
        let worker = ask("/proc/self/status");
        for name in FIELDS.iter().filter(|name| !name.starts_with("NS")) {
            assert_eq!(field(&worker, name), field(&program, name), "{name}");
        }
        let list = ask("/proc/self/fd/");
        let numbers: Vec<&str> = list.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(numbers[..3], ["0", "1", "2"], "{list}");
        assert!(numbers.len() <= 4 && !list.contains("socket:"), "no socket of the server's: {list}");
        assert!(!ask("/proc/self/maps").contains("memfd:"));
    }
}
