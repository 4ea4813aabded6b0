//! Places where foreign data may lie on a disk whose ends are zeros. Such a disk is formatted only
//! if these places are zeros too.
//!
//! ```text
//!   0        256 KiB  ...  sample  ...  known places  ...  end - 1 MiB          end - 12 KiB
//!   [ whole ]              4 KiB each, 128 samples         [ whole             ][claims][records]
//! ```
//!
//! The ends hold most tables: partition tables and their backups, RAID superblocks (64 KiB and 8
//! KiB before the end), ZFS labels. Data that lies only between two samples is not found: reading
//! every byte would take time in proportion to the disk's size.

use super::claim::{CLAIM_LEN, ClaimSector, SpaceClaim};
use super::layout::usable;

/// Bytes that are read at the start of a disk.
const FRONT: u64 = 256 << 10;
/// Bytes at its end.
const BACK: u64 = 1 << 20;
/// Samples in between.
const SAMPLES: u64 = 128;
/// Bytes of a sample, and of each known place.
const SAMPLE: u64 = 4096;
/// Copies of superblocks in the middle: ext with blocks of 1, 2 and 4 KiB, Btrfs.
const KNOWN: [u64; 5] = [8 << 20, 32 << 20, 128 << 20, 64 << 20, 256 << 30];
/// A piece of a disk, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProbePlace {
    /// First byte, a multiple of 4096.
    pub start: u64,
    /// Bytes, a multiple of 4096.
    pub len: u64,
}

/// Returns the places to read on a space of `capacity` bytes, including its claims but not its
/// records.
pub fn places(capacity: u64) -> impl Iterator<Item = ProbePlace> {
    let end = usable(capacity).saturating_sub(2 * SAMPLE);
    let front = ProbePlace { start: 0, len: FRONT.min(end) };
    let back_start = end.saturating_sub(BACK).max(front.len);
    let back = ProbePlace { start: back_start, len: end - back_start };
    let between = front.len..back_start;
    let step = (back_start - front.len).div_ceil(SAMPLES).next_multiple_of(SAMPLE).max(SAMPLE);
    let samples = (0..SAMPLES).map(move |n| front.len + n * step);
    let inner = samples
        .chain(KNOWN)
        .filter(move |at| between.contains(at))
        .map(|start| ProbePlace { start, len: SAMPLE });
    [front, back].into_iter().filter(|place| place.len > 0).chain(inner)
}

/// Returns the position of the first byte of foreign data in `bytes`, which lie at `start` on a
/// space of `capacity` bytes.
pub fn first_foreign(start: u64, bytes: &[u8], capacity: u64) -> Option<u64> {
    let is_claim = |at: u64| claims_offset(at, capacity).is_some();
    bytes.chunks(CLAIM_LEN).zip((start..).step_by(CLAIM_LEN)).find_map(|(sector, at)| {
        let byte = sector.iter().position(|byte| *byte != 0)?;
        (!(is_claim(at) && may_be_claim(sector))).then_some(at + byte as u64)
    })
}

/// Returns the offset in the claims' page of a sector at `at` that may hold a claim.
fn claims_offset(at: u64, capacity: u64) -> Option<usize> {
    let offset = at.checked_sub(SpaceClaim::start(capacity)?)?;
    [0, 1].map(SpaceClaim::offset).into_iter().find(|&sector| sector as u64 == offset)
}

/// Returns whether a sector is empty, a claim, or a torn claim: these are this hypervisor's own,
/// even on a disk that is not formatted yet.
fn may_be_claim(sector: &[u8]) -> bool {
    let Some(bytes) = sector.first_chunk() else { return false };
    match ClaimSector::decode(bytes) {
        ClaimSector::Empty | ClaimSector::Claim(_) | ClaimSector::Released(_) => true,
        ClaimSector::Torn(_) => bytes.starts_with(b"TIDECLM1") || bytes.starts_with(b"TIDEREL1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Uuid;

    const CAPACITY: u64 = 24 << 20;

    fn finds(at: u64, capacity: u64) -> bool {
        places(capacity).any(|place| (place.start..place.start + place.len).contains(&at))
    }

    #[test]
    fn tables_at_both_ends_and_well_known_copies_are_looked_at() {
        for capacity in [CAPACITY, 1 << 30, 300 << 30] {
            let raid_0_90 = (capacity & !0xffff) - 0x10000;
            let raid_1_0 = capacity - 12288;
            let zfs = [0, 256 << 10, capacity - (512 << 10), capacity - (256 << 10)]
                .map(|label| label + (128 << 10));
            let backup_gpt = capacity - 33 * 512;
            for at in [raid_0_90, raid_1_0, backup_gpt, zfs[0], zfs[2], zfs[3]] {
                assert!(finds(at, capacity), "{at:#x} of {capacity:#x}");
            }
        }
        assert!(
            finds(64 << 20, 1 << 30) && finds(128 << 20, 1 << 30) && finds(256 << 30, 300 << 30)
        );
    }

    #[test]
    fn every_stretch_of_a_64th_of_the_disk_has_a_sample() {
        for capacity in [1 << 20, 2 << 20, CAPACITY, 100 << 20, 7 << 30] {
            let mut all: Vec<_> = places(capacity).collect();
            all.sort_by_key(|place| place.start);
            let mut end = 0;
            for place in all {
                assert!(place.start % 4096 == 0 && place.len % 4096 == 0);
                assert!(
                    place.start.saturating_sub(end) <= capacity / 64,
                    "nothing from {end:#x} to {:#x}",
                    place.start
                );
                end = end.max(place.start + place.len);
            }
            assert_eq!(end, capacity - 8192, "the records are looked at elsewhere");
        }
    }

    #[test]
    fn a_disk_of_a_few_pages_has_no_place_beyond_its_end() {
        for pages in 0..80 {
            let capacity = pages * 4096 + 512;
            assert!(
                places(capacity)
                    .all(|place| place.start + place.len <= capacity.saturating_sub(8192)),
                "{pages}"
            );
        }
    }

    #[test]
    fn any_byte_is_foreign_but_a_claim_in_its_place() {
        let page = |at: usize, bytes: &[u8]| {
            let mut page = [0; 4096];
            page[at..at + bytes.len()].copy_from_slice(bytes);
            page
        };
        let claims = CAPACITY - 12288;
        let claim = SpaceClaim { node: Uuid([1; 16]), epoch: 2, beat: 1 }.encode();
        assert_eq!(first_foreign(claims, &page(0, &claim), CAPACITY), None);
        assert_eq!(first_foreign(claims, &page(2048, &claim), CAPACITY), None);
        assert_eq!(first_foreign(claims, &page(0, &claim[..200]), CAPACITY), None, "torn");
        assert_eq!(first_foreign(claims, &page(512, &claim), CAPACITY), Some(claims + 512));
        assert_eq!(first_foreign(claims, &page(100, b"x"), CAPACITY), Some(claims + 100));
        assert_eq!(first_foreign(8192, &page(0, &claim), CAPACITY), Some(8192));
        assert_eq!(first_foreign(8192, &page(4095, b"x"), CAPACITY), Some(12287));
        assert_eq!(first_foreign(8192, &[0; 4096], CAPACITY), None);
    }
}
