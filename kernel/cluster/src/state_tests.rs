use super::*;
use crate::sector::SectorError;

const LIMIT: usize = 2048;

fn id(slot: u16) -> MemberId {
    MemberId { slot, incarnation: Incarnation(100 + u128::from(slot)) }
}

/// Members 0, 1, 2; partition 7 of member 0 in space 9, whose epoch is 5.
fn three() -> ClusterState {
    let mut state = ClusterState::new(LIMIT);
    for slot in 0..3 {
        state.apply(&Decree::Member(id(slot))).unwrap();
    }
    let own = Decree::Own { partition: 7, from: Owner::Unowned, to: Owner::Slot(0) };
    state.apply(&own).unwrap();
    state.apply(&Decree::Take { partition: 7, space: 9, by: 0 }).unwrap();
    state
}

fn hand_over(from: Owner, to: Owner, sealed: u64) -> Decree {
    Decree::HandOver { partition: 7, space: 9, from, to, sealed }
}

#[test]
fn a_slot_has_one_member_for_ever() {
    let mut state = three();
    let again = MemberId { slot: 1, incarnation: Incarnation(5) };
    assert_eq!(state.apply(&Decree::Member(again)), Err(VoidError::SlotUsed));
    state.apply(&Decree::Fence { who: 1, heir: 0 }).unwrap();
    state.apply(&Decree::Quiet { who: 1, proof: QuietProof::Left }).unwrap();
    assert_eq!(state.member(1), None, "quiet and owns nothing");
    assert_eq!(state.apply(&Decree::Member(again)), Err(VoidError::SlotUsed));
    assert_eq!(
        state.apply(&Decree::Member(MemberId { slot: 1024, ..id(0) })),
        Err(VoidError::SlotUsed)
    );
    assert_eq!(state.number(), 10, "void decrees count");
}

#[test]
fn only_members_that_are_up_fence_and_own() {
    let mut state = three();
    state.apply(&Decree::Fence { who: 0, heir: 2 }).unwrap();
    for (who, heir) in [(0, 1), (1, 0), (1, 1), (1, 9)] {
        assert_eq!(state.apply(&Decree::Fence { who, heir }), Err(VoidError::NotUp));
    }
    let own = |from, to| Decree::Own { partition: 7, from: Owner::Slot(from), to: Owner::Slot(to) };
    assert_eq!(state.apply(&own(0, 0)), Err(VoidError::NotUp));
    assert_eq!(state.apply(&own(1, 2)), Err(VoidError::OtherOwner));
    state.apply(&own(0, 2)).unwrap();
    assert_eq!(state.row(Thing::Partition(7)).epoch, state.number());
    assert_eq!(state.apply(&own(0, 1)), Err(VoidError::OtherOwner), "the loser's is void");
}

#[test]
fn a_dead_member_s_space_waits_for_proof() {
    let mut state = three();
    let release = Decree::Release { space: 9, from: Owner::Slot(0) };
    state.apply(&Decree::Fence { who: 0, heir: 2 }).unwrap();
    assert_eq!(state.apply(&release), Err(VoidError::Quarantined));
    let take = Decree::Take { partition: 7, space: 9, by: 2 };
    assert_eq!(state.apply(&take), Err(VoidError::OtherOwner));
    let quiet = Decree::Quiet { who: 0, proof: QuietProof::Confirmed };
    state.apply(&quiet).unwrap();
    assert_eq!(state.apply(&quiet), Err(VoidError::NotFenced));
    state.apply(&release).unwrap();
    assert_eq!(state.row(Thing::Space(9)).owner, Owner::Unowned);
    assert!(state.member(0).is_some(), "it owns the partition still");
    let own = Decree::Own { partition: 7, from: Owner::Slot(0), to: Owner::Slot(2) };
    state.apply(&own).unwrap();
    state.apply(&take).unwrap();
    assert_eq!(state.member(0), None);
}

