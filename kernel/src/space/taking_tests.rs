use super::*;
use crate::time::Ns;

const ME: Uuid = Uuid([1; 16]);
const OTHER: Uuid = Uuid([2; 16]);
const MS: Ns = Ns::from_ms(1);

fn claim(node: Uuid, epoch: u64, beat: u64) -> ClaimSector {
    ClaimSector::Claim(SpaceClaim { node, epoch, beat })
}

fn look(claims: ClaimSectors, at_ns: Ns) -> ClaimLook {
    ClaimLook { claims, record_epoch: 0, asked_ns: at_ns, seen_ns: at_ns + MS }
}

fn written(step: TakingStep) -> SpaceClaim {
    let TakingStep::Write(claim) = step else { panic!("{step:?}") };
    claim
}

/// Takes a space that shows `claims`, watching it as long as needed.
fn take(claims: ClaimSectors) -> (SpaceTaking, SpaceClaim, Ns) {
    let (mut taking, mut now) = (SpaceTaking::new(ME), Ns::ZERO);
    loop {
        match taking.looked(&look(claims, now)) {
            TakingStep::Look(at) => now = at,
            step => return (taking, written(step), now),
        }
    }
}

#[test]
fn a_free_space_is_taken_at_once_and_believed_after_the_settling_time() {
    let (mut taking, mine, at) = take(ClaimSectors::NONE);
    assert_eq!((at, mine), (Ns::ZERO, SpaceClaim { node: ME, epoch: 2, beat: 1 }));
    let TakingStep::Look(then) = taking.wrote(10 * MS) else { panic!() };
    assert_eq!(then, 10 * MS + SETTLE_NS);
    let there = ClaimSectors::NONE.with(2, ClaimSector::Claim(mine));
    assert_eq!(taking.looked(&look(there, then - Ns::new(1))), TakingStep::Look(then), "too early");
    assert_eq!(taking.looked(&look(there, then)), TakingStep::Own(mine));
}

#[test]
fn a_released_space_is_free_at_once_whatever_lies_in_the_other_sector() {
    let released = ClaimSector::Released(SpaceClaim { node: OTHER, epoch: 6, beat: 9 });
    for other in [
        ClaimSector::Empty,
        claim(OTHER, 5, 1),
        ClaimSector::Released(SpaceClaim { node: OTHER, epoch: 3, beat: 1 }),
    ] {
        let (_, mine, at) = take(ClaimSectors::NONE.with(0, released).with(1, other));
        assert_eq!((at, mine.epoch > 6), (Ns::ZERO, true), "{other:?}");
    }
    let (_, _, at) = take(ClaimSectors::NONE.with(0, released).with(1, claim(OTHER, 7, 1)));
    assert!(at >= WATCH_NS, "a later claim counts");
}

#[test]
fn a_claim_or_a_torn_sector_is_watched_and_the_other_sector_written() {
    for (n, mark) in
        [claim(OTHER, 8, 3), claim(OTHER, 0, 3), ClaimSector::Torn(5), claim(OTHER, 7, 3)]
            .into_iter()
            .enumerate()
    {
        let sector = if n == 3 { 1 } else { 0 };
        let (_, mine, at) = take(ClaimSectors::NONE.with(sector, mark));
        assert!(at >= WATCH_NS, "{mark:?} taken after {at:?}");
        assert_eq!(mine.epoch % 2, 1 - sector, "{mark:?}");
        assert!(mine.epoch > mark.epoch().unwrap_or(0));
    }
}

#[test]
fn where_both_sectors_are_claimed_the_last_owners_is_left_alone() {
    for (even, odd) in [(4, 5), (6, 5), (0, 9)] {
        let claims =
            ClaimSectors::NONE.with(0, claim(OTHER, even, 1)).with(1, claim(OTHER, odd, 1));
        let (_, mine, _) = take(claims);
        assert!(
            mine.epoch > even.max(odd) && mine.epoch % 2 != even.max(odd) % 2,
            "{even} {odd} {mine:?}"
        );
    }
}

#[test]
fn a_claim_that_changes_is_in_use_however_late() {
    for late in [Ns::new(1), WATCH_NS, 3 * WATCH_NS] {
        for changed in [claim(OTHER, 8, 2), claim(Uuid([3; 16]), 8, 1)] {
            let mut taking = SpaceTaking::new(ME);
            taking.looked(&look(ClaimSectors::NONE.with(8, claim(OTHER, 8, 1)), Ns::ZERO));
            let ClaimSector::Claim(other) = changed else { unreachable!() };
            assert_eq!(
                taking.looked(&look(ClaimSectors::NONE.with(8, changed), late)),
                TakingStep::InUse(other.node)
            );
        }
    }
}

