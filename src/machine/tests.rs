//! Tests of the machine's parts: the model row by row, the linking of segments, the head of the image. No kernel call is made.

use std::array;
use std::collections::BTreeMap;

use super::image;
use super::isa::Condition;
use super::isa::INSN_SIZE;
use super::isa::Insn;
use super::isa::Kind;
use super::isa::Opcode;
use super::isa::RETRY;
use super::layout::BRIEF_BASE;
use super::layout::IMAGE_BASE;
use super::model::End;
use super::model::Model;
use super::model::World;
use super::segment::Address;
use super::segment::Arg;
use super::segment::Bases;
use super::segment::Place;
use super::segment::Row;
use super::segment::Segment;

const TABLE: u64 = 0x1000;
const STEP: i32 = 72;
const _: () = assert!(INSN_SIZE == 72);

/// A table at [`TABLE`], some words, and results for the calls in turn.
#[derive(Default)]
struct Small {
    table: Vec<Insn>,
    words: BTreeMap<u64, u64>,
    results: Vec<Option<i64>>,
    calls: Vec<(u32, [u64; 6])>,
}

impl World for Small {
    fn call(&mut self, _pc: u64, nr: u32, args: [u64; 6]) -> Option<i64> {
        self.calls.push((nr, args));
        if self.results.is_empty() { Some(0) } else { self.results.remove(0) }
    }

    fn fetch(&mut self, pc: u64) -> Option<Insn> {
        let at = usize::try_from(pc.checked_sub(TABLE)?).ok()?;
        self.table.get(at / INSN_SIZE).filter(|_| at % INSN_SIZE == 0).copied()
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        self.words.get(&address).copied()
    }

    fn half(&mut self, address: u64) -> Option<u32> {
        self.words.get(&address).map(|word| u32::try_from(word & 0xffff_ffff).unwrap_or(0))
    }

    fn store(&mut self, address: u64, value: u64) -> Option<()> {
        self.words.get_mut(&address).map(|word| *word = value)
    }
}

fn insn(opcode: Opcode, nr: u32, list: &[u64]) -> Insn {
    let mut args = [0; 6];
    args[..list.len()].copy_from_slice(list);
    Insn { opcode: opcode as u8, flags: 0, kinds: 0, nr, jump: 0, fine: [0; 4], result: 0, args }
}

fn returns(value: u64) -> Insn {
    insn(Opcode::Return, 0, &[value])
}

fn small(table: &[Insn]) -> Small {
    Small { table: table.to_vec(), ..Small::default() }
}

fn run(world: &mut Small) -> End {
    Model::new(world, TABLE, 0).run(1_000)
}

/// `condition` of these three: whether the jump is taken.
fn taken(condition: Condition, list: [u64; 3]) -> bool {
    let branch = Insn { jump: 2 * STEP, ..insn(Opcode::Branch, condition as u32, &list) };
    let end = run(&mut small(&[branch, returns(0), returns(1)]));
    assert!(matches!(end, End::Returned(0 | 1)), "{end:?}");
    end == End::Returned(1)
}

#[test]
fn return_hands_over_its_argument() {
    assert_eq!(run(&mut small(&[returns(7)])), End::Returned(7));
}

#[test]
fn fail_and_an_unknown_opcode_give_up() {
    assert_eq!(run(&mut small(&[insn(Opcode::Fail, 0, &[])])), End::GaveUp);
    let unknown = Insn { opcode: 200, ..returns(7) };
    assert_eq!(run(&mut small(&[unknown])), End::GaveUp);
}

#[test]
fn set_adds_and_wraps() {
    for (a, b, sum) in [(2, 3, 5), (u64::MAX, 1, 0), (1, u64::MAX, 0)] {
        let set = Insn { result: 8, ..insn(Opcode::Set, 0, &[a, b]) };
        let mut world = small(&[set, returns(1)]);
        world.words.insert(8, 99);
        assert_eq!(run(&mut world), End::Returned(1));
        assert_eq!(world.words[&8], sum);
    }
}

