//! Finds the pages of an object.

use super::MemoryObject;
use crate::addr::PageIndex;
use crate::mm::page::Page;
use crate::mm::table::{LeafTable, LeafTableView, OutOfTablesError, TableReserve};
use alloc::sync::Arc;

impl MemoryObject {
    /// Returns page `index`, with the tables that it needs made from the reserve.
    ///
    /// # Errors
    /// [`OutOfTablesError`]: the reserve is empty.
    ///
    /// # Panics
    /// If it is no page of this object (our bug: indices come from `RamLayout::index_of`).
    #[inline]
    pub fn page(&self, index: PageIndex) -> Result<Page<'_>, OutOfTablesError> {
        match self.existing(index) {
            Some(page) => Ok(page),
            None => self.build(index),
        }
    }

    /// Returns page `index`, or `None` if it has no table yet (then it is untouched) or is no page
    /// of this object.
    #[inline]
    pub fn existing(&self, index: PageIndex) -> Option<Page<'_>> {
        let slot = self.table.slot(self.layout.gfn_of(index)?)?;
        Some(Page::new(self, slot, index))
    }

    /// Returns page `index` and its leaf table, in which its neighbours are found without another
    /// walk. `None` as for [`MemoryObject::existing`].
    #[inline]
    pub fn locate(&self, index: PageIndex) -> Option<(LeafTablePages<'_>, Page<'_>)> {
        let gfn = self.layout.gfn_of(index)?;
        let leaves = self.table.leaves(gfn)?;
        let page = Page::new(self, leaves.slot_of(gfn), index);
        Some((LeafTablePages { object: self, leaves }, page))
    }

    /// Returns a leaf table that was found before, without a walk. Only for work in progress,
    /// during which an object keeps its tables.
    #[inline]
    pub fn near_at(&self, at: LeafTable) -> LeafTablePages<'_> {
        LeafTablePages { object: self, leaves: self.table.leaves_at(at) }
    }

    #[cold]
    fn build(&self, index: PageIndex) -> Result<Page<'_>, OutOfTablesError> {
        let gfn = self.layout.gfn_of(index).expect("a page index comes from the object's layout");
        let slot = self.table.slot_or_build(gfn)?.expect("a layout's pages are within four levels");
        Ok(Page::new(self, slot, index))
    }
}

/// Finds pages one after another. A page in the same leaf table as the last one needs no walk.
pub struct PageFinder<'a> {
    object: &'a MemoryObject,
    near: Option<LeafTablePages<'a>>,
}

impl<'a> PageFinder<'a> {
    /// Makes a finder of the pages of `object`.
    pub const fn new(object: &'a MemoryObject) -> Self {
        Self { object, near: None }
    }

    /// Returns page `index`, or `None` as for [`MemoryObject::existing`].
    #[inline]
    pub fn find(&mut self, index: PageIndex) -> Option<Page<'a>> {
        if let Some(page) = self.near.and_then(|near| near.page(index)) {
            return Some(page);
        }
        let (near, page) = self.object.locate(index)?;
        self.near = Some(near);
        Some(page)
    }
}

/// The pages that share a leaf table.
#[derive(Clone, Copy)]
pub struct LeafTablePages<'a> {
    object: &'a MemoryObject,
    leaves: LeafTableView<'a, Arc<TableReserve>>,
}

impl<'a> LeafTablePages<'a> {
    /// Returns the object.
    #[inline]
    pub const fn object(&self) -> &'a MemoryObject {
        self.object
    }

    /// Returns the place of the leaf table, for [`MemoryObject::near_at`].
    #[inline]
    pub fn at(&self) -> LeafTable {
        self.leaves.at()
    }

    /// Returns page `index`, or `None` if its leaf is in another table or it is no page of the
    /// object.
    #[inline]
    pub fn page(&self, index: PageIndex) -> Option<Page<'a>> {
        let slot = self.leaves.slot(self.object.layout.gfn_of(index)?)?;
        Some(Page::new(self.object, slot, index))
    }
}
