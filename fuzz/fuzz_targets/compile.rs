//! Policies made of bytes on hosts made of bytes: what is accepted has no mistake, equal input gives an equal plan, and where
//! a plan reaches its end on an imagined kernel, whatever call failed on the way, every required item is there.
#![no_main]

#[path = "../../tests/support/oracle.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    oracle::examine(bytes, oracle::spec::About::Everything);
});
