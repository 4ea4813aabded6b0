//! Which pages of a dump are final: the rule that bitmap and drain progress obey.
//!
//! | bit | page below the progress | page not yet reached |
//! |---|---|---|
//! | 1 | its block holds it | its block holds it (paged out, or clean, before the crash) |
//! | 0 | it is zero | not final: missing from a partial dump |
//!
//! Progress is advanced only after the blocks and the bitmap below it are on the medium.

use crate::addr::PageIndex;

/// What a dump knows of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// The page's block holds it.
    Block,
    /// All zeros; the block is stale.
    Zero,
    /// Not there.
    Missing,
}

/// Returns what the dump knows of page `index`; a bitmap that is too short has zeros behind its end.
pub fn content_of(bitmap: &[u8], progress: u32, index: PageIndex) -> Content {
    let byte = bitmap.get(index.0 as usize / 8).copied().unwrap_or(0);
    if byte >> (index.0 % 8) & 1 == 1 {
        Content::Block
    } else if index.0 < progress {
        Content::Zero
    } else {
        Content::Missing
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
    use super::*;

    #[test]
    fn a_page_without_a_bit_is_zero_only_below_the_progress() {
        let mut bitmap = [0; 2];
        mark_block(&mut bitmap, PageIndex(9));
        mark_block(&mut bitmap, PageIndex(0));
        mark_block(&mut bitmap, PageIndex(16));
        assert_eq!(bitmap, [1, 2]);
        let at = |n| content_of(&bitmap, 9, PageIndex(n));
        assert_eq!(
            [at(0), at(8), at(9), at(10), at(99)].map(|c| c as u8),
            [Content::Block as u8, Content::Zero as u8, Content::Block as u8, Content::Missing as u8, Content::Missing as u8]
        );
    }
}
