//! The restart gate: decides when a crashed partition may run again.
//!
//! ```text
//!   crash ──> closed ── frames freed from the image >= boot memory ──> open (threshold)
//!               │  ├─── drain ended, completely or not ─────────────────> open (drained)
//!               │  └─── policy `immediate` ──────────────────────────> open (immediate)
//!               └────── policy `never` ──────────────────────────────> closed for good
//! ```
//!
//! `threshold` counts only frames freed from *this* image since the crash: a restart must not
//! depend on frames that other partitions gave up. Pure.

use crate::config::RestartPolicy;

/// Default boot memory is the smaller of this and a quarter of the logical memory.
const DEFAULT_BOOT_MEMORY: u64 = 64 << 20;

/// Why the gate opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GateOpening {
    /// At once, on demand-zero memory.
    Immediate,
    /// Enough frames were freed from the crashed image.
    Threshold,
    /// The drain ended before that.
    Drained,
}

impl GateOpening {
    /// Returns the word for events.
    pub const fn as_str(self) -> &'static str {
        match self {
            GateOpening::Immediate => "immediate",
            GateOpening::Threshold => "threshold",
            GateOpening::Drained => "drained",
        }
    }
}

/// A crashed partition's gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RestartGate {
    policy: RestartPolicy,
    boot_pages: u64,
}

impl RestartGate {
    /// Makes the gate of a partition with `memory_bytes` of logical memory.
    pub fn new(policy: RestartPolicy, memory_bytes: u64, boot_memory_bytes: Option<u64>) -> Self {
        let bytes = boot_memory_bytes
            .unwrap_or(DEFAULT_BOOT_MEMORY.min(memory_bytes / 4))
            .min(memory_bytes);
        Self { policy, boot_pages: bytes.div_ceil(crate::addr::PAGE_SIZE) }
    }

    /// The same for an image that holds `resident` frames of its own: it can free no more.
    #[must_use]
    pub fn at_most(self, resident: u64) -> Self {
        Self { boot_pages: self.boot_pages.min(resident), ..self }
    }

    /// Returns the number of pages that must be freed in `threshold` mode.
    pub const fn boot_pages(&self) -> u64 {
        self.boot_pages
    }

    /// Decides, given the drain's progress, whether the gate opens; `None` while it stays closed.
    pub fn check(&self, freed_from_image: u64, drain_ended: bool) -> Option<GateOpening> {
        match self.policy {
            RestartPolicy::Never => None,
            RestartPolicy::Immediate => Some(GateOpening::Immediate),
            RestartPolicy::Threshold if freed_from_image >= self.boot_pages => {
                Some(GateOpening::Threshold)
            }
            RestartPolicy::Threshold => drain_ended.then_some(GateOpening::Drained),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threshold_opens_exactly_at_boot_memory() {
        let gate = RestartGate::new(RestartPolicy::Threshold, 256 << 20, None);
        assert_eq!(gate.boot_pages(), (64 << 20) / 4096);
        assert_eq!(gate.check(gate.boot_pages() - 1, false), None);
        assert_eq!(gate.check(gate.boot_pages(), false), Some(GateOpening::Threshold));
    }

    #[test]
    fn a_small_partition_needs_a_quarter_and_never_more_than_it_has() {
        assert_eq!(
            RestartGate::new(RestartPolicy::Threshold, 64 << 20, None).boot_pages(),
            (16 << 20) / 4096
        );
        assert_eq!(
            RestartGate::new(RestartPolicy::Threshold, 8 << 20, Some(1 << 30)).boot_pages(),
            (8 << 20) / 4096
        );
    }

    #[test]
    fn a_child_frees_no_more_than_its_own_frames() {
        let gate = RestartGate::new(RestartPolicy::Threshold, 256 << 20, None).at_most(7);
        assert_eq!((gate.check(6, false), gate.check(7, false)), {
            (None, Some(GateOpening::Threshold))
        });
    }

    #[test]
    fn an_ended_drain_opens_it_in_any_case_but_never() {
        assert_eq!(
            RestartGate::new(RestartPolicy::Threshold, 1 << 30, None).check(3, true),
            Some(GateOpening::Drained)
        );
        assert_eq!(
            RestartGate::new(RestartPolicy::Never, 1 << 30, None).check(u64::MAX, true),
            None
        );
        assert_eq!(
            RestartGate::new(RestartPolicy::Immediate, 1 << 30, None).check(0, false),
            Some(GateOpening::Immediate)
        );
    }
}
