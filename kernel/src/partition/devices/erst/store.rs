//! The records of a partition: a fixed number of slots, allocated once.

use alloc::{boxed::Box, vec, vec::Vec};

use super::NO_RECORD;
use crate::dump::state_note::{StateError, StateReader, StateWriter};
use crate::partition::devices::map::ERST_BUFFER_BYTES;

/// Slots, 8 KiB each.
const SLOTS: usize = ErstStore::SLOTS;
const SLOT_BYTES: usize = ERST_BUFFER_BYTES as usize;

#[derive(Debug)]
struct RecordSlot {
    id: u64,
    length: usize,
    /// Orders the records by age; zero is a free slot.
    sequence: u64,
    bytes: Box<[u8]>,
}

impl RecordSlot {
    fn empty() -> Self {
        Self {
            id: NO_RECORD,
            length: 0,
            sequence: 0,
            bytes: vec![0; SLOT_BYTES].into_boxed_slice(),
        }
    }
}

/// The store.
#[derive(Debug)]
pub(super) struct ErstStore {
    slots: Vec<RecordSlot>,
    /// A record is read from the guest into this buffer, and exchanged with its slot when complete.
    staging: Box<[u8]>,
    sequence: u64,
}

impl ErstStore {
    /// Slots for records.
    pub(super) const SLOTS: usize = 8;

    /// Makes an empty store.
    pub(super) fn new() -> Self {
        let slots = (0..SLOTS).map(|_| RecordSlot::empty()).collect();
        Self { slots, staging: vec![0; SLOT_BYTES].into_boxed_slice(), sequence: 0 }
    }

    /// Appends the records, by slot.
    pub(super) fn save(&self, out: &mut StateWriter) {
        for slot in &self.slots {
            out.u64(slot.id);
            out.u64(slot.sequence);
            let length = if slot.sequence == 0 { 0 } else { slot.length };
            out.counted(&slot.bytes[..length]);
        }
        out.u64(self.sequence);
    }

    /// Takes saved records over.
    pub(super) fn restore(&mut self, from: &mut StateReader<'_>) -> Result<(), StateError> {
        for slot in &mut self.slots {
            (slot.id, slot.sequence) = (from.u64()?, from.u64()?);
            let bytes = from.counted(SLOT_BYTES)?;
            slot.bytes[..bytes.len()].copy_from_slice(bytes);
            slot.length = bytes.len();
        }
        self.sequence = from.u64()?;
        let is_later = |slot: &RecordSlot| slot.sequence <= self.sequence;
        // The next record is the newest, and its number must not overflow.
        from.check(self.slots.iter().all(is_later) && self.sequence < u64::MAX / 2)
    }

    /// Returns the number of records.
    pub(super) fn count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.sequence != 0).count()
    }

    /// Returns the first `length` bytes of the staging area.
    ///
    /// # Panics
    /// If `length` is beyond a slot (our bug: the exchange buffer is no longer than that).
    pub(super) fn staging(&mut self, length: usize) -> &mut [u8] {
        &mut self.staging[..length]
    }

    /// Makes the staged bytes record `id`. They replace a record with the same id, else take a free
    /// slot, else the slot of the oldest record.
    pub(super) fn commit(&mut self, id: u64, length: usize) {
        self.sequence += 1;
        let sequence = self.sequence;
        let same = self.slots.iter().position(|slot| slot.sequence != 0 && slot.id == id);
        let oldest =
            || self.slots.iter().enumerate().min_by_key(|(_, slot)| slot.sequence).map(|(i, _)| i);
        let Some(index) = same.or_else(oldest) else { return };
        let slot = &mut self.slots[index];
        core::mem::swap(&mut slot.bytes, &mut self.staging);
        (slot.id, slot.length, slot.sequence) = (id, length, sequence);
    }

    /// Returns record `id`.
    pub(super) fn get(&self, id: u64) -> Option<&[u8]> {
        let slot = self.slots.iter().find(|slot| slot.sequence != 0 && slot.id == id)?;
        Some(&slot.bytes[..slot.length])
    }

    /// Returns the first record.
    pub(super) fn first(&self) -> Option<&[u8]> {
        let slot = self.slots.iter().find(|slot| slot.sequence != 0)?;
        Some(&slot.bytes[..slot.length])
    }

    /// Removes record `id` and tells whether it was there.
    pub(super) fn clear(&mut self, id: u64) -> bool {
        let slot = self.slots.iter_mut().find(|slot| slot.sequence != 0 && slot.id == id);
        slot.map(|slot| (slot.id, slot.sequence) = (NO_RECORD, 0)).is_some()
    }

    /// Returns the id of the first record in slot `cursor` or later, and the cursor behind it.
    /// After the last record it returns [`NO_RECORD`], and the walk begins again.
    pub(super) fn next_id(&self, cursor: usize) -> (u64, usize) {
        let rest = self.slots.iter().enumerate().skip(cursor);
        rest.filter(|(_, slot)| slot.sequence != 0)
            .map(|(i, slot)| (slot.id, i + 1))
            .next()
            .unwrap_or((NO_RECORD, 0))
    }
}
