//! The pager's state of a drain.

use crate::addr::PageIndex;
use crate::block::DiskError;

/// Failed writes in a row after which a drain stops until
/// [`ImageDrain::retry`](super::ImageDrain::retry).
pub(super) const MAX_FAILURES: u32 = 8;

/// The pager's state of a drain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DrainState {
    /// Next page that the sweep visits.
    pub next: u32,
    /// All pages below are final, even where a repeated sweep has not passed them yet.
    pub floor: u32,
    pub freed: u64,
    pub written: u64,
    pub zero: u64,
    pub clean: u64,
    /// Failed writes since the last success.
    pub failures: u32,
    pub error: Option<DiskError>,
}

impl DrainState {
    /// Pulls the sweep back to a page whose write failed.
    pub(super) fn pull_back(&mut self, first: PageIndex) {
        self.next = self.next.min(first.0);
        self.floor = self.floor.min(first.0);
    }

    /// Notes that a page could not be written. Returns whether this is the first failure since the
    /// last success.
    pub(super) fn note_failure(&mut self, first: PageIndex, error: DiskError) -> bool {
        self.pull_back(first);
        self.failures = self.failures.saturating_add(1);
        self.error = Some(error);
        self.failures == 1
    }

    /// Restarts the sweep at page 0: a final page was read back behind it, and its frame has to be
    /// freed too.
    pub(super) fn sweep_again(&mut self) {
        (self.floor, self.next) = (self.next, 0);
    }

    pub(super) fn stands_still(&self) -> bool {
        self.failures >= MAX_FAILURES
    }
}
