//! Mount trees made of bytes: a tree is refused exactly where an item is mistaken or buries another, and one that is accepted
//! stands in the user's order, nowhere outside of the root, as tight as it was asked for.
#![no_main]

#[path = "../../tests/support/oracle.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    oracle::examine(bytes, oracle::spec::About::Mounts);
});
