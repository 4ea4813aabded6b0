//! Page-ins: one transfer per page, neighbours brought along, every block verified.
//!
//! ```text
//!  Paged ──> ComingIn ── read ── CRC32C right ───────────────> Present, woken
//!                         │
//!                         ├ neighbour wrong ─────────────────> Paged again (read again on demand)
//!                         └ demanded page wrong ── read again, alone ── wrong ──> Paged and lost
//! ```
//!
//! A lost page keeps its state: its block and the expected checksum stay as evidence.

use super::Pager;
use super::along::{AheadLimits, AheadRequest};
use super::around::ReadReach;
use super::counters::bump;
use super::fault::AccessOutcome;
use super::late_requests::HeldMemory;
use super::loss::PageLossError;
use super::segments::SegmentBuffer;
use super::slots::{PagedObject, PagedObjects, StoreState};
use super::state::PagerState;
use super::transfer::{IncomingPage, PageTransfer, TransferPhase};
use super::verify::ArrivedTransfers;
use crate::addr::{PAGE_SIZE, PageIndex};
use crate::block::cookie::{CompletionOwner, CookieFields};
use crate::block::{Disk, DiskError, DiskOperation, DiskRequest, QueueLane, SubmitError};
use crate::log::history::HistoryKind;
use crate::mm::frames::{Frame, FrameChain};
use crate::mm::leaf::TransferIndex;
use crate::mm::object::{LeafTablePages, MemoryObject, ObjectId, WaitTicket};
use crate::mm::page::{InstallReason, Page};
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use crate::time::Ns;
use crate::virt::PageAccess;

