//! The running hypervisor as a whole: what everything above `paging` stands on, made once at start.
//!
//! ```text
//!   Node ── words, frames, tables ──> objects        who owns which page
//!        ── pager ──> disks                          what does not fit
//!        ── spaces, dumps                            what outlives an incarnation
//!        ── partitions                               what others may know of them
//! ```
//!
//! Everything here lives as long as the machine runs, so references are `'static`.

pub mod disk;

use crate::mm::flush::CpuWords;
use crate::mm::frames::FrameTable;
use crate::mm::object::ObjectTable;
use crate::mm::phys::DirectMap;
use crate::paging::Pager;
use crate::partition::shared::Shared;
use crate::sync::{Ranked, rank};
use crate::virt::{Backend, tag::Tags};
use alloc::{sync::Arc, vec::Vec};
pub use disk::NodeDisk;

/// The pager of a node.
pub type NodePager = Pager<'static, DirectMap, NodeDisk>;

/// A running hypervisor.
pub struct Node {
    /// Which virtualisation it uses.
    pub backend: Backend,
    /// Where its CPUs are.
    pub words: &'static CpuWords,
    /// The pool.
    pub frames: Arc<FrameTable>,
    /// How frames are reached.
    pub memory: &'static DirectMap,
    /// All memory objects.
    pub objects: ObjectTable,
    /// Who answers faults and takes frames back.
    pub pager: NodePager,
    /// Tags of cached translations.
    pub tags: Ranked<Tags, { rank::SCHEDULER }>,
    /// The partitions, in the order of the configuration.
    pub partitions: Vec<Arc<Shared>>,
}
