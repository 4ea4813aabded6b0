//! Whether a decree that a member wants still makes sense, and whether it has already come true: in
//! whose ballot it was decided says nothing, the state does.

use crate::decree::{Decree, Owner};
use crate::state::{ClusterState, MemberStatus, Thing, VoidError};

/// Where a decree stands that changes an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecreeStanding {
    /// The state is as the decree wants it; the epoch of what it is about.
    Done(u64),
    /// It would have an effect.
    Open,
    /// It would have none.
    Void(VoidError),
}

impl ClusterState {
    /// Returns where a decree of `own`, `take`, `hand over` or `release` stands; others are open.
    pub fn standing(&self, decree: &Decree) -> DecreeStanding {
        match *decree {
            Decree::Own { partition, from, to } => {
                self.given(Thing::Partition(partition), from, to, None)
            }
            Decree::Take { partition, space, by } => {
                let owner = self.row(Thing::Partition(partition)).owner;
                let standing = self.given(
                    Thing::Space(space),
                    Owner::Unowned,
                    Owner::Slot(by),
                    Some(partition),
                );
                match standing {
                    DecreeStanding::Open if owner != Owner::Slot(by) && !mutant!(TakeForOthers) => {
                        DecreeStanding::Void(VoidError::OtherOwner)
                    }
                    other => other,
                }
            }
            // Taken back: the owner is the same, the epoch is the next one.
            Decree::HandOver { space, from, to, sealed, .. } if from == to => {
                let row = self.row(Thing::Space(space));
                match (row.owner == to, row.epoch == sealed) {
                    (true, true) => DecreeStanding::Open,
                    (true, false) if row.before == sealed => DecreeStanding::Done(row.epoch),
                    (true, false) => DecreeStanding::Void(VoidError::OldRecord),
                    (false, _) => DecreeStanding::Void(VoidError::OtherOwner),
                }
            }
            Decree::HandOver { partition, space, from, to, .. } => {
                self.given(Thing::Space(space), from, to, Some(partition))
            }
            Decree::Release { space, from } => {
                let standing = self.given(Thing::Space(space), from, Owner::Unowned, None);
                match (standing, from) {
                    (DecreeStanding::Open, Owner::Slot(slot))
                        if self.is_quarantined(slot) && !mutant!(OpenQuarantine) =>
                    {
                        DecreeStanding::Void(VoidError::Quarantined)
                    }
                    (other, _) => other,
                }
            }
            Decree::Nothing | Decree::Member(_) | Decree::Fence { .. } | Decree::Quiet { .. } => {
                DecreeStanding::Open
            }
        }
    }

    /// Returns whether writes of the member in a slot may still land although it is fenced.
    pub fn is_quarantined(&self, slot: u16) -> bool {
        let status = self.member(slot).map(|row| row.status);
        matches!(status, Some(MemberStatus::Fenced { .. }))
    }

