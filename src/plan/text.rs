//! What a listing shows for an operand, put into words only where somebody reads it: most launches are read by nobody.

use std::fmt::{self, Display, Formatter};

/// Whether the listing is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    Kept,
    Omitted,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Text {
    Fixed(&'static str),
    Number(i64),
    Descriptor(i32, &'static str),
    /// `$name` or `&name`.
    Name(char, &'static str),
    /// `$name+bytes`.
    Offset(&'static str, u32),
    Made(String),
}

impl Display for Text {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Descriptor(number, name) => write!(f, "{number}<{name}>"),
            Self::Name(mark, name) => write!(f, "{mark}{name}"),
            Self::Offset(name, bytes) => write!(f, "${name}+{bytes}"),
            Self::Made(text) => f.write_str(text),
        }
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self::Fixed(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Made(text)
    }
}
