//! The caller is killed at each step of a set-up: at each of its own system calls, and at each of the child's. Nothing may
//! survive it: no process, no mount, no group.
#![cfg_attr(test, expect(unsafe_code, reason = "ptrace and waitpid with flags that no wrapper has"))]

#[cfg(test)]
#[path = "support/cgroup.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod groups;
#[cfg(test)]
#[path = "support/steps.rs"]
mod steps;
#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write, stdin, stdout};
    use std::process::{Child as Caller, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::sys::prctl::set_child_subreaper;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{Pid, gettid};
    use ringfence::{Init, Launch, Sandbox, prefer};

    use super::groups::groups_of;
    use super::steps::{Follow, kill_at, mounts, nothing_left};
    use super::support::{again, alone, children, eventually, role, rounds, status_field, system};

    fn sandbox(role: &str) -> Sandbox {
        let builder = system().own_cgroup(prefer(()));
        let builder = if role.contains("without-init") { builder.init(Init::Program) } else { builder };
        let builder = if role.contains("copy") { builder.launch(Launch::Copy) } else { builder };
        builder.build().unwrap()
    }

    fn say(text: &str) {
        let mut to = stdout();
        to.write_all(text.as_bytes()).unwrap();
        to.flush().unwrap();
    }

    /// The caller: it says which thread it is, waits for the word, and starts something.
    fn start(role: &str) {
        let sandbox = sandbox(role);
        let host = role.contains("joining").then(|| sandbox.command("sleep").arg("1000").spawn().unwrap());
        say(&format!("READY {}\n", gettid()));
        stdin().read_exact(&mut [0; 3]).unwrap();
        let mut command = match &host {
            Some(host) => host.command("sleep"),
            None => sandbox.command("sleep"),
        };
        let _child = command.arg("1000").spawn().unwrap();
        say("DONE\n");
        thread::sleep(Duration::from_secs(1000));
    }

    fn caller(name: &str, role: &str) -> (Caller, i32) {
        let mut process = again(name, role);
        let mut caller = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = caller.stdout.as_mut().unwrap();
        let (mut seen, mut byte) = (String::new(), [0]);
        while !(seen.contains("READY ") && seen.ends_with('\n')) {
            assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{role}: {seen}");
            seen.push(char::from(byte[0]));
        }
        let thread = seen.rsplit_once("READY ").unwrap().1.trim().parse().unwrap();
        (caller, thread)
    }

    /// One run; how many stops there were, and how long the end of everything took.
    fn run(name: &str, role: &str, follow: Follow, at: usize) -> (u32, usize, Duration) {
        let (mut caller, thread) = caller(name, role);
        let steps = kill_at(&mut caller, thread, follow, at);
        let killed = Instant::now();
        // The limit is a guard for a loaded machine; it takes milliseconds.
        if eventually(20, nothing_left) {
            return (caller.id(), steps, killed.elapsed());
        }
        let left: Vec<_> = children()
            .into_iter()
            .map(|pid| (pid, status_field(pid, "Name"), status_field(pid, "State")))
            .collect();
        for (pid, ..) in &left {
            kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
        }
        panic!("{role}, {follow:?}, stop {at}: these outlived their caller: {left:?}");
    }

    /// So many runs, evenly over all stops.
    fn everywhere(name: &str, role: &str, follow: Follow, most: usize) {
        let runs = rounds(most);
        let before = mounts();
        let (_, all, _) = run(name, role, follow, usize::MAX);
        assert!(all > 40, "{role}, {follow:?}: only {all} stops");
        let (mut longest, mut reached, mut callers) = (Duration::ZERO, 0, Vec::new());
        for number in 0..runs {
            let at = 1 + number * all / runs;
            let (pid, steps, took) = run(name, role, follow, at);
            longest = longest.max(took);
            reached += usize::from(steps == at);
            callers.push(pid);
        }
        // The number of stops differs a little from run to run.
        assert!(
            reached * 10 >= runs * 9,
            "{role}, {follow:?}: {reached} of {runs} runs were killed at their stop"
        );
        assert_eq!(mounts(), before);
        // What the dead ones left of groups, the next launch removes.
        drop(sandbox("").command("true").spawn().unwrap());
        let groups = || callers.iter().flat_map(|pid| groups_of(*pid)).collect::<Vec<_>>();
        assert!(eventually(20, || groups().is_empty()), "{role}, {follow:?}: {:?}", groups());
        assert!(eventually(10, nothing_left));
        say(&format!("{role}, {follow:?}: {runs} runs over {all} stops, the longest end took {longest:?}\n"));
    }

    fn observe(name: &str, kind: &str, follow: Follow, runs: usize) {
        match role().unwrap().as_str() {
            "alone" => {
                set_child_subreaper(true).unwrap();
                everywhere(name, kind, follow, runs);
            }
            role => start(role),
        }
    }

    #[test]
    fn nothing_survives_a_caller_that_is_killed_at_any_of_its_calls() {
        let name = "tests::nothing_survives_a_caller_that_is_killed_at_any_of_its_calls";
        alone(|| observe(name, "plain", Follow::Caller, 100));
    }

    #[test]
    fn nor_where_the_program_has_no_init() {
        alone(|| observe("tests::nor_where_the_program_has_no_init", "without-init", Follow::Caller, 50));
    }

    #[test]
    fn nor_where_the_child_is_a_copy() {
        alone(|| observe("tests::nor_where_the_child_is_a_copy", "copy", Follow::Caller, 50));
    }

    #[test]
    fn nothing_survives_a_caller_that_is_killed_at_any_call_of_the_child() {
        let name = "tests::nothing_survives_a_caller_that_is_killed_at_any_call_of_the_child";
        alone(|| observe(name, "plain", Follow::Child, 100));
    }

    #[test]
    fn nor_at_any_call_of_a_child_without_init() {
        alone(|| {
            observe("tests::nor_at_any_call_of_a_child_without_init", "without-init", Follow::Child, 50);
        });
    }

    #[test]
    fn nothing_survives_a_caller_that_is_killed_while_a_command_joins() {
        let name = "tests::nothing_survives_a_caller_that_is_killed_while_a_command_joins";
        alone(|| observe(name, "joining", Follow::Caller, 50));
    }

    #[test]
    fn nor_at_any_call_of_a_child_that_joins() {
        alone(|| observe("tests::nor_at_any_call_of_a_child_that_joins", "joining", Follow::Child, 100));
    }
}
