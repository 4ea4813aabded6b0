//! Spaces whose records name a cluster: only its members write to them.
//!
//! ```text
//!   record names no cluster ───────────────────────> as before; on a cluster's disk the first take closes it
//!   this node's cluster, its disk has an area ─────> the log says whose it is
//!   this node's cluster, another disk ─────────────> the disk comes under the cluster's lease and the log
//!   another cluster ───────────────────────────────> left alone; its disk too, unless that has our area
//! ```
//!
//! A disk has one gate, so it belongs to one cluster as a whole.

use super::{SpaceId, SpaceLocation, Spaces};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::space::{ClosedSpace, DeviceContent, Uuid};
use crate::storage::DiskLease;
use alloc::format;

impl Spaces {
    /// Returns the cluster that the space's disk belongs to.
    pub(super) fn cluster_of(&self, id: SpaceId) -> Option<Uuid> {
        self.log_of(id)?;
        self.cluster.get().map(|disks| disks.cluster())
    }

    /// Returns the class of a space as this node has to see it.
    pub(super) fn closed_to_us(&self, id: SpaceId, class: DeviceContent) -> DeviceContent {
        match class {
            DeviceContent::Space(record) => match record.cluster {
                Some(cluster) if self.cluster_of(id) != Some(cluster) => {
                    DeviceContent::Closed(ClosedSpace { cluster, space: record.space })
                }
                _ => DeviceContent::Space(record),
            },
            other => other,
        }
    }

    /// Brings the disks of this node's cluster under its log, and leaves those of other clusters
    /// alone. To be called before anything is claimed on them.
    pub(super) fn leave_or_join(&self, closed: &[(SpaceId, ClosedSpace)]) {
        let ours = self.cluster.get();
        for (id, space) in closed {
            let is_on = |other: &SpaceId| self.place(*other).disk == self.place(*id).disk;
            let is_ours =
                |space: &ClosedSpace| ours.is_some_and(|disks| disks.cluster() == space.cluster);
            let mut neighbours = closed.iter().filter(|(other, _)| is_on(other));
            let is_all_ours = neighbours.all(|(_, space)| is_ours(space));
            let all = (0..self.spaces.len()).map(SpaceId).filter(is_on);
            if let Some(disks) = ours.filter(|_| is_all_ours) {
                self.space(*id).name.call_once(|| space.space);
                disks.add(self.disk(*id));
                all.for_each(|id| self.share(id));
            } else if self.disk(*id).lease() == DiskLease::Alone {
                self.disk(*id).give_up();
                all.for_each(|id| self.space(id).inner.lock().is_refused = true);
                self.tell_closed(*id, space);
            }
        }
    }

    /// Tells that a space is left alone because of its cluster.
    pub(super) fn tell_closed(&self, id: SpaceId, closed: &ClosedSpace) {
        let (SpaceLocation { disk, number, .. }, cluster) = (self.place(id), closed.cluster);
        report(&ConsoleEvent::SpaceClosed { disk: disk as u8, space: number, cluster });
        let message = format!(
            "belongs to cluster {cluster}, which this node is no member of: its disk is left alone"
        );
        self.trouble(id, &message);
    }
}
