//! Datagrams and instructions made of bytes: only a whole message is one, and what is read is what was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence::internals::{INSN_SIZE, Insn};

#[allow(dead_code, unreachable_pub)]
#[path = "../../src/machine/wire.rs"]
mod wire;

fuzz_target!(|bytes: &[u8]| {
    match wire::Message::from_bytes(bytes) {
        Some(message) => assert_eq!(message.to_bytes(), bytes),
        None => assert!(
            bytes.len() != wire::MESSAGE_SIZE
                || bytes[4..] != *b"CNFR"
                || bytes[0] == 0
                || bytes[0] > 4
                || bytes[1..4] != [0; 3]
        ),
    }
    match Insn::from_bytes(bytes) {
        Some(insn) => assert_eq!(insn.to_bytes()[..], bytes[..INSN_SIZE]),
        None => assert!(bytes.len() < INSN_SIZE),
    }
});
