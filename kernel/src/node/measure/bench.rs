//! Measures the pager's own work, for `tidepool bench`: the configuration asks for it with
//! `self_tests = ["pager"]`.
//!
//! An object that belongs to no partition is filled, aged, paged out and drained before any
//! partition starts. It all happens on this CPU, through the same calls as in operation. The clock
//! is the time-stamp counter, which counts instructions on both emulators. The figures include
//! everything the pager does meanwhile: flush tickets, scans, checksums, requests, completions, and
//! the disk's own time. A memory-backed disk takes the time of a copy, where a virtio disk would
//! use DMA; that copy is measured separately as `device`.

use crate::addr::{Gpa, PAGE_SIZE};
use crate::arch::percpu::CpuId;
use crate::arch::{instr, time};
use crate::block::{
    Completion, Cookie, Disk, DiskOperation, DiskRequest, DmaSegment, QueueLane, SectorRange,
};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::host::NodePager;
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::mm::guest_bytes::GuestBytes;
use crate::mm::layout::RamLayout;
use crate::mm::object::MemoryObject;
use crate::mm::phys::DirectMap;
use crate::node::{Node, services};
use crate::paging::counters::PagerSnapshot;
use crate::paging::{ImageDrain, PageStore};
use crate::time::Ticks;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Name of these measurements in the configuration.
pub const NAME: &str = crate::config::SELF_TESTS[0];
/// Owner of the space while it is measured.
const OWNER: &str = "self-test";
/// Pages of the object: a turn of the poll scans half as many leaves.
const PAGES: u32 = 8192;
/// Pages in one average, so that averages can be compared.
const CHUNK: u32 = 1024;
/// Pages in a request that bypasses the pager.
const RUN: u64 = 64;
/// Turns after which the wait for an operation is given up.
const TURNS: u32 = 1_000_000;

/// The object's bytes, accessed like a vCPU's emulated accesses.
type NodeBytes<'a> = GuestBytes<'a, DirectMap, NodePager>;

/// Why a measurement failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeasureError {
    /// There is no free paging space of 32 MiB, or there are too few frames.
    NoRoom,
    /// The operation did not finish in time.
    Stuck,
    /// A page that leaves without a write was written.
    Written,
}

impl core::fmt::Display for MeasureError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoRoom => "no free paging space of 32 MiB, or no frames for as much",
            Self::Stuck => "an operation did not end in time",
            Self::Written => "a page that leaves without a write was written",
        })
    }
}

/// Measures, and reports a `bench` event for each figure.
///
/// # Errors
/// [`MeasureError`].
pub fn pager(node: &'static Node, cpu: CpuId) -> Result<(), MeasureError> {
    let bench = PagerBench { node, cpu };
    let layout = RamLayout::new(u64::from(PAGES) * PAGE_SIZE).ok_or(MeasureError::NoRoom)?;
    if node.host.frames.free_count() < PAGES + PAGES / 8 {
        return Err(MeasureError::NoRoom);
    }
    let space = node.host.spaces.acquire(OWNER, &layout, 0).ok_or(MeasureError::NoRoom)?;
    bench.until(|| node.host.spaces.is_ready(space).is_some())?;
    let store = node.host.spaces.store(space).ok_or(MeasureError::NoRoom)?;
    bench.device(store)?;
    bench.age_and_write_out(layout, store)?;
    bench.drain(layout, store)?;
    node.host.spaces.release(space);
    bench.until(|| node.host.tasks.is_empty())
}

struct PagerBench {
    node: &'static Node,
    cpu: CpuId,
}

/// Ticks that one operation takes on many pages.
#[derive(Default)]
struct Figure {
    least: Ticks,
    ticks: Ticks,
    pages: u64,
}

impl Figure {
    /// Adds `pages` pages that took `ticks` together.
    fn add(&mut self, ticks: Ticks, pages: u64) {
        let each = ticks / pages.max(1);
        self.least = if self.pages == 0 { each } else { self.least.min(each) };
        self.ticks += ticks;
        self.pages += pages;
    }

