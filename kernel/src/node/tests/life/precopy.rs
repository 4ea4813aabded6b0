//! Suspensions of partitions with many dirty pages: the writes before the guest stops, and those
//! after.

use super::*;
use crate::node::tests::machine::number;
use GuestStep::*;

/// Bytes of the partition's memory: more than is suspended at once.
pub(super) const LARGE: u64 = 12 << 20;
/// Pages that the guest dirties.
pub(super) const DIRTY: u64 = 2_000;
/// Where its free pages begin.
const FIRST: u64 = 0x30_0000;

pub(super) fn large() -> PartitionConfig {
    PartitionConfig { memory_bytes: LARGE, ..config("p") }
}

pub(super) fn place(n: u64) -> Gpa {
    Gpa::new(FIRST + n * PAGE_SIZE)
}

fn dirty() -> Vec<GuestStep> {
    (0..DIRTY).map(|n| Write(place(n), 1_000 + n)).collect()
}

/// A partition whose guest has dirtied its pages, on disks of this speed in bytes a second.
pub(super) fn begun(speed: Option<u64>) -> Life {
    let disks = vec![vec![0; LARGE as usize + (2 << 20)]; 2];
    let script = GuestScript::of(&[&dirty()]);
    let mut life = Life::over(&disks, 4_000, &[(large(), &script)]);
    life.finish();
    life.machine.disks.iter().for_each(|disk| disk.state().speed = speed);
    life
}

pub(super) fn check(life: &mut Life, changed: u64) {
    life.scripts[0].go_on(&(0..DIRTY).map(|n| Read(place(n))).collect::<Vec<_>>());
    life.until("the reads", |life| life.scripts[0].is_done().then_some(()));
    let words = life.record().values;
    let right: Vec<_> = (0..DIRTY).map(|n| 1_000 + n + if n < changed { 7 } else { 0 }).collect();
    assert_eq!(words[words.len() - DIRTY as usize..], right);
}

pub(super) fn resume(life: &mut Life) {
    life.reach(LifecycleView::Suspended);
    life.machine.disks.iter().for_each(|disk| disk.state().speed = None);
    assert_eq!(life.command("resume p"), "");
    life.hear("Resumed", &["partition: \"p\""]);
}

#[test]
fn dirty_pages_are_written_while_the_guest_runs_and_the_pause_is_short() {
    // 40 MB a second: all of it takes 0.2 seconds.
    let mut life = begun(Some(40_000_000));
    // The guest works on, and writes few pages meanwhile.
    let works = (0..60).flat_map(|n| [Write(place(n % 20), 1_007 + n % 20), Work(10 * MS)]);
    life.scripts[0].go_on(&works.collect::<Vec<_>>());
    let before = life.record().entries;
    assert_eq!(life.command("suspend p"), "");
    let pass = life.hear("Precopy", &["partition: \"p\""]);
    assert!(number(&pass, "pages: ") >= Some(DIRTY), "{pass}");
    assert!(life.record().entries > before, "the guest goes on meanwhile");
    assert_eq!(life.shared().view(), LifecycleView::Running);
    let begins = life.hear("Suspending", &[]);
    let left = number(&begins, "dirty: Some(").expect("it is counted");
    assert!(left < DIRTY / 10, "{begins}");
    let expected = number(&begins, "expected_pause_ns: Some(").expect("the speed is known");
    assert!(expected > 0 && expected < 40_000_000, "{begins}");
    let told = life.hear("Suspended", &[]);
    assert!(number(&told, "pages_written: ") <= Some(left), "{told}");
    assert!(number(&told, "pages_precopied: ") >= Some(DIRTY), "{told}");
    // Tables: 4.2 bytes a page and the headers.
    let bytes = number(&told, "bytes: ").expect("bytes");
    assert!(bytes <= left * PAGE_SIZE + LARGE / PAGE_SIZE * 42 / 10 + (1 << 20), "{told}");
    life.scripts[0].go_on(&(0..20).map(|n| Write(place(n), 1_007 + n)).collect::<Vec<_>>());
    resume(&mut life);
    check(&mut life, 20);
}

#[test]
fn a_guest_that_dirties_faster_than_the_disk_is_suspended_all_the_same() {
    // Half a megabyte a second: 128 pages, while the guest dirties more in every turn.
    let mut life = begun(Some(4_000_000));
    for _ in 0..60 {
        life.scripts[0].go_on(&dirty());
        life.scripts[0].go_on(&[Work(100 * MS)]);
    }
    assert_eq!(life.command("suspend p"), "");
    let told = life.hear("Suspended", &[]);
    assert!(number(&told, "pages_written: ") >= Some(DIRTY / 2), "{told}");
    let passes = life.machine.told.iter().filter(|event| event.starts_with("Precopy {")).count();
    assert!((2..=5).contains(&passes), "{passes}");
    resume(&mut life);
    check(&mut life, 0);
}

#[test]
fn a_second_request_stops_the_guest_at_once() {
    let mut life = begun(Some(400_000));
    assert_eq!(life.command("suspend p"), "");
    life.pass(50 * MS);
    assert_eq!(life.shared().view(), LifecycleView::Running);
    assert_eq!(life.command("suspend p"), "");
    life.hear("Suspending", &[]);
    assert_eq!(life.shared().view(), LifecycleView::Suspending);
    life.machine.disks.iter().for_each(|disk| disk.state().speed = None);
    life.hear("Suspended", &[]);
    resume(&mut life);
    check(&mut life, 0);
}

#[test]
fn an_end_of_the_guest_withdraws_the_suspension() {
    for end in ["crash p", "kill p", "stop p"] {
        let mut life = begun(Some(400_000));
        assert_eq!(life.command("suspend p"), "");
        life.pass(20 * MS);
        assert_eq!(life.command(end), "");
        life.machine.disks.iter().for_each(|disk| disk.state().speed = None);
        life.pass(3 * SECOND_NS);
        assert!(!life.has_heard("Suspending") && !life.has_heard("Suspended"), "{end}");
        let is_right = match life.shared().view() {
            LifecycleView::Running => end == "crash p",
            LifecycleView::Stopped => end == "kill p",
            _ => end == "stop p",
        };
        assert!(is_right, "{end}: {:?}", life.shared().view());
    }
}
