//! A disk in physical memory, for machines without virtio (Bochs) and for exact measurements.
//!
//! A request is carried out when it is polled, not when it is submitted: a device's DMA is also
//! late. So a test shows if the submitter touches a buffer too early. Requests complete in order.
//!
//! Invariant: the region belongs to the disk alone. The only other memory that it touches is the
//! submitters' buffers.

use alloc::boxed::Box;

use super::dma::DmaMemory;
use super::request::SECTOR_SIZE;
use super::stats::{DiskCounters, DiskStats};
use super::{
    Completion, Cookie, Disk, DiskInfo, DiskOperation, DiskRequest, DmaSegment, SectorRange,
    SubmitError,
};
use crate::addr::Hpa;
use crate::sync::{RankedLock, rank};
use crate::time::Ns;
use arrayvec::ArrayVec;

/// Most segments in a request.
const MAX_SEGMENTS: usize = 64;
/// Most requests in flight.
const DEPTH: usize = 64;

/// A request that waits for its poll. It is filled in place, so unused segments are not copied.
struct Pending {
    operation: DiskOperation,
    sectors: SectorRange,
    segments: ArrayVec<DmaSegment, MAX_SEGMENTS>,
    cookie: Cookie,
}

impl Pending {
    fn empty() -> Self {
        let sectors = SectorRange { first: 0, count: 0 };
        Self {
            operation: DiskOperation::Flush,
            sectors,
            segments: ArrayVec::new(),
            cookie: Cookie(0),
        }
    }

    fn fill(&mut self, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        self.segments.clear();
        match request.segments {
            // The common case: a fault for one page.
            [segment] => self.segments.push(*segment),
            segments => {
                self.segments.try_extend_from_slice(segments).map_err(|_| SubmitError::Invalid)?
            }
        }
        (self.operation, self.sectors, self.cookie) =
            (request.operation, request.sectors, request.cookie);
        Ok(())
    }
}

/// A FIFO of requests. Requests are filled and carried out in place; only their boxes move.
struct Fifo {
    /// A ring: `len` requests from `head` on.
    waiting: [Option<Box<Pending>>; DEPTH],
    head: usize,
    len: usize,
    free: ArrayVec<Box<Pending>, DEPTH>,
}

impl Fifo {
    fn new() -> Self {
        let free = (0..DEPTH).map(|_| Box::new(Pending::empty())).collect();
        Self { waiting: [const { None }; DEPTH], head: 0, len: 0, free }
    }

    fn push(&mut self, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        let slot = self.free.last_mut().ok_or(SubmitError::Full)?;
        slot.fill(request)?;
        self.waiting[(self.head + self.len) % DEPTH] = self.free.pop();
        self.len += 1;
        Ok(())
    }

    /// Takes the oldest request; the caller gives it back after carrying it out.
    fn pop(&mut self) -> Option<Box<Pending>> {
        let oldest = self.waiting[self.head].take()?;
        self.head = (self.head + 1) % DEPTH;
        self.len -= 1;
        Some(oldest)
    }

    fn give_back(&mut self, done: Box<Pending>) {
        self.free.push(done);
    }
}

/// The disk.
pub struct MemoryDisk<M> {
    memory: M,
    base: Hpa,
    info: DiskInfo,
    stats: DiskStats,
    fifo: RankedLock<Fifo, { rank::DISK }>,
}

impl<M: DmaMemory> MemoryDisk<M> {
    /// Makes disk number `index` of the `bytes` at `base`, which belong to the disk from now on.
    pub fn new(index: u8, memory: M, base: Hpa, bytes: u64) -> Self {
        let mut serial = [0; 20];
        serial[..6].copy_from_slice(b"memory");
        let info = DiskInfo {
            index,
            capacity: bytes / SECTOR_SIZE,
            max_segments: MAX_SEGMENTS,
            max_segment_len: 1 << 20,
            depth: DEPTH,
            write_cache: false,
            discard: true,
            write_zeroes: true,
            serial,
        };
        Self { memory, base, info, stats: DiskStats::default(), fifo: RankedLock::new(Fifo::new()) }
    }

    /// Returns the address of sector `first`; the request has been checked.
    fn at(&self, first: u64) -> Hpa {
        self.base.checked_add(first * SECTOR_SIZE).expect("the disk lies in physical memory")
    }

    fn carry_out(&self, pending: &Pending) {
        let mut at = self.at(pending.sectors.first);
        for segment in &pending.segments {
            let len = u64::from(segment.len);
            match pending.operation {
                DiskOperation::Read => self.memory.copy(at, segment.base, len),
                _ => self.memory.copy(segment.base, at, len),
            }
            at = at.checked_add(len).expect("the disk lies in physical memory");
        }
        if pending.operation == DiskOperation::WriteZeroes {
            self.memory.fill_zero(at, pending.sectors.count * SECTOR_SIZE);
        }
    }
}

impl<M: DmaMemory + Send> Disk for MemoryDisk<M> {
    fn info(&self) -> DiskInfo {
        self.info
    }

    fn submit(&self, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        request.check(&self.info)?;
        self.fifo.lock().push(request)?;
        self.stats.taken(request);
        Ok(())
    }

