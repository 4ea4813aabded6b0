//! A base and its children against a reference: every page of every child has the base's value or
//! the child's own, at all times and on both CPUs, and no frame is lost or in two places.
//!
//! CPU 1 runs another vCPU of a child, with a TLB that is flushed only when it is told to. So a
//! copy that is installed before its flush shows as an old value, and a frame of the base that is
//! used again too early as a wrong one.
//! `TIDEPOOL_SEED=n cargo test -p kernel tests::base` repeats a run.

use super::disk::Rng;
use super::*;
use crate::mm::crc::crc32c;
use crate::mm::object::TeardownProgress as Teardown;
use crate::mm::page::Translation;
use crate::paging::counters::PagerSnapshot;
use crate::paging::{ImageDrain, PageFinal};
use std::collections::HashMap;

const PAGES: u32 = 96;
const CHILDREN: usize = 4;
const ACTIONS: u32 = 4000;

/// The value of the base's page: every fifth is zero.
fn sealed(index: u32) -> u64 {
    if index.is_multiple_of(5) { 0 } else { 0xba5e_0000 + u64::from(index) }
}

/// A base whose blocks lie at the start of the disk.
fn base(rig: &Rig) -> Arc<MemoryObject> {
    let base = rig.bare_object(PAGES);
    for index in (0..PAGES).filter(|&index| sealed(index) != 0) {
        let mut inner = rig.disk.inner();
        let block = &mut inner.blocks[index as usize];
        block.fill(0);
        block[..8].copy_from_slice(&sealed(index).to_le_bytes());
        block[4088..].copy_from_slice(&sealed(index).to_le_bytes());
        base.page(PageIndex(index)).unwrap().adopt_block(crc32c(&block[..])).unwrap();
    }
    base.become_base();
    let blocks = BlockMap { data_start: 0, pages: PAGES };
    rig.pager.attach(base.clone(), Some(PageStore { disk: 0, blocks })).unwrap();
    base
}

/// A child whose own blocks are in this area of the disk.
fn child(rig: &Rig, base: &Arc<MemoryObject>, area: u32) -> Arc<MemoryObject> {
    let child = rig.objects.create_child(base).unwrap();
    let blocks = BlockMap { data_start: u64::from(area * PAGES) * 8, pages: PAGES };
    rig.pager.attach(child.clone(), Some(PageStore { disk: 0, blocks })).unwrap();
    child
}

fn start(format: &'static TableFormat, frames: u32, seed: u64) -> Rig {
    let blocks = PAGES as usize * (CHILDREN + 2);
    RigParameters { frames, blocks, max_segments: 8, seed, format }.start()
}

struct ModelChild {
    object: Arc<MemoryObject>,
    area: u32,
    own: HashMap<u32, u64>,
}

impl ModelChild {
    fn value(&self, index: u32) -> u64 {
        self.own.get(&index).copied().unwrap_or(sealed(index))
    }
}

struct BaseModel {
    rig: Rig,
    rng: Rng,
    base: Arc<MemoryObject>,
    children: Vec<ModelChild>,
    /// The child that the other CPU runs, and its TLB.
    other: Option<usize>,
    kicked: bool,
    /// The child that it ran last, whose translations it may hold.
    last: Option<usize>,
    tlb: HashMap<u32, Translation>,
    crashes: u32,
    /// Inherited pages of images, and pages of their own.
    of_images: [u32; 2],
}

impl BaseModel {
    fn new(seed: u64, format: &'static TableFormat) -> Self {
        let rig = start(format, if seed.is_multiple_of(3) { 240 } else { 100 }, seed);
        let base = base(&rig);
        rig.set_pace(DiskPace::Random);
        let make =
            |area| ModelChild { object: child(&rig, &base, area), area, own: HashMap::new() };
        let children = (1..=CHILDREN as u32).map(make).collect();
        Self {
            rng: Rng(seed << 8 | 1),
            rig,
            base,
            children,
            other: None,
            kicked: false,
            last: None,
            tlb: HashMap::new(),
            crashes: 0,
            of_images: [0; 2],
        }
    }

    fn act(&mut self) {
        match self.rng.below(100) {
            0..18 => self.write_here(),
            18..45 => self.read_here(),
            45..58 => self.poll(),
            58..66 => self.enter_other(),
            66..90 => self.access_other(),
            90..95 => self.leave_other(),
            95 => self.ask_base(),
            96 => self.fail_a_read(),
            _ if self.rng.one_in(4) => self.crash(),
            _ => {}
        }
    }

    fn any_page(&mut self) -> u32 {
        if self.rng.one_in(2) { self.rng.below(20) } else { self.rng.below(PAGES) }
    }

