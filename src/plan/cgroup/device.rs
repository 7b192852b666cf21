//! The BPF program that allows a list of devices, in cgroup v2 (the kernel's bpf/prog_cgroup_device). It must not load it.

use crate::policy::{DeviceKind, DeviceRule};

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_NUMBER: u8 = 0xb7;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_IF_DIFFERENT: u8 = 0x55;
const EXIT: u8 = 0x95;

/// One instruction (linux/bpf.h, `struct bpf_insn`).
fn instruction(code: u8, target: u8, source: u8, offset: u16, number: u32) -> u64 {
    u64::from(code)
        | u64::from(target) << 8
        | u64::from(source) << 12
        | u64::from(offset) << 16
        | u64::from(number) << 32
}

/// r1 points to what is asked: the kind in the lower half of a word and the access in the upper, then major and minor.
pub(crate) fn device_instructions(rules: &[DeviceRule]) -> Vec<u64> {
    let (kind, access, major, minor, rest) = (2, 3, 4, 5, 6);
    let mut program = vec![
        instruction(LOAD_WORD, kind, 1, 0, 0),
        instruction(MOVE, access, kind, 0, 0),
        instruction(AND, kind, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, access, 0, 0, 16),
        instruction(LOAD_WORD, major, 1, 4, 0),
        instruction(LOAD_WORD, minor, 1, 8, 0),
    ];
    for rule in rules {
        let number = match rule.kind {
            DeviceKind::Block => 1,
            DeviceKind::Character => 2,
        };
        let wanted = [Some((kind, number)), rule.major.map(|m| (major, m)), rule.minor.map(|m| (minor, m))];
        let wanted: Vec<(u8, u32)> = wanted.into_iter().flatten().collect();
        // Behind the comparisons: two to mask, one to compare, two to allow.
        let mut left = u16::try_from(wanted.len()).unwrap_or(0) + 5;
        for (register, number) in wanted {
            left -= 1;
            program.push(instruction(JUMP_IF_DIFFERENT, register, 0, left, number));
        }
        program.push(instruction(MOVE, rest, access, 0, 0));
        program.push(instruction(AND, rest, 0, 0, !u32::from(rule.access.bits())));
        program.push(instruction(JUMP_IF_DIFFERENT, rest, 0, 2, 0));
        program.push(instruction(MOVE_NUMBER, 0, 0, 0, 1));
        program.push(instruction(EXIT, 0, 0, 0, 0));
    }
    program.push(instruction(MOVE_NUMBER, 0, 0, 0, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::DeviceAccess;

    /// Runs the program on one question, by the meaning of its instructions.
    fn allows(program: &[u64], kind: u32, access: u32, (major, minor): (u32, u32)) -> bool {
        let context = [kind | access << 16, major, minor];
        let mut registers = [0_u64; 11];
        let mut at = 0;
        loop {
            let word = program[at];
            let byte = |shift: u32| u8::try_from(word >> shift & 0xff).expect("a byte");
            let (target, source) = (usize::from(byte(8) & 15), usize::from(byte(8) >> 4));
            let offset = usize::try_from(word >> 16 & 0xffff).expect("16 bits");
            let number = word >> 32;
            at += 1;
            match byte(0) {
                LOAD_WORD => registers[target] = u64::from(context[offset / 4]),
                MOVE => registers[target] = registers[source],
                MOVE_NUMBER => registers[target] = number,
                AND => registers[target] &= number,
                SHIFT_RIGHT => registers[target] >>= number,
                JUMP_IF_DIFFERENT if registers[target] != number => at += offset,
                JUMP_IF_DIFFERENT => {}
                EXIT => return registers[0] != 0,
                code => panic!("no such instruction: {code:#x}"),
            }
        }
    }

    #[test]
    fn what_is_listed_is_allowed_and_nothing_else() {
        let block = DeviceRule {
            kind: DeviceKind::Block,
            major: Some(8),
            minor: None,
            access: DeviceAccess::READ | DeviceAccess::MAKE,
        };
        let program = device_instructions(&[DeviceRule::character(1, 3), block]);
        let (make, read, write) = (1, 2, 4);
        let (a_block, a_character) = (1, 2);
        for (kind, access, device, expected) in [
            (a_character, read, (1, 3), true),
            (a_character, read | write, (1, 3), true),
            (a_character, make, (1, 3), false),
            (a_character, read, (1, 5), false),
            (a_block, read, (1, 3), false),
            (a_block, read, (8, 17), true),
            (a_block, make, (8, 0), true),
            (a_block, write, (8, 0), false),
            (a_block, read | write, (8, 0), false),
            (a_character, read, (8, 0), false),
        ] {
            assert_eq!(allows(&program, kind, access, device), expected, "{kind} {access} {device:?}");
        }
        assert!(!allows(&device_instructions(&[]), a_character, read, (1, 3)));
    }
}
