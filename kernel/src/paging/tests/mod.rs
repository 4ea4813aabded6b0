//! The pager on a small machine: host memory, a disk that the test controls, and guests that are
//! function calls.

mod base;
mod clean;
mod disk;
mod drains;
mod fallback;
mod faults;
mod guard;
mod history;
mod hot;
mod late;
mod lengths;
mod lock_use;
mod model;
mod reclaims;
mod traces;
mod zeros;

use super::blocks::BlockMap;
use super::{AccessOutcome, Landmark, LockUse, PageStore, Pager, PagerEnv};
use crate::addr::{Hfn, PAGE_SIZE, PageIndex};
use crate::arch::percpu::CpuId;
use crate::mm::fake::FakeRam;
use crate::mm::flush::QuiescentStates;
use crate::mm::frames::FrameTable;
use crate::mm::layout::RamLayout;
use crate::mm::leaf::{LeafState, TableFormat};
use crate::mm::object::{MemoryObject, ObjectTable};
use crate::mm::phys::{DirectMap, FrameMemory};
use crate::mm::table::TableReserve;
use crate::pool::ClockPolicy;
use crate::time::Ns;
use crate::virt::PageAccess;
use alloc::sync::Arc;
use disk::{DiskPace, FakePagingDisk};

const ME: CpuId = CpuId::new(0);
const OTHER: CpuId = CpuId::new(1);
const MS: Ns = Ns::from_ms(1);

type TestPager = Pager<'static, DirectMap, FakePagingDisk, ClockPolicy>;

/// Parameters of a test's machine.
struct RigParameters {
    frames: u32,
    blocks: usize,
    max_segments: usize,
    seed: u64,
    format: &'static TableFormat,
}

impl Default for RigParameters {
    fn default() -> Self {
        Self { frames: 128, blocks: 2048, max_segments: 64, seed: 1, format: &TableFormat::EPT }
    }
}

/// A running machine. Its parts live as long as the test program, like those of the real one.
struct Rig {
    map: DirectMap,
    /// The shared frame of zeros.
    zeros: Hfn,
    frames: Arc<FrameTable>,
    objects: ObjectTable,
    words: &'static QuiescentStates,
    disk: &'static FakePagingDisk,
    /// A second disk, which few tests need.
    other_disk: &'static FakePagingDisk,
    pager: TestPager,
    now: Ns,
}

impl RigParameters {
    fn start(self) -> Rig {
        let ram = FakeRam::new(Hfn::new(0x100), self.frames);
        let tables = FakeRam::new(Hfn::new(0x10_0000), 64);
        let frames = Arc::new(FrameTable::new(&[ram.region()]).unwrap());
        let reserve =
            Arc::new(TableReserve::new(FrameTable::new(&[tables.region()]).unwrap(), tables.map()));
        let objects = ObjectTable::new(frames.clone(), reserve, self.format);
        let words: &'static _ = Box::leak(Box::new(QuiescentStates::new(2)));
        let new_disk = || FakePagingDisk::new(ram.map(), self.blocks, self.max_segments, self.seed);
        let (disk, other_disk): (&'static _, &'static _) =
            (Box::leak(Box::new(new_disk())), Box::leak(Box::new(new_disk())));
        let memory: &'static _ = Box::leak(Box::new(ram.map()));
        let leaked: &'static FrameTable = Box::leak(Box::new(frames.clone()));
        words.leave(ME);
        // The content of page 76, as the tests fill pages.
        let landmark =
            Landmark { first_word: 77, matches: |bytes| bytes[4..].iter().all(|byte| *byte == 0) };
        let env = PagerEnv {
            frames: leaked,
            memory,
            quiescent_states: words,
            zeros: ram.zeros(),
            landmark,
        };
        let pager = Pager::new(env, [disk, other_disk], ClockPolicy);
        Rig {
            map: ram.map(),
            zeros: ram.zeros(),
            frames,
            objects,
            words,
            disk,
            other_disk,
            pager,
            now: Ns::ZERO,
        }
    }
}

impl Rig {
    /// Makes an object of `pages` pages whose blocks start at block `first`.
    fn object(&self, pages: u32, first: u32) -> Arc<MemoryObject> {
        self.object_on(0, pages, first)
    }

    fn object_on(&self, disk: usize, pages: u32, first: u32) -> Arc<MemoryObject> {
        let object = self.bare_object(pages);
        let blocks = BlockMap { data_start: u64::from(first) * 8, pages };
        self.pager.attach(object.clone(), Some(PageStore { disk, blocks })).unwrap();
        object
    }

