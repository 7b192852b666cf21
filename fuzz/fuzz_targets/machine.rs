//! Tables made of bytes: the machine's text of this architecture, run as an image, writes and ends as its model says.
#![no_main]

#[path = "../../tests/support/machine_image.rs"]
#[allow(dead_code)]
mod machine_image;

use std::env::consts::ARCH;

use libfuzzer_sys::fuzz_target;
use ringfence::internals::machine_text;

use machine_image::{Bench, arch, random};

fuzz_target!(|bytes: &[u8]| {
    let bench = Bench { arch: arch(ARCH), text: machine_text().to_vec(), emulator: None };
    random::compare_bytes(&bench, bytes);
});
