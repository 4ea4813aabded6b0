//! The frames of the pool: the owner of each, and the free list.
//!
//! Twelve bytes a frame: a word with the reverse entry {object, page}, pins and the claim, and the
//! CRC32C of the page's block. The free list goes through the words.
//!
//! ```text
//!           alloc              install (page)              claim + evict / write out (page)
//!   free ──────────> Frame ───────────────────> mapped ──────────────────────────> Frame ──free──> free
//! ```
//!
//! Invariants:
//! * A [`Frame`] is the only right to a frame that is neither free nor in a leaf. It cannot be
//!   copied, so safe code of this crate cannot free a frame twice or put it into two leaves. The
//!   word is checked all the same.
//! * A frame from [`FrameTable::alloc`] holds its last owner's bytes: it must be zeroed or filled
//!   before it is installed.
//! * A mapped frame leaves its leaf only through the thread that holds its claim or has taken it; a
//!   claim and pins exclude each other.
//!
//! Lock: the free list's ([`rank::FRAMES`]), held for a few words only. Nothing here allocates: the
//! table lies in memory that was set aside for it ([`FrameStore`]), which grows with the pool.

mod entry;
mod regions;
#[cfg(test)]
mod tests;

use super::{crc::Crc32c, object_id::ObjectId};
use crate::addr::{Hfn, PageIndex};
use crate::sync::{RankedLock, rank};
use core::{
    fmt,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};
use entry::{FrameEntry, FrameState, LAST};
use regions::FrameRegions;
pub use regions::{FrameRegion, RegionError};

/// The sole right to a frame that is not free and in no leaf.
#[must_use = "a frame that is dropped is lost: free it or install it"]
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its number; 32 bits are enough: [`RegionError::Range`].
    hfn: u32,
    /// Its position in its frame table.
    position: u32,
}

impl Frame {
    /// Returns its number.
    #[inline]
    pub const fn hfn(&self) -> Hfn {
        Hfn::new(self.hfn as u64)
    }

    #[inline]
    const fn new(hfn: Hfn, position: u32) -> Self {
        Self { hfn: hfn.as_u64() as u32, position }
    }
}

/// Frames that go to the free list together, already linked: most frames come free in batches.
#[must_use = "frames in a chain that is dropped are lost"]
#[derive(Debug)]
pub struct FrameChain {
    /// Position of the frame that was linked last, or [`LAST`].
    head: u32,
    /// Position of the frame that was linked first.
    tail: u32,
    count: u32,
}

impl FrameChain {
    /// Makes an empty chain.
    pub const fn new() -> Self {
        Self { head: LAST, tail: LAST, count: 0 }
    }

    /// Returns the number of frames in it.
    pub const fn len(&self) -> u32 {
        self.count
    }

    /// Returns whether it has no frame.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Default for FrameChain {
    fn default() -> Self {
        Self::new()
    }
}

/// A count held on a mapped frame: the frame is not evicted meanwhile.
#[must_use = "a pin that is dropped is never given back"]
#[derive(Debug, PartialEq, Eq)]
pub struct FramePin {
    hfn: Hfn,
}

impl FramePin {
    /// Returns the frame's number.
    pub const fn hfn(&self) -> Hfn {
        self.hfn
    }
}

/// The page that a mapped frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameOwner {
    /// The memory object.
    pub object: ObjectId,
    /// Its page.
    pub index: PageIndex,
}

/// The frame is claimed or pinned by another thread, or has another owner by now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FrameBusyError;

/// The memory of a frame table: twelve bytes a frame.
#[derive(Clone, Copy, Debug)]
pub struct FrameStore {
    entries: &'static [AtomicU64],
    checksums: &'static [AtomicU32],
}

impl FrameStore {
    /// Takes memory that is filled with [`Self::entry`] and [`Self::checksum`] of every position.
    pub const fn new(entries: &'static [AtomicU64], checksums: &'static [AtomicU32]) -> Self {
        Self { entries, checksums }
    }

    /// Returns the initial word of position `n` of `total`: free, with the next position behind it.
    #[inline]
    pub const fn entry(n: u32, total: u32) -> AtomicU64 {
        AtomicU64::new(FrameEntry::free(if n + 1 < total { n + 1 } else { LAST }).0)
    }

