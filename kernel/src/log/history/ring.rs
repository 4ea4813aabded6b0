//! A ring of entries that any CPU may write and read at any time, without a lock.
//!
//! ```text
//!   sequence of a place:   0 ── claim n ──> 2n+1 ── words written ──> 2n+2 ── claim n+SIZE ──> ...
//!                        empty             being written             holds entry n
//! ```
//!
//! * A writer takes the next number and claims its place. If another writer is still in the place,
//!   the entry is dropped and counted: no writer ever waits. For that, a writer has to stand still
//!   while a whole ring of others passes.
//! * A reader copies the words between two reads of the sequence, and takes them only if both are
//!   the same even number (a seqlock). So an entry is never torn, and a CPU that stops in the
//!   middle of a write, as in a panic, costs that entry only.

use super::entry::{ENTRY_WORDS, HistoryEntry};
use core::sync::atomic::{AtomicU64, Ordering, fence};

/// A place of the ring.
struct RingPlace {
    sequence: AtomicU64,
    words: [AtomicU64; ENTRY_WORDS],
}

/// The last `SIZE` entries.
pub(super) struct HistoryRing<const SIZE: usize> {
    /// Number of the next entry.
    next: AtomicU64,
    dropped: AtomicU64,
    places: [RingPlace; SIZE],
}

impl<const SIZE: usize> HistoryRing<SIZE> {
    /// Makes an empty ring.
    pub(super) const fn new() -> Self {
        const {
            assert!(SIZE > 0);
            Self {
                next: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
                places: [const {
                    RingPlace {
                        sequence: AtomicU64::new(0),
                        words: [const { AtomicU64::new(0) }; ENTRY_WORDS],
                    }
                }; SIZE],
            }
        }
    }

    /// Adds an entry; the oldest makes room.
    pub(super) fn push(&self, entry: &HistoryEntry) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let place = self.place(number);
        let Some(claimed) = place.claim(number) else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        for (place, word) in place.words.iter().zip(entry.words()) {
            place.store(word, Ordering::Relaxed);
        }
        place.sequence.store(claimed + 1, Ordering::Release);
    }

    /// Calls `take` with each entry that is there and its number; the order is that of the places.
    pub(super) fn read(&self, mut take: impl FnMut(u64, HistoryEntry)) {
        for place in &self.places {
            if let Some((number, entry)) = place.read() {
                take(number, entry);
            }
        }
    }

    /// Returns how many entries were written that the ring no longer has.
    pub(super) fn gone(&self) -> u64 {
        self.next.load(Ordering::Relaxed).saturating_sub(SIZE as u64)
            + self.dropped.load(Ordering::Relaxed)
    }

    fn place(&self, number: u64) -> &RingPlace {
        &self.places[(number % SIZE as u64) as usize]
    }
}

impl RingPlace {
    /// Claims the place for entry `number`; returns the sequence of the claim. `None`: another
    /// writer has the place, or a later entry is there.
    fn claim(&self, number: u64) -> Option<u64> {
        let (before, claimed) = (self.sequence.load(Ordering::Relaxed), 2 * number + 1);
        let is_free = before.is_multiple_of(2) && before < claimed;
        if !is_free
            || self
                .sequence
                .compare_exchange(before, claimed, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
        {
            return None;
        }
        // A reader that sees one of the words that follow sees the claim too.
        fence(Ordering::Release);
        Some(claimed)
    }

    fn read(&self) -> Option<(u64, HistoryEntry)> {
        let before = self.sequence.load(Ordering::Acquire);
        if before == 0 || !before.is_multiple_of(2) {
            return None;
        }
        let mut words = [0; ENTRY_WORDS];
        for (word, place) in words.iter_mut().zip(&self.words) {
            *word = place.load(Ordering::Relaxed);
        }
        fence(Ordering::Acquire);
        (self.sequence.load(Ordering::Relaxed) == before)
            .then(|| (before / 2 - 1, HistoryEntry::of_words(words)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::history::entry::HistorySubject;
    use std::sync::atomic::AtomicBool;

    fn entry(n: u64) -> HistoryEntry {
        HistoryEntry {
            t_ns: n,
            kind: n as u16,
            of: HistorySubject::Machine,
            cpu: 0,
            code: n as u32,
            numbers: [n.wrapping_mul(0x9e37_79b9_7f4a_7c15), !n],
        }
    }

    fn all<const SIZE: usize>(ring: &HistoryRing<SIZE>) -> Vec<(u64, HistoryEntry)> {
        let mut found = Vec::new();
        ring.read(|number, entry| found.push((number, entry)));
        found.sort_by_key(|(number, _)| *number);
        found
    }

    #[test]
    fn the_last_entries_stay_in_order_and_the_others_are_counted() {
        let ring = HistoryRing::<8>::new();
        assert!(all(&ring).is_empty() && ring.gone() == 0);
        for n in 0..29 {
            ring.push(&entry(n));
            let first = (n + 1).saturating_sub(8);
            let expected: Vec<_> = (first..=n).map(|n| (n, entry(n))).collect();
            assert_eq!((all(&ring), ring.gone()), (expected, first));
        }
    }

    #[test]
    fn a_write_that_never_ends_costs_its_own_place_only() {
        let ring = HistoryRing::<4>::new();
        (0..6).for_each(|n| ring.push(&entry(n)));
        // Entry 6 takes place 2 and stops there.
        ring.next.fetch_add(1, Ordering::Relaxed);
        ring.place(6).claim(6).expect("a free place");
        assert_eq!(all(&ring), [3, 4, 5].map(|n| (n, entry(n))));
        (7..12).for_each(|n| ring.push(&entry(n)));
        assert_eq!(all(&ring), [8, 9, 11].map(|n| (n, entry(n))));
        assert_eq!(ring.gone(), 8 + 1);
    }

    #[test]
    fn a_later_entry_is_not_overwritten_by_a_late_writer() {
        let ring = HistoryRing::<4>::new();
        (0..9).for_each(|n| ring.push(&entry(n)));
        assert_eq!(ring.place(4).claim(4), None);
        assert_eq!(all(&ring), [5, 6, 7, 8].map(|n| (n, entry(n))));
    }

    #[test]
    fn a_reader_beside_writers_gets_whole_entries_only() {
        let ring = HistoryRing::<4>::new();
        let (writers, rounds) = (2, if cfg!(miri) { 100 } else { 200_000 });
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..writers)
                .map(|writer| {
                    let ring = &ring;
                    scope.spawn(move || {
                        (0..rounds).for_each(|n| ring.push(&entry(n * writers + writer)))
                    })
                })
                .collect();
            let reader = scope.spawn(|| {
                let mut seen = 0_u64;
                while !ended.load(Ordering::Relaxed) {
                    ring.read(|_, found| {
                        assert_eq!(found, entry(found.t_ns));
                        seen += 1;
                    });
                }
                seen
            });
            writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
            ended.store(true, Ordering::Relaxed);
            assert!(reader.join().expect("the reader") > 0);
        });
        let left = all(&ring);
        assert!(left.len() <= 4 && left.iter().all(|(_, found)| *found == entry(found.t_ns)));
        assert!(ring.gone() >= writers * rounds - 4);
    }
}
