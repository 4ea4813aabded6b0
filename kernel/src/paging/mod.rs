//! Paging: what does not fit into the pool lives in paging spaces.
//!
//! The pager answers faults, takes frames back when the pool runs short, and drains dump images. All three are
//! the same few transitions of a page's leaf (`mm::page`); what is here decides *which* page, talks to the disks and remembers
//! what is under way. It never names a vCPU, an exit or a table format.
//!
//! ```text
//!            fault                              poll
//!              │                                  │
//!   untouched  │ paged                            ├─ completions ─┬─ transfer: verify, install, wake
//!   zero       │   └> transfer ──read──> disk ────┤               ├─ batch: free what was written
//!     │        │                                  │               └─ mailboxes of other owners
//!     v        v                                  │
//!   zeroed   rescue (going out)                   ├─ batches: limbo ─ticket─> scan, checksum ─> write ─> free
//!   frame                                         ├─ reclaim: clock hand ──> new batch
//!                                                 └─ idle disk: clean old dirty pages in place
//!   Drain::step ──> new batches of a dump image, ascending
//! ```
//!
//! Invariants:
//! * **No lock across I/O, no allocation, bounded work.** The pager's lock guards tables of fixed size; it is held while leaves
//!   are changed and requests are queued, never while one is waited for.
//! * **Nobody reads a frame before its flush has passed.** Pages that leave sit in *limbo* in their batch until the ticket of
//!   `mm::flush` has passed; only then are they scanned, written or freed.
//! * **A page that is under way has one owner here**: an entry of a batch (going out, being cleaned) or of a transfer (coming in).
//!   `mm` keeps such a page pinned, so it is never in two batches, and a late completion never meets a newer life of the same frame.
//! * **Never zeros for what was lost.** A block that cannot be read or does not match its checksum is a [`Loss`].
//!
//! Lock: one, of rank [`PAGER`](crate::sync::rank::PAGER), above those of `mm` and `block`, below every partition's.

mod ahead_map;
mod along;
mod around;
mod asking;
mod bad_pages;
mod batch;
pub mod blocks;
mod clean;
pub mod cookie;
pub mod counters;
pub mod drain;
mod fault;
mod guard;
mod late;
mod lock_use;
mod page_in;
mod poll;
mod reclaim;
mod sample;
mod scan;
mod segments;
mod share;
mod slots;
pub mod space;
mod state;
#[cfg(test)]
mod tests;
mod transfer;
mod turns;
mod verify;
mod write_out;

use crate::addr::{Hfn, PageIndex};
use crate::block::{Completion, Disk};
use crate::mm::flush::CpuWords;
use crate::mm::frames::{Frame, FrameTable};
use crate::mm::object::{MemoryObject, ObjectId};
use crate::mm::phys::FrameMemory;
use crate::pool::{Clock, Policy, Watermarks};
use crate::sync::{Ranked, rank};
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use blocks::BlockMap;
use cookie::Class;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use counters::{Counters, Snapshot, bump};
use state::State;
use turns::PollTurns;

pub use bad_pages::BadPages;
pub use drain::{Drain, PageFinal, Progress};
pub use fault::{Fault, Loss};
pub use lock_use::LockUse;
pub use poll::Work;
pub use slots::{AttachError, Flow, LANDMARKS};
pub use state::Notice;

/// Most paging spaces of a node; memory for them is set aside at start.
pub const MAX_SPACES: usize = 64;
/// Most paging devices.
pub const MAX_DISKS: usize = 16;

/// Where an object's pages go: a paging space on one of the pager's disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Store {
    /// Number of the disk in the list that the pager was made with.
    pub disk: usize,
    /// The blocks.
    pub blocks: BlockMap,
}

/// What the pager stands on.
#[derive(Debug)]
pub struct Ground<'a, M> {
    /// The pool.
    pub frames: &'a FrameTable,
    /// The content of frames.
    pub memory: &'a M,
    /// Where the CPUs are.
    pub words: &'a CpuWords,
    /// The shared frame of zeros: outside the pool, below 32 GiB, and never written.
    pub zeros: Hfn,
    /// Which pages somebody wants to find again.
    pub landmark: Landmark,
}

/// Bytes of a page that [`Landmark::matches`] is shown.
pub const LANDMARK_BYTES: usize = 64;

