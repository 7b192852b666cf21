//! Conditions on the arguments of a call. It must not know how they are compiled.

use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;

/// How many bits of an argument count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// The low 32: what the kernel looks at where the parameter is an `int` or `unsigned int`. Whatever stands above
    /// them makes no difference to the kernel, and so must make none to a filter.
    Bits32,
    /// All 64.
    Bits64,
}

/// One argument of a call, for a [`Condition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Argument {
    index: u8,
    width: Width,
}

/// What an argument is held against; all comparisons are unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Test {
    Equal(u64),
    NotEqual(u64),
    MaskedEqual { mask: u64, value: u64 },
    Less(u64),
    LessEqual(u64),
    Greater(u64),
    GreaterEqual(u64),
    Inside { from: u64, to: u64 },
}

/// Something that one argument of a call has to fulfil. Pointers are numbers to a filter: what they point to it never sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Condition {
    pub(crate) argument: u8,
    pub(crate) width: Width,
    pub(crate) test: Test,
}

impl Argument {
    /// Argument `index` (0 to 5) compared as 32 bits: for `int`, `unsigned int` and `mode_t` parameters (the command of an
    /// `ioctl`, the family of a socket, flags).
    #[must_use]
    pub const fn int(index: u8) -> Self {
        Self { index, width: Width::Bits32 }
    }

    /// Argument `index` (0 to 5) compared as 64 bits: for `long`, `size_t` and pointers.
    #[must_use]
    pub const fn long(index: u8) -> Self {
        Self { index, width: Width::Bits64 }
    }

    const fn is(self, test: Test) -> Condition {
        Condition { argument: self.index, width: self.width, test }
    }

    /// `argument == value`
    pub const fn equal(self, value: u64) -> Condition {
        self.is(Test::Equal(value))
    }

    /// `argument != value`
    pub const fn not_equal(self, value: u64) -> Condition {
        self.is(Test::NotEqual(value))
    }

    /// `argument & mask == value`
    pub const fn masked_equal(self, mask: u64, value: u64) -> Condition {
        self.is(Test::MaskedEqual { mask, value })
    }

    /// `argument < value`
    pub const fn less(self, value: u64) -> Condition {
        self.is(Test::Less(value))
    }

    /// `argument <= value`
    pub const fn less_equal(self, value: u64) -> Condition {
        self.is(Test::LessEqual(value))
    }

    /// `argument > value`
    pub const fn greater(self, value: u64) -> Condition {
        self.is(Test::Greater(value))
    }

    /// `argument >= value`
    pub const fn greater_equal(self, value: u64) -> Condition {
        self.is(Test::GreaterEqual(value))
    }

    /// `from <= argument && argument <= to`
    pub const fn inside(self, range: RangeInclusive<u64>) -> Condition {
        self.is(Test::Inside { from: *range.start(), to: *range.end() })
    }
}

impl Condition {
    /// Whether these arguments fulfil it.
    #[must_use]
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        let Some(full) = args.get(usize::from(self.argument)) else { return false };
        let seen = if self.width == Width::Bits32 { full & 0xffff_ffff } else { *full };
        match self.test {
            Test::Equal(value) => seen == value,
            Test::NotEqual(value) => seen != value,
            Test::MaskedEqual { mask, value } => seen & mask == value,
            Test::Less(value) => seen < value,
            Test::LessEqual(value) => seen <= value,
            Test::Greater(value) => seen > value,
            Test::GreaterEqual(value) => seen >= value,
            Test::Inside { from, to } => from <= seen && seen <= to,
        }
    }

    /// What is wrong with it, if anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let top = if self.width == Width::Bits32 { 0xffff_ffff } else { u64::MAX };
        let (largest, never) = match self.test {
            Test::Equal(value) | Test::NotEqual(value) => (value, false),
            Test::MaskedEqual { mask, value } => (mask.max(value), value & !mask != 0),
            Test::Less(value) => (value, value == 0),
            Test::LessEqual(value) | Test::GreaterEqual(value) => (value, false),
            Test::Greater(value) => (value, value == top),
            Test::Inside { from, to } => (from.max(to), from > to),
        };
        match (self.argument, largest > top, never) {
            (6.., ..) => Some("a call has the arguments 0 to 5"),
            (_, true, _) => {
                Some("the value does not fit into 32 bits: use Argument::long for a 64-bit parameter")
            }
            (.., true) => Some("no value fulfils it, so its rule is never reached"),
            (.., false) => None,
        }
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = if self.width == Width::Bits32 { "int" } else { "long" };
        let at = self.argument;
        match self.test {
            Test::Equal(value) => write!(f, "{name}{at} == {value:#x}"),
            Test::NotEqual(value) => write!(f, "{name}{at} != {value:#x}"),
            Test::MaskedEqual { mask, value } => write!(f, "{name}{at} & {mask:#x} == {value:#x}"),
            Test::Less(value) => write!(f, "{name}{at} < {value:#x}"),
            Test::LessEqual(value) => write!(f, "{name}{at} <= {value:#x}"),
            Test::Greater(value) => write!(f, "{name}{at} > {value:#x}"),
            Test::GreaterEqual(value) => write!(f, "{name}{at} >= {value:#x}"),
            Test::Inside { from, to } => write!(f, "{from:#x} <= {name}{at} <= {to:#x}"),
        }
    }
}
