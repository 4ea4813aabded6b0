//! Accesses to the device hole.

use super::map::{ERST_BASE, IOAPIC_BASE};
use super::pci::PciBus;
use super::{DeviceEffect, Platform};
use crate::addr::Gpa;
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::time::Ticks;
use crate::virt::AccessWidth;

impl Platform {
    /// Reads device memory. An address without a device reads all ones.
    pub fn mmio_read(&mut self, gpa: Gpa, width: AccessWidth, now: Ticks) -> u64 {
        let offset = gpa.page_offset();
        let value = match gpa.page_base().as_u64() {
            page if page == self.lapic.base() => {
                dword_part(self.lapic.mmio_read(dword_offset(offset), now), offset)
            }
            IOAPIC_BASE => dword_part(self.ioapic.read(dword_offset(offset)), offset),
            ERST_BASE => self.erst.read(offset & !7) >> ((offset & 7) * 8),
            _ => self.read_bus(gpa, width),
        };
        value & width.mask()
    }

    /// Writes device memory. An address without a device ignores the write.
    ///
    /// # Errors
    /// The error of the access to guest memory; then nothing has happened.
    pub fn mmio_write(
        &mut self,
        gpa: Gpa,
        width: AccessWidth,
        value: u64,
        now: Ticks,
        memory: &dyn GuestMemory,
    ) -> Result<DeviceEffect, GuestMemoryError> {
        match self.mmio_write_alone(gpa, width, value, now) {
            Some(effect) => Ok(effect),
            None => self.erst_write(gpa.page_offset(), width, value, memory),
        }
    }

    /// Writes device memory as [`Self::mmio_write`] does, unless the device needs guest memory for
    /// it. Then it returns `None` and nothing has happened.
    #[inline]
    pub fn mmio_write_alone(
        &mut self,
        gpa: Gpa,
        width: AccessWidth,
        value: u64,
        now: Ticks,
    ) -> Option<DeviceEffect> {
        let offset = dword_offset(gpa.page_offset());
        match gpa.page_base().as_u64() {
            page if page == self.lapic.base() => {
                let outcome = self.lapic.mmio_write(offset, value as u32, now);
                self.finish_apic_write(outcome);
            }
            IOAPIC_BASE => {
                let routed = self.ioapic.write(offset, value as u32);
                self.route(routed);
                // The write may have opened the button's input.
                if self.button.is_pressed() {
                    self.pulse_power_button();
                }
                if self.generation.is_pending() {
                    self.pulse_generation();
                }
            }
            ERST_BASE => return None,
            _ => return Some(self.write_bus(gpa, width, value)),
        }
        Some(DeviceEffect::None)
    }

    #[inline(never)]
    fn read_bus(&mut self, gpa: Gpa, width: AccessWidth) -> u64 {
        let read = |bus: &mut PciBus| bus.read_memory(gpa.as_u64(), width);
        self.bus.as_mut().and_then(read).unwrap_or(u64::MAX)
    }

    #[inline(never)]
    fn write_bus(&mut self, gpa: Gpa, width: AccessWidth, value: u64) -> DeviceEffect {
        let Some(bus) = &mut self.bus else { return DeviceEffect::None };
        let news = bus.write_memory(gpa.as_u64(), width, value);
        self.finish_bus_access(news)
    }

    fn erst_write(
        &mut self,
        offset: u64,
        width: AccessWidth,
        value: u64,
        memory: &dyn GuestMemory,
    ) -> Result<DeviceEffect, GuestMemoryError> {
        let (register, shift) = (offset & !7, (offset & 7) * 8);
        let kept = self.erst.read(register) & !(width.mask() << shift);
        self.erst.write(register, kept | ((value & width.mask()) << shift), memory)
    }
}

/// APIC registers are dwords; the page offset has 12 bits.
const fn dword_offset(offset: u64) -> u16 {
    (offset & 0xffc) as u16
}

const fn dword_part(value: u32, offset: u64) -> u64 {
    (value >> ((offset & 3) * 8)) as u64
}
