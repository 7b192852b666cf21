//! The words on the socketpair: fixed size, one datagram each, no pointer. It must not decide what follows from them.

/// Bytes of a message.
pub(crate) const MESSAGE_SIZE: usize = 8;
const MAGIC: u32 = 0x5246_4e43;

/// What one half tells the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub(crate) enum Message {
    /// Child: I am set up and confined, and wait.
    Ready = 1,
    /// Caller: go on. At the gate: your ids are mapped. After `Ready`: run the program.
    Go = 2,
    /// Child: the next thing is `execve`.
    Exec = 3,
    /// Child: I wait at the gate for the caller's part.
    AtGate = 4,
    /// Caller: here are descriptors of the command.
    Descriptors = 5,
}

impl Message {
    /// The datagram.
    #[must_use]
    pub(crate) fn to_bytes(self) -> [u8; MESSAGE_SIZE] {
        (u64::from(MAGIC) << 32 | u64::from(self as u32)).to_le_bytes()
    }

    /// Reads a datagram; `None` for anything that is not exactly a message.
    #[must_use]
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = u64::from_le_bytes(bytes.try_into().ok()?);
        [Self::Ready, Self::Go, Self::Exec, Self::AtGate, Self::Descriptors]
            .into_iter()
            .find(|message| u64::from_le_bytes(message.to_bytes()) == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_message_is_read() {
        for message in [Message::Ready, Message::Go, Message::Exec, Message::AtGate, Message::Descriptors] {
            let bytes = message.to_bytes();
            assert_eq!(Message::from_bytes(&bytes), Some(message));
            assert_eq!(Message::from_bytes(&bytes[..7]), None);
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert_eq!(Message::from_bytes(&longer), None);
            for bit in 0..64 {
                let mut other = bytes;
                other[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(Message::from_bytes(&other), Some(message), "bit {bit}");
            }
        }
    }
}