    fn any_child(&mut self) -> usize {
        self.other
            .filter(|_| self.rng.one_in(2))
            .unwrap_or(self.rng.below(CHILDREN as u32) as usize)
    }

    fn put(&mut self, child: usize, hfn: Hfn, index: u32) {
        let value = if self.rng.one_in(5) { 0 } else { u64::from(self.rng.next()) << 8 | 1 };
        self.rig.map.copy_in(hfn, 0, &value.to_le_bytes());
        self.rig.map.copy_in(hfn, 4088, &value.to_le_bytes());
        self.children[child].own.insert(index, value);
    }

    fn check(&self, child: usize, hfn: Hfn, index: u32) {
        let (mut head, mut tail) = ([0; 8], [0; 8]);
        self.rig.map.copy_out(hfn, 0, &mut head);
        self.rig.map.copy_out(hfn, 4088, &mut tail);
        let value = self.children[child].value(index);
        assert_eq!([head, tail].map(u64::from_le_bytes), [value; 2], "page {index} of {child}");
    }

    fn write_here(&mut self) {
        let (child, index) = (self.any_child(), self.any_page());
        let hfn = self.resident(child, index, PageAccess::Write);
        self.put(child, hfn, index);
    }

    fn read_here(&mut self) {
        let (child, index) = (self.any_child(), self.any_page());
        let hfn = self.resident(child, index, PageAccess::Read);
        self.check(child, hfn, index);
    }

    fn resident(&mut self, child: usize, index: u32, access: PageAccess) -> Hfn {
        let object = self.children[child].object.clone();
        for _ in 0..10_000 {
            let page = object.page(PageIndex(index)).unwrap();
            if let Ok(hfn) = page.touch(access) {
                return hfn;
            }
            if access == PageAccess::Write && page.shows_zeros() {
                self.leave_other();
            }
            match self.rig.fault_for(&object, index, access) {
                AccessOutcome::Resolved => {}
                AccessOutcome::Wait(_) => self.poll(),
                other => panic!("page {index}: {other:?}"),
            }
        }
        panic!("page {index} never comes: {:?}", self.rig.leaf(&object, index));
    }

    fn poll(&mut self) {
        self.rig.now += MS;
        let work = self.rig.pager.poll(ME, self.rig.now);
        self.kicked |= work.kicks.0 != 0;
        if self.kicked && self.rng.one_in(3) {
            self.leave_other();
        }
    }

    fn enter_other(&mut self) {
        if self.other.is_some() {
            return;
        }
        let any = self.rng.below(CHILDREN as u32) as usize;
        let child = self.last.filter(|_| !self.rng.one_in(4)).unwrap_or(any);
        self.rig.words.leave(OTHER);
        let object = &self.children[child].object;
        let flush = self.rig.words.enter(OTHER, object.id(), object.generation());
        // Another child has another tag.
        if flush.is_some() || self.last != Some(child) {
            self.tlb.clear();
        }
        self.last = Some(child);
        self.other = Some(child);
    }

    fn leave_other(&mut self) {
        if self.other.take().is_some() {
            self.rig.words.leave(OTHER);
            self.rig.words.idle(OTHER);
        }
        self.kicked = false;
    }

    fn access_other(&mut self) {
        let Some(child) = self.other else { return };
        let index = self.any_page();
        let access = if self.rng.one_in(3) { PageAccess::Write } else { PageAccess::Read };
        let cached = self.tlb.get(&index).filter(|t| t.writes || access != PageAccess::Write);
        let found = match cached {
            Some(cached) => Some(*cached),
            None => {
                self.tlb.remove(&index);
                let page = self.children[child].object.existing(PageIndex(index));
                page.and_then(|page| page.walk(access))
            }
        };
        let Some(found) = found else {
            self.leave_other();
            let object = self.children[child].object.clone();
            let _ = self.rig.fault_for(&object, index, access);
            self.enter_other();
            return;
        };
        self.tlb.insert(index, found);
        match access {
            PageAccess::Write => self.put(child, found.hfn, index),
            _ => self.check(child, found.hfn, index),
        }
    }

    fn ask_base(&mut self) {
        self.rig.pager.ask_evict(self.base.id(), 20);
    }

    fn fail_a_read(&mut self) {
        let quiet = self.rig.disk.in_flight() == 0;
        let mut inner = self.rig.disk.inner();
        if quiet && inner.fail_reads == 0 {
            inner.fail_reads = 1;
        }
    }

