//! Chooses the object that gives a page, and the page: the clock of the published pool algorithm,
//! behind a trait that another policy can implement.
//!
//! The choice has two steps. [`ReclaimPolicy::victim`] picks the object: a dump image first,
//! because all of it has to go anyway; else the partition with the largest gap between its share of
//! the overage and the frames that it has already given. The object's hand then goes over its
//! pages. [`ReclaimPolicy::judge`] decides on each page that was not touched since the last visit:
//!
//! ```text
//!  A set ────> stays        (the hand clears A; the next visit takes it unless touched again)
//!  D clear ──> EvictClean   (no I/O: the block is current, or the page is still its initial zeros)
//!  else ─────> WriteOut
//! ```
//!
//! A pinned page cannot be evicted whatever the verdict; `mm` enforces that, not the policy.
//!
//! The policy is a type parameter, not a trait object: `judge` is inlined into the loop over the
//! leaves.

use crate::mm::object_id::ObjectId;

/// A memory object that could give frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReclaimCandidate {
    /// The object.
    pub object: ObjectId,
    /// Whether it is a dump image.
    pub kind: CandidateKind,
    /// Pages of its logical memory.
    pub logical: u32,
    /// Frames it holds.
    pub resident: u32,
    /// Frames it keeps while it lives.
    pub minimum: u32,
    /// Fraction of its frames that is in use, in 256ths.
    pub used: u16,
}

impl ReclaimCandidate {
    /// Returns how many frames can be taken from it: all of an image, else those above the minimum.
    pub const fn may_give(&self) -> u32 {
        match self.kind {
            CandidateKind::Image => self.resident,
            CandidateKind::Live => self.resident.saturating_sub(self.minimum),
        }
    }

    /// Returns how many of its pages have no frame.
    pub const fn given(&self) -> u32 {
        self.logical.saturating_sub(self.resident)
    }
}

/// Kind of a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CandidateKind {
    /// The memory of a running partition.
    Live,
    /// The memory of a crashed incarnation.
    Image,
}

/// State of a resident page that was not touched since the clock hand's last visit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageView {
    /// Not written since it was created or read.
    pub clean: bool,
}

/// Decision about a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageVerdict {
    /// Leave it mapped.
    Skip,
    /// Unmap and free it, without I/O.
    EvictClean,
    /// Unmap it, write it (unless it is zero) and free it.
    WriteOut,
}

/// The replaceable part of reclaim.
pub trait ReclaimPolicy {
    /// Picks the next victim. `pool` is the number of frames that all candidates share, `high` the
    /// high mark.
    fn victim(&mut self, pool: u32, high: u32, candidates: &[ReclaimCandidate])
    -> Option<ObjectId>;

    /// Informs the policy of each candidate's use, about once a second.
    fn sampled(&mut self, _pool: u32, _high: u32, _candidates: &[ReclaimCandidate]) {}

    /// Clears the state of `object`: its number belongs to another object from now on.
    fn forget(&mut self, _object: ObjectId) {}

    /// Judges a resident page that was not touched since the hand's last visit.
    fn judge(&self, page: PageView) -> PageVerdict;
}

/// The clock, with shares by logical size alone; [`SharesPolicy`](super::SharesPolicy) also follows
/// use.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockPolicy;

impl ReclaimPolicy for ClockPolicy {
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
        let logical: u64 = candidates.iter().map(|c| u64::from(c.logical)).sum();
        let overage = (logical + u64::from(high)).saturating_sub(u64::from(pool));
        giving().max_by_key(|c| gap(c, overage, logical)).map(|c| c.object)
    }

    #[inline]
    fn judge(&self, page: PageView) -> PageVerdict {
        match page {
            PageView { clean: true } => PageVerdict::EvictClean,
            PageView { clean: false } => PageVerdict::WriteOut,
        }
    }
}

/// Returns the candidate's donation (its share of the overage by logical size) less what it has
/// given already.
fn gap(candidate: &ReclaimCandidate, overage: u64, logical: u64) -> i64 {
    let donation = overage * u64::from(candidate.logical) / logical.max(1);
    donation as i64 - i64::from(candidate.given())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: ReclaimCandidate = ReclaimCandidate {
        object: ObjectId::of_test(0),
        kind: CandidateKind::Live,
        logical: 100,
        resident: 50,
        minimum: 8,
        used: 255,
    };

    #[test]
    fn a_dump_image_gives_first() {
        let image = ReclaimCandidate {
            object: ObjectId::of_test(3),
            kind: CandidateKind::Image,
            logical: 10,
            resident: 1,
            minimum: 8,
            used: 0,
        };
        assert_eq!(ClockPolicy.victim(100, 4, &[LIVE, image]), Some(ObjectId::of_test(3)));
        assert_eq!(
            ClockPolicy.victim(100, 4, &[LIVE, ReclaimCandidate { resident: 0, ..image }]),
            Some(ObjectId::of_test(0))
        );
    }

    #[test]
    fn the_partition_farthest_behind_its_donation_gives_next() {
        let behind = ReclaimCandidate { object: ObjectId::of_test(1), resident: 90, ..LIVE };
        assert_eq!(ClockPolicy.victim(120, 4, &[LIVE, behind]), Some(ObjectId::of_test(1)));
        let small =
            ReclaimCandidate { object: ObjectId::of_test(2), logical: 40, resident: 40, ..LIVE };
        assert_eq!(ClockPolicy.victim(120, 4, &[LIVE, behind, small]), Some(ObjectId::of_test(1)));
    }

    #[test]
    fn nobody_falls_below_the_minimum() {
        assert_eq!(ClockPolicy.victim(120, 4, &[ReclaimCandidate { resident: 8, ..LIVE }]), None);
        assert_eq!(ReclaimCandidate { resident: 10, ..LIVE }.may_give(), 2);
    }

    #[test]
    fn nobody_gives_where_nothing_is_resident() {
        assert_eq!(ClockPolicy.victim(10, 4, &[ReclaimCandidate { resident: 0, ..LIVE }]), None);
        assert_eq!(ClockPolicy.victim(10, 4, &[]), None);
    }

    #[test]
    fn a_clean_page_leaves_without_a_write() {
        assert_eq!(ClockPolicy.judge(PageView { clean: true }), PageVerdict::EvictClean);
        assert_eq!(ClockPolicy.judge(PageView { clean: false }), PageVerdict::WriteOut);
    }
}
