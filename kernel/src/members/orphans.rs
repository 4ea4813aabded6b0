//! The partitions of fenced members as this node has seen them: since when, and what it has told.
//!
//! ```text
//!   seen ── heir: at once; another member: after 5 s ──> definition found ──> taken
//!                                                    └─> none: told by the heir, looked for again
//!   heir, after 15 s ──> no member has taken it: the name is free
//! ```
//!
//! Time only decides who tries when. Two members that try at once are told apart by the log: the
//! second decree names an owner who does not own the partition any more.

use crate::sync::{RankedLock, rank};
use crate::time::{AtomicNs, Ns};
use arrayvec::ArrayVec;
use core::sync::atomic::Ordering;

/// How long other members leave a partition to the heir.
const HEIR_NS: Ns = Ns::from_secs(5);
/// After that time the heir frees the name of a partition that no member has taken.
const FREE_NS: Ns = Ns::from_secs(15);
/// Time between two looks for a definition.
const AGAIN_NS: Ns = Ns::from_secs(2);
/// Most partitions that are watched at a time; further ones have their turn later.
const MAX_ORPHANS: usize = 32;

/// A partition that a fenced member owns.
#[derive(Clone, Copy, Debug)]
struct SeenOrphan {
    number: u128,
    since_ns: Ns,
    again_ns: Ns,
    is_told: bool,
}

/// The partitions of fenced members.
pub struct OrphanWatch {
    list: RankedLock<ArrayVec<SeenOrphan, MAX_ORPHANS>, { rank::EVENTS }>,
    due_ns: AtomicNs,
}

/// What a member may do about a partition now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OrphanTurn {
    /// Not yet this member's to try.
    Later,
    /// Take it if its definition is here.
    Try,
    /// The same; without a definition the name is freed, because no member has one.
    Last,
}

impl OrphanWatch {
    /// Makes a watch that has seen nothing.
    pub(super) const fn new() -> Self {
        Self { list: RankedLock::new(ArrayVec::new_const()), due_ns: AtomicNs::new(Ns::MAX) }
    }

    /// Returns whether a partition has to be looked at although the log has nothing new.
    pub fn is_due(&self, now_ns: Ns) -> bool {
        now_ns >= self.due_ns.load(Ordering::Acquire)
    }

    /// Forgets the partitions for which `is_orphan` does not hold, and all times of looks.
    pub fn keep(&self, is_orphan: impl Fn(u128) -> bool) {
        self.due_ns.store(Ns::MAX, Ordering::Release);
        self.list.lock().retain(|seen| is_orphan(seen.number));
    }

    /// Returns what this member may do about a partition.
    pub fn turn(&self, number: u128, is_heir: bool, now_ns: Ns) -> OrphanTurn {
        let mut list = self.list.lock();
        let found = list.iter().find(|seen| seen.number == number).copied();
        let Some(seen) = found else {
            let again_ns = if is_heir { now_ns } else { now_ns.saturating_add(HEIR_NS) };
            let new = SeenOrphan { number, since_ns: now_ns, again_ns, is_told: false };
            if list.try_push(new).is_err() || !is_heir {
                self.due_ns.lower(again_ns, Ordering::AcqRel);
                return OrphanTurn::Later;
            }
            return OrphanTurn::Try;
        };
        if now_ns < seen.again_ns {
            self.due_ns.lower(seen.again_ns, Ordering::AcqRel);
            return OrphanTurn::Later;
        }
        match is_heir && now_ns >= seen.since_ns.saturating_add(FREE_NS) {
            true => OrphanTurn::Last,
            false => OrphanTurn::Try,
        }
    }

    /// Has a partition looked at again after a pause.
    pub fn put_off(&self, number: u128, now_ns: Ns) {
        if let Some(seen) = self.list.lock().iter_mut().find(|seen| seen.number == number) {
            seen.again_ns = now_ns.saturating_add(AGAIN_NS);
            self.due_ns.lower(seen.again_ns, Ordering::AcqRel);
        }
    }

    /// Returns whether this is the first time that something is told about a partition.
    pub fn tells_first(&self, number: u128) -> bool {
        let mut list = self.list.lock();
        let seen = list.iter_mut().find(|seen| seen.number == number);
        seen.is_some_and(|seen| !core::mem::replace(&mut seen.is_told, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Ns {
        Ns::from_secs(seconds)
    }

    #[test]
    fn the_heir_is_first_and_the_others_follow_before_the_name_is_free() {
        let (heir, other) = (OrphanWatch::new(), OrphanWatch::new());
        assert_eq!(heir.turn(7, true, s(10)), OrphanTurn::Try);
        assert_eq!(other.turn(7, false, s(10)), OrphanTurn::Later);
        assert!(!other.is_due(s(14)) && other.is_due(s(15)));
        heir.put_off(7, s(10));
        assert!(heir.tells_first(7) && !heir.tells_first(7) && !heir.tells_first(8));
        assert_eq!(heir.turn(7, true, s(11)), OrphanTurn::Later);
        assert_eq!(heir.turn(7, true, s(12)), OrphanTurn::Try);
        heir.put_off(7, s(12));
        assert_eq!(other.turn(7, false, s(15)), OrphanTurn::Try);
        assert_eq!(other.turn(7, false, s(100)), OrphanTurn::Try, "only the heir frees a name");
        assert_eq!(heir.turn(7, true, s(25)), OrphanTurn::Last);
    }

    #[test]
    fn a_partition_that_is_taken_is_forgotten() {
        let watch = OrphanWatch::new();
        watch.turn(7, true, s(1));
        watch.keep(|number| number != 7);
        assert!(!watch.is_due(s(1000)));
        assert_eq!(watch.turn(7, true, s(100)), OrphanTurn::Try, "its age began anew");
    }

    #[test]
    fn more_partitions_than_the_list_holds_have_their_turn_later() {
        let watch = OrphanWatch::new();
        for number in 0..MAX_ORPHANS as u128 {
            assert_eq!(watch.turn(number, true, s(1)), OrphanTurn::Try);
        }
        assert_eq!(watch.turn(99, true, s(1)), OrphanTurn::Later);
        watch.keep(|number| number > 3);
        assert_eq!(watch.turn(99, true, s(2)), OrphanTurn::Try);
    }
}
