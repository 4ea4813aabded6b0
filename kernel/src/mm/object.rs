//! Memory objects: the live memory of an incarnation, or a dump image.
use super::{
    flush::{CpuIndex, CpuWords, Generation, Kicks, Ticket},
    frames::FrameTable,
    layout::RamLayout,
    page::Page,
    table::{OutOfTables, TableReserve},
};
use crate::addr::{Hfn, PageIndex};
use alloc::sync::Arc;

/// Number of a memory object, unique among those that live.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ObjectId(pub(super) u16);

impl ObjectId {
    /// Returns the raw number, below [`ObjectTable::CAPACITY`].
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectState {
    /// A partition's memory.
    Live,
    /// The memory of a crashed incarnation.
    Image,
    /// Being taken apart.
    Teardown,
}

/// Pages of an object by state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct PageCounts {
    pub untouched: u32,
    pub zero: u32,
    pub resident: u32,
    pub going_out: u32,
    pub paged: u32,
    pub coming_in: u32,
    pub loaned: u32,
}

/// What a parked vCPU waits for: something happens to this object's pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitTicket {
    object: ObjectId,
    sequence: u64,
}

/// Memory of an incarnation.
#[derive(Debug)]
pub struct MemoryObject {}

impl MemoryObject {
    /// Returns its number.
    pub fn id(&self) -> ObjectId {
        todo!()
    }
    /// Returns which guest physical addresses are RAM.
    pub fn layout(&self) -> &RamLayout {
        todo!()
    }
    /// Returns what it is.
    pub fn state(&self) -> ObjectState {
        todo!()
    }
    /// Returns the root of its second-level table.
    pub fn root(&self) -> Hfn {
        todo!()
    }
    /// Returns the generation, for [`CpuWords::enter`].
    pub fn generation(&self) -> &Generation {
        todo!()
    }
    /// Returns how many pages are in which state.
    pub fn counts(&self) -> PageCounts {
        todo!()
    }
    /// Makes the live memory of a crashed incarnation a dump image, in O(1).
    pub fn become_image(&self) {
        todo!()
    }
    /// Returns page `index`, with the tables it needs made from the reserve.
    ///
    /// # Errors
    /// [`OutOfTables`]: the reserve is empty.
    pub fn page(&self, _index: PageIndex) -> Result<Page<'_>, OutOfTables> {
        todo!()
    }
    /// Returns page `index`, or `None` if it has no table yet (then it is untouched) or is no page of this object.
    pub fn existing(&self, _index: PageIndex) -> Option<Page<'_>> {
        todo!()
    }
    /// Goes over the pages of `range` that have a table.
    pub fn pages(&self, _range: core::ops::Range<u32>) -> impl Iterator<Item = Page<'_>> {
        core::iter::empty()
    }
    /// Starts a flush of all translations taken away so far. `me` is the calling CPU, which holds none.
    pub fn flush(&self, _words: &CpuWords, _me: CpuIndex) -> (Ticket, Kicks) {
        todo!()
    }
    /// Takes a ticket before a look at a page's state, to park on.
    pub fn wait_ticket(&self) -> WaitTicket {
        todo!()
    }
    /// Returns whether something happened since the ticket was taken.
    pub fn ready(&self, _ticket: WaitTicket) -> bool {
        todo!()
    }
    /// Wakes all that wait.
    pub fn wake(&self) {
        todo!()
    }
}

/// All memory objects of the machine.
#[derive(Debug)]
pub struct ObjectTable {}

/// Why an object was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectError {
    /// All numbers are taken.
    Full,
    /// No frame for the root table.
    OutOfTables,
}

impl ObjectTable {
    /// Most objects at a time.
    pub const CAPACITY: usize = 64;

    /// Makes an empty table of objects.
    pub fn new(_frames: Arc<FrameTable>, _tables: Arc<TableReserve>, _format: &'static super::leaf::Format) -> Self {
        todo!()
    }
    /// Makes the empty live memory of a new incarnation.
    pub fn create(&self, _layout: RamLayout) -> Result<Arc<MemoryObject>, ObjectError> {
        todo!()
    }
    /// Returns an object by its number.
    pub fn get(&self, _id: ObjectId) -> Option<Arc<MemoryObject>> {
        todo!()
    }
    /// Returns the bytes of metadata of all objects and frames.
    pub fn metadata_bytes(&self) -> usize {
        todo!()
    }
}
