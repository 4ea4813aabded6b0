//! Copies of a base's pages for children that write: each waits for a flush of its child.
//!
//! ```text
//!   first write ──> a frame, filled ──> leaf: coming in ──> ticket ── passed at once ──> installed
//!                                                             └─ line of the table ── poll ──^
//! ```
//!
//! A child has one vCPU, which waits for its copy. So a few lines are enough, and a child that
//! finds none tries again.

use super::Pager;
use super::state::PagerState;
use super::work::PollTurn;
use crate::addr::PageIndex;
use crate::block::Disk;
use crate::mm::flush::{FlushTicket, Kicks};
use crate::mm::frames::Frame;
use crate::mm::object::{MemoryObject, ObjectId};
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use arrayvec::ArrayVec;

/// Most copies that wait at a time.
const LINES: usize = 64;

/// A copy whose flush has not passed.
#[derive(Debug)]
pub(super) struct PendingCopy {
    pub object: ObjectId,
    pub index: PageIndex,
    pub frame: Frame,
    pub ticket: FlushTicket,
}

/// The copies that wait.
#[derive(Debug)]
pub(super) struct PendingCopies {
    lines: ArrayVec<PendingCopy, LINES>,
    /// CPUs that the next poll makes leave the guest.
    kicks: Kicks,
}

impl PendingCopies {
    pub(super) fn new() -> Self {
        Self { lines: ArrayVec::new(), kicks: Kicks::default() }
    }

    /// Returns whether any copy waits.
    #[inline]
    pub(super) fn any(&self) -> bool {
        !self.lines.is_empty()
    }

    pub(super) fn is_any_of(&self, object: ObjectId) -> bool {
        self.lines.iter().any(|copy| copy.object == object)
    }

    /// Adds a copy, or returns it if no line is free.
    pub(super) fn add(&mut self, copy: PendingCopy, kicks: Kicks) -> Result<(), PendingCopy> {
        self.kicks.0 |= kicks.0;
        self.lines.try_push(copy).map_err(|full| full.element())
    }
}

/// Gives a page its copy: the flush has passed.
pub(super) fn install(object: &MemoryObject, index: PageIndex, frame: Frame) {
    let page = object.existing(index).expect("a page that waits for its copy has a table");
    page.finish_copy(frame);
}

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Installs the copies whose flush has passed, and wakes their children.
    pub(super) fn finish_copies(&self, state: &mut PagerState<P>, turn: &mut PollTurn) {
        if !state.copies.any() {
            return;
        }
        turn.work.kick(core::mem::take(&mut state.copies.kicks));
        let mut n = 0;
        while n < state.copies.lines.len() {
            if state.copies.lines[n].ticket.poll(self.env.quiescent_states).is_none() {
                n += 1;
                continue;
            }
            let PendingCopy { object, index, frame, .. } = state.copies.lines.swap_remove(n);
            let slot = state.slots.busy(object);
            install(&slot.object, index, frame);
            slot.object.wake();
            turn.work.woke_waiters = true;
            state.note_move();
        }
    }
}