    fn bare_object(&self, pages: u32) -> Arc<MemoryObject> {
        self.objects.create(RamLayout::new(u64::from(pages) * PAGE_SIZE).unwrap()).unwrap()
    }

    fn poll(&mut self) {
        self.now += MS;
        let _ = self.pager.poll(ME, self.now);
    }

    fn settle(&mut self) {
        (0..50).for_each(|_| self.poll());
    }

    fn fault(&self, object: &MemoryObject, index: u32) -> AccessOutcome {
        self.fault_for(object, index, PageAccess::Write)
    }

    fn fault_for(&self, object: &MemoryObject, index: u32, access: PageAccess) -> AccessOutcome {
        let gpa = object.layout().gfn_of(PageIndex(index)).unwrap().base();
        self.pager.fault(object, gpa, access, self.now)
    }

    /// Accesses a page like a guest that polls while it waits; returns its frame.
    fn touch(&mut self, object: &MemoryObject, index: u32, access: PageAccess) -> Hfn {
        for _ in 0..2000 {
            if let Ok(hfn) = object.page(PageIndex(index)).unwrap().touch(access) {
                return hfn;
            }
            match self.fault_for(object, index, access) {
                AccessOutcome::Resolved => {}
                AccessOutcome::Wait(ticket) => {
                    while !object.ready(ticket) {
                        self.poll();
                        assert!(self.now < 100_000 * MS, "a guest waits for ever for page {index}");
                    }
                }
                other => panic!("page {index}: {other:?}"),
            }
        }
        panic!("a guest that is always told to try again")
    }

    /// Gives an untouched page a frame and leaves it clean, as an instruction fetch does.
    fn fetch(&mut self, object: &MemoryObject, index: u32) {
        assert_eq!(self.fault_for(object, index, PageAccess::Execute), AccessOutcome::Resolved);
    }

    fn write(&mut self, object: &MemoryObject, index: u32, value: u64) {
        let hfn = self.touch(object, index, PageAccess::Write);
        self.map.copy_in(hfn, 0, &value.to_le_bytes());
        self.map.copy_in(hfn, 4088, &value.to_le_bytes());
    }

    fn read(&mut self, object: &MemoryObject, index: u32) -> u64 {
        let hfn = self.touch(object, index, PageAccess::Read);
        let (mut head, mut tail) = ([0; 8], [0; 8]);
        self.map.copy_out(hfn, 0, &mut head);
        self.map.copy_out(hfn, 4088, &mut tail);
        assert_eq!(head, tail, "page {index} is torn");
        u64::from_le_bytes(head)
    }

    fn leaf(&self, object: &MemoryObject, index: u32) -> LeafState {
        object.existing(PageIndex(index)).map_or(LeafState::Untouched, |page| page.leaf())
    }

    /// Returns how many pages are neither resident nor in transition.
    fn absent(&self, object: &MemoryObject) -> u32 {
        let counts = object.counts();
        counts.untouched + counts.zero + counts.paged
    }

    /// Writes all pages, so that the earlier ones are evicted, and waits until no work is in
    /// flight.
    fn fill(&mut self, object: &MemoryObject, pages: core::ops::Range<u32>) {
        pages.for_each(|index| self.write(object, index, u64::from(index) + 1));
        self.settle();
    }

    /// Checks, while no work is in flight, that no frame is lost or in two places, and that the
    /// shared frame holds zeros.
    fn check_frames(&self, objects: &[&MemoryObject]) {
        let mut seen = std::collections::HashSet::new();
        let mut held = 0;
        for object in objects {
            for page in object.pages(0..object.layout().pages()) {
                if let LeafState::Present(mapping) = page.leaf() {
                    assert!(seen.insert(mapping.hfn), "{:?} is in two leaves", mapping.hfn);
                    held += 1;
                }
            }
        }
        assert_eq!(
            self.frames.free_count() + held,
            self.frames.total(),
            "frames are free or in a leaf"
        );
        assert!(self.pager.are_zeros_intact(), "nothing writes to the shared frame of zeros");
    }

    fn set_pace(&self, pace: DiskPace) {
        self.disk.inner().pace = pace;
    }
}

/// A machine whose frames all hold written pages of one object.
fn full() -> (Rig, Arc<MemoryObject>) {
    let mut rig = RigParameters { frames: 64, ..RigParameters::default() }.start();
    let object = rig.object(64, 0);
    (0..64).for_each(|n| rig.write(&object, n, u64::from(n) + 1));
    (rig, object)
}
