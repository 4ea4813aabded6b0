//! A set of the 256 interrupt vectors, as the IRR, ISR and TMR registers are.

/// A set of interrupt vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vectors([u32; 8]);

impl Vectors {
    /// Adds `vector`.
    pub const fn insert(&mut self, vector: u8) {
        self.0[vector as usize / 32] |= 1 << (vector % 32);
    }
    /// Takes `vector` out.
    pub const fn remove(&mut self, vector: u8) {
        self.0[vector as usize / 32] &= !(1 << (vector % 32));
    }
    /// Tells whether `vector` is in the set.
    pub const fn contains(&self, vector: u8) -> bool {
        self.0[vector as usize / 32] & (1 << (vector % 32)) != 0
    }
    /// Returns the highest vector: the one with the highest priority.
    pub fn highest(&self) -> Option<u8> {
        let word = self.0.iter().rposition(|&w| w != 0)?;
        Some(word as u8 * 32 + self.0[word].ilog2() as u8)
    }
    /// Returns register `index` (0 to 7): 32 vectors.
    pub const fn register(&self, index: u8) -> u32 {
        self.0[index as usize % 8]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_vector_wins_at_every_word_edge() {
        let mut set = Vectors::default();
        assert_eq!(set.highest(), None);
        for vector in [0, 31, 32, 63, 64, 255] {
            set.insert(vector);
            assert_eq!(set.highest(), Some(vector));
        }
        set.remove(255);
        assert_eq!(set.highest(), Some(64));
        assert!(set.contains(63) && !set.contains(62));
        assert_eq!((set.register(0), set.register(7)), (0x8000_0001, 0));
    }
}
