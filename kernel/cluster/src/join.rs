//! Registration: a slot for an incarnation, by a *splitter* a slot. Nothing of it depends on time.
//!
//! ```text
//!   Row: first slot with Y unset ──> X := me; read Y ── unset ──> Y := taken; read X ── me ──> Won
//!    ^                                    │ set                        │ another
//!    └──────────────── next slot ─────────┴────── burned ──────────────┘
//! ```
//!
//! At most one incarnation wins a slot. Of all that read Y unset, each has written X before; the
//! last of these writes stands when the first of them writes Y, or comes from one which then sees
//! its own X overwritten. So only the last writer of X can read itself. With three areas each area
//! is a splitter, and the winner has won the same majority twice; two majorities share an area.
//!
//! A start that stops on the way burns a slot at most. Slots are used once, until an offline sweep.

use crate::id::{Incarnation, MemberId};
use crate::layout::{AreaLayout, Extent, Half};
use crate::sector::{FieldReader, FieldWriter, SECTOR, SectorKind, is_zero};

/// Where a registration stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JoinStep {
    /// All claims are read.
    Row,
    /// X of this slot is written, Y is read.
    First(u16),
    /// Y of this slot is written, X is read.
    Second(u16),
    /// The slot is this incarnation's.
    Won(u16),
    /// Every slot was used.
    NoSlot,
}

impl JoinStep {
    /// Returns the step's name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::First(_) => "first",
            Self::Second(_) => "second",
            Self::Won(_) => "member",
            Self::NoSlot => "no_slot",
        }
    }
}

/// A registration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Splitter {
    me: Incarnation,
    step: JoinStep,
    /// First slot that was not tried.
    next: u16,
    burned: u16,
    /// Areas of the first half; the second half needs the same ones.
    areas: u8,
}

impl Splitter {
    /// Starts; the first step reads the row of claims.
    pub const fn new(me: Incarnation) -> Self {
        Self { me, step: JoinStep::Row, next: 0, burned: 0, areas: u8::MAX }
    }

    /// Returns where it stands.
    pub const fn step(&self) -> JoinStep {
        self.step
    }

    /// Returns the number of slots that were lost to others.
    pub const fn burned(&self) -> u16 {
        self.burned
    }

    /// Returns the areas that may take part in the step, one a bit.
    pub const fn areas(&self) -> u8 {
        match self.step {
            JoinStep::Second(_) => self.areas,
            _ => u8::MAX,
        }
    }

    /// Returns what the step writes and reads, and fills the sector to write.
    pub fn ask(&self, layout: &AreaLayout, sector: &mut [u8]) -> (Option<Extent>, Option<Extent>) {
        let (slot, write, read) = match self.step {
            JoinStep::Row => return (None, Some(layout.joins())),
            JoinStep::First(slot) => (slot, Half::A, Half::B),
            JoinStep::Second(slot) => (slot, Half::B, Half::A),
            JoinStep::Won(_) | JoinStep::NoSlot => return (None, None),
        };
        let member = MemberId { slot, incarnation: self.me };
        if let Some(sector) = sector.get_mut(..SECTOR) {
            FieldWriter::frame(sector, SectorKind::Join, member).seal();
        }
        (Some(layout.join(slot, write)), Some(layout.join(slot, read)))
    }

    /// Judges the reads of the areas that took part.
    pub fn done(&mut self, areas: u8, reads: &[&[u8]]) {
        match self.step {
            JoinStep::Row => self.choose(reads),
            JoinStep::First(slot) => {
                let is_free = reads.iter().all(|y| !is_set(y));
                self.areas = areas;
                if is_free || mutant!(SkipY) {
                    self.step = JoinStep::Second(slot);
                } else {
                    self.lose(slot);
                }
            }
            JoinStep::Second(slot) => {
                if reads.iter().all(|x| self.is_mine(slot, x)) || mutant!(SkipX) {
                    self.step = JoinStep::Won(slot);
                } else {
                    self.lose(slot);
                }
            }
            JoinStep::Won(_) | JoinStep::NoSlot => {}
        }
    }

    fn choose(&mut self, reads: &[&[u8]]) {
        let y = |read: &[u8], slot: u16| {
            let at = 2 * SECTOR * usize::from(slot) + SECTOR;
            read.get(at..at + SECTOR).is_none_or(is_set)
        };
        let slots = reads.iter().map(|read| read.len() / (2 * SECTOR)).min().unwrap_or(0);
        let free = |slot: &u16| reads.iter().all(|read| !y(read, *slot));
        self.step = (self.next..slots as u16).find(free).map_or(JoinStep::NoSlot, JoinStep::First);
    }

    fn lose(&mut self, slot: u16) {
        self.burned += 1;
        self.next = slot + 1;
        self.step = JoinStep::Row;
    }

    fn is_mine(&self, slot: u16, x: &[u8]) -> bool {
        let found = FieldReader::open(x, SectorKind::Join);
        found.is_ok_and(|(member, _)| member == MemberId { slot, incarnation: self.me })
    }
}

/// Returns whether Y is set: any byte is enough, so that a torn write counts.
fn is_set(y: &[u8]) -> bool {
    !is_zero(y)
}
