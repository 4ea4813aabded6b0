//! A virtio-blk function on PCI: virtio-drivers' transport, with MSI-X and the doorbell through windows of our own.
//!
//! The crate has no notion of vectors, looks the doorbell up at each notification (two more register accesses, each an
//! exit where we are nested) and panics where the device names one that does not exist; its drop waits for
//! the device without bound. So vector and doorbell are ours, and the transport is never dropped.
//!
//! Base address registers are firmware's. Only those below 4 GiB are used, because only there does the direct map
//! reach devices.

// UNSAFETY: maps device registers, and answers for it to virtio-drivers' `Hal`.
#![allow(unsafe_code)]

use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use virtio_drivers::transport::pci::{PciTransport, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_NOTIFY_CFG};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PhysAddr, Result as VirtioResult};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::port::{Port, PortError};
use crate::addr::Hpa;
use crate::arch::direct_map;
use crate::pci::access::Ports;
use crate::pci::capability::{self, Capability, capabilities};
use crate::pci::msix::{MsixCapability, Target};
use crate::pci::window::Window;
use crate::pci::{Command, ConfigurationAccess, DeviceFunction, PciRoot};

/// End of the addresses where the direct map reaches devices.
const DEVICES_END: u64 = 1 << 32;
/// The table entry of the one queue.
const QUEUE_ENTRY: u16 = 0;
/// No vector: the device's answer where it has no resources, and our wish for configuration changes.
const NO_VECTOR: u16 = 0xffff;

/// Offsets in the common configuration (VIRTIO 1.2 §4.1.4.3 "Common configuration structure layout").
mod common {
    pub const CONFIG_VECTOR: usize = 16;
    pub const QUEUE_SELECT: usize = 22;
    pub const QUEUE_VECTOR: usize = 26;
    pub const QUEUE_NOTIFY_OFF: usize = 30;
    pub const LEN: usize = 56;
}

/// Why a function is not driven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FunctionError {
    /// Its capability list is none.
    Capabilities,
    /// It lacks the registers of a modern device.
    Registers,
    /// Firmware gave its registers no address, or one above 4 GiB.
    Address,
    /// It has no MSI-X.
    NoMsix,
    /// virtio-drivers' transport does not take it.
    Transport,
}

/// The face that virtio-drivers wants of the platform. Only its mapping of registers is ever used.
struct Registers;

