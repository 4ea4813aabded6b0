//! A base and its children: faults on inherited pages, and the eviction of the base's frames.
//!
//! ```text
//!   fault of a child ─> the base's page is  zero ──────> shared zeros, or a cleared frame
//!                                           paged ─────> a page-in of the base; all who wait are woken
//!                                           resident ──> read: shown read-only     write: copied
//! ```
//!
//! The base is attached like any object, so its page-ins are read along, verified by the sealed
//! checksums, tried again and given up by the same code. A page that cannot be read is lost for the
//! children that touch it, and for no others.
//!
//! *Frames.* Those of the base belong to the account of the sealed partition, which does not run. A
//! child pays for its own. In the policy the base counts once for itself and once for each child:
//! a frame of it serves all of them. A page that the base's hand finds is evicted only if no
//! child has touched it since its last visit.

use super::Pager;
use super::batch::BatchPurpose;
use super::copies::PendingCopy;
use super::counters::bump;
use super::fault::AccessOutcome;
use super::slots::PagedObject;
use super::state::PagerState;
use super::transfer::WINDOW;
use super::work::PollTurn;
use crate::addr::PageIndex;
use crate::arch::percpu;
use crate::block::Disk;
use crate::mm::crc::Crc32c;
use crate::mm::frames::Frame;
use crate::mm::leaf::LeafState;
use crate::mm::object::{MemoryObject, ObjectId, WaitTicket};
use crate::mm::page::{Page, PageAge};
use crate::mm::phys::FrameMemory;
use crate::pool::policy::CandidateKind;
use crate::pool::{ReclaimCandidate, ReclaimPolicy};
use crate::time::Ns;
use crate::virt::PageAccess;
use core::ops::ControlFlow;
use core::sync::atomic::Ordering::Relaxed;

