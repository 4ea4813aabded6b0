//! The segments of the request that is being built: allocated once, one for each page of a batch.

use super::batch::BATCH_PAGES;
use crate::addr::{Hpa, PAGE_SIZE};
use crate::block::DmaSegment;
use alloc::boxed::Box;

/// Room for the segments of one request.
#[derive(Debug)]
pub(super) struct SegmentBuffer {
    all: Box<[DmaSegment; BATCH_PAGES]>,
    len: usize,
}

impl SegmentBuffer {
    pub(super) fn new() -> Self {
        Self { all: Box::new([DmaSegment { base: Hpa::new(0), len: 0 }; BATCH_PAGES]), len: 0 }
    }

    /// Describes pages by segments; each covers as many pages as are contiguous in memory. Returns
    /// the number of pages.
    ///
    /// # Panics
    /// If a request has more pages than a batch (our bug).
    #[inline(always)]
    pub(super) fn gather(&mut self, pages: impl Iterator<Item = Hpa>, max_len: u32) -> usize {
        // Runs for each page of a request. No sum exceeds the bytes of a request, so overflow is
        // not checked.
        let page = PAGE_SIZE as u32;
        let (mut len, mut count) = (0_usize, 0_usize);
        // End of the last segment, and the bytes that may still be added to it. No page begins at
        // the initial end.
        let (mut end, mut room) = (u64::MAX, 0);
        for base in pages {
            let follows = base.as_u64() == end && room >= page;
            end = base.as_u64().wrapping_add(PAGE_SIZE);
            count = count.wrapping_add(1);
            if follows {
                let last = &mut self.all[len.wrapping_sub(1)];
                last.len = last.len.wrapping_add(page);
                room = room.wrapping_sub(page);
            } else {
                self.all[len] = DmaSegment { base, len: page };
                len = len.wrapping_add(1);
                room = max_len.saturating_sub(page);
            }
        }
        self.len = len;
        count
    }

    /// Describes one page, the common case of a page-in.
    #[inline(always)]
    pub(super) fn single(&mut self, base: Hpa) {
        self.all[0] = DmaSegment { base, len: PAGE_SIZE as u32 };
        self.len = 1;
    }

    /// Returns the segments gathered last.
    pub(super) fn as_slice(&self) -> &[DmaSegment] {
        &self.all[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(pages: &[u64], max_len: u32) -> Vec<(u64, u32)> {
        let mut segments = SegmentBuffer::new();
        assert_eq!(
            segments.gather(pages.iter().map(|n| Hpa::new(n * PAGE_SIZE)), max_len),
            pages.len()
        );
        segments
            .as_slice()
            .iter()
            .map(|s| (s.base.as_u64() / PAGE_SIZE, s.len / PAGE_SIZE as u32))
            .collect()
    }

    #[test]
    fn pages_that_follow_each_other_share_a_segment_up_to_its_limit() {
        assert_eq!(gathered(&[0, 1, 2, 4, 3], 1 << 20), [(0, 3), (4, 1), (3, 1)]);
        assert_eq!(gathered(&[5, 6, 7, 8, 9], 2 << 12), [(5, 2), (7, 2), (9, 1)]);
        assert_eq!(gathered(&[], 4096), []);
    }

    #[test]
    fn one_page_is_one_segment_whatever_was_gathered_before() {
        let mut segments = SegmentBuffer::new();
        segments.gather([1, 3, 5].map(|n| Hpa::new(n * PAGE_SIZE)).into_iter(), 1 << 20);
        segments.single(Hpa::new(7 * PAGE_SIZE));
        assert_eq!(segments.as_slice(), [DmaSegment { base: Hpa::new(7 * PAGE_SIZE), len: 4096 }]);
    }
}
