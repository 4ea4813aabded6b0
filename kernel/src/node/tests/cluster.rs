//! Nodes with a cluster area on a disk that they share: registration, fences, leases, the end.

use super::area_disk::{AreaPort, CommonBytes};
use super::machine::{SimMachine, SimRam, number};
use crate::arch::percpu::CpuId;
use crate::arch::time::test_clock;
use crate::block::Disk;
use crate::block::gpt::make::{NewPart, NewSpace, place, table};
use crate::members::{ConfirmError, MemberStanding, Members, RollRow, RollStatus};
use crate::node::services;
use crate::storage::DiskLease;
use crate::time::Ns;
use cluster::beat::{Beat, BeatMode};
use cluster::layout::AreaLayout;
use cluster::superblock::{FEATURE_MAIL, Superblock};
use cluster::timing::ClusterTiming;
use std::sync::{Arc, Mutex};

const SLOTS: u16 = 16;
const STATE: u32 = 4096;
/// Step of the clock.
const STEP_NS: Ns = Ns::from_ms(10);

pub(super) fn superblock(cluster: u128) -> Superblock {
    Superblock {
        features_optional: FEATURE_MAIL,
        cluster,
        slots: SLOTS,
        areas: 1,
        area: 0,
        state_bytes: STATE,
        timing: ClusterTiming::DEFAULT,
        formatted_ns: 0,
    }
}

pub(super) fn layout() -> AreaLayout {
    AreaLayout::new(SLOTS, STATE).expect("possible numbers").with_mail()
}

/// Makes a disk that is an area.
pub(super) fn disk(superblock: &Superblock) -> CommonBytes {
    let mut bytes = vec![0; layout().len() as usize];
    for copy in bytes[..8192].chunks_mut(4096) {
        copy.copy_from_slice(&superblock.encode());
    }
    Arc::new(Mutex::new(bytes))
}

fn beat(bytes: &CommonBytes, slot: u16) -> Beat {
    let at = layout().beat(slot).at as usize;
    Beat::decode(&bytes.lock().expect("bytes")[at..at + 512]).expect("a beat")
}

/// A node, and its ports.
pub(super) struct Member {
    pub(super) machine: SimMachine,
    pub(super) ports: Vec<&'static AreaPort>,
}

impl Member {
    pub(super) fn start(disks: &[&CommonBytes], seed: u64) -> Self {
        let ports = (0..).zip(disks).map(|(n, bytes)| AreaPort::new(n, bytes)).collect();
        Self::on(ports, seed)
    }

    fn on(ports: Vec<&'static AreaPort>, seed: u64) -> Self {
        let ram: &'static SimRam = Box::leak(Box::new(SimRam::new(64)));
        let disks = ports.iter().map(|port| *port as &'static (dyn Disk + Send));
        let mut machine = SimMachine::of_disks(ram, disks.collect(), seed);
        machine.listen();
        Self { machine, ports }
    }

    pub(super) fn members(&self) -> &'static Members {
        self.machine.node.members.expect("an area on the disk")
    }

    /// Runs a turn at `now_ns`.
    fn turn(&mut self, now_ns: Ns) {
        self.machine.now_ns = now_ns;
        test_clock::set(now_ns);
        for _ in 0..4 {
            services::background(self.machine.node, CpuId::BOOT);
        }
        self.machine.listen();
    }

    pub(super) fn told(&self, start: &str) -> Vec<&String> {
        self.machine.told.iter().filter(|event| event.starts_with(start)).collect()
    }

    pub(super) fn standing(&self) -> MemberStanding {
        self.members().view().standing
    }

    pub(super) fn statuses(&self) -> Vec<(u16, RollStatus)> {
        self.members().rows().iter().map(|row| (row.id.slot, row.status)).collect()
    }
}

/// Runs nodes side by side until `ready`; returns the time that it took.
///
/// # Panics
/// If that takes more than `limit_s` seconds.
pub(super) fn run(
    nodes: &mut [&mut Member],
    limit_s: u64,
    mut ready: impl FnMut(&[&mut Member]) -> bool,
) -> Ns {
    let start = nodes.iter().map(|node| node.machine.now_ns).max().expect("a node");
    let mut now = start;
    while !ready(nodes) {
        now += STEP_NS;
        assert!(
            now < start + Ns::from_secs(limit_s),
            "not within {limit_s} s: {:#?}",
            nodes.iter().map(|node| &node.machine.told).collect::<Vec<_>>()
        );
        nodes.iter_mut().for_each(|node| node.turn(now));
    }
    now - start
}

