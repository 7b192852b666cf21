//! The only unsafe code: system calls that `nix` lacks, the machine's text, shared memory. It must not decide anything.

use nix::errno::Errno as NixErrno;
mod fork;
mod group;
mod lower;
mod machine;
mod memory;
mod message;
mod mount;
mod notify;
mod probe;
mod process;
#[cfg(feature = "tokio")]
mod reactor;
mod terminal;

pub(crate) use fork::{
    Entry, Forked, abort, close_between, forget_environment, fork, kill_child, leave, own, place, range,
    reap_any, reap_by_number, remembered_tid, run_table,
};
pub(crate) use group::{attach_device_program, attribute_is, lock_at_once, set_attribute, unlock};
pub(crate) use lower::{
    add_rule, attach_filter, create_ruleset, own_capabilities, prctl, restrict_self, set_own_capabilities,
};
pub(crate) use machine::{Buffer, CloneHow, Cloned, MACHINE, clone_into_table, machine_text};
pub(crate) use memory::{SharedMap, executable_memfd};
pub(crate) use message::{DESCRIPTORS, Whole, receive_with_fds};
pub(crate) use mount::{TreeFlags, can_clone_trees, clone_tree, restrict_tree};
pub(crate) use notify::{
    Injection, Notification, NotificationAnswer, NotificationSizes, answer_notification, fetch_fd, inject,
    inject_and_answer, notification_sizes, notification_waits, open_beneath, open_thread_pidfd,
    receive_notification, stat_bytes,
};
pub(crate) use probe::{landlock_abi, last_capability, probe_call, secure_exec, try_clone_namespaces};
pub(crate) use process::{
    Block, ExitInfo, Reaped, Usage as RawUsage, close_on_exec, duplicate, exit_info, is_urgent,
    kill_by_number, open_pidfd, poll_fd, readable_fds, reap, receive_with_pid, secret, send_signal,
    set_limit, set_priority,
};
#[cfg(feature = "tokio")]
pub(crate) use reactor::watch_readable;
pub(crate) use terminal::{set_window_size, terminal_peer, window_size};

/// An errno as the kernel gave it.
pub(crate) type Errno = i32;

/// Makes a system call; a result in the range of errnos becomes `Err`.
///
/// # Safety
/// The arguments must be what the call demands: each pointer valid for what the call reads or writes through it.
unsafe fn raw(nr: libc::c_long, args: [u64; 6]) -> Result<u64, Errno> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller upholds the contract of the call.
    let result = unsafe { libc::syscall(nr, a, b, c, d, e, f) };
    if result == -1 {
        return Err(NixErrno::last_raw());
    }
    Ok(result.cast_unsigned())
}

/// The address of something, as a system call argument.
fn address<T: ?Sized>(pointer: *const T) -> u64 {
    pointer.cast::<u8>().expose_provenance() as u64
}

/// A small number, or a descriptor, as a system call argument.
fn number(value: i32) -> u64 {
    i64::from(value).cast_unsigned()
}
