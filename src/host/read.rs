//! Reads the small text files of /proc, /sys and /etc. It must not write, and must not fail: what cannot be read is
//! `None`.

use std::fs;
use std::path::Path;

/// The text of a file, if it can be read.
///
/// Names of mount points and labels are bytes, not UTF-8. A byte that is not part of a valid sequence comes out as the
/// `\ooo` by which the kernel itself escapes (see proc(5), mountinfo), so that nothing is lost and every parser can
/// take `&str`.
pub(super) fn text(path: &str) -> Option<String> {
    fs::read(path).ok().map(|bytes| escaped(&bytes))
}

/// The bytes as text, with what is not UTF-8 in octal.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("\\{byte:03o}"));
        }
    }
    out
}

/// The one number that a file holds.
pub(super) fn number(path: &str) -> Option<u64> {
    text(path)?.trim().parse().ok()
}

/// Whether a file is there at all; one that cannot be looked at counts as absent.
pub(super) fn is_there(path: &str) -> bool {
    Path::new(path).try_exists().unwrap_or(false)
}