// SAFETY: `mmio_phys_to_virt` returns addresses in the direct map, valid for ever; `dma_alloc` never succeeds, so
// there is nothing to free; buffers are not shared through the crate.
unsafe impl Hal for Registers {
    fn dma_alloc(_pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        (0, NonNull::dangling()) // address 0 is the crate's word for failure
    }
    unsafe fn dma_dealloc(_at: PhysAddr, _pointer: NonNull<u8>, _pages: usize) -> i32 {
        0
    }
    unsafe fn mmio_phys_to_virt(at: PhysAddr, _size: usize) -> NonNull<u8> {
        NonNull::new(direct_map::pointer(Hpa::new(at))).expect("the direct map is not at 0")
    }
    unsafe fn share(_buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        unreachable!("no queue of virtio-drivers is used")
    }
    unsafe fn unshare(_at: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

/// Registers in a BAR, as a virtio capability names them.
#[derive(Clone, Copy)]
struct Place {
    bar: u8,
    offset: u32,
    len: u32,
}

/// A function that was taken over.
pub struct PciPort {
    at: DeviceFunction,
    access: Ports,
    transport: ManuallyDrop<PciTransport>,
    common: Window,
    notify: Window,
    notify_multiplier: u32,
    /// Where in `notify` the queue's doorbell is.
    doorbell: usize,
}

impl PciPort {
    /// Takes over the virtio function `at` and sends its interrupts to `target`.
    ///
    /// # Errors
    /// [`FunctionError`] says what it lacks.
    ///
    /// # Safety
    /// Nobody else drives the function, and its registers are where firmware says.
    pub unsafe fn new(access: Ports, at: DeviceFunction, target: Target) -> Result<Self, FunctionError> {
        let mut root = PciRoot::new(access);
        root.set_command(at, Command::MEMORY_SPACE | Command::BUS_MASTER | Command::INTERRUPT_DISABLE);
        let list = capabilities(&access, at).map_err(|_| FunctionError::Capabilities)?;
        check_places(&access, at, &list)?;
        let common = find(&access, at, &list, VIRTIO_PCI_CAP_COMMON_CFG).ok_or(FunctionError::Registers)?;
        let notify = find(&access, at, &list, VIRTIO_PCI_CAP_NOTIFY_CFG).ok_or(FunctionError::Registers)?;
        if (common.1.len as usize) < common::LEN {
            return Err(FunctionError::Registers);
        }
        let notify_multiplier = access.read_word(at, notify.0.offset + 16);
        let common = map(&mut root, at, common.1)?;
        let notify = map(&mut root, at, notify.1)?;
        let msix = MsixCapability::find(&access, at, &list).ok_or(FunctionError::NoMsix)?;
        let table = Place { bar: msix.bar, offset: msix.table_offset, len: msix.table_len() as u32 };
        msix.route(&mut access.clone(), &map(&mut root, at, table)?, QUEUE_ENTRY, target);
        let transport = PciTransport::new::<Registers, _>(&mut root, at).map_err(|_| FunctionError::Transport)?;
        let transport = ManuallyDrop::new(transport);
        Ok(Self { at, access, transport, common, notify, notify_multiplier, doorbell: 0 })
    }
}

/// Reads where a virtio capability's registers are (VIRTIO 1.2 §4.1.4 "Virtio Structure PCI Capabilities").
fn place(access: &Ports, at: DeviceFunction, entry: &Capability) -> Option<Place> {
    let word = |n: u8| Some(access.read_word(at, entry.offset.checked_add(n)?));
    let len = entry.header as u8;
    if entry.id != capability::VENDOR || len < 16 {
        return None;
    }
    Some(Place { bar: word(4)? as u8, offset: word(8)?, len: word(12)? })
}

fn find(access: &Ports, at: DeviceFunction, list: &[Capability], kind: u8) -> Option<(Capability, Place)> {
    let entry = list.iter().find(|c| c.id == capability::VENDOR && (c.header >> 8) as u8 == kind)?;
    Some((*entry, place(access, at, entry)?))
}

/// Checks what virtio-drivers adds up unchecked.
fn check_places(access: &Ports, at: DeviceFunction, list: &[Capability]) -> Result<(), FunctionError> {
    let sound = |p: Place| p.bar < 6 && p.offset.checked_add(p.len).is_some();
    let mut places = list.iter().filter_map(|entry| place(access, at, entry));
    if places.all(sound) { Ok(()) } else { Err(FunctionError::Registers) }
}

fn map(root: &mut PciRoot<Ports>, at: DeviceFunction, place: Place) -> Result<Window, FunctionError> {
    let bar = root.bar_info(at, place.bar).ok().flatten().ok_or(FunctionError::Address)?;
    let (base, size) = bar.memory_address_size().ok_or(FunctionError::Address)?;
    let (offset, len) = (u64::from(place.offset), u64::from(place.len));
    let end = base.checked_add(size).ok_or(FunctionError::Address)?;
    if base == 0 || end > DEVICES_END || offset + len > size {
        return Err(FunctionError::Address);
    }
    // SAFETY: the range is inside a BAR of a function that is ours (promise to `new`), below 4 GiB, where the direct map
    // reaches devices; registers are reached by volatile accesses only.
    Ok(unsafe { Window::of_physical(Hpa::new(base + offset), len as usize) })
}

impl Port for PciPort {
    fn prepare_queue(&mut self, queue: u16) -> Result<(), PortError> {
        self.common.write(common::CONFIG_VECTOR, NO_VECTOR);
        self.common.write(common::QUEUE_SELECT, queue);
        self.common.write(common::QUEUE_VECTOR, QUEUE_ENTRY);
        if self.common.read::<u16>(common::QUEUE_VECTOR) != QUEUE_ENTRY {
            return Err(PortError::Vector);
        }
        let offset = u64::from(self.common.read::<u16>(common::QUEUE_NOTIFY_OFF)) * u64::from(self.notify_multiplier);
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
    fn queue_set(&mut self, queue: u16, size: u32, desc: PhysAddr, driver: PhysAddr, device: PhysAddr) {
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
    fn write_config_space<T: IntoBytes + Immutable>(&mut self, offset: usize, value: T) -> VirtioResult<()> {
        self.transport.write_config_space(offset, value)
    }
}
