//! Seal and clone: children begin where the base was suspended, keep apart what they write, and
//! hold the base until they are gone.

use super::suspend::{GENERATION, PAGES, contents, reads, suspend, writes, written};
use super::*;
use crate::addr::PageIndex;
use crate::node::tests::disk::DiskLogEntry;
use crate::node::tests::image;
use crate::node::tests::machine::number;
use crate::node::tests::power_cuts::{Medium, PowerCutFate};
use crate::node::tests::{Dice, is_long};
use crate::partition::devices::map::{GENERATION_PIN, IOAPIC_BASE};
use crate::space::{OwnPages, SpaceState};
use crate::virt::InjectedEvent;
use GuestStep::*;

/// Seals the partition `p`, whose guest has written its pages.
fn sealed(disks: u8, frames: u32) -> Life {
    let mut life = Life::with(disks, frames, &[(config("p"), &GuestScript::of(&[&writes()]))]);
    life.finish();
    suspend(&mut life);
    assert_eq!(life.command("seal p"), "");
    life.hear("Sealed", &["partition: \"p\""]);
    life.reach(LifecycleView::Sealed);
    life
}

/// Makes clones `c-1` to `c-n`; returns their scripts.
fn clones(life: &mut Life, count: usize) -> Vec<GuestScript> {
    let scripts = (1..=count).map(|n| life.script(&format!("c-{n}"), &[])).collect();
    assert_eq!(life.command(&format!("clone p c count={count}")), "");
    for n in 1..=count {
        life.hear("Cloned", &[&format!("partition: \"c-{n}\""), "base: \"p\""]);
    }
    scripts
}

/// Lets a guest read all pages; returns what it has read.
fn values(life: &mut Life, script: &GuestScript) -> Vec<u64> {
    let before = script.record().values.len();
    script.go_on(&reads());
    let end = before + PAGES as usize;
    life.until("the reads", |_| (script.record().values.len() == end).then_some(()));
    script.record().values[before..].to_vec()
}

fn undefine(life: &mut Life, name: &str) {
    assert_eq!(life.command(&format!("kill {name}")), "");
    let number = life.machine.node.partitions().find(|(_, shared)| shared.name() == name);
    let (id, shared) = number.expect("it is defined");
    life.until("its stop", |_| (shared.view() == LifecycleView::Stopped).then_some(()));
    assert_eq!(life.command(&format!("undefine {name}")), "");
    life.until("its end", |life| life.machine.node.partition(id).is_none().then_some(()));
}

#[test]
fn children_begin_where_the_base_was_and_keep_apart_what_they_write() {
    let mut life = sealed(4, PLENTY);
    let scripts = clones(&mut life, 3);
    for script in &scripts {
        assert_eq!(values(&mut life, script), written());
        assert_eq!((script.record().boots.len(), script.record().resumes), (0, 1));
    }
    for (n, script) in (0..).zip(&scripts) {
        let own: Vec<_> = (0..PAGES / 3).map(|p| Write(page(3 * p + n), 7_000 + n)).collect();
        script.go_on(&own);
    }
    life.until("the writes", |_| scripts.iter().all(GuestScript::is_done).then_some(()));
    for (n, script) in (0..).zip(&scripts) {
        let expected: Vec<_> =
            (0..PAGES).map(|p| if p % 3 == n { 7_000 + n } else { 1_000 + p }).collect();
        assert_eq!(values(&mut life, script), expected, "child {n}");
    }
    let base = life.host().bases.get("p").expect("it is in memory");
    assert!(base.object.counts().resident >= PAGES as u32);
    assert_eq!(life.host().pager.mappers(base.object.id()), 3);
    image::verify(&contents(&life)[0]).expect("nothing of the base has changed");
}

#[test]
fn each_child_has_a_generation_id_of_its_own_and_is_told() {
    const VECTOR: u8 = 0x42;
    // The local APIC on, and the input of the notice open.
    let steps = [
        WriteMsr(0x1b, 0xfee0_0d00),
        WriteMsr(0x80f, 0x1ff),
        Store(Gpa::new(IOAPIC_BASE), 0x10 + 2 * u32::from(GENERATION_PIN)),
        Store(Gpa::new(IOAPIC_BASE + 0x10), VECTOR.into()),
        Sti,
        Read(GENERATION),
    ];
    let mut life = Life::with(4, PLENTY, &[(config("p"), &GuestScript::of(&[&steps]))]);
    life.finish();
    let base = life.scripts[0].record();
    assert!(base.delivered.is_empty());
    suspend(&mut life);
    assert_eq!(life.command("seal p"), "");
    life.hear("Sealed", &["partition: \"p\""]);
    let scripts = clones(&mut life, 3);
    let mut ids = vec![*base.values.last().expect("the ID")];
    for script in &scripts {
        script.go_on(&[Read(GENERATION)]);
        life.until("the ID", |_| (script.record().values.len() == 1).then_some(()));
        ids.push(script.record().values[0]);
        assert_eq!(script.record().delivered, [InjectedEvent::interrupt(VECTOR)]);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "{ids:x?}");
}

