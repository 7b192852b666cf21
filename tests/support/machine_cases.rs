//! Tables that try one thing each, with what must come of it written down by hand, whatever the model says.

use std::process::Output;

use ringfence::internals::{Condition, INSN_SIZE, Insn, Kind, Opcode};

use super::oracle::{ANONYMOUS, NO_CALL, NO_FILE, PRIVATE_FIXED, predict};
use super::{Arch, Arg, Bench, DATA, EARLY, GAVE_UP, HANDLER_AT, IMAGE, MEM_FD, PAGE, PAGE_SIZE, Program};
use super::{RECORDS, RETRY, call, insn, negative, rows, set};

const FAILED: u64 = EARLY + 8;
const ERRNO: u64 = EARLY + 16;
/// In the upper half of a word whose lower half is meant.
const BESIDE: u64 = 0x7777_7777 << 32;
const NOTHING: Arg = Arg::Const(0);

/// A row that may go on or jump, and the cells that tell which it did.
struct Checks {
    program: Program,
    /// What each cell must hold in the end.
    expected: Vec<(String, u64, u64)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    On,
    Jumped,
}

impl Checks {
    fn new(arch: &'static Arch) -> Self {
        Self { program: Program::prepared(arch), expected: Vec::new() }
    }

    /// A new cell that must hold `value` in the end.
    fn cell(&mut self, name: &str, value: u64) -> u64 {
        let cell = self.program.words(&[0x5555_5555_5555_5555]);
        self.expected.push((name.to_owned(), cell, value));
        cell
    }

    /// The value in a new word or half of memory, or as a constant.
    fn arg(&mut self, kind: Kind, value: u64) -> Arg {
        match kind {
            Kind::Const => Arg::Const(value),
            Kind::Word => Arg::Word(self.program.words(&[value])),
            Kind::Half => Arg::Half(self.program.words(&[value & 0xffff_ffff | BESIDE])),
        }
    }

    /// Adds the row, which jumps past the two rows behind it.
    fn way(&mut self, name: &str, row: Insn, way: Way) {
        let cell = self.cell(name, if way == Way::On { 1 } else { 2 });
        self.program.push(Insn { jump: rows(3), ..row });
        self.program.push(set(cell, Arg::Const(1), NOTHING));
        self.program.push(insn(Opcode::Jump, &[Arg::Const(self.program.here() + 2 * INSN_SIZE as u64)]));
        self.program.push(set(cell, Arg::Const(2), NOTHING));
    }

    /// Adds a call: its result, whether it jumped, and the recorded errno and row.
    fn result(&mut self, name: &str, row: Insn, result: i64, way: Way) {
        for (place, value) in [(FAILED, 0), (ERRNO, BESIDE)] {
            self.program.push(set(place, Arg::Const(value), NOTHING));
        }
        let (at, stored) = (self.program.here(), self.cell(name, negative(result)));
        self.way(name, Insn { result: stored, ..row }, way);
        let failed = if way == Way::On { [0, BESIDE] } else { [at, BESIDE | negative(-result)] };
        for (place, value) in [FAILED, ERRNO].into_iter().zip(failed) {
            let cell = self.cell(name, value);
            self.program.push(set(cell, Arg::Word(place), NOTHING));
        }
    }

    /// Runs the table; the cells, and then all memory as the model has it.
    fn run(self, bench: &Bench, name: &str) {
        let program = self.program.finish(7);
        let output = bench.run(name, &program);
        assert_eq!(output.status.code(), Some(7), "{name}: {output:?}");
        for (cell, address, value) in self.expected {
            let at = usize::try_from(address - DATA).unwrap();
            let is = u64::from_le_bytes(output.stdout[at..at + 8].try_into().unwrap());
            assert_eq!(is, value, "{name}, {}: {cell}: {is:#x} is not {value:#x}", bench.arch.name);
        }
        let verdict = predict(&program).unwrap();
        assert!(output.stdout == verdict.stdout, "{name}, {}: the model differs", bench.arch.name);
    }
}