pub(super) fn pass(nodes: &mut [&mut Member], seconds: u64) {
    let end = nodes[0].machine.now_ns + Ns::from_secs(seconds);
    run(nodes, seconds + 1, |nodes| nodes[0].machine.now_ns >= end);
}

pub(super) fn all_up(nodes: &[&mut Member], count: usize) -> bool {
    let is_up = |node: &&mut Member| {
        let rows = node.members().rows();
        let is_seen = |row: &RollRow| row.status == RollStatus::Up && row.beat.is_some();
        rows.len() == count && rows.iter().all(is_seen)
    };
    nodes.iter().all(is_up) && nodes.iter().all(|n| n.standing() == MemberStanding::Member)
}

#[test]
fn a_node_registers_and_beats() {
    let bytes = disk(&superblock(5));
    let mut node = Member::start(&[&bytes], 1);
    run(&mut [&mut node], 5, |nodes| all_up(nodes, 1));
    assert_eq!(node.told("Joined"), ["Joined { slot: 0, members: 1 }"]);
    assert!(node.told("Error").is_empty() && node.told("Register").is_empty());
    let first = beat(&bytes, 0).sequence;
    pass(&mut [&mut node], 5);
    let beats = beat(&bytes, 0).sequence - first;
    assert!((4..=6).contains(&beats), "{beats} beats in 5 s");
    let row = node.members().rows()[0];
    assert!(row.is_own && row.name().starts_with("node-"), "{row:?}");
    assert!(row.beat.is_some_and(|beat| beat.details.devices == 1));
}

#[test]
fn nodes_on_one_disk_get_slots_of_their_own_and_see_each_other() {
    let bytes = disk(&superblock(5));
    let mut nodes: Vec<Member> = (1..4).map(|seed| Member::start(&[&bytes], seed)).collect();
    let mut nodes: Vec<&mut Member> = nodes.iter_mut().collect();
    run(&mut nodes, 30, |nodes| all_up(nodes, 3));
    let lists: Vec<_> = nodes
        .iter()
        .map(|node| node.members().rows().iter().map(|row| row.id).collect::<Vec<_>>())
        .collect();
    assert!(lists.iter().all(|list| *list == lists[0]), "{lists:?}");
    for node in &nodes {
        let told = node.told("Member");
        let up: Vec<_> = told.iter().filter(|event| event.contains("state: \"up\"")).collect();
        assert_eq!(up.len(), 3, "{told:?}");
        assert!(node.told("Fenced").is_empty() && node.told("Lease").is_empty());
    }
}

#[test]
fn a_stalled_area_gets_the_request_again_until_it_answers() {
    let bytes = disk(&superblock(5));
    let mut node = Member::start(&[&bytes], 1);
    let now = node.machine.now_ns;
    node.ports[0].with(|port| port.stalled_until = now + Ns::from_secs(7));
    run(&mut [&mut node], 20, |nodes| all_up(nodes, 1));
    let resends: Vec<_> =
        node.told("Register").iter().map(|event| number(event, "resend: ")).collect();
    assert_eq!(resends, [Some(1), Some(2)], "after 2 and 6 of 7 s");
    assert!(node.told("Register")[0].contains("step: \"row\""), "{:?}", node.told("Register"));
}

#[test]
fn an_area_that_never_answers_ends_the_registration_but_not_the_node() {
    let bytes = disk(&superblock(5));
    let mut node = Member::start(&[&bytes], 1);
    let start = node.machine.now_ns;
    node.ports[0].with(|port| port.stalled_until = Ns::MAX);
    run(&mut [&mut node], 140, |nodes| !nodes[0].told("JoinFailed").is_empty());
    let took = (node.machine.now_ns - start).as_u64() / 1_000_000_000;
    assert_eq!(took, 126, "2 + 4 + 8 + 16 + 32 + 64 s");
    assert_eq!(node.told("JoinFailed"), ["JoinFailed { step: \"row\", tries: 6 }"]);
    let resends: Vec<_> =
        node.told("Register").iter().filter_map(|event| number(event, "resend: ")).collect();
    assert_eq!(resends, [1, 2, 3, 4, 5]);
    pass(&mut [&mut node], 1);
    assert_eq!(node.standing(), MemberStanding::Out);
    let requests = node.ports[0].with(|port| port.requests);
    pass(&mut [&mut node], 5);
    assert_eq!(node.ports[0].with(|port| port.requests), requests, "it goes on writing");
}

