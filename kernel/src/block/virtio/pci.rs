//! A virtio-blk function on PCI: the transport of virtio-drivers, with our own MSI-X and doorbell.
//!
//! The crate does not support vectors. It looks the doorbell up at each notification: two more
//! register accesses, each an exit when we are nested. It panics if the device names a doorbell
//! that does not exist. Its drop waits for the device without a time-out. So vector and doorbell
//! are ours, and the transport is never dropped.
//!
//! Firmware has placed the base address registers, at any address: `pci::device_map` maps those
//! outside the direct map.

// UNSAFETY: maps device registers, and answers for it to virtio-drivers' `Hal`.
#![expect(unsafe_code)]

use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use virtio_drivers::transport::pci::{
    PciTransport, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_NOTIFY_CFG,
};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PhysAddr, Result as VirtioResult};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::port::{PortError, VirtioPort};
use crate::addr::Hpa;
use crate::pci::access::ConfigPorts;
use crate::pci::capability::{self, PciCapability, capabilities};
use crate::pci::device_map;
use crate::pci::msix::{MsixCapability, MsixTarget};
use crate::pci::window::DeviceWindow;
use crate::pci::{Command, ConfigurationAccess, DeviceFunction, PciRoot};

/// End of the physical addresses that a page table can hold (SDM 3A "4-Level Paging").
const PHYSICAL_END: u64 = 1 << 52;
/// The MSI-X table entry of the only queue.
const QUEUE_ENTRY: u16 = 0;
/// Registers that virtio-drivers finds by itself (VIRTIO 1.2 §4.1.4 "Virtio Structure PCI
/// Capabilities").
const VIRTIO_PCI_CAP_ISR_CFG: u8 = 3;
const VIRTIO_PCI_CAP_DEVICE_CFG: u8 = 4;
/// No vector: the device's answer if it has no resources, and our setting for configuration
/// changes.
const NO_VECTOR: u16 = 0xffff;

/// Offsets in the common configuration (VIRTIO 1.2 §4.1.4.3 "Common configuration structure
/// layout").
mod common {
    pub(super) const CONFIG_VECTOR: usize = 16;
    pub(super) const QUEUE_SELECT: usize = 22;
    pub(super) const QUEUE_VECTOR: usize = 26;
    pub(super) const QUEUE_NOTIFY_OFF: usize = 30;
    pub(super) const LEN: usize = 56;
}

/// Why a function cannot be driven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FunctionError {
    /// Its capability list is damaged.
    Capabilities,
    /// It lacks the registers of a modern device.
    Registers,
    /// Firmware gave its registers no address.
    Address,
    /// No virtual addresses are left to map its registers.
    Room,
    /// It has no MSI-X.
    NoMsix,
    /// virtio-drivers' transport refuses it.
    Transport,
}

impl core::fmt::Display for FunctionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Capabilities => f.write_str("its list of capabilities is damaged"),
            Self::Registers => f.write_str("it lacks the registers of a modern virtio device"),
            Self::Address => f.write_str("firmware gave its registers no address"),
            Self::Room => f.write_str("there is no room left to map its registers"),
            Self::NoMsix => f.write_str("it has no MSI-X"),
            Self::Transport => f.write_str("virtio-drivers does not take it"),
        }
    }
}

/// The platform interface that virtio-drivers needs. Only its mapping of registers is ever used.
struct VirtioHal;

