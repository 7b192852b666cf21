//! A hostile program in a living sandbox, while commands join it: it looks into every process that comes, and gets nothing.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
#[path = "support/attach.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod joined;

#[cfg(test)]
mod tests {
    use std::process::Command as Process;
    use std::thread;
    use std::time::Duration;

    use ringfence::{Builder, Capability, Namespaces, Stdio, Verdict};

    use super::joined::until;
    use super::support::{is_root, rounds, skipped, status_field, system, watchdog};

    /// What the program inside runs.
    const ATTACKER: &str = include_str!("support/attacker.py");
    /// Commands that join while it looks.
    const JOINS: usize = 200;

    /// No filter: what keeps the attacker out must not be that its calls are refused.
    fn kinds() -> Vec<(&'static str, Builder)> {
        let no_user = Namespaces::STANDARD.difference(Namespaces::USER);
        let plain = system().allow_all_calls();
        let mut list = vec![("plain", plain.clone())];
        let may_trace = plain.clone().capabilities([Capability::SysPtrace, Capability::SysAdmin]);
        list.push(("a program that may trace in its user namespace", may_trace));
        if is_root() {
            list.push(("no user namespace", plain.namespaces(no_user)));
        }
        list
    }

    #[test]
    fn a_program_inside_gets_nothing_of_a_command_that_joins() {
        for (name, builder) in kinds() {
            let _watchdog = watchdog(300);
            let sandbox = builder.build().unwrap();
            let mut command = sandbox.command("python3");
            command
                .args(["-c", ATTACKER])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit());
            let mut attacker = command.spawn().unwrap_or_else(|error| panic!("{name}: {error:#}"));
            until(&mut attacker, "READY\n");
            for _ in 0..rounds(JOINS) {
                let held =
                    attacker.command("true").spawn_held().unwrap_or_else(|error| panic!("{name}: {error:#}"));
                // Long enough to be seen.
                thread::sleep(Duration::from_millis(2));
                let child = held.release().unwrap_or_else(|error| panic!("{name}: {error:#}"));
                assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(0), "{name}");
            }
            drop(attacker.stdin.take());
            let seen = until(&mut attacker, "]\n");
            let refused = seen.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap();
            assert!(seen.ends_with("GOT []\n"), "{name}: {seen}");
            assert!(refused > rounds(JOINS) / 4, "{name}: it has hardly seen any: {seen}");
        }
    }

    /// The same attacker beside a child of the set-up that may be traced: one that waits in a sandbox of its own, where
    /// nothing else runs, so that its caller may look into it. The attacker is put there by other means.
    #[test]
    fn without_the_defence_the_same_program_gets_everything() {
        const NAME: &str = "without_the_defence_the_same_program_gets_everything";
        let _watchdog = watchdog(60);
        let sandbox = system().allow_all_calls().build().unwrap();
        let held = sandbox.command("true").env("SECRET", "x").spawn_held().unwrap();
        let mut nsenter = Process::new("nsenter");
        nsenter.args([format!("--target={}", held.id()).as_str(), "--user", "--mount", "--pid"]);
        if is_root() {
            nsenter.args(["--setuid=1000", "--setgid=1000"]);
        } else {
            nsenter.arg("--preserve-credentials");
        }
        let output = match nsenter.args(["python3", "-c", ATTACKER, "once"]).output() {
            Ok(output) => output,
            Err(error) => return skipped(NAME, &format!("nsenter: {error}")),
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}{error}");
        for what in ["exe", "memory of the brief", "maps", "mem", "ptrace", "'fd'", "pidfd_getfd", "environ"]
        {
            assert!(text.contains(what), "the attack does not work: {what} is missing in {text}{error}");
        }
        assert!(status_field(held.id(), "Name").is_some(), "it waits still");
    }
}
