//! The frames of the pool.
use super::{crc::Crc32c, object::ObjectId};
use crate::addr::{Hfn, PageIndex};

/// A run of frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameRegion {
    /// The first.
    pub first: Hfn,
    /// How many.
    pub count: u32,
}

/// Why there is no frame table of these regions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionError {
    /// More than [`FrameTable::MAX_REGIONS`], or none.
    Count,
    /// Two regions overlap, or a frame number does not fit into 32 bits.
    Range,
}

/// A frame that nobody else has: not free, in no leaf.
#[must_use = "a frame that is dropped is lost: free it or install it"]
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    hfn: Hfn,
}

impl Frame {
    /// Returns its number.
    pub const fn hfn(&self) -> Hfn {
        self.hfn
    }
}

/// A count held on a mapped frame: it is not evicted meanwhile.
#[must_use = "a pin that is dropped is never given back"]
#[derive(Debug, PartialEq, Eq)]
pub struct Pin {
    hfn: Hfn,
}

impl Pin {
    /// Returns the frame's number.
    pub const fn hfn(&self) -> Hfn {
        self.hfn
    }
}

/// The page that a mapped frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The memory object.
    pub object: ObjectId,
    /// Its page.
    pub index: PageIndex,
}

/// All frames of the pool: free list, reverse entries, pins, checksums.
#[derive(Debug)]
pub struct FrameTable {}

impl FrameTable {
    /// Most regions.
    pub const MAX_REGIONS: usize = 8;

    /// Takes the frames of `regions`, all free.
    pub fn new(_regions: &[FrameRegion]) -> Result<Self, RegionError> {
        todo!()
    }
    /// Takes a frame off the free list; its content is whatever its last owner left.
    pub fn alloc(&self) -> Option<Frame> {
        todo!()
    }
    /// Gives a frame back.
    pub fn free(&self, _frame: Frame) {
        todo!()
    }
    /// Returns how many frames there are.
    pub fn total(&self) -> u32 {
        todo!()
    }
    /// Returns how many frames are free.
    pub fn free_count(&self) -> u32 {
        todo!()
    }
    /// Returns how many frames the pages of `object` hold.
    pub fn owned_by(&self, _object: ObjectId) -> u32 {
        todo!()
    }
    /// Returns whose page a frame holds, or `None` if it is free or in nobody's leaf.
    pub fn owner(&self, _hfn: Hfn) -> Option<Owner> {
        todo!()
    }
    /// Returns the number of the `n`-th frame (a clock's hand goes over frames by this).
    pub fn nth(&self, _n: u32) -> Option<Hfn> {
        todo!()
    }
    /// Returns the checksum of the frame's block, meaningful while its leaf says *has block*.
    pub fn checksum(&self, _hfn: Hfn) -> Crc32c {
        todo!()
    }
    /// Gives back a pin.
    pub fn unpin(&self, _pin: Pin) {
        todo!()
    }
    /// Returns how many pins a frame has.
    pub fn pins(&self, _hfn: Hfn) -> u32 {
        todo!()
    }
    /// Returns the bytes of metadata of this table.
    pub fn metadata_bytes(&self) -> usize {
        todo!()
    }
}
