//! The number of an object's pages in each state.

use crate::mm::{
    crc::Crc32c,
    leaf::{EMPTY, LeafState, TableFormat, state_of},
    table::LeafWord,
};
use core::sync::atomic::{AtomicU32, Ordering};

/// Pages of an object by state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "named after the states of `Leaf`")]
pub struct PageCounts {
    pub untouched: u32,
    pub zero: u32,
    pub resident: u32,
    pub going_out: u32,
    pub paged: u32,
    pub coming_in: u32,
    pub shared: u32,
}

/// The live counters by [`LeafWord::state`]; their sum is the number of pages once no transition is
/// in progress.
#[derive(Debug)]
pub(in crate::mm) struct PageCounters {
    states: [AtomicU32; 8],
    /// Pages that show a frame of the base; `states` counts them as resident, so that the counting
    /// of all others needs no case for them.
    shared: AtomicU32,
}

impl PageCounters {
    /// Makes the counters of `pages` untouched pages.
    pub(super) fn new(pages: u32) -> Self {
        let counts = Self { states: [const { AtomicU32::new(0) }; 8], shared: AtomicU32::new(0) };
        counts.states[state_of(EMPTY)].store(pages, Ordering::Relaxed);
        counts
    }

    /// Counts a page that went from one state to another.
    #[inline]
    pub(in crate::mm) fn moved(&self, from: LeafWord, to: LeafWord) {
        let (from, to) = (from.state(), to.state());
        if from != to {
            self.states[from].fetch_sub(1, Ordering::Relaxed);
            self.states[to].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts untouched pages that turned out to be in their blocks.
    pub(super) fn adopted(&self, pages: u32) {
        const PAGED: usize = state_of(TableFormat::EPT.encode(LeafState::Paged(Crc32c(0))));
        self.states[state_of(EMPTY)].fetch_sub(pages, Ordering::Relaxed);
        self.states[PAGED].fetch_add(pages, Ordering::Relaxed);
    }

    /// Counts a page that shows a frame of the base from now on.
    pub(in crate::mm) fn shown(&self) {
        self.shared.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a page that shows no frame of the base any more.
    pub(in crate::mm) fn hidden(&self) {
        self.shared.fetch_sub(1, Ordering::Relaxed);
    }

    /// Reads all counters. The result is not of one moment while transitions are in progress.
    pub(super) fn snapshot(&self) -> PageCounts {
        let [untouched, zero, going_out, paged, coming_in, resident, _, _] =
            core::array::from_fn(|n| self.states[n].load(Ordering::Relaxed));
        let shared = self.shared.load(Ordering::Relaxed);
        let resident = resident.saturating_sub(shared);
        PageCounts { untouched, zero, resident, going_out, paged, coming_in, shared }
    }
}
