//! Every structure reads back as written; every damaged bit is found; newer versions are known.

use crate::beat::{Beat, BeatDetails, BeatMode, Suspicion};
use crate::block::LogBlock;
use crate::crc::crc32c;
use crate::decree::{Decree, Owner, QuietProof};
use crate::id::{Incarnation, MemberId};
use crate::sector::{SECTOR, SectorError};

const ME: MemberId = MemberId { slot: 3, incarnation: Incarnation(0xabcd_0123) };
const OTHER: MemberId = MemberId { slot: 1023, incarnation: Incarnation(u128::MAX) };

fn decrees() -> Vec<Decree> {
    let (partition, space, from, to) = (7, 9, Owner::Slot(0), Owner::Unowned);
    vec![
        Decree::Nothing,
        Decree::Member(OTHER),
        Decree::Fence { who: 1, heir: 1023 },
        Decree::Quiet { who: 2, proof: QuietProof::Left },
        Decree::Quiet { who: 2, proof: QuietProof::Confirmed },
        Decree::Own { partition, from: to, to: from },
        Decree::Take { partition, space, by: 5 },
        Decree::HandOver { partition: u128::MAX, space, from, to, sealed: u64::MAX },
        Decree::Release { space, from },
    ]
}

fn beats() -> Vec<Beat> {
    let first = Beat::new(ME);
    let suspicion = Some(Suspicion { who: OTHER, known: 17 });
    let full = Beat {
        sequence: u64::MAX,
        nonce: 5,
        known: 6,
        mode: BeatMode::Leaving,
        is_tainted: true,
        suspicion,
        details: BeatDetails {
            devices: 1 << 63,
            free_mib: 77,
            free_spaces: 88,
            name: *b"a name of exactly 32 characters!",
        },
        ..first
    };
    vec![first, full]
}

fn blocks() -> Vec<LogBlock> {
    let first = LogBlock { member: ME, sequence: 1, number: 4, begun: 9, accepted: None };
    let with = |value| LogBlock { accepted: Some((8, value)), ..first };
    std::iter::once(first).chain(decrees().into_iter().map(with)).collect()
}

/// Checks that `decode` refuses every change of one bit, and every mixture with `old` sectors.
fn damage<T: core::fmt::Debug>(
    whole: [u8; SECTOR],
    old: [u8; SECTOR],
    decode: impl Fn(&[u8]) -> Result<T, SectorError>,
) {
    for bit in 0..8 * SECTOR {
        let mut bytes = whole;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bytes).is_err(), "bit {bit}");
    }
    for end in 1..SECTOR {
        let mut bytes = old;
        bytes[..end].copy_from_slice(&whole[..end]);
        assert!(bytes == whole || bytes == old || decode(&bytes).is_err(), "{end} new bytes");
    }
    let mut newer = whole;
    newer[4] = 2;
    let crc = crc32c(&newer[..SECTOR - 4]).to_le_bytes();
    newer[SECTOR - 4..].copy_from_slice(&crc);
    assert_eq!(decode(&newer).err(), Some(SectorError::Newer(2)));
    assert_eq!(decode(&[0; SECTOR]).err(), Some(SectorError::Empty));
    assert_eq!(decode(&whole[..100]).err(), Some(SectorError::Torn), "too short");
}

#[test]
fn a_beat_reads_back_and_damage_is_found() {
    for beat in beats() {
        assert_eq!(Beat::decode(&beat.encode()), Ok(beat));
        let before = Beat { sequence: beat.sequence.wrapping_sub(1), ..beat };
        damage(beat.encode(), before.encode(), Beat::decode);
        assert!(LogBlock::decode(&beat.encode()).is_err(), "another kind");
    }
}

#[test]
fn a_block_reads_back_and_damage_is_found() {
    for block in blocks() {
        assert_eq!(LogBlock::decode(&block.encode()), Ok(block));
        let before = LogBlock { begun: 8, accepted: None, ..block };
        damage(block.encode(), before.encode(), LogBlock::decode);
    }
}

#[test]
fn the_newer_whole_copy_of_a_block_counts() {
    let block = |sequence| LogBlock { sequence, ..blocks()[1] };
    let both = |a: &[u8], b: &[u8]| LogBlock::newer(&[a, b].concat());
    let (two, three, torn) = (block(2).encode(), block(3).encode(), [7; SECTOR]);
    assert_eq!(both(&two, &three), Ok(block(3)));
    assert_eq!(both(&block(4).encode(), &three), Ok(block(4)));
    assert_eq!(both(&two, &torn), Ok(block(2)));
    assert_eq!(both(&torn, &three), Ok(block(3)));
    assert_eq!(both(&torn, &[0; SECTOR]), Err(SectorError::Torn));
    assert_eq!(both(&[0; SECTOR], &[0; SECTOR]), Err(SectorError::Empty));
    let mut newer = three;
    newer[4] = 9;
    let crc = crc32c(&newer[..SECTOR - 4]).to_le_bytes();
    newer[SECTOR - 4..].copy_from_slice(&crc);
    assert_eq!(both(&two, &newer), Err(SectorError::Newer(9)), "a newer program's comes first");
    assert_eq!(LogBlock::newer(&two[..9]).err(), Some(SectorError::Torn), "too short");
}
