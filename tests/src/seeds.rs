//! Seeded choices for tests: the seed is printed, and `TIDEPOOL_SEED` repeats a run.

use std::ops::Range;
use std::time::{Duration, SystemTime};

/// Reads a number from an environment variable.
pub fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Returns the seed of this run, from `TIDEPOOL_SEED` or the clock, and prints it.
pub fn announced() -> u64 {
    let clock = || {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(1, |since| u64::from(since.subsec_nanos()))
    };
    let seed = number_from("TIDEPOOL_SEED").unwrap_or_else(clock);
    println!("TIDEPOOL_SEED={seed}");
    seed
}

/// Pseudo-random numbers: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Choices(u64);

impl Choices {
    /// Starts the generator with a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Chooses a number from a range that is not empty.
    pub fn number(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// Returns true once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.number(0..n) == 0
    }

    /// Chooses a time in milliseconds.
    pub fn time(&mut self, ms: Range<u64>) -> Duration {
        Duration::from_millis(self.number(ms))
    }

    /// Chooses one of several.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.number(0..of.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_another_one_differs() {
        let take = |seed| {
            let mut choices = Choices::new(seed);
            [(); 8].map(|()| choices.number(10..20))
        };
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
        assert!(take(3).iter().all(|number| (10..20).contains(number)));
    }
}
