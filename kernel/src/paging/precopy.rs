//! Pre-copy: the dirty pages of a running partition are written before it is suspended, so that
//! little is left to write when its vCPU has stopped.
//!
//! ```text
//!   pass 1   all dirty pages    ██████████████  written while the guest runs
//!   pass 2   dirtied meanwhile  ██████
//!   pass 3                      ██              few enough, or no fewer than before: stop the guest
//! ```
//!
//! The pages are cleaned in place like those of the cleaner: they stay mapped, and a page that is
//! written meanwhile stays dirty. Pages of zeros are left alone, because they leave without a write
//! when the guest has stopped.

use super::Pager;
use super::batch::{Batch, BatchPurpose};
use super::slots::PagedObject;
use super::work::{PollBudget, PollOutcome, PollTurn};
use crate::arch::percpu::CpuId;
use crate::block::Disk;
use crate::mm::leaf::{LeafState, PageMapping};
use crate::mm::object::MemoryObject;
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use alloc::sync::Arc;
use core::ops::ControlFlow;
use core::sync::atomic::Ordering::Relaxed;

/// Most pages in one batch. It bounds the delay of a fault that queues behind the batch.
const PAGES: usize = 64;
/// Most batches in flight: the disk works on one while the next one is scanned.
const BATCHES: usize = 2;

/// One pass over the pages of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PrecopyPass {
    /// The page to visit next.
    next: u32,
    /// Dirty pages that were found and are written.
    pub found: u32,
}

/// How a pass stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrecopyState {
    /// There is more to visit, or writes are in flight.
    Busy,
    /// All pages that were found are written.
    PassOver,
    /// The object is not a running partition's any more, or its disk takes no pages.
    Refused,
}

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Visits at most `visits` pages of a live object, and starts the writes that fit.
    pub fn precopy(
        &self,
        object: &Arc<MemoryObject>,
        pass: &mut PrecopyPass,
        me: CpuId,
        visits: u32,
    ) -> (PrecopyState, PollOutcome) {
        let mut turn = PollTurn::begin(me, self.clock.load(Relaxed));
        turn.budget.visits = visits;
        let mut state = self.locked();
        let state = &mut *state;
        let id = object.id();
        while turn.budget.visits > 0 {
            let in_flight =
                state.batches.of(id).filter(|batch| batch.purpose == BatchPurpose::Clean).count();
            let Some(slot) = state.slots.get_mut(id) else {
                return (PrecopyState::Refused, turn.work);
            };
            let is_live = Arc::ptr_eq(&slot.object, object) && !slot.is_image() && !slot.closing;
            if !is_live || slot.writable(turn.now).is_none() {
                return (PrecopyState::Refused, turn.work);
            }
            if pass.next >= slot.pages() {
                let is_over = in_flight == 0;
                let is = if is_over { PrecopyState::PassOver } else { PrecopyState::Busy };
                return (is, turn.work);
            }
            if in_flight >= BATCHES {
                break;
            }
            let Some(number) = state.vacant_batch_for(id) else { break };
            let batch = state.batches.get(number);
            self.pick_dirty(state.slots.busy(id), batch, pass, &mut turn.budget);
            turn.work.kick(self.launch(state, number, object, BatchPurpose::Clean, me));
        }
        let wants = state.batches.wants();
        turn.work.poll_again |= wants.a_cpu || wants.a_flush;
        (PrecopyState::Busy, turn.work)
    }

    fn pick_dirty(
        &self,
        slot: &PagedObject,
        batch: &mut Batch,
        pass: &mut PrecopyPass,
        budget: &mut PollBudget,
    ) {
        let start = slot.object.skip_untouched(pass.next);
        let end = slot.pages().min(start.saturating_add(budget.visits));
        let stopped = slot.object.pages(start..end).visit(|page| {
            if batch.lines.len() >= PAGES {
                return ControlFlow::Break(page.index().0);
            }
            if let LeafState::Present(PageMapping { dirty: true, hfn, .. }) = page.leaf()
                && !self.env.memory.is_zero(hfn)
                && batch.lines.clean(page).is_ok()
            {
                pass.found += 1;
            }
            ControlFlow::Continue(())
        });
        let at = stopped.break_value().unwrap_or(end);
        budget.visits = budget.visits.saturating_sub((at - start).max(1));
        pass.next = at;
    }
}