/// Recognises pages that somebody wants to find again (a dump's VMCOREINFO) by their first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Landmark {
    /// The first four bytes as a number: the cheap test that nearly every page fails.
    pub first_word: u32,
    /// Decides on those that pass it.
    pub matches: fn(&[u8; LANDMARK_BYTES]) -> bool,
}

/// The pager. See the [module](self).
pub struct Pager<'a, M: FrameMemory, D: Disk, P: Policy = Clock> {
    ground: Ground<'a, M>,
    disks: ArrayVec<&'a D, MAX_DISKS>,
    marks: Watermarks,
    counters: Counters,
    /// One bit an object: a faulter waits for a frame.
    hungry: AtomicU64,
    /// Sum of all credits.
    promised: AtomicU32,
    /// A frame needs a look under the lock before it is taken: some are promised, or an object's pages cannot be written.
    gate: AtomicBool,
    /// Free frames are few, and somebody has been told.
    wants_poll: AtomicBool,
    /// Time of the last call that knew it.
    clock: AtomicU64,
    turns: PollTurns,
    state: Ranked<State<P>, { rank::PAGER }>,
}

impl<'a, M: FrameMemory, D: Disk, P: Policy> Pager<'a, M, D, P> {
    /// Makes the pager over `disks`; all memory it will ever need is taken now.
    ///
    /// # Panics
    /// If there are more than [`MAX_DISKS`] disks.
    pub fn new(ground: Ground<'a, M>, disks: impl IntoIterator<Item = &'a D>, policy: P) -> Self {
        let marks = Watermarks::for_pool(ground.frames.total());
        let disks: ArrayVec<&'a D, MAX_DISKS> = disks.into_iter().collect();
        // One more a disk than its depth says: the beat's.
        let requests = disks.iter().map(|disk| disk.info().depth + 1).sum();
        let state = Ranked::new(State::new(policy, requests, disks.len()));
        let turns = PollTurns::new(ground.words.online());
        Self {
            ground,
            disks,
            marks,
            counters: Counters::new(),
            hungry: AtomicU64::new(0),
            promised: AtomicU32::new(0),
            gate: AtomicBool::new(false),
            wants_poll: AtomicBool::new(false),
            clock: AtomicU64::new(0),
            turns,
            state,
        }
    }

    /// Takes an object under the pager's care. Without a store only its zero pages can leave.
    ///
    /// # Errors
    /// [`AttachError`]: the store does not fit the object, or it is attached already.
    pub fn attach(&self, object: Arc<MemoryObject>, store: Option<Store>) -> Result<(), AttachError> {
        let infos: ArrayVec<_, MAX_DISKS> = self.disks.iter().map(|disk| disk.info()).collect();
        self.locked().slots.attach(object, store, &infos)
    }

    /// Gives an attached object its store, where it was attached without one. One that has a store keeps it.
    ///
    /// # Errors
    /// [`AttachError`]: the store does not fit the object, or the object is not attached.
    pub fn give_store(&self, id: ObjectId, store: Store) -> Result<(), AttachError> {
        let infos: ArrayVec<_, MAX_DISKS> = self.disks.iter().map(|disk| disk.info()).collect();
        self.locked().slots.give_store(id, store, &infos)?;
        self.expect_store(id, false);
        Ok(())
    }

    /// Lets go of an object. Starts nothing new for it from the first call on.
    ///
    /// # Errors
    /// [`AttachError::Busy`]: I/O is still under way; poll and call again.
    pub fn detach(&self, id: ObjectId) -> Result<(), AttachError> {
        let mut state = self.locked();
        let state = &mut *state;
        let slot = state.slots.get_mut(id).ok_or(AttachError::Unknown)?;
        slot.closing = true;
        if state.batches.of(id).next().is_some() || state.transfers.of(id).next().is_some() {
            return Err(AttachError::Busy);
        }
        state.slots.remove(id);
        self.count_guarded(state);
        self.hungry.fetch_and(!hungry_bit(id), Ordering::Relaxed);
        Ok(())
    }

    /// Promises `frames` more of the free frames to an object: nobody else gets them.
    pub fn credit(&self, id: ObjectId, frames: u32) {
        let mut state = self.locked();
        let account = state.account(id);
        let credit = state.credits.of(account).saturating_add(frames);
        self.set_credit(&mut state, account, credit);
    }

