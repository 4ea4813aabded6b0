//! Suspend and resume: at every moment of a guest's life, with every disk error, and with a power
//! cut at every write.

use super::*;
use crate::node::tests::disk::{DiskLogEntry, FaultKind, FaultPlan};
use crate::node::tests::image;
use crate::node::tests::machine::number;
use crate::node::tests::power_cuts::{Medium, PowerCutFate};
use crate::node::tests::{Dice, is_long};
use crate::space::SpaceState;
use GuestStep::*;

const TIMER_VECTOR: u8 = 0x41;
/// The local APIC on, with the timer at one tick a nanosecond.
const APIC_ON: [GuestStep; 4] = [
    WriteMsr(0x1b, 0xfee0_0d00),
    WriteMsr(0x80f, 0x1ff),
    WriteMsr(0x832, TIMER_VECTOR as u64),
    WriteMsr(0x83e, 0b1011),
];
const TSC: u32 = 0x10;
/// Pages that the test's guest writes.
pub(super) const PAGES: u64 = 24;

pub(super) fn writes() -> Vec<GuestStep> {
    (0..PAGES).map(|n| Write(page(n), 1_000 + n)).collect()
}

pub(super) fn reads() -> Vec<GuestStep> {
    (0..PAGES).map(|n| Read(page(n))).collect()
}

pub(super) fn written() -> Vec<u64> {
    (0..PAGES).map(|n| 1_000 + n).collect()
}

/// The words that a guest has read from memory: the low word of a read of an MSR is not one.
fn words(life: &Life) -> Vec<u64> {
    life.record().values
}

pub(super) fn suspend(life: &mut Life) -> String {
    assert_eq!(life.command("suspend p"), "");
    let told = life.hear("Suspended", &["partition: \"p\""]);
    life.reach(LifecycleView::Suspended);
    told
}

fn resume(life: &mut Life) -> String {
    assert_eq!(life.command("resume p"), "");
    life.hear("Resumed", &["partition: \"p\"", "incarnation: 1"])
}

/// Lets the guest read its pages, and checks them.
#[track_caller]
fn check_pages(life: &mut Life) {
    let before = words(life).len();
    life.scripts[0].go_on(&reads());
    life.until("the reads", |life| (words(life).len() == before + PAGES as usize).then_some(()));
    assert_eq!(words(life)[before..], written());
}

pub(super) fn contents(life: &Life) -> Vec<Vec<u8>> {
    life.machine.disks.iter().map(|disk| disk.state().content.clone()).collect()
}

#[test]
fn a_guest_goes_on_with_every_page_and_its_frames_were_free() {
    let mut life = Life::alone(config("p"), &[&writes()]);
    life.finish();
    let free = life.host().frames.free_count();
    let told = suspend(&mut life);
    assert!(number(&told, "pages_written: ") >= Some(PAGES), "{told}");
    assert_eq!(life.host().frames.free_count(), life.host().frames.total());
    assert!(free < life.host().frames.total());
    assert_eq!(life.spaces()[0], ("suspended", Some(("p".into(), 1))));
    let entries = life.record().entries;
    life.pass(SECOND_NS);
    assert_eq!(life.record().entries, entries, "nothing runs");
    resume(&mut life);
    check_pages(&mut life);
    assert_eq!((life.record().boots.len(), life.record().resumes), (1, 1));
    assert_eq!(life.spaces()[0], ("active", Some(("p".into(), 1))));
}

#[test]
fn pages_that_are_in_their_blocks_already_cost_no_write() {
    let mut life = Life::alone(config("p"), &[&writes()]);
    life.finish();
    let first = suspend(&mut life);
    resume(&mut life);
    check_pages(&mut life);
    let second = suspend(&mut life);
    let pages = |told: &str, what| number(told, what).unwrap();
    assert!(pages(&second, "pages_written: ") < pages(&first, "pages_written: "), "{second}");
    assert!(pages(&second, "pages_clean: ") >= PAGES, "{second}");
    resume(&mut life);
    check_pages(&mut life);
}