#[test]
fn jump_goes_to_an_address() {
    let jump = insn(Opcode::Jump, 0, &[TABLE + 2 * INSN_SIZE as u64]);
    assert_eq!(run(&mut small(&[jump, returns(1), returns(2)])), End::Returned(2));
}

#[test]
fn progress_moves_the_record() {
    let mut world = small(&[insn(Opcode::Progress, 0, &[0x77]), insn(Opcode::Fail, 0, &[])]);
    let mut model = Model::new(&mut world, TABLE, 0x11);
    assert_eq!(model.run(10), End::GaveUp);
    assert_eq!(model.progress.at, 0x77);
    assert_eq!(model.progress.pc, TABLE + INSN_SIZE as u64);
}

#[test]
fn each_condition_holds_when_it_should() {
    assert!(
        taken(Condition::MaskEqual, [0xab, 0x0f, 0x0b]) && !taken(Condition::MaskEqual, [0xab, 0x0f, 0xab])
    );
    assert!(
        taken(Condition::MaskDiffers, [1, u64::MAX, 2]) && !taken(Condition::MaskDiffers, [2, u64::MAX, 2])
    );
    let minus = |value: i64| value.cast_unsigned();
    assert!(taken(Condition::Less, [minus(-1), 0, 0]) && !taken(Condition::Less, [0, minus(-1), 0]));
    assert!(taken(Condition::Less, [1, 2, 0]) && !taken(Condition::Less, [2, 2, 0]));
    assert!(taken(Condition::MaskEqual, [0, 0, 0]), "a goto");
}

#[test]
fn arguments_are_constants_words_or_signed_halves() {
    let kinds = |kind: Kind, place: u16| u16::from(kind as u8) << (2 * place);
    let call = Insn {
        kinds: kinds(Kind::Const, 0) | kinds(Kind::Word, 1) | kinds(Kind::Half, 2) | kinds(Kind::Half, 5),
        ..insn(Opcode::Call, 39, &[8, 8, 8, 4, 5, 16])
    };
    let mut world = small(&[call, returns(0)]);
    world.words.extend([(8, 0x1_ffff_fffe), (16, 0x7fff_ffff)]);
    assert_eq!(run(&mut world), End::Returned(0));
    let minus_two = (-2_i64).cast_unsigned();
    assert_eq!(world.calls, [(39, [8, 0x1_ffff_fffe, minus_two, 4, 5, 0x7fff_ffff])]);
}

#[test]
fn memory_that_is_not_there_is_a_fault() {
    let read = Insn { kinds: Kind::Word as u16, ..insn(Opcode::Return, 0, &[0x40]) };
    assert_eq!(run(&mut small(&[read])), End::Fault(0x40));
    let write = Insn { result: 0x48, ..insn(Opcode::Set, 0, &[]) };
    assert_eq!(run(&mut small(&[write])), End::Fault(0x48));
    assert_eq!(run(&mut small(&[])), End::Fault(TABLE));
}

/// One call that answers `result`: how the run ends (1: went on, 2: jumped), and the record.
fn one_call(call: Insn, result: i64) -> (End, u64, u32) {
    let mut world = small(&[call, returns(1), returns(2)]);
    world.results = vec![Some(result)];
    let mut model = Model::new(&mut world, TABLE, 0);
    let end = model.run(10);
    (end, model.progress.failed, model.progress.errno)
}

#[test]
fn a_failed_call_ends_jumps_or_is_fine() {
    let plain = insn(Opcode::Call, 1, &[]);
    let jumping = Insn { jump: 2 * STEP, ..plain };
    let fine = Insn { fine: [17, 0, 2, 9], ..plain };
    assert_eq!(one_call(plain, 5), (End::Returned(1), 0, 0));
    assert_eq!(one_call(plain, -1), (End::GaveUp, TABLE, 1));
    assert_eq!(one_call(jumping, -13), (End::Returned(2), TABLE, 13));
    for errno in [17, 2, 9] {
        assert_eq!(one_call(fine, -errno), (End::Returned(1), 0, 0), "nothing is recorded");
    }
    assert_eq!(one_call(fine, -16), (End::GaveUp, TABLE, 16));
    // 273 is 17 in the lowest eight bits.
    assert_eq!(one_call(fine, -273), (End::GaveUp, TABLE, 273));
}

