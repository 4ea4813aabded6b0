//! A page of a memory object and its life: every transition of its leaf, by name.
//!
//! ```text
//!  Untouched, Zero, Loaned ──install_zero──> Present
//!  Present ──begin_write_out──> GoingOut ──finish_write_out──> Paged
//!                               GoingOut ──evict_zero────────> Zero
//!                               GoingOut ──rescue────────────> Present
//!  Present ──evict_clean──> Paged | Zero
//!  Present ──begin_clean──> Present (D clear) ──finish_clean──> Present (has block)
//!  Paged ──begin_page_in──> ComingIn ──finish_page_in──> Present (has block)
//!                           ComingIn ──abort_page_in───> Paged
//! ```
use super::{
    crc::Crc32c,
    flush::Passed,
    frames::{Frame, Pin},
    leaf::{Leaf, TransferIndex},
    object::MemoryObject,
};
use crate::addr::{Hfn, PageIndex};

/// Why a transition was not made; the leaf is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The page is in another state by now.
    State(Leaf),
    /// The page is pinned.
    Pinned,
    /// The page is dirty: write it out instead.
    Dirty,
    /// The page is clean: evict it without a write.
    Clean,
}

/// Whether the guest asked for the page that is installed: it then starts as referenced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A vCPU waits for it.
    Demand,
    /// It came along with a neighbour.
    ReadAround,
}

/// What the clock saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Age {
    /// Touched since the last look.
    Referenced,
    /// Not touched.
    Idle,
    /// Not resident.
    Absent,
}

/// A page that was clean, out of its leaf; its frame waits for the flush.
#[must_use]
#[derive(Debug)]
pub struct Unmapped {}

impl Unmapped {
    /// Gets the frame, once the flush has passed.
    pub fn reclaim(self, _passed: &Passed) -> Frame {
        todo!()
    }
}

/// A page that goes out and waits for the flush; nobody reads its frame before.
#[must_use]
#[derive(Debug)]
pub struct WriteOut {}

impl WriteOut {
    /// Returns which page.
    pub fn index(&self) -> PageIndex {
        todo!()
    }
    /// Makes it ready to be read and written, once the flush has passed.
    pub fn settle(self, _passed: &Passed) -> Settled {
        todo!()
    }
}

/// A page that goes out and that no CPU can write any more (unless it is rescued).
#[must_use]
#[derive(Debug)]
pub struct Settled {}

impl Settled {
    /// Returns which page.
    pub fn index(&self) -> PageIndex {
        todo!()
    }
    /// Returns the frame to scan, checksum and write.
    pub fn hfn(&self) -> Hfn {
        todo!()
    }
}

/// How a write-out ended.
#[must_use]
#[derive(Debug)]
pub enum Ended {
    /// The frame is the caller's.
    Out(Frame),
    /// The guest wanted the page meanwhile: it stays mapped and the write's result is void.
    Rescued,
}

/// A page that is cleaned in place and waits for the flush.
#[must_use]
#[derive(Debug)]
pub struct Cleaning {}

impl Cleaning {
    /// Returns which page.
    pub fn index(&self) -> PageIndex {
        todo!()
    }
    /// Makes it ready to be written, once the flush has passed.
    pub fn settle(self, _passed: &Passed) -> SettledClean {
        todo!()
    }
}

/// A page that is cleaned in place: a write from now on sets its D bit.
#[must_use]
#[derive(Debug)]
pub struct SettledClean {}

impl SettledClean {
    /// Returns which page.
    pub fn index(&self) -> PageIndex {
        todo!()
    }
    /// Returns the frame to checksum and write.
    pub fn hfn(&self) -> Hfn {
        todo!()
    }
}

/// A page with its leaf.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    _object: &'a MemoryObject,
}

impl Page<'_> {
    /// Returns which page.
    pub fn index(&self) -> PageIndex {
        todo!()
    }
    /// Returns where the page is.
    pub fn leaf(&self) -> Leaf {
        todo!()
    }
    /// Maps a frame that holds zeros: Untouched, Zero, Loaned -> Present.
    ///
    /// # Errors
    /// The frame comes back if the page is in another state by now.
    pub fn install_zero(&self, _frame: Frame) -> Result<(), Frame> {
        todo!()
    }
    /// Maps a frame that holds the block's content: Paged(crc) -> Present, has block.
    pub fn install_page(&self, _frame: Frame, _crc: Crc32c) -> Result<(), Frame> {
        todo!()
    }
    /// Present -> GoingOut.
    pub fn begin_write_out(&self) -> Result<WriteOut, Refused> {
        todo!()
    }
    /// GoingOut -> Paged(crc), after the write (and where needed the flush of the disk).
    pub fn finish_write_out(&self, _out: Settled, _crc: Crc32c) -> Ended {
        todo!()
    }
    /// GoingOut -> Zero: the settled frame turned out to hold zeros only.
    pub fn evict_zero(&self, _out: Settled) -> Ended {
        todo!()
    }
    /// GoingOut -> Present, dirty: the write failed or is not wanted any more.
    pub fn abort_write_out(&self, _out: Settled) {
        todo!()
    }
    /// GoingOut -> Present, dirty: the guest wants the page; whoever writes it learns of that when he finishes.
    pub fn rescue(&self) -> Result<(), Refused> {
        todo!()
    }
    /// Present and clean -> Paged, or Zero if it has no block.
    pub fn evict_clean(&self) -> Result<Unmapped, Refused> {
        todo!()
    }
    /// Clears D of a page that stays mapped, to write it.
    pub fn begin_clean(&self) -> Result<Cleaning, Refused> {
        todo!()
    }
    /// Sets *has block* after the write, if D is still clear; returns whether it was.
    pub fn finish_clean(&self, _cleaning: SettledClean, _crc: Crc32c) -> bool {
        todo!()
    }
    /// Sets D again: the write failed.
    pub fn abort_clean(&self, _cleaning: SettledClean) {
        todo!()
    }
    /// Paged -> ComingIn; returns the checksum that the block must have.
    pub fn begin_page_in(&self, _transfer: TransferIndex) -> Result<Crc32c, Refused> {
        todo!()
    }
    /// ComingIn -> Present, has block.
    pub fn finish_page_in(&self, _transfer: TransferIndex, _frame: Frame, _crc: Crc32c, _reason: Reason) {
        todo!()
    }
    /// ComingIn -> Paged: the read failed or was given up.
    pub fn abort_page_in(&self, _transfer: TransferIndex, _crc: Crc32c) {
        todo!()
    }
    /// Reads and clears A.
    pub fn age(&self) -> Age {
        todo!()
    }
    /// Pins a resident page for a device's or an I/O's use.
    pub fn pin(&self) -> Result<Pin, Refused> {
        todo!()
    }
}
