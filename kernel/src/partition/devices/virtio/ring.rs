//! A split virtqueue, from the device's side.
//!
//! ```text
//!   next head ──> fetch the chain ──> (the device works) ──> complete: used element, used index
//!       │ none: tell the driver where a notification is wanted, look once more
//! ```
//!
//! Source: VIRTIO 1.2, 2.7 "Split Virtqueues". All of it is the guest's memory. Each value is read
//! once and checked; a chain has at most as many descriptors as its ring has, so loops end; an
//! access may find a page that is not resident, and then nothing has changed and the call is
//! repeated. A driver that breaks the rules breaks its own device: [`RingFault`].

use super::features;
use crate::addr::Gpa;
use crate::dump::state_note::{StateError, StateReader, StateWriter};
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use core::ops::ControlFlow;
use core::sync::atomic::{Ordering, fence};

/// "No vector" in the vector registers.
pub const NO_VECTOR: u16 = 0xffff;

const DESCRIPTOR_BYTES: u64 = 16;
const DESCRIPTOR_NEXT: u16 = 1;
const DESCRIPTOR_WRITE: u16 = 2;
const DESCRIPTOR_INDIRECT: u16 = 4;
/// Of the driver's ring: no interrupt is wanted.
const NO_INTERRUPT: u16 = 1;

/// A rule that the driver has broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RingFault {
    /// An address that is no RAM, or is not aligned as it must be.
    Address(u64),
    /// More chains are available than the ring has descriptors.
    Index(u16),
    /// A descriptor's number is beyond the table.
    Descriptor(u16),
    /// A chain has more descriptors than the ring.
    Endless,
    /// An indirect table is empty, of odd length, nested, or was not negotiated.
    Indirect,
}

/// Why a step at a ring is not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RingError {
    /// Guest memory: repeat the call if its page is on its way.
    Memory(GuestMemoryError),
    /// The driver's fault.
    Broken(RingFault),
}

impl From<GuestMemoryError> for RingError {
    fn from(error: GuestMemoryError) -> Self {
        match error {
            GuestMemoryError::NotRam(gpa) => Self::Broken(RingFault::Address(gpa.as_u64())),
            other => Self::Memory(other),
        }
    }
}

/// Direction of a buffer, as the device sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BufferUse {
    /// The device reads it.
    Readable,
    /// The device writes it.
    Writable,
}

/// A buffer of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferSegment {
    /// First byte.
    pub at: Gpa,
    /// Bytes.
    pub bytes: u32,
    /// Its direction.
    pub kind: BufferUse,
}

/// Whether the driver wants an interrupt for what was completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a driver that waits for an interrupt waits for ever without it"]
pub enum DriverNotice {
    /// It does.
    Wanted,
    /// It polls.
    Unwanted,
}

/// A ring with its registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestRing {
    /// Descriptors, as the driver has chosen.
    pub size: u16,
    /// MSI-X vector.
    pub vector: u16,
    /// The device may use the ring.
    pub is_enabled: bool,
    /// Addresses of the descriptor table, the driver's ring and the device's ring.
    pub areas: [u64; 3],
    most: u16,
    next_avail: u16,
    next_used: u16,
}

/// A descriptor.
struct RingDescriptor {
    at: u64,
    bytes: u32,
    flags: u16,
    next: u16,
}

/// A table of descriptors.
#[derive(Clone, Copy)]
struct BufferTable {
    base: u64,
    entries: u32,
}

impl GuestRing {
    /// Makes a ring of up to `most` descriptors, a power of two.
    pub const fn new(most: u16) -> Self {
        Self {
            size: most,
            vector: NO_VECTOR,
            is_enabled: false,
            areas: [0; 3],
            most,
            next_avail: 0,
            next_used: 0,
        }
    }

    /// Resets the ring.
    pub fn reset(&mut self) {
        *self = Self::new(self.most);
    }

