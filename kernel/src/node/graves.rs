//! Memory objects that nobody needs any more, taken apart a piece at a time.
//!
//! ```text
//!   detach (I/O ends) ──> begin, flush ──ticket passed──> pages and tables given back ──> number free
//! ```

use super::NodePager;
use crate::arch::percpu::CpuId;
use crate::mm::flush::{CpuWords, Kicks, Passed, Ticket};
use crate::mm::object::{MemoryObject, ObjectTable, Progress};
use crate::sync::{Ranked, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Pages that one visit takes apart at most.
const BUDGET: u32 = 512;

enum Step {
    Detach,
    Flush(Ticket),
    Apart(Passed),
}

struct Grave {
    object: Arc<MemoryObject>,
    step: Step,
    done: Arc<AtomicBool>,
}

/// What is being taken apart.
pub struct Graves {
    /// New ones: a task may bury, which runs under the lock of all tasks.
    inbox: Ranked<Vec<Grave>, { rank::EVENTS }>,
    list: Ranked<Vec<Grave>, { rank::SCHEDULER }>,
    /// Buried and not gone.
    count: AtomicUsize,
    /// Of these, how many wait for disks that do not answer.
    held: AtomicUsize,
}

/// Tells whether an object is gone, its frames and numbers with it.
#[derive(Clone, Debug)]
pub struct Gone(Arc<AtomicBool>);

impl Gone {
    /// Returns whether it is.
    pub fn is_gone(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Graves {
    /// Nothing to take apart.
    pub const fn new() -> Self {
        Self {
            inbox: Ranked::new(Vec::new()),
            list: Ranked::new(Vec::new()),
            count: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
        }
    }

    /// Takes an object that no vCPU runs on; it goes in the background.
    pub fn bury(&self, object: Arc<MemoryObject>) -> Gone {
        let done = Arc::new(AtomicBool::new(false));
        self.count.fetch_add(1, Ordering::AcqRel);
        self.inbox.lock().push(Grave { object, step: Step::Detach, done: done.clone() });
        Gone(done)
    }

    /// Returns whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Returns whether nothing is left but what disks that do not answer still have.
    pub fn is_quiet(&self) -> bool {
        self.count.load(Ordering::Acquire) == self.held.load(Ordering::Acquire)
    }

    /// Does a piece of work; returns the CPUs to kick and whether there is more to do at once.
    pub fn poll(&self, pager: &NodePager, words: &CpuWords, objects: &ObjectTable, me: CpuId) -> (Kicks, bool) {
        if self.is_empty() {
            return (Kicks(0), false);
        }
        let Some(mut list) = self.list.try_lock() else { return (Kicks(0), true) };
        list.append(&mut self.inbox.lock());
        let (mut kicks, mut busy, mut held) = (Kicks(0), false, 0);
        list.retain_mut(|grave| {
            let (more, kick) = grave.dig(pager, words, me);
            kicks.0 |= kick.0;
            busy |= more == Some(true);
            held += usize::from(more == Some(false) && pager.is_held_by_disk(grave.object.id()));
            if more.is_none() {
                objects.remove(grave.object.clone());
                grave.done.store(true, Ordering::Release);
                self.count.fetch_sub(1, Ordering::AcqRel);
            }
            more.is_some()
        });
        self.held.store(held, Ordering::Release);
        (kicks, busy)
    }
}

impl Default for Graves {
    fn default() -> Self {
        Self::new()
    }
}

impl Grave {
    /// Goes on; `None` when it is gone, else whether there is more to do at once.
    fn dig(&mut self, pager: &NodePager, words: &CpuWords, me: CpuId) -> (Option<bool>, Kicks) {
        match &mut self.step {
            Step::Detach => match pager.detach(self.object.id()) {
                Err(crate::paging::AttachError::Busy) => (Some(false), Kicks(0)),
                _ => {
                    let (ticket, kicks) = self.object.begin_teardown(words, me);
                    self.step = Step::Flush(ticket);
                    (Some(true), kicks)
                }
            },
            Step::Flush(ticket) => {
                if let Some(passed) = ticket.poll(words) {
                    self.step = Step::Apart(passed);
                }
                (Some(true), Kicks(0))
            }
            Step::Apart(passed) => match self.object.teardown_step(passed, BUDGET) {
                Progress::Done => (None, Kicks(0)),
                Progress::More => (Some(true), Kicks(0)),
                Progress::Busy => (Some(false), Kicks(0)),
            },
        }
    }
}
