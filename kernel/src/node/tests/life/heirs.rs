//! Partitions of a dead member: the heir starts them, or the member that has their definition.

use super::stored::{DEFINE, answer, beside, content, store};
use crate::arch::time::test_clock;
use crate::node::tests::area_disk::CommonBytes;
use crate::node::tests::cluster::{Member, all_up, in_spaces, run, superblock};
use crate::storage::spaces::number_of;
use cluster::decree::Owner;
use cluster::state::{ClusterState, MemberStatus};
use std::sync::{Arc, Mutex};

/// Makes a store that has the definition of `d`.
fn defined() -> Vec<u8> {
    let mut life = beside(&store());
    let told = answer(&mut life, DEFINE);
    assert!(told.contains("defined"), "{told}");
    content(&life)
}

/// Starts three members, of which those with a store see this one; the first one owns `d`, and
/// dies. Returns the two others, and the number of the heir among them.
fn orphaned(stores: [Option<&Vec<u8>>; 2]) -> ([Member; 2], usize) {
    let area = in_spaces(&superblock(5), 1);
    let disks: Vec<Option<CommonBytes>> =
        stores.iter().map(|bytes| bytes.map(|bytes| Arc::new(Mutex::new(bytes.clone())))).collect();
    let start = |n: usize| {
        let all: Vec<_> = [Some(&area), disks[n].as_ref()].into_iter().flatten().collect();
        Member::start(&all, n as u64 + 2)
    };
    let (mut dead, [mut one, mut two]) = (Member::start(&[&area], 1), [start(0), start(1)]);
    run(&mut [&mut dead, &mut one, &mut two], 30, |nodes| all_up(nodes, 3));
    test_clock::set(dead.machine.now_ns);
    let (slot, log) = (dead.members().view().slot.expect("a member"), dead.members().log);
    dead.machine.block_on("own", 20, async {
        log.own(number_of("d"), Some(Owner::Unowned), None).await.expect("a free name");
    });
    (one.machine.now_ns, two.machine.now_ns) = (dead.machine.now_ns, dead.machine.now_ns);
    let heir_of = |_, state: &ClusterState| match state.member(slot).map(|row| row.status) {
        Some(MemberStatus::Fenced { heir }) => Some(heir),
        _ => None,
    };
    let mut heir = None;
    run(&mut [&mut one, &mut two], 30, |nodes| {
        heir = nodes[0].members().log.with_state(heir_of).flatten();
        heir.is_some()
    });
    let is_first = one.members().view().slot == heir;
    ([one, two], usize::from(!is_first))
}

/// Returns whether no member owns `d`.
fn is_free(node: &Member) -> bool {
    let is_it = |_, state: &ClusterState| {
        let thing = cluster::state::Thing::Partition(number_of("d"));
        state.row(thing).owner == Owner::Unowned
    };
    node.members().log.with_state(is_it) == Some(true)
}

#[test]
fn a_member_that_has_the_definition_takes_what_the_heir_cannot_start() {
    let (bytes, mut heirs_without) = (defined(), 0);
    for seer in 0..2 {
        let mut stores = [None, None];
        stores[seer] = Some(&bytes);
        let (mut nodes, heir) = orphaned(stores);
        let [one, two] = &mut nodes;
        let took = run(&mut [one, two], 20, |nodes| !nodes[seer].told("Inherited").is_empty());
        let declined = nodes[heir].told("NotInherited");
        let declined = declined.iter().filter(|told| told.contains("no store here")).count();
        assert!(nodes[1 - seer].told("Inherited").is_empty());
        if heir == seer {
            assert_eq!(declined, 0);
        } else {
            heirs_without += 1;
            assert_eq!(declined, 1, "told once: {:?}", nodes[heir].machine.told);
            assert!(took.as_u64() > 4_000_000_000, "before the heir had its turn: {took:?}");
        }
    }
    assert!(heirs_without > 0, "another seed is needed");
}

#[test]
fn the_name_of_a_partition_that_no_member_can_start_becomes_free() {
    let (mut nodes, heir) = orphaned([None, None]);
    let [one, two] = &mut nodes;
    let took = run(&mut [one, two], 30, |nodes| nodes.iter().all(|node| is_free(node)));
    assert!(took.as_u64() > 13_000_000_000, "{took:?}");
    assert_eq!(nodes[heir].told("NotInherited").len(), 1);
    assert!(nodes.iter().all(|node| node.told("Inherited").is_empty()));
}
