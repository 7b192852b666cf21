//! Policies through the public builder: every mistake has its words, and all of them come at once.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use ringfence::{
        AccessFs, Action, Argument, Builder, ErrorKind, FileItem, Filter, Host, IdRange, Init, Landlock,
        Limit, Mapping, Mistake, Mount, MountKind, NamespaceSets, Namespaces, Need, ProcMount, ProcRung,
        Resource, Sandbox, TimeOffsets, Tmpfs, prefer,
    };

    fn builder() -> Builder {
        Sandbox::builder()
    }

    fn range(inside: u32, outside: u32, count: u32) -> IdRange {
        IdRange { inside, outside, count }
    }

    fn ranges(uids: Vec<IdRange>, gids: Vec<IdRange>) -> Mapping {
        Mapping::Ranges { uids, gids }
    }

    fn file(target: &str, size: usize) -> Mount {
        Mount::new(target, MountKind::File(FileItem { contents: vec![0; size], mode: 0o444 }))
    }

    /// What is wrong, the name of its variant, and words that its text must have.
    type Wrong = (Builder, &'static str, &'static [&'static str]);

    fn wrong_mounts() -> Vec<Wrong> {
        let no_rung = Mount::new("/proc", MountKind::Proc(ProcMount { ladder: Vec::new() }));
        let many = (0..1_001).fold(builder(), |builder, n| builder.directory(format!("/many/{n}")));
        vec![
            (builder().file("not/absolute", "x"), "BadPath", &["\"not/absolute\"", "absolute"]),
            (builder().file("/up/../there", "x"), "BadPath", &["\"/up/../there\"", ".."]),
            (builder().file("/a\0b", "x"), "BadPath", &["/a", "NUL"]),
            (builder().tmpfs("/", 4096), "BadPath", &["\"/\"", "root"]),
            (builder().bind("relative", "/here", ringfence::Access::ReadOnly), "BadPath", &["\"relative\""]),
            (builder().symlink("", "/link"), "BadPath", &["symlink"]),
            (builder().file(format!("/{}", "x".repeat(256)), "x"), "BadPath", &["longer"]),
            (builder().file("/twice", "a").file("/twice", "b"), "SameTarget", &["\"/twice\"", "over()"]),
            (
                builder().file("/below/it", "a").tmpfs("/below", 4096),
                "Hides",
                &["\"/below\"", "\"/below/it\"", "over()"],
            ),
            (many, "TooManyMounts", &["1001", "1000"]),
            (builder().mount(file("/large", (16 << 20) + 1)), "FileTooLarge", &["\"/large\"", "16777216"]),
            (builder().mount(no_rung), "EmptyProcLadder", &["\"/proc\"", "rung"]),
        ]
    }

    fn wrong_namespaces() -> Vec<Wrong> {
        let no_pid = Namespaces::STANDARD.difference(Namespaces::PID);
        let floor = NamespaceSets::new([no_pid]).floor(Namespaces::PID);
        let none: [Namespaces; 0] = [];
        vec![
            (builder().proc().namespaces(no_pid), "ProcWithoutPidNamespace", &["/proc", "pid namespace"]),
            (builder().namespaces(NamespaceSets::new(none)), "NoNamespaceSet", &["namespace set"]),
            (builder().namespaces(floor), "SetBelowFloor", &["{user|mnt|net|ipc|uts|cgroup}", "{pid}"]),
            (builder().namespaces(Namespaces::all()), "TimeNamespaceWithoutOffsets", &["time_offsets()"]),
            (
                builder().directory("/x").namespaces(Namespaces::USER),
                "TreeWithoutMountNamespace",
                &["{user}", "mount namespace"],
            ),
            (builder().hostname("x".repeat(65)), "BadName", &["host name", "xxx", "64"]),
            (builder().hostname(""), "BadName", &["host name", "\"\""]),
            (builder().domain_name("a\0b"), "BadName", &["domain name", "NUL"]),
        ]
    }

    fn wrong_ids() -> Vec<Wrong> {
        let own = |uid| vec![range(uid, 100_000, 1)];
        let long = (0..341).map(|n| range(n + 1_000, n + 100_000, 1)).collect();
        let overlap = vec![range(1_000, 100_000, 9), range(1_001, 200_000, 1)];
        let overflow = vec![range(1_000, u32::MAX - 1, 9)];
        vec![
            (builder().ids(u32::MAX, 1), "InvalidId", &["4294967295"]),
            (builder().mapping(Mapping::Host { uid: 0, gid: 5 }), "HostRootMapped", &["host id 0"]),
            (
                builder().mapping(ranges(vec![range(1_000, 0, 1)], own(1_000))),
                "HostRootMapped",
                &["host id 0", "keep_host_root()"],
            ),
            (builder().mapping(ranges(Vec::new(), own(1_000))), "IdMapLength", &["uid", "0 lines", "340"]),
            (builder().mapping(ranges(long, own(1_000))), "IdMapLength", &["uid", "341"]),
            (builder().mapping(ranges(own(1_000), overlap)), "IdRange", &["gid", "1000 100000 9"]),
            (builder().mapping(ranges(overflow, own(1_000))), "IdRange", &["uid", "4294967294 9"]),
            (builder().mapping(ranges(vec![range(1_000, 7, 0)], own(1_000))), "IdRange", &["1000 7 0"]),
            (builder().mapping(ranges(own(5), own(1_000))), "IdNotMapped", &["uid 1000"]),
            (builder().groups([77]).mapping(ranges(own(1_000), own(1_000))), "IdNotMapped", &["group 77"]),
            (builder().groups([4, 5]), "UnmappedGroups", &["[4, 5]"]),
        ]
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn wrong_process() -> Vec<Wrong> {
        let above = Limit { resource: Resource::Stack, soft: 9, hard: 8, need: Need::Required };
        vec![
            (builder().umask(0o1000), "OutOfRange", &["umask", "512", "511"]),
            (builder().nice(20), "OutOfRange", &["nice", "20", "19"]),
            (builder().nice(prefer(-21)), "OutOfRange", &["nice", "-21", "-20"]),
            (builder().oom_score_adj(1001), "OutOfRange", &["oom_score_adj", "1001", "1000"]),
            (builder().limits(above), "SoftAboveHard", &["RLIMIT_STACK", "9", "8"]),
            (
                builder().allow_outliving_caller().init(Init::Program),
                "DetachWithoutInit",
                &["allow_outliving_caller()", "init"],
            ),
            (builder().memory_high(9), "GroupLimit", &["memory_high", "9", "page"]),
            (builder().wall_time(Duration::ZERO), "ZeroLimit", &["wall_time()", "nothing"]),
            (builder().wall_time(SECOND).grace(9, SECOND), "BadGraceSignal", &["grace()", "9", "SIGKILL"]),
            (builder().grace(15, SECOND), "GraceWithoutClock", &["grace()", "wall_time()"]),
        ]
    }

    fn wrong_landlock() -> Vec<Wrong> {
        let many = (0..1_001).fold(Landlock::closed(), |rules, port| rules.connect_tcp(port));
        let weak = Landlock::from_mounts().preferred().in_place_of_mounts();
        let files = || Landlock::new().files(AccessFs::EXECUTE);
        vec![
            (builder().landlock(Landlock::new()), "EmptyLandlock", &["handles nothing"]),
            (builder().landlock(files().connect_tcp(7)), "LandlockRuleUnhandled", &["port 7", "CONNECT_TCP"]),
            (
                builder().landlock(files().allow("/a", AccessFs::READ)),
                "LandlockRuleUnhandled",
                &["\"/a\"", "READ_FILE"],
            ),
            (builder().landlock(files().allow("a", AccessFs::EXECUTE)), "BadPath", &["\"a\"", "absolute"]),
            (builder().landlock(many), "TooManyLandlockRules", &["1001", "1000"]),
            (builder().landlock(weak), "WeakStandIn", &["ABI 1"]),
        ]
    }

    fn wrong_filters() -> Vec<Wrong> {
        let with = |filter| builder().seccomp(filter);
        let list = || Filter::allow_list().allow(["execve", "exit_group"]);
        let no_end = Filter::allow_list().allow(["execve"]);
        let wide = Argument::int(0).equal(1 << 32);
        vec![
            (with(list().allow(["opne"])), "UnknownCall", &["opne", "syscalls(2)"]),
            (with(list().deny(["read"], Action::Errno(5000))), "BadErrno", &["read", "4095"]),
            (with(list().rule("read", [wide], Action::Allow)), "BadCondition", &["read", "Argument::long"]),
            (with(list().allow(["read", "read"])), "RuleNeverReached", &["read", "forget()"]),
            (with(Filter::allow_list().allow(["exit_group"])), "FilterForbidsLaunch", &["launch_only()"]),
            (with(no_end), "FilterForbidsEnd", &["exit_group"]),
            (
                builder().allow_new_privileges(),
                "FilterNeedsNoNewPrivs",
                &["CAP_SYS_ADMIN", "allow_all_calls()"],
            ),
        ]
    }

    fn all_wrong() -> Vec<Wrong> {
        [wrong_mounts(), wrong_namespaces(), wrong_ids(), wrong_process(), wrong_landlock(), wrong_filters()]
            .concat()
    }

    fn mistakes(builder: &Builder) -> (Vec<Mistake>, String) {
        let error = builder.policy().expect_err("a mistake");
        assert_eq!(error.kind(), ErrorKind::InvalidPolicy);
        (error.mistakes().to_vec(), error.to_string())
    }

    fn variant(mistake: &Mistake) -> String {
        let text = format!("{mistake:?}");
        text.chars().take_while(|c| c.is_alphanumeric()).collect()
    }

    #[test]
    fn each_mistake_is_found_and_names_its_item() {
        for (builder, name, words) in all_wrong() {
            let (mistakes, text) = mistakes(&builder);
            let found = mistakes.iter().find(|mistake| variant(mistake) == name);
            let found = found.unwrap_or_else(|| panic!("{name}: {text}")).to_string();
            for word in words {
                assert!(found.contains(word), "{name}: {found:?} lacks {word:?}");
            }
            assert!(text.contains(&found), "the error's own text holds it: {text}");
        }
    }

    #[test]
    fn each_variant_is_provoked() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/error/mistake.rs");
        let source = fs::read_to_string(source).expect("the source is there");
        let body = source.split("pub enum Mistake {").nth(1).expect("the enum");
        let variants = body.lines().filter(|line| {
            line.starts_with("    ") && line.trim_start().chars().next().is_some_and(char::is_uppercase)
        });
        let mut provoked: Vec<&str> = all_wrong().iter().map(|(_, name, _)| *name).collect();
        // Known only once it is compiled: src/plan/seccomp/tests.rs.
        provoked.push("FilterTooLong");
        // Of a process that lowers itself: tests/lower.rs.
        provoked.extend(["EmptyLowering", "FilterNotifiesNobody", "LandlockWithoutMounts"]);
        let mut count = 0;
        for line in variants {
            let name: String = line.trim().chars().take_while(|c| c.is_alphanumeric()).collect();
            assert!(provoked.contains(&name.as_str()), "no test provokes {name}");
            count += 1;
        }
        assert!(count >= 20, "{count} variants");
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let builder = builder()
            .file("one", "x")
            .file("/two/../three", "x")
            .hostname("")
            .nice(99)
            .umask(0o7777)
            .ids(u32::MAX, 0)
            .groups([1])
            .namespaces(Namespaces::all());
        let (mistakes, text) = mistakes(&builder);
        let names: Vec<String> = mistakes.iter().map(variant).collect();
        let wanted = [
            "TimeNamespaceWithoutOffsets",
            "BadName",
            "InvalidId",
            "UnmappedGroups",
            "BadPath",
            "BadPath",
            "OutOfRange",
            "OutOfRange",
        ];
        assert_eq!(names, wanted);
        for mistake in &mistakes {
            assert!(text.contains(&mistake.to_string()), "{text:?} lacks {mistake}");
        }
    }

    #[test]
    fn a_policy_that_says_what_it_means_has_no_mistake() {
        let ladder = vec![ProcRung::Fresh, ProcRung::Absent];
        let kept = builder()
            .file("/twice", "a")
            .mount(file("/twice", 1).over())
            .directory("/made")
            .directory("/made")
            .mount(Mount::tmpfs("/made", Tmpfs::default()))
            .mount(Mount::new("/proc", MountKind::Proc(ProcMount { ladder })))
            .mapping(ranges(vec![range(0, 100_000, 2_000)], vec![range(0, 100_000, 2_000)]))
            .groups([5])
            .time_offsets(TimeOffsets::default())
            .init(Init::Program);
        assert!(kept.policy().is_ok(), "{:?}", kept.policy());
        let bare = builder().namespaces(Namespaces::empty()).policy();
        assert!(bare.is_ok(), "no namespace at all is a policy: {bare:?}");
    }

    #[test]
    fn equal_policies_give_equal_plans() {
        let make = || builder().system_read_only().tmpfs("/work", 1 << 20).hostname("x");
        for host in [Host::ideal(), Host::ideal().with_root()] {
            let sandbox = |host: Host| {
                let policy = make().policy().expect("no mistake");
                Sandbox::new(policy, host).expect("a plan")
            };
            let (one, other) = (sandbox(host.clone()), sandbox(host));
            assert_eq!(one.policy(), other.policy());
            assert!(one.plans().eq(other.plans()));
            let text = |sandbox: &Sandbox| sandbox.plans().map(ToString::to_string).collect::<String>();
            assert_eq!(text(&one), text(&other));
        }
    }

    #[test]
    fn presets_stand_before_the_mounts_of_the_builder_and_only_once() {
        let late = builder().directory("/mine").system_read_only().system_read_only().policy();
        let early = builder().system_read_only().directory("/mine").policy();
        assert_eq!(late.expect("no mistake"), early.expect("no mistake"));
        let none = builder().system_read_only().directory("/mine").empty().policy().expect("no mistake");
        assert!(none.mounts().is_empty());
    }
}