    fn report(&self, id: &str) {
        let average = self.ticks / self.pages.max(1);
        report(&ConsoleEvent::Bench {
            id,
            minimum: self.least.as_u64(),
            average: average.as_u64(),
            count: self.pages,
            unit: "instructions",
        });
    }
}

impl PagerBench {
    /// Runs turns of the node until `done`.
    fn until(&self, mut done: impl FnMut() -> bool) -> Result<(), MeasureError> {
        for _ in 0..TURNS {
            if done() {
                return Ok(());
            }
            services::turn(self.node, self.cpu);
        }
        Err(MeasureError::Stuck)
    }

    /// Runs one turn of the pager; returns its ticks.
    fn turn(&self) -> Ticks {
        let start = instr::rdtsc();
        let work = self.node.host.pager.poll(self.cpu, time::now_ns());
        self.node.host.act_on(work);
        instr::rdtsc() - start
    }

    /// Makes an object whose pages are all resident, dirty and not zero.
    fn object(
        &self,
        layout: RamLayout,
        store: PageStore,
    ) -> Result<Arc<MemoryObject>, MeasureError> {
        let object = self.node.host.objects.create(layout).map_err(|_| MeasureError::NoRoom)?;
        self.node
            .host
            .pager
            .attach(object.clone(), Some(store))
            .map_err(|_| MeasureError::NoRoom)?;
        let bytes = GuestBytes {
            object: &object,
            memory: self.node.host.memory,
            faulter: &self.node.host.pager,
        };
        for page in 0..u64::from(PAGES) {
            let at = Gpa::new(page * PAGE_SIZE);
            let written: Result<(), GuestMemoryError> = bytes.write(at, &(page + 1).to_le_bytes());
            written.map_err(|_| MeasureError::NoRoom)?;
        }
        Ok(object)
    }

    fn reap(&self, object: Arc<MemoryObject>) -> Result<(), MeasureError> {
        let gone = self.node.host.reaper.reap(object);
        self.until(|| gone.is_done())
    }

    /// A1, then P3: the clock's first visit ages a page, its second visit evicts the page. Then P4
    /// and P5, the pages that leave without a write.
    fn age_and_write_out(&self, layout: RamLayout, store: PageStore) -> Result<(), MeasureError> {
        let object = self.object(layout, store)?;
        let age = self.age(&object)?;
        let out = self.evict(&object, |counters| counters.page_outs)?;
        age.report("A1");
        out.report("P3");
        self.leave_unwritten(&object, "P4", |bytes, at| bytes.read(at, &mut [0; 8]).is_ok())?;
        self.leave_unwritten(&object, "P5", |bytes, at| {
            bytes.write(at, &[0; PAGE_SIZE as usize]).is_ok()
        })?;
        self.reap(object)
    }

    /// Lets the clock visit every page once, all of them referenced, and evict the first one.
    fn age(&self, object: &MemoryObject) -> Result<Figure, MeasureError> {
        let mut figure = Figure::default();
        self.node.host.pager.ask_evict(object.id(), 1);
        while figure.pages < u64::from(PAGES) {
            let before = self.node.host.pager.counters().aged;
            let ticks = self.turn();
            let aged = self.node.host.pager.counters().aged - before;
            if aged == 0 {
                return Err(MeasureError::Stuck);
            }
            figure.add(ticks, aged);
        }
        self.settle(object, PAGES - 1)?;
        Ok(figure)
    }

    /// Evicts the pages that the clock has aged, except for the last chunk; `left` counts evicted
    /// pages.
    fn evict(
        &self,
        object: &MemoryObject,
        left: impl Fn(&PagerSnapshot) -> u64,
    ) -> Result<Figure, MeasureError> {
        let mut figure = Figure::default();
        for chunk in 1..PAGES / CHUNK {
            let before = left(&self.node.host.pager.counters());
            self.node.host.pager.ask_evict(object.id(), CHUNK);
            let ticks = self.settle(object, PAGES - 1 - chunk * CHUNK)?;
            figure.add(ticks, left(&self.node.host.pager.counters()) - before);
        }
        Ok(figure)
    }

