//! The kernel's version as a value that can be compared. It must not be asked where a probe can answer: distributions
//! carry features back to older numbers.

use std::fmt::Display;
use std::fmt::Formatter;
use std::fmt::Result as FmtResult;

/// The release number that uname(2) reports.
///
/// A number says less than a probe: the 4.18 of RHEL 8 knows calls of 5.x, and a system-call filter hides calls that
/// the kernel has. [`Features`](super::Features) is what to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelVersion {
    /// The 6 of 6.12.3.
    pub major: u32,
    /// The 12 of 6.12.3.
    pub minor: u32,
    /// The 3 of 6.12.3; 0 where the release has no third part.
    pub patch: u32,
}

impl KernelVersion {
    /// Stands for a release that could not be read; it is older than every real one.
    pub const UNKNOWN: Self = Self::new(0, 0, 0);

    /// Makes a version of its parts.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads the beginning of a release such as `6.8.0-45-generic`, `6.12-rc1` or
    /// `5.15.167.4-microsoft-standard-WSL2`; `None` if there are not at least two numbers.
    #[must_use]
    pub fn parse(release: &str) -> Option<Self> {
        let mut parts = release.trim().splitn(3, '.');
        let major = number(parts.next()?)?;
        let minor = parts.next()?;
        // After `6.12-rc1` nothing more belongs to the number.
        let third = if minor.bytes().all(|b| b.is_ascii_digit()) { parts.next() } else { None };
        Some(Self { major, minor: number(minor)?, patch: third.and_then(number).unwrap_or(0) })
    }
}

/// The number that `text` begins with.
fn number(text: &str) -> Option<u32> {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

impl Display for KernelVersion {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        if *self == Self::UNKNOWN {
            return f.write_str("unknown");
        }
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
