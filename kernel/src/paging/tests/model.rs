//! Random actions against a reference: every page's content is right at all times, and no frame is
//! lost or in two places.
//!
//! CPU 0 runs the pager and a guest. CPU 1 runs another vCPU of the same object, with a TLB: it
//! keeps using its translations until it is told to flush, as hardware does. So a frame that is
//! read, freed or written too early shows as a wrong value.
//! A seed repeats a run: `TIDEPOOL_SEED=n cargo test -p kernel model`.

use super::disk::Rng;
use super::*;
use crate::mm::object::TeardownProgress as Teardown;
use crate::mm::page::Translation;
use crate::paging::counters::PagerSnapshot;
use crate::paging::{ImageDrain, PageFinal};
use std::collections::HashMap;

const PAGES: u32 = 160;
const AREAS: u32 = 4;
const ACTIONS: u32 = 4000;

/// The memory of an incarnation, and its expected content.
struct ModelMemory {
    object: Arc<MemoryObject>,
    area: u32,
    values: HashMap<u32, u64>,
}

impl ModelMemory {
    fn value(&self, index: u32) -> u64 {
        self.values.get(&index).copied().unwrap_or(0)
    }
}

#[derive(Default)]
struct OtherCpu {
    in_guest: bool,
    kicked: bool,
    tlb: HashMap<u32, Translation>,
}

struct Model {
    rig: Rig,
    rng: Rng,
    live: ModelMemory,
    images: Vec<(ModelMemory, ImageDrain)>,
    areas: Vec<u32>,
    other: OtherCpu,
    crashes: u32,
}

impl Model {
    fn new(seed: u64, format: &'static TableFormat) -> Self {
        // Every third pool is large enough for reading around, until images fill it.
        let frames = if seed.is_multiple_of(3) { 256 } else { 96 };
        let rig = RigParameters {
            frames,
            blocks: (PAGES * AREAS) as usize,
            max_segments: 8,
            seed,
            format,
        }
        .start();
        rig.set_pace(DiskPace::Random);
        let mut areas: Vec<_> = (0..AREAS).collect();
        let live = Self::incarnation(&rig, areas.pop().unwrap());
        Self {
            rig,
            rng: Rng(seed << 8 | 1),
            live,
            images: vec![],
            areas,
            other: OtherCpu::default(),
            crashes: 0,
        }
    }

    fn incarnation(rig: &Rig, area: u32) -> ModelMemory {
        ModelMemory { object: rig.object(PAGES, area * PAGES), area, values: HashMap::new() }
    }

    fn act(&mut self) {
        match self.rng.below(100) {
            0..30 => self.write_here(),
            30..50 => self.read_here(),
            50..60 => self.poll(),
            60..64 => self.enter_other(),
            64..88 => self.access_other(),
            88..92 => self.leave_other(),
            92..97 => self.drain_some(),
            97 => self.fail_something(),
            98 => self.age_some(),
            _ if self.rng.one_in(8) => self.crash(),
            _ => {}
        }
    }

    /// Returns a page: half the time one of a hot set, else any page.
    fn any_page(&mut self) -> u32 {
        if self.rng.one_in(2) { self.rng.below(24) } else { self.rng.below(PAGES) }
    }

    fn any_value(&mut self) -> u64 {
        if self.rng.one_in(5) { 0 } else { u64::from(self.rng.next()) << 16 | 1 }
    }

    fn put(&mut self, hfn: Hfn, index: u32) {
        let value = self.any_value();
        self.rig.map.copy_in(hfn, 0, &value.to_le_bytes());
        self.rig.map.copy_in(hfn, 4088, &value.to_le_bytes());
        self.live.values.insert(index, value);
    }

    fn check(&self, hfn: Hfn, index: u32) {
        let (mut head, mut tail) = ([0; 8], [0; 8]);
        self.rig.map.copy_out(hfn, 0, &mut head);
        self.rig.map.copy_out(hfn, 4088, &mut tail);
        let value = self.live.value(index);
        assert_eq!(
            (u64::from_le_bytes(head), u64::from_le_bytes(tail)),
            (value, value),
            "page {index} in {hfn:?}"
        );
    }

    fn write_here(&mut self) {
        let index = self.any_page();
        let hfn = self.resident(index, PageAccess::Write);
        self.put(hfn, index);
    }

    fn read_here(&mut self) {
        let index = self.any_page();
        let hfn = self.resident(index, PageAccess::Read);
        self.check(hfn, index);
    }