    /// A child crashes: its own pages drain, its inherited ones are known, and another child takes
    /// its place.
    fn crash(&mut self) {
        self.leave_other();
        self.last = None;
        let n = self.rng.below(CHILDREN as u32) as usize;
        let image = self.children[n].object.clone();
        image.become_image();
        let drain = ImageDrain::new(&self.rig.pager, image.clone());
        for _ in 0..3000 {
            let (progress, _) = drain.step(&self.rig.pager, ME, 64);
            if progress.failed.is_some() {
                drain.retry(&self.rig.pager);
            }
            if progress.done {
                break;
            }
            self.poll();
        }
        for index in 0..PAGES {
            let value = self.children[n].value(index);
            let block = |at: u32| self.rig.disk.inner().blocks[at as usize];
            let inherited = self.rig.pager.inherited(&image, PageIndex(index));
            let kind = drain.final_kind(&self.rig.pager, PageIndex(index));
            self.of_images[usize::from(inherited.is_none())] += 1;
            match (inherited, kind) {
                (Some(found), None) => {
                    assert_eq!(value, sealed(index), "page {index}");
                    let crc = crc32c(&block(index));
                    assert_eq!(found, crc, "page {index}");
                }
                (None, Some(PageFinal::Zero)) => assert_eq!(value, 0, "page {index}"),
                (None, Some(PageFinal::Block(crc))) => {
                    let block = block(self.children[n].area * PAGES + index);
                    assert_eq!(block[..8], value.to_le_bytes(), "page {index}");
                    assert_eq!(crc32c(&block), crc, "page {index}");
                }
                wrong => panic!("page {index} of a drained child: {wrong:?}"),
            }
        }
        let area = self.children[n].area;
        self.children[n].object = self.base.clone();
        self.release(image);
        self.children[n] =
            ModelChild { object: child(&self.rig, &self.base, area), area, own: HashMap::new() };
        self.crashes += 1;
    }

    fn release(&mut self, object: Arc<MemoryObject>) {
        for _ in 0..1000 {
            if self.rig.pager.detach(object.id()).is_ok() {
                break;
            }
            self.poll();
        }
        self.leave_other();
        let (mut ticket, _) = object.begin_teardown(self.rig.words, ME);
        let passed = ticket.poll(self.rig.words).expect("the other CPU idles");
        while object.teardown_step(&passed, 64) != Teardown::Done {}
        self.rig.objects.remove(object);
    }

    fn finish(mut self) {
        self.leave_other();
        self.rig.set_pace(DiskPace::Prompt);
        self.rig.disk.inner().fail_reads = 0;
        for child in 0..CHILDREN {
            for index in 0..PAGES {
                let hfn = self.resident(child, index, PageAccess::Read);
                self.check(child, hfn, index);
            }
        }
        self.rig.settle();
        let objects = self.children.iter().map(|child| &*child.object).chain([&*self.base]);
        self.rig.check_frames(&objects.collect::<Vec<_>>());
        for child in core::mem::take(&mut self.children) {
            self.release(child.object);
        }
        let base = self.base.clone();
        self.release(base);
        assert_eq!(self.rig.frames.free_count(), self.rig.frames.total());
    }
}

fn run(seed: u64, format: &'static TableFormat) -> (PagerSnapshot, [u32; 3]) {
    std::println!("seed {seed}");
    let mut model = BaseModel::new(seed, format);
    for _ in 0..ACTIONS {
        model.act();
    }
    let counters = model.rig.pager.counters();
    let [inherited, own] = model.of_images;
    let seen = [model.crashes, inherited, own];
    model.finish();
    (counters, seen)
}

#[test]
#[cfg_attr(
    feature = "mutant-no-flush",
    ignore = "without the flush it must fail: see the next test"
)]
fn every_child_reads_the_bases_value_or_its_own() {
    if let Some(seed) = std::env::var("TIDEPOOL_SEED").ok().and_then(|s| s.parse().ok()) {
        run(seed, &TableFormat::EPT);
        return;
    }
    let formats = [&TableFormat::EPT, &TableFormat::NPT, &TableFormat::EPT_WITHOUT_AD];
    let all: Vec<_> = (1..=24).map(|seed| run(seed, formats[seed as usize % 3])).collect();
    let sum = |f: fn(&PagerSnapshot) -> u64| all.iter().map(|(c, _)| f(c)).sum::<u64>();
    for (name, n) in [
        ("base shown", sum(|c| c.base_shown)),
        ("base copied", sum(|c| c.base_copied)),
        ("page-ins", sum(|c| c.page_ins)),
        ("page-outs", sum(|c| c.page_outs)),
        ("clean evictions", sum(|c| c.clean_evictions)),
        ("read errors", sum(|c| c.read_errors)),
        ("crashes", all.iter().map(|(_, seen)| u64::from(seen[0])).sum()),
        ("inherited pages of images", all.iter().map(|(_, seen)| u64::from(seen[1])).sum()),
        ("own pages of images", all.iter().map(|(_, seen)| u64::from(seen[2])).sum()),
    ] {
        std::println!("{name}: {n}");
        assert!(n > 0, "the runs never came to {name}");
    }
}

