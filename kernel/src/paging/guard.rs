//! What an object gets whose pages cannot be written: no more frames than its share of the pool, so that others keep theirs.
//!
//! ```text
//!   a write fails, the disk is dead ──> Failing ──┐            ┌ below its share: frames as ever
//!   the disk has answered nothing ────> Stuck ────┤ guarded ───┤ at its share: its faulters wait
//!   its space is being prepared ──────> Expected ─┤            └ Failing, and waited for PATIENCE_NS: Loss::Unwritable
//!   a write goes well, it has a store ────────────┘ free
//! ```
//!
//! The share is by logical size, as the published rules have it: of two equals each gets half. What an object has above its share
//! when its disk fails it keeps, as long as nobody starves for it.

use super::Pager;
use super::fault::Loss;
use super::slots::Slot;
use super::state::{Notice, State};
use crate::block::{Disk, DiskError};
use crate::mm::object::ObjectId;
use crate::mm::phys::FrameMemory;
use crate::pool::Policy;
use core::sync::atomic::Ordering::{Relaxed, Release};

/// How long an object waits for its disk, at its share, before its partition crashes: some twenty tries of a write.
pub(super) const PATIENCE_NS: u64 = 2_000_000_000;

/// How long a disk may answer no write before its objects are held to their shares. A slow disk does them no harm by that.
const SILENT_NS: u64 = 20_000_000;

/// Why an object's pages cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Guard {
    /// The last write has failed so.
    Failing(DiskError),
    /// The disk has answered nothing for a while.
    Stuck,
    /// It has no store yet, and one is being prepared.
    Expected,
}

impl<M: FrameMemory, D: Disk, P: Policy> Pager<'_, M, D, P> {
    /// Lets the next fault look before it takes a frame, or not.
    pub(super) fn set_gate(&self, state: &mut State<P>) {
        self.gate.store(state.credits.total() > 0 || state.guarded > 0, Release);
    }

    /// Says of an attached object whether a store is being prepared for it, or puts that right. Until the object has it
    /// ([`Pager::give_store`]) it gets no more frames than its share, and where it starves it waits.
    pub fn expect_store(&self, id: ObjectId, is_expected: bool) {
        let mut state = self.locked();
        let Some(slot) = state.slots.get_mut(id) else { return };
        let before = slot.guard;
        if matches!(before, None | Some(Guard::Expected)) {
            slot.guard = (is_expected && slot.store.is_none()).then_some(Guard::Expected);
            if slot.guard != before {
                self.count_guarded(&mut state);
            }
        }
    }

    /// Counts the guarded objects again.
    pub(super) fn count_guarded(&self, state: &mut State<P>) {
        let guarded = state.slots.iter().filter(|slot| slot.guard.is_some() && !slot.is_image()).count();
        state.guarded = guarded as u32;
        self.set_gate(state);
    }

    /// Returns whether an object gets no frame now, because its pages cannot be written and it has its share.
    pub(super) fn is_blocked(&self, state: &State<P>, id: ObjectId) -> bool {
        let Some(slot) = state.slots.get(id) else { return false };
        slot.guard.is_some() && !slot.is_image() && self.ground.frames.owned_by(id) >= self.share_of(state, slot)
    }

    /// Returns the part of the pool that is an object's by its logical size, and at least what it needs to go on.
    fn share_of(&self, state: &State<P>, slot: &Slot) -> u32 {
        let logical = |slot: &Slot| u64::from(slot.pages());
        let all: u64 = state.slots.iter().filter(|other| !other.is_image() && !other.closing).map(logical).sum();
        let share = u64::from(self.ground.frames.total()) * logical(slot) / all.max(1);
        (share as u32).max(slot.terms.minimum)
    }

    /// Returns why an object's faulter need not wait for a frame: its disk has failed for too long.
    pub(super) fn loss_by_guard(&self, state: &mut State<P>, id: ObjectId) -> Option<Loss> {
        if state.guarded == 0 {
            return None;
        }
        let is_blocked = self.is_blocked(state, id);
        let now = self.clock.load(Relaxed);
        let slot = state.slots.get_mut(id)?;
        if !is_blocked {
            slot.blocked_since = None;
            return None;
        }
        let since = *slot.blocked_since.get_or_insert(now);
        match slot.guard {
            Some(Guard::Failing(error)) if now.saturating_sub(since) >= PATIENCE_NS => Some(Loss::Unwritable(error)),
            _ => None,
        }
    }

    /// Returns whether it is worth while to wake an object's faulters: a frame is theirs, or their wait is over.
    pub(super) fn may_go_on(&self, state: &State<P>, id: ObjectId, now: u64) -> bool {
        if state.guarded == 0 || !self.is_blocked(state, id) {
            return true;
        }
        let is_over = |since: u64| now.saturating_sub(since) >= PATIENCE_NS;
        state.slots.get(id).and_then(|slot| slot.blocked_since).is_some_and(is_over)
    }

    /// Notices objects whose disk has answered none of their writes for a while.
    pub(super) fn watch_writes(&self, state: &mut State<P>, now: u64) {
        if !state.batches.any() && state.guarded == 0 {
            return;
        }
        let State { batches, slots, .. } = &mut *state;
        let mut changed = false;
        for batch in batches.iter().filter(|batch| batch.is_silent_for(SILENT_NS, now)) {
            let slot = batch.object.and_then(|id| slots.get_mut(id));
            if let Some(slot) = slot.filter(|slot| slot.guard.is_none()) {
                slot.guard = Some(Guard::Stuck);
                changed = true;
            }
        }
        if changed || state.guarded > 0 {
            self.count_guarded(state);
        }
    }

    /// Returns whether frames will come, or a time-out decides on them: an object whose disk does not answer, or whose store is being
    /// prepared, starves itself or keeps more than its share; or a dump image on such a disk keeps frames.
    pub(super) fn frames_may_come(&self, state: &State<P>) -> bool {
        let hungry = self.hungry.load(Relaxed);
        let starves = |slot: &Slot| hungry & super::hungry_bit(slot.object.id()) != 0;
        let holds = |slot: &Slot| match slot.is_image() {
            true => self.ground.frames.owned_by(slot.object.id()) > 0,
            false => starves(slot) || self.is_blocked(state, slot.object.id()),
        };
        state.slots.iter().any(|slot| matches!(slot.guard, Some(Guard::Stuck | Guard::Expected)) && holds(slot))
    }

    /// Somebody starves: has a partition crash that keeps more than its share because its disk fails; returns whether there is one.
    pub(super) fn end_unwritable(&self, state: &mut State<P>) -> bool {
        let holds_too_much = |slot: &&Slot| {
            matches!(slot.guard, Some(Guard::Failing(_))) && !slot.closing && self.is_blocked(state, slot.object.id())
        };
        let Some(slot) = state.slots.iter().find(holds_too_much) else { return false };
        let (object, Some(Guard::Failing(error))) = (slot.object.id(), slot.guard) else { return false };
        state.notices.push(Notice::Unwritable { object, error });
        true
    }
}