    fn resident(&mut self, index: u32, access: PageAccess) -> Hfn {
        let object = self.live.object.clone();
        for _ in 0..10_000 {
            if let Ok(hfn) = object.page(PageIndex(index)).unwrap().touch(access) {
                return hfn;
            }
            // A page gets a frame in place of the shared zeros only while no other CPU runs the
            // guest.
            if access == PageAccess::Write && self.rig.leaf(&object, index) == LeafState::Untouched
            {
                self.leave_other();
            }
            match self.rig.fault_for(&object, index, access) {
                AccessOutcome::Resolved => {}
                AccessOutcome::Wait(_) => self.poll(),
                other => panic!("page {index}: {other:?}"),
            }
        }
        panic!("page {index} never comes");
    }

    fn poll(&mut self) {
        self.rig.now += MS;
        let work = self.rig.pager.poll(ME, self.rig.now);
        self.other.kicked |= work.kicks.0 != 0;
        if self.other.kicked && self.rng.one_in(3) {
            self.leave_other();
        }
    }

    fn enter_other(&mut self) {
        if self.other.in_guest {
            return;
        }
        self.rig.words.leave(OTHER);
        let object = &self.live.object;
        if self.rig.words.enter(OTHER, object.id(), object.generation()).is_some() {
            self.other.tlb.clear();
        }
        self.other.in_guest = true;
    }

    fn leave_other(&mut self) {
        if self.other.in_guest {
            self.rig.words.leave(OTHER);
            self.rig.words.idle(OTHER);
        }
        (self.other.in_guest, self.other.kicked) = (false, false);
    }

    fn access_other(&mut self) {
        if !self.other.in_guest {
            return;
        }
        let index = self.any_page();
        let access = if self.rng.one_in(2) { PageAccess::Write } else { PageAccess::Read };
        let Some(hfn) = self.translate_other(index, access) else {
            self.leave_other();
            let _ = self.rig.fault_for(&self.live.object, index, access);
            // The guest continues there, or on the other CPU.
            if self.rng.one_in(2) {
                self.enter_other();
            }
            return;
        };
        match access {
            PageAccess::Write => self.put(hfn, index),
            _ => self.check(hfn, index),
        }
    }

    /// Translates as hardware does: by the TLB, else by the leaf. A fault drops the translation
    /// that caused it.
    fn translate_other(&mut self, index: u32, access: PageAccess) -> Option<Hfn> {
        if let Some(cached) =
            self.other.tlb.get(&index).filter(|cached| cached.writes || access != PageAccess::Write)
        {
            return Some(cached.hfn);
        }
        self.other.tlb.remove(&index);
        let found = self.live.object.existing(PageIndex(index))?.walk(access)?;
        self.other.tlb.insert(index, found);
        Some(found.hfn)
    }

    fn age_some(&mut self) {
        let first = self.rng.below(PAGES);
        for page in self.live.object.pages(first..(first + 40).min(PAGES)) {
            let _ = page.age();
        }
    }

    fn fail_something(&mut self) {
        let quiet = self.rig.disk.in_flight() == 0;
        let mut inner = self.rig.disk.inner();
        if quiet && inner.fail_reads == 0 {
            inner.fail_reads = 1;
        }
        inner.fail_writes = 1;
    }

    fn crash(&mut self) {
        let Some(area) = self.areas.pop() else { return };
        self.leave_other();
        self.other.tlb.clear();
        let crashed = core::mem::replace(&mut self.live, Self::incarnation(&self.rig, area));
        crashed.object.become_image();
        let drain = ImageDrain::new(&self.rig.pager, crashed.object.clone());
        self.images.push((crashed, drain));
        self.crashes += 1;
    }

    fn drain_some(&mut self) {
        let mut done = None;
        for (n, (_, drain)) in self.images.iter().enumerate() {
            let (progress, work) = drain.step(&self.rig.pager, ME, 64);
            self.other.kicked |= work.kicks.0 != 0;
            if progress.failed.is_some() {
                drain.retry(&self.rig.pager);
            }
            if progress.done {
                done = Some(n);
            }
        }
        if let Some(n) = done {
            let (image, drain) = self.images.remove(n);
            self.check_dump(&image, &drain);
            self.release(image);
        }
    }