#[test]
fn a_base_is_neither_resumed_nor_given_back_while_a_child_needs_it() {
    let mut life = sealed(4, PLENTY);
    let free = life.host().frames.free_count();
    let refused = |life: &mut Life, command: &str, words: &str| {
        let told = life.command(command);
        assert!(told.contains(words), "{command}: {told}");
    };
    refused(&mut life, "resume p", "p is sealed: clone it");
    refused(&mut life, "start p", "p is sealed: clone it");
    refused(&mut life, "stop p", "p is sealed: clone it");
    refused(&mut life, "seal p", "p is sealed: clone it");
    refused(&mut life, "clone p c count=9", "9 clones: this node has room for 3 more");
    refused(&mut life, "clone p c count=0", "at least 1");
    refused(&mut life, "clone p p", "p is defined already");
    refused(&mut life, "clone q c", "no partition 'q'");
    let scripts = clones(&mut life, 2);
    assert_eq!(values(&mut life, &scripts[0]), written());
    refused(&mut life, "suspend c-1", "c-1 is a clone");
    for command in ["undefine p", "kill p"] {
        refused(&mut life, command, "p is the base of others, which need it: c-1, c-2");
    }
    let dump = life.host().spaces.kept_dumps()[0].crash.name;
    refused(&mut life, &format!("release {dump}"), "p is the base of others");
    assert!(life.command("list").contains("base p  2 clones"));
    undefine(&mut life, "c-1");
    refused(&mut life, "undefine p", "which need it: c-2");
    undefine(&mut life, "c-2");
    assert_eq!(life.command("undefine p"), "");
    life.hear("Undefined", &["partition: \"p\""]);
    life.until("the scrub", |life| {
        life.spaces().iter().all(|(state, _)| *state == "free").then_some(())
    });
    life.until("the frames", |life| {
        (life.host().frames.free_count() == life.host().frames.total()).then_some(())
    });
    assert!(free <= life.host().frames.total());
    assert_eq!((life.host().objects.count(), life.host().tables.used_count()), (0, 0));
}

#[test]
fn a_base_outlives_a_start_of_the_hypervisor() {
    let mut life = sealed(1, PLENTY);
    life.machine.node.host.ending.store(true, Ordering::Release);
    life.command("kill p");
    life.pass(100 * MS);
    assert_eq!(life.shared().view(), LifecycleView::Sealed, "the machine's end keeps it");
    let disks = [contents(&life)[0].clone(), vec![0; DISK_BYTES], vec![0; DISK_BYTES]];
    let script = GuestScript::default();
    let mut life = Life::over(&disks, PLENTY, &[(config("p"), &script)]);
    life.reach(LifecycleView::Sealed);
    assert!(!life.has_heard("Start"), "it does not begin anew");
    let scripts = clones(&mut life, 2);
    for script in &scripts {
        assert_eq!(values(&mut life, script), written());
    }
}

/// The tables cost a read once; a clone reads nothing before the guest's first page.
#[test]
fn a_clone_of_a_base_in_memory_reads_nothing_itself() {
    let mut life = sealed(3, PLENTY);
    let script = clones(&mut life, 1).remove(0);
    assert_eq!(values(&mut life, &script), written());
    let before = life.machine.disks[0].state().requests;
    let other = life.script("d", &[]);
    assert_eq!(life.command("clone p d"), "");
    life.hear("Cloned", &["partition: \"d\""]);
    assert_eq!(values(&mut life, &other), written());
    // The disk of the base has served its claim's beats alone.
    assert!(life.machine.disks[0].state().requests - before < 8);
}

#[test]
fn a_damaged_base_is_not_sealed_and_a_damaged_page_ends_only_who_touches_it() {
    let mut life = sealed(4, PLENTY);
    let scripts = clones(&mut life, 2);
    assert_eq!(values(&mut life, &scripts[0]), written());
    let base = life.host().bases.get("p").expect("it is in memory");
    life.host().pager.ask_evict(base.object.id(), 512);
    life.until("the eviction", |_| (base.object.counts().resident == 0).then_some(()));
    // The block of page 5 of those that the guest wrote.
    let index = base.object.layout().index_of(page(5).number()).expect("RAM");
    let store = life.host().spaces.store(base.space).expect("a store");
    let at = store.blocks.sectors(index, 1).first as usize * 512;
    life.machine.disks[store.disk].state().content[at + 9] ^= 1;
    scripts[1].go_on(&[Read(page(4)), Read(page(5))]);
    life.hear("Crash", &["partition: \"c-2\"", "page lost"]);
    scripts[0].go_on(&[Read(page(6))]);
    life.until("the other", |_| scripts[0].is_done().then_some(()));
}

