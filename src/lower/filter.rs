//! Attaching the filter to every thread. It must not be followed by a call that the filter refuses.

use super::threads::{Thread, Threads, name_of};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::host::SeccompMode;
use crate::policy::Filter;
use crate::sys;

const SECCOMP_SET_MODE_FILTER: u64 = 1;
/// `SECCOMP_FILTER_FLAG_TSYNC` (seccomp(2), since Linux 3.17).
const ALL_THREADS: u64 = 1;
/// What reading a file that is open makes, with the memory for it.
const READING: [&str; 9] =
    ["pread64", "close", "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "futex"];

/// Whether what holds can still be read behind this filter.
pub(super) fn lets_read(filter: &Filter) -> bool {
    READING.iter().all(|call| filter.lets_through(call))
}

/// Whether the kernel, and the filters that are there already, let one be attached to all threads.
pub(super) fn check(threads: &Threads) -> Result<()> {
    let number = u32::try_from(libc::SYS_seccomp).unwrap_or(u32::MAX);
    // Flags are looked at before the program, whose address is 0 here (seccomp(2), EFAULT).
    match sys::probe_call(number, [SECCOMP_SET_MODE_FILTER, ALL_THREADS, 0, 0, 0, 0]) {
        Err(libc::EFAULT) => {}
        other => {
            let error = Error::new(ErrorKind::Unsupported, Step::Seccomp, "filter");
            let error = error.call("seccomp", other.err().unwrap_or(0));
            return Err(
                error.detail("a filter around this process may hide the call: see Filter::with_lowering")
            );
        }
    }
    let Some((own, others)) = threads.list.split_first() else { return Ok(()) };
    match others.iter().find(|other| diverges(own, other)) {
        Some(other) => Err(divergent(ErrorKind::Unsupported, &other.named())),
        None => Ok(()),
    }
}

/// A thread with more filters than the calling one cannot have a beginning of its filters only.
fn diverges(own: &Thread, other: &Thread) -> bool {
    let count = |thread: &Thread| thread.status.seccomp_filters.unwrap_or(0);
    other.status.seccomp == Some(SeccompMode::Strict) || count(other) > count(own)
}

fn divergent(kind: ErrorKind, thread: &str) -> Error {
    let why =
        "it has a filter that the calling thread does not have, so the kernel cannot give both the same";
    Error::new(kind, Step::Seccomp, thread.to_owned()).call("seccomp", libc::EBUSY).detail(why)
}

/// Attaches it, for good.
pub(super) fn attach(program: &[u64]) -> Result<()> {
    let error = || Error::new(ErrorKind::Lowering, Step::Seccomp, "filter");
    match sys::attach_filter(program, ALL_THREADS) {
        Ok(0) => Ok(()),
        Ok(tid) => Err(divergent(ErrorKind::Lowering, &name_of(i32::try_from(tid).unwrap_or(0)))),
        Err(libc::ENOMEM) => Err(error()
            .call("seccomp", libc::ENOMEM)
            .detail("all filters together may have 32768 instructions")),
        Err(errno) => Err(error().call("seccomp", errno)),
    }
}
