//! The second-level table engine.

/// The reserve of table pages is empty: refill it, or wait, and try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfTables;

/// Frames set apart for table pages, all of them empty tables.
#[derive(Debug)]
pub struct TableReserve {}

impl TableReserve {
    /// Takes the frames of `frames` as table pages.
    pub fn new(_frames: super::frames::FrameTable, _map: super::phys::DirectMap) -> Self {
        todo!()
    }
    /// Returns how many table pages are left.
    pub fn free_count(&self) -> u32 {
        todo!()
    }
    /// Returns how many table pages an object of `pages` RAM pages can need.
    pub const fn pages_for(pages: u64) -> u64 {
        pages.div_ceil(512) + 8
    }
}
