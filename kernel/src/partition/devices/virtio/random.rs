//! The entropy device: fills buffers with random numbers. VIRTIO 1.2, 5.4 "Entropy Device".
//!
//! ```text
//!   idle ──next chain──> filling ──all, or the most at once──> full ──used element──> idle
//! ```
//!
//! Each step touches one page of guest memory, so a request needs no two pages at the same time,
//! and a request that waits for a page goes on where it was. The numbers are the CPU's own. Where
//! it has none at the moment, the request waits: the device never gives out anything else.

use super::registers::VirtioRegisters;
use super::ring::{BufferSegment, BufferUse, DriverNotice, RingError};
use crate::addr::PAGE_SIZE;
use crate::dump::state_note::{StateError, StateReader, StateWriter};
use crate::mm::guest::GuestMemory;
use arrayvec::ArrayVec;
use core::ops::ControlFlow;

/// The device's number.
pub const DEVICE_ID: u16 = 4;
/// Descriptors of its ring.
pub const RING_SIZE: u16 = 64;
/// Most bytes that a request gets. A driver that wants more asks again.
const MOST_BYTES: u32 = 4096;
/// Most buffers of a chain that are used.
const MOST_SEGMENTS: usize = 4;
/// Most steps in one go, so that a device does not hold up its CPU.
const MOST_STEPS: u32 = 64;
/// The device's only ring.
const RING: usize = 0;

/// A source of random numbers; `None` while it has none.
pub type RandomNumbers<'a> = &'a mut dyn FnMut() -> Option<u64>;

/// How far the device's only request is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum FillState {
    /// None has been fetched.
    #[default]
    Idle,
    /// Buffers are being filled.
    Filling { head: u16, left: ArrayVec<BufferSegment, MOST_SEGMENTS>, done: u32 },
    /// The driver is to be told.
    Full { head: u16, bytes: u32 },
}

/// Why a device has stopped working.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkEnd {
    /// There is nothing to do.
    Idle,
    /// There is more to do.
    More,
    /// There are no random numbers at the moment.
    Exhausted,
    /// At a page, or at a fault of the driver.
    At(RingError),
}

/// The device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RandomModel {
    state: FillState,
}

impl RandomModel {
    /// Works on the ring until there is nothing to do, or a bound is reached. Sets bits of `raised`
    /// for the vectors to signal.
    pub fn work(
        &mut self,
        registers: &mut VirtioRegisters,
        memory: &dyn GuestMemory,
        numbers: RandomNumbers<'_>,
        raised: &mut u32,
    ) -> WorkEnd {
        for _ in 0..MOST_STEPS {
            match self.step(registers, memory, numbers, raised) {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(error) => return WorkEnd::At(error),
            }
        }
        WorkEnd::More
    }

    /// Does one step; `Some` if there is no next one now.
    fn step(
        &mut self,
        registers: &mut VirtioRegisters,
        memory: &dyn GuestMemory,
        numbers: RandomNumbers<'_>,
        raised: &mut u32,
    ) -> Result<Option<WorkEnd>, RingError> {
        let accepted = registers.accepted();
        match &mut self.state {
            FillState::Idle => {
                let Some(ring) = registers.rings.get(RING).filter(|ring| ring.is_enabled) else {
                    return Ok(Some(WorkEnd::Idle));
                };
                let Some(head) = ring.next_head(memory, accepted)? else {
                    return Ok(Some(WorkEnd::Idle));
                };
                let mut left = ArrayVec::new();
                ring.fetch(memory, accepted, head, |segment| {
                    if segment.kind == BufferUse::Writable && segment.bytes > 0 {
                        left.push(segment);
                    }
                    if left.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })?;
                self.state = FillState::Filling { head, left, done: 0 };
            }
            FillState::Filling { head, left, done } => {
                let Some(segment) = left.first_mut().filter(|_| *done < MOST_BYTES) else {
                    self.state = FillState::Full { head: *head, bytes: *done };
                    return Ok(None);
                };
                let Some(bytes) = fill(segment, MOST_BYTES - *done, memory, numbers)? else {
                    return Ok(Some(WorkEnd::Exhausted));
                };
                *done += bytes;
                if segment.bytes == 0 {
                    left.remove(0);
                }
            }
            FillState::Full { head, bytes } => {
                let element = (*head, *bytes);
                if let Some(ring) = registers.rings.get_mut(RING)
                    && ring.complete(memory, accepted, element)? == DriverNotice::Wanted
                {
                    *raised |= registers.interrupt(RING).map_or(0, |vector| 1 << vector);
                }
                self.state = FillState::Idle;
            }
        }
        Ok(None)
    }

    /// Appends what was done and not told. A request that is being filled is fetched anew.
    pub fn save(&self, out: &mut StateWriter) {
        let full = match self.state {
            FillState::Full { head, bytes } => Some((head, bytes)),
            FillState::Idle | FillState::Filling { .. } => None,
        };
        out.bool(full.is_some());
        let (head, bytes) = full.unwrap_or_default();
        out.u16(head);
        out.u32(bytes);
    }

    /// Takes it over.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn restore(&mut self, from: &mut StateReader<'_>) -> Result<(), StateError> {
        let (is_full, head, bytes) = (from.bool()?, from.u16()?, from.u32()?);
        from.check(bytes <= MOST_BYTES)?;
        self.state = if is_full { FillState::Full { head, bytes } } else { FillState::Idle };
        Ok(())
    }
}

/// Fills the part of a buffer that lies in its first page, at most `most` bytes, and cuts it off;
/// returns its length. `None` if there are no numbers.
fn fill(
    segment: &mut BufferSegment,
    most: u32,
    memory: &dyn GuestMemory,
    numbers: RandomNumbers<'_>,
) -> Result<Option<u32>, RingError> {
    let in_page = (PAGE_SIZE - segment.at.page_offset()) as u32;
    let mut bytes = [0; 64];
    let len = segment.bytes.min(in_page).min(most).min(bytes.len() as u32);
    let bytes = &mut bytes[..len as usize];
    for chunk in bytes.chunks_mut(8) {
        let Some(number) = numbers() else { return Ok(None) };
        chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
    }
    memory.write(segment.at, bytes)?;
    let next = segment.at.checked_add(len.into());
    // The end of all addresses is no RAM: a buffer that goes on there is refused at its next byte.
    segment.at = next.unwrap_or(segment.at);
    segment.bytes -= len;
    Ok(Some(len))
}
