//! A run of rewrites determined by seed and incarnation: these two give the content of every page
//! at its end.

use crate::Stream;

/// The rewrites of one incarnation.
pub struct Turmoil {
    stream: Stream,
    pages: u64,
    left: u64,
}

impl Turmoil {
    /// Plans between `least` and twice as many rewrites of `pages` pages.
    pub fn new(seed: u64, incarnation: u64, pages: u64, least: u64) -> Self {
        let mut stream = Stream(Stream(seed ^ incarnation.rotate_left(40) | 1 << 63).next() | 1);
        let left = least + (stream.next() >> 32) % least.max(1);
        Self { stream, pages, left }
    }

    /// Returns how many rewrites are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }
}

/// Returns the next page to rewrite. Three of four are among the first eighth: some pages are hot,
/// most are not.
impl Iterator for Turmoil {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let random = self.stream.next() >> 16;
        let range = if random.is_multiple_of(4) { self.pages } else { self.pages / 8 };
        Some((random >> 2) % range.max(1))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_run_repeats_and_the_next_incarnation_has_another() {
        let run = |incarnation| Turmoil::new(7, incarnation, 500, 100).collect::<Vec<_>>();
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!((100..200).contains(&run(3).len()) && run(3).iter().all(|&page| page < 500));
    }
}
