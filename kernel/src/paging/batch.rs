//! The fixed table of batches: pages that are evicted together, or cleaned together.
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
//! A batch's pages are in ascending order (a wrap of the clock hand starts a second ascent). So
//! neighbours are adjacent in it, and one request covers a whole run of them. A batch's lines are
//! allocated at the start and never grow.

use crate::mm::flush::FlushTicket;
use crate::mm::object::ObjectId;
use crate::mm::page::{PageGroup, UnmappedPage};
use crate::time::Ns;
use alloc::vec::Vec;

/// Most pages in a batch.
pub(super) const BATCH_PAGES: usize = 256;
/// Fewest batches in the table.
const LEAST_BATCHES: usize = 16;
/// Most batches of one object, and of one disk where there are several. An unresponsive disk must
/// not stop reclaim from the others.
pub(super) const BATCHES_OF_ONE: usize = 8;

/// Silence of a disk after which its batches no longer count as frames to come, so that reclaim
/// takes frames from elsewhere.
const STUCK_NS: Ns = Ns::from_ms(500);

/// How long an idle disk refuses a batch before the batch counts as stalled: longer than the usual
/// pause between two requests. Faulters of other objects wait at most this long for its frames.
const REFUSED_NS: Ns = Ns::from_ms(50);

/// Purpose of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BatchPurpose {
    /// The pages are evicted.
    Evict,
    /// The pages stay mapped.
    Clean,
}

/// Whether a batch's pages are expected to be freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BatchProspect {
    /// The disk has accepted the object's pages so far.
    Good,
    /// The disk has failed the object's last writes.
    Doubtful,
}

/// State of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BatchPhase {
    Free,
    Limbo,
    Scan,
    /// One CPU inspects a piece of it without the pager's lock; no other CPU touches the batch.
    Inspected,
    Write,
}

/// Pages that are evicted or cleaned together.
#[derive(Debug)]
pub(super) struct Batch {
    /// Its place in the table.
    pub number: usize,
    pub phase: BatchPhase,
    pub purpose: BatchPurpose,
    /// The pages' object; `None` while the batch is free.
    pub object: Option<ObjectId>,
    /// Launch order: lower turns were launched earlier.
    pub turn: u64,
    /// Time of its launch, as of the last poll.
    pub launched_at: Ns,
    /// Its flush is late, and this is recorded.
    pub is_late: bool,
    pub ticket: Option<FlushTicket>,
    /// The pages to be scanned and written.
    pub lines: PageGroup,
    /// Clean pages, already unmapped; they are freed once the flush has passed.
    pub unmapped: Vec<UnmappedPage>,
    /// Next line to scan or to write.
    pub cursor: usize,
    /// Requests in flight at the disk.
    pub outstanding: usize,
    /// Time when the disk accepted the first of them or last completed one.
    pub answered_at: Ns,
    /// Since when the disk has refused the batch's next request while it has none in flight.
    pub refused_since: Option<Ns>,
    /// The disk that its pages are written to, if any.
    pub disk: Option<usize>,
    /// Whether its pages count as frames to come.
    pub prospect: BatchProspect,
}

impl Batch {
    fn new(number: usize) -> Self {
        Self {
            number,
            phase: BatchPhase::Free,
            purpose: BatchPurpose::Evict,
            object: None,
            turn: 0,
            launched_at: Ns::ZERO,
            is_late: false,
            ticket: None,
            lines: PageGroup::with_capacity(BATCH_PAGES),
            unmapped: Vec::with_capacity(BATCH_PAGES),
            cursor: 0,
            outstanding: 0,
            answered_at: Ns::ZERO,
            refused_since: None,
            disk: None,
            prospect: BatchProspect::Good,
        }
    }

    /// Returns how many pages the batch holds.
    pub(super) fn len(&self) -> usize {
        self.lines.len() + self.unmapped.len()
    }

    /// Returns whether it has requests in flight and its disk has completed none for `ns`.
    fn is_silent_for(&self, ns: Ns, now: Ns) -> bool {
        self.outstanding > 0 && now.saturating_sub(self.answered_at) >= ns
    }

    /// Returns whether its disk has refused it for [`REFUSED_NS`].
    fn is_refused(&self, now: Ns) -> bool {
        self.refused_since.is_some_and(|since| now.saturating_sub(since) >= REFUSED_NS)
    }

    /// Returns whether a CPU could continue the batch at once.
    pub(super) fn needs_a_cpu(&self) -> bool {
        match self.phase {
            BatchPhase::Scan => true,
            BatchPhase::Write => self.cursor < self.lines.len() && self.outstanding == 0,
            // The CPU that inspects the batch also continues it.
            BatchPhase::Limbo | BatchPhase::Inspected | BatchPhase::Free => false,
        }
    }

    /// Returns whether the batch waits for other CPUs to pass its flush.
    pub(super) fn awaits_flush(&self) -> bool {
        self.phase == BatchPhase::Limbo
    }
}

/// What the batches wait for, apart from their disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct BatchNeeds {
    /// A CPU could continue a batch at once.
    pub a_cpu: bool,
    /// A batch waits for other CPUs to pass its flush.
    pub a_flush: bool,
}

/// All batches.
#[derive(Debug)]
pub(super) struct Batches {
    all: Vec<Batch>,
    in_use: usize,
    /// Batches launched so far.
    launched: u64,
    /// Number of disks that share the table.
    disks: usize,
}

impl Batches {
    pub(super) fn new(disks: usize) -> Self {
        let count = LEAST_BATCHES.max(BATCHES_OF_ONE * disks);
        Self { all: (0..count).map(Batch::new).collect(), in_use: 0, launched: 0, disks }
    }

