//! Counts a partition's restarts after crashes, for the option `restart_limit`.
//!
//! ```text
//!   crash ──> fewer restarts than the limit in the time before it? ── yes ──> restart, and it counts
//!                                                                  └─ no ───> the partition stops
//! ```
//!
//! Only restarts after a crash count. A guest that resets itself works as intended.

use crate::config::{MAX_RESTARTS, RestartLimit};
use crate::time::Ns;
use arrayvec::ArrayVec;

/// The limit's verdict on a partition that has crashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestartVerdict {
    /// It may restart.
    Allowed,
    /// It has used up this limit.
    Exhausted(RestartLimit),
}

/// Counts the restarts of a partition.
#[derive(Clone, Debug)]
pub struct RestartCounter {
    limit: Option<RestartLimit>,
    /// Times of the crashes that led to a restart, nanoseconds since the start, the oldest first;
    /// no more than the limit.
    crashes_ns: ArrayVec<Ns, MAX_RESTARTS>,
}

impl RestartCounter {
    /// Makes a counter of no restarts.
    pub fn new(limit: Option<RestartLimit>) -> Self {
        Self { limit, crashes_ns: ArrayVec::new() }
    }

    /// Decides on the crash at `now_ns`. An allowed restart is counted.
    pub fn crashed(&mut self, now_ns: Ns) -> RestartVerdict {
        let Some(limit) = self.limit else { return RestartVerdict::Allowed };
        let time = Ns::new(limit.time_ns);
        self.crashes_ns.retain(|at_ns| now_ns.saturating_sub(*at_ns) < time);
        // A limit beyond the room is an invalid configuration; the host command refuses it.
        if self.crashes_ns.len() >= limit.restarts as usize
            || self.crashes_ns.try_push(now_ns).is_err()
        {
            return RestartVerdict::Exhausted(limit);
        }
        RestartVerdict::Allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(restarts: u32, time_ns: u64) -> RestartCounter {
        RestartCounter::new(Some(RestartLimit { restarts, time_ns }))
    }

    fn allowed(counter: &mut RestartCounter, times: &[u64]) -> Vec<bool> {
        times.iter().map(|&at| counter.crashed(Ns::new(at)) == RestartVerdict::Allowed).collect()
    }

    #[test]
    fn without_a_limit_a_partition_restarts_for_ever() {
        let mut counter = RestartCounter::new(None);
        assert!((0..1000).all(|at| counter.crashed(Ns::new(at)) == RestartVerdict::Allowed));
    }

    #[test]
    fn restarts_beyond_the_limit_are_refused_until_the_time_has_passed() {
        let limit = RestartLimit { restarts: 2, time_ns: 100 };
        let mut counter = RestartCounter::new(Some(limit));
        assert_eq!(allowed(&mut counter, &[0, 50]), [true, true]);
        assert_eq!(counter.crashed(Ns::new(99)), RestartVerdict::Exhausted(limit));
        // The first restart is now as old as the limit's time; the refused one never counted.
        assert_eq!(allowed(&mut counter, &[100, 149, 150]), [true, false, true]);
    }

    #[test]
    fn crashes_that_lie_apart_never_reach_the_limit() {
        let mut counter = counter(1, 10);
        assert!((0..1000).all(|n| counter.crashed(Ns::new(n * 10)) == RestartVerdict::Allowed));
    }

    #[test]
    fn a_limit_beyond_the_room_holds_at_the_room() {
        let mut counter = counter(u32::MAX, 1000);
        let verdicts = allowed(&mut counter, &[1; MAX_RESTARTS + 1]);
        assert!(verdicts[..MAX_RESTARTS].iter().all(|allowed| *allowed) && !verdicts[MAX_RESTARTS]);
    }

    #[test]
    fn no_restart_at_all_may_be_allowed() {
        assert_eq!(allowed(&mut counter(0, 10), &[5, 500]), [false, false]);
    }
}