#[test]
fn the_counter_of_the_guest_goes_on_and_the_clock_says_that_it_stood() {
    let clock = page(40).as_u64();
    let program = [WriteMsr(SYSTEM_TIME, clock | 1), Read(Gpa::new(clock + 16)), ReadMsr(TSC)];
    let mut life = Life::alone(config("p"), &[&program]);
    life.finish();
    suspend(&mut life);
    life.pass(5 * SECOND_NS);
    resume(&mut life);
    life.scripts[0].go_on(&[ReadMsr(TSC), Read(Gpa::new(clock + 16)), Read(Gpa::new(clock + 24))]);
    life.until("the clock", |life| (words(life).len() == 5).then_some(()));
    let [uptime, before, after, again, flags] = words(&life)[..] else { panic!() };
    let passed = after.wrapping_sub(before) & 0xffff_ffff;
    assert!(passed < SECOND_NS.as_u64(), "the guest's counter stood still: {passed}");
    assert!(again >= uptime && again - uptime < SECOND_NS.as_u64(), "{uptime} {again}");
    assert_eq!(flags >> 40 & 3, 3, "stable, and it was stopped");
}

#[test]
fn a_halted_guest_sleeps_on_until_its_timer_comes() {
    let sleep = [Sti, WriteMsr(0x838, (2 * SECOND_NS).as_u64()), Halt, Write(page(0), 5)];
    let mut life = Life::alone(config("p"), &[&[&APIC_ON[..], &sleep].concat()]);
    life.hear("Entered", &[]);
    life.pass(100 * MS);
    suspend(&mut life);
    life.pass(5 * SECOND_NS);
    resume(&mut life);
    let resumed = time::now_ns();
    life.pass(SECOND_NS);
    assert!(!life.scripts[0].is_done(), "nearly two seconds were left");
    life.finish();
    let slept = time::now_ns() - resumed;
    assert!((SECOND_NS..3 * SECOND_NS).contains(&slept), "{slept:?}");
    assert_eq!(life.record().delivered.len(), 1);
}

#[test]
fn a_guest_that_waits_for_a_page_repeats_its_access() {
    let mut life = Life::alone(config("p"), &[&writes()]);
    life.finish();
    life.command("evict p 512");
    life.until("the eviction", |life| {
        (life.host().pager.counters().page_outs >= PAGES).then_some(())
    });
    life.machine.disks.iter().for_each(|disk| disk.state().speed = Some(20_480));
    life.scripts[0].go_on(&[Read(page(3))]);
    life.pass(20 * MS);
    assert_eq!(words(&life), []);
    assert_eq!(life.command("suspend p"), "");
    life.pass(20 * MS);
    life.machine.disks.iter().for_each(|disk| disk.state().speed = None);
    life.hear("Suspended", &[]);
    life.reach(LifecycleView::Suspended);
    resume(&mut life);
    life.until("the read", |life| (words(life) == [1_003]).then_some(()));
}

#[test]
fn a_suspension_during_another_partitions_drain_and_both_end() {
    let scripts = [GuestScript::of(&[&writes()]), GuestScript::of(&[&writes(), &[]])];
    let mut life = Life::new(4, &[(config("p"), &scripts[0]), (config("q"), &scripts[1])]);
    let is_through = |script: &GuestScript| !script.record().boots.is_empty() && script.is_done();
    life.until("both programs", |_| scripts.iter().all(is_through).then_some(()));
    scripts[1].go_on(&[TRIPLE_FAULT]);
    life.hear("Crash", &["partition: \"q\""]);
    assert_eq!(life.command("suspend p"), "");
    life.until("both", |life| {
        (life.has_heard("Suspended") && life.has_heard("DumpComplete")).then_some(())
    });
    life.reach(LifecycleView::Suspended);
    resume(&mut life);
    check_pages(&mut life);
}

#[test]
fn a_new_start_of_the_hypervisor_finds_it_and_lets_it_go_on() {
    let mut life = Life::alone(config("p"), &[&writes()]);
    life.finish();
    suspend(&mut life);
    life.machine.node.host.ending.store(true, Ordering::Release);
    life.command("kill p");
    life.pass(100 * MS);
    assert_eq!(life.shared().view(), LifecycleView::Suspended, "the machine's end keeps it");
    let script = GuestScript::default();
    let mut life = Life::over(&contents(&life), PLENTY, &[(config("p"), &script)]);
    life.reach(LifecycleView::Suspended);
    assert!(!life.has_heard("Start"), "it does not begin anew");
    assert!(life.command("start p").contains("p has not stopped, it is suspended"));
    assert!(life.command("stop p").contains("p is suspended: resume it"));
    assert!(life.command("list").contains("suspended"));
    resume(&mut life);
    check_pages(&mut life);
    assert_eq!((life.record().boots.len(), life.record().resumes), (0, 1));
    // A crash of what goes on leaves a whole dump.
    life.scripts[0].go_on(&[Write(page(2), 77), TRIPLE_FAULT]);
    let told = life.hear("DumpComplete", &["incarnation: 1"]);
    let disk = number(&told, "disk: ").unwrap() as usize;
    image::verify(&contents(&life)[disk]).expect("a sound dump");
}