#[test]
fn only_the_errno_range_is_a_failure() {
    let plain = insn(Opcode::Call, 1, &[]);
    assert_eq!(one_call(plain, -4095), (End::GaveUp, TABLE, 4095));
    assert_eq!(one_call(plain, -4096), (End::Returned(1), 0, 0));
    assert_eq!(one_call(plain, i64::MIN), (End::Returned(1), 0, 0));
}

#[test]
fn the_raw_result_is_stored_before_anything_follows_from_it() {
    for result in [3, -2, -4096] {
        let call = Insn { result: 8, jump: STEP, ..insn(Opcode::Call, 1, &[]) };
        let mut world = small(&[call, returns(1)]);
        world.words.insert(8, 0);
        world.results = vec![Some(result)];
        assert_eq!(run(&mut world), End::Returned(1));
        assert_eq!(world.words[&8].cast_signed(), result);
    }
}

#[test]
fn an_interrupted_call_is_made_again_where_the_row_says_so() {
    let again = Insn { flags: RETRY, ..insn(Opcode::Call, 1, &[5]) };
    let mut world = small(&[again, returns(1)]);
    world.results = vec![Some(-4), Some(-4), Some(0)];
    assert_eq!(run(&mut world), End::Returned(1));
    assert_eq!(world.calls, [(1, [5, 0, 0, 0, 0, 0]); 3]);
    let mut world = small(&[insn(Opcode::Call, 1, &[]), returns(1)]);
    world.results = vec![Some(-4)];
    assert_eq!(run(&mut world), End::GaveUp);
    assert_eq!(world.calls.len(), 1);
}

#[test]
fn a_call_that_does_not_come_back_stops_the_model() {
    let mut world = small(&[insn(Opcode::Call, 59, &[]), returns(1)]);
    world.results = vec![None];
    assert_eq!(run(&mut world), End::Stopped);
    let endless = Insn { jump: 0, ..insn(Opcode::Branch, Condition::MaskEqual as u32, &[]) };
    assert_eq!(run(&mut small(&[endless])), End::Stopped, "a bound on the steps");
}

#[test]
fn an_instruction_survives_its_bytes() {
    let insn = Insn {
        opcode: 1,
        flags: 1,
        kinds: 0x0924,
        nr: 0xdead_beef,
        jump: -72,
        fine: [1, 2, 3, 4],
        result: 0x1122_3344_5566_7788,
        args: [1, u64::MAX, 3, 4, 5, 6],
    };
    let bytes = insn.to_bytes();
    assert_eq!(Insn::from_bytes(&bytes), Some(insn));
    assert_eq!(Insn::from_bytes(&bytes[..71]), None);
    assert_eq!(bytes[8..12], (-72_i32).to_le_bytes());
    assert_eq!(bytes[16..24], insn.result.to_le_bytes());
}

fn address(place: Place, offset: u32) -> Address {
    Address { place, offset }
}

const BASES: Bases = Bases { image: 0x10_0000, brief: 0x20_0000, tail: 0x30_0000, window: 0x40_0000 };

fn linked(segment: &Segment) -> Vec<u8> {
    let mut out = vec![0xee; 3];
    segment.link(&BASES, &mut out);
    assert_eq!(out.len(), 3 + segment.len());
    out.split_off(3)
}

#[test]
fn linking_puts_addresses_into_data() {
    let pointers = vec![(8, address(Place::Brief, 5)), (16, address(Place::Image, 0))];
    let segment = Segment { data: vec![7; 27], pointers, rows: Vec::new() };
    let bytes = linked(&segment);
    assert_eq!(bytes.len(), 32, "padded");
    assert_eq!((&bytes[..8], &bytes[24..]), (&[7; 8][..], &[7, 7, 7, 0, 0, 0, 0, 0][..]));
    assert_eq!(bytes[8..16], 0x20_0005_u64.to_le_bytes());
    assert_eq!(bytes[16..24], 0x10_0000_u64.to_le_bytes());
}