/// All of them.
pub(crate) fn try_all(bench: &Bench) {
    hello(bench);
    kinds(bench);
    six_arguments(bench);
    conditions(bench);
    calls(bench);
    interrupted(bench);
    wandering(bench);
    progress(bench);
    giving_up(bench);
    record_of_giving_up(bench);
    entry(bench);
    signals(bench);
}

fn ran(output: &Output, stdout: &[u8], status: i32) {
    assert_eq!(output.stdout, stdout, "{output:?}");
    assert_eq!(output.status.code(), Some(status), "{output:?}");
}

fn hello(bench: &Bench) {
    let mut program = Program::new(bench.arch);
    let hello = program.literal(b"hello");
    program.push(call(bench.arch.calls.write, &[1, hello, 5]));
    program.push(call(bench.arch.calls.exit_group, &[7]));
    ran(&bench.run("hello", &program), b"hello", 7);
}

/// `Set` adds any two kinds; a half is signed, and what lies beside it does not count.
fn kinds(bench: &Bench) {
    let mut checks = Checks::new(bench.arch);
    let values = [5, 0, negative(-1), negative(-0x8000_0000), 0x7fff_ffff];
    for first in [Kind::Const, Kind::Word, Kind::Half] {
        for second in [Kind::Const, Kind::Word, Kind::Half] {
            for (a, b) in values.iter().flat_map(|a| values.iter().map(move |b| (*a, *b))) {
                let cell = checks.cell(&format!("{first:?} {a:#x} + {second:?} {b:#x}"), a.wrapping_add(b));
                let (a, b) = (checks.arg(first, a), checks.arg(second, b));
                checks.program.push(set(cell, a, b));
            }
        }
    }
    let big = checks.program.words(&[u64::MAX - 2]);
    let sum = checks.cell("words wrap", 0x1234_5678_9abc_def0);
    checks.program.push(set(sum, Arg::Word(big), Arg::Const(0x1234_5678_9abc_def3)));
    checks.run(bench, "kinds");
}

/// Each of the six arguments of a call in each kind, told apart by the result.
fn six_arguments(bench: &Bench) {
    let mut checks = Checks::new(bench.arch);
    let mmap = bench.arch.calls.mmap;
    let mapped = PAGE.cast_signed();
    let (anonymous, minus_one) = (PRIVATE_FIXED | ANONYMOUS, negative(-1));
    let other = PAGE + PAGE_SIZE;
    let lines = [
        ([PAGE, PAGE_SIZE, 3, anonymous, minus_one, 0], mapped),
        ([other, PAGE_SIZE, 3, anonymous, minus_one, 0], other.cast_signed()),
        ([PAGE, 0, 3, anonymous, minus_one, 0], -22),
        ([PAGE, PAGE_SIZE, 3, PRIVATE_FIXED, minus_one, 0], -9),
        ([PAGE, PAGE_SIZE, 3, PRIVATE_FIXED, MEM_FD, 0], -19),
        ([PAGE, PAGE_SIZE, 3, anonymous, minus_one, 1], -22),
    ];
    for (values, result) in lines {
        for kind in [Kind::Const, Kind::Word, Kind::Half] {
            for index in 0..6 {
                if kind == Kind::Half && i32::try_from(values[index].cast_signed()).is_err() {
                    continue;
                }
                let mut args = values.map(Arg::Const);
                args[index] = checks.arg(kind, values[index]);
                let row = Insn { nr: mmap, ..insn(Opcode::Call, &args) };
                let way = if result < 0 { Way::Jumped } else { Way::On };
                checks.result(&format!("{kind:?} in {index} of {values:x?}"), row, result, way);
            }
        }
    }
    checks.run(bench, "six");
}

