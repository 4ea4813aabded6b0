//! The bases of this node that are in memory: what all children of one share.
//!
//! A base is loaded once, by the command that seals it or by its first clone: checksums and bitmap
//! are in the leaves of its object, the notes here. So a clone reads nothing from the disk.

use crate::mm::object::MemoryObject;
use crate::space::SpaceBase;
use crate::storage::spaces::SpaceId;
use crate::sync::{RankedLock, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayString;

/// A base in memory.
#[derive(Debug)]
pub struct Base {
    /// The partition that was sealed.
    pub name: ArrayString<64>,
    /// As the records of children name it.
    pub sealed: SpaceBase,
    /// Its space.
    pub space: SpaceId,
    /// Its pages.
    pub object: Arc<MemoryObject>,
    /// The notes: vCPU, devices, what the guest was promised.
    pub notes: Vec<u8>,
}

/// All bases in memory.
pub struct Bases(RankedLock<Vec<Arc<Base>>, { rank::EVENTS }>);

impl Bases {
    /// Makes an empty list.
    pub const fn new() -> Self {
        Self(RankedLock::new(Vec::new()))
    }

    /// Returns the base that a partition has become, if it is in memory.
    pub fn get(&self, name: &str) -> Option<Arc<Base>> {
        self.0.lock().iter().find(|base| &*base.name == name).cloned()
    }

    /// Adds a base.
    pub fn add(&self, base: Base) -> Arc<Base> {
        let base = Arc::new(base);
        self.0.lock().push(base.clone());
        base
    }

    /// Takes out a base whose space is given back.
    pub fn take(&self, name: &str) -> Option<Arc<Base>> {
        let mut all = self.0.lock();
        let at = all.iter().position(|base| &*base.name == name)?;
        Some(all.swap_remove(at))
    }
}

impl Default for Bases {
    fn default() -> Self {
        Self::new()
    }
}
