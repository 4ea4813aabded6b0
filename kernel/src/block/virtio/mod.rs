//! virtio-blk on modern PCI, with many scatter-gather requests in flight. The driver trusts nothing
//! that the device writes.
//!
//! The transport (capabilities, status, features, configuration) is from virtio-drivers; the queue
//! is ours, for the reasons in `docs/decisions/0006-our-own-virtqueue.md`. Reference:
//! VIRTIO 1.2 §2.7 "Split Virtqueues", §4.1 "Virtio Over PCI Bus", §5.2 "Block Device".
//!
//! ```text
//!   VirtioDisk      the `Disk`: a lock around the core
//!     Core          the state machine: submit, harvest, write off, reset
//!       Slots       requests in flight: since when, what the device may write
//!       Ring        available and used ring
//!       chain       one request as descriptors: header, data, status
//!       Plan        layout of all that in one physically contiguous region
//!       Port        the device: a transport, a doorbell, a vector
//! ```
//!
//! Invariants:
//! * Slot `s` owns the descriptors from `s * stride` on (or one descriptor and a preallocated
//!   indirect table). So nothing is allocated after start-up, and no free list can be corrupted.
//! * The words that the device writes (used index, id, length, status) are read once and checked. A
//!   wrong one is a [`DeviceProtocolError`]: the device then accepts no more requests, and is reset
//!   once nothing is in flight.
//! * A request's buffers return to its submitter only after an answer of the device. At a time-out
//!   the submitter gets a completion (`TimedOut`) and the disk is written off; the late answer is a
//!   second completion. A device with requests in flight is never reset: QEMU's reset waits for the
//!   host's answers to them, with every CPU of the machine stopped.

mod chain;
mod core;
mod disk;
mod geometry;
mod incidents;
mod init;
#[cfg(target_os = "none")]
pub mod pci;
mod plan;
mod port;
mod ring;
mod slots;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use self::core::{DeviceProtocolError, DriverTimeouts};
pub use disk::VirtioDisk;
pub use geometry::VirtioConfigError;
pub use init::VirtioInitError;
pub use plan::REGION_BYTES;
pub use port::{PortError, VirtioPort};
