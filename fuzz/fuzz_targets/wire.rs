//! Datagrams and instructions made of bytes: only a whole message is one, and what is read is what was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence::internals::{INSN_SIZE, Insn};

#[allow(dead_code, unreachable_pub)]
#[path = "../../src/machine/wire.rs"]
mod wire;

fuzz_target!(|bytes: &[u8]| {
    // Five words, eight bytes each, little-endian, with a name behind them.
    let is_one = matches!(bytes, [1..=5, 0, 0, 0, b'C', b'N', b'F', b'R']);
    let message = wire::Message::from_bytes(bytes);
    assert_eq!(message.is_some(), is_one);
    assert!(message.is_none_or(|message| message.to_bytes() == bytes));
    match Insn::from_bytes(bytes) {
        Some(insn) => assert_eq!(insn.to_bytes()[..], bytes[..INSN_SIZE]),
        None => assert!(bytes.len() < INSN_SIZE),
    }
});
