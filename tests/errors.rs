//! Bad input and refusals: each gives a clear error, before or instead of running.
#![cfg_attr(
    test,
    expect(unsafe_code, reason = "closes a descriptor by its number, changes ids of the process")
)]

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io;
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;
    use std::process::Command as Process;

    use nix::sys::prctl::set_dumpable;
    use nix::sys::resource::{Resource as Rlimit, getrlimit, setrlimit};
    use ringfence::{
        Access, Builder, Error, ErrorKind, FileItem, Init, Launch, Mistake, Mount, MountKind, Object,
        Sandbox, Step, Tmpfs, Verdict,
    };

    use super::support::{again, alone, children, descriptors, is_root, role, shell, system, watchdog};

    fn sandbox() -> Sandbox {
        system().build().unwrap()
    }

    fn mistakes(builder: Builder) -> Vec<Mistake> {
        let error = builder.build().map(drop).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::InvalidPolicy, Step::Policy), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
        error.mistakes().to_vec()
    }

    /// What an error says: kind, step, object, call, errno.
    fn facts(error: &Error) -> (ErrorKind, Step, Object, Option<&'static str>, Option<i32>) {
        assert!(!error.to_string().contains('\n'), "one line: {error}");
        (error.kind(), error.step(), error.object().clone(), error.failed_call(), error.raw_os_error())
    }

    fn inside(path: &str) -> Object {
        Object::SandboxPath(PathBuf::from(path))
    }

    /// An executable file with these contents at `/program`.
    fn with_program(contents: &str, mode: u32) -> Sandbox {
        let file = FileItem { contents: contents.as_bytes().to_vec(), mode };
        system().mount(Mount::new("/program", MountKind::File(file))).build().unwrap()
    }

    #[test]
    fn targets_are_absolute_and_without_dots() {
        let bad = |target: &str, why| vec![Mistake::BadPath { path: target.into(), why }];
        let build = |target: &str| mistakes(system().bind("/usr", target, Access::ReadOnly));
        assert_eq!(build("data"), bad("data", "not absolute"));
        assert_eq!(build(""), bad("", "not absolute"));
        assert_eq!(build("/data/../etc"), bad("/data/../etc", "a target must not hold \"..\""));
        assert_eq!(build("/a\0b"), bad("/a\0b", "holds a NUL"));
        let long = format!("/{}", "x".repeat(256));
        assert_eq!(build(&long), bad(&long, "longer than the kernel allows"));
        assert_eq!(mistakes(system().bind("usr", "/data", Access::ReadOnly)), bad("usr", "not absolute"));
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let builder =
            system().bind("/usr", "a", Access::ReadOnly).tmpfs("/b/../c", 1 << 20).hostname("").umask(0o7777);
        let found = mistakes(builder.clone());
        assert_eq!(found.len(), 4, "{found:?}");
        let text = builder.build().map(drop).unwrap_err().to_string();
        for word in ["policy: ", "\"a\"", "\"/b/../c\"", "host name", "umask"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn too_many_mounts_are_refused() {
        let _watchdog = watchdog(60);
        let with = |count: usize| {
            (0..count).fold(Sandbox::builder(), |builder, n| builder.directory(format!("/d{n}")))
        };
        assert_eq!(mistakes(with(10_000)), [Mistake::TooManyMounts { count: 10_000, most: 1_000 }]);
        let sandbox = with(1_000).build().unwrap();
        let error = sandbox.command("/d1").spawn().map(drop).unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::Exec, Some(libc::EACCES)), "{error}");
    }

    #[test]
    fn nul_is_refused_wherever_it_stands() {
        let sandbox = sandbox();
        let check = |error: Error, what: &str| {
            let named = Object::Named(what.to_owned().into());
            assert_eq!(facts(&error), (ErrorKind::InvalidCommand, Step::Command, named, None, None));
            assert!(error.to_string().contains("it holds a NUL"), "{error}");
        };
        check(sandbox.command("true").arg("ok").arg("a\0b").spawn().map(drop).unwrap_err(), "argument 2");
        check(sandbox.command("true").arg0("\0").spawn().map(drop).unwrap_err(), "argument 0");
        check(sandbox.command("true").env("A", "\0").spawn().map(drop).unwrap_err(), "variable \"A\"");
        check(
            sandbox.command("true").current_dir("/a\0").spawn().map(drop).unwrap_err(),
            "working directory",
        );
        let error = sandbox.command("tr\0ue").spawn().map(drop).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::InvalidCommand, Step::Command), "{error}");
    }

    #[test]
    fn bad_names_of_variables_are_refused() {
        for name in ["", "A=B", "=", "A\0"] {
            let error = sandbox().command("true").env(name, "x").spawn().map(drop).unwrap_err();
            assert_eq!((error.kind(), error.step()), (ErrorKind::InvalidCommand, Step::Command), "{error}");
            assert!(error.to_string().contains("variable"), "{error}");
        }
        let error = sandbox().command("").spawn().map(drop).unwrap_err();
        assert_eq!(error.to_string(), "command program: it is empty");
    }

    #[test]
    fn missing_program_is_an_error() {
        let _watchdog = watchdog(60);
        for (init, launch) in [(Init::Reaper, Launch::Image), (Init::Program, Launch::Copy)] {
            let sandbox = system().init(init).launch(launch).build().unwrap();
            for program in ["/no/such", "no-such", "./x", "/usr/bin/true/x"] {
                let error = sandbox.command(program).spawn().map(drop).unwrap_err();
                let errno = if program.ends_with("true/x") { libc::ENOTDIR } else { libc::ENOENT };
                let expected = (ErrorKind::Exec, Step::Exec, inside(program), Some("execve"), Some(errno));
                assert_eq!(facts(&error), expected, "{error}");
                assert!(!error.to_string().contains("interpreter"), "{error}");
            }
        }
        let error = sandbox().command("/no/such").output().unwrap_err();
        assert_eq!(error.to_string(), "exec \"/no/such\": execve: ENOENT (no such file or directory)");
    }

    #[test]
    fn missing_interpreter_is_told_from_a_missing_program() {
        let _watchdog = watchdog(60);
        let sandbox = with_program("#!/no/such/interpreter\n", 0o555);
        for (program, path) in [("/program", "/"), ("program", "/nowhere:/"), ("./program", "/")] {
            let error = sandbox.command(program).env("PATH", path).spawn().map(drop).unwrap_err();
            let expected = (ErrorKind::Exec, Step::Exec, inside(program), Some("execve"), Some(libc::ENOENT));
            assert_eq!(facts(&error), expected, "{error}");
            assert!(error.to_string().contains("interpreter"), "{error}");
        }
    }

    #[test]
    fn a_dynamic_program_without_its_loader_is_told_too() {
        let _watchdog = watchdog(60);
        let loader_missing =
            Sandbox::builder().bind("/usr/bin/env", "/program", Access::ReadOnly).build().unwrap();
        let error = loader_missing.command("/program").spawn().map(drop).unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::Exec, Some(libc::ENOENT)), "{error}");
        assert!(error.to_string().contains("loader"), "{error}");
    }

    #[test]
    fn what_cannot_be_executed_is_an_error() {
        let _watchdog = watchdog(60);
        let check = |sandbox: &Sandbox, program: &str, errno| {
            let error = sandbox.command(program).spawn().map(drop).unwrap_err();
            let expected = (ErrorKind::Exec, Step::Exec, inside(program), Some("execve"), Some(errno));
            assert_eq!(facts(&error), expected, "{error}");
        };
        check(&with_program("#!/bin/sh\n", 0o444), "/program", libc::EACCES);
        check(&sandbox(), "/usr", libc::EACCES);
        check(&sandbox(), "/etc/passwd", libc::EACCES);
        check(&with_program("no program at all", 0o555), "/program", libc::ENOEXEC);
        let no_exec = system().mount(Mount::bind("/usr/bin", "/noexec").no_exec()).build().unwrap();
        check(&no_exec, "/noexec/true", libc::EACCES);
        // A name that PATH finds first where it may not be executed.
        let sandbox = with_program("x", 0o444);
        let error = sandbox.command("program").env("PATH", "/:/nowhere").spawn().map(drop).unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::Exec, Some(libc::EACCES)), "{error}");
    }

    #[test]
    fn a_descriptor_that_is_no_program_is_an_error() {
        let _watchdog = watchdog(60);
        for (path, errno) in [("/etc/passwd", libc::EACCES), ("/usr", libc::EACCES)] {
            let mut command = sandbox().command("name");
            let error = command.program_fd(File::open(path).unwrap()).spawn().map(drop).unwrap_err();
            let expected = (ErrorKind::Exec, Step::Exec, inside("name"), Some("execveat"), Some(errno));
            assert_eq!(facts(&error), expected, "{error}");
        }
        // One that is, and finds nothing of what it needs.
        let mut command = Sandbox::builder().empty().build().unwrap().command("name");
        let error = command.program_fd(File::open("/usr/bin/env").unwrap()).spawn().map(drop).unwrap_err();
        let expected = (ErrorKind::Exec, Step::Exec, inside("name"), Some("execveat"), Some(libc::ENOENT));
        assert_eq!(facts(&error), expected, "{error}");
        assert!(error.to_string().contains("the loader that a dynamic program names"), "{error}");
    }

    #[test]
    fn missing_source_is_an_error() {
        let _watchdog = watchdog(60);
        let sandbox = system().bind("/no/such/source", "/data", Access::ReadOnly).build().unwrap();
        let error = sandbox.command("true").spawn().map(drop).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Setup, Step::OpenSource), "{error}");
        assert_eq!((error.failed_call(), error.raw_os_error()), (Some("open"), Some(libc::ENOENT)));
        assert!(error.to_string().contains("/no/such/source"), "{error}");
        let optional = Mount::bind("/no/such/source", "/data").if_exists();
        let child = system().mount(optional).build().unwrap().command("true").spawn().unwrap();
        let said = child.enforcement().absent.iter().any(|path| path.ends_with("such/source"));
        assert!(said, "the report says what was absent");
    }

    #[test]
    fn arguments_over_the_kernels_limit_are_an_error() {
        let _watchdog = watchdog(60);
        for launch in [Launch::Image, Launch::Copy] {
            let sandbox = system().launch(launch).build().unwrap();
            let one = "x".repeat(200_000);
            let mut lists = vec![vec![one.as_str()]];
            let some = "y".repeat(100_000);
            lists.push(vec![some.as_str(); 80]);
            for list in lists {
                let error = sandbox.command("true").args(&list).spawn().map(drop).unwrap_err();
                let seen = (error.step(), error.raw_os_error());
                assert_eq!(seen, (Step::Exec, Some(libc::E2BIG)), "{launch:?}: {error}");
                assert_eq!(*error.object(), inside("true"), "{launch:?}: {error}");
            }
        }
    }

    #[test]
    fn working_directory_has_to_be_one() {
        let _watchdog = watchdog(60);
        let closed = Mount::new("/closed", MountKind::Directory(0o000));
        let sandbox = system().mount(closed).build().unwrap();
        for (path, errno) in [
            ("/no/such", libc::ENOENT),
            ("/etc/passwd", libc::ENOTDIR),
            ("", libc::ENOENT),
            ("/closed", libc::EACCES),
        ] {
            let error = sandbox.command("true").current_dir(path).spawn().map(drop).unwrap_err();
            let step = Step::WorkingDirectory;
            assert_eq!(facts(&error), (ErrorKind::Setup, step, inside(path), Some("chdir"), Some(errno)));
        }
    }

    #[test]
    fn numbers_of_descriptors_are_checked() {
        let _watchdog = watchdog(60);
        let null = || File::open("/dev/null").unwrap();
        for number in [i32::MIN, -1, 0, 1, 2] {
            let error = sandbox().command("true").fd(number, null()).spawn().map(drop).unwrap_err();
            let seen = (ErrorKind::InvalidCommand, Step::Command, Object::Fd(number), None, None);
            assert_eq!(facts(&error), seen, "{error}");
        }
        let error = sandbox().command("true").fd(7, null()).fd(7, null()).spawn().map(drop).unwrap_err();
        assert_eq!(error.to_string(), "command 7: two descriptors for one number");
        let (_, hard) = getrlimit(Rlimit::RLIMIT_NOFILE).unwrap();
        let beyond = i32::try_from(hard).unwrap_or(i32::MAX - 1).min(i32::MAX - 5);
        for number in [i32::MAX, i32::MAX - 1, beyond] {
            let error = sandbox().command("true").fd(number, null()).spawn().map(drop).unwrap_err();
            let known = matches!(error.step(), Step::Descriptors | Step::Command);
            assert!(known, "{number}: {error}");
            assert_eq!(*error.object(), Object::Fd(number), "{error}");
        }
    }

    #[test]
    fn closed_descriptor_is_an_error() {
        alone(|| {
            let file = File::open("/dev/null").unwrap();
            let number = file.as_raw_fd();
            let sandbox = sandbox();
            let mut command = sandbox.command("true");
            command.fd(9, file);
            // SAFETY: the command still believes that it owns the number: it gets it back below, before it is dropped.
            assert_eq!(unsafe { libc::close(number) }, 0);
            let error = command.spawn().map(drop).unwrap_err();
            // SAFETY: the number is not open.
            assert_eq!(unsafe { libc::dup2(2, number) }, number);
            let seen = (
                ErrorKind::InvalidCommand,
                Step::Descriptors,
                Object::Fd(number),
                Some("fcntl"),
                Some(libc::EBADF),
            );
            assert_eq!(facts(&error), seen, "{error}");
        });
    }

    #[test]
    fn a_set_up_that_lacks_room_names_its_step() {
        let _watchdog = watchdog(60);
        let small = Tmpfs { size: 4096, inodes: 4, ..Tmpfs::default() };
        let big = FileItem { contents: vec![b'x'; 1 << 20], mode: 0o444 };
        let builder = Sandbox::builder()
            .mount(Mount::tmpfs("/small", small))
            .mount(Mount::new("/small/file", MountKind::File(big)));
        let error = builder.build().unwrap().command("/x").spawn().map(drop).unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Setup, Step::Mount), "{error}");
        let text = error.to_string();
        assert!(text.contains("/small/file") && text.contains("too small"), "{error}");
    }

    #[test]
    fn an_error_becomes_an_io_error_of_its_kind() {
        let error = sandbox().command("/no/such").spawn().map(drop).unwrap_err();
        assert!(format!("{error:?}").contains("ENOENT") || format!("{error:?}").contains("Exec"));
        let io = io::Error::from(error);
        assert_eq!(io.kind(), io::ErrorKind::NotFound);
        assert!(io.to_string().starts_with("exec \"/no/such\": execve: ENOENT"), "{io}");
    }

    #[test]
    fn refused_user_namespaces_name_the_sysctl() {
        let body = || match role().unwrap().as_str() {
            "alone" => {
                let script = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
                let name = "tests::refused_user_namespaces_name_the_sysctl";
                let inner = again(name, "refused");
                let mut outer = Process::new("unshare");
                outer
                    .args([
                        "-U",
                        "--map-user=4242",
                        "--map-group=4242",
                        "--keep-caps",
                        "sh",
                        "-c",
                        script,
                        "sh",
                    ])
                    .arg(inner.get_program())
                    .args(inner.get_args());
                outer.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
                let output = outer.output().unwrap();
                assert!(output.status.success(), "{output:?}");
            }
            _ => {
                // As root the caller is still the machine's, under the name 4242: said, so that the clone is reached.
                let error = match system().keep_host_root().build() {
                    Ok(sandbox) => sandbox.command("true").spawn().map(drop).unwrap_err(),
                    Err(error) => error,
                };
                assert_eq!(
                    (error.step(), error.raw_os_error()),
                    (Step::Clone, Some(libc::ENOSPC)),
                    "{error}"
                );
                assert!(!error.causes().is_empty(), "{error}");
                let text = format!("{error:#}");
                let first = text.lines().next().unwrap();
                assert_eq!(first, error.to_string());
                assert!(first.starts_with("clone namespaces {user|"), "{text}");
                assert!(text.contains("max_user_namespaces"), "{text}");
                assert!(text.contains("cause: ") && text.contains("remedy: "), "{text}");
            }
        };
        alone(body);
    }

    #[test]
    fn few_descriptors_give_a_program_or_a_clean_error() {
        alone(|| {
            let sandboxes =
                [Launch::Image, Launch::Copy].map(|launch| system().launch(launch).build().unwrap());
            let (soft, hard) = getrlimit(Rlimit::RLIMIT_NOFILE).unwrap();
            let before = (descriptors(), children());
            let mut had = 0;
            for limit in (3..=48).chain((55..200).step_by(15)) {
                for sandbox in &sandboxes {
                    setrlimit(Rlimit::RLIMIT_NOFILE, limit, hard).unwrap();
                    let tried = shell(sandbox, "exit 5").status();
                    setrlimit(Rlimit::RLIMIT_NOFILE, soft, hard).unwrap();
                    match tried {
                        Ok(outcome) => {
                            assert_eq!(outcome.verdict(), Verdict::Exited(5));
                            had += 1;
                        }
                        Err(error) => {
                            // EBADF and EINVAL: what dup3 and fcntl say of a number above the limit.
                            let errno = error.raw_os_error();
                            let known = [libc::EMFILE, libc::EBADF, libc::EINVAL].map(Some);
                            assert!(known.contains(&errno), "{limit}: {error}");
                        }
                    }
                    assert_eq!((descriptors(), children()), before, "{limit}");
                }
            }
            assert!(had > 0, "190 descriptors are enough for a spawn");
        });
    }

    #[test]
    fn few_processes_give_a_clean_error() {
        alone(|| {
            if is_root() {
                // Root is exempt from the limit: be someone else.
                // SAFETY: the call takes numbers only; glibc changes every thread of this process.
                assert_eq!(unsafe { libc::setresgid(54_321, 54_321, 54_321) }, 0);
                // SAFETY: the same.
                assert_eq!(unsafe { libc::setresuid(54_321, 54_321, 54_321) }, 0);
                set_dumpable(true).unwrap();
            }
            let sandbox = sandbox();
            shell(&sandbox, "exit 0").status().unwrap();
            let (soft, hard) = getrlimit(Rlimit::RLIMIT_NPROC).unwrap();
            setrlimit(Rlimit::RLIMIT_NPROC, 1, hard).unwrap();
            let error = shell(&sandbox, "exit 0").status().unwrap_err();
            setrlimit(Rlimit::RLIMIT_NPROC, soft, hard).unwrap();
            assert_eq!((error.step(), error.raw_os_error()), (Step::Clone, Some(libc::EAGAIN)), "{error}");
            shell(&sandbox, "exit 0").status().unwrap();
            assert!(children().is_empty());
        });
    }

    #[test]
    fn a_release_that_fails_leaves_no_file_behind() {
        alone(|| {
            let before = (descriptors(), fs::read_to_string("/proc/self/mountinfo").unwrap());
            let held = sandbox().command("true").current_dir("/no/such").spawn_held().unwrap();
            let error = held.release().map(drop).unwrap_err();
            assert_eq!(error.step(), Step::WorkingDirectory, "{error}");
            assert_eq!((descriptors(), fs::read_to_string("/proc/self/mountinfo").unwrap()), before);
        });
    }
}
