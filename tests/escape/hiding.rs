//! Programs that hide from a kill, and bombs: what is left of them, seen by the pipe that they hold.

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read, pipe};
    use std::os::fd::{AsFd, OwnedFd};
    use std::process::{Child as Process, Command};
    use std::time::Duration;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use ringfence::{Access, Builder, Child, Mount, Sandbox, Tmpfs, Verdict};

    use crate::arena::{at, enter, payload};
    use crate::support::say;

    const WAYS: [&str; 8] = ["daemon", "session", "deaf", "stopped", "traced", "vfork", "renamed", "forkers"];
    /// A guard: nothing is meant to take that long.
    const LONG: u16 = 65_000;

    /// Whether something comes, or all ends are closed, in so many milliseconds.
    fn is_readable(pipe: &impl AsFd, milliseconds: u16) -> bool {
        let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::from(milliseconds)).expect("poll") == 1
    }

    /// Waits until it has hidden.
    fn await_ready(way: &str, pipe: &mut (impl AsFd + Read)) {
        assert!(is_readable(pipe, LONG), "{way}: it does not get ready");
        let mut word = [0; 6];
        pipe.read_exact(&mut word).unwrap_or_else(|error| panic!("{way}: {error}"));
        assert_eq!(&word, b"ready\n", "{way}");
    }

    /// Whether every process that held the other end has ended, in so many milliseconds.
    fn is_over(pipe: &mut (impl AsFd + Read), milliseconds: u16) -> bool {
        let mut word = [0; 6];
        while is_readable(pipe, milliseconds) {
            match pipe.read(&mut word) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted),
            }
        }
        false
    }

    /// Behind the fence; tracing needs the filter off, so that the program can do it at all.
    fn hidden(way: &str) -> (Child, File) {
        let builder = Sandbox::builder().system_read_only().bind(at("escape"), "/escape", Access::ReadOnly);
        let builder = if way == "traced" { builder.allow_all_calls() } else { builder };
        let sandbox = builder.build().expect("a sandbox");
        let (read, write) = pipe().expect("a pipe");
        let mut command = sandbox.command("/escape");
        command.args(["hide", way]).stdout(File::from(OwnedFd::from(write)));
        let child = command.spawn().unwrap_or_else(|error| panic!("{way}: {error:#}"));
        drop(command);
        (child, File::from(OwnedFd::from(read)))
    }

    /// The same as an ordinary process of the arena.
    fn unfenced(way: &str) -> (Process, File) {
        let (read, write) = pipe().expect("a pipe");
        let mut command = Command::new(at("escape"));
        let process = command.args(["hide", way]).stdout(write).spawn().expect("the payload");
        (process, File::from(OwnedFd::from(read)))
    }

    #[test]
    fn nothing_hides_from_a_kill() {
        const NAME: &str = "nothing_hides_from_a_kill";
        if !enter(module_path!(), NAME) {
            return;
        }
        for way in WAYS {
            let (child, mut pipe) = hidden(way);
            await_ready(way, &mut pipe);
            assert!(!is_over(&mut pipe, 50), "{way}: it has ended by itself");
            child.kill().unwrap_or_else(|error| panic!("{way}: {error:#}"));
            assert!(is_over(&mut pipe, LONG), "{way}: something lives on");
            let ended = child.wait().expect("wait").verdict();
            assert_eq!(ended, Verdict::Killed, "{way}");
        }
        for way in WAYS {
            // The control: a kill of the process that was started. Who ends with its parent's kill hides from nothing.
            let (mut process, mut pipe) = unfenced(way);
            await_ready(way, &mut pipe);
            process.kill().expect("kill");
            process.wait().expect("wait");
            assert!(!is_over(&mut pipe, 300), "{way}: nothing was left without the fence");
        }
        // What was left by the controls ends with the arena; the forkers would be in the way until then.
        kill(Pid::from_raw(-1), Signal::SIGKILL).ok();
    }

    #[test]
    fn what_is_frozen_can_be_killed() {
        const NAME: &str = "what_is_frozen_can_be_killed";
        if !enter(module_path!(), NAME) {
            return;
        }
        for way in ["daemon", "stopped", "vfork"] {
            let (child, mut pipe) = hidden(way);
            await_ready(way, &mut pipe);
            let by = child.freeze().unwrap_or_else(|error| panic!("{way}: {error:#}"));
            child.kill().unwrap_or_else(|error| panic!("{way}, frozen by {by:?}: {error:#}"));
            assert!(is_over(&mut pipe, LONG), "{way}, frozen by {by:?}: something lives on");
        }
    }

    /// How far a bomb came, out of what it wanted.
    fn came(text: &str) -> Option<(u64, u64)> {
        let mut words = text.split_whitespace();
        (words.next() == Some("got")).then_some(())?;
        let got = words.next()?.parse().ok()?;
        Some((got, words.nth(1)?.trim_end_matches(':').parse().ok()?))
    }

    fn bomb(builder: Builder, kind: &str) -> (Verdict, Option<(u64, u64)>, String) {
        let payload = payload().expect("a payload");
        let builder =
            builder.bind(payload.path(), "/escape", Access::ReadOnly).wall_time(Duration::from_secs(240));
        let sandbox = builder.build().unwrap_or_else(|error| panic!("{kind}: {error:#}"));
        let outcome = sandbox.command("/escape").args(["bomb", kind]).output();
        let outcome = outcome.unwrap_or_else(|error| panic!("{kind}: {error:#}"));
        let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
        (outcome.verdict(), came(&text), text)
    }

    /// With room for every bomb: the sizes of memory file systems are limits too.
    fn roomy() -> Builder {
        let big = Tmpfs { size: 1 << 30, inodes: 1 << 20, mode: 0o1777, ..Tmpfs::default() };
        Sandbox::builder().system_read_only().mount(Mount::tmpfs("/big", big))
    }

    #[test]
    fn a_bomb_ends_at_its_limit_and_goes_on_without_one() {
        const NAME: &str = "a_bomb_ends_at_its_limit_and_goes_on_without_one";
        if payload().is_none() {
            say(&format!("SKIPPED {NAME}: there is no gcc to make the payload with"));
            return;
        }
        let limited = || roomy().memory(48 << 20).processes(64);
        let can_hold = limited().build().and_then(|sandbox| sandbox.command("true").status());
        if can_hold.is_err() {
            say(&format!("SKIPPED {NAME}: no control group can hold memory and processes here"));
            return;
        }
        for kind in ["fork", "tmpfs", "memfd", "pipes", "sockets", "shm"] {
            let (verdict, count, text) = bomb(limited(), kind);
            let is_over = matches!(verdict, Verdict::OutOfMemory { .. } | Verdict::TooManyProcesses { .. });
            let is_less = count.is_some_and(|(got, of)| got < of / 2);
            assert!(is_over || is_less, "{kind}: {verdict:?} {text}");
            // A caller that goes on: the next sandbox works.
            assert_eq!(bomb(roomy(), "none").0, Verdict::Exited(3), "after {kind}");
            let (verdict, count, text) = bomb(roomy(), kind);
            let (got, of) = count.unwrap_or_else(|| panic!("{kind} without limits: {verdict:?} {text}"));
            // Pipes have a limit of their own for each user (pipe(7)).
            let is_all = got >= of || kind == "pipes" && got > of / 4;
            assert!(is_all, "{kind} without limits: {verdict:?} {text}");
        }
    }

    #[test]
    fn a_memory_file_system_ends_at_its_size_and_inodes() {
        const NAME: &str = "a_memory_file_system_ends_at_its_size_and_inodes";
        if payload().is_none() {
            say(&format!("SKIPPED {NAME}: there is no gcc to make the payload with"));
            return;
        }
        let small = Tmpfs { size: 8 << 20, inodes: 1000, mode: 0o1777, ..Tmpfs::default() };
        let small = || Sandbox::builder().system_read_only().mount(Mount::tmpfs("/big", small));
        for (kind, most) in [("tmpfs", 8), ("inodes", 1000)] {
            let (verdict, count, text) = bomb(small(), kind);
            let (got, _) = count.unwrap_or_else(|| panic!("{kind}: {verdict:?} {text}"));
            assert!(got > 0 && got <= most, "{kind}: {text}");
            let (verdict, count, text) = bomb(roomy(), kind);
            let (got, of) = count.unwrap_or_else(|| panic!("{kind}: {verdict:?} {text}"));
            assert_eq!(got, of, "{kind} with room for it: {text}");
        }
    }
}
