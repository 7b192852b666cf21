//! Two stages: a child behind namespaces lowers itself further, with `/proc` and without.
#![cfg_attr(test, expect(unsafe_code, reason = "fork"))]

#[cfg(test)]
#[path = "support/lowering.rs"]
mod lowering;
#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;

    use ringfence::{
        Access, AccessFs, Builder, ErrorKind, FilterProof, Landlock, Lowering, Mount, Sandbox, Verdict,
    };

    use super::lowering::{Crew, abi, apply, errno, forked, opening, own, try_apply, worker};
    use super::support::{INSIDE, build, is_inside, sandbox};

    /// Runs this test again, as the program behind a fence.
    fn behind(builder: Builder, name: &str) {
        let myself = env::current_exe().expect("current_exe");
        let fence = build(builder.bind(myself, "/test", Access::ReadOnly));
        let (mut command, test) = (fence.command("/test"), format!("tests::{name}"));
        command.args(["--exact", &test, "--nocapture", "--test-threads=1"]).env(INSIDE, name);
        let outcome = command.output().unwrap_or_else(|error| panic!("{error:#}"));
        let said = [outcome.stdout.as_slice(), outcome.stderr.as_slice()].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(outcome.verdict(), Verdict::Exited(0), "{said}");
        assert!(said.contains("1 passed"), "{said}");
    }

    /// The second stage, in the sandbox.
    fn further() {
        assert_eq!(own("Seccomp"), "2");
        let inner = |rules: Landlock| {
            rules.allow("/usr", AccessFs::READ_EXECUTE).allow("/lib", AccessFs::READ_EXECUTE)
        };
        fs::read("/proc/self/status").expect("the first stage lets it");
        if abi() > 0 {
            let lowered =
                apply(Lowering::builder().landlock(inner(Landlock::new().files(AccessFs::known_to(1)))));
            assert!(lowered.landlock.is_some(), "{lowered}");
            assert_eq!(errno(fs::read("/proc/self/status")), libc::EACCES);
            fs::read_dir("/usr").expect("allowed in both");
        }
        let crew = Crew::of(3, opening);
        let lowered = match try_apply(worker().drop_capabilities()) {
            Ok(lowered) if abi() == 0 => lowered,
            // Behind the second domain nothing shows the threads any more: what they have cannot be looked at.
            refused => {
                refused.expect_err("no /proc");
                apply(worker())
            }
        };
        assert!(crew.ask().iter().all(|errno| *errno == libc::ENOSYS), "{lowered}");
        assert_eq!(errno(fs::read_dir("/usr").map(drop)), libc::ENOSYS);
    }

    #[test]
    fn a_child_behind_namespaces_lowers_itself_further() {
        const NAME: &str = "a_child_behind_namespaces_lowers_itself_further";
        if is_inside(NAME) {
            assert_eq!(forked(further), Ok(0));
            return;
        }
        let mut builder = sandbox();
        if abi() > 0 {
            builder = builder.landlock(Landlock::from_mounts().floor(1));
        }
        behind(builder, NAME);
    }

    /// Without `/proc`, in a root that has nothing but the libraries.
    fn without_proc() {
        fs::read_dir("/proc").expect_err("no /proc");
        let rules = || Landlock::new().files(AccessFs::known_to(1));
        let lowered = if abi() > 0 {
            apply(Lowering::builder().landlock(rules()).drop_capabilities())
        } else {
            apply(Lowering::builder().drop_capabilities())
        };
        assert_eq!(lowered.threads[0].capabilities.map(|sets| sets.permitted), Some(0), "{lowered}");
        let crew = Crew::of(2, opening);
        if abi() > 0 && abi() < 8 {
            let error = try_apply(Lowering::builder().landlock(rules())).expect_err("three threads");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:#}");
            assert!(error.to_string().contains("several threads"), "{error}");
        }
        let lowered = apply(worker());
        assert_eq!(lowered.threads[0].filter, FilterProof::Answered, "{lowered}");
        assert!(lowered.to_string().contains("no /proc"), "{lowered}");
        assert_eq!(crew.ask(), [libc::ENOSYS; 2]);
    }

    #[test]
    fn without_proc_the_kernel_is_asked_whether_there_is_one_thread() {
        const NAME: &str = "without_proc_the_kernel_is_asked_whether_there_is_one_thread";
        if is_inside(NAME) {
            assert_eq!(forked(without_proc), Ok(0));
            return;
        }
        let mut builder = Sandbox::builder();
        for path in ["/usr", "/lib", "/lib64"] {
            builder = builder.mount(Mount::bind(path, path).mirror());
        }
        behind(builder, NAME);
    }
}