#[test]
fn a_torn_sector_that_changes_is_watched_anew() {
    let mut taking = SpaceTaking::new(ME);
    taking.looked(&look(ClaimSectors::NONE.with(0, ClaimSector::Torn(1)), Ns::ZERO));
    assert!(matches!(
        taking.looked(&look(ClaimSectors::NONE.with(0, ClaimSector::Torn(2)), WATCH_NS)),
        TakingStep::Look(_)
    ));
    assert!(matches!(
        taking.looked(&look(
            ClaimSectors::NONE.with(0, ClaimSector::Torn(2)),
            WATCH_NS + WATCH_NS / 2
        )),
        TakingStep::Look(_)
    ));
    written(
        taking
            .looked(&look(ClaimSectors::NONE.with(0, ClaimSector::Torn(2)), 2 * WATCH_NS + 2 * MS)),
    );
}

#[test]
fn the_record_epoch_is_never_used_again() {
    let mut taking = SpaceTaking::new(ME);
    let step = taking.looked(&ClaimLook { record_epoch: 40, ..look(ClaimSectors::NONE, Ns::ZERO) });
    assert!(written(step).epoch > 40);
    let mut taking = SpaceTaking::new(ME);
    let step =
        taking.looked(&ClaimLook { record_epoch: MAX_EPOCH, ..look(ClaimSectors::NONE, Ns::ZERO) });
    assert_eq!(step, TakingStep::Exhausted);
}

#[test]
fn a_slow_write_proves_nothing_and_is_watched_before_the_next_epoch() {
    let (mut taking, mine, _) = take(ClaimSectors::NONE);
    let done = SETTLE_NS + Ns::new(1);
    assert_eq!(taking.wrote(done), TakingStep::Look(done + 2 * BEAT_NS));
    let there = ClaimSectors::NONE.with(mine.epoch, ClaimSector::Claim(mine));
    let mut now = done + 2 * BEAT_NS;
    let again = loop {
        match taking.looked(&look(there, now)) {
            TakingStep::Look(at) => now = at,
            step => break written(step),
        }
    };
    assert!(now >= done + WATCH_NS && again.epoch == mine.epoch + 1, "{again:?}");
}

#[test]
fn a_slow_write_that_a_running_owner_buries_gives_way() {
    let (mut taking, mine, _) = take(ClaimSectors::NONE);
    taking.wrote(SETTLE_NS + Ns::new(1));
    let owner = ClaimSectors::NONE.with(mine.epoch, claim(OTHER, mine.epoch, 7));
    assert_eq!(taking.looked(&look(owner, SETTLE_NS + 2 * BEAT_NS)), TakingStep::InUse(OTHER));
}

#[test]
fn an_equal_or_higher_claim_of_another_wins_while_the_own_one_settles() {
    for epoch in [2, 3, 4] {
        let (mut taking, mine, _) = take(ClaimSectors::NONE);
        taking.wrote(MS);
        let seen = ClaimSectors::NONE
            .with(2, ClaimSector::Claim(mine))
            .with(epoch, claim(OTHER, epoch, 1));
        assert_eq!(taking.looked(&look(seen, MS + SETTLE_NS)), TakingStep::InUse(OTHER), "{epoch}");
    }
}

#[test]
fn an_old_owner_that_wakes_is_waited_for() {
    let old = ClaimSectors::NONE.with(4, claim(OTHER, 4, 1));
    let (mut taking, mine, at) = take(old);
    let TakingStep::Look(then) = taking.wrote(at + MS) else { panic!() };
    let woke =
        ClaimSectors::NONE.with(4, claim(OTHER, 4, 2)).with(mine.epoch, ClaimSector::Claim(mine));
    let mut now = then;
    let own = loop {
        match taking.looked(&look(woke, now)) {
            TakingStep::Look(at) => now = at,
            step => break step,
        }
    };
    assert_eq!(own, TakingStep::Own(mine));
    assert!(now >= then + WATCH_NS, "believed {:?} after the old owner's beat", now - then);
}

#[test]
fn a_claim_that_a_late_write_buried_is_not_believed() {
    let (mut taking, mine, _) =
        take(ClaimSectors::NONE.with(1, claim(OTHER, 5, 1)).with(0, claim(OTHER, 4, 1)));
    assert_eq!(mine.epoch, 6);
    let TakingStep::Look(then) = taking.wrote(WATCH_NS + 2 * MS) else { panic!() };
    let overwritten = ClaimSectors::NONE.with(1, claim(OTHER, 5, 1)).with(0, claim(OTHER, 4, 2));
    assert!(matches!(taking.looked(&look(overwritten, then)), TakingStep::Look(_)));
    assert!(taking.watched().is_some());
}
