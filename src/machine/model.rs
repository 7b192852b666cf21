//! The machine's meaning in Rust: what its text must do, row by row. It makes no kernel call itself: a [`World`] answers.

use super::isa::{Condition, Insn, Kind, Opcode, RETRY};

/// What the model runs against: memory and a kernel, real or scripted.
pub trait World {
    /// The kernel call `nr`; `pc` is the address of the instruction that makes it. `None` when it does not come back:
    /// the process ended or became another program.
    fn call(&mut self, pc: u64, nr: u32, args: [u64; 6]) -> Option<i64>;
    /// The instruction at `pc`.
    fn fetch(&mut self, pc: u64) -> Option<Insn>;
    /// The 64-bit word at `address`.
    fn word(&mut self, address: u64) -> Option<u64>;
    /// The 32-bit word at `address`.
    fn half(&mut self, address: u64) -> Option<u32>;
    /// Stores 64 bits.
    fn store(&mut self, address: u64, value: u64) -> Option<()>;
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `Return` with its value.
    Returned(u64),
    /// The machine gave up: no way on after a failed call, or `Fail`.
    GaveUp,
    /// A call that does not come back, or the limit of steps.
    Stopped,
    /// The table touched memory that it does not have: never in a table that the crate made.
    Fault(u64),
}

/// What the progress record holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Address of the instruction in hand.
    pub pc: u64,
    /// Address of the last call that failed and was not fine.
    pub failed: u64,
    /// Its errno.
    pub errno: u32,
    /// Where the record is kept.
    pub at: u64,
}

/// A result in this range is an errno (Documentation/process/adding-syscalls.rst).
const ERRNO_MAX: i64 = 4095;
const EINTR: i64 = -4;

/// One machine in the middle of a table.
#[derive(Debug)]
pub struct Model<'w, W> {
    world: &'w mut W,
    /// The progress record as the machine would have written it.
    pub progress: Progress,
    pc: u64,
}

impl<'w, W: World> Model<'w, W> {
    /// A machine about to run the instruction at `pc`.
    pub fn new(world: &'w mut W, pc: u64, progress_at: u64) -> Self {
        Self { world, progress: Progress { at: progress_at, ..Progress::default() }, pc }
    }

    /// Runs at most `limit` instructions.
    pub fn run(&mut self, limit: usize) -> End {
        for _ in 0..limit {
            if let Some(end) = self.step() {
                return end;
            }
        }
        End::Stopped
    }

    fn argument(&mut self, insn: &Insn, index: usize) -> Option<u64> {
        let raw = insn.args[index];
        match (insn.kinds >> (2 * index)) & 3 {
            k if k == Kind::Const as u16 => Some(raw),
            k if k == Kind::Word as u16 => self.world.word(raw),
            _ => self.world.half(raw).map(|half| i64::from(half.cast_signed()).cast_unsigned()),
        }
    }

    fn step(&mut self) -> Option<End> {
        let pc = self.pc;
        self.progress.pc = pc;
        let Some(insn) = self.world.fetch(pc) else { return Some(End::Fault(pc)) };
        let mut args = [0; 6];
        for (index, arg) in args.iter_mut().enumerate() {
            match self.argument(&insn, index) {
                Some(value) => *arg = value,
                None => return Some(End::Fault(insn.args[index])),
            }
        }
        let jump = pc.wrapping_add_signed(i64::from(insn.jump));
        let next = pc.wrapping_add(super::isa::INSN_SIZE as u64);
        self.pc = match insn.opcode {
            op if op == Opcode::Call as u8 => match self.call(pc, &insn, args) {
                Ok(true) => next,
                Ok(false) if insn.jump != 0 => jump,
                Ok(false) => return Some(End::GaveUp),
                Err(end) => return Some(end),
            },
            op if op == Opcode::Branch as u8 => {
                if holds(insn.nr, args) {
                    jump
                } else {
                    next
                }
            }
            op if op == Opcode::Jump as u8 => args[0],
            op if op == Opcode::Set as u8 => {
                if self.world.store(insn.result, args[0].wrapping_add(args[1])).is_none() {
                    return Some(End::Fault(insn.result));
                }
                next
            }
            op if op == Opcode::Progress as u8 => {
                self.progress.at = args[0];
                next
            }
            op if op == Opcode::Return as u8 => return Some(End::Returned(args[0])),
            _ => return Some(End::GaveUp),
        };
        None
    }

    /// `Ok(true)`: go on; `Ok(false)`: failed and recorded.
    fn call(&mut self, pc: u64, insn: &Insn, args: [u64; 6]) -> Result<bool, End> {
        let result = loop {
            let result = self.world.call(pc, insn.nr, args).ok_or(End::Stopped)?;
            if result != EINTR || insn.flags & RETRY == 0 {
                break result;
            }
        };
        if insn.result != 0 {
            self.world.store(insn.result, result.cast_unsigned()).ok_or(End::Fault(insn.result))?;
        }
        if !(-ERRNO_MAX..0).contains(&result) {
            return Ok(true);
        }
        let errno = u32::try_from(-result).unwrap_or_default();
        if u8::try_from(errno).is_ok_and(|small| insn.fine.contains(&small)) {
            return Ok(true);
        }
        self.progress.failed = pc;
        self.progress.errno = errno;
        Ok(false)
    }
}

fn holds(condition: u32, args: [u64; 6]) -> bool {
    let masked = args[0] & args[1] == args[2];
    match condition {
        c if c == Condition::Less as u32 => args[0].cast_signed() < args[1].cast_signed(),
        c if c == Condition::MaskEqual as u32 => masked,
        _ => !masked,
    }
}
