//! The running hypervisor as a whole: its start, each CPU's loop, and the work between guests. It
//! is made once, at start.
//!
//! ```text
//!   Node ── host            what the partitions share
//!        ── partitions      the part of their state that others may read
//! ```
//!
//! Everything here lives as long as the machine runs, so references are `'static`.

#[cfg(target_os = "none")]
pub mod build;
pub mod cpu;
pub mod measure;
pub mod monitor;
pub mod services;
#[cfg(target_os = "none")]
pub mod start;
#[cfg(test)]
mod tests;

use crate::host::Host;
use crate::partition::lifecycle::LifecycleView;
use crate::partition::shared::SharedPartition;
use crate::partition_id::PartitionId;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// A running hypervisor.
pub struct Node {
    /// What the partitions share.
    pub host: &'static Host,
    /// The partitions, in the order of the configuration; the run queue uses the same order.
    pub partitions: Vec<Arc<SharedPartition>>,
}

impl Node {
    /// Returns all partitions.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, &Arc<SharedPartition>)> {
        (0..).map(PartitionId::new).zip(&self.partitions)
    }

    /// Returns a partition by its id; `None` if there is none.
    pub fn partition(&self, id: PartitionId) -> Option<&Arc<SharedPartition>> {
        self.partitions.get(id.index())
    }

    /// Returns whether the machine is to stop, no partition runs and no work is in flight.
    pub fn has_ended(&self) -> bool {
        let stopped = |shared: &Arc<SharedPartition>| shared.view() == LifecycleView::Stopped;
        self.host.ending.load(Ordering::Acquire)
            && self.partitions.iter().all(stopped)
            && self.host.tasks.is_empty()
            && self.host.reaper.is_quiet()
    }
}
