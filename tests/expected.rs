//! A machine is what `RINGFENCE_EXPECT` says, and the crate uses all of it, or says what it lacks: `tests/vm/run` sets that.
//!
//! The words, with commas: `image`, `clone3`, `openat2`, `close_range`, `mount_api`, `mount_setattr`, `into_cgroup`, `pidfd`,
//! `landlock=ABI`, `cgroup2` or `cgroup1`, `filter` (around the caller), `caller=root` or `caller=user`; and for what becomes of the default sandbox `runs`,
//! or `refused=ERRNO`, with `late` if the clone succeeds first, or `debian` where it is refused to those without privilege.
//! What is not listed has to be absent.
#![cfg_attr(test, expect(unsafe_code, reason = "fork, for a process of one thread"))]

#[cfg(test)]
#[path = "support/lowering.rs"]
mod lowering;
#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::env;
    use std::path::Path;
    use std::process::Command;

    use nix::errno::Errno;
    use ringfence::host::{Features, SeccompMode};
    use ringfence::{
        Access, AccessFs, Action, Argument, Cause, Error, ErrorKind, Filter, Host, Landlock, LaunchMethod,
        LimitKind, LimitRung, Lowering, Namespaces, Sandbox, Step, Strength, prefer,
    };

    use super::lowering::{alone, apply};
    use super::support::{Scratch, build, compile, is_root, refused, run_sh, sandbox, sh, skip};

    const CLONE_NEWPID: u64 = 0x2000_0000;

    /// The words, or the test is left.
    macro_rules! expected {
        ($name:expr) => {
            match Expected::read() {
                Some(expected) => expected,
                None => skip!($name, "RINGFENCE_EXPECT does not say what this machine has"),
            }
        };
    }

    struct Expected(Vec<String>);

    impl Expected {
        fn read() -> Option<Self> {
            let text = env::var("RINGFENCE_EXPECT").ok()?;
            Some(Self(text.split(',').map(str::to_owned).collect()))
        }

        fn has(&self, word: &str) -> bool {
            self.0.iter().any(|other| other == word)
        }

        fn value(&self, word: &str) -> Option<&str> {
            self.0.iter().find_map(|other| other.strip_prefix(word)?.strip_prefix('='))
        }

        /// The errno with which the default sandbox is refused to this caller, or `None`: it runs.
        fn refusal(&self) -> Option<Errno> {
            if let Some(name) = self.value("refused") {
                let errno = (1..200).map(Errno::from_raw).find(|errno| format!("{errno:?}") == name);
                return Some(errno.expect("the name of an errno"));
            }
            if self.has("debian") {
                return (!is_root()).then_some(Errno::EPERM);
            }
            assert!(self.has("runs"), "{:?} says nothing about the default sandbox", self.0);
            None
        }
    }

    const FEATURES: [(&str, Features); 8] = [
        ("image", Features::EXECUTABLE_MEMFD.union(Features::EXECVEAT)),
        ("clone3", Features::CLONE3),
        ("openat2", Features::OPENAT2),
        ("close_range", Features::CLOSE_RANGE),
        ("mount_api", Features::MOUNT_API),
        ("mount_setattr", Features::MOUNT_SETATTR),
        ("pidfd", Features::PIDFD_OPEN),
        ("into_cgroup", Features::CLONE_INTO_CGROUP),
    ];

    #[test]
    fn what_is_expected_is_found_and_nothing_else() {
        let expected = expected!("what_is_expected_is_found_and_nothing_else");
        let host = Host::probe();
        // Only a hierarchy of version 2 can be cloned into; the kernel's call may be there without one.
        let features = FEATURES.iter().filter(|(word, _)| *word != "into_cgroup" || expected.has("cgroup2"));
        for (word, feature) in features {
            assert_eq!(host.features().contains(*feature), expected.has(word), "{word}");
        }
        let least = expected.value("landlock").map(|abi| abi.parse::<u32>().expect("a number"));
        let found = host.landlock_abi();
        assert!(
            found.is_some() == least.is_some() && found >= least,
            "Landlock: {found:?}, wanted {least:?}"
        );
        let cgroups = host.cgroups();
        assert_eq!(groups(&host), [expected.has("cgroup2"), expected.has("cgroup1")], "{cgroups:?}");
        assert_eq!(host.seccomp_mode() == Some(SeccompMode::Filter), expected.has("filter"));
        assert_eq!(is_root(), expected.value("caller") == Some("root"));
    }

    /// Whether processes are counted by version 2, and by version 1.
    fn groups(host: &Host) -> [bool; 2] {
        let counts = |controllers: &[String]| controllers.iter().any(|controller| controller == "pids");
        let cgroups = host.cgroups();
        let mut unified = cgroups.unified.iter().flat_map(|unified| &unified.groups);
        [
            unified.any(|group| counts(&group.controllers)),
            cgroups.legacy.iter().any(|legacy| counts(&legacy.controllers)),
        ]
    }

    /// The words of this machine as it is.
    fn words() -> Vec<String> {
        let host = Host::probe();
        let features = FEATURES.iter().filter(|(_, feature)| host.features().contains(*feature));
        let mut words: Vec<String> = features.map(|(word, _)| (*word).to_owned()).collect();
        words.extend(host.landlock_abi().map(|abi| format!("landlock={abi}")));
        for (there, word) in groups(&host).into_iter().zip(["cgroup2", "cgroup1"]) {
            words.extend(there.then(|| word.to_owned()));
        }
        words.push(format!("caller={}", if is_root() { "root" } else { "user" }));
        words
    }

    /// Calls that a filter takes away, and the words that go with them.
    const TAKEN: [(&[&str], &[&str]); 9] = [
        (&["clone3"], &["clone3", "into_cgroup"]),
        (&["openat2"], &["openat2"]),
        (&["mount_setattr"], &["mount_setattr"]),
        (
            &["fsopen", "fsconfig", "fsmount", "open_tree", "move_mount", "mount_setattr"],
            &["mount_api", "mount_setattr"],
        ),
        (&["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"], &["landlock"]),
        (&["close_range"], &["close_range"]),
        (&["execveat"], &["image"]),
        (&["memfd_create"], &["image"]),
        (&["pidfd_open"], &["pidfd"]),
    ];
    /// Without these nothing runs.
    const NEEDED: [&str; 2] = ["memfd_create", "pidfd_open"];

    /// The other tests of this file, behind a filter around the caller, on this machine.
    #[test]
    fn what_a_filter_takes_away_is_done_without_or_missed_by_name() {
        let name = "what_a_filter_takes_away_is_done_without_or_missed_by_name";
        if env::var_os("RINGFENCE_EXPECT").is_some() {
            skip!(name, "this machine is given");
        }
        if compile(&sandbox()).and_then(|sandbox| sandbox.command("/bin/true").status()).is_err() {
            skip!(name, "the default sandbox does not run here");
        }
        let myself = env::current_exe().expect("myself");
        let behind = myself.parent().and_then(Path::parent).expect("a profile").join("examples/behind");
        assert!(behind.is_file(), "{} is not built: run all of `cargo test`", behind.display());
        for (calls, less) in TAKEN {
            for errno in ["ENOSYS", "EPERM"] {
                // The C library makes no thread where clone3 answers anything but ENOSYS.
                if calls == ["clone3"] && errno == "EPERM" {
                    continue;
                }
                let kept = words()
                    .into_iter()
                    .filter(|word| !less.contains(&word.split('=').next().expect("a word")));
                let fate = if calls.iter().any(|call| NEEDED.contains(call)) {
                    format!("refused={errno}")
                } else {
                    "runs".to_owned()
                };
                let words: Vec<String> = kept.chain([fate, "filter".to_owned()]).collect();
                let mut command = Command::new(&behind);
                command.args(calls.iter().map(|call| format!("{call}={errno}"))).arg("--").arg(&myself);
                // What groups this caller may use is not said anywhere.
                command
                    .args(["--skip", name, "--skip", "limits_are_held"])
                    .env("RINGFENCE_EXPECT", words.join(","));
                let output = command.env("RUST_BACKTRACE", "0").output().expect("behind");
                let (out, err) =
                    (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                assert!(
                    output.status.success() && out.contains("test result: ok"),
                    "{calls:?} {errno}\n{out}\n{err}"
                );
            }
        }
    }

    #[test]
    fn the_default_sandbox_runs_or_its_refusal_is_explained() {
        let expected = expected!("the_default_sandbox_runs_or_its_refusal_is_explained");
        let Some(errno) = expected.refusal() else {
            let (code, out, err) = run_sh(&build(sandbox()), "read line </proc/self/uid_map; echo $line");
            assert!(code == 0 && !out.is_empty(), "{code} {out} {err}");
            return;
        };
        let error = refused(sandbox());
        assert_eq!(error.raw_os_error(), Some(errno as i32), "{error:#}");
        assert!(matches!(error.kind(), ErrorKind::Setup | ErrorKind::Unsupported), "{error:#}");
        let text = format!("{error:#}");
        assert_eq!(error.step() == Step::Clone, !expected.has("late") && !expected.has("filter"), "{text}");
        assert!(text.contains("cause: ") && text.contains("remedy: "), "{text}");
        assert!(error.causes().iter().any(|cause| is_the_cause(&expected, cause)), "{text}");
    }

    fn is_the_cause(expected: &Expected, cause: &Cause) -> bool {
        match expected.value("refused") {
            Some("ENOSPC") => {
                matches!(cause, Cause::NamespaceLimit { sysctl: "user.max_user_namespaces", value: 0 })
            }
            Some(_) if expected.has("filter") => matches!(cause, Cause::SeccompFilterAroundCaller { .. }),
            Some(_) => {
                matches!(cause, Cause::AppArmorProfile { label } if label.ends_with("(enforce)"))
                    && cause.remedy().contains("\"userns,\"")
            }
            None => *cause == Cause::DebianUserNamespacesOff,
        }
    }

    #[test]
    fn a_weaker_set_is_taken_only_where_it_is_listed() {
        let name = "a_weaker_set_is_taken_only_where_it_is_listed";
        let expected = expected!(name);
        let Some(errno) = expected.refusal().filter(|_| !expected.has("filter")) else {
            skip!(name, "no namespace is refused here")
        };
        // Root can do without a user namespace; others are left with no namespace at all, and so with no tree.
        let (weaker, builder) = if is_root() {
            (Namespaces::STANDARD.difference(Namespaces::USER), sandbox())
        } else {
            (Namespaces::empty(), Sandbox::builder())
        };
        let sandbox = build(builder.clone().namespaces([Namespaces::STANDARD, weaker]));
        let child = sandbox.command("/bin/true").spawn().unwrap_or_else(|error| panic!("{error:#}"));
        let report = child.enforcement();
        assert_eq!(report.attempts.len(), 2, "{report}");
        let refusal = report.attempts[0].refused.as_ref().expect("a refusal");
        assert_eq!(refusal.errno, errno as i32, "{report}");
        assert!(refusal.causes.iter().any(|cause| is_the_cause(&expected, cause)), "{refusal:?}");
        assert_eq!(report.attempts[1].refused, None);
        assert_eq!(report.no_new_privs, Some(true));
        // Where the policy does not list it, it is not taken.
        let error = refused(builder.namespaces(Namespaces::STANDARD));
        assert_eq!(error.raw_os_error(), Some(errno as i32), "{error:#}");
    }

    /// What would be done by the plan and the command's tail.
    fn explained() -> String {
        build(sandbox()).command("/bin/true").explain().unwrap_or_else(|error| panic!("{error:#}"))
    }

    #[test]
    fn a_launch_makes_the_calls_that_are_expected() {
        let name = "a_launch_makes_the_calls_that_are_expected";
        let expected = expected!(name);
        if expected.refusal().is_some() {
            skip!(name, "nothing can be launched here");
        }
        let text = explained();
        // The tree of a root caller is restricted before the clone, by the caller.
        for (word, call) in
            [("openat2", "openat2("), ("mount_setattr", "mount_setattr("), ("mount_api", "fsopen(")]
        {
            assert_eq!(text.contains(call), expected.has(word), "{call}\n{text}");
        }
        let tail = text.split("# the command").last().expect("a tail");
        assert!(!expected.has("close_range") || tail.contains("close_range("), "{tail}");
        let child = build(sandbox()).command("/bin/true").spawn().unwrap_or_else(|error| panic!("{error:#}"));
        let image = child.enforcement().method == LaunchMethod::Image;
        assert_eq!(image, expected.has("image"), "{}", child.enforcement());
    }

    /// Behind a filter that refuses the older call: what succeeds has made the newer one.
    #[test]
    fn the_child_is_made_by_clone3_where_that_is_expected() {
        const NAME: &str = "the_child_is_made_by_clone3_where_that_is_expected";
        let expected = expected!(NAME);
        if expected.refusal().is_some() {
            skip!(NAME, "nothing can be launched here");
        }
        alone(NAME, || {
            let condition = Argument::long(0).masked_equal(CLONE_NEWPID, CLONE_NEWPID);
            let filter = Filter::deny_list().rule("clone", [condition], Action::Errno(libc::EPERM));
            apply(Lowering::builder().seccomp(filter));
            let ran = compile(&sandbox()).and_then(|it| it.command("/bin/true").status());
            let expected = Expected::read().expect("words");
            match ran {
                Ok(_) => assert!(expected.has("clone3"), "clone would have been refused"),
                Err(error) => {
                    assert_eq!(
                        (error.step(), error.raw_os_error()),
                        (Step::Clone, Some(libc::EPERM)),
                        "{error:#}"
                    );
                    assert!(!expected.has("clone3"), "clone3 was not used: {error:#}");
                }
            }
        });
    }

    #[test]
    fn landlock_holds_where_it_is_expected_and_is_refused_elsewhere() {
        let name = "landlock_holds_where_it_is_expected_and_is_refused_elsewhere";
        let expected = expected!(name);
        if expected.refusal().is_some() && expected.has("filter") {
            skip!(name, "nothing can be launched here");
        }
        let scratch = Scratch::new();
        let file = scratch.file("seen", "text\n");
        let least = expected.value("landlock").map(|abi| abi.parse().expect("a number"));
        let rules = || {
            let closed = Landlock::closed().floor(least.unwrap_or(1));
            ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache"]
                .iter()
                .fold(closed, |rules, path| rules.allow(*path, AccessFs::READ_EXECUTE))
        };
        let alone = |rules| Sandbox::builder().namespaces(Namespaces::empty()).landlock(rules);
        let script = format!("read line <'{}' || echo closed", file.display());
        if least.is_some() {
            let sandbox = build(alone(rules()));
            assert_eq!(sh(&sandbox, &script), "closed");
            let child = sandbox.command("/bin/true").spawn().unwrap_or_else(|error| panic!("{error:#}"));
            let abi = child.enforcement().landlock.as_ref().map(|state| state.abi);
            assert!(abi >= least, "{abi:?} {least:?}");
            return;
        }
        let error: Error = refused(alone(rules()));
        assert_eq!(error.step(), Step::Landlock, "{error:#}");
        assert!(matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Setup), "{error:#}");
        assert!(format!("{error:#}").contains("cause: "), "{error:#}");
        let sandbox = build(alone(rules().preferred()));
        assert_ne!(sh(&sandbox, &script), "closed");
        let child = sandbox.command("/bin/true").spawn().unwrap_or_else(|error| panic!("{error:#}"));
        let report = child.enforcement();
        assert!(report.landlock.is_none(), "{report}");
        assert!(report.missing.iter().any(|item| item.step == Step::Landlock), "{report}");
    }

    #[test]
    fn limits_are_held_by_the_groups_that_are_expected() {
        let name = "limits_are_held_by_the_groups_that_are_expected";
        let expected = expected!(name);
        if expected.refusal().is_some() {
            skip!(name, "nothing can be launched here");
        }
        let rung = [("cgroup2", LimitRung::CgroupV2), ("cgroup1", LimitRung::CgroupV1)]
            .into_iter()
            .find_map(|(word, rung)| expected.has(word).then_some(rung));
        let Some(rung) = rung else {
            let error = refused(sandbox().processes(50));
            assert_eq!((error.kind(), error.step()), (ErrorKind::Unsupported, Step::Cgroup), "{error:#}");
            let child = build(sandbox().processes(prefer(50))).command("/bin/true").spawn();
            let child = child.unwrap_or_else(|error| panic!("{error:#}"));
            let [state] = child.enforcement().limits.as_slice() else { panic!("{}", child.enforcement()) };
            assert!(state.strength < Strength::Hard && !state.reasons.is_empty(), "{state}");
            return;
        };
        let child = build(sandbox().processes(50)).command("/bin/true").spawn();
        let child = child.unwrap_or_else(|error| panic!("{error:#}"));
        let limits = &child.enforcement().limits;
        let state = limits.iter().find(|state| state.limit.kind() == LimitKind::Processes).expect("a state");
        assert_eq!((state.rung, state.strength), (Some(rung), Strength::Hard), "{state}");
    }

    #[test]
    fn a_tree_is_read_only_by_whichever_calls_there_are() {
        let name = "a_tree_is_read_only_by_whichever_calls_there_are";
        let expected = expected!(name);
        if expected.refusal().is_some() {
            skip!(name, "nothing can be launched here");
        }
        let scratch = Scratch::new();
        let directory = scratch.directory("open");
        let sandbox = build(sandbox().bind(&directory, "/mnt", Access::ReadOnly));
        let (_, _, err) = run_sh(&sandbox, "echo x >/mnt/file");
        assert!(err.contains("Read-only file system"), "{err}");
        assert_eq!(directory.join("file").try_exists().ok(), Some(false));
    }
}
