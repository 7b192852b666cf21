//! What an image must do, by the model. It answers those kernel calls whose results are certain.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use ringfence::internals::{End, INSN_SIZE, Insn, Model, World};

use super::{DATA, EARLY, GAVE_UP, MEM_FD, PAGE, PAGE_SIZE, Program, TABLE};

const EBADF: i64 = -9;
const EINVAL: i64 = -22;
const ENODEV: i64 = -19;
const ENOSYS: i64 = -38;
/// From here on no number is a kernel call's.
pub(super) const NO_CALL: u32 = 5000;
/// From here on no number is an open file's.
pub(super) const NO_FILE: u64 = 100_000;
/// More calls than that from one table are an endless loop.
const CALLS_MAX: usize = 2000;
const STEPS_MAX: usize = 2000;
pub(super) const PRIVATE_FIXED: u64 = 0x12;
pub(super) const ANONYMOUS: u64 = 0x20;

/// How often which kind of instruction was left: its opcode, its condition, and whether for the next one.
pub(super) type Coverage = BTreeMap<(u8, u32, bool), usize>;

/// How a table ends.
pub(super) struct Verdict {
    pub(super) stdout: Vec<u8>,
    pub(super) status: i32,
    pub(super) coverage: Coverage,
    pub(super) retries: usize,
}

struct State {
    program: Program,
    memory: Vec<u8>,
    /// Where progress is recorded: the model only says so, the record in memory is kept here.
    at: u64,
    position: u64,
    umask: u64,
    calls: usize,
    last_call: Option<u64>,
    left: Option<(u64, u8, u32)>,
    exit: Option<i32>,
    /// A call was made whose result is not certain.
    refused: bool,
    stdout: Vec<u8>,
    coverage: Coverage,
    retries: usize,
}

#[derive(Clone)]
struct Shared(Rc<RefCell<State>>);

/// What the image of `program` writes and how it ends; `None` where that is not certain.
pub(super) fn predict(program: &Program) -> Option<Verdict> {
    let shared = Shared(Rc::new(RefCell::new(State::new(program.clone()))));
    let mut world = shared.clone();
    let mut model = Model::new(&mut world, TABLE, EARLY);
    let mut status = None;
    for _ in 0..STEPS_MAX {
        model.progress.failed = 0;
        let end = model.run(1);
        let mut state = shared.0.borrow_mut();
        if model.progress.failed != 0 {
            let (at, failed) = (state.at, model.progress.failed);
            state.put(at + 8, &failed.to_le_bytes())?;
            state.put(at + 16, &model.progress.errno.to_le_bytes())?;
        }
        state.at = model.progress.at;
        status = if end == End::GaveUp { Some(GAVE_UP) } else { state.exit };
        if status.is_some() || end != End::Stopped || state.refused {
            break;
        }
    }
    drop(world);
    let state = Rc::into_inner(shared.0)?.into_inner();
    let State { stdout, coverage, retries, .. } = state;
    status.map(|status| Verdict { stdout, status, coverage, retries })
}

impl State {
    fn new(program: Program) -> Self {
        Self {
            memory: program.segment(),
            program,
            at: EARLY,
            position: 0,
            umask: 0,
            calls: 0,
            last_call: None,
            left: None,
            exit: None,
            refused: false,
            stdout: Vec::new(),
            coverage: Coverage::new(),
            retries: 0,
        }
    }

    fn place(&mut self, address: u64, size: usize) -> Option<&mut [u8]> {
        let from = usize::try_from(address.checked_sub(DATA)?).ok()?;
        self.memory.get_mut(from..from.checked_add(size)?)
    }

    fn put(&mut self, address: u64, bytes: &[u8]) -> Option<()> {
        self.place(address, bytes.len())?.copy_from_slice(bytes);
        Some(())
    }

    fn fetch(&mut self, pc: u64) -> Option<Insn> {
        if let Some((from, opcode, condition)) = self.left {
            let went_on = pc == from + INSN_SIZE as u64;
            *self.coverage.entry((opcode, condition, went_on)).or_default() += 1;
        }
        self.put(self.at, &pc.to_le_bytes())?;
        let insn = Insn::from_bytes(self.place(pc, INSN_SIZE)?)?;
        self.left = Some((pc, insn.opcode, if insn.opcode == 1 { insn.nr } else { 0 }));
        self.last_call = None;
        Some(insn)
    }

