//! Determines which pages of a dump are final: the rule for bitmap and drain progress.
//!
//! | bit | page below the progress | page not yet reached |
//! |---|---|---|
//! | 1 | its block holds it, unless the record lists it as missing | its block holds it (paged out, or clean, before the crash) |
//! | 0 | it is zero, unless the record lists it as missing | not final: missing from a partial dump |
//!
//! Progress is advanced only after the blocks and the bitmap below it are on the medium.

use super::missing::MissingPages;
use crate::addr::PageIndex;

/// State of a page in a dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DumpPageState {
    /// The page's block holds it.
    Block,
    /// All zeros; the block is stale.
    Zero,
    /// The dump lacks the page.
    Missing,
}

/// Returns the state of page `index` in the dump, by the page's bit.
pub fn content_of_bit(
    bit: bool,
    progress: u32,
    missing: &MissingPages,
    index: PageIndex,
) -> DumpPageState {
    if missing.holds(index) {
        // Overrides the bit: the block was found wrong after the bit was set.
        DumpPageState::Missing
    } else if bit {
        DumpPageState::Block
    } else if index.0 < progress {
        DumpPageState::Zero
    } else {
        DumpPageState::Missing
    }
}

/// Like [`content_of_bit`], with the bit of `bitmap`.
#[cfg(test)]
pub fn content_of(
    bitmap: &[u8],
    progress: u32,
    missing: &MissingPages,
    index: PageIndex,
) -> DumpPageState {
    content_of_bit(has_bit(bitmap, index), progress, missing, index)
}

/// Returns the bit of page `index`; clear beyond the end.
pub fn has_bit(bitmap: &[u8], index: PageIndex) -> bool {
    let byte = bitmap.get(index.0 as usize / 8).copied().unwrap_or(0);
    byte >> (index.0 % 8) & 1 == 1
}

/// Returns how many pages from `index` on have the same bit, as far as whole equal bytes show; at
/// least 1.
pub fn alike_bits(bitmap: &[u8], index: PageIndex) -> u32 {
    let Some(bytes) = bitmap.get(index.0 as usize / 8..).filter(|_| index.0.is_multiple_of(8))
    else {
        return 1;
    };
    match bytes.first() {
        Some(&first) if first == 0 || first == 0xff => {
            let same = bytes.iter().take_while(|byte| **byte == first).count();
            u32::try_from(same).unwrap_or(u32::MAX).saturating_mul(8)
        }
        _ => 1,
    }
}

/// Sets the bit of page `index`; does nothing beyond the end.
pub fn mark_block(bitmap: &mut [u8], index: PageIndex) {
    if let Some(byte) = bitmap.get_mut(index.0 as usize / 8) {
        *byte |= 1 << (index.0 % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::super::missing::MissingRange;
    use super::*;

    #[test]
    fn a_page_without_a_bit_is_zero_only_below_the_progress() {
        let mut bitmap = [0; 2];
        mark_block(&mut bitmap, PageIndex(9));
        mark_block(&mut bitmap, PageIndex(0));
        mark_block(&mut bitmap, PageIndex(16));
        assert_eq!(bitmap, [1, 2]);
        let at = |n| content_of(&bitmap, 9, &MissingPages::default(), PageIndex(n));
        assert_eq!(
            [at(0), at(8), at(9), at(10), at(99)].map(|c| c as u8),
            [
                DumpPageState::Block as u8,
                DumpPageState::Zero as u8,
                DumpPageState::Block as u8,
                DumpPageState::Missing as u8,
                DumpPageState::Missing as u8
            ]
        );
    }

    #[test]
    fn alike_bits_are_whole_bytes_of_zeros_or_ones() {
        let bitmap = [0, 0, 0xff, 0x0f, 0xff];
        let at = |n| alike_bits(&bitmap, PageIndex(n));
        assert_eq!(
            [at(0), at(3), at(8), at(16), at(24), at(32), at(40), at(u32::MAX)],
            [16, 1, 8, 8, 1, 8, 1, 1]
        );
    }

    #[test]
    fn a_page_that_the_record_lists_is_missing_below_the_progress_too() {
        let mut missing = MissingPages::default();
        missing.push(MissingRange { first: 3, count: 2 }).unwrap();
        let at = |n| content_of(&[0b1001], 16, &missing, PageIndex(n));
        assert_eq!([at(0), at(2), at(3), at(4), at(5)], {
            use DumpPageState::*;
            [Block, Zero, Missing, Missing, Zero]
        });
    }
}
