//! Duties of an owner that depend on how it came by a space: pure rules.
//!
//! ```text
//!   claims of no other node, or all released ──> Orderly: all submitted requests have landed
//!   a claim that was watched, a torn one ──────> Disorderly: an earlier owner's may be in flight
//! ```
//!
//! A page that lands late has the wrong checksum, and claims and records have epochs. The
//! surroundings of the blocks have neither: the ELF header's first page (zeros while the space is
//! in use), and header, notes, bitmap and checksums of a dump. So after a disorderly succession the
//! owner reads them again for [`LATE_NS`], and rewrites those that differ.

use super::claim::{ClaimSector, ClaimSectors};
use super::state::SpaceState;
use super::uuid::Uuid;
use crate::time::Ns;

/// How long after a take-over late writes are looked for: four times a driver's request time-out.
pub const LATE_NS: Ns = Ns::from_secs(120);
/// Least pause between two looks. After a longer look the pause is nine times its length, so that
/// the looks at a large dump use at most a tenth of the disk's time.
pub const LOOK_NS: Ns = Ns::from_secs(1);

/// How a node came by a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Succession {
    /// No other node can have a request in flight.
    #[default]
    Orderly,
    /// An earlier owner did not stop in order and may have requests in flight.
    Disorderly {
        /// When the space was taken, on this node's clock.
        taken_ns: Ns,
    },
}

impl Succession {
    /// Judges by the claims that `me` saw when it took the space.
    pub fn of(claims: &ClaimSectors, me: Uuid, now_ns: Ns) -> Self {
        let is_others = |mark: ClaimSector| match mark {
            ClaimSector::Claim(claim) => claim.node != me,
            ClaimSector::Torn(_) => true,
            ClaimSector::Empty | ClaimSector::Released(_) => false,
        };
        match claims.marks().into_iter().any(is_others) {
            true => Self::Disorderly { taken_ns: now_ns },
            false => Self::Orderly,
        }
    }

    /// Returns whether the surroundings of the blocks are compared with the disk before they count,
    /// however long ago the space was taken.
    pub const fn compares(self) -> bool {
        matches!(self, Self::Disorderly { .. })
    }

    /// Returns whether to look for late writes now.
    pub fn is_watched(self, now_ns: Ns) -> bool {
        match self {
            Self::Orderly => false,
            Self::Disorderly { taken_ns } => now_ns < taken_ns.saturating_add(LATE_NS),
        }
    }
}

/// Returns the pause after a look that took `took_ns`.
pub fn pause_after(took_ns: Ns) -> Ns {
    took_ns.saturating_mul(9).max(LOOK_NS)
}

/// Data that a late write may have damaged in a space, apart from claims, records and blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Surroundings {
    /// The first page must be zeros: a space that is in use or free is no dump.
    NoHeader,
    /// The ELF header must match bitmap and record.
    Header,
    /// No such data, or its task rewrites the data before it counts.
    Nothing,
}

impl Surroundings {
    /// Returns the surroundings for a state. Dumps that this node drained are checked by their
    /// tasks.
    pub const fn of(state: SpaceState) -> Self {
        match state {
            SpaceState::Free | SpaceState::Active => Self::NoHeader,
            SpaceState::Partial => Self::Header,
            // Before COMPLETE an owner waited for all completions. After it only a release writes,
            // and a release begins with a record.
            SpaceState::Complete
            | SpaceState::Draining
            | SpaceState::Crashed
            | SpaceState::Releasing
            | SpaceState::Suspended
            | SpaceState::Sealed => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::claim::SpaceClaim;
    use super::*;

    const ME: Uuid = Uuid([1; 16]);
    const OTHER: Uuid = Uuid([2; 16]);

    #[test]
    fn only_a_space_that_all_other_nodes_have_released_is_taken_in_order() {
        let mine = ClaimSector::Claim(SpaceClaim { node: ME, epoch: 7, beat: 1 });
        let other = SpaceClaim { node: OTHER, epoch: 6, beat: 9 };
        let of =
            |mark| Succession::of(&ClaimSectors::NONE.with(7, mine).with(6, mark), ME, Ns::new(5));
        assert_eq!(
            (of(ClaimSector::Empty), of(ClaimSector::Released(other))),
            (Succession::Orderly, Succession::Orderly)
        );
        let disorderly = Succession::Disorderly { taken_ns: Ns::new(5) };
        assert_eq!(
            (of(ClaimSector::Claim(other)), of(ClaimSector::Torn(3))),
            (disorderly, disorderly)
        );
    }

    #[test]
    fn late_writes_are_looked_for_for_two_minutes_and_compared_for_ever() {
        let taken = Succession::Disorderly { taken_ns: Ns::new(5) };
        assert!(
            taken.is_watched(Ns::new(5))
                && taken.is_watched(Ns::new(4) + LATE_NS)
                && !taken.is_watched(Ns::new(5) + LATE_NS)
        );
        assert!(
            taken.compares()
                && !Succession::Orderly.compares()
                && !Succession::Orderly.is_watched(Ns::ZERO)
        );
    }

    #[test]
    fn a_look_takes_no_more_than_a_tenth_of_the_time() {
        assert_eq!((pause_after(Ns::ZERO), pause_after(LOOK_NS / 9)), (LOOK_NS, LOOK_NS));
        assert_eq!((pause_after(LOOK_NS), pause_after(Ns::MAX)), (9 * LOOK_NS, Ns::MAX));
    }
}
