//! A virtio-blk device for host tests, on the same memory as the driver; it misbehaves on command.

use std::sync::{Arc, Mutex};

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::geometry::feature;
use super::port::{PortError, VirtioPort};
use crate::block::dma::fake::device_view;

/// The device's misbehaviour at the next request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DeviceMisbehaviour {
    /// Does not answer.
    Silent,
    /// Answers with this status.
    Status(u8),
    /// Answers with this id.
    Id(u32),
    /// Claims this length.
    Len(u32),
    /// Writes no status.
    NoStatus,
    /// Moves the used index by this much.
    Index(u16),
    /// Answers twice.
    Twice,
}

/// A parsed chain: address, length, whether the device writes.
type FakeChain = Vec<(u64, u32, bool)>;

/// The device.
pub(super) struct FakeDevice {
    pub features: u64,
    pub config: [u32; 15],
    pub queue_max: u32,
    pub disk: Vec<u8>,
    pub wrong: Vec<DeviceMisbehaviour>,
    /// Reads of the status that still show a reset as pending.
    pub reset_reads: u32,
    pub notifications: u32,
    pub resets: u32,
    pub cut_off: bool,
    pub refuse_features: bool,
    /// Shows DEVICE_NEEDS_RESET until the next reset.
    pub needs_reset: bool,
    /// Heads of the requests that it has not answered.
    silent: Vec<u16>,
    /// Operations carried out: kind and sector.
    pub log: Vec<(u32, u64)>,
    driver_features: u64,
    status: DeviceStatus,
    resetting: u32,
    queue: Option<(u16, u64, u64, u64)>,
    seen: u16,
    used: u16,
}

impl FakeDevice {
    /// Makes a device of `sectors` sectors that offers everything.
    pub(super) fn new(sectors: u32) -> Self {
        let mut config = [0; 15];
        (config[0], config[3], config[9], config[12]) = (sectors, 254, 1 << 22, 1 << 22);
        Self {
            features: feature::WANTED & !(feature::RO | feature::SIZE_MAX),
            config,
            queue_max: 256,
            disk: vec![0; sectors as usize * 512],
            wrong: Vec::new(),
            reset_reads: 0,
            notifications: 0,
            resets: 0,
            cut_off: false,
            refuse_features: false,
            needs_reset: false,
            silent: Vec::new(),
            log: Vec::new(),
            driver_features: 0,
            status: DeviceStatus::empty(),
            resetting: 0,
            queue: None,
            seen: 0,
            used: 0,
        }
    }

    /// Carries out the available requests.
    pub(super) fn work(&mut self) {
        let Some((size, desc, avail, used)) = self.queue else { return };
        let available = device_view(avail, 4 + usize::from(size) * 2);
        while self.seen != available.read::<u16>(2) && !self.cut_off {
            let head: u16 = available.read(4 + usize::from(self.seen % size) * 2);
            self.seen = self.seen.wrapping_add(1);
            self.request(size, desc, used, head);
        }
    }

    /// Answers all requests that it has not answered.
    pub(super) fn answer_late(&mut self) {
        while !self.silent.is_empty() {
            self.answer_one_late();
        }
    }

    /// Answers the oldest request that it has not answered.
    pub(super) fn answer_one_late(&mut self) {
        let (size, desc, _, used) = self.queue.expect("a queue is set up");
        let head = self.silent.remove(0);
        self.request(size, desc, used, head);
    }

    fn request(&mut self, size: u16, desc: u64, used: u64, head: u16) {
        let wrong = if self.wrong.is_empty() { None } else { Some(self.wrong.remove(0)) };
        if wrong == Some(DeviceMisbehaviour::Silent) {
            return self.silent.push(head);
        }
        let chain = chain(size, desc, head);
        let (status, written) = self.carry_out(&chain);
        let (mut id, mut len, mut moves) = (u32::from(head), written + 1, 1);
        let mut answer = Some(status);
        match wrong {
            Some(DeviceMisbehaviour::Status(s)) => answer = Some(s),
            Some(DeviceMisbehaviour::NoStatus) => answer = None,
            Some(DeviceMisbehaviour::Id(i)) => id = i,
            Some(DeviceMisbehaviour::Len(l)) => len = l,
            Some(DeviceMisbehaviour::Index(n)) => moves = n,
            _ => {}
        }
        if let Some(status) = answer {
            device_view(chain.last().unwrap().0, 1).write(0, status);
        }
        self.answer(size, used, id, len, moves);
        if wrong == Some(DeviceMisbehaviour::Twice) {
            self.answer(size, used, id, len, 1);
        }
    }

    fn answer(&mut self, size: u16, used: u64, id: u32, len: u32, moves: u16) {
        let ring = device_view(used, 4 + usize::from(size) * 8);
        let at = 4 + usize::from(self.used % size) * 8;
        ring.write(at, id);
        ring.write(at + 4, len);
        self.used = self.used.wrapping_add(moves);
        ring.write(2, self.used);
    }

