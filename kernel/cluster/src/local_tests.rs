//! Tests of the local copy's format.

use crate::crc::crc32c;
use crate::id::{Incarnation, MemberId};
use crate::layout::{Half, MAX_STATE};
use crate::local::{
    COPY, LocalBeat, LocalCopy, LocalFound, LocalHeaderError, LocalRow, LocalStatus, check_header,
    found, header, text,
};
use crate::sector::{SECTOR, SectorError};
use crate::state::ClusterState;
use crate::state::MAX_MEMBERS;

fn name(text: &str) -> [u8; 32] {
    let mut name = [0; 32];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

fn rows(count: u16) -> Vec<LocalRow> {
    let beat = LocalBeat { age_ms: 7, decree: 40, free_mib: 96, free_spaces: 3 };
    let status = [LocalStatus::Up, LocalStatus::Leaving, LocalStatus::Fenced, LocalStatus::Quiet];
    let row = |n: u16| LocalRow {
        id: MemberId { slot: n, incarnation: Incarnation(u128::from(n) << 99) },
        status: status[usize::from(n) % 4],
        is_own: n == 1,
        name: name("node-b"),
        beat: (!n.is_multiple_of(3)).then_some(beat),
    };
    (0..count).map(row).collect()
}

fn copy(sequence: u64) -> LocalCopy {
    LocalCopy {
        member: MemberId { slot: 1, incarnation: Incarnation(0xabc) },
        sequence,
        cluster: 0x1234 << 64,
        decree: 41,
        written_ns: 1_700_000_000_000_000_000,
        is_member: true,
        name: name("node-a"),
        used: 3,
        slots: 64,
    }
}

fn bytes(sequence: u64, count: u16, state: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; COPY];
    copy(sequence).encode(rows(count).into_iter(), state, &mut bytes);
    bytes
}

fn seal(bytes: &mut [u8]) {
    let (body, crc) = bytes.split_last_chunk_mut().unwrap();
    *crc = crc32c(body).to_le_bytes();
}

#[test]
fn a_copy_reads_back_with_its_state_however_large() {
    for count in [0, 1, 5, MAX_MEMBERS as u16] {
        let mut state = vec![0; MAX_STATE as usize];
        ClusterState::new(state.len()).encode(copy(1).member, 9, &mut state);
        let written = bytes(1, count, &state);
        assert_eq!(LocalCopy::decode(&written), Ok(copy(1)), "{count}");
        assert!(LocalCopy::rows(&written).eq(rows(count)));
        let (sequence, read) = ClusterState::decode(LocalCopy::state(&written)).unwrap();
        assert_eq!((sequence, read.number()), (9, 0));
    }
    assert_eq!((rows(1)[0].text(), text(&copy(1).name)), ("node-b", "node-a"));
    assert_eq!((LocalCopy::rows(&[]).count(), LocalCopy::state(&[]).len()), (0, 0));
}

#[test]
fn the_later_whole_copy_counts() {
    let (old, new) = (bytes(4, 1, &[]), bytes(5, 2, &[1, 2]));
    let blank = vec![0; COPY];
    let of = |a: &[u8], b: &[u8]| found([a, b]);
    let whole = |n, half, is_mended| LocalFound::Copy { copy: copy(n), half, is_mended };
    assert_eq!(of(&old, &new), whole(5, Half::B, false));
    assert_eq!(of(&new, &old), whole(5, Half::A, false));
    assert_eq!(of(&old, &blank), whole(4, Half::A, false));
    assert_eq!(of(&blank, &blank), LocalFound::Blank);
    // A torn write leaves the copy before it; every sector counts.
    for sector in (0..COPY).step_by(SECTOR) {
        let mut torn = new.clone();
        torn[sector + 9] ^= 1;
        assert_eq!(of(&old, &torn), whole(4, Half::A, true), "{sector}");
        assert_eq!(of(&torn, &blank), LocalFound::Torn, "{sector}");
    }
    let mut newer = old.clone();
    newer[4] = 2;
    seal(&mut newer);
    assert_eq!(of(&newer, &new), LocalFound::Newer(2));
}

#[test]
fn a_header_is_known_by_its_version_and_features() {
    assert_eq!(check_header(&header()), Ok(()));
    assert_eq!(check_header(&[0; SECTOR]), Err(LocalHeaderError::Foreign));
    assert_eq!(check_header(&[]), Err(LocalHeaderError::Foreign));
    let sealed = |at: usize, byte| {
        let mut bytes = header();
        bytes[at] = byte;
        seal(&mut bytes);
        check_header(&bytes)
    };
    assert_eq!(sealed(8, 2), Err(LocalHeaderError::Newer(2)));
    assert_eq!(sealed(12, 4), Err(LocalHeaderError::Features(4)));
    let mut torn = header();
    torn[300] = 1;
    assert_eq!(check_header(&torn), Err(LocalHeaderError::Torn));
}

#[test]
fn lengths_that_lie_are_torn() {
    let count_at = 24 + 8 + 16 + 8 + 8 + 1 + 32 + 4;
    for (at, value) in [(count_at, 0xff), (count_at + 1, 0x7f), (count_at + 4, 0xff)] {
        let mut wrong = bytes(1, 1, &[]);
        wrong[at] = value;
        seal(&mut wrong);
        assert_eq!(LocalCopy::decode(&wrong), Err(SectorError::Torn), "{at}");
    }
}

#[test]
fn numbers_that_leave_no_room_for_the_next_are_torn() {
    let state = |number: u64| {
        let mut bytes = vec![0; MAX_STATE as usize];
        ClusterState::new(bytes.len()).encode(copy(1).member, 9, &mut bytes);
        bytes[32..40].copy_from_slice(&number.to_le_bytes());
        seal(&mut bytes);
        ClusterState::decode(&bytes).map(|(_, state)| state.number())
    };
    for most in [u64::MAX >> 1, 5] {
        assert_eq!(LocalCopy::decode(&bytes(most, 1, &[])), Ok(copy(most)));
        assert_eq!(state(most), Ok(most));
    }
    for wrong in [(u64::MAX >> 1) + 1, u64::MAX] {
        assert_eq!(LocalCopy::decode(&bytes(wrong, 1, &[])), Err(SectorError::Torn));
        assert_eq!(state(wrong).err(), Some(SectorError::Torn));
    }
}
