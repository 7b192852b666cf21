//! Random tables, the same in each run: what an image writes and how it ends must be what the model says.

use ringfence::internals::{Condition, INSN_SIZE, Insn, Opcode};

use super::oracle::{ANONYMOUS, Coverage, NO_CALL, NO_FILE, PRIVATE_FIXED, Verdict, predict};
use super::{
    Arch, Arg, Bench, CELLS, DATA, EARLY, MEM_FD, PAGE, PAGE_SIZE, Program, RECORD_SIZE, RECORDS, RETRY,
};
use super::{call, insn, negative, set};

const CELLS_COUNT: u64 = 64;
const RECORDS_COUNT: u64 = 6;
/// Tables in one image, each going on where the one before ended.
const BATCH: usize = 25;

/// Numbers of given bytes, two for each; where they have run out, of xorshift64*.
struct Dice {
    bytes: Vec<u8>,
    state: u64,
}

impl Dice {
    fn next(&mut self) -> u64 {
        let word = match (self.bytes.pop(), self.bytes.pop()) {
            (Some(high), Some(low)) => u64::from(u16::from_le_bytes([low, high])),
            _ => {
                self.state ^= self.state >> 12;
                self.state ^= self.state << 25;
                self.state ^= self.state >> 27;
                self.state
            }
        };
        word.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 8) % limit
    }

    fn one_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    fn value(&mut self) -> u64 {
        let signed = match self.below(7) {
            0 => self.below(8).cast_signed(),
            1 => -1 - self.below(8).cast_signed(),
            2 => self.pick(&[-4097, -4096, -4095, -4094, -257, -256, -255, -254, 4095, 4096]),
            3 => self.pick(&[i64::MIN, i64::MAX, -0x8000_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]),
            4 => -self.below(4200).cast_signed(),
            5 => self.next().cast_signed(),
            _ => {
                let [a, b, c, d, ..] = self.next().to_le_bytes();
                i64::from(i32::from_le_bytes([a, b, c, d]))
            }
        };
        signed.cast_unsigned()
    }
}

/// Makes one table after the other and keeps those whose end is certain.
struct Maker {
    dice: Dice,
    program: Program,
    /// The rows of the table in hand.
    first: usize,
    count: usize,
}

impl Maker {
    fn cell(&mut self) -> u64 {
        CELLS + 8 * self.dice.below(CELLS_COUNT)
    }

    fn record(&mut self) -> u64 {
        match self.dice.below(RECORDS_COUNT + 1) {
            0 => EARLY,
            index => RECORDS + RECORD_SIZE * (index - 1),
        }
    }

    /// An argument with this value, in a kind that can hold it.
    fn arg(&mut self, value: u64) -> Arg {
        match self.dice.below(4) {
            0 | 1 => Arg::Const(value),
            2 => Arg::Word(self.program.words(&[value])),
            _ => {
                let Ok(half) = i32::try_from(value.cast_signed()) else { return Arg::Const(value) };
                let other = self.dice.next().to_le_bytes();
                Arg::Half(self.program.literal(&[&other[..4], &half.to_le_bytes()].concat()) + 4)
            }
        }
    }

    /// An argument whose value depends on what ran before.
    fn live(&mut self) -> Arg {
        let place = if self.dice.one_in(5) { self.record() + 8 * self.dice.below(3) } else { self.cell() };
        if self.dice.one_in(2) { Arg::Word(place) } else { Arg::Half(place + 4 * self.dice.below(2)) }
    }

    fn any(&mut self) -> Arg {
        if self.dice.one_in(3) {
            return self.live();
        }
        let value = self.dice.value();
        self.arg(value)
    }

    /// Fills the six arguments, those without a meaning with anything readable.
    fn six(&mut self, opcode: Opcode, meant: &[Arg]) -> Insn {
        let mut args = meant.to_vec();
        while args.len() < 6 {
            args.push(self.any());
        }
        insn(opcode, &args)
    }

    fn jump(&mut self, from: usize) -> i32 {
        let backward = self.dice.one_in(6);
        let to = if backward { self.dice.below(self.count as u64) } else { self.ahead(from) };
        let to = i32::try_from(to).unwrap();
        (to - i32::try_from(from).unwrap()) * i32::try_from(INSN_SIZE).unwrap()
    }

    /// A later row, or the end of the table in hand.
    fn ahead(&mut self, from: usize) -> u64 {
        let left = (self.count - from) as u64;
        from as u64 + 1 + self.dice.below(left.min(4))
    }

