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
const LEAST_BATCHES: usize = 16;
/// Batches at a time of one object, and of one disk where there are several: one that does not answer must not keep the others from
/// giving.
pub(super) const BATCHES_OF_ONE: usize = 8;

/// How long a disk may answer nothing before frames are taken from elsewhere.
const STUCK_NS: u64 = 500_000_000;

/// What a batch is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The pages leave.
    Evict,
    /// The pages stay mapped.
    Clean,
}

/// Whether a batch's pages will leave, as far as is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Prospect {
    /// The disk has taken the object's pages so far.
    Good,
    /// The disk did not take the last ones.
    Doubtful,
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
    /// When the disk last took the first of them or answered one.
    pub answered_at: u64,
    /// Where its pages go, if they go to a disk.
    pub disk: Option<usize>,
    /// Whether the pages are counted on to leave.
    pub prospect: Prospect,
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
            answered_at: 0,
            disk: None,
            prospect: Prospect::Good,
        }
    }

    /// Returns how many pages it holds.
    pub fn len(&self) -> usize {
        self.lines.len() + self.unmapped.len()
    }

    /// Returns whether its disk has answered nothing for so long that the pages are not counted on.
    pub fn is_stuck(&self, now: u64) -> bool {
        self.is_silent_for(STUCK_NS, now)
    }

    /// Returns whether its disk has answered nothing for so long.
    pub fn is_silent_for(&self, ns: u64, now: u64) -> bool {
        self.outstanding > 0 && now.saturating_sub(self.answered_at) >= ns
    }

    /// Returns whether a CPU could go on with it at once.
    pub fn needs_a_cpu(&self) -> bool {
        match self.phase {
            Phase::Scan => true,
            Phase::Write => self.cursor < self.lines.len() && self.outstanding == 0,
            // The CPU that inspects it goes on with it.
            Phase::Limbo | Phase::Inspected | Phase::Free => false,
        }
    }

    /// Returns whether it goes on when other CPUs have passed its flush.
    pub fn awaits_flush(&self) -> bool {
        self.phase == Phase::Limbo
    }
}

/// What batches wait for beside their disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Wants {
    /// A CPU that goes on with one at once.
    pub a_cpu: bool,
    /// Other CPUs that pass a flush.
    pub a_flush: bool,
}

/// All batches.
#[derive(Debug)]
pub(super) struct Batches {
    all: Vec<Batch>,
    in_use: usize,
    /// Launched so far.
    launched: u64,
    /// How many disks share them.
    disks: usize,
}

impl Batches {
    pub fn new(disks: usize) -> Self {
        let count = LEAST_BATCHES.max(BATCHES_OF_ONE * disks);
        Self { all: (0..count).map(|_| Batch::new()).collect(), in_use: 0, launched: 0, disks }
    }

    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Returns a free batch for an object that has not too many already, nor its disk.
    pub fn vacant_for(&self, object: ObjectId, disk: Option<usize>) -> Option<usize> {
        let of_disk = || self.iter().filter(|batch| batch.disk == disk).count();
        if self.of(object).count() >= BATCHES_OF_ONE || self.disks > 1 && of_disk() >= BATCHES_OF_ONE {
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
    pub fn launch(
        &mut self,
        number: usize,
        (object, disk): (ObjectId, Option<usize>),
        purpose: Purpose,
        ticket: Ticket,
    ) -> &mut Batch {
        let batch = &mut self.all[number];
        batch.disk = disk;
        (batch.phase, batch.purpose) = (Phase::Limbo, purpose);
        (batch.object, batch.ticket, batch.turn) = (Some(object), Some(ticket), self.launched);
        self.launched += 1;
        self.in_use += 1;
        batch.prospect = Prospect::Good;
        batch
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

    /// Returns what goes on without a disk's answer, in one pass.
    pub fn wants(&self) -> Wants {
        let mut wants = Wants::default();
        if self.any() {
            for batch in &self.all {
                wants.a_cpu |= batch.needs_a_cpu();
                wants.a_flush |= batch.awaits_flush();
            }
        }
        wants
    }

    /// Returns how many pages are on their way to the free list: those that a disk has kept for too long, or will hardly
    /// take, do not count.
    pub fn leaving(&self, now: u64) -> u32 {
        let counts = |batch: &&Batch| batch.prospect == Prospect::Good && !batch.is_stuck(now);
        let evicting = self.iter().filter(|batch| batch.purpose == Purpose::Evict).filter(counts);
        evicting.map(|batch| batch.lines.left() + batch.unmapped.len()).sum::<usize>() as u32
    }
}
