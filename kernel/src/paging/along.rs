//! Reads pages that the guest has not asked for: neighbours of a demanded page, and windows ahead
//! of a walk.
//!
//! [`ReadAround`](super::around::ReadAround) decides how far. This module finds the paged pages
//! there and gives them frames while enough are free.

use super::Pager;
use super::around::{ReadReach, WalkDirection};
use super::counters::bump;
use super::state::PagerState;
use super::transfer::{IncomingPage, PageTransfer, WINDOW};
use crate::addr::PageIndex;
use crate::block::Disk;
use crate::mm::leaf::LeafState;
use crate::mm::object::{LeafTablePages, MemoryObject};
use crate::mm::page::{InstallReason, Page};
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use crate::time::Ns;
use crate::virt::PageAccess;

/// Limits for pages that the guest has not asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct AheadLimits {
    /// Most pages in a request.
    pub pages: u32,
    /// Free frames that are promised to other partitions.
    pub promised: u32,
}

/// A request to read ahead of a walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct AheadRequest {
    /// The page of the fault.
    pub page: PageIndex,
    pub heading: WalkDirection,
    /// Number of windows to read beyond the window of the fault.
    pub windows: u32,
    pub room: AheadLimits,
    pub now: Ns,
}

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Extends a transfer over paged neighbours, upwards first, as far as `reach` allows and while
    /// frames are plentiful. Returns whether the transfer has grown.
    #[inline(always)]
    pub(super) fn grow(
        &self,
        near: &LeafTablePages<'_>,
        transfer: &mut PageTransfer,
        number: u32,
        reach: ReadReach,
        room: AheadLimits,
    ) -> bool {
        let (up, down, most) = match reach {
            ReadReach::Around(0) => return false,
            ReadReach::Around(pages) => (true, true, pages + 1),
            ReadReach::Along { heading, .. } => {
                (heading == WalkDirection::Up, heading == WalkDirection::Down, WINDOW)
            }
        };
        let neighbour = |t: &PageTransfer, place| near.page(t.page(place)).filter(is_paged);
        let fits = |t: &PageTransfer| {
            t.end - t.first < most.min(room.pages) && self.may_spend(reach, room)
        };
        while up
            && transfer.end < WINDOW
            && let Some(page) = neighbour(transfer, transfer.end)
            && fits(transfer)
            && self.bring_along(page, transfer, number, transfer.end)
        {
            transfer.end += 1;
        }
        while down
            && transfer.first > 0
            && let Some(page) = neighbour(transfer, transfer.first - 1)
            && fits(transfer)
            && self.bring_along(page, transfer, number, transfer.first - 1)
        {
            transfer.first -= 1;
        }
        let has_grown = transfer.end.wrapping_sub(transfer.first) > 1;
        if has_grown {
            bump(&self.counters.read_around, u64::from(transfer.end - transfer.first - 1));
        }
        has_grown
    }

    /// Returns whether enough frames are free for a page that the guest has not asked for.
    #[inline]
    fn may_spend(&self, reach: ReadReach, room: AheadLimits) -> bool {
        let free = self.env.frames.free_count().saturating_sub(room.promised);
        match reach {
            ReadReach::Around(_) => self.marks.is_plenty(free),
            ReadReach::Along { .. } => self.marks.is_enough_to_walk(free),
        }
    }

    fn bring_along(
        &self,
        page: Page<'_>,
        transfer: &mut PageTransfer,
        number: u32,
        place: u32,
    ) -> bool {
        let Some(coming) = self.coming_unasked(page, number) else { return false };
        transfer.pages[place as usize] = Some(coming);
        true
    }

    /// Starts the page-in of a page that the guest has not asked for.
    pub(super) fn coming_unasked(&self, page: Page<'_>, number: u32) -> Option<IncomingPage> {
        let frame = self.env.frames.alloc()?;
        self.coming(page, number, frame).map_err(|frame| self.env.frames.free(frame)).ok()
    }

    /// Starts to read the windows ahead of a walk, so that disk and guest work in parallel.
    #[inline(never)]
    pub(super) fn read_ahead(
        &self,
        state: &mut PagerState<P>,
        object: &MemoryObject,
        ahead: AheadRequest,
    ) {
        let window = ahead.page.0 / WINDOW;
        for n in 1..=ahead.windows {
            let next = match ahead.heading {
                WalkDirection::Up => window.checked_add(n),
                WalkDirection::Down => window.checked_sub(n),
            };
            let Some(base) = next.and_then(|window| window.checked_mul(WINDOW)) else { return };
            let Some(number) = state.transfers.vacant_for_ahead() else { return };
            let near_end = match ahead.heading {
                WalkDirection::Up => base,
                WalkDirection::Down => base + WINDOW - 1,
            };
            self.read_window(state, object, PageIndex(near_end), number, ahead);
        }
    }

    /// Starts to read a window from its near end, if the page there is paged.
    fn read_window(
        &self,
        state: &mut PagerState<P>,
        object: &MemoryObject,
        from: PageIndex,
        number: u32,
        ahead: AheadRequest,
    ) {
        if from.0 >= object.layout().pages() {
            return;
        }
        let Some((near, page)) = object.locate(from).filter(|(_, page)| is_paged(page)) else {
            return;
        };
        let reach = ReadReach::Along { heading: ahead.heading, windows: 0 };
        if !self.may_spend(reach, ahead.room) {
            state.reclaim.want_for_walks(self.env.frames.total());
            return;
        }
        let Some(coming) = self.coming_unasked(page, number) else { return };
        let PagerState { transfers, slots, segments, .. } = &mut *state;
        let slot = slots.busy(object.id());
        let transfer = transfers.start(
            number,
            (object.id(), from, near.at()),
            PageAccess::Read,
            coming,
            ahead.now,
        );
        transfer.reason = InstallReason::ReadAround;
        bump(&self.counters.read_around, 1);
        let _ = self.grow(&near, transfer, number, reach, ahead.room);
        slot.around.note_along(reach, transfer.base + transfer.first, transfer.base + transfer.end);
        let store = slot.store.as_ref().expect("an object with paged pages has a store");
        let answer = self.hand_over(transfer, number, store, segments);
        self.note_handed_over(state, number, answer);
    }
}

#[inline(always)]
fn is_paged(page: &Page<'_>) -> bool {
    matches!(page.leaf(), LeafState::Paged(_))
}