/// Most frames of a base in one batch.
const VICTIMS: usize = 64;

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Returns whether the content of a child's untouched page is in the base, and not zero.
    #[inline(never)]
    pub(super) fn inherits(&self, object: &MemoryObject, page: Page<'_>) -> bool {
        let of_base = object.base().and_then(|base| base.existing(page.index()));
        let is_zero =
            |page: Page<'_>| matches!(page.leaf(), LeafState::Untouched | LeafState::Zero);
        page.is_inherited() && of_base.is_some_and(|of_base| !is_zero(of_base))
    }

    /// Serves a child's access to a page whose content is the base's.
    ///
    /// A second fault on a page that is shown gives it a copy, whatever the access: a CPU that
    /// reports a write as a read must not fault for ever.
    #[inline(never)]
    pub(super) fn fault_inherited(
        &self,
        (object, page): (&MemoryObject, Page<'_>),
        access: PageAccess,
        ticket: WaitTicket,
        now: Ns,
    ) -> AccessOutcome {
        let Some(base) = object.base() else { return AccessOutcome::Resolved };
        let Some(of_base) = base.existing(page.index()) else { return AccessOutcome::Resolved };
        if let LeafState::Present(_) = of_base.leaf() {
            let answer = self.map_base((object, page), of_base, access, ticket);
            return answer.unwrap_or(AccessOutcome::Resolved);
        }
        // A page-in of the base wakes its children, too: the ticket is the child's.
        match self.fault_page(base, page.index(), PageAccess::Read, now) {
            AccessOutcome::Wait(_) => AccessOutcome::Wait(ticket),
            answer => answer,
        }
    }

    /// Shows a resident page of the base, or copies it. `None`: look again.
    fn map_base(
        &self,
        (object, page): (&MemoryObject, Page<'_>),
        of_base: Page<'_>,
        access: PageAccess,
        ticket: WaitTicket,
    ) -> Option<AccessOutcome> {
        // The base's own A bit, which no CPU sets: the page was asked for.
        let hfn = of_base.note_use()?;
        match (access, page.mapping()) {
            (PageAccess::Write, _) => {}
            (_, None) => {
                if page.show_base(hfn, of_base).ok()? {
                    bump(&self.counters.base_shown, 1);
                }
                return Some(AccessOutcome::Resolved);
            }
            (_, Some(shown)) if !shown.accessed => {
                let _ = page.admit(access);
                return Some(AccessOutcome::Resolved);
            }
            (_, Some(_)) => {}
        }
        let frame = match self.gate.load(Relaxed) {
            false => self.env.frames.alloc(),
            true => self.take_frame(&mut self.locked(), object.id()),
        };
        let Some(frame) = frame else {
            return Some(self.wait_for_frames(object.id(), ticket));
        };
        // The base's frame stays what it was until this CPU leaves its read section.
        self.env.memory.copy_frame(hfn, frame.hfn());
        if page.begin_copy().is_err() {
            self.env.frames.free(frame);
            return None;
        }
        bump(&self.counters.base_copied, 1);
        let words = self.env.quiescent_states;
        let (mut flush, kicks) = object.flush(words, percpu::current());
        if flush.poll(words).is_some() {
            install(object, page.index(), frame);
            return Some(AccessOutcome::Resolved);
        }
        let copy = PendingCopy { object: object.id(), index: page.index(), frame, ticket: flush };
        match self.locked().copies.add(copy, kicks) {
            Ok(()) => Some(AccessOutcome::Wait(ticket)),
            Err(PendingCopy { frame, .. }) => {
                page.abort_copy();
                self.env.frames.free(frame);
                None
            }
        }
    }

    /// Installs the copies whose flush has passed, and wakes children: those of the copies, and
    /// those of bases on which a page-in has ended.
    ///
    /// Each poll comes here while there is a base: `reclaim.asked` stays set, so that polls without
    /// one need no question more.
    #[cold]
    #[inline(never)]
    pub(super) fn look_at_bases(&self, state: &mut PagerState<P>, turn: &mut PollTurn) {
        turn.work.kick(state.copies.take_kicks());
        while let Some(copy) = state.copies.take_passed(self.env.quiescent_states) {
            let PendingCopy { object, index, frame, .. } = copy;
            let slot = state.slots.busy(object);
            install(&slot.object, index, frame);
            slot.object.wake();
            turn.work.woke_waiters = true;
            state.note_move();
        }
        let mut woken = 0_u64;
        for slot in state.slots.iter_mut().filter(|slot| slot.is_base()) {
            let now = slot.object.wait_ticket();
            if slot.told != Some(now) {
                slot.told = Some(now);
                woken |= 1 << slot.object.id().index();
            }
        }
        for slot in state.slots.iter().filter(|_| woken != 0) {
            if slot.object.base().is_some_and(|base| woken >> base.id().index() & 1 != 0) {
                slot.object.wake();
                turn.work.woke_waiters = true;
            }
        }
    }

    /// Describes a base to the policy: its frames serve all of its children.
    pub(super) fn base_candidate(
        &self,
        state: &PagerState<P>,
        slot: &PagedObject,
    ) -> ReclaimCandidate {
        let id = slot.object.id();
        let users = state.slots.mappers(id).count() as u32 + 1;
        ReclaimCandidate {
            object: id,
            kind: CandidateKind::Live,
            logical: slot.pages().saturating_mul(users),
            resident: slot.object.counts().resident,
            minimum: slot.terms.minimum,
            // Its own A bits say nothing about its use.
            used: u16::from(u8::MAX),
        }
    }

    /// Starts one batch of a base's frames that no child has touched since the hand's last visit.
    pub(super) fn take_from_base(
        &self,
        state: &mut PagerState<P>,
        id: ObjectId,
        wanted: u32,
        turn: &mut PollTurn,
    ) -> usize {
        let Some(number) = state.vacant_batch_for(id) else { return 0 };
        self.look_at_disk(state.slots.busy(id), &mut state.notices);
        let slot = state.slots.busy(id);
        let minimum = if slot.asked > 0 { 0 } else { slot.terms.minimum };
        let most = wanted.min(slot.object.counts().resident.saturating_sub(minimum));
        let most = (most as usize).min(VICTIMS);
        if slot.is_dead() || most == 0 {
            slot.fruitless = slot.pages().saturating_mul(2);
            return 0;
        }
        let (object, hand, pages) = (slot.object.clone(), slot.hand, slot.pages());
        let PagerState { batches, slots, .. } = &mut *state;
        let (batch, budget) = (batches.get(number), turn.budget.visits);
        let mappers = || slots.mappers(id);
        let looks = 1 + mappers().count() as u32;
        let mut visits = 0_u32;
        let mut go = |from: u32, to: u32| {
            object.pages(from..to).visit(|page| {
                if batch.unmapped.len() >= most || visits >= budget {
                    return ControlFlow::Break(page.index().0);
                }
                let age = page.age();
                if age == PageAge::Absent {
                    return ControlFlow::Continue(());
                }
                visits = visits.saturating_add(looks);
                if is_in_use(page, mappers()) || age == PageAge::Referenced {
                    return ControlFlow::Continue(());
                }
                if let Ok(unmapped) = page.evict_clean() {
                    mappers().for_each(|mapper| {
                        mapper.hide_base_page(page.index());
                    });
                    batch.unmapped.push(unmapped);
                }
                ControlFlow::Continue(())
            })
        };
        let stopped = go(hand, pages).break_value();
        let stopped = stopped.or_else(|| go(0, hand).break_value());
        let found = batch.unmapped.len();
        turn.budget.visits = turn.budget.visits.saturating_sub(visits.max(1));
        bump(&self.counters.clean_evictions, found as u64);
        let slot = state.slots.busy(id);
        let at = stopped.unwrap_or(hand);
        slot.hand = if at >= pages { 0 } else { at };
        slot.fruitless = if found > 0 { 0 } else { slot.fruitless.saturating_add(pages) };
        if found == 0 {
            return 0;
        }
        let mappers = state.slots.mappers(id);
        let flush = object.flush_with(mappers, self.env.quiescent_states, turn.me);
        turn.work.kick(self.launch_with(state, number, &object, BatchPurpose::Evict, flush));
        found
    }

    /// Returns the checksum of the base's block for a page that an image has inherited and that is
    /// not zero; `None` if the page is the image's own, or zero in the base.
    pub fn inherited(&self, image: &MemoryObject, index: PageIndex) -> Option<Crc32c> {
        let is_inherited = image.existing(index).is_none_or(|page| page.is_inherited());
        if is_inherited { self.block_of_base(image.base()?, index) } else { None }
    }

    /// Returns the checksum of a base's page, unless the page is zero.
    pub fn block_of_base(&self, base: &MemoryObject, index: PageIndex) -> Option<Crc32c> {
        match base.existing(index)?.leaf() {
            LeafState::Paged(crc) => Some(crc),
            LeafState::Present(mapping) => Some(self.env.frames.checksum(mapping.hfn)),
            LeafState::ComingIn(_) => self.checksum_on_its_way(base, index),
            LeafState::Untouched
            | LeafState::Zero
            | LeafState::GoingOut(_)
            | LeafState::Shared(_) => None,
        }
    }

    /// The same for a page that is coming in: its transfer holds the checksum.
    #[cold]
    fn checksum_on_its_way(&self, base: &MemoryObject, index: PageIndex) -> Option<Crc32c> {
        let mut state = self.locked();
        match base.existing(index)?.leaf() {
            LeafState::ComingIn(number) => {
                let place = (index.0 % WINDOW) as usize;
                let transfer = state.transfers.get(number.0)?;
                transfer.pages[place].as_ref().map(|coming| coming.crc)
            }
            LeafState::Paged(crc) => Some(crc),
            LeafState::Present(mapping) => Some(self.env.frames.checksum(mapping.hfn)),
            _ => None,
        }
    }
}

/// Gives a page its copy: the flush has passed.
fn install(object: &MemoryObject, index: PageIndex, frame: Frame) {
    let page = object.existing(index).expect("a page that waits for its copy has a table");
    page.finish_copy(frame);
}

/// Ages a page of a base in all leaves; returns whether it was touched since the last look.
fn is_in_use<'m>(page: Page<'_>, mappers: impl Iterator<Item = &'m MemoryObject>) -> bool {
    let of_mappers = mappers.filter_map(|mapper| mapper.existing(page.index()));
    let touched = of_mappers.filter(|page| page.is_shared() && page.age() == PageAge::Referenced);
    touched.count() > 0
}
