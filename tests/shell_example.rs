//! The example with a shell in a terminal, used as a person uses it: through a terminal of its own.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::{self, File, Permissions};
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::process::{self, Child, Command, Stdio};

    use nix::fcntl::{OFlag, open};
    use nix::pty::{posix_openpt, ptsname_r, unlockpt};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::stat::Mode;
    use nix::sys::termios::{Termios, tcgetattr};
    use nix::unistd::Pid;

    use super::support::{eventually, watchdog};

    fn program() -> PathBuf {
        let mut path = env::current_exe().unwrap();
        path.pop();
        path.pop();
        path.join("examples/shell")
    }

    /// The example in a terminal of which the test is the user.
    struct User {
        keyboard: File,
        terminal: OwnedFd,
        before: Termios,
        example: Child,
    }

    impl User {
        fn new(args: &[&str]) -> Self {
            let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
            unlockpt(&master).unwrap();
            let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            let terminal = open(&*ptsname_r(&master).unwrap(), flags, Mode::empty()).unwrap();
            let before = tcgetattr(&terminal).unwrap();
            let stdio = || Stdio::from(terminal.try_clone().unwrap());
            // It leads a session whose terminal this is, as behind a terminal emulator.
            let mut command = Command::new("setsid");
            command.arg("--ctty").arg(program()).args(args);
            let user = Self {
                example: command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap(),
                keyboard: File::from(OwnedFd::from(master)),
                terminal,
                before,
            };
            user.size(30, 100);
            user
        }

        fn size(&self, rows: u16, columns: u16) {
            let mut stty = Command::new("stty");
            stty.args(["rows", &rows.to_string(), "cols", &columns.to_string()]);
            assert!(stty.stdin(Stdio::from(self.terminal.try_clone().unwrap())).status().unwrap().success());
        }

        fn types(&mut self, text: &str) {
            self.keyboard.write_all(text.as_bytes()).unwrap();
        }

        /// What is on the screen up to this text; the watchdog bounds it.
        fn sees(&mut self, text: &str) -> String {
            let (mut seen, mut byte) = (String::new(), [0]);
            while !seen.ends_with(text) {
                assert_eq!(self.keyboard.read(&mut byte).unwrap(), 1, "{seen}");
                seen.push(char::from(byte[0]));
            }
            seen
        }

        /// Types a line and sees what it prints, which must not be what was typed.
        fn does(&mut self, line: &str, prints: &str) {
            self.types(&format!("{line}\n"));
            self.sees(prints);
        }

        /// The exit status; and the terminal is as it was.
        fn ends(mut self) -> Option<i32> {
            let status = self.example.wait().unwrap();
            assert_eq!(tcgetattr(&self.terminal).unwrap(), self.before, "the terminal is as it was");
            status.code()
        }
    }

    #[test]
    fn a_new_size_is_seen_inside() {
        let _watchdog = watchdog(120);
        let mut user = User::new(&[]);
        user.sees("fenced$ ");
        user.size(41, 121);
        // The signal is passed on a moment later.
        user.does(
            "until test \"$(stty size)\" = '41 121'; do sleep 0.01; done; echo size=$(stty size)",
            "size=41 121",
        );
        user.does("exit 7", "\n");
        assert_eq!(user.ends(), Some(7));
    }

    #[test]
    fn keys_interrupt_and_stop_what_runs_and_not_the_shell() {
        let _watchdog = watchdog(120);
        let mut user = User::new(&[]);
        user.sees("fenced$ ");
        // What prints is in front by then.
        user.does("sh -c 'echo go$((1 + 1)); exec sleep 1000'", "go2\r\n");
        user.types("\x03");
        user.sees("fenced$ ");
        user.does("echo alive$((1 + 1))", "alive2\r\n");
        user.does("sh -c 'echo go$((2 + 1)); exec sleep 1000'", "go3\r\n");
        user.types("\x1a");
        user.sees("fenced$ ");
        user.does("jobs", "Stopped");
        user.does("kill %1; fg; echo over$((1 + 1))", "over2\r\n");
        user.does("exit 3", "\n");
        assert_eq!(user.ends(), Some(3));
    }

    #[test]
    fn another_shell_joins_the_sandbox_and_leads_back() {
        let _watchdog = watchdog(120);
        let mut user = User::new(&[]);
        user.sees("fenced$ ");
        user.does("echo from the first > /tmp/note; echo noted$((1 + 1))", "noted2\r\n");
        user.types("\x1d");
        user.sees("[another shell]");
        user.sees("fenced$ ");
        user.does("cat /tmp/note", "from the first\r\n");
        user.does("echo $$ > /tmp/second; stty size", "30 100");
        user.types("exit\n");
        user.sees("[back]");
        user.does("test -s /tmp/second && echo first$((1 + 1))", "first2\r\n");
        user.does("exit", "\n");
        assert_eq!(user.ends(), Some(0));
    }

    #[test]
    fn a_signal_to_the_example_ends_it_in_order() {
        let _watchdog = watchdog(120);
        for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
            let mut user = User::new(&[]);
            user.sees("fenced$ ");
            kill(Pid::from_raw(user.example.id().cast_signed()), signal).unwrap();
            assert_eq!(user.ends(), Some(code));
        }
    }

    #[test]
    fn a_hang_up_reaches_the_shell() {
        let _watchdog = watchdog(120);
        let directory = env::temp_dir().join(format!("ringfence-shell-{}", process::id()));
        // Also where what is printed is what finds that the terminal is gone.
        for then in ["sleep 0.01", "echo more"] {
            fs::create_dir_all(&directory).unwrap();
            fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
            let script =
                format!("trap 'echo hung up > note; exit' HUP; echo set$((1 + 1)); while :; do {then}; done");
            let mut user = User::new(&["--write", directory.to_str().unwrap(), "sh", "-c", &script]);
            user.sees("set2");
            let User { keyboard, terminal, mut example, .. } = user;
            drop((keyboard, terminal));
            assert_eq!(example.wait().unwrap().code(), Some(129), "{then}");
            assert!(eventually(10, || fs::read_to_string(directory.join("note"))
                .is_ok_and(|text| text == "hung up\n")));
            fs::remove_dir_all(&directory).unwrap();
        }
    }

    #[test]
    fn without_a_terminal_it_is_a_filter() {
        let _watchdog = watchdog(120);
        let mut command = Command::new(program());
        let mut example =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        example.stdin.take().unwrap().write_all(b"echo out; echo err >&2; test -t 0 || exit 5\n").unwrap();
        let output = example.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        let output = Command::new(program()).arg("/no/such").stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such"), "{output:?}");
    }
}
