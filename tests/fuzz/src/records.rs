//! A paging space's record that uses every field, and records forged from it.

use kernel::addr::PAGE_SIZE;
use kernel::mm::crc::crc32c;
use kernel::mm::layout::RamLayout;
use kernel::space::raw::CHECKED_LEN;
use kernel::space::record::SpaceContents;
use kernel::space::{
    CrashReason, DrainRecord, MissingPages, MissingRange, PartialCause, RecordFormat,
    RecordedCrash, Residue, SpaceOwner, SpaceRecord, SpaceState, Uuid,
};

/// Bytes of the space that [`sample`] is for.
pub const CAPACITY: u64 = 2 << 20;
/// Pages of its owner.
pub const PAGES: u32 = 16;

/// Returns a record that uses every field.
pub fn sample() -> SpaceRecord {
    let ram = RamLayout::new(u64::from(PAGES) * PAGE_SIZE).expect("whole pages");
    let contents = SpaceContents::new(CAPACITY, &ram).expect("the pages fit");
    let mut missing = MissingPages::default();
    missing.push(MissingRange { first: 7, count: 3 }).expect("an empty list has room");
    SpaceRecord {
        format: RecordFormat::Extended,
        sequence: 8,
        state: SpaceState::Draining,
        owner: Some(SpaceOwner {
            name: "débian".try_into().expect("a short name"),
            partition: Uuid::from_name("débian"),
            node: Uuid::from_entropy(3, 4),
            epoch: 9,
        }),
        contents: Some(contents),
        drain: DrainRecord { progress: PAGES - 4, program_headers: 3, notes_len: 1200 },
        missing,
        partial_cause: PartialCause::BAD_BLOCKS,
        crash: Some(RecordedCrash {
            name: Uuid::from_entropy(7, 8),
            reason: CrashReason::PVPANIC,
            detail: 0x1234_5678_9abc_def0,
            time_ns: 1_700_000_000_000_000_000,
            text: "sysrq".try_into().expect("a short text"),
            registers: (0..1024).map(|n| n as u8).collect(),
        }),
        ..SpaceRecord::free(CAPACITY, Uuid::from_entropy(1, 2), Residue::Stale)
    }
}

/// Sets a record's checksum.
pub fn seal_record(bytes: &mut [u8; 4096]) {
    let crc = crc32c(&bytes[..CHECKED_LEN]).0;
    bytes[CHECKED_LEN..].copy_from_slice(&crc.to_le_bytes());
}
