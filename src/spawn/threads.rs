//! Whether this process can be copied by fork: the threads beside the calling one. It must not change any of them.

use std::fs;
use std::io::Error as IoError;
use std::process;
use std::result::Result as StdResult;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::gettid;

use crate::error::{Error, ErrorKind, Result, Step};

/// Threads of this crate that hold no lock of anybody else while they run, with the process that they belong to.
static OURS: Mutex<Vec<(u32, i32)>> = Mutex::new(Vec::new());
/// A thread that was joined is seen a moment longer, and one of ours a moment before it says so.
const PATIENCE: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(1);

fn ours() -> MutexGuard<'static, Vec<(u32, i32)>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calling thread does not stand in the way of a fork until this is dropped.
#[derive(Debug)]
pub(crate) struct Harmless(i32);

impl Harmless {
    pub(crate) fn here() -> Self {
        let tid = gettid().as_raw();
        ours().push((process::id(), tid));
        Self(tid)
    }
}

impl Drop for Harmless {
    fn drop(&mut self) {
        ours().retain(|(_, tid)| *tid != self.0);
    }
}

/// An error where the process has threads beside the calling one and those of this crate that do no harm. Another one can
/// come right after the look; it would have to be made by the calling thread's own signal handlers.
pub(crate) fn only_one(object: &'static str) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let others = others().map_err(|errno| {
            let error = Error::new(ErrorKind::Unsupported, Step::Threads, object).call("readdir", errno);
            error.detail("/proc/self/task does not show how many threads there are")
        })?;
        match others.first() {
            None => return Ok(()),
            Some(_) if Instant::now() < until => thread::sleep(LOOK),
            Some(first) => {
                let error = Error::new(ErrorKind::Unsupported, Step::Threads, object);
                return Err(error.detail(format!(
                    "{} other threads run, {first} among them: a lock that one of them holds stays locked in the copy \
                     for ever. Start a ForkServer before the first thread, or say allow_threads()",
                    others.len()
                )));
            }
        }
    }
}

/// Their names.
fn others() -> StdResult<Vec<String>, i32> {
    let (own, process) = (gettid().as_raw(), process::id());
    let failed = |error: IoError| error.raw_os_error().unwrap_or(libc::EIO);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/task").map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let tid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()).ok_or(libc::EIO)?;
        if tid == own || ours().contains(&(process, tid)) {
            continue;
        }
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        found.push(format!("{tid} {:?}", name.trim_end()));
    }
    Ok(found)
}
