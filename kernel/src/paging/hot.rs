//! The pages that a partition has used last, and their way back after a resume.
//!
//! ```text
//!   suspension   windows from the clock hand backwards:   A set ───────────────> used first
//!                                                         resident, A clear ───> then these
//!   resume       window after window, each behind all demanded pages, while frames are plentiful
//! ```
//!
//! The hand clears A as it goes round. So a page with A set was used since the hand's last visit,
//! and among the others those just behind the hand were used last: the hand has seen them set a
//! moment ago. Pages ahead of the hand have waited for a whole round.

use super::Pager;
use super::along::AheadLimits;
use super::counters::bump;
use super::transfer::WINDOW;
use crate::addr::PageIndex;
use crate::block::Disk;
use crate::mm::leaf::{LeafState, PageMapping};
use crate::mm::object::MemoryObject;
use crate::mm::page::InstallReason;
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use crate::time::Ns;
use crate::virt::PageAccess;
use alloc::sync::Arc;
use core::ops::Range;

/// Pages of a window.
pub const HOT_WINDOW: u32 = WINDOW;

/// The resident pages of a window; bit `n` is its `n`-th page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WindowUse {
    /// Used since the clock hand was there.
    pub used: u16,
    /// Not used since.
    pub idle: u16,
    /// To be written before they can leave.
    pub dirty: u16,
}

/// How a prefetch has ended, or why it has not begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrefetchState {
    /// A request was started, or there was nothing to read.
    Begun,
    /// Other pages are on their way: try again.
    Busy,
    /// Frames are not plentiful, or the object is not a running partition's any more.
    Over,
}

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Returns the window of the page that an object's clock hand visits next.
    pub fn hand_window(&self, object: &MemoryObject) -> u32 {
        self.locked().slots.get(object.id()).map_or(0, |slot| slot.hand / WINDOW)
    }

    /// Looks at the windows of a range, ascending, and calls `f` for those with resident pages.
    /// Only for an object whose vCPU has stopped.
    pub fn survey(
        &self,
        object: &MemoryObject,
        windows: Range<u32>,
        mut f: impl FnMut(u32, WindowUse),
    ) {
        let pages = object.layout().pages();
        let first = pages.min(windows.start.saturating_mul(WINDOW));
        let end = pages.min(windows.end.saturating_mul(WINDOW));
        let (mut window, mut found) = (windows.start, WindowUse::default());
        for page in object.pages(first..end) {
            let LeafState::Present(PageMapping { accessed, dirty, hfn, .. }) = page.leaf() else {
                continue;
            };
            let index = page.index().0;
            if index / WINDOW != window {
                if found != WindowUse::default() {
                    f(window, found);
                }
                (window, found) = (index / WINDOW, WindowUse::default());
            }
            let bit = 1 << (index % WINDOW);
            *(if accessed { &mut found.used } else { &mut found.idle }) |= bit;
            // Pages of zeros leave without a write.
            if dirty && !self.env.memory.is_zero(hfn) {
                found.dirty |= bit;
            }
        }
        if found != WindowUse::default() {
            f(window, found);
        }
    }

    /// Starts to read the first run of paged pages among the pages of `left`, and takes them off
    /// `left`. At most one such request is in flight, and none begins while pages are demanded.
    pub fn prefetch(
        &self,
        object: &Arc<MemoryObject>,
        window: u32,
        left: &mut u16,
        now: Ns,
    ) -> PrefetchState {
        let mut state = self.locked();
        let state = &mut *state;
        let id = object.id();
        let promised = state.credits.total();
        let free = self.env.frames.free_count().saturating_sub(promised);
        let slot = state.slots.get(id).filter(|slot| Arc::ptr_eq(&slot.object, object));
        let goes_on = slot.is_some_and(|slot| {
            !slot.closing && !slot.is_image() && slot.guard.is_none() && !slot.is_dead()
        });
        if !goes_on || state.reclaim.active || !self.marks.is_plenty(free.saturating_sub(WINDOW)) {
            return PrefetchState::Over;
        }
        if state.transfers.in_use() > 0 || state.batches.any() {
            return PrefetchState::Busy;
        }
        let (Some(store), Some(number)) =
            (slot.and_then(|slot| slot.store), state.transfers.vacant_for_ahead())
        else {
            return PrefetchState::Over;
        };
        let room = AheadLimits { pages: store.max_pages as u32, promised };
        while *left != 0 {
            let place = left.trailing_zeros();
            *left &= *left - 1;
            let from = PageIndex(window * WINDOW + place);
            let found = if from.0 < object.layout().pages() { object.locate(from) } else { None };
            let Some((near, page)) = found else { continue };
            let Some(coming) = self.coming_unasked(page, number) else { continue };
            let at = (id, from, near.at());
            let transfer = state.transfers.start(number, at, PageAccess::Read, coming, now);
            transfer.reason = InstallReason::ReadAround;
            while transfer.end < WINDOW
                && *left >> transfer.end & 1 != 0
                && transfer.end - transfer.first < room.pages
                && let Some(next) = near.page(transfer.page(transfer.end))
                && let Some(coming) = self.coming_unasked(next, number)
            {
                transfer.pages[transfer.end as usize] = Some(coming);
                *left &= !(1 << transfer.end);
                transfer.end += 1;
            }
            bump(&self.counters.read_around, u64::from(transfer.end - transfer.first));
            let answer = self.hand_over(transfer, number, &store, &mut state.segments);
            self.note_handed_over(state, number, answer);
            return PrefetchState::Begun;
        }
        PrefetchState::Begun
    }
}
