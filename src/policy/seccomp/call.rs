//! System calls by name and number on each architecture. It must not know which of them a filter allows.

use super::table::{CALLS, FOREIGN};

/// An architecture that filters are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// `AUDIT_ARCH_X86_64`.
    X86_64,
    /// `AUDIT_ARCH_AARCH64`.
    Aarch64,
    /// `AUDIT_ARCH_RISCV64`.
    Riscv64,
}

/// Numbers from here on are those of the x32 ABI, which shares its architecture word with x86_64.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::X86_64, Self::Aarch64, Self::Riscv64];

    /// The kernel's word for it (`AUDIT_ARCH_*`, linux/audit.h): ELF machine, 64 bits, little-endian.
    #[must_use]
    pub const fn audit(self) -> u32 {
        0xc000_0000
            | match self {
                Self::X86_64 => 62,
                Self::Aarch64 => 183,
                Self::Riscv64 => 243,
            }
    }

    const fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::Aarch64 => 1,
            Self::Riscv64 => 2,
        }
    }

    /// The number of a call; `None` where the architecture does not have it, or nobody does.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        let at = CALLS.binary_search_by_key(&name, |(name, _)| name).ok()?;
        u32::try_from(CALLS[at].1[self.column()]).ok()
    }

    /// The name of a number, as far as this version of the crate knows it.
    #[must_use]
    pub fn name(self, number: u32) -> Option<&'static str> {
        self.calls().find(|(_, known)| *known == number).map(|(name, _)| name)
    }

    /// Every call that the architecture has, by name.
    pub fn calls(self) -> impl Iterator<Item = (&'static str, u32)> {
        CALLS
            .iter()
            .filter_map(move |(name, numbers)| Some((*name, u32::try_from(numbers[self.column()]).ok()?)))
    }
}

/// Whether any architecture has a call of this name.
pub(super) fn is_known(name: &str) -> bool {
    CALLS.binary_search_by_key(&name, |(name, _)| name).is_ok()
        || FOREIGN.split_ascii_whitespace().any(|foreign| foreign == name)
}
