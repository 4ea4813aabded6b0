//! The registers that all virtio devices have: the common configuration and the ISR status.
//!
//! ```text
//!   status: 0 ──> ACKNOWLEDGE ──> DRIVER ──> FEATURES_OK ──> DRIVER_OK ──> 0 (reset)
//!                                             │ refused: the bit stays clear
//! ```
//!
//! Source: VIRTIO 1.2, 4.1.4.3 "Common configuration structure layout", 2.1 "Device Status Field".
//! Fields are read in any width; they are written in their own, the addresses also in halves. Any
//! other write is ignored.

use super::features;
use super::ring::{GuestRing, NO_VECTOR};
use crate::dump::state_note::{StateError, StateReader, StateWriter};
use crate::virt::AccessWidth;
use arrayvec::ArrayVec;

/// Most rings of a device.
pub const MOST_RINGS: usize = 2;
/// Bytes of the common configuration.
pub const COMMON_BYTES: u16 = 60;

/// Offsets in the common configuration.
pub mod field {
    /// Selects a half of the features offered.
    pub const DEVICE_FEATURE_SELECT: u16 = 0;
    /// The half.
    pub const DEVICE_FEATURE: u16 = 4;
    /// Selects a half of the features accepted.
    pub const DRIVER_FEATURE_SELECT: u16 = 8;
    /// The half.
    pub const DRIVER_FEATURE: u16 = 12;
    /// MSI-X vector of changes of the configuration.
    pub const CONFIG_VECTOR: u16 = 16;
    /// Number of rings.
    pub const RING_COUNT: u16 = 18;
    /// Device status.
    pub const STATUS: u16 = 20;
    /// Selects a ring.
    pub const RING_SELECT: u16 = 22;
    /// Its descriptors.
    pub const RING_SIZE: u16 = 24;
    /// Its MSI-X vector.
    pub const RING_VECTOR: u16 = 26;
    /// Lets the device use it.
    pub const RING_ENABLE: u16 = 28;
    /// Its place among the notification registers.
    pub const RING_NOTIFY: u16 = 30;
    /// The addresses of its three areas.
    pub const RING_AREAS: u16 = 32;
    /// Resets it.
    pub const RING_RESET: u16 = 58;
}

/// The driver can drive the device.
pub const STATUS_DRIVER_OK: u8 = 4;
/// The features are agreed on.
pub const STATUS_FEATURES_OK: u8 = 8;
/// The device does not go on without a reset.
pub const STATUS_NEEDS_RESET: u8 = 0x40;

const ISR_RING: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// The registers of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtioRegisters {
    offered: u64,
    accepted: u64,
    selected: [u32; 2],
    status: u8,
    isr: u8,
    config_vector: u16,
    ring_select: u16,
    /// Number of MSI-X vectors.
    vectors: u16,
    /// The rings.
    pub rings: ArrayVec<GuestRing, MOST_RINGS>,
}

/// What a write of a register leads to, beside the register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a device that is not reset goes on with the old driver's buffers"]
pub enum RegisterEffect {
    /// Nothing.
    None,
    /// The device was reset: its model follows.
    Reset,
    /// This ring was reset, and is off.
    RingReset(u16),
    /// The device may have work: the driver is ready, or a ring is on.
    Started,
}

impl VirtioRegisters {
    /// Makes the registers of a device with features of its own, and rings of these sizes; it has a
    /// vector for each ring and one more.
    pub fn new(own_features: u64, sizes: &[u16]) -> Self {
        let rings: ArrayVec<_, MOST_RINGS> =
            sizes.iter().take(MOST_RINGS).map(|size| GuestRing::new(*size)).collect();
        Self {
            offered: own_features | features::OFFERED,
            accepted: 0,
            selected: [0; 2],
            status: 0,
            isr: 0,
            config_vector: NO_VECTOR,
            ring_select: 0,
            vectors: rings.len() as u16 + 1,
            rings,
        }
    }

