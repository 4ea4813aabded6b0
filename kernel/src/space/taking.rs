//! How a start takes a space: pure rules, driven by reads of the claims (looks) and by its own
//! writes.
//!
//! ```text
//!   New ── free ────────────────────────────────┐
//!    │                                          v        quick            unchanged
//!    └─ claim, torn ─> Watching ─ unchanged ─> Writing ───────> Settling ────────────> Own
//!                        │  ^     for 4 s       │                 │ old owner beat: 4 s more
//!                        │  └── took too long ──┘                 │ late write over it: Watching
//!                        └─ a new claim ────────────────────────> InUse <─ equal or higher epoch
//! ```
//!
//! Two starts that find a space free write the same sector. Only *quick* writes count: those that
//! end within [`SETTLE_NS`] of the submission of the look that found the space free. So when a
//! quick write has stayed unchanged for [`SETTLE_NS`], all other quick writes have landed, and the
//! last of them wins. A slow write may have landed on the claim of a running owner, whose next beat
//! overwrites it. Such a claim is watched like one of another node, and then taken with the next
//! epoch.

use super::claim::{
    BEAT_NS, ClaimSector, ClaimSectors, MAX_EPOCH, SETTLE_NS, SpaceClaim, WATCH_NS,
};
use super::uuid::Uuid;
use crate::time::Ns;

/// Result of a read of the last 12 KiB of a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClaimLook {
    /// The claims.
    pub claims: ClaimSectors,
    /// Epoch of the newest record; 0 if there is none.
    pub record_epoch: u64,
    /// Time of the read's submission.
    pub asked_ns: Ns,
    /// Time of its completion.
    pub seen_ns: Ns,
}

/// Next step for the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TakingStep {
    /// Look, not before this time.
    Look(Ns),
    /// Write this claim, at once.
    Write(SpaceClaim),
    /// This node owns the space.
    Own(SpaceClaim),
    /// Another node uses the space.
    InUse(Uuid),
    /// The space's epochs are used up: only a format helps.
    Exhausted,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TakingPhase {
    New,
    /// Unchanged since `since_ns`.
    Watching {
        first: ClaimSectors,
        since_ns: Ns,
    },
    Writing {
        claim: SpaceClaim,
        before: ClaimSectors,
        looked_ns: Ns,
    },
    /// The claim counts if the sectors stay unchanged until `until_ns`.
    Settling {
        claim: SpaceClaim,
        expected: ClaimSectors,
        until_ns: Ns,
    },
}

/// A space that is being taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceTaking {
    node: Uuid,
    phase: TakingPhase,
}

impl SpaceTaking {
    /// Starts; the first step is a look.
    pub const fn new(node: Uuid) -> Self {
        Self { node, phase: TakingPhase::New }
    }

    /// Returns the node whose claim is being watched.
    pub fn watched(&self) -> Option<Uuid> {
        let TakingPhase::Watching { first, .. } = self.phase else { return None };
        Some(first.owner().map_or(Uuid::NIL, |claim| claim.node))
    }

    /// Judges a look.
    pub fn looked(&mut self, look: &ClaimLook) -> TakingStep {
        match self.phase {
            TakingPhase::New => self.begin(look),
            TakingPhase::Watching { first, since_ns } => self.watch(look, &first, since_ns),
            TakingPhase::Settling { claim, expected, until_ns } => {
                self.settle(look, claim, &expected, until_ns)
            }
            // No look is due while the write is in flight.
            TakingPhase::Writing { claim, .. } => TakingStep::Write(claim),
        }
    }

    /// Notes the completion of the write that [`TakingStep::Write`] asked for.
    ///
    /// # Panics
    /// If no write was asked for (our bug).
    pub fn wrote(&mut self, now_ns: Ns) -> TakingStep {
        let TakingPhase::Writing { claim, before, looked_ns } = self.phase else {
            panic!("nothing was to be written")
        };
        let expected = before.with(claim.epoch, ClaimSector::Claim(claim));
        if now_ns.saturating_sub(looked_ns) <= SETTLE_NS {
            let until_ns = now_ns.saturating_add(SETTLE_NS);
            self.phase = TakingPhase::Settling { claim, expected, until_ns };
            return TakingStep::Look(until_ns);
        }
        self.phase = TakingPhase::Watching { first: expected, since_ns: now_ns };
        // By then a live owner has written over it.
        TakingStep::Look(now_ns.saturating_add(2 * BEAT_NS))
    }

