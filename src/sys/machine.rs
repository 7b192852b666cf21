//! The machine's text in this program, and the call that lets a child enter it. It must not know what a table says.

use std::arch::global_asm;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::slice;
use std::sync::atomic::{AtomicI32, Ordering};

use super::{Errno, address};
use crate::machine::isa::INSN_SIZE;

#[cfg(target_arch = "x86_64")]
global_asm!(include_str!("../machine/x86_64.s"), options(raw));
#[cfg(target_arch = "aarch64")]
global_asm!(include_str!("../machine/aarch64.s"), options(raw));
#[cfg(target_arch = "riscv64")]
global_asm!(include_str!("../machine/riscv64.s"), options(raw));

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
compile_error!("ringfence has a machine text for x86_64, aarch64 and riscv64");

unsafe extern "C" {
    static ringfence_0_1_machine_begin: u8;
    static ringfence_0_1_machine_end: u8;
    fn ringfence_0_1_machine_clone(call: *const u64, pc: u64, progress: u64) -> i64;
}

/// The ELF machine number of this program.
pub(crate) const MACHINE: Option<u16> = if cfg!(target_arch = "x86_64") {
    Some(62)
} else if cfg!(target_arch = "aarch64") {
    Some(183)
} else if cfg!(target_arch = "riscv64") {
    Some(243)
} else {
    None
};

/// The machine's text, position-independent.
pub(crate) fn machine_text() -> &'static [u8] {
    let begin = &raw const ringfence_0_1_machine_begin;
    let end = &raw const ringfence_0_1_machine_end;
    let length = end.addr() - begin.addr();
    // SAFETY: both labels stand in one assembly block of this file, `end` behind `begin`, in a section that is mapped
    // readable for the life of the program; nothing writes to it.
    unsafe { slice::from_raw_parts(begin, length) }
}

/// Memory of the caller that a table lies in, 8-byte aligned and never moved.
#[derive(Debug)]
pub(crate) struct Buffer {
    words: Box<[u64]>,
}

impl Buffer {
    /// Zeroes, at least `bytes` of them.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { words: vec![0; bytes.div_ceil(8)].into_boxed_slice() }
    }

    /// Where it lies.
    pub(crate) fn address(&self) -> u64 {
        address(self.words.as_ptr())
    }

    /// Puts bytes at its start.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        for (word, chunk) in self.words.iter_mut().zip(bytes.chunks(8)) {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(eight);
        }
    }
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which clone call to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloneHow {
    /// `clone3`.
    Clone3,
    /// `clone3` with `CLONE_INTO_CGROUP` (since Linux 5.7), and the group's descriptor: the child is in it from its first
    /// instruction.
    Clone3Into(RawFd),
    /// `clone`, for hosts where `clone3` is absent or filtered.
    Clone,
}

/// What the caller has of a child.
#[derive(Debug)]
pub(crate) struct Cloned {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// `clone3({flags|CLONE_PIDFD, exit_signal: SIGCHLD})`, or the same by `clone`: the child runs the table at `entry` on the
/// machine, recording its progress at `progress`, and never comes back here.
///
/// With `CLONE_VM|CLONE_VFORK` the caller waits until the child has executed something or ended. The machine uses no
/// stack, so the child needs none of its own. The kernel stores the pidfd's number in `pidfd` before that wait: another
/// thread can end a child that does not come on. Afterwards -1 stands there.
pub(crate) fn clone_into_table(
    how: CloneHow,
    flags: u64,
    entry: u64,
    progress: u64,
    pidfd: &AtomicI32,
) -> Result<Cloned, Errno> {
    let flags = flags | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    let signal = u64::from(libc::SIGCHLD.cast_unsigned());
    let pidfd_at = address(pidfd.as_ptr().cast_const());
    let mut clone3 = [flags, pidfd_at, 0, 0, signal, 0, 0, 0, 0, 0, 0];
    // The size of the structure says how much of it the caller knows (clone3(2), CLONE_ARGS_SIZE_VER0 and VER2).
    let mut size = 64;
    if let CloneHow::Clone3Into(group) = how {
        clone3[0] |= CLONE_INTO_CGROUP;
        clone3[10] = u64::from(group.cast_unsigned());
        size = 88;
    }
    let call = match how {
        CloneHow::Clone3 | CloneHow::Clone3Into(_) => {
            [libc::SYS_clone3.cast_unsigned(), address(clone3.as_ptr()), size, 0, 0, 0, 0]
        }
        CloneHow::Clone => [libc::SYS_clone.cast_unsigned(), flags | signal, 0, pidfd_at, 0, 0, 0],
    };
    // SAFETY: `call` holds seven words for a clone call whose pointers (`clone3`, `pidfd`) live across it. The child runs a
    // table that only the crate's compiler makes: it reads and writes the segments it was linked for, touches no stack and
    // returns to no Rust code; under CLONE_VM this thread is suspended until the child has left this memory.
    let result = unsafe { ringfence_0_1_machine_clone(call.as_ptr(), entry, progress) };
    if result < 0 {
        return Err(i32::try_from(-result).unwrap_or(libc::EINVAL));
    }
    let number = pidfd.swap(-1, Ordering::SeqCst);
    // SAFETY: CLONE_PIDFD was asked for and the call succeeded, so the kernel put the number of a new descriptor there, which
    // is ours alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(number) };
    Ok(Cloned { pid: i32::try_from(result).unwrap_or(0), pidfd })
}

const _: () = assert!(INSN_SIZE.is_multiple_of(8));