#[test]
fn linking_turns_rows_into_instructions() {
    let list = [
        Arg::Value(9),
        Arg::Pointer(address(Place::Tail, 1)),
        Arg::Word(address(Place::Window, 2)),
        Arg::Half(address(Place::Image, 3)),
    ];
    let mut row = Row::new(Opcode::Call, 77, &list);
    (row.flags, row.fine, row.result) = (RETRY, [1, 0, 0, 0], Some(address(Place::Brief, 4)));
    let mut back = Row::new(Opcode::Branch, Condition::Less as u32, &[]);
    back.jump = Some(0);
    let mut forth = row;
    forth.jump = Some(3);
    let segment = Segment { data: vec![0; 4], pointers: Vec::new(), rows: vec![row, forth, back, row] };
    let bytes = linked(&segment);
    let at = |index: usize| Insn::from_bytes(&bytes[8 + index * INSN_SIZE..]).expect("whole instructions");
    let first = at(0);
    assert_eq!(first.args, [9, 0x30_0001, 0x40_0002, 0x10_0003, 0, 0]);
    assert_eq!(first.kinds, (Kind::Word as u16) << 4 | (Kind::Half as u16) << 6);
    assert_eq!((first.nr, first.flags, first.fine, first.result), (77, RETRY, [1, 0, 0, 0], 0x20_0004));
    assert_eq!((first.jump, at(1).jump, at(2).jump), (0, 2 * STEP, -2 * STEP));
    assert_eq!(at(3), first);
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("long enough")
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

#[test]
fn the_image_is_a_static_elf_with_two_loads_and_no_executable_stack() {
    let text: Vec<u8> = (0..700_u32).map(|n| u8::try_from(n % 251).unwrap_or(0)).collect();
    let segment =
        Segment { data: vec![5; 100], pointers: Vec::new(), rows: vec![Row::new(Opcode::Fail, 0, &[])] };
    for (machine, page) in [(62, 4096), (183, 65_536), (243, 65_536)] {
        let bytes = image::build(machine, &text, &segment);
        assert_eq!(bytes[..8], [0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
        assert_eq!(
            (u16::from_le_bytes(field(&bytes, 16)), u16::from_le_bytes(field(&bytes, 18))),
            (2, machine)
        );
        let (entry, headers) = (word(&bytes, 24), word(&bytes, 32));
        assert_eq!(
            (headers, u16::from_le_bytes(field(&bytes, 54)), u16::from_le_bytes(field(&bytes, 56))),
            (64, 56, 3)
        );
        let header = |index: usize| {
            let at = 64 + 56 * index;
            let words: [u64; 6] = array::from_fn(|field| word(&bytes, at + 8 + 8 * field));
            (half(&bytes, at), half(&bytes, at + 4), words)
        };
        let (kind, flags, [offset, address, _, size, memory, align]) = header(0);
        assert_eq!((kind, flags, offset, address, align), (1, 5, 0, IMAGE_BASE, page), "text, not writable");
        assert_eq!(size, memory);
        let text_at = usize::try_from(entry - IMAGE_BASE).expect("small");
        assert_eq!(&bytes[text_at..text_at + text.len()], &text[..], "the entry is the text's first byte");
        assert!(entry + text.len() as u64 <= IMAGE_BASE + size);
        let (kind, flags, [offset, data, _, size, memory, align]) = header(1);
        assert_eq!((kind, flags, align), (1, 6, page), "the segment, not executable");
        assert_eq!((data % page, offset % page, data - IMAGE_BASE), (0, 0, offset));
        assert_eq!((size, memory), (segment.len() as u64, segment.len() as u64));
        assert!(data >= (IMAGE_BASE + header(0).2[3]).next_multiple_of(page) && data + size < BRIEF_BASE);
        assert_eq!(bytes.len() as u64, offset + size);
        let (kind, flags, _) = header(2);
        assert_eq!((kind, flags), (0x6474_e551, 6), "PT_GNU_STACK, readable and writable only");
        assert_eq!(word(&bytes, text_at - 16), data + segment.rows_at() as u64, "the table");
        assert_eq!(word(&bytes, text_at - 8), data, "the early progress record");
        assert_eq!(image::bases(machine, &text, 0x40).tail, BRIEF_BASE + 0x40);
    }
}
