//! The guest runs: exits that are answered, pages that come back, halts that end.

use super::*;
use crate::time::Ns;
use crate::virt::{AccessWidth, InjectedEvent};
use GuestStep::*;

/// Registers of the local APIC as MSRs: base, spurious vector, timer, its count and its divisor.
const TIMER_VECTOR: u8 = 0x41;
const APIC_ON: [GuestStep; 4] = [
    WriteMsr(0x1b, 0xfee0_0d00),
    WriteMsr(0x80f, 0x1ff),
    WriteMsr(0x832, TIMER_VECTOR as u64),
    WriteMsr(0x83e, 0b1011),
];
const END_OF_INTERRUPT: GuestStep = WriteMsr(0x80b, 0);

/// Arms the timer: it interrupts after `ns`.
const fn arm(ns: Ns) -> GuestStep {
    WriteMsr(0x838, ns.as_u64())
}

#[test]
fn console_output_reaches_the_line() {
    let program: Vec<_> = b"hello\n".iter().map(|&byte| Out(COM1, byte)).collect();
    let mut life = Life::alone(config("p"), &[&program]);
    life.finish();
    life.turn();
    assert_eq!(life.printed, "hello\n");
}

#[test]
fn lines_of_several_partitions_have_their_names() {
    let script = |text: &str| {
        let program: Vec<_> = text.bytes().map(|byte| Out(COM1, byte)).collect();
        GuestScript::of(&[&program])
    };
    let (p, q) = (script("one\nrest"), script("two\n"));
    let mut life = Life::new(2, &[(config("p"), &p), (config("q"), &q)]);
    life.until("both lines", |_| (p.is_done() && q.is_done()).then_some(()));
    life.pass(100 * MS);
    for line in ["[p] one", "[q] two"] {
        assert!(life.printed.contains(line), "{:?}", life.printed);
    }
    assert!(!life.printed.contains("[p] rest"), "a line is shown when it is whole");
}

#[test]
fn simple_exits_are_answered_and_the_guest_goes_on() {
    let program = [
        In(0x608, AccessWidth::Dword),
        Work(10 * MS),
        In(0x608, AccessWidth::Dword),
        Cpuid(0x4000_0000),
        ReadMsr(0xdead_beef),
        Exit(VmExit::Undefined),
        Exit(VmExit::CacheFlush),
        Read(page(0)),
    ];
    let mut life = Life::alone(config("p"), &[&program]);
    life.finish();
    let record = life.record();
    let [before, after, _, zero] = record.values[..] else { panic!("{:?}", record.values) };
    // The power management timer has 3.58 MHz, and the guest may have waited for its next turn.
    assert!((35_000..45_000).contains(&(after - before)), "{before} {after}");
    assert_eq!(zero, 0);
    let refused = [InjectedEvent::general_protection(), InjectedEvent::invalid_opcode()];
    assert_eq!(record.delivered, refused);
}

#[test]
fn a_missing_page_parks_the_guest_until_it_is_back() {
    let writes: Vec<_> = (0..8).map(|n| Write(page(n), 100 + n)).collect();
    let mut life = Life::new(1, &[(config("p"), &GuestScript::of(&[&writes]))]);
    life.finish();
    life.command("evict p 512");
    let paged = |life: &Life| {
        let number = life.shared().object().expect("it runs");
        life.host().objects.by_number(number).expect("its memory").counts().paged
    };
    life.until("the eviction", |life| (paged(life) >= 8).then_some(()));
    let ins = life.host().pager.counters().page_ins;
    // A page takes a tenth of a second.
    life.machine.disks[0].state().speed = Some(40_960);
    life.scripts[0].go_on(&[Read(page(3))]);
    life.pass(30 * MS);
    let (entries, faults) = (life.record().entries, life.record().faults);
    life.pass(30 * MS);
    assert_eq!(life.record().entries, entries, "it is not entered meanwhile");
    life.finish();
    assert_eq!(life.record().values, [103]);
    assert_eq!(life.record().faults, faults, "one fault a page");
    assert_eq!(life.host().pager.counters().page_ins, ins + 1);
    life.scripts[0].go_on(&(0..8).map(|n| Read(page(n))).collect::<Vec<_>>());
    life.finish();
    assert_eq!(life.record().values[1..], [100, 101, 102, 103, 104, 105, 106, 107]);
}

