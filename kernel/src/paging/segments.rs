//! The segments of the request that is being built: made once, as many as a batch has pages.

use super::batch::BATCH_PAGES;
use crate::addr::{Hpa, PAGE_SIZE};
use crate::block::Segment;
use alloc::boxed::Box;

/// Room for the segments of one request.
#[derive(Debug)]
pub(super) struct Segments {
    all: Box<[Segment; BATCH_PAGES]>,
    len: usize,
}

impl Segments {
    pub fn new() -> Self {
        Self { all: Box::new([Segment { base: Hpa::new(0), len: 0 }; BATCH_PAGES]), len: 0 }
    }

    /// Describes pages, each segment over as many as follow each other in memory; returns how many pages there were.
    ///
    /// # Panics
    /// If a request has more pages than a batch (our bug).
    #[inline(always)]
    pub fn gather(&mut self, pages: impl Iterator<Item = Hpa>, max_len: u32) -> usize {
        let page = PAGE_SIZE as u32;
        let (mut len, mut count) = (0, 0);
        // Where the last segment ends; no page begins there yet.
        let mut end = u64::MAX;
        for base in pages {
            let follows = base.as_u64() == end;
            end = base.as_u64().wrapping_add(PAGE_SIZE);
            count += 1;
            if follows && self.all[len - 1].len + page <= max_len {
                self.all[len - 1].len += page;
            } else {
                self.all[len] = Segment { base, len: page };
                len += 1;
            }
        }
        self.len = len;
        count
    }

    /// Returns what was gathered last.
    pub fn as_slice(&self) -> &[Segment] {
        &self.all[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(pages: &[u64], max_len: u32) -> Vec<(u64, u32)> {
        let mut segments = Segments::new();
        assert_eq!(segments.gather(pages.iter().map(|n| Hpa::new(n * PAGE_SIZE)), max_len), pages.len());
        segments.as_slice().iter().map(|s| (s.base.as_u64() / PAGE_SIZE, s.len / PAGE_SIZE as u32)).collect()
    }

    #[test]
    fn pages_that_follow_each_other_share_a_segment_up_to_its_limit() {
        assert_eq!(gathered(&[0, 1, 2, 4, 3], 1 << 20), [(0, 3), (4, 1), (3, 1)]);
        assert_eq!(gathered(&[5, 6, 7, 8, 9], 2 << 12), [(5, 2), (7, 2), (9, 1)]);
        assert_eq!(gathered(&[], 4096), []);
    }
}
