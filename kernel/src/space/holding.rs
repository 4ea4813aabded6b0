//! How the owner of a space reacts to the claims that it reads after each of its beats: pure rules.
//!
//! ```text
//!   write own claim ──> read both sectors ┬─ own claim, no higher epoch ─> Confirmed
//!         ^                               ├─ lower epoch, torn, empty ───> Overwritten: write again
//!         └───────────────────────────────┤
//!                                         └─ higher epoch, or equal of another node ──> Ended
//! ```
//!
//! An owner begins on trial. Until it has written both records with its epoch, its claim is the
//! only trace of it, and a late write may overwrite the claim. If that happens, or if a beat is not
//! confirmed before the last confirmation expires, the owner takes the space again from the start.
//!
//! The records are needed with three nodes in turn: a late beat of the first node may overwrite the
//! claim of the third while the second wakes up. The third has written both records with its epoch
//! before any other write, so the second sees that its ownership has ended.
//!
//! An owner whose lease has expired looks before it beats: with three nodes in turn its successor's
//! claim may lie in the sector that it would write. The lease runs from the *submission* of the
//! confirmed beat. A node that takes the space over has seen the claim unchanged for
//! [`WATCH_NS`](super::claim::WATCH_NS), which is longer than the lease, however late a beat lands.

use super::claim::{ClaimSector, LEASE_NS, SpaceClaim};
use super::taking::ClaimLook;
use super::uuid::Uuid;
use crate::time::Ns;

/// Verdict on a beat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BeatVerdict {
    /// This node still owns the space, with a lease until `lease_end_ns`.
    Confirmed {
        /// On this node's clock.
        lease_end_ns: Ns,
    },
    /// A late write of an earlier owner has overwritten the claim: write the claim again.
    Overwritten,
    /// The trial has failed: take the space again.
    Again,
    /// Another node has taken the space.
    Ended(Uuid),
}

/// A space that this node owns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceHolding {
    claim: SpaceClaim,
    /// Time when the last confirmation expires.
    lease_end_ns: Ns,
    standing: Standing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    OnTrial,
    Founded,
}

impl SpaceHolding {
    /// Starts with the claim that was taken, after a look that was submitted at `asked_ns`. The
    /// lease begins with the first confirmed beat.
    pub const fn new(claim: SpaceClaim, asked_ns: Ns) -> Self {
        Self { claim, lease_end_ns: asked_ns.saturating_add(LEASE_NS), standing: Standing::OnTrial }
    }

    /// Ends the trial, when both records have been written. Returns false, and stays on trial, if
    /// the lease has expired by now.
    pub fn found(&mut self, now_ns: Ns) -> bool {
        let is_in_time = now_ns <= self.lease_end_ns;
        if is_in_time {
            self.standing = Standing::Founded;
        }
        is_in_time
    }

    /// Returns whether the space has to be taken again, because no beat was confirmed in time.
    pub fn has_lapsed(&self, now_ns: Ns) -> bool {
        self.standing == Standing::OnTrial && now_ns > self.lease_end_ns
    }

    /// Returns when the lease ends; while on trial, when the trial ends.
    pub const fn lease_end_ns(&self) -> Ns {
        self.lease_end_ns
    }

    /// Returns the claim as last written.
    pub const fn claim(&self) -> SpaceClaim {
        self.claim
    }

    /// Returns the claim that the next beat writes.
    pub const fn beat(&mut self) -> SpaceClaim {
        self.claim = self.claim.next_beat();
        self.claim
    }

    /// Returns whether a look has to precede the next beat. After an expired lease another node may
    /// have taken the space, and with three nodes in turn its claim may lie in the sector that the
    /// beat would write.
    pub fn looks_first(&self, now_ns: Ns) -> bool {
        now_ns > self.lease_end_ns
    }

