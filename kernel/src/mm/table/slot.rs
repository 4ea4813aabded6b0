//! One leaf: read, compared and exchanged as a word.

use super::TableEntry;
use crate::addr::Hfn;
use crate::mm::leaf::{
    self, LeafState, PageMapping, TableFormat, frame_of, is_resident, shows_zeros,
};

/// One leaf of a table.
#[derive(Clone, Copy, Debug)]
pub struct LeafRef<E: TableEntry> {
    pub(super) entry: E,
    pub(super) format: &'static TableFormat,
}

/// A leaf's word, as read or as it is to be written; decoded only as far as needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafWord {
    word: u64,
    format: &'static TableFormat,
}

impl<E: TableEntry> LeafRef<E> {
    /// Reads the leaf.
    #[inline]
    pub fn load(&self) -> LeafWord {
        self.seen(self.entry.load())
    }

    /// Returns whether the CPU sets A and D of its leaves itself.
    #[inline]
    pub fn is_kept_by_cpu(&self) -> bool {
        self.format.is_kept_by_cpu()
    }

    /// Returns the word for `leaf`.
    #[inline]
    pub fn encode(&self, leaf: LeafState) -> LeafWord {
        self.seen(self.format.encode(leaf))
    }

    /// Returns the word of an untouched page that shows the shared frame of zeros.
    #[inline]
    pub fn showing_zeros(&self, zeros: Hfn) -> LeafWord {
        self.seen(self.format.showing_zeros(zeros))
    }

    /// Replaces the leaf, if it still is what was seen, A and D included.
    ///
    /// # Errors
    /// The word found instead.
    #[inline]
    pub fn replace(&self, seen: LeafWord, new: LeafWord) -> Result<(), LeafWord> {
        self.entry.compare_exchange(seen.word, new.word).map_err(|word| self.seen(word))
    }

    /// Reads and clears A. `None` if the leaf is not present.
    ///
    /// The shortest path of all: each turn of the clock does this for every resident page.
    #[inline]
    pub fn take_accessed(&self) -> Option<bool> {
        self.try_take_accessed().unwrap_or_else(|_| self.insist_on_accessed())
    }

    /// The same for a leaf that the CPU or another thread changed meanwhile. It is out of line, so
    /// that the quick path has no loop.
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
        if !is_resident(word) {
            return Ok(None);
        }
        if word & accessed == 0 {
            return Ok(Some(false));
        }
        self.entry.compare_exchange(word, word & !accessed).map(|()| Some(true))
    }

    #[inline]
    fn seen(&self, word: u64) -> LeafWord {
        LeafWord { word, format: self.format }
    }
}

impl LeafWord {
    /// Returns the leaf that the word encodes.
    #[inline]
    pub const fn leaf(self) -> LeafState {
        self.format.decode(self.word)
    }

    /// Returns whether the page has neither a frame nor stored content.
    #[inline]
    pub const fn reads_as_zeros(self) -> bool {
        leaf::reads_as_zeros(self.word)
    }

    /// Returns the shared frame of zeros, if the leaf shows it to the guest.
    #[inline]
    pub fn shown_zeros(self) -> Option<Hfn> {
        shows_zeros(self.word).then(|| frame_of(self.word))
    }

    /// Returns the frame of a present leaf.
    #[inline]
    pub fn frame(self) -> Option<Hfn> {
        is_resident(self.word).then(|| frame_of(self.word))
    }

    /// Returns whether the leaf shows a frame of the base.
    #[inline]
    pub const fn is_shared(self) -> bool {
        leaf::is_shared(self.word)
    }

    /// Returns the mapping of a leaf with a frame, its own or the base's.
    #[inline]
    pub fn mapping(self) -> Option<PageMapping> {
        is_resident(self.word).then(|| self.format.decode_mapping(self.word))
    }

    /// Returns the frame of a present leaf with A set.
    #[inline(always)]
    pub fn accessed_frame(self) -> Option<Hfn> {
        (is_resident(self.word) && self.word & self.format.accessed != 0)
            .then(|| frame_of(self.word))
    }

    /// Returns a number below 8 for the state, the same for all leaves of one state.
    #[inline]
    pub const fn state(self) -> usize {
        leaf::state_of(self.word)
    }

    /// Returns whether D is set; only for a present leaf.
    #[inline]
    pub const fn is_dirty(self) -> bool {
        self.word & self.format.dirty != 0
    }

    /// Returns whether the page has a block; only for a present leaf.
    #[inline]
    pub const fn has_block(self) -> bool {
        self.word & leaf::HAS_BLOCK != 0
    }

    /// Returns the same present leaf with A set.
    #[inline]
    pub const fn accessed(self) -> Self {
        Self { word: self.format.with_accessed(self.word), ..self }
    }

    /// Returns the same present leaf with D set.
    #[inline]
    pub const fn dirtied(self) -> Self {
        Self { word: self.format.with_dirty(self.word), ..self }
    }

    /// Returns the same present leaf with *has block* set, which counts while D is clear.
    #[inline]
    pub const fn with_block(self) -> Self {
        Self { word: self.word | leaf::HAS_BLOCK, ..self }
    }

    /// Returns the same present leaf with D clear, and without a block until the new one is
    /// written.
    #[inline]
    pub const fn cleaned(self) -> Self {
        Self { word: self.format.cleaned(self.word), ..self }
    }

    /// Returns whether the page may have been written since it began to be
    /// [`cleaned`](LeafWord::cleaned); only for a present leaf.
    #[inline]
    pub const fn is_touched(self) -> bool {
        self.format.is_touched(self.word)
    }

    /// Returns whether the leaf permits this access.
    #[cfg(test)]
    pub fn permits(self, access: crate::virt::PageAccess) -> bool {
        use crate::virt::PageAccess;
        let bit = match access {
            PageAccess::Read => 1 << 0,
            PageAccess::Write => 1 << 1,
            // EPT has a separate bit for this, NPT the sign. Only in a leaf of the shared zeros it
            // differs from the permission to read.
            PageAccess::Execute if shows_zeros(self.word) => 0,
            PageAccess::Execute => 1 << 0,
        };
        self.word & bit != 0
    }
}