fn conditions(bench: &Bench) {
    use Condition::{Less, MaskDiffers, MaskEqual};
    let mut checks = Checks::new(bench.arch);
    let (min, max) = (i64::MIN, i64::MAX);
    let lines = [
        (Less, [1, 2, 0], Way::Jumped),
        (Less, [2, 2, 9], Way::On),
        (Less, [3, 2, 9], Way::On),
        (Less, [-1, 0, 0], Way::Jumped),
        (Less, [0, -1, 0], Way::On),
        (Less, [-5, -4, 0], Way::Jumped),
        (Less, [-4, -5, 0], Way::On),
        (Less, [min, max, 0], Way::Jumped),
        (Less, [max, min, 0], Way::On),
        (Less, [min, -1, 0], Way::Jumped),
        // The lower 32 bits alone would say the opposite.
        (Less, [0x1_0000_0000, 1, 0], Way::On),
        (Less, [1, 0x1_0000_0000, 0], Way::Jumped),
        (MaskEqual, [0b1101, 0b0110, 0b0100], Way::Jumped),
        (MaskEqual, [0b1101, 0b0110, 0b0110], Way::On),
        (MaskEqual, [-4, -1, -4], Way::Jumped),
        (MaskEqual, [-4, -1, 0xffff_fffc], Way::On),
        (MaskEqual, [-1, min, min], Way::Jumped),
        (MaskEqual, [0, 0, 0], Way::Jumped),
        (MaskEqual, [0, 0, 1], Way::On),
        (MaskDiffers, [0b1101, 0b0110, 0b0100], Way::On),
        (MaskDiffers, [0b1101, 0b0110, 0b0110], Way::Jumped),
        (MaskDiffers, [-4, -1, -4], Way::On),
        (MaskDiffers, [-4, -1, 0xffff_fffc], Way::Jumped),
        (MaskDiffers, [-1, min, 0], Way::Jumped),
        (MaskDiffers, [5, 0, 0], Way::On),
    ];
    for (condition, values, way) in lines {
        for kind in [Kind::Const, Kind::Word, Kind::Half] {
            if kind == Kind::Half && values.iter().any(|value| i32::try_from(*value).is_err()) {
                continue;
            }
            let args = values.map(|value| checks.arg(kind, negative(value)));
            let row = Insn { nr: condition as u32, ..insn(Opcode::Branch, &args) };
            checks.way(&format!("{condition:?} {values:?} {kind:?}"), row, way);
        }
    }
    checks.run(bench, "conditions");
}

/// What is a failure, what is fine, and what is recorded.
fn calls(bench: &Bench) {
    let mut checks = Checks::new(bench.arch);
    let calls = &bench.arch.calls;
    let gives = |result: i64| call(calls.lseek, &[MEM_FD, negative(result), 0]);
    let missing = call(NO_CALL, &[1, 2, 3, 4, 5, 6]);
    let closed = call(calls.close, &[negative(-1)]);
    checks.result("no such call", missing, -38, Way::Jumped);
    checks.result("bad file", closed, -9, Way::Jumped);
    checks.result("bad file, once", Insn { flags: RETRY, ..closed }, -9, Way::Jumped);
    checks.result("dup", call(calls.dup, &[1_000_000]), -9, Way::Jumped);
    checks.result("lseek", call(calls.lseek, &[NO_FILE]), -9, Way::Jumped);
    checks.result("yield", Insn { flags: RETRY, ..call(calls.sched_yield, &[]) }, 0, Way::On);
    for at in 0..4 {
        let mut fine = [1, 2, 3, 5];
        fine[at] = 9;
        checks.result("fine", Insn { fine, ..closed }, -9, Way::On);
        fine[at] = 0;
        checks.result("not fine", Insn { fine, ..closed }, -9, Way::Jumped);
    }
    for result in [-1, -3, -4, -5, -255, -256, -257, -4094, -4095] {
        checks.result("failure", gives(result), result, Way::Jumped);
    }
    for result in [0, 1, -4096, -4097, i64::MIN, i64::MAX, 0xffff_ffff, 0xffff_f001, -0x1_0000_0000] {
        checks.result("no failure", gives(result), result, Way::On);
    }
    // Errnos are compared whole: 300 is 44 in its lower byte, and 256 is no 0.
    checks.result("44", Insn { fine: [44, 0, 0, 0], ..gives(-300) }, -300, Way::Jumped);
    checks.result("256", gives(-256), -256, Way::Jumped);
    checks.result("255", Insn { fine: [0, 0, 0, 255], ..gives(-255) }, -255, Way::On);
    // Without a place for the result, and without a jump where none is needed.
    checks.way("no result", closed, Way::Jumped);
    checks.program.push(Insn { fine: [0, 0, 9, 0], ..closed });
    checks.program.push(gives(12));
    checks.run(bench, "calls");
}