    fn begin(&mut self, look: &ClaimLook) -> TakingStep {
        if is_free(&look.claims) {
            return self.write(look);
        }
        self.watch_anew(look)
    }

    fn watch_anew(&mut self, look: &ClaimLook) -> TakingStep {
        self.phase = TakingPhase::Watching { first: look.claims, since_ns: look.seen_ns };
        TakingStep::Look(look.seen_ns.saturating_add(BEAT_NS))
    }

    fn watch(&mut self, look: &ClaimLook, first: &ClaimSectors, since_ns: Ns) -> TakingStep {
        let end_ns = since_ns.saturating_add(WATCH_NS);
        if let Some(other) = self.newcomer(&look.claims, first) {
            return TakingStep::InUse(other);
        }
        // Also if the claim was released meanwhile: its owner releases only after all its requests
        // have completed.
        if is_free(&look.claims) || look.claims == *first && look.asked_ns >= end_ns {
            return self.write(look);
        }
        if look.claims != *first {
            return self.watch_anew(look);
        }
        TakingStep::Look(end_ns.min(look.seen_ns.saturating_add(BEAT_NS)))
    }

    fn settle(
        &mut self,
        look: &ClaimLook,
        claim: SpaceClaim,
        expected: &ClaimSectors,
        until_ns: Ns,
    ) -> TakingStep {
        let rival = |mark: ClaimSector| match mark {
            ClaimSector::Claim(other) if other.epoch >= claim.epoch && other.node != claim.node => {
                Some(other.node)
            }
            _ => None,
        };
        if let Some(other) = look.claims.marks().into_iter().find_map(rival) {
            return TakingStep::InUse(other);
        }
        if look.claims.at(claim.epoch) != ClaimSector::Claim(claim) {
            // Overwritten by a late write of an earlier owner.
            return self.watch_anew(look);
        }
        if look.claims != *expected {
            // The old owner beat once more. At the end of that beat it sees this claim and ends.
            // Wait until then.
            let until_ns = look.seen_ns.saturating_add(WATCH_NS);
            self.phase = TakingPhase::Settling { claim, expected: look.claims, until_ns };
            return TakingStep::Look(look.seen_ns.saturating_add(BEAT_NS));
        }
        if look.asked_ns >= until_ns {
            return TakingStep::Own(claim);
        }
        TakingStep::Look(until_ns.min(look.seen_ns.saturating_add(BEAT_NS)))
    }

    fn write(&mut self, look: &ClaimLook) -> TakingStep {
        let last = look.claims.epoch().max(look.record_epoch);
        let epoch = next_epoch(last, &look.claims);
        if epoch > MAX_EPOCH {
            return TakingStep::Exhausted;
        }
        let claim = SpaceClaim { node: self.node, epoch, beat: 1 };
        self.phase = TakingPhase::Writing { claim, before: look.claims, looked_ns: look.asked_ns };
        TakingStep::Write(claim)
    }

    /// Returns another node whose claim has appeared since `before`.
    fn newcomer(&self, now: &ClaimSectors, before: &ClaimSectors) -> Option<Uuid> {
        let pairs = now.marks().into_iter().zip(before.marks());
        pairs.filter(|(now, before)| now != before).find_map(|(now, _)| match now {
            ClaimSector::Claim(claim) if claim.node != self.node => Some(claim.node),
            _ => None,
        })
    }
}

/// Returns whether no node uses a space: the last owner stopped in order, or there was none.
fn is_free(claims: &ClaimSectors) -> bool {
    claims.owner().is_none()
        && claims.marks().iter().all(|mark| !matches!(mark, ClaimSector::Torn(_)))
}

/// Returns the next epoch whose sector no earlier owner can still be writing, as far as that is
/// known.
fn next_epoch(last: u64, claims: &ClaimSectors) -> u64 {
    let may_be_written =
        |epoch: u64| matches!(claims.at(epoch), ClaimSector::Claim(_) | ClaimSector::Torn(_));
    let used = match (may_be_written(0), may_be_written(1)) {
        (true, false) => 0,
        // If both are free the first sector is used: hypervisors of the first version look only
        // there.
        (false, _) => 1,
        (true, true) => claims.epoch() % 2,
    };
    let next = last + 1;
    if next % 2 == used { next + 1 } else { next }
}

#[cfg(test)]
#[path = "taking_tests.rs"]
mod tests;
