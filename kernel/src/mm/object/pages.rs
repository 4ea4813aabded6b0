//! Iterates over an object's pages, for the clock, the drain and the teardown.

use super::MemoryObject;
use crate::addr::{Gfn, PageIndex};
use crate::mm::{
    layout::RamRange,
    page::Page,
    table::{RangeLeaves, TableReserve},
};
use alloc::sync::Arc;
use core::ops::{ControlFlow, Range};

/// The pages of a range that have a table, ascending; all others are untouched.
pub struct RangePages<'a, R> {
    object: &'a MemoryObject,
    /// The requested pages.
    wanted: Range<u32>,
    /// RAM ranges still to come.
    ranges: R,
    slots: RangeLeaves<'a, Arc<TableReserve>>,
    /// Guest page number less page index in the present RAM range.
    distance: u64,
}

impl MemoryObject {
    /// Returns the pages of `range` that have a table, ascending; all others are untouched.
    pub fn pages(
        &self,
        range: Range<u32>,
    ) -> RangePages<'_, impl Iterator<Item = RamRange> + use<>> {
        let none = Gfn::new(0);
        RangePages {
            object: self,
            wanted: range,
            ranges: self.layout.ranges(),
            slots: self.table.slots(none, none),
            distance: 0,
        }
    }
}

impl<'a, R: Iterator<Item = RamRange>> RangePages<'a, R> {
    /// Calls `f` for all remaining pages, until `f` breaks off; a sweep's inner loop.
    #[inline]
    pub fn visit<B>(mut self, mut f: impl FnMut(Page<'a>) -> ControlFlow<B>) -> ControlFlow<B> {
        loop {
            let (object, distance) = (self.object, self.distance);
            self.slots.visit(|gfn, slot| f(Page::new(object, slot, page_index(gfn, distance))))?;
            if !self.advance() {
                return ControlFlow::Continue(());
            }
        }
    }

    /// Goes on with the next RAM range; returns whether there is one.
    #[cold]
    fn advance(&mut self) -> bool {
        let Some(ram) = self.ranges.next() else { return false };
        let (base, end) = (u64::from(ram.index), u64::from(ram.index) + ram.count);
        let from = u64::from(self.wanted.start).clamp(base, end);
        let to = u64::from(self.wanted.end).clamp(from, end);
        let gfn = |index: u64| {
            ram.first.checked_add(index - base).expect("a layout's pages have numbers")
        };
        self.slots = self.object.table.slots(gfn(from), gfn(to));
        self.distance = ram.first.as_u64() - base;
        true
    }
}

impl<'a, R: Iterator<Item = RamRange>> Iterator for RangePages<'a, R> {
    type Item = Page<'a>;

    #[inline]
    fn next(&mut self) -> Option<Page<'a>> {
        loop {
            if let Some((gfn, slot)) = self.slots.next() {
                return Some(Page::new(self.object, slot, page_index(gfn, self.distance)));
            }
            if !self.advance() {
                return None;
            }
        }
    }
}

#[inline]
fn page_index(gfn: Gfn, distance: u64) -> PageIndex {
    PageIndex(gfn.as_u64().wrapping_sub(distance) as u32)
}