/// The page of the guest's memory that a dump has at this index.
fn index(n: u64) -> PageIndex {
    RamLayout::new(MEMORY).and_then(|ram| ram.index_of(page(n).number())).expect("RAM")
}

/// Lets the first child write some pages, one of them zero over the base's, and crash.
fn crashed(life: &mut Life, script: &GuestScript) -> String {
    script.go_on(&[Read(page(9)), Write(page(0), 77), Write(page(1), 0)]);
    life.until("the writes", |_| script.is_done().then_some(()));
    // The base's disk is slow.
    life.machine.disks[0].state().speed = Some(1 << 20);
    script.go_on(&[TRIPLE_FAULT]);
    life.hear("Restart", &["partition: \"c-1\""]);
    assert!(!life.has_heard("DumpComplete"), "the restart waits for no copy");
    let told = life.hear("DumpComplete", &["partition: \"c-1\"", "incarnation: 1"]);
    life.machine.disks[0].state().speed = None;
    told
}

#[test]
fn the_dump_of_a_crashed_child_stands_alone_and_the_child_begins_from_the_base_again() {
    let mut life = sealed(4, PLENTY);
    let scripts = clones(&mut life, 2);
    let told = crashed(&mut life, &scripts[0]);
    life.until("the next incarnation", |life| {
        let heard = |event: &String| {
            event.starts_with("Cloned {")
                && event.contains("c-1")
                && event.contains("incarnation: 2")
        };
        life.machine.told.iter().any(heard).then_some(())
    });
    let disk = number(&told, "disk: ").unwrap() as usize;
    let content = contents(&life)[disk].clone();
    image::verify(&content).expect("a sound dump");
    let record = image::record(&content).unwrap();
    assert_eq!((record.state, record.base), (SpaceState::Complete, None));
    for (n, expected) in [(0, 77), (1, 0), (2, 1_002), (9, 1_009), (23, 1_023)] {
        assert_eq!(image::word_of_page(&content, index(n)), Some(expected), "page {n}");
    }
    assert_eq!(values(&mut life, &scripts[0]), written());
    assert_eq!(values(&mut life, &scripts[1]), written());
}

/// The words of a child that has crashed after the writes of [`crashed`].
fn expected(n: u64) -> u64 {
    match n {
        0 => 77,
        1 => 0,
        n => 1_000 + n,
    }
}

/// A power cut at any write of a crashed child's dump. Once its own pages are written, the next
/// start completes it from the base; before, nothing wrong is told of it.
#[test]
fn a_power_cut_at_any_write_of_the_dump_of_a_child_is_repaired_from_the_base() {
    let mut life = sealed(3, PLENTY);
    let script = clones(&mut life, 1).remove(0);
    script.go_on(&reads());
    life.until("the reads", |_| script.is_done().then_some(()));
    life.hear("Space", &["disk: 1", "state: \"active\""]);
    let start = contents(&life);
    life.machine.disks[1].state().records = true;
    crashed(&mut life, &script);
    let log = life.machine.disks[1].state().log.clone();
    let (mut medium, mut dice) = (Medium::of(start[1].clone()), Dice::new(1));
    let (mut repaired, mut looked) = (0, std::collections::HashSet::new());
    for (n, entry) in log.iter().enumerate() {
        medium.apply(entry);
        if !matches!(entry, DiskLogEntry::Write { .. } | DiskLogEntry::FlushEnds(_)) {
            continue;
        }
        for fate in [PowerCutFate::None, PowerCutFate::All, PowerCutFate::Torn, PowerCutFate::Last]
        {
            let content = medium.image(fate, &mut dice);
            if !looked.insert(crate::mm::crc::crc32c(&content).0) {
                continue;
            }
            let place = format!("entry {n} of {}, {fate:?}", log.len());
            let before = image::record(&content).unwrap_or_else(|| panic!("{place}: no record"));
            let must_be_whole = before.state == SpaceState::Complete
                || before.base.is_some_and(|base| base.own == OwnPages::Written);
            let disks = [start[0].clone(), content];
            let script = GuestScript::default();
            let mut life = Life::over(&disks, PLENTY, &[(config("p"), &script)]);
            life.reach(LifecycleView::Sealed);
            let after = life.until(&place, |life| {
                let content = contents(life)[1].clone();
                let state = image::record(&content)?.state;
                let is_kept = matches!(state, SpaceState::Draining);
                (!is_kept).then_some((state, content))
            });
            assert!(!must_be_whole || after.0 == SpaceState::Complete, "{place}: {:?}", after.0);
            if matches!(after.0, SpaceState::Complete | SpaceState::Partial) {
                if after.0 == SpaceState::Complete {
                    image::verify(&after.1).unwrap_or_else(|error| panic!("{place}: {error}"));
                }
                for page in 0..PAGES {
                    let word = image::word_of_page(&after.1, index(page));
                    assert!(
                        word == Some(expected(page)) || word.is_none() && !must_be_whole,
                        "{place}: page {page}: {word:?}"
                    );
                }
            }
            repaired += u32::from(before.base.is_some() && must_be_whole);
        }
    }
    assert!(repaired > 3, "{repaired}");
}

