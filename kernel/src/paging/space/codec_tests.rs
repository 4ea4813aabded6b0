//! Tests of the record: round trips, and every field that can lie.

use super::*;
use crate::addr::PageIndex;
use crate::mm::layout::RamLayout;

const CAPACITY: u64 = 300 << 20;

/// A record that uses every field.
pub fn sample() -> Record {
    let ram = RamLayout::new(256 << 20).unwrap();
    Record {
        capacity: CAPACITY,
        space: Uuid::from_entropy(1, 2),
        sequence: 7,
        state: SpaceState::Draining,
        residue: Residue::Stale,
        owner: Some(Owner {
            name: ArrayString::from("débian").unwrap(),
            partition: Uuid::from_name("débian"),
            node: Uuid::from_entropy(3, 4),
            epoch: 9,
        }),
        contents: Some(Contents::new(CAPACITY, &ram).unwrap()),
        drain: Drain { progress: 65536, program_headers: 222, notes_len: 5000 },
        crash: Some(Crash {
            reason: CrashReason::PVPANIC,
            detail: 1,
            time_ns: 1_700_000_000_000_000_000,
            text: ArrayString::from("sysrq").unwrap(),
        }),
    }
}

/// Encodes with one change to the raw bytes and a checksum that fits.
fn forged(change: impl FnOnce(&mut RawRecord)) -> [u8; 4096] {
    let mut raw: RawRecord = zerocopy::transmute!(sample().encode());
    change(&mut raw);
    raw.crc32c.set(crc32c(&raw.as_bytes()[..CHECKED_LEN]).0);
    zerocopy::transmute!(raw)
}

fn decode(bytes: [u8; 4096]) -> Result<Record, RecordError> {
    Record::decode(&bytes, CAPACITY)
}

#[test]
fn round_trip_with_every_field_and_with_none() {
    assert_eq!(decode(sample().encode()), Ok(sample()));
    let free = Record::free(CAPACITY, Uuid::from_entropy(5, 6), Residue::Clean);
    assert_eq!(decode(free.encode()), Ok(free));
}

#[test]
fn ram_beyond_the_hole_keeps_its_ranges() {
    let ram = RamLayout::new(4 << 30).unwrap();
    let contents = Contents::new(5 << 30, &ram).unwrap();
    let record = Record { capacity: 5 << 30, contents: Some(contents.clone()), ..sample() };
    assert_eq!(Record::decode(&record.encode(), 5 << 30).unwrap().contents, Some(contents.clone()));
    for index in [0, 0xbffff, 0xc0000, 0xfffff, 0x100000] {
        assert_eq!(contents.gfn_of(PageIndex(index)), ram.gfn_of(PageIndex(index)));
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    let good = sample().encode();
    for byte in 0..good.len() {
        let mut bad = good;
        bad[byte] ^= 1 << (byte % 8);
        assert!(decode(bad).is_err(), "byte {byte}");
    }
}

#[test]
fn impossible_fields_are_named() {
    let field = |change: fn(&mut RawRecord)| match decode(forged(change)) {
        Err(RecordError::Field(name)) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(|r| r.state.set(9)), "state");
    assert_eq!(field(|r| r.sequence.set(u64::MAX)), "sequence");
    assert_eq!(field(|r| r.page_size.set(65536)), "page_size");
    assert_eq!(field(|r| r.record_size.set(512)), "record_size");
    assert_eq!(field(|r| r.pages.set(0)), "pages");
    assert_eq!(field(|r| r.pages.set(u32::MAX)), "pages");
    assert_eq!(field(|r| r.data_start.set(0)), "data_start");
    assert_eq!(field(|r| r.drain_progress.set(65537)), "drain_progress");
    assert_eq!(field(|r| r.notes_len.set(u32::MAX)), "notes_len");
    assert_eq!(field(|r| r.ranges_count.set(9)), "ranges_count");
    assert_eq!(field(|r| r.ranges_count.set(0)), "ranges");
    assert_eq!(field(|r| r.ranges[0].pages.set(65535)), "ranges");
    assert_eq!(field(|r| r.ranges[0].first_gfn.set(u64::MAX)), "ranges");
    assert_eq!(field(|r| r.owner_name[0] = 0xff), "owner_name");
    assert_eq!(field(|r| r.owner_uuid = [0; 16]), "owner_uuid");
    assert_eq!(field(|r| r.crash_text[127] = 1), "crash_text");
}

#[test]
fn overlapping_ranges_are_refused() {
    let overlap = forged(|r| {
        r.ranges_count.set(2);
        r.ranges[0].pages.set(32768);
        r.ranges[1] = RawRange { first_gfn: 32767.into(), pages: 32768.into() };
    });
    assert_eq!(decode(overlap), Err(RecordError::Field("ranges")));
}

#[test]
fn what_we_do_not_know_is_refused() {
    assert_eq!(decode(forged(|r| r.version.set(2))), Err(RecordError::Version(2)));
    assert_eq!(decode(forged(|r| r.features_required.set(4))), Err(RecordError::Features(4)));
    assert_eq!(decode(forged(|r| r.magic[0] = b'X')), Err(RecordError::Magic));
    let other = Record::decode(&sample().encode(), CAPACITY + 4096);
    assert_eq!(other, Err(RecordError::Capacity { recorded: CAPACITY, actual: CAPACITY + 4096 }));
    assert_eq!(Record::decode(&sample().encode(), CAPACITY + 4095), Ok(sample()), "a piece of a page does not count");
    assert!(decode(forged(|r| r.features_optional.set(u64::MAX))).is_ok());
}
