//! The place of a virtio device's registers in its BAR, and the capabilities that tell it.
//!
//! ```text
//!   BAR 0   0x0000  common configuration     0x1000  notification registers, 4 bytes a ring
//!           0x0100  ISR status               0x2000  MSI-X table
//!           0x0200  device configuration     0x3000  MSI-X pending bits
//! ```
//!
//! Source: VIRTIO 1.2, 4.1.4 "Virtio Structure PCI Capabilities".

use super::registers::COMMON_BYTES;
use crate::partition::devices::pci::config_space::{FunctionConfig, GuestFunction};
use crate::partition::devices::pci::vectors::{CONTROL_WRITABLE, MSIX_ID};

/// Bytes of the BAR.
pub const BAR_BYTES: u32 = 0x4000;
/// ISR status.
pub const ISR: u16 = 0x100;
/// Device configuration.
pub const DEVICE: u16 = 0x200;
/// End of its place.
pub const DEVICE_END: u16 = 0x300;
/// Notification registers.
pub const NOTIFY: u16 = 0x1000;
/// MSI-X table.
pub const TABLE: u16 = 0x2000;
/// MSI-X pending bits.
pub const PENDING: u16 = 0x3000;

/// The vendor of all virtio devices.
const VENDOR: u16 = 0x1af4;
/// Added to a virtio device's number.
const DEVICE_BASE: u16 = 0x1040;
/// Modern devices only.
const REVISION: u8 = 1;
/// Identifier of a vendor-specific capability.
const VENDOR_SPECIFIC: u8 = 9;
/// Bytes between two notification registers.
const NOTIFY_STRIDE: u32 = 4;

const COMMON_KIND: u8 = 1;
const NOTIFY_KIND: u8 = 2;
const ISR_KIND: u8 = 3;
const DEVICE_KIND: u8 = 4;
const WINDOW_KIND: u8 = 5;

/// Offsets in the capability through which the configuration space reaches the BAR.
pub mod window {
    /// Number of the BAR.
    pub const BAR: u8 = 4;
    /// Offset in it.
    pub const OFFSET: u8 = 8;
    /// Bytes of the access.
    pub const LENGTH: u8 = 12;
    /// The data.
    pub const DATA: u8 = 16;
    /// End of the capability.
    pub const END: u8 = 20;
}

/// The configuration space of a virtio device, and the places of two capabilities.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtioConfig {
    /// The space.
    pub space: FunctionConfig,
    /// MSI-X.
    pub msix: u8,
    /// The window into the BAR.
    pub window: u8,
}

/// Makes the configuration space of a device.
pub fn config(
    device: u16,
    class: u32,
    (rings, vectors): (u16, u16),
    own_bytes: u16,
) -> VirtioConfig {
    let identity =
        GuestFunction { vendor: VENDOR, device: DEVICE_BASE + device, class, revision: REVISION };
    let mut space = FunctionConfig::new(identity);
    space.add_bar(BAR_BYTES);
    space.add_capability(&structure(COMMON_KIND, 0, COMMON_BYTES.into()), &[]);
    let registers = u32::from(rings) * NOTIFY_STRIDE;
    let mut notify = structure(NOTIFY_KIND, NOTIFY.into(), registers).to_vec();
    notify[2] = 20;
    notify.extend(NOTIFY_STRIDE.to_le_bytes());
    space.add_capability(&notify, &[]);
    space.add_capability(&structure(ISR_KIND, ISR.into(), 1), &[]);
    if own_bytes > 0 {
        space.add_capability(&structure(DEVICE_KIND, DEVICE.into(), own_bytes.into()), &[]);
    }
    let mut data = structure(WINDOW_KIND, 0, 0).to_vec();
    data[2] = window::END;
    data.extend([0; 4]);
    let mut writable = [0xff; window::END as usize];
    writable[..usize::from(window::BAR)].fill(0);
    writable[usize::from(window::BAR) + 1..usize::from(window::OFFSET)].fill(0);
    // The data is the BAR's, not the space's.
    writable[usize::from(window::DATA)..].fill(0);
    let window = space.add_capability(&data, &writable);
    let msix = add_msix(&mut space, vectors);
    VirtioConfig { space, msix, window }
}

/// Returns a virtio capability: kind, BAR 0, offset, length.
fn structure(kind: u8, offset: u32, bytes: u32) -> [u8; 16] {
    let mut content = [0; 16];
    content[..4].copy_from_slice(&[VENDOR_SPECIFIC, 0, 16, kind]);
    content[8..12].copy_from_slice(&offset.to_le_bytes());
    content[12..].copy_from_slice(&bytes.to_le_bytes());
    content
}

fn add_msix(space: &mut FunctionConfig, vectors: u16) -> u8 {
    let mut content = [0; 12];
    content[0] = MSIX_ID;
    content[2..4].copy_from_slice(&(vectors - 1).to_le_bytes());
    content[4..8].copy_from_slice(&u32::from(TABLE).to_le_bytes());
    content[8..].copy_from_slice(&u32::from(PENDING).to_le_bytes());
    let [low, high] = CONTROL_WRITABLE.to_le_bytes();
    space.add_capability(&content, &[0, 0, low, high])
}