/// A power cut at any write of `seal`: suspended as before, or sealed.
#[test]
fn a_power_cut_at_any_write_of_a_seal_leaves_one_of_the_two_states() {
    let mut life = Life::new(2, &[(config("p"), &GuestScript::of(&[&writes()]))]);
    life.finish();
    suspend(&mut life);
    let start = contents(&life)[0].clone();
    life.machine.disks[0].state().records = true;
    assert_eq!(life.command("seal p"), "");
    life.hear("Sealed", &[]);
    let log = life.machine.disks[0].state().log.clone();
    let (mut medium, mut dice) = (Medium::of(start), Dice::new(1));
    let mut seen = std::collections::HashSet::new();
    for (n, entry) in log.iter().enumerate() {
        medium.apply(entry);
        for fate in [PowerCutFate::None, PowerCutFate::All, PowerCutFate::Torn] {
            let content = medium.image(fate, &mut dice);
            let state = image::record(&content).expect("a record").state;
            assert!(state.is_whole_machine(), "entry {n}, {fate:?}: {state:?}");
            if !seen.insert((state as u32, n / 8)) {
                continue;
            }
            let script = GuestScript::default();
            let disks = [content, vec![0; DISK_BYTES]];
            let mut life = Life::over(&disks, PLENTY, &[(config("p"), &script)]);
            if state == SpaceState::Suspended {
                life.reach(LifecycleView::Suspended);
                assert_eq!(life.command("seal p"), "");
            }
            life.reach(LifecycleView::Sealed);
            let script = clones(&mut life, 1).remove(0);
            assert_eq!(values(&mut life, &script), written());
        }
    }
    assert!(seen.len() >= 2);
}

/// Clone, crash, release, over and over: nothing is left behind.
#[test]
fn a_thousand_clones_that_crash_leave_no_frame_object_table_or_tag() {
    let mut life = sealed(3, PLENTY);
    let held = |life: &Life| {
        let host = life.host();
        (
            host.objects.count(),
            host.tables.used_count(),
            host.frames.free_count(),
            host.tags.lock().used(),
        )
    };
    let mut before = None;
    for round in 0..if is_long() { 1_000 } else { 40 } {
        let script = life.script("c", &[]);
        assert_eq!(life.command("clone p c from=boot"), "");
        life.hear("Cloned", &["partition: \"c\""]);
        script.go_on(&[Read(page(3)), Write(page(4), round)]);
        life.until("the steps", |_| script.is_done().then_some(()));
        assert_eq!(life.command("set c restart=never"), "");
        script.go_on(&[TRIPLE_FAULT]);
        life.hear("DumpComplete", &["partition: \"c\""]);
        let (id, shared) =
            life.machine.node.partitions().find(|(_, shared)| shared.name() == "c").expect("c");
        life.until("its stop", |_| (shared.view() == LifecycleView::Stopped).then_some(()));
        assert_eq!(life.command("undefine c"), "");
        life.until("its end", |life| life.machine.node.partition(id).is_none().then_some(()));
        let dump =
            life.host().spaces.kept_dumps().into_iter().find(|dump| &*dump.owner.name == "c");
        assert_eq!(life.command(&format!("release {}", dump.expect("a dump").crash.name)), "");
        life.hear("Released", &["partition: \"c\""]);
        life.until("the rest", |life| life.host().reaper.is_empty().then_some(()));
        let base = life.host().bases.get("p").expect("it is in memory");
        assert_eq!(life.host().pager.mappers(base.object.id()), 0);
        let now = held(&life);
        assert_eq!(*before.get_or_insert(now), now, "round {round}");
        life.machine.told.clear();
        life.heard = 0;
    }
}
