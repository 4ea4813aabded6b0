//! A disk that keeps its sectors in memory, and completes requests when, how and in which order the
//! test wants.

use crate::addr::{Hpa, PAGE_SIZE};
use crate::block::request::SECTOR_SIZE;
use crate::block::{
    Completion, Cookie, Disk, DiskError, DiskInfo, DiskOperation, DiskRequest, DmaSegment,
    SubmitError,
};
use crate::mm::phys::{DirectMap, FrameMemory};
use crate::time::Ns;
use std::sync::{Mutex, MutexGuard};

/// Sectors in a page.
const PER_PAGE: u64 = PAGE_SIZE / SECTOR_SIZE;

/// When a submitted request completes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskPace {
    /// At the next poll, in order.
    Prompt,
    /// Never.
    Held,
    /// Some at each poll, in any order.
    Random,
}

/// The disk's counters and its behaviour.
pub(super) struct FakeDiskState {
    pub blocks: Vec<[u8; PAGE_SIZE as usize]>,
    queue: Vec<Queued>,
    pub pace: DiskPace,
    pub depth: usize,
    pub dead: bool,
    /// Its lease has expired: its completions prove nothing, and it accepts no requests.
    pub suspended: bool,
    /// It takes no write, as while a crash is recorded on it.
    pub refuses_writes: bool,
    /// This many of the next reads and writes fail.
    pub fail_reads: u32,
    /// Every write to this block fails.
    pub bad_block: Option<u64>,
    pub fail_writes: u32,
    /// It raises no interrupt on completion, like a disk in memory.
    pub is_silent: bool,
    /// Whether requests in flight are reported as late.
    pub tells_lateness: bool,
    /// Requests and blocks written, requests and blocks read.
    pub writes: u64,
    pub blocks_written: u64,
    pub reads: u64,
    pub blocks_read: u64,
    /// Blocks in each write, in the order of submission.
    pub write_runs: Vec<(u64, u64)>,
    pub rng: Rng,
}

struct Queued {
    operation: DiskOperation,
    first: u64,
    segments: Vec<DmaSegment>,
    cookie: Cookie,
    told: bool,
    fails: bool,
}

pub(super) struct FakePagingDisk {
    map: DirectMap,
    max_segments: usize,
    inner: Mutex<FakeDiskState>,
}

impl FakePagingDisk {
    pub(super) fn new(map: DirectMap, blocks: usize, max_segments: usize, seed: u64) -> Self {
        let inner = FakeDiskState {
            // Garbage, as on a used disk.
            blocks: vec![[0x5a; PAGE_SIZE as usize]; blocks],
            queue: Vec::new(),
            pace: DiskPace::Prompt,
            depth: 64,
            dead: false,
            suspended: false,
            refuses_writes: false,
            fail_reads: 0,
            bad_block: None,
            fail_writes: 0,
            is_silent: false,
            tells_lateness: false,
            writes: 0,
            blocks_written: 0,
            reads: 0,
            blocks_read: 0,
            write_runs: Vec::new(),
            rng: Rng(seed | 1),
        };
        Self { map, max_segments, inner: Mutex::new(inner) }
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, FakeDiskState> {
        self.inner.lock().unwrap()
    }

    /// Completes no request in flight, reports them as late, and accepts no more.
    pub(super) fn write_off(&self) {
        let mut inner = self.inner();
        (inner.dead, inner.tells_lateness, inner.pace) = (true, true, DiskPace::Held);
    }

    /// Completes all requests in flight, and accepts new ones again.
    pub(super) fn come_back(&self) {
        let mut inner = self.inner();
        (inner.dead, inner.tells_lateness, inner.pace) = (false, false, DiskPace::Prompt);
    }

    /// Makes the queued reads after the first one fail; returns how many.
    pub(super) fn fail_reads_behind_the_first(&self) -> usize {
        let mut inner = self.inner();
        let reads = inner.queue.iter_mut().filter(|queued| queued.operation == DiskOperation::Read);
        reads.skip(1).map(|queued| queued.fails = true).count()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.inner().queue.len()
    }

    fn transfer(&self, inner: &mut FakeDiskState, request: &Queued) -> Result<(), DiskError> {
        let failing = match request.operation {
            DiskOperation::Read => &mut inner.fail_reads,
            _ => &mut inner.fail_writes,
        };
        let counted = *failing > 0 || request.fails;
        *failing = failing.saturating_sub(u32::from(counted));
        let first = request.first / PER_PAGE;
        let blocks = first
            ..first + request.segments.iter().map(|s| u64::from(s.len) / PAGE_SIZE).sum::<u64>();
        let is_write = request.operation == DiskOperation::Write;
        let fails = counted || is_write && inner.bad_block.is_some_and(|bad| blocks.contains(&bad));
        let blocks = (request.first / PER_PAGE) as usize..;
        for (block, hpa) in blocks.zip(request.segments.iter().flat_map(pages_of)) {
            let content = &mut inner.blocks[block];
            match (request.operation, fails) {
                (DiskOperation::Read, false) => self.map.copy_in(hpa.number(), 0, content),
                (DiskOperation::Write, false) => self.map.copy_out(hpa.number(), 0, content),
                // A failed transfer leaves its target torn.
                (DiskOperation::Read, true) => self.map.copy_in(hpa.number(), 0, &[0xee; 512]),
                _ => content[..512].fill(0xee),
            }
        }
        if fails { Err(DiskError::Io) } else { Ok(()) }
    }
}

fn pages_of(segment: &DmaSegment) -> impl Iterator<Item = Hpa> {
    let base = segment.base;
    (0..u64::from(segment.len) / PAGE_SIZE).map(move |n| base.checked_add(n * PAGE_SIZE).unwrap())
}

impl Disk for FakePagingDisk {
    fn info(&self) -> DiskInfo {
        let inner = self.inner();
        DiskInfo {
            index: 0,
            capacity: inner.blocks.len() as u64 * PER_PAGE,
            max_segments: self.max_segments,
            max_segment_len: 1 << 20,
            depth: inner.depth,
            write_cache: false,
            discard: false,
            write_zeroes: false,
            serial: [0; 20],
        }
    }

