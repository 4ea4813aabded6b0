//! The fixed table of batches: pages that leave together, or are cleaned together.
//!
//! ```text
//!                                                 ┌─ a piece claimed ─> Inspected ─┐
//!                                                 │                                │
//!  Free ──fill, flush──> Limbo ──ticket passed──> Scan <──────── filed ────────────┤
//!                          │                                                       └ the last one ─> Write ──all answered──> Free
//!                          └ clean ones freed         zero ones freed, checksums kept                │
//!                                                                                                    ├ written ones freed, or kept if rescued
//!                                                                                                    └ failed ones mapped again
//! ```
//!
//! A batch's pages ascend (a clock's wrap starts a second ascent), so neighbours stand beside each other and one
//! request takes a whole run of them. Its lines are made at the start and never grow.

use crate::mm::flush::Ticket;
use crate::mm::object::ObjectId;
use crate::mm::page::{Group, Unmapped};
use alloc::vec::Vec;

/// Most pages in a batch.
pub(super) const BATCH_PAGES: usize = 256;
/// Batches at a time.
pub(super) const BATCHES: usize = 16;
/// Batches at a time of one object: one object's disk must not keep the others from giving.
pub(super) const BATCHES_OF_ONE: usize = 8;

/// What a batch is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The pages leave.
    Evict,
    /// The pages stay mapped.
    Clean,
}

/// Where a batch is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Free,
    Limbo,
    Scan,
    /// A CPU looks at a piece of it without the pager's lock; nobody else touches it.
    Inspected,
    Write,
}

/// Pages that leave or are cleaned together.
#[derive(Debug)]
pub(super) struct Batch {
    pub phase: Phase,
    pub purpose: Purpose,
    /// Whose pages; none while free.
    pub object: Option<ObjectId>,
    /// Launched before all with a higher one.
    pub turn: u64,
    pub ticket: Option<Ticket>,
    /// The pages to be scanned and written.
    pub lines: Group,
    /// Clean pages out of their leaves; they need the flush and no more.
    pub unmapped: Vec<Unmapped>,
    /// Next line to scan or to write.
    pub cursor: usize,
    /// Requests at the disk.
    pub outstanding: usize,
}

impl Batch {
    fn new() -> Self {
        Self {
            phase: Phase::Free,
            purpose: Purpose::Evict,
            object: None,
            turn: 0,
            ticket: None,
            lines: Group::with_capacity(BATCH_PAGES),
            unmapped: Vec::with_capacity(BATCH_PAGES),
            cursor: 0,
            outstanding: 0,
        }
    }

    /// Returns how many pages it holds.
    pub fn len(&self) -> usize {
        self.lines.len() + self.unmapped.len()
    }

    /// Returns whether it goes on without an answer from a disk.
    pub fn needs_no_disk(&self) -> bool {
        match self.phase {
            Phase::Limbo | Phase::Scan => true,
            Phase::Write => self.cursor < self.lines.len() && self.outstanding == 0,
            // Who inspects it goes on with it.
            Phase::Inspected | Phase::Free => false,
        }
    }
}

/// All batches.
#[derive(Debug)]
pub(super) struct Batches {
    all: Vec<Batch>,
    in_use: usize,
    /// Launched so far.
    launched: u64,
}

impl Batches {
    pub fn new() -> Self {
        Self { all: (0..BATCHES).map(|_| Batch::new()).collect(), in_use: 0, launched: 0 }
    }

    /// Returns a free batch for an object that has not too many already.
    pub fn vacant_for(&self, object: ObjectId) -> Option<usize> {
        if self.of(object).count() >= BATCHES_OF_ONE {
            return None;
        }
        self.all.iter().position(|batch| batch.phase == Phase::Free)
    }

    /// Returns the oldest batch of which a piece may be claimed.
    pub fn to_scan(&self) -> Option<usize> {
        if self.in_use == 0 {
            return None;
        }
        let waits = self.all.iter().enumerate().filter(|(_, batch)| batch.phase == Phase::Scan);
        waits.min_by_key(|(_, batch)| batch.turn).map(|(number, _)| number)
    }

    pub fn get(&mut self, number: usize) -> &mut Batch {
        &mut self.all[number]
    }

    pub fn of(&self, object: ObjectId) -> impl Iterator<Item = &Batch> {
        self.all.iter().filter(move |batch| batch.object == Some(object))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Batch> {
        self.all.iter().filter(|batch| batch.phase != Phase::Free)
    }

    /// Returns whether any is in use.
    pub fn any(&self) -> bool {
        self.in_use > 0
    }

    /// Sends a filled batch into limbo.
    pub fn launch(&mut self, number: usize, object: ObjectId, purpose: Purpose, ticket: Ticket) {
        let batch = &mut self.all[number];
        (batch.phase, batch.purpose) = (Phase::Limbo, purpose);
        (batch.object, batch.ticket, batch.turn) = (Some(object), Some(ticket), self.launched);
        self.launched += 1;
        self.in_use += 1;
    }

    /// Makes a batch free once everything in it has been dealt with.
    pub fn retire_if_done(&mut self, number: usize) {
        let batch = &mut self.all[number];
        if batch.phase == Phase::Write && batch.lines.left() == 0 && batch.outstanding == 0 {
            batch.lines.clear();
            (batch.phase, batch.object, batch.cursor) = (Phase::Free, None, 0);
            self.in_use -= 1;
        }
    }

    /// Returns how many pages are on their way to the free list.
    pub fn leaving(&self) -> u32 {
        let evicting = self.iter().filter(|batch| batch.purpose == Purpose::Evict);
        evicting.map(|batch| batch.lines.left() + batch.unmapped.len()).sum::<usize>() as u32
    }
}
