//! The policy of the published rules: a partition's donation follows from its logical size, and
//! from its measured use.
//!
//! ```text
//!  overage     = logical memory of all + high mark - pool
//!  donation(p) = overage * logical(p) / logical of all + shift(p) * logical(p) / 256
//!   shift(p)      one step up at each sampling if p uses less of its resident pages than the mean;
//!                 one down if it uses more, while the donations of all reach the overage;
//!                 one step back towards 0 if it uses about the mean
//! ```
//!
//! Use is sampled: the fraction of a few random resident pages that were touched within the
//! interval. Idle partitions give more and more, active ones less; all start equal. The published
//! step is one 256th every few seconds. Here sampling happens once a second and the step is a 64th,
//! so a partition that falls idle has given half of its share within a minute.
//!
//! Use above `ACTIVE` counts as equal: only whether a partition is active matters, not how active.
//! A partition with many frames progresses faster and touches more of them, and a partition that
//! gives frames loses accessed bits to the clock. Without the bound a small difference between two
//! equal partitions would grow until one has all frames.

use super::policy::{
    CandidateKind, ClockPolicy, PageVerdict, PageView, ReclaimCandidate, ReclaimPolicy,
};
use crate::mm::object_id::ObjectId;

/// Change of a shift at each sampling, in 256ths of the logical size.
const STEP: i32 = 4;
/// Largest shift in either direction, in 256ths of the logical size.
const MOST: i32 = 128;
/// Deviation from the mean that counts as equal, in 256ths.
const DEAD_BAND: u32 = 8;
/// Use above which a partition is active, in 256ths.
const ACTIVE: u32 = 32;

/// Shares that follow the use of memory.
#[derive(Clone, Debug)]
pub struct SharesPolicy {
    shifts: [i32; ObjectId::COUNT],
}

impl SharesPolicy {
    /// Starts with equal shares.
    pub const fn new() -> Self {
        Self { shifts: [0; ObjectId::COUNT] }
    }

    fn donation(&self, candidate: &ReclaimCandidate, overage: u64, logical: u64) -> i64 {
        let share = overage * u64::from(candidate.logical) / logical.max(1);
        share as i64
            + i64::from(self.shifts[candidate.object.index()]) * i64::from(candidate.logical) / 256
    }

    /// Returns the candidate's donation less the frames it has given already.
    fn gap(&self, candidate: &ReclaimCandidate, overage: u64, logical: u64) -> i64 {
        self.donation(candidate, overage, logical) - i64::from(candidate.given())
    }
}

impl Default for SharesPolicy {
    fn default() -> Self {
        Self::new()
    }
}

fn live(candidates: &[ReclaimCandidate]) -> impl Iterator<Item = &ReclaimCandidate> + Clone {
    candidates.iter().filter(|c| c.kind == CandidateKind::Live)
}

fn logical(candidates: &[ReclaimCandidate]) -> u64 {
    candidates.iter().map(|c| u64::from(c.logical)).sum()
}

impl ReclaimPolicy for SharesPolicy {
    fn victim(
        &mut self,
        pool: u32,
        high: u32,
        candidates: &[ReclaimCandidate],
    ) -> Option<ObjectId> {
        let giving = || candidates.iter().filter(|c| c.may_give() > 0);
        if let Some(image) = giving().find(|c| c.kind == CandidateKind::Image) {
            return Some(image.object);
        }
        let logical = logical(candidates);
        let overage = (logical + u64::from(high)).saturating_sub(u64::from(pool));
        giving().max_by_key(|c| self.gap(c, overage, logical)).map(|c| c.object)
    }

    fn sampled(&mut self, pool: u32, high: u32, candidates: &[ReclaimCandidate]) {
        let use_of = |c: &ReclaimCandidate| u32::from(c.used).min(ACTIVE);
        let (count, sum) =
            live(candidates).fold((0, 0), |(count, sum), c| (count + 1, sum + use_of(c)));
        if count < 2 {
            return;
        }
        let (mean, logical) = (sum / count, logical(candidates));
        let overage = (logical + u64::from(high)).saturating_sub(u64::from(pool));
        for c in live(candidates).filter(|c| use_of(c) <= mean + DEAD_BAND) {
            let shift = &mut self.shifts[c.object.index()];
            *shift = match use_of(c) + DEAD_BAND < mean {
                true => (*shift + STEP).min(MOST),
                false => *shift - shift.signum() * STEP,
            };
        }
        for c in live(candidates).filter(|c| use_of(c) > mean + DEAD_BAND) {
            let before = self.shifts[c.object.index()];
            self.shifts[c.object.index()] = (before - STEP).max(-MOST);
            let donated: i64 = live(candidates).map(|c| self.donation(c, overage, logical)).sum();
            if donated < overage as i64 {
                self.shifts[c.object.index()] = before;
            }
        }
    }

    fn forget(&mut self, object: ObjectId) {
        self.shifts[object.index()] = 0;
    }

