use super::make::{GptCapacityError, NewPart, NewSpace, place, table};
use super::*;
use gpt_disk_types::{GptHeader, U64Le};

const BYTES: u64 = 64 << 20;
const SECTORS: u64 = BYTES / 512;
const MIB: u64 = 1 << 20;
/// Sector and entry offsets in the image's start.
const HEADER: usize = 512;
const ENTRIES: usize = 1024;

/// The first and the last sectors of a disk; the sectors between are never read.
struct GptTestDisk(Vec<u8>);

impl GptTestDisk {
    fn with(sizes: &[u64]) -> Self {
        let spaces: Vec<_> = place(BYTES, sizes)
            .unwrap()
            .into_iter()
            .map(|sectors| NewSpace { sectors, guid: SPACE_TYPE.0, kind: NewPart::Space })
            .collect();
        let mut bytes = vec![0; BYTES as usize];
        for piece in table(BYTES, SPACE_TYPE.0, &spaces) {
            bytes[piece.offset as usize..][..piece.bytes.len()].copy_from_slice(&piece.bytes);
        }
        Self(bytes)
    }

    fn read(&self) -> GptFinding {
        read(SECTORS, |sector, out| {
            out.copy_from_slice(&self.0[sector as usize * 512..][..out.len()]);
            Ok::<(), ()>(())
        })
        .unwrap()
    }

    fn entries(&self) -> Vec<GptEntry> {
        match self.read() {
            GptFinding::Table(table, _) => table.entries,
            other => panic!("{other:?}"),
        }
    }

    /// Changes the table, then makes its CRCs right again.
    fn change(&mut self, change: impl FnOnce(&mut [u8])) {
        change(&mut self.0);
        let mut header: GptHeader = bytemuck::pod_read_unaligned(&self.0[HEADER..HEADER + 92]);
        let layout = header.get_partition_entry_array_layout().unwrap();
        let mut entries = self.0[ENTRIES..ENTRIES + 128 * 128].to_vec();
        let array = gpt_disk_types::GptPartitionEntryArray::new(
            layout,
            gpt_disk_types::BlockSize::BS_512,
            &mut entries,
        );
        header.partition_entry_array_crc32 = array.unwrap().calculate_crc32();
        header.update_header_crc32();
        self.0[HEADER..HEADER + 92].copy_from_slice(bytemuck::bytes_of(&header));
    }

    fn set_range(&mut self, number: usize, first: u64, last: u64) {
        self.change(|bytes| {
            let at = ENTRIES + (number - 1) * 128 + 32;
            bytes[at..at + 8].copy_from_slice(&U64Le::from_u64(first).0);
            bytes[at + 8..at + 16].copy_from_slice(&U64Le::from_u64(last).0);
        });
    }
}

fn faults(entries: &[GptEntry]) -> Vec<Option<GptEntryError>> {
    entries.iter().map(|entry| entry.fault).collect()
}

#[test]
fn what_is_made_reads_back_from_either_copy() {
    let mut disk = GptTestDisk::with(&[8 * MIB, 3 * MIB + 512, 16 * MIB]);
    let entries = disk.entries();
    let ranges: Vec<_> =
        entries.iter().map(|e| (e.number, e.is_space(), e.sectors().unwrap())).collect();
    let range = |first, count| SectorRange { first, count };
    assert_eq!(
        ranges,
        [
            (1, true, range(2048, 16384)),
            (2, true, range(18432, 6145)),
            (3, true, range(26624, 32768))
        ]
    );
    disk.0[HEADER + 60] ^= 1;
    let GptFinding::Table(backup, Some(GptError::HeaderCrc)) = disk.read() else {
        panic!("{:?}", disk.read())
    };
    assert_eq!((backup.copy, backup.entries), (GptCopy::Backup, entries));
}

#[test]
fn a_wrong_byte_anywhere_in_the_primary_is_noticed() {
    for (at, fault) in [
        (HEADER, GptError::Signature),
        (HEADER + 8, GptError::Unsupported),
        (HEADER + 12, GptError::Unsupported),
        (HEADER + 16, GptError::HeaderCrc),
        (HEADER + 56, GptError::HeaderCrc),
        (ENTRIES, GptError::EntriesCrc),
        (ENTRIES + 128 * 128 - 1, GptError::EntriesCrc),
    ] {
        let mut disk = GptTestDisk::with(&[8 * MIB]);
        disk.0[at] ^= 0x10;
        let GptFinding::Table(table, Some(found)) = disk.read() else {
            panic!("byte {at}: {:?}", disk.read())
        };
        assert_eq!((table.copy, found), (GptCopy::Backup, fault), "byte {at}");
    }
}

#[test]
fn two_damaged_copies_are_no_table_and_no_free_disk() {
    let mut disk = GptTestDisk::with(&[8 * MIB]);
    disk.0[HEADER + 20] ^= 1;
    let last = disk.0.len() - 512;
    disk.0[last] = 0;
    assert_eq!(disk.read(), GptFinding::Damaged(GptError::HeaderCrc, GptError::Signature));
}

#[test]
fn a_backup_that_nothing_points_to_is_forgotten_and_with_an_mbr_it_counts() {
    let mut disk = GptTestDisk::with(&[8 * MIB]);
    disk.0[HEADER..HEADER + 512].fill(0);
    assert!(matches!(disk.read(), GptFinding::Table(_, Some(GptError::Signature))));
    disk.0[..512].fill(0);
    assert_eq!(disk.read(), GptFinding::None);
    assert_eq!(GptTestDisk(vec![0; BYTES as usize]).read(), GptFinding::None);
}