// SAFETY: `mmio_phys_to_virt` returns addresses that stay mapped for good; `dma_alloc` never
// succeeds, so there is nothing to free; buffers are not shared through the crate.
unsafe impl Hal for VirtioHal {
    fn dma_alloc(_pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        (0, NonNull::dangling()) // address 0 tells the crate that the allocation failed
    }
    unsafe fn dma_dealloc(_at: PhysAddr, _pointer: NonNull<u8>, _pages: usize) -> i32 {
        0
    }
    unsafe fn mmio_phys_to_virt(at: PhysAddr, size: usize) -> NonNull<u8> {
        let at = device_map::map(Hpa::new(at), size as u64)
            .expect("every BAR was mapped before the transport saw it");
        NonNull::new(at.as_u64() as *mut u8).expect("no registers are mapped at 0")
    }
    unsafe fn share(_buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        unreachable!("no queue of virtio-drivers is used")
    }
    unsafe fn unshare(_at: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

/// Registers in a BAR, as described by a virtio capability.
#[derive(Clone, Copy)]
struct BarRegion {
    bar: u8,
    offset: u32,
    len: u32,
}

/// A function that was taken over.
pub struct PciPort {
    at: DeviceFunction,
    access: ConfigPorts,
    transport: ManuallyDrop<PciTransport>,
    common: DeviceWindow,
    notify: DeviceWindow,
    notify_multiplier: u32,
    /// Offset of the queue's doorbell in `notify`.
    doorbell: usize,
}

impl PciPort {
    /// Takes over the virtio function `at` and sends its interrupts to `target`.
    ///
    /// # Errors
    /// [`FunctionError`] names the missing part.
    ///
    /// # Safety
    /// No other code drives the function, and its registers are where firmware says.
    pub unsafe fn new(
        access: ConfigPorts,
        at: DeviceFunction,
        target: MsixTarget,
    ) -> Result<Self, FunctionError> {
        let mut root = PciRoot::new(access);
        root.set_command(
            at,
            Command::MEMORY_SPACE | Command::BUS_MASTER | Command::INTERRUPT_DISABLE,
        );
        let list = capabilities(&access, at).map_err(|_| FunctionError::Capabilities)?;
        check_places(&access, at, &list)?;
        map_bars(&mut root, &access, at, &list)?;
        let common =
            find(&access, at, &list, VIRTIO_PCI_CAP_COMMON_CFG).ok_or(FunctionError::Registers)?;
        let notify =
            find(&access, at, &list, VIRTIO_PCI_CAP_NOTIFY_CFG).ok_or(FunctionError::Registers)?;
        if (common.1.len as usize) < common::LEN {
            return Err(FunctionError::Registers);
        }
        let notify_multiplier = access.read_word(at, notify.0.offset + 16);
        let common = map(&mut root, at, common.1)?;
        let notify = map(&mut root, at, notify.1)?;
        let msix = MsixCapability::find(&access, at, &list).ok_or(FunctionError::NoMsix)?;
        let table =
            BarRegion { bar: msix.bar, offset: msix.table_offset, len: msix.table_len() as u32 };
        msix.route(&mut access.clone(), &map(&mut root, at, table)?, QUEUE_ENTRY, target);
        let transport = PciTransport::new::<VirtioHal, _>(&mut root, at)
            .map_err(|_| FunctionError::Transport)?;
        let transport = ManuallyDrop::new(transport);
        Ok(Self { at, access, transport, common, notify, notify_multiplier, doorbell: 0 })
    }
}

/// Reads the place of a virtio capability's registers (VIRTIO 1.2 §4.1.4 "Virtio Structure PCI
/// Capabilities").
fn place(access: &ConfigPorts, at: DeviceFunction, entry: &PciCapability) -> Option<BarRegion> {
    let word = |n: u8| Some(access.read_word(at, entry.offset.checked_add(n)?));
    let len = entry.header as u8;
    if entry.id != capability::VENDOR || len < 16 {
        return None;
    }
    Some(BarRegion { bar: word(4)? as u8, offset: word(8)?, len: word(12)? })
}

fn find(
    access: &ConfigPorts,
    at: DeviceFunction,
    list: &[PciCapability],
    kind: u8,
) -> Option<(PciCapability, BarRegion)> {
    let entry =
        list.iter().find(|c| c.id == capability::VENDOR && (c.header >> 8) as u8 == kind)?;
    Some((*entry, place(access, at, entry)?))
}

/// Checks the sums that virtio-drivers makes without overflow checks.
fn check_places(
    access: &ConfigPorts,
    at: DeviceFunction,
    list: &[PciCapability],
) -> Result<(), FunctionError> {
    let sound = |p: BarRegion| p.bar < 6 && p.offset.checked_add(p.len).is_some();
    let mut places = list.iter().filter_map(|entry| place(access, at, entry));
    if places.all(sound) { Ok(()) } else { Err(FunctionError::Registers) }
}

/// Maps the BARs of all registers as a whole, so that every range the transport maps later is part
/// of one.
fn map_bars(
    root: &mut PciRoot<ConfigPorts>,
    access: &ConfigPorts,
    at: DeviceFunction,
    list: &[PciCapability],
) -> Result<(), FunctionError> {
    const NAMED: [u8; 4] = [
        VIRTIO_PCI_CAP_COMMON_CFG,
        VIRTIO_PCI_CAP_NOTIFY_CFG,
        VIRTIO_PCI_CAP_ISR_CFG,
        VIRTIO_PCI_CAP_DEVICE_CFG,
    ];
    for kind in NAMED {
        let Some((_, place)) = find(access, at, list, kind) else { continue };
        let (base, size) = bar(root, at, place.bar)?;
        device_map::map(Hpa::new(base), size).ok_or(FunctionError::Room)?;
    }
    Ok(())
}

/// Returns the address and size of a BAR that firmware has placed.
fn bar(
    root: &mut PciRoot<ConfigPorts>,
    at: DeviceFunction,
    number: u8,
) -> Result<(u64, u64), FunctionError> {
    let bar = root.bar_info(at, number).ok().flatten().ok_or(FunctionError::Address)?;
    let (base, size) = bar.memory_address_size().ok_or(FunctionError::Address)?;
    let end = base.checked_add(size).filter(|end| *end <= PHYSICAL_END);
    if base == 0 || end.is_none() { Err(FunctionError::Address) } else { Ok((base, size)) }
}

fn map(
    root: &mut PciRoot<ConfigPorts>,
    at: DeviceFunction,
    place: BarRegion,
) -> Result<DeviceWindow, FunctionError> {
    let (base, size) = bar(root, at, place.bar)?;
    let (offset, len) = (u64::from(place.offset), u64::from(place.len));
    if offset + len > size {
        return Err(FunctionError::Address);
    }
    let registers = device_map::map(Hpa::new(base + offset), len).ok_or(FunctionError::Room)?;
    let registers = NonNull::new(registers.as_u64() as *mut u8).ok_or(FunctionError::Address)?;
    // SAFETY: the range is inside a BAR of a function that is ours (promise to `new`), mapped for
    // good by `device_map`; registers are reached by volatile accesses only.
    Ok(unsafe { DeviceWindow::new(registers, len as usize) })
}

impl VirtioPort for PciPort {
    fn prepare_queue(&mut self, queue: u16) -> Result<(), PortError> {
        self.common.write(common::CONFIG_VECTOR, NO_VECTOR);
        self.common.write(common::QUEUE_SELECT, queue);
        self.common.write(common::QUEUE_VECTOR, QUEUE_ENTRY);
        if self.common.read::<u16>(common::QUEUE_VECTOR) != QUEUE_ENTRY {
            return Err(PortError::Vector);
        }
        let offset = u64::from(self.common.read::<u16>(common::QUEUE_NOTIFY_OFF))
            * u64::from(self.notify_multiplier);
        if !offset.is_multiple_of(2) || offset + 2 > self.notify.len() as u64 {
            return Err(PortError::Doorbell);
        }
        self.doorbell = offset as usize;
        Ok(())
    }

    fn cut_off(&mut self) {
        PciRoot::new(self.access).set_command(self.at, Command::INTERRUPT_DISABLE);
    }
}

impl Transport for PciPort {
    fn notify(&mut self, queue: u16) {
        self.notify.write(self.doorbell, queue);
    }

    fn device_type(&self) -> DeviceType {
        self.transport.device_type()
    }
    fn read_device_features(&mut self) -> u64 {
        self.transport.read_device_features()
    }
    fn write_driver_features(&mut self, features: u64) {
        self.transport.write_driver_features(features);
    }
    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.transport.max_queue_size(queue)
    }
    fn get_status(&self) -> DeviceStatus {
        self.transport.get_status()
    }
    fn set_status(&mut self, status: DeviceStatus) {
        self.transport.set_status(status);
    }
    fn set_guest_page_size(&mut self, size: u32) {
        self.transport.set_guest_page_size(size);
    }
    fn requires_legacy_layout(&self) -> bool {
        self.transport.requires_legacy_layout()
    }
    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        desc: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        self.transport.queue_set(queue, size, desc, driver, device);
    }
    fn queue_unset(&mut self, queue: u16) {
        self.transport.queue_unset(queue);
    }
    fn queue_used(&mut self, queue: u16) -> bool {
        self.transport.queue_used(queue)
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.transport.ack_interrupt()
    }
    fn read_config_generation(&self) -> u32 {
        self.transport.read_config_generation()
    }
    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> VirtioResult<T> {
        self.transport.read_config_space(offset)
    }
    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> VirtioResult<()> {
        self.transport.write_config_space(offset, value)
    }
}
