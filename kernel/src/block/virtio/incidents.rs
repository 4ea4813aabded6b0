//! Incidents of a device, kept until they are reported.

use crate::block::DiskIncident;
use crate::log::history::{self, HistoryKind};
use arrayvec::ArrayVec;

/// Incidents that are kept; a further one replaces the oldest.
const KEPT: usize = 8;

/// The incidents of one device, oldest first.
#[derive(Debug, Default)]
pub(super) struct IncidentQueue {
    /// Number of the disk, for the history.
    disk: u8,
    kept: ArrayVec<DiskIncident, KEPT>,
}

impl IncidentQueue {
    /// Sets the number of the disk.
    pub(super) fn set_disk(&mut self, number: u8) {
        self.disk = number;
    }

    /// Records that the device is reset, for the `resets`th time without an answer between.
    pub(super) fn record_reset(&self, resets: u8) {
        self.record(HistoryKind::DiskReset, [resets.into(), 0]);
    }

    #[cold]
    fn record(&self, kind: HistoryKind, numbers: [u64; 2]) {
        history::record_machine(kind, self.disk.into(), numbers);
    }

    /// Keeps an incident until it is taken, and records it.
    pub(super) fn push(&mut self, incident: DiskIncident) {
        match incident {
            DiskIncident::WrittenOff { unanswered } => {
                self.record(HistoryKind::DiskWrittenOff, [unanswered.into(), 0])
            }
            DiskIncident::Back { away_ns } => {
                self.record(HistoryKind::DiskBack, [away_ns.as_u64(), 0])
            }
            DiskIncident::Broken => self.record(HistoryKind::DiskBroken, [0, 0]),
            DiskIncident::Resized { from, to } => self.record(HistoryKind::DiskResized, [from, to]),
            DiskIncident::Dead => self.record(HistoryKind::DiskDead, [0, 0]),
        }
        if self.kept.is_full() {
            self.kept.remove(0);
        }
        self.kept.push(incident);
    }

    /// Takes the oldest incident.
    pub(super) fn take(&mut self) -> Option<DiskIncident> {
        self.kept.pop_at(0)
    }

    /// Returns whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}
