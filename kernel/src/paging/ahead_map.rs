//! Notes which pages of an object were read along and are not yet known to be used.
//!
//! ```text
//!   page   31 ...... 15 | 14 ... 6 | 5 .. 0
//!          chunk          word       bit       a chunk: 512 words, 128 MiB of the guest's memory
//! ```
//!
//! Only resident pages are noted, so there are never more notes than the pool has frames. A bitmap
//! over all logical pages would grow with the partition's size instead. So a chunk exists only
//! where there are notes, and an object has at most [`MOST_CHUNKS`]; the oldest chunk makes room.
//! The notes are a hint for reading along. A note may be lost, and no operation waits or fails
//! because no memory is left for one.

use crate::addr::PageIndex;
use crate::arch::heap;
use alloc::vec::Vec;

/// Words of a chunk: 4 KiB.
const CHUNK_WORDS: u32 = 512;
/// Most chunks of an object: 256 KiB for 8 GiB of memory that is paged in along with other pages.
const MOST_CHUNKS: usize = 64;

/// The bits of one chunk, and its number.
#[derive(Debug)]
struct Chunk {
    number: u32,
    bits: Vec<u64>,
}

/// Notes about the pages of one object.
#[derive(Debug)]
pub(super) struct AheadMap {
    /// By chunk number: 0, or one more than the index in `chunks`. Empty if the allocation failed.
    places: Vec<u8>,
    chunks: Vec<Chunk>,
    /// The chunk that makes room next.
    oldest: usize,
    /// Bits that are set.
    count: u32,
}

impl AheadMap {
    /// Makes an empty map for an object of `pages` pages.
    pub(super) fn new(pages: u32) -> Self {
        let chunks = pages.div_ceil(64 * CHUNK_WORDS) as usize;
        Self {
            places: heap::spare(chunks).unwrap_or_default(),
            chunks: Vec::new(),
            oldest: 0,
            count: 0,
        }
    }

    /// Notes that a page was read along with a neighbour.
    pub(super) fn note(&mut self, index: PageIndex) {
        let (word, bit) = (index.0 / 64, 1 << (index.0 % 64));
        let Some(bits) = self.word_to_set(word) else { return };
        let is_new = *bits & bit == 0;
        *bits |= bit;
        self.count += u32::from(is_new);
    }

    /// Clears the note that a page was read along; returns whether there was one.
    #[inline]
    pub(super) fn take(&mut self, index: PageIndex) -> bool {
        self.count > 0 && self.take_noted(index)
    }

    #[inline(never)]
    fn take_noted(&mut self, index: PageIndex) -> bool {
        let (word, bit) = (index.0 / 64, 1 << (index.0 % 64));
        let Some(place) = self.place(word) else { return false };
        let bits = &mut self.chunks[place].bits[(word % CHUNK_WORDS) as usize];
        let was = *bits & bit != 0;
        *bits &= !bit;
        self.count -= u32::from(was);
        was
    }

    /// Returns whether nothing is noted.
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the notes about the 64 pages from `64 * word` on.
    pub(super) fn word(&self, word: u32) -> u64 {
        self.place(word).map_or(0, |place| self.chunks[place].bits[(word % CHUNK_WORDS) as usize])
    }

    /// Returns the first word at or after `word` that may hold notes: `word` itself if its chunk
    /// exists, else the first word after that chunk.
    pub(super) fn skip(&self, word: u32) -> u32 {
        if self.place(word).is_some() {
            word
        } else {
            (word / CHUNK_WORDS + 1).saturating_mul(CHUNK_WORDS)
        }
    }

    #[inline]
    fn place(&self, word: u32) -> Option<usize> {
        let place = self.places.get((word / CHUNK_WORDS) as usize).copied()?;
        usize::from(place).checked_sub(1)
    }

    fn word_to_set(&mut self, word: u32) -> Option<&mut u64> {
        let place = match self.place(word) {
            Some(place) => place,
            None => self.make(word / CHUNK_WORDS)?,
        };
        self.chunks.get_mut(place)?.bits.get_mut((word % CHUNK_WORDS) as usize)
    }

