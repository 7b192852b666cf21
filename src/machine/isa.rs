//! The instruction set: what one row of the table looks like in memory. It must not know what any row is for.

/// Bytes of one instruction; the machine's text steps by this.
pub const INSN_SIZE: usize = 72;

/// What an instruction does.
///
/// Wherever an instruction has arguments, each of them is a constant, or the 64-bit word, or the sign-extended 32-bit
/// word, at an address (see [`Kind`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// Makes the kernel call `nr` with six arguments. The raw result goes to `result` unless that is 0. A result in
    /// `-4095..=-1` whose errno is not one of `fine` is recorded and control goes to `jump`, or, where that is 0, the
    /// process ends.
    Call = 0,
    /// Goes to `jump` if the condition `nr` (see [`Condition`]) holds for arguments 0, 1 and 2, else to the next one.
    Branch = 1,
    /// Goes to the instruction whose address is argument 0.
    Jump = 2,
    /// Stores argument 0 plus argument 1 (wrapping) as 64 bits at `result`.
    Set = 3,
    /// From now on progress is recorded at the address in argument 0.
    Progress = 4,
    /// Ends the process, leaving the recorded errno as it is.
    Fail = 5,
    /// Returns argument 0 to whoever called the machine as a function (never inside an image).
    Return = 6,
}

/// How an argument is to be read; two bits each in [`Insn::kinds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The argument is the value.
    Const = 0,
    /// The argument is the address of a 64-bit word.
    Word = 1,
    /// The argument is the address of a signed 32-bit word.
    Half = 2,
}

/// The conditions of [`Opcode::Branch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Condition {
    /// `(a & b) == c`
    MaskEqual = 0,
    /// `(a & b) != c`
    MaskDiffers = 1,
    /// `a < b`, both signed.
    Less = 2,
}

/// [`Insn::flags`]: a result of `-EINTR` makes the call again.
pub(crate) const RETRY: u8 = 1;

/// One row of the table, as the machine's text reads it.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 1 | opcode |
/// | 1 | 1 | flags |
/// | 2 | 2 | kinds, two bits an argument, argument 0 lowest |
/// | 4 | 4 | call number or condition |
/// | 8 | 4 | jump: signed distance in bytes from this instruction, 0 for none |
/// | 12 | 4 | four errnos that are fine, 0 for none |
/// | 16 | 8 | address that the result goes to, 0 for none |
/// | 24 | 48 | six arguments |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// An [`Opcode`] as a number.
    pub opcode: u8,
    /// `RETRY` or 0.
    pub flags: u8,
    /// Two bits an argument.
    pub kinds: u16,
    /// The call's number, or a [`Condition`] as a number.
    pub nr: u32,
    /// Signed distance in bytes from this instruction.
    pub jump: i32,
    /// Errnos after which control goes on as after success.
    pub fine: [u8; 4],
    /// Where the result is stored.
    pub result: u64,
    /// The arguments.
    pub args: [u64; 6],
}

/// Where the arguments begin inside an instruction.
pub(crate) const ARGS_AT: usize = 24;
/// Where the result's address stands inside an instruction.
pub(crate) const RESULT_AT: usize = 16;

impl Insn {
    /// The bytes that the machine's text reads, in the order of the machine (all supported ones are little-endian).
    #[must_use]
    pub fn to_bytes(self) -> [u8; INSN_SIZE] {
        let mut out = [0; INSN_SIZE];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&[self.opcode, self.flags]);
        put(&self.kinds.to_le_bytes());
        put(&self.nr.to_le_bytes());
        put(&self.jump.to_le_bytes());
        put(&self.fine);
        put(&self.result.to_le_bytes());
        for arg in self.args {
            put(&arg.to_le_bytes());
        }
        out
    }

    /// Reads an instruction back from its bytes; `None` if there are too few.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; INSN_SIZE] = bytes.get(..INSN_SIZE)?.try_into().ok()?;
        let word = |at: usize| {
            let mut w = [0; 8];
            w.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(w)
        };
        let half = |at: usize| {
            let mut h = [0; 4];
            h.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(h)
        };
        let mut args = [0; 6];
        for (index, arg) in args.iter_mut().enumerate() {
            *arg = word(ARGS_AT + 8 * index);
        }
        Some(Self {
            opcode: bytes[0],
            flags: bytes[1],
            kinds: u16::from_le_bytes([bytes[2], bytes[3]]),
            nr: half(4),
            jump: half(8).cast_signed(),
            fine: [bytes[12], bytes[13], bytes[14], bytes[15]],
            result: word(RESULT_AT),
            args,
        })
    }
}

/// The record that the machine keeps at the progress address while it runs.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 8 | address of the instruction in hand |
/// | 8 | 8 | address of the last call that failed and was not fine |
/// | 16 | 4 | its errno |
/// | 20 | 4 | 1 once the machine has given up (no `jump`, or [`Opcode::Fail`]) |
pub(crate) const PROGRESS_SIZE: usize = 24;
/// Offset of the address of the last failed call in the progress record.
pub(crate) const FAILED_AT: usize = 8;
/// Offset of the errno in the progress record.
pub(crate) const ERRNO_AT: usize = 16;
/// Offset of the mark that the machine has given up.
pub(crate) const GAVE_UP_AT: usize = 20;
