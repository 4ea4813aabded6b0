//! The second-level table engine: four levels over a memory policy, for EPT and NPT alike.
//!
//! ```text
//!  guest page number   35..27   26..18   17..9    8..0
//!                      root ──> table ──> table ──> leaf table: 512 leaves of 4 KiB
//! ```
//!
//! The engine builds paths, walks them and takes them apart. [`super::leaf`] and [`super::page`]
//! define the meaning of a leaf. A [`TableMemory`] provides table pages and the access to their
//! entries: [`TableReserve`] on the machine, a memory that records its history in the tests.
//!
//! Invariants:
//! * A table page is empty (every entry [`EMPTY`]) before an entry points to it, except for a leaf
//!   table whose leaves are known: it is linked whole. An entry changes from empty to a table once.
//!   So a CPU that walks at the same time sees a path or none, and two CPUs that build the same
//!   path agree on one.
//! * Linked table pages are given back only by [`SecondLevelTable::prune`] or with the table, when
//!   no CPU walks it any more.
//! * Nothing here allocates except from the reserve.
//!
//! All leaves are 4 KiB. A 2 MiB leaf has one D bit for 512 blocks and needs a table page to be
//! split. It would pay only for pages that have no block yet, with table pages reserved for the
//! split. It would be a fourth kind of entry in `child`, and need a split before the first
//! write-out.

mod reserve;
mod slot;
#[cfg(test)]
mod tests;
mod walk;

use super::leaf::{EMPTY, LeafState, TableFormat, frame_of, is_table};
use crate::addr::{Gfn, Hfn};
use alloc::sync::Arc;
pub use reserve::TableReserve;
pub use slot::{LeafRef, LeafWord};
pub use walk::RangeLeaves;

/// Entries in a table.
pub const ENTRIES: usize = 512;
/// Guest pages that four levels can name.
pub const GFN_LIMIT: u64 = 1 << 36;
/// The root's level; leaf tables are level 0.
const ROOT: u32 = 3;

/// The reserve of table pages is empty: wait until some come back, and try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfTablesError;

/// One entry of a table, shared with the hardware: every access is one atomic operation; writes are
/// ordered both ways.
pub trait TableEntry: Copy {
    /// Reads the entry.
    fn load(self) -> u64;
    /// Writes the entry if it still is `old`.
    ///
    /// # Errors
    /// The word found instead.
    fn compare_exchange(self, old: u64, new: u64) -> Result<(), u64>;
}

/// A table page that is taken and not given back.
pub trait TablePage: Copy {
    /// The access to an entry.
    type Entry: TableEntry;

    /// Returns an entry.
    fn entry(self, index: usize) -> Self::Entry;
}

/// The source of table pages, and the access to them.
pub trait TableMemory {
    /// The access to a page.
    type Page<'a>: TablePage
    where
        Self: 'a;

    /// Takes a page, every entry [`EMPTY`].
    fn alloc(&self) -> Option<Hfn>;
    /// Gives a page back.
    fn free(&self, table: Hfn);
    /// Returns a page that is taken and not given back.
    fn page(&self, table: Hfn) -> Self::Page<'_>;
}

impl<M: TableMemory> TableMemory for Arc<M> {
    type Page<'a>
        = M::Page<'a>
    where
        Self: 'a;

    fn alloc(&self) -> Option<Hfn> {
        (**self).alloc()
    }
    fn free(&self, table: Hfn) {
        (**self).free(table);
    }
    #[inline]
    fn page(&self, table: Hfn) -> Self::Page<'_> {
        (**self).page(table)
    }
}

/// A second-level table.
#[derive(Debug)]
pub struct SecondLevelTable<M: TableMemory> {
    memory: M,
    format: &'static TableFormat,
    root: Hfn,
}

/// The entries of a policy's pages.
type EntryOf<'a, M> = <<M as TableMemory>::Page<'a> as TablePage>::Entry;

impl<M: TableMemory> SecondLevelTable<M> {
    /// Makes a table whose pages are all untouched.
    ///
    /// # Errors
    /// [`OutOfTablesError`]: no page for the root.
    pub fn new(memory: M, format: &'static TableFormat) -> Result<Self, OutOfTablesError> {
        let root = memory.alloc().ok_or(OutOfTablesError)?;
        Ok(Self { memory, format, root })
    }

    /// Returns the root's frame, for the EPTP or nCR3.
    pub fn root(&self) -> Hfn {
        self.root
    }

