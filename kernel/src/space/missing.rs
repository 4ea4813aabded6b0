//! Pages below the drain's progress that a dump lacks, because their blocks are unreadable or
//! wrong.
//!
//! The bitmap cannot express that: below the progress a page without its bit is zero. So the record
//! lists such pages as ascending, disjoint ranges. When the list is full, the progress stays at the
//! first page that does not fit: beyond the progress a page without its bit is missing anyway.
//!
//! ```text
//!   missing    m m         m           too many from here on
//!   progress   ──────────────────────> stays here
//! ```

use arrayvec::ArrayVec;

use super::raw::MAX_MISSING;
use crate::addr::PageIndex;

/// A run of missing pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MissingRange {
    /// The first page.
    pub first: u32,
    /// Number of pages, at least one.
    pub count: u32,
}

impl MissingRange {
    const fn end(self) -> u32 {
        self.first.saturating_add(self.count)
    }
}

/// The pages that are missing below the progress.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MissingPages {
    ranges: ArrayVec<MissingRange, MAX_MISSING>,
}

/// The list is full: the progress must not go beyond this page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MissingFullError(pub PageIndex);

impl MissingPages {
    /// Returns the ranges, ascending.
    pub fn ranges(&self) -> &[MissingRange] {
        &self.ranges
    }

    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns the number of missing pages.
    pub fn count(&self) -> u32 {
        self.ranges.iter().map(|range| range.count).sum()
    }

    /// Returns whether page `index` is missing.
    pub fn holds(&self, index: PageIndex) -> bool {
        let behind = self.ranges.partition_point(|range| range.first <= index.0);
        behind.checked_sub(1).is_some_and(|at| index.0 < self.ranges[at].end())
    }

    /// Returns how many pages from `index` on are all in the list, or all not in it.
    pub fn alike(&self, index: PageIndex) -> u32 {
        let next = self.ranges.iter().find(|range| range.end() > index.0);
        let Some(range) = next else { return u32::MAX };
        if range.first <= index.0 { range.end() - index.0 } else { range.first - index.0 }
    }

    /// Adds a range, which must not begin before the end of the last one; an empty range changes
    /// nothing.
    ///
    /// # Errors
    /// [`MissingFullError`] with the first page that does not fit.
    pub fn push(&mut self, range: MissingRange) -> Result<(), MissingFullError> {
        if range.count == 0 {
            return Ok(());
        }
        if let Some(last) = self.ranges.last_mut()
            && last.end() == range.first
        {
            last.count += range.count;
            return Ok(());
        }
        self.ranges.try_push(range).map_err(|_| MissingFullError(PageIndex(range.first)))
    }

    /// Makes the list from a record's ranges; `None` unless they ascend, do not overlap, and end at
    /// or before `pages`.
    pub(super) fn from_ranges(
        ranges: impl Iterator<Item = MissingRange>,
        pages: u32,
    ) -> Option<Self> {
        let (mut list, mut next) = (Self::default(), 0);
        for range in ranges {
            let end = range.first.checked_add(range.count).filter(|end| *end <= pages)?;
            if range.count == 0 || range.first < next {
                return None;
            }
            list.push(range).ok()?;
            next = end;
        }
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, count: u32) -> MissingRange {
        MissingRange { first, count }
    }

    #[test]
    fn neighbours_become_one_range() {
        let mut list = MissingPages::default();
        for first in [3, 4, 9] {
            list.push(range(first, 1)).unwrap();
        }
        list.push(range(20, 0)).unwrap();
        assert_eq!(list.ranges(), [range(3, 2), range(9, 1)]);
        let held: Vec<u32> = (0..12).filter(|&n| list.holds(PageIndex(n))).collect();
        assert_eq!((held, list.count()), (vec![3, 4, 9], 3));
    }

    #[test]
    fn alike_pages_end_where_a_range_begins_or_ends() {
        let mut list = MissingPages::default();
        assert_eq!(list.alike(PageIndex(7)), u32::MAX);
        list.push(range(3, 2)).unwrap();
        list.push(range(9, 1)).unwrap();
        assert_eq!(
            [0, 3, 4, 5, 9, 10].map(|n| list.alike(PageIndex(n))),
            [3, 2, 1, 4, 1, u32::MAX]
        );
    }

    #[test]
    fn a_full_list_names_the_page_where_progress_has_to_stop() {
        let mut list = MissingPages::default();
        (0..MAX_MISSING as u32).for_each(|n| list.push(range(2 * n, 1)).unwrap());
        let next = 2 * MAX_MISSING as u32;
        assert_eq!(list.push(range(next, 1)), Err(MissingFullError(PageIndex(next))));
        // The last range can still grow.
        assert_eq!(list.push(range(next - 1, 1)), Ok(()));
    }

    #[test]
    fn ranges_out_of_order_or_bounds_are_refused() {
        let of = |ranges: &[MissingRange]| MissingPages::from_ranges(ranges.iter().copied(), 100);
        assert!(of(&[range(0, 1), range(99, 1)]).is_some());
        assert!(of(&[range(5, 1), range(4, 1)]).is_none());
        assert!(of(&[range(5, 2), range(6, 1)]).is_none());
        assert!(of(&[range(99, 2)]).is_none());
        assert!(of(&[range(5, 0)]).is_none());
        assert!(of(&[range(u32::MAX, 2)]).is_none());
    }
}
