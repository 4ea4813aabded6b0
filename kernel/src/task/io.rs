//! Disk I/O for tasks: a task awaits its request.
//!
//! The pager polls every disk and puts these completions into the mailbox for tasks.
//! [`AsyncIo::deliver`] moves each into the slot that its cookie names. Every disk has its own
//! slots, so a slow or dead disk delays no request for another disk. One slot of each disk is for
//! its image stores, one for the beat of its claims, and some are for a cluster's member.
//!
//! The buffer of [`AsyncIo::transfer`] belongs to the request until the disk answers, even if the
//! task that awaits it is dropped.
//!
//! ```text
//!   Free ──take──> Pending ──answer──> Done ──task looks──> Free
//!                     │ no answer in time          late answer: buffer returned
//!                     └──────────> Overdue ──task looks──> Abandoned ──────> Free
//! ```

use super::{until, yield_now};
use crate::block::cookie::{COMMON_PER_DISK, CompletionOwner, CookieFields, PER_DISK};
use crate::block::dma::DmaRegion;
use crate::block::{
    Completion, Disk, DiskError, DiskOperation, DiskRequest, DmaSegment, MAX_DISKS, QueueLane,
    SectorRange, SubmitError,
};
use crate::sync::{RankedLock, rank};
use arrayvec::ArrayVec;

/// The slot reserved for [`QueueLane::Store`].
const STORE_SLOT: usize = COMMON_PER_DISK;
/// The slot reserved for the beat of claims.
const BEAT_SLOT: usize = STORE_SLOT + 1;
/// The slots of a cluster's member; its requests use [`QueueLane::Beat`] too.
const MEMBER_SLOTS: core::ops::Range<usize> = BEAT_SLOT + 1..PER_DISK;

/// Returns the lane of a slot's requests, for the slots whose buffers come back late.
const fn lane_of(slot: usize) -> QueueLane {
    match slot {
        BEAT_SLOT => QueueLane::Beat,
        STORE_SLOT => QueueLane::Store,
        _ => QueueLane::Common,
    }
}

#[derive(Debug, Default)]
enum IoSlot {
    #[default]
    Free,
    Pending(Option<DmaRegion>),
    /// The request timed out: the disk still has the buffer.
    Overdue(Option<DmaRegion>),
    /// As `Overdue`, and the task has been told.
    Abandoned(Option<DmaRegion>),
    Done(IoAnswer),
}

/// Result of a request, and the buffer that it returns.
type IoAnswer = (Result<(), DiskError>, Option<DmaRegion>);

/// The requests of one disk.
#[derive(Debug)]
struct DiskSlots {
    slots: [IoSlot; PER_DISK],
    /// Buffers that late answers have returned.
    returned: ArrayVec<(QueueLane, DmaRegion), PER_DISK>,
}

impl DiskSlots {
    const fn new() -> Self {
        Self { slots: [const { IoSlot::Free }; PER_DISK], returned: ArrayVec::new_const() }
    }

    /// Takes a slot of the lane; the beat and the stores have one slot each and take no other.
    fn take(&mut self, lane: QueueLane) -> Option<usize> {
        let range = match lane {
            QueueLane::Common => 0..STORE_SLOT,
            QueueLane::Store => STORE_SLOT..BEAT_SLOT,
            QueueLane::Beat => BEAT_SLOT..BEAT_SLOT + 1,
        };
        self.take_in(range)
    }

    fn take_in(&mut self, mut range: core::ops::Range<usize>) -> Option<usize> {
        let free = range.find(|&n| matches!(self.slots[n], IoSlot::Free))?;
        self.slots[free] = IoSlot::Pending(None);
        Some(free)
    }

    /// Gives a pending request its buffer to hold.
    fn keep(&mut self, slot: usize, buffer: Option<DmaRegion>) {
        self.slots[slot] = IoSlot::Pending(buffer);
    }

