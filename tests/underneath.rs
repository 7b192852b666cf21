//! Launches where something is taken away or exchanged underneath: the groups, their parent, a source; and where the disk is
//! full. Each gives a program with all its limits or a clear error, and leaves the caller as it was.

#[cfg(test)]
#[path = "support/edge.rs"]
mod edge;
#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::{self, File};
    use std::io::Write;
    use std::path::Path;
    use std::process::{self, Command as Process};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use ringfence::{Access, ErrorKind, Host, Launch, Sandbox, Step, prefer};

    use super::edge::{groups_of, legacy};
    use super::support::{
        again, alone, children, descriptors, eventually, is_root, role, rounds, said, shell, system,
    };

    const LAUNCHES: [Launch; 2] = [Launch::Image, Launch::Copy];

    /// Runs this test again in a mount namespace of its own after `script`.
    fn with_mounts(name: &str, script: &str) -> process::Output {
        let inner = again(&format!("tests::{name}"), "inside");
        let mut outer = Process::new("unshare");
        if !is_root() {
            outer.args(["-U", "--map-root-user"]);
        }
        outer.args(["-m", "--propagation", "private", "sh", "-ec"]);
        outer.args([&format!("{script}\nexec \"$@\""), "sh"]).arg(inner.get_program()).args(inner.get_args());
        outer.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        outer.output().unwrap()
    }

    fn on_full_disk(launch: Launch, full: &str) -> Sandbox {
        let builder = system().launch(launch).bind(full, "/full", Access::ReadWrite).keep_host_root();
        builder.build().unwrap_or_else(|error| panic!("{error:#}"))
    }

    #[test]
    fn a_full_disk_is_the_programs_alone() {
        let name = "a_full_disk_is_the_programs_alone";
        let body = || match role().unwrap().as_str() {
            "alone" => {
                let script = "d=$(mktemp -d); mount -t tmpfs -o size=4k,nr_inodes=4,mode=777 none $d; \
                    dd if=/dev/zero of=$d/full bs=4k count=1 2>/dev/null; cd $d; export TMPDIR=$d FULL=$d";
                let output = with_mounts(name, script);
                assert!(output.status.success(), "{output:?}");
            }
            _ => {
                let full = env::var("FULL").unwrap();
                File::create(Path::new(&full).join("more"))
                    .and_then(|mut file| file.write_all(b"x"))
                    .unwrap_err();
                let sandboxes: Vec<Sandbox> = LAUNCHES.map(|launch| on_full_disk(launch, &full)).into();
                let before = (descriptors(), children());
                for sandbox in &sandboxes {
                    let script = "test -s /full/full && ! { echo x >>/full/full; } 2>/dev/null && echo full";
                    assert_eq!(said(&shell(sandbox, script).output().unwrap()), "full\n");
                    assert_eq!((descriptors(), children()), before);
                }
            }
        };
        alone(body);
    }

    /// Does something again and again on another thread while the body runs; how often it took effect.
    fn meanwhile(mut act: impl FnMut() -> bool + Send, body: impl FnOnce()) -> usize {
        let (stop, effects) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    if act() {
                        effects.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
            let stop = StopOnDrop(&stop);
            body();
            drop(stop);
        });
        effects.load(Ordering::SeqCst)
    }

    struct StopOnDrop<'a>(&'a AtomicBool);

    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn groups_that_are_removed_underneath_are_an_error_and_no_missing_limit() {
        let body = || {
            let name = "groups_that_are_removed_underneath_are_an_error_and_no_missing_limit";
            let Some(cgroups) = legacy(name, &["pids", "memory"]) else { return };
            let sandbox = system().processes(40).memory(200 << 20).build().unwrap();
            sandbox.command("true").status().unwrap();
            let before = (descriptors(), children());
            let own = process::id();
            let (mut had, mut failed) = (0, 0);
            let removed = meanwhile(
                || groups_of(&cgroups, own).iter().filter(|group| fs::remove_dir(group).is_ok()).count() > 0,
                || {
                    for _ in 0..30 {
                        match shell(&sandbox, "cat /proc/self/cgroup").output() {
                            Ok(outcome) => {
                                let text = said(&outcome);
                                let roots = text.lines().all(|line| line.ends_with(":/"));
                                assert!(roots, "it is in the groups that are its roots: {text}");
                                had += 1;
                            }
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Setup, "{error}");
                                let steps = [Step::Cgroup, Step::Clone, Step::Verify];
                                assert!(steps.contains(&error.step()), "{error}");
                                failed += 1;
                            }
                        }
                    }
                },
            );
            assert_eq!((descriptors(), children()), before);
            assert!(removed > 0 && failed > 0, "{removed} removed, {had} ran, {failed} failed");
            assert!(eventually(10, || groups_of(&cgroups, own).is_empty()));
        };
        alone(body);
    }

    #[test]
    fn a_parent_group_that_is_removed_underneath_is_an_error() {
        let body = || {
            let name = "a_parent_group_that_is_removed_underneath_is_an_error";
            let Some(cgroups) = legacy(name, &["pids"]) else { return };
            let own = cgroups.legacy_with("pids").unwrap().own.clone().unwrap();
            let parent = own.join(format!("ringfence-parent-{}", process::id()));
            fs::create_dir(&parent).unwrap();
            let sandbox = system().processes(40).cgroup_parent(&parent).build().unwrap();
            assert!(sandbox.command("true").status().unwrap().success());
            let before = (descriptors(), children());
            fs::remove_dir(&parent).unwrap();
            let error = sandbox.command("true").spawn().map(drop).unwrap_err();
            assert_eq!((error.step(), error.raw_os_error()), (Step::Cgroup, Some(libc::ENOENT)), "{error}");
            assert!(error.to_string().contains("ringfence-parent"), "{error}");
            assert_eq!((descriptors(), children()), before);
        };
        alone(body);
    }

    #[test]
    fn why_a_preferred_group_could_not_be_made_is_in_the_report() {
        let body = || {
            let name = "why_a_preferred_group_could_not_be_made_is_in_the_report";
            let Some(mut cgroups) = legacy(name, &["pids"]) else { return };
            let own = cgroups.legacy_with("pids").unwrap().own.clone().unwrap();
            let parent = own.join(format!("ringfence-preferred-{}", process::id()));
            fs::create_dir(&parent).unwrap();
            cgroups.unified = None;
            cgroups.legacy.retain(|legacy| legacy.controllers.iter().any(|name| name == "pids"));
            cgroups.legacy.iter_mut().for_each(|legacy| legacy.own = Some(parent.clone()));
            let policy = system().own_cgroup(prefer(())).policy().unwrap();
            let sandbox = Sandbox::new(policy, Host::probe().with_cgroups(cgroups)).unwrap();
            let notes = || {
                let child = sandbox.command("true").spawn().unwrap();
                let notes = child.enforcement().notes.join("\n");
                child.wait().unwrap();
                notes
            };
            assert!(!notes().contains("no control group"), "{}", notes());
            assert!(eventually(10, || fs::remove_dir(&parent).is_ok()));
            let told = notes();
            assert!(told.contains("no control group of its own") && told.contains("ENOENT"), "{told}");
            assert!(told.contains("ringfence-preferred"), "{told}");
        };
        alone(body);
    }

    #[test]
    fn a_source_that_is_removed_or_exchanged_underneath_is_an_error_or_the_source() {
        alone(|| {
            let place = env::temp_dir().join(format!("ringfence-edges-source-{}", process::id()));
            let (source, aside) = (place.join("source"), place.join("aside"));
            for (path, word) in [(&source, "first"), (&aside, "second")] {
                fs::create_dir_all(path).unwrap();
                fs::write(path.join("word"), word).unwrap();
            }
            let sandbox = system().bind(&source, "/source", Access::ReadOnly).build().unwrap();
            let before = (descriptors(), children());
            let other = place.join("other");
            let (mut had, mut failed) = (0, 0);
            let exchanged = meanwhile(
                || {
                    let moves = [(&source, &other), (&aside, &source), (&other, &aside)];
                    let moved = moves.iter().all(|(from, to)| fs::rename(from, to).is_ok());
                    thread::sleep(Duration::from_micros(300));
                    moved
                },
                || {
                    for _ in 0..rounds(40) {
                        match shell(&sandbox, "cat /source/word").output() {
                            Ok(outcome) => {
                                let word = said(&outcome);
                                assert!(word == "first" || word == "second", "{word}");
                                had += 1;
                            }
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Setup, "{error}");
                                let steps = [Step::OpenSource, Step::Mount];
                                assert!(steps.contains(&error.step()), "{error}");
                                assert!(error.to_string().contains("source"), "it names its object: {error}");
                                failed += 1;
                            }
                        }
                    }
                },
            );
            assert!(exchanged > 0 && had + failed == rounds(40));
            assert_eq!((descriptors(), children()), before);
            fs::remove_dir_all(&place).unwrap();
            let error = sandbox.command("true").spawn().map(drop).unwrap_err();
            assert_eq!(
                (error.step(), error.raw_os_error()),
                (Step::OpenSource, Some(libc::ENOENT)),
                "{error}"
            );
        });
    }
}
