//! The disks of this node's cluster: those with an area, and those whose spaces say that they are
//! the cluster's. The cluster's lease holds for all of them.

use super::NodeDisk;
use crate::block::MAX_DISKS;
use crate::space::Uuid;
use crate::sync::{RankedLock, rank};
use arrayvec::ArrayVec;

/// Disks of a cluster.
pub type DiskList = ArrayVec<&'static NodeDisk, MAX_DISKS>;

/// The disks of this node's cluster. It may be used under any other lock but a serial line's.
pub struct ClusterDisks {
    cluster: Uuid,
    disks: RankedLock<DiskList, { rank::EVENTS }>,
}

impl ClusterDisks {
    /// Makes the list of a cluster's disks.
    pub const fn new(cluster: Uuid) -> Self {
        Self { cluster, disks: RankedLock::new(ArrayVec::new_const()) }
    }

    /// Returns the cluster's name.
    pub const fn cluster(&self) -> Uuid {
        self.cluster
    }

    /// Brings a disk under the cluster's lease. Nothing that writes to it may be in flight.
    pub fn add(&self, disk: &'static NodeDisk) {
        disk.await_lease();
        let mut disks = self.disks.lock();
        if !disks.iter().any(|known| core::ptr::eq(*known, disk)) {
            // There is room for every disk of a machine.
            let _ = disks.try_push(disk);
        }
    }

    /// Returns the disks, without the lock: to ask a disk takes locks of its own.
    pub fn list(&self) -> DiskList {
        self.disks.lock().clone()
    }
}
