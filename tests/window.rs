//! The window between clone and image: what befalls the child there must not hold the caller.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use ringfence::{ErrorKind, Sandbox};

    use super::support::{children, rounds};

    /// Signals every child as soon as it shows, from another thread.
    fn harass(signal: Signal, stop: &Arc<AtomicBool>, hits: &Arc<AtomicUsize>) -> thread::JoinHandle<()> {
        let (stop, hits) = (Arc::clone(stop), Arc::clone(hits));
        thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                for child in children() {
                    if kill(Pid::from_raw(child), signal).is_ok() {
                        hits.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
        })
    }

    #[test]
    fn a_child_stopped_or_killed_at_any_moment_does_not_hold_the_caller() {
        let limit = Duration::from_millis(300);
        let builder = Sandbox::builder().bind("/usr", "/usr", ringfence::Access::ReadOnly);
        let sandbox = builder.setup_timeout(limit).build().unwrap();
        for (signal, runs) in [(Signal::SIGSTOP, 25), (Signal::SIGKILL, 100)] {
            let (stop, hits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
            let harasser = harass(signal, &stop, &hits);
            let begun = Instant::now();
            for _ in 0..rounds(runs) {
                match sandbox.command("/usr/bin/true").spawn_held() {
                    Ok(held) => drop(held),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Setup, "{error:#}"),
                }
            }
            stop.store(true, Ordering::SeqCst);
            harasser.join().unwrap();
            assert!(hits.load(Ordering::SeqCst) > 0, "{signal} never reached a child: nothing was tested");
            // A hang guard, not a measurement.
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        }
        assert!(children().is_empty(), "a child was left: {:?}", children());
    }
}
