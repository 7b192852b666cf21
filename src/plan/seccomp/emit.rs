//! Writes a BPF program from its end: every jump goes forward, so a target is always there already. It must not know what
//! the program is for.

use std::collections::BTreeMap;

use super::Instruction;

/// `BPF_LD | BPF_W | BPF_ABS`
pub(super) const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`
pub(super) const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`
pub(super) const JA: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`
pub(super) const JEQ: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`
pub(super) const JGT: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`
pub(super) const JGE: u16 = 0x35;
/// `BPF_RET | BPF_K`
pub(super) const RET: u16 = 0x06;

/// How far a conditional jump may go, less what may be put in between: its distance has 8 bits.
const REACH: usize = 250;

/// An instruction, counted from the end of the program: the last one is 1.
pub(super) type Label = usize;

/// The program so far, its last instruction first.
#[derive(Debug, Default)]
pub(super) struct Emitter {
    reversed: Vec<Instruction>,
    returns: BTreeMap<u32, Label>,
}

impl Emitter {
    fn push(&mut self, code: u16, (jt, jf): (u8, u8), k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        self.reversed.len()
    }

    /// `return code`; one that is near is used again.
    pub(super) fn ret(&mut self, code: u32) -> Label {
        if let Some(label) = self.returns.get(&code)
            && self.reversed.len() - label < REACH / 2
        {
            return *label;
        }
        let label = self.push(RET, (0, 0), code);
        self.returns.insert(code, label);
        label
    }

    /// `label`, or an instruction within reach that leads there.
    fn near(&mut self, label: Label) -> Label {
        let distance = self.reversed.len() - label;
        if distance <= REACH {
            return label;
        }
        match self.reversed.get(label - 1) {
            Some(Instruction { code: RET, k, .. }) => self.ret(*k),
            _ => self.push(JA, (0, 0), u32::try_from(distance).unwrap_or(u32::MAX)),
        }
    }

    /// A conditional jump.
    pub(super) fn jump(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let (yes, no) = (self.near(yes), self.near(no));
        let distance = |label: Label| u8::try_from(self.reversed.len() - label).unwrap_or(u8::MAX);
        let distances = (distance(yes), distance(no));
        self.push(code, distances, k)
    }

    /// An instruction that goes on to `then`.
    pub(super) fn step(&mut self, code: u16, k: u32, then: Label) -> Label {
        let distance = self.reversed.len() - then;
        if distance != 0 {
            self.push(JA, (0, 0), u32::try_from(distance).unwrap_or(u32::MAX));
        }
        self.push(code, (0, 0), k)
    }

    /// Loads a word of `struct seccomp_data`.
    pub(super) fn load(&mut self, at: u32, then: Label) -> Label {
        self.step(LOAD, at, then)
    }

    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }
}
