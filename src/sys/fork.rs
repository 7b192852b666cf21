//! Copies of this process that go on in Rust: libc's fork before the table, and what such a copy must not keep. It must not
//! decide who is copied.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno as NixErrno;

use super::process::Usage;
use super::{Errno, number, raw};

unsafe extern "C" {
    fn ringfence_0_1_machine_run(pc: u64, progress: u64) -> i64;
    static mut environ: *const *const libc::c_char;
}

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forked {
    /// The process that called it, and the new one's pid.
    Caller(i32),
    /// The copy.
    Copy,
}

/// libc's `fork(2)`. It makes the allocator consistent in the copy whatever other threads do at that moment, runs what was
/// registered by pthread_atfork(3), and tells libc the new thread id; no other lock is looked after.
pub(crate) fn fork() -> Result<Forked, Errno> {
    // SAFETY: the copy of a process with one thread is as consistent as that is. Callers make sure that it has one, or were
    // told by name that it may have more; then only what libc's fork looks after is used before the user's own code.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Copy),
        pid @ 1.. => Ok(Forked::Caller(pid)),
        _ => Err(NixErrno::last_raw()),
    }
}

/// What the copy of a process runs first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The first row.
    pub(crate) rows: u64,
    /// The progress record, in private memory.
    pub(crate) progress: u64,
    /// The one shared mapping that stays: start and end.
    pub(crate) keep: [u64; 2],
    /// Where libc keeps this thread's id, if that is known.
    pub(crate) tid: Option<u64>,
}

/// In the copy: gives up every shared mapping but one, and runs the table. Comes back only in the process in which the table
/// returns; the value that it returns is that process's thread id.
pub(crate) fn run_table(entry: Entry) {
    if unshare_memory(entry.keep).is_err() {
        leave(125);
    }
    // SAFETY: the rows were linked for this memory, of which this process has a copy; the machine keeps the registers that a
    // function keeps, and every process that the table makes has a copy of this stack to return on.
    let tid = unsafe { ringfence_0_1_machine_run(entry.rows, entry.progress) };
    if let (Some(at), Ok(tid)) = (entry.tid, i32::try_from(tid)) {
        let at = ptr::with_exposed_provenance_mut::<i32>(usize::try_from(at).unwrap_or(0));
        // SAFETY: `remembered_tid` saw this thread's id there, at the address that libc had given the kernel for it; this
        // process is a copy with that thread alone.
        unsafe { at.write_volatile(tid) };
    }
}

/// Where libc keeps the calling thread's id: glibc gives the kernel that address to clear at the thread's end
/// (set_tid_address(2)), and `PR_GET_TID_ADDRESS` gives it back (since Linux 3.5, `CONFIG_CHECKPOINT_RESTORE`). `None` where
/// something else is there, as with musl.
pub(crate) fn remembered_tid() -> Option<u64> {
    let mut at = 0_u64;
    let into = (&raw mut at).expose_provenance() as u64;
    // SAFETY: the call writes one address to `at`, which lives across it.
    unsafe { raw(libc::SYS_prctl, [number(libc::PR_GET_TID_ADDRESS), into, 0, 0, 0, 0]) }.ok()?;
    // SAFETY: the kernel wrote through the exposed address; a volatile read sees it.
    let at = unsafe { (&raw const at).read_volatile() };
    if at == 0 || at % 4 != 0 {
        return None;
    }
    // SAFETY: the call takes no arguments.
    let own = unsafe { raw(libc::SYS_gettid, [0; 6]) }.ok()?;
    let place = ptr::with_exposed_provenance::<i32>(usize::try_from(at).ok()?);
    // SAFETY: libc gave the kernel this address as one of its own words, to be written at the thread's end.
    let kept = unsafe { place.read_volatile() };
    (u64::try_from(kept) == Ok(own)).then_some(at)
}

/// The environment is empty from here on: libc's pointer to it, without its lock.
pub(crate) fn forget_environment() {
    // SAFETY: this process has one thread, so nobody reads it meanwhile; null is an empty environment (clearenv(3)).
    unsafe { environ = ptr::null() };
}

