//! Paging: memory that does not fit into the pool lives in paging spaces.
//!
//! The pager answers faults, reclaims frames when the pool runs short, and drains dump images. All
//! three use the same few transitions of a page's leaf (`mm::page`). This module decides *which*
//! page, talks to the disks and tracks the work in flight. It never names a vCPU, an exit or a
//! table format.
//!
//! ```text
//!            fault                              poll
//!              │                                  │
//!   untouched  │ paged                            ├─ completions ─┬─ transfer: verify, install, wake
//!   zero       │   └> transfer ──read──> disk ────┤               ├─ batch: free the written pages
//!     v        v                                  │
//!   zeroed   rescue (going out)                   ├─ batches: limbo ─ticket─> scan, checksum ─> write ─> free
//!   frame                                         ├─ reclaim: clock hand ──> new batch
//!                                                 └─ idle disk: clean old dirty pages in place
//!   ImageDrain::step ──> new batches of a dump image, ascending
//! ```
//!
//! Invariants:
//! * **No lock across I/O, no allocation, bounded work.** The pager's lock guards tables of fixed
//!   size. It is held while leaves are changed and requests are queued, never while a request is
//!   waited for.
//! * **No frame is read before its flush has passed.** Pages that are evicted sit in *limbo* in
//!   their batch until the ticket of `mm::flush` has passed; only then are they scanned, written or
//!   freed.
//! * **A page in transition has one owner here**: a line of a batch (going out, being cleaned) or a
//!   place of a transfer (coming in). `mm` keeps such a page pinned. So it is never in two batches,
//!   and a late completion never meets a later use of the same frame.
//! * **Lost pages never read as zeros.** A block that cannot be read or does not match its checksum
//!   is a [`PageLossError`].
//!
//! Lock: one, of rank [`PAGER`](crate::sync::rank::PAGER), above those of `mm` and `block`, below
//! every partition's.

mod ahead_map;
mod along;
mod around;
mod asking;
mod bad_pages;
mod base;
mod batch;
pub mod blocks;
mod clean;
mod copies;
pub mod counters;
mod device;
pub mod drain;
mod drain_state;
mod fault;
mod guard;
mod history;
mod hot;
mod late;
mod late_requests;
mod lock_use;
mod loss;
mod page_in;
mod poll;
mod precopy;
mod reclaim;
mod sample;
mod scan;
mod segments;
mod share;
mod slots;
mod state;
#[cfg(test)]
mod tests;
mod transfer;
mod turns;
mod use_estimate;
mod verify;
mod work;
mod write_out;

use crate::addr::{Hfn, PageIndex};
use crate::block::{Completion, Disk, MAX_DISKS};
use crate::log::history::HistoryKind;
use crate::mm::flush::QuiescentStates;
use crate::mm::frames::{Frame, FrameTable};
use crate::mm::object::{MemoryObject, ObjectId};
use crate::mm::phys::FrameMemory;
use crate::pool::{AccountId, ClockPolicy, ReclaimPolicy, Watermarks};
use crate::sync::{RankedLock, rank};
use crate::time::{AtomicNs, Ns};
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use blocks::BlockMap;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use counters::{PagerCounters, PagerSnapshot, bump};
use state::PagerState;
use turns::PollTurns;

pub use bad_pages::BadPages;
pub use counters::LockUse;
pub use device::DeviceAccess;
pub use drain::{DrainProgress, ImageDrain, PageFinal};
pub use fault::AccessOutcome;
pub use hot::{HOT_WINDOW, PrefetchState, WindowUse};
pub use loss::PageLossError;
pub use precopy::{PrecopyPass, PrecopyState};
pub use slots::{AttachError, LANDMARKS, PageFlow};
pub use state::PagerNotice;
pub use work::PollOutcome;

/// Most paging spaces of a node; their memory is reserved at start.
pub const MAX_SPACES: usize = 64;

/// Destination of an object's pages: a paging space on one of the pager's disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageStore {
    /// Index of the disk in the list given to [`Pager::new`].
    pub disk: usize,
    /// The blocks.
    pub blocks: BlockMap,
}

/// The resources that the pager works on.
#[derive(Debug)]
pub struct PagerEnv<'a, M> {
    /// The pool.
    pub frames: &'a FrameTable,
    /// The content of frames.
    pub memory: &'a M,
    /// Each CPU's published state.
    pub quiescent_states: &'a QuiescentStates,
    /// The shared frame of zeros: outside the pool, below 32 GiB, and never written.
    pub zeros: Hfn,
    /// Recognises the pages whose numbers are remembered.
    pub landmark: Landmark,
}

/// Number of a page's first bytes that [`Landmark::matches`] gets.
pub const LANDMARK_BYTES: usize = 64;

