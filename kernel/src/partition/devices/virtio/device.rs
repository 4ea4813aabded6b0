//! A virtio device: registers and model behind one lock, and its life with the memory of its
//! partition.
//!
//! ```text
//!             attach                          notified
//!   cut off ─────────> with memory, idle ──────────────> served: by the vCPU's CPU, then by a task
//!      ^                     │    ^                           │
//!      └──── cut_off ────────┘    └──────── nothing to do ────┘
//! ```
//!
//! The vCPU's exits use the registers, whatever CPU serves the device uses all of it; each for a
//! bounded time. A device without memory does nothing. So after [`VirtioDevice::cut_off`] it
//! accesses no page any more: the partition is about to crash, to be suspended, or to end.

use super::random::{self, RandomModel, RandomNumbers, WorkEnd};
use super::registers::{RegisterEffect, VirtioRegisters};
use super::ring::RingError;
use crate::dump::state_note::{StateError, StateReader, StateWriter};
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::mm::object::MemoryObject;
use crate::sync::{RankedLock, rank};
use crate::virt::AccessWidth;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Base class "others": Linux has no use for the class of an entropy device.
const OTHER_CLASS: u32 = 0xff_0000;

/// What a device has done in a turn, and what comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServeEnd {
    /// Nothing is left; a notification begins anew.
    Idle,
    /// There is more to do, or there are no random numbers at the moment.
    Again,
    /// A page is on its way, or a flush.
    Waits,
    /// The page cannot be had: the partition ends.
    Lost(GuestMemoryError),
}

/// A device.
pub struct VirtioDevice {
    state: RankedLock<DeviceState, { rank::DEVICE }>,
    /// Vectors that were signalled and not delivered: one bit each.
    raised: AtomicU32,
    /// Moves on whenever the device gets memory or loses it.
    epoch: AtomicU64,
}

impl fmt::Debug for VirtioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioDevice").finish_non_exhaustive()
    }
}

struct DeviceState {
    registers: VirtioRegisters,
    model: RandomModel,
    memory: Option<Arc<MemoryObject>>,
    /// The device is being served: its rings will be looked at again.
    is_served: bool,
    /// The function may access memory.
    is_master: bool,
}

impl VirtioDevice {
    /// Makes an entropy device.
    pub fn random() -> Self {
        let state = DeviceState {
            registers: VirtioRegisters::new(0, &[random::RING_SIZE]),
            model: RandomModel::default(),
            memory: None,
            is_served: false,
            is_master: false,
        };
        Self { state: RankedLock::new(state), raised: AtomicU32::new(0), epoch: AtomicU64::new(0) }
    }

    /// Returns the device's number, its class, its rings and vectors, and the bytes of its own
    /// configuration.
    pub fn identity(&self) -> (u16, u32, (u16, u16), u16) {
        let registers = &self.state.lock().registers;
        let counts = (registers.rings.len() as u16, registers.vectors());
        (random::DEVICE_ID, OTHER_CLASS, counts, 0)
    }

