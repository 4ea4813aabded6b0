//! The local copy of a node on a disk of its own: written, read, torn, and an area that was
//! restored.

use super::area_disk::CommonBytes;
use super::cluster::{Member, all_up, disk, pass, run, superblock};
use crate::members::MemberStanding;
use cluster::layout::Half;
use cluster::local::{COPY, LOCAL_BYTES, LocalCopy, LocalFound, found, header, place};
use cluster::state::ClusterState;
use std::sync::{Arc, Mutex};

fn blank() -> CommonBytes {
    let mut bytes = vec![0; LOCAL_BYTES as usize];
    bytes[..512].copy_from_slice(&header());
    Arc::new(Mutex::new(bytes))
}

fn copies(bytes: &[u8]) -> [&[u8]; 2] {
    [Half::A, Half::B].map(|half| &bytes[place(half).at as usize..][..COPY])
}

fn last(local: &CommonBytes) -> LocalFound {
    found(copies(&local.lock().expect("bytes")))
}

fn joined(area: &CommonBytes, local: &CommonBytes, seed: u64) -> Member {
    let mut node = Member::start(&[area, local], seed);
    run(&mut [&mut node], 30, |nodes| all_up(nodes, nodes[0].members().rows().len()));
    pass(&mut [&mut node], 2);
    node
}

/// Stops a node in order.
fn leave(mut node: Member) {
    let members = node.members();
    node.machine.block_on("leaving", 5, members.leave());
}

#[test]
fn what_a_node_knows_is_kept_and_shown_without_the_area() {
    let (area, local) = (disk(&superblock(5)), blank());
    let mut node = joined(&area, &local, 1);
    assert_eq!(
        node.told("LocalCopy"),
        [
            "LocalCopy { state: \"blank\", decree: 0 }",
            "LocalCopy { state: \"rebuilt\", decree: 1 }"
        ]
    );
    let LocalFound::Copy { copy, is_mended: false, .. } = last(&local) else {
        panic!("{:?}", last(&local))
    };
    assert_eq!((copy.cluster, copy.decree, copy.used, copy.slots), (5, 1, 1, 16));
    {
        let bytes = local.lock().expect("bytes");
        let whole = copies(&bytes).into_iter().find(|one| LocalCopy::decode(one) == Ok(copy));
        let (_, state) =
            ClusterState::decode(LocalCopy::state(whole.expect("a copy"))).expect("one");
        assert_eq!((state.number(), state.members().len()), (1, 1));
    }
    pass(&mut [&mut node], 25);
    let LocalFound::Copy { copy: later, .. } = last(&local) else { panic!() };
    assert!((2..=4).contains(&(later.sequence - copy.sequence)), "{later:?}: a copy in 10 s");

    // The disk of the area is away.
    let alone = Member::start(&[&local], 2);
    assert!(alone.machine.node.members.is_none());
    assert_eq!(alone.told("LocalCopy"), ["LocalCopy { state: \"read\", decree: 1 }"]);
    let mut shown = Vec::new();
    alone.machine.node.local.expect("a disk").show(|copy, rows| {
        shown.extend(rows.map(|row| (copy.decree, row.id.slot, row.is_own)));
    });
    assert_eq!(shown, [(1, 0, true)]);
}

#[test]
fn an_area_that_was_restored_is_refused_by_each_node_that_knows_more() {
    let area = disk(&superblock(5));
    let locals = [blank(), blank()];
    leave(joined(&area, &locals[0], 1));
    let old = area.lock().expect("bytes").clone();
    leave(joined(&area, &locals[1], 2));
    leave(joined(&area, &locals[0], 3));
    *area.lock().expect("bytes") = old;
    for (local, seed) in locals.iter().zip(4..) {
        let mut node = Member::start(&[&area, local], seed);
        run(&mut [&mut node], 30, |nodes| nodes[0].standing() == MemberStanding::Out);
        let told = node.told("ClusterForeign");
        assert!(!told.is_empty(), "{:?} {:?}", node.machine.told, last(local));
        assert!(told[0].contains("older than the local copy"), "{told:?}");
        assert!(node.told("Error")[0].contains("restored from an old image"), "{seed}");
        assert!(node.told("Joined").is_empty());
        // What it knew is kept.
        let LocalFound::Copy { copy, .. } = last(local) else { panic!() };
        assert!(copy.decree > 1, "{copy:?}");
    }
    // A node that knows nothing cannot see it.
    assert!(!joined(&area, &blank(), 9).told("Joined").is_empty());
}

