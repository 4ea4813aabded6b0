//! Spaces whose records name a cluster: its members share them by its log, on any disk; every other
//! node leaves them alone.

use super::area_disk::CommonBytes;
use super::cluster::{Member, all_up, disk, in_spaces, pass, run, superblock};
use super::cycle::DISK_BYTES;
use super::owners::{open, ram, spaces};
use crate::block::SectorRange;
use crate::block::gpt::make::{NewPart, NewSpace, place, table};
use crate::members::RollStatus;
use crate::space::copies::{TAIL_LEN, copies};
use crate::space::{RecordSide, Residue, SpaceRecord, SpaceState, Uuid};
use crate::storage::DiskLease;
use crate::storage::spaces::{SharedStanding, SpaceId, Spaces};
use std::sync::{Arc, Mutex};

fn name(cluster: u128) -> Uuid {
    Uuid(cluster.to_be_bytes())
}

fn placed(count: usize) -> (usize, Vec<SectorRange>) {
    let len = (4 << 20) + count * (DISK_BYTES + (1 << 20));
    (len, place(len as u64, &vec![DISK_BYTES as u64; count]).expect("there is room"))
}

/// Writes both copies of a free space's record.
fn put_free(bytes: &mut [u8], area: SectorRange, seed: u64, cluster: Option<u128>) {
    let (start, capacity) = ((area.first * 512) as usize, area.count * 512);
    for sequence in 2..4 {
        let record = SpaceRecord {
            sequence,
            cluster: cluster.map(name),
            ..SpaceRecord::free(capacity, Uuid::from_entropy(seed, 3), Residue::Clean)
        };
        let at = RecordSide::of(sequence).start(capacity).expect("large enough") as usize;
        bytes[start + at..][..4096].copy_from_slice(&record.encode());
    }
}

/// Makes a disk without an area whose spaces are those of these clusters.
fn plain(clusters: &[Option<u128>]) -> CommonBytes {
    let (len, placed) = placed(clusters.len());
    let guid = |n: usize| gpt_disk_types::Guid::from_bytes([100 + n as u8; 16]);
    let part = |(n, sectors): (usize, &SectorRange)| NewSpace {
        sectors: *sectors,
        guid: guid(n),
        kind: NewPart::Space,
    };
    let parts: Vec<_> = placed.iter().enumerate().map(part).collect();
    let mut bytes = vec![0; len];
    for piece in table(len as u64, guid(99), &parts) {
        bytes[piece.offset as usize..][..piece.bytes.len()].copy_from_slice(&piece.bytes);
    }
    for (n, cluster) in clusters.iter().enumerate() {
        put_free(&mut bytes, placed[n], n as u64 + 1, *cluster);
    }
    Arc::new(Mutex::new(bytes))
}

/// Returns the copies of the record of a space.
pub(super) fn records(
    bytes: &CommonBytes,
    spaces: &Spaces,
    id: SpaceId,
) -> [Option<SpaceRecord>; 2] {
    let (area, bytes) = (spaces.place(id).area, bytes.lock().expect("bytes"));
    let end = (area.start() + area.bytes()) as usize;
    let tail: [u8; TAIL_LEN] = bytes[end - TAIL_LEN..end].try_into().expect("the tail");
    copies(&tail, area.bytes()).map(Result::ok)
}

/// Has a node take a space for a partition.
fn take(node: &mut Member, partition: &str) -> SpaceId {
    let (spaces, mut taken) = (spaces(node), None);
    run(&mut [node], 30, |_| {
        taken = taken.or_else(|| spaces.acquire(partition, &ram(), 1));
        taken.is_some_and(|id| spaces.is_ready(id) == Some(Ok(())))
    });
    taken.expect("a space")
}

