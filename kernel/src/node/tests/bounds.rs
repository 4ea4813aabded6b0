//! Dumps are counted by partition in every phase of their space.

use super::disk::{FaultKind, FaultPlan, SimDisk};
use super::guest::{PAGES, SimGuest, Truth};
use super::image;
use super::machine::{SimMachine, SimRam};
use crate::block::SectorRange;
use crate::block::gpt::make::{NewPart, NewSpace, place, table};
use crate::console::command::DumpChoice;
use crate::crash::dumps::DumpOrder;
use crate::dump::bound::DumpCensus;
use crate::dump::selected::SelectedRuns;
use crate::space::SpaceArea;
use crate::space::reserve::SpaceNeed;
use crate::space::selector::DumpSelector;
use crate::storage::spaces::SpaceTenant;

const DISK_BYTES: usize = super::cycle::DISK_BYTES;

fn machine(disks: u8) -> SimMachine {
    let ram = SimRam::new(400);
    let disks = (0..disks)
        .map(|n| &*Box::leak(Box::new(SimDisk::new(n, DISK_BYTES, ram.map(), 1))))
        .collect();
    let mut machine = SimMachine::new(&ram, disks, 1);
    let spaces = machine.node.host.spaces;
    machine.block_on("open", 60, spaces.open());
    machine
}

fn start(machine: &mut SimMachine, guest: &mut SimGuest) {
    machine.until("a start", 60, |machine| guest.start(machine).then_some(()));
}

#[test]
fn dumps_count_from_the_crash_on_and_for_their_own_partition_only() {
    let (mut machine, mut truth) = (machine(3), Truth::new());
    let (mut p, mut q) = (SimGuest::new("p", 0, 1), SimGuest::new("q", 1, 1));
    start(&mut machine, &mut p);
    start(&mut machine, &mut q);
    let spaces = machine.node.host.spaces;
    assert_eq!(spaces.dumps_of("p", p.space), DumpCensus::default());
    let job = p.crash(&machine, &mut truth);
    assert_eq!(
        spaces.dumps_of("p", p.space),
        DumpCensus { unpromised: 1, ..DumpCensus::default() }
    );
    machine.until("a promise", 60, |_| {
        (spaces.dumps_of("p", None).promised == 1 || job.read().has_ended).then_some(())
    });
    start(&mut machine, &mut p);
    machine.until("the end of the drain", 60, |_| job.read().has_ended.then_some(()));
    assert_eq!(
        spaces.dumps_of("p", p.space),
        DumpCensus { kept: 1, droppable: 1, ..DumpCensus::default() }
    );
    assert_eq!(spaces.dumps_of("q", q.space), DumpCensus::default());
}

/// Crashes `guest`, waits for its dump, and tries for some time to get its next space; returns
/// whether the guest runs again.
fn crash_and_try(machine: &mut SimMachine, guest: &mut SimGuest, truth: &mut Truth) -> bool {
    let job = guest.crash(machine, truth);
    machine.until("the end of the drain", 60, |_| job.read().has_ended.then_some(()));
    for _ in 0..2000 {
        if guest.start(machine) {
            return true;
        }
        machine.turn();
    }
    false
}

fn tenants() -> Vec<SpaceTenant> {
    ["p", "q"].map(|name| SpaceTenant::new(name, SpaceNeed { pages: PAGES, count: 2 })).into()
}

#[test]
fn a_partition_that_crashes_again_and_again_leaves_the_neighbour_its_next_space() {
    let (mut machine, mut truth) = (machine(4), Truth::new());
    let spaces = machine.node.host.spaces;
    assert!(spaces.reserve(tenants()));
    let (mut p, mut q) = (SimGuest::new("p", 0, 1), SimGuest::new("q", 1, 1));
    start(&mut machine, &mut p);
    start(&mut machine, &mut q);
    assert!(crash_and_try(&mut machine, &mut p, &mut truth));
    assert!(
        !crash_and_try(&mut machine, &mut p, &mut truth),
        "the last free space is the neighbour's"
    );
    assert!(crash_and_try(&mut machine, &mut q, &mut truth));
    spaces.release_dumps(DumpChoice::One("p", DumpSelector::Incarnation(1))).unwrap();
    start(&mut machine, &mut p);
}

#[test]
fn nothing_is_kept_for_a_partition_that_has_stopped_or_where_spaces_are_few() {
    for (disks, stops) in [(4, true), (3, false)] {
        let (mut machine, mut truth) = (machine(disks), Truth::new());
        let spaces = machine.node.host.spaces;
        assert_eq!(spaces.reserve(tenants()), disks == 4);
        let (mut p, mut q) = (SimGuest::new("p", 0, 1), SimGuest::new("q", 1, 1));
        start(&mut machine, &mut p);
        if stops {
            spaces.end_reserve("q");
            assert!(
                crash_and_try(&mut machine, &mut p, &mut truth)
                    && crash_and_try(&mut machine, &mut p, &mut truth)
            );
        } else {
            start(&mut machine, &mut q);
        }
        assert!(
            crash_and_try(&mut machine, &mut p, &mut truth),
            "{disks} disks: the last space is anybody's"
        );
    }
}

