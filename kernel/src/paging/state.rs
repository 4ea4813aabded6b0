//! The data under the pager's lock: tables of fixed size, all allocated at the start.

use super::batch::Batches;
use super::copies::PendingCopies;
use super::counters::LockUse;
use super::late_requests::LateRequests;
use super::loss::PageLossError;
use super::segments::SegmentBuffer;
use super::slots::PagedObjects;
use super::transfer::{PageTransfers, WINDOW};
use super::work::AT_A_TIME;
use crate::addr::PageIndex;
use crate::block::MAX_DISKS;
use crate::block::cookie::MAILBOX_DEPTH;
use crate::block::{Completion, Cookie, DiskError};
use crate::mm::frames::FrameChain;
use crate::mm::object::ObjectId;
use crate::pool::{AccountId, FrameCredits};
use crate::time::Ns;
use alloc::collections::VecDeque;

/// Most notices kept for [`Pager::take_notice`](super::Pager::take_notice).
const NOTICES: usize = 32;

/// An event for operators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PagerNotice {
    /// Pages could not be written; they are mapped again and dirty. Sent only for the first failure
    /// after a success.
    WriteFailed {
        /// The pages' object.
        object: ObjectId,
        /// First page.
        first: PageIndex,
        /// How many.
        count: u32,
        /// Why.
        error: DiskError,
    },
    /// A page cannot be read back.
    PageLost {
        /// The page's object.
        object: ObjectId,
        /// The page.
        index: PageIndex,
        /// Why.
        loss: PageLossError,
    },
    /// A disk takes no more requests.
    DiskDead {
        /// An object whose store is on the disk.
        object: ObjectId,
    },
    /// An object whose pages cannot be written holds its share of frames or more while other
    /// objects starve: its partition has to crash.
    Unwritable {
        /// The object.
        object: ObjectId,
        /// Why.
        error: DiskError,
    },
}

/// The pager's tables.
#[derive(Debug)]
pub(super) struct PagerState<P> {
    pub slots: PagedObjects,
    pub transfers: PageTransfers,
    pub batches: Batches,
    pub copies: PendingCopies,
    pub credits: FrameCredits,
    pub policy: P,
    pub reclaim: ReclaimState,
    pub mail: TaskMailbox,
    /// Memory that disks may still access for timed-out requests.
    pub late: LateRequests,
    /// Disks that take no requests, as last reported to their objects.
    pub down: [bool; MAX_DISKS],
    /// Number of objects whose pages cannot be written now.
    pub guarded: u32,
    pub notices: NoticeQueue,
    /// Frames on their way to the free list, collected so that its lock is taken once for many.
    pub freed: FrameChain,
    /// The segments of the request that is being built.
    pub segments: SegmentBuffer,
    /// Buffer for a disk's completions.
    pub answers: [Completion; AT_A_TIME],
    pub lock_use: LockUse,
    /// Steps done so far; a turn that leaves the number unchanged was without work.
    moves: u64,
}

impl<P> PagerState<P> {
    /// Notes a step: a completion handled, a batch advanced.
    #[inline(always)]
    pub(super) fn note_move(&mut self) {
        self.moves = self.moves.wrapping_add(1);
    }

    /// Counts a turn. Returns the argument for [`PagerState::note_turn_without_work_since`] at its
    /// end.
    #[inline(always)]
    pub(super) fn begin_turn(&mut self) -> u64 {
        self.lock_use.turns = self.lock_use.turns.wrapping_add(1);
        self.moves
    }

    /// Counts the turn that began at `moves` steps as one without work, if no step was done since.
    #[inline(always)]
    pub(super) fn note_turn_without_work_since(&mut self, moves: u64) {
        let is_idle = u64::from(self.moves == moves);
        self.lock_use.turns_without_work = self.lock_use.turns_without_work.wrapping_add(is_idle);
    }

    /// Returns the account whose credit an object draws on.
    pub(super) fn account(&self, id: ObjectId) -> AccountId {
        self.slots.get(id).map_or(super::own_account(id), |slot| slot.terms.account)
    }

    /// Returns a free batch for an object, unless the object is at its limit.
    pub(super) fn vacant_batch_for(&self, id: ObjectId) -> Option<usize> {
        let store = self.slots.get(id).and_then(|slot| slot.store);
        self.batches.vacant_for(id, store.map(|store| store.store.disk))
    }

