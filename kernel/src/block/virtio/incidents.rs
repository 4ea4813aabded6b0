//! Incidents of a device, kept until they are reported.

use crate::block::DiskIncident;
use arrayvec::ArrayVec;

/// Incidents that are kept; a further one replaces the oldest.
const KEPT: usize = 8;

/// The incidents of one device, oldest first.
#[derive(Debug, Default)]
pub(super) struct IncidentQueue {
    kept: ArrayVec<DiskIncident, KEPT>,
}

impl IncidentQueue {
    /// Keeps an incident until it is taken.
    pub(super) fn push(&mut self, incident: DiskIncident) {
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
