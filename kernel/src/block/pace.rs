//! Limits the bytes of writes in flight on a disk, so that a new request is answered within half a
//! second.
//!
//! A disk serves requests more or less in turn, so a read or a beat waits behind earlier requests.
//! The limit follows the measured latency. An answer that took longer than [`GOAL_NS`] shrinks the
//! limit in proportion. An answer that was quick while the limit was in use lets it grow by the
//! size of the write, which doubles it in the time of one answer.
//!
//! ```text
//!   bytes ── admit ──> in flight ── answer after t ──┬─ t > goal: bound * goal / t
//!                                                    └─ t <= goal, bound in use: bound + bytes, or an eighth
//! ```

use crate::time::Ns;

/// Target latency: half of the promised one, because a request also waits for the request that is
/// being served.
pub const GOAL_NS: Ns = Ns::from_ms(250);
/// The limit at the start: one request of the usual size.
pub const FIRST: u64 = 512 << 10;
/// Smallest and largest limit.
pub const BOUNDS: core::ops::RangeInclusive<u64> = (32 << 10)..=(16 << 20);

/// The limit of one disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WritePace {
    bound: u64,
    in_flight: u64,
    growth: Growth,
}

/// How the limit grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Growth {
    /// Doubles in the time of an answer, until the disk's speed is reached.
    Fast,
    /// Grows by an eighth, to stay near the disk's speed.
    Slow,
}

impl WritePace {
    /// Makes the initial limit, with nothing in flight.
    pub const fn new() -> Self {
        Self { bound: FIRST, in_flight: 0, growth: Growth::Fast }
    }

    /// Returns the most bytes that one request should have.
    pub const fn room(&self) -> u64 {
        self.bound
    }

    /// Admits a write of `bytes` bytes if it may be submitted now; a write is always admitted if
    /// nothing is in flight.
    pub const fn admit(&mut self, bytes: u64) -> bool {
        let is_free = self.in_flight == 0 || self.in_flight.saturating_add(bytes) <= self.bound;
        if is_free {
            self.in_flight += bytes;
        }
        is_free
    }

    /// Takes back an admitted write that was not submitted after all.
    pub const fn withdraw(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// Records the answer to a write that was submitted `latency_ns` ago.
    pub fn answered(&mut self, bytes: u64, latency_ns: Ns) {
        let was_in_use = self.in_flight.saturating_mul(2) >= self.bound;
        self.withdraw(bytes);
        let bound = if latency_ns > GOAL_NS {
            self.growth = Growth::Slow;
            let shrunk = u128::from(self.bound) * u128::from(GOAL_NS.as_u64())
                / u128::from(latency_ns.as_u64());
            // Writes in flight together have similar latencies: several such answers must not
            // shrink the limit to nothing.
            u64::try_from(shrunk).unwrap_or(self.bound).max(self.bound / 2)
        } else if was_in_use {
            let share = if self.growth == Growth::Fast { 1 } else { 8 };
            self.bound.saturating_add(bytes / share)
        } else {
            self.bound
        };
        self.bound = bound.clamp(*BOUNDS.start(), *BOUNDS.end());
    }
}

impl Default for WritePace {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const SECOND: Ns = Ns::from_secs(1);

    /// Simulates a disk of `speed` bytes per second that serves writes in turn, and a writer that
    /// always has more. Returns the longest wait of a new request in the last half of the time, and
    /// the bytes written.
    fn simulate(speed: impl Fn(Ns) -> u64, seconds: u64) -> (Ns, u64) {
        let (mut pace, mut now, mut busy_until) = (WritePace::new(), Ns::ZERO, Ns::ZERO);
        let mut queue: VecDeque<(Ns, Ns, u64)> = VecDeque::new();
        let (mut worst, mut written) = (Ns::ZERO, 0);
        while now < seconds * SECOND {
            let bytes = pace.room().min(504 << 10);
            while queue.len() < 63 && pace.admit(bytes) {
                busy_until = busy_until.max(now) + bytes * SECOND / speed(now);
                queue.push_back((busy_until, now, bytes));
            }
            if now > seconds * SECOND / 2 {
                worst = worst.max(busy_until.saturating_sub(now));
            }
            let (done, submitted, bytes) = queue.pop_front().unwrap();
            now = done.max(now);
            written += bytes;
            pace.answered(bytes, now - submitted);
        }
        (worst, written)
    }

    #[test]
    fn a_new_request_waits_half_a_second_at_most_on_disks_of_any_speed() {
        for speed in [256 << 10, 1 << 20, 5 << 20, 50 << 20, 500 << 20, 4 << 30] {
            let (worst, written) = simulate(|_| speed, 20);
            assert!(worst <= SECOND / 2, "{worst:?} at {speed} bytes/s");
            assert!(written >= speed * 20 / 10 * 9, "{written} bytes at {speed} bytes/s");
        }
    }

    #[test]
    fn a_disk_that_becomes_slow_is_followed() {
        let (worst, _) = simulate(|now| if now < 5 * SECOND { 500 << 20 } else { 1 << 20 }, 60);
        assert!(worst <= SECOND / 2, "{worst:?}");
    }

    #[test]
    fn one_write_always_goes_and_a_withdrawn_one_leaves_nothing_behind() {
        let mut pace = WritePace::new();
        assert!(pace.admit(1 << 30) && !pace.admit(512));
        pace.withdraw(1 << 30);
        assert_eq!(pace, WritePace::new());
        for _ in 0..100 {
            assert!(pace.admit(1 << 20));
            pace.answered(1 << 20, 30 * SECOND);
        }
        assert_eq!(pace.room(), *BOUNDS.start());
    }
}