    /// Carries out a request; returns the status and the bytes written into memory.
    fn carry_out(&mut self, chain: &FakeChain) -> (u8, u32) {
        let header = device_view(chain[0].0, 16);
        let (kind, sector) = (header.read::<u32>(0), header.read::<u64>(8));
        self.log.push((kind, sector));
        let data = &chain[1..chain.len() - 1];
        let mut at = sector as usize * 512;
        match kind {
            0 | 1 => {
                let total: usize = data.iter().map(|d| d.1 as usize).sum();
                if at + total > self.disk.len() {
                    return (1, 0);
                }
                for (address, len, device_writes) in data {
                    assert_eq!(*device_writes, kind == 0, "direction of the data");
                    self.transfer(*address, *len as usize, at, kind);
                    at += *len as usize;
                }
                (0, if kind == 0 { total as u32 } else { 0 })
            }
            4 => (0, 0),
            8 => {
                let view = device_view(data[0].0, 20);
                b"fake-serial\0\0\0\0\0\0\0\0\0"
                    .iter()
                    .enumerate()
                    .for_each(|(n, b)| view.write(n, *b));
                (0, 20)
            }
            11 | 13 => {
                let range = device_view(data[0].0, 16);
                let (first, count) = (range.read::<u64>(0) as usize, range.read::<u32>(8) as usize);
                // Write-zeroes may unmap; a discard has no flags.
                assert_eq!(range.read::<u32>(12), u32::from(kind == 13), "flags");
                if kind == 13 {
                    self.disk[first * 512..(first + count) * 512].fill(0);
                }
                (0, 0)
            }
            _ => (2, 0),
        }
    }

    fn transfer(&mut self, address: u64, len: usize, at: usize, kind: u32) {
        let view = device_view(address, len);
        for n in 0..len {
            if kind == 0 {
                view.write(n, self.disk[at + n]);
            } else {
                self.disk[at + n] = view.read(n);
            }
        }
    }
}

/// Follows a chain, through an indirect table if there is one.
fn chain(size: u16, desc: u64, head: u16) -> FakeChain {
    let first = device_view(desc + u64::from(head) * 16, 16);
    if first.read::<u16>(12) & 4 != 0 {
        let entries = (first.read::<u32>(8) / 16) as u16;
        assert!(entries <= size, "an indirect table is not longer than the queue");
        return follow(first.read(0), 0, entries);
    }
    follow(desc, head, size)
}

fn follow(table: u64, mut at: u16, size: u16) -> FakeChain {
    let mut chain = Vec::new();
    loop {
        assert!(at < size && chain.len() < usize::from(size), "a chain within its table");
        let d = device_view(table + u64::from(at) * 16, 16);
        let flags = d.read::<u16>(12);
        chain.push((d.read(0), d.read(8), flags & 2 != 0));
        if flags & 1 == 0 {
            return chain;
        }
        at = d.read(14);
    }
}

/// The driver's handle of a device.
pub(super) struct FakePort(pub Arc<Mutex<FakeDevice>>);

impl FakePort {
    fn device(&self) -> std::sync::MutexGuard<'_, FakeDevice> {
        self.0.lock().unwrap()
    }
}

impl VirtioPort for FakePort {
    fn prepare_queue(&mut self, _queue: u16) -> core::result::Result<(), PortError> {
        Ok(())
    }
    fn cut_off(&mut self) {
        self.device().cut_off = true;
    }
}

impl Transport for FakePort {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }
    fn read_device_features(&mut self) -> u64 {
        self.device().features
    }
    fn write_driver_features(&mut self, features: u64) {
        self.device().driver_features = features;
    }
    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        self.device().queue_max
    }
    fn notify(&mut self, _queue: u16) {
        self.device().notifications += 1;
    }
    fn get_status(&self) -> DeviceStatus {
        let mut device = self.device();
        if device.resetting > 0 {
            device.resetting -= 1;
            return DeviceStatus::DRIVER_OK;
        }
        let mut status = device.status;
        status.set(DeviceStatus::DEVICE_NEEDS_RESET, device.needs_reset);
        status
    }
    fn set_status(&mut self, status: DeviceStatus) {
        let mut device = self.device();
        device.status = status;
        if status.is_empty() {
            device.resets += 1;
            device.needs_reset = false;
            device.resetting = device.reset_reads;
            (device.queue, device.seen, device.used) = (None, 0, 0);
        }
        if device.refuse_features {
            device.status.remove(DeviceStatus::FEATURES_OK);
        }
    }
    fn set_guest_page_size(&mut self, _size: u32) {}
    fn requires_legacy_layout(&self) -> bool {
        false
    }
    fn queue_set(
        &mut self,
        _queue: u16,
        size: u32,
        desc: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        self.device().queue = Some((size as u16, desc, driver, device));
    }
    fn queue_unset(&mut self, _queue: u16) {}
    fn queue_used(&mut self, _queue: u16) -> bool {
        self.device().queue.is_some()
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }
    fn read_config_generation(&self) -> u32 {
        0
    }
    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let bytes: Vec<u8> = self.device().config.iter().flat_map(|w| w.to_le_bytes()).collect();
        Ok(T::read_from_bytes(&bytes[offset..offset + size_of::<T>()]).unwrap())
    }
    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _offset: usize,
        _value: T,
    ) -> Result<()> {
        unreachable!("the driver writes no configuration")
    }
}