    fn call(&mut self, row: usize) -> Insn {
        let calls = &self.program.arch.calls;
        let (mem, low) = (Arg::Const(MEM_FD), NO_FILE + self.dice.below(1000));
        let no_file = [low, low << 32 | 0xffff_ffff, negative(-1), negative(-0x8000_0000)];
        let no_file = self.dice.pick(&no_file);
        let (nr, meant) = match self.dice.below(11) {
            0 => (calls.close, vec![self.arg(no_file)]),
            1 => (calls.dup, vec![self.arg(no_file)]),
            2 => (calls.lseek, vec![self.arg(no_file)]),
            3 => (NO_CALL + u32::from(self.dice.byte()), Vec::new()),
            4..=6 => (calls.lseek, vec![mem, self.any(), Arg::Const(0)]),
            7 => (calls.lseek, vec![mem, self.any(), Arg::Const(1)]),
            8 => (calls.umask, vec![self.any()]),
            9 => (calls.mmap, self.map()),
            _ if self.dice.one_in(2) => (calls.sched_yield, Vec::new()),
            _ => {
                let (nr, size) = (calls.write, self.dice.below(41));
                let from = self.cell().min(CELLS + 8 * (CELLS_COUNT - 5));
                (nr, vec![self.arg(1), self.arg(from), self.arg(size)])
            }
        };
        let fine = self.fine();
        let result = if self.dice.one_in(3) { 0 } else { self.cell() };
        let jump = if self.dice.one_in(5) { 0 } else { self.jump(row) };
        let flags = if self.dice.one_in(3) { RETRY } else { 0 };
        Insn { nr, fine, result, jump, flags, ..self.six(Opcode::Call, &meant) }
    }

    fn fine(&mut self) -> [u8; 4] {
        let mut fine = [0; 4];
        for errno in &mut fine {
            *errno = match self.dice.below(6) {
                0 => self.dice.byte(),
                1 => self.dice.pick(&[9, 19, 22, 38, 4, 255, 1]),
                _ => 0,
            };
        }
        fine
    }

    fn map(&mut self) -> Vec<Arg> {
        let address = PAGE + PAGE_SIZE * self.dice.below(16);
        let (mut args, at) = ([address, PAGE_SIZE, 3, PRIVATE_FIXED | ANONYMOUS, 0, 0], self.dice.below(5));
        match at {
            0 => args[1] = 0,
            1 => (args[3], args[4]) = (PRIVATE_FIXED, NO_FILE),
            2 => (args[3], args[4]) = (PRIVATE_FIXED, MEM_FD),
            3 => args[5] = 1,
            _ => args[4] = self.dice.value(),
        }
        args.into_iter().map(|value| self.arg(value)).collect()
    }

    fn branch(&mut self, row: usize) -> Insn {
        let condition = self.dice.pick(&[Condition::MaskEqual, Condition::MaskDiffers, Condition::Less]);
        let (a, b) = (self.dice.value(), self.dice.value());
        let meant = match self.dice.below(4) {
            // Equal, or equal but for one bit.
            0 => [a, b, a & b].map(|value| self.arg(value)),
            1 => [a, b, (a & b) ^ (1 << self.dice.below(64))].map(|value| self.arg(value)),
            2 => [a, a.wrapping_add(self.dice.below(3)).wrapping_sub(1), b].map(|value| self.arg(value)),
            _ => [self.live(), self.any(), self.any()],
        };
        let jump = self.jump(row);
        Insn { nr: condition as u32, jump, ..self.six(Opcode::Branch, &meant) }
    }

    fn any_row(&mut self, row: usize) -> Insn {
        match self.dice.below(16) {
            0..=6 => self.call(row),
            7..=10 => self.branch(row),
            11..=13 => {
                let (result, meant) = (self.cell(), [self.any(), self.any()]);
                Insn { result, ..self.six(Opcode::Set, &meant) }
            }
            14 => {
                let to = Program::row(self.first) + self.ahead(row) * INSN_SIZE as u64;
                let meant = [self.arg(to)];
                self.six(Opcode::Jump, &meant)
            }
            _ => {
                let record = self.record();
                let meant = [self.arg(record)];
                self.six(Opcode::Progress, &meant)
            }
        }
    }

