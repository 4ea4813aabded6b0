//! Page-ins: one transfer per page, neighbours brought along, every block verified.
//!
//! ```text
//!  Paged ──> ComingIn ── read ── CRC32C right ───────────────> Present, woken
//!                         │
//!                         ├ neighbour wrong ─────────────────> Paged again (whoever wants it asks for it)
//!                         └ demanded page wrong ── read again, alone ── wrong ──> Paged and lost
//! ```
//!
//! A page that is lost keeps its state: the block and the checksum that it should have stay as evidence.

use super::Pager;
use super::cookie::{Class, Tag};
use super::counters::bump;
use super::fault::{Fault, Loss};
use super::segments::Segments;
use super::slots::{Slot, Slots, StoreState};
use super::state::State;
use super::transfer::{Coming, Phase, Transfer, WINDOW};
use crate::addr::{PAGE_SIZE, PageIndex};
use crate::block::{Disk, DiskError, Operation, Request, SubmitError};
use crate::mm::frames::Frame;
use crate::mm::leaf::{Leaf, TransferIndex};
use crate::mm::object::{MemoryObject, ObjectId, WaitTicket};
use crate::mm::page::{Page, Reason};
use crate::mm::phys::FrameMemory;
use crate::pool::Policy;
use crate::virt::Access;

/// Reads of a demanded page that may fail before it is lost.
const READS: u8 = 2;

