//! Memory objects: the live memory of an incarnation, or its remains as a dump image.
//!
//! ```text
//!            become_image            begin_teardown             ObjectTable::remove
//!   Live ───────────────────> Image ─────────────────> Teardown ───────────────────> (number free)
//!    │ ^──── become_live ───────┘                         ^
//!    └────────────────────────────────────────────────────┘
//! ```
//!
//! An object owns a RAM layout, a second-level table, a generation for the flush protocol and a
//! sequence to wake waiters. Frames name the object by number. So a crash hands over all of an
//! incarnation's memory by a change of the object's state: nothing is copied, no frame is touched,
//! and the partition goes on with another, empty object.
//!
//! Invariants:
//! * A number is used again only after teardown, and the generation goes on where the last object
//!   of that number ended. So a CPU flushes before it first runs the new one.
//! * The counts by state change with the leaf, in [`super::page`] alone.

mod counts;
mod find;
mod pages;
mod table;
mod teardown;
#[cfg(test)]
mod tests;
mod unread;

pub use super::object_id::ObjectId;
use super::{
    flush::{FlushGeneration, FlushTicket, Kicks, QuiescentStates},
    frames::FrameTable,
    layout::RamLayout,
    table::{SecondLevelTable, TableReserve},
};
use crate::addr::{Gfn, Hfn, PageIndex};
use crate::arch::percpu::CpuId;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
pub(super) use counts::PageCounters;
pub use counts::PageCounts;
pub use find::{LeafTablePages, PageFinder};
pub use pages::RangePages;
pub use table::{ObjectError, ObjectTable};
use teardown::TeardownCursor;
pub use teardown::TeardownProgress;
use unread::UnreadRegions;
pub use unread::{NextRegion, REGION_PAGES, RegionState};

/// Largest number of gaps that one search for the next touched page skips: each is 2 MiB of guest
/// memory or more.
const GAPS: u32 = 64;

/// The state of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectState {
    /// A partition's memory.
    Live,
    /// The memory of a crashed incarnation.
    Image,
    /// Being taken apart.
    Teardown,
    /// Read-only, for its children: see [`super::base`].
    Sealed,
}

/// A ticket for a parked vCPU: it is ready after the next wake of this object's waiters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitTicket {
    object: ObjectId,
    sequence: u64,
}

/// Memory of an incarnation.
#[derive(Debug)]
pub struct MemoryObject {
    id: ObjectId,
    layout: RamLayout,
    table: SecondLevelTable<Arc<TableReserve>>,
    frames: Arc<FrameTable>,
    generation: FlushGeneration,
    wakes: AtomicU64,
    counts: PageCounters,
    /// The sealed memory from which its pages were inherited.
    base: Option<Arc<MemoryObject>>,
    state: AtomicU8,
    teardown: TeardownCursor,
    /// Of a resumed partition's memory: the regions whose tables are still to be read.
    unread: spin::Once<UnreadRegions>,
}

impl MemoryObject {
    /// Returns its number.
    #[inline]
    pub const fn id(&self) -> ObjectId {
        self.id
    }

    /// Returns the layout of its RAM.
    pub const fn layout(&self) -> &RamLayout {
        &self.layout
    }

    /// Returns its state.
    #[inline]
    pub fn state(&self) -> ObjectState {
        match self.state.load(Ordering::Acquire) {
            LIVE => ObjectState::Live,
            IMAGE => ObjectState::Image,
            SEALED => ObjectState::Sealed,
            _ => ObjectState::Teardown,
        }
    }

    /// Returns the root of its second-level table.
    pub fn root(&self) -> Hfn {
        self.table.root()
    }

    /// Returns the generation, for [`QuiescentStates::enter`].
    pub const fn generation(&self) -> &FlushGeneration {
        &self.generation
    }

    /// Returns the sealed memory from which its pages were inherited; see [`super::base`].
    #[inline]
    pub const fn base(&self) -> Option<&Arc<MemoryObject>> {
        self.base.as_ref()
    }

    /// Returns the frame table of its pages.
    #[inline]
    pub const fn frames(&self) -> &Arc<FrameTable> {
        &self.frames
    }

