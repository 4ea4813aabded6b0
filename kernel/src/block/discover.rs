//! Finds the machine's disks at start-up, on the bare machine only.
//!
//! Disks are never freed: first every virtio-blk function on PCI in the order of its address, then
//! the memory-backed disks of the configuration. A function that cannot be driven is reported and
//! left alone.

// UNSAFETY: gives physical memory and PCI functions to their drivers.
#![expect(unsafe_code)]

use crate::time::Ns;
use alloc::boxed::Box;

use arrayvec::ArrayVec;
use virtio_drivers::transport::pci::VIRTIO_VENDOR_ID;

use super::MAX_DISKS;
use super::any::{AnyDisk, FoundDisk};
use super::dma::{DirectMemory, DmaRegion};
use super::memory::MemoryDisk;
use super::virtio::pci::{FunctionError, PciPort};
use super::virtio::{DriverTimeouts, REGION_BYTES, VirtioDisk, VirtioInitError};
use crate::arch::physmem::PhysicalMemory;
use crate::pci::DeviceFunction;
use crate::pci::access::ConfigPorts;
use crate::pci::enumerate::{FunctionIdentity, functions};
use crate::pci::msix::MsixTarget;

/// PCI device number of a modern block device: 0x1040 and the virtio type.
const MODERN_BLOCK: u16 = 0x1042;
/// PCI device number of a transitional block device, which is also legacy.
const TRANSITIONAL_BLOCK: u16 = 0x1001;

/// Why a disk cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiscoveryError {
    /// The function cannot be driven.
    Function(FunctionError),
    /// The device cannot be used.
    Device(VirtioInitError),
    /// The machine has too little contiguous memory.
    Memory,
    /// There are already [`MAX_DISKS`] disks.
    TooMany,
}

impl core::fmt::Display for DiscoveryError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Function(error) => write!(f, "{error}"),
            Self::Device(error) => write!(f, "{error}"),
            Self::Memory => f.write_str("the machine has not enough memory in one piece"),
            Self::TooMany => {
                write!(f, "there are {MAX_DISKS} disks already, and more are not used")
            }
        }
    }
}

/// The resources that start-up gives to disks.
pub struct DiskDiscovery<'a> {
    memory: &'a mut PhysicalMemory,
    /// The first disk's vector; each further disk has the next.
    first_vector: u8,
    /// The CPU that takes the interrupts.
    apic_id: u8,
    limits: DriverTimeouts,
    found: ArrayVec<FoundDisk, MAX_DISKS>,
}

impl<'a> DiskDiscovery<'a> {
    /// Starts with no disks. The first disk's interrupt is `first_vector`, on the CPU `apic_id`.
    pub fn new(memory: &'a mut PhysicalMemory, first_vector: u8, apic_id: u8) -> Self {
        Self {
            memory,
            first_vector,
            apic_id,
            limits: DriverTimeouts::default(),
            found: ArrayVec::new(),
        }
    }

    /// Sets the drivers' time limits.
    pub fn with_limits(self, limits: DriverTimeouts) -> Self {
        Self { limits, ..self }
    }

    /// Takes over every virtio-blk function; calls `refused` for each that cannot be used.
    ///
    /// # Safety
    /// The machine is a PC, and no other code drives these functions.
    pub unsafe fn virtio(
        &mut self,
        clock: fn() -> Ns,
        mut refused: impl FnMut(DeviceFunction, DiscoveryError),
    ) {
        // SAFETY: the caller's promise.
        let access = unsafe { ConfigPorts::new() };
        functions(&access, |at, identity| {
            if is_block(identity)
                && let Err(refusal) = self.take_function(access, at, clock)
            {
                refused(at, refusal);
            }
        });
    }

    fn take_function(
        &mut self,
        access: ConfigPorts,
        at: DeviceFunction,
        clock: fn() -> Ns,
    ) -> Result<(), DiscoveryError> {
        let index = self.next_index()?;
        let target = MsixTarget { vector: self.first_vector + index, apic_id: self.apic_id };
        let range = self.memory.take(REGION_BYTES as u64).ok_or(DiscoveryError::Memory)?;
        // SAFETY: `take` gives memory away for good.
        let region = unsafe { DmaRegion::of_taken(range) };
        // SAFETY: the promise to `virtio`; each function is visited once.
        let port = unsafe { PciPort::new(access, at, target) }.map_err(DiscoveryError::Function)?;
        let disk = VirtioDisk::new(index, port, region, self.limits, clock)
            .map_err(DiscoveryError::Device)?;
        self.found.push(FoundDisk { disk: Box::leak(Box::new(AnyDisk::Virtio(disk))), base: None });
        Ok(())
    }

    /// Makes a memory-backed disk.
    ///
    /// # Errors
    /// [`DiscoveryError`] if there is no memory or no number for it.
    pub fn memory_backed(&mut self, bytes: u64) -> Result<(), DiscoveryError> {
        let index = self.next_index()?;
        let range = self.memory.take(bytes).ok_or(DiscoveryError::Memory)?;
        // SAFETY: buffers belong to submitters until completion (the contract of `Disk`), and the
        // range belongs to this disk.
        let memory = unsafe { DirectMemory::new() };
        let disk = MemoryDisk::new(index, memory, range.start, bytes);
        self.found.push(FoundDisk {
            disk: Box::leak(Box::new(AnyDisk::Memory(disk))),
            base: Some(range.start),
        });
        Ok(())
    }

    fn next_index(&self) -> Result<u8, DiscoveryError> {
        if self.found.is_full() { Err(DiscoveryError::TooMany) } else { Ok(self.found.len() as u8) }
    }

    /// Returns all disks in the order of their numbers.
    pub fn finish(self) -> ArrayVec<FoundDisk, MAX_DISKS> {
        self.found
    }
}

fn is_block(identity: FunctionIdentity) -> bool {
    identity.vendor == VIRTIO_VENDOR_ID
        && matches!(identity.device, MODERN_BLOCK | TRANSITIONAL_BLOCK)
}