    fn submit(&self, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        let mut inner = self.inner();
        if inner.dead {
            return Err(SubmitError::Failed);
        }
        let is_refused = inner.refuses_writes && request.operation == DiskOperation::Write;
        if inner.queue.len() >= inner.depth || inner.suspended || is_refused {
            return Err(SubmitError::Full);
        }
        let (first, count) = (request.sectors.first, request.sectors.count);
        let bytes: u64 = request.segments.iter().map(|s| u64::from(s.len)).sum();
        assert!(first % PER_PAGE == 0 && first + count <= inner.blocks.len() as u64 * PER_PAGE);
        assert!(bytes == count * SECTOR_SIZE && request.segments.len() <= self.max_segments);
        if request.operation == DiskOperation::Write {
            inner.writes += 1;
            inner.blocks_written += count / PER_PAGE;
            inner.write_runs.push((first / PER_PAGE, count / PER_PAGE));
        } else {
            inner.reads += 1;
            inner.blocks_read += count / PER_PAGE;
        }
        let segments = request.segments.to_vec();
        inner.queue.push(Queued {
            operation: request.operation,
            first,
            segments,
            cookie: request.cookie,
            told: false,
            fails: false,
        });
        Ok(())
    }

    fn is_suspended(&self) -> bool {
        self.inner().suspended
    }

    fn has_answers(&self) -> bool {
        let inner = self.inner();
        inner.is_silent && inner.pace == DiskPace::Prompt && !inner.queue.is_empty()
    }

    fn is_dead(&self) -> bool {
        self.inner().dead
    }

    fn poll(&self, _now_ns: Ns, out: &mut [Completion]) -> usize {
        let mut inner = self.inner();
        let mut count = 0;
        if inner.tells_lateness {
            for request in inner.queue.iter_mut().filter(|request| !request.told).take(out.len()) {
                out[count] =
                    Completion { cookie: request.cookie, result: Err(DiskError::TimedOut) };
                request.told = true;
                count += 1;
            }
        }
        while count < out.len() && !inner.queue.is_empty() {
            let pace = inner.pace;
            let at = match pace {
                DiskPace::Held => break,
                DiskPace::Prompt => 0,
                DiskPace::Random if inner.rng.one_in(3) => break,
                DiskPace::Random => {
                    let len = inner.queue.len();
                    inner.rng.below(len as u32) as usize
                }
            };
            let request = inner.queue.remove(at);
            let result = self.transfer(&mut inner, &request);
            out[count] = Completion { cookie: request.cookie, result };
            count += 1;
        }
        count
    }
}

/// A small random number generator (xorshift64*), so that a seed repeats a run.
#[derive(Clone, Copy)]
pub(super) struct Rng(pub u64);

impl Rng {
    pub(super) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    pub(super) fn below(&mut self, n: u32) -> u32 {
        self.next() % n
    }

    pub(super) fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}
