//! Tests of the record: round trips, and every field with impossible values.

use super::*;
use crate::addr::PageIndex;
use crate::mm::layout::RamLayout;

const CAPACITY: u64 = 300 << 20;

/// A record that uses every field.
pub(crate) fn sample() -> SpaceRecord {
    let ram = RamLayout::new(256 << 20).unwrap();
    let mut missing = MissingPages::default();
    missing.push(MissingRange { first: 7, count: 3 }).unwrap();
    SpaceRecord {
        format: RecordFormat::Extended,
        capacity: CAPACITY,
        space: Uuid::from_entropy(1, 2),
        sequence: 7,
        state: SpaceState::Draining,
        residue: Residue::Stale,
        owner: Some(SpaceOwner {
            name: ArrayString::from("débian").unwrap(),
            partition: Uuid::from_name("débian"),
            node: Uuid::from_entropy(3, 4),
            epoch: 9,
        }),
        contents: Some(SpaceContents::new(CAPACITY, &ram).unwrap()),
        drain: DrainRecord { progress: 65536, program_headers: 222, notes_len: 5000 },
        missing,
        partial_cause: PartialCause::BAD_BLOCKS,
        crash: Some(RecordedCrash {
            name: Uuid::from_entropy(7, 8),
            reason: CrashReason::PVPANIC,
            detail: 0x1234_5678_9abc_def0,
            time_ns: 1_700_000_000_000_000_000,
            text: ArrayString::from("sysrq").unwrap(),
            registers: (0..1024).map(|n| n as u8).collect(),
        }),
        base: None,
        seal: None,
        cluster: None,
    }
}

/// The record of a suspended partition.
fn suspended() -> SpaceRecord {
    let seal = SuspensionSeal { notes: Crc32c(1), bitmap: Crc32c(2), checksums: Crc32c(3) };
    SpaceRecord {
        state: SpaceState::Suspended,
        missing: MissingPages::default(),
        seal: Some(seal),
        ..sample()
    }
}

#[test]
fn a_bases_record_has_its_own_feature_bit() {
    let sealed = SpaceRecord { state: SpaceState::Sealed, ..suspended() };
    let bytes = sealed.encode();
    assert_eq!((decode(bytes), bytes[16]), (Ok(sealed.clone()), 5));
    for bits in [1, 3, 7] {
        let mut wrong = bytes;
        wrong[16] = bits;
        assert_eq!(decode(with_sum(wrong)), Err(RecordError::Field("state")), "{bits}");
    }
}

#[test]
fn the_record_of_a_child_names_its_base_while_it_depends_on_it() {
    let dump = Uuid::from_entropy(5, 6);
    for own in [OwnPages::Open, OwnPages::Written] {
        let base = Some(SpaceBase { dump, generation: 4, own });
        let child = SpaceRecord { base, ..sample() };
        let bytes = child.encode();
        assert_eq!((decode(bytes), bytes[16]), (Ok(child.clone()), 9));
        let mut wrong = bytes;
        wrong[2116] = 2;
        assert_eq!(decode(with_sum(wrong)), Err(RecordError::Field("base_own_pages")));
        wrong = bytes;
        wrong[2092..2108].fill(0);
        assert_eq!(decode(with_sum(wrong)), Err(RecordError::Field("base_dump_uuid")));
        for state in [SpaceState::Complete, SpaceState::Partial, SpaceState::Free] {
            let alone = SpaceRecord { state, missing: MissingPages::default(), ..child.clone() };
            assert_eq!(decode(alone.encode()), Err(RecordError::Field("base_dump_uuid")));
        }
        let base = SpaceRecord { state: SpaceState::Sealed, base, ..suspended() };
        assert_eq!(decode(base.encode()), Err(RecordError::Field("base_dump_uuid")));
    }
}

#[test]
fn the_record_of_a_clusters_space_names_it_in_every_state_and_format() {
    let cluster = Uuid::from_entropy(11, 12);
    let original = decode(original().encode()).unwrap();
    let free = SpaceRecord::free(CAPACITY, cluster, Residue::Clean);
    for record in [sample(), suspended(), original, free] {
        let closed = SpaceRecord { cluster: Some(cluster), ..record.clone() };
        let (before, bytes) = (record.encode(), closed.encode());
        assert_eq!(decode(bytes), Ok(closed));
        assert_eq!((bytes[16], &bytes[2120..2136]), (before[16] | 16, &cluster.0[..]));
        let mut wrong = bytes;
        wrong[2120..2136].fill(0);
        assert_eq!(decode(with_sum(wrong)), Err(RecordError::Field("cluster_uuid")));
        // Without the bit the field means nothing.
        wrong = bytes;
        wrong[16] = before[16];
        assert_eq!(decode(with_sum(wrong)), Ok(record));
    }
    let mut gone = SpaceRecord { cluster: Some(cluster), ..sample() };
    gone.clear();
    assert_eq!(gone.cluster, Some(cluster), "a space that becomes free stays the cluster's");
}

/// The rule of the versions before bit 4, on the bytes of a copy.
fn is_refused_before_bit_4(bytes: &[u8; 4096]) -> bool {
    let features = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
    super::has_checksum(bytes) && bytes[8] == 1 && features & !0xf != 0
}

