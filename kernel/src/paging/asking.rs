//! Asking the pages that were read along whether they were used.
//!
//! The clock hand would tell, but it comes by only once a round. Credit that is earned late is of no use to a workload that has moved on,
//! so a few of these pages are looked at in between. The look leaves A as it is.

use super::Pager;
use super::counters::bump;
use super::slots::Slot;
use super::state::State;
use crate::addr::PageIndex;
use crate::block::Disk;
use crate::mm::leaf::{Leaf, Mapping};
use crate::mm::phys::FrameMemory;
use crate::pool::Policy;

/// Time between two looks.
const INTERVAL_NS: u64 = 10_000_000;
/// Words of 64 pages that one look takes of an object.
const WORDS: u32 = 16;

impl<M: FrameMemory, D: Disk, P: Policy> Pager<'_, M, D, P> {
    /// Looks at some pages of each object that were read along, and lets go of some frames kept for walks, once an interval.
    pub(super) fn ask_along(&self, state: &mut State<P>, now: u64) {
        if now < state.reclaim.ask_at {
            return;
        }
        state.reclaim.ask_at = now + INTERVAL_NS;
        state.reclaim.forget_walks();
        for slot in state.slots.iter_mut().filter(|slot| !slot.ahead.is_empty() && !slot.is_image()) {
            let used = ask_some(slot);
            bump(&self.counters.read_around_used, used);
        }
    }
}

/// Moves the asking hand on; returns how many of the pages that it has passed were used.
fn ask_some(slot: &mut Slot) -> u64 {
    let words = slot.pages().div_ceil(64);
    let object = slot.object.clone();
    let mut used = 0;
    for _ in 0..WORDS.min(words) {
        // Where nothing was read along there is nothing to ask.
        let word = slot.ahead.skip(slot.asking_hand);
        slot.asking_hand = if word >= words - 1 { 0 } else { word + 1 };
        let mut bits = slot.ahead.word(word);
        while bits != 0 {
            let index = PageIndex(word * 64 + bits.trailing_zeros());
            bits &= bits - 1;
            let leaf = object.existing(index).map(|page| page.leaf());
            if let Some(Leaf::Present(Mapping { accessed: true, .. })) = leaf
                && slot.ahead.take(index)
            {
                slot.around.note_used(index.0);
                used += 1;
            }
        }
    }
    used
}