    fn poll(&self, _now_ns: Ns, out: &mut [Completion]) -> usize {
        let mut done = 0;
        let mut next = if out.is_empty() { None } else { self.fifo.lock().pop() };
        while let Some(pending) = next {
            self.carry_out(&pending);
            out[done] = Completion { cookie: pending.cookie, result: Ok(()) };
            done += 1;
            let mut fifo = self.fifo.lock();
            fifo.give_back(pending);
            next = if done < out.len() { fifo.pop() } else { None };
        }
        done
    }

    fn has_answers(&self) -> bool {
        self.fifo.lock().len > 0
    }

    fn counters(&self) -> DiskCounters {
        self.stats.snapshot()
    }
}

#[cfg(test)]
mod tests {
    use super::super::QueueLane;
    use super::super::dma::fake::FakeDmaMemory;
    use super::*;

    const BASE: Hpa = Hpa::new(0x10000);
    const BUFFER: Hpa = Hpa::new(0x1000);

    fn ask<'a>(
        operation: DiskOperation,
        first: u64,
        segments: &'a [DmaSegment],
        cookie: u64,
    ) -> DiskRequest<'a> {
        let count = segments.iter().map(|s| u64::from(s.len) / 512).sum();
        DiskRequest {
            operation,
            sectors: SectorRange { first, count },
            segments,
            lane: QueueLane::Common,
            cookie: Cookie(cookie),
        }
    }

    fn poll<M: DmaMemory + Send>(disk: &MemoryDisk<M>, room: usize) -> Vec<u64> {
        let mut out = vec![Completion { cookie: Cookie(0), result: Ok(()) }; room];
        let n = disk.poll(Ns::ZERO, &mut out);
        out[..n].iter().map(|c| c.cookie.0).collect()
    }

    #[test]
    fn segments_are_gathered_and_scattered_in_order_when_polled() {
        let memory = FakeDmaMemory::new(0x20000);
        let disk = MemoryDisk::new(0, &memory, BASE, 0x10000);
        memory.write(BUFFER, &[[1u8; 512], [2; 512], [3; 512]].concat());
        let swapped = [
            DmaSegment { base: Hpa::new(0x1200), len: 1024 },
            DmaSegment { base: BUFFER, len: 512 },
        ];
        disk.submit(&ask(DiskOperation::Write, 4, &swapped, 1)).unwrap();
        assert_eq!(memory.read(Hpa::new(0x10800), 1), [0], "nothing moves before the poll");
        assert!(disk.has_answers());
        assert_eq!(poll(&disk, 8), [1]);
        assert!(!disk.has_answers());
        assert_eq!(memory.read(Hpa::new(0x10800), 1536), [[2u8; 512], [3; 512], [1; 512]].concat());
        disk.submit(&ask(
            DiskOperation::Read,
            5,
            &[DmaSegment { base: Hpa::new(0x3000), len: 512 }],
            2,
        ))
        .unwrap();
        assert_eq!(poll(&disk, 8), [2]);
        assert_eq!(memory.read(Hpa::new(0x3000), 512), [3; 512]);
    }

    #[test]
    fn write_zeroes_reaches_exactly_its_sectors() {
        let memory = FakeDmaMemory::new(0x20000);
        let disk = MemoryDisk::new(0, &memory, BASE, 0x10000);
        memory.write(BASE, &[7; 2048]);
        let sectors = SectorRange { first: 1, count: 2 };
        disk.submit(&DiskRequest {
            operation: DiskOperation::WriteZeroes,
            sectors,
            segments: &[],
            lane: QueueLane::Common,
            cookie: Cookie(1),
        })
        .unwrap();
        poll(&disk, 1);
        assert_eq!(memory.read(BASE, 2048), [[7u8; 512], [0; 512], [0; 512], [7; 512]].concat());
    }

    #[test]
    fn a_full_disk_takes_nothing_until_it_is_polled_and_polls_no_more_than_there_is_room() {
        let memory = FakeDmaMemory::new(0x20000);
        let disk = MemoryDisk::new(0, &memory, BASE, 0x10000);
        let segments = [DmaSegment { base: BUFFER, len: 512 }];
        for n in 0..DEPTH as u64 {
            disk.submit(&ask(DiskOperation::Write, n, &segments, n)).unwrap();
        }
        assert_eq!(
            disk.submit(&ask(DiskOperation::Write, 0, &segments, 99)),
            Err(SubmitError::Full)
        );
        assert_eq!(poll(&disk, 2), [0, 1]);
        assert_eq!(disk.submit(&ask(DiskOperation::Write, 0, &segments, 99)), Ok(()));
        assert_eq!(poll(&disk, 100).last(), Some(&99));
        assert_eq!(disk.counters().requests.write, DEPTH as u64 + 1);
        assert_eq!(disk.counters().bytes.write, (DEPTH as u64 + 1) * 512);
    }

    #[test]
    fn sectors_beyond_the_end_are_refused() {
        let memory = FakeDmaMemory::new(0x20000);
        let disk = MemoryDisk::new(0, &memory, BASE, 0x10000);
        let request = ask(DiskOperation::Read, 128, &[DmaSegment { base: BUFFER, len: 512 }], 1);
        assert_eq!(disk.submit(&request), Err(SubmitError::Invalid));
        assert_eq!(disk.counters(), DiskCounters::default());
    }
}
