//! The driver's state machine, without its lock.
//!
//! ```text
//!              request overdue, or Violation                device says status 0
//!   Ready ───────────────────────────────────> Resetting ───────────────────────────> Failing(TimedOut | Io)
//!     ^                                            │ limit over: cut off from memory        │ every request told
//!     │                                            └───────────────> Failing(Dead)          v
//!     └──────────────── same geometry <────────────────────────────────────────────── bring up again
//!                                                      Dead <─────── changed, refused, or too many resets
//! ```
//!
//! Requests are told of their failure only in Failing, that is when the device can no longer touch their buffers.

use virtio_drivers::transport::DeviceStatus;

use super::chain::{self, IDENTITY_LEN};
use super::geometry::{Geometry, feature};
use super::init::{InitError, QUEUE, bring_up, reset};
use super::plan::{Plan, REGION_BYTES};
use super::port::Port;
use super::ring::{IndexJump, Ring, Used};
use super::slots::{InFlight, Slots};
use crate::block::dma::DmaRegion;
use crate::block::request::SECTOR_SIZE;
use crate::block::stats::DiskStats;
use crate::block::{Completion, Cookie, DiskError, Operation, Request, SubmitError};

/// Resets without one good answer in between before a device is given up.
const MOST_RESETS: u8 = 3;

/// Status bytes.
mod status {
    pub const OK: u8 = 0;
    pub const UNSUPPORTED: u8 = 2;
    /// What the driver puts there, so that a device that writes none is noticed.
    pub const NONE: u8 = 0xff;
}

/// How long the driver waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// For an answer to a request.
    pub request_ns: u64,
    /// For the device to confirm a reset.
    pub reset_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request_ns: 30_000_000_000, reset_ns: 2_000_000_000 }
    }
}

/// What a device did that no device may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// It used more than it was offered.
    IndexJump,
    /// It used a chain that is nobody's.
    UnknownId(u32),
    /// It claims to have written more than it was given.
    TooLong(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Ready,
    Resetting { since_ns: u64, error: DiskError },
    Failing { error: DiskError },
    Dead,
}

/// The driver of one device.
pub struct Core<P> {
    port: P,
    region: DmaRegion,
    geometry: Geometry,
    plan: Plan,
    ring: Ring,
    slots: Slots,
    phase: Phase,
    limits: Limits,
    resets: u8,
    last_violation: Option<Violation>,
}

impl<P: Port> Core<P> {
    /// Takes over a device and `region`, which is the driver's own.
    ///
    /// # Errors
    /// [`InitError`] says why the device is of no use.
    pub fn new(mut port: P, region: DmaRegion, limits: Limits) -> Result<Self, InitError> {
        if region.len() < REGION_BYTES {
            return Err(InitError::Region);
        }
        let mut ring = Ring::default();
        reset(&mut port)?;
        let (geometry, plan) = bring_up(&mut port, &region, &mut ring)?;
        let (slots, phase) = (Slots::new(plan.slots), Phase::Ready);
        Ok(Self { port, region, geometry, plan, ring, slots, phase, limits, resets: 0, last_violation: None })
    }

    /// Returns what the disk is.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Returns how the queue is used.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the last thing that the device did wrong.
    pub fn last_violation(&self) -> Option<Violation> {
        self.last_violation
    }

    /// Queues a request that was checked against the limits.
    pub fn submit(&mut self, request: &Request<'_>, stats: &DiskStats) -> Result<(), SubmitError> {
        let slot = self.free_slot()?;
        if request.operation == Operation::Flush && !self.geometry.has(feature::FLUSH) {
            // No cache, no flush (VIRTIO 1.2 §5.2.6.1): what completed is durable.
            self.slots.occupy(slot, InFlight { cookie: request.cookie, incoming: 0, deadline_ns: None });
            self.slots.complete_at_once(slot);
            return Ok(());
        }
        let incoming = if request.operation == Operation::Read { (request.sectors.count * SECTOR_SIZE) as u32 } else { 0 };
        self.region.write(self.plan.status(slot), status::NONE);
        chain::of_request(&self.region, &self.plan, slot, request);
        self.offer(slot, InFlight { cookie: request.cookie, incoming, deadline_ns: None }, stats);
        Ok(())
    }

    /// Asks the device for its name; [`Core::identity`] has it after the completion.
    pub fn submit_identify(&mut self, cookie: Cookie, stats: &DiskStats) -> Result<(), SubmitError> {
        let slot = self.free_slot()?;
        self.region.write(self.plan.status(slot), status::NONE);
        chain::of_identify(&self.region, &self.plan, slot);
        self.offer(slot, InFlight { cookie, incoming: IDENTITY_LEN as u32, deadline_ns: None }, stats);
        Ok(())
    }

    /// Returns the name that the device gave.
    pub fn identity(&self) -> [u8; IDENTITY_LEN] {
        core::array::from_fn(|n| self.region.read(self.plan.identity() + n))
    }