/// `EINTR`, from a file position that walks over -4: a call made again has all its arguments.
fn interrupted(bench: &Bench) {
    let mut checks = Checks::new(bench.arch);
    let lseek = bench.arch.calls.lseek;
    let walk = call(lseek, &[MEM_FD, 5, 1]);
    for (name, start, flags, result, way) in [
        ("not made again", -9, 0, -4, Way::Jumped),
        ("made again", -9, RETRY, 1, Way::On),
        ("no need", -10, RETRY, -5, Way::Jumped),
        ("other flags", -9, !RETRY, -4, Way::Jumped),
        ("all flags", -9, 0xff, 1, Way::On),
        ("-4 in 32 bits", 0xffff_fff7, RETRY, 0xffff_fffc, Way::On),
    ] {
        let there = if start < 0 { Way::Jumped } else { Way::On };
        checks.result("start", call(lseek, &[MEM_FD, negative(start), 0]), start, there);
        checks.result(name, Insn { flags, ..walk }, result, way);
    }
    checks.result("start", call(lseek, &[MEM_FD, negative(-9), 0]), -9, Way::Jumped);
    checks.result("fine", Insn { fine: [0, 4, 0, 0], ..walk }, -4, Way::On);
    checks.run(bench, "interrupted");
}

/// Jumps to constants and to words, forward and backward.
fn wandering(bench: &Bench) {
    let mut checks = Checks::new(bench.arch);
    let count = checks.cell("turns", 10);
    checks.program.push(set(count, NOTHING, NOTHING));
    checks.program.push(set(count, Arg::Word(count), Arg::Const(1)));
    let less =
        Insn { nr: Condition::Less as u32, ..insn(Opcode::Branch, &[Arg::Word(count), Arg::Const(10)]) };
    checks.program.push(Insn { jump: -rows(1), ..less });

    // Over there and back, by way of a word: the row in between runs last.
    let trail = checks.cell("trail", 123);
    let here = checks.program.here();
    let row = |index: u64| here + index * INSN_SIZE as u64;
    let there = checks.program.words(&[row(4)]);
    checks.program.push(set(trail, Arg::Const(100), NOTHING));
    checks.program.push(insn(Opcode::Jump, &[Arg::Word(there)]));
    checks.program.push(set(trail, Arg::Word(trail), Arg::Const(3)));
    checks.program.push(insn(Opcode::Jump, &[Arg::Const(row(6))]));
    checks.program.push(set(trail, Arg::Word(trail), Arg::Const(20)));
    checks.program.push(insn(Opcode::Jump, &[Arg::Const(row(2))]));

    // A failed call that jumps backward: it fails only the first time.
    let turns = checks.cell("turns of a failing call", 2);
    let file = checks.program.words(&[negative(-7)]);
    checks.program.push(set(turns, NOTHING, NOTHING));
    checks.program.push(set(turns, Arg::Word(turns), Arg::Const(1)));
    checks.program.push(set(file, Arg::Word(file), Arg::Const(5)));
    let seek = [Arg::Const(MEM_FD), Arg::Word(file), Arg::Const(0)];
    let seek = Insn { nr: bench.arch.calls.lseek, ..insn(Opcode::Call, &seek) };
    checks.program.push(Insn { jump: -rows(2), ..seek });
    checks.run(bench, "wandering");
}