/// Copies of records as the version before bit 4 encoded them, by state: runs of bytes that are not
/// zeros, each with its offset.
const BEFORE_BIT_4: &str = include_str!("before_clusters.txt");

fn of_runs(line: &str) -> (&str, [u8; 4096]) {
    let (state, runs) = line.split_once(' ').unwrap();
    let mut bytes = [0; 4096];
    for run in runs.split(' ') {
        let (at, hex) = run.split_once(':').unwrap();
        let at: usize = at.parse().unwrap();
        for n in 0..hex.len() / 2 {
            bytes[at + n] = u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap();
        }
    }
    (state, bytes)
}

#[test]
fn versions_before_and_after_bit_4_read_or_refuse_each_others_records() {
    let cluster = Uuid::from_entropy(11, 12);
    for line in BEFORE_BIT_4.lines() {
        let (state, bytes) = of_runs(line);
        let record = SpaceRecord::decode(&bytes, CAPACITY).unwrap();
        assert_eq!((record.state.name(), record.cluster), (state, None));
        assert_eq!(record.encode(), bytes, "a space in no cluster keeps its format");
        assert!(!is_refused_before_bit_4(&bytes));
        let closed = SpaceRecord { cluster: Some(cluster), ..record };
        assert!(is_refused_before_bit_4(&closed.encode()), "{state}");
    }
    assert_eq!(BEFORE_BIT_4.lines().count(), 9);
}

/// Gives changed bytes a right checksum.
fn with_sum(mut bytes: [u8; 4096]) -> [u8; 4096] {
    let sum = crc32c(&bytes[..CHECKED_LEN]).0.to_le_bytes();
    bytes[CHECKED_LEN..].copy_from_slice(&sum);
    bytes
}

#[test]
fn a_suspended_partitions_record_has_its_own_feature_bit_and_checksums() {
    let bytes = suspended().encode();
    assert_eq!(decode(bytes), Ok(suspended()));
    assert_eq!((bytes[16], &bytes[2080..2092]), (3, &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0][..]));
    // The bit and the state belong together.
    let without = SpaceRecord { seal: None, ..suspended() };
    assert_eq!(decode(without.encode()), Err(RecordError::Field("state")));
    let active = SpaceRecord { state: SpaceState::Active, ..suspended() };
    assert_eq!(active.encode()[16], 1, "only SUSPENDED has the bit");
    assert_eq!(decode(forged(|r| r.features_required.set(3))), Err(RecordError::Field("state")));
    let unnamed = SpaceRecord { crash: None, ..suspended() };
    assert_eq!(decode(unnamed.encode()), Err(RecordError::Field("crash_reason")));
    let missing = SpaceRecord { missing: sample().missing, ..suspended() };
    assert_eq!(decode(missing.encode()), Err(RecordError::Field("missing")));
    let original = SpaceRecord { format: RecordFormat::Original, ..suspended() };
    assert_eq!(decode(original.encode()), Err(RecordError::Field("state")));
}

/// Encodes with one change to the raw bytes and a matching checksum.
fn forged(change: impl FnOnce(&mut RawRecord)) -> [u8; 4096] {
    let mut raw: RawRecord = zerocopy::transmute!(sample().encode());
    change(&mut raw);
    raw.crc32c.set(crc32c(&raw.as_bytes()[..CHECKED_LEN]).0);
    zerocopy::transmute!(raw)
}

fn decode(bytes: [u8; 4096]) -> Result<SpaceRecord, RecordError> {
    SpaceRecord::decode(&bytes, CAPACITY)
}

#[test]
fn round_trip_with_every_field_and_with_none() {
    assert_eq!(decode(sample().encode()), Ok(sample()));
    let free = SpaceRecord::free(CAPACITY, Uuid::from_entropy(5, 6), Residue::Clean);
    assert_eq!(decode(free.encode()), Ok(free));
}

#[test]
fn ram_beyond_the_hole_keeps_its_ranges() {
    let ram = RamLayout::new(4 << 30).unwrap();
    let contents = SpaceContents::new(5 << 30, &ram).unwrap();
    let record = SpaceRecord { capacity: 5 << 30, contents: Some(contents.clone()), ..sample() };
    assert_eq!(
        SpaceRecord::decode(&record.encode(), 5 << 30).unwrap().contents,
        Some(contents.clone())
    );
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
    assert_eq!(field(|r| r.state.set(10)), "state");
    assert_eq!(field(|r| r.dump_uuid = [0; 16]), "dump_uuid");
    assert_eq!(field(|r| r.registers_len.set(1025)), "registers_len");
    assert_eq!(field(|r| r.missing_count.set(65)), "missing_count");
    assert_eq!(field(|r| r.missing[0].count.set(u32::MAX)), "missing");
    assert_eq!(field(|r| r.missing_count.set(2)), "missing");
    assert_eq!(field(|r| r.state.set(SpaceState::Complete as u32)), "missing");
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
    assert_eq!(decode(forged(|r| r.features_required.set(33))), Err(RecordError::Features(32)));
    assert_eq!(decode(forged(|r| r.magic[0] = b'X')), Err(RecordError::Magic));
    let other = SpaceRecord::decode(&sample().encode(), CAPACITY + 4096);
    assert_eq!(other, Err(RecordError::Capacity { recorded: CAPACITY, actual: CAPACITY + 4096 }));
    assert_eq!(
        SpaceRecord::decode(&sample().encode(), CAPACITY + 4095),
        Ok(sample()),
        "a piece of a page does not count"
    );
    assert!(decode(forged(|r| r.features_optional.set(u64::MAX))).is_ok());
}

