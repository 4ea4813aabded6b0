//! Exercises the disks on the bare machine: `selftest=disk` on the command line.
//!
//! Overwrites every disk it finds. Further words: `bad=SECTOR` expects an error there,
//! `patience=MS` shortens the driver's time-out, `silent` expects that no request is answered in
//! time and that the disk works again afterwards.

// UNSAFETY: fills and compares buffers in physical memory that it took.
#![expect(unsafe_code)]

use crate::arch::vectors;
use log::{error, info};

use super::MAX_DISKS;
use super::any::FoundDisk;
use super::discover::DiskDiscovery;
use super::virtio::DriverTimeouts;
use super::{
    Completion, Cookie, Disk, DiskError, DiskOperation, DiskRequest, DmaSegment, QueueLane,
    SectorRange, SubmitError,
};
use crate::addr::Hpa;
use crate::arch::percpu::CpuId;
use crate::arch::physmem::PhysicalMemory;
use crate::arch::{interrupts, time};
use crate::log::exit::ExitCode;
use crate::pci::window::DeviceWindow;
use crate::time::Ns;

/// Requests in flight, if the disk is deep enough.
const REQUESTS: u64 = 64;
/// Segments of each request, a page each.
const SEGMENTS: u64 = 8;
const PAGE: u64 = 4096;
const REQUEST_SECTORS: u64 = SEGMENTS * PAGE / 512;
const BUFFER_BYTES: u64 = REQUESTS * SEGMENTS * PAGE;
/// Bytes of the memory-backed disk.
const MEMORY_DISK: u64 = 8 << 20;
/// Bytes of the throughput measurement.
const STREAM_BYTES: u64 = 64 << 20;
const STREAM_SEGMENTS: u64 = 32;
const STREAM_DEPTH: u64 = 16;
const PATIENCE_NS: Ns = Ns::from_secs(60);

/// The options of the command line.
struct Wishes {
    bad_sector: Option<u64>,
    patience_ms: Option<u64>,
    silent: bool,
}

impl Wishes {
    fn parse(command_line: &str) -> Self {
        let number = |key: &str| {
            let word = command_line.split_whitespace().find_map(|word| word.strip_prefix(key))?;
            word.parse().ok()
        };
        let silent = command_line.split_whitespace().any(|word| word == "silent");
        Self { bad_sector: number("bad="), patience_ms: number("patience="), silent }
    }

    fn limits(&self) -> DriverTimeouts {
        let usual = DriverTimeouts::default();
        DriverTimeouts {
            request_ns: self.patience_ms.map_or(usual.request_ns, Ns::from_ms),
            ..usual
        }
    }
}

/// Runs all checks on all disks.
pub fn run(memory: &mut PhysicalMemory, command_line: &str) -> ExitCode {
    let wishes = Wishes::parse(command_line);
    let Some(buffer) = memory.take(BUFFER_BYTES * 2) else {
        error!("selftest disk: no memory for the buffers");
        return ExitCode::Failure;
    };
    let mut failed = 0;
    for found in find(memory, wishes.limits()) {
        let bench = DiskSelftest { found, buffer: buffer.start, wishes: &wishes };
        match bench.run() {
            Ok(()) => info!("selftest disk: disk {} passed", found.disk.info().index),
            Err(what) => {
                error!("selftest disk: disk {} failed: {what}", found.disk.info().index);
                failed += 1;
            }
        }
    }
    if failed == 0 { ExitCode::Success } else { ExitCode::Failure }
}

fn find(
    memory: &mut PhysicalMemory,
    limits: DriverTimeouts,
) -> arrayvec::ArrayVec<FoundDisk, MAX_DISKS> {
    let apic_id = interrupts::apic_id(CpuId::BOOT) as u8;
    let mut discovery = DiskDiscovery::new(memory, vectors::DISK, apic_id).with_limits(limits);
    // SAFETY: this is the only user of the machine's disks.
    unsafe {
        discovery
            .virtio(time::now_ns, |at, why| error!("selftest disk: {at} is of no use: {why:?}"))
    };
    if let Err(why) = discovery.memory_backed(MEMORY_DISK) {
        error!("selftest disk: no memory-backed disk: {why:?}");
    }
    discovery.finish()
}

