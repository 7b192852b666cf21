//! What can only be changed for a whole machine: its clock, and how many mounts a namespace may have. It runs where the machine
//! is one to throw away, which `tests/vm/run` says by a variable.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    use nix::sys::time::TimeSpec;
    use nix::time::{ClockId, clock_gettime, clock_settime};
    use ringfence::{Clock, Launch, Verdict};

    use super::support::{alone, children, descriptors, is_root, skipped, system};

    /// One at a time: each harms the other.
    static ALONE: Mutex<()> = Mutex::new(());

    /// Set where the machine may be harmed.
    const THROW_AWAY: &str = "RINGFENCE_THROW_AWAY_MACHINE";

    fn may(name: &str) -> bool {
        let may = is_root() && env::var_os(THROW_AWAY).is_some();
        if !may {
            skipped(name, "it changes the machine: root in tests/vm/run");
        }
        may
    }

    fn leap(seconds: i64) {
        let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
        let then = TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
        clock_settime(ClockId::CLOCK_REALTIME, then).unwrap();
    }

    #[test]
    fn a_clock_that_is_set_back_or_forward_moves_no_deadline() {
        if !may("a_clock_that_is_set_back_or_forward_moves_no_deadline") {
            return;
        }
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        alone(|| {
            const DAY: i64 = 24 * 60 * 60;
            let short = Duration::from_secs(3);
            let limited = system().wall_time(short).build().unwrap();
            let free = system().wall_time(Duration::from_secs(1000)).build().unwrap();
            for seconds in [-DAY, DAY] {
                let ends = limited.command("sleep").arg("1000").spawn().unwrap();
                let stays = free.command("sleep").arg("1000").spawn().unwrap();
                let held = limited.command("true").spawn_held().unwrap();
                leap(seconds);
                let outcome = ends.wait_timeout(Duration::from_secs(60)).unwrap().expect("its time is over");
                let expected = Verdict::TimedOut { clock: Clock::Wall, limit: short };
                assert_eq!(outcome.verdict(), expected, "{seconds}");
                assert!(stays.try_wait().unwrap().is_none(), "{seconds}: its time is not over");
                assert!(held.release().unwrap().wait().unwrap().success(), "{seconds}");
                assert!(limited.command("true").status().unwrap().success(), "{seconds}");
                leap(-seconds);
            }
        });
    }

    #[test]
    fn few_mounts_give_a_program_or_an_error_that_names_the_mount() {
        if !may("few_mounts_give_a_program_or_an_error_that_names_the_mount") {
            return;
        }
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        alone(|| {
            const FILE: &str = "/proc/sys/fs/mount-max";
            let most = fs::read_to_string(FILE).unwrap();
            let sandboxes =
                [Launch::Image, Launch::Copy].map(|launch| system().launch(launch).build().unwrap());
            let before = (descriptors(), children());
            let (mut had, mut refused) = (0, 0);
            for limit in (2..100).step_by(7).chain([500]) {
                for sandbox in &sandboxes {
                    fs::write(FILE, limit.to_string()).unwrap();
                    let tried = sandbox.command("true").status();
                    fs::write(FILE, most.trim()).unwrap();
                    match tried {
                        Ok(outcome) => {
                            assert!(outcome.success(), "{limit}");
                            had += 1;
                        }
                        Err(error) => {
                            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{limit}: {error}");
                            refused += 1;
                        }
                    }
                    assert_eq!((descriptors(), children()), before, "{limit}");
                }
            }
            assert!(had > 0 && refused > 0, "{had} ran, {refused} were refused");
        });
    }
}
