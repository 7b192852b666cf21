//! Namespaces from inside: each is its own, what they hold, and what happens where one cannot be had.

#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    use std::process::{self, Command, Stdio};

    use ringfence::host::{Features, KernelVersion};
    use ringfence::{
        Builder, Cause, ErrorKind, Host, Init, Launch, Mistake, NamespaceSets, Namespaces, Sandbox,
        Stdio as Stream, Step, TimeOffsets,
    };

    use super::support::{
        Scratch, build, compile, is_inside, is_root, offers, python, refused, rerun, run_python, run_sh,
        sandbox, sh, skip,
    };

    fn plain() -> Builder {
        sandbox()
    }

    const NAMES: [&str; 8] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"];

    fn own(name: &str) -> String {
        let link = fs::read_link(format!("/proc/self/ns/{name}")).expect("namespace");
        link.to_string_lossy().into_owned()
    }

    fn inside(sandbox: &Sandbox) -> BTreeMap<&'static str, String> {
        let out =
            sh(sandbox, "for n in user mnt pid net ipc uts cgroup time; do readlink /proc/self/ns/$n; done");
        NAMES.into_iter().zip(out.lines().map(str::to_owned)).collect()
    }

    #[test]
    fn each_namespace_is_the_programs_own() {
        for launch in [Launch::Image, Launch::Copy] {
            for init in [Init::Reaper, Init::Program] {
                let seen = inside(&build(sandbox().launch(launch).init(init)));
                for name in NAMES.into_iter().filter(|name| *name != "time") {
                    assert_ne!(seen[name], own(name), "{name} {launch:?} {init:?}");
                }
                assert_eq!(seen["time"], own("time"), "it exists only for offsets");
            }
        }
    }

    #[test]
    fn two_sandboxes_share_no_namespace() {
        let sandbox = build(sandbox());
        // Both live at once: an inode number can come back.
        let mut command = sandbox.command("cat");
        let first = command.stdin(Stream::piped()).spawn().unwrap_or_else(|error| panic!("{error:#}"));
        let second = inside(&sandbox);
        for state in &first.enforcement().namespaces {
            let (_, name) =
                Namespaces::NAMES.into_iter().find(|(kind, _)| *kind == state.kind).expect("name");
            let inode = format!("{name}:[{}]", state.inode.expect("inode"));
            assert_eq!(state.shared, Some(name == "time"), "{name}");
            assert_eq!(second[name] == inode, name == "time", "{name} {inode}");
        }
    }

    #[test]
    fn host_and_domain_name_are_as_given() {
        let (host, domain) =
            (sh_host("uname -n"), fs::read_to_string("/proc/sys/kernel/domainname").expect("domain"));
        let sandbox = build(sandbox().hostname("box").domain_name("example"));
        assert_eq!(
            sh(&sandbox, "uname -n; cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname"),
            "box\nbox\nexample"
        );
        assert_eq!(sh(&build(plain()), "uname -n"), "sandbox");
        assert_eq!(sh_host("uname -n"), host);
        assert_eq!(fs::read_to_string("/proc/sys/kernel/domainname").expect("domain"), domain);
        let change =
            "import socket\ntry:\n socket.sethostname('x')\nexcept PermissionError:\n print('refused')";
        assert_eq!(python(&sandbox, change), "refused");
    }

    fn sh_host(script: &str) -> String {
        let output = Command::new("sh").args(["-c", script]).output().expect("sh");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[test]
    fn loopback_is_up_and_alone() {
        let sandbox = build(sandbox());
        let up = "import socket\nprint([n for _, n in socket.if_nameindex() if open(f'/proc/net/dev').read().count(n)])\n\
            s = socket.create_server(('127.0.0.1', 0))\nc = socket.create_connection(s.getsockname())\n\
            a, _ = s.accept(); c.sendall(b'ping'); print(a.recv(9))\n\
            u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ntry:\n u.connect(('192.0.2.1', 9)); print('ROUTE')\n\
            except OSError as e:\n print(e.errno)";
        assert_eq!(python(&sandbox, up), format!("['lo']\nb'ping'\n{}", libc::ENETUNREACH));
    }

    #[test]
    fn the_hosts_loopback_is_another() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let script = format!("import socket; socket.create_connection(('127.0.0.1', {port}), 3)");
        let (code, _, err) = run_python(&build(sandbox()), &script);
        assert!(code != 0 && err.contains("ConnectionRefused"), "{err}");
        let shared = build(sandbox().allow_host_network());
        assert_eq!(python(&shared, &script), "");
        assert_eq!(inside(&shared)["net"], own("net"));
    }

    #[test]
    fn abstract_sockets_of_the_host_are_out_of_reach() {
        let name = format!("ringfence-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).expect("address");
        let listener = UnixListener::bind_addr(&address).expect("bind");
        let script = format!("import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')");
        let (code, _, err) = run_python(&build(sandbox()), &script);
        assert!(code != 0 && err.contains("ConnectionRefused"), "{err}");
        assert_eq!(python(&build(sandbox().allow_host_network()), &script), "");
        drop(listener);
    }

    #[test]
    fn shared_memory_of_the_host_is_not_seen() {
        // shmget(IPC_PRIVATE), world readable; the segment goes in any case.
        let script = "import ctypes, sys\nl = ctypes.CDLL(None, use_errno=True)\ni = l.shmget(0, 4096, 0o1666)\n\
            assert i >= 0\nprint(i, flush=True)\nsys.stdin.read()\nl.shmctl(i, 0, None)";
        let mut host = Command::new("/usr/bin/python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        BufReader::new(host.stdout.take().expect("stdout")).read_line(&mut line).expect("id");
        let id: i32 = line.trim().parse().expect("id");
        let attach = format!(
            "import ctypes; l = ctypes.CDLL(None, use_errno=True); l.shmat.restype = ctypes.c_long; \
             print(l.shmat({id}, None, 0o10000) != -1, sum(1 for _ in open('/proc/sysvipc/shm')) - 1)"
        );
        let seen = python(&build(sandbox()), &attach);
        let shared = Namespaces::STANDARD.difference(Namespaces::IPC);
        let control = python(&build(sandbox().namespaces(shared)), &attach);
        drop(host.stdin.take());
        assert!(host.wait().expect("wait").success());
        assert_eq!(seen, "False 0");
        assert!(control.starts_with("True"), "the probe itself: {control}");
    }

    #[test]
    fn time_offsets_hold() {
        let offsets = TimeOffsets { monotonic: 100_000, boottime: 700_000 };
        for init in [Init::Reaper, Init::Program] {
            for launch in [Launch::Image, Launch::Copy] {
                let builder = sandbox().time_offsets(offsets).init(init).launch(launch);
                if init == Init::Program && !offers(Features::TIME_NS_ON_EXEC) {
                    let error = compile(&builder).map(drop).unwrap_err();
                    assert_eq!(
                        (error.kind(), error.step()),
                        (ErrorKind::Unsupported, Step::Time),
                        "{error:#}"
                    );
                    continue;
                }
                let sandbox = build(builder);
                let script = "import time; print(int(time.clock_gettime(time.CLOCK_MONOTONIC)), \
                    int(time.clock_gettime(7)), int(float(open('/proc/uptime').read().split()[0])))";
                let host = nix_clock();
                let seen: Vec<i64> =
                    python(&sandbox, script).split(' ').map(|word| word.parse().expect("number")).collect();
                for (seen, offset) in seen.iter().zip([100_000, 700_000, 700_000]) {
                    let difference = seen - host - offset;
                    assert!((-2..60).contains(&difference), "{seen} {host} {offset} {init:?} {launch:?}");
                }
                assert_ne!(inside(&sandbox)["time"], own("time"));
            }
        }
    }

    /// Seconds since the boot. This machine is not suspended in between, so the two clocks agree.
    fn nix_clock() -> i64 {
        let text = fs::read_to_string("/proc/uptime").expect("uptime");
        text.split('.').next().expect("seconds").parse().expect("number")
    }

    #[test]
    fn root_can_do_without_a_user_namespace() {
        if !is_root() {
            skip!("root_can_do_without_a_user_namespace", "needs root");
        }
        let set = Namespaces::STANDARD.difference(Namespaces::USER);
        let seen = inside(&build(sandbox().namespaces(set)));
        for name in NAMES {
            assert_eq!(seen[name] == own(name), matches!(name, "user" | "time"), "{name}");
        }
    }

    #[test]
    fn an_unprivileged_caller_without_a_user_namespace_is_told_why() {
        const NAME: &str = "an_unprivileged_caller_without_a_user_namespace_is_told_why";
        if is_root() {
            skip!(NAME, "needs a caller that is not root");
        }
        let error = refused(sandbox().namespaces(Namespaces::STANDARD.difference(Namespaces::USER)));
        assert_eq!((error.step(), error.raw_os_error()), (Step::Clone, Some(libc::EPERM)), "{error:#}");
        let lacks = |cause: &Cause| matches!(cause, Cause::NoPrivilege { capability: "CAP_SYS_ADMIN" });
        assert!(error.causes().iter().any(lacks), "{error:#}");
    }

    #[test]
    fn single_namespaces_can_be_left_out() {
        for (left, name) in
            [(Namespaces::IPC, "ipc"), (Namespaces::UTS, "uts"), (Namespaces::CGROUP, "cgroup")]
        {
            let seen = inside(&build(sandbox().namespaces(Namespaces::STANDARD.difference(left))));
            for other in NAMES {
                assert_eq!(
                    seen[other] == own(other),
                    other == name || other == "time",
                    "{other} without {name}"
                );
            }
        }
    }

    #[test]
    fn the_empty_set_runs_and_says_what_is_open() {
        let sandbox = build(Sandbox::builder().namespaces(Namespaces::empty()));
        let seen = inside(&sandbox);
        for name in NAMES {
            assert_eq!(seen[name], own(name), "{name}");
        }
        let child = sandbox.command("/bin/true").spawn().unwrap_or_else(|error| panic!("{error:#}"));
        let report = child.enforcement();
        assert!(report.namespaces.iter().all(|state| state.shared == Some(true)), "{report}");
        let notes = report.notes.join("\n");
        for word in ["mount namespace", "network", "pid namespace", "user namespace"] {
            assert!(notes.contains(word), "nothing about {word}: {notes}");
        }
        // What still holds does not need a namespace.
        assert_eq!(report.no_new_privs, Some(true));
        assert_eq!(report.capabilities.map(|sets| sets.effective), Some(0));
        if is_root() {
            assert_ne!(sh(&sandbox, "id -u"), "0");
            assert_ne!(run_sh(&sandbox, "cat /etc/shadow").0, 0);
        }
        let tree = Sandbox::builder().namespaces(Namespaces::empty()).tmpfs("/x", 1);
        let mistakes = tree.policy().expect_err("a mistake").mistakes().to_vec();
        assert_eq!(mistakes, [Mistake::TreeWithoutMountNamespace { set: "{}".to_owned() }]);
    }

    /// Runs the test again where no further user namespace can be made.
    fn without_user_namespaces(test: &str) {
        let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"";
        rerun(test, &["unshare", "--user", "--map-root-user"], script, &[]);
    }

    fn strong_then_weak() -> [Namespaces; 2] {
        [Namespaces::STANDARD, Namespaces::STANDARD.difference(Namespaces::USER)]
    }

    /// The caller has one id only, that of root in its namespace.
    fn here() -> Builder {
        sandbox().keep_host_root().ids(0, 0)
    }

    #[test]
    fn sets_fall_through_with_a_record() {
        const NAME: &str = "sets_fall_through_with_a_record";
        if !is_inside(NAME) {
            return without_user_namespaces(NAME);
        }
        let sandbox = build(here().namespaces(strong_then_weak()));
        let child = sandbox.command("true").spawn().unwrap_or_else(|error| panic!("{error:#}"));
        let attempts = &child.enforcement().attempts;
        assert_eq!(attempts.len(), 2, "{attempts:?}");
        let refusal = attempts[0].refused.as_ref().expect("refused");
        assert_eq!((refusal.step, refusal.errno), (Step::Clone, libc::ENOSPC));
        let limit = |cause: &Cause| {
            matches!(cause, Cause::NamespaceLimit { sysctl: "user.max_user_namespaces", value: 0 })
        };
        assert!(refusal.causes.iter().any(limit), "{refusal:?}");
        assert_eq!(attempts[1].refused, None);
        let report = child.enforcement().to_string();
        assert!(report.contains("refused") && report.contains("max_user_namespaces"), "{report}");
        assert_eq!(inside(&sandbox)["user"], own("user"));
        assert_ne!(inside(&sandbox)["pid"], own("pid"));
    }

    #[test]
    fn a_single_set_does_not_fall_through() {
        const NAME: &str = "a_single_set_does_not_fall_through";
        if !is_inside(NAME) {
            return without_user_namespaces(NAME);
        }
        let error = refused(here());
        assert_eq!((error.kind(), error.step()), (ErrorKind::Setup, Step::Clone), "{error:#}");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        let text = format!("{error:#}");
        assert!(text.contains("user.max_user_namespaces") && text.contains("remedy"), "{text}");
    }

    #[test]
    fn only_the_errnos_of_the_list_fall_through() {
        const NAME: &str = "only_the_errnos_of_the_list_fall_through";
        if !is_inside(NAME) {
            return without_user_namespaces(NAME);
        }
        let sets = NamespaceSets::new(strong_then_weak()).fall_through([libc::EINVAL]);
        let error = refused(here().namespaces(sets));
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error:#}");
    }

    #[test]
    fn a_set_that_is_refused_after_the_clone_falls_through_too() {
        const NAME: &str = "a_set_that_is_refused_after_the_clone_falls_through_too";
        if !is_inside(NAME) {
            // The time namespace is made by the child itself, later.
            let script = "echo 0 > /proc/sys/user/max_time_namespaces; exec \"$@\"";
            return rerun(NAME, &["unshare", "--user", "--map-root-user"], script, &[]);
        }
        let sets = [Namespaces::STANDARD | Namespaces::TIME, Namespaces::STANDARD];
        let offsets = TimeOffsets { monotonic: 5, boottime: 5 };
        let sandbox = build(here().time_offsets(offsets).namespaces(sets));
        let child = sandbox.command("true").spawn().unwrap_or_else(|error| panic!("{error:#}"));
        let attempts = &child.enforcement().attempts;
        let refusal = attempts[0].refused.as_ref().expect("refused");
        assert_eq!((refusal.step, refusal.errno), (Step::Time, libc::ENOSPC));
        let limit =
            |cause: &Cause| matches!(cause, Cause::NamespaceLimit { sysctl: "user.max_time_namespaces", .. });
        assert!(refusal.causes.iter().any(limit), "{refusal:?}");
        assert_eq!(inside(&sandbox)["time"], own("time"));
        drop(child);
        let error = refused(here().time_offsets(offsets));
        assert_eq!((error.step(), error.raw_os_error()), (Step::Time, Some(libc::ENOSPC)), "{error:#}");
    }

    #[test]
    fn a_fresh_proc_under_a_covered_one_is_explained() {
        const NAME: &str = "a_fresh_proc_under_a_covered_one_is_explained";
        if !is_inside(NAME) {
            // The clone works, and procfs does not: its own view of /proc is partly covered.
            let script = "mount -t tmpfs none /proc/sys; exec \"$@\"";
            return rerun(NAME, &["unshare", "--user", "--map-root-user", "--mount"], script, &[]);
        }
        let error = refused(here());
        let said = (error.step(), error.raw_os_error());
        // Linux 7.x lets one with subset=pid be mounted there, and then the knob is what is covered.
        let covered = (Step::Knob, Some(libc::ENOENT));
        let newer = Host::probe().kernel() >= KernelVersion::new(7, 0, 0);
        assert!(said == (Step::Proc, Some(libc::EPERM)) || newer && said == covered, "{error:#}");
        assert!(error.causes().iter().any(|cause| matches!(cause, Cause::MaskedProc { .. })), "{error:#}");
    }

    #[test]
    fn the_floor_is_respected() {
        let sets = NamespaceSets::new([Namespaces::STANDARD, Namespaces::PID]).floor(Namespaces::NET);
        let mistakes =
            Sandbox::builder().namespaces(sets).policy().expect_err("a mistake").mistakes().to_vec();
        let below = Mistake::SetBelowFloor { set: "{pid}".to_owned(), floor: "{net}".to_owned() };
        assert!(mistakes.contains(&below), "{mistakes:?}");
        let none = NamespaceSets::new([]);
        let mistakes =
            Sandbox::builder().namespaces(none).policy().expect_err("a mistake").mistakes().to_vec();
        assert_eq!(mistakes, [Mistake::NoNamespaceSet]);
        let time = Sandbox::builder().namespaces(Namespaces::all());
        let mistakes = time.policy().expect_err("a mistake").mistakes().to_vec();
        assert_eq!(mistakes, [Mistake::TimeNamespaceWithoutOffsets]);
    }

    #[test]
    fn a_chrooted_caller_is_told_so() {
        const NAME: &str = "a_chrooted_caller_is_told_so";
        if !is_root() {
            skip!(NAME, "needs root: others are not chrooted by themselves");
        }
        if !is_inside(NAME) {
            // A directory that is no mount point, with everything of the host in it, in a mount namespace of its own.
            let script = "mount -t tmpfs none \"$TREE\"; mkdir \"$TREE/root\"; for p in /*; do \
                if test -L $p; then cp -P $p \"$TREE/root\"; elif test -d $p; then mkdir \"$TREE/root$p\"; \
                mount --rbind $p \"$TREE/root$p\"; fi; done; exec chroot \"$TREE/root\" \"$@\"";
            let scratch = Scratch::new();
            let tree = scratch.directory("tree");
            return rerun(NAME, &["unshare", "--mount"], script, &[("TREE", &tree)]);
        }
        let error = refused(sandbox());
        assert_eq!((error.step(), error.raw_os_error()), (Step::Clone, Some(libc::EPERM)), "{error:#}");
        assert!(error.causes().iter().any(|cause| matches!(cause, Cause::ChrootedCaller)), "{error:#}");
    }
}
