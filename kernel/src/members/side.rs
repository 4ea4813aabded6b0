//! What a member is, beside the step that is under way.

use super::area::ClusterArea;
use super::roll::MemberRoll;
use crate::block::Disk;
use crate::storage::cluster_disks::ClusterDisks;
use alloc::vec::Vec;
use cluster::id::Incarnation;
use cluster::layout::AreaLayout;
use cluster::node::ClusterNode;
use cluster::watch::Sighting;

/// An area and the requests on it.
pub(super) struct AreaLane {
    pub area: ClusterArea,
    /// What the last read has brought.
    pub seen: Vec<u8>,
    pub writes: u8,
    pub reads: u8,
    pub has_bad_read: bool,
}

/// Where this node stands in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberStanding {
    /// It registers.
    Joining,
    /// It is a member with a lease.
    Member,
    /// It is a member without a lease.
    Frozen,
    /// It submits nothing any more, and signs off.
    Leaving,
    /// It was fenced and has signed off; it registers anew when nothing uses its disks.
    Parted,
    /// It is no member, and will be none.
    Out,
}

impl MemberStanding {
    /// Returns the word in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Member => "member",
            Self::Frozen => "frozen",
            Self::Leaving => "leaving",
            Self::Parted => "parted",
            Self::Out => "out",
        }
    }
}

/// A start of this hypervisor, as the cluster sees it.
pub(super) struct MemberSide {
    pub node: ClusterNode<Vec<Sighting>>,
    /// This start's first incarnation.
    pub first: Incarnation,
    pub roll: MemberRoll,
    pub standing: MemberStanding,
    pub has_told_slots: bool,
    /// The log has fenced it.
    pub is_fenced: bool,
    /// A request was abandoned, so it could not sign off.
    pub is_tainted: bool,
    /// The operator has ended the machine.
    pub is_ending: bool,
    /// The cluster's name.
    pub cluster: u128,
    /// The end of a lease that the disks do not know yet.
    pub extended: Option<u64>,
    pub layout: AreaLayout,
    /// All disks of the cluster, those of the areas among them.
    pub disks: &'static ClusterDisks,
    pub lanes: Vec<AreaLane>,
}

impl MemberSide {
    /// Begins to register once more.
    pub(super) fn begin_anew(&mut self) {
        self.standing = MemberStanding::Joining;
        (self.is_fenced, self.is_tainted, self.extended) = (false, false, None);
        self.disks.list().iter().for_each(|disk| disk.await_lease());
    }

    /// Returns the areas that this node reaches, one a bit.
    pub(super) fn reached(&self) -> u8 {
        let is_there = |lane: &&AreaLane| !lane.area.disk.is_dead();
        self.lanes.iter().filter(is_there).map(|lane| 1 << lane.area.number).sum()
    }
}
