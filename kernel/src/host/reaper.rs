//! Takes unused memory objects apart, a piece at a time.
//!
//! ```text
//!   detach (I/O ends) ──> begin, flush ──ticket passed──> pages and tables freed ──> number free
//! ```

use super::NodePager;
use crate::arch::percpu::CpuId;
use crate::mm::flush::{FlushProof, FlushTicket, Kicks, QuiescentStates};
use crate::mm::object::{MemoryObject, ObjectTable, TeardownProgress};
use crate::sync::{RankedLock, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Most pages that one visit takes apart.
const BUDGET: u32 = 512;

enum TeardownStep {
    Detach,
    Flush(FlushTicket),
    Apart(FlushProof),
}

/// State of an object after a piece of work.
enum TeardownState {
    /// More can be done at once; these CPUs have to be kicked.
    GoesOn(Kicks),
    /// A request of a disk has to end first.
    Waits,
    /// Its frames and its tables are free.
    Gone,
}

struct TeardownJob {
    object: Arc<MemoryObject>,
    step: TeardownStep,
    done: Arc<AtomicBool>,
}

/// The objects that are being taken apart.
pub struct Reaper {
    /// New objects. A task may add one, and tasks run under the lock of all tasks.
    inbox: RankedLock<Vec<TeardownJob>, { rank::EVENTS }>,
    list: RankedLock<Vec<TeardownJob>, { rank::SCHEDULER }>,
    /// Objects that are being taken apart.
    count: AtomicUsize,
    /// Those of them that wait for silent disks.
    held: AtomicUsize,
}

/// Tells whether an object is gone, together with its frames and its number.
#[derive(Clone, Debug)]
pub struct TeardownDone(Arc<AtomicBool>);

impl TeardownDone {
    /// Returns whether the object is gone.
    pub fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Reaper {
    /// Makes an empty list.
    pub const fn new() -> Self {
        Self {
            inbox: RankedLock::new(Vec::new()),
            list: RankedLock::new(Vec::new()),
            count: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
        }
    }

    /// Takes an object on which no vCPU runs; it is taken apart in the background.
    pub fn reap(&self, object: Arc<MemoryObject>) -> TeardownDone {
        let done = Arc::new(AtomicBool::new(false));
        self.count.fetch_add(1, Ordering::AcqRel);
        self.inbox.lock().push(TeardownJob {
            object,
            step: TeardownStep::Detach,
            done: done.clone(),
        });
        TeardownDone(done)
    }

    /// Returns whether no object is left.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Returns whether the only objects left wait for disks that do not answer.
    pub fn is_quiet(&self) -> bool {
        self.count.load(Ordering::Acquire) == self.held.load(Ordering::Acquire)
    }

    /// Does a piece of work; returns the CPUs to kick, and whether more can be done at once.
    pub fn poll(
        &self,
        pager: &NodePager,
        words: &QuiescentStates,
        objects: &ObjectTable,
        me: CpuId,
    ) -> (Kicks, bool) {
        if self.is_empty() {
            return (Kicks(0), false);
        }
        let Some(mut list) = self.list.try_lock() else { return (Kicks(0), true) };
        list.append(&mut self.inbox.lock());
        let (mut kicks, mut busy, mut held) = (Kicks(0), false, 0);
        list.retain_mut(|job| {
            match job.advance(pager, words, me) {
                TeardownState::GoesOn(kick) => {
                    kicks.0 |= kick.0;
                    busy = true;
                }
                TeardownState::Waits => {
                    held += usize::from(pager.is_held_by_disk(job.object.id()));
                }
                TeardownState::Gone => {
                    objects.remove(job.object.clone());
                    job.done.store(true, Ordering::Release);
                    self.count.fetch_sub(1, Ordering::AcqRel);
                    return false;
                }
            }
            true
        });
        self.held.store(held, Ordering::Release);
        (kicks, busy)
    }
}

impl Default for Reaper {
    fn default() -> Self {
        Self::new()
    }
}

impl TeardownJob {
    /// Takes the object further apart.
    fn advance(&mut self, pager: &NodePager, words: &QuiescentStates, me: CpuId) -> TeardownState {
        match &mut self.step {
            TeardownStep::Detach => match pager.detach(self.object.id()) {
                Err(crate::paging::AttachError::Busy) => TeardownState::Waits,
                _ => {
                    let (ticket, kicks) = self.object.begin_teardown(words, me);
                    self.step = TeardownStep::Flush(ticket);
                    TeardownState::GoesOn(kicks)
                }
            },
            TeardownStep::Flush(ticket) => {
                if let Some(passed) = ticket.poll(words) {
                    self.step = TeardownStep::Apart(passed);
                }
                TeardownState::GoesOn(Kicks(0))
            }
            TeardownStep::Apart(passed) => match self.object.teardown_step(passed, BUDGET) {
                TeardownProgress::Done => TeardownState::Gone,
                TeardownProgress::More => TeardownState::GoesOn(Kicks(0)),
                TeardownProgress::Busy => TeardownState::Waits,
            },
        }
    }
}