    /// Returns the memory policy.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Returns the leaf of a page, or `None` if its path is not built (the page is untouched) or
    /// there is no such page.
    #[inline]
    pub fn slot(&self, gfn: Gfn) -> Option<LeafRef<EntryOf<'_, M>>> {
        self.leaves(gfn)?.slot(gfn)
    }

    /// Returns the leaf of a page and builds its path from the reserve; `None` if there is no such
    /// page.
    ///
    /// # Errors
    /// [`OutOfTablesError`]: the reserve is empty. The part of the path that was built stays and is
    /// used the next time.
    pub fn slot_or_build(
        &self,
        gfn: Gfn,
    ) -> Result<Option<LeafRef<EntryOf<'_, M>>>, OutOfTablesError> {
        let table = self.leaf_table(gfn, |page, index| match self.child(page, index) {
            Some(child) => Ok(child),
            None => self.build_child(page, index),
        })?;
        Ok(table.map(|table| self.slot_at(self.memory.page(table), gfn)))
    }

    #[inline]
    fn leaf_table(
        &self,
        gfn: Gfn,
        step: impl Fn(Hfn, usize) -> Result<Hfn, OutOfTablesError>,
    ) -> Result<Option<Hfn>, OutOfTablesError> {
        if gfn.as_u64() >= GFN_LIMIT {
            return Ok(None);
        }
        let mut page = self.root;
        for level in (1..=ROOT).rev() {
            page = step(page, index_at(gfn, level))?;
        }
        Ok(Some(page))
    }

    /// Returns the leaf table of a page, or `None` as for [`SecondLevelTable::slot`].
    #[inline]
    pub fn leaves(&self, gfn: Gfn) -> Option<LeafTableView<'_, M>> {
        let hfn = self
            .leaf_table(gfn, |page, index| self.child(page, index).ok_or(OutOfTablesError))
            .ok()??;
        Some(self.leaves_at(LeafTable { hfn, number: gfn.as_u64() >> 9 }))
    }

    /// Returns a leaf table of this table that was found before, without a walk. The leaf table is
    /// not given back while the object has work in progress.
    #[inline]
    pub fn leaves_at(&self, at: LeafTable) -> LeafTableView<'_, M> {
        LeafTableView { table: self, page: self.memory.page(at.hfn), at }
    }

    #[inline]
    fn slot_at<'a>(&'a self, page: M::Page<'a>, gfn: Gfn) -> LeafRef<EntryOf<'a, M>> {
        LeafRef { entry: page.entry(index_at(gfn, 0)), format: self.format }
    }

    #[inline]
    fn child(&self, page: Hfn, index: usize) -> Option<Hfn> {
        let word = self.memory.page(page).entry(index).load();
        is_table(word).then(|| frame_of(word))
    }

    /// Links a leaf table with these leaves where none is; returns whether none was. The others are
    /// [`EMPTY`].
    ///
    /// # Errors
    /// [`OutOfTablesError`], as for [`SecondLevelTable::slot_or_build`].
    pub fn link_leaves(
        &self,
        first: Gfn,
        leaf: impl Fn(usize) -> Option<LeafState>,
    ) -> Result<bool, OutOfTablesError> {
        let mut page = self.root;
        for level in (2..=ROOT).rev() {
            let index = index_at(first, level);
            page = match self.child(page, index) {
                Some(child) => child,
                None => self.build_child(page, index)?,
            };
        }
        let new = self.memory.alloc().ok_or(OutOfTablesError)?;
        let leaves = self.memory.page(new);
        for (index, leaf) in (0..ENTRIES).filter_map(|index| Some((index, leaf(index)?))) {
            let filled = leaves.entry(index).compare_exchange(EMPTY, self.format.encode(leaf));
            assert!(filled.is_ok(), "a table that is not linked is this caller's alone");
        }
        let entry = self.memory.page(page).entry(index_at(first, 1));
        let is_new = entry.compare_exchange(EMPTY, self.format.table_entry(new)).is_ok();
        if !is_new {
            self.memory.free(new);
        }
        Ok(is_new)
    }

    /// Links a new table. If another CPU was faster, returns that CPU's table.
    fn build_child(&self, page: Hfn, index: usize) -> Result<Hfn, OutOfTablesError> {
        let new = self.memory.alloc().ok_or(OutOfTablesError)?;
        match self
            .memory
            .page(page)
            .entry(index)
            .compare_exchange(EMPTY, self.format.table_entry(new))
        {
            Ok(()) => Ok(new),
            Err(word) => {
                assert!(is_table(word), "an entry above the leaves is empty or a table");
                self.memory.free(new);
                Ok(frame_of(word))
            }
        }
    }
}

/// The place of a leaf table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafTable {
    hfn: Hfn,
    /// Its number among all possible leaf tables.
    number: u64,
}

impl LeafTable {
    /// A leaf table that holds the leaf of no page.
    pub const NONE: Self = Self { hfn: Hfn::new(0), number: u64::MAX };
}

/// One leaf table.
pub struct LeafTableView<'a, M: TableMemory> {
    table: &'a SecondLevelTable<M>,
    page: M::Page<'a>,
    at: LeafTable,
}

impl<M: TableMemory> Clone for LeafTableView<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: TableMemory> Copy for LeafTableView<'_, M> {}

impl<'a, M: TableMemory> LeafTableView<'a, M> {
    /// Returns the leaf of a page, or `None` if it is in another table.
    #[inline]
    pub fn slot(&self, gfn: Gfn) -> Option<LeafRef<EntryOf<'a, M>>> {
        (gfn.as_u64() >> 9 == self.at.number).then(|| self.table.slot_at(self.page, gfn))
    }

    /// Returns the leaf of the page that this table was found for.
    #[inline]
    pub fn slot_of(&self, gfn: Gfn) -> LeafRef<EntryOf<'a, M>> {
        debug_assert!(
            gfn.as_u64() >> 9 == self.at.number,
            "a table is asked for the page that it was found for"
        );
        self.table.slot_at(self.page, gfn)
    }

    /// Returns the place of the table, for [`SecondLevelTable::leaves_at`].
    #[inline]
    pub fn at(&self) -> LeafTable {
        self.at
    }
}

#[inline]
fn index_at(gfn: Gfn, level: u32) -> usize {
    (gfn.as_u64() >> (9 * level)) as usize % ENTRIES
}