    /// Returns the number of MSI-X vectors.
    pub const fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Returns the features that the driver has accepted.
    pub const fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Returns whether the device may use its rings.
    pub const fn is_running(&self) -> bool {
        self.status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET) == STATUS_DRIVER_OK
    }

    /// Resets everything.
    pub fn reset(&mut self) {
        (self.accepted, self.selected, self.status, self.isr) = (0, [0; 2], 0, 0);
        (self.config_vector, self.ring_select) = (NO_VECTOR, 0);
        self.rings.iter_mut().for_each(GuestRing::reset);
    }

    /// Stops the device until it is reset. Returns the vector that tells the driver, if any.
    pub fn break_down(&mut self) -> Option<u16> {
        self.status |= STATUS_NEEDS_RESET;
        self.isr |= ISR_CONFIG;
        Some(self.config_vector).filter(|vector| *vector != NO_VECTOR)
    }

    /// Notes an interrupt of a ring. Returns its vector, if any.
    pub fn interrupt(&mut self, ring: usize) -> Option<u16> {
        self.isr |= ISR_RING;
        self.rings.get(ring).map(|ring| ring.vector).filter(|vector| *vector != NO_VECTOR)
    }

    /// Reads the ISR status, which clears it.
    pub fn take_isr(&mut self) -> u8 {
        core::mem::take(&mut self.isr)
    }

    /// Reads the common configuration; zeros behind it.
    pub fn read(&self, offset: u16, width: AccessWidth) -> u64 {
        let image = self.image();
        (0..width.bytes()).rev().fold(0, |value, n| {
            let byte = image.get(usize::from(offset) + n).copied().unwrap_or(0);
            value << 8 | u64::from(byte)
        })
    }

    fn image(&self) -> [u8; COMMON_BYTES as usize] {
        let mut image = [0; COMMON_BYTES as usize];
        let mut put = |at: u16, bytes: &[u8]| {
            image[usize::from(at)..][..bytes.len()].copy_from_slice(bytes);
        };
        put(field::DEVICE_FEATURE_SELECT, &self.selected[0].to_le_bytes());
        put(field::DEVICE_FEATURE, &half(self.offered, self.selected[0]).to_le_bytes());
        put(field::DRIVER_FEATURE_SELECT, &self.selected[1].to_le_bytes());
        put(field::DRIVER_FEATURE, &half(self.accepted, self.selected[1]).to_le_bytes());
        put(field::CONFIG_VECTOR, &self.config_vector.to_le_bytes());
        put(field::RING_COUNT, &(self.rings.len() as u16).to_le_bytes());
        put(field::STATUS, &[self.status]);
        put(field::RING_SELECT, &self.ring_select.to_le_bytes());
        let Some(ring) = self.rings.get(usize::from(self.ring_select)) else { return image };
        put(field::RING_SIZE, &ring.size.to_le_bytes());
        put(field::RING_VECTOR, &ring.vector.to_le_bytes());
        put(field::RING_ENABLE, &u16::from(ring.is_enabled).to_le_bytes());
        put(field::RING_NOTIFY, &self.ring_select.to_le_bytes());
        for (n, area) in ring.areas.iter().enumerate() {
            put(field::RING_AREAS + 8 * n as u16, &area.to_le_bytes());
        }
        image
    }

    /// Writes a register.
    pub fn write(&mut self, offset: u16, width: AccessWidth, value: u64) -> RegisterEffect {
        let value = value & width.mask();
        match (offset, width) {
            (field::DEVICE_FEATURE_SELECT, AccessWidth::Dword) => self.selected[0] = value as u32,
            (field::DRIVER_FEATURE_SELECT, AccessWidth::Dword) => self.selected[1] = value as u32,
            (field::DRIVER_FEATURE, AccessWidth::Dword) => self.accept(value as u32),
            (field::CONFIG_VECTOR, AccessWidth::Word) => {
                self.config_vector = self.vector(value as u16);
            }
            (field::STATUS, AccessWidth::Byte) => return self.set_status(value as u8),
            (field::RING_SELECT, AccessWidth::Word) => self.ring_select = value as u16,
            _ => return self.write_ring(offset, width, value),
        }
        RegisterEffect::None
    }

    /// Features count only until they are agreed on.
    fn accept(&mut self, value: u32) {
        if self.status & STATUS_FEATURES_OK != 0 {
            return;
        }
        match self.selected[1] {
            0 => self.accepted = self.accepted & !0xffff_ffff | u64::from(value),
            1 => self.accepted = self.accepted & 0xffff_ffff | u64::from(value) << 32,
            _ => {}
        }
    }

    fn set_status(&mut self, value: u8) -> RegisterEffect {
        if value == 0 {
            self.reset();
            return RegisterEffect::Reset;
        }
        let was_running = self.is_running();
        let is_sound =
            self.accepted & !self.offered == 0 && self.accepted & features::VERSION_1 != 0;
        let mut allowed = !STATUS_NEEDS_RESET;
        if !is_sound {
            allowed &= !(STATUS_FEATURES_OK | STATUS_DRIVER_OK);
        }
        // A driver takes no bit back but by a reset.
        self.status |= value & allowed;
        if self.status & STATUS_FEATURES_OK == 0 {
            self.status &= !STATUS_DRIVER_OK;
        }
        if self.is_running() && !was_running {
            return RegisterEffect::Started;
        }
        RegisterEffect::None
    }

    fn vector(&self, wanted: u16) -> u16 {
        if wanted < self.vectors { wanted } else { NO_VECTOR }
    }

    fn write_ring(&mut self, offset: u16, width: AccessWidth, value: u64) -> RegisterEffect {
        let (select, vector) = (self.ring_select, self.vector(value as u16));
        let can_reset = self.accepted & features::RING_RESET != 0;
        let Some(ring) = self.rings.get_mut(usize::from(select)) else {
            return RegisterEffect::None;
        };
        match (offset, width) {
            (field::RING_SIZE, AccessWidth::Word) => ring.set_size(value as u16),
            (field::RING_VECTOR, AccessWidth::Word) => ring.vector = vector,
            (field::RING_ENABLE, AccessWidth::Word) if value == 1 && !ring.is_enabled => {
                if ring.enable().is_ok() {
                    return RegisterEffect::Started;
                }
                let _ = self.break_down();
            }
            (field::RING_RESET, AccessWidth::Word) if value == 1 && can_reset => {
                let kept = ring.vector;
                ring.reset();
                ring.vector = kept;
                return RegisterEffect::RingReset(select);
            }
            (field::RING_AREAS..field::RING_RESET, _) if !ring.is_enabled => {
                set_area(&mut ring.areas, offset - field::RING_AREAS, width, value);
            }
            _ => {}
        }
        RegisterEffect::None
    }

    /// Appends everything that the driver has set.
    pub fn save(&self, out: &mut StateWriter) {
        out.u64(self.offered);
        out.u64(self.accepted);
        self.selected.iter().for_each(|select| out.u32(*select));
        out.u8(self.status);
        out.u8(self.isr);
        out.u16(self.config_vector);
        out.u16(self.ring_select);
        out.u8(self.rings.len() as u8);
        self.rings.iter().for_each(|ring| ring.save(out));
    }

    /// Takes saved registers of the same device over. A device that offers more by now goes on with
    /// what the guest has seen.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn restore(&mut self, from: &mut StateReader<'_>) -> Result<(), StateError> {
        let (offered, accepted) = (from.u64()?, from.u64()?);
        from.check(offered & !self.offered == 0)?;
        self.selected = [from.u32()?, from.u32()?];
        (self.offered, self.accepted) = (offered, accepted);
        (self.status, self.isr) = (from.u8()?, from.u8()?);
        let is_sound = accepted & !offered == 0 && accepted & features::VERSION_1 != 0;
        from.check(self.status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK) == 0 || is_sound)?;
        (self.config_vector, self.ring_select) = (from.u16()?, from.u16()?);
        from.check(self.config_vector == self.vector(self.config_vector))?;
        let count = from.u8()?;
        from.check(usize::from(count) == self.rings.len())?;
        let vectors = self.vectors;
        self.rings.iter_mut().try_for_each(|ring| ring.restore(from, vectors))
    }
}

/// Returns a half of the features; there are none beyond the second.
const fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

/// Writes an address, whole or a half of it.
fn set_area(areas: &mut [u64; 3], offset: u16, width: AccessWidth, value: u64) {
    let Some(area) = areas.get_mut(usize::from(offset / 8)) else { return };
    *area = match (offset % 8, width) {
        (0, AccessWidth::Qword) => value,
        (0, AccessWidth::Dword) => *area & !0xffff_ffff | value,
        (4, AccessWidth::Dword) => *area & 0xffff_ffff | value << 32,
        _ => *area,
    };
}
