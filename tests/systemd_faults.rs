//! What becomes of limits where systemd's manager, or the bus before it, is not as it should be: each fault is a refusal that
//! names manager and unit and says why, and the ladder goes on.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
#[path = "support/toy_bus.rs"]
mod toy_bus;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Write, stdout};
    use std::path::{Path, PathBuf};
    use std::process::{Command as Process, Stdio};
    use std::time::Duration;

    use nix::sys::signal::{Signal, raise};
    use ringfence::host::{Answer, Cgroups, Systemd, SystemdManager, Unified, UnifiedGroup};
    use ringfence::{Builder, FrozenBy, Host, LimitRung, Sandbox, Strength, prefer};

    use super::support::{
        again, alone, children, eventually, is_root, role, skipped, system, test_name, watchdog,
    };
    use super::toy_bus::{Manner, Toy, slice};

    /// A machine as systemd has it, with a manager at this address, and nothing for this process to divide.
    fn host(address: &str) -> Host {
        let group = UnifiedGroup {
            directory: "/sys/fs/cgroup/system.slice/own.service".into(),
            access: Answer::No,
            ..UnifiedGroup::default()
        };
        let unified = Some(Unified { mount: "/sys/fs/cgroup".into(), groups: vec![group] });
        let manager = SystemdManager::System;
        Host::probe()
            .with_cgroups(Cgroups { unified, legacy: Vec::new() })
            .with_systemd(Systemd::Manager { manager, address: address.to_owned() })
    }

    fn build(builder: &Builder, address: &str) -> Sandbox {
        Sandbox::new(builder.policy().unwrap(), host(address)).unwrap()
    }

    fn short() -> Builder {
        system().setup_timeout(Duration::from_secs(16))
    }

    /// A required limit is refused with this, a preferred one comes down to the last rung and says so too; no process is left.
    fn refused(address: &str, what: &str, (call, errno): (&str, i32), part: &str) {
        let error = build(&short().memory(64 << 20), address).command("true").spawn().map(drop).unwrap_err();
        assert_eq!((error.raw_os_error(), error.failed_call()), (Some(errno), Some(call)), "{what}: {error}");
        for part in
            ["limit memory=67108864", "systemd scope: ringfence-", ".scope of the system manager", part]
        {
            assert!(error.to_string().contains(part), "{what}, {part:?}: {error}");
        }
        assert!(children().is_empty(), "{what}: {:?}", children());
        let sandbox = build(&short().processes(prefer(20)), address);
        let held = sandbox.command("true").spawn_held().unwrap();
        let state = &held.enforcement().limits[0];
        let fallen = (state.strength, state.rung);
        assert_eq!(fallen, (Strength::Approximate, Some(LimitRung::ResourceLimit)), "{what}: {state}");
        assert!(state.reasons.iter().any(|why| why.contains(part)), "{what}: {state}");
        drop(held);
        assert!(children().is_empty(), "{what}: {:?}", children());
    }

    const START: &str = "StartTransientUnit";

    #[test]
    fn a_bus_that_is_none_is_a_refusal() {
        let _watchdog = watchdog(240);
        alone(|| {
            let gone = Toy::start(Manner::MuteBus).address();
            refused(&gone, "nobody listens", ("Hello", libc::ENOENT), "the bus: connect: ENOENT");
            refused(
                "tcp:host=localhost,port=1",
                "elsewhere",
                ("Hello", libc::EINVAL),
                "names no local socket",
            );
            for (manner, errno, part) in [
                (Manner::MuteBus, libc::ETIMEDOUT, "no answer in time"),
                (
                    Manner::Unbelieving,
                    libc::EACCES,
                    "does not take this process's uid: \"REJECTED EXTERNAL\"",
                ),
                (Manner::Garbled, libc::EPROTO, "what was heard is not D-Bus"),
                (Manner::OtherPids, libc::ESRCH, "it is in another pid namespace"),
            ] {
                let toy = Toy::start(manner);
                refused(&toy.address(), &format!("{manner:?}"), ("Hello", errno), part);
            }
        });
    }

    #[test]
    fn a_manager_that_makes_no_scope_is_a_refusal() {
        let _watchdog = watchdog(240);
        alone(|| {
            let error = |name| Manner::Refuses(name);
            for (manner, errno, part) in [
                (Manner::MuteManager, libc::ETIMEDOUT, "no answer in time"),
                (Manner::Closes, libc::ECONNRESET, "the bus closed the connection"),
                (error("org.freedesktop.DBus.Error.AccessDenied"), libc::EACCES, "a rule of polkit for"),
                (
                    error("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"),
                    libc::EACCES,
                    "a unit of its own with Delegate=yes",
                ),
                (error("org.freedesktop.systemd1.UnitExists"), libc::EEXIST, "UnitExists: no"),
                (
                    error("org.freedesktop.DBus.Error.ServiceUnknown"),
                    libc::EHOSTUNREACH,
                    "no systemd is on that bus",
                ),
                (error("org.freedesktop.DBus.Error.LimitsExceeded"), libc::EINVAL, "LimitsExceeded: no"),
                (Manner::JobFails, libc::ECANCELED, "the job ended as \"failed\""),
                (Manner::Lies, libc::EIO, "the process is in "),
            ] {
                let toy = Toy::start(manner);
                refused(&toy.address(), &format!("{manner:?}"), (START, errno), part);
            }
        });
    }

    /// A caller whose manager is the toy at the address in its role: it holds a sandbox in a scope, and ends.
    fn caller(role: &str) {
        let (how, address) = role.split_once(' ').unwrap();
        let builder = system().setup_timeout(Duration::from_secs(60)).own_cgroup(());
        let sandbox = build(&builder, address);
        let child = sandbox.command("sleep").arg("1000").spawn().unwrap();
        let text = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
        let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
        assert!(Path::new(path).parent().unwrap().extension().is_some_and(|kind| kind == "scope"), "{text}");
        assert_eq!(child.freeze().unwrap(), FrozenBy::CgroupV2);
        child.thaw().unwrap();
        writeln!(stdout(), "GROUP {path}").unwrap();
        let forked = Process::new("true").status().unwrap();
        assert!(forked.success());
        match how {
            "ends" => {}
            _ => raise(Signal::SIGKILL).unwrap(),
        }
    }

    /// Runs such a caller; the scope that it had.
    fn scope_of(name: &str, how: &str, toy: &Toy) -> PathBuf {
        let output = again(name, &format!("{how} {}", toy.address())).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let group =
            text.lines().find_map(|line| line.split_once("GROUP ")).map(|(_, group)| group.to_owned());
        let Some(group) = group else { panic!("{text} {}", String::from_utf8_lossy(&output.stderr)) };
        let scope = Path::new(&group).parent().unwrap();
        slice().unwrap().join(scope.file_name().unwrap())
    }

    #[test]
    fn a_manager_with_manners_of_its_own_makes_a_scope_all_the_same() {
        let _watchdog = watchdog(240);
        let here = || ();
        let name = test_name(&here);
        if let Some(role) = role() {
            return caller(&role);
        }
        if !is_root() || slice().is_none() {
            return skipped(&name, "the toy manager needs a group of cgroup v2 to make others in");
        }
        for manner in [Manner::Willing, Manner::TooOld, Manner::Anew, Manner::LosesMessages] {
            let toy = Toy::start(manner);
            for how in ["ends", "killed"] {
                let scope = scope_of(&name, how, &toy);
                assert!(eventually(30, || !scope.try_exists().unwrap()), "{manner:?} {how}: {scope:?}");
            }
        }
    }
}
