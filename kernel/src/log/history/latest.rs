//! The newest entries of several rings, in the order of their times.

use super::entry::HistoryEntry;
use arrayvec::ArrayVec;
use core::fmt;

/// The newest `MOST` of the entries that were added, oldest first.
#[derive(Clone, Debug, Default)]
pub struct LatestEntries<const MOST: usize> {
    /// Each with its number in its ring, which orders entries of one time.
    kept: ArrayVec<(u64, HistoryEntry), MOST>,
    gone: u64,
}

impl<const MOST: usize> LatestEntries<MOST> {
    /// Makes the empty list.
    pub const fn new() -> Self {
        Self { kept: ArrayVec::new_const(), gone: 0 }
    }

    pub(super) fn add(&mut self, number: u64, entry: HistoryEntry) {
        let is_before =
            |(other, kept): &(u64, HistoryEntry)| (kept.t_ns, *other) <= (entry.t_ns, number);
        let mut at = self.kept.partition_point(is_before);
        if self.kept.is_full() {
            self.gone += 1;
            if at == 0 {
                return;
            }
            self.kept.remove(0);
            at -= 1;
        }
        self.kept.insert(at, (number, entry));
    }

    pub(super) fn add_gone(&mut self, entries: u64) {
        self.gone += entries;
    }

    /// Returns the entries, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &HistoryEntry> {
        self.kept.iter().map(|(_, entry)| entry)
    }

    /// Returns how many older entries there were.
    pub const fn gone(&self) -> u64 {
        self.gone
    }
}

/// An entry on a line of its own, with its time relative to another one.
pub struct RelativeEntry<'a> {
    /// The entry.
    pub entry: &'a HistoryEntry,
    /// The time that counts as 0, in ns since the hypervisor's start.
    pub zero_ns: u64,
}

impl fmt::Display for RelativeEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.entry.t_ns.abs_diff(self.zero_ns) / 1000;
        let sign = if self.entry.t_ns > self.zero_ns { '+' } else { '-' };
        write!(f, "{sign}{:5}.{:06} s  {}", us / 1_000_000, us % 1_000_000, self.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::history::entry::HistorySubject;

    fn at(t_ns: u64) -> HistoryEntry {
        let of = HistorySubject::Machine;
        HistoryEntry { t_ns, kind: 112, of, cpu: 0, code: 1, numbers: [0; 2] }
    }

    #[test]
    fn entries_in_any_order_come_out_by_time_and_the_oldest_are_counted() {
        for order in [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [3, 5, 1, 4, 2]] {
            let mut latest = LatestEntries::<3>::new();
            order.into_iter().for_each(|t_ns| latest.add(0, at(t_ns)));
            assert_eq!(latest.iter().map(|entry| entry.t_ns).collect::<Vec<_>>(), [3, 4, 5]);
            assert_eq!(latest.gone(), 2);
        }
    }

    #[test]
    fn entries_of_one_time_stay_in_the_order_of_their_numbers() {
        let mut latest = LatestEntries::<4>::new();
        for number in [2, 0, 3, 1] {
            latest.add(number, HistoryEntry { code: number as u32, ..at(7) });
        }
        assert_eq!(latest.iter().map(|entry| entry.code).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn times_are_told_from_the_end() {
        let line = |t_ns, zero_ns| RelativeEntry { entry: &at(t_ns), zero_ns }.to_string();
        assert_eq!(
            line(500_001_000, 2_000_000_000),
            "-    1.499999 s  machine       CPU 0  disk written off     disk=1 unanswered=0"
        );
        assert!(line(3_000, 1_000).starts_with("+    0.000002 s  "));
        assert!(line(0, u64::MAX).starts_with("-18446744073.709551 s"));
    }
}
