//! When reclaim starts and when it stops.

/// Numbers of free frames between which reclaim keeps the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watermarks {
    /// Fewer free frames than this start reclaim.
    pub low: u32,
    /// Reclaim goes on until this many are free or on their way.
    pub high: u32,
}

/// Frames above the high mark that must be free before a page-in brings neighbours along.
const PLENTY: u32 = 32;

impl Watermarks {
    /// Returns the marks for a pool of `frames` frames.
    ///
    /// A 128th of the pool is the low mark: one batch of victims for the smallest useful pools, and never more than
    /// 16 MiB, because a free frame is a frame that nobody uses. The high mark is twice the low one,
    /// so that reclaim comes in batches.
    pub const fn for_pool(frames: u32) -> Self {
        let low = frames / 128;
        let low = if low < 8 { 8 } else { low };
        let low = if low > 4096 { 4096 } else { low };
        Self { low, high: low * 2 }
    }

    /// Returns the marks with so many frames more to be kept free.
    #[inline]
    #[must_use]
    pub const fn raised_by(&self, frames: u32) -> Self {
        Self { low: self.low.saturating_add(frames), high: self.high.saturating_add(frames) }
    }

    /// Returns whether reclaim has to start.
    pub const fn is_low(&self, free: u32) -> bool {
        free < self.low
    }

    /// Returns how many frames reclaim has to find, with `coming` already on their way to the free list.
    pub const fn shortage(&self, free: u32, coming: u32) -> u32 {
        self.high.saturating_sub(free.saturating_add(coming))
    }

    /// Returns whether free frames are so few that old dirty pages are worth cleaning.
    #[inline]
    pub const fn is_scarce(&self, free: u32) -> bool {
        free < self.high.saturating_mul(2)
    }

    /// Returns whether frames may be spent on pages that nobody has asked for yet.
    pub const fn is_plenty(&self, free: u32) -> bool {
        free >= self.low + PLENTY
    }

    /// Returns whether frames may be spent on the next pages of a walk, which are used soon: reclaim is at work, and a reserve is left.
    pub const fn is_enough_to_walk(&self, free: u32) -> bool {
        free >= self.low / 2 + PLENTY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_bounded_for_tiny_and_huge_pools() {
        assert_eq!(Watermarks::for_pool(0), Watermarks { low: 8, high: 16 });
        assert_eq!(Watermarks::for_pool(32768), Watermarks { low: 256, high: 512 });
        assert_eq!(Watermarks::for_pool(u32::MAX), Watermarks { low: 4096, high: 8192 });
    }

    #[test]
    fn frames_on_their_way_count_against_the_shortage() {
        let marks = Watermarks { low: 10, high: 20 };
        assert_eq!((marks.shortage(5, 0), marks.shortage(5, 10), marks.shortage(25, u32::MAX)), (15, 5, 0));
        assert!(marks.is_low(9) && !marks.is_low(10));
        // Also where fewer are free than the marks are raised by.
        assert_eq!((marks.raised_by(100).shortage(5, 30), marks.raised_by(u32::MAX).high), (85, u32::MAX));
    }
}