#[test]
fn what_is_given_back_is_gone() {
    for give_back in ["kill p", "undefine p", "release"] {
        let mut life = Life::alone(config("p"), &[&writes(), &[]]);
        life.finish();
        let told = suspend(&mut life);
        assert!(life.command("release p").contains("p has no dump"), "only by its own name");
        match give_back {
            "release" => {
                let name = told.split("dump: ").nth(1).unwrap();
                let digits: String = name.chars().filter(char::is_ascii_hexdigit).collect();
                let dump = life.host().spaces.kept_dumps()[0].crash.name.to_string();
                assert!(!digits.is_empty());
                assert_eq!(life.command(&format!("release {}", &dump[..8])), "");
            }
            command => assert_eq!(life.command(command), ""),
        }
        life.until("the release", |life| life.has_heard("Released").then_some(()));
        assert!(life.spaces().iter().all(|(state, _)| *state == "free"), "{:?}", life.spaces());
        if give_back == "undefine p" {
            assert!(life.has_heard("Undefined"));
            continue;
        }
        life.reach(LifecycleView::Stopped);
        assert!(life.command("resume p").contains("p is not suspended: it is stopped"));
        life.command("start p");
        life.hear("Entered", &["incarnation: 2"]);
    }
}

#[test]
fn commands_that_make_no_sense_say_so() {
    let mut life = Life::alone(config("p"), &[&writes()]);
    life.finish();
    assert!(life.command("resume p").contains("p is not suspended: it is running"));
    assert!(life.command("suspend x").contains("no partition 'x'"));
    suspend(&mut life);
    assert!(life.command("suspend p").contains("p does not run: it is suspended"));
    assert!(life.command("crash p").contains("p does not run: it is suspended"));
    assert!(life.command("start p").contains("it is suspended"));
}

/// Suspends, changes the contents of the disk, and returns what a resume on another start says.
fn refused(change: impl Fn(&mut Vec<u8>), memory_bytes: u64) -> (String, Life) {
    let mut life = Life::alone(config("p"), &[&writes()]);
    life.finish();
    suspend(&mut life);
    let mut disks = contents(&life);
    change(&mut disks[0]);
    let script = GuestScript::default();
    let other = PartitionConfig { memory_bytes, ..config("p") };
    let mut life = Life::over(&disks, PLENTY, &[(other, &script)]);
    life.reach(LifecycleView::Suspended);
    assert_eq!(life.command("resume p"), "");
    let told = life.hear("ResumeFailed", &["partition: \"p\""]);
    life.reach(LifecycleView::Suspended);
    life.pass(SECOND_NS);
    assert_eq!(life.host().objects.count(), 0);
    assert_eq!(life.host().frames.free_count(), life.host().frames.total());
    let state = image::record(&contents(&life)[0]).unwrap().state;
    assert_eq!(state, SpaceState::Suspended, "nothing has changed");
    (told, life)
}

#[test]
fn a_damaged_state_is_refused_and_nothing_changes() {
    let start = |content: &[u8], part: &str| {
        let record = image::record(content).unwrap();
        let layout = record.contents.unwrap().layout;
        match part {
            "first notes" => layout.notes().start,
            _ => layout.notes().start + u64::from(record.drain.notes_len) - 1,
        }
    };
    for part in ["first notes", "last notes"] {
        let damage = |content: &mut Vec<u8>| {
            let at = start(content, part) as usize;
            content[at] ^= 0x10;
        };
        let (told, _) = refused(damage, MEMORY);
        assert!(told.contains("the notes do not match"), "{told}");
    }
    let (told, _) = refused(|_| {}, MEMORY / 2);
    assert!(told.contains("suspended with 2 MiB of memory, and is defined with 1 MiB"), "{told}");
}

#[test]
fn a_damaged_block_is_a_lost_page_and_never_other_content() {
    let mut life = Life::alone(config("p"), &[&writes()]);
    life.finish();
    suspend(&mut life);
    let mut disks = contents(&life);
    let word = 1_007_u64.to_le_bytes();
    let at = (0..disks[0].len()).step_by(4096).find(|&at| disks[0][at..][..8] == word).unwrap();
    disks[0][at + 100] ^= 1;
    let script = GuestScript::default();
    let mut life = Life::over(&disks, PLENTY, &[(config("p"), &script)]);
    life.reach(LifecycleView::Suspended);
    resume(&mut life);
    script.go_on(&[Read(page(6)), Read(page(7))]);
    life.hear("Crash", &["reason: \"page lost\""]);
    assert_eq!(words(&life), [1_006]);
}