#[test]
fn a_header_in_the_wrong_place_or_beyond_the_disk_is_refused() {
    let mut disk = GptTestDisk::with(&[8 * MIB]);
    disk.change(|bytes| bytes[HEADER + 24] = 2);
    assert!(matches!(disk.read(), GptFinding::Table(_, Some(GptError::Misplaced))));
    let mut disk = GptTestDisk::with(&[8 * MIB]);
    disk.change(|bytes| {
        bytes[HEADER + 48..HEADER + 56].copy_from_slice(&(SECTORS - 1).to_le_bytes())
    });
    assert!(matches!(disk.read(), GptFinding::Table(_, Some(GptError::Bounds))));
    // A truncated disk image: the primary describes more sectors than there are.
    let disk = GptTestDisk::with(&[8 * MIB]);
    let found = read(SECTORS / 2, |sector, out| {
        out.copy_from_slice(&disk.0[sector as usize * 512..][..out.len()]);
        Ok::<(), ()>(())
    });
    assert_eq!(found, Ok(GptFinding::Damaged(GptError::Bounds, GptError::Signature)));
}

#[test]
fn overlapping_entries_are_both_refused_and_others_stay() {
    let mut disk = GptTestDisk::with(&[8 * MIB, 8 * MIB, 8 * MIB]);
    disk.set_range(2, 2048 + 100, 2048 + 200);
    assert_eq!(
        faults(&disk.entries()),
        [Some(GptEntryError::Overlaps(2)), Some(GptEntryError::Overlaps(1)), None]
    );
    // One shared sector is enough; neighbours share none.
    disk.set_range(2, 2048 + 16383, 2048 + 16384);
    assert_eq!(faults(&disk.entries())[0], Some(GptEntryError::Overlaps(2)));
    disk.set_range(2, 2048 + 16384, 2048 + 16384);
    assert_eq!(faults(&disk.entries()), [None, None, None]);
}

#[test]
fn an_entry_outside_the_room_for_partitions_is_refused() {
    for (first, last) in [
        (33, 40),
        (1, 2047),
        (30000, 29999),
        (SECTORS - 40, SECTORS - 33),
        (2048, u64::MAX),
        (u64::MAX, 0),
    ] {
        let mut disk = GptTestDisk::with(&[8 * MIB]);
        disk.set_range(1, first, last);
        assert_eq!(faults(&disk.entries()), [Some(GptEntryError::OutOfRange)], "{first}..={last}");
    }
}

#[test]
fn a_foreign_partition_spoils_the_space_that_it_overlaps() {
    let mut disk = GptTestDisk::with(&[8 * MIB, 8 * MIB]);
    disk.change(|bytes| bytes[ENTRIES + 128] ^= 1);
    disk.set_range(2, 4000, u64::MAX);
    let entries = disk.entries();
    assert_eq!((entries[0].is_space(), entries[1].is_space()), (true, false));
    assert_eq!(
        faults(&entries),
        [Some(GptEntryError::Overlaps(2)), Some(GptEntryError::OutOfRange)]
    );
}

#[test]
fn sizes_that_do_not_fit_say_what_they_need() {
    assert_eq!(place(BYTES, &[]), Err(GptCapacityError::Count));
    assert_eq!(place(BYTES, &[512; 129]), Err(GptCapacityError::Count));
    let needs = MIB + BYTES + 33 * 512;
    assert_eq!(place(BYTES, &[BYTES]), Err(GptCapacityError::Needs(needs)));
    assert!(place(needs, &[BYTES]).is_ok() && place(needs - 1, &[BYTES]).is_err());
    assert!(place(BYTES, &[u64::MAX, u64::MAX]).is_err());
}

/// Pseudo-random numbers, the same in every run.
struct GptTestRandom(u64);

impl GptTestRandom {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a number; edges and their neighbours come more often than by chance.
    fn number(&mut self) -> u64 {
        match self.next() % 6 {
            0 => self.next(),
            1 => u64::MAX - self.next() % 4,
            2 => SECTORS - self.next() % 70,
            3 => self.next() % 70,
            _ => self.next() % SECTORS,
        }
    }
}

#[test]
fn whatever_a_table_with_right_crcs_says_its_spaces_lie_apart_and_on_the_disk() {
    let (mut random, mut tables) = (GptTestRandom(0x7469_6465), 0);
    for _ in 0..400 {
        let mut disk = GptTestDisk::with(&[8 * MIB, 8 * MIB, 8 * MIB]);
        for _ in 0..random.next() % 4 {
            let (number, first, last) = (random.next() % 5 + 1, random.number(), random.number());
            disk.set_range(number as usize, first, last);
        }
        if random.next().is_multiple_of(3) {
            // One of the header's numbers: a place, the number of entries, or their size.
            let (field, value) =
                ([24, 40, 48, 72, 80][random.next() as usize % 5], random.number());
            disk.0[HEADER + field..HEADER + field + 8].copy_from_slice(&value.to_le_bytes());
            let mut header: GptHeader = bytemuck::pod_read_unaligned(&disk.0[HEADER..HEADER + 92]);
            header.update_header_crc32();
            disk.0[HEADER..HEADER + 92].copy_from_slice(bytemuck::bytes_of(&header));
        }
        let GptFinding::Table(table, _) = disk.read() else { continue };
        let good: Vec<_> = table.entries.iter().filter_map(|entry| entry.sectors().ok()).collect();
        for (n, a) in good.iter().enumerate() {
            assert!(a.first >= 34 && a.count > 0 && a.first + a.count <= SECTORS - 33, "{a:?}");
            for b in &good[n + 1..] {
                assert!(
                    a.first + a.count <= b.first || b.first + b.count <= a.first,
                    "{a:?} {b:?}"
                );
            }
        }
        tables += usize::from(!good.is_empty());
    }
    assert!(tables > 100, "the test has looked at {tables} tables only");
}