/// `exit_group(code)`: no handler of atexit(3) runs, no stream is flushed, nothing is dropped.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Ends the process by SIGABRT, without any handler.
pub(crate) fn abort() -> ! {
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}

/// The kernel's own ceiling of a table of descriptors (proc(5), `fs.nr_open`).
const MOST: i32 = 1 << 20;

/// `close_range(first, last, 0)` (since Linux 5.9), or one by one.
pub(crate) fn close_between(first: i32, last: i32) {
    let args = [number(first), u64::from(last.cast_unsigned()), 0, 0, 0, 0];
    // SAFETY: callers are a fresh copy of a process in which nothing owns these numbers any more.
    if unsafe { raw(libc::SYS_close_range, args) }.is_ok() {
        return;
    }
    // No descriptor is above the limit of the process that was copied, which has opened all of them itself.
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the call writes a struct rlimit to `limit`.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr()) } == 0;
    let most = if known {
        // SAFETY: it was written, as the call succeeded.
        unsafe { limit.assume_init() }.rlim_cur
    } else {
        libc::RLIM_INFINITY
    };
    let most = i32::try_from(most).unwrap_or(MOST).min(MOST);
    for number in first..=last.min(most) {
        // SAFETY: as above.
        unsafe { libc::close(number) };
    }
}

/// `dup3(from, to, flags)` in a fresh copy of a process, in which nothing owns the number `to` any more: 0, 1 and 2 stay open
/// across exec, others do not.
pub(crate) fn place(from: BorrowedFd<'_>, to: i32) -> Result<(), Errno> {
    let flags = if to < 3 { 0 } else { libc::O_CLOEXEC };
    // SAFETY: the call takes numbers only; callers know that nothing owns `to`.
    unsafe { raw(libc::SYS_dup3, [number(from.as_raw_fd()), number(to), number(flags), 0, 0, 0]) }.map(drop)
}

/// The owner of a descriptor that this process, a fresh copy, has under a number that was agreed on.
pub(crate) fn own(number: i32) -> OwnedFd {
    // SAFETY: callers are the code that a copy begins with, and take each agreed number once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// A child that has ended, whichever: its pid, its wait status, its usage. `None` where none has.
pub(crate) fn reap_any() -> Option<(i32, i32, Usage)> {
    let (mut status, mut usage) = (0_i32, Usage::default());
    let at =
        [(&raw mut status).expose_provenance() as u64, (&raw mut usage.words).expose_provenance() as u64];
    let args = [number(-1), at[0], number(libc::WNOHANG), at[1], 0, 0];
    // SAFETY: `status` is an int and `usage` the 144 bytes of struct rusage; both live across the call.
    let pid = unsafe { raw(libc::SYS_wait4, args) }.ok().and_then(|pid| i32::try_from(pid).ok())?;
    // SAFETY: the kernel wrote through the exposed address; a volatile read sees it.
    let status = unsafe { (&raw const status).read_volatile() };
    // SAFETY: as above.
    usage.words = unsafe { (&raw const usage.words).read_volatile() };
    (pid != 0).then_some((pid, status, usage))
}

/// Waits for the end of this child, so that it is no zombie; who has been reaped already is none.
pub(crate) fn reap_by_number(pid: i32) {
    let args = [number(pid), 0, 0, 0, 0, 0];
    // SAFETY: the call takes numbers and null pointers.
    while unsafe { raw(libc::SYS_wait4, args) } == Err(libc::EINTR) {}
}

/// SIGKILL for a child of this process that it has not reaped, so that the number is certain.
pub(crate) fn kill_child(pid: i32) {
    // SAFETY: the call takes numbers only.
    let sent = unsafe { raw(libc::SYS_kill, [number(pid), number(libc::SIGKILL), 0, 0, 0, 0]) };
    debug_assert!(matches!(sent, Ok(_) | Err(libc::ESRCH)), "a child of this process: {sent:?}");
}

/// Bytes of `/proc/self/maps` that are read at once.
const CHUNK: usize = 4096;

/// Unmaps what this process shares with others and could ever write to. A fork copies private memory, and shares the rest:
/// the copy must not be able to change the caller's. No allocation.
fn unshare_memory(keep: [u64; 2]) -> Result<(), Errno> {
    // SAFETY: the path is a C string.
    let fd = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(NixErrno::last_raw());
    }
    let mut line = Line::default();
    let mut chunk = [0_u8; CHUNK];
    loop {
        // SAFETY: the buffer has CHUNK bytes and lives across the call.
        let count = unsafe { libc::read(fd, chunk.as_mut_ptr().cast(), CHUNK) };
        let bytes = match usize::try_from(count) {
            Ok(0) => break,
            Ok(count) => chunk.get(..count).unwrap_or_default(),
            Err(_) => return Err(NixErrno::last_raw()),
        };
        for byte in bytes {
            if let Some(range) = line.take(*byte)
                && range != keep
            {
                unmap_writable(range)?;
            }
        }
    }
    // SAFETY: the descriptor was opened above and nothing else owns it.
    unsafe { libc::close(fd) };
    Ok(())
}