/// How long the fault of a disk lasts, if it lasts.
const FAULT_NS: Ns = Ns::from_secs(8);

/// Suspends with a fault at the disk's request `request` from the command on, which is over after
/// some seconds. Returns whether the fault came.
fn with_fault(request: u64, kind: FaultKind) -> bool {
    let mut life = Life::alone(config("p"), &[&writes()]);
    life.finish();
    let first = life.machine.disks[0].state().requests;
    life.machine.disks[0].state().fault = Some(FaultPlan { request: first + request, kind });
    assert_eq!(life.command("suspend p"), "");
    let place = format!("{kind:?} at request {request}");
    let end = time::now_ns() + FAULT_NS;
    let is_whole = life.until(&place, |life| {
        if time::now_ns() >= end {
            life.machine.disks[0].state().fault = None;
        }
        match life.shared().view() {
            LifecycleView::Suspended => Some(true),
            LifecycleView::Running if life.has_heard("SuspendFailed") => Some(false),
            _ => None,
        }
    });
    let came = life.machine.disks[0].state().requests > first + request;
    life.machine.disks[0].state().fault = None;
    assert!(!life.has_heard("Crash"), "{place}");
    if is_whole {
        resume(&mut life);
    }
    check_pages(&mut life);
    assert_eq!(life.spaces()[0], ("active", Some(("p".into(), 1))), "{place}");
    let state = image::record(&contents(&life)[0]).unwrap().state;
    assert_eq!(state, SpaceState::Active, "{place}");
    came
}

#[test]
fn with_a_refused_request_at_any_place_it_runs_on_or_is_suspended_whole() {
    for (kind, step) in [(FaultKind::ErrorOnce, 1), (FaultKind::ErrorForGood, 4)] {
        let step = if is_long() { 1 } else { step };
        let mut request = 0;
        while with_fault(request, kind) {
            request += step;
        }
        assert!(request > 10, "{kind:?}: {request}");
    }
}

#[test]
fn a_disk_that_refuses_the_record_for_good_crashes_the_partition_and_says_so() {
    let mut life = Life::alone(config("p"), &[&writes(), &[]]);
    life.finish();
    let size = life.machine.disks[0].state().content.len();
    life.machine.disks[0].state().bad_bytes = size - 8192..size;
    assert_eq!(life.command("suspend p"), "");
    life.hear("SuspendFailed", &["partition: \"p\""]);
    life.hear("Crash", &["reason: \"pages cannot be written\""]);
    assert!(!life.has_heard("Suspended"));
}

/// A cycle of suspend and resume, with the log of its disk.
struct RecordedCycle {
    base: Vec<u8>,
    log: Vec<DiskLogEntry>,
    /// Entries of the log when the suspension was told.
    suspended: usize,
    /// Entries of the log before the record says ACTIVE again.
    active: usize,
}

fn recorded() -> RecordedCycle {
    let mut life = Life::new(1, &[(config("p"), &GuestScript::of(&[&writes()]))]);
    life.finish();
    let base = contents(&life)[0].clone();
    life.machine.disks[0].state().records = true;
    assert_eq!(life.command("suspend p"), "");
    life.hear("Suspended", &[]);
    let suspended = life.machine.disks[0].state().log.len();
    life.reach(LifecycleView::Suspended);
    resume(&mut life);
    check_pages(&mut life);
    life.scripts[0].go_on(&(0..PAGES).map(|n| Write(page(n), 2_000 + n)).collect::<Vec<_>>());
    life.finish();
    life.command("evict p 512");
    life.pass(SECOND_NS);
    let log = life.machine.disks[0].state().log.clone();
    let is_active = |entry: &DiskLogEntry| match entry {
        DiskLogEntry::Write { data, .. } => {
            data.starts_with(b"TIDEPOOL") && data[56] == SpaceState::Active as u8
        }
        _ => false,
    };
    let active = suspended + log[suspended..].iter().position(is_active).expect("it went on");
    RecordedCycle { base, log, suspended, active }
}

