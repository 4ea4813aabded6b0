//! The driver's state machine, without its lock.
//!
//! ```text
//!            request overdue                                    the last answer has come
//!   Ready ───────────────────────────────> WrittenOff(silent) ───────────────────────────────> Ready
//!     │ └── Violation, DEVICE_NEEDS_RESET ──> WrittenOff(broken) ── nothing in flight ──> Resetting
//!     ^                                                                                       │ │ limit over: cut off
//!     └──────────── same disk, even if resized <───────────────────────────────── status 0 ───┘ └──────> Dead
//!                       Dead <─────── another disk, refused, or too many resets
//! ```
//!
//! A request that times out is completed once with an error, and its buffers stay with the device.
//! The late answer, a second completion with the same cookie, gives them back. A device is never
//! reset while a request is in flight: QEMU's reset waits for the requests that the host has not
//! answered, and stops every CPU of the machine meanwhile.

use virtio_drivers::transport::DeviceStatus;

use super::chain::{self, IDENTITY_LEN};
use super::geometry::{VirtioGeometry, feature};
use super::incidents::IncidentQueue;
use super::init::{QUEUE, VirtioInitError, bring_up, reset};
use super::plan::{QueueLayout, REGION_BYTES};
use super::port::VirtioPort;
use super::ring::{RingIndexes, UsedElement, UsedIndexError};
use super::slots::{InFlightRequest, RequestSlots, TimeoutReport};
use crate::block::dma::DmaRegion;
use crate::block::request::SECTOR_SIZE;
use crate::block::stats::DiskStats;
use crate::block::{
    Completion, Cookie, DiskError, DiskIncident, DiskOperation, DiskRequest, QueueLane, SubmitError,
};
use crate::time::Ns;

/// Resets without a good answer in between, after which a device is given up.
const MOST_RESETS: u8 = 3;
/// How often the device's status and capacity are read, in nanoseconds: each look is some register
/// accesses.
const LOOK_NS: Ns = Ns::from_secs(1);

/// Status bytes.
mod status {
    pub(super) const OK: u8 = 0;
    pub(super) const UNSUPPORTED: u8 = 2;
    /// Written by the driver beforehand: it stays if the device writes no status.
    pub(super) const NONE: u8 = 0xff;
}

/// Time limits of the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DriverTimeouts {
    /// For the answer to a request.
    pub request_ns: Ns,
    /// For the device to confirm a reset.
    pub reset_ns: Ns,
}

impl Default for DriverTimeouts {
    fn default() -> Self {
        Self { request_ns: Ns::new(crate::config::DISK_TIMEOUT_NS), reset_ns: Ns::from_secs(2) }
    }
}

/// A violation of the protocol by the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceProtocolError {
    /// The used index is beyond the chains offered.
    IndexJump,
    /// A used chain that is not in flight.
    UnknownId(u32),
    /// More bytes written than it was given.
    TooLong(u32),
}

/// State of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DevicePhase {
    /// The queue is set up.
    Ready,
    /// The device was told to reset, with nothing in flight, and has not confirmed it.
    Resetting { since_ns: Ns },
    /// The device is given up for good.
    Dead,
}

/// The driver of one device.
pub(super) struct VirtioDriver<P> {
    port: P,
    region: DmaRegion,
    geometry: VirtioGeometry,
    plan: QueueLayout,
    ring: RingIndexes,
    slots: RequestSlots,
    phase: DevicePhase,
    /// Set when a request became overdue: the device accepts no request until all are answered.
    written_off_at: Option<Ns>,
    /// The device must be reset before it accepts another request, as soon as nothing is in flight.
    broken: bool,
    limits: DriverTimeouts,
    resets: u8,
    look_at: Ns,
    last_violation: Option<DeviceProtocolError>,
    incidents: IncidentQueue,
}