    /// Makes the tables for `disks` disks that together accept `requests` requests at a time.
    pub(super) fn new(policy: P, requests: usize, disks: usize) -> Self {
        Self {
            slots: PagedObjects::new(),
            transfers: PageTransfers::new(),
            batches: Batches::new(disks),
            copies: PendingCopies::new(),
            credits: FrameCredits::new(),
            policy,
            reclaim: ReclaimState::default(),
            mail: TaskMailbox::new(),
            late: LateRequests::with_capacity(requests),
            down: [false; MAX_DISKS],
            guarded: 0,
            notices: NoticeQueue { queue: VecDeque::with_capacity(NOTICES) },
            freed: FrameChain::new(),
            segments: SegmentBuffer::new(),
            answers: [Completion { cookie: Cookie(0), result: Ok(()) }; AT_A_TIME],
            lock_use: LockUse::default(),
            moves: 0,
        }
    }
}

/// State of reclaim between its watermarks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReclaimState {
    /// The eviction of an object's pages may have been requested.
    pub asked: bool,
    /// Set from passing the low mark until the high mark is reached.
    pub active: bool,
    /// Time since which faulters wait and no frame is on its way.
    pub starving_since: Option<Ns>,
    /// When objects that yielded nothing are visited again.
    pub look_again_at: Ns,
    /// Faulters get [`PageLossError::NoFrames`].
    pub exhausted: bool,
    /// Time of the next sampling of use.
    pub sample_at: Ns,
    /// Time of the next sampling of pages that were read along.
    pub ask_at: Ns,
    /// Time from which the cleaner may run.
    pub clean_at: Ns,
    /// Frames kept free beyond the marks, because walks have found too few.
    pub for_walks: u32,
}

impl ReclaimState {
    /// Notes that a walk has found too few frames for its next window: keeps one more window free
    /// from now on, at most a sixteenth of the pool.
    pub(super) fn want_for_walks(&mut self, frames_of_pool: u32) {
        self.for_walks = (self.for_walks + WINDOW).min(frames_of_pool / 16);
    }

    /// Releases a 64th of the frames kept for walks; half are gone after 45 calls.
    pub(super) fn forget_walks(&mut self) {
        self.for_walks -= self.for_walks.div_ceil(64);
    }

    /// Returns whether reclaim or sampling has work, however many frames are free.
    #[inline]
    pub(super) fn is_due(&self, now: Ns) -> bool {
        self.asked || self.active || now >= self.sample_at
    }
}

/// Completions of tasks' requests, kept until they are taken.
#[derive(Debug)]
pub(super) struct TaskMailbox {
    queue: VecDeque<Completion>,
}

impl TaskMailbox {
    fn new() -> Self {
        Self { queue: VecDeque::with_capacity(MAILBOX_DEPTH) }
    }

    /// Keeps a completion.
    ///
    /// # Panics
    /// If tasks have more requests in flight than their limit (our bug).
    pub(super) fn keep(&mut self, completion: Completion) {
        assert!(
            self.queue.len() < MAILBOX_DEPTH,
            "tasks keep at most PER_DISK requests in flight on a disk"
        );
        self.queue.push_back(completion);
    }

    pub(super) fn take(&mut self) -> Option<Completion> {
        self.queue.pop_front()
    }
}

/// The last notices; the oldest makes room.
#[derive(Debug)]
pub(super) struct NoticeQueue {
    queue: VecDeque<PagerNotice>,
}

impl NoticeQueue {
    pub(super) fn push(&mut self, notice: PagerNotice) {
        if self.queue.len() == NOTICES {
            self.queue.pop_front();
        }
        self.queue.push_back(notice);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn pop(&mut self) -> Option<PagerNotice> {
        self.queue.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_for_walks_are_bounded_and_are_let_go() {
        let mut reclaim = ReclaimState::default();
        (0..1000).for_each(|_| reclaim.want_for_walks(16384));
        assert_eq!(reclaim.for_walks, 1024);
        (0..45).for_each(|_| reclaim.forget_walks());
        assert!((400..=512).contains(&reclaim.for_walks), "{}", reclaim.for_walks);
        (0..1000).for_each(|_| reclaim.forget_walks());
        assert_eq!(reclaim.for_walks, 0);
    }
}
