//! Promised free frames: frames freed from a crashed image belong to the partition that restarts.
//!
//! Invariant: a frame is handed to holder `x` only while the free list is longer than the sum of
//! all *other* holders' credits. A holder's own credit shrinks as it takes frames, so a promise is
//! used up, never exceeded.

/// Most holders, one for each memory object of the pager.
pub const MAX_HOLDERS: usize = 64;

/// The credits of all holders.
#[derive(Clone, Debug)]
pub struct FrameCredits {
    of: [u32; MAX_HOLDERS],
    total: u32,
}

impl Default for FrameCredits {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameCredits {
    /// Makes the table without promises.
    pub const fn new() -> Self {
        Self { of: [0; MAX_HOLDERS], total: 0 }
    }

    /// Sets `holder`'s credit to `frames`.
    pub fn set(&mut self, holder: usize, frames: u32) {
        self.total = self.total - self.of[holder] + frames;
        self.of[holder] = frames;
    }

    /// Promises `frames` more to `holder`.
    pub fn add(&mut self, holder: usize, frames: u32) {
        self.set(holder, self.of[holder].saturating_add(frames));
    }

    /// Returns `holder`'s credit.
    pub fn of(&self, holder: usize) -> u32 {
        self.of[holder]
    }

    /// Returns the sum of all credits.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Returns how many of `free` frames `holder` may take.
    pub fn available(&self, holder: usize, free: u32) -> u32 {
        free.saturating_sub(self.total - self.of[holder])
    }

    /// Notes that `holder` has taken `frames`.
    pub fn spend(&mut self, holder: usize, frames: u32) {
        self.set(holder, self.of[holder].saturating_sub(frames));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_cannot_take_a_restarting_partitions_frames() {
        let mut credits = FrameCredits::new();
        credits.add(1, 30);
        assert_eq!((credits.available(0, 40), credits.available(1, 40)), (10, 40));
        assert_eq!(credits.available(0, 20), 0);
    }

    #[test]
    fn a_credit_is_used_up_by_its_holder() {
        let mut credits = FrameCredits::new();
        credits.add(1, 30);
        credits.spend(1, 20);
        assert_eq!((credits.of(1), credits.available(0, 40)), (10, 30));
        credits.spend(1, 20);
        assert_eq!((credits.total(), credits.available(0, 40)), (0, 40));
    }
}