impl<P: VirtioPort> VirtioDriver<P> {
    /// Takes over a device and `region`, which belongs to the driver.
    ///
    /// # Errors
    /// [`VirtioInitError`] says why the device cannot be used.
    pub(super) fn new(
        mut port: P,
        region: DmaRegion,
        limits: DriverTimeouts,
    ) -> Result<Self, VirtioInitError> {
        if region.len() < REGION_BYTES {
            return Err(VirtioInitError::Region);
        }
        let mut ring = RingIndexes::default();
        reset(&mut port)?;
        let (geometry, plan) = bring_up(&mut port, &region, &mut ring)?;
        Ok(Self {
            port,
            region,
            geometry,
            plan,
            ring,
            slots: RequestSlots::new(plan.slots),
            phase: DevicePhase::Ready,
            written_off_at: None,
            broken: false,
            limits,
            resets: 0,
            look_at: Ns::ZERO,
            last_violation: None,
            incidents: IncidentQueue::default(),
        })
    }

    /// Returns the properties of the disk.
    pub(super) fn geometry(&self) -> &VirtioGeometry {
        &self.geometry
    }

    /// Returns the layout of the queue.
    pub(super) fn plan(&self) -> &QueueLayout {
        &self.plan
    }

    /// Returns the last violation of the device.
    pub(super) fn last_violation(&self) -> Option<DeviceProtocolError> {
        self.last_violation
    }

    /// Queues a request that has been checked against the limits.
    pub(super) fn submit(
        &mut self,
        request: &DiskRequest<'_>,
        stats: &DiskStats,
    ) -> Result<(), SubmitError> {
        let slot = self.free_slot(request.lane)?;
        if request.operation == DiskOperation::Flush && !self.geometry.has(feature::FLUSH) {
            // A device without FLUSH has no volatile cache (VIRTIO 1.2 §5.2.6.1): completed writes
            // are durable.
            self.slots.occupy(
                slot,
                InFlightRequest {
                    cookie: request.cookie,
                    incoming: 0,
                    since_ns: None,
                    told: TimeoutReport::No,
                },
            );
            self.slots.complete_at_once(slot);
            return Ok(());
        }
        let incoming = if request.operation == DiskOperation::Read {
            (request.sectors.count * SECTOR_SIZE) as u32
        } else {
            0
        };
        self.region.write(self.plan.status(slot), status::NONE);
        chain::of_request(&self.region, &self.plan, slot, request);
        self.offer(
            slot,
            InFlightRequest {
                cookie: request.cookie,
                incoming,
                since_ns: None,
                told: TimeoutReport::No,
            },
            stats,
        );
        Ok(())
    }

    /// Asks the device for its name; [`VirtioDriver::identity`] returns it after the completion.
    pub(super) fn submit_identify(
        &mut self,
        cookie: Cookie,
        stats: &DiskStats,
    ) -> Result<(), SubmitError> {
        let slot = self.free_slot(QueueLane::Common)?;
        self.region.write(self.plan.status(slot), status::NONE);
        chain::of_identify(&self.region, &self.plan, slot);
        self.offer(
            slot,
            InFlightRequest {
                cookie,
                incoming: IDENTITY_LEN as u32,
                since_ns: None,
                told: TimeoutReport::No,
            },
            stats,
        );
        Ok(())
    }

    /// Returns the name that the device has given.
    pub(super) fn identity(&self) -> [u8; IDENTITY_LEN] {
        core::array::from_fn(|n| self.region.read(self.plan.identity() + n))
    }

    /// Returns whether the device accepts no request now: it is dead, or written off until its last
    /// answer has come.
    pub(super) fn is_dead(&self) -> bool {
        self.phase == DevicePhase::Dead || self.written_off_at.is_some()
    }

    /// Returns the incidents of the device.
    pub(super) fn incidents(&mut self) -> &mut IncidentQueue {
        &mut self.incidents
    }