    #[inline]
    fn judge(&self, page: PageView) -> PageVerdict {
        ClockPolicy.judge(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIGH: u32 = 10;
    const POOL: u32 = 200;

    fn partition(number: u16, resident: u32, used: u16) -> ReclaimCandidate {
        ReclaimCandidate {
            object: ObjectId::of_test(number),
            kind: CandidateKind::Live,
            logical: 200,
            resident,
            minimum: 16,
            used,
        }
    }

    #[test]
    fn equals_give_alike_and_a_larger_one_gives_more() {
        let mut shares = SharesPolicy::new();
        assert_eq!(
            shares.victim(POOL, HIGH, &[partition(0, 90, 128), partition(1, 100, 128)]),
            Some(ObjectId::of_test(1))
        );
        let large = ReclaimCandidate { logical: 400, ..partition(0, 150, 128) };
        assert_eq!(
            shares.victim(POOL, HIGH, &[large, partition(1, 60, 128)]),
            Some(ObjectId::of_test(0)),
            "250 given of 273, 140 of 136"
        );
        let poorer = ReclaimCandidate { resident: 110, ..large };
        assert_eq!(
            shares.victim(POOL, HIGH, &[poorer, partition(1, 60, 128)]),
            Some(ObjectId::of_test(1)),
            "290 given of 273"
        );
    }

    #[test]
    fn an_idle_partition_gives_for_an_active_one() {
        let mut shares = SharesPolicy::new();
        let pair = [partition(0, 100, 10), partition(1, 100, 250)];
        (0..10).for_each(|_| shares.sampled(POOL, HIGH, &pair));
        // The active partition may now be well ahead.
        assert_eq!(
            shares.victim(POOL, HIGH, &[partition(0, 90, 10), partition(1, 110, 250)]),
            Some(ObjectId::of_test(0))
        );
        // Reversed when the two change roles.
        let changed = [partition(0, 100, 250), partition(1, 100, 10)];
        (0..20).for_each(|_| shares.sampled(POOL, HIGH, &changed));
        assert_eq!(
            shares.victim(POOL, HIGH, &[partition(0, 110, 250), partition(1, 90, 10)]),
            Some(ObjectId::of_test(1))
        );
    }

    #[test]
    fn of_two_at_work_neither_gives_for_the_other() {
        let mut shares = SharesPolicy::new();
        (0..50).for_each(|_| {
            shares.sampled(POOL, HIGH, &[partition(0, 120, 250), partition(1, 80, 40)])
        });
        assert_eq!(
            shares.victim(POOL, HIGH, &[partition(0, 101, 250), partition(1, 100, 40)]),
            Some(ObjectId::of_test(0))
        );
    }

    #[test]
    fn who_works_again_takes_its_share_back() {
        let mut shares = SharesPolicy::new();
        (0..10).for_each(|_| {
            shares.sampled(POOL, HIGH, &[partition(0, 100, 0), partition(1, 100, 250)])
        });
        (0..20).for_each(|_| {
            shares.sampled(POOL, HIGH, &[partition(0, 60, 250), partition(1, 140, 250)])
        });
        assert_eq!(shares.shifts[..2], [0, 0]);
    }

    #[test]
    fn donations_never_fall_below_the_overage() {
        let mut shares = SharesPolicy::new();
        let three = [partition(0, 70, 255), partition(1, 70, 255), partition(2, 70, 0)];
        for _ in 0..200 {
            shares.sampled(POOL, HIGH, &three);
            let donated: i64 = three.iter().map(|c| shares.donation(c, 410, 600)).sum();
            assert!(donated >= 408, "{donated} of 410, but for rounding");
        }
    }

    #[test]
    fn nobody_falls_below_the_minimum() {
        let mut shares = SharesPolicy::new();
        assert_eq!(
            shares.victim(POOL, HIGH, &[partition(0, 16, 0), partition(1, 17, 255)]),
            Some(ObjectId::of_test(1))
        );
        assert_eq!(shares.victim(POOL, HIGH, &[partition(0, 16, 0), partition(1, 12, 255)]), None);
    }

    #[test]
    fn a_crashed_image_gives_first_and_all_of_it() {
        let image =
            ReclaimCandidate { kind: CandidateKind::Image, minimum: 16, ..partition(5, 3, 0) };
        assert_eq!(
            SharesPolicy::new().victim(POOL, HIGH, &[partition(0, 150, 0), image]),
            Some(ObjectId::of_test(5))
        );
    }

    #[test]
    fn the_next_object_of_a_number_begins_like_all_others() {
        let mut shares = SharesPolicy::new();
        (0..10).for_each(|_| {
            shares.sampled(POOL, HIGH, &[partition(0, 100, 10), partition(1, 100, 250)])
        });
        shares.forget(ObjectId::of_test(0));
        shares.forget(ObjectId::of_test(1));
        assert_eq!(
            shares.victim(POOL, HIGH, &[partition(0, 90, 10), partition(1, 100, 250)]),
            Some(ObjectId::of_test(1))
        );
    }
}