/// Failed reads of a demanded page after which it is lost.
const READS: u8 = 2;

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Starts to read a paged page. Returns `None` if the page's state has changed meanwhile.
    pub(super) fn begin_page_in(
        &self,
        (near, page): (LeafTablePages<'_>, Page<'_>),
        access: PageAccess,
        ticket: WaitTicket,
        now: Ns,
    ) -> Option<AccessOutcome> {
        let object = near.object();
        let mut state = self.locked();
        let state = &mut *state;
        let id = object.id();
        let number = state.transfers.vacant();
        let Some((number, frame)) =
            number.and_then(|number| Some((number, self.take_frame(state, id)?)))
        else {
            let lost = state
                .slots
                .get(id)
                .and_then(|slot| slot.loss_of(page.index()))
                .map(AccessOutcome::Lost);
            return Some(lost.unwrap_or_else(|| self.wait_for_frames_locked(state, id, ticket)));
        };
        let PagerState { transfers, slots, segments, credits, .. } = &mut *state;
        // Looked up once for all uses: this is the latency-critical path.
        let slot = slots.get_mut(id).expect("an object with paged pages is attached");
        if let Some(loss) = slot.loss_of(page.index()) {
            self.env.frames.free(frame);
            return Some(AccessOutcome::Lost(loss));
        }
        let store = slot.store.as_ref().expect("an object with paged pages has a store");
        let coming = match self.coming(page, number, frame) {
            Ok(coming) => coming,
            Err(frame) => {
                self.env.frames.free(frame);
                return None;
            }
        };
        let transfer = transfers.start(number, (id, page.index(), near.at()), access, coming, now);
        let reach = slot.around.reach(page.index().0);
        // An object whose pages cannot be written reads nothing along.
        let promised = if slot.guard.is_some() { u32::MAX } else { credits.total() };
        let room = AheadLimits { pages: store.max_pages as u32, promised };
        if self.grow(&near, transfer, number, reach, room) {
            slot.around.note_along(
                reach,
                transfer.base + transfer.first,
                transfer.base + transfer.end,
            );
        }
        let answer = self.hand_over(transfer, number, store, segments);
        self.note_handed_over(state, number, answer);
        if let ReadReach::Along { heading, windows: windows @ 1.. } = reach {
            self.read_ahead(
                state,
                object,
                AheadRequest { page: page.index(), heading, windows, room, now },
            );
        }
        Some(AccessOutcome::Wait(ticket))
    }

    pub(super) fn coming(
        &self,
        page: Page<'_>,
        number: u32,
        frame: Frame,
    ) -> Result<IncomingPage, Frame> {
        match page.begin_page_in(TransferIndex(number)) {
            Ok(crc) => Ok(IncomingPage { frame, crc }),
            Err(_) => Err(frame),
        }
    }

    /// Submits a queued transfer to the disk, or leaves it queued if the disk is full.
    fn submit_transfer(&self, state: &mut PagerState<P>, number: u32) -> SubmitOutcome {
        let PagerState { transfers, slots, segments, .. } = &mut *state;
        let transfer = transfers.get(number).expect("a queued transfer is in use");
        let answer = self.hand_over(transfer, number, store_of(slots, transfer.object), segments);
        self.note_handed_over(state, number, answer)
    }

    #[inline(always)]
    pub(super) fn hand_over(
        &self,
        transfer: &PageTransfer,
        number: u32,
        store: &StoreState,
        segments: &mut SegmentBuffer,
    ) -> Result<(), SubmitError> {
        let hpa = |coming: &IncomingPage| self.env.memory.hpa(coming.frame.hfn());
        let coming = &transfer.pages[transfer.first as usize..transfer.end as usize];
        let count = match coming {
            [Some(alone)] => {
                segments.single(hpa(alone));
                1
            }
            several => {
                segments.gather(several.iter().flatten().map(hpa), store.max_segment_len) as u32
            }
        };
        let request = DiskRequest {
            operation: DiskOperation::Read,
            sectors: store.store.blocks.sectors(transfer.page(transfer.first), count),
            segments: segments.as_slice(),
            lane: QueueLane::Common,
            cookie: CookieFields {
                class: CompletionOwner::Transfer,
                detail: transfer.life,
                slot: number,
            }
            .cookie(),
        };
        self.disks[store.store.disk].submit(&request)?;
        bump(&self.counters.read_requests, 1);
        bump(&self.counters.bytes_read, u64::from(count) * PAGE_SIZE);
        Ok(())
    }

    #[inline(always)]
    pub(super) fn note_handed_over(
        &self,
        state: &mut PagerState<P>,
        number: u32,
        answer: Result<(), SubmitError>,
    ) -> SubmitOutcome {
        if answer == Err(SubmitError::Full) {
            return SubmitOutcome::Full;
        }
        let transfer = state.transfers.leave_queue(number);
        if answer.is_err() {
            transfer.failures = READS;
            self.fail_transfer(state, number, PageLossError::Io(DiskError::Dead));
        }
        SubmitOutcome::Yes
    }

    /// Handles the completion of a transfer. A transfer of several pages is added to `arrived`, to
    /// be verified without the lock.
    pub(super) fn complete_transfer(
        &self,
        state: &mut PagerState<P>,
        tag: CookieFields,
        (result, now): (Result<(), DiskError>, Ns),
        arrived: &mut ArrivedTransfers,
    ) {
        let Some(transfer) = state.transfers.get(tag.slot) else { return };
        if transfer.life != tag.detail || transfer.phase != TransferPhase::Reading {
            return;
        }
        if let Err(error) = result {
            bump(&self.counters.read_errors, 1);
            if error == DiskError::TimedOut {
                return self.strand_transfer(state, tag);
            }
            transfer.failures += self.weight_of_failure(&state.slots, transfer.object);
            return self.fail_transfer(state, tag.slot, PageLossError::Io(error));
        }
        if !self.turns.is_alone() && transfer.end.wrapping_sub(transfer.first) > 1 {
            transfer.phase = TransferPhase::Verifying;
            arrived.push(tag.slot);
            return;
        }
        let slot = state.slots.busy(transfer.object);
        let right = |_, coming: &IncomingPage| self.is_right(coming.frame.hfn(), coming.crc);
        if self.finish_transfer(slot, transfer, tag.slot, right, now) {
            state.transfers.finish(tag.slot);
        } else {
            self.fail_checksum(state, tag.slot);
        }
    }

    /// Ends a transfer whose pages were verified. Bit `n` of `places` is set if the page at place
    /// `n` is right.
    pub(super) fn finish_verified(
        &self,
        state: &mut PagerState<P>,
        number: u32,
        places: u32,
        now: Ns,
    ) {
        let transfer = state.transfers.get(number).expect("a transfer that is verified is in use");
        let slot = state.slots.busy(transfer.object);
        if self.finish_transfer(
            slot,
            transfer,
            number,
            |place, _: &IncomingPage| places & 1 << place != 0,
            now,
        ) {
            state.transfers.finish(number);
        } else {
            self.fail_checksum(state, number);
        }
    }

    /// Installs the pages of a transfer for which `right` returns true, and wakes the faulters.
    /// Returns whether the demanded page is among them.
    #[inline(always)]
    fn finish_transfer(
        &self,
        slot: &mut PagedObject,
        transfer: &mut PageTransfer,
        number: u32,
        right: impl Fn(u32, &IncomingPage) -> bool,
        now: Ns,
    ) -> bool {
        self.install_all(slot, transfer, number, right);
        if transfer.pages[transfer.demand as usize].is_some() {
            return false;
        }
        if transfer.reason == InstallReason::Demand {
            slot.flow.page_ins += 1;
            self.counters.note_page_in(now.saturating_sub(transfer.since));
        }
        slot.object.wake();
        true
    }

    /// Handles a demanded page that does not match its checksum.
    #[cold]
    #[inline(never)]
    fn fail_checksum(&self, state: &mut PagerState<P>, number: u32) {
        let transfer = state.transfers.get(number).expect("a transfer that is answered is in use");
        transfer.failures += self.weight_of_failure(&state.slots, transfer.object);
        self.fail_transfer(state, number, PageLossError::Checksum);
    }

    /// Returns how much a failed read counts. While the disk's ownership is in doubt it counts
    /// nothing, and the page is read again when the ownership is known.
    #[cold]
    fn weight_of_failure(&self, slots: &PagedObjects, id: ObjectId) -> u8 {
        u8::from(!self.disks[store_of(slots, id).store.disk].is_suspended())
    }

    /// Installs every page whose block is `right`. Pages left in the transfer were wrong.
    #[inline(always)]
    fn install_all(
        &self,
        slot: &mut PagedObject,
        transfer: &mut PageTransfer,
        number: u32,
        right: impl Fn(u32, &IncomingPage) -> bool,
    ) {
        let mut all_right = true;
        let near = slot.object.near_at(transfer.leaves);
        for place in transfer.first..transfer.end {
            let Some(coming) =
                transfer.pages[place as usize].take_if(|coming| right(place, coming))
            else {
                bump(&self.counters.checksum_errors, 1);
                slot.bad.note(transfer.page(place));
                all_right = false;
                continue;
            };
            let index = transfer.page(place);
            let mut reason = transfer.reason;
            if place != transfer.demand || reason == InstallReason::ReadAround {
                slot.ahead.note(index);
                reason = InstallReason::ReadAround;
            }
            let page = near.page(index).expect("a window's leaves are in one table");
            page.finish_page_in(TransferIndex(number), coming.frame, coming.crc, reason);
            if reason == InstallReason::Demand {
                // If the page was evicted again already, the access faults again.
                let _ = page.admit(transfer.access);
            }
            slot.usage.fetched = slot.usage.fetched.saturating_add(1);
        }
        if !all_right {
            self.drop_neighbours(&slot.object, transfer, number);
        }
    }

    /// Drops the neighbours that are still in the transfer: they are paged again, and read on
    /// demand.
    #[cold]
    #[inline(never)]
    fn drop_neighbours(&self, object: &MemoryObject, transfer: &mut PageTransfer, number: u32) {
        for place in (transfer.first..transfer.end).filter(|place| *place != transfer.demand) {
            if let Some(coming) = transfer.pages[place as usize].take() {
                let index = transfer.page(place);
                self.drop_page(object, index, coming, number);
            }
        }
        (transfer.first, transfer.end) = (transfer.demand, transfer.demand + 1);
    }

    fn drop_page(
        &self,
        object: &MemoryObject,
        index: PageIndex,
        coming: IncomingPage,
        number: u32,
    ) {
        let page = object.existing(index).expect("a page that is coming in has a table");
        page.abort_page_in(TransferIndex(number), coming.crc);
        self.env.frames.free(coming.frame);
    }

    /// Handles a demanded page that did not arrive: reads it again, alone, or declares it lost.
    #[cold]
    #[inline(never)]
    fn fail_transfer(&self, state: &mut PagerState<P>, number: u32, loss: PageLossError) {
        let transfer = state.transfers.get(number).expect("a failing transfer is in use");
        let id = transfer.object;
        let slot = state.slots.busy(id);
        let object = slot.object.clone();
        let index = transfer.page(transfer.demand);
        slot.record_loss(HistoryKind::ReadFailed, index, loss, transfer.failures);
        self.drop_neighbours(&object, transfer, number);
        let is_demanded = transfer.reason == InstallReason::Demand;
        if is_demanded && transfer.failures < READS {
            state.transfers.requeue(number);
            object.wake();
            self.submit_transfer(state, number);
            return;
        }
        if let Some(coming) = transfer.pages[transfer.demand as usize].take() {
            self.drop_page(&object, index, coming, number);
        }
        // A page that was only read ahead is read again on demand.
        if is_demanded {
            self.lose(state, id, index, loss);
        }
        state.transfers.finish(number);
        object.wake();
    }

    /// Gives up a transfer whose read timed out. Its frames stay out of use until the disk's late
    /// completion.
    #[cold]
    #[inline(never)]
    fn strand_transfer(&self, state: &mut PagerState<P>, tag: CookieFields) {
        let number = tag.slot;
        let PagerState { transfers, slots, late, .. } = &mut *state;
        let transfer = transfers.get(number).expect("a transfer that is answered is in use");
        let (id, index) = (transfer.object, transfer.page(transfer.demand));
        let is_demanded = transfer.reason == InstallReason::Demand;
        let slot = slots.busy(id);
        let mut chain = FrameChain::new();
        for place in transfer.first..transfer.end {
            let Some(coming) = transfer.pages[place as usize].take() else { continue };
            let page = slot
                .object
                .existing(transfer.page(place))
                .expect("a page that is coming in has a table");
            page.abort_page_in(TransferIndex(number), coming.crc);
            self.env.frames.link(&mut chain, coming.frame);
        }
        let disk = slot.store.as_ref().expect("an object with paged pages has a store").store.disk;
        late.keep(disk, tag.cookie(), HeldMemory::Frames(chain));
        let object = slot.object.clone();
        if is_demanded {
            self.lose(state, id, index, PageLossError::Io(DiskError::TimedOut));
        }
        state.transfers.finish(number);
        object.wake();
    }

    /// Hands queued transfers to their disks.
    pub(super) fn resubmit_transfers(&self, state: &mut PagerState<P>) {
        let mut from = 0;
        while state.transfers.any_queued() {
            let Some(number) = state.transfers.next_queued(from) else { return };
            // A full disk does not delay transfers of other disks.
            if self.submit_transfer(state, number) == SubmitOutcome::Yes {
                state.note_move();
            }
            from = number + 1;
        }
    }
}

#[inline]
fn store_of(slots: &PagedObjects, id: ObjectId) -> &StoreState {
    let slot = slots.get(id).expect("an object with work under way stays attached");
    slot.store.as_ref().expect("an object with paged pages has a store")
}

/// Whether a disk took a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SubmitOutcome {
    /// Accepted (or failed at once for good).
    Yes,
    /// Full: submit again later.
    Full,
}