/// Recognises pages that have to be found again later (a dump's VMCOREINFO) by their first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Landmark {
    /// The first four bytes as a number: the cheap test that nearly every page fails.
    pub first_word: u32,
    /// The exact test, for pages that pass the cheap one.
    pub matches: fn(&[u8; LANDMARK_BYTES]) -> bool,
}

/// The pager. See the [module](self).
pub struct Pager<'a, M: FrameMemory, D: Disk, P: ReclaimPolicy = ClockPolicy> {
    env: PagerEnv<'a, M>,
    disks: ArrayVec<&'a D, MAX_DISKS>,
    marks: Watermarks,
    counters: PagerCounters,
    /// One bit per object: a faulter of it waits for a frame.
    hungry: AtomicU64,
    /// Sum of all credits.
    promised: AtomicU32,
    /// A fault has to look under the lock before it takes a frame: some frames are promised, or an
    /// object's pages cannot be written.
    gate: AtomicBool,
    /// Free frames are few, and [`Pager::wants_poll`] has reported it.
    wants_poll: AtomicBool,
    /// Time passed to the last [`Pager::poll`].
    clock: AtomicNs,
    turns: PollTurns,
    state: RankedLock<PagerState<P>, { rank::PAGER }>,
}

impl<'a, M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'a, M, D, P> {
    /// Makes the pager over `disks`. All memory that it will ever need is allocated here.
    ///
    /// # Panics
    /// If there are more than [`MAX_DISKS`] disks.
    pub fn new(env: PagerEnv<'a, M>, disks: impl IntoIterator<Item = &'a D>, policy: P) -> Self {
        let marks = Watermarks::for_pool(env.frames.total());
        let disks: ArrayVec<&'a D, MAX_DISKS> = disks.into_iter().collect();
        // One more per disk than its depth: the claim's beat.
        let requests = disks.iter().map(|disk| disk.info().depth + 1).sum();
        let state = RankedLock::new(PagerState::new(policy, requests, disks.len()));
        let turns = PollTurns::new(env.quiescent_states.online());
        Self {
            env,
            disks,
            marks,
            counters: PagerCounters::new(),
            hungry: AtomicU64::new(0),
            promised: AtomicU32::new(0),
            gate: AtomicBool::new(false),
            wants_poll: AtomicBool::new(false),
            clock: AtomicNs::new(Ns::ZERO),
            turns,
            state,
        }
    }

    /// Attaches an object. Without a store only its zero pages can be evicted.
    ///
    /// # Errors
    /// [`AttachError`]: the store does not fit the object, or the object is attached already.
    pub fn attach(
        &self,
        object: Arc<MemoryObject>,
        store: Option<PageStore>,
    ) -> Result<(), AttachError> {
        let infos: ArrayVec<_, MAX_DISKS> = self.disks.iter().map(|disk| disk.info()).collect();
        let mut state = self.locked();
        state.slots.attach(object, store, &infos)?;
        state.reclaim.asked |= state.slots.bases > 0;
        Ok(())
    }

    /// Gives a store to an object that was attached without one. An object that has a store keeps
    /// it.
    ///
    /// # Errors
    /// [`AttachError`]: the store does not fit the object, or the object is not attached.
    pub fn give_store(&self, id: ObjectId, store: PageStore) -> Result<(), AttachError> {
        let infos: ArrayVec<_, MAX_DISKS> = self.disks.iter().map(|disk| disk.info()).collect();
        self.locked().slots.give_store(id, store, &infos)?;
        self.expect_store(id, false);
        Ok(())
    }

    /// Returns how many attached objects inherit their pages from this one.
    pub fn mappers(&self, base: ObjectId) -> usize {
        self.locked().slots.mappers(base).count()
    }

    /// Detaches an object. No new work is started for it after the first call.
    ///
    /// # Errors
    /// [`AttachError::Busy`]: I/O is still in flight; poll and call again.
    pub fn detach(&self, id: ObjectId) -> Result<(), AttachError> {
        let mut state = self.locked();
        let state = &mut *state;
        let slot = state.slots.get_mut(id).ok_or(AttachError::Unknown)?;
        slot.closing = true;
        if state.batches.of(id).next().is_some()
            || state.transfers.of(id).next().is_some()
            || state.copies.is_any_of(id)
        {
            return Err(AttachError::Busy);
        }
        state.slots.remove(id);
        self.count_guarded(state);
        self.hungry.fetch_and(!hungry_bit(id), Ordering::Relaxed);
        Ok(())
    }

