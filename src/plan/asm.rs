//! The assembler: turns calls with readable operands into rows and data. It must not know the order of the steps.

use std::collections::BTreeMap;

use super::text::{Listing, Text};
use crate::error::{Object, Step, errno_text};
use crate::machine::isa::{Condition, Opcode, RETRY};
use crate::machine::layout::PROGRESS;
use crate::machine::segment::{Address, Arg, Place, Row, Segment};
use crate::policy::Need;

/// A value for a call, with the text that the dry run shows for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Operand {
    pub(crate) arg: Arg,
    pub(crate) text: Text,
}

/// A number.
pub(crate) fn num(value: i64) -> Operand {
    Operand { arg: Arg::Value(value.cast_unsigned()), text: Text::Number(value) }
}

/// A number with a symbolic text.
pub(crate) fn sym(value: u64, text: impl Into<Text>) -> Operand {
    Operand { arg: Arg::Value(value), text: text.into() }
}

/// A null pointer.
pub(crate) fn null() -> Operand {
    sym(0, "NULL")
}

/// The directory of the process.
pub(crate) fn cwd() -> Operand {
    sym(i64::from(libc::AT_FDCWD).cast_unsigned(), "AT_FDCWD")
}

/// A descriptor with a fixed number.
pub(crate) fn fd(number: i32, name: &'static str) -> Operand {
    sym(i64::from(number).cast_unsigned(), Text::Descriptor(number, name))
}

/// The call number of `libc::SYS_*`.
pub(crate) fn nr(number: libc::c_long) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A named word of memory that calls write and later rows read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) address: Address,
    pub(crate) name: &'static str,
}

impl Cell {
    /// A word of the brief.
    pub(crate) const fn brief(offset: u32, name: &'static str) -> Self {
        Self { address: Address { place: Place::Brief, offset }, name }
    }

    /// Its 64-bit value.
    pub(crate) fn word(self) -> Operand {
        Operand { arg: Arg::Word(self.address), text: Text::Name('$', self.name) }
    }

    /// Its 32-bit value, `bytes` further on.
    pub(crate) fn half(self, bytes: u32) -> Operand {
        Operand { arg: Arg::Half(self.address.plus(bytes)), text: Text::Name('$', self.name) }
    }

    /// The word `bytes` further on.
    pub(crate) fn word_at(self, bytes: u32) -> Operand {
        Operand { arg: Arg::Word(self.address.plus(bytes)), text: Text::Offset(self.name, bytes) }
    }

    /// Its address.
    pub(crate) fn pointer(self) -> Operand {
        Operand { arg: Arg::Pointer(self.address), text: Text::Name('&', self.name) }
    }
}

/// A place in the table that is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// One row with what the caller and the dry run need to know about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Op {
    pub(crate) step: Step,
    pub(crate) object: usize,
    pub(crate) need: Need,
    pub(crate) name: &'static str,
    pub(crate) text: String,
    pub(crate) row: Row,
}

/// A kernel call about to be added.
#[derive(Debug)]
pub(crate) struct Call {
    nr: u32,
    name: &'static str,
    args: Vec<Operand>,
    fine: Vec<i32>,
    result: Option<Cell>,
    otherwise: Option<Label>,
}

impl Call {
    pub(crate) fn new(number: libc::c_long, name: &'static str) -> Self {
        Self { nr: nr(number), name, args: Vec::new(), fine: Vec::new(), result: None, otherwise: None }
    }

    pub(crate) fn arg(mut self, operand: Operand) -> Self {
        self.args.push(operand);
        self
    }

    /// Errnos after which the table goes on as after success; at most four.
    pub(crate) fn fine(mut self, errnos: &[i32]) -> Self {
        self.fine.extend_from_slice(errnos);
        self
    }

    pub(crate) fn into(mut self, cell: Cell) -> Self {
        self.result = Some(cell);
        self
    }