    /// Judges that look: [`BeatVerdict::Ended`], [`BeatVerdict::Again`], or
    /// [`BeatVerdict::Overwritten`], after which the caller continues with the beat. Nothing is
    /// confirmed yet.
    pub fn looked_first(&self, look: &ClaimLook) -> BeatVerdict {
        match self.successor(look) {
            Some(node) => BeatVerdict::Ended(node),
            None if self.standing == Standing::OnTrial => BeatVerdict::Again,
            None => BeatVerdict::Overwritten,
        }
    }

    /// Judges a read that was submitted after a beat's write had completed. That write was
    /// submitted at `written_ns`.
    pub fn looked(&mut self, look: &ClaimLook, written_ns: Ns) -> BeatVerdict {
        if let Some(node) = self.successor(look) {
            return BeatVerdict::Ended(node);
        }
        if self.has_lapsed(look.seen_ns) {
            return BeatVerdict::Again;
        }
        if look.claims.at(self.claim.epoch) == ClaimSector::Claim(self.claim) {
            self.lease_end_ns = written_ns.saturating_add(LEASE_NS);
            return BeatVerdict::Confirmed { lease_end_ns: self.lease_end_ns };
        }
        if self.standing == Standing::OnTrial {
            BeatVerdict::Again
        } else {
            BeatVerdict::Overwritten
        }
    }

    /// Returns another node that has taken the space, if any; [`Uuid::NIL`] if only a record shows
    /// it.
    fn successor(&self, look: &ClaimLook) -> Option<Uuid> {
        let mine = self.claim;
        let ends = |mark: ClaimSector| match mark {
            ClaimSector::Claim(other) | ClaimSector::Released(other) => {
                let is_later = other.epoch > mine.epoch
                    || other.epoch == mine.epoch && other.node != mine.node;
                is_later.then_some(other.node)
            }
            ClaimSector::Empty | ClaimSector::Torn(_) => None,
        };
        let claimed = look.claims.marks().into_iter().find_map(ends);
        claimed.or((look.record_epoch > mine.epoch).then_some(Uuid::NIL))
    }
}

#[cfg(test)]
mod tests {
    use super::super::claim::ClaimSectors;
    use super::*;

    fn look(claims: ClaimSectors, record_epoch: u64) -> ClaimLook {
        ClaimLook { claims, record_epoch, asked_ns: Ns::ZERO, seen_ns: Ns::ZERO }
    }

    const ME: Uuid = Uuid([1; 16]);
    const OTHER: Uuid = Uuid([2; 16]);

    fn founded(epoch: u64) -> SpaceHolding {
        let mut holding = SpaceHolding::new(SpaceClaim { node: ME, epoch, beat: 1 }, Ns::ZERO);
        assert!(holding.found(LEASE_NS));
        holding
    }

    fn marks() -> Vec<ClaimSector> {
        let mut all = vec![ClaimSector::Empty, ClaimSector::Torn(7)];
        for epoch in 0..8 {
            for (node, beat) in [(ME, 1), (ME, 2), (OTHER, 1)] {
                let claim = SpaceClaim { node, epoch, beat };
                all.extend([ClaimSector::Claim(claim), ClaimSector::Released(claim)]);
            }
        }
        all
    }

    /// Every pair of sectors against the three cases of the rule, formulated independently.
    #[test]
    fn every_pair_of_marks_is_judged_by_the_rule() {
        let mut holding = founded(4);
        let mine = holding.beat();
        for first in marks() {
            for second in marks() {
                let seen = ClaimSectors::NONE.with(0, first).with(1, second);
                let epochs = |m: ClaimSector| m.epoch().is_some_and(|e| e > 4);
                let strangers = |m: ClaimSector| match m {
                    ClaimSector::Claim(c) | ClaimSector::Released(c) => {
                        c.epoch == 4 && c.node == OTHER
                    }
                    _ => false,
                };
                let verdict = holding.looked(&look(seen, 4), Ns::new(100));
                let is_over = [first, second].into_iter().any(|m| epochs(m) || strangers(m));
                assert_eq!(matches!(verdict, BeatVerdict::Ended(_)), is_over, "{seen:?}");
                let before = holding.looked_first(&look(seen, 4));
                assert_eq!(
                    before,
                    if is_over { verdict } else { BeatVerdict::Overwritten },
                    "{seen:?}"
                );
                let is_there = first == ClaimSector::Claim(mine);
                let is_confirmed =
                    verdict == BeatVerdict::Confirmed { lease_end_ns: Ns::new(100) + LEASE_NS };
                assert_eq!(is_confirmed, !is_over && is_there, "{seen:?}");
            }
        }
    }

