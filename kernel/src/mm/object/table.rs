//! All memory objects of the machine, by number.

use super::{LIVE, MemoryObject, ObjectId, PageCounters, TeardownCursor};
use crate::addr::PAGE_SIZE;
use crate::mm::{
    flush::FlushGeneration,
    frames::FrameTable,
    layout::RamLayout,
    leaf::TableFormat,
    table::{SecondLevelTable, TableReserve},
};
use crate::sync::{RankedLock, rank};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU8, AtomicU64};

/// All memory objects of the machine.
///
/// Lock: its own ([`rank::OBJECT`]), for a look-up only; an object needs none.
pub struct ObjectTable {
    frames: Arc<FrameTable>,
    tables: Arc<TableReserve>,
    format: &'static TableFormat,
    slots: RankedLock<[ObjectSlot; Self::CAPACITY], { rank::OBJECT }>,
}

/// A number: its object, and the generation with which the next object of that number begins.
struct ObjectSlot {
    object: Option<Arc<MemoryObject>>,
    next_generation: u64,
}

/// Why an object was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectError {
    /// All numbers are taken.
    Full,
    /// No page for the root table.
    OutOfTables,
}

impl ObjectTable {
    /// Most objects at a time.
    pub const CAPACITY: usize = ObjectId::COUNT;

    /// Makes an empty table of objects. Their pages live in `frames`, and their tables have
    /// `format`.
    pub const fn new(
        frames: Arc<FrameTable>,
        tables: Arc<TableReserve>,
        format: &'static TableFormat,
    ) -> Self {
        let slots = [const { ObjectSlot { object: None, next_generation: 1 } }; Self::CAPACITY];
        Self { frames, tables, format, slots: RankedLock::new(slots) }
    }

    /// Makes the empty live memory of a new incarnation.
    ///
    /// # Errors
    /// [`ObjectError`] names the resource that has run out.
    pub fn create(&self, layout: RamLayout) -> Result<Arc<MemoryObject>, ObjectError> {
        self.create_on(layout, None)
    }

    /// Makes the live memory of a child: every page is inherited from `base` until it is written.
    ///
    /// # Errors
    /// [`ObjectError`] names the resource that has run out.
    ///
    /// # Panics
    /// If the base has another layout, or is a child itself (our bug).
    pub fn create_child(&self, base: &Arc<MemoryObject>) -> Result<Arc<MemoryObject>, ObjectError> {
        assert!(base.base().is_none(), "a base has all of its pages itself");
        self.create_on(*base.layout(), Some(base.clone()))
    }

    /// Returns how many more objects can be made.
    pub fn room(&self) -> usize {
        Self::CAPACITY - self.count()
    }

    fn create_on(
        &self,
        layout: RamLayout,
        base: Option<Arc<MemoryObject>>,
    ) -> Result<Arc<MemoryObject>, ObjectError> {
        let mut slots = self.slots.lock();
        let number = slots.iter().position(|s| s.object.is_none()).ok_or(ObjectError::Full)?;
        let table = SecondLevelTable::new(self.tables.clone(), self.format)
            .map_err(|_| ObjectError::OutOfTables)?;
        let object = Arc::new(MemoryObject {
            id: ObjectId(number as u16),
            layout,
            table,
            frames: self.frames.clone(),
            generation: FlushGeneration::starting_at(slots[number].next_generation),
            wakes: AtomicU64::new(0),
            counts: PageCounters::new(layout.pages()),
            base,
            state: AtomicU8::new(LIVE),
            teardown: TeardownCursor::default(),
            unread: spin::Once::new(),
        });
        slots[number].object = Some(object.clone());
        Ok(object)
    }

    /// Returns an object by its number.
    #[cfg(test)]
    pub fn get(&self, id: ObjectId) -> Option<Arc<MemoryObject>> {
        self.slots.lock()[usize::from(id.as_u16())].object.clone()
    }

    /// Returns the object with this raw number, if there is one.
    pub fn by_number(&self, number: u16) -> Option<Arc<MemoryObject>> {
        self.slots.lock().get(usize::from(number))?.object.clone()
    }

    /// Frees the number of an object that has been taken apart.
    ///
    /// # Panics
    /// If it has not been taken apart (our bug: frames would name another object).
    pub fn remove(&self, object: Arc<MemoryObject>) {
        assert!(object.teardown.is_done(), "an object is taken apart before its number is free");
        assert!(
            self.frames.owned_by(object.id) == 0,
            "an object that is taken apart has no frames"
        );
        let slot = &mut self.slots.lock()[usize::from(object.id.as_u16())];
        slot.next_generation = object.generation.current() + 1;
        slot.object = None;
    }

    /// Returns the number of objects.
    pub fn count(&self) -> usize {
        self.slots.lock().iter().filter(|s| s.object.is_some()).count()
    }

    /// Returns the frame table of the pages.
    pub const fn frames(&self) -> &Arc<FrameTable> {
        &self.frames
    }

    /// Returns the bytes of metadata of all objects and frames: tables, reverse entries, checksums,
    /// the objects themselves.
    pub fn metadata_bytes(&self) -> u64 {
        let objects = self.count();
        let fixed =
            size_of::<Self>() + objects * size_of::<MemoryObject>() + self.frames.metadata_bytes();
        fixed as u64 + u64::from(self.tables.used_count()) * PAGE_SIZE
    }
}