#[test]
fn a_name_in_use_is_told_on_both_nodes_that_have_it() {
    let bytes = disk(&superblock(5));
    // The name follows from the last byte of the seed.
    let mut nodes: Vec<Member> =
        [1, 2, 0x101].into_iter().map(|seed| Member::start(&[&bytes], seed)).collect();
    let mut nodes: Vec<&mut Member> = nodes.iter_mut().collect();
    run(&mut nodes, 30, |nodes| all_up(nodes, 3));
    pass(&mut nodes, 5);
    let told: Vec<_> = nodes.iter().map(|node| node.told("Error").len()).collect();
    assert_eq!(told, [1, 0, 1]);
    assert!(nodes[0].told("Error")[0].contains("node-1 is in use"), "{:?}", nodes[0].told("Error"));

    // An earlier start of a node has its name, and beats no more.
    let mut again = Member::start(&[&bytes], 0x202);
    let now = nodes[0].machine.now_ns;
    again.machine.now_ns = now;
    pass(&mut [&mut again], 15);
    assert!(again.told("Error").is_empty(), "{:?}", again.told("Error"));
}

#[test]
fn a_node_that_dies_is_fenced_by_another_within_twelve_seconds() {
    let bytes = disk(&superblock(5));
    let (mut one, mut two) = (Member::start(&[&bytes], 1), Member::start(&[&bytes], 2));
    run(&mut [&mut one, &mut two], 30, |nodes| all_up(nodes, 2));
    let dead = two.members().view().slot.expect("a member");
    let took =
        run(&mut [&mut one], 20, |nodes| nodes[0].statuses().contains(&(dead, RollStatus::Fenced)));
    assert!(took <= Ns::from_secs(12) && took >= Ns::from_secs(8), "{took:?}");
    assert!(one.told("Member").iter().any(|event| event.contains("state: \"fenced\"")));
    // Only the operator knows that nothing of it lands any more.
    pass(&mut [&mut one], 5);
    assert_eq!(one.members().confirm("elsewhere"), Err(ConfirmError::NoMember));
    let own = one.members().view().slot.expect("a member").to_string();
    assert_eq!(one.members().confirm(&own), Err(ConfirmError::NotFenced));
    assert_eq!(one.members().confirm(&dead.to_string()), Ok(()));
    run(&mut [&mut one], 10, |nodes| nodes[0].statuses().len() == 1);
    // It wakes up, sees the fence, signs off, and registers as another incarnation.
    two.machine.now_ns = one.machine.now_ns;
    run(&mut [&mut one, &mut two], 20, |nodes| all_up(nodes, 2));
    assert_eq!(two.told("Fenced"), [&format!("Fenced {{ slot: {dead} }}")]);
    assert_eq!(two.told("Left"), [&format!("Left {{ slot: {dead} }}")]);
    assert_eq!(two.told("Joined").len(), 2);
    let rows = two.members().rows();
    assert_eq!(rows.iter().filter(|row| row.is_own).count(), 1);
    assert!(rows.iter().any(|row| row.is_own && row.id.slot == 2), "{rows:?}");
    assert_eq!(two.told("Lease"), ["Lease { state: \"frozen\" }"]);
    assert_eq!(beat(&bytes, dead).mode, BeatMode::Leaving);
}

#[test]
fn a_node_that_leaves_says_so_and_is_dropped_without_an_operator() {
    let bytes = disk(&superblock(5));
    let (mut one, mut two) = (Member::start(&[&bytes], 1), Member::start(&[&bytes], 2));
    run(&mut [&mut one, &mut two], 30, |nodes| all_up(nodes, 2));
    let left = two.members().view().slot.expect("a member");
    test_clock::set(two.machine.now_ns);
    two.machine.block_on("leaving", 4, two.members().leave());
    assert_eq!(beat(&bytes, left).mode, BeatMode::Leaving);
    assert_eq!(two.told("Left"), [&format!("Left {{ slot: {left} }}")]);
    run(&mut [&mut one], 10, |nodes| nodes[0].statuses().len() == 1);
    for state in ["leaving", "fenced", "gone"] {
        let wanted = format!("state: \"{state}\"");
        assert!(one.told("Member").iter().any(|event| event.contains(&wanted)), "{state}");
    }
}

