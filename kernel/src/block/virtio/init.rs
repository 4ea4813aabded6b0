//! Initializes a device (VIRTIO 1.2 §3.1.1 "Driver Requirements: Device Initialization").
//!
//! The sequence in virtio-drivers neither waits for the reset nor reads FEATURES_OK back; this one
//! does both.

use virtio_drivers::transport::DeviceStatus;

use super::geometry::{VirtioConfigError, VirtioGeometry, feature};
use super::plan::QueueLayout;
use super::port::{PortError, VirtioPort};
use super::ring::RingIndexes;
use crate::block::dma::DmaRegion;

/// The only queue.
pub(super) const QUEUE: u16 = 0;
/// Reads of the status after a reset, until the device is given up; each takes about a microsecond.
const RESET_READS: usize = 1_000_000;

/// Why a device cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VirtioInitError {
    /// It does not complete a reset.
    Reset,
    /// It is a legacy device.
    Legacy,
    /// It refuses features that it offered.
    Features,
    /// Its configuration cannot be used.
    Config(VirtioConfigError),
    /// Its queue has no room for a request.
    Queue,
    /// Its vector or its doorbell cannot be used.
    Port(PortError),
    /// The region has less than [`super::REGION_BYTES`].
    Region,
}

impl core::fmt::Display for VirtioInitError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Reset => f.write_str("the device does not obey a reset"),
            Self::Legacy => f.write_str("it is a legacy virtio device"),
            Self::Features => f.write_str("the device refuses the features that it offered"),
            Self::Config(error) => write!(f, "{error}"),
            Self::Queue => f.write_str("the device's queue has no room for a request"),
            Self::Port(error) => write!(f, "{error}"),
            Self::Region => f.write_str("the driver was given too little memory"),
        }
    }
}

/// Resets the device and waits for a bounded number of reads.
///
/// # Errors
/// [`VirtioInitError::Reset`].
pub(super) fn reset<P: VirtioPort>(port: &mut P) -> Result<(), VirtioInitError> {
    port.set_status(DeviceStatus::empty());
    for _ in 0..RESET_READS {
        if port.get_status().is_empty() {
            return Ok(());
        }
        core::hint::spin_loop();
    }
    Err(VirtioInitError::Reset)
}

/// Initializes a device after a reset, until its queue works.
///
/// # Errors
/// [`VirtioInitError`]; the device is then marked as failed.
pub(super) fn bring_up<P: VirtioPort>(
    port: &mut P,
    region: &DmaRegion,
    ring: &mut RingIndexes,
) -> Result<(VirtioGeometry, QueueLayout), VirtioInitError> {
    let result = try_bring_up(port, region, ring);
    if result.is_err() {
        port.set_status(DeviceStatus::FAILED);
    }
    result
}

fn try_bring_up<P: VirtioPort>(
    port: &mut P,
    region: &DmaRegion,
    ring: &mut RingIndexes,
) -> Result<(VirtioGeometry, QueueLayout), VirtioInitError> {
    let known = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    port.set_status(known);
    let features = negotiate(port, known)?;
    let geometry = VirtioGeometry::read(port, features).map_err(VirtioInitError::Config)?;
    let most = port.max_queue_size(QUEUE);
    let plan = QueueLayout::new(most, geometry.max_segments, geometry.has(feature::INDIRECT))
        .ok_or(VirtioInitError::Queue)?;
    ring.clear(region, &plan);
    port.prepare_queue(QUEUE).map_err(VirtioInitError::Port)?;
    let at = |offset| region.hpa(offset).as_u64();
    port.queue_set(QUEUE, plan.queue_size.into(), at(0), at(plan.available()), at(plan.used()));
    port.set_status(known | DeviceStatus::FEATURES_OK | DeviceStatus::DRIVER_OK);
    Ok((geometry, plan))
}

fn negotiate<P: VirtioPort>(port: &mut P, known: DeviceStatus) -> Result<u64, VirtioInitError> {
    let features = port.read_device_features() & feature::WANTED;
    if features & feature::VERSION_1 == 0 {
        return Err(VirtioInitError::Legacy);
    }
    port.write_driver_features(features);
    port.set_status(known | DeviceStatus::FEATURES_OK);
    if port.get_status().contains(DeviceStatus::FEATURES_OK) {
        Ok(features)
    } else {
        Err(VirtioInitError::Features)
    }
}
