//! A node that is not a member of its cluster any more leaves the cluster's disks.
//!
//! ```text
//!   Free, Dump, Suspended, Unusable ──────────────> Failed ── a member again ──> opened as at a start
//!   Active, Activating, Draining, Releasing ── end ───^
//! ```
//!
//! Nothing is written: what the spaces hold is for the members to judge.

use super::{SpaceId, SpacePhase, Spaces};
use crate::arch::time;
use crate::block::DiskError;
use crate::storage::DiskLease;
use core::sync::atomic::Ordering;

impl Spaces {
    /// Gives up claims and spaces on the disks that this node has left; returns whether nothing
    /// uses those disks any more. To be called until it does.
    pub fn part(&self) -> bool {
        let has_left = |disk: &usize| self.devices[*disk].disk().lease() == DiskLease::Left;
        let mut is_over = true;
        for disk in (0..self.devices.len()).filter(has_left) {
            self.forget_claims(disk);
            is_over &= !self.devices[disk].disk().has_writes();
            for id in (0..self.spaces.len()).map(SpaceId) {
                is_over &= self.place(id).disk != disk || self.is_parted(id);
            }
        }
        is_over
    }

    /// Puts a space out of use if no partition and no task uses it; returns whether it is.
    fn is_parted(&self, id: SpaceId) -> bool {
        let mut inner = self.space(id).inner.lock();
        match inner.phase {
            SpacePhase::Failed(_)
            | SpacePhase::Free
            | SpacePhase::Dump
            | SpacePhase::Suspended
            | SpacePhase::Sealed
            | SpacePhase::Shared
            | SpacePhase::Unusable => {
                // The disk may hold the content of another member when this node comes back.
                (inner.record, inner.user) = (None, None);
                (inner.phase, inner.failures) = (SpacePhase::Failed(DiskError::Dead), 0);
                (inner.is_refused, inner.again_ns) = (false, time::now_ns());
                true
            }
            SpacePhase::Activating
            | SpacePhase::Active
            | SpacePhase::Draining
            | SpacePhase::Inheriting
            | SpacePhase::Looking
            | SpacePhase::Resuming
            | SpacePhase::Departing
            | SpacePhase::Releasing => false,
        }
    }

    /// Has the spaces of the disks that were left looked at again soon.
    pub fn rejoin(&self) {
        self.mend_due_ns.lower(time::now_ns(), Ordering::AcqRel);
    }
}
