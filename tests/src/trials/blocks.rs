//! A reader of a cluster's area from the recorded writes to it. It shares nothing with the writer
//! but the format (`docs/cluster.md`).
//!
//! A number of the log is decided with the value of its highest ballot, once a later number or a
//! beat shows that it is decided. A decree counts from the arrival of the first block with that
//! value: it may be decided from then on.

use crate::nbd::RequestLogEntry;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

const SECTOR: u64 = 512;
const HEADS: u64 = 8192;
/// Kind, version, slot and incarnation.
const FRAME: usize = 24;

/// The place of an area on a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AreaPlace {
    /// Its bytes.
    pub bytes: Range<u64>,
    /// Its slots.
    pub slots: u64,
    /// Bytes of a copy of the state.
    pub state: u64,
}

/// A part of an area with one writer a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AreaPart {
    Join,
    Beat,
    Log,
    State,
}

/// A decree as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WrittenDecree {
    /// Without effect.
    Nothing,
    /// A slot and its incarnation.
    Member(u16, u128),
    /// A slot, its heir's.
    Fence(u16, u16),
    /// A slot.
    Quiet(u16),
    /// Partition; from, to.
    Own(u128, Option<u16>, Option<u16>),
    /// Partition, space, slot.
    Take(u128, u128, u16),
    /// Partition, space; from, to.
    HandOver(u128, u128, Option<u16>, Option<u16>),
    /// Space, from.
    Release(u128, Option<u16>),
}

/// A decree of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedDecree {
    /// Its number.
    pub number: u64,
    /// When it may have been decided first, by the server's clock.
    pub since: Duration,
    /// It.
    pub decree: WrittenDecree,
}

/// A write to a sector that belongs to one incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnedWrite {
    /// The node.
    pub node: &'static str,
    /// The slot.
    pub slot: u16,
    /// The incarnation.
    pub incarnation: u128,
    /// When it was carried out.
    pub landed: Duration,
}

/// What the writes to an area say.
#[derive(Clone, Default, Debug)]
pub struct RecordedArea {
    /// The decided decrees, from number 1 on.
    pub decrees: Vec<RecordedDecree>,
    /// All writes of beats, blocks and states.
    pub writes: Vec<OwnedWrite>,
}

/// Numbers of a block of the log, and its value.
struct Accepted {
    ballot: u64,
    since: Duration,
    decree: WrittenDecree,
}

impl AreaPlace {
    /// Reads the superblock of the area at `bytes` of a disk.
    ///
    /// # Errors
    /// If there is none.
    pub fn read(superblock: &[u8], bytes: Range<u64>) -> Result<Self> {
        ensure!(superblock.starts_with(b"TIDECLUS"), "no cluster area");
        let slots = number(superblock, 48, 2);
        Ok(Self { bytes, slots, state: number(superblock, 52, 4) })
    }

    fn part(&self, at: u64) -> Option<(AreaPart, u16)> {
        let mut rest = at.checked_sub(self.bytes.start + HEADS)?;
        let each = [2 * SECTOR, SECTOR, 2 * SECTOR, 2 * self.state];
        let parts = [AreaPart::Join, AreaPart::Beat, AreaPart::Log, AreaPart::State];
        for (part, each) in parts.into_iter().zip(each) {
            if rest < each * self.slots {
                return Some((part, (rest / each) as u16));
            }
            rest -= each * self.slots;
        }
        None
    }
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn name(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}

impl WrittenDecree {
    /// Reads the bytes of a decree.
    ///
    /// # Errors
    /// If they are none.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let word = |at| number(bytes, at, 2) as u16;
        let owner = |at| Some(word(at)).filter(|slot| *slot != u16::MAX);
        Ok(match word(0) {
            1 => Self::Nothing,
            2 => Self::Member(word(2), name(bytes, 4)),
            3 => Self::Fence(word(2), word(4)),
            4 => Self::Quiet(word(2)),
            5 => Self::Own(name(bytes, 2), owner(18), owner(20)),
            6 => Self::Take(name(bytes, 2), name(bytes, 18), word(34)),
            7 => Self::HandOver(name(bytes, 2), name(bytes, 18), owner(34), owner(36)),
            8 => Self::Release(name(bytes, 2), owner(18)),
            other => anyhow::bail!("a decree of kind {other}"),
        })
    }
}

impl RecordedArea {
    /// Reads the writes of a log.
    ///
    /// # Errors
    /// Names the first structure that is not as documented, or has two writers.
    pub fn read(place: &AreaPlace, log: &[RequestLogEntry]) -> Result<Self> {
        let mut accepted: BTreeMap<u64, Accepted> = BTreeMap::new();
        let (mut known, mut area) = (0, Self::default());
        let inside =
            |entry: &&RequestLogEntry| entry.writes() && place.bytes.contains(&entry.bytes.start);
        for entry in log.iter().filter(inside) {
            let data = entry.data.as_deref().context("a write without its bytes")?;
            let (part, slot) =
                place.part(entry.bytes.start).context("a write outside all parts")?;
            if part == AreaPart::Join {
                continue;
            }
            ensure!(
                number(data, 6, 2) == u64::from(slot),
                "{} writes a structure of slot {} into slot {slot}",
                entry.node,
                number(data, 6, 2)
            );
            if let Some(landed) = entry.answered {
                let incarnation = name(data, 8);
                area.writes.push(OwnedWrite { node: entry.node, slot, incarnation, landed });
            }
            match part {
                // A decree that a beat announces was decided.
                AreaPart::Beat => known = known.max(number(data, FRAME + 16, 8)),
                AreaPart::State => known = known.max(number(data, FRAME + 8, 8)),
                AreaPart::Log => {
                    known = known.max(number(data, FRAME + 8, 8).saturating_sub(1));
                    note_block(&mut accepted, data, entry.arrived)?;
                }
                AreaPart::Join => {}
            }
        }
        for (n, (number, one)) in accepted.into_iter().enumerate() {
            ensure!(number == n as u64 + 1, "no block has a value of decree {}", n + 1);
            if number <= known {
                let Accepted { since, decree, .. } = one;
                area.decrees.push(RecordedDecree { number, since, decree });
            }
        }
        ensure!(area.decrees.len() as u64 == known, "no block has decree {known}");
        area.one_writer_a_slot()?;
        Ok(area)
    }

    fn one_writer_a_slot(&self) -> Result<()> {
        let mut writers = BTreeMap::new();
        for write in &self.writes {
            let who = (write.node, write.incarnation);
            let first = *writers.entry(write.slot).or_insert(who);
            ensure!(first == who, "slot {} has the writers {first:?} and {who:?}", write.slot);
        }
        Ok(())
    }

    /// Returns the node of a slot.
    pub fn node(&self, slot: u16) -> Option<&'static str> {
        self.writes.iter().find(|write| write.slot == slot).map(|write| write.node)
    }
}

fn note_block(accepted: &mut BTreeMap<u64, Accepted>, data: &[u8], since: Duration) -> Result<()> {
    let (of, ballot) = (number(data, FRAME + 8, 8), number(data, FRAME + 24, 8));
    if ballot == 0 {
        return Ok(());
    }
    let decree = WrittenDecree::read(&data[FRAME + 32..])?;
    match accepted.get_mut(&of) {
        Some(one) if one.decree == decree => one.ballot = one.ballot.max(ballot),
        Some(one) if one.ballot > ballot => {}
        _ => drop(accepted.insert(of, Accepted { ballot, since, decree })),
    }
    Ok(())
}