    /// Returns the initial checksum of a position.
    #[inline]
    pub const fn checksum(_: u32) -> AtomicU32 {
        AtomicU32::new(0)
    }
}

/// All frames of the pool: free list, reverse entries, pins, checksums.
pub struct FrameTable {
    regions: FrameRegions,
    entries: &'static [AtomicU64],
    checksums: &'static [AtomicU32],
    free: RankedLock<FreeList, { rank::FRAMES }>,
    /// The length of the free list, for reads without its lock.
    free_count: AtomicU32,
    owned: [AtomicU32; ObjectId::COUNT],
}

struct FreeList {
    /// A position, or [`LAST`].
    head: u32,
    count: u32,
}

impl fmt::Debug for FrameTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameTable({} frames, {} free)", self.total(), self.free_count())
    }
}

impl FrameTable {
    /// Largest number of regions.
    pub const MAX_REGIONS: usize = FrameRegions::MAX;

    /// Takes the frames of `regions`, all free; the lowest are allocated first.
    ///
    /// # Errors
    /// [`RegionError`] names the fault in the regions.
    ///
    /// # Panics
    /// If the memory is for another number of frames (our bug).
    pub fn within(store: FrameStore, regions: &[FrameRegion]) -> Result<Self, RegionError> {
        let regions = FrameRegions::place(regions)?;
        let total = regions.total();
        assert!(
            store.entries.len() == total as usize && store.checksums.len() == total as usize,
            "twelve bytes a frame"
        );
        Ok(Self {
            regions,
            entries: store.entries,
            checksums: store.checksums,
            free: RankedLock::new(FreeList { head: 0, count: total }),
            free_count: AtomicU32::new(total),
            owned: [const { AtomicU32::new(0) }; _],
        })
    }

    /// Makes the same in memory of the host's heap, which is never freed.
    ///
    /// # Errors
    /// As [`Self::within`].
    #[cfg(test)]
    pub fn new(regions: &[FrameRegion]) -> Result<Self, RegionError> {
        let total = FrameRegions::place(regions)?.total();
        let entries =
            (0..total).map(|n| FrameStore::entry(n, total)).collect::<alloc::vec::Vec<_>>();
        let checksums = (0..total).map(FrameStore::checksum).collect::<alloc::vec::Vec<_>>();
        Self::within(FrameStore::new(entries.leak(), checksums.leak()), regions)
    }

    /// Takes a frame off the free list; its content is its last owner's.
    #[inline(always)]
    pub fn alloc(&self) -> Option<Frame> {
        let mut free = self.free.lock();
        let position = free.head;
        if position == LAST {
            return None;
        }
        let entry = &self.entries[position as usize];
        let next = FrameEntry(entry.load(Ordering::Acquire))
            .next_free()
            .expect("frames in the free list are free");
        entry.store(FrameEntry::HELD.0, Ordering::Relaxed);
        *free = FreeList { head: next, count: free.count - 1 };
        self.free_count.store(free.count, Ordering::Relaxed);
        Some(Frame::new(
            self.nth(position).expect("positions in the free list are in the table"),
            position,
        ))
    }

    /// Gives a frame back.
    ///
    /// # Panics
    /// If the frame is free already or in a leaf (our bug).
    pub fn free(&self, frame: Frame) {
        let position = frame.position;
        assert!(
            self.entry_at(position) == FrameEntry::HELD,
            "a frame that is freed is neither free nor in a leaf"
        );
        let mut free = self.free.lock();
        self.entries[position as usize].store(FrameEntry::free(free.head).0, Ordering::Relaxed);
        *free = FreeList { head: position, count: free.count + 1 };
        self.free_count.store(free.count, Ordering::Relaxed);
    }

    /// Puts a frame into a chain.
    ///
    /// # Panics
    /// As [`FrameTable::free`].
    #[inline(always)]
    pub fn link(&self, chain: &mut FrameChain, frame: Frame) {
        let entry = &self.entries[frame.position as usize];
        assert!(
            entry.load(Ordering::Acquire) == FrameEntry::HELD.0,
            "a frame that is freed is neither free nor in a leaf"
        );
        entry.store(FrameEntry::free(chain.head).0, Ordering::Relaxed);
        if chain.count == 0 {
            chain.tail = frame.position;
        }
        // At most the number of the table's entries, which fits 32 bits.
        (chain.head, chain.count) = (frame.position, chain.count.wrapping_add(1));
    }

