//! A span of a crashed child's pages, of which some are inherited and some are its own.
//!
//! Runs of one kind may be short: a child that writes every third page has runs of two. So the span
//! is copied as a whole, and its own pages are put back into it.

use super::SPAN;
use crate::addr::{PAGE_SIZE, PageIndex};
use crate::mm::crc::Crc32c;
use arrayvec::ArrayVec;
use core::ops::Range;

const PAGE: usize = PAGE_SIZE as usize;

/// Pages from `first` on; the checksum of each that is inherited and not zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct InheritedSpan {
    pub first: PageIndex,
    pub sums: ArrayVec<Option<Crc32c>, SPAN>,
}

impl InheritedSpan {
    /// Returns the span from its first inherited page to its last; `None` if it has none.
    pub(super) fn trimmed(self) -> Option<Self> {
        let start = self.sums.iter().position(Option::is_some)?;
        let end = self.sums.iter().rposition(Option::is_some)? + 1;
        let first = PageIndex(self.first.0 + start as u32);
        Some(Self { first, sums: self.sums[start..end].iter().copied().collect() })
    }

    pub(super) fn len(&self) -> u32 {
        self.sums.len() as u32
    }

    /// Returns whether some of its pages are the image's own, or zero.
    pub(super) fn has_own(&self) -> bool {
        self.sums.iter().any(Option::is_none)
    }

    /// Returns the inherited pages with their checksums and their content in `bytes`.
    pub(super) fn inherited<'b>(
        &self,
        bytes: &'b [u8],
    ) -> impl Iterator<Item = (PageIndex, Crc32c, &'b [u8])> {
        let pages = (self.first.0..).zip(self.sums.iter().zip(bytes.chunks(PAGE)));
        pages.filter_map(|(n, (sum, page))| Some((PageIndex(n), (*sum)?, page)))
    }

    /// Puts the pages that are not inherited from `own` into `bytes`.
    pub(super) fn put_own(&self, own: &[u8], bytes: &mut [u8]) {
        let pages = self.sums.iter().zip(own.chunks(PAGE).zip(bytes.chunks_mut(PAGE)));
        for (_, (mine, page)) in pages.filter(|(sum, _)| sum.is_none()) {
            page.copy_from_slice(mine);
        }
    }

    /// Returns the runs of inherited pages, counted from the span's first.
    pub(super) fn runs(&self) -> impl Iterator<Item = Range<u32>> {
        let mut next = 0;
        core::iter::from_fn(move || {
            let rest = self.sums.get(next..)?;
            let start = next + rest.iter().position(Option::is_some)?;
            let run = self.sums[start..].iter().take_while(|sum| sum.is_some()).count();
            next = start + run;
            Some(start as u32..next as u32)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(kinds: &[u8]) -> InheritedSpan {
        let sums = kinds.iter().map(|kind| (*kind != 0).then_some(Crc32c((*kind).into())));
        InheritedSpan { first: PageIndex(100), sums: sums.collect() }
    }

    #[test]
    fn a_span_begins_and_ends_with_an_inherited_page() {
        assert_eq!(span(&[0, 0, 0]).trimmed(), None);
        let trimmed = span(&[0, 1, 0, 2, 0]).trimmed().unwrap();
        assert_eq!((trimmed.first, trimmed.len(), trimmed.has_own()), (PageIndex(101), 3, true));
        let whole = span(&[1, 2]);
        assert!(!whole.has_own() && whole.clone().trimmed() == Some(whole));
    }

    #[test]
    fn runs_are_what_is_inherited() {
        let runs: Vec<_> = span(&[0, 1, 1, 0, 0, 2]).runs().collect();
        assert_eq!(runs, [1..3, 5..6]);
        assert_eq!(span(&[]).runs().count() + span(&[0]).runs().count(), 0);
    }

    #[test]
    fn own_pages_go_back_between_inherited_ones() {
        let span = span(&[1, 0, 2]);
        let own = [[7; PAGE], [8; PAGE], [9; PAGE]].concat();
        let mut bytes = [[1; PAGE], [2; PAGE], [3; PAGE]].concat();
        let found: Vec<_> =
            span.inherited(&bytes).map(|(n, sum, page)| (n.0, sum.0, page[0])).collect();
        assert_eq!(found, [(100, 1, 1), (102, 2, 3)]);
        span.put_own(&own, &mut bytes);
        assert_eq!([bytes[0], bytes[PAGE], bytes[2 * PAGE]], [1, 8, 3]);
    }
}
