//! The table of requests that timed out.

use crate::block::Cookie;
use crate::mm::frames::FrameChain;
use crate::mm::object::{MemoryObject, ObjectId};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// Memory that a disk may still access for a timed-out request.
#[derive(Debug)]
pub(super) enum HeldMemory {
    /// The disk may still read these pages; they are pinned.
    Pages(Arc<MemoryObject>, Range<u32>),
    /// The disk may still write these frames; they belong to no object.
    Frames(FrameChain),
}

#[derive(Debug)]
struct LateRequest {
    disk: usize,
    cookie: Cookie,
    held: HeldMemory,
}

/// All timed-out requests.
#[derive(Debug)]
pub(super) struct LateRequests {
    all: Vec<LateRequest>,
}

impl LateRequests {
    /// Makes room for as many requests as all disks together accept.
    pub(super) fn with_capacity(requests: usize) -> Self {
        Self { all: Vec::with_capacity(requests) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Records memory that a disk may still access.
    ///
    /// # Panics
    /// If the disk has accepted more requests than its depth (our bug: its driver bounds them).
    pub(super) fn keep(&mut self, disk: usize, cookie: Cookie, held: HeldMemory) {
        assert!(
            self.all.len() < self.all.capacity(),
            "a disk has no more requests in flight than its depth"
        );
        self.all.push(LateRequest { disk, cookie, held });
    }

    pub(super) fn take(&mut self, disk: usize, cookie: Cookie) -> Option<HeldMemory> {
        let at = self.all.iter().position(|late| late.disk == disk && late.cookie == cookie)?;
        Some(self.all.swap_remove(at).held)
    }

    /// Returns whether a disk may still access pages of an object.
    pub(super) fn holds(&self, id: ObjectId) -> bool {
        self.all
            .iter()
            .any(|late| matches!(&late.held, HeldMemory::Pages(object, _) if object.id() == id))
    }
}
