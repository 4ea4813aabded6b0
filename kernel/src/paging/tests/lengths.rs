//! Path lengths, for a profiler that counts instructions. Each case performs one operation on many
//! pages and prints the number of pages. Run as a test, it checks that the operation took place.
//!
//! ```text
//! cargo test --release -p kernel --lib --no-run
//! valgrind --tool=callgrind --toggle-collect='*::lengths::measured*' TEST_BINARY lengths::NAME --nocapture
//! ```

use super::*;
use crate::paging::ImageDrain;
use std::println;

const PAGES: u32 = 4096;

/// Prints the divisor for the profiler's figure.
fn report(what: &str, count: u64) {
    println!("{what}: {count} pages");
    assert!(count > 0, "{what} has measured nothing");
}

fn machine() -> (Rig, Arc<MemoryObject>) {
    let mut rig =
        RigParameters { frames: 8192, blocks: 8192, max_segments: 126, ..RigParameters::default() }
            .start();
    let object = rig.object(PAGES, 0);
    rig.now = MS;
    (rig, object)
}

/// Allocates almost all free frames, so that the next polls reclaim.
fn starve(rig: &Rig) -> Vec<crate::mm::frames::Frame> {
    (0..rig.frames.free_count()).filter_map(|_| rig.frames.alloc()).collect()
}

#[inline(never)]
fn measured(rig: &mut Rig) {
    rig.poll();
}

#[inline(never)]
fn measured_idle(rig: &Rig) {
    let _ = rig.pager.poll(ME, rig.now);
}

#[test]
fn idle() {
    let (rig, _) = machine();
    (0..1000).for_each(|_| measured_idle(&rig));
    report("idle", 1000);
}

#[inline(never)]
fn measured_step(rig: &Rig, drain: &ImageDrain) -> bool {
    drain.step(&rig.pager, ME, 4096).0.done
}

fn forget_references(object: &MemoryObject) {
    for page in object.pages(0..PAGES) {
        let _ = page.age();
    }
}

#[test]
fn write_out() {
    let (mut rig, object) = machine();
    (0..PAGES).for_each(|n| rig.write(&object, n, 1));
    forget_references(&object);
    let mut hog = starve(&rig);
    for _ in 0..60 {
        measured(&mut rig);
        hog.extend(starve(&rig));
    }
    report("P3", rig.pager.counters().page_outs);
    core::mem::forget(hog);
}

#[test]
fn zero() {
    let (mut rig, object) = machine();
    for n in 0..PAGES {
        rig.touch(&object, n, PageAccess::Write);
    }
    forget_references(&object);
    let mut hog = starve(&rig);
    for _ in 0..60 {
        measured(&mut rig);
        hog.extend(starve(&rig));
    }
    report("P5", rig.pager.counters().zero_evictions);
    core::mem::forget(hog);
}

#[test]
fn clean() {
    let (mut rig, object) = machine();
    for n in 0..PAGES {
        rig.fetch(&object, n);
    }
    forget_references(&object);
    let mut hog = starve(&rig);
    for _ in 0..60 {
        measured(&mut rig);
        hog.extend(starve(&rig));
    }
    report("P4", rig.pager.counters().zero_evictions);
    core::mem::forget(hog);
}

#[test]
fn age() {
    let (mut rig, object) = machine();
    for n in 0..PAGES {
        rig.fetch(&object, n);
    }
    let hog = starve(&rig);
    measured(&mut rig);
    report("A1", rig.pager.counters().aged);
    core::mem::forget(hog);
}

#[test]
fn drain() {
    let (mut rig, object) = machine();
    (0..PAGES).for_each(|n| rig.write(&object, n, 1));
    object.become_image();
    let drain = ImageDrain::new(&rig.pager, object.clone());
    while !measured_step(&rig, &drain) {
        measured(&mut rig);
    }
    report("D1", drain.progress(&rig.pager).written);
}

#[test]
fn page_in() {
    let (mut rig, object) = machine();
    (0..PAGES).for_each(|n| rig.write(&object, n, 1));
    forget_references(&object);
    let mut hog = starve(&rig);
    while rig.absent(&object) < 2048 {
        rig.poll();
        hog.extend(starve(&rig));
    }
    // Between the watermarks: no reclaim, and no reading around.
    (0..300).for_each(|_| rig.frames.free(hog.pop().unwrap()));
    rig.settle();
    while rig.frames.free_count() > 80 {
        hog.extend(rig.frames.alloc());
    }
    rig.now += Ns::new(1);
    // Far apart: no fault continues a walk.
    for n in (0..2048).map(|n| n * 17 % 2048) {
        if let LeafState::Paged(_) = rig.leaf(&object, n) {
            rig.frames.free(hog.pop().unwrap());
            measured_fault(&rig, &object, n);
            measured_idle(&rig);
        }
    }
    report("P1", rig.pager.counters().page_ins);
    core::mem::forget(hog);
}

#[inline(never)]
fn measured_fault(rig: &Rig, object: &MemoryObject, index: u32) {
    let _ = rig.fault(object, index);
}
