//! virtio-blk on modern PCI: deep, scatter-gather, and never at the mercy of its device.
//!
//! The transport (capabilities, status, features, configuration) is virtio-drivers'; the queue is ours:
//! `docs/decisions/0006-our-own-virtqueue.md` says why. Reference: VIRTIO 1.2 §2.7 "Split Virtqueues", §4.1 "Virtio Over PCI Bus",
//! §5.2 "Block Device".
//!
//! ```text
//!   VirtioDisk      the `Disk`: one lock around
//!     Core          the state machine: submit, harvest, write off, reset
//!       Slots       who is in flight, since when, what the device may write
//!       Ring        available and used ring, nothing else
//!       chain       one request as descriptors: header, data, status
//!       Plan        where each of them lies in one physically contiguous region
//!       Port        the device: a transport, a doorbell, a vector
//! ```
//!
//! Invariants:
//! * Slot `s` owns the descriptors from `s * stride` on (or one descriptor and a preallocated indirect table), so
//!   nothing is allocated after start-up and no free list can be corrupted.
//! * What the device writes (used index, id, length, status) is read once and checked; what cannot be is a
//!   [`Violation`]: the device takes no more requests, and is reset once nothing is in flight.
//! * A request's buffers are its submitter's again only after an answer by the device. Where none comes in time the submitter is told
//!   (`TimedOut`), the disk is written off, and the late answer is told as a second completion. A device with requests in flight is never
//!   reset: QEMU's reset waits for the host's answers to them, with every CPU of the machine.

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

pub use self::core::{Limits, Violation};
pub use disk::VirtioDisk;
pub use geometry::ConfigError;
pub use init::InitError;
pub use plan::REGION_BYTES;
pub use port::{Port, PortError};