    /// Reserves `frames` more of the free frames for an object; no other object gets them.
    #[cfg(test)]
    pub fn credit(&self, id: ObjectId, frames: u32) {
        let mut state = self.locked();
        let account = state.account(id);
        let credit = state.credits.of(account).saturating_add(frames);
        self.set_credit(&mut state, account, credit);
    }

    /// Ends the reservation for an object.
    #[cfg(test)]
    pub fn end_credit(&self, id: ObjectId) {
        let mut state = self.locked();
        let account = state.account(id);
        self.set_credit(&mut state, account, 0);
    }

    /// Requests the eviction of up to `pages` pages of an object, however full the pool is: for
    /// operators and tests.
    pub fn ask_evict(&self, id: ObjectId, pages: u32) {
        let mut state = self.locked();
        let state = &mut *state;
        if let Some(slot) = state.slots.get_mut(id) {
            slot.record(HistoryKind::EvictionAsked, 0, [u64::from(pages), 0]);
            slot.asked = pages.min(slot.pages());
            // An earlier fruitless round says nothing about pages that have changed since.
            slot.fruitless = 0;
            state.reclaim.asked = true;
        }
    }

    /// Returns the pages of an object that matched the landmark when they were written out, newest
    /// first.
    pub fn landmarks(&self, id: ObjectId) -> ArrayVec<PageIndex, LANDMARKS> {
        let state = self.locked();
        state
            .slots
            .get(id)
            .map(|slot| slot.landmarks.iter().rev().copied().collect())
            .unwrap_or_default()
    }

    /// Returns the counts of an object's page-ins and page-outs.
    pub fn flow(&self, id: ObjectId) -> PageFlow {
        self.locked().slots.get(id).map(|slot| slot.flow).unwrap_or_default()
    }

    /// Returns the frames that dump images hold.
    pub fn image_frames(&self) -> u64 {
        let state = self.locked();
        let frames =
            |slot: &slots::PagedObject| u64::from(self.env.frames.owned_by(slot.object.id()));
        state.slots.iter().filter(|slot| slot.is_image()).map(frames).sum()
    }

    /// Returns the disks, in the order of [`PageStore::disk`].
    pub fn disks(&self) -> &[&'a D] {
        &self.disks
    }

    /// Returns whether the shared frame still holds zeros.
    pub fn are_zeros_intact(&self) -> bool {
        self.env.memory.is_zero(self.env.zeros)
    }

    /// Returns the pool's marks.
    pub fn watermarks(&self) -> Watermarks {
        self.marks
    }

    /// Returns the counters.
    pub fn counters(&self) -> PagerSnapshot {
        self.counters.snapshot()
    }

    /// Takes the oldest completion of a task's request. Returns `None` while another CPU holds the
    /// pager's lock: that CPU looks itself afterwards, and waiting here would delay it.
    pub fn take_completion(&self) -> Option<Completion> {
        self.try_locked()?.mail.take()
    }

    /// Takes the oldest notice for operators.
    pub fn take_notice(&self) -> Option<PagerNotice> {
        self.locked().notices.pop()
    }

    /// Takes a frame for an object's page, unless the free frames are promised to others or the
    /// object is at its limit.
    #[inline(always)]
    fn take_frame(&self, state: &mut PagerState<P>, id: ObjectId) -> Option<Frame> {
        if state.guarded > 0 || state.credits.total() > 0 {
            return self.take_limited_frame(state, id);
        }
        self.env.frames.alloc()
    }

    #[inline(never)]
    fn take_limited_frame(&self, state: &mut PagerState<P>, id: ObjectId) -> Option<Frame> {
        if state.guarded > 0 && self.is_blocked(state, id) {
            return None;
        }
        if state.credits.total() > 0 {
            let account = state.account(id);
            if state.credits.available(account, self.env.frames.free_count()) == 0 {
                return None;
            }
            state.credits.spend(account, 1);
            self.promised.store(state.credits.total(), Ordering::Release);
            self.set_gate(state);
        }
        self.env.frames.alloc()
    }

    /// Notes that a faulter of the object waits for a frame.
    fn note_hungry(&self, id: ObjectId) {
        bump(&self.counters.frame_waits, 1);
        self.hungry.fetch_or(hungry_bit(id), Ordering::AcqRel);
    }
}

/// Returns the account of an object without terms.
fn own_account(id: ObjectId) -> AccountId {
    AccountId::new(id.as_u16())
}

/// Returns the object's bit in the set of hungry ones.
fn hungry_bit(id: ObjectId) -> u64 {
    1 << (id.as_u16() % 64)
}

const _: () =
    assert!(crate::mm::object::ObjectTable::CAPACITY <= 64, "one bit of a word for each object");
const _: () =
    assert!(crate::mm::object::ObjectTable::CAPACITY <= crate::pool::credit::MAX_ACCOUNTS);