    /// Returns the size of the table.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// Returns a free batch for an object, unless the object or its disk is at its limit.
    pub(super) fn vacant_for(&self, object: ObjectId, disk: Option<usize>) -> Option<usize> {
        let of_disk = || self.iter().filter(|batch| batch.disk == disk).count();
        if self.of(object).count() >= BATCHES_OF_ONE
            || self.disks > 1 && of_disk() >= BATCHES_OF_ONE
        {
            return None;
        }
        self.all.iter().position(|batch| batch.phase == BatchPhase::Free)
    }

    /// Returns the oldest batch that has a piece to claim.
    pub(super) fn to_scan(&self) -> Option<usize> {
        if self.in_use == 0 {
            return None;
        }
        let waits =
            self.all.iter().enumerate().filter(|(_, batch)| batch.phase == BatchPhase::Scan);
        waits.min_by_key(|(_, batch)| batch.turn).map(|(number, _)| number)
    }

    pub(super) fn get(&mut self, number: usize) -> &mut Batch {
        &mut self.all[number]
    }

    pub(super) fn of(&self, object: ObjectId) -> impl Iterator<Item = &Batch> {
        self.all.iter().filter(move |batch| batch.object == Some(object))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Batch> {
        self.all.iter().filter(|batch| batch.phase != BatchPhase::Free)
    }

    /// Returns whether any batch is in use.
    pub(super) fn any(&self) -> bool {
        self.in_use > 0
    }

    /// Sends a filled batch into limbo.
    pub(super) fn launch(
        &mut self,
        number: usize,
        (object, disk): (ObjectId, Option<usize>),
        purpose: BatchPurpose,
        ticket: FlushTicket,
    ) -> &mut Batch {
        let batch = &mut self.all[number];
        batch.disk = disk;
        (batch.phase, batch.purpose) = (BatchPhase::Limbo, purpose);
        (batch.object, batch.ticket, batch.turn) = (Some(object), Some(ticket), self.launched);
        self.launched += 1;
        self.in_use += 1;
        (batch.prospect, batch.refused_since) = (BatchProspect::Good, None);
        batch
    }

    /// Frees a batch once all its pages are dealt with and no request is in flight.
    pub(super) fn retire_if_done(&mut self, number: usize) {
        let batch = &mut self.all[number];
        if batch.phase == BatchPhase::Write && batch.lines.left() == 0 && batch.outstanding == 0 {
            batch.lines.clear();
            (batch.phase, batch.object, batch.cursor) = (BatchPhase::Free, None, 0);
            self.in_use -= 1;
        }
    }

    /// Returns what the batches wait for, apart from their disks, in one pass.
    pub(super) fn wants(&self) -> BatchNeeds {
        let mut wants = BatchNeeds::default();
        if self.any() {
            for batch in &self.all {
                wants.a_cpu |= batch.needs_a_cpu();
                wants.a_flush |= batch.awaits_flush();
            }
        }
        wants
    }

    /// Returns whether a batch's disk does nothing for it: it has completed none of the batch's
    /// requests for `ns`, or it refuses the batch and is not busy with another one.
    ///
    /// A disk refuses pages while its lease is over, while a crash is being recorded on it, and
    /// while its queue is full. A full queue is no standstill while requests of other batches are
    /// answered: the batch only waits for its turn.
    pub(super) fn is_stalled(&self, batch: &Batch, ns: Ns, now: Ns) -> bool {
        if batch.outstanding > 0 {
            return batch.is_silent_for(ns, now);
        }
        let serves = |other: &Batch| {
            other.disk == batch.disk && other.outstanding > 0 && !other.is_silent_for(ns, now)
        };
        batch.is_refused(now) && !self.iter().any(serves)
    }

    /// Returns how many pages are on their way to the free list. Pages whose disk does nothing for
    /// them, or will probably fail the write, do not count.
    pub(super) fn leaving(&self, now: Ns) -> u32 {
        let counts = |batch: &&Batch| {
            batch.prospect == BatchProspect::Good && !self.is_stalled(batch, STUCK_NS, now)
        };
        let evicting =
            self.iter().filter(|batch| batch.purpose == BatchPurpose::Evict).filter(counts);
        evicting.map(|batch| batch.lines.left() + batch.unmapped.len()).sum::<usize>() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Ns = Ns::from_ms(1);

    /// Two batches for the first disk and one for the second, all to be written.
    fn three() -> Batches {
        let mut batches = Batches::new(2);
        for (number, disk) in [(0, 0), (1, 0), (2, 1)] {
            let batch = batches.get(number);
            (batch.phase, batch.disk) = (BatchPhase::Write, Some(disk));
        }
        batches
    }

    fn stalled(batches: &Batches, now: Ns) -> [bool; 3] {
        [0, 1, 2].map(|number| batches.is_stalled(&batches.all[number], 500 * MS, now))
    }

    #[test]
    fn a_batch_that_an_idle_disk_refuses_is_stalled_after_a_while() {
        let mut batches = three();
        batches.get(0).refused_since = Some(10 * MS);
        assert_eq!(stalled(&batches, 59 * MS), [false; 3]);
        assert_eq!(stalled(&batches, 60 * MS), [true, false, false]);
        // The other disk's requests do not help.
        (batches.get(2).outstanding, batches.get(2).answered_at) = (1, 60 * MS);
        assert_eq!(stalled(&batches, 60 * MS), [true, false, false]);
    }

    #[test]
    fn a_batch_that_waits_for_its_turn_is_not_stalled_until_the_disk_is() {
        let mut batches = three();
        batches.get(0).refused_since = Some(10 * MS);
        (batches.get(1).outstanding, batches.get(1).answered_at) = (1, 20 * MS);
        assert_eq!(stalled(&batches, 519 * MS), [false; 3]);
        assert_eq!(stalled(&batches, 520 * MS), [true, true, false]);
    }
}