struct DiskSelftest<'a> {
    found: FoundDisk,
    buffer: Hpa,
    wishes: &'a Wishes,
}

type DiskCheckResult = Result<(), &'static str>;

fn ensure(holds: bool, otherwise: &'static str) -> DiskCheckResult {
    if holds { Ok(()) } else { Err(otherwise) }
}

impl DiskSelftest<'_> {
    fn disk(&self) -> &'static dyn Disk {
        self.found.disk
    }

    fn run(&self) -> DiskCheckResult {
        self.describe();
        if self.wishes.silent && self.found.base.is_none() {
            return self.silence();
        }
        self.scatter_gather()?;
        ensure(self.one(DiskOperation::Flush, 0, 0) == Some(Ok(())), "flush")?;
        self.errors()?;
        self.zeroes()?;
        self.latency()?;
        self.stream(DiskOperation::Write)?;
        self.stream(DiskOperation::Read)
    }

    fn describe(&self) {
        let i = self.disk().info();
        let serial = core::str::from_utf8(&i.serial).unwrap_or("?").trim_end_matches('\0');
        info!(
            "selftest disk: disk {} `{serial}`: {} MiB, {} requests of {} segments, cache {}, \
             discard {}, zeroes {}",
            i.index,
            i.capacity >> 11,
            i.depth,
            i.max_segments,
            i.write_cache,
            i.discard,
            i.write_zeroes
        );
    }

    /// Returns page `n` of the buffer; data is read back into the second half.
    fn page(&self, n: u64) -> Hpa {
        self.buffer.checked_add(n * PAGE).expect("the buffer lies in physical memory")
    }

    fn window(&self, first_page: u64) -> DeviceWindow {
        // SAFETY: the buffer was taken for good; the disk has it only while a request is in flight,
        // and it is not accessed then.
        unsafe { DeviceWindow::of_physical(self.page(first_page), BUFFER_BYTES as usize) }
    }

    /// Writes 64 scattered requests at once, reads them back to another place, compares every word.
    fn scatter_gather(&self) -> DiskCheckResult {
        let (here, there) = (self.window(0), self.window(REQUESTS * SEGMENTS));
        let key = u64::from(self.disk().info().index) << 56;
        (0..BUFFER_BYTES as usize)
            .step_by(8)
            .for_each(|at| here.write(at, key | (at as u64 * 0x9e37_79b9) >> 3));
        (0..BUFFER_BYTES as usize).step_by(8).for_each(|at| there.write(at, !0u64));
        let most = self.all_at_once(DiskOperation::Write, 0)?;
        self.all_at_once(DiskOperation::Read, REQUESTS * SEGMENTS)?;
        let wrong = (0..BUFFER_BYTES as usize)
            .step_by(8)
            .filter(|at| here.read::<u64>(*at) != there.read(*at))
            .count();
        info!(
            "selftest disk: {most} requests in flight, {wrong} wrong words of {}",
            BUFFER_BYTES / 8
        );
        ensure(wrong == 0, "data read back")?;
        ensure(most == REQUESTS.min(self.disk().info().depth as u64), "requests in flight")
    }

    /// Sends all requests; returns the most that were in flight.
    fn all_at_once(&self, operation: DiskOperation, first_page: u64) -> Result<u64, &'static str> {
        let vector = vectors::DISK + self.disk().info().index;
        interrupts::take(vector);
        let (mut sent, mut done, mut most, mut arrived) = (0, 0, 0, 0);
        while done < REQUESTS {
            while sent < REQUESTS && self.send(operation, sent, first_page)? {
                sent += 1;
            }
            most = most.max(sent - done);
            for completion in self.wait()? {
                ensure(completion.result.is_ok(), "a transfer")?;
                done += 1;
            }
            // Completions may be polled before their interrupt is taken.
            interrupts::window();
            arrived += interrupts::take(vector);
        }
        info!("selftest disk: {operation:?} of {REQUESTS} requests, {arrived} interrupts");
        ensure(arrived > 0 || self.found.base.is_some(), "interrupts")?;
        Ok(most)
    }

    /// Sends request `n`: its segments are every 64th page, so that they are scattered.
    fn send(
        &self,
        operation: DiskOperation,
        n: u64,
        first_page: u64,
    ) -> Result<bool, &'static str> {
        let segment =
            |s| DmaSegment { base: self.page(first_page + n + s * REQUESTS), len: PAGE as u32 };
        let segments: [DmaSegment; SEGMENTS as usize] = core::array::from_fn(|s| segment(s as u64));
        let sectors = SectorRange { first: n * REQUEST_SECTORS, count: REQUEST_SECTORS };
        match self.disk().submit(&DiskRequest {
            operation,
            sectors,
            segments: &segments,
            lane: QueueLane::Common,
            cookie: Cookie(n),
        }) {
            Ok(()) => Ok(true),
            Err(SubmitError::Full) => Ok(false),
            Err(_) => Err("submit"),
        }
    }

    /// Waits for interrupts until a request is complete.
    fn wait(&self) -> Result<arrayvec::ArrayVec<Completion, 16>, &'static str> {
        let end = time::now_ns() + PATIENCE_NS;
        let mut out = [Completion { cookie: Cookie(0), result: Ok(()) }; 16];
        loop {
            let now = time::now_ns();
            let n = self.disk().poll(now, &mut out);
            if n > 0 {
                return Ok(out[..n].iter().copied().collect());
            }
            ensure(now < end, "an answer in time")?;
            interrupts::idle(Some(now + Ns::from_ms(10)));
        }
    }

    /// Carries out one request of `count` sectors on the start of the buffer; `None` if it was not
    /// accepted.
    fn one(
        &self,
        operation: DiskOperation,
        first: u64,
        count: u64,
    ) -> Option<Result<(), DiskError>> {
        let data = [DmaSegment { base: self.buffer, len: (count * 512) as u32 }];
        let segments = if matches!(operation, DiskOperation::Read | DiskOperation::Write) {
            &data[..]
        } else {
            &[]
        };
        let request = DiskRequest {
            operation,
            sectors: SectorRange { first, count },
            segments,
            lane: QueueLane::Common,
            cookie: Cookie(0),
        };
        self.disk().submit(&request).ok()?;
        Some(self.wait().ok()?.first()?.result)
    }

    fn errors(&self) -> DiskCheckResult {
        let capacity = self.disk().info().capacity;
        ensure(self.one(DiskOperation::Read, capacity - 1, 1) == Some(Ok(())), "the last sector")?;
        ensure(
            self.one(DiskOperation::Read, capacity, 1).is_none(),
            "a sector beyond the end is refused",
        )?;
        let Some(bad) = self.wishes.bad_sector.filter(|_| self.found.base.is_none()) else {
            return Ok(());
        };
        let answer = self.one(DiskOperation::Read, bad, 1);
        info!("selftest disk: bad sector {bad}: {answer:?}, {:?}", self.disk().counters());
        ensure(answer == Some(Err(DiskError::Io)), "the bad sector's error")?;
        ensure(
            self.one(DiskOperation::Read, bad + 1, 1) == Some(Ok(())),
            "the sector after the bad one",
        )
    }

    fn zeroes(&self) -> DiskCheckResult {
        if !self.disk().info().write_zeroes {
            return Ok(());
        }
        ensure(self.one(DiskOperation::WriteZeroes, 8, 8) == Some(Ok(())), "write-zeroes")?;
        ensure(self.one(DiskOperation::Discard, 0, 8) == Some(Ok(())), "discard")?;
        ensure(self.one(DiskOperation::Read, 8, 16) == Some(Ok(())), "read after write-zeroes")?;
        let window = self.window(0);
        ensure((0..4096).all(|at| window.read::<u8>(at) == 0), "zeros")?;
        ensure((4096..8192).any(|at| window.read::<u8>(at) != 0), "data beside the zeros")
    }

    /// Prints this CPU's cost of one page: to submit, and to poll until completion, without idling.
    fn latency(&self) -> DiskCheckResult {
        let (mut submit, mut poll) = (Ns::MAX, Ns::MAX);
        let mut out = [Completion { cookie: Cookie(0), result: Ok(()) }];
        for n in 0..256 {
            let segments = [DmaSegment { base: self.buffer, len: PAGE as u32 }];
            let sectors = SectorRange { first: n * PAGE / 512, count: PAGE / 512 };
            let start = time::now_ns();
            let request = DiskRequest {
                operation: DiskOperation::Read,
                sectors,
                segments: &segments,
                lane: QueueLane::Common,
                cookie: Cookie(n),
            };
            ensure(self.disk().submit(&request).is_ok(), "submit")?;
            let middle = time::now_ns();
            while self.disk().poll(middle, &mut out) == 0 {
                interrupts::spin();
            }
            ensure(out[0].result.is_ok(), "a page")?;
            (submit, poll) = (submit.min(middle - start), poll.min(time::now_ns() - middle));
        }
        info!(
            "selftest disk: one page: {} ns to submit, {} ns to poll, copy of a memory disk \
             included",
            submit.as_u64(),
            poll.as_u64()
        );
        Ok(())
    }

    /// Moves 64 MiB in large requests, at most to the end of the disk; prints the speed.
    fn stream(&self, operation: DiskOperation) -> DiskCheckResult {
        let request = self.stream_segments() * PAGE;
        let total = (STREAM_BYTES.min(self.disk().info().capacity * 512)) / request;
        let (before, start) = (self.disk().counters(), time::now_ns());
        let (mut sent, mut done, mut busy) = (0, 0, Ns::ZERO);
        while done < total {
            let t = time::now_ns();
            while sent < total && sent - done < STREAM_DEPTH && self.send_large(operation, sent)? {
                sent += 1;
            }
            busy += time::now_ns() - t;
            for completion in self.wait()? {
                ensure(completion.result.is_ok(), "a large transfer")?;
                done += 1;
            }
        }
        let ns = (time::now_ns() - start).as_u64().max(1);
        let after = self.disk().counters();
        info!(
            "selftest disk: {operation:?} {} MiB in {total} requests: {} MB/s, {} ns a submit, {} \
             notifications",
            (total * request) >> 20,
            total * request * 1000 / ns,
            busy.as_u64() / total,
            after.notifications - before.notifications
        );
        Ok(())
    }

    /// Returns the segments of a large request, as many as the disk takes.
    fn stream_segments(&self) -> u64 {
        STREAM_SEGMENTS.min(self.disk().info().max_segments as u64)
    }

    fn send_large(&self, operation: DiskOperation, n: u64) -> Result<bool, &'static str> {
        let pages = self.stream_segments();
        let first = n % STREAM_DEPTH * pages;
        let segment = |s: usize| DmaSegment { base: self.page(first + s as u64), len: PAGE as u32 };
        let segments: [DmaSegment; STREAM_SEGMENTS as usize] = core::array::from_fn(segment);
        let (segments, count) = (&segments[..pages as usize], pages * PAGE / 512);
        let sectors = SectorRange { first: n * count, count };
        match self.disk().submit(&DiskRequest {
            operation,
            sectors,
            segments,
            lane: QueueLane::Common,
            cookie: Cookie(n),
        }) {
            Ok(()) => Ok(true),
            Err(SubmitError::Full) => Ok(false),
            Err(_) => Err("submit"),
        }
    }

    /// Expects that a write is not answered in time, that every late request is answered once more,
    /// and that the disk then works again without a reset.
    fn silence(&self) -> DiskCheckResult {
        let mut sent = 0;
        while sent < REQUESTS && self.send(DiskOperation::Write, sent, 0)? {
            sent += 1;
        }
        let (mut done, mut late) = (0, 0);
        while done < sent + late {
            for completion in self.wait()? {
                done += 1;
                late += u64::from(completion.result == Err(DiskError::TimedOut));
            }
        }
        info!("selftest disk: {late} of {sent} timed out, {:?}", self.disk().counters());
        ensure(late > 0 && self.disk().counters().resets == 0, "late answers without a reset")?;
        // The cause of the delay may last a little longer.
        let again = (0..3).any(|_| self.one(DiskOperation::Read, 0, 1) == Some(Ok(())));
        info!("selftest disk: works again {again}, {} resets", self.disk().counters().resets);
        ensure(again, "a read after the late answers")
    }
}
