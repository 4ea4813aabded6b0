//! Compares the requests of all nodes with the decrees of their log: each write into a space is its
//! owner's, and a member that is quiet writes nothing.
//!
//! ```text
//!             take            fence                     quiet         release
//!   owner ──────┼── writes ─────┼── writes may land ──────┼─────────────┼──>  others may take it
//!               └────────── arrival and landing of each write ─────────┘
//! ```

use super::blocks::{AreaPlace, RecordedArea};
use super::ledger::OwnerLedger;
use crate::gpt::Gpt;
use crate::nbd::RequestLogEntry;
use anyhow::{Context, Result, ensure};
use cluster::layout::SUPERBLOCK;
use cluster::superblock::Superblock;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// GPT type of a cluster area, as its bytes lie in the table.
const AREA_TYPE: [u8; 16] = [
    0xc6, 0xd0, 0x3b, 0x51, 0x96, 0x94, 0xb0, 0x42, 0xb9, 0xd7, 0xf1, 0x43, 0x53, 0xb7, 0x2e, 0x5e,
];

/// A paging space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpacePlace {
    /// Its name in the log.
    pub name: u128,
    /// Its bytes on the disk.
    pub bytes: Range<u64>,
}

/// The places on a shared disk.
#[derive(Clone, Debug)]
pub struct SharedPlaces {
    /// The cluster's area.
    pub area: AreaPlace,
    /// The spaces.
    pub spaces: Vec<SpacePlace>,
    /// What the area says about itself.
    pub superblock: Superblock,
}

impl SharedPlaces {
    /// Reads a disk's table and its superblock.
    ///
    /// # Errors
    /// Where the disk has no area.
    pub fn read(image: &Path) -> Result<Self> {
        let entries = Gpt::open(image)?.check()?;
        let area = entries.iter().find(|entry| entry.guids[0] == AREA_TYPE).context("no area")?;
        let mut heads = [[0; SUPERBLOCK]; 2];
        File::open(image)?.read_exact_at(heads.as_flattened_mut(), area.start)?;
        let superblock = Superblock::decode([&heads[0], &heads[1]])?;
        let spaces = entries.iter().filter(|entry| entry.number != area.number);
        let place = |entry: &crate::gpt::GptEntry| SpacePlace {
            name: u128::from_be_bytes(entry.guids[1]),
            bytes: entry.start..entry.start + entry.len,
        };
        Ok(Self {
            area: AreaPlace::read(&heads[0], area.start..area.start + area.len)?,
            superblock,
            spaces: spaces.map(place).collect(),
        })
    }
}

/// A time in which an operator's word was wrong: the requests that the emulator of this node still
/// had are its fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FalseWord {
    /// The node that was said to be off.
    pub node: &'static str,
    /// When it went on.
    pub woke: Duration,
}

/// Time in which requests behind an earlier doorbell are submitted after a process continues.
pub const GRACE: Duration = Duration::from_millis(300);

/// What was judged.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct JudgedWrites {
    /// Writes into spaces.
    pub writes: usize,
    /// Of these: landed when their writer was fenced.
    pub late: usize,
    /// Of these: requests that the emulator of a node still had when an operator said that it was
    /// off.
    pub excused: usize,
}

/// Judges all writes into the spaces.
///
/// # Errors
/// Names the first write that is not its owner's.
pub fn judge_writes(
    places: &SharedPlaces,
    area: &RecordedArea,
    ledger: &OwnerLedger,
    log: &[RequestLogEntry],
    word: Option<FalseWord>,
) -> Result<JudgedWrites> {
    let mut judged = JudgedWrites::default();
    for entry in log.iter().filter(|entry| entry.writes()) {
        let touches = |space: &&SpacePlace| {
            space.bytes.start < entry.bytes.end && entry.bytes.start < space.bytes.end
        };
        let Some(space) = places.spaces.iter().find(touches) else { continue };
        judged.writes += 1;
        let landed = entry.answered.unwrap_or(entry.arrived);
        let is_excused =
            word.is_some_and(|word| word.node == entry.node && entry.arrived < word.woke + GRACE);
        for at in [entry.arrived, landed] {
            let owner = ledger.of_space(space.name, at);
            let is_own = owner.and_then(|slot| area.node(slot)) == Some(entry.node);
            if !is_own && is_excused {
                judged.excused += 1;
                break;
            }
            ensure!(
                is_own,
                "{} writes {:?} at {at:?} (arrived {:?}): the space {:032x} is {owner:?}'s",
                entry.node,
                entry.bytes,
                entry.arrived,
                space.name
            );
            let since = owner.and_then(|slot| ledger.fenced.get(&slot));
            judged.late += usize::from(at == landed && since.is_some_and(|since| *since < landed));
        }
    }
    Ok(judged)
}

/// Checks that no member has written to the area after it was called quiet.
///
/// # Errors
/// Names the first write that came too late.
pub fn quiet_stays_quiet(
    area: &RecordedArea,
    ledger: &OwnerLedger,
    word: Option<FalseWord>,
) -> Result<()> {
    for write in &area.writes {
        let Some(since) = ledger.quiet.get(&write.slot) else { continue };
        let is_said = word.is_some_and(|word| word.node == write.node);
        ensure!(
            is_said || write.landed < *since,
            "{} writes as slot {} at {:?}: it is quiet since {since:?}",
            write.node,
            write.slot,
            write.landed
        );
    }
    Ok(())
}
