//! A frozen sandbox and the end of its caller, which it cannot see itself: by each freezer that this machine has.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fmt::Display;
    use std::fs;
    use std::io::{Write, stdout};
    use std::process::{Child as Caller, Stdio as Streams};
    use std::thread;
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill, raise};
    use nix::unistd::Pid;
    use ringfence::host::Cgroups;
    use ringfence::{FrozenBy, Host, Init, Sandbox, Stdio};

    use super::support::{again, alone, children, eventually, role, skipped, system, test_name, watchdog};

    const FREEZERS: [(&str, FrozenBy); 2] = [("v2", FrozenBy::CgroupV2), ("v1", FrozenBy::CgroupV1)];

    /// A sandbox with this freezer, if there is one.
    fn sandbox(freezer: &str, init: Init) -> Option<Sandbox> {
        let Cgroups { unified, legacy } = Host::probe().cgroups().clone();
        let cgroups = match freezer {
            "v2" => Cgroups { unified, legacy: Vec::new() },
            _ => Cgroups { unified: None, legacy },
        };
        let policy = system().own_cgroup(()).init(init).policy().unwrap();
        Sandbox::new(policy, Host::probe().with_cgroups(cgroups)).ok()
    }

    fn comm(pid: impl Display) -> String {
        fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
    }

    /// The process that watches over what this one has frozen.
    fn wards() -> Vec<i32> {
        let watches = |pid: &i32| comm(pid) == "ringfence-ward" && !is_zombie(*pid);
        children().into_iter().filter(watches).collect()
    }

    /// Which freezers can be tried; says which cannot.
    fn freezers(name: &str) -> Vec<(&'static str, FrozenBy)> {
        let mut found = Vec::new();
        for (freezer, by) in FREEZERS {
            let usable = sandbox(freezer, Init::Reaper).is_some_and(|sandbox| {
                let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
                child.freeze().is_ok_and(|frozen| frozen == by)
            });
            if usable {
                found.push((freezer, by));
            } else {
                skipped(name, &format!("{by} cannot be used here"));
            }
        }
        found
    }

    /// A caller that freezes a sandbox and does what its role says.
    fn caller(role: &str) {
        let [how, freezer, init] = role.split(' ').collect::<Vec<_>>()[..] else { panic!("{role}") };
        let init = if init == "program" { Init::Program } else { Init::Reaper };
        let sandbox = sandbox(freezer, init).unwrap();
        // What is frozen would hold this process's output.
        if how == "next" {
            assert!(sandbox.command("true").status().unwrap().success());
            return;
        }
        let mut command = sandbox.command("sleep");
        let child = command.arg("1000").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        child.freeze().unwrap();
        writeln!(stdout(), "FROZEN {} ", child.id()).unwrap();
        match how {
            "killed" => raise(Signal::SIGKILL).unwrap(),
            "unwatched" => {
                assert!(eventually(60, || !wards().is_empty()));
                wards().iter().for_each(|pid| kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap());
                assert!(eventually(30, || wards().is_empty()));
                raise(Signal::SIGKILL).unwrap();
            }
            other => panic!("{other}"),
        }
    }

    /// Runs one; the program's pid.
    fn frozen_by(name: &str, role: &str) -> i32 {
        let caller: Caller = again(name, role).stdout(Streams::piped()).spawn().unwrap();
        let text = String::from_utf8_lossy(&caller.wait_with_output().unwrap().stdout).into_owned();
        let line = text.lines().find_map(|line| line.split_once("FROZEN "));
        let Some((_, line)) = line else { panic!("{role}: {text}") };
        line.split(' ').next().unwrap().parse().unwrap()
    }

    fn is_zombie(pid: i32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().contains(") Z ")
    }

    /// Whether it has ended; one that nobody reaps has, too.
    fn is_gone(pid: i32) -> bool {
        comm(pid) != "sleep" || is_zombie(pid)
    }

    #[test]
    fn a_frozen_tree_ends_with_its_caller() {
        let _watchdog = watchdog(300);
        let here = || ();
        let name = test_name(&here);
        if let Some(role) = role() {
            return caller(&role);
        }
        for (freezer, _) in freezers(&name) {
            for init in ["reaper", "program"] {
                let pid = frozen_by(&name, &format!("killed {freezer} {init}"));
                assert!(eventually(60, || is_gone(pid)), "{freezer} {init}: {pid}");
            }
            // That it would stay without somebody who watches is what makes the above a test.
            let pid = frozen_by(&name, &format!("unwatched {freezer} reaper"));
            thread::sleep(Duration::from_millis(500));
            assert!(!is_gone(pid), "{freezer}");
            // And the next launch of another process sweeps it.
            assert!(again(&name, &format!("next {freezer} reaper")).status().unwrap().success());
            assert!(eventually(60, || is_gone(pid)), "{freezer}");
        }
    }

    #[test]
    fn who_watches_is_there_while_the_tree_is_frozen_and_no_longer() {
        let _watchdog = watchdog(300);
        let here = || ();
        let name = test_name(&here);
        alone(|| {
            for (freezer, by) in freezers(&name) {
                let child =
                    sandbox(freezer, Init::Reaper).unwrap().command("sleep").arg("1000").spawn().unwrap();
                assert!(wards().is_empty());
                for _ in 0..3 {
                    assert_eq!(child.freeze().unwrap(), by);
                    child.freeze().unwrap();
                    // It has its name a moment after it is there.
                    assert!(eventually(60, || wards().len() == 1), "{freezer}: {:?}", wards());
                    let watching = wards();
                    // It holds nothing of its caller's but what it is for.
                    for fd in fs::read_dir(format!("/proc/{}/fd", watching[0])).unwrap() {
                        let target = fs::read_link(fd.unwrap().path()).unwrap();
                        let target = target.to_string_lossy();
                        let own = ["/dev/null", "anon_inode:[pidfd]", "pidfd:", "/sys/fs/cgroup"];
                        assert!(own.iter().any(|own| target.starts_with(own)), "{target}");
                    }
                    assert_eq!(child.thaw().unwrap(), by);
                    assert!(wards().is_empty(), "{freezer}");
                    // What is frozen for a moment only is not left alone either.
                    child.signal_all(libc::SIGCONT).unwrap();
                    assert!(wards().is_empty(), "{freezer}");
                }
                child.freeze().unwrap();
                child.kill().unwrap();
                child.wait().unwrap();
                assert!(wards().is_empty(), "{freezer}");
            }
        });
    }
}
