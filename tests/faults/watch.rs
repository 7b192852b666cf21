//! Ends a round that hangs. It must not judge it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::tracer::end;

/// So long may one round take before it counts as hung.
const HUNG: Duration = Duration::from_secs(150);

type Until = Arc<Mutex<Option<(Instant, i32)>>>;

/// Kills a process when a round takes too long.
#[derive(Debug)]
pub(super) struct Watch {
    until: Until,
    fired: Arc<AtomicBool>,
}

impl Watch {
    pub(super) fn start() -> Self {
        let until = Until::default();
        let fired = Arc::new(AtomicBool::new(false));
        let (weak, told) = (Arc::downgrade(&until), Arc::clone(&fired));
        thread::spawn(move || {
            while let Some(until) = weak.upgrade() {
                let due = until.lock().unwrap().as_ref().filter(|(at, _)| Instant::now() > *at).cloned();
                if let Some((_, pid)) = due {
                    told.store(true, Ordering::SeqCst);
                    end(pid);
                }
                drop(until);
                thread::sleep(Duration::from_millis(100));
            }
        });
        Self { until, fired }
    }

    pub(super) fn begin(&self, pid: i32) {
        *self.until.lock().unwrap() = Some((Instant::now() + HUNG, pid));
    }

    pub(super) fn end(&self) {
        *self.until.lock().unwrap() = None;
    }

    pub(super) fn fired(&self) -> bool {
        self.fired.load(Ordering::SeqCst)
    }
}
