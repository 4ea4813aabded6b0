//! PCI: finding functions, walking their capabilities, and message-signalled interrupts.
//!
//! Configuration space is accessed by ports 0xcf8 and 0xcfc ([`access::ConfigPorts`]), which every
//! x86 machine has; the extended space is not needed. The trait and the address types are those of
//! `virtio-drivers`, so that its PCI transport takes the same values. Firmware has assigned the
//! base address registers; we change none.
//!
//! | module | content |
//! |---|---|
//! | [`access`] | configuration space by ports |
//! | [`enumerate`] | every function, including those behind bridges |
//! | [`capability`] | a function's capabilities, walked with a bound |
//! | [`msix`] | MSI-X: table, vector, destination |
//! | [`window`] | checked volatile access to registers and device memory |
//!
//! Reference: PCI Local Bus Specification 3.0, "Configuration Space", "MSI-X Capability and Table
//! Structures".

pub mod access;
pub mod capability;
pub mod device_map;
pub mod enumerate;
pub mod msix;
pub mod window;

pub use virtio_drivers::transport::pci::bus::{
    Command, ConfigurationAccess, DeviceFunction, PciRoot,
};

#[cfg(test)]
pub mod fake;