    /// Gives the device the memory of an incarnation.
    pub fn attach(&self, memory: Arc<MemoryObject>) {
        let mut state = self.state.lock();
        state.memory = Some(memory);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// Takes the memory away: no page of it is accessed any more.
    pub fn cut_off(&self) {
        let mut state = self.state.lock();
        state.memory = None;
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// Returns a number that changes when the device gets memory or loses it.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Resets the device, with its registers.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.registers.reset();
        state.model = RandomModel::default();
        state.is_master = false;
        self.raised.store(0, Ordering::Relaxed);
    }

    /// Notes whether the function may access memory; returns whether it may have work now.
    pub fn set_master(&self, is_master: bool) -> bool {
        let mut state = self.state.lock();
        let begins = is_master && !state.is_master && state.registers.is_running();
        state.is_master = is_master;
        begins
    }

    /// Reads the common configuration.
    pub fn read_common(&self, offset: u16, width: AccessWidth) -> u64 {
        self.state.lock().registers.read(offset, width)
    }

    /// Writes the common configuration; returns whether the device may have work now.
    pub fn write_common(&self, offset: u16, width: AccessWidth, value: u64) -> bool {
        let mut state = self.state.lock();
        match state.registers.write(offset, width, value) {
            RegisterEffect::None => false,
            RegisterEffect::Started => state.registers.is_running(),
            RegisterEffect::Reset | RegisterEffect::RingReset(_) => {
                state.model = RandomModel::default();
                self.raised.store(0, Ordering::Relaxed);
                false
            }
        }
    }

    /// Reads the ISR status, which clears it.
    pub fn take_isr(&self) -> u8 {
        self.state.lock().registers.take_isr()
    }

    /// Takes the vectors that were signalled.
    pub fn take_raised(&self) -> u32 {
        self.raised.swap(0, Ordering::AcqRel)
    }

    /// Returns whether the device can send an interrupt sooner or later.
    pub fn is_running(&self) -> bool {
        self.state.lock().registers.is_running()
    }

    /// Begins to serve the device: returns its memory and the epoch of that. `None` while a task
    /// serves it, which looks at the rings again; and without memory.
    pub fn begin(&self) -> Option<(u64, Arc<MemoryObject>)> {
        let mut state = self.state.lock();
        let memory = state.memory.clone().filter(|_| !state.is_served)?;
        state.is_served = true;
        Some((self.epoch(), memory))
    }

    /// Returns the same for a task that serves the device already; `None` ends it.
    pub fn go_on(&self) -> Option<(u64, Arc<MemoryObject>)> {
        let mut state = self.state.lock();
        state.is_served = state.memory.is_some();
        state.memory.clone().map(|memory| (self.epoch(), memory))
    }

    /// Does a bounded piece of work with `memory`: the pages of the object that came with `epoch`.
    /// After [`ServeEnd::Idle`] and [`ServeEnd::Lost`] the device is not served any more.
    pub fn serve(
        &self,
        epoch: u64,
        memory: &dyn GuestMemory,
        numbers: RandomNumbers<'_>,
    ) -> ServeEnd {
        let mut state = self.state.lock();
        let DeviceState { registers, model, is_master, .. } = &mut *state;
        let mut raised = 0;
        let end = if self.epoch() != epoch {
            ServeEnd::Again
        } else if !*is_master || !registers.is_running() {
            ServeEnd::Idle
        } else {
            match model.work(registers, memory, numbers, &mut raised) {
                WorkEnd::Idle => ServeEnd::Idle,
                WorkEnd::More | WorkEnd::Exhausted => ServeEnd::Again,
                WorkEnd::At(RingError::Memory(GuestMemoryError::NotResident(_))) => ServeEnd::Waits,
                WorkEnd::At(RingError::Memory(error)) => ServeEnd::Lost(error),
                WorkEnd::At(RingError::Broken(_)) => {
                    raised |= registers.break_down().map_or(0, |vector| 1 << vector);
                    ServeEnd::Idle
                }
            }
        };
        state.is_served = matches!(end, ServeEnd::Again | ServeEnd::Waits);
        self.raised.fetch_or(raised, Ordering::AcqRel);
        end
    }

    /// Returns whether vectors wait to be delivered.
    pub fn has_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire) != 0
    }

    /// Signals a vector.
    #[cfg(test)]
    pub fn raise(&self, vector: u16) {
        self.raised.fetch_or(1 << vector, Ordering::AcqRel);
    }

    /// Appends the state of a device that is cut off.
    pub fn save(&self, out: &mut StateWriter) {
        let state = self.state.lock();
        state.registers.save(out);
        state.model.save(out);
    }

    /// Takes it over.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn restore(&self, from: &mut StateReader<'_>) -> Result<(), StateError> {
        let mut state = self.state.lock();
        let DeviceState { registers, model, .. } = &mut *state;
        registers.restore(from)?;
        model.restore(from)
    }
}