    /// Shortens the time-out from now on, also for the requests in flight.
    pub(super) fn hurry(&mut self, request_ns: Ns) {
        self.limits.request_ns = self.limits.request_ns.min(request_ns);
    }

    fn free_slot(&self, lane: QueueLane) -> Result<u16, SubmitError> {
        if self.is_dead() {
            return Err(SubmitError::Failed);
        }
        match self.phase {
            DevicePhase::Ready if !self.broken => {
                self.slots.next_free(lane).ok_or(SubmitError::Full)
            }
            _ => Err(SubmitError::Full),
        }
    }

    fn offer(&mut self, slot: u16, request: InFlightRequest, stats: &DiskStats) {
        self.slots.occupy(slot, request);
        self.ring.offer(&self.region, &self.plan, self.plan.head(slot));
        if self.ring.wants_notification(&self.region, &self.plan) {
            self.port.notify(QUEUE);
            stats.notified();
        }
    }

    /// Collects completions. Also detects overdue requests, and lets a device come back.
    pub(super) fn poll(&mut self, now_ns: Ns, out: &mut [Completion], stats: &DiskStats) -> usize {
        let mut done = 0;
        if self.phase == DevicePhase::Ready {
            done = self.harvest(out, stats);
            if self.written_off_at.is_none() && self.slots.overdue(now_ns, self.limits.request_ns) {
                self.write_off(now_ns);
            }
        }
        if self.written_off_at.is_some() {
            done += self.tell(&mut out[done..], stats);
        }
        if now_ns >= self.look_at {
            self.look(now_ns);
        }
        if self.broken || self.written_off_at.is_some() {
            self.settle(now_ns, stats);
        }
        done
    }

    fn harvest(&mut self, out: &mut [Completion], stats: &DiskStats) -> usize {
        let mut done = 0;
        while let Some(place) = out.get_mut(done) {
            match self.take_one() {
                Ok(None) => break,
                Ok(Some(completion)) => {
                    *place = completion;
                    done += 1;
                    completion.result.inspect_err(|_| stats.failed()).ok();
                }
                Err(violation) => {
                    self.last_violation = Some(violation);
                    self.note_broken();
                    break;
                }
            }
        }
        done
    }

    fn take_one(&mut self) -> Result<Option<Completion>, DeviceProtocolError> {
        if let Some(request) = self.slots.take_instant() {
            return Ok(Some(Completion { cookie: request.cookie, result: Ok(()) }));
        }
        let used = self
            .ring
            .take(&self.region, &self.plan)
            .map_err(|UsedIndexError| DeviceProtocolError::IndexJump)?;
        let Some(UsedElement { id, len }) = used else { return Ok(None) };
        let slot = self.plan.slot_of(id).ok_or(DeviceProtocolError::UnknownId(id))?;
        let request = self.slots.vacate(slot).ok_or(DeviceProtocolError::UnknownId(id))?;
        // Data and status are all that the device may write. The request is still answered, so its
        // buffer is free.
        if len > request.incoming.saturating_add(1) {
            self.last_violation = Some(DeviceProtocolError::TooLong(len));
            self.note_broken();
            return Ok(Some(Completion { cookie: request.cookie, result: Err(DiskError::Io) }));
        }
        let result = self.verdict(slot, request.incoming, len);
        self.resets = 0;
        Ok(Some(Completion { cookie: request.cookie, result }))
    }

    /// Returns the result of an answer. A read counts only if the device claims to have written all
    /// of it.
    fn verdict(&self, slot: u16, incoming: u32, len: u32) -> Result<(), DiskError> {
        match self.region.read::<u8>(self.plan.status(slot)) {
            status::OK if incoming == 0 || len == incoming + 1 => Ok(()),
            status::UNSUPPORTED => Err(DiskError::Unsupported),
            _ => Err(DiskError::Io),
        }
    }

    fn note_broken(&mut self) {
        if !core::mem::replace(&mut self.broken, true) {
            self.incidents.push(DiskIncident::Broken);
        }
    }

