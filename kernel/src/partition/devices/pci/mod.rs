//! The PCI bus of a partition: bus 0 with a host bridge and the partition's devices.
//!
//! ```text
//!   0xcf8, 0xcfc ──┐
//!                  ├─> 00:00.0 host bridge
//!   ECAM ──────────┤   00:01.0 ... virtio devices ── BAR 0 in the window below 4 GiB
//!   window ────────┘
//! ```
//!
//! Sources: PCI Local Bus Specification 3.0, 3.2.2.3.2 "Software Generation of Configuration
//! Transactions"; PCI Firmware Specification 3.2, "MCFG". There is no wired interrupt, no I/O space
//! and no bridge. Linux finds the bus by the ports, and ECAM because the memory map reserves it. It
//! assigns the BARs itself.
//!
//! A partition without devices on the bus has no bus: its ports read all ones. Pure but for the
//! devices' locks.

pub mod config_space;
pub mod function;
pub mod vectors;

#[cfg(test)]
mod tests;

use super::map::{ECAM_BASE, ECAM_BYTES};
use super::saved::SavedDevice;
use super::virtio::device::VirtioDevice;
use crate::dump::state_note::{StateError, StatePart, StateReader, StateWriter};
use crate::time::Ticks;
use crate::virt::AccessWidth;
use alloc::sync::Arc;
use alloc::vec::Vec;
use config_space::{FunctionConfig, GuestFunction};
use function::{FunctionNews, VirtioFunction};
use vectors::ReleasedMessages;

/// Bit of the address port: the data ports reach the configuration space.
const ADDRESS_ENABLE: u32 = 1 << 31;
/// The bits of the address port that exist.
const ADDRESS_BITS: u32 = ADDRESS_ENABLE | 0x00ff_fffc;
/// The host bridge: Red Hat's PCI Express host bridge, which no driver binds.
const BRIDGE: GuestFunction =
    GuestFunction { vendor: 0x1b36, device: 0x0008, class: 0x06_0000, revision: 0 };
/// Base class and subclass of a host bridge come first: Linux looks for them.
const FIRST_SLOT: u32 = 1;

/// The bus.
#[derive(Debug)]
pub struct PciBus {
    address: u32,
    bridge: FunctionConfig,
    functions: Vec<VirtioFunction>,
}

impl PciBus {
    /// Makes the bus of these devices.
    pub fn new(devices: impl IntoIterator<Item = Arc<VirtioDevice>>) -> Self {
        let functions = devices.into_iter().map(VirtioFunction::new).collect();
        Self { address: 0, bridge: FunctionConfig::new(BRIDGE), functions }
    }

    /// Returns the devices.
    pub fn devices(&self) -> impl Iterator<Item = &Arc<VirtioDevice>> {
        self.functions.iter().map(VirtioFunction::device)
    }

    /// Resets bus and devices.
    pub fn reset(&mut self) {
        (self.address, self.bridge) = (0, FunctionConfig::new(BRIDGE));
        self.functions.iter_mut().for_each(VirtioFunction::reset);
    }

    /// Reads the address port.
    pub const fn address(&self) -> u32 {
        self.address
    }

    /// Writes the address port.
    pub const fn set_address(&mut self, value: u32) {
        self.address = value & ADDRESS_BITS;
    }

    /// Reads the data ports, `byte` bytes behind the first.
    pub fn read_data(&mut self, byte: u16, width: AccessWidth) -> u32 {
        match self.place_of_data(byte) {
            Some((slot, offset)) => self.read_config(slot, offset, width) as u32,
            None => width.mask() as u32,
        }
    }

    /// Writes the data ports.
    pub fn write_data(&mut self, byte: u16, width: AccessWidth, value: u32) -> FunctionNews {
        match self.place_of_data(byte) {
            Some((slot, offset)) => self.write_config(slot, offset, width, value.into()),
            None => FunctionNews::default(),
        }
    }

