//! Capabilities, securebits, no_new_privs and nested user namespaces, as the program itself sees them.

#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::fs;

    use ringfence::{
        Access, Builder, Capabilities, Capability, Init, Launch, Mapping, NamespaceSets, Namespaces, Sandbox,
    };

    use super::support::{
        Scratch, build, field, is_root, mode, python, run_python, run_sh, sandbox, sh, skip, static_program,
    };

    const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    const PR_GET_SECUREBITS: &str = "import ctypes; print(ctypes.CDLL(None).prctl(27, 0, 0, 0, 0))";
    /// NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, and the locks of these and of KEEP_CAPS (securebits.h).
    const LOCKED: &str = "239";

    fn without_user() -> NamespaceSets {
        Namespaces::STANDARD.difference(Namespaces::USER).into()
    }

    fn status(sandbox: &Sandbox) -> String {
        sh(sandbox, "cat /proc/self/status")
    }

    /// Every way in which this caller can have a sandbox.
    fn every_way() -> Vec<(String, Builder)> {
        let mut all = Vec::new();
        for launch in [Launch::Image, Launch::Copy] {
            for init in [Init::Reaper, Init::Program] {
                let base = || sandbox().launch(launch).init(init);
                let name = format!("{launch:?} {init:?}");
                all.push((name.clone(), base()));
                all.push((format!("{name}, uid 0 inside"), base().ids(0, 0)));
                if is_root() {
                    all.push((format!("{name}, no user namespace"), base().namespaces(without_user())));
                    all.push((format!("{name}, host root"), base().keep_host_root().ids(0, 0)));
                    let both = base().keep_host_root().ids(0, 0).namespaces(without_user());
                    all.push((format!("{name}, host root, no user namespace"), both));
                }
            }
        }
        all
    }

    #[test]
    fn all_five_sets_are_empty_by_default() {
        for (way, builder) in every_way() {
            let status = status(&build(builder));
            for set in SETS {
                assert_eq!(field(&status, set), "0000000000000000", "{set} {way}");
            }
        }
    }

    #[test]
    fn kept_capabilities_are_in_all_five_sets() {
        let keep = [Capability::NetBindService, Capability::Chown, Capability::NetRaw];
        let bits = keep.into_iter().collect::<Capabilities>().bits();
        for (way, builder) in every_way() {
            let sandbox = build(builder.capabilities(keep));
            let status = status(&sandbox);
            for set in SETS {
                assert_eq!(field(&status, set), format!("{bits:016x}"), "{set} {way}");
            }
            if sandbox.policy().identity().mapping != Mapping::KeepHostRoot {
                assert_eq!(python(&sandbox, PR_GET_SECUREBITS), LOCKED, "{way}");
            }
            // In a network namespace of the sandbox's own user namespace, or with the host's capability.
            let bind = "import socket; socket.socket().bind(('127.0.0.1', 80))";
            assert_eq!(python(&sandbox, bind), "", "{way}");
        }
        let (code, ..) = run_python(
            &build(sandbox()),
            "import socket, os\ntry:\n s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\n\
            except PermissionError:\n os._exit(9)",
        );
        assert_eq!(code, 9, "a raw socket without the capability");
    }

    #[test]
    fn every_capability_can_be_kept() {
        let last: usize =
            fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("cap").trim().parse().expect("n");
        let all: Capabilities = Capability::ALL.iter().copied().filter(|c| *c as usize <= last).collect();
        let status = status(&build(sandbox().capabilities(all)));
        for set in SETS {
            assert_eq!(field(&status, set), format!("{:016x}", all.bits()), "{set}");
        }
    }

    #[test]
    fn init_keeps_no_capability() {
        let builder = sandbox().capabilities([Capability::SysAdmin, Capability::SysPtrace]);
        let status = sh(&build(builder), "cat /proc/1/status");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(&status, set), "0000000000000000", "{set}");
        }
        assert_eq!(field(&status, "Name"), "ringfence-init");
        assert_eq!(field(&status, "NoNewPrivs"), "1");
    }

    #[test]
    fn securebits_are_locked() {
        for (way, builder) in every_way() {
            let sandbox = build(builder);
            assert_eq!(python(&sandbox, PR_GET_SECUREBITS), LOCKED, "{way}");
            let change = "import ctypes; print(ctypes.CDLL(None).prctl(28, 0, 0, 0, 0))";
            assert_eq!(python(&sandbox, change), "-1", "{way}");
        }
    }

    #[test]
    fn an_exec_by_uid_0_gains_nothing() {
        for (way, builder) in every_way() {
            // Without no_new_privs it is the securebits and the bounding set that hold.
            let status = status(&build(builder.allow_new_privileges().allow_all_calls()));
            for set in SETS {
                assert_eq!(field(&status, set), "0000000000000000", "{set} {way}");
            }
        }
    }

    #[test]
    fn a_setuid_root_program_gains_nothing() {
        const NAME: &str = "a_setuid_root_program_gains_nothing";
        if !is_root() {
            // Only root can make one; the system's own are in the way of the same rule.
            let seen = sh(&build(sandbox()), "ls -l /usr/bin/su; grep ^Uid /proc/self/status | cut -f 3");
            assert!(seen.ends_with("1000"), "{seen}");
            skip!(NAME, "only root can make a setuid-root program");
        }
        let scratch = Scratch::new();
        let source = "#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf(\"%d %d\\n\", (int)getuid(), \
            (int)geteuid()); FILE *f = fopen(\"/proc/self/status\", \"r\"); char l[256]; \
            while (f && fgets(l, 256, f)) if (l[0] == 'C' && l[1] == 'a' && l[2] == 'p') fputs(l, stdout); return 0; }";
        let Some(program) = static_program(scratch.path(), source) else {
            skip!(NAME, "gcc -static does not work here");
        };
        mode(&program, 0o6755);
        for sets in [NamespaceSets::default(), without_user()] {
            let base = || sandbox().namespaces(sets.clone()).bind(scratch.path(), "/x", Access::ReadOnly);
            for builder in [base(), base().allow_new_privileges().allow_all_calls()] {
                let out = sh(&build(builder), "id -u; /x/program");
                let (own, out) = out.split_once('\n').expect("two lines");
                assert_ne!(own, "0");
                let zero = "0000000000000000";
                let sets: Vec<_> = SETS.iter().map(|set| format!("{set}:\t{zero}")).collect();
                assert_eq!(out, format!("{own} {own}\n{}", sets.join("\n")));
            }
        }
    }

    #[test]
    fn no_new_privs_is_set_unless_waived() {
        for (way, builder) in every_way() {
            assert_eq!(field(&status(&build(builder.clone())), "NoNewPrivs"), "1", "{way}");
            let waived = build(builder.allow_new_privileges().allow_all_calls());
            let mut command = waived.command("sh");
            let child = command.args(["-c", "exit 0"]).spawn().unwrap_or_else(|error| panic!("{error:#}"));
            let inherited =
                field(&fs::read_to_string("/proc/self/status").expect("status"), "NoNewPrivs") == "1";
            assert_eq!(child.enforcement().no_new_privs, Some(inherited), "{way}");
            let notes = &child.enforcement().notes;
            assert!(notes.iter().any(|note| note.contains("privileges")), "{way} {notes:?}");
        }
    }

    const UNSHARE: &str = "import ctypes; l = ctypes.CDLL(None, use_errno=True); \
        print(l.unshare(0x10000000), ctypes.get_errno())";

    #[test]
    fn nested_user_namespaces_are_refused() {
        for (way, builder) in every_way().into_iter().filter(|(way, _)| !way.contains("no user namespace")) {
            // Twice: by the filter, and by the limit of the namespace where there is no filter.
            let filtered = build(builder.clone());
            assert_eq!(python(&filtered, UNSHARE), format!("-1 {}", libc::EPERM), "{way}");
            let sandbox = build(builder.allow_all_calls());
            assert_eq!(python(&sandbox, UNSHARE), format!("-1 {}", libc::ENOSPC), "{way}");
            let raise = "echo 9 > /proc/sys/user/max_user_namespaces";
            assert_ne!(run_sh(&sandbox, raise).0, 0, "{way}");
            assert_eq!(sh(&sandbox, "cat /proc/sys/user/max_user_namespaces"), "0", "{way}");
        }
        let kept =
            build(sandbox().capabilities([Capability::SysAdmin, Capability::SysResource]).allow_all_calls());
        assert!(python(&kept, UNSHARE).starts_with("-1 "), "with CAP_SYS_ADMIN");
        let host = fs::read_to_string("/proc/sys/user/max_user_namespaces").expect("sysctl");
        assert_ne!(host.trim(), "0", "the host's own limit");
    }

    #[test]
    fn without_a_user_namespace_the_report_says_that_they_are_open() {
        if !is_root() {
            skip!("without_a_user_namespace_the_report_says_that_they_are_open", "needs root");
        }
        let sandbox = build(sandbox().namespaces(without_user()));
        let child = sandbox.command("true").spawn().unwrap_or_else(|error| panic!("{error:#}"));
        let notes = &child.enforcement().notes;
        assert!(notes.iter().any(|note| note.contains("user namespaces inside are open")), "{notes:?}");
    }

    #[test]
    fn nested_user_namespaces_can_be_allowed() {
        let sandbox = build(sandbox().allow_user_namespaces().allow_all_calls());
        assert_eq!(python(&sandbox, UNSHARE), "0 0");
    }

    #[test]
    fn the_report_is_what_the_program_sees() {
        let builder = sandbox().capabilities([Capability::Kill]);
        let mut command = build(builder).command("true");
        let child = command.spawn().unwrap_or_else(|error| panic!("{error:#}"));
        let report = child.enforcement();
        let sets = report.capabilities.expect("capabilities");
        let all = [sets.inheritable, sets.permitted, sets.effective, sets.bounding, sets.ambient];
        assert_eq!(all, [1 << Capability::Kill as u8; 5]);
        assert_eq!(report.no_new_privs, Some(true));
        assert!(report.to_string().contains("CAP_KILL"), "{report}");
    }
}
