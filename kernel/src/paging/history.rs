//! The pager's entries in the history. All are functions of their own off the path of a page-in
//! that ends well, whose length is bounded (`docs/benchmarks.md`, P1).

use super::batch::{Batch, BatchPurpose};
use super::loss::PageLossError;
use super::slots::PagedObject;
use crate::addr::PageIndex;
use crate::block::DiskError;
use crate::log::history::{self, HistoryKind, SUBJECTS};
use crate::mm::object::ObjectTable;
use crate::time::Ns;

/// A flush that is later than this is recorded. Kicks arrive within microseconds; an emulated CPU
/// may be stopped by its host for some milliseconds.
const LATE_FLUSH_NS: Ns = Ns::from_ms(20);

const _: () =
    assert!(ObjectTable::CAPACITY <= SUBJECTS, "every partition has a history of its own");

impl PagedObject {
    /// Records an event of the object's partition.
    #[inline(never)]
    pub(super) fn record(&self, kind: HistoryKind, code: u32, numbers: [u64; 2]) {
        history::record_partition(self.terms.account.partition(), kind, code, numbers);
    }

    /// Records an event that concerns the object as a whole; the code is its disk.
    #[cold]
    #[inline(never)]
    pub(super) fn record_at_disk(&self, kind: HistoryKind) {
        let disk = self.store.map_or(u32::MAX, |store| store.store.disk as u32);
        self.record(kind, disk, [u64::from(self.object.id().as_u16()), 0]);
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_write_failed(&self, first: PageIndex, count: u32, error: DiskError) {
        let numbers = [u64::from(first.0), u64::from(count)];
        self.record(HistoryKind::WriteFailed, error as u32, numbers);
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_loss(
        &self,
        kind: HistoryKind,
        index: PageIndex,
        loss: PageLossError,
        failures: u8,
    ) {
        self.record(kind, code_of(loss), [u64::from(index.0), u64::from(failures)]);
    }

    /// Records that a batch has been filled. Not cold: every batch comes here.
    #[inline(never)]
    pub(super) fn record_launch(&self, purpose: BatchPurpose, pages: usize) {
        let numbers = [pages as u64, u64::from(self.object.id().as_u16())];
        self.record(HistoryKind::BatchLaunched, purpose as u32, numbers);
    }

    /// Records that the disk refuses the next page of a batch.
    #[cold]
    #[inline(never)]
    pub(super) fn record_refusal(&self, batch: &Batch, first: PageIndex, disk: usize) {
        let numbers = [u64::from(first.0), batch.lines.left() as u64];
        self.record(HistoryKind::BatchRefused, disk as u32, numbers);
    }

    /// Records that a batch waits for its flush, if it waits for long: once.
    #[cold]
    #[inline(never)]
    pub(super) fn look_at_late_flush(&self, batch: &mut Batch, now: Ns) {
        if !batch.is_late && now.saturating_sub(batch.launched_at) >= LATE_FLUSH_NS {
            batch.is_late = true;
            let cpus = batch.ticket.as_ref().map_or(0, |ticket| ticket.waiting());
            let numbers = [u64::from(cpus), batch.launched_at.as_u64()];
            self.record(HistoryKind::FlushLate, batch.number as u32, numbers);
        }
    }

    /// Records that a late flush has passed.
    #[cold]
    #[inline(never)]
    pub(super) fn record_late_pass(&self, batch: &Batch, now: Ns) {
        let numbers = [now.saturating_sub(batch.launched_at).as_u64(), 0];
        self.record(HistoryKind::FlushPassed, batch.number as u32, numbers);
    }
}

/// Returns the number of a loss in the history.
const fn code_of(loss: PageLossError) -> u32 {
    match loss {
        PageLossError::Io(_) => 0,
        PageLossError::Checksum => 1,
        PageLossError::Unwritable(_) => 2,
        PageLossError::NoFrames => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::history::words;

    #[test]
    fn codes_have_the_words_of_the_history() {
        let losses = [
            PageLossError::Io(DiskError::Io),
            PageLossError::Checksum,
            PageLossError::Unwritable(DiskError::Io),
            PageLossError::NoFrames,
        ];
        let told = losses.map(|loss| words::LOSSES[code_of(loss) as usize]);
        assert_eq!(told, ["cannot be read", "checksum", "unwritable", "no frames"]);
        assert_eq!(words::LOSSES.len(), losses.len());
        let errors = [
            (DiskError::Io, "I/O error"),
            (DiskError::Unsupported, "not supported"),
            (DiskError::TimedOut, "timed out"),
            (DiskError::Dead, "takes no requests"),
            (DiskError::NoMemory, "no memory"),
        ];
        assert!(errors.iter().all(|(error, word)| words::DISK_ERRORS[*error as usize] == *word));
        let purposes = [BatchPurpose::Evict, BatchPurpose::Clean];
        assert_eq!(
            purposes.map(|purpose| words::BATCHES[purpose as usize]),
            ["leave", "be cleaned"]
        );
    }
}