#[test]
fn the_oldest_dump_goes_when_the_newer_one_is_promised_and_not_before() {
    let (mut machine, mut truth) = (machine(6), Truth::new());
    let spaces = machine.node.host.spaces;
    let (mut p, mut q) = (SimGuest::new("p", 0, 1), SimGuest::new("q", 1, 1));
    start(&mut machine, &mut q);
    assert!(crash_and_try(&mut machine, &mut q, &mut truth), "the neighbour's dump is older still");
    start(&mut machine, &mut p);
    let order = DumpOrder { drop_beyond: Some(2), ..DumpOrder::default() };
    for _ in 0..2 {
        let job = p.crash_with(&machine, &mut truth, order);
        machine.until("a dump", 60, |_| job.read().has_ended.then_some(()));
        start(&mut machine, &mut p);
        assert!(!machine.has_told("DumpDropped"), "two may be kept");
    }
    machine.note_release("p", 1);
    let job = p.crash_with(&machine, &mut truth, order);
    machine.until("the drop", 60, |machine| {
        let census = spaces.dumps_of("p", None);
        let has_dropped = machine.has_told("DumpDropped");
        assert!(has_dropped || census.kept == 2, "it went before it was named");
        assert!(
            !has_dropped || census.promised == 1 || job.read().has_ended,
            "it went before the newer one was promised"
        );
        has_dropped.then_some(())
    });
    machine.until("the third dump", 60, |_| job.read().has_ended.then_some(()));
    let left: Vec<_> = spaces
        .kept_dumps()
        .into_iter()
        .map(|dump| (dump.owner.name.to_string(), dump.owner.epoch))
        .collect();
    assert!(
        left.len() == 3 && !left.contains(&("p".into(), 1)) && left.contains(&("q".into(), 1)),
        "{left:?}"
    );
}

/// Bytes of a disk with two spaces.
const TABLE_DISK_BYTES: usize = 6 << 20;

/// Returns the content of a disk with two spaces of [`DISK_BYTES`], and the sectors of the first.
pub(super) fn with_table() -> (Vec<u8>, SectorRange) {
    let placed = place(TABLE_DISK_BYTES as u64, &[DISK_BYTES as u64; 2]).expect("there is room");
    let guid = |n: u8| NewSpace {
        sectors: placed[usize::from(n)],
        guid: gpt_disk_types::Guid::from_bytes([n + 1; 16]),
        kind: NewPart::Space,
    };
    let mut content = vec![0; TABLE_DISK_BYTES];
    for piece in table(
        TABLE_DISK_BYTES as u64,
        gpt_disk_types::Guid::from_bytes([9; 16]),
        &[guid(0), guid(1)],
    ) {
        content[piece.offset as usize..][..piece.bytes.len()].copy_from_slice(&piece.bytes);
    }
    (content, placed[0])
}

pub(super) fn machine_with(content: Vec<u8>, uuid_seed: u64) -> SimMachine {
    machine_with_error(content, uuid_seed, None)
}

/// Makes a machine whose disk fails once, at the `at`-th request after those for the partition
/// table.
fn machine_with_error(content: Vec<u8>, uuid_seed: u64, at: Option<u64>) -> SimMachine {
    let ram = SimRam::new(400);
    let disk: &'static SimDisk =
        Box::leak(Box::new(SimDisk::new(0, content.len(), ram.map(), uuid_seed)));
    disk.state().content = content;
    let mut machine = SimMachine::new(&ram, vec![disk], uuid_seed);
    let before = disk.state().requests;
    disk.state().fault =
        at.map(|at| FaultPlan { request: before + at, kind: FaultKind::ErrorOnce });
    let spaces = machine.node.host.spaces;
    machine.block_on("open", 60, spaces.open());
    machine
}

/// Writes the header of the dump in this space to the boot-code bytes, as `tidepool dump select`
/// does.
fn select(content: &mut [u8], sectors: SectorRange) {
    let area = SpaceArea::part(sectors).expect("a part of a disk");
    let space = &content[area.start() as usize..][..area.bytes() as usize];
    let layout = image::record(space).and_then(|record| record.contents).expect("a dump").layout;
    let code = SelectedRuns::default().encode(&layout, 0, area);
    content[..code.len()].copy_from_slice(&code);
}

/// Returns the same disk after a guest on the first space has crashed and its dump is sealed.
fn with_dump() -> (Vec<u8>, SectorRange) {
    let (content, first) = with_table();
    let (mut machine, mut truth) = (machine_with(content, 1), Truth::new());
    let mut p = SimGuest::new("p", 0, 1);
    start(&mut machine, &mut p);
    let job = p.crash(&machine, &mut truth);
    machine.until("a dump", 60, |_| job.read().has_ended.then_some(()));
    let content = machine.disks[0].state().content.clone();
    (content, first)
}

#[test]
fn a_selected_dump_is_known_from_the_start_and_counts_as_one_that_stays() {
    let (mut content, first) = with_dump();
    for (droppable, is_selected) in [(1, false), (0, true)] {
        if is_selected {
            select(&mut content, first);
        }
        let machine = machine_with(content.clone(), 2 + u64::from(is_selected));
        let census = machine.node.host.spaces.dumps_of("p", None);
        assert_eq!(
            census,
            DumpCensus { kept: 1, droppable, ..DumpCensus::default() },
            "selected: {is_selected}"
        );
    }
}

#[test]
fn a_single_error_at_the_start_hides_no_selected_dump() {
    let (mut content, first) = with_dump();
    select(&mut content, first);
    let requests = machine_with(content.clone(), 2).disks[0].state().requests;
    for at in 0..requests {
        let machine = machine_with_error(content.clone(), 2, Some(at));
        let census = machine.node.host.spaces.dumps_of("p", None);
        let told = &machine.told;
        assert_eq!(
            census,
            DumpCensus { kept: 1, ..DumpCensus::default() },
            "request {at}; told: {told:#?}"
        );
        assert!(!told.iter().any(|event| event.contains("later")), "request {at}: {told:#?}");
    }
}
