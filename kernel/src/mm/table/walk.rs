//! Iterates over the leaves of a range, and takes a table apart.

use super::{
    EMPTY, ENTRIES, EntryOf, GFN_LIMIT, LeafRef, ROOT, SecondLevelTable, TableEntry, TableMemory,
    TablePage, index_at,
};
use crate::addr::{Gfn, Hfn};
use core::ops::ControlFlow;

/// The leaves of a range, ascending. Subtrees without a path are skipped as a whole.
pub struct RangeLeaves<'a, M: TableMemory> {
    table: &'a SecondLevelTable<M>,
    next: u64,
    end: u64,
    /// The leaf table of the pages from `next` up to but not with `run_end`.
    page: M::Page<'a>,
    run_end: u64,
}

/// The result of a walk to one page.
enum Reached {
    LeafTable(Hfn),
    /// No path: the entry at this level is empty.
    Nothing(u32),
}

impl<M: TableMemory> SecondLevelTable<M> {
    /// Returns the leaves of the pages from `first` up to but not with `end`.
    pub fn slots(&self, first: Gfn, end: Gfn) -> RangeLeaves<'_, M> {
        let next = first.as_u64();
        RangeLeaves {
            table: self,
            next,
            end: end.as_u64().min(GFN_LIMIT),
            page: self.memory.page(self.root()),
            run_end: next,
        }
    }

    /// Returns how many pages from `gfn` on certainly have no path, up to the end of the empty
    /// entry; 0 if there is a path.
    pub fn gap(&self, gfn: Gfn) -> u64 {
        match self.reach(gfn) {
            Reached::LeafTable(_) => 0,
            Reached::Nothing(level) => skip(gfn.as_u64(), level) - gfn.as_u64(),
        }
    }

    /// Gives at most `budget` table pages back, deepest first; returns whether nothing but the root
    /// was left to give.
    ///
    /// No CPU may walk the table any more, hardware walkers included. The content of the leaves is
    /// lost.
    pub fn prune(&self, budget: usize) -> bool {
        for _ in 0..budget {
            if !self.prune_one() {
                return true;
            }
        }
        false
    }

    /// Gives back the first table page that has no table below it; returns whether there was one.
    fn prune_one(&self) -> bool {
        let Some((mut parent, mut index, mut page)) =
            self.first_child(self.root()).map(|(i, p)| (self.root(), i, p))
        else {
            return false;
        };
        for _ in 1..ROOT {
            let Some((below, child)) = self.first_child(page) else { break };
            (parent, index, page) = (page, below, child);
        }
        let entry = self.format.table_entry(page);
        let at = self.memory.page(parent).entry(index);
        let word = at.load();
        debug_assert!(word & entry == entry, "the entry points to the page that is given back");
        at.compare_exchange(word, EMPTY).expect("nobody walks a table that is taken apart");
        self.memory.free(page);
        true
    }

    fn first_child(&self, page: Hfn) -> Option<(usize, Hfn)> {
        (0..ENTRIES).find_map(|index| Some((index, self.child(page, index)?)))
    }

    fn reach(&self, gfn: Gfn) -> Reached {
        let mut page = self.root();
        for level in (1..=ROOT).rev() {
            match self.child(page, index_at(gfn, level)) {
                Some(child) => page = child,
                None => return Reached::Nothing(level),
            }
        }
        Reached::LeafTable(page)
    }
}

impl<'a, M: TableMemory> RangeLeaves<'a, M> {
    /// Calls `f` for all remaining leaves, until `f` breaks off. It takes fewer instructions than
    /// the iterator, because the loop over a leaf table does not touch `self`.
    #[inline]
    pub fn visit<B>(
        &mut self,
        mut f: impl FnMut(Gfn, LeafRef<EntryOf<'a, M>>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        while self.next < self.run_end || self.find() {
            let (format, page) = (self.table.format, self.page);
            for gfn in self.next..self.run_end {
                let slot = LeafRef { entry: page.entry(index_at(Gfn::new(gfn), 0)), format };
                if let ControlFlow::Break(value) = f(Gfn::new(gfn), slot) {
                    self.next = gfn + 1;
                    return ControlFlow::Break(value);
                }
            }
            self.next = self.run_end;
        }
        ControlFlow::Continue(())
    }

    /// Finds the next leaf table at or after `next`; returns whether there is one before the end.
    #[cold]
    fn find(&mut self) -> bool {
        while self.next < self.end {
            match self.table.reach(Gfn::new(self.next)) {
                Reached::LeafTable(page) => {
                    self.page = self.table.memory.page(page);
                    self.run_end = skip(self.next, 1).min(self.end);
                    return true;
                }
                Reached::Nothing(level) => self.next = skip(self.next, level),
            }
        }
        false
    }
}

/// Returns the first page behind the entry of `level` that holds `gfn`.
fn skip(gfn: u64, level: u32) -> u64 {
    (gfn | ((1 << (9 * level)) - 1)) + 1
}

impl<'a, M: TableMemory> Iterator for RangeLeaves<'a, M> {
    type Item = (Gfn, LeafRef<EntryOf<'a, M>>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.run_end && !self.find() {
            return None;
        }
        let gfn = Gfn::new(self.next);
        self.next += 1;
        Some((gfn, self.table.slot_at(self.page, gfn)))
    }
}

impl<M: TableMemory> Drop for SecondLevelTable<M> {
    /// Gives all pages back. To do it in bounded steps, call [`SecondLevelTable::prune`] first.
    fn drop(&mut self) {
        while self.prune_one() {}
        self.memory.free(self.root);
    }
}