/// The kernel lets a shared mapping be made writable only if its file was opened for writing (mprotect(2), EACCES): one
/// that cannot be stays.
fn unmap_writable([start, end]: [u64; 2]) -> Result<(), Errno> {
    let length = end.saturating_sub(start);
    let writable = u64::from((libc::PROT_READ | libc::PROT_WRITE).cast_unsigned());
    // SAFETY: pages of this process are made readable and writable; nothing runs meanwhile that could notice.
    match unsafe { raw(libc::SYS_mprotect, [start, length, writable, 0, 0, 0]) } {
        Err(libc::EACCES) => Ok(()),
        // SAFETY: nothing of this process uses a shared mapping from here on: the caller's own code in it is told so.
        Ok(_) | Err(_) => unsafe { raw(libc::SYS_munmap, [start, length, 0, 0, 0, 0]) }.map(drop),
    }
}

/// One line of `/proc/PID/maps` (proc_pid_maps(5)): `start-end rwxs …`.
#[derive(Debug, Default)]
struct Line {
    numbers: [u64; 2],
    /// Which word it is at: two numbers, the permissions, the rest.
    word: usize,
    /// Characters of the permissions so far.
    seen: usize,
}

impl Line {
    /// The range, once its permissions say that it is shared.
    fn take(&mut self, byte: u8) -> Option<[u64; 2]> {
        match (byte, self.word) {
            (b'\n', _) => *self = Self::default(),
            (b'-', 0) | (b' ', 1 | 2) => self.word += 1,
            (_, 0 | 1) => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                if let Some(number) = self.numbers.get_mut(self.word) {
                    *number = *number << 4 | digit;
                }
            }
            (_, 2) => {
                self.seen += 1;
                if self.seen == 4 && byte == b's' {
                    return Some(self.numbers);
                }
            }
            _ => {}
        }
        None
    }
}

/// The bytes of a shared mapping as [`unshare_memory`] knows it.
pub(crate) fn range(start: u64, length: usize) -> [u64; 2] {
    [start, start + u64::try_from(length).unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(text: &str) -> Vec<[u64; 2]> {
        let mut line = Line::default();
        text.bytes().filter_map(|byte| line.take(byte)).collect()
    }

    #[test]
    fn only_shared_lines_of_maps_are_taken() {
        let text = "55d0c8a00000-55d0c8a21000 r--p 00000000 fd:00 1234  /usr/bin/s-s rw-s\n\
                    7f0000000000-7f0000001000 rw-s 00000000 00:01 77   /memfd:a b (deleted)\n\
                    7f0000002000-7f0000003000 r--s 00001000 fd:00 9\n\
                    ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n";
        assert_eq!(
            shared(text),
            [[0x7f00_0000_0000, 0x7f00_0000_1000], [0x7f00_0000_2000, 0x7f00_0000_3000]]
        );
    }

    #[test]
    fn libc_remembers_the_thread_id_where_it_says_so() {
        if cfg!(target_env = "gnu") {
            // Absent only in a kernel without CONFIG_CHECKPOINT_RESTORE.
            let known = remembered_tid();
            assert!(known.is_none_or(|at| at != 0));
        }
    }
}
