//! Configuration space by the port pair 0xcf8 (address) and 0xcfc (data).
//!
//! The machine has one such pair, so every access takes a lock of rank `PCI`.

// UNSAFETY: port access is unsafe by nature; this module is the one owner of these two ports.
#![expect(unsafe_code)]

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use crate::arch::instr::{in32, out32};
use crate::sync::{RankedLock, rank};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

static PAIR: RankedLock<(), { rank::PCI }> = RankedLock::new(());

/// Access by ports. A handle has no state: all handles share the one pair of ports.
#[derive(Clone, Copy, Debug)]
pub struct ConfigPorts {
    _private: (),
}

impl ConfigPorts {
    /// Makes a handle.
    ///
    /// # Safety
    /// The machine is a PC: the two ports are PCI's, or unused.
    pub const unsafe fn new() -> Self {
        Self { _private: () }
    }
}

/// Returns the value for the address port.
fn address(function: DeviceFunction, register: u8) -> u32 {
    let (bus, device) = (u32::from(function.bus), u32::from(function.device));
    ENABLE | bus << 16 | device << 11 | u32::from(function.function) << 8 | u32::from(register & !3)
}

impl ConfigurationAccess for ConfigPorts {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        let _pair = PAIR.lock();
        // SAFETY: the address port is ours (promise to `new`), and writing it only selects.
        unsafe { out32(ADDRESS, address(function, register)) };
        // SAFETY: the data port is ours (promise to `new`).
        unsafe { in32(DATA) }
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, data: u32) {
        let _pair = PAIR.lock();
        // SAFETY: as in `read_word`.
        unsafe { out32(ADDRESS, address(function, register)) };
        // SAFETY: the data port is ours; the effect of the write on the device is its driver's
        // responsibility.
        unsafe { out32(DATA, data) };
    }

    unsafe fn unsafe_clone(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_word_at_its_extremes() {
        let last = DeviceFunction { bus: 255, device: 31, function: 7 };
        assert_eq!(address(last, 0xff), 0x80ff_fffc);
        assert_eq!(address(DeviceFunction { bus: 0, device: 1, function: 0 }, 0x10), 0x8000_0810);
    }
}
