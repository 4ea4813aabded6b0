//! The running hypervisor as a whole: its start, each CPU's loop, and the work between guests. It
//! is made once, at start.
//!
//! ```text
//!   Node ── host            what the partitions share
//!        ── registry        the partitions, which come and go
//! ```
//!
//! Everything here lives as long as the machine runs, so references are `'static`.

#[cfg(target_os = "none")]
pub mod build;
pub mod capacity;
pub mod cpu;
pub mod define;
pub mod measure;
pub mod monitor;
pub mod registry;
pub mod services;
#[cfg(target_os = "none")]
pub mod start;
#[cfg(test)]
mod tests;

use crate::host::Host;
use crate::partition::shared::SharedPartition;
use crate::partition_id::PartitionId;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use registry::Registry;

/// A running hypervisor.
pub struct Node {
    /// What the partitions share.
    pub host: &'static Host,
    /// The partitions. Those of the configuration have the first numbers, in its order.
    pub registry: Registry,
}

impl Node {
    /// Returns all partitions.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, Arc<SharedPartition>)> {
        self.registry.partitions()
    }

    /// Returns a partition by its id; `None` if there is none.
    pub fn partition(&self, id: PartitionId) -> Option<Arc<SharedPartition>> {
        self.registry.partition(id)
    }

    /// Returns whether the machine is to stop, no partition runs and no work is in flight.
    pub fn has_ended(&self) -> bool {
        self.host.ending.load(Ordering::Acquire)
            && self.registry.is_at_rest()
            && self.host.tasks.is_empty()
            && self.host.reaper.is_quiet()
    }
}
