//! The machine's text of this architecture against its model: small tables by hand, then random ones.

#[cfg(test)]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
#[path = "support/machine_image.rs"]
mod machine_image;

#[cfg(test)]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod tests {
    use std::env::consts::ARCH;

    use ringfence::internals::machine_text;

    use crate::machine_image::{Bench, arch, cases, random};

    const RANDOM_TABLES: usize = 1500;

    fn native() -> Bench {
        Bench { arch: arch(ARCH), text: machine_text().to_vec(), emulator: None }
    }

    #[test]
    fn small_tables() {
        cases::try_all(&native());
    }

    #[test]
    fn random_tables() {
        random::compare(&native(), RANDOM_TABLES);
    }
}
