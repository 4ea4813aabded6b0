//! A set of the 256 interrupt vectors: the form of the IRR, ISR and TMR registers.

/// A set of interrupt vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Vectors([u64; 4]);

impl Vectors {
    /// Returns the set as four words, the lowest vectors first.
    pub(super) const fn words(self) -> [u64; 4] {
        self.0
    }
    /// Makes the set of these words.
    pub(super) const fn of_words(words: [u64; 4]) -> Self {
        Self(words)
    }
    /// Adds `vector`.
    pub(super) const fn insert(&mut self, vector: u8) {
        self.0[vector as usize / 64] |= 1 << (vector % 64);
    }
    /// Removes `vector`.
    pub(super) const fn remove(&mut self, vector: u8) {
        self.0[vector as usize / 64] &= !(1 << (vector % 64));
    }
    /// Tells whether `vector` is in the set.
    pub(super) const fn contains(&self, vector: u8) -> bool {
        self.0[vector as usize / 64] & (1 << (vector % 64)) != 0
    }
    /// Tells whether the set is empty.
    #[inline(always)]
    pub(super) const fn is_empty(&self) -> bool {
        let [a, b, c, d] = self.0;
        a | b | c | d == 0
    }
    /// Returns the highest vector: the one with the highest priority.
    #[inline]
    pub(super) const fn highest(&self) -> Option<u8> {
        let mut word = 4;
        while word > 0 {
            word -= 1;
            let bits = self.0[word];
            if bits != 0 {
                return Some(word as u8 * 64 + (63 - bits.leading_zeros() as u8));
            }
        }
        None
    }
    /// Returns register `index` (0 to 7): 32 vectors.
    pub(super) const fn register(&self, index: u8) -> u32 {
        (self.0[index as usize / 2 % 4] >> (index % 2 * 32)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_vector_wins_at_every_word_edge() {
        let mut set = Vectors::default();
        assert!(set.highest().is_none() && set.is_empty());
        for vector in [0, 31, 32, 63, 64, 255] {
            set.insert(vector);
            assert!(set.highest() == Some(vector) && !set.is_empty());
        }
        set.remove(255);
        assert_eq!(set.highest(), Some(64));
        assert!(set.contains(63) && !set.contains(62));
        assert_eq!((set.register(0), set.register(7)), (0x8000_0001, 0));
    }
}
