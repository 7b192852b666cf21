//! Calls as the registers of x86_64 show them. It must not make any.

/// What the kernel does instead of a call that is to fail. Behind a filter no call may become another one, so there its
/// arguments become such that it fails by itself.
pub(super) fn instead(mut registers: libc::user_regs_struct, call: u64) -> libc::user_regs_struct {
    match i64::try_from(call).unwrap() {
        libc::SYS_execve | libc::SYS_ppoll => registers.rdi = 1,
        libc::SYS_execveat => registers.rsi = 1,
        libc::SYS_read => registers.rdi = u64::MAX,
        libc::SYS_wait4 => registers.rdx = u64::MAX,
        libc::SYS_kill => registers.rsi = 4000,
        _ => registers.orig_rax = u64::MAX,
    }
    registers
}

/// What a call is about where its number alone does not say.
pub(super) fn operation(call: u64, args: &[u64; 6]) -> u64 {
    match i64::try_from(call).unwrap() {
        libc::SYS_futex | libc::SYS_fcntl | libc::SYS_ioctl | libc::SYS_flock => args[1],
        libc::SYS_prctl => args[0],
        libc::SYS_mmap => args[3],
        _ => 0,
    }
}

pub(super) fn number(call: libc::c_long) -> u64 {
    u64::try_from(call).unwrap()
}
