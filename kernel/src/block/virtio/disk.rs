//! The [`Disk`] of a virtio device: the core behind its lock.

use super::core::{DeviceProtocolError, DriverTimeouts, VirtioDriver};
use super::geometry::feature;
use super::init::VirtioInitError;
use super::port::VirtioPort;
use crate::block::dma::DmaRegion;
use crate::block::stats::{DiskCounters, DiskStats};
use crate::block::{Completion, Cookie, Disk, DiskIncident, DiskInfo, DiskRequest, SubmitError};
use crate::sync::{RankedLock, rank};
use crate::time::Ns;
use core::sync::atomic::{AtomicBool, Ordering};

/// A virtio-blk disk.
pub struct VirtioDisk<P> {
    info: DiskInfo,
    stats: DiskStats,
    /// Copy of [`VirtioDriver::is_dead`], readable without the lock.
    is_down: AtomicBool,
    /// Whether there are incidents, readable without the lock.
    has_incidents: AtomicBool,
    core: RankedLock<VirtioDriver<P>, { rank::DISK }>,
}

impl<P: VirtioPort> VirtioDisk<P> {
    /// Brings the device up as disk number `index`, with `region` as its own memory, and asks for
    /// its name.
    ///
    /// `clock` returns the time in nanoseconds. A device that does not answer in time has no name,
    /// and is dead at its first use if it stays silent.
    ///
    /// # Errors
    /// [`VirtioInitError`] says why the device cannot be used.
    pub fn new(
        index: u8,
        port: P,
        region: DmaRegion,
        limits: DriverTimeouts,
        clock: impl Fn() -> Ns,
    ) -> Result<Self, VirtioInitError> {
        let mut core = VirtioDriver::new(port, region, limits)?;
        core.incidents().set_disk(index);
        let mut disk = Self {
            info: describe(index, &core),
            stats: DiskStats::default(),
            is_down: AtomicBool::new(false),
            has_incidents: AtomicBool::new(false),
            core: RankedLock::new(core),
        };
        disk.info.serial = disk.identify(clock);
        Ok(disk)
    }

    /// Asks for the device's name; zeros if it has none.
    fn identify(&mut self, clock: impl Fn() -> Ns) -> [u8; 20] {
        let core = self.core.get_mut();
        let mut out = [Completion { cookie: Cookie(0), result: Ok(()) }];
        if core.submit_identify(Cookie(0), &self.stats).is_err() {
            return [0; 20];
        }
        // The loop ends: the core times the request out.
        while core.poll(clock(), &mut out, &self.stats) == 0 {
            crate::arch::interrupts::spin();
        }
        if out[0].result.is_ok() { core.identity() } else { [0; 20] }
    }

    /// Returns the last violation of the device.
    pub fn last_violation(&self) -> Option<DeviceProtocolError> {
        self.core.lock().last_violation()
    }
}

fn describe<P: VirtioPort>(index: u8, core: &VirtioDriver<P>) -> DiskInfo {
    let (geometry, plan) = (core.geometry(), core.plan());
    DiskInfo {
        index,
        capacity: geometry.capacity,
        max_segments: plan.max_segments.into(),
        max_segment_len: geometry.max_segment_len,
        depth: plan.slots.saturating_sub(1).max(1).into(),
        write_cache: geometry.has(feature::FLUSH),
        discard: geometry.discard,
        write_zeroes: geometry.write_zeroes,
        serial: [0; 20],
    }
}

impl<P: VirtioPort> Disk for VirtioDisk<P> {
    fn info(&self) -> DiskInfo {
        self.info
    }

    fn submit(&self, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        request.check(&self.info)?;
        self.core.lock().submit(request, &self.stats)?;
        self.stats.taken(request);
        Ok(())
    }

    fn poll(&self, now_ns: Ns, out: &mut [Completion]) -> usize {
        let mut core = self.core.lock();
        let done = core.poll(now_ns, out, &self.stats);
        self.is_down.store(core.is_dead(), Ordering::Release);
        self.has_incidents.store(!core.incidents().is_empty(), Ordering::Release);
        done
    }

    fn is_dead(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }

    fn take_incident(&self) -> Option<DiskIncident> {
        if !self.has_incidents.load(Ordering::Acquire) {
            return None;
        }
        let mut core = self.core.lock();
        let incident = core.incidents().take();
        self.has_incidents.store(!core.incidents().is_empty(), Ordering::Release);
        incident
    }

    fn hurry(&self, request_ns: Ns) {
        self.core.lock().hurry(request_ns);
    }

    fn counters(&self) -> DiskCounters {
        self.stats.snapshot()
    }
}
