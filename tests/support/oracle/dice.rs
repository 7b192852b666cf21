//! Choices made of bytes: the same bytes make the same choices, and bytes that have run out choose the first of everything.

/// Bytes that are left to choose by.
#[derive(Clone, Debug)]
pub(crate) struct Dice<'a>(&'a [u8]);

impl<'a> Dice<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `limit`, of one byte where that is enough.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        let value = if limit <= 256 { u64::from(self.byte()) } else { self.word() };
        value % limit.max(1)
    }

    pub(crate) fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte()))
    }

    pub(crate) fn half(&mut self) -> u32 {
        (0..4).fold(0, |half, _| half << 8 | u32::from(self.byte()))
    }

    /// True for a bit that is set; without bytes never.
    pub(crate) fn coin(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn one_in(&mut self, limit: u64) -> bool {
        self.below(limit) + 1 == limit
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let index = usize::try_from(self.below(from.len() as u64)).unwrap_or(0);
        from[index].clone()
    }

    /// At most `most` bytes as they come.
    pub(crate) fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