#[test]
fn a_hand_over_needs_the_record_of_the_log_s_epoch() {
    let mut state = three();
    let (a, b) = (Owner::Slot(0), Owner::Slot(1));
    assert_eq!(state.apply(&hand_over(a, b, 4)), Err(VoidError::OldRecord));
    state.apply(&hand_over(a, a, 5)).unwrap();
    assert_eq!(state.apply(&hand_over(a, b, 5)), Err(VoidError::OldRecord), "taken back");
    state.apply(&hand_over(a, Owner::Unowned, 7)).unwrap();
    let other = Decree::Take { partition: 8, space: 9, by: 1 };
    state.apply(&Decree::Own { partition: 8, from: Owner::Unowned, to: b }).unwrap();
    assert_eq!(state.apply(&other), Err(VoidError::Bound), "a cold space is not free");
    assert_eq!(state.apply(&hand_over(Owner::Unowned, b, 9)), Err(VoidError::OldRecord));
    state.apply(&hand_over(Owner::Unowned, b, 7)).unwrap();
    let row = state.row(Thing::Space(9));
    assert_eq!((row.owner, row.epoch, row.before, row.bound), (b, 13, 7, 7));
    let own = Decree::Own { partition: 7, from: b, to: a };
    assert_eq!(state.apply(&own), Err(VoidError::Bound), "a partition does not leave its space");
}

#[test]
fn every_state_reads_back_and_damage_is_found() {
    let mut state = three();
    state.apply(&Decree::Fence { who: 0, heir: 2 }).unwrap();
    state.apply(&Decree::Quiet { who: 0, proof: QuietProof::Left }).unwrap();
    state.apply(&Decree::Fence { who: 2, heir: 1 }).unwrap();
    let mut bytes = [0; LIMIT];
    state.encode(id(1), 77, &mut bytes);
    assert_eq!(ClusterState::decode(&bytes), Ok((77, state.clone())));
    for at in 0..LIMIT {
        let mut other = bytes;
        other[at] ^= 1 << (at % 8);
        assert!(ClusterState::decode(&other).is_err(), "byte {at}");
    }
    let mut before = [0; LIMIT];
    three().encode(id(1), 76, &mut before);
    for sectors in 1..LIMIT / 512 {
        let mut torn = before;
        torn[..512 * sectors].copy_from_slice(&bytes[..512 * sectors]);
        assert_eq!(ClusterState::decode(&torn).err(), Some(SectorError::Torn));
        assert_eq!(ClusterState::newer(&[torn, before].concat()), Some(three()));
    }
    assert_eq!(ClusterState::newer(&[before, bytes].concat()), Some(state));
    assert_eq!(ClusterState::newer(&[[0; LIMIT], [0; LIMIT]].concat()), None);
}

#[test]
fn a_state_that_would_not_fit_takes_no_more_rows() {
    let mut state = ClusterState::new(LIMIT);
    state.apply(&Decree::Member(id(0))).unwrap();
    let own = |partition| Decree::Own { partition, from: Owner::Unowned, to: Owner::Slot(0) };
    let full = (1..100).find(|n| state.apply(&own(*n)) == Err(VoidError::Full)).unwrap();
    assert_eq!(state.things().len() as u128, full - 1);
    let mut bytes = [0; LIMIT];
    state.encode(id(0), 1, &mut bytes);
    assert_eq!(ClusterState::decode(&bytes), Ok((1, state)));
}

#[test]
fn a_name_that_was_given_back_goes_with_its_last_space() {
    let mut state = three();
    state.apply(&Decree::Fence { who: 0, heir: 1 }).unwrap();
    let given_back = Decree::Own { partition: 7, from: Owner::Slot(0), to: Owner::Unowned };
    state.apply(&given_back).unwrap();
    let is_there =
        |state: &ClusterState| state.things().iter().any(|row| row.thing == Thing::Partition(7));
    assert!(is_there(&state), "its space is in quarantine");
    state.apply(&Decree::Quiet { who: 0, proof: QuietProof::Confirmed }).unwrap();
    state.apply(&Decree::Release { space: 9, from: Owner::Slot(0) }).unwrap();
    assert!(!is_there(&state), "{:?}", state.things());
    assert_eq!(state.member(0), None);
}
