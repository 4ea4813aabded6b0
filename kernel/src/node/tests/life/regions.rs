//! A resumed partition whose tables are read region by region: the cost of its first instruction,
//! and the ends that come before all regions are read.

use super::precopy::{DIRTY, begun, check, large, place};
use super::*;
use crate::node::tests::image;
use crate::node::tests::machine::number;
use GuestStep::*;

/// Pages whose checksums are in one piece of their table.
const PIECE_PAGES: u64 = 1024;

fn suspended() -> Life {
    let mut life = begun(None);
    assert_eq!(life.command("suspend p"), "");
    life.hear("Suspended", &[]);
    life.reach(LifecycleView::Suspended);
    life
}

fn resume(life: &mut Life) {
    assert_eq!(life.command("resume p"), "");
    life.hear("Resumed", &["partition: \"p\""]);
}

fn contents(life: &Life) -> Vec<Vec<u8>> {
    life.machine.disks.iter().map(|disk| disk.state().content.clone()).collect()
}

/// Page index of a place.
fn index(n: u64) -> u64 {
    place(n).as_u64() / PAGE_SIZE
}

#[test]
fn the_first_instruction_reads_as_much_for_a_large_memory_as_for_a_small_one() {
    let cost = |mib: u64| {
        let memory_bytes = mib << 20;
        let disks = vec![vec![0; memory_bytes as usize + (6 << 20)]];
        let writes: Vec<_> = (0..40).map(|n| Write(page(n), n)).collect();
        let config = PartitionConfig { memory_bytes, ..config("p") };
        let mut life = Life::over(&disks, PLENTY, &[(config, &GuestScript::of(&[&writes]))]);
        life.finish();
        assert_eq!(life.command("suspend p"), "");
        life.reach(LifecycleView::Suspended);
        let requests = life.machine.disks[0].state().requests;
        let tables = life.host().tables.used_count();
        life.scripts[0].go_on(&[Read(page(7))]);
        assert_eq!(life.command("resume p"), "");
        life.until("the first instruction", |life| {
            (life.record().values.last() == Some(&7)).then_some(())
        });
        let requests = life.machine.disks[0].state().requests - requests;
        (requests, life.host().tables.used_count() - tables)
    };
    let small = cost(4);
    assert!(small.0 < 16, "{small:?}");
    for mib in [64, 192] {
        let large = cost(mib);
        // Whether two requests of the disk become one depends on the moment.
        assert!(large.0.abs_diff(small.0) <= 2, "{mib}: {large:?} and {small:?}");
        assert_eq!(large.1, small.1, "{mib}");
    }
}

#[test]
fn a_crash_before_the_regions_are_read_leaves_a_whole_dump() {
    let life = suspended();
    let script = GuestScript::default();
    let mut life = Life::over(&contents(&life), 4_000, &[(large(), &script)]);
    life.reach(LifecycleView::Suspended);
    script.go_on(&[Read(place(3)), Write(place(3), 77), TRIPLE_FAULT]);
    resume(&mut life);
    let told = life.hear("DumpComplete", &["incarnation: 1"]);
    assert!(number(&told, "pages_written: ") < Some(20), "{told}");
    let content = &contents(&life)[0];
    image::verify(content).expect("a sound dump");
    let blocks = image::record(content).unwrap().contents.unwrap().layout.blocks().start;
    for n in 0..DIRTY {
        let at = (blocks + index(n) * PAGE_SIZE) as usize;
        let word = u64::from_le_bytes(*content[at..].first_chunk().unwrap());
        assert_eq!(word, if n == 3 { 77 } else { 1_000 + n }, "{n}");
    }
}

#[test]
fn what_is_suspended_again_before_the_regions_are_read_is_whole() {
    let mut life = suspended();
    for _ in 0..3 {
        resume(&mut life);
        life.pass(3 * MS);
        assert_eq!(life.command("suspend p"), "");
        life.hear("Suspended", &[]);
        life.reach(LifecycleView::Suspended);
    }
    resume(&mut life);
    check(&mut life, 0);
}

