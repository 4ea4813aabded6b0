//! The running hypervisor as a whole: its start, each CPU's loop, and the work between guests. It
//! is made once, at start.
//!
//! ```text
//!   Node ── host            what the partitions share
//!        ── members         this node's part in a cluster
//!        ── registry        the partitions, which come and go
//! ```
//!
//! Everything here lives as long as the machine runs, so references are `'static`.

#[cfg(target_os = "none")]
pub mod build;
pub mod capacity;
pub mod cpu;
pub mod define;
mod inherit;
pub mod measure;
pub mod monitor;
pub mod moves;
pub mod registry;
pub mod services;
#[cfg(target_os = "none")]
pub mod start;
#[cfg(test)]
mod tests;

use crate::addr::PAGE_SIZE;
use crate::host::Host;
use crate::members::{FreeRoom, LocalDevice, Members};
use crate::partition::shared::SharedPartition;
use crate::partition_id::PartitionId;
use crate::time::Ns;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use moves::MoveDesk;
use registry::Registry;

/// A running hypervisor.
pub struct Node {
    /// What the partitions share.
    pub host: &'static Host,
    /// This node's part in a cluster, if its disks have an area.
    pub members: Option<&'static Members>,
    /// The local copy of its cluster's state, if there is a disk for it.
    pub local: Option<&'static LocalDevice>,
    /// A task takes care of a fenced member's partition.
    pub is_inheriting: AtomicBool,
    /// Partitions that go to other members, or come from them.
    pub moves: MoveDesk,
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

    /// Goes on with the cluster; returns whether there is more to do at once.
    pub fn poll_members(&'static self, now_ns: Ns) -> bool {
        let Some(members) = self.members else { return false };
        let (is_busy, has_news) = members.poll(now_ns, self.host.unix_ns_at(now_ns), || {
            let free = u64::from(self.host.frames.free_count()) * PAGE_SIZE;
            FreeRoom { mib: (free >> 20) as u32, spaces: self.host.spaces.free_count() as u32 }
        });
        if has_news {
            // Something may have come free, or is this node's from now on.
            self.host.spaces.note_log();
            inherit::inherit(self);
            moves::look(self);
            self.host.wake();
        } else if members.orphans.is_due(now_ns) {
            inherit::inherit(self);
        }
        while let Some(letter) = members.take_mail() {
            moves::receive(self, members, &letter);
        }
        if members.has_parted() && self.host.spaces.part() {
            members.rejoin(now_ns);
            self.host.spaces.rejoin();
        }
        is_busy
    }

    /// Returns whether the machine is to stop, no partition runs and no work is in flight.
    pub fn has_ended(&self) -> bool {
        self.host.ending.load(Ordering::Acquire)
            && self.registry.is_at_rest()
            && self.host.tasks.is_empty()
            && self.host.reaper.is_quiet()
    }
}
