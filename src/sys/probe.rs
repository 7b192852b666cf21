//! Calls that only look. Each is made so that it can have no lasting effect, whatever the kernel answers.

use std::sync::atomic::AtomicI32;

use super::{CloneHow, Errno, clone_into_table, raw};
use crate::machine::isa::{Insn, Opcode, PROGRESS_SIZE};
use nix::sys::signal;
use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;

/// Makes a call with constant arguments chosen so that it cannot succeed in doing anything: bad descriptors, null pointers,
/// unknown commands. `Ok` or the errno tell whether the kernel, or a filter, knows the call.
pub(crate) fn probe_call(nr: u32, args: [u64; 6]) -> Result<(), Errno> {
    // SAFETY: callers pass constants with null or no pointers; the kernel answers EFAULT, EBADF or EINVAL, or does nothing.
    unsafe { raw(libc::c_long::from(nr), args) }.map(drop)
}

/// The number of the last capability that the kernel knows: `prctl(PR_CAPBSET_READ)` until it answers EINVAL.
pub(crate) fn last_capability() -> u32 {
    let known = |number: u32| {
        let args = [u64::from(libc::PR_CAPBSET_READ.cast_unsigned()), u64::from(number), 0, 0, 0, 0];
        // SAFETY: PR_CAPBSET_READ takes numbers only.
        unsafe { raw(libc::SYS_prctl, args) }.is_ok()
    };
    (0..64).take_while(|number| known(*number)).last().unwrap_or(0)
}

/// `landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION)`: the newest version of Landlock's interface.
pub(crate) fn landlock_abi() -> Result<u32, Errno> {
    const LANDLOCK_CREATE_RULESET_VERSION: u64 = 1;
    let args = [0, 0, LANDLOCK_CREATE_RULESET_VERSION, 0, 0, 0];
    // SAFETY: with this flag the kernel reads no memory and makes no ruleset; pointer and size are 0, as it demands.
    let abi = unsafe { raw(libc::SYS_landlock_create_ruleset, args) }?;
    u32::try_from(abi).map_err(|_| libc::EOVERFLOW)
}

/// Whether this program was started with privileges that its caller lacks (getauxval(3), `AT_SECURE`).
pub(crate) fn secure_exec() -> bool {
    // SAFETY: getauxval reads a number from the process's own auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Makes a child in these new namespaces that ends at once, and reaps it.
pub(crate) fn try_clone_namespaces(flags: u64) -> Result<(), Errno> {
    // In clone's flags CLONE_NEWTIME would be a part of the exit signal.
    let legacy = flags & 0xff == 0;
    let insn = Insn {
        opcode: Opcode::Fail as u8,
        flags: 0,
        kinds: 0,
        nr: 0,
        jump: 0,
        fine: [0; 4],
        result: 0,
        args: [0; 6],
    };
    let mut table = super::Buffer::new(insn.to_bytes().len());
    table.fill(&insn.to_bytes());
    let progress = super::Buffer::new(PROGRESS_SIZE);
    let shared = u64::from((libc::CLONE_VM | libc::CLONE_VFORK).cast_unsigned());
    let mask = SigSet::all();
    let mut before = SigSet::empty();
    let how = SigmaskHow::SIG_SETMASK;
    signal::pthread_sigmask(how, Some(&mask), Some(&mut before)).map_err(|errno| errno as Errno)?;
    let made = clone_into_table(
        CloneHow::Clone3,
        flags | shared,
        table.address(),
        progress.address(),
        &AtomicI32::new(-1),
    )
    .or_else(|errno| match errno {
        libc::ENOSYS if legacy => clone_into_table(
            CloneHow::Clone,
            flags | shared,
            table.address(),
            progress.address(),
            &AtomicI32::new(-1),
        ),
        other => Err(other),
    });
    signal::pthread_sigmask(how, Some(&before), None).map_err(|errno| errno as Errno)?;
    let child = made?;
    super::reap(&child.pidfd, super::process::Block::UntilExit).map(drop)
}
