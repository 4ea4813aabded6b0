//! Taking an object apart in bounded steps: frames first, then table pages.

use super::{MemoryObject, ObjectState, TEARDOWN};
use crate::arch::percpu::CpuId;
use crate::mm::flush::{FlushProof, FlushTicket, Kicks, QuiescentStates};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The progress of a teardown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TeardownProgress {
    /// The budget is used up.
    More,
    /// All is freed but pages that are pinned, claimed, going out or coming in: call again when
    /// their transfers have ended.
    Busy,
    /// Nothing is left; the number may be freed.
    Done,
}

/// The point at which the teardown goes on.
#[derive(Debug, Default)]
pub(super) struct TeardownCursor {
    next: AtomicU32,
    /// Number of busy pages in this pass.
    busy: AtomicU32,
    /// The first of them.
    first_busy: AtomicU32,
    /// One beyond the last of them.
    busy_end: AtomicU32,
    /// One beyond the last page of this pass; 0 for the first pass, which covers all pages.
    end: AtomicU32,
    generation: AtomicU64,
    done: AtomicBool,
}

impl TeardownCursor {
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

impl MemoryObject {
    /// Starts to take the object apart. [`MemoryObject::teardown_step`] frees its frames once the
    /// ticket has passed.
    ///
    /// No vCPU may run on it any more, and the pager must start nothing for it.
    /// [`super::super::guest_bytes`] refuses it from now on.
    pub fn begin_teardown(&self, words: &QuiescentStates, me: CpuId) -> (FlushTicket, Kicks) {
        self.state.store(TEARDOWN, Ordering::SeqCst);
        if let Some(unread) = self.unread.get() {
            unread.close();
        }
        self.teardown.generation.store(self.generation.current(), Ordering::Release);
        self.flush(words, me)
    }

    /// Takes about `budget` pages apart at most. One thread at a time.
    ///
    /// # Panics
    /// If the teardown was not begun, or the proof is of an earlier ticket (our bug).
    pub fn teardown_step(&self, passed: &FlushProof, budget: u32) -> TeardownProgress {
        assert!(self.state() == ObjectState::Teardown, "a teardown is begun first");
        passed.covers(self.id, self.teardown.generation.load(Ordering::Acquire));
        let cursor = &self.teardown;
        let first = cursor.next.load(Ordering::Acquire);
        // A later pass covers only the range in which the pass before met busy pages.
        let end = match cursor.end.load(Ordering::Acquire) {
            0 => self.layout.pages(),
            end => end,
        };
        let mut left = budget;
        for page in self.pages(first..end) {
            cursor.next.store(page.index().0, Ordering::Release);
            if left == 0 {
                return cursor.unfinished();
            }
            left -= 1;
            match page.forget() {
                Ok(Some(frame)) => self.frames.free(frame),
                Ok(None) => {}
                Err(_) => cursor.note_busy(page.index().0),
            }
        }
        cursor.next.store(end, Ordering::Release);
        if cursor.begin_next_pass() {
            return TeardownProgress::Busy;
        }
        if !self.table.prune(left as usize) {
            return TeardownProgress::More;
        }
        cursor.done.store(true, Ordering::Release);
        TeardownProgress::Done
    }
}

impl TeardownCursor {
    fn note_busy(&self, page: u32) {
        if self.busy.fetch_add(1, Ordering::AcqRel) == 0 {
            self.first_busy.store(page, Ordering::Release);
        }
        self.busy_end.store(page + 1, Ordering::Release);
    }

    /// Goes back to the busy pages of the pass that has ended; returns whether there were any.
    fn begin_next_pass(&self) -> bool {
        if self.busy.swap(0, Ordering::AcqRel) == 0 {
            return false;
        }
        self.next.store(self.first_busy.load(Ordering::Acquire), Ordering::Release);
        self.end.store(self.busy_end.load(Ordering::Acquire), Ordering::Release);
        true
    }

    /// Returns the progress of a pass that has used up its budget. A later pass only looks at busy
    /// pages again: it is `Busy`, so that it keeps no CPU from idling.
    fn unfinished(&self) -> TeardownProgress {
        if self.end.load(Ordering::Acquire) == 0 {
            TeardownProgress::More
        } else {
            TeardownProgress::Busy
        }
    }
}
