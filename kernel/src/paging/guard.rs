//! Limits an object whose pages cannot be written to its share of the pool, so that other objects
//! keep theirs.
//!
//! ```text
//!   a write fails, disk dead ──> Failing ──┐         ┌ below its share: no limit
//!   the disk is silent, refuses ─> Stuck ──┤ guarded ┤ at its share: faulters wait
//!   its space is prepared ─────> Expected ─┤         └ Failing for PATIENCE_NS: PageLossError::Unwritable
//!   a write succeeds, a store is given ────┘ free
//! ```
//!
//! The share is proportional to logical size: of two equal objects each gets half. An object that
//! holds more than its share when its disk fails keeps it until another object starves for frames.

use super::Pager;
use super::loss::PageLossError;
use super::slots::GuardCause;
use super::slots::PagedObject;
use super::state::{PagerNotice, PagerState};
use crate::block::Disk;
use crate::log::history::HistoryKind;
use crate::mm::object::ObjectId;
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use crate::time::Ns;
use core::sync::atomic::Ordering::{Relaxed, Release};

/// How long an object at its share waits for a failing disk before its partition crashes: about
/// twenty write attempts.
pub(super) const PATIENCE_NS: Ns = Ns::from_secs(2);

/// Silence of a disk with writes in flight after which its objects are limited to their shares. A
/// disk that is merely slow loses nothing by that.
const SILENT_NS: Ns = Ns::from_ms(20);

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Updates the gate: whether a fault has to look under the lock before it takes a frame.
    pub(super) fn set_gate(&self, state: &mut PagerState<P>) {
        self.gate.store(state.credits.total() > 0 || state.guarded > 0, Release);
    }

    /// Sets whether a store is being prepared for an attached object. Until it has the store
    /// ([`Pager::give_store`]) the object gets no more frames than its share, and its faulters wait
    /// instead of crashing.
    pub fn expect_store(&self, id: ObjectId, is_expected: bool) {
        let mut state = self.locked();
        let Some(slot) = state.slots.get_mut(id) else { return };
        let before = slot.guard;
        if matches!(before, None | Some(GuardCause::Expected)) {
            slot.guard = (is_expected && slot.store.is_none()).then_some(GuardCause::Expected);
            if slot.guard != before {
                self.count_guarded(&mut state);
            }
        }
    }

    /// Recounts the guarded objects.
    pub(super) fn count_guarded(&self, state: &mut PagerState<P>) {
        let guarded =
            state.slots.iter().filter(|slot| slot.guard.is_some() && !slot.is_image()).count();
        state.guarded = guarded as u32;
        self.set_gate(state);
    }

    /// Returns whether an object gets no frame now, because its pages cannot be written and it
    /// holds its share.
    pub(super) fn is_blocked(&self, state: &PagerState<P>, id: ObjectId) -> bool {
        let Some(slot) = state.slots.get(id) else { return false };
        slot.guard.is_some()
            && !slot.is_image()
            && self.env.frames.owned_by(id) >= self.share_of(state, slot)
    }

    /// Returns an object's share of the pool by logical size, and at least its minimum.
    fn share_of(&self, state: &PagerState<P>, slot: &PagedObject) -> u32 {
        let logical = |slot: &PagedObject| u64::from(slot.pages());
        let all: u64 = state
            .slots
            .iter()
            .filter(|other| !other.is_image() && !other.closing)
            .map(logical)
            .sum();
        let share = u64::from(self.env.frames.total()) * logical(slot) / all.max(1);
        (share as u32).max(slot.terms.minimum)
    }

    /// Returns the reason to crash an object's faulter instead of letting it wait for a frame: its
    /// disk has failed for too long.
    pub(super) fn loss_by_guard(
        &self,
        state: &mut PagerState<P>,
        id: ObjectId,
    ) -> Option<PageLossError> {
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
            Some(GuardCause::Failing(error)) if now.saturating_sub(since) >= PATIENCE_NS => {
                Some(PageLossError::Unwritable(error))
            }
            _ => None,
        }
    }

    /// Returns whether waking an object's faulters is useful: it may get a frame, or its wait has
    /// timed out.
    pub(super) fn may_go_on(&self, state: &PagerState<P>, id: ObjectId, now: Ns) -> bool {
        if state.guarded == 0 || !self.is_blocked(state, id) {
            return true;
        }
        let is_over = |since: Ns| now.saturating_sub(since) >= PATIENCE_NS;
        state.slots.get(id).and_then(|slot| slot.blocked_since).is_some_and(is_over)
    }

    /// Guards objects whose disk has completed none of their writes for [`SILENT_NS`].
    pub(super) fn watch_writes(&self, state: &mut PagerState<P>, now: Ns) {
        if !state.batches.any() && state.guarded == 0 {
            return;
        }
        let PagerState { batches, slots, .. } = &mut *state;
        let mut changed = false;
        for batch in batches.iter().filter(|batch| batches.is_stalled(batch, SILENT_NS, now)) {
            let slot = batch.object.and_then(|id| slots.get_mut(id));
            if let Some(slot) = slot.filter(|slot| slot.guard.is_none()) {
                slot.record_at_disk(HistoryKind::WritesStuck);
                slot.guard = Some(GuardCause::Stuck);
                changed = true;
            }
        }
        if changed || state.guarded > 0 {
            self.count_guarded(state);
        }
    }

    /// Returns whether starved faulters should keep waiting, because frames will come or a time-out
    /// will decide. That is so while the disk of an object is silent, or its store is being
    /// prepared, and the object itself starves or holds its share or more. It is so too while a
    /// dump image on a silent disk holds frames.
    pub(super) fn frames_may_come(&self, state: &PagerState<P>) -> bool {
        let hungry = self.hungry.load(Relaxed);
        let starves = |slot: &PagedObject| hungry & super::hungry_bit(slot.object.id()) != 0;
        let holds = |slot: &PagedObject| match slot.is_image() {
            true => self.env.frames.owned_by(slot.object.id()) > 0,
            false => starves(slot) || self.is_blocked(state, slot.object.id()),
        };
        state.slots.iter().any(|slot| {
            matches!(slot.guard, Some(GuardCause::Stuck | GuardCause::Expected)) && holds(slot)
        })
    }

    /// Called when an object starves: makes a partition crash that keeps its share or more while
    /// its disk fails. Returns whether there is one.
    pub(super) fn end_unwritable(&self, state: &mut PagerState<P>) -> bool {
        let holds_too_much = |slot: &&PagedObject| {
            matches!(slot.guard, Some(GuardCause::Failing(_)))
                && !slot.closing
                && self.is_blocked(state, slot.object.id())
        };
        let Some(slot) = state.slots.iter().find(holds_too_much) else { return false };
        let (object, Some(GuardCause::Failing(error))) = (slot.object.id(), slot.guard) else {
            return false;
        };
        let number = u64::from(object.as_u16());
        slot.record(HistoryKind::Unwritable, error as u32, [number, 0]);
        state.notices.push(PagerNotice::Unwritable { object, error });
        true
    }
}
