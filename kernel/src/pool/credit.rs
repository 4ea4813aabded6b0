//! Promised free frames: frames freed from a crashed image belong to the partition that restarts.
//!
//! Invariant: a frame is handed to account `x` only while the free list is longer than the sum of
//! all *other* accounts' credits. An account's own credit shrinks as it takes frames, so a promise
//! is used up, never exceeded.

use super::terms::AccountId;

/// Most accounts: one for each memory object of the pager.
pub const MAX_ACCOUNTS: usize = 64;

/// The credits of all accounts.
#[derive(Clone, Debug)]
pub struct FrameCredits {
    of: [u32; MAX_ACCOUNTS],
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
        Self { of: [0; MAX_ACCOUNTS], total: 0 }
    }

    /// Sets `account`'s credit to `frames`.
    pub fn set(&mut self, account: AccountId, frames: u32) {
        self.total = self.total - self.of[account.index()] + frames;
        self.of[account.index()] = frames;
    }

    /// Promises `frames` more to `account`.
    pub fn add(&mut self, account: AccountId, frames: u32) {
        self.set(account, self.of[account.index()].saturating_add(frames));
    }

    /// Returns `account`'s credit.
    pub fn of(&self, account: AccountId) -> u32 {
        self.of[account.index()]
    }

    /// Returns the sum of all credits.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Returns how many of `free` frames `account` may take.
    pub fn available(&self, account: AccountId, free: u32) -> u32 {
        free.saturating_sub(self.total - self.of[account.index()])
    }

    /// Notes that `account` has taken `frames`.
    pub fn spend(&mut self, account: AccountId, frames: u32) {
        self.set(account, self.of[account.index()].saturating_sub(frames));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(number: u16) -> AccountId {
        AccountId::new(number)
    }

    #[test]
    fn neighbours_cannot_take_a_restarting_partitions_frames() {
        let mut credits = FrameCredits::new();
        credits.add(account(1), 30);
        assert_eq!(
            (credits.available(account(0), 40), credits.available(account(1), 40)),
            (10, 40)
        );
        assert_eq!(credits.available(account(0), 20), 0);
    }

    #[test]
    fn a_credit_is_used_up_by_its_holder() {
        let mut credits = FrameCredits::new();
        credits.add(account(1), 30);
        credits.spend(account(1), 20);
        assert_eq!((credits.of(account(1)), credits.available(account(0), 40)), (10, 30));
        credits.spend(account(1), 20);
        assert_eq!((credits.total(), credits.available(account(0), 40)), (0, 40));
    }
}