/// A record as the first release wrote it: zeros from byte 508 on, except the checksum.
fn original() -> SpaceRecord {
    let mut record =
        SpaceRecord { format: RecordFormat::Original, state: SpaceState::Partial, ..sample() };
    record.missing = MissingPages::default();
    record.partial_cause = PartialCause::NONE;
    record
}

#[test]
fn a_record_of_the_first_release_stays_one_until_it_is_upgraded() {
    let bytes = original().encode();
    assert_eq!(bytes[16..24], [0; 8], "no feature bit");
    assert!(bytes[508..4092].iter().all(|byte| *byte == 0), "nothing where it knew no field");
    let read = decode(bytes).unwrap();
    let crash = read.crash.clone().unwrap();
    assert_eq!((crash.detail, crash.registers.len()), (0x9abc_def0, 0));
    assert_ne!(crash.name, Uuid::NIL);
    // The next version of the same dump has the same name; an upgraded record has the extended
    // fields.
    let next = decode(SpaceRecord { sequence: 8, ..read.clone() }.encode()).unwrap();
    assert_eq!(next.crash.unwrap().name, crash.name);
    let upgraded = SpaceRecord { format: RecordFormat::Extended, ..read };
    assert_eq!(decode(upgraded.encode()), Ok(upgraded));
}

#[test]
fn names_of_dumps_of_the_first_release_differ_by_incarnation_and_time() {
    let name = |epoch: u64, time_ns: u64| {
        let mut record = original();
        record.owner.as_mut().unwrap().epoch = epoch;
        record.crash.as_mut().unwrap().time_ns = time_ns;
        decode(record.encode()).unwrap().crash.unwrap().name
    };
    assert_ne!(name(1, 5), name(1, 6));
    assert_ne!(name(1, 5), name(2, 5));
}

#[test]
fn a_crash_without_a_reason_keeps_its_text_and_time() {
    let mut record = original();
    record.crash.as_mut().unwrap().reason = CrashReason::NONE;
    let crash = decode(record.encode()).unwrap().crash.unwrap();
    assert_eq!((crash.reason, &*crash.text), (CrashReason::NONE, "sysrq"));
    record.crash = None;
    assert!(
        decode(record.encode()).unwrap().crash.is_some(),
        "a dump has a name, whatever else it has not"
    );
    record.state = SpaceState::Active;
    assert_eq!(decode(record.encode()).unwrap().crash, None);
}

#[test]
fn only_an_extended_record_says_crashed() {
    let crashed = SpaceRecord { state: SpaceState::Crashed, ..original() };
    assert_eq!(decode(crashed.encode()), Err(RecordError::Field("state")));
    let extended = SpaceRecord { format: RecordFormat::Extended, ..crashed };
    assert_eq!(decode(extended.encode()).unwrap().state, SpaceState::Crashed);
}

/// Records as the first release encoded them, by state: their first 508 bytes and the checksum,
/// with zeros between.
const FIRST_RELEASE: &str = include_str!("first_release.txt");

fn of_first_release(line: &str) -> (&str, [u8; 4096]) {
    let (state, hex) = line.split_once(' ').unwrap();
    let byte = |n: usize| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap();
    (
        state,
        core::array::from_fn(|n| {
            if n < 508 {
                byte(n)
            } else if n < 4092 {
                0
            } else {
                byte(n - 4092 + 508)
            }
        }),
    )
}

#[test]
fn every_record_of_the_first_release_reads_and_is_written_back_byte_for_byte() {
    let mut states = Vec::new();
    for line in FIRST_RELEASE.lines() {
        let (state, bytes) = of_first_release(line);
        let record = SpaceRecord::decode(&bytes, 8 << 20).unwrap();
        assert_eq!((record.state.name(), record.format), (state, RecordFormat::Original));
        assert_eq!(record.encode(), bytes, "{state}");
        states.push(record);
    }
    let crash = |n: usize| {
        states[n].crash.as_ref().map(|crash| (crash.reason.0, crash.detail, &*crash.text))
    };
    let text = "page lost";
    let expected = [
        None,
        None,
        Some((5, 0x9abc_def0, text)),
        Some((0, 0x9abc_def0, text)),
        Some((2, 0x9abc_def0, text)),
    ];
    assert_eq!([0, 1, 2, 3, 4].map(crash), expected);
    let names = states[2..].iter().map(|r| r.crash.as_ref().unwrap().name);
    assert!(
        names.clone().all(|name| name == states[2].crash.as_ref().unwrap().name),
        "one dump, one name"
    );
}
