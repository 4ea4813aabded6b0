//! Sealed memory that several objects share: a base and its children.
//!
//! ```text
//!   base:   page n ── leaf ──> frame <─────────────┐ read-only
//!             │                                     │
//!             └ block, checksum (sealed)            │
//!   child:  page n ── leaf: Untouched ── read ──> Shared ── write ──> a frame of its own
//! ```
//!
//! The base is a memory object on which no vCPU runs. It owns its frames, and its leaves say where
//! each page is: in its block, in a frame, or zero. A child has the same layout; page n is page n.
//! A child's page that was never written is *inherited*: its leaf is untouched, or shows the base's
//! frame. So a child is made without a look at any page.
//!
//! Invariants:
//! * A base's page is never written, so it is always clean.
//! * The base's frame leaves memory in this order: the base's leaf, the leaves of all mappers, one
//!   flush of the base and all mappers, the free list.
//! * A child gets a frame of its own only after a flush of the child.
//! * A base lives longer than its children: each holds it.

use super::flush::{FlushTicket, Kicks, QuiescentStates};
use super::object::MemoryObject;
use crate::addr::PageIndex;
use crate::arch::percpu::CpuId;

impl MemoryObject {
    /// Returns whether this object's pages were inherited from `base`.
    pub fn is_child_of(&self, base: &Self) -> bool {
        self.base().is_some_and(|of| of.id() == base.id())
    }

    /// Takes the frame of page `index` away from a mapper, if it shows one.
    pub fn hide_base_page(&self, index: PageIndex) -> bool {
        self.existing(index).is_some_and(|page| page.hide_base())
    }

    /// Starts a flush of the translations of this base's frames that were taken away so far, its
    /// own and those of `mappers`.
    pub fn flush_with<'a>(
        &self,
        mappers: impl Iterator<Item = &'a MemoryObject>,
        words: &QuiescentStates,
        me: CpuId,
    ) -> (FlushTicket, Kicks) {
        let also = mappers.fold(0, |also, mapper| {
            mapper.generation().bump();
            also | 1 << mapper.id().index()
        });
        FlushTicket::open_with(words, me, self.id(), self.generation(), also)
    }
}
