//! One leaf: read, compared and exchanged as a word.

use super::Entry;
use crate::addr::Hfn;
use crate::mm::leaf::{self, Format, Leaf, frame_of, is_present};

/// One leaf of a table.
#[derive(Clone, Copy, Debug)]
pub struct Slot<E: Entry> {
    pub(super) entry: E,
    pub(super) format: &'static Format,
}

/// A leaf's word as it was read, or as it shall be; decoded as far as somebody asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    word: u64,
    format: &'static Format,
}

impl<E: Entry> Slot<E> {
    /// Reads the leaf.
    #[inline]
    pub fn load(&self) -> Seen {
        self.seen(self.entry.load())
    }

    /// Returns the word for `leaf`.
    #[inline]
    pub fn encode(&self, leaf: Leaf) -> Seen {
        self.seen(self.format.encode(leaf))
    }

    /// Replaces the leaf, if it still is what was seen, A and D included.
    ///
    /// # Errors
    /// What it is instead.
    #[inline]
    pub fn replace(&self, seen: Seen, new: Seen) -> Result<(), Seen> {
        self.entry.compare_exchange(seen.word, new.word).map_err(|word| self.seen(word))
    }

    /// Reads and clears A. `None` if the leaf is not present.
    ///
    /// The shortest path there is: one turn of the clock is one of these for every resident page.
    #[inline]
    pub fn take_accessed(&self) -> Option<bool> {
        self.try_take_accessed().unwrap_or_else(|_| self.insist_on_accessed())
    }

    /// The same for a leaf that the CPU or another changed meanwhile: out of line, which leaves the other without a loop.
    #[cold]
    #[inline(never)]
    fn insist_on_accessed(&self) -> Option<bool> {
        loop {
            if let Ok(accessed) = self.try_take_accessed() {
                return accessed;
            }
        }
    }

    #[inline]
    fn try_take_accessed(&self) -> Result<Option<bool>, u64> {
        let (word, accessed) = (self.entry.load(), self.format.accessed);
        if !is_present(word) {
            return Ok(None);
        }
        if word & accessed == 0 {
            return Ok(Some(false));
        }
        self.entry.compare_exchange(word, word & !accessed).map(|()| Some(true))
    }

    #[inline]
    fn seen(&self, word: u64) -> Seen {
        Seen { word, format: self.format }
    }
}

impl Seen {
    /// Returns all that the word says.
    #[inline]
    pub const fn leaf(self) -> Leaf {
        self.format.decode(self.word)
    }

    /// Returns the frame of a present leaf.
    #[inline]
    pub fn frame(self) -> Option<Hfn> {
        is_present(self.word).then(|| frame_of(self.word))
    }

    /// Returns a number below 8 for the state, the same for all leaves of one state.
    #[inline]
    pub const fn state(self) -> usize {
        leaf::state_of(self.word)
    }

    /// Returns whether D is set; of a present leaf.
    #[inline]
    pub const fn is_dirty(self) -> bool {
        self.word & self.format.dirty != 0
    }

    /// Returns whether the page has a block; of a present leaf.
    #[inline]
    pub const fn has_block(self) -> bool {
        self.word & leaf::HAS_BLOCK != 0
    }

    /// The same present leaf, accessed.
    #[inline]
    pub const fn accessed(self) -> Self {
        self.with(self.format.accessed)
    }

    /// The same present leaf, dirty.
    #[inline]
    pub const fn dirtied(self) -> Self {
        self.with(self.format.dirty)
    }

    /// The same present leaf with a current block, if D is clear.
    #[inline]
    pub const fn with_block(self) -> Self {
        self.with(leaf::HAS_BLOCK)
    }

    /// The same present leaf with D clear, and without a block until the new one is written.
    #[inline]
    pub const fn cleaned(self) -> Self {
        Self { word: self.word & !(self.format.dirty | leaf::HAS_BLOCK), ..self }
    }

    const fn with(self, bits: u64) -> Self {
        Self { word: self.word | bits, ..self }
    }
}
