//! A pseudoterminal as the program's own: size, controlling terminal, job control, hang-up; and the caller's made raw.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, OwnedFd};
    use std::process;
    use std::time::Duration;

    use nix::fcntl::{OFlag, open};
    use nix::pty::{posix_openpt, ptsname_r, unlockpt};
    use nix::sys::stat::Mode;
    use nix::sys::termios::{LocalFlags, tcgetattr};
    use ringfence::{Builder, Child, Init, Launch, RawMode, Sandbox, Terminal, Verdict, WindowSize};

    use super::support::{alone, descriptors, eventually, shell, status_field, system, watchdog};

    const SIZE: WindowSize = WindowSize { rows: 33, columns: 101 };

    fn spawn(builder: Builder, script: &str) -> Child {
        let sandbox: Sandbox = builder.build().unwrap();
        shell(&sandbox, script).terminal(SIZE).spawn().unwrap()
    }

    fn terminal(child: &Child) -> &Terminal {
        child.terminal.as_ref().unwrap()
    }

    /// Reads until the text has come; the watchdog bounds it.
    fn until(mut terminal: &Terminal, text: &str) -> String {
        let (mut seen, mut chunk) = (String::new(), [0; 4096]);
        while !seen.contains(text) {
            let count = terminal.read(&mut chunk).unwrap();
            assert!(count > 0, "the end, after {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
        seen
    }

    fn all(mut terminal: &Terminal) -> String {
        let mut text = Vec::new();
        terminal.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).replace('\r', "")
    }

    fn kinds() -> Vec<Builder> {
        vec![system(), system().init(Init::Program), system().launch(Launch::Copy), system().share_session()]
    }

    #[test]
    fn the_program_has_a_terminal_of_that_size() {
        let _watchdog = watchdog(60);
        for builder in kinds() {
            let child =
                spawn(builder, "test -t 0 && test -t 1 && test -t 2 && stty size && echo to-tty > /dev/tty");
            let text = all(terminal(&child));
            assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(0), "{text}");
            assert_eq!(text, "33 101\nto-tty\n");
        }
    }

    #[test]
    fn it_leads_its_session_and_the_terminal_is_the_sessions() {
        let _watchdog = watchdog(60);
        for builder in kinds() {
            let child = spawn(builder, "echo up; read line");
            until(terminal(&child), "up");
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
            // State, parent, group, session, terminal, group in front (proc_pid_stat(5)).
            let (group, session, device, front) = (fields[2], fields[3], fields[4], fields[5]);
            let id = child.id().to_string();
            assert_eq!((group, session, front), (&*id, &*id, &*id));
            assert_ne!(device, "0", "a controlling terminal");
        }
    }

    #[test]
    fn what_is_typed_is_read_and_keys_make_signals() {
        let _watchdog = watchdog(60);
        for builder in kinds() {
            let child = spawn(
                builder,
                "trap 'echo caught' INT; echo up; while [ -z \"$line\" ]; do read line; done; echo got $line",
            );
            let mut typed = terminal(&child);
            until(typed, "up");
            typed.write_all(b"\x03").unwrap();
            until(typed, "caught");
            typed.write_all(b"first\n").unwrap();
            until(typed, "got first");
            assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(0));
        }
    }

    #[test]
    fn a_new_size_is_told() {
        let _watchdog = watchdog(60);
        let child = spawn(system(), "trap 'stty size; exit' WINCH; echo up; while :; do sleep 0.01; done");
        until(terminal(&child), "up");
        let size = WindowSize { rows: 50, columns: 132 };
        terminal(&child).resize(size).unwrap();
        until(terminal(&child), "50 132");
        assert_eq!(WindowSize::of(terminal(&child)).unwrap(), size);
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(0));
    }

    /// An interactive shell that gives the terminal to each of its jobs; and one that has joined a sandbox.
    fn interactive() -> Vec<(Child, Option<Child>)> {
        let shell = |builder: Builder| {
            builder.build().unwrap().command("sh").arg("-i").env("PS1", "> ").terminal(SIZE).spawn().unwrap()
        };
        let mut list: Vec<(Child, Option<Child>)> =
            kinds().into_iter().map(|kind| (shell(kind), None)).collect();
        let host = super::support::shell(&system().build().unwrap(), "sleep 1000").spawn().unwrap();
        let joined = host.command("sh").arg("-i").env("PS1", "> ").terminal(SIZE).spawn().unwrap();
        list.push((joined, Some(host)));
        list
    }

    #[test]
    fn jobs_of_a_shell_have_the_terminal_in_turn() {
        let _watchdog = watchdog(120);
        for (child, _host) in interactive() {
            let mut typed = terminal(&child);
            until(typed, "> ");
            // A job of its own group, in front.
            typed.write_all(b"sh -c 'echo go$((1 + 1)); exec sleep 1000'\n").unwrap();
            until(typed, "go2");
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
            assert_ne!(fields[2], fields[5], "the shell's group is not in front: {stat}");
            typed.write_all(b"\x03").unwrap();
            until(typed, "> ");
            typed.write_all(b"sh -c 'echo go$((2 + 1)); exec sleep 1000'\n").unwrap();
            until(typed, "go3");
            typed.write_all(b"\x1a").unwrap();
            until(typed, "> ");
            typed.write_all(b"jobs\n").unwrap();
            until(typed, "Stopped");
            typed.write_all(b"kill %1; fg; exit 6\n").unwrap();
            assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(6));
        }
    }

    #[test]
    fn a_new_size_is_told_to_the_group_in_front() {
        let _watchdog = watchdog(120);
        for (child, _host) in interactive() {
            let mut typed = terminal(&child);
            until(typed, "> ");
            let job = "trap \"stty size\" WINCH; echo up$((1 + 1)); while :; do sleep 0.01; done";
            typed.write_all(format!("sh -c '{job}'\n").as_bytes()).unwrap();
            until(typed, "up2");
            terminal(&child).resize(WindowSize { rows: 44, columns: 99 }).unwrap();
            until(typed, "44 99");
            drop(child);
        }
    }

    #[test]
    fn a_hang_up_reaches_the_group_in_front_too() {
        let _watchdog = watchdog(120);
        // A shell that is PID 1 itself has no handler for SIGHUP, and so ignores it (pid_namespaces(7)).
        let ordinary =
            |(child, host): &(Child, Option<Child>)| host.is_some() || child.id() != child.init_id();
        for (mut child, _host) in interactive().into_iter().filter(ordinary) {
            let mut typed = terminal(&child);
            until(typed, "> ");
            typed
                .write_all(b"sh -c 'trap \"exit 5\" HUP; echo up$((1 + 1)); while :; do sleep 0.01; done'\n")
                .unwrap();
            until(typed, "up2");
            drop(child.terminal.take());
            // An interactive shell ends by it; how, differs from shell to shell.
            let outcome = child.wait().unwrap();
            let hung = matches!(
                outcome.verdict(),
                Verdict::Exited(_) | Verdict::Signaled { signal: libc::SIGHUP, .. }
            );
            assert!(hung, "{outcome:?}");
        }
    }

    #[test]
    fn closing_it_hangs_up() {
        let _watchdog = watchdog(60);
        for builder in kinds() {
            let mut child = spawn(builder, "trap 'exit 7' HUP; echo up; while :; do sleep 0.01; done");
            until(terminal(&child), "up");
            drop(child.terminal.take());
            assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(7));
        }
    }

    #[test]
    fn the_end_of_the_program_is_the_end_of_the_terminal() {
        let _watchdog = watchdog(60);
        let child = spawn(system(), "echo last words");
        assert_eq!(all(terminal(&child)), "last words\n");
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(0));
    }

    #[test]
    fn nothing_can_be_typed_from_inside() {
        let _watchdog = watchdog(60);
        let script = "import fcntl, termios\n\
                      for request in (termios.TIOCSTI, termios.TIOCSTI | 1 << 31):\n  \
                      try: fcntl.ioctl(0, request, b'x'); print('typed')\n  \
                      except OSError as error: print(error.errno)\n";
        let sandbox = system().build().unwrap();
        let child = sandbox.command("python3").args(["-c", script]).terminal(SIZE).spawn().unwrap();
        let text = all(terminal(&child));
        assert!(text.starts_with("1\n") && !text.contains("typed"), "{text}");
    }

    #[test]
    fn each_spawn_has_its_own_and_nothing_stays_open() {
        alone(|| {
            let sandbox = system().build().unwrap();
            assert!(sandbox.command("true").status().unwrap().success());
            let before = descriptors();
            let mut command = shell(&sandbox, "read line; echo $line");
            command.terminal(SIZE);
            let children: Vec<Child> = (0..4).map(|_| command.spawn().unwrap()).collect();
            for (number, child) in (0..).zip(&children) {
                terminal(child).write_all(format!("line {number}\n").as_bytes()).unwrap();
            }
            for (number, child) in (0..).zip(&children) {
                assert!(all(terminal(child)).ends_with(&format!("line {number}\n")));
            }
            drop(children);
            assert!(eventually(10, || descriptors() == before), "{:?}", descriptors());
        });
    }

    /// A terminal of this test's own, as the caller's would be.
    fn own_terminal() -> (OwnedFd, OwnedFd) {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname_r(&master).unwrap();
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let peer = open(&*name, flags, Mode::empty()).unwrap();
        (master.into(), peer)
    }

    #[test]
    fn raw_mode_ends_with_its_guard() {
        let (_master, peer) = own_terminal();
        let canonical = || tcgetattr(&peer).unwrap().local_flags.contains(LocalFlags::ICANON);
        assert!(canonical());
        let raw = RawMode::new(peer.as_fd()).unwrap();
        assert!(!canonical());
        drop(raw);
        assert!(canonical());
        RawMode::new(peer.as_fd()).unwrap().end().unwrap();
        assert!(canonical());
        let file = fs::File::open("/dev/null").unwrap();
        assert_eq!(RawMode::new(&file).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(WindowSize::of(&file).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }

    #[test]
    fn the_callers_own_terminal_is_not_the_programs() {
        let _watchdog = watchdog(60);
        let child = spawn(system(), "echo up; sleep 1000");
        until(terminal(&child), "up");
        assert!(child.wait_timeout(Duration::from_millis(10)).unwrap().is_none());
        assert_eq!(status_field("self", "Pid").unwrap(), process::id().to_string());
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        let theirs = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let session = |stat: &str| stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().to_owned();
        assert_ne!(session(&own), session(&theirs));
    }
}