    #[test]
    fn a_late_beat_of_the_owner_before_does_not_end_the_new_one() {
        let mut holding = founded(5);
        let mine = holding.beat();
        let late = SpaceClaim { node: OTHER, epoch: 4, beat: 900 };
        let beside =
            ClaimSectors::NONE.with(5, ClaimSector::Claim(mine)).with(4, ClaimSector::Claim(late));
        assert!(matches!(
            holding.looked(&look(beside, 5), Ns::ZERO),
            BeatVerdict::Confirmed { .. }
        ));
        // Owners A, B, A: the late beat has overwritten the sector of the current owner.
        let over = ClaimSectors::NONE.with(1, ClaimSector::Claim(SpaceClaim { epoch: 3, ..late }));
        assert_eq!(holding.looked(&look(over, 0), Ns::ZERO), BeatVerdict::Overwritten);
    }

    #[test]
    fn a_record_of_a_later_owner_ends_one_whose_successors_claim_is_buried() {
        let mut holding = founded(4);
        let mine = holding.beat();
        let late = SpaceClaim { node: OTHER, epoch: 3, beat: 33 };
        let seen =
            ClaimSectors::NONE.with(4, ClaimSector::Claim(mine)).with(3, ClaimSector::Claim(late));
        assert!(matches!(holding.looked(&look(seen, 4), Ns::ZERO), BeatVerdict::Confirmed { .. }));
        assert!(matches!(holding.looked(&look(seen, 5), Ns::ZERO), BeatVerdict::Ended(_)));
    }

    #[test]
    fn an_owner_on_trial_whose_claim_was_buried_or_whose_beat_was_slow_begins_again() {
        let claim = SpaceClaim { node: ME, epoch: 5, beat: 1 };
        let mut holding = SpaceHolding::new(claim, Ns::ZERO);
        let mine = holding.beat();
        let there = ClaimSectors::NONE.with(5, ClaimSector::Claim(mine));
        let at = |claims, seen_ns| ClaimLook { seen_ns, ..look(claims, 0) };
        assert_eq!(
            holding.looked(&at(there, LEASE_NS), Ns::new(100)),
            BeatVerdict::Confirmed { lease_end_ns: Ns::new(100) + LEASE_NS }
        );
        assert_eq!(
            holding.looked(&at(ClaimSectors::NONE, Ns::ZERO), Ns::new(100)),
            BeatVerdict::Again
        );
        assert_eq!(
            holding.looked(&at(there, LEASE_NS + Ns::new(101)), LEASE_NS),
            BeatVerdict::Again
        );
        assert!(
            !holding.found(LEASE_NS + Ns::new(101)) && holding.has_lapsed(LEASE_NS + Ns::new(101))
        );
        assert!(holding.found(LEASE_NS + Ns::new(100)) && !holding.has_lapsed(Ns::MAX));
    }

    #[test]
    fn a_release_by_a_later_owner_ends_an_earlier_one_that_slept() {
        let mut holding = founded(5);
        let mine = holding.beat();
        let after = ClaimSector::Released(SpaceClaim { node: OTHER, epoch: 6, beat: 3 });
        let seen = ClaimSectors::NONE.with(5, ClaimSector::Claim(mine)).with(6, after);
        assert_eq!(holding.looked(&look(seen, 0), Ns::ZERO), BeatVerdict::Ended(OTHER));
    }
}
