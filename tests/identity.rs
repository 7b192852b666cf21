//! Who the program is: inside, and on the host, where it must never be root by accident.

#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;
    use std::process::Command;

    use nix::unistd::{User, getgroups, getuid};
    use ringfence::host::Answer;
    use ringfence::{
        Access, Builder, Cause, Child, ErrorKind, Host, IdRange, Init, Launch, Mapping, Mistake,
        NamespaceSets, Namespaces, Powerless, Sandbox, Stdio,
    };

    use super::support::{
        Scratch, build, field, handed, is_inside, is_root, python, refused, rerun, run_sh, sandbox, sh, skip,
    };

    fn without_user() -> NamespaceSets {
        Namespaces::STANDARD.difference(Namespaces::USER).into()
    }

    /// A program that lives until its standard input ends.
    fn living(sandbox: &Sandbox) -> Child {
        let mut command = sandbox.command("cat");
        command.stdin(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Four ids of a kind (real, effective, saved, file system) as the host sees them.
    fn host_ids(pid: u32, kind: &str) -> Vec<u32> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        field(&status, kind).split_whitespace().map(|word| word.parse().expect("id")).collect()
    }

    #[test]
    fn ids_inside_are_those_asked_for() {
        for launch in [Launch::Image, Launch::Copy] {
            let sandbox_of = |builder: Builder| build(builder.launch(launch));
            assert_eq!(
                sh(&sandbox_of(sandbox()), "id -u; id -g; id -un; id -gn"),
                "1000\n1000\nsandbox\nsandbox"
            );
            let other = sandbox_of(sandbox().ids(1234, 4321));
            assert_eq!(sh(&other, "id -u; id -g; id -un"), "1234\n4321\nsandbox");
            assert_eq!(sh(&sandbox_of(sandbox().ids(0, 0)), "id -u; id -g; id -un"), "0\n0\nroot");
        }
        let all = "import os; print(os.getresuid(), os.getresgid())";
        assert_eq!(python(&build(sandbox()), all), "(1000, 1000, 1000) (1000, 1000, 1000)");
    }

    #[test]
    fn own_files_inside_belong_to_the_program() {
        let script = "touch /tmp/x; stat -c '%u %g' /tmp/x /tmp /home/sandbox";
        assert_eq!(sh(&build(sandbox()), script), "1000 1000\n1000 1000\n1000 1000");
    }

    #[test]
    fn files_on_the_host_belong_to_the_host_ids() {
        let scratch = Scratch::new();
        let work = scratch.directory("work");
        let mut command = build(sandbox().bind(&work, "/job", Access::ReadWrite)).command("sh");
        command.args(["-c", "touch /job/x; read y"]).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{error:#}"));
        let (uid, gid) = (child.enforcement().host_uid, child.enforcement().host_gid);
        drop(child.stdin.take());
        child.wait().expect("wait");
        let seen = fs::metadata(work.join("x")).expect("x");
        assert_eq!((Some(seen.uid()), Some(seen.gid())), (uid, gid));
    }

    #[test]
    fn a_root_caller_never_leaves_the_program_with_host_uid_0() {
        let own = getuid().as_raw();
        for init in [Init::Reaper, Init::Program] {
            for launch in [Launch::Image, Launch::Copy] {
                let mut builders = vec![sandbox(), sandbox().ids(0, 0)];
                if is_root() {
                    builders.push(sandbox().namespaces(without_user()));
                    builders.push(sandbox().ids(0, 0).namespaces(without_user()));
                }
                for builder in builders {
                    let child = living(&build(builder.init(init).launch(launch)));
                    for pid in [child.id(), child.init_id()] {
                        for kind in ["Uid", "Gid"] {
                            let ids = host_ids(pid, kind);
                            let fine = |id: &u32| if is_root() { *id >= 0x7000_0000 } else { *id == own };
                            assert!(
                                ids.len() == 4 && ids.iter().all(fine),
                                "{kind} {ids:?} {init:?} {launch:?}"
                            );
                        }
                    }
                    assert_eq!(child.enforcement().host_uid, host_ids(child.id(), "Uid").first().copied());
                    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("status");
                    assert!(!field(&status, "Groups").split(' ').any(|group| group == "0"), "{status}");
                }
            }
        }
    }

    #[test]
    fn two_sandboxes_of_a_root_caller_have_different_host_ids() {
        if !is_root() {
            skip!("two_sandboxes_of_a_root_caller_have_different_host_ids", "needs root: others have one id");
        }
        for builder in [sandbox(), sandbox().namespaces(without_user())] {
            let sandbox = build(builder);
            let children: Vec<_> = (0..4).map(|_| living(&sandbox)).collect();
            for kind in ["Uid", "Gid"] {
                let mut ids: Vec<_> = children.iter().map(|child| host_ids(child.id(), kind)[0]).collect();
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids.len(), 4, "{kind} {ids:?}");
            }
        }
    }

    #[test]
    fn keeping_host_root_is_a_named_weakening() {
        let own = getuid().as_raw();
        let child = living(&build(sandbox().keep_host_root()));
        assert_eq!(host_ids(child.id(), "Uid"), [own; 4]);
        assert_eq!(child.enforcement().host_uid, Some(own));
        if is_root() {
            let child = living(&build(sandbox().keep_host_root().ids(0, 0).namespaces(without_user())));
            assert_eq!(host_ids(child.id(), "Uid"), [0; 4]);
            let mapping = Mapping::Ranges {
                uids: vec![IdRange { inside: 1000, outside: 0, count: 1 }],
                gids: vec![IdRange { inside: 1000, outside: 0, count: 1 }],
            };
            let error = refused(sandbox().mapping(mapping));
            assert_eq!(error.mistakes(), [Mistake::HostRootMapped]);
        }
        let error = refused(sandbox().mapping(Mapping::Host { uid: 0, gid: 5 }));
        assert_eq!(error.mistakes(), [Mistake::HostRootMapped]);
    }

    #[test]
    fn chosen_host_ids_are_taken() {
        let chosen = Mapping::Host { uid: 54_321, gid: 12_345 };
        if !is_root() {
            let error = refused(sandbox().mapping(chosen));
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            return;
        }
        for sets in [NamespaceSets::default(), without_user()] {
            let child = living(&build(sandbox().mapping(chosen.clone()).namespaces(sets)));
            assert_eq!(host_ids(child.id(), "Uid"), [54_321; 4]);
            assert_eq!(host_ids(child.id(), "Gid"), [12_345; 4]);
        }
        assert_eq!(sh(&build(sandbox().mapping(chosen)), "id -u"), "1000");
    }

    fn ranges(uid: u32, gid: u32) -> Mapping {
        let range = |outside| {
            vec![
                IdRange { inside: 0, outside, count: 10 },
                IdRange { inside: 1000, outside: outside + 1000, count: 100 },
            ]
        };
        Mapping::Ranges { uids: range(uid), gids: range(gid) }
    }

    fn ranges_hold(uid: u32, gid: u32) {
        let builder = sandbox().mapping(ranges(uid, gid)).ids(1001, 1002).groups([7, 1050]);
        let sandbox = build(builder);
        let expected = format!(
            "         0 {uid:>10}         10\n      1000 {:>10}        100\n1001 1002 7 1050",
            uid + 1000
        );
        let seen = sh(&sandbox, "cat /proc/self/uid_map; echo $(id -u) $(id -G)");
        assert_eq!(seen.trim_start(), expected.trim_start());
        let child = living(&sandbox);
        assert_eq!(host_ids(child.id(), "Uid"), [uid + 1001; 4]);
        assert_eq!(host_ids(child.id(), "Gid"), [gid + 1002; 4]);
        assert_eq!(host_ids(child.id(), "Groups"), [gid + 7, gid + 1050]);
    }

    #[test]
    fn ranges_are_written_by_a_root_caller() {
        if !is_root() {
            skip!("ranges_are_written_by_a_root_caller", "needs root");
        }
        ranges_hold(300_000, 400_000);
    }

    #[test]
    fn ranges_by_newuidmap() {
        const NAME: &str = "ranges_by_newuidmap";
        if is_root() {
            skip!(NAME, "root writes ranges itself");
        }
        let user = User::from_uid(getuid()).expect("user").map_or_else(String::new, |u| u.name);
        let first = |file: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(&user)?.strip_prefix(':').map(str::to_owned))?;
            let (first, count) = line.split_once(':')?;
            (count.parse::<u32>().ok()? >= 1_100).then_some(first.parse::<u32>().ok()?)
        };
        let (Some(uid), Some(gid)) = (first("/etc/subuid"), first("/etc/subgid")) else {
            skip!(NAME, "{user:?} has no 1,100 subordinate ids");
        };
        let installed = |name| Command::new(name).output().is_ok();
        if !installed("newuidmap") || !installed("newgidmap") {
            let error = refused(sandbox().mapping(ranges(uid, gid)).ids(1001, 1002));
            assert!(error.to_string().contains("newuidmap"), "{error:#}");
            skip!(NAME, "newuidmap and newgidmap are not installed");
        }
        if Host::probe().no_new_privs() == Answer::Yes {
            let error = refused(sandbox().mapping(ranges(uid, gid)).ids(1001, 1002));
            let powerless =
                |cause: &Cause| matches!(cause, Cause::HelperPowerless { reason: Powerless::NoNewPrivs, .. });
            assert!(error.causes().iter().any(powerless), "{error:#}");
            skip!(NAME, "no_new_privs holds: the helpers have no rights");
        }
        ranges_hold(uid, gid);
        let foreign = refused(sandbox().mapping(ranges(uid + 10_000_000, gid)).ids(1001, 1002));
        assert!(format!("{foreign:#}").contains("newuidmap"), "{foreign:#}");
    }

    #[test]
    fn setgroups_is_denied_to_an_unprivileged_caller() {
        let sandbox = build(sandbox());
        if !is_root() {
            assert_eq!(sh(&sandbox, "cat /proc/self/setgroups"), "deny");
        }
        let attempt =
            "import os\ntry:\n os.setgroups([]); print('DONE')\nexcept PermissionError:\n print('refused')";
        assert_eq!(python(&sandbox, attempt), "refused");
        // Groups that an unprivileged caller has cannot be dropped; the report names them.
        let mut own: Vec<u32> = getgroups().expect("groups").iter().map(|gid| gid.as_raw()).collect();
        if is_root() {
            own.clear();
        }
        assert_eq!(living(&sandbox).enforcement().groups, own);
    }

    #[test]
    fn groups_without_ranges_are_a_mistake() {
        let error = sandbox().groups([5]).policy().expect_err("a mistake");
        assert_eq!(error.mistakes(), [Mistake::UnmappedGroups { groups: vec![5] }]);
        let error = sandbox().mapping(ranges(300_000, 300_000)).groups([77]).policy().expect_err("a mistake");
        assert_eq!(error.mistakes(), [Mistake::IdNotMapped { what: "group", id: 77 }]);
    }

    #[test]
    fn bad_ids_are_mistakes() {
        assert_eq!(
            sandbox().ids(u32::MAX, 0).policy().expect_err("a mistake").mistakes(),
            [Mistake::InvalidId]
        );
        let overlap = vec![
            IdRange { inside: 0, outside: 100_000, count: 10 },
            IdRange { inside: 5, outside: 200_000, count: 10 },
        ];
        let mapping = Mapping::Ranges { uids: overlap, gids: Vec::new() };
        let error = sandbox().mapping(mapping).ids(5, 5).policy().expect_err("mistakes");
        assert!(error.mistakes().len() >= 3, "{error}");
    }

    #[test]
    fn passwd_and_group_are_synthetic() {
        let sandbox = build(sandbox().ids(1234, 4321));
        let passwd = sh(&sandbox, "cat /etc/passwd");
        assert_eq!(passwd.lines().count(), 3, "{passwd}");
        assert!(passwd.contains("sandbox:x:1234:4321:sandbox:/home/sandbox:/bin/sh"), "{passwd}");
        assert!(sh(&sandbox, "cat /etc/group").contains("sandbox:x:4321:"));
        let script = "import pwd, grp, os; print(pwd.getpwuid(os.getuid())[0], grp.getgrgid(os.getgid())[0])";
        assert_eq!(python(&sandbox, script), "sandbox sandbox");
        for path in ["/etc/shadow", "/etc/gshadow", "/etc/sudoers"] {
            assert_ne!(run_sh(&sandbox, &format!("cat {path}")).0, 0, "{path}");
        }
    }

    #[test]
    fn ids_cannot_be_changed_inside() {
        let script = "import os\nfor f in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setresuid(0, 0, 0), \
            lambda: os.setreuid(65534, 65534)):\n try:\n  f(); print('CHANGED')\n except OSError: pass";
        let mut builders = vec![sandbox()];
        if is_root() {
            builders.push(sandbox().namespaces(without_user()));
            builders.push(sandbox().mapping(ranges(300_000, 300_000)));
        }
        for builder in builders {
            assert_eq!(python(&build(builder), script), "");
        }
    }

    /// Root in a user namespace with one id: `HOST` says whose id it is outside.
    fn alone() {
        if handed("HOST").as_os_str() == "0" {
            let error = refused(sandbox());
            assert!(error.to_string().contains("keep_host_root()"), "{error}");
        } else {
            assert_eq!(sh(&build(sandbox()), "id -u"), "1000");
        }
        let kept = build(sandbox().keep_host_root());
        assert_eq!(sh(&kept, "id -u"), "1000");
    }

    fn own_id() -> PathBuf {
        getuid().to_string().into()
    }

    #[test]
    fn root_of_a_user_namespace_is_not_taken_for_host_root() {
        const NAME: &str = "root_of_a_user_namespace_is_not_taken_for_host_root";
        if !is_inside(NAME) {
            return rerun(
                NAME,
                &["unshare", "--user", "--map-root-user"],
                "exec \"$@\"",
                &[("HOST", &own_id())],
            );
        }
        alone();
    }

    #[test]
    fn host_root_is_seen_through_nested_user_namespaces() {
        const NAME: &str = "host_root_is_seen_through_nested_user_namespaces";
        if !is_inside(NAME) {
            let outer = ["unshare", "--user", "--map-user=5", "--map-group=5"];
            let script = "exec unshare --user --map-root-user \"$@\"";
            return rerun(NAME, &outer, script, &[("HOST", &own_id())]);
        }
        alone();
    }
}
