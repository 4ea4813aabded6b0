//! Nodes whose spaces belong to the cluster's log: one owner a space, none is lost, and what a dead
//! member had waits for proof of quiet.

use super::cluster::{Member, all_up, in_spaces, pass, run, superblock};
use crate::arch::time::test_clock;
use crate::members::RollStatus;
use crate::mm::layout::RamLayout;
use crate::space::{RecordedCrash, SpaceState};
use crate::storage::spaces::{SharedStanding, SpaceId, Spaces};
use arrayvec::ArrayString;
use std::collections::BTreeMap;

pub(super) fn ram() -> RamLayout {
    RamLayout::new(64 << 12).expect("whole pages")
}

pub(super) fn spaces(node: &Member) -> &'static Spaces {
    node.machine.node.host.spaces
}

/// Opens the spaces of a node that is a member.
pub(super) fn open(node: &mut Member) {
    test_clock::set(node.machine.now_ns);
    node.machine.block_on("open", 30, spaces(node).open());
}

/// Partitions of a node, with the space that each is to get.
#[derive(Default)]
pub(super) struct Wanted(pub(super) BTreeMap<String, Option<SpaceId>>);

impl Wanted {
    pub(super) fn of(names: &[&str]) -> Self {
        Self(names.iter().map(|name| ((*name).into(), None)).collect())
    }

    /// As a runner does: takes a space, and looks for another one if that fails.
    pub(super) fn look(&mut self, spaces: &'static Spaces) {
        for (name, space) in &mut self.0 {
            match space {
                None => *space = spaces.acquire(name, &ram(), 1),
                Some(id) if matches!(spaces.is_ready(*id), Some(Err(_))) => *space = None,
                Some(_) => {}
            }
        }
    }

    /// Returns the spaces that are in use.
    pub(super) fn ready(&self, spaces: &'static Spaces) -> Vec<SpaceId> {
        let found = self.0.values().flatten().copied();
        found.filter(|id| spaces.is_ready(*id) == Some(Ok(()))).collect()
    }
}

/// Makes a crash whose dump lies in a space.
pub(super) fn crash_of(spaces: &Spaces, id: SpaceId) -> RecordedCrash {
    RecordedCrash {
        name: spaces.name_dump(id, 1),
        reason: crate::space::CrashReason(1),
        detail: 0,
        time_ns: 1,
        text: ArrayString::new(),
        registers: arrayvec::ArrayVec::new(),
    }
}

fn names(first: usize, count: usize) -> Vec<String> {
    (first..first + count).map(|n| format!("p{n}")).collect()
}

