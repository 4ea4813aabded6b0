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

use super::geometry::{Geometry, feature};
use super::init::{InitError, QUEUE, bring_up, reset};
use super::plan::{DESCRIPTOR_SIZE, Descriptors, Plan, REGION_BYTES};
use super::port::Port;
use super::ring::{IndexJump, Ring, Used};
use super::slots::{InFlight, Slots};
use crate::block::dma::DmaRegion;
use crate::block::request::SECTOR_SIZE;
use crate::block::stats::DiskStats;
use crate::block::{Completion, Cookie, DiskError, Operation, Request, SubmitError};

/// Bytes of the name that GET_ID returns.
pub const IDENTITY_LEN: usize = 20;
/// Resets without one good answer in between before a device is given up.
const MOST_RESETS: u8 = 3;

/// Descriptor flags (VIRTIO 1.2 §2.7.5 "The Virtqueue Descriptor Table").
mod flag {
    pub const NEXT: u16 = 1;
    pub const WRITE: u16 = 2;
    pub const INDIRECT: u16 = 4;
}

/// Request types (VIRTIO 1.2 §5.2.6 "Device Operation").
mod kind {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
}

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
        let device_writes = request.operation == Operation::Read;
        let incoming = if device_writes { (request.sectors.count * SECTOR_SIZE) as u32 } else { 0 };
        self.write_header(slot, kind_of(request.operation), header_sector(request));
        let mut chain = Chain::new(&self.region, &self.plan, slot);
        let data_flag = if device_writes { flag::WRITE } else { 0 };
        for segment in request.segments {
            chain.push(segment.base.as_u64(), segment.len, data_flag);
        }
        if matches!(request.operation, Operation::Discard | Operation::WriteZeroes) {
            write_range(&self.region, self.plan.range(slot), request);
            chain.push(self.region.hpa(self.plan.range(slot)).as_u64(), DESCRIPTOR_SIZE as u32, 0);
        }
        chain.finish();
        self.offer(slot, InFlight { cookie: request.cookie, incoming, deadline_ns: None }, stats);
        Ok(())
    }

    /// Asks the device for its name; [`Core::identity`] has it after the completion.
    pub fn submit_identify(&mut self, cookie: Cookie, stats: &DiskStats) -> Result<(), SubmitError> {
        let slot = self.free_slot()?;
        self.write_header(slot, kind::GET_ID, 0);
        let mut chain = Chain::new(&self.region, &self.plan, slot);
        chain.push(self.region.hpa(self.plan.identity()).as_u64(), IDENTITY_LEN as u32, flag::WRITE);
        chain.finish();
        self.offer(slot, InFlight { cookie, incoming: IDENTITY_LEN as u32, deadline_ns: None }, stats);
        Ok(())
    }

    /// Returns the name that the device gave.
    pub fn identity(&self) -> [u8; IDENTITY_LEN] {
        core::array::from_fn(|n| self.region.read(self.plan.identity() + n))
    }

    fn free_slot(&self) -> Result<u16, SubmitError> {
        match self.phase {
            Phase::Ready => self.slots.next_free().ok_or(SubmitError::Full),
            Phase::Dead => Err(SubmitError::Failed),
            Phase::Resetting { .. } | Phase::Failing { .. } => Err(SubmitError::Full),
        }
    }

    fn write_header(&self, slot: u16, kind: u32, sector: u64) {
        let at = self.plan.header(slot);
        self.region.write(at, kind);
        self.region.write(at + 4, 0u32);
        self.region.write(at + 8, sector);
        self.region.write(self.plan.status(slot), status::NONE);
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

fn kind_of(operation: Operation) -> u32 {
    match operation {
        Operation::Read => kind::IN,
        Operation::Write => kind::OUT,
        Operation::Flush => kind::FLUSH,
        Operation::Discard => kind::DISCARD,
        Operation::WriteZeroes => kind::WRITE_ZEROES,
    }
}

/// Only transfers have a sector in the header (VIRTIO 1.2 §5.2.6.1 "Driver Requirements: Device Operation").
fn header_sector(request: &Request<'_>) -> u64 {
    match request.operation {
        Operation::Read | Operation::Write => request.sectors.first,
        _ => 0,
    }
}

/// Writes `virtio_blk_discard_write_zeroes`; no flags: zeros need not be unmapped.
fn write_range(region: &DmaRegion, at: usize, request: &Request<'_>) {
    region.write(at, request.sectors.first);
    region.write(at + 8, request.sectors.count as u32);
    region.write(at + 12, 0u32);
}

/// A slot's chain while it is built: header, data, status.
struct Chain<'a> {
    region: &'a DmaRegion,
    plan: &'a Plan,
    slot: u16,
    len: u16,
}

impl<'a> Chain<'a> {
    fn new(region: &'a DmaRegion, plan: &'a Plan, slot: u16) -> Self {
        let mut chain = Self { region, plan, slot, len: 0 };
        chain.push(region.hpa(plan.header(slot)).as_u64(), DESCRIPTOR_SIZE as u32, 0);
        chain
    }

    /// Adds a descriptor; the next one is always linked, the last link goes with [`Chain::finish`].
    fn push(&mut self, address: u64, len: u32, flags: u16) {
        self.put(address, len, flags | flag::NEXT);
    }

    fn put(&mut self, address: u64, len: u32, flags: u16) {
        let at = self.plan.chain(self.slot) + usize::from(self.len) * DESCRIPTOR_SIZE;
        // Links count within the table that holds the chain.
        let first = match self.plan.descriptors {
            Descriptors::Direct { .. } => self.plan.head(self.slot),
            Descriptors::Indirect => 0,
        };
        self.len += 1;
        write_descriptor(self.region, at, address, len, flags, first + self.len);
    }

    fn finish(mut self) {
        let status = self.region.hpa(self.plan.status(self.slot)).as_u64();
        self.put(status, 1, flag::WRITE);
        if self.plan.descriptors == Descriptors::Indirect {
            let table = self.region.hpa(self.plan.chain(self.slot)).as_u64();
            let at = usize::from(self.plan.head(self.slot)) * DESCRIPTOR_SIZE;
            let bytes = u32::from(self.len) * DESCRIPTOR_SIZE as u32;
            write_descriptor(self.region, at, table, bytes, flag::INDIRECT, 0);
        }
    }
}

fn write_descriptor(region: &DmaRegion, at: usize, address: u64, len: u32, flags: u16, next: u16) {
    region.write(at, address);
    region.write(at + 8, len);
    region.write(at + 12, flags);
    region.write(at + 14, next);
}