    /// Gives the frames of a chain back.
    pub fn free_chain(&self, chain: FrameChain) {
        if chain.is_empty() {
            return;
        }
        let mut free = self.free.lock();
        self.entries[chain.tail as usize].store(FrameEntry::free(free.head).0, Ordering::Relaxed);
        *free = FreeList { head: chain.head, count: free.count + chain.count };
        self.free_count.store(free.count, Ordering::Relaxed);
    }

    /// Returns how many frames there are.
    pub fn total(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Returns how many frames are free.
    #[inline]
    pub fn free_count(&self) -> u32 {
        self.free_count.load(Ordering::Relaxed)
    }

    /// Returns how many frames the pages of `object` hold.
    pub fn owned_by(&self, object: ObjectId) -> u32 {
        self.owned[usize::from(object.as_u16())].load(Ordering::Relaxed)
    }

    /// Returns the page that a frame holds, or `None` if the frame is free or in no leaf.
    #[cfg(test)]
    pub fn owner(&self, hfn: Hfn) -> Option<FrameOwner> {
        match self.entry_at(self.position(hfn)).state() {
            FrameState::Mapped(owner) => Some(owner),
            FrameState::Free | FrameState::Held => None,
        }
    }

    /// Returns the number of the `n`-th frame; a clock's hand goes over the frames by this.
    #[inline(always)]
    pub fn nth(&self, n: u32) -> Option<Hfn> {
        self.regions.nth(n)
    }

    /// Returns the checksum of the frame's block, meaningful while its leaf says *has block*.
    #[inline]
    pub fn checksum(&self, hfn: Hfn) -> Crc32c {
        Crc32c(self.checksums[self.position(hfn) as usize].load(Ordering::Relaxed))
    }

    /// Gives back a pin.
    #[cfg(test)]
    pub fn unpin(&self, pin: FramePin) {
        self.unpin_frame(pin.hfn);
    }

    /// Gives back a pin that is known by its frame.
    pub(super) fn unpin_frame(&self, hfn: Hfn) {
        self.update(hfn, |entry| Some(entry.unpinned())).expect("a pinned frame can be unpinned");
    }

    /// Returns how many pins a frame has.
    #[cfg(test)]
    pub fn pins(&self, hfn: Hfn) -> u32 {
        self.entry_at(self.position(hfn)).pins()
    }

    /// Returns the bytes of metadata of this table.
    pub fn metadata_bytes(&self) -> usize {
        self.entries.len() * (size_of::<AtomicU64>() + size_of::<AtomicU32>())
    }

    #[inline]
    fn entry_at(&self, position: u32) -> FrameEntry {
        FrameEntry(self.entries[position as usize].load(Ordering::Acquire))
    }

    /// Returns a frame's position in the table.
    ///
    /// # Panics
    /// If it is no frame of the pool (our bug: guests never name frames).
    #[inline]
    fn position(&self, hfn: Hfn) -> u32 {
        self.regions.position(hfn).unwrap_or_else(|| panic!("{hfn:?} is a frame of the pool"))
    }

    #[inline]
    fn update(
        &self,
        hfn: Hfn,
        change: impl Fn(FrameEntry) -> Option<FrameEntry>,
    ) -> Result<(), FrameBusyError> {
        let word = &self.entries[self.position(hfn) as usize];
        let step = |old| change(FrameEntry(old)).map(|new| new.0);
        word.try_update(Ordering::AcqRel, Ordering::Acquire, step)
            .map(|_| ())
            .map_err(|_| FrameBusyError)
    }
}

/// The effects of a page's transitions on its frame.
impl FrameTable {
    /// Installs a frame behind a leaf.
    #[inline]
    pub(super) fn map(&self, frame: Frame, owner: FrameOwner) -> Hfn {
        let position = frame.position as usize;
        let before = self.entries[position].swap(FrameEntry::mapped(owner).0, Ordering::AcqRel);
        assert!(FrameEntry(before) == FrameEntry::HELD, "a frame goes into one leaf");
        self.owned[usize::from(owner.object.as_u16())].fetch_add(1, Ordering::Relaxed);
        frame.hfn()
    }

