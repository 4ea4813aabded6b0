//! Partitions whose kernel, initrd and definition lie in an image store.

use super::definitions::ledger;
use super::*;
use crate::images::fake_store;
use crate::images::layout::CHUNK;
use crate::node::tests::disk::{FaultKind, FaultPlan, LATE_NS};
use crate::node::tests::{Dice, is_long, seed};
use GuestStep::*;

pub(super) const DEFINE: &str = "define d memory=2M store=0 kernel=vmlinuz initrd=initrd";
/// Number of the store's disk: the paging devices come first.
const STORE: usize = 3;

/// An initrd of some chunks, whose bytes differ.
fn initrd() -> Vec<u8> {
    (0..INITRD_BYTES as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

pub(super) fn store() -> Vec<u8> {
    fake_store::store(&[("vmlinuz", &kernel()), ("initrd", &initrd())])
}

/// A node with a working partition `n`, three paging devices, and this store.
pub(super) fn beside(store: &[u8]) -> Life {
    let n = GuestScript::of(&[&[]]);
    let mut life = Life::beside_stores(3, PLENTY, &[(config("n"), &n)], &[store.to_vec()]);
    life.hear("Entered", &["partition: \"n\""]);
    life
}

/// The neighbour works.
#[track_caller]
fn works(life: &mut Life, value: u64) {
    life.scripts[0].go_on(&[Write(page(0), value), Read(page(0))]);
    life.until("the neighbour", |life| (life.record().values.last() == Some(&value)).then_some(()));
}

/// Gives a command that a task answers; returns its answer.
#[track_caller]
pub(super) fn answer(life: &mut Life, line: &str) -> String {
    let at = life.printed.len();
    let now = life.command(line);
    if !now.is_empty() {
        return now;
    }
    // The line's first partition ends its line when a second one comes.
    let text = |life: &Life| life.printed[at..].trim_start().to_owned();
    life.until(line, |life| text(life).ends_with('\n').then(|| text(life)))
}

pub(super) fn content(life: &Life) -> Vec<u8> {
    life.machine.disks[STORE].state().content.clone()
}

/// Waits until no task is left, and the disks have given all buffers back.
fn rest(life: &mut Life) {
    life.until("rest", |life| (!ledger(life).has_work).then_some(()));
}

#[test]
fn a_kernel_from_a_store_starts_crashes_and_starts_again() {
    let mut life = beside(&store());
    life.heard = 0;
    life.hear("Store", &["store: 0", "disk: 3", "images: 2"]);
    // The first words of the kernel's segment, and of the initrd.
    let first = Gpa::new(0x10_0020);
    let at = (MEMORY - 8192 - INITRD_BYTES as u64) & !(PAGE_SIZE - 1);
    let words = [Read(first), Read(Gpa::new(at)), Read(Gpa::new(at + 9 * CHUNK as u64))];
    let program = [&words[..], &[TRIPLE_FAULT]].concat();
    let d = life.script("d", &[&program, &program, &words]);
    assert_eq!(answer(&mut life, &format!("{DEFINE} dump=off")), "d: defined\r\n");
    assert_eq!(life.partition(1).view(), LifecycleView::Stopped);
    life.command("start d");
    for incarnation in 1..=3 {
        life.hear("Entered", &["partition: \"d\"", &format!("incarnation: {incarnation}")]);
    }
    life.until("the reads", |_| (d.record().values.len() == 9).then_some(()));
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    let wanted = [word(&kernel(), 0x220), word(&initrd(), 0), word(&initrd(), 9 * CHUNK)];
    assert_eq!(d.record().values, [wanted; 3].concat());
    works(&mut life, 5);
}

#[test]
fn a_definition_of_another_node_starts_here() {
    let mut one = beside(&store());
    assert_eq!(
        answer(&mut one, &format!("{DEFINE} cmdline=\"a b\" restart=never")),
        "d: defined\r\n"
    );
    let left = content(&one);
    let mut other = beside(&left);
    let listed = answer(&mut other, "store");
    for part in ["image store 0  07070707-", "kernel ", " vmlinuz", "definition d  2 MiB"] {
        assert!(other.printed.contains(part), "{part}: {listed}");
    }
    assert!(other.command("list").lines().all(|line| !line.starts_with("d ")));
    other.script("d", &[&[]]);
    assert!(answer(&mut other, "start d").contains("starts from its definition"));
    other.hear("Entered", &["partition: \"d\""]);
    let config = &other.partition(1).config;
    assert_eq!((&*config.cmdline, config.restart), ("a b", RestartPolicy::Never));
    // For this node alone it goes, and comes again.
    other.command("kill d");
    other.hear("Stopped", &["\"d\""]);
    assert_eq!(other.command("undefine d scope=node"), "");
    other.hear("Undefined", &["\"d\""]);
    assert!(answer(&mut other, "start d").contains("starts from its definition"));
    other.hear("Entered", &["partition: \"d\""]);
    // For all nodes it goes for good.
    other.command("kill d");
    other.hear("Stopped", &["\"d\""]);
    assert_eq!(answer(&mut other, "undefine d"), "d: removed from its image store\r\n");
    other.hear("Undefined", &["\"d\""]);
    assert!(answer(&mut other, "start d").contains("no partition 'd'"));
    let mut third = beside(&content(&other));
    assert!(answer(&mut third, "start d").contains("no partition 'd'"));
}

#[test]
fn what_set_changes_is_in_the_store_for_the_next_node() {
    let mut one = beside(&store());
    answer(&mut one, DEFINE);
    one.script("d", &[&[]]);
    one.command("start d");
    one.hear("Entered", &["partition: \"d\""]);
    // While it runs, and one option at a time.
    let done = "d: changed, in its image store too\r\n";
    assert_eq!(answer(&mut one, "set d dump=off"), done);
    assert_eq!(answer(&mut one, "set d restart=never"), done);
    let now = one.partition(1).policy();
    assert_eq!((now.dump, now.restart), (DumpPolicy::Off, RestartPolicy::Never));
    // For this node alone.
    assert_eq!(one.command("set d dump=aided scope=node"), "");
    assert_eq!(one.partition(1).policy().dump, DumpPolicy::Aided);
    let mut other = beside(&content(&one));
    other.script("d", &[&[]]);
    assert!(answer(&mut other, "start d").contains("starts from its definition"));
    let there = other.partition(1).policy();
    assert_eq!((there.dump, there.restart), (DumpPolicy::Off, RestartPolicy::Never));
}

#[test]
fn a_definition_that_another_node_has_changed_is_changed_and_removed_by_that_node() {
    let mut one = beside(&store());
    answer(&mut one, DEFINE);
    let mut other = beside(&content(&one));
    other.script("d", &[&[]]);
    answer(&mut other, "start d");
    answer(&mut other, "set d restart=never");
    // The first node sees the disk as the other one left it.
    let left = content(&other);
    one.machine.disks[STORE].state().content.copy_from_slice(&left);
    for line in ["set d dump=off", "undefine d"] {
        let refused = answer(&mut one, line);
        assert!(refused.contains("another one than this node knows"), "{line}: {refused}");
        assert_eq!(one.partition(1).policy().dump, DumpPolicy::Aided, "{line}");
        assert!(content(&one) == left, "{line}");
    }
    assert_eq!(one.command("set d dump=off scope=node"), "");
    assert_eq!(one.command("undefine d scope=node"), "");
    one.hear("Undefined", &["\"d\""]);
    assert!(answer(&mut one, "start d").contains("starts from its definition"));
    assert_eq!(answer(&mut one, "set d dump=off"), "d: changed, in its image store too\r\n");
}

#[test]
fn a_disk_that_refuses_a_change_leaves_store_and_node_as_they_were() {
    let mut life = beside(&store());
    answer(&mut life, DEFINE);
    life.machine.disks[STORE].state().silent_since = None;
    let request = life.machine.disks[STORE].state().requests + 1;
    life.machine.disks[STORE].state().fault =
        Some(FaultPlan { request, kind: FaultKind::LateAnswer });
    let before = content(&life);
    let refused = answer(&mut life, "set d dump=off");
    assert!(refused.contains("error: image store 0 on paging device 3"), "{refused}");
    assert_eq!(life.partition(1).policy().dump, DumpPolicy::Aided);
    assert!(content(&life) == before);
    life.pass(LATE_NS + SECOND_NS);
    life.machine.disks[STORE].state().fault = None;
    assert_eq!(answer(&mut life, "set d dump=off"), "d: changed, in its image store too\r\n");
}

#[test]
fn a_wrong_definition_is_refused_by_its_reason() {
    let mut life = beside(&store());
    let before = ledger(&life);
    for (line, reason) in [
        ("define n memory=2M store=0 kernel=vmlinuz", "n is defined already"),
        ("define d memory=2M store=1 kernel=vmlinuz", "no image store '1'"),
        ("define d memory=2M store=abcd kernel=vmlinuz", "no image store 'abcd'"),
        ("define d memory=2M store=0 kernel=none", "image store 0 has no image 'none'"),
        ("define d memory=2M store=0 kernel=vmlinuz initrd=i", "has no image 'i'"),
        ("define d memory=2M store=0 kernel=initrd", "neither a Linux bzImage nor an ELF file"),
        ("define d memory=1M store=0 kernel=vmlinuz", "the logical memory is too small"),
        ("define d memory=64M store=0 kernel=vmlinuz", "larger than every paging space"),
        ("start d", "no partition 'd'"),
    ] {
        let answered = answer(&mut life, line);
        assert!(answered.starts_with("error: ") && answered.contains(reason), "{line}: {answered}");
    }
    rest(&mut life);
    assert_eq!(ledger(&life), before);
    assert!(content(&life) == store(), "nothing was written");
    // The store's first digits are a name for it, as are those of an image.
    let digits = &fake_store::digest(&kernel()).text()[..8];
    let line = format!("define d memory=2M store=0707 kernel={digits} scope=node");
    assert_eq!(answer(&mut life, &line), "d: defined\r\n");
    assert!(content(&life) == store(), "it is for this node alone");
    // Undefining it leaves another node's definition of the name alone.
    assert_eq!(life.command("undefine d"), "");
    life.hear("Undefined", &["\"d\""]);
    answer(&mut life, DEFINE);
    assert_eq!(life.command("undefine d scope=node"), "");
    life.hear("Undefined", &["\"d\""]);
    let refused = answer(&mut life, DEFINE);
    assert!(refused.contains("image store 0 has a partition d"), "{refused}");
    life.command("define d memory=2M kernel=kernel");
    assert!(life.command("start d").is_empty(), "a slot comes before a store");
}

#[test]
fn a_full_store_refuses_and_nothing_is_lost() {
    let mut life = beside(&store());
    let define = |n: u32| format!("define d{n} memory=2M store=0 kernel=vmlinuz");
    for n in 0..8 {
        assert_eq!(answer(&mut life, &define(n)), format!("d{n}: defined\r\n"));
        life.command(&format!("undefine d{n} scope=node"));
        life.hear("Undefined", &[]);
    }
    let before = content(&life);
    assert!(answer(&mut life, &define(8)).contains("all definition slots are in use"));
    assert!(content(&life) == before);
    assert!(answer(&mut life, "start d3").contains("starts from"));
    life.hear("Entered", &["\"d3\""]);
}

#[test]
fn a_definition_that_this_node_has_no_place_for_is_in_the_store_all_the_same() {
    let mut life = beside(&store());
    let begun = life.command(DEFINE);
    assert_eq!(begun, "");
    // The slot is being taken.
    life.pass(100 * MS);
    // The name is taken while the store is written.
    life.command("define d memory=2M kernel=kernel");
    life.until("the answer", |life| life.printed.contains("d is in the image store").then_some(()));
    assert!(life.printed.contains("but not on this node: d is defined already"));
    let mut other = beside(&content(&life));
    assert!(answer(&mut other, "start d").contains("starts from"));
}

#[test]
fn a_damaged_chunk_ends_a_start_and_nothing_else() {
    let whole = store();
    let place = fake_store::chunk_at(&whole, fake_store::digest(&initrd()), 4);
    let mut life = beside(&whole);
    answer(&mut life, DEFINE);
    life.machine.disks[STORE].state().content[place + 7] ^= 1;
    life.command("start d");
    let image = fake_store::digest(&initrd()).short();
    let error = life.hear("Error", &["place: \"d\"", &image, "chunk 4 ", "paging device 3"]);
    assert!(error.contains("image store 0 on ") && error.contains("checksum"), "{error}");
    life.hear("Stopped", &["partition: \"d\"", "how: \"cannot start\""]);
    works(&mut life, 6);
    life.machine.disks[STORE].state().content[place + 7] ^= 1;
    life.until("the stop", |life| life.command("start d").is_empty().then_some(()));
    life.hear("Entered", &["partition: \"d\""]);
}

#[test]
fn a_disk_that_dies_ends_a_start_and_is_used_again_when_it_is_back() {
    let mut life = beside(&store());
    answer(&mut life, DEFINE);
    for after in [0, 1, 4, 7] {
        {
            let mut state = life.machine.disks[STORE].state();
            let request = state.requests + after;
            state.silent_since = None;
            state.fault = Some(FaultPlan { request, kind: FaultKind::LateAnswer });
        }
        life.until("the stop", |life| life.command("start d").is_empty().then_some(()));
        life.hear("Error", &["place: \"d\"", "image store 0 on paging device 3"]);
        life.hear("Stopped", &["partition: \"d\"", "how: \"cannot start\""]);
        works(&mut life, 100 + after);
        assert!(answer(&mut life, "store").contains("error: image store 0 on paging device 3"));
        life.pass(LATE_NS + SECOND_NS);
        life.machine.disks[STORE].state().fault = None;
        life.until("the stop", |life| life.command("start d").is_empty().then_some(()));
        life.hear("Entered", &["partition: \"d\""]);
        life.command("kill d");
        life.hear("Stopped", &["how: \"operator\""]);
    }
}

#[test]
fn a_failed_request_is_made_again() {
    let mut life = beside(&store());
    answer(&mut life, DEFINE);
    let request = life.machine.disks[STORE].state().requests + 5;
    life.machine.disks[STORE].state().fault =
        Some(FaultPlan { request, kind: FaultKind::ErrorOnce });
    life.command("start d");
    life.hear("Entered", &["partition: \"d\""]);
}

#[test]
fn a_partition_goes_while_it_is_loaded() {
    let mut life = beside(&store());
    let before = ledger(&life);
    answer(&mut life, DEFINE);
    for wait in [0, 3, 6, 9, 12, 20] {
        life.command("start d");
        life.until("the start", |life| {
            (life.partition(1).view() == LifecycleView::Loading).then_some(())
        });
        (0..wait).for_each(|_| life.turn());
        life.command("kill d");
        life.hear("Stopped", &["partition: \"d\"", "how: \"operator\""]);
    }
    life.command("start d");
    life.until("the start", |life| {
        (life.partition(1).view() == LifecycleView::Loading).then_some(())
    });
    life.command("kill d");
    life.until("the stop", |life| {
        (life.partition(1).view() == LifecycleView::Stopped).then_some(())
    });
    // While its definition is removed it does not start.
    assert_eq!(life.command("undefine d"), "");
    life.turn();
    assert!(
        life.command("start d").contains("d: its definition in the image store is being written")
    );
    life.hear("Undefined", &["\"d\""]);
    rest(&mut life);
    assert_eq!(ledger(&life), before);
}

#[test]
fn a_store_that_cannot_be_used_stops_no_start() {
    let (mut torn, mut newer, mut half) = (store(), store(), store());
    for copy in [0, 4096] {
        torn[copy + 100] ^= 1;
    }
    newer[8] = 9;
    let seal = crate::mm::crc::crc32c(&newer[..4092]).0.to_le_bytes();
    newer[4092..4096].copy_from_slice(&seal);
    half[16 * 4096 + 50] ^= 1;
    for (content, words) in [
        (torn, ["superblock A", "the checksum is wrong"]),
        (newer, ["superblock A", "version 9 of a newer program"]),
        (half, ["directory A", "the other copy is used"]),
    ] {
        let mut life = beside(&content);
        life.heard = 0;
        life.hear("Error", &["image store 0 on paging device 3", words[0], words[1]]);
        works(&mut life, 9);
    }
}

#[test]
fn there_are_only_so_many_commands_at_a_time() {
    let mut life = beside(&store());
    rest(&mut life);
    life.machine.disks[STORE].state().speed = Some(1 << 20);
    let answers: Vec<_> = (0..6).map(|_| life.command("store")).collect();
    assert_eq!(answers.iter().filter(|answer| answer.contains("are under way")).count(), 2);
    rest(&mut life);
    assert_eq!(life.command("store"), "");
}

#[test]
fn partitions_of_a_store_come_and_go_and_leave_nothing_behind() {
    let mut dice = Dice::new(seed());
    let mut life = beside(&store());
    life.scripts[0].go_on(&(0..64).map(|n| Write(page(n), 1 + n)).collect::<Vec<_>>());
    life.finish();
    life.pass(100 * MS);
    rest(&mut life);
    let before = ledger(&life);
    for cycle in 1..=if is_long() { 500 } else { 60 } {
        let ends = [&[TRIPLE_FAULT][..], &[POWER_OFF], &[RESET], &[]];
        let mut program: Vec<_> =
            (0..u64::from(dice.below(40))).map(|n| Write(page(n), 1 + n)).collect();
        program.extend(ends[dice.below(4) as usize]);
        life.script("d", &[&program]);
        let scope = ["store", "node"][dice.below(2) as usize];
        let line = format!("{DEFINE} dump=off restart=immediate scope={scope}");
        assert_eq!(answer(&mut life, &line), "d: defined\r\n", "cycle {cycle}");
        if scope == "store" && dice.one_in(2) {
            life.command("undefine d scope=node");
            life.hear("Undefined", &[]);
            assert!(answer(&mut life, "start d").contains("starts from"));
        } else {
            life.command("start d");
        }
        let turns = dice.below(80);
        (0..turns).for_each(|_| life.turn());
        if dice.one_in(3) {
            life.command("crash d");
            (0..turns).for_each(|_| life.turn());
        }
        works(&mut life, 1000 + cycle);
        life.command("kill d");
        life.until("the stop", |life| {
            (life.partition(1).view() == LifecycleView::Stopped).then_some(())
        });
        let gone = Arc::downgrade(&life.partition(1));
        life.command("undefine d");
        life.hear("Undefined", &["\"d\""]);
        life.until("the spaces", |life| (ledger(life).has_work == before.has_work).then_some(()));
        assert!(gone.upgrade().is_none(), "cycle {cycle}");
        assert_eq!(ledger(&life), before, "cycle {cycle}");
        life.machine.told.clear();
        life.heard = 0;
    }
}