    fn text(&self) -> String {
        let list: Vec<String> = self.args.iter().map(|operand| operand.text.to_string()).collect();
        let mut text = format!("({})", list.join(", "));
        if let Some(cell) = self.result {
            text.push_str(&format!(" -> ${}", cell.name));
        }
        if !self.fine.is_empty() {
            let names: Vec<String> = self
                .fine
                .iter()
                .map(|errno| errno_text(*errno).split(' ').next().unwrap_or_default().to_owned())
                .collect();
            text.push_str(&format!(" [fine: {}]", names.join(" ")));
        }
        text
    }

    /// Where to go on failure, instead of ending.
    pub(crate) fn otherwise(mut self, label: Label) -> Self {
        self.otherwise = Some(label);
        self
    }
}

/// What the assembler made.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Code {
    pub(crate) segment: Segment,
    pub(crate) ops: Vec<Op>,
    pub(crate) objects: Vec<Object>,
}

impl Code {
    /// No row.
    pub(crate) fn empty() -> Self {
        Self { segment: Segment::default(), ops: Vec::new(), objects: Vec::new() }
    }
}

/// Collects rows and data of one segment.
#[derive(Debug)]
pub(crate) struct Assembler {
    place: Place,
    data: Vec<u8>,
    pointers: Vec<(u32, Address)>,
    ops: Vec<Op>,
    objects: Vec<Object>,
    strings: BTreeMap<Vec<u8>, u32>,
    labels: Vec<Option<usize>>,
    fixups: Vec<(usize, Label)>,
    step: Step,
    need: Need,
    escape: Option<Label>,
    listing: Listing,
}

impl Assembler {
    pub(crate) fn new(place: Place, reserved: usize) -> Self {
        Self {
            place,
            data: vec![0; reserved],
            pointers: Vec::new(),
            ops: Vec::new(),
            objects: vec![Object::None],
            strings: BTreeMap::new(),
            labels: Vec::new(),
            fixups: Vec::new(),
            step: Step::Start,
            need: Need::Required,
            escape: None,
            listing: Listing::Kept,
        }
    }

    pub(crate) fn with_listing(self, listing: Listing) -> Self {
        Self { listing, ..self }
    }

    fn said<T: From<String>>(&self, text: impl FnOnce() -> String) -> T {
        match self.listing {
            Listing::Kept => text().into(),
            Listing::Omitted => String::new().into(),
        }
    }

    /// What the following rows belong to.
    pub(crate) fn step(&mut self, step: Step, object: impl Into<Object>) {
        self.step = step;
        self.objects.push(object.into());
    }

    /// The next row's number.
    pub(crate) fn here(&self) -> usize {
        self.ops.len()
    }

    fn at(&self, offset: usize) -> Address {
        Address { place: self.place, offset: u32::try_from(offset).unwrap_or(u32::MAX) }
    }

