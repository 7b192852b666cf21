//! Where things lie: the image, the brief, and the descriptors that the set-up holds. Both halves read it; it has no code.
//!
//! The brief is one shared mapping a launch: the child's progress and outcome, what the caller decides at each launch, and
//! the tail of the table (what belongs to a single command). The program never sees it: the mapping and its descriptor end
//! with `execve`.

/// Address of the image's text page: fixed, so that the table in it needs no relocation when it starts.
pub(crate) const IMAGE_BASE: u64 = 0x1000_0000;
/// Address at which the image maps the brief.
pub(crate) const BRIEF_BASE: u64 = 0x2000_0000;

/// The set-up's progress record (see [`super::isa::PROGRESS_SIZE`]).
pub(crate) const PROGRESS: u32 = 0;
/// Init's progress record, once there are two processes.
pub(crate) const INIT_PROGRESS: u32 = 0x20;
/// i64: the program's pid as init sees it.
pub(crate) const PROGRAM_PID: u32 = 0x40;
/// i32: the program's wait status, written by the kernel through init's `wait4`.
pub(crate) const STATUS: u32 = 0x48;
/// u64: 1 once [`STATUS`] holds it.
pub(crate) const STATUS_VALID: u32 = 0x50;
/// u64: address of argv.
pub(crate) const ARGV: u32 = 0x58;
/// u64: address of envp.
pub(crate) const ENVP: u32 = 0x60;
/// u64: address of the first instruction of the tail.
pub(crate) const TAIL_ENTRY: u32 = 0x68;
/// u64: uid to take where the caller decides it at launch.
pub(crate) const HOST_UID: u32 = 0x70;
/// u64: gid likewise.
pub(crate) const HOST_GID: u32 = 0x78;
/// `struct rusage` of the program, 144 bytes.
pub(crate) const RUSAGE: u32 = 0x80;
/// Message buffer of the child for the socket.
pub(crate) const MESSAGE: u32 = 0x140;
/// u64: first descriptor number above all that the caller had, for hosts without `close_range`.
pub(crate) const FD_END: u32 = 0x150;
/// u64: first descriptor number that nothing of the child's uses, for the same hosts.
pub(crate) const FREE_FD: u32 = 0x158;
/// u64: 1 once the caller lets the sandbox outlive it; init looks at it when the caller is gone.
pub(crate) const DETACHED: u32 = 0x160;
/// `struct robust_list_head` (set_robust_list(2)): the kernel's own word that the child has left its memory, by exec or end.
pub(crate) const ROBUST_HEAD: u32 = 0x168;
/// The one entry of that list.
pub(crate) const ROBUST_ENTRY: u32 = 0x180;
/// Bytes from the entry to its futex.
pub(crate) const ROBUST_DISTANCE: u32 = 8;
/// The futex: the child's tid, and `FUTEX_OWNER_DIED` once it is out.
pub(crate) const ROBUST_FUTEX: u32 = ROBUST_ENTRY + ROBUST_DISTANCE;
/// u64: the launch's secret, by which a filter knows the launch's own execve.
pub(crate) const SECRET: u32 = 0x1a0;
/// u64: its low half, as the constant of an instruction of a filter (the high half of the word).
pub(crate) const SECRET_LOW: u32 = 0x1a8;
/// u64: its high half likewise.
pub(crate) const SECRET_HIGH: u32 = 0x1b0;
/// i64: the number of the filter's listener in the child, or the errno that there is none for, negative. 0: not known yet.
pub(crate) const LISTENER: u32 = 0x1e0;
/// u64: 1 if the caller can take the listener over and will supervise.
pub(crate) const SUPERVISED: u32 = 0x1e8;
/// u64: 1 if the child is told what to run only once it waits.
pub(crate) const WAITS: u32 = 0x1f0;
/// u64: 1 once the next thing is the launch's `execve`.
pub(crate) const EXECS: u32 = 0x1f8;
/// Sources of binds: [`SOURCE_SIZE`] bytes each.
pub(crate) const SOURCES: u32 = 0x200;
/// Per source: u64 kind, u64 inode, u64 device (major, minor as two u32).
pub(crate) const SOURCE_SIZE: u32 = 24;
/// Kinds of a source.
pub(crate) const SOURCE_ABSENT: u64 = 0;
/// A directory.
pub(crate) const SOURCE_DIRECTORY: u64 = 1;
/// Anything else that can be bound.
pub(crate) const SOURCE_FILE: u64 = 2;
/// A symlink to be mirrored.
pub(crate) const SOURCE_SYMLINK: u64 = 3;
/// `struct rusage` on all supported architectures.
pub(crate) const RUSAGE_SIZE: usize = 144;

/// The child's end of the socketpair.
pub(crate) const FD_SOCKET: i32 = 3;
/// The brief's memfd.
pub(crate) const FD_BRIEF: i32 = 4;
/// A pidfd of the caller.
pub(crate) const FD_CALLER: i32 = 5;
/// Scratch numbers for calls that take a descriptor by its path.
pub(crate) const FD_SCRATCH: i32 = 6;
/// Second scratch number, for a target.
pub(crate) const FD_SCRATCH_TARGET: i32 = 7;
/// The same number in a child that joins a living sandbox: a pidfd of that sandbox's first process.
pub(crate) const FD_SANDBOX: i32 = FD_SCRATCH_TARGET;
/// The first of the descriptors that depend on policy and command.
pub(crate) const FD_FIRST_FREE: i32 = 8;