    fn complete(&mut self, slot: usize, result: Result<(), DiskError>) {
        let Some(place) = self.slots.get_mut(slot) else { return };
        *place = match core::mem::take(place) {
            IoSlot::Pending(buffer) if result == Err(DiskError::TimedOut) => {
                IoSlot::Overdue(buffer)
            }
            IoSlot::Pending(buffer) => IoSlot::Done((result, buffer)),
            IoSlot::Overdue(buffer) => IoSlot::Done((Err(DiskError::TimedOut), buffer)),
            IoSlot::Abandoned(buffer) => {
                self.returned.extend(buffer.map(|buffer| (lane_of(slot), buffer)));
                IoSlot::Free
            }
            other => other,
        };
    }

    fn take_answer(&mut self, slot: usize) -> Option<IoAnswer> {
        let place = &mut self.slots[slot];
        match core::mem::take(place) {
            IoSlot::Done(answer) => Some(answer),
            IoSlot::Overdue(buffer) => {
                *place = IoSlot::Abandoned(buffer);
                Some((Err(DiskError::TimedOut), None))
            }
            other => {
                *place = other;
                None
            }
        }
    }

    /// Takes the answer after which nothing of the request lands any more.
    fn take_last_answer(&mut self, slot: usize) -> Option<Result<(), DiskError>> {
        let place = &mut self.slots[slot];
        match core::mem::take(place) {
            IoSlot::Done((result, _)) => Some(result),
            other => {
                *place = other;
                None
            }
        }
    }

    fn take_returned(&mut self, lane: QueueLane) -> Option<DmaRegion> {
        let at = self.returned.iter().position(|(of, _)| *of == lane)?;
        Some(self.returned.swap_remove(at).1)
    }
}

/// Requests of tasks in flight, by disk.
pub struct AsyncIo {
    disks: [RankedLock<DiskSlots, { rank::SPACE }>; MAX_DISKS],
}

impl AsyncIo {
    /// Makes a table with nothing in flight.
    pub const fn new() -> Self {
        Self { disks: [const { RankedLock::new(DiskSlots::new()) }; MAX_DISKS] }
    }

    /// Delivers the completions that `take` returns to the tasks that await them.
    pub fn deliver(&self, mut take: impl FnMut() -> Option<Completion>) {
        while let Some(completion) = take() {
            if let Some(tag) = CookieFields::of(completion.cookie)
                && let Some(disk) = self.disks.get(tag.detail as usize)
            {
                disk.lock().complete(tag.slot as usize, completion.result);
            }
        }
    }

    /// Returns a buffer of a lane that a request kept after its task gave up, and that the late
    /// answer has returned.
    pub fn take_returned(&self, disk: &impl Disk, lane: QueueLane) -> Option<DmaRegion> {
        self.disks[usize::from(disk.info().index)].lock().take_returned(lane)
    }

    /// Carries out one request on memory that is never freed.
    ///
    /// # Errors
    /// The disk's error, after its own retries and time-outs.
    pub async fn run(
        &self,
        disk: &impl Disk,
        operation: DiskOperation,
        sectors: SectorRange,
        segments: &[DmaSegment],
    ) -> Result<(), DiskError> {
        let request = DiskRequest {
            operation,
            sectors,
            segments,
            lane: QueueLane::Common,
            cookie: Default::default(),
        };
        self.carry_out(disk, &request, None).await.0
    }

    /// Carries out one request on the first bytes of `buffer`, as many as the sectors have. The
    /// buffer comes back with the answer. If the request times out ([`DiskError::TimedOut`]), the
    /// buffer comes back with the late answer: [`Self::take_returned`].
    ///
    /// A request in [`QueueLane::Beat`] waits only for an earlier beat of the same disk.
    pub async fn transfer(
        &self,
        disk: &impl Disk,
        lane: QueueLane,
        operation: DiskOperation,
        sectors: SectorRange,
        buffer: DmaRegion,
    ) -> (Result<(), DiskError>, Option<DmaRegion>) {
        let bytes = sectors.count * crate::block::request::SECTOR_SIZE;
        let segments = [DmaSegment { base: buffer.hpa(0), len: bytes as u32 }];
        let request = DiskRequest {
            operation,
            sectors,
            segments: &segments,
            lane,
            cookie: Default::default(),
        };
        self.carry_out(disk, &request, Some(buffer)).await
    }

