//! What a fenced member has left whole is listed by its heir at once, and is only read until
//! nothing of the member lands any more.

use super::closed::records;
use super::cluster::{Member, all_up, in_spaces, pass, run, superblock};
use super::owners::{Wanted, crash_of, open, spaces};
use crate::arch::time::test_clock;
use crate::console::command::DumpChoice;
use crate::members::RollStatus;
use crate::mm::crc::Crc32c;
use crate::space::{RecordSide, SpaceState, SuspensionSeal};
use crate::storage::spaces::{DumpReleaseError, SharedStanding, SpaceId, Spaces, Suspension};

const NAMES: [&str; 4] = ["complete", "suspended", "draining", "active"];
const STATES: [SpaceState; 3] = [SpaceState::Complete, SpaceState::Suspended, SpaceState::Draining];

/// Writes records as those of a crash and of a suspension.
async fn leave(here: &'static Spaces, all: &[SpaceId]) {
    for (id, state) in all.iter().zip(STATES) {
        let crash = crash_of(here, *id);
        let seal = SuspensionSeal { notes: Crc32c(1), bitmap: Crc32c(2), checksums: Crc32c(3) };
        let changed = here.change(*id, |record| {
            record.state = state;
            record.crash = Some(crash);
            record.seal = state.is_whole_machine().then_some(seal);
        });
        changed.await.expect("the disk takes it");
    }
}

#[test]
fn the_heir_lists_what_is_whole_and_leaves_it_where_it_is() {
    let bytes = in_spaces(&superblock(5), 4);
    let (mut one, mut two) = (Member::start(&[&bytes], 1), Member::start(&[&bytes], 2));
    run(&mut [&mut one, &mut two], 30, |nodes| all_up(nodes, 2));
    open(&mut one);
    open(&mut two);
    let (here, there) = (spaces(&one), spaces(&two));
    let mut wanted = Wanted::of(&NAMES);
    run(&mut [&mut one, &mut two], 60, |_| {
        wanted.look(here);
        wanted.ready(here).len() == 4
    });
    let id = |name: &str| wanted.0[name].expect("a space");
    test_clock::set(one.machine.now_ns);
    one.machine.block_on(
        "the records",
        5,
        leave(here, &NAMES[..3].iter().map(|n| id(n)).collect::<Vec<_>>()),
    );
    assert!(there.remains().is_empty(), "its owner lives");
    let dead = one.members().view().slot.expect("a member");
    two.machine.now_ns = one.machine.now_ns;
    run(&mut [&mut two], 20, |nodes| nodes[0].statuses().contains(&(dead, RollStatus::Fenced)));
    run(&mut [&mut two], 3, |_| !there.remains().is_empty());
    pass(&mut [&mut two], 1);
    let mut found: Vec<_> =
        there.remains().iter().map(|d| (d.owner.name, d.state, d.waits_for)).collect();
    found.sort_by_key(|(_, state, _)| *state as u32);
    assert_eq!(
        found.iter().map(|(name, state, of)| (&**name, *state, *of)).collect::<Vec<_>>(),
        [
            ("complete", SpaceState::Complete, Some(dead)),
            ("suspended", SpaceState::Suspended, Some(dead))
        ]
    );
    // The owner stays, so no command of the heir changes anything there.
    let dump = id("complete");
    assert_eq!(there.standing(dump).map(|s| s.0), Some(SharedStanding::Quarantined(dead)));
    assert!(there.kept_dumps().is_empty() && there.suspension_of("suspended") == Suspension::None);
    let refused = there.release_dumps(DumpChoice::All("complete"));
    assert_eq!(refused, Err(DumpReleaseError::Quarantined(dead)));
    assert!(!there.release(dump));
    assert!(
        there.summaries().iter().all(|s| s.state == "quarantined" && s.waits_for == Some(dead))
    );

    // A late write gives the dump back, and it is not listed any more.
    let mut record = records(&bytes, here, dump).into_iter().flatten().max_by_key(|r| r.sequence);
    let record = record.as_mut().expect("a record");
    (record.sequence, record.state) = (record.sequence + 1, SpaceState::Releasing);
    let area = there.place(dump).area;
    let at = area.start() + RecordSide::of(record.sequence).start(area.bytes()).expect("a place");
    bytes.lock().expect("bytes")[at as usize..][..4096].copy_from_slice(&record.encode());
    run(&mut [&mut two], 12, |_| there.remains().len() == 1);

    // With the proof of quiet the heir has the whole states, and puts the rest in order.
    assert_eq!(two.members().confirm(&dead.to_string()), Ok(()));
    run(&mut [&mut two], 60, |_| there.kept_dumps().len() == 2 && there.free_count() == 2);
    assert!(there.remains().is_empty());
    let kept: Vec<_> = there.kept_dumps().iter().map(|d| (d.state, d.waits_for)).collect();
    assert!(
        kept.contains(&(SpaceState::Suspended, None))
            && kept.contains(&(SpaceState::Partial, None))
    );
}

#[test]
fn only_the_heir_lists_it() {
    let bytes = in_spaces(&superblock(5), 1);
    let mut nodes: Vec<Member> = (1..4).map(|seed| Member::start(&[&bytes], seed)).collect();
    {
        let mut all: Vec<&mut Member> = nodes.iter_mut().collect();
        run(&mut all, 30, |nodes| all_up(nodes, 3));
    }
    nodes.iter_mut().for_each(open);
    let mut wanted = Wanted::of(&["web"]);
    let here = spaces(&nodes[0]);
    {
        let mut all: Vec<&mut Member> = nodes.iter_mut().collect();
        run(&mut all, 60, |_| {
            wanted.look(here);
            wanted.ready(here).len() == 1
        });
    }
    let dump = wanted.0["web"].expect("a space");
    test_clock::set(nodes[0].machine.now_ns);
    nodes[0].machine.block_on("the record", 5, leave(here, &[dump]));
    let (dead, living) = nodes.split_at_mut(1);
    let slot = dead[0].members().view().slot.expect("a member");
    let [two, three] = living else { panic!("two living") };
    (two.machine.now_ns, three.machine.now_ns) = (dead[0].machine.now_ns, dead[0].machine.now_ns);
    run(&mut [two, three], 30, |nodes| {
        nodes.iter().all(|node| node.statuses().contains(&(slot, RollStatus::Fenced)))
    });
    let lists = |node: &Member| spaces(node).remains().len();
    run(&mut [two, three], 5, |nodes| nodes.iter().map(|node| lists(node)).sum::<usize>() == 1);
    pass(&mut [two, three], 12);
    assert_eq!(lists(two) + lists(three), 1, "one heir");
}