    /// Removes a frame from behind a leaf that does not name it any more (or never did).
    #[inline(always)]
    pub(super) fn unmap(&self, hfn: Hfn, owner: FrameOwner) -> Frame {
        let position = self.position(hfn);
        let before =
            FrameEntry(self.entries[position as usize].swap(FrameEntry::HELD.0, Ordering::AcqRel));
        assert!(before.is_unpinned(owner), "an unpinned frame leaves its own page");
        self.owned[usize::from(owner.object.as_u16())].fetch_sub(1, Ordering::Relaxed);
        Frame::new(hfn, position)
    }

    /// Takes a frame from behind a leaf that is about to release it, if the frame still holds
    /// `owner`'s page and is neither pinned nor claimed. Like a claim, this excludes pins and
    /// claims of other threads.
    #[inline(always)]
    pub(super) fn take(&self, hfn: Hfn, owner: FrameOwner) -> Result<Frame, FrameBusyError> {
        let position = self.position(hfn);
        let word = &self.entries[position as usize];
        let mapped = FrameEntry::mapped(owner).0;
        word.compare_exchange(mapped, FrameEntry::HELD.0, Ordering::AcqRel, Ordering::Relaxed)
            .map_err(|_| FrameBusyError)?;
        self.owned[usize::from(owner.object.as_u16())].fetch_sub(1, Ordering::Relaxed);
        Ok(Frame::new(hfn, position))
    }

    /// Puts a frame that was [taken](Self::take) back behind its leaf, which has changed meanwhile.
    #[cold]
    pub(super) fn put_back(&self, frame: Frame, owner: FrameOwner) {
        self.map(frame, owner);
    }

    /// Claims a frame for moving it out or cleaning it, if it still holds `owner`'s page.
    #[inline(always)]
    pub(super) fn claim(&self, hfn: Hfn, owner: FrameOwner) -> Result<(), FrameBusyError> {
        let unclaimed = FrameEntry::mapped(owner);
        let word = &self.entries[self.position(hfn) as usize];
        // One exchange is enough: a pin, another claim and another owner each make another word.
        let claimed = word.compare_exchange(
            unclaimed.0,
            unclaimed.claimed().0,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        claimed.map(|_| ()).map_err(|_| FrameBusyError)
    }

    /// Gives a claim back.
    #[inline]
    pub(super) fn unclaim(&self, hfn: Hfn) {
        self.update(hfn, |entry| Some(entry.unclaimed())).expect("a claim can be given back");
    }

    /// Pins a frame, if it still holds `owner`'s page and is not claimed.
    #[inline]
    pub(super) fn pin(&self, hfn: Hfn, owner: FrameOwner) -> Result<FramePin, FrameBusyError> {
        self.update(hfn, |entry| {
            entry.pinned().filter(|_| entry.state() == FrameState::Mapped(owner))
        })?;
        Ok(FramePin { hfn })
    }

    /// Returns the checksum of the block of a frame that is in hand.
    #[inline]
    pub(super) fn checksum_of(&self, frame: &Frame) -> Crc32c {
        Crc32c(self.checksums[frame.position as usize].load(Ordering::Relaxed))
    }

    /// Stores the checksum of the frame's block. To be called before the leaf says *has block*.
    #[inline]
    pub(super) fn set_checksum(&self, hfn: Hfn, crc: Crc32c) {
        self.checksums[self.position(hfn) as usize].store(crc.0, Ordering::Relaxed);
    }

    /// Stores the checksum for a frame that is in no leaf yet.
    #[inline]
    pub(super) fn set_checksum_of(&self, frame: &Frame, crc: Crc32c) {
        self.checksums[frame.position as usize].store(crc.0, Ordering::Relaxed);
    }

    /// Makes the token of a table page again: between `alloc` and `free` the table above it owns
    /// the frame.
    pub(super) fn of_table(&self, hfn: Hfn) -> Frame {
        Frame::new(hfn, self.position(hfn))
    }
}