    /// A call that `EINTR` interrupts just once, whose argument 0 counts when it is made again.
    fn interrupted(&mut self) {
        let lseek = self.program.arch.calls.lseek;
        let by = self.dice.pick(&[1, 2, 5, negative(-1), negative(-9)]);
        let start = negative(-4).wrapping_sub(by);
        self.program.push(Insn { fine: [1, 2, 3, 5], jump: 72, ..call(lseek, &[MEM_FD, start, 0]) });
        let args = [self.arg(MEM_FD), self.arg(by), self.arg(1)];
        let (result, fine) = (self.cell(), self.fine());
        let again = self.six(Opcode::Call, &args);
        self.program.push(Insn { nr: lseek, result, fine, flags: RETRY, jump: 72, ..again });
    }

    /// Adds one table.
    fn add(&mut self) {
        let before = self.program.clone();
        loop {
            if self.dice.one_in(4) {
                self.interrupted();
            }
            (self.first, self.count) = (self.program.table.len(), 4 + usize::from(self.dice.byte() % 12));
            for row in 0..self.count {
                let next = self.any_row(row);
                self.program.push(next);
            }
            if predict(&self.program.clone().finish(0)).is_some_and(|verdict| verdict.status == 0) {
                return;
            }
            self.program = before.clone();
        }
    }
}

fn batch(arch: &'static Arch, seed: u64, bytes: Vec<u8>, tables: usize) -> Program {
    let dice = Dice { bytes, state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 };
    let mut maker = Maker { dice, program: Program::prepared(arch), first: 0, count: 0 };
    for cell in 0..CELLS_COUNT {
        let value = maker.dice.value();
        maker.program.push(set(CELLS + 8 * cell, Arg::Const(value), Arg::Const(0)));
    }
    for _ in 0..tables {
        maker.add();
    }
    let mut program = maker.program.finish(seed & 0x7f);
    if let Some(last) = program.table.last_mut() {
        match seed % 4 {
            0 => *last = insn(Opcode::Fail, &[]),
            1 => *last = call(arch.calls.close, &[NO_FILE]),
            _ => {}
        }
    }
    program
}

/// Runs at least `tables` random tables and compares each image with the model.
pub(crate) fn compare(bench: &Bench, tables: usize) {
    let (mut coverage, mut retries) = (Coverage::new(), 0);
    for seed in 1..=tables.div_ceil(BATCH) as u64 {
        let verdict = compare_one(bench, seed, &batch(bench.arch, seed, Vec::new(), BATCH));
        for (key, count) in verdict.coverage {
            *coverage.entry(key).or_default() += count;
        }
        retries += verdict.retries;
    }
    assert_covered(&coverage, retries);
}

/// Runs one table that is made of `bytes`, and compares its image with the model.
#[cfg(fuzzing)]
pub(crate) fn compare_bytes(bench: &Bench, bytes: &[u8]) {
    let seed = bytes.first().copied().map_or(0, u64::from);
    compare_one(bench, seed, &batch(bench.arch, seed, bytes.to_vec(), 1));
}

fn compare_one(bench: &Bench, seed: u64, program: &Program) -> Verdict {
    let verdict = predict(program).unwrap();
    let output = bench.run(&format!("random-{seed}"), program);
    let name = bench.arch.name;
    assert_eq!(output.status.code(), Some(verdict.status), "{name}, seed {seed}: {:?}", output.status);
    assert_eq!(output.stdout.len(), verdict.stdout.len(), "{name}, seed {seed}: bytes written");
    // The dump of all memory comes last.
    let dump_at = verdict.stdout.len() - program.memory.len();
    for (at, (is, must)) in output.stdout.iter().zip(&verdict.stdout).enumerate() {
        let address = DATA.wrapping_add(at as u64).wrapping_sub(dump_at as u64);
        assert_eq!(is, must, "{name}, seed {seed}: byte {at} of the output, memory at {address:#x}");
    }
    verdict
}

/// Every way of every opcode that goes on, a good many times.
fn assert_covered(coverage: &Coverage, retries: usize) {
    let branches = (0..3).flat_map(|condition| [true, false].map(|went_on| (1, condition, went_on)));
    let others = [(0, 0, true), (0, 0, false), (2, 0, false), (3, 0, true), (4, 0, true)];
    for key in branches.chain(others) {
        let count = coverage.get(&key).copied().unwrap_or_default();
        assert!(count > 20, "only {count} times (opcode, condition, went on) = {key:?}");
    }
    assert!(retries > 20, "only {retries} calls made again");
}