    /// Returns slot and offset that the data ports reach; functions other than the first do not
    /// exist, and neither do other buses.
    fn place_of_data(&self, byte: u16) -> Option<(u32, u16)> {
        let is_on = self.address & ADDRESS_ENABLE != 0 && self.address & 0x00ff_0700 == 0;
        is_on.then_some((self.address >> 11 & 0x1f, (self.address & 0xfc) as u16 + byte))
    }

    /// Reads device memory: ECAM or a BAR. `None` where nothing is.
    pub fn read_memory(&mut self, gpa: u64, width: AccessWidth) -> Option<u64> {
        if let Some((slot, offset)) = place_in_ecam(gpa) {
            return Some(slot.map_or(width.mask(), |slot| self.read_config(slot, offset, width)));
        }
        let (function, offset) = self.function_at(gpa)?;
        Some(function.read_bar(offset, width))
    }

    /// Writes device memory.
    pub fn write_memory(&mut self, gpa: u64, width: AccessWidth, value: u64) -> FunctionNews {
        if let Some((slot, offset)) = place_in_ecam(gpa) {
            return match slot {
                Some(slot) => self.write_config(slot, offset, width, value),
                None => FunctionNews::default(),
            };
        }
        match self.function_at(gpa) {
            Some((function, offset)) => function.write_bar(offset, width, value),
            None => FunctionNews::default(),
        }
    }

    fn function_at(&mut self, gpa: u64) -> Option<(&mut VirtioFunction, u16)> {
        self.functions
            .iter_mut()
            .find_map(|function| function.bar_offset(gpa).map(|offset| (function, offset)))
    }

    fn function(&mut self, slot: u32) -> Option<&mut VirtioFunction> {
        self.functions.get_mut(slot.checked_sub(FIRST_SLOT)? as usize)
    }

    fn read_config(&mut self, slot: u32, offset: u16, width: AccessWidth) -> u64 {
        if slot == 0 {
            return self.bridge.read(offset, width);
        }
        match self.function(slot) {
            Some(function) => function.read_config(offset, width),
            None => width.mask(),
        }
    }

    fn write_config(
        &mut self,
        slot: u32,
        offset: u16,
        width: AccessWidth,
        value: u64,
    ) -> FunctionNews {
        if slot == 0 {
            self.bridge.write(offset, width, value);
            return FunctionNews::default();
        }
        match self.function(slot) {
            Some(function) => function.write_config(offset, width, value),
            None => FunctionNews::default(),
        }
    }

    /// Returns the interrupts that the devices have signalled.
    pub fn deliver(&mut self) -> impl Iterator<Item = ReleasedMessages> {
        self.functions.iter_mut().map(VirtioFunction::deliver)
    }

    /// Returns whether a device's interrupt can still come.
    pub fn can_interrupt(&self) -> bool {
        self.functions.iter().any(VirtioFunction::can_interrupt)
    }
}

impl SavedDevice for PciBus {
    const PART: StatePart = StatePart::PciBus;

    fn save(&self, out: &mut StateWriter, _: Ticks) {
        out.u32(self.address);
        self.bridge.save(out);
        out.u32(self.functions.len() as u32);
        self.functions.iter().for_each(|function| function.save(out));
    }

    fn restore(&mut self, from: &mut StateReader<'_>, _: Ticks) -> Result<(), StateError> {
        let address = from.u32()?;
        from.check(address & !ADDRESS_BITS == 0)?;
        self.address = address;
        self.bridge.restore(from)?;
        let count = from.u32()?;
        from.check(count as usize == self.functions.len())?;
        self.functions.iter_mut().try_for_each(|function| function.restore(from))
    }
}

/// Returns slot and offset of an address in ECAM; no slot for a function that no device has. `None`
/// for all other addresses.
const fn place_in_ecam(gpa: u64) -> Option<(Option<u32>, u16)> {
    if gpa < ECAM_BASE || gpa >= ECAM_BASE + ECAM_BYTES {
        return None;
    }
    let place = gpa - ECAM_BASE;
    let slot = if place >> 12 & 7 == 0 { Some((place >> 15) as u32) } else { None };
    Some((slot, (place & 0xfff) as u16))
}