#[test]
fn a_disk_without_an_area_comes_under_the_log_of_its_cluster() {
    let (area, pages) = (disk(&superblock(5)), plain(&[Some(5), Some(5)]));
    let (mut one, mut two) =
        (Member::start(&[&area, &pages], 1), Member::start(&[&area, &pages], 2));
    // A node looks at its disks before or after it is a member.
    open(&mut one);
    run(&mut [&mut one, &mut two], 30, |nodes| all_up(nodes, 2));
    open(&mut two);
    let (here, there) = (spaces(&one), spaces(&two));
    let first = take(&mut one, "a");
    two.machine.now_ns = one.machine.now_ns;
    pass(&mut [&mut one, &mut two], 3);
    assert_eq!(here.standing(first).map(|s| s.0), Some(SharedStanding::Own));
    assert_eq!(there.summaries()[first.0].state, "another node's");
    let second = take(&mut two, "b");
    assert_ne!(first, second);
    one.machine.now_ns = two.machine.now_ns;
    for record in records(&pages, here, first).into_iter().flatten() {
        assert_eq!(record.cluster, Some(name(5)), "{:?}", record.state);
    }
    // The lease of the cluster holds for the disk: a node that stands still loses it.
    let lost = one.machine.node.host.pager.disks()[1];
    let is_fenced = |(_, status): &(u16, RollStatus)| *status == RollStatus::Fenced;
    run(&mut [&mut two], 20, |nodes| nodes[0].statuses().iter().any(is_fenced));
    one.machine.now_ns = two.machine.now_ns;
    run(&mut [&mut one, &mut two], 20, |nodes| !nodes[0].told("Fenced").is_empty());
    assert!(matches!(lost.lease(), DiskLease::Left | DiskLease::Awaited), "{:?}", lost.lease());
    let told: Vec<_> = two.told("Error");
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn a_node_outside_of_the_cluster_writes_nothing_and_names_it() {
    let own = disk(&superblock(6));
    let (closed, mixed) = (plain(&[Some(5), Some(5)]), plain(&[None, Some(5)]));
    for (disks, count) in
        [(vec![&closed], 2), (vec![&mixed], 1), (vec![&own, &closed], 2), (vec![&own, &mixed], 1)]
    {
        let mut node = Member::start(&disks, 1);
        open(&mut node);
        pass(&mut [&mut node], 15);
        let spaces = spaces(&node);
        let told = node.told("SpaceClosed");
        assert_eq!(told.len(), count, "{:?}", node.machine.told);
        assert!(told.iter().all(|event| event.contains("-000000000005")), "{told:?}");
        let disk = disks.len() - 1;
        let place = format!("paging device {disk}, GPT entry 2");
        assert!(node.told("Error")[count - 1].contains(&place), "{:?}", node.told("Error"));
        assert_eq!(spaces.acquire("a", &ram(), 1), None);
        assert!(spaces.summaries().iter().all(|space| space.state == "unusable"));
        assert_eq!(node.ports[disk].with(|port| port.writes), 0);
    }
    for (bytes, tags) in [(&closed, [Some(5), Some(5)]), (&mixed, [None, Some(5)])] {
        assert_eq!(*bytes.lock().expect("bytes"), *plain(&tags).lock().expect("bytes"));
    }
}

#[test]
fn what_an_interrupted_add_has_left_out_is_closed_by_the_first_take() {
    let (area, pages) = (disk(&superblock(5)), plain(&[None, Some(5)]));
    let mut node = Member::start(&[&area, &pages], 1);
    open(&mut node);
    run(&mut [&mut node], 30, |nodes| all_up(nodes, 1));
    let all = [take(&mut node, "a"), take(&mut node, "b")];
    for id in all {
        let found = records(&pages, spaces(&node), id).map(|copy| copy.and_then(|r| r.cluster));
        assert_eq!(found, [Some(name(5)); 2]);
    }
    assert!(node.told("SpaceClosed").is_empty() && node.told("Error").is_empty());
}

#[test]
fn a_space_beside_the_area_is_closed_for_good_by_its_first_take() {
    let bytes = in_spaces(&superblock(5), 1);
    let mut node = Member::start(&[&bytes], 1);
    run(&mut [&mut node], 30, |nodes| all_up(nodes, 1));
    open(&mut node);
    let (id, there) = (take(&mut node, "a"), spaces(&node));
    assert!(there.release(id));
    run(&mut [&mut node], 30, |_| there.free_count() == 1);
    let found = records(&bytes, there, id).map(|copy| copy.map(|r| r.cluster));
    assert_eq!(found, [Some(Some(name(5))); 2]);
    let newest = records(&bytes, there, id).into_iter().flatten().max_by_key(|r| r.sequence);
    assert_eq!(newest.map(|record| record.state), Some(SpaceState::Free));
}

#[test]
fn a_space_of_another_cluster_beside_the_area_is_left_alone() {
    let bytes = in_spaces(&superblock(5), 2);
    {
        let node = Member::start(&[&bytes], 9);
        let area = spaces(&node).place(SpaceId(1)).area;
        let sectors = area.locate(0, area.bytes()).expect("its sectors");
        put_free(&mut bytes.lock().expect("bytes"), sectors, 1, Some(6));
    }
    let mut node = Member::start(&[&bytes], 1);
    run(&mut [&mut node], 30, |nodes| all_up(nodes, 1));
    open(&mut node);
    assert_eq!(take(&mut node, "a"), SpaceId(0));
    assert_eq!(spaces(&node).acquire("b", &ram(), 1), None);
    assert_eq!(node.told("SpaceClosed").len(), 1);
    let theirs = records(&bytes, spaces(&node), SpaceId(1));
    assert!(theirs.iter().flatten().all(|record| record.cluster == Some(name(6))));
}
