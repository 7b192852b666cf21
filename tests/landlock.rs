//! Landlock from inside: what is closed is refused, what is open is open, and the report says which, alone and stacked.

#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::io::ErrorKind as IoKind;
    use std::net::TcpListener;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    use std::path::Path;
    use std::process;

    use ringfence::{
        Access, AccessFs, AccessNet, AuditLog, Builder, Enforcement, ErrorKind, Host, Init, Landlock,
        LandlockPathState, Launch, Namespaces, Sandbox, Scopes, Step, Verdict, prefer,
    };

    use super::support::{
        Scratch, build, is_inside, is_root, mode, python, refused, rerun, run_python, run_sh, sandbox, sh,
        skip,
    };

    /// What a dynamic program needs of the host.
    const SYSTEM: [&str; 5] = ["/usr", "/bin", "/lib", "/lib64", "/root/.pyenv"];
    /// What Python says with the errno of a failed call, or what it is asked to print.
    const TRY: &str = "import os,sys,socket,errno,ctypes\n\
        def t(f):\n\
        \x20try:\n\
        \x20 f(); return 'ok'\n\
        \x20except OSError as e: return errno.errorcode[e.errno]\n";

    macro_rules! needs {
        ($name:expr, $abi:literal) => {
            if abi() < $abi {
                skip!($name, "Landlock ABI {}", abi());
            }
        };
    }

    fn abi() -> u32 {
        Host::probe().landlock_abi().unwrap_or(0)
    }

    /// The right system, and nothing else of the host's.
    fn system(rules: Landlock) -> Landlock {
        let rules = SYSTEM.iter().fold(rules, |rules, path| rules.allow(*path, AccessFs::READ_EXECUTE));
        rules.allow("/etc/ld.so.cache", AccessFs::READ).allow("/dev/null", AccessFs::READ_WRITE)
    }

    fn rules() -> Landlock {
        system(Landlock::closed().floor(abi()))
    }

    /// Landlock is the only fence.
    fn alone(rules: Landlock) -> Builder {
        Sandbox::builder().namespaces(Namespaces::empty()).landlock(rules)
    }

    fn report(sandbox: &Sandbox) -> Enforcement {
        let child = sandbox.command("/bin/true").spawn().unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(child.wait().expect("an end").verdict(), Verdict::Exited(0));
        child.enforcement().clone()
    }

    fn state(report: &Enforcement, path: &Path) -> LandlockPathState {
        let landlock = report.landlock.as_ref().unwrap_or_else(|| panic!("no domain: {report}"));
        let rule = landlock.paths.iter().find(|rule| rule.path == path);
        rule.unwrap_or_else(|| panic!("no rule for {path:?}: {report}")).state
    }

    /// Each expression beside what it prints.
    fn expect(sandbox: &Sandbox, prologue: &str, cases: &[(&str, &str)]) {
        let lines: String = cases.iter().map(|(code, _)| format!("print(t(lambda: {code}))\n")).collect();
        let seen = python(sandbox, &format!("{TRY}{prologue}\n{lines}"));
        for ((code, wanted), seen) in cases.iter().zip(seen.lines()) {
            assert_eq!(seen, *wanted, "{code}");
        }
        assert_eq!(seen.lines().count(), cases.len(), "{seen}");
    }

    fn tree() -> Scratch {
        let scratch = Scratch::new();
        for name in ["open", "open/sub", "read", "closed"] {
            fs::write(scratch.directory(name).join("file"), "text").expect("file");
            mode(&scratch.at(name).join("file"), 0o666);
        }
        scratch
    }

    #[test]
    fn files_are_closed_but_where_a_rule_opens_them() {
        needs!("files_are_closed_but_where_a_rule_opens_them", 3);
        let scratch = tree();
        let rules = rules()
            .allow(scratch.at("open").as_path(), AccessFs::READ_WRITE)
            .allow(scratch.at("read").as_path(), AccessFs::READ);
        let sandbox = build(alone(rules));
        let prologue = format!("os.chdir({:?})", scratch.path());
        expect(
            &sandbox,
            &prologue,
            &[
                ("open('open/file').read()", "ok"),
                ("open('open/file','w').write('x')", "ok"),
                ("open('open/new','w')", "ok"),
                ("os.mkdir('open/dir')", "ok"),
                ("os.listdir('open')", "ok"),
                ("os.truncate('open/file', 0)", "ok"),
                ("os.rename('open/new', 'open/sub/new')", "ok"),
                ("os.link('open/sub/new', 'open/linked')", "ok"),
                ("open('read/file').read()", "ok"),
                ("os.listdir('read')", "ok"),
                ("open('read/file','a')", "EACCES"),
                ("os.truncate('read/file', 0)", "EACCES"),
                ("os.unlink('read/file')", "EACCES"),
                ("open('read/new','w')", "EACCES"),
                ("os.mkdir('read/dir')", "EACCES"),
                ("os.symlink('x', 'read/link')", "EACCES"),
                ("os.mkfifo('read/fifo')", "EACCES"),
                ("os.rename('open/file', 'read/new')", "EACCES"),
                ("os.link('read/file', 'open/link2')", "EXDEV"),
                ("open('closed/file')", "EACCES"),
                ("os.listdir('closed')", "EACCES"),
                ("os.listdir('/')", "EACCES"),
                ("open('/etc/passwd')", "EACCES"),
                ("open('/proc/self/status')", "EACCES"),
                ("os.open('/dev/full', os.O_WRONLY)", "EACCES"),
            ],
        );
    }

    #[test]
    fn executing_needs_its_right() {
        needs!("executing_needs_its_right", 1);
        let scratch = Scratch::new();
        let program = scratch.at("program");
        let made = process::Command::new("cp").args([Path::new("/usr/bin/true"), &program]).status();
        assert!(made.expect("cp").success());
        mode(&program, 0o755);
        let run = format!("{} 2>/dev/null && echo ran || echo refused", program.display());
        let with = |rights| sh(&build(alone(rules().allow(scratch.path(), rights))), &run);
        assert_eq!(with(AccessFs::READ), "refused");
        assert_eq!(with(AccessFs::READ_EXECUTE), "ran");
        // A program that may not be executed is an error of exec, not a run.
        let sandbox = build(alone(rules().allow(scratch.path(), AccessFs::READ)));
        let error = sandbox.command(&program).output().expect_err("EACCES");
        assert_eq!((error.step(), error.raw_os_error()), (Step::Exec, Some(libc::EACCES)), "{error:#}");
    }

    #[test]
    fn ioctl_on_devices_needs_its_right() {
        needs!("ioctl_on_devices_needs_its_right", 5);
        // RNDGETENTCNT; FIONREAD is a matter of the file's, and goes through.
        let code = "import fcntl,struct\nf=os.open('/dev/urandom', os.O_RDONLY)";
        let case = |wanted| [("fcntl.ioctl(f, 0x80045200, bytes(4))", wanted)];
        let with = |rights, wanted| {
            expect(&build(alone(rules().allow("/dev/urandom", rights))), code, &case(wanted));
        };
        with(AccessFs::READ, "EACCES");
        with(AccessFs::READ | AccessFs::IOCTL_DEV, "ok");
    }

    #[test]
    fn tcp_is_opened_by_port() {
        needs!("tcp_is_opened_by_port", 4);
        let here: Vec<TcpListener> =
            (0..2).map(|_| TcpListener::bind("127.0.0.1:0").expect("bind")).collect();
        let port = |index: usize| here[index].local_addr().expect("an address").port();
        let (open, closed) = (port(0), port(1));
        let sandbox = build(alone(rules().connect_tcp(open).bind_tcp(0)));
        let prologue =
            format!("a,b=('127.0.0.1',{open}),('127.0.0.1',{closed})\ns=lambda k=1:socket.socket(2,k)");
        expect(
            &sandbox,
            &prologue,
            &[
                ("s().connect(a)", "ok"),
                ("s().connect(b)", "EACCES"),
                ("s().bind(('127.0.0.1',0))", "ok"),
                ("s().bind(('127.0.0.1',45991))", "EACCES"),
                // A documented gap.
                ("s(2).sendto(b'x', b)", "ok"),
            ],
        );
        let ports = report(&sandbox).landlock.expect("a domain").ports;
        assert_eq!((ports[0].port, ports[0].applied), (open, AccessNet::CONNECT_TCP));
        assert_eq!((ports[1].port, ports[1].applied), (0, AccessNet::BIND_TCP));
        // What is not handled is free.
        let free = build(alone(system(Landlock::new().files(AccessFs::known_to(1)))));
        expect(&free, &prologue, &[("s().connect(b)", "ok")]);
    }

    #[test]
    fn scopes_keep_abstract_sockets_and_signals_inside() {
        needs!("scopes_keep_abstract_sockets_and_signals_inside", 6);
        let name = format!("ringfence-landlock-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let _listener = UnixListener::bind_addr(&address).expect("bind");
        // A process of the program's own uid outside, so that only the scope can refuse.
        // A root caller gives each sandbox ids of its own, and those alone would refuse a signal.
        let same = |rules| {
            let builder = alone(rules);
            build(if is_root() { builder.keep_host_root().ids(0, 0) } else { builder })
        };
        let free = same(system(Landlock::new().files(AccessFs::known_to(1))));
        let victim = free.command("/bin/sleep").arg("60").spawn().unwrap_or_else(|error| panic!("{error:#}"));
        let prologue = format!(
            "n='\\0{name}'\nu=lambda: socket.socket(1,1)\npid=os.fork()\nif pid==0:\n while 1: import time; time.sleep(9)"
        );
        let theirs = format!("os.kill({}, 0)", victim.id());
        let inside = [("os.kill(pid, 9)", "ok"), ("os.kill(os.getppid(), 0)", "ok")];
        let cases = |socket: &'static str, signal: &'static str| {
            [inside[0], inside[1], ("u().connect(n)", socket), (theirs.as_str(), signal)]
        };
        expect(&same(rules()), &prologue, &cases("EPERM", "EPERM"));
        expect(&free, &prologue, &cases("ok", "ok"));
        victim.kill().expect("kill");
    }

    #[test]
    fn init_still_forwards_signals_and_ends_the_program() {
        for init in [Init::Reaper, Init::Program] {
            let sandbox = build(alone(rules()).init(init));
            let mut command = sandbox.command("/bin/sleep");
            let child = command.arg("60").spawn().unwrap_or_else(|error| panic!("{error:#}"));
            child.signal(libc::SIGTERM).expect("signal");
            let ended = child.wait().expect("an end").verdict();
            assert!(matches!(ended, Verdict::Signaled { signal: libc::SIGTERM, .. }), "{init:?}: {ended}");
            let child = command.spawn().unwrap_or_else(|error| panic!("{error:#}"));
            child.kill().expect("kill");
            assert_eq!(child.wait().expect("an end").verdict(), Verdict::Killed);
        }
    }

    #[test]
    fn a_missing_path_is_reported_and_the_others_hold() {
        needs!("a_missing_path_is_reported_and_the_others_hold", 1);
        let scratch = tree();
        let (absent, through, private) =
            (scratch.at("absent"), scratch.at("read/file/below"), scratch.at("private/file"));
        let file = scratch.at("read/file");
        fs::create_dir(scratch.at("private")).expect("directory");
        let rules = rules()
            .allow(absent.as_path(), AccessFs::READ)
            .allow(through.as_path(), AccessFs::READ)
            .allow(private.as_path(), AccessFs::READ)
            .allow(prefer(file.as_path()), AccessFs::READ_WRITE)
            .allow(scratch.at("open/file").as_path(), AccessFs::READ_DIR)
            .allow(scratch.at("open").as_path(), AccessFs::READ);
        let sandbox = build(alone(rules));
        let report = report(&sandbox);
        assert_eq!(state(&report, &absent), LandlockPathState::Absent(libc::ENOENT), "{report}");
        assert_eq!(state(&report, &through), LandlockPathState::Absent(libc::ENOTDIR), "{report}");
        assert!(matches!(state(&report, &private), LandlockPathState::Absent(_)), "{report}");
        let wanted =
            (AccessFs::READ_FILE | AccessFs::WRITE_FILE | AccessFs::TRUNCATE) & AccessFs::known_to(abi());
        assert_eq!(state(&report, &file), LandlockPathState::Applied(wanted), "{report}");
        assert_eq!(state(&report, &scratch.at("open/file")), LandlockPathState::NotAdded, "{report}");
        assert_eq!(state(&report, &scratch.at("open")), LandlockPathState::Applied(AccessFs::READ));
        assert!(report.to_string().contains("absent: ENOENT"), "{report}");
        expect(
            &sandbox,
            &format!("os.chdir({:?})", scratch.path()),
            &[
                ("open('open/file')", "ok"),
                ("open('read/file','a')", "ok"),
                ("open('closed/file')", "EACCES"),
            ],
        );
    }

    #[test]
    fn preferred_rights_that_the_kernel_lacks_are_missing_and_required_ones_an_error() {
        if abi() < 1 {
            skip!(
                "preferred_rights_that_the_kernel_lacks_are_missing_and_required_ones_an_error",
                "Landlock ABI {}",
                abi()
            );
        }
        let newer = AccessFs::all().difference(AccessFs::known_to(abi()));
        if newer.is_empty() {
            skip!("preferred_rights_that_the_kernel_lacks", "the kernel knows all");
        }
        let report = report(&build(alone(rules().files(prefer(newer)))));
        let missing: Vec<String> = report.missing.iter().map(|item| item.object.to_string()).collect();
        for (name, _) in newer.iter_names() {
            assert!(missing.contains(&format!("LANDLOCK_ACCESS_FS_{name}")), "{missing:?}");
        }
        assert!(!report.landlock.expect("a domain").files.intersects(newer));
        let error = refused(alone(rules().files(newer)));
        assert_eq!((error.kind(), error.step()), (ErrorKind::Unsupported, Step::Landlock), "{error:#}");
    }

    #[test]
    fn the_gaps_are_as_documented() {
        needs!("the_gaps_are_as_documented", 1);
        let scratch = tree();
        let file = scratch.at("closed/file");
        // The file is the program's own.
        let builder = alone(rules());
        let sandbox = build(if is_root() { builder.keep_host_root().ids(0, 0) } else { builder });
        expect(
            &sandbox,
            &format!("p={file:?}"),
            &[
                ("os.stat(p)", "ok"),
                ("os.chdir(os.path.dirname(p))", "ok"),
                ("os.open(p, os.O_PATH)", "ok"),
                ("os.chmod(p, 0o600)", "ok"),
                ("os.utime(p)", "ok"),
                ("open(p)", "EACCES"),
            ],
        );
        assert_eq!(fs::metadata(&file).expect("stat").permissions().mode() & 0o777, 0o600);
        // A memfd runs, whatever EXECUTE says.
        let code = "import os\nf=os.memfd_create('x',0)\nos.write(f,open('/usr/bin/true','rb').read())\nos.execve(f,['x'],{})";
        assert_eq!(run_python(&sandbox, code).0, 0);
        let notes = report(&sandbox).notes.join("\n");
        for word in ["stat", "chmod", "memfd", "UDP"] {
            assert!(notes.contains(word), "nothing about {word}: {notes}");
        }
        let sockets = scratch.directory("sockets");
        let listener = UnixListener::bind(sockets.join("socket")).expect("bind");
        mode(&sockets.join("socket"), 0o777);
        let open = if abi() < 9 { "ok" } else { "EACCES" };
        let prologue = format!("p={:?}", sockets.join("socket"));
        expect(&sandbox, &prologue, &[("socket.socket(1,1).connect(p)", open)]);
        assert_eq!(notes.contains("pathname unix sockets"), abi() < 9);
        drop(listener);
    }

    #[test]
    fn it_stacks_in_the_full_sandbox() {
        needs!("it_stacks_in_the_full_sandbox", 2);
        let scratch = tree();
        let work = scratch.at("open");
        let builder = sandbox()
            .bind(&work, "/job", Access::ReadWrite)
            .bind(scratch.at("read"), "/data", Access::ReadOnly)
            .landlock(Landlock::from_mounts().floor(abi()));
        for launch in [Launch::Image, Launch::Copy] {
            let sandbox = build(builder.clone().launch(launch));
            let script = "echo a > /job/a && mv /job/a /job/sub/a && cat /data/file && ls / > /dev/null \
                && echo t > /tmp/t && mv /tmp/t /tmp/u && cat /proc/self/status > /dev/null \
                && ! echo x > /data/file && ! rm /data/file && rm /job/sub/a && ls /usr/bin/sh";
            sh(&sandbox, script);
            let seen = report(&sandbox);
            let domain = seen.landlock.as_ref().expect("a domain");
            assert_eq!(domain.files, AccessFs::known_to(abi()));
            assert_eq!(
                state(&seen, Path::new("/job")),
                LandlockPathState::Applied(AccessFs::known_to(abi()))
            );
            assert!(!seen.notes.iter().any(|note| note.contains("Landlock")), "{seen}");
        }
        // What Landlock does not confine, the mount tree does; but for sockets, which no read-only mount stops.
        let listener = UnixListener::bind(scratch.at("read/socket")).expect("bind");
        mode(&scratch.at("read/socket"), 0o777);
        let open = if abi() < 9 { "ok" } else { "EACCES" };
        let cases = [
            ("os.chmod('/data/file', 0o600)", "EROFS"),
            ("os.utime('/data/file')", "EROFS"),
            ("socket.socket(1,1).connect('/data/socket')", open),
        ];
        expect(&build(builder), "", &cases);
        drop(listener);
        // A rule of the policy alone: the tree is there, and closed.
        let sandbox = build(
            sandbox().bind(&work, "/job", Access::ReadWrite).landlock(rules().allow("/proc", AccessFs::READ)),
        );
        assert_eq!(
            sh(&sandbox, "cat /proc/self/status > /dev/null; cat /job/file 2>&1 | grep -c denied"),
            "1"
        );
        assert_ne!(run_sh(&sandbox, "echo x > /tmp/x").0, 0);
        // Nobody mounts in a domain that handles files, whatever capabilities there are.
        let (code, _, err) = run_sh(&sandbox, "mount -t tmpfs x /tmp");
        assert_ne!(code, 0, "{err}");
    }

    #[test]
    fn one_policy_falls_back_from_namespaces_to_landlock() {
        needs!("one_policy_falls_back_from_namespaces_to_landlock", 1);
        let test = "one_policy_falls_back_from_namespaces_to_landlock";
        let rules = || {
            Landlock::from_mounts()
                .floor(abi())
                .in_place_of_mounts()
                .allow("/root/.pyenv", AccessFs::READ_EXECUTE)
        };
        let builder = || sandbox().namespaces([Namespaces::STANDARD, Namespaces::empty()]).landlock(rules());
        let falls_back = |sandbox: &Sandbox| {
            let report = report(sandbox);
            assert_eq!(report.attempts.len(), 2, "{report}");
            assert!(report.landlock.is_some(), "{report}");
            assert_eq!(sh(sandbox, "read a < /etc/hostname || echo closed; ls /usr > /dev/null"), "closed");
            assert_ne!(run_sh(sandbox, "echo x > /tmp/ringfence-landlock").0, 0);
        };
        if is_inside(test) {
            return falls_back(&build(builder().keep_host_root().ids(0, 0)));
        }
        let made = process::Command::new("unshare").args(["--user", "true"]).status().expect("unshare");
        if !made.success() {
            // This machine itself refuses the first set.
            return falls_back(&build(builder()));
        }
        let report = report(&build(builder()));
        assert_eq!(report.attempts.len(), 1, "{report}");
        // No further user namespace can be made, and nothing else either: CAP_SYS_ADMIN is over what is gone.
        let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"";
        rerun(test, &["unshare", "--user", "--map-root-user"], script, &[]);
    }

    #[test]
    fn unprivileged_and_without_a_namespace_it_holds_too() {
        needs!("unprivileged_and_without_a_namespace_it_holds_too", 1);
        let test = "unprivileged_and_without_a_namespace_it_holds_too";
        if is_inside(test) || !is_root() {
            let sandbox = build(alone(rules()));
            assert_eq!(sh(&sandbox, "read a < /etc/hostname || echo closed"), "closed");
            assert!(report(&sandbox).landlock.is_some());
            return;
        }
        let scratch = Scratch::new();
        let copy = scratch.at("test");
        // Not by this process: a fork of another thread would hold the copy open for writing (ETXTBSY).
        let myself = env::current_exe().expect("myself");
        assert!(process::Command::new("cp").args([&myself, &copy]).status().expect("cp").success());
        mode(&copy, 0o755);
        let done = process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&copy)
            .args(["--exact", &format!("tests::{test}"), "--nocapture"])
            .env("RINGFENCE_TEST_INSIDE", test)
            .output();
        match done {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) if error.kind() == IoKind::NotFound => skip!(test, "no setpriv"),
            Err(error) => panic!("setpriv: {error}"),
        }
    }

    #[test]
    fn sixteen_domains_are_the_most_and_the_seventeenth_is_named() {
        // Each sandbox inside runs this test binary once more; cheaper is to stack by python on the caller's side.
        let test = "sixteen_domains_are_the_most_and_the_seventeenth_is_named";
        if is_inside(test) {
            let error = refused(alone(rules()));
            assert_eq!(
                (error.step(), error.raw_os_error()),
                (Step::Landlock, Some(libc::E2BIG)),
                "{error:#}"
            );
            assert!(error.to_string().contains("16 Landlock domains"), "{error}");
            let report = report(&build(alone(rules().preferred())));
            assert!(report.landlock.is_none(), "{report}");
            let lost =
                report.missing.iter().any(|item| item.step == Step::Landlock && item.errno == libc::E2BIG);
            assert!(lost, "{report}");
            return;
        }
        needs!(test, 6);
        let stack = "import ctypes,os,sys\n\
            c=ctypes.CDLL(None,use_errno=True)\n\
            c.prctl(38,1,0,0,0)\n\
            for _ in range(16):\n\
            \x20f=c.syscall(444,(ctypes.c_uint64*3)(0,0,2),24,0)\n\
            \x20assert f>=0 and c.syscall(446,f,0)==0, ctypes.get_errno()\n\
            \x20os.close(f)\n\
            os.execv(sys.argv[1], sys.argv[1:])";
        let script = format!("exec python3 -c '{stack}' \"$@\"");
        rerun(test, &["env"], &script, &[]);
    }

    #[test]
    fn audit_flags_are_passed_on() {
        needs!("audit_flags_are_passed_on", 7);
        let report = report(&build(alone(rules().log(AuditLog::NEW_EXEC_ON | AuditLog::SUBDOMAINS_OFF))));
        assert_eq!(report.landlock.expect("a domain").log, AuditLog::NEW_EXEC_ON | AuditLog::SUBDOMAINS_OFF);
    }

    #[test]
    fn scopes_alone_leave_files_and_mounts_alone() {
        needs!("scopes_alone_leave_files_and_mounts_alone", 6);
        let sandbox = build(sandbox().landlock(Landlock::new().scope(Scopes::all())));
        let files = report(&sandbox).landlock.expect("a domain").files;
        assert_eq!(files, AccessFs::empty());
        sh(&sandbox, "echo x > /tmp/x && mkdir /tmp/d && mv /tmp/x /tmp/d/x && cat /etc/passwd > /dev/null");
    }
}
