//! Checks whether pages that were read along have been used.
//!
//! The clock hand finds this out too, but it visits a page only once a round. By then the workload
//! may have moved on, and the credit comes too late. So a few of these pages are sampled in
//! between. Sampling leaves A unchanged.

use super::Pager;
use super::counters::bump;
use super::slots::PagedObject;
use super::state::PagerState;
use crate::addr::PageIndex;
use crate::block::Disk;
use crate::mm::leaf::{LeafState, PageMapping};
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use crate::time::Ns;

/// Time between two samplings.
const INTERVAL_NS: Ns = Ns::from_ms(10);
/// Words of 64 pages that are sampled of an object at a time.
const WORDS: u32 = 16;

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Once an interval: samples some pages of each object that were read along, and releases some
    /// of the frames kept for walks.
    pub(super) fn ask_along(&self, state: &mut PagerState<P>, now: Ns) {
        if now < state.reclaim.ask_at {
            return;
        }
        state.reclaim.ask_at = now + INTERVAL_NS;
        state.reclaim.forget_walks();
        for slot in state.slots.iter_mut().filter(|slot| !slot.ahead.is_empty() && !slot.is_image())
        {
            let used = ask_some(slot);
            bump(&self.counters.read_around_used, used);
        }
    }
}

/// Advances the sampling hand. Returns how many of the pages it passed were used.
fn ask_some(slot: &mut PagedObject) -> u64 {
    let words = slot.pages().div_ceil(64);
    let object = slot.object.clone();
    let mut used = 0;
    for _ in 0..WORDS.min(words) {
        // Skip words without notes.
        let word = slot.ahead.skip(slot.asking_hand);
        slot.asking_hand = if word >= words - 1 { 0 } else { word + 1 };
        let mut bits = slot.ahead.word(word);
        while bits != 0 {
            let index = PageIndex(word * 64 + bits.trailing_zeros());
            bits &= bits - 1;
            let leaf = object.existing(index).map(|page| page.leaf());
            if let Some(LeafState::Present(PageMapping { accessed: true, .. })) = leaf
                && slot.ahead.take(index)
            {
                slot.around.note_used(index.0);
                used += 1;
            }
        }
    }
    used
}