    /// Returns whether the device takes no request any more.
    pub fn is_dead(&self) -> bool {
        self.phase == Phase::Dead
    }

    fn free_slot(&self) -> Result<u16, SubmitError> {
        match self.phase {
            Phase::Ready => self.slots.next_free().ok_or(SubmitError::Full),
            Phase::Dead => Err(SubmitError::Failed),
            Phase::Resetting { .. } | Phase::Failing { .. } => Err(SubmitError::Full),
        }
    }

    fn offer(&mut self, slot: u16, request: InFlight, stats: &DiskStats) {
        self.slots.occupy(slot, request);
        self.ring.offer(&self.region, &self.plan, self.plan.head(slot));
        if self.ring.wants_notification(&self.region, &self.plan) {
            self.port.notify(QUEUE);
            stats.notified();
        }
    }

    /// Collects completions; also where time-outs are found and resets go on.
    pub fn poll(&mut self, now_ns: u64, out: &mut [Completion], stats: &DiskStats) -> usize {
        let mut done = 0;
        if self.phase == Phase::Ready {
            done = self.harvest(now_ns, out, stats);
            if self.phase == Phase::Ready && self.slots.overdue(now_ns, self.limits.request_ns) {
                self.begin_reset(now_ns, DiskError::TimedOut, stats);
            }
        }
        if let Phase::Resetting { since_ns, error } = self.phase {
            self.await_reset(now_ns, since_ns, error);
        }
        if let Phase::Failing { error } = self.phase {
            done += self.fail_all(error, &mut out[done..], stats);
        }
        done
    }

    fn harvest(&mut self, now_ns: u64, out: &mut [Completion], stats: &DiskStats) -> usize {
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
                    self.begin_reset(now_ns, DiskError::Io, stats);
                    break;
                }
            }
        }
        done
    }

    fn take_one(&mut self) -> Result<Option<Completion>, Violation> {
        if let Some(request) = self.slots.take_instant() {
            return Ok(Some(Completion { cookie: request.cookie, result: Ok(()) }));
        }
        let used = self.ring.take(&self.region, &self.plan).map_err(|IndexJump| Violation::IndexJump)?;
        let Some(Used { id, len }) = used else { return Ok(None) };
        let slot = self.plan.slot_of(id).ok_or(Violation::UnknownId(id))?;
        // Data and status are all that the device was given to write. Checked before the slot is given up: a device
        // that wrote too far is reset before anybody gets a buffer back.
        let request = self.slots.peek(slot).ok_or(Violation::UnknownId(id))?;
        if len > request.incoming.saturating_add(1) {
            return Err(Violation::TooLong(len));
        }
        let result = self.verdict(slot, request.incoming, len);
        self.slots.vacate(slot);
        self.resets = 0;
        Ok(Some(Completion { cookie: request.cookie, result }))
    }

    /// Judges an answer. A read counts only if the device claims to have written all of it.
    fn verdict(&self, slot: u16, incoming: u32, len: u32) -> Result<(), DiskError> {
        match self.region.read::<u8>(self.plan.status(slot)) {
            status::OK if incoming == 0 || len == incoming + 1 => Ok(()),
            status::UNSUPPORTED => Err(DiskError::Unsupported),
            _ => Err(DiskError::Io),
        }
    }

    fn begin_reset(&mut self, now_ns: u64, error: DiskError, stats: &DiskStats) {
        stats.reset();
        self.resets += 1;
        self.port.set_status(DeviceStatus::empty());
        self.phase = Phase::Resetting { since_ns: now_ns, error };
    }

    fn await_reset(&mut self, now_ns: u64, since_ns: u64, error: DiskError) {
        if self.port.get_status().is_empty() {
            self.phase = Phase::Failing { error };
        } else if now_ns.saturating_sub(since_ns) >= self.limits.reset_ns {
            self.port.cut_off();
            self.phase = Phase::Failing { error: DiskError::Dead };
        }
    }

    /// Tells everybody in flight, as far as `out` has room; then the device starts again or is dead.
    fn fail_all(&mut self, error: DiskError, out: &mut [Completion], stats: &DiskStats) -> usize {
        let mut done = 0;
        for place in out {
            let Some(request) = self.slots.vacate_any() else { break };
            *place = Completion { cookie: request.cookie, result: Err(error) };
            done += 1;
            stats.failed();
            if error == DiskError::TimedOut {
                stats.timed_out();
            }
        }
        if self.slots.count() == 0 {
            self.phase = if error != DiskError::Dead && self.start_again() { Phase::Ready } else { Phase::Dead };
        }
        done
    }

    fn start_again(&mut self) -> bool {
        if self.resets > MOST_RESETS {
            return false;
        }
        match bring_up(&mut self.port, &self.region, &mut self.ring) {
            Ok(same) => same == (self.geometry, self.plan),
            Err(_) => false,
        }
    }
}
