//! The structures of a cluster area with any content: each is refused or read, and what was read
//! is written back so that it reads the same.
#![no_main]

use cluster::beat::Beat;
use cluster::block::LogBlock;
use cluster::layout::{Half, SUPERBLOCK};
use cluster::local::{self, LocalCopy, LocalFound};
use cluster::mail::{MAIL_BLOCK, MailBlock};
use cluster::sector::SECTOR;
use cluster::state::{ClusterState, MAX_MEMBERS};
use cluster::superblock::{MAGIC, Superblock};
use fuzz::Input;
use kernel::members::letters::{MoveQuestion, MoveWord};
use kernel::mm::crc::crc32c;
use libfuzzer_sys::fuzz_target;

/// Bytes of a copy of the state: two sectors are the least.
const STATE: usize = 2 * SECTOR;

/// Bytes of a local copy here: it may have any size.
const LOCAL: usize = 1024;

/// Returns a structure with this beginning. Its checksum is right, if the input wants that.
fn structure<const N: usize>(input: &mut Input<'_>, front: &[u8]) -> [u8; N] {
    let is_sealed = input.u8() != 0;
    let mut bytes: [u8; N] = input.array();
    if is_sealed {
        bytes[..front.len()].copy_from_slice(front);
        let (body, sum) = bytes.split_at_mut(N - 4);
        sum.copy_from_slice(&crc32c(body).0.to_le_bytes());
    }
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    match input.u8() % 6 {
        5 => {
            let bytes: [u8; MAIL_BLOCK] = structure(input, b"TCML\x01\0");
            if let Ok(block) = MailBlock::decode(&bytes) {
                let mut again = [0; MAIL_BLOCK];
                block.encode(&mut again);
                for message in &block.messages {
                    let _ = (MoveQuestion::decode(&message.body), MoveWord::decode(&message.body));
                }
                assert_eq!(MailBlock::decode(&again), Ok(block));
            }
        }
        0 => {
            let pair = [structure::<SECTOR>(input, b"TCBT\x01\0"), [0; SECTOR]];
            if let Ok(beat) = Beat::decode(&pair[0]) {
                assert_eq!(Beat::decode(&beat.encode()), Ok(beat));
                assert!(beat.details.name().len() <= 32);
            }
        }
        1 => {
            let halves: [[u8; SECTOR]; 2] =
                [structure(input, b"TCLG\x01\0"), structure(input, b"TCLG\x01\0")];
            if let Ok(block) = LogBlock::newer(halves.as_flattened()) {
                assert_eq!(LogBlock::decode(&block.encode()), Ok(block));
            }
        }
        2 => {
            let copies: [[u8; STATE]; 2] =
                [structure(input, b"TCST\x01\0"), structure(input, b"TCST\x01\0")];
            if let Some(state) = ClusterState::newer(copies.as_flattened()) {
                let mut again = [0; STATE];
                state.encode(Default::default(), 1, &mut again);
                let (_, same) = ClusterState::decode(&again).expect("its own copy");
                assert_eq!(same.number(), state.number());
                assert_eq!(same.members(), state.members());
            }
        }
        3 => {
            let copies: [[u8; LOCAL]; 2] =
                [structure(input, b"TCLC\x01\0"), structure(input, b"TCLC\x01\0")];
            if let LocalFound::Copy { copy, half, .. } = local::found([&copies[0], &copies[1]]) {
                let bytes = &copies[usize::from(half == Half::B)];
                let rows: Vec<_> = LocalCopy::rows(bytes).collect();
                assert!(rows.len() <= MAX_MEMBERS && LocalCopy::state(bytes).len() <= LOCAL);
                let mut again = vec![0; local::COPY];
                copy.encode(rows.iter().copied(), &[], &mut again);
                assert_eq!(LocalCopy::decode(&again), Ok(copy));
                assert!(LocalCopy::rows(&again).eq(rows));
            }
        }
        _ => {
            let front = [&MAGIC[..], &1_u32.to_le_bytes(), &4096_u32.to_le_bytes()].concat();
            let copies: [[u8; SUPERBLOCK]; 2] =
                [structure(input, &front), structure(input, &front)];
            if let Ok(found) = Superblock::decode([&copies[0], &copies[1]]) {
                let again = found.encode();
                assert_eq!(Superblock::decode([&again, &again]), Ok(found));
                assert!(found.layout().is_some());
            }
        }
    }
});