#[test]
fn leaving_an_area_that_does_not_answer_takes_a_bounded_time() {
    let bytes = disk(&superblock(5));
    let mut node = Member::start(&[&bytes], 1);
    run(&mut [&mut node], 5, |nodes| all_up(nodes, 1));
    node.ports[0].with(|port| port.stalled_until = Ns::MAX);
    let members = node.members();
    node.machine.block_on("leaving", 5, members.leave());
    assert_eq!(beat(&bytes, 0).mode, BeatMode::Up);
}

#[test]
fn a_lease_that_ends_freezes_and_an_area_that_answers_thaws() {
    let bytes = disk(&superblock(5));
    let mut node = Member::start(&[&bytes], 1);
    run(&mut [&mut node], 5, |nodes| all_up(nodes, 1));
    let now = node.machine.now_ns;
    node.ports[0].with(|port| port.stalled_until = now + Ns::from_secs(12));
    let took = run(&mut [&mut node], 12, |nodes| nodes[0].standing() == MemberStanding::Frozen);
    assert!(took >= Ns::from_secs(7) && took <= Ns::from_secs(9), "{took:?}");
    run(&mut [&mut node], 6, |nodes| nodes[0].standing() == MemberStanding::Member);
    assert_eq!(node.told("Lease"), ["Lease { state: \"frozen\" }", "Lease { state: \"thawed\" }"]);
}

#[test]
fn an_area_from_a_snapshot_stops_the_node_for_good() {
    let bytes = disk(&superblock(5));
    let mut node = Member::start(&[&bytes], 1);
    run(&mut [&mut node], 5, |nodes| all_up(nodes, 1));
    let snapshot = bytes.lock().expect("bytes").clone();
    pass(&mut [&mut node], 3);
    // The area goes back after each write, so that a read finds the old sector.
    let at = layout().beat(0).at as usize;
    let is_told = |nodes: &[&mut Member]| {
        bytes.lock().expect("bytes")[at..at + 512].copy_from_slice(&snapshot[at..at + 512]);
        !nodes[0].told("ClusterForeign").is_empty()
    };
    run(&mut [&mut node], 5, is_told);
    assert!(node.told("ClusterForeign")[0].contains("own sector"));
    assert_eq!(node.standing(), MemberStanding::Out);
    let writes = node.ports[0].with(|port| port.writes);
    pass(&mut [&mut node], 5);
    assert_eq!(node.ports[0].with(|port| port.writes), writes);
}

#[test]
fn areas_of_two_clusters_and_of_newer_programs_are_left_alone() {
    let (one, other) = (disk(&superblock(5)), disk(&superblock(6)));
    let mut node = Member::start(&[&one, &other], 1);
    assert!(node.machine.node.members.is_none());
    assert_eq!(node.told("ClusterForeign").len(), 2);
    let twins = Member::start(&[&one, &one], 2);
    assert!(twins.machine.node.members.is_none());
    assert!(twins.told("ClusterForeign")[0].contains("two copies"));
    assert!(twins.told("Error")[0].contains("is a copy of the area on paging device 0"));
    let newer = disk(&superblock(5));
    {
        let mut bytes = newer.lock().expect("bytes");
        bytes[4096 + 8] = 2;
        let crc = cluster::crc::crc32c(&bytes[4096..8188]).to_le_bytes();
        bytes[8188..8192].copy_from_slice(&crc);
    }
    let later = Member::start(&[&newer], 3);
    assert!(later.machine.node.members.is_none());
    let told = later.told("Error");
    assert!(told[0].contains("paging device 0") && told[0].contains("version 2"), "{told:?}");
    pass(&mut [&mut node], 1);
    assert_eq!(node.ports[0].with(|port| port.writes), 0);
}

#[test]
fn a_cluster_of_three_areas_goes_on_without_one() {
    let areas: Vec<_> =
        (0..3).map(|area| disk(&Superblock { areas: 3, area, ..superblock(5) })).collect();
    let mut node = Member::start(&[&areas[2], &areas[0], &areas[1]], 1);
    run(&mut [&mut node], 5, |nodes| all_up(nodes, 1));
    node.ports[1].with(|port| port.stalled_until = Ns::MAX);
    pass(&mut [&mut node], 40);
    assert_eq!(node.standing(), MemberStanding::Member);
    assert!(node.told("Lease").is_empty());
    let two: Vec<_> = areas[..2].iter().collect();
    let mut other = Member::start(&two, 2);
    other.machine.now_ns = node.machine.now_ns;
    run(&mut [&mut node, &mut other], 30, |nodes| all_up(nodes, 2));
    let alone = Member::start(&two[..1], 3);
    assert!(alone.machine.node.members.is_none());
    assert!(alone.told("Error")[0].contains("1 of 3 areas are there, 2 are needed"));
}

