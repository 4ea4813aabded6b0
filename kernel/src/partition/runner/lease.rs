//! A partition whose memory is on a cluster's disk runs only while this node has a lease: another
//! node may start it as soon as the lease is over.
//!
//! ```text
//!   runs ── the lease, as known, ends ──> look ── extended ──> runs until the new end
//!                                          │ ^
//!                                  not yet │ │ polled
//!                                          v │
//!                                        frozen ── the node is no member any more ──> stopped
//! ```
//!
//! The end that was seen last bounds each stay, as a time slice does, so no exit looks at the
//! lease. An end that was given once stays valid: another member fences this one only after it.

use super::{Runner, StepOutcome, WaitEvent};
use crate::arch::time;
use crate::host::Host;
use crate::partition::lifecycle::Lifecycle;
use crate::partition::stall::StallWatch;
use crate::storage::DiskLease;
use crate::time::Ns;

/// How often a frozen partition looks whether the lease goes on.
const THAW_NS: Ns = Ns::from_ms(5);

impl Runner {
    fn lease(&self, host: &Host) -> DiskLease {
        self.space.map_or(DiskLease::Alone, |space| host.spaces.disk(space).lease())
    }

    /// Bounds the guest's stays by the lease of its disk from now on.
    pub(super) fn watch_lease(&mut self, host: &Host) {
        self.duties.set_lease(match self.lease(host) {
            DiskLease::Alone => None,
            DiskLease::Until(end) => Some(end),
            DiskLease::Awaited | DiskLease::Left => Some(Ns::ZERO),
        });
    }

    /// Looks at the lease again when the end that was known has come: the guest goes on, stays out,
    /// or is stopped.
    pub(super) fn renew_lease(&mut self, host: &'static Host) -> Option<StepOutcome> {
        let now = time::now_ns();
        match (self.lease(host), &self.state) {
            (
                DiskLease::Awaited | DiskLease::Left,
                Lifecycle::Running(_) | Lifecycle::Loading(_),
            ) => {
                self.duties.set_lease(None);
                Some(self.stop(host, "fenced", 0))
            }
            (DiskLease::Until(end), Lifecycle::Running(_)) if end <= now => {
                // The guest was not told yet, however often this is asked.
                self.stall = StallWatch::untold();
                Some(StepOutcome::Wait(WaitEvent::Anything, Some(now.saturating_add(THAW_NS))))
            }
            (DiskLease::Until(end), Lifecycle::Running(_)) => {
                self.duties.set_lease(Some(end));
                None
            }
            // Looked at anew when the guest is about to run.
            _ => {
                self.duties.set_lease(None);
                None
            }
        }
    }
}
