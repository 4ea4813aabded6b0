//! When reclaim starts and when it stops.

/// Bounds of the number of free frames, kept by reclaim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watermarks {
    /// Fewer free frames than this start reclaim.
    pub low: u32,
    /// Reclaim continues until this many are free or on their way to the free list.
    pub high: u32,
}

/// Frames above the low mark that must be free before a page-in reads neighbours along.
const PLENTY: u32 = 32;

impl Watermarks {
    /// Returns the marks for a pool of `frames` frames.
    ///
    /// The low mark is a 128th of the pool: at least one batch of victims even for the smallest
    /// useful pools, and at most 16 MiB, because a free frame is unused memory. The high mark is
    /// twice the low one, so that reclaim works in batches.
    pub const fn for_pool(frames: u32) -> Self {
        let low = frames / 128;
        let low = if low < 8 { 8 } else { low };
        let low = if low > 4096 { 4096 } else { low };
        Self { low, high: low * 2 }
    }

    /// Returns the marks raised by `frames` frames.
    #[inline]
    #[must_use]
    pub const fn raised_by(&self, frames: u32) -> Self {
        Self { low: self.low.saturating_add(frames), high: self.high.saturating_add(frames) }
    }

    /// Returns whether reclaim has to start.
    pub const fn is_low(&self, free: u32) -> bool {
        free < self.low
    }

    /// Returns how many frames reclaim has to find, with `coming` already on their way to the free
    /// list.
    pub const fn shortage(&self, free: u32, coming: u32) -> u32 {
        self.high.saturating_sub(free.saturating_add(coming))
    }

    /// Returns whether free frames are so few that old dirty pages are worth cleaning.
    #[inline]
    pub const fn is_scarce(&self, free: u32) -> bool {
        free < self.high.saturating_mul(2)
    }

    /// Returns whether frames may be spent on pages that no access has demanded yet.
    pub const fn is_plenty(&self, free: u32) -> bool {
        free >= self.low + PLENTY
    }

    /// Returns whether frames may be spent on the next pages of a walk. They are used soon, so
    /// fewer free frames suffice: reclaim is active then, and a reserve is left.
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
        assert_eq!(
            (marks.shortage(5, 0), marks.shortage(5, 10), marks.shortage(25, u32::MAX)),
            (15, 5, 0)
        );
        assert!(marks.is_low(9) && !marks.is_low(10));
        // Also if fewer frames are free than the marks are raised by.
        assert_eq!(
            (marks.raised_by(100).shortage(5, 30), marks.raised_by(u32::MAX).high),
            (85, u32::MAX)
        );
    }
}
