//! Hosts that execute no memfd: the set-up runs in a copy, and the report says why.

#[cfg(test)]
mod tests {
    use std::env;
    use std::io::{self, Write};
    use std::path::Path;
    use std::process::Command;

    use nix::unistd::Uid;
    use ringfence::{LaunchMethod, Sandbox};

    /// In a pid namespace of its own, as the knob belongs to one (Linux 6.3): the machine's stays as it is.
    #[test]
    fn a_host_that_executes_no_memfd_gets_a_copy_and_is_told() {
        const NAME: &str = "tests::a_host_that_executes_no_memfd_gets_a_copy_and_is_told";
        const KNOB: &str = "/proc/sys/vm/memfd_noexec";
        if env::var_os("RINGFENCE_TEST_ROLE").is_some() {
            let child =
                Sandbox::builder().system_read_only().build().unwrap().command("true").spawn().unwrap();
            let LaunchMethod::Copy { why } = &child.enforcement().method else {
                panic!("an image was executed")
            };
            assert!(why.contains("memfd_create: EACCES"), "{why}");
            assert_eq!(child.wait().unwrap().code(), Some(0));
            return;
        }
        if !Uid::effective().is_root() || !Path::new(KNOB).try_exists().unwrap() {
            let line =
                "SKIPPED a_host_that_executes_no_memfd_gets_a_copy_and_is_told: needs root and Linux 6.3\n";
            io::stderr().write_all(line.as_bytes()).unwrap();
            return;
        }
        let script = format!("echo 2 > {KNOB} && exec \"$0\" --exact {NAME}");
        let status = Command::new("unshare")
            .args(["-pf", "--mount-proc", "sh", "-c", &script])
            .arg(env::current_exe().unwrap())
            .env("RINGFENCE_TEST_ROLE", "no memfd")
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
    }
}