impl<M: FrameMemory, D: Disk, P: Policy> Pager<'_, M, D, P> {
    /// Starts to read a paged page; `None` if it is in another state by now.
    pub(super) fn begin_page_in(
        &self,
        object: &MemoryObject,
        page: Page<'_>,
        access: Access,
        ticket: WaitTicket,
        now: u64,
    ) -> Option<Fault> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let id = object.id();
        let number = state.transfers.vacant();
        let Some((number, frame)) = number.and_then(|number| Some((number, self.take_frame(state, id)?))) else {
            let lost = state.slots.get(id).and_then(|slot| slot.loss_of(page.index())).map(Fault::Lost);
            return Some(lost.unwrap_or_else(|| self.wait_for_frames_locked(state, id, ticket)));
        };
        let State { transfers, slots, segments, credits, .. } = &mut *state;
        // Looked up once for everything: this is the path that somebody waits for.
        let slot = slots.get(id).expect("an object with paged pages is attached");
        if let Some(loss) = slot.loss_of(page.index()) {
            self.ground.frames.free(frame);
            return Some(Fault::Lost(loss));
        }
        let store = slot.store.as_ref().expect("an object with paged pages has a store");
        let coming = match self.coming(page, number, frame) {
            Ok(coming) => coming,
            Err(frame) => {
                self.ground.frames.free(frame);
                return None;
            }
        };
        let transfer = transfers.start(number, (id, page.index()), access, coming, now);
        self.read_around(object, transfer, number, store.max_pages as u32, credits.total());
        let answer = self.hand_over(transfer, number, store, segments);
        self.note_handed_over(state, number, answer);
        Some(Fault::Wait(ticket))
    }

    fn coming(&self, page: Page<'_>, number: u32, frame: Frame) -> Result<Coming, Frame> {
        match page.begin_page_in(TransferIndex(number)) {
            Ok(crc) => Ok(Coming { frame, crc }),
            Err(_) => Err(frame),
        }
    }

    /// Lets a transfer grow over paged neighbours, upwards first, while frames are plentiful.
    fn read_around(&self, object: &MemoryObject, transfer: &mut Transfer, number: u32, most: u32, promised: u32) {
        let Some(near) = object.near(transfer.page(transfer.demand)) else { return };
        let is_paged = |page: Page<'_>| matches!(page.leaf(), Leaf::Paged(_));
        let neighbour = |transfer: &Transfer, place| near.page(transfer.page(place)).filter(|&page| is_paged(page));
        let free = || self.ground.frames.free_count().saturating_sub(promised);
        let room = |t: &Transfer| t.end - t.first < most && self.marks.is_plenty(free());
        while transfer.end < WINDOW
            && let Some(page) = neighbour(transfer, transfer.end)
            && room(transfer)
            && self.bring_along(page, transfer, number, transfer.end)
        {
            transfer.end += 1;
        }
        while transfer.first > 0
            && let Some(page) = neighbour(transfer, transfer.first - 1)
            && room(transfer)
            && self.bring_along(page, transfer, number, transfer.first - 1)
        {
            transfer.first -= 1;
        }
        let along = transfer.end - transfer.first - 1;
        if along > 0 {
            bump(&self.counters.read_around, u64::from(along));
        }
    }

    fn bring_along(&self, page: Page<'_>, transfer: &mut Transfer, number: u32, place: u32) -> bool {
        let Some(frame) = self.ground.frames.alloc() else { return false };
        match self.coming(page, number, frame) {
            Ok(coming) => {
                transfer.pages[place as usize] = Some(coming);
                true
            }
            Err(frame) => {
                self.ground.frames.free(frame);
                false
            }
        }
    }

    /// Hands a queued transfer to the disk, or leaves it queued where the disk is full.
    fn submit_transfer(&self, state: &mut State<P>, number: u32) -> Submitted {
        let State { transfers, slots, segments, .. } = &mut *state;
        let transfer = transfers.get(number).expect("a queued transfer is in use");
        let answer = self.hand_over(transfer, number, store_of(slots, transfer.object), segments);
        self.note_handed_over(state, number, answer)
    }

    #[inline(always)]
    fn hand_over(
        &self,
        transfer: &Transfer,
        number: u32,
        store: &StoreState,
        segments: &mut Segments,
    ) -> Result<(), SubmitError> {
        let coming = transfer.pages[transfer.first as usize..transfer.end as usize].iter().flatten();
        let count =
            segments.gather(coming.map(|coming| self.ground.memory.hpa(coming.frame.hfn())), store.max_segment_len) as u32;
        let request = Request {
            operation: Operation::Read,
            sectors: store.store.blocks.sectors(transfer.page(transfer.first), count),
            segments: segments.as_slice(),
            cookie: Tag { class: Class::Transfer, detail: transfer.life, slot: number }.cookie(),
        };
        self.disks[store.store.disk].submit(&request)?;
        bump(&self.counters.read_requests, 1);
        bump(&self.counters.bytes_read, u64::from(count) * PAGE_SIZE);
        Ok(())
    }

    #[inline(always)]
    fn note_handed_over(&self, state: &mut State<P>, number: u32, answer: Result<(), SubmitError>) -> Submitted {
        if answer == Err(SubmitError::Full) {
            return Submitted::Full;
        }
        let transfer = state.transfers.leave_queue(number);
        if answer.is_err() {
            transfer.failures = READS;
            self.fail_transfer(state, number, Loss::Io(DiskError::Dead));
        }
        Submitted::Yes
    }

    /// Takes a transfer's answer from the disk.
    pub(super) fn complete_transfer(&self, state: &mut State<P>, tag: Tag, result: Result<(), DiskError>, now: u64) {
        let Some(transfer) = state.transfers.get(tag.slot) else { return };
        if transfer.life != tag.detail || transfer.phase != Phase::Reading {
            return;
        }
        if let Err(error) = result {
            bump(&self.counters.read_errors, 1);
            transfer.failures += 1;
            return self.fail_transfer(state, tag.slot, Loss::Io(error));
        }
        let slot = state.slots.busy(transfer.object);
        self.install_all(slot, transfer, tag.slot);
        if transfer.pages[transfer.demand as usize].is_some() {
            transfer.failures += 1;
            return self.fail_transfer(state, tag.slot, Loss::Checksum);
        }
        slot.flow.page_ins += 1;
        self.counters.note_page_in(now.saturating_sub(transfer.since));
        slot.object.wake();
        state.transfers.finish(tag.slot);
    }

    /// Installs every page whose block is right. What is left in the transfer was wrong.
    fn install_all(&self, slot: &mut Slot, transfer: &mut Transfer, number: u32) {
        let mut all_right = true;
        for place in transfer.first..transfer.end {
            let right = |c: &Coming| self.ground.memory.checksum(c.frame.hfn()) == c.crc;
            let Some(coming) = transfer.pages[place as usize].take_if(|c| right(c)) else {
                bump(&self.counters.checksum_errors, 1);
                all_right = false;
                continue;
            };
            let index = transfer.page(place);
            let mut reason = Reason::Demand;
            if place != transfer.demand {
                slot.note_ahead(index);
                reason = Reason::ReadAround;
            }
            let page = slot.object.existing(index).expect("a page that is coming in has a table");
            page.finish_page_in(TransferIndex(number), coming.frame, coming.crc, reason);
            if reason == Reason::Demand {
                // Where it has left already, the access faults again.
                let _ = page.admit(transfer.access);
            }
            slot.usage.fetched = slot.usage.fetched.saturating_add(1);
        }
        if !all_right {
            self.drop_neighbours(&slot.object, transfer, number);
        }
    }

    /// Lets go of the neighbours that are still in the transfer: they are paged again, and read when somebody wants them.
    #[cold]
    #[inline(never)]
    fn drop_neighbours(&self, object: &MemoryObject, transfer: &mut Transfer, number: u32) {
        for place in (transfer.first..transfer.end).filter(|place| *place != transfer.demand) {
            if let Some(coming) = transfer.pages[place as usize].take() {
                let index = transfer.page(place);
                self.drop_page(object, index, coming, number);
            }
        }
        (transfer.first, transfer.end) = (transfer.demand, transfer.demand + 1);
    }

    fn drop_page(&self, object: &MemoryObject, index: PageIndex, coming: Coming, number: u32) {
        let page = object.existing(index).expect("a page that is coming in has a table");
        page.abort_page_in(TransferIndex(number), coming.crc);
        self.ground.frames.free(coming.frame);
    }

    /// The demanded page is not there: reads it again, alone, or gives it up.
    #[cold]
    #[inline(never)]
    fn fail_transfer(&self, state: &mut State<P>, number: u32, loss: Loss) {
        let transfer = state.transfers.get(number).expect("a failing transfer is in use");
        let id = transfer.object;
        let slot = state.slots.busy(id);
        let object = slot.object.clone();
        self.drop_neighbours(&object, transfer, number);
        if transfer.failures < READS {
            state.transfers.requeue(number);
            object.wake();
            self.submit_transfer(state, number);
            return;
        }
        let index = transfer.page(transfer.demand);
        if let Some(coming) = transfer.pages[transfer.demand as usize].take() {
            self.drop_page(&object, index, coming, number);
        }
        self.lose(state, id, index, loss);
        state.transfers.finish(number);
        object.wake();
    }

    /// Hands queued transfers to their disks.
    pub(super) fn resubmit_transfers(&self, state: &mut State<P>) {
        let mut from = 0;
        while state.transfers.any_queued() {
            let Some(number) = state.transfers.next_queued(from) else { return };
            if self.submit_transfer(state, number) == Submitted::Full {
                return;
            }
            from = number + 1;
        }
    }
}

#[inline]
fn store_of(slots: &Slots, id: ObjectId) -> &StoreState {
    let slot = slots.get(id).expect("an object with work under way stays attached");
    slot.store.as_ref().expect("an object with paged pages has a store")
}

/// Whether a disk took a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Submitted {
    /// It did (or answered at once that it never will).
    Yes,
    /// Later.
    Full,
}