    fn given(&self, thing: Thing, from: Owner, to: Owner, bound: Option<u128>) -> DecreeStanding {
        let row = self.row(thing);
        if row.owner == to && from != to {
            return match bound {
                Some(bound) if bound != row.bound && !mutant!(DoneUnbound) => {
                    DecreeStanding::Void(VoidError::Bound)
                }
                _ => DecreeStanding::Done(row.epoch),
            };
        }
        if row.owner == from {
            DecreeStanding::Open
        } else {
            DecreeStanding::Void(VoidError::OtherOwner)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, MemberId};

    const ME: Owner = Owner::Slot(0);
    const OTHER: Owner = Owner::Slot(1);

    fn two() -> ClusterState {
        let mut state = ClusterState::new(4096);
        for slot in 0..2 {
            let id = MemberId { slot, incarnation: Incarnation(7 + u128::from(slot)) };
            state.apply(&Decree::Member(id)).expect("a free slot");
        }
        state
    }

    #[test]
    fn a_decree_is_open_until_the_state_is_as_it_wants() {
        let mut state = two();
        let own = Decree::Own { partition: 5, from: Owner::Unowned, to: ME };
        let take = Decree::Take { partition: 5, space: 9, by: 0 };
        let release = Decree::Release { space: 9, from: ME };
        assert_eq!(state.standing(&take), DecreeStanding::Void(VoidError::OtherOwner));
        for decree in [own, take] {
            assert_eq!(state.standing(&decree), DecreeStanding::Open);
            state.apply(&decree).expect("it has an effect");
            assert_eq!(state.standing(&decree), DecreeStanding::Done(state.number()));
        }
        let late = Decree::Own { partition: 5, from: Owner::Unowned, to: OTHER };
        assert_eq!(state.standing(&late), DecreeStanding::Void(VoidError::OtherOwner));
        let second = Decree::Take { partition: 6, space: 9, by: 0 };
        assert_eq!(state.standing(&second), DecreeStanding::Void(VoidError::Bound));
        assert_eq!(state.standing(&release), DecreeStanding::Open);
        state.apply(&Decree::Fence { who: 0, heir: 1 }).expect("both are up");
        assert_eq!(state.standing(&release), DecreeStanding::Void(VoidError::Quarantined));
    }

    #[test]
    fn whatever_is_void_by_its_standing_has_no_effect() {
        let mut state = two();
        let decrees = [
            Decree::Own { partition: 5, from: Owner::Unowned, to: ME },
            Decree::Own { partition: 5, from: Owner::Unowned, to: OTHER },
            Decree::Take { partition: 5, space: 9, by: 0 },
            Decree::Take { partition: 5, space: 9, by: 1 },
            Decree::Take { partition: 6, space: 9, by: 0 },
            Decree::Release { space: 9, from: OTHER },
            Decree::Release { space: 9, from: ME },
            Decree::Release { space: 9, from: ME },
            Decree::Own { partition: 5, from: ME, to: Owner::Unowned },
            Decree::Own { partition: 5, from: ME, to: OTHER },
        ];
        for decree in decrees {
            let standing = state.standing(&decree);
            let effect = state.apply(&decree);
            assert_eq!(effect.is_ok(), standing == DecreeStanding::Open, "{decree:?} {standing:?}");
        }
    }

    #[test]
    fn a_hand_over_stands_until_the_state_is_as_it_wants_and_a_take_back_ends_too() {
        let mut state = two();
        for decree in [
            Decree::Own { partition: 5, from: Owner::Unowned, to: ME },
            Decree::Take { partition: 5, space: 9, by: 0 },
        ] {
            state.apply(&decree).expect("it has an effect");
        }
        let taken = state.number();
        let hand_over =
            |from, to, sealed| Decree::HandOver { partition: 5, space: 9, from, to, sealed };
        let back = hand_over(ME, ME, taken);
        assert_eq!(state.standing(&back), DecreeStanding::Open);
        state.apply(&back).expect("it has an effect");
        assert_eq!(state.standing(&back), DecreeStanding::Done(taken + 1));
        // What was proposed before the take-back has no effect any more.
        let late = hand_over(ME, OTHER, taken);
        assert_eq!(state.clone().apply(&late), Err(VoidError::OldRecord));
        state.apply(&hand_over(ME, Owner::Unowned, taken + 1)).expect("it has an effect");
        assert_eq!(state.standing(&back), DecreeStanding::Void(VoidError::OtherOwner));
        // A cold space has the record of its last owner, whichever member resumes it.
        let cold = hand_over(Owner::Unowned, OTHER, taken + 1);
        assert_eq!(state.standing(&cold), DecreeStanding::Open);
        state.apply(&cold).expect("it has an effect");
        assert_eq!(state.standing(&cold), DecreeStanding::Done(state.number()));
        assert_eq!(state.row(Thing::Space(9)).before, taken + 1);
    }

    #[test]
    fn a_partition_without_owner_and_space_leaves_no_row() {
        let mut state = two();
        for decree in [
            Decree::Own { partition: 5, from: Owner::Unowned, to: ME },
            Decree::Take { partition: 5, space: 9, by: 0 },
            Decree::Release { space: 9, from: ME },
            Decree::Own { partition: 5, from: ME, to: Owner::Unowned },
        ] {
            state.apply(&decree).expect("it has an effect");
        }
        assert!(state.things().iter().all(|row| row.thing == Thing::Space(9)), "{state:?}");
    }
}
