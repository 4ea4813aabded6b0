//! Rules that the simulation does not see, because no node in it breaks them or depends on them:
//! each is switched off, and a test of its own has to notice it.

use crate::beat::Beat;
use crate::cut_tests;
use crate::decree::{Decree, Owner};
use crate::id::{Incarnation, MemberId};
use crate::mutant::{Mutant, fired, set};
use crate::node::restored;
use crate::sim::mutants::be_silent;
use crate::standing::DecreeStanding;
use crate::state::{ClusterState, VoidError};
use crate::timing::ClusterTiming;
use crate::watch::{Sighting, TurnTimes, Watch};

/// Each rule, and the test that needs it.
const ALL: [(Mutant, fn()); 7] = [
    (Mutant::TornStandsStill, a_torn_beat_lives_as_long_as_it_changes),
    (Mutant::TornNamesAll, cut_tests::a_cut_at_any_write_leaves_one_whole_state),
    (Mutant::DoneUnbound, a_space_is_taken_for_one_partition),
    (Mutant::TakeForOthers, a_space_is_taken_for_an_own_partition),
    (Mutant::OpenQuarantine, a_quarantined_space_stays),
    (Mutant::JoinsOld, restored::an_area_that_forgot_an_announced_decree_is_not_joined),
    (Mutant::ForgetsAnnounced, restored::what_was_announced_is_expected_for_ever),
];

/// Members 0 and 1; partition 5 of member 0 in space 9.
fn two() -> ClusterState {
    let mut state = ClusterState::new(4096);
    for slot in 0..2 {
        let id = MemberId { slot, incarnation: Incarnation(7 + u128::from(slot)) };
        state.apply(&Decree::Member(id)).expect("a slot");
    }
    for decree in [
        Decree::Own { partition: 5, from: Owner::Unowned, to: Owner::Slot(0) },
        Decree::Take { partition: 5, space: 9, by: 0 },
    ] {
        state.apply(&decree).expect("it has an effect");
    }
    state
}

/// Member 0 looks at a torn beat of member 1 every second.
fn a_torn_beat_lives_as_long_as_it_changes() {
    let state = two();
    let mine = Beat::new(state.members()[0].id);
    let other = Beat::new(state.members()[1].id);
    let wants = |changes: u64| {
        let mut watch = Watch::new([Sighting::NEVER; 2]);
        (0..20).any(|second| {
            let now = second * 1_000_000_000;
            let times = TurnTimes { asked_ns: now, read_ns: now, seen_ns: now };
            let sequence = if second < changes { second } else { changes };
            let mut torn = Beat { sequence, ..other }.encode();
            torn[500] ^= 1;
            let read = [mine.encode(), torn].concat();
            let timing = ClusterTiming::DEFAULT;
            let found = watch.look(&mine, &state, &timing, &times, &[&read]);
            assert!(found.is_suspected && !found.is_named, "{found:?}");
            found.want.is_some()
        })
    };
    assert!(!wants(20), "it changes");
    assert!(wants(5), "its writer has died");
}

fn a_space_is_taken_for_one_partition() {
    let second = Decree::Take { partition: 6, space: 9, by: 0 };
    assert_eq!(two().standing(&second), DecreeStanding::Void(VoidError::Bound));
}

fn a_space_is_taken_for_an_own_partition() {
    let others = Decree::Take { partition: 5, space: 10, by: 1 };
    assert_eq!(two().standing(&others), DecreeStanding::Void(VoidError::OtherOwner));
}

fn a_quarantined_space_stays() {
    let mut state = two();
    state.apply(&Decree::Fence { who: 0, heir: 1 }).expect("both are up");
    let release = Decree::Release { space: 9, from: Owner::Slot(0) };
    assert_eq!(state.standing(&release), DecreeStanding::Void(VoidError::Quarantined));
}

#[test]
fn each_rule_that_is_switched_off_fails_its_own_test() {
    be_silent();
    for (mutant, test) in ALL {
        test();
        set(Some(mutant));
        let failed = std::panic::catch_unwind(test);
        set(None);
        println!("{:8} {mutant:?}", fired(mutant));
        assert!(failed.is_err(), "{mutant:?} is not noticed");
    }
}
