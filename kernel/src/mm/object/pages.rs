//! Going over an object's pages: the clock's, the drain's and the teardown's way.

use super::MemoryObject;
use crate::addr::PageIndex;
use crate::mm::{
    layout::RamRange,
    page::Page,
    table::{Slots, TableReserve},
};
use alloc::sync::Arc;
use core::ops::Range;

/// The pages of a range that have a table, ascending; the others are untouched.
pub struct Pages<'a, R> {
    object: &'a MemoryObject,
    /// The pages that are wanted.
    wanted: Range<u32>,
    /// RAM ranges still to come.
    ranges: R,
    slots: Slots<'a, Arc<TableReserve>>,
    /// Guest page number less page index in the present RAM range.
    distance: u64,
}

impl MemoryObject {
    /// Goes over the pages of `range` that have a table, ascending; the others are untouched.
    pub fn pages(&self, range: Range<u32>) -> Pages<'_, impl Iterator<Item = RamRange> + use<>> {
        let none = crate::addr::Gfn::new(0);
        Pages { object: self, wanted: range, ranges: self.layout.ranges(), slots: self.table.slots(none, none), distance: 0 }
    }
}

impl<'a, R: Iterator<Item = RamRange>> Pages<'a, R> {
    /// Goes on with the next RAM range; returns whether there is one.
    #[cold]
    fn advance(&mut self) -> bool {
        let Some(ram) = self.ranges.next() else { return false };
        let (base, end) = (u64::from(ram.index), u64::from(ram.index) + ram.count);
        let from = u64::from(self.wanted.start).clamp(base, end);
        let to = u64::from(self.wanted.end).clamp(from, end);
        let gfn = |index: u64| ram.first.checked_add(index - base).expect("a layout's pages have numbers");
        self.slots = self.object.table.slots(gfn(from), gfn(to));
        self.distance = ram.first.as_u64() - base;
        true
    }
}

impl<'a, R: Iterator<Item = RamRange>> Iterator for Pages<'a, R> {
    type Item = Page<'a>;

    #[inline]
    fn next(&mut self) -> Option<Page<'a>> {
        loop {
            if let Some((gfn, slot)) = self.slots.next() {
                let index = gfn.as_u64().wrapping_sub(self.distance);
                return Some(Page::new(self.object, slot, PageIndex(index as u32)));
            }
            if !self.advance() {
                return None;
            }
        }
    }
}
