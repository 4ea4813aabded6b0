//! A driver of the first device on the partition's PCI bus: VIRTIO 1.2, split ring, MSI-X.
//!
//! It places the device's registers itself and shares no code with the hypervisor. A test may put
//! any value into the ring or the registers.

// UNSAFETY: registers and rings are reached by physical address.
#![expect(unsafe_code)]

use core::sync::atomic::{Ordering, fence};

const ECAM: u64 = 0xe000_0000;
const DEVICE: u64 = ECAM + (1 << 15);
const BAR: u64 = 0xc000_8000;
/// The structures in the BAR, as the capabilities tell.
const NOTIFY: u64 = 0x1000;
const TABLE: u64 = 0x2000;
/// Descriptors of the ring.
pub const SIZE: u16 = 8;
/// The device has failed until it is reset.
pub const NEEDS_RESET: u8 = 0x40;

/// Places of the ring's areas in the page that it gets.
const DESCRIPTORS: u64 = 0;
const AVAIL: u64 = 0x400;
const USED: u64 = 0x800;

/// Writes a number to any place.
pub fn put<T>(at: u64, value: T) {
    // SAFETY: a test kernel owns its machine; callers name registers, or memory that they took.
    unsafe { (at as *mut T).write_volatile(value) }
}

/// Reads a number from any place.
pub fn get<T>(at: u64) -> T {
    // SAFETY: as in `put`; all types that are read here are plain numbers.
    unsafe { (at as *const T).read_volatile() }
}

/// Common configuration fields.
pub mod field {
    /// Driver's feature selector, and features.
    pub const FEATURES: u64 = 8;
    /// Configuration vector.
    pub const CONFIG_VECTOR: u64 = 16;
    /// Status.
    pub const STATUS: u64 = 20;
    /// Ring selector.
    pub const SELECT: u64 = 22;
    /// Ring size.
    pub const SIZE: u64 = 24;
    /// Ring vector.
    pub const VECTOR: u64 = 26;
    /// Ring switch.
    pub const ENABLE: u64 = 28;
    /// Ring areas.
    pub const AREAS: u64 = 32;
}

/// The device with a ring.
pub struct VirtioDriver {
    ring: u64,
    available: u16,
}

/// Returns the first device's vendor and number.
pub fn identity() -> u32 {
    get(DEVICE)
}

/// Writes the device's configuration space.
pub fn write_config(at: u64, value: u32) {
    put(DEVICE + at, value);
}

/// Reads the device's configuration space.
pub fn read_config(at: u64) -> u32 {
    get(DEVICE + at)
}

/// Reads a register.
pub fn read<T>(field: u64) -> T {
    get(BAR + field)
}

/// Writes a register.
pub fn write<T>(field: u64, value: T) {
    put(BAR + field, value);
}

/// Places the registers, and sends each MSI-X vector as `vector`.
pub fn place(vector: u8) {
    put(DEVICE + 0x10, BAR as u32);
    put(DEVICE + 4, 6_u16);
    let mut at = get::<u8>(DEVICE + 0x34);
    while at != 0 && get::<u8>(DEVICE + u64::from(at)) != 0x11 {
        at = get(DEVICE + u64::from(at) + 1);
    }
    for entry in 0..2 {
        let entry = BAR + TABLE + 16 * entry;
        put(entry, 0xfee0_0000_u32);
        put(entry + 8, u32::from(vector));
        put(entry + 12, 0_u32);
    }
    put(DEVICE + u64::from(at) + 2, 0x8000_u16);
}

impl VirtioDriver {
    /// Resets the device and starts it with a ring in the page at `ring`, which is cleared.
    pub fn start(ring: u64) -> Self {
        (0..512).for_each(|word| put(ring + 8 * word, 0_u64));
        write(field::STATUS, 0_u8);
        write(field::STATUS, 3_u8);
        for (half, bits) in [(0, 1_u32 << 28), (1, 1)] {
            write(field::FEATURES, half);
            write(field::FEATURES + 4, bits);
        }
        write(field::STATUS, 0xb_u8);
        write(field::CONFIG_VECTOR, 0_u16);
        write(field::SELECT, 0_u16);
        write(field::SIZE, SIZE);
        write(field::VECTOR, 1_u16);
        for (n, area) in [DESCRIPTORS, AVAIL, USED].into_iter().enumerate() {
            write(field::AREAS + 8 * n as u64, (ring + area) as u32);
            write(field::AREAS + 8 * n as u64 + 4, 0_u32);
        }
        write(field::ENABLE, 1_u16);
        write(field::STATUS, 0xf_u8);
        Self { ring, available: 0 }
    }

    /// Writes a descriptor: address, length, flags and next.
    pub fn describe(&self, number: u16, (at, bytes): (u64, u32), (flags, next): (u16, u16)) {
        let place = self.ring + DESCRIPTORS + 16 * u64::from(number);
        put(place, at);
        put(place + 8, bytes);
        put(place + 12, flags);
        put(place + 14, next);
    }

    /// Makes the chain at `head` available, and notifies the device.
    pub fn offer(&mut self, head: u16) {
        put(self.ring + AVAIL + 4 + 2 * u64::from(self.available % SIZE), head);
        self.available = self.available.wrapping_add(1);
        self.set_index(self.available);
    }

    /// Sets the index of available chains, and notifies the device.
    pub fn set_index(&self, index: u16) {
        fence(Ordering::SeqCst);
        put(self.ring + AVAIL + 2, index);
        fence(Ordering::SeqCst);
        put(BAR + NOTIFY, 0_u16);
    }

    /// Returns the number of used chains, and the bytes of the last.
    pub fn used(&self) -> (u16, u32) {
        let index: u16 = get(self.ring + USED + 2);
        fence(Ordering::SeqCst);
        (index, get(self.ring + USED + 4 + 8 * u64::from(index.wrapping_sub(1) % SIZE) + 4))
    }

    /// Returns the number of chains made available.
    pub fn available(&self) -> u16 {
        self.available
    }
}
