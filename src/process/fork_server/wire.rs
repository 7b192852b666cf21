//! What the caller asks the server for: one datagram, fixed at its head and limited behind it. It must not decide anything.

use crate::sys::DESCRIPTORS;

/// Bytes before the arguments.
pub(super) const HEAD: usize = 16;
/// Bytes of the arguments.
pub(super) const ARGUMENTS_MAX: usize = 60 << 10;
/// The standard streams.
pub(super) const STREAMS: usize = 3;
/// Descriptors beside them, the channel included: one of a message is the socket for the reports.
pub(super) const FDS_MAX: usize = DESCRIPTORS - 1 - STREAMS;
const MAGIC: u32 = 0x5246_574b;

/// A request: which function, and whether the first descriptor behind the streams is a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) function: usize,
    /// 0 or 1.
    pub(super) channels: u8,
}

impl Asked {
    /// The datagram.
    pub(super) fn to_bytes(self, arguments: &[u8]) -> Vec<u8> {
        let half = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
        let mut out = Vec::with_capacity(HEAD + arguments.len());
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&half(self.function));
        out.extend_from_slice(&u32::from(self.channels).to_le_bytes());
        out.extend_from_slice(&half(arguments.len()));
        out.extend_from_slice(arguments);
        out
    }

    /// `None` for anything that is not exactly a request.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, arguments) = bytes.split_at_checked(HEAD)?;
        let mut halves = head.chunks(4).map(|chunk| chunk.try_into().map_or(0, u32::from_le_bytes));
        let mut next = || halves.next().unwrap_or(0);
        let (magic, function, channels, length) = (next(), next(), next(), next());
        let whole = magic == MAGIC
            && usize::try_from(length) == Ok(arguments.len())
            && arguments.len() <= ARGUMENTS_MAX;
        if !whole || channels > 1 {
            return None;
        }
        Some(Self { function: usize::try_from(function).ok()?, channels: u8::try_from(channels).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_request_is_read() {
        let asked = Asked { function: 3, channels: 1 };
        let bytes = asked.to_bytes(b"page");
        assert_eq!(Asked::from_bytes(&bytes), Some(asked));
        for length in 0..bytes.len() {
            assert_eq!(Asked::from_bytes(&bytes[..length]), None, "{length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Asked::from_bytes(&longer), None);
        let mut two = bytes;
        two[8] = 2;
        assert_eq!(Asked::from_bytes(&two), None);
        assert_eq!(Asked::from_bytes(&asked.to_bytes(&vec![0; ARGUMENTS_MAX + 1])), None);
    }
}