    /// Chooses the number of descriptors; a number that no ring can have is ignored.
    pub fn set_size(&mut self, size: u16) {
        if size.is_power_of_two() && size <= self.most && !self.is_enabled {
            self.size = size;
        }
    }

    /// Lets the device use the ring.
    ///
    /// # Errors
    /// [`RingFault::Address`]: an area is not aligned.
    pub fn enable(&mut self) -> Result<(), RingFault> {
        for (area, alignment) in self.areas.into_iter().zip([16, 2, 4]) {
            if !area.is_multiple_of(alignment) {
                return Err(RingFault::Address(area));
            }
        }
        self.is_enabled = true;
        Ok(())
    }

    const fn mask(&self) -> u16 {
        self.size - 1
    }

    /// Returns the head of the next chain. If there is none, the driver is told to notify the
    /// device of the next one.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn next_head(
        &self,
        memory: &dyn GuestMemory,
        accepted: u64,
    ) -> Result<Option<u16>, RingError> {
        if !self.has_next(memory)? {
            if accepted & features::EVENT_INDEX == 0 {
                return Ok(None);
            }
            // Behind the used elements: the index at which a notification is wanted.
            let event = at(self.areas[2], 4 + 8 * u64::from(self.size))?;
            memory.write(event, &self.next_avail.to_le_bytes())?;
            // The driver writes its index and then reads the event; here it is the other way round.
            fence(Ordering::SeqCst);
            if !self.has_next(memory)? {
                return Ok(None);
            }
        }
        fence(Ordering::SeqCst);
        let slot = u64::from(self.next_avail & self.mask());
        let head = read_u16(memory, at(self.areas[1], 4 + 2 * slot)?)?;
        if head >= self.size {
            return Err(RingError::Broken(RingFault::Descriptor(head)));
        }
        Ok(Some(head))
    }

    fn has_next(&self, memory: &dyn GuestMemory) -> Result<bool, RingError> {
        let index = read_u16(memory, at(self.areas[1], 2)?)?;
        let count = index.wrapping_sub(self.next_avail);
        if count > self.size {
            return Err(RingError::Broken(RingFault::Index(index)));
        }
        Ok(count > 0)
    }

    /// Visits the buffers of a chain until `visit` breaks.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn fetch(
        &self,
        memory: &dyn GuestMemory,
        accepted: u64,
        head: u16,
        mut visit: impl FnMut(BufferSegment) -> ControlFlow<()>,
    ) -> Result<(), RingError> {
        let own = BufferTable { base: self.areas[0], entries: self.size.into() };
        let (mut table, mut number, mut is_indirect) = (own, head, false);
        for _ in 0..self.size {
            let found = descriptor(memory, table, number)?;
            if found.flags & DESCRIPTOR_INDIRECT != 0 {
                let is_sound = !is_indirect
                    && accepted & features::INDIRECT != 0
                    && found.flags & DESCRIPTOR_NEXT == 0
                    && found.bytes > 0
                    && u64::from(found.bytes).is_multiple_of(DESCRIPTOR_BYTES);
                if !is_sound {
                    return Err(RingError::Broken(RingFault::Indirect));
                }
                let entries = found.bytes / DESCRIPTOR_BYTES as u32;
                (table, number, is_indirect) = (BufferTable { base: found.at, entries }, 0, true);
                continue;
            }
            let kind = if found.flags & DESCRIPTOR_WRITE != 0 {
                BufferUse::Writable
            } else {
                BufferUse::Readable
            };
            let segment = BufferSegment { at: Gpa::new(found.at), bytes: found.bytes, kind };
            if visit(segment).is_break() || found.flags & DESCRIPTOR_NEXT == 0 {
                return Ok(());
            }
            number = found.next;
        }
        Err(RingError::Broken(RingFault::Endless))
    }

    /// Gives the chain of `head` back with `bytes` written.
    ///
    /// # Errors
    /// [`RingError`]; the driver then has not seen the chain.
    pub fn complete(
        &mut self,
        memory: &dyn GuestMemory,
        accepted: u64,
        (head, bytes): (u16, u32),
    ) -> Result<DriverNotice, RingError> {
        let slot = u64::from(self.next_used & self.mask());
        let mut element = [0; 8];
        element[..2].copy_from_slice(&head.to_le_bytes());
        element[4..].copy_from_slice(&bytes.to_le_bytes());
        memory.write(at(self.areas[2], 4 + 8 * slot)?, &element)?;
        // The element is there before the index says so.
        fence(Ordering::SeqCst);
        let next = self.next_used.wrapping_add(1);
        memory.write(at(self.areas[2], 2)?, &next.to_le_bytes())?;
        (self.next_used, self.next_avail) = (next, self.next_avail.wrapping_add(1));
        fence(Ordering::SeqCst);
        // A page that has left by now costs an interrupt that the driver may not want.
        Ok(self.notice(memory, accepted).unwrap_or(DriverNotice::Wanted))
    }

    fn notice(&self, memory: &dyn GuestMemory, accepted: u64) -> Result<DriverNotice, RingError> {
        let is_wanted = if accepted & features::EVENT_INDEX != 0 {
            let event = read_u16(memory, at(self.areas[1], 4 + 2 * u64::from(self.size))?)?;
            // One was completed: the event is crossed by exactly that one.
            event == self.next_used.wrapping_sub(1)
        } else {
            read_u16(memory, at(self.areas[1], 0)?)? & NO_INTERRUPT == 0
        };
        Ok(if is_wanted { DriverNotice::Wanted } else { DriverNotice::Unwanted })
    }

    /// Appends the registers and places.
    pub fn save(&self, out: &mut StateWriter) {
        out.u16(self.size);
        out.u16(self.vector);
        out.bool(self.is_enabled);
        self.areas.iter().for_each(|area| out.u64(*area));
        out.u16(self.next_avail);
        out.u16(self.next_used);
    }

    /// Takes saved ones over; the device has `vectors` vectors.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn restore(&mut self, from: &mut StateReader<'_>, vectors: u16) -> Result<(), StateError> {
        let mut ring = Self { size: from.u16()?, vector: from.u16()?, ..Self::new(self.most) };
        from.check(ring.size.is_power_of_two() && ring.size <= self.most)?;
        from.check(ring.vector == NO_VECTOR || ring.vector < vectors)?;
        let is_enabled = from.bool()?;
        for area in &mut ring.areas {
            *area = from.u64()?;
        }
        from.check(!is_enabled || ring.enable().is_ok())?;
        (ring.next_avail, ring.next_used) = (from.u16()?, from.u16()?);
        *self = ring;
        Ok(())
    }
}

/// Returns the address `offset` bytes behind `base`.
fn at(base: u64, offset: u64) -> Result<Gpa, RingError> {
    let sum = base.checked_add(offset).map(Gpa::new);
    sum.ok_or(RingError::Broken(RingFault::Address(base)))
}

fn read_u16(memory: &dyn GuestMemory, at: Gpa) -> Result<u16, RingError> {
    let mut bytes = [0; 2];
    memory.read(at, &mut bytes)?;
    Ok(u16::from_le_bytes(bytes))
}

fn descriptor(
    memory: &dyn GuestMemory,
    table: BufferTable,
    number: u16,
) -> Result<RingDescriptor, RingError> {
    if u32::from(number) >= table.entries {
        return Err(RingError::Broken(RingFault::Descriptor(number)));
    }
    let mut bytes = [0; DESCRIPTOR_BYTES as usize];
    memory.read(at(table.base, DESCRIPTOR_BYTES * u64::from(number))?, &mut bytes)?;
    let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    Ok(RingDescriptor {
        at: bytes.first_chunk().copied().map_or(0, u64::from_le_bytes),
        bytes: u32::from(word(8)) | u32::from(word(10)) << 16,
        flags: word(12),
        next: word(14),
    })
}