    /// Returns the number of pages in each state.
    pub fn counts(&self) -> PageCounts {
        self.counts.snapshot()
    }

    /// Makes the live memory of a crashed incarnation a dump image, in O(1). Its vCPUs have
    /// stopped.
    ///
    /// # Panics
    /// If it is not live (our bug: an incarnation crashes once).
    pub fn become_image(&self) {
        let changed = self.state.compare_exchange(LIVE, IMAGE, Ordering::AcqRel, Ordering::Acquire);
        assert!(changed.is_ok(), "an incarnation crashes once");
    }

    /// Makes an image the live memory of its incarnation again, in O(1): the partition was to be
    /// suspended, and goes on. Pages that have left come back like all paged pages.
    ///
    /// # Panics
    /// If it is no image (our bug).
    pub fn become_live(&self) {
        let changed = self.state.compare_exchange(IMAGE, LIVE, Ordering::AcqRel, Ordering::Acquire);
        assert!(changed.is_ok(), "only an image becomes live memory again");
    }

    /// Makes new memory a base: no vCPU ever runs on it, and no page is written.
    ///
    /// # Panics
    /// If it is not live, or a child (our bug).
    pub fn become_base(&self) {
        assert!(self.base.is_none(), "a base has all of its pages itself");
        let changed =
            self.state.compare_exchange(LIVE, SEALED, Ordering::AcqRel, Ordering::Acquire);
        assert!(changed.is_ok(), "only new memory becomes a base");
    }

    /// Returns the frame of a page that is resident and marked as accessed. It is looked up in the
    /// table alone, not in the layout.
    #[inline(always)]
    pub fn accessed_frame(&self, gfn: Gfn) -> Option<Hfn> {
        self.table.slot(gfn)?.load().accessed_frame()
    }

    /// Returns how many pages from `index` on have no table, at most up to the end of their RAM
    /// range; these pages are untouched. 0 if page `index` has a table or is no page of this
    /// object.
    pub fn without_table(&self, index: PageIndex) -> u32 {
        let Some(gfn) = self.layout.gfn_of(index) else { return 0 };
        let gap = self.table.gap(gfn).min(u64::from(self.layout.left_in_range(index)));
        gap as u32
    }

    /// Returns the first page from `from` on that has a table, or a page before it, because only a
    /// bounded number of gaps is skipped. All pages between are untouched.
    pub fn skip_untouched(&self, from: u32) -> u32 {
        let mut next = from;
        for _ in 0..GAPS {
            match self.without_table(PageIndex(next)) {
                0 => break,
                gap => next = next.saturating_add(gap),
            }
        }
        next
    }

    /// Starts a flush of all translations taken away so far. `me` is the calling CPU, which holds
    /// no translation.
    #[inline(always)]
    pub fn flush(&self, words: &QuiescentStates, me: CpuId) -> (FlushTicket, Kicks) {
        FlushTicket::open(words, me, self.id, &self.generation)
    }

    /// Makes every CPU that has seen the shared frame of zeros in a leaf flush before it enters the
    /// guest again: the leaf has changed.
    ///
    /// No ticket, because that frame is never reused. No kick, because no CPU is in the guest: an
    /// incarnation has one vCPU, and the CPU that runs it makes this change.
    #[cold]
    pub(super) fn forget_zeros(&self) {
        self.generation.bump();
    }

    /// Takes a ticket. To be called *before* a look at a page's state; the caller parks on the
    /// ticket if the look fails.
    pub fn wait_ticket(&self) -> WaitTicket {
        WaitTicket { object: self.id, sequence: self.wakes.load(Ordering::SeqCst) }
    }

    /// Returns whether the object was woken since the ticket was taken. A ticket of another object
    /// is always ready.
    pub fn ready(&self, ticket: WaitTicket) -> bool {
        ticket != self.wait_ticket()
    }

    /// Wakes all waiters. To be called after the change they wait for.
    pub fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
    }

    #[inline]
    pub(super) const fn counters(&self) -> &PageCounters {
        &self.counts
    }
}

const LIVE: u8 = 0;
const IMAGE: u8 = 1;
const TEARDOWN: u8 = 2;
const SEALED: u8 = 3;
