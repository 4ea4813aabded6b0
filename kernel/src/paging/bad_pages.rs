//! Pages of an object whose blocks were unreadable or did not match their checksums.
//!
//! A drain has to know all of them, or it would seal a damaged dump as complete. So when the list
//! is full, the two nearest ranges are joined together with the pages between them. The list may
//! contain intact pages, but never misses a bad one. A user of the list therefore reads each block
//! again before it acts on it.

use crate::addr::PageIndex;
use arrayvec::ArrayVec;
use core::ops::Range;

/// Most ranges in the list.
const MAX_RANGES: usize = 32;

/// The suspected pages, as ascending ranges.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BadPages {
    ranges: ArrayVec<(u32, u32), MAX_RANGES>,
}

impl BadPages {
    /// Adds a page.
    pub fn note(&mut self, index: PageIndex) {
        let at = self.ranges.partition_point(|(_, end)| *end < index.0);
        match self.ranges.get_mut(at) {
            // Inside the range, or adjacent to one of its ends.
            Some((first, end)) if *first <= index.0.saturating_add(1) => {
                *first = (*first).min(index.0);
                *end = (*end).max(index.0.saturating_add(1));
            }
            _ => {
                if self.ranges.is_full() {
                    self.join_nearest();
                    return self.note(index);
                }
                self.ranges.insert(at, (index.0, index.0.saturating_add(1)));
            }
        }
        self.join_touching(at);
    }

    /// Returns the ranges, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u32>> {
        self.ranges.iter().map(|(first, end)| *first..*end)
    }

    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    fn join_touching(&mut self, at: usize) {
        if let (Some(&(_, end)), Some(&(next_first, next_end))) =
            (self.ranges.get(at), self.ranges.get(at + 1))
            && next_first <= end
        {
            self.ranges[at].1 = end.max(next_end);
            self.ranges.remove(at + 1);
        }
    }

    /// Joins the two neighbouring ranges with the fewest pages between them.
    fn join_nearest(&mut self) {
        let gap = |at: &usize| self.ranges[at + 1].0 - self.ranges[*at].1;
        if let Some(at) = (0..self.ranges.len() - 1).min_by_key(gap) {
            self.ranges[at].1 = self.ranges[at + 1].1;
            self.ranges.remove(at + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pages: impl IntoIterator<Item = u32>) -> BadPages {
        let mut bad = BadPages::default();
        pages.into_iter().for_each(|page| bad.note(PageIndex(page)));
        bad
    }

    fn ranges(bad: &BadPages) -> Vec<Range<u32>> {
        bad.ranges().collect()
    }

    #[test]
    fn neighbours_in_any_order_are_one_range() {
        assert_eq!(ranges(&of([5, 4, 6, 9, 8, 2])), [2..3, 4..7, 8..10]);
        assert_eq!(ranges(&of([4, 6, 5])), ranges(&of([4, 5, 6])));
        assert_eq!(ranges(&of([0, 0, u32::MAX - 1])), [0..1, u32::MAX - 1..u32::MAX]);
    }

    #[test]
    fn no_page_is_ever_forgotten() {
        let mut seed = 0x9e37_79b9_u32;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed % 5000
        };
        for _ in 0..200 {
            let pages: Vec<u32> = (0..80).map(|_| next()).collect();
            let bad = of(pages.iter().copied());
            assert!(
                pages.iter().all(|page| bad.ranges().any(|range| range.contains(page))),
                "{pages:?}"
            );
            let all = ranges(&bad);
            assert!(all.windows(2).all(|pair| pair[0].end < pair[1].start), "{all:?}");
        }
    }

    #[test]
    fn where_there_is_no_room_the_nearest_become_one() {
        let bad = of((0..MAX_RANGES as u32).map(|n| n * 10).chain([3, 1000]));
        assert_eq!(ranges(&bad)[0], 0..11);
        assert!(bad.ranges().all(|range| range.len() <= 14));
    }
}