    /// Accepts no request until every one in flight has its answer.
    fn write_off(&mut self, now_ns: Ns) {
        self.written_off_at = Some(now_ns);
        self.incidents.push(DiskIncident::WrittenOff { unanswered: self.slots.count() as u16 });
    }

    /// Completes the requests in flight with a time-out, once each and as far as `out` has room.
    fn tell(&mut self, out: &mut [Completion], stats: &DiskStats) -> usize {
        let mut done = 0;
        for place in out {
            let Some(cookie) = self.slots.tell_one() else { break };
            *place = Completion { cookie, result: Err(DiskError::TimedOut) };
            done += 1;
            stats.failed();
            stats.timed_out();
        }
        done
    }

    /// Reads the state that the device reports in no answer: the need for a reset, and its
    /// capacity.
    fn look(&mut self, now_ns: Ns) {
        self.look_at = now_ns.saturating_add(LOOK_NS);
        if self.phase != DevicePhase::Ready {
            return;
        }
        if self.port.get_status().contains(DeviceStatus::DEVICE_NEEDS_RESET) {
            self.note_broken();
        }
        if let Ok(geometry) = VirtioGeometry::read(&self.port, self.geometry.features) {
            self.note_capacity(geometry.capacity);
        }
    }

    /// Records the capacity. The spaces of a disk keep their place and size: on a disk that shrank,
    /// requests beyond its end fail.
    fn note_capacity(&mut self, capacity: u64) {
        let before = core::mem::replace(&mut self.geometry.capacity, capacity);
        if before != capacity {
            self.incidents.push(DiskIncident::Resized { from: before, to: capacity });
        }
    }

    /// Resets the device, or lets it come back, once it has no request in flight.
    fn settle(&mut self, now_ns: Ns, stats: &DiskStats) {
        match self.phase {
            DevicePhase::Ready if self.slots.count() == 0 && self.broken => {
                self.begin_reset(now_ns, stats)
            }
            DevicePhase::Ready if self.slots.count() == 0 => self.come_back(now_ns),
            DevicePhase::Resetting { since_ns } => self.await_reset(now_ns, since_ns),
            _ => {}
        }
    }

    fn come_back(&mut self, now_ns: Ns) {
        if let Some(since) = self.written_off_at.take() {
            self.incidents.push(DiskIncident::Back { away_ns: now_ns.saturating_sub(since) });
        }
    }

    fn begin_reset(&mut self, now_ns: Ns, stats: &DiskStats) {
        assert!(self.slots.count() == 0, "a device is reset with nothing in flight");
        stats.reset();
        self.resets += 1;
        self.incidents.record_reset(self.resets);
        self.port.set_status(DeviceStatus::empty());
        self.phase = DevicePhase::Resetting { since_ns: now_ns };
        self.await_reset(now_ns, now_ns);
    }

    fn await_reset(&mut self, now_ns: Ns, since_ns: Ns) {
        if self.port.get_status().is_empty() {
            self.start_again(now_ns);
        } else if now_ns.saturating_sub(since_ns) >= self.limits.reset_ns {
            self.port.cut_off();
            self.die();
        }
    }

    fn start_again(&mut self, now_ns: Ns) {
        let up = if self.resets > MOST_RESETS {
            None
        } else {
            bring_up(&mut self.port, &self.region, &mut self.ring).ok()
        };
        match up {
            Some((geometry, plan))
                if plan == self.plan && geometry.is_same_disk(&self.geometry) =>
            {
                (self.phase, self.broken) = (DevicePhase::Ready, false);
                self.note_capacity(geometry.capacity);
                self.come_back(now_ns);
            }
            _ => self.die(),
        }
    }

    fn die(&mut self) {
        (self.phase, self.broken, self.written_off_at) = (DevicePhase::Dead, false, None);
        self.incidents.push(DiskIncident::Dead);
    }
}