#[test]
#[cfg(feature = "mutant-no-flush")]
#[should_panic]
fn without_the_flush_a_child_reads_something_else() {
    for seed in 1..=24 {
        let _ = run(seed, &TableFormat::EPT);
    }
}

/// Reads of one page by all children: one read of the disk, one frame.
#[test]
fn a_page_of_the_base_is_read_once_for_all_and_has_one_frame() {
    for format in [&TableFormat::EPT, &TableFormat::NPT, &TableFormat::EPT_WITHOUT_AD] {
        let mut rig = start(format, 128, 1);
        let base = base(&rig);
        let children: Vec<_> = (1..=4).map(|area| child(&rig, &base, area)).collect();
        let frames: Vec<_> =
            children.iter().map(|child| rig.touch(child, 7, PageAccess::Read)).collect();
        assert!(frames.iter().all(|hfn| *hfn == frames[0]));
        assert_eq!(rig.pager.counters().page_ins, 1);
        for child in &children {
            let counts = child.counts();
            assert_eq!((counts.shared, counts.resident), (1, 0));
            let page = child.existing(PageIndex(7)).unwrap();
            assert!(
                page.walk(PageAccess::Execute).is_some() && page.walk(PageAccess::Write).is_none()
            );
        }
        rig.write(&children[0], 7, 99);
        let read = |rig: &mut Rig, n: usize| rig.read(&children[n], 7);
        assert_eq!([0, 1, 2, 3].map(|n| read(&mut rig, n)), [99, sealed(7), sealed(7), sealed(7)]);
    }
}

/// The copy waits for a CPU that may still read the base's frame.
#[test]
#[cfg(not(feature = "mutant-no-flush"))]
fn a_copy_is_not_seen_before_its_flush() {
    let mut rig = start(&TableFormat::EPT, 128, 1);
    let base = base(&rig);
    let child = child(&rig, &base, 1);
    rig.touch(&child, 7, PageAccess::Read);
    rig.words.leave(OTHER);
    let _ = rig.words.enter(OTHER, child.id(), child.generation());
    let AccessOutcome::Wait(ticket) = rig.fault(&child, 7) else {
        panic!("the other CPU is in it")
    };
    rig.poll();
    assert!(!child.ready(ticket) && matches!(rig.leaf(&child, 7), LeafState::ComingIn(_)));
    rig.words.leave(OTHER);
    rig.poll();
    assert!(child.ready(ticket) && matches!(rig.leaf(&child, 7), LeafState::Present(_)));
}

/// A frame of the base is free only when no CPU that runs a child can reach it.
#[test]
#[cfg(not(feature = "mutant-no-flush"))]
fn a_frame_of_the_base_waits_for_each_cpu_that_runs_a_child() {
    let mut rig = start(&TableFormat::NPT, 128, 1);
    let base = base(&rig);
    let child = child(&rig, &base, 1);
    rig.touch(&child, 7, PageAccess::Read);
    let free = rig.frames.free_count();
    rig.words.leave(OTHER);
    let _ = rig.words.enter(OTHER, child.id(), child.generation());
    rig.pager.ask_evict(base.id(), 64);
    (0..8).for_each(|_| rig.poll());
    assert!(matches!(rig.leaf(&base, 7), LeafState::Paged(_)));
    assert_eq!((rig.leaf(&child, 7), child.counts().shared), (LeafState::Untouched, 0));
    assert_eq!(rig.frames.free_count(), free, "the other CPU may still read it");
    rig.words.leave(OTHER);
    rig.words.idle(OTHER);
    rig.poll();
    assert!(rig.frames.free_count() > free);
}

/// A page of the base that is damaged is lost for the child that touches it.
#[test]
fn a_damaged_page_of_the_base_is_lost_for_those_who_touch_it() {
    let mut rig = start(&TableFormat::NPT, 128, 1);
    let base = base(&rig);
    let [one, two] = [1, 2].map(|area| child(&rig, &base, area));
    rig.write(&two, 7, 5);
    rig.settle();
    rig.pager.ask_evict(base.id(), 64);
    rig.settle();
    rig.disk.inner().blocks[7][9] ^= 1;
    let lost = (0..50).find_map(|_| match rig.fault_for(&one, 7, PageAccess::Read) {
        AccessOutcome::Lost(loss) => Some(loss),
        _ => {
            rig.poll();
            None
        }
    });
    assert_eq!(lost, Some(crate::paging::PageLossError::Checksum));
    assert_eq!(
        (rig.read(&two, 7), rig.read(&two, 8), rig.read(&one, 8)),
        (5, sealed(8), sealed(8))
    );
}