    fn put(&mut self, bytes: &[u8]) -> u32 {
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let at = self.data.len();
        self.data.extend_from_slice(bytes);
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// A C string; equal strings share their place.
    pub(crate) fn string(&mut self, bytes: &[u8]) -> Operand {
        let at = match self.strings.get(bytes) {
            Some(at) => *at,
            None => {
                let mut owned = bytes.to_vec();
                owned.push(0);
                let at = self.put(&owned);
                self.strings.insert(bytes.to_vec(), at);
                at
            }
        };
        let address = Address { place: self.place, offset: at };
        Operand {
            arg: Arg::Pointer(address),
            text: self.said(|| format!("{:?}", String::from_utf8_lossy(bytes))),
        }
    }

    /// Constant bytes with a text.
    pub(crate) fn bytes(&mut self, bytes: &[u8], text: impl Into<Text>) -> Operand {
        let offset = self.put(bytes);
        Operand { arg: Arg::Pointer(Address { place: self.place, offset }), text: text.into() }
    }

    /// Constant 64-bit words with a text.
    pub(crate) fn words(&mut self, words: &[u64], text: impl Into<Text>) -> Operand {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.bytes(&bytes, text)
    }

    /// Constant 64-bit words, some of them addresses.
    pub(crate) fn table(&mut self, words: &[Arg], text: impl Into<Text>) -> Operand {
        let values: Vec<u64> =
            words.iter().map(|word| if let Arg::Value(value) = word { *value } else { 0 }).collect();
        let table = self.words(&values, text);
        if let Arg::Pointer(start) = table.arg {
            for (index, word) in (0..).zip(words) {
                if let Arg::Pointer(address) = word {
                    self.pointers.push((start.offset + 8 * index, *address));
                }
            }
        }
        table
    }

    /// Zeroed memory of the child.
    pub(crate) fn cell_of(&mut self, name: &'static str, bytes: usize) -> Cell {
        let offset = self.put(&vec![0; bytes]);
        Cell { address: Address { place: self.place, offset }, name }
    }

    /// One zeroed word.
    pub(crate) fn cell(&mut self, name: &'static str) -> Cell {
        self.cell_of(name, 8)
    }

    /// Memory of the child that starts with these words.
    pub(crate) fn cell_with(&mut self, name: &'static str, words: &[u64]) -> Cell {
        let operand = self.words(words, name);
        let address = if let Arg::Pointer(address) = operand.arg { address } else { self.at(0) };
        Cell { address, name }
    }

    fn push(&mut self, name: &'static str, text: String, row: Row, target: Option<Label>) {
        if let Some(label) = target {
            self.fixups.push((self.ops.len(), label));
        }
        let object = self.objects.len() - 1;
        self.ops.push(Op { step: self.step, object, need: self.need, name, text, row });
    }

    /// Adds a call. Where it may fail without an `otherwise`, the process ends, or the preferred item that it belongs to.
    #[expect(clippy::needless_pass_by_value, reason = "a call is built to be added, once")]
    pub(crate) fn call(&mut self, call: Call) {
        let args: Vec<Arg> = call.args.iter().map(|operand| operand.arg).collect();
        let text = self.said(|| call.text());
        let mut row = Row::new(Opcode::Call, call.nr, &args);
        // close(2) has let go of the number when it answers EINTR.
        row.flags = if call.fine.contains(&libc::EINTR) { 0 } else { RETRY };
        row.result = call.result.map(|cell| cell.address);
        for (slot, errno) in row.fine.iter_mut().zip(&call.fine) {
            *slot = u8::try_from(*errno).unwrap_or(0);
        }
        self.push(call.name, text, row, call.otherwise.or(self.escape));
    }

    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label stands before the next row.
    pub(crate) fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.ops.len());
    }

    fn branch(&mut self, condition: Condition, operands: [Operand; 3], text: String, label: Label) {
        let args = operands.map(|operand| operand.arg);
        let row = Row::new(Opcode::Branch, condition as u32, &args);
        self.push("if", text, row, Some(label));
    }

    /// Goes to `label` if `value & mask == wanted`.
    pub(crate) fn if_equal(&mut self, value: &Operand, mask: u64, wanted: Operand, label: Label) {
        let text = self.said(|| format!(" {}{} == {}", value.text, mask_text(mask), wanted.text));
        self.branch(Condition::MaskEqual, [value.clone(), sym(mask, ""), wanted], text, label);
    }

    /// Goes to `label` if `value & mask != wanted`.
    pub(crate) fn if_differs(&mut self, value: &Operand, mask: u64, wanted: Operand, label: Label) {
        let text = self.said(|| format!(" {}{} != {}", value.text, mask_text(mask), wanted.text));
        self.branch(Condition::MaskDiffers, [value.clone(), sym(mask, ""), wanted], text, label);
    }

    /// Goes to `label` if `value < bound`, signed.
    pub(crate) fn if_less(&mut self, value: &Operand, bound: Operand, label: Label) {
        let text = self.said(|| format!(" {} < {}", value.text, bound.text));
        self.branch(Condition::Less, [value.clone(), bound, num(0)], text, label);
    }

    pub(crate) fn goto(&mut self, label: Label) {
        let row = Row::new(Opcode::Branch, Condition::MaskEqual as u32, &[]);
        self.push("goto", String::new(), row, Some(label));
    }

    /// Goes to the address in `target`.
    pub(crate) fn jump_to(&mut self, target: &Operand) {
        let text = self.said(|| format!(" {}", target.text));
        self.push("jump", text, Row::new(Opcode::Jump, 0, &[target.arg]), None);
    }

    /// `cell = a + b`.
    pub(crate) fn set(&mut self, cell: Cell, a: &Operand, b: &Operand) {
        let text = self.said(|| format!(" ${} = {} + {}", cell.name, a.text, b.text));
        let mut row = Row::new(Opcode::Set, 0, &[a.arg, b.arg]);
        row.result = Some(cell.address);
        self.push("set", text, row, None);
    }

    pub(crate) fn progress(&mut self, cell: Cell) {
        let operand = cell.pointer();
        let text = self.said(|| format!(" {}", operand.text));
        self.push("progress", text, Row::new(Opcode::Progress, 0, &[operand.arg]), None);
    }

    /// Back to whoever called the machine as a function.
    pub(crate) fn give_back(&mut self, value: &Operand) {
        let text = self.said(|| format!(" {}", value.text));
        self.push("return", text, Row::new(Opcode::Return, 0, &[value.arg]), None);
    }

    /// Ends the process as a failure of this step.
    pub(crate) fn fail(&mut self, why: &'static str) {
        self.push("fail", format!(" {why:?}"), Row::new(Opcode::Fail, 0, &[]), None);
    }

    /// Ends the process as a failure of this step unless `value & mask == wanted`.
    pub(crate) fn assert_equal(&mut self, value: &Operand, mask: u64, wanted: Operand, why: &'static str) {
        let fine = self.label();
        self.if_equal(value, mask, wanted, fine);
        match self.escape {
            Some(escape) => self.goto(escape),
            None => self.fail(why),
        }
        self.bind(fine);
    }

    /// From here on a failure leaves the item instead of ending the process.
    pub(crate) fn enter_preferred(&mut self) -> (Label, Label) {
        let (failed, done) = (self.label(), self.label());
        (self.need, self.escape) = (Need::Preferred, Some(failed));
        (failed, done)
    }

    /// What follows may not fail, even inside a preferred item: half of it is worse than none.
    pub(crate) fn enter_required(&mut self) -> Option<Label> {
        self.need = Need::Required;
        self.escape.take()
    }

    /// The preferred item goes on, if there was one.
    pub(crate) fn leave_required(&mut self, escape: Option<Label>) {
        self.escape = escape;
        self.need = if escape.is_some() { Need::Preferred } else { Need::Required };
    }

    /// The end of the item: what failed in it is left in `outcome`.
    pub(crate) fn leave_preferred(&mut self, failed: Label, done: Label, outcome: Cell) {
        (self.need, self.escape) = (Need::Required, None);
        self.goto(done);
        self.bind(failed);
        let record = Cell::brief(PROGRESS, "record");
        self.set(outcome, &record.half(16), &num(0));
        self.set(Cell { address: outcome.address.plus(8), name: "failed" }, &record.word_at(8), &num(0));
        self.set(Cell { address: outcome.address.plus(16), name: "missing" }, &num(1), &num(0));
        self.bind(done);
    }

    pub(crate) fn finish(mut self) -> Code {
        for (index, label) in &self.fixups {
            let target = self.labels[label.0].unwrap_or(0);
            self.ops[*index].row.jump = Some(target);
            if self.listing == Listing::Kept {
                self.ops[*index].text.push_str(&format!(" -> {target}"));
            }
        }
        let rows = self.ops.iter().map(|op| op.row).collect();
        let segment = Segment { data: self.data, pointers: self.pointers, rows };
        Code { segment, ops: self.ops, objects: self.objects }
    }
}

fn mask_text(mask: u64) -> String {
    if mask == u64::MAX { String::new() } else { format!(" & {mask:#x}") }
}