#[test]
fn a_torn_copy_is_mended_or_rebuilt_and_told() {
    let (area, local) = (disk(&superblock(5)), blank());
    let mut node = joined(&area, &local, 1);
    pass(&mut [&mut node], 12);
    leave(node);
    let tear = |half| local.lock().expect("bytes")[place(half).at as usize + 700] ^= 1;
    tear(Half::A);
    let node = joined(&area, &local, 2);
    assert!(node.told("LocalCopy")[0].contains("mended"), "{:?}", node.told("LocalCopy"));
    leave(node);
    let LocalFound::Copy { .. } = last(&local) else { panic!("not whole again") };
    local.lock().expect("bytes")[4096..].fill(0x5a);
    let node = joined(&area, &local, 3);
    let told = node.told("LocalCopy");
    assert!(told[0].contains("torn") && told[1].contains("rebuilt"), "{told:?}");
}

#[test]
fn a_copy_of_another_cluster_and_of_a_newer_program_is_left_alone() {
    let local = blank();
    leave(joined(&disk(&superblock(5)), &local, 1));
    let before = local.lock().expect("bytes").clone();
    let node = joined(&disk(&superblock(6)), &local, 2);
    assert!(node.told("LocalCopy").last().expect("told").contains("foreign"));
    assert!(*local.lock().expect("bytes") == before);

    let newer = blank();
    {
        let mut bytes = newer.lock().expect("bytes");
        bytes[8] = 2;
        let crc = cluster::crc::crc32c(&bytes[..508]).to_le_bytes();
        bytes[508..512].copy_from_slice(&crc);
    }
    let before = newer.lock().expect("bytes").clone();
    let node = joined(&disk(&superblock(5)), &newer, 3);
    assert!(node.told("Error")[0].contains("version 2"), "{:?}", node.told("Error"));
    assert!(node.machine.node.local.is_none() && *newer.lock().expect("bytes") == before);
}

/// Bytes of a write that are on the disk after a power cut.
fn fates(len: usize) -> [usize; 5] {
    [0, 512, len / 1024 * 512, len - 512, len]
}

#[test]
fn a_power_cut_at_any_write_of_a_copy_leaves_the_one_before() {
    let (area, local) = (disk(&superblock(5)), blank());
    let mut disk = local.lock().expect("bytes").clone();
    let mut node = Member::start(&[&area, &local], 1);
    node.ports[1].with(|port| port.recorded = Some(Vec::new()));
    run(&mut [&mut node], 30, |nodes| all_up(nodes, nodes[0].members().rows().len()));
    pass(&mut [&mut node], 25);
    let writes = node.ports[1].with(|port| port.recorded.take()).expect("recorded");
    assert!(writes.len() >= 3, "{} writes", writes.len());
    let whole = |bytes: &[u8]| match found(copies(bytes)) {
        LocalFound::Copy { copy, .. } => Some(copy),
        _ => None,
    };
    let (mut seed, mut cuts) = (2, 0);
    for (at, data) in writes {
        let before = whole(&disk);
        let mut next = disk.clone();
        next[at..][..data.len()].copy_from_slice(&data);
        let after = whole(&next);
        assert!(after.is_some(), "a write that ends no copy");
        for len in fates(data.len()) {
            let mut image = disk.clone();
            image[at..][..len].copy_from_slice(&data[..len]);
            let kept = whole(&image);
            assert!(kept == before || kept == after, "{kept:?}, not {before:?} or {after:?}");
            // The node starts on this disk, and joins.
            let cut = Arc::new(Mutex::new(image));
            let twin = Arc::new(Mutex::new(area.lock().expect("bytes").clone()));
            let node = joined(&twin, &cut, seed);
            let told = node.told("LocalCopy");
            let words = if kept.is_some() { ["read", "mended"] } else { ["blank", "torn"] };
            assert!(words.iter().any(|word| told[0].contains(word)), "{len}: {told:?}");
            assert!(matches!(last(&cut), LocalFound::Copy { .. }), "written again");
            (seed, cuts) = (seed + 1, cuts + 1);
        }
        disk = next;
    }
    println!("{cuts} power cuts");
}
