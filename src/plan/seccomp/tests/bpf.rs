//! A BPF interpreter, as the kernel's for filters: what seccomp(2) allows and no more.

use crate::plan::seccomp::{ARGS_AT, Instruction, emit};
use crate::policy::{Condition, Test};

/// `struct seccomp_data` without the instruction pointer.
#[derive(Clone, Debug)]
pub(super) struct Data {
    pub(super) number: u32,
    pub(super) audit: u32,
    pub(super) args: [u64; 6],
}

impl Data {
    fn word(&self, at: u32) -> Option<u32> {
        match at {
            0 => Some(self.number),
            4 => Some(self.audit),
            8 | 12 => Some(0),
            _ => {
                let offset = at.checked_sub(ARGS_AT)?;
                let arg = self.args.get(usize::try_from(offset / 8).ok()?)?;
                match offset % 8 {
                    0 => u32::try_from(arg & 0xffff_ffff).ok(),
                    4 => u32::try_from(arg >> 32).ok(),
                    _ => None,
                }
            }
        }
    }
}

/// What the program returns; `None` where the kernel would not have taken it.
pub(super) fn run(program: &[Instruction], data: &Data) -> Option<u32> {
    trace(program, data).map(|(answer, _)| answer)
}

/// How many instructions it took.
pub(super) fn steps(program: &[Instruction], data: &Data) -> usize {
    trace(program, data).map_or(usize::MAX, |(_, steps)| steps)
}

fn trace(program: &[Instruction], data: &Data) -> Option<(u32, usize)> {
    let (mut at, mut a, mut steps) = (0_usize, 0_u32, 0);
    loop {
        let Instruction { code, jt, jf, k } = *program.get(at)?;
        steps += 1;
        let mut branch = |holds: bool| at += 1 + usize::from(if holds { jt } else { jf });
        match code {
            emit::LOAD => (a, at) = (data.word(k)?, at + 1),
            emit::AND => (a, at) = (a & k, at + 1),
            emit::JA => at += 1 + usize::try_from(k).ok()?,
            emit::JEQ => branch(a == k),
            emit::JGT => branch(a > k),
            emit::JGE => branch(a >= k),
            emit::RET => return Some((k, steps)),
            _ => return None,
        }
    }
}

/// Numbers that a condition is about.
pub(super) fn constants(condition: &Condition) -> Vec<u64> {
    match condition.test {
        Test::Equal(value)
        | Test::NotEqual(value)
        | Test::Less(value)
        | Test::LessEqual(value)
        | Test::Greater(value)
        | Test::GreaterEqual(value) => vec![value],
        Test::MaskedEqual { mask, value } => {
            let bits = (0..64).map(|bit| 1_u64 << bit).filter(|bit| mask & bit != 0);
            [mask, value, mask | value, !mask | value].into_iter().chain(bits).collect()
        }
        Test::Inside { from, to } => vec![from, to],
    }
}

/// xorshift64*: the same numbers in every run.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % end
    }
}