    /// Makes a chunk. It replaces the oldest one at the limit of chunks or when no memory is left.
    #[cold]
    fn make(&mut self, number: u32) -> Option<usize> {
        self.places.get(number as usize)?;
        let place = match self.another() {
            Some(bits) => {
                self.chunks.push(Chunk { number, bits });
                self.chunks.len() - 1
            }
            None => self.reuse(number)?,
        };
        self.places[number as usize] = place as u8 + 1;
        Some(place)
    }

    fn another(&mut self) -> Option<Vec<u64>> {
        if self.chunks.len() == MOST_CHUNKS {
            return None;
        }
        self.chunks.try_reserve(1).ok()?;
        heap::spare(CHUNK_WORDS as usize)
    }

    /// Discards the notes of the oldest chunk and gives it another number.
    fn reuse(&mut self, number: u32) -> Option<usize> {
        let place = self.oldest.checked_rem(self.chunks.len())?;
        self.oldest = place + 1;
        let chunk = &mut self.chunks[place];
        self.count -= chunk.bits.iter().map(|bits| bits.count_ones()).sum::<u32>();
        chunk.bits.fill(0);
        self.places[chunk.number as usize] = 0;
        chunk.number = number;
        Some(place)
    }
}

const _: () = assert!(MOST_CHUNKS < u8::MAX as usize, "a place fits into a byte");

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK_PAGES: u32 = 64 * CHUNK_WORDS;

    #[test]
    fn a_note_is_taken_once_and_belongs_to_its_page_alone() {
        let mut map = AheadMap::new(u32::MAX);
        for page in [0, 63, 64, CHUNK_PAGES - 1, CHUNK_PAGES, u32::MAX - 1] {
            map.note(PageIndex(page));
            map.note(PageIndex(page));
        }
        assert_eq!((map.count, map.chunks.len()), (6, 3));
        assert!(!map.take(PageIndex(1)) && !map.take(PageIndex(2 * CHUNK_PAGES)));
        assert_eq!(
            [map.word(0), map.word(1), map.word(2), map.word(CHUNK_WORDS)],
            [1 | 1 << 63, 1, 0, 1]
        );
        for page in [0, 63, 64, CHUNK_PAGES - 1, CHUNK_PAGES, u32::MAX - 1] {
            assert!(map.take(PageIndex(page)) && !map.take(PageIndex(page)), "{page}");
        }
        assert!(map.is_empty());
    }

    #[test]
    fn memory_follows_the_notes_and_is_bounded() {
        let mut map = AheadMap::new(u32::MAX);
        let chunks = u32::MAX / CHUNK_PAGES;
        for chunk in 0..chunks {
            map.note(PageIndex(chunk * CHUNK_PAGES + 7));
            map.note(PageIndex(chunk * CHUNK_PAGES + 8));
        }
        assert_eq!((map.chunks.len(), map.count), (MOST_CHUNKS, 2 * MOST_CHUNKS as u32));
        let kept = (0..chunks)
            .filter(|chunk| map.take(PageIndex(chunk * CHUNK_PAGES + 7)))
            .collect::<Vec<_>>();
        assert_eq!(
            kept,
            (chunks - MOST_CHUNKS as u32..chunks).collect::<Vec<_>>(),
            "the oldest made room"
        );
        assert_eq!(map.count, MOST_CHUNKS as u32);
    }

    #[test]
    fn words_without_a_chunk_are_passed_over() {
        let mut map = AheadMap::new(10 * CHUNK_PAGES);
        map.note(PageIndex(3 * CHUNK_PAGES + 64));
        let chunk = |n: u32| n * CHUNK_WORDS;
        assert_eq!(
            [map.skip(0), map.skip(chunk(3) - 1), map.skip(chunk(3) + 5)],
            [chunk(1), chunk(3), chunk(3) + 5]
        );
        assert_eq!(
            (map.skip(chunk(10)), map.word(chunk(10)), map.word(u32::MAX)),
            (chunk(11), 0, 0)
        );
        map.note(PageIndex(10 * CHUNK_PAGES));
        assert_eq!(map.count, 1, "no page of the object");
    }
}