/// The record moves: the old one stays as it was left.
fn progress(bench: &Bench) {
    let mut checks = Checks::new(bench.arch);
    let closed = Insn { jump: rows(1), ..call(bench.arch.calls.close, &[NO_FILE]) };
    let missing = Insn { jump: rows(1), ..call(NO_CALL, &[]) };
    let first = checks.program.here();
    let row = |index: u64| first + index * INSN_SIZE as u64;
    let place = checks.program.words(&[RECORDS]);
    checks.program.push(closed);
    checks.program.push(insn(Opcode::Progress, &[Arg::Word(place)]));
    checks.program.push(missing);
    checks.program.push(insn(Opcode::Progress, &[Arg::Const(RECORDS + 0x20)]));
    checks.program.push(closed);
    let expected = [(EARLY, row(1), row(0), 9), (RECORDS, row(3), row(2), 38)];
    for (record, pc, failed, errno) in expected {
        for (name, at, value) in [("pc", 0, pc), ("failed", 8, failed), ("errno", 16, errno)] {
            checks.expected.push((format!("{name} at {record:#x}"), record + at, value));
        }
    }
    checks.expected.push(("failed at the last record".to_owned(), RECORDS + 0x28, row(4)));
    checks.run(bench, "progress");
}

/// Rows after which the machine gives up, and how it got to each.
fn endings(arch: &Arch) -> [(&'static str, Vec<Insn>, u64); 4] {
    let closed = call(arch.calls.close, &[NO_FILE]);
    let onward = Insn { jump: rows(1), ..closed };
    let (fail, unknown) = (insn(Opcode::Fail, &[]), Insn { opcode: 200, ..insn(Opcode::Fail, &[]) });
    [
        ("no jump", vec![closed], 0),
        ("no jump, fine otherwise", vec![Insn { fine: [9, 0, 0, 0], ..closed }, closed], 1),
        ("fail", vec![onward, fail], 0),
        ("unknown opcode", vec![onward, unknown], 0),
    ]
}

fn giving_up(bench: &Bench) {
    for (name, ending, _) in endings(bench.arch) {
        let mut program = Program::new(bench.arch);
        let before = program.literal(b"before");
        program.push(call(bench.arch.calls.write, &[1, before, 6]));
        ending.into_iter().for_each(|row| program.push(row));
        program.push(call(bench.arch.calls.write, &[1, before, 6]));
        let output = bench.run(&name.replace(' ', "-"), &program.finish(0));
        ran(&output, b"before", GAVE_UP);
    }
}

/// What the record says after a child gave up: seen by its parent in shared memory.
fn record_of_giving_up(bench: &Bench) {
    let calls = &bench.arch.calls;
    for (name, ending, failed) in endings(bench.arch) {
        let mut program = Program::new(bench.arch);
        let (child, status) = (program.words(&[0]), program.words(&[0]));
        let (shared_fixed, sigchld) = (0x11, 17);
        program.push(call(calls.mmap, &[PAGE, PAGE_SIZE, 3, shared_fixed | ANONYMOUS, negative(-1), 0]));
        program.push(Insn { result: child, ..call(calls.clone, &[sigchld, 0, 0, 0, 0]) });
        let parent = [Arg::Word(child), Arg::Const(negative(-1)), NOTHING];
        let differs = Condition::MaskDiffers as u32;
        let jump = rows(3 + ending.len());
        program.push(Insn { nr: differs, jump, ..insn(Opcode::Branch, &parent) });
        program.push(set(PAGE + 24, Arg::Const(u64::MAX), NOTHING));
        program.push(insn(Opcode::Progress, &[Arg::Const(PAGE)]));
        let (first, last) = (program.here(), (ending.len() - 1) as u64);
        ending.into_iter().for_each(|row| program.push(row));
        program.push(Insn { flags: RETRY, ..call(calls.wait4, &[negative(-1), status, 0, 0]) });
        program.push(call(calls.write, &[1, PAGE, 32]));
        program.push(call(calls.write, &[1, status, 4]));
        program.push(call(calls.exit_group, &[3]));
        let mut must = (first + last * INSN_SIZE as u64).to_le_bytes().to_vec();
        must.extend((first + failed * INSN_SIZE as u64).to_le_bytes());
        let wait_status = u32::try_from(GAVE_UP).unwrap() << 8;
        must.extend([9, 1].map(u32::to_le_bytes).concat());
        must.extend(u64::MAX.to_le_bytes());
        must.extend(wait_status.to_le_bytes());
        ran(&bench.run(&format!("record-{}", name.replace(' ', "-")), &program), &must, 3);
    }
}

/// The entry keeps argc, argv and envp; rows made from them while the table runs follow the pointers.
fn entry(bench: &Bench) {
    let mut program = Program::new(bench.arch);
    program.memory[24..48].fill(0x55);
    let calls = &bench.arch.calls;
    let write = |pointer: Arg, length: u64| {
        let args = [Arg::Const(1), pointer, Arg::Const(length)];
        Insn { nr: calls.write, ..insn(Opcode::Call, &args) }
    };
    // Argument 1 of the two rows that write a string.
    let (argument, variable) = (Program::row(4) + 32, Program::row(5) + 32);
    program.push(set(argument, Arg::Word(EARLY + 32), Arg::Const(8)));
    program.push(set(variable, Arg::Word(EARLY + 40), NOTHING));
    program.push(write(Arg::Const(EARLY + 24), 24));
    program.push(write(Arg::Word(DATA), 8));
    program.push(write(Arg::Word(DATA), 14));
    program.push(call(calls.exit_group, &[0]));
    let output = bench.run("entry", &program);
    let words: Vec<u64> =
        output.stdout[..24].chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words[0], 2, "argc");
    assert_eq!(words[2], words[1] + 24, "envp lies behind the two arguments and the null");
    ran(&output, &[&output.stdout[..24], b"argumentRF=environment"].concat(), 0);
}