#[test]
fn all_regions_are_read_after_a_while_and_an_end_before_leaves_nothing() {
    let mut life = suspended();
    resume(&mut life);
    life.pass(2 * SECOND_NS);
    let number = life.shared().object().expect("it runs");
    let object = life.host().objects.by_number(number).expect("its memory");
    assert_eq!(object.want_all(), 0);
    assert!(object.counts().paged + object.counts().resident >= DIRTY as u32);
    drop(object);
    assert_eq!(life.command("suspend p"), "");
    life.reach(LifecycleView::Suspended);
    resume(&mut life);
    assert_eq!(life.command("kill p"), "");
    life.reach(LifecycleView::Stopped);
    life.until("the tasks", |life| life.host().tasks.is_empty().then_some(()));
    assert_eq!(life.host().objects.count(), 0);
    assert_eq!(life.host().tables.used_count(), 0);
    assert_eq!(life.host().frames.free_count(), life.host().frames.total());
}

#[test]
fn a_pool_that_is_short_gets_frames_while_regions_are_unread() {
    let life = suspended();
    let script = GuestScript::default();
    let mut life = Life::over(&contents(&life), 300, &[(large(), &script)]);
    life.reach(LifecycleView::Suspended);
    resume(&mut life);
    check(&mut life, 0);
    assert!(life.host().pager.counters().clean_evictions > 1_000);
}

/// Resumes from a space with one changed byte, and reads pages of two pieces; returns the life.
fn with_damage(change: impl Fn(&mut Vec<u8>)) -> Life {
    let life = suspended();
    let mut disks = contents(&life);
    change(&mut disks[0]);
    let script = GuestScript::default();
    let mut life = Life::over(&disks, 4_000, &[(large(), &script)]);
    life.reach(LifecycleView::Suspended);
    resume(&mut life);
    life
}

#[test]
fn a_damaged_piece_of_the_checksums_loses_its_pages_and_no_others() {
    let last = DIRTY - 1;
    let piece = index(last) / PIECE_PAGES;
    assert!(piece > index(0) / PIECE_PAGES);
    let mut life = with_damage(|content| {
        let layout = image::record(content).unwrap().contents.unwrap().layout;
        content[(layout.checksums().start + piece * 4096 + 5) as usize] ^= 1;
    });
    life.scripts[0].go_on(&[Read(place(0)), Read(place(last))]);
    let crash = life.hear("Crash", &["reason: \"page lost\""]);
    assert!(crash.contains("partition: \"p\""), "{crash}");
    assert_eq!(life.record().values, [1_000]);
    // The dump lacks the pages of the piece, and has all others.
    life.hear("DumpFailed", &["pages are missing"]);
    let content = &contents(&life)[0];
    let record = image::record(content).unwrap();
    assert!(record.missing.holds(crate::addr::PageIndex(index(last) as u32)));
    assert!(!record.missing.holds(crate::addr::PageIndex(index(0) as u32)));
    assert_eq!(u64::from(record.missing.count()), PIECE_PAGES);
}

#[test]
fn what_has_lost_pages_is_not_suspended_and_goes_on() {
    let mut life = with_damage(|content| {
        let layout = image::record(content).unwrap().contents.unwrap().layout;
        content[layout.bitmap().start as usize + 300] ^= 1;
    });
    assert_eq!(life.command("suspend p"), "");
    let told = life.hear("SuspendFailed", &[]);
    assert!(told.contains("page 0 cannot be read back"), "{told}");
    assert_eq!(life.shared().view(), LifecycleView::Running);
}

#[test]
fn the_last_used_pages_come_back_before_the_guest_asks_for_them() {
    let mut life = suspended();
    resume(&mut life);
    life.pass(3 * SECOND_NS);
    let number = life.shared().object().expect("it runs");
    let counts = life.host().objects.by_number(number).expect("its memory").counts();
    assert!(counts.resident >= DIRTY as u32, "{counts:?}");
    let ins = life.host().pager.counters().page_ins;
    check(&mut life, 0);
    assert_eq!(life.host().pager.counters().page_ins, ins);
}

#[test]
fn a_prefetch_ends_where_the_pool_is_short() {
    let life = suspended();
    let script = GuestScript::default();
    let mut life = Life::over(&contents(&life), 700, &[(large(), &script)]);
    life.reach(LifecycleView::Suspended);
    resume(&mut life);
    life.pass(3 * SECOND_NS);
    let (free, low) = (life.host().frames.free_count(), life.host().pager.watermarks().low);
    assert!((low..low + 100).contains(&free), "{free}");
    assert_eq!(life.host().pager.counters().clean_evictions, 0, "nothing leaves for it");
    check(&mut life, 0);
}
