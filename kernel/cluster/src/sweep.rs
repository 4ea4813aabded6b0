//! The offline sweep: every start has ended, so all slots can come back. The caller has proof of
//! that (the exclusive lock of the image), and does the I/O.
//!
//! ```text
//!   newest state ── the open number's value ──> n + 1 ── all members quiet ──> n + 2
//!   keeper's slot: that state, then a beat that knows it ──> all other slots: beat, log, state, X, Y last
//! ```
//!
//! * Numbers go on, so epochs never repeat. The next start learns the state from the keeper's slot.
//! * A value that was accepted for the open number may have been decided, so it is carried out.
//! * A member that owns something keeps its row and its slot until the next members have released
//!   what it owns.

use crate::block::LogBlock;
use crate::decree::{Decree, QuietProof};
use crate::sector::SECTOR;
use crate::state::{ClusterState, MemberStatus};

/// Returns the number of the latest decree that any block of the log works on.
pub fn latest_number(logs: &[&[u8]]) -> u64 {
    blocks(logs).map(|block| block.number).max().unwrap_or(0)
}

/// Returns the value that may have been decided for `number`: that of the highest ballot.
pub fn pending(logs: &[&[u8]], number: u64) -> Option<Decree> {
    let accepted = blocks(logs).filter(|block| block.number == number);
    accepted.filter_map(|block| block.accepted).max_by_key(|one| one.0).map(|(_, value)| value)
}

fn blocks(logs: &[&[u8]]) -> impl Iterator<Item = LogBlock> {
    logs.iter()
        .flat_map(|read| read.chunks(2 * SECTOR))
        .filter_map(|both| LogBlock::newer(both).ok())
}

impl ClusterState {
    /// Counts a decree by which every member is quiet. Afterwards the slots that were not used
    /// ([`Self::was_used`]) can be cleared. `keeper` is the slot that gets the copy of this state.
    pub fn sweep(&mut self, keeper: u16) {
        self.number += 1;
        for row in &mut self.members {
            (row.status, row.since) = (MemberStatus::Quiet(QuietProof::Confirmed), self.number);
        }
        self.drop_quiet();
        self.used.fill(0);
        for slot in self.members.iter().map(|row| row.id.slot).chain([keeper]) {
            if let Some(word) = self.used.get_mut(usize::from(slot) / 64) {
                *word |= 1 << (slot % 64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decree::Owner;
    use crate::id::{Incarnation, MemberId};
    use crate::state::Thing;

    fn member(slot: u16) -> MemberId {
        MemberId { slot, incarnation: Incarnation(u128::from(slot) + 1) }
    }

    #[test]
    fn slots_come_back_and_numbers_go_on() {
        let mut state = ClusterState::new(16384);
        for slot in 0..3 {
            state.apply(&Decree::Member(member(slot))).unwrap();
        }
        let owner = Owner::Slot(1);
        state.apply(&Decree::Own { partition: 7, from: Owner::Unowned, to: owner }).unwrap();
        state.apply(&Decree::Take { partition: 7, space: 9, by: 1 }).unwrap();
        state.sweep(2);
        assert_eq!(state.number(), 6);
        let used: Vec<bool> = (0..4).map(|slot| state.was_used(slot)).collect();
        assert_eq!(used, [false, true, true, false], "an owner's slot and the keeper's stay");
        assert_eq!(state.row(Thing::Space(9)).owner, owner);
        // The next members release what it had; the next sweep gives its slot back.
        state.apply(&Decree::Member(member(0))).unwrap();
        state.apply(&Decree::Release { space: 9, from: owner }).unwrap();
        state.apply(&Decree::Own { partition: 7, from: owner, to: Owner::Slot(0) }).unwrap();
        assert!(state.member(1).is_none());
    }

    #[test]
    fn a_value_that_may_be_decided_is_the_one_of_the_highest_ballot() {
        let block = |slot, number, ballot, value| {
            let accepted = Some((ballot, value));
            let block =
                LogBlock { member: member(slot), sequence: 2, number, begun: ballot, accepted };
            [block.encode(), [0; SECTOR]].concat()
        };
        let [fence, nothing] = [Decree::Fence { who: 1, heir: 0 }, Decree::Nothing];
        let logs =
            [block(0, 4, 8, fence), block(1, 4, 9, nothing), block(2, 3, 99, fence)].concat();
        assert_eq!(pending(&[&logs], 4), Some(nothing));
        assert_eq!((pending(&[&logs], 5), latest_number(&[&logs])), (None, 4));
    }
}
