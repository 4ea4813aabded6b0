//! A virtio-blk device that answers anything at any time: each request ends once, and may have
//! timed out once before.
#![no_main]

use fuzz::Input;
use fuzz::dma::SharedPages;
use kernel::block::dma::DmaRegion;
use kernel::block::virtio::{DriverTimeouts, PortError, REGION_BYTES, VirtioDisk, VirtioPort};
use kernel::block::{
    Completion, Cookie, Disk, DiskError, DiskOperation, DiskRequest, DmaSegment, QueueLane,
    SectorRange,
};
use kernel::time::Ns;
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What the device shows the driver.
struct Shown {
    features: u64,
    config: [u8; 60],
    queue: u32,
    status: DeviceStatus,
    /// Reads of the status that still show the one before a reset.
    stays: u8,
}

struct AnyPort(Arc<Mutex<Shown>>);

impl AnyPort {
    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.0.lock().expect("one thread")
    }
}

impl VirtioPort for AnyPort {
    fn prepare_queue(&mut self, _: u16) -> std::result::Result<(), PortError> {
        Ok(())
    }
    fn cut_off(&mut self) {}
}

impl Transport for AnyPort {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }
    fn read_device_features(&mut self) -> u64 {
        self.shown().features
    }
    fn write_driver_features(&mut self, _: u64) {}
    fn max_queue_size(&mut self, _: u16) -> u32 {
        self.shown().queue
    }
    fn notify(&mut self, _: u16) {}
    fn get_status(&self) -> DeviceStatus {
        let mut shown = self.shown();
        if shown.stays > 0 {
            shown.stays -= 1;
            return DeviceStatus::DRIVER_OK;
        }
        shown.status
    }
    fn set_status(&mut self, status: DeviceStatus) {
        self.shown().status = status;
    }
    fn set_guest_page_size(&mut self, _: u32) {}
    fn requires_legacy_layout(&self) -> bool {
        false
    }
    fn queue_set(&mut self, _: u16, _: u32, _: PhysAddr, _: PhysAddr, _: PhysAddr) {}
    fn queue_unset(&mut self, _: u16) {}
    fn queue_used(&mut self, _: u16) -> bool {
        true
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }
    fn read_config_generation(&self) -> u32 {
        0
    }
    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let config = self.shown().config;
        let bytes =
            config.get(offset..offset + size_of::<T>()).ok_or(Error::ConfigSpaceTooSmall)?;
        T::read_from_bytes(bytes).map_err(|_| Error::ConfigSpaceTooSmall)
    }
    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _: usize, _: T) -> Result<()> {
        Ok(())
    }
}

static MEMORY: LazyLock<SharedPages> = LazyLock::new(|| SharedPages::new(REGION_BYTES / 4096));

const USED: usize = 0x2000;
const STATUS: usize = 0x3800;
const TABLES: usize = 0x5000;

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    let shown = Shown {
        features: 1 << 32 | input.u64(),
        config: input.array(),
        queue: input.u16().into(),
        status: DeviceStatus::empty(),
        stays: input.u8(),
    };
    let (shown, mut now) = (Arc::new(Mutex::new(shown)), Ns::ZERO);
    let limits = DriverTimeouts { request_ns: Ns::new(100), reset_ns: Ns::new(50) };
    let device = MEMORY.region();
    // The rings, headers and status bytes; the tables behind them are only written.
    (0..TABLES).step_by(8).for_each(|at| device.write(at, 0_u64));
    // The device answers the first request, which asks for its name, as the input says.
    device.write(USED + 2, u16::from(input.u8() & 1));
    let clock = std::cell::Cell::new(Ns::ZERO);
    let tick = || clock.replace(clock.get() + Ns::new(60));
    let Ok(disk) = VirtioDisk::new(0, AnyPort(shown.clone()), MEMORY.region(), limits, tick) else {
        return;
    };
    // Open requests, each with whether it has timed out. Request 0 asked for the device's name.
    let (mut open, mut next) = (BTreeMap::from([(0, true)]), 1);
    while !input.is_empty() {
        match input.u8() % 8 {
            0 | 1 => {
                if submit(&disk, input, &device, next) {
                    open.insert(next, false);
                }
                next += 1;
            }
            2 => device.write(USED + 2, input.u16()),
            3 => {
                let at = USED + 4 + usize::from(input.u8()) * 8;
                device.write(at, u32::from(input.u16()));
                device.write(at + 4, u32::from(input.u16()));
            }
            4 => device.write(STATUS + usize::from(input.u8() & 63), input.u8()),
            5 => now += Ns::new(input.u8().into()),
            6 => now += Ns::from_secs(1),
            _ => {
                let mut shown = shown.lock().expect("one thread");
                shown.status = DeviceStatus::from_bits_truncate(input.u8().into());
                (shown.stays, shown.config[usize::from(input.u8()) % 60]) =
                    (input.u8() & 3, input.u8());
            }
        }
        poll(&disk, now, &mut open);
        while disk.take_incident().is_some() {}
    }
});

fn submit(disk: &impl Disk, input: &mut Input<'_>, device: &DmaRegion, cookie: u64) -> bool {
    let operation = input.one_of(&[
        DiskOperation::Read,
        DiskOperation::Write,
        DiskOperation::Flush,
        DiskOperation::Discard,
        DiskOperation::WriteZeroes,
    ]);
    let segment = DmaSegment { base: device.hpa(0), len: 512 };
    let all = [segment; 200];
    let count = match operation {
        DiskOperation::Read | DiskOperation::Write => usize::from(input.u8()) % 200,
        _ => 0,
    };
    let sectors = if count == 0 { u64::from(input.u16()) } else { count as u64 };
    let lane = input.one_of(&[QueueLane::Common, QueueLane::Beat]);
    let request = DiskRequest {
        operation,
        sectors: SectorRange { first: input.u8().into(), count: sectors },
        segments: &all[..count],
        lane,
        cookie: Cookie(cookie),
    };
    disk.submit(&request).is_ok()
}

fn poll(disk: &impl Disk, now: Ns, open: &mut BTreeMap<u64, bool>) {
    let mut out = [Completion { cookie: Cookie(0), result: Ok(()) }; 4];
    let done = disk.poll(now, &mut out);
    for Completion { cookie, result } in &out[..done] {
        if *result == Err(DiskError::TimedOut) {
            let told = open.insert(cookie.0, true);
            assert_eq!(told, Some(false), "a request times out once: {cookie:?}");
        } else {
            assert!(open.remove(&cookie.0).is_some(), "a request ends once: {cookie:?}");
        }
    }
}