    fn call(&mut self, pc: u64, nr: u32, args: [u64; 6]) -> Option<i64> {
        self.calls += 1;
        if self.calls > CALLS_MAX {
            return None;
        }
        if self.last_call.replace(pc).is_some() {
            self.retries += 1;
        }
        let calls = &self.program.arch.calls;
        let no_file = args[0] & 0xffff_ffff >= NO_FILE;
        match nr {
            _ if nr >= NO_CALL => Some(ENOSYS),
            _ if nr == calls.close || nr == calls.dup => no_file.then_some(EBADF),
            _ if nr == calls.lseek && no_file => Some(EBADF),
            _ if nr == calls.lseek => self.seek(args),
            _ if nr == calls.mmap => map(args),
            _ if nr == calls.umask => {
                let old = self.umask.cast_signed();
                self.umask = args[0] & 0o777;
                Some(old)
            }
            _ if nr == calls.write => self.write(args),
            _ if nr == calls.exit_group => {
                self.exit = i32::try_from(args[0] & 0xff).ok();
                None
            }
            _ if nr == calls.openat => Some(3),
            _ if nr == calls.dup3 => Some(args[1].cast_signed()),
            _ if nr == calls.sched_yield || nr == calls.setitimer => Some(0),
            _ => None,
        }
    }

    /// `/proc/self/mem` gives back whatever position it was sent to.
    fn seek(&mut self, args: [u64; 6]) -> Option<i64> {
        if args[0] & 0xffff_ffff != MEM_FD {
            return None;
        }
        self.position = match args[2] & 0xffff_ffff {
            0 => args[1],
            1 => self.position.wrapping_add(args[1]),
            _ => return None,
        };
        let result = self.position.cast_signed();
        // These the kernel keeps to itself, and an emulator may do as it likes with them.
        (!(-516..=-512).contains(&result)).then_some(result)
    }

    fn write(&mut self, args: [u64; 6]) -> Option<i64> {
        if args[0] & 0xffff_ffff != 1 {
            return None;
        }
        let bytes = self.place(args[1], usize::try_from(args[2]).ok()?)?.to_vec();
        self.stdout.extend(bytes);
        Some(args[2].cast_signed())
    }
}

/// The results tell wrong arguments apart, but for the protection.
fn map(args: [u64; 6]) -> Option<i64> {
    let [address, length, 3, flags, fd, offset] = args else { return None };
    if !(PAGE..=PAGE + 16 * PAGE_SIZE).contains(&address) || address % PAGE_SIZE != 0 {
        return None;
    }
    let fd = fd & 0xffff_ffff;
    match (length, flags, offset) {
        (_, _, 1) => Some(EINVAL),
        (0, _, 0) if flags == PRIVATE_FIXED | ANONYMOUS => Some(EINVAL),
        (PAGE_SIZE, PRIVATE_FIXED, 0) if fd >= NO_FILE => Some(EBADF),
        (PAGE_SIZE, PRIVATE_FIXED, 0) if fd == MEM_FD => Some(ENODEV),
        (PAGE_SIZE, _, 0) if flags == PRIVATE_FIXED | ANONYMOUS => Some(address.cast_signed()),
        _ => None,
    }
}

impl World for Shared {
    fn call(&mut self, pc: u64, nr: u32, args: [u64; 6]) -> Option<i64> {
        let mut state = self.0.borrow_mut();
        let result = state.call(pc, nr, args);
        state.refused = result.is_none();
        result
    }

    fn fetch(&mut self, pc: u64) -> Option<Insn> {
        self.0.borrow_mut().fetch(pc)
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        let mut state = self.0.borrow_mut();
        let bytes: &[u8] = state.place(address, 8)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    }

    fn half(&mut self, address: u64) -> Option<u32> {
        let mut state = self.0.borrow_mut();
        let bytes: &[u8] = state.place(address, 4)?;
        bytes.try_into().ok().map(u32::from_le_bytes)
    }

    fn store(&mut self, address: u64, value: u64) -> Option<()> {
        self.0.borrow_mut().put(address, &value.to_le_bytes())
    }
}
