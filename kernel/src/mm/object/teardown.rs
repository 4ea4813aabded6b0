//! Taking an object apart in bounded steps: frames first, then table pages.

use super::{MemoryObject, ObjectState, TEARDOWN};
use crate::arch::percpu::CpuId;
use crate::mm::flush::{CpuWords, Kicks, Passed, Ticket};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// How far a teardown is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The budget is used up.
    More,
    /// A page is pinned, claimed, going out or coming in: come back when that transfer has ended.
    Busy,
    /// Nothing is left; the number may be freed.
    Done,
}

/// Where the teardown goes on.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    next: AtomicU32,
    generation: AtomicU64,
    done: AtomicBool,
}

impl Cursor {
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

impl MemoryObject {
    /// Starts to take the object apart; frames come free in [`MemoryObject::teardown_step`] once the ticket has passed.
    ///
    /// No vCPU runs on it any more, the pager starts nothing for it; [`super::super::guest_bytes`] refuses it from now on.
    pub fn begin_teardown(&self, words: &CpuWords, me: CpuId) -> (Ticket, Kicks) {
        self.state.store(TEARDOWN, Ordering::SeqCst);
        self.teardown.generation.store(self.generation.current(), Ordering::Release);
        self.flush(words, me)
    }

    /// Takes at most about `budget` pages apart. One thread at a time.
    ///
    /// # Panics
    /// If the teardown was not begun, or the proof is of an earlier ticket (our bug).
    pub fn teardown_step(&self, passed: &Passed, budget: u32) -> Progress {
        assert!(self.state() == ObjectState::Teardown, "a teardown is begun first");
        passed.covers(self.id, self.teardown.generation.load(Ordering::Acquire));
        let first = self.teardown.next.load(Ordering::Acquire);
        let mut left = budget;
        for page in self.pages(first..self.layout.pages()) {
            self.teardown.next.store(page.index().0, Ordering::Release);
            if left == 0 {
                return Progress::More;
            }
            left -= 1;
            match page.forget() {
                Ok(Some(frame)) => self.frames.free(frame),
                Ok(None) => {}
                Err(_) => return Progress::Busy,
            }
        }
        self.teardown.next.store(self.layout.pages(), Ordering::Release);
        if !self.table.prune(left as usize) {
            return Progress::More;
        }
        self.teardown.done.store(true, Ordering::Release);
        Progress::Done
    }
}
