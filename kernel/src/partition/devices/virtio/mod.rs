//! Virtio devices of a partition: modern ones on its PCI bus.
//!
//! ```text
//!   exits ──> device ── registers ── ring ──> the guest's memory
//!               │          └ features
//!               └── model: random
//!   layout: registers in the BAR, capabilities in the configuration space
//! ```
//!
//! Source: VIRTIO 1.2, "Virtio Over PCI Bus"; the files name the sections. Pure but for the lock
//! around a device: memory is a trait, random numbers are an argument. `partition::serving` runs
//! the devices.

pub mod device;
pub mod features;
pub mod layout;
pub mod random;
pub mod registers;
pub mod ring;

#[cfg(test)]
mod tests;