#[test]
fn a_halt_ends_when_the_timer_interrupts_and_no_earlier() {
    let mut life = Life::alone(config("p"), &[&APIC_ON]);
    life.finish();
    let before = time::now_ns();
    life.scripts[0].go_on(&[arm(50 * MS), Sti, Halt, END_OF_INTERRUPT]);
    life.pass(40 * MS);
    let entries = life.record().entries;
    assert_eq!(life.record().delivered, []);
    life.finish();
    assert_eq!(life.record().delivered, [InjectedEvent::interrupt(TIMER_VECTOR)]);
    assert_eq!(life.record().entries, entries + 2, "the wake-up, and the end of the interrupt");
    let took = time::now_ns() - before;
    assert!((50 * MS..70 * MS).contains(&took), "{took:?}");
}

#[test]
fn an_interrupt_waits_until_the_guest_takes_it() {
    let mut life = Life::alone(config("p"), &[&APIC_ON]);
    life.finish();
    life.scripts[0].go_on(&[arm(MS), Work(20 * MS), Cpuid(0)]);
    life.finish();
    assert_eq!(life.record().delivered, [], "interrupts are off");
    life.scripts[0].go_on(&[Sti, Work(MS)]);
    life.finish();
    assert_eq!(life.record().delivered, [InjectedEvent::interrupt(TIMER_VECTOR)]);
}

#[test]
fn a_halt_ends_when_a_key_is_typed() {
    // The local APIC on; the I/O APIC's input 4 sends vector 52 to it; COM1 reports bytes.
    let program = [
        Store(Gpa::new(0xfee0_00f0), 0x1ff),
        Store(Gpa::new(0xfec0_0000), 0x18),
        Store(Gpa::new(0xfec0_0010), 52),
        Out(COM1 + 1, 1),
        Out(COM1 + 4, 8),
        Sti,
        Halt,
        In(COM1, AccessWidth::Byte),
    ];
    let mut life = Life::alone(config("p"), &[&program]);
    life.hear("Entered", &[]);
    life.pass(100 * MS);
    assert!(!life.scripts[0].is_done(), "it waits for a key");
    assert!(life.shared().type_all(b"k"));
    life.host().poke(PartitionId::FIRST);
    life.finish();
    let record = life.record();
    assert_eq!(record.delivered, [InjectedEvent::interrupt(52)]);
    assert_eq!(record.values, [u64::from(b'k')]);
}

#[test]
fn a_guest_that_stood_still_for_long_is_told() {
    let program = [WriteMsr(SYSTEM_TIME, page(0).as_u64() | 1)];
    let mut life = Life::alone(config("p"), &[&program]);
    life.finish();
    let flags = Gpa::new(page(0).as_u64() + 24);
    life.scripts[0].go_on(&[Read(flags)]);
    life.finish();
    life.machine.now_ns = time::now_ns() + 5 * SECOND_NS;
    life.turn();
    life.scripts[0].go_on(&[Read(flags)]);
    life.finish();
    let stopped: Vec<_> = life.record().values.iter().map(|word| word >> 40 & 2 != 0).collect();
    assert_eq!(stopped, [false, true]);
}

#[test]
fn two_guests_share_the_cpu() {
    let (p, q) = (GuestScript::of(&[&[Work(SECOND_NS)]]), GuestScript::of(&[&[Work(SECOND_NS)]]));
    let mut life = Life::new(2, &[(config("p"), &p), (config("q"), &q)]);
    life.until("both entries", |_| {
        (p.record().entries > 0 && q.record().entries > 0).then_some(())
    });
    life.pass(SECOND_NS);
    let entries = [p.record().entries, q.record().entries];
    assert!(entries[0].abs_diff(entries[1]) < entries[0] / 4, "{entries:?}");
    assert!(!p.is_done() && !q.is_done());
    life.pass(SECOND_NS + SECOND_NS / 2);
    assert!(p.is_done() && q.is_done());
}