    /// P4 and P5: pages leave without a write, because their blocks are current or because they
    /// hold zeros. `touch` brings the pages into that state and is not measured.
    fn leave_unwritten(
        &self,
        object: &MemoryObject,
        id: &str,
        touch: impl Fn(&NodeBytes<'_>, Gpa) -> bool,
    ) -> Result<(), MeasureError> {
        self.node.host.pager.ask_evict(object.id(), PAGES);
        self.settle(object, 0)?;
        let bytes =
            NodeBytes { object, memory: self.node.host.memory, faulter: &self.node.host.pager };
        for page in 0..u64::from(PAGES) {
            self.until(|| touch(&bytes, Gpa::new(page * PAGE_SIZE)))?;
        }
        let written = self.node.host.pager.counters().bytes_written;
        self.age(object)?;
        let figure =
            self.evict(object, |counters| counters.clean_evictions + counters.zero_evictions)?;
        if self.node.host.pager.counters().bytes_written != written {
            return Err(MeasureError::Written);
        }
        figure.report(id);
        Ok(())
    }

    /// Runs the pager until at most `pages` pages hold frames and no write-out is in flight;
    /// returns the ticks.
    fn settle(&self, object: &MemoryObject, pages: u32) -> Result<Ticks, MeasureError> {
        let mut ticks = Ticks::ZERO;
        for _ in 0..TURNS {
            let counts = object.counts();
            if counts.resident <= pages && counts.going_out == 0 {
                return Ok(ticks);
            }
            ticks += self.turn();
        }
        Err(MeasureError::Stuck)
    }

    /// D1: the drain of an image whose pages are all resident and dirty. It is measured as a whole:
    /// batches overlap, so a part of it would contain work that was done for another part.
    fn drain(&self, layout: RamLayout, store: PageStore) -> Result<(), MeasureError> {
        let object = self.object(layout, store)?;
        object.become_image();
        let drain = ImageDrain::new(&self.node.host.pager, object.clone());
        let mut figure = Figure::default();
        let mut ticks = Ticks::ZERO;
        for _ in 0..TURNS {
            let start = instr::rdtsc();
            let (progress, work) = drain.step(&self.node.host.pager, self.cpu, PAGES / 2);
            self.node.host.act_on(work);
            ticks += instr::rdtsc() - start + self.turn();
            if progress.done {
                figure.add(ticks, progress.written);
                figure.report("D1");
                return self.reap(object);
            }
        }
        Err(MeasureError::Stuck)
    }

    /// Measures the disk alone: its time for one page of a large write.
    fn device(&self, store: PageStore) -> Result<(), MeasureError> {
        let disk = self.node.host.pager.disks()[store.disk];
        let run = RUN.min(disk.info().max_segments as u64);
        let frames: Vec<_> = (0..run).filter_map(|_| self.node.host.frames.alloc()).collect();
        let segments: Vec<_> = frames
            .iter()
            .map(|frame| DmaSegment { base: frame.hfn().base(), len: PAGE_SIZE as u32 })
            .collect();
        let sectors =
            SectorRange { first: store.blocks.data_start, count: run * (PAGE_SIZE / 512) };
        let request = DiskRequest {
            operation: DiskOperation::Write,
            sectors,
            segments: &segments,
            lane: QueueLane::Common,
            cookie: Cookie(0),
        };
        let mut figure = Figure::default();
        let mut measure = || {
            while figure.pages < u64::from(PAGES / 2) {
                let start = instr::rdtsc();
                disk.submit(&request).map_err(|_| MeasureError::NoRoom)?;
                let mut done = [Completion { cookie: Cookie(0), result: Ok(()) }];
                let answered = (0..TURNS).any(|_| disk.poll(time::now_ns(), &mut done) > 0);
                figure.add(instr::rdtsc() - start, run);
                if !answered {
                    return Err(MeasureError::Stuck);
                }
            }
            Ok(())
        };
        let measured = measure();
        frames.into_iter().for_each(|frame| self.node.host.frames.free(frame));
        figure.report("device");
        measured
    }
}
