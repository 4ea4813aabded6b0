//! A PCI bus for host tests: words of configuration space in a map.

// UNSAFETY: the trait has an unsafe method; this bus has no shared state to race for.
#![expect(unsafe_code)]

use std::collections::HashMap;

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

/// Configuration space that holds the words put there; all other functions are absent.
#[derive(Default, Clone)]
pub struct FakeBus(HashMap<(u8, u8, u8, u8), u32>);

impl FakeBus {
    /// Adds a function.
    pub fn add(&mut self, at: DeviceFunction, vendor: u16, device: u16) {
        self.set(at, 0, u32::from(device) << 16 | u32::from(vendor));
    }

    /// Adds a bridge to `secondary`.
    pub fn add_bridge(&mut self, at: DeviceFunction, secondary: u8) {
        self.add(at, 0x8086, 1);
        self.set(at, 0xc, 1 << 16);
        self.set(at, 0x18, u32::from(secondary) << 8);
    }

    /// Sets a word.
    pub fn set(&mut self, at: DeviceFunction, register: u8, word: u32) {
        self.0.insert((at.bus, at.device, at.function, register), word);
    }

    /// Returns a word.
    pub fn get(&self, at: DeviceFunction, register: u8) -> u32 {
        let key = |register| (at.bus, at.device, at.function, register);
        let default = if self.0.contains_key(&key(0)) { 0 } else { !0 };
        self.0.get(&key(register)).copied().unwrap_or(default)
    }
}

impl ConfigurationAccess for FakeBus {
    fn read_word(&self, at: DeviceFunction, register: u8) -> u32 {
        self.get(at, register)
    }
    fn write_word(&mut self, at: DeviceFunction, register: u8, word: u32) {
        self.set(at, register, word);
    }
    unsafe fn unsafe_clone(&self) -> Self {
        self.clone()
    }
}
