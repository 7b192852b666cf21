//! A yes, a no, or an honest "could not tell". It must not decide what an unknown means: its reader does.

use std::fmt::Display;
use std::fmt::Formatter;
use std::fmt::Result as FmtResult;

/// What a look at this machine told about one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Answer {
    /// It is so.
    Yes,
    /// It is not so.
    No,
    /// The place where the answer stands could not be read, or does not settle the question.
    #[default]
    Unknown,
}

impl From<Option<bool>> for Answer {
    fn from(seen: Option<bool>) -> Self {
        match seen {
            Some(true) => Self::Yes,
            Some(false) => Self::No,
            None => Self::Unknown,
        }
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        })
    }
}