#[test]
fn a_space_has_one_owner_and_comes_back_to_all() {
    let bytes = in_spaces(&superblock(5), 2);
    let (mut one, mut two) = (Member::start(&[&bytes], 1), Member::start(&[&bytes], 2));
    run(&mut [&mut one, &mut two], 30, |nodes| all_up(nodes, 2));
    open(&mut one);
    open(&mut two);
    let (mut first, mut second) = (Wanted::of(&["a", "b"]), Wanted::of(&["c"]));
    let (here, there) = (spaces(&one), spaces(&two));
    first.look(here);
    run(&mut [&mut one, &mut two], 30, |_| {
        first.look(here);
        first.ready(here).len() == 2
    });
    for id in [SpaceId(0), SpaceId(1)] {
        assert_eq!(here.standing(id).map(|s| s.0), Some(SharedStanding::Own));
    }
    pass(&mut [&mut one, &mut two], 3);
    second.look(there);
    assert_eq!(second.0["c"], None, "there is none left");
    assert_eq!(there.awaited("c"), "a free paging space");
    assert!(there.summaries().iter().all(|space| space.state == "another node's"));
    // A partition of the other node's name waits for its end.
    assert!(there.awaited("a").contains("slot"), "{}", there.awaited("a"));
    // One comes free.
    let gone = first.0["a"].expect("a space");
    here.release(gone);
    let took = run(&mut [&mut one, &mut two], 30, |_| {
        second.look(there);
        second.ready(there).len() == 1
    });
    assert!(took.as_u64() < 6_000_000_000, "{took:?}");
    assert_eq!(there.standing(gone).map(|s| s.0), Some(SharedStanding::Own));
    let told: Vec<_> = [&one, &two].iter().flat_map(|node| node.told("Error")).collect();
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn twenty_partitions_on_three_nodes_share_twelve_spaces_of_two_disks() {
    let areas: Vec<_> = (0..3)
        .map(|area| {
            let block = cluster::superblock::Superblock { areas: 3, area, ..superblock(5) };
            in_spaces(&block, if area == 2 { 1 } else { 6 })
        })
        .collect();
    let disks: Vec<_> = areas.iter().collect();
    let mut nodes: Vec<Member> = (1..4).map(|seed| Member::start(&disks, seed)).collect();
    {
        let mut all: Vec<&mut Member> = nodes.iter_mut().collect();
        run(&mut all, 30, |nodes| all_up(nodes, 3));
    }
    nodes.iter_mut().for_each(open);
    let counts = [(0, 7), (7, 7), (14, 6)];
    let mut wanted: Vec<Wanted> = counts
        .iter()
        .map(|(first, count)| {
            Wanted(names(*first, *count).into_iter().map(|n| (n, None)).collect())
        })
        .collect();
    let all_spaces: Vec<_> = nodes.iter().map(spaces).collect();
    let mut all: Vec<&mut Member> = nodes.iter_mut().collect();
    run(&mut all, 120, |_| {
        wanted.iter_mut().zip(&all_spaces).for_each(|(wanted, spaces)| wanted.look(spaces));
        wanted.iter().zip(&all_spaces).map(|(w, s)| w.ready(s).len()).sum::<usize>() == 13
    });
    pass(&mut all, 5);
    // No space has two owners.
    let mut owners: BTreeMap<usize, usize> = BTreeMap::new();
    for (wanted, spaces) in wanted.iter().zip(&all_spaces) {
        for id in wanted.ready(spaces) {
            *owners.entry(id.0).or_default() += 1;
        }
    }
    assert_eq!(owners.len(), 13);
    assert!(owners.values().all(|count| *count == 1), "{owners:?}");
}

#[test]
fn the_spaces_of_a_dead_member_wait_for_proof_of_quiet() {
    let bytes = in_spaces(&superblock(5), 2);
    let (mut one, mut two) = (Member::start(&[&bytes], 1), Member::start(&[&bytes], 2));
    run(&mut [&mut one, &mut two], 30, |nodes| all_up(nodes, 2));
    open(&mut one);
    open(&mut two);
    let mut first = Wanted::of(&["a"]);
    let (here, there) = (spaces(&one), spaces(&two));
    run(&mut [&mut one, &mut two], 30, |_| {
        first.look(here);
        first.ready(here).len() == 1
    });
    let lost = first.0["a"].expect("a space");
    let dead = one.members().view().slot.expect("a member");
    run(&mut [&mut two], 20, |nodes| nodes[0].statuses().contains(&(dead, RollStatus::Fenced)));
    // The partition starts in the other space, and the old one is left alone.
    let mut second = Wanted::of(&["a", "b"]);
    run(&mut [&mut two], 30, |_| {
        second.look(there);
        second.ready(there).len() == 1
    });
    pass(&mut [&mut two], 20);
    second.look(there);
    assert_eq!(second.ready(there).len(), 1);
    assert_eq!(there.standing(lost).map(|s| s.0), Some(SharedStanding::Quarantined(dead)));
    assert_eq!(there.summaries()[lost.0].state, "quarantined");
    let waiting = if second.0["a"].is_some() { "b" } else { "a" };
    assert_eq!(there.awaited(waiting), "a free paging space; quarantined: 1");
    assert_eq!(two.members().confirm(&dead.to_string()), Ok(()));
    run(&mut [&mut two], 30, |_| {
        second.look(there);
        second.ready(there).len() == 2
    });
}

#[test]
fn what_a_quiet_member_has_left_is_adopted_once_and_dumps_are_kept() {
    let bytes = in_spaces(&superblock(5), 2);
    let (mut one, mut two) = (Member::start(&[&bytes], 1), Member::start(&[&bytes], 2));
    run(&mut [&mut one, &mut two], 30, |nodes| all_up(nodes, 2));
    open(&mut one);
    open(&mut two);
    let mut first = Wanted::of(&["a", "b"]);
    let (here, there) = (spaces(&one), spaces(&two));
    run(&mut [&mut one, &mut two], 30, |_| {
        first.look(here);
        first.ready(here).len() == 2
    });
    let dump = first.0["a"].expect("a space");
    // The drain has begun when the member dies.
    let draining = async {
        let crash = crash_of(here, dump);
        let changed = here.change(dump, |record| {
            record.state = SpaceState::Draining;
            record.crash = Some(crash);
        });
        changed.await.expect("the disk takes it");
    };
    test_clock::set(one.machine.now_ns);
    one.machine.block_on("the record", 5, draining);
    let dead = one.members().view().slot.expect("a member");
    two.machine.now_ns = one.machine.now_ns;
    run(&mut [&mut two], 20, |nodes| nodes[0].statuses().contains(&(dead, RollStatus::Fenced)));
    assert_eq!(two.members().confirm(&dead.to_string()), Ok(()));
    run(&mut [&mut two], 60, |_| there.kept_dumps().len() == 1 && there.free_count() == 1);
    let kept = &there.kept_dumps()[0];
    assert_eq!((kept.id, kept.state), (dump, SpaceState::Partial));
    assert_eq!(there.standing(dump).map(|s| s.0), Some(SharedStanding::Own));
    // When it is released, the space is everybody's.
    assert!(there.release(dump));
    run(&mut [&mut two], 30, |_| there.free_count() == 2);
    assert_eq!(there.standing(dump).map(|s| s.0), Some(SharedStanding::Unowned));
    assert!(two.told("Error").is_empty(), "{:?}", two.told("Error"));
}
