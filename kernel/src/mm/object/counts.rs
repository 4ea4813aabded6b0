//! How many pages of an object are in which state.

use crate::mm::leaf::Leaf;
use core::sync::atomic::{AtomicU32, Ordering};

/// Pages of an object by state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct PageCounts {
    pub untouched: u32,
    pub zero: u32,
    pub resident: u32,
    pub going_out: u32,
    pub paged: u32,
    pub coming_in: u32,
    pub loaned: u32,
}

/// The live counters, one for each state; their sum is the number of pages once no transition is under way.
#[derive(Debug)]
pub(in crate::mm) struct Counts([AtomicU32; 7]);

impl Counts {
    /// All `pages` untouched.
    pub(super) fn new(pages: u32) -> Self {
        let counts = Self([const { AtomicU32::new(0) }; 7]);
        counts.0[position(Leaf::Untouched)].store(pages, Ordering::Relaxed);
        counts
    }

    /// Counts a page that went from one state to another.
    #[inline]
    pub(in crate::mm) fn moved(&self, from: Leaf, to: Leaf) {
        let (from, to) = (position(from), position(to));
        if from != to {
            self.0[from].fetch_sub(1, Ordering::Relaxed);
            self.0[to].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads all; not at one moment, where transitions are under way.
    pub(super) fn snapshot(&self) -> PageCounts {
        let [untouched, zero, resident, going_out, paged, coming_in, loaned] =
            core::array::from_fn(|n| self.0[n].load(Ordering::Relaxed));
        PageCounts { untouched, zero, resident, going_out, paged, coming_in, loaned }
    }
}

#[inline]
const fn position(leaf: Leaf) -> usize {
    match leaf {
        Leaf::Untouched => 0,
        Leaf::Zero => 1,
        Leaf::Present(_) => 2,
        Leaf::GoingOut(_) => 3,
        Leaf::Paged(_) => 4,
        Leaf::ComingIn(_) => 5,
        Leaf::Loaned => 6,
    }
}
