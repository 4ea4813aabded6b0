//! What the pager's lock guards: tables of fixed size, all made at the start.

use super::batch::Batches;
use super::cookie::{Class, MAILBOX_DEPTH};
use super::fault::Loss;
use super::poll::AT_A_TIME;
use super::segments::Segments;
use super::slots::Slots;
use super::transfer::Transfers;
use crate::addr::PageIndex;
use crate::block::{Completion, Cookie, DiskError};
use crate::mm::frames::Chain;
use crate::mm::object::ObjectId;
use crate::pool::Credits;
use alloc::collections::VecDeque;

/// Notices that are kept until somebody asks.
const NOTICES: usize = 32;

/// Something that an operator should hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// Pages could not be written; they are mapped again and dirty. Only the first such after a write that went well.
    WriteFailed {
        /// Whose.
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
        /// Whose.
        object: ObjectId,
        /// Which.
        index: PageIndex,
        /// Why.
        loss: Loss,
    },
    /// A disk takes no requests any more.
    DiskDead {
        /// Whose store is on it.
        object: ObjectId,
    },
}

/// The pager's tables.
#[derive(Debug)]
pub(super) struct State<P> {
    pub slots: Slots,
    pub transfers: Transfers,
    pub batches: Batches,
    pub credits: Credits,
    pub policy: P,
    pub reclaim: ReclaimState,
    pub mail: Mail,
    pub notices: Notices,
    /// Frames on their way to the free list, so that its lock is taken once for many.
    pub freed: Chain,
    /// The segments of the request that is being built.
    pub segments: Segments,
    /// What a disk has just answered.
    pub answers: [Completion; AT_A_TIME],
}

impl<P> State<P> {
    /// Returns whose credit an object draws on.
    pub fn account(&self, id: ObjectId) -> usize {
        self.slots.get(id).map_or(super::holder(id), |slot| slot.terms.account)
    }

    pub fn new(policy: P) -> Self {
        Self {
            slots: Slots::new(),
            transfers: Transfers::new(),
            batches: Batches::new(),
            credits: Credits::new(),
            policy,
            reclaim: ReclaimState::default(),
            mail: Mail::new(),
            notices: Notices { queue: VecDeque::with_capacity(NOTICES) },
            freed: Chain::new(),
            segments: Segments::new(),
            answers: [Completion { cookie: Cookie(0), result: Ok(()) }; AT_A_TIME],
        }
    }
}

/// Where reclaim is between its watermarks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReclaimState {
    /// Somebody may have asked for pages of an object to leave.
    pub asked: bool,
    /// Below the high mark since the low one was passed.
    pub active: bool,
    /// Nobody has had anything to give since then.
    pub starving_since: Option<u64>,
    /// When to look again at objects that had nothing to give.
    pub look_again_at: u64,
    /// Faulters get [`Loss::NoFrames`].
    pub exhausted: bool,
    /// When use is sampled next.
    pub sample_at: u64,
    /// When the cleaner may go on.
    pub clean_at: u64,
}

impl ReclaimState {
    /// Returns whether reclaim or sampling has something to do, however many frames are free.
    #[inline]
    pub fn is_due(&self, now: u64) -> bool {
        self.asked || self.active || now >= self.sample_at
    }
}

/// Completions that wait for their owners.
#[derive(Debug)]
pub(super) struct Mail {
    boxes: [VecDeque<Completion>; Class::FOREIGN.len()],
}

impl Mail {
    fn new() -> Self {
        Self { boxes: core::array::from_fn(|_| VecDeque::with_capacity(MAILBOX_DEPTH)) }
    }

    /// Keeps a completion for its owner.
    ///
    /// # Panics
    /// If the owner has more requests in flight than it may (our bug).
    pub fn keep(&mut self, mailbox: usize, completion: Completion) {
        assert!(self.boxes[mailbox].len() < MAILBOX_DEPTH, "an owner keeps at most MAILBOX_DEPTH requests in flight");
        self.boxes[mailbox].push_back(completion);
    }

    pub fn take(&mut self, class: Class) -> Option<Completion> {
        self.boxes[class.mailbox()?].pop_front()
    }
}

/// The last notices; the oldest makes room.
#[derive(Debug)]
pub(super) struct Notices {
    queue: VecDeque<Notice>,
}

impl Notices {
    pub fn push(&mut self, notice: Notice) {
        if self.queue.len() == NOTICES {
            self.queue.pop_front();
        }
        self.queue.push_back(notice);
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn pop(&mut self) -> Option<Notice> {
        self.queue.pop_front()
    }
}