/// A signal whose handler returns: `EINTR` from the kernel itself.
fn signals(bench: &Bench) {
    let (calls, sigalrm) = (&bench.arch.calls, 14);
    let mut program = Program::new(bench.arch);
    let handler = IMAGE + HANDLER_AT as u64;
    let back = if bench.arch.sigaction_flags == 0 { 0 } else { handler + 16 };
    let action = program.words(&[handler, bench.arch.sigaction_flags, back, 0]);
    let (once, often, never) =
        (program.words(&[0, 0, 0, 30_000]), program.words(&[0, 30_000, 0, 30_000]), program.words(&[0; 4]));
    let (short, long) = (program.words(&[0, 90_000_000]), program.words(&[20, 0]));
    let (slept, woken) = (program.words(&[99]), program.words(&[99]));
    program.push(call(calls.rt_sigaction, &[sigalrm, action, 0, 8]));
    program.push(call(calls.setitimer, &[0, once, 0]));
    program.push(Insn { flags: RETRY, result: slept, ..call(calls.nanosleep, &[short, 0]) });
    program.push(call(calls.setitimer, &[0, often, 0]));
    program.push(Insn { fine: [4, 0, 0, 0], result: woken, ..call(calls.nanosleep, &[long, 0]) });
    program.push(call(calls.setitimer, &[0, never, 0]));
    program.push(call(calls.write, &[1, slept, 16]));
    program.push(call(calls.exit_group, &[0]));
    let must = [0, negative(-4)].map(u64::to_le_bytes).concat();
    ran(&bench.run("signals", &program), &must, 0);
}