    fn check_dump(&self, image: &ModelMemory, drain: &ImageDrain) {
        for index in 0..PAGES {
            let value = image.value(index);
            match drain.final_kind(&self.rig.pager, PageIndex(index)) {
                Some(PageFinal::Zero) => assert_eq!(value, 0, "page {index} of the dump"),
                Some(PageFinal::Block(crc)) => {
                    let block = self.rig.disk.inner().blocks[(image.area * PAGES + index) as usize];
                    assert_eq!(block[..8], value.to_le_bytes(), "page {index} of the dump");
                    assert_eq!(crate::mm::crc::crc32c(&block), crc, "page {index} of the dump");
                }
                None => panic!("page {index} of a finished dump is not final"),
            }
        }
    }

    fn release(&mut self, image: ModelMemory) {
        self.rig.pager.detach(image.object.id()).unwrap();
        self.leave_other();
        let (mut ticket, _) = image.object.begin_teardown(self.rig.words, ME);
        let passed = ticket.poll(self.rig.words).expect("the other CPU idles");
        while image.object.teardown_step(&passed, 64) != Teardown::Done {}
        self.areas.push(image.area);
        self.rig.objects.remove(image.object);
    }

    fn finish(mut self) {
        self.leave_other();
        for _ in 0..3000 {
            self.poll();
            self.drain_some();
        }
        assert!(self.images.is_empty(), "every drain ends");
        for index in 0..PAGES {
            let hfn = self.resident(index, PageAccess::Read);
            self.check(hfn, index);
        }
        self.rig.set_pace(DiskPace::Prompt);
        (self.rig.disk.inner().fail_reads, self.rig.disk.inner().fail_writes) = (0, 0);
        self.rig.settle();
        self.rig.check_frames(&[&self.live.object]);
    }
}

fn run(seed: u64, format: &'static TableFormat) -> PagerSnapshot {
    std::println!("seed {seed}");
    let mut model = Model::new(seed, format);
    for _ in 0..ACTIONS {
        model.act();
    }
    let counters = model.rig.pager.counters();
    model.finish();
    counters
}

#[test]
#[cfg_attr(
    feature = "mutant-no-flush",
    ignore = "without the flush it must fail: see the next test"
)]
fn contents_are_right_and_frames_accounted_for_whatever_happens() {
    run_all(&TableFormat::EPT);
}

#[test]
#[cfg_attr(
    feature = "mutant-no-flush",
    ignore = "without the flush it must fail: see the next test"
)]
fn and_without_accessed_and_dirty_bits_as_well() {
    let all = run_all(&TableFormat::EPT_WITHOUT_AD);
    assert!(
        all.iter().map(|c| c.resident_faults).sum::<u64>() > 0,
        "faults are all that shows an access"
    );
}

fn run_all(format: &'static TableFormat) -> Vec<PagerSnapshot> {
    if let Some(seed) = std::env::var("TIDEPOOL_SEED").ok().and_then(|s| s.parse().ok()) {
        return [run(seed, format)].into();
    }
    let all: Vec<_> = (1..=24).map(|seed| run(seed, format)).collect();
    // The runs have covered all paths.
    let sum = |f: fn(&PagerSnapshot) -> u64| all.iter().map(f).sum::<u64>();
    for (name, n) in [
        ("page-ins", sum(|c| c.page_ins)),
        ("pages read around", sum(|c| c.read_around)),
        ("pages read around and used", sum(|c| c.read_around_used)),
        ("page-outs", sum(|c| c.page_outs)),
        ("zero evictions", sum(|c| c.zero_evictions)),
        ("clean evictions", sum(|c| c.clean_evictions)),
        ("rescues", sum(|c| c.rescues)),
        ("cleaned", sum(|c| c.cleaned)),
        ("zeros shown", sum(|c| c.zeros_shown)),
        ("joined waits", sum(|c| c.joined_waits)),
        ("write errors", sum(|c| c.write_errors)),
        ("read errors", sum(|c| c.read_errors)),
    ] {
        std::println!("{name}: {n}");
        assert!(n > 0, "the runs never came to {name}");
    }
    all
}

#[test]
#[cfg(feature = "mutant-no-flush")]
#[should_panic]
fn without_the_flush_contents_go_wrong() {
    for seed in 1..=24 {
        let _ = run(seed, &TableFormat::EPT);
    }
}

#[test]
#[cfg(feature = "mutant-no-flush")]
#[should_panic]
fn and_so_they_do_without_accessed_and_dirty_bits() {
    for seed in 1..=24 {
        let _ = run(seed, &TableFormat::EPT_WITHOUT_AD);
    }
}
