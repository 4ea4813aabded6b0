//! Feature bits that every device offers. VIRTIO 1.2, 6 "Reserved Feature Bits".

/// Descriptors may lie in a table of their own.
pub const INDIRECT: u64 = 1 << 28;
/// Each side says at which index it wants to be notified.
pub const EVENT_INDEX: u64 = 1 << 29;
/// The device is not a legacy one; a driver has to accept this.
pub const VERSION_1: u64 = 1 << 32;
/// A single ring can be reset.
pub const RING_RESET: u64 = 1 << 40;

/// Those that every device offers.
pub const OFFERED: u64 = INDIRECT | EVENT_INDEX | VERSION_1 | RING_RESET;
