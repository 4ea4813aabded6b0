//! Cleaning: old dirty pages are written while the disk has nothing else to do, so that they can leave without a write later.
//!
//! The second write-out order of the design: the page stays mapped. D is cleared, the flush makes a later write set it again, the frame is
//! checksummed and written, and *has block* is committed only if D is still clear.
//!
//! A page is old if the clock hand has cleared its A bit and nobody has touched it since, so cleaning begins only
//! when reclaim has been at work; before that, writing would be for nothing.

use super::Pager;
use super::batch::{Batch, Purpose};
use super::poll::{Budget, Work};
use super::slots::Slot;
use super::state::State;
use crate::arch::percpu::CpuId;
use crate::block::Disk;
use crate::mm::leaf::{Leaf, Mapping};
use crate::mm::object::ObjectId;
use crate::mm::phys::FrameMemory;
use crate::pool::Policy;

/// Most pages in one batch: a fault that needs the disk waits behind no more than this.
const PAGES: usize = 32;
/// Pages looked at in one go.
const VISITS: u32 = 512;
/// Time between two goes.
const PAUSE_NS: u64 = 5_000_000;

impl<M: FrameMemory, D: Disk, P: Policy> Pager<'_, M, D, P> {
    /// Starts one batch of cleaning, if the disks idle and frames are getting scarce.
    pub(super) fn clean(&self, state: &mut State<P>, me: CpuId, now: u64, budget: &mut Budget, work: &mut Work) {
        let scarce = self.marks.is_scarce(self.ground.frames.free_count());
        let idle = !state.batches.any() && state.transfers.in_use() == 0;
        if !scarce || !idle || state.reclaim.active || now < state.reclaim.clean_at {
            return;
        }
        state.reclaim.clean_at = now + PAUSE_NS;
        let writes = |slot: &&Slot| !slot.closing && !slot.is_image() && slot.writable(now).is_some();
        let most = state.slots.iter().filter(writes).max_by_key(|slot| self.ground.frames.owned_by(slot.object.id()));
        let Some(id) = most.map(|slot| slot.object.id()) else { return };
        self.clean_some(state, id, me, budget, work);
    }

    fn clean_some(&self, state: &mut State<P>, id: ObjectId, me: CpuId, budget: &mut Budget, work: &mut Work) {
        let Some(number) = state.batches.vacant_for(id) else { return };
        let State { batches, slots, .. } = state;
        let slot = slots.busy(id);
        pick(slot, batches.get(number), budget);
        let object = slot.object.clone();
        work.kick(self.launch(state, number, &object, Purpose::Clean, me));
    }
}

/// Fills a batch with old dirty pages from the cleaning hand on.
fn pick(slot: &mut Slot, batch: &mut Batch, budget: &mut Budget) {
    let (start, pages) = (slot.cleaning_hand, slot.pages());
    let mut at = pages.min(start.saturating_add(VISITS.min(budget.visits)));
    budget.visits -= at - start;
    for page in slot.object.pages(start..at) {
        let Leaf::Present(Mapping { accessed: false, dirty: true, .. }) = page.leaf() else { continue };
        // One that is claimed or pinned has its turn another time.
        let _ = batch.lines.clean(page);
        if batch.len() >= PAGES {
            at = page.index().0 + 1;
            break;
        }
    }
    slot.cleaning_hand = if at >= pages { 0 } else { at };
}
