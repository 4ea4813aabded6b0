//! Cleaning: old dirty pages are written while the disk is idle, so that they can be evicted later
//! without a write.
//!
//! This is the second write-out order of the design: the page stays mapped. D is cleared, and the
//! flush makes a later write set it again. The frame is checksummed and written, and *has block* is
//! committed only if D is still clear.
//!
//! A page is old if the clock hand has cleared its A bit and the guest has not touched it since. So
//! cleaning begins only when reclaim has been at work. Only the stretch just ahead of the hand is
//! cleaned: its pages have had a whole round to be touched again, and they are evicted next. A page
//! that the hand has just passed may soon be written again.
//!
//! ```text
//!   pages:  0 ....... hand ───── reach ─────> ................ n
//!                     evicted next, cleaned    │ aged at the hand's next visit
//!                     └─ cleaning hand ──────> ┘ waits here for the clock hand
//! ```

use super::Pager;
use super::batch::{Batch, BatchPurpose};
use super::slots::PagedObject;
use super::state::PagerState;
use super::work::{PollBudget, PollTurn};
use crate::block::Disk;
use crate::mm::leaf::{LeafState, PageMapping};
use crate::mm::object::ObjectId;
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use crate::time::Ns;
use core::ops::RangeInclusive;

/// Most pages in one batch. It bounds the delay of a fault that queues behind the batch.
const PAGES: usize = 32;
/// Most pages visited in one run of the cleaner.
const VISITS: u32 = 512;
/// Length of the stretch that is cleaned ahead of the clock hand: this fraction of the object's
/// pages (1/32), within the bounds. With 1/16 a Zipf trace on a disk of 100 MiB/s wrote a tenth
/// more: pages that the guest wrote again before the clock hand reached them.
const REACH_PART: u32 = 32;
const REACH: RangeInclusive<u32> = 64..=4096;
/// Time between two runs of the cleaner.
const PAUSE_NS: Ns = Ns::from_ms(5);

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Starts one batch of cleaning, if the disks are idle and frames are getting scarce.
    pub(super) fn clean(&self, state: &mut PagerState<P>, turn: &mut PollTurn) {
        let now = turn.now;
        let scarce = self.marks.is_scarce(self.env.frames.free_count());
        let idle = !state.batches.any() && state.transfers.in_use() == 0;
        if !scarce || !idle || state.reclaim.active || now < state.reclaim.clean_at {
            return;
        }
        state.reclaim.clean_at = now + PAUSE_NS;
        let writes =
            |slot: &&PagedObject| !slot.closing && !slot.is_image() && slot.writable(now).is_some();
        let most = state
            .slots
            .iter()
            .filter(writes)
            .max_by_key(|slot| self.env.frames.owned_by(slot.object.id()));
        let Some(id) = most.map(|slot| slot.object.id()) else { return };
        self.clean_some(state, id, turn);
    }

    fn clean_some(&self, state: &mut PagerState<P>, id: ObjectId, turn: &mut PollTurn) {
        let Some(number) = state.vacant_batch_for(id) else { return };
        let PagerState { batches, slots, .. } = state;
        let slot = slots.busy(id);
        pick(slot, batches.get(number), &mut turn.budget);
        let object = slot.object.clone();
        turn.work.kick(self.launch(state, number, &object, BatchPurpose::Clean, turn.me));
    }
}

/// Fills a batch with old dirty pages, starting at the cleaning hand.
fn pick(slot: &mut PagedObject, batch: &mut Batch, budget: &mut PollBudget) {
    let pages = slot.pages();
    let (start, length) = stretch(slot.hand, slot.cleaning_hand, pages);
    let mut at = pages.min(start.saturating_add(length.min(VISITS).min(budget.visits)));
    budget.visits -= at - start;
    for page in slot.object.pages(start..at) {
        let LeafState::Present(PageMapping { accessed: false, dirty: true, .. }) = page.leaf()
        else {
            continue;
        };
        // Refused while the page is claimed or pinned; a later round takes it.
        let _ = batch.lines.clean(page);
        if batch.len() >= PAGES {
            at = page.index().0 + 1;
            break;
        }
    }
    slot.cleaning_hand = if at >= pages { 0 } else { at };
}

/// Returns where to look next, and how many pages remain from there to the end of the stretch ahead
/// of the clock hand.
fn stretch(hand: u32, cleaning_hand: u32, pages: u32) -> (u32, u32) {
    let reach = (pages / REACH_PART).clamp(*REACH.start(), *REACH.end()).min(pages);
    let ahead =
        ((u64::from(cleaning_hand) + u64::from(pages) - u64::from(hand)) % u64::from(pages)) as u32;
    match ahead {
        _ if ahead < reach => (cleaning_hand, reach - ahead),
        // The cleaning hand is at the end of the stretch and waits for the clock hand.
        _ if ahead < reach.saturating_add(VISITS) && reach < pages => (cleaning_hand, 0),
        // The clock hand has overtaken the cleaning hand.
        _ => (hand, reach),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stretch_begins_at_the_clock_hand_and_ends_a_little_ahead() {
        assert_eq!(stretch(0, 0, 32768), (0, 1024));
        assert_eq!(stretch(1000, 1500, 32768), (1500, 524));
        assert_eq!(stretch(1000, 2024, 32768), (2024, 0), "at its end");
        assert_eq!(stretch(3000, 1500, 32768), (3000, 1024), "overtaken");
        assert_eq!(stretch(32_000, 100, 32768), (100, 156), "over the end of the object");
    }

    #[test]
    fn a_small_object_is_a_stretch_as_a_whole() {
        for hand in 0..40 {
            for cleaning in 0..40 {
                let (start, length) = stretch(hand, cleaning, 40);
                assert!(start == cleaning && (1..=40).contains(&length), "{hand} {cleaning}");
            }
        }
    }
}