    /// Makes all writes completed before this call durable.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn flush(&self, disk: &impl Disk) -> Result<(), DiskError> {
        self.flush_in(disk, QueueLane::Common).await
    }

    /// As [`Self::flush`], in the given lane.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn flush_in(&self, disk: &impl Disk, lane: QueueLane) -> Result<(), DiskError> {
        let sectors = SectorRange { first: 0, count: 0 };
        let request = DiskRequest {
            operation: DiskOperation::Flush,
            sectors,
            segments: &[],
            lane,
            cookie: Default::default(),
        };
        self.carry_out(disk, &request, None).await.0
    }

    /// Carries out one request of a cluster's member on memory that is never freed, and waits for
    /// the disk's last word: a request that times out ends with its late answer, as
    /// [`DiskError::TimedOut`], and without one it does not end. It passes a full queue, and the
    /// disk's gate until the disk is given up.
    ///
    /// # Errors
    /// The disk's error.
    pub async fn run_to_the_end(
        &self,
        disk: &impl Disk,
        operation: DiskOperation,
        sectors: SectorRange,
        segments: &[DmaSegment],
    ) -> Result<(), DiskError> {
        let number = usize::from(disk.info().index);
        let slots = &self.disks[number];
        let slot = until(|| match slots.lock().take_in(MEMBER_SLOTS) {
            None if disk.is_dead() => Some(None),
            slot => slot.map(Some),
        });
        let Some(slot) = slot.await else { return Err(DiskError::Dead) };
        let (class, detail) = (CompletionOwner::Task, number as u32);
        let cookie = CookieFields { class, detail, slot: slot as u32 }.cookie();
        let lane = QueueLane::Beat;
        let request = DiskRequest { operation, sectors, segments, lane, cookie };
        let submitted = until(|| match disk.submit(&request) {
            Err(SubmitError::Full) => None,
            result => Some(result),
        });
        if submitted.await.is_err() {
            slots.lock().complete(slot, Err(DiskError::Dead));
        } else {
            // As in `try_once`.
            yield_now().await;
        }
        until(|| slots.lock().take_last_answer(slot)).await
    }

    /// Carries a request out. A failure counts only while it is known which node owns the disk.
    /// While that is in doubt, a failed request is repeated, and waits until the owner is known.
    async fn carry_out(
        &self,
        disk: &impl Disk,
        request: &DiskRequest<'_>,
        mut buffer: Option<DmaRegion>,
    ) -> IoAnswer {
        let had_buffer = buffer.is_some();
        loop {
            let (result, back) = self.try_once(disk, request, buffer).await;
            let is_doubtful =
                result.is_err() && request.lane == QueueLane::Common && disk.is_suspended();
            if !is_doubtful || back.is_some() != had_buffer {
                return (result, back);
            }
            buffer = back;
        }
    }

    async fn try_once(
        &self,
        disk: &impl Disk,
        request: &DiskRequest<'_>,
        buffer: Option<DmaRegion>,
    ) -> IoAnswer {
        let number = usize::from(disk.info().index);
        let slots = &self.disks[number];
        let Some(slot) = until(|| match slots.lock().take(request.lane) {
            // The slots of a dead disk's requests may never become free.
            None if disk.is_dead() => Some(None),
            slot => slot.map(Some),
        })
        .await
        else {
            return (Err(DiskError::Dead), buffer);
        };
        let cookie =
            CookieFields { class: CompletionOwner::Task, detail: number as u32, slot: slot as u32 }
                .cookie();
        // The buffer is stored before the disk can answer.
        slots.lock().keep(slot, buffer);
        let request = DiskRequest { cookie, ..*request };
        let submitted = until(|| match disk.submit(&request) {
            Err(SubmitError::Full) => None,
            result => Some(result),
        })
        .await;
        if submitted.is_err() {
            slots.lock().complete(slot, Err(DiskError::Dead));
        } else {
            // A disk without interrupts has answered already, and no CPU would look before the
            // guest's time slice ends.
            yield_now().await;
        }
        until(|| slots.lock().take_answer(slot)).await
    }
}

impl Default for AsyncIo {
    fn default() -> Self {
        Self::new()
    }
}