#[test]
fn a_fenced_node_with_requests_that_may_still_land_stays_out_and_says_so() {
    let areas: Vec<_> =
        (0..3).map(|area| disk(&Superblock { areas: 3, area, ..superblock(5) })).collect();
    let areas: Vec<_> = areas.iter().collect();
    let (mut one, mut two) = (Member::start(&areas, 1), Member::start(&areas, 2));
    run(&mut [&mut one, &mut two], 30, |nodes| all_up(nodes, 2));
    one.ports[1].with(|port| port.stalled_until = Ns::MAX);
    pass(&mut [&mut one, &mut two], 40);
    let slot = one.members().view().slot.expect("a member");
    run(&mut [&mut two], 20, |nodes| nodes[0].statuses().contains(&(slot, RollStatus::Fenced)));
    one.machine.now_ns = two.machine.now_ns;
    run(&mut [&mut one, &mut two], 20, |nodes| nodes[0].standing() == MemberStanding::Out);
    pass(&mut [&mut one, &mut two], 20);
    assert_eq!(one.standing(), MemberStanding::Out);
    assert!(one.told("Left").is_empty() && one.told("Joined").len() == 1);
    let told = one.told("Error");
    assert!(told.iter().any(|event| event.contains("stays out")), "{told:?}");
    assert_eq!(two.statuses().len(), 2, "nothing proves that it is quiet");
}

#[test]
fn a_fenced_node_that_ends_does_not_register_anew() {
    let bytes = disk(&superblock(5));
    let (mut one, mut two) = (Member::start(&[&bytes], 1), Member::start(&[&bytes], 2));
    run(&mut [&mut one, &mut two], 30, |nodes| all_up(nodes, 2));
    let slot = one.members().view().slot.expect("a member");
    run(&mut [&mut two], 20, |nodes| nodes[0].statuses().contains(&(slot, RollStatus::Fenced)));
    test_clock::set(two.machine.now_ns);
    one.machine.now_ns = two.machine.now_ns;
    one.machine.block_on("leaving", 5, one.members().leave());
    pass(&mut [&mut one], 5);
    assert_eq!(one.standing(), MemberStanding::Out);
    assert_eq!(one.told("Joined").len(), 1);
}

#[test]
fn most_slots_used_is_told_and_a_full_area_takes_no_more() {
    let bytes = disk(&superblock(5));
    for seed in 1..=u64::from(SLOTS) {
        let mut node = Member::start(&[&bytes], seed);
        run(&mut [&mut node], 60, |nodes| nodes[0].standing() == MemberStanding::Member);
        test_clock::set(node.machine.now_ns);
        let members = node.members();
        node.machine.block_on("leaving", 5, members.leave());
        let is_low = !node.told("SlotsLow").is_empty();
        assert_eq!(is_low, seed * 10 >= u64::from(SLOTS) * 9, "start {seed}: {:?}", node.told("S"));
    }
    let mut node = Member::start(&[&bytes], 99);
    run(&mut [&mut node], 10, |nodes| nodes[0].standing() == MemberStanding::Out);
    assert_eq!(node.told("NoSlot"), ["NoSlot { slots: 16 }"]);
}

/// Makes a disk with a paging space and an area in GPT partitions.
fn divided(superblock: &Superblock) -> CommonBytes {
    in_spaces(superblock, 1)
}

/// As [`divided`], with this many paging spaces.
pub(super) fn in_spaces(superblock: &Superblock, spaces: usize) -> CommonBytes {
    in_sized_spaces(superblock, spaces, super::cycle::DISK_BYTES)
}