    /// Ends the promise to an object.
    pub fn end_credit(&self, id: ObjectId) {
        let mut state = self.locked();
        let account = state.account(id);
        self.set_credit(&mut state, account, 0);
    }

    /// Makes up to `pages` pages of an object leave, however full the pool is: for operators and tests.
    pub fn ask_evict(&self, id: ObjectId, pages: u32) {
        let mut state = self.locked();
        let state = &mut *state;
        if let Some(slot) = state.slots.get_mut(id) {
            slot.asked = pages.min(slot.pages());
            // What an earlier round found in vain says nothing of pages that have changed since.
            slot.fruitless = 0;
            state.reclaim.asked = true;
        }
    }

    /// Returns the pages of an object that looked like landmarks when they went to their blocks, newest first.
    pub fn landmarks(&self, id: ObjectId) -> ArrayVec<PageIndex, LANDMARKS> {
        let state = self.locked();
        state.slots.get(id).map(|slot| slot.landmarks.iter().rev().copied().collect()).unwrap_or_default()
    }

    /// Returns what has gone in and out of an object.
    pub fn flow(&self, id: ObjectId) -> Flow {
        self.locked().slots.get(id).map(|slot| slot.flow).unwrap_or_default()
    }

    /// Returns the frames that dump images hold.
    pub fn image_frames(&self) -> u64 {
        let state = self.locked();
        let frames = |slot: &slots::Slot| u64::from(self.ground.frames.owned_by(slot.object.id()));
        state.slots.iter().filter(|slot| slot.is_image()).map(frames).sum()
    }

    /// Returns the disks, in the order of [`Store::disk`].
    pub fn disks(&self) -> &[&'a D] {
        &self.disks
    }

    /// Returns whether the shared frame still holds zeros.
    pub fn are_zeros_intact(&self) -> bool {
        self.ground.memory.is_zero(self.ground.zeros)
    }

    /// Returns the pool's marks.
    pub fn watermarks(&self) -> Watermarks {
        self.marks
    }

    /// Returns the counters.
    pub fn counters(&self) -> Snapshot {
        self.counters.snapshot()
    }

    /// Takes the oldest completion of a foreign class. None while another CPU polls: that one looks itself afterwards, and waiting
    /// for it here would only be in its way.
    pub fn take_completion(&self, class: Class) -> Option<Completion> {
        self.try_locked()?.mail.take(class)
    }

    /// Takes the oldest thing that an operator should hear of.
    pub fn take_notice(&self) -> Option<Notice> {
        self.locked().notices.pop()
    }

    /// Takes a frame for an object's page, unless the free ones are promised to others.
    #[inline(always)]
    fn take_frame(&self, state: &mut State<P>, id: ObjectId) -> Option<Frame> {
        if state.guarded > 0 || state.credits.total() > 0 {
            return self.take_limited_frame(state, id);
        }
        self.ground.frames.alloc()
    }

    #[inline(never)]
    fn take_limited_frame(&self, state: &mut State<P>, id: ObjectId) -> Option<Frame> {
        if state.guarded > 0 && self.is_blocked(state, id) {
            return None;
        }
        if state.credits.total() > 0 {
            let account = state.account(id);
            if state.credits.available(account, self.ground.frames.free_count()) == 0 {
                return None;
            }
            state.credits.spend(account, 1);
            self.promised.store(state.credits.total(), Ordering::Release);
            self.set_gate(state);
        }
        self.ground.frames.alloc()
    }

    /// Notes that a faulter of the object waits for a frame.
    fn note_hungry(&self, id: ObjectId) {
        bump(&self.counters.frame_waits, 1);
        self.hungry.fetch_or(hungry_bit(id), Ordering::AcqRel);
    }
}

/// Returns the object's number among the holders of the pool.
fn holder(id: ObjectId) -> usize {
    usize::from(id.as_u16())
}

/// Returns the object's bit in the set of hungry ones.
fn hungry_bit(id: ObjectId) -> u64 {
    1 << (id.as_u16() % 64)
}

const _: () = assert!(crate::mm::object::ObjectTable::CAPACITY <= 64, "one bit of a word for each object");
const _: () = assert!(crate::mm::object::ObjectTable::CAPACITY <= crate::pool::credit::MAX_HOLDERS);