/// Resumes on another start from this medium, and checks every page.
fn resumes(content: Vec<u8>, place: &str) {
    let script = GuestScript::default();
    let mut life = Life::over(&[content], PLENTY, &[(config("p"), &script)]);
    life.until(place, |life| (life.shared().view() == LifecycleView::Suspended).then_some(()));
    image::verify(&contents(&life)[0]).unwrap_or_else(|error| panic!("{place}: {error}"));
    resume(&mut life);
    check_pages(&mut life);
}

#[test]
fn a_power_cut_at_any_write_leaves_the_whole_state_or_says_that_it_is_gone() {
    let RecordedCycle { base, log, suspended, active } = recorded();
    let (mut medium, mut dice) = (Medium::of(base), Dice::new(1));
    let mut deep = 0;
    for (n, entry) in log.iter().enumerate() {
        medium.apply(entry);
        if !matches!(entry, DiskLogEntry::Write { .. } | DiskLogEntry::FlushEnds(_)) {
            continue;
        }
        for fate in [
            PowerCutFate::None,
            PowerCutFate::All,
            PowerCutFate::Torn,
            PowerCutFate::Last,
            PowerCutFate::ButLast,
        ] {
            let content = medium.image(fate, &mut dice);
            let place = format!("entry {n} of {}, {fate:?}", log.len());
            let state = image::record(&content).map(|record| record.state);
            let is_whole = state == Some(SpaceState::Suspended);
            assert!(is_whole || state == Some(SpaceState::Active), "{place}: {state:?}");
            let must_be_whole = (suspended..active).contains(&n);
            assert!(is_whole || !must_be_whole, "{place}");
            assert!(!is_whole || n + 1 >= suspended / 2, "{place}: too early");
            if is_whole {
                resumes(content, &place);
                deep += 1;
            }
        }
    }
    assert!(deep > 10, "{deep}");
}

/// Address of the generation ID.
pub(super) const GENERATION: Gpa = Gpa::new(crate::partition::devices::map::GENERATION_ID);

#[test]
fn the_guests_counter_stands_still_while_it_is_away() {
    let mut life = Life::alone(config("p"), &[&[WriteMsr(TSC, 5_000), Rdtsc]]);
    life.finish();
    suspend(&mut life);
    life.pass(100 * SECOND_NS);
    resume(&mut life);
    life.scripts[0].go_on(&[Rdtsc]);
    life.until("the counter", |life| (words(life).len() == 2).then_some(()));
    let [before, after] = words(&life)[..] else { panic!() };
    let passed = after.checked_sub(before).expect("it never goes back");
    assert!((5_000..10_000).contains(&before) && passed < crate::arch::time::tsc_hz(), "{passed}");
}

#[test]
fn a_plain_resume_keeps_the_generation_id_and_a_boot_changes_it() {
    let mut life = Life::alone(config("p"), &[&[Read(GENERATION)], &[Read(GENERATION)]]);
    life.finish();
    suspend(&mut life);
    resume(&mut life);
    life.scripts[0].go_on(&[Read(GENERATION), TRIPLE_FAULT]);
    life.until("the ID and the next boot", |life| (words(life).len() == 3).then_some(()));
    let [boot, resumed, next] = words(&life)[..] else { panic!() };
    assert_eq!(boot, resumed);
    assert!(boot != 0 && next != boot);
}

#[test]
fn what_was_suspended_on_svm_is_refused_on_vmx() {
    use crate::dump::state_note::{StateNote, StateNoteKind};
    // The recorded space of one back end, whose note says the other: its checksum is right again.
    let change = |content: &mut Vec<u8>| {
        let mut record = image::record(content).unwrap();
        let at = record.contents.as_ref().unwrap().layout.notes().start as usize;
        let len = record.drain.notes_len as usize;
        let notes = content[at..][..len].to_vec();
        let promised = StateNote::all(&notes, StateNoteKind::Promised).next().unwrap();
        // Behind the note's front and the front of its first part.
        let offset = promised.as_ptr() as usize - notes.as_ptr() as usize + 16;
        assert_eq!(content[at + offset], 2, "SVM");
        content[at + offset] = 1;
        let sum = crate::mm::crc::crc32c(&content[at..][..len]);
        record.seal.as_mut().unwrap().notes = sum;
        record.sequence += 2;
        let bytes = record.encode();
        let end = content.len();
        content[end - 8192..][..4096].copy_from_slice(&bytes);
        content[end - 4096..].copy_from_slice(&bytes);
    };
    let (told, _) = refused(change, MEMORY);
    assert!(told.contains("it was suspended on VMX with EPT, this machine has SVM"), "{told}");
}
