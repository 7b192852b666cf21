//! A segment of a program: data, then rows, with addresses still symbolic; linking makes bytes for a place in memory. It
//! must not know which calls the rows make.

use super::isa::{ARGS_AT, INSN_SIZE, Insn, Kind, Opcode, RESULT_AT};

/// Which segment an address lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// The data of the plan's own segment.
    Image,
    /// The brief.
    Brief,
    /// The data of the command's segment.
    Tail,
    /// The data of the segment that runs in the window.
    Window,
}

/// Where each segment's data begins in the child's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Bases {
    /// See [`Place::Image`].
    pub image: u64,
    /// See [`Place::Brief`].
    pub brief: u64,
    /// See [`Place::Tail`].
    pub tail: u64,
    /// See [`Place::Window`].
    pub window: u64,
}

impl Bases {
    fn of(&self, address: Address) -> u64 {
        let base = match address.place {
            Place::Image => self.image,
            Place::Brief => self.brief,
            Place::Tail => self.tail,
            Place::Window => self.window,
        };
        base + u64::from(address.offset)
    }
}

/// A byte of a segment's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// Which segment.
    pub place: Place,
    /// Bytes from the start of its data.
    pub offset: u32,
}

impl Address {
    /// `bytes` further on.
    #[must_use]
    pub(crate) const fn plus(self, bytes: u32) -> Self {
        Self { place: self.place, offset: self.offset + bytes }
    }
}

/// An argument of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Arg {
    /// A number.
    Value(u64),
    /// The address of something.
    Pointer(Address),
    /// The 64-bit word at an address, read when the row runs.
    Word(Address),
    /// The sign-extended 32-bit word at an address.
    Half(Address),
}

/// One instruction with symbolic addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// What it does.
    pub opcode: Opcode,
    /// [`super::isa::RETRY`] or 0.
    pub flags: u8,
    /// Call number or [`Condition`].
    pub nr: u32,
    /// The row to go to.
    pub jump: Option<usize>,
    /// Errnos that are fine.
    pub fine: [u8; 4],
    /// Where the result goes.
    pub result: Option<Address>,
    /// The arguments.
    pub args: [Arg; 6],
}

impl Row {
    /// A row that does `opcode` with these arguments.
    #[must_use]
    pub(crate) fn new(opcode: Opcode, nr: u32, list: &[Arg]) -> Self {
        let mut args = [Arg::Value(0); 6];
        for (slot, arg) in args.iter_mut().zip(list) {
            *slot = *arg;
        }
        Self { opcode, flags: 0, nr, jump: None, fine: [0; 4], result: None, args }
    }
}

/// Data and rows.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Segment {
    /// Constants and cells; padded to 8 bytes when linked.
    pub data: Vec<u8>,
    /// Words of the data that hold addresses: at this offset, of this byte.
    pub pointers: Vec<(u32, Address)>,
    /// The instructions, behind the data.
    pub rows: Vec<Row>,
}

impl Segment {
    /// Bytes of the data with its padding: where the rows begin.
    #[must_use]
    pub(crate) fn rows_at(&self) -> usize {
        self.data.len().next_multiple_of(8)
    }

    /// Bytes of the whole.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.rows_at() + self.rows.len() * INSN_SIZE
    }

    /// Appends the segment's bytes to `out`, for these bases.
    pub(crate) fn link(&self, bases: &Bases, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.data);
        out.resize(start + self.rows_at(), 0);
        for (at, address) in &self.pointers {
            let at = start + usize::try_from(*at).unwrap_or(usize::MAX);
            out[at..at + 8].copy_from_slice(&bases.of(*address).to_le_bytes());
        }
        for (index, row) in self.rows.iter().enumerate() {
            out.extend_from_slice(&link_row(row, index, bases).to_bytes());
        }
    }
}

fn link_row(row: &Row, index: usize, bases: &Bases) -> Insn {
    let mut kinds = 0;
    let mut args = [0; 6];
    for (place, arg) in row.args.iter().enumerate() {
        let (kind, value) = match *arg {
            Arg::Value(value) => (Kind::Const, value),
            Arg::Pointer(address) => (Kind::Const, bases.of(address)),
            Arg::Word(address) => (Kind::Word, bases.of(address)),
            Arg::Half(address) => (Kind::Half, bases.of(address)),
        };
        kinds |= u16::from(kind as u8) << (2 * place);
        args[place] = value;
    }
    let distance = |target: usize| {
        let rows = i64::try_from(target).unwrap_or(0) - i64::try_from(index).unwrap_or(0);
        i32::try_from(rows * i64::try_from(INSN_SIZE).unwrap_or(0)).unwrap_or(0)
    };
    Insn {
        opcode: row.opcode as u8,
        flags: row.flags,
        kinds,
        nr: row.nr,
        jump: row.jump.map_or(0, distance),
        fine: row.fine,
        result: row.result.map_or(0, |address| bases.of(address)),
        args,
    }
}

const _: () = assert!(RESULT_AT + 8 == ARGS_AT && ARGS_AT + 48 == INSN_SIZE);
