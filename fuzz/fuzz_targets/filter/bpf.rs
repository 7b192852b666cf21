//! A BPF interpreter, and the kernel's check of a program, both from what seccomp(2) and bpf(4) say. It shares nothing with
//! the crate that it is held against.

/// code, jt, jf, k
pub(crate) type Instruction = (u16, u8, u8, u32);

/// `struct seccomp_data` without the instruction pointer.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    pub(crate) number: u32,
    pub(crate) audit: u32,
    pub(crate) args: [u64; 6],
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;
/// `BPF_MAXINSNS`
const MOST: usize = 4096;
/// The size of `struct seccomp_data`.
const DATA_SIZE: u32 = 64;

impl Data {
    fn word(&self, at: u32) -> u32 {
        match at {
            0 => self.number,
            4 => self.audit,
            8 | 12 => 0,
            _ => {
                let arg = self.args[(at as usize - 16) / 8];
                if at % 8 == 0 { arg as u32 } else { (arg >> 32) as u32 }
            }
        }
    }
}

/// Fails where the kernel would refuse it: `bpf_check_classic` and `seccomp_check_filter`.
pub(crate) fn accepted(code: &[Instruction]) {
    assert!(!code.is_empty() && code.len() <= MOST, "{} instructions", code.len());
    for (at, (op, jt, jf, k)) in code.iter().enumerate() {
        let within = |skip: usize| assert!(at + 1 + skip < code.len(), "instruction {at} leaves the program");
        match *op {
            LOAD => assert!(k % 4 == 0 && *k < DATA_SIZE, "instruction {at} loads at {k}"),
            AND | RET => {}
            JA => within(*k as usize),
            JEQ | JGT | JGE => [*jt, *jf].into_iter().for_each(|skip| within(skip.into())),
            _ => panic!("instruction {at} is {op:#x}"),
        }
    }
    assert_eq!(code.last().map(|last| last.0), Some(RET), "the end is a return");
}

/// What the program returns.
pub(crate) fn run(code: &[Instruction], data: &Data) -> u32 {
    let (mut at, mut a) = (0, 0);
    loop {
        let (op, jt, jf, k) = code[at];
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match op {
            LOAD => a = data.word(k),
            AND => a &= k,
            JA => at += k as usize,
            JEQ => jump(a == k),
            JGT => jump(a > k),
            JGE => jump(a >= k),
            RET => return k,
            _ => panic!("instruction {at} is {op:#x}"),
        }
    }
}