/// As [`in_spaces`], each of this many bytes.
pub(super) fn in_sized_spaces(superblock: &Superblock, spaces: usize, bytes: usize) -> CommonBytes {
    let mut sizes = vec![bytes as u64; spaces];
    sizes.push(layout().len());
    let len = (16 << 20) + spaces * (bytes + (1 << 20));
    let placed = place(len as u64, &sizes).expect("there is room");
    let part = |n: usize, kind| {
        let seed = (superblock.area * 64) as usize + n + 1;
        let guid = gpt_disk_types::Guid::from_bytes([seed as u8; 16]);
        NewSpace { sectors: placed[n], guid, kind }
    };
    let mut parts: Vec<_> = (0..spaces).map(|n| part(n, NewPart::Space)).collect();
    parts.push(part(spaces, NewPart::Cluster));
    let mut bytes = vec![0; len];
    let disk = gpt_disk_types::Guid::from_bytes([9; 16]);
    for piece in table(len as u64, disk, &parts) {
        bytes[piece.offset as usize..][..piece.bytes.len()].copy_from_slice(&piece.bytes);
    }
    let area = (placed[spaces].first * 512) as usize;
    for copy in bytes[area..area + 8192].chunks_mut(4096) {
        copy.copy_from_slice(&superblock.encode());
    }
    Arc::new(Mutex::new(bytes))
}

#[test]
fn a_space_beside_the_area_is_used_by_members_only() {
    let bytes = divided(&superblock(5));
    let mut node = Member::start(&[&bytes], 1);
    let (members, spaces) = (node.members(), node.machine.node.host.spaces);
    assert!(members.holds_spaces() && spaces.count() == 1);
    test_clock::set(node.machine.now_ns);
    node.machine.block_on("joined", 10, members.joined());
    node.machine.block_on("open", 30, spaces.open());
    spaces.resume();
    run(&mut [&mut node], 5, |_| spaces.free_count() == 1);
    let disk = node.machine.node.host.pager.disks()[0];
    // Another member fences this one, which stands still meanwhile.
    let mut other = Member::start(&[&bytes], 2);
    other.machine.now_ns = node.machine.now_ns;
    run(&mut [&mut node, &mut other], 30, |nodes| all_up(nodes, 2));
    let slot = members.view().slot.expect("a member");
    run(&mut [&mut other], 20, |nodes| nodes[0].statuses().contains(&(slot, RollStatus::Fenced)));
    node.machine.now_ns = other.machine.now_ns;
    run(&mut [&mut node, &mut other], 20, |nodes| !nodes[0].told("Left").is_empty());
    assert_eq!(disk.lease(), DiskLease::Awaited, "a fenced member goes on using the disk");
    assert_eq!(spaces.free_count(), 0);
    // As another incarnation it opens the space like a start.
    run(&mut [&mut node, &mut other], 20, |nodes| all_up(nodes, 2));
    run(&mut [&mut node, &mut other], 20, |_| spaces.free_count() == 1);
    assert!(!disk.is_dead() && !disk.is_suspended());
    let told = node.told("Error");
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn a_start_that_cannot_register_leaves_the_spaces_beside_the_area_alone() {
    let bytes = divided(&superblock(5));
    let mut node = Member::start(&[&bytes], 1);
    let (members, spaces) = (node.members(), node.machine.node.host.spaces);
    let now = node.machine.now_ns;
    node.ports[0].with(|port| port.stalled_until = now + Ns::from_secs(200));
    run(&mut [&mut node], 140, |nodes| nodes[0].standing() == MemberStanding::Out);
    node.ports[0].with(|port| port.stalled_until = Ns::ZERO);
    pass(&mut [&mut node], 1);
    let writes = node.ports[0].with(|port| port.writes);
    test_clock::set(node.machine.now_ns);
    node.machine.block_on("joined", 1, members.joined());
    node.machine.block_on("open", 30, spaces.open());
    assert_eq!(spaces.free_count(), 0);
    assert_eq!(node.ports[0].with(|port| port.writes), writes, "it writes to the disk");
}

#[test]
fn a_blank_partition_for_an_area_is_told_and_closes_nothing() {
    let bytes = divided(&superblock(5));
    {
        let mut bytes = bytes.lock().expect("bytes");
        let at = bytes.windows(8).position(|piece| piece == b"TIDECLUS").expect("an area");
        bytes[at..at + 8192].fill(0);
    }
    let mut node = Member::start(&[&bytes], 1);
    assert!(node.machine.node.members.is_none());
    assert!(node.told("Error")[0].contains("GPT entry 2"), "{:?}", node.told("Error"));
    let spaces = node.machine.node.host.spaces;
    test_clock::set(node.machine.now_ns);
    node.machine.block_on("open", 30, spaces.open());
    assert_eq!(spaces.free_count(), 1);
}
