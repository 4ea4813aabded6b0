//! The figures that a guest can measure by its time-stamp counter: exits (E1, E3 to E8), first
//! accesses (F1, F3) and page-ins (P1).
//!
//! Each figure is a line `bench ID MINIMUM AVERAGE COUNT` in the log, in ticks, including the read
//! of the counter. Before the page-ins the kernel logs `evict N` and waits for a byte on its
//! console, which the harness sends once the pages are evicted. `count=` sets the number of
//! repetitions of each operation. With `crash=1` the kernel only writes to all its memory and
//! crashes (R1); with `touch=1` it keeps running instead.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(target_os = "none")]
use guests::{
    Machine, TestVerdict, instr,
    pages::FreePages,
    trap::{self, Handled, TrapFrame},
};

/// Rounds before the first measured one.
#[cfg(target_os = "none")]
const WARM_UPS: u64 = 64;

#[cfg(target_os = "none")]
fn run(machine: &Machine) -> TestVerdict {
    if machine.option("crash") == Some(1) {
        touch(machine);
        instr::triple_fault();
    }
    if machine.option("touch") == Some(1) {
        touch(machine);
        guests::log!("touched");
        wait_for_key();
        return guests::pass();
    }
    let count = WARM_UPS + machine.option("count").unwrap_or(4096);
    measure("E1", count, |_| {
        instr::cpuid(0, 0);
    });
    measure("E1-prefixed", count, |_| instr::cpuid_prefixed());
    measure("E4", count, |_| {
        instr::inb(LINE_STATUS);
    });

    interrupts(count);
    measure("E5", count, |_| instr::write_io_apic(0x10));

    let mut pages = FreePages::take(machine, u64::MAX);
    // Only every other page of the second part is used, so that a page-in finds no neighbour for
    // read-around.
    let (alone, together) = (count, 3 * count);
    let untouched = together + count;
    guests::check!(pages.count() >= untouched + count, "{} pages are too few", pages.count());
    measure("F1", count, |n| pages.page(n)[0] = n | 1);
    let mut seen = 0;
    measure("F3", count, |n| seen |= pages.page(untouched + n)[0]);
    guests::check!(seen == 0, "first reads see zeros");
    (0..count).for_each(|n| pages.page(alone + 2 * n)[0] = n | 1);
    (0..count).for_each(|n| pages.page(together + n)[0] = n | 1);

    guests::log!("evict {}", 3 * count);
    wait_for_key();
    let mut wrong = 0;
    // Far apart, so that no page is read ahead of its access.
    measure_at("P1", (0..count).map(|n| n * SCATTER % count), |n| {
        wrong += u64::from(pages.page(alone + 2 * n)[0] != n | 1);
    });
    let start = instr::tsc();
    (0..count).for_each(|n| wrong += u64::from(pages.page(together + n)[0] != n | 1));
    let average = (instr::tsc() - start) / count;
    guests::log!("bench P1-around {average} {average} {count}");
    guests::check!(wrong == 0, "{wrong} pages came back wrong");
    guests::pass()
}

/// Time at which the last interrupt reached its handler; 0 before.
#[cfg(target_os = "none")]
static CAME: AtomicU64 = AtomicU64::new(0);
#[cfg(target_os = "none")]
const VECTOR: u8 = 0x30;

#[cfg(target_os = "none")]
fn on_interrupt(frame: &mut TrapFrame) -> Handled {
    if frame.vector != VECTOR.into() {
        return Handled::No;
    }
    CAME.store(instr::tsc(), Ordering::SeqCst);
    instr::write_x2apic(EOI, 0);
    Handled::Yes
}

#[cfg(target_os = "none")]
const TPR: u32 = 0x808;
#[cfg(target_os = "none")]
const EOI: u32 = 0x80b;
#[cfg(target_os = "none")]
const SPURIOUS: u32 = 0x80f;
#[cfg(target_os = "none")]
const TIMER: u32 = 0x832;
#[cfg(target_os = "none")]
const SELF_IPI: u32 = 0x83f;
#[cfg(target_os = "none")]
const DEADLINE: u32 = 0x6e0;
#[cfg(target_os = "none")]
const APIC_BASE: u32 = 0x1b;

/// MSR exits, self-IPIs, timers.
#[cfg(target_os = "none")]
fn interrupts(count: u64) {
    trap::handle(on_interrupt);
    instr::write_x2apic(APIC_BASE, u64::from(instr::rdmsr(APIC_BASE) as u32 | 0xc00));
    instr::write_x2apic(SPURIOUS, 0x1ff);
    measure("E3", count, |_| drop_value(instr::rdmsr(APIC_BASE)));
    measure("E3-TPR", count, |_| instr::write_x2apic(TPR, 0));
    measure("E3-EOI", count, |_| instr::write_x2apic(EOI, 0));
    let came = || CAME.swap(0, Ordering::SeqCst) != 0;
    instr::sti();
    measure("E6", count, |_| {
        instr::write_x2apic(SELF_IPI, VECTOR.into());
        while !came() {
            instr::pause();
        }
    });
    instr::cli();
    measure("E6-STI", count, |_| {
        instr::write_x2apic(SELF_IPI, VECTOR.into());
        instr::sti();
        while !came() {
            instr::pause();
        }
        instr::cli();
    });
    measure("E8", count, |_| {
        instr::write_x2apic(SELF_IPI, VECTOR.into());
        while !came() {
            instr::sti_hlt();
        }
    });
    instr::write_x2apic(TIMER, 2 << 17 | u64::from(VECTOR));
    lateness("E7", instr::pause);
    lateness("E7-HLT", instr::sti_hlt);
}

#[cfg(target_os = "none")]
fn drop_value(_: u64) {}

/// Measures the time from a deadline to its interrupt's handler, while the guest waits by `wait`.
#[cfg(target_os = "none")]
fn lateness(id: &str, wait: fn()) {
    const AHEAD: u64 = 20_000;
    const COUNT: u64 = 1024;
    let (mut least, mut total) = (u64::MAX, 0);
    for n in 0..WARM_UPS + COUNT {
        CAME.store(0, Ordering::SeqCst);
        let deadline = instr::tsc() + AHEAD;
        instr::write_x2apic(DEADLINE, deadline);
        instr::sti();
        // No STI here: QEMU's emulation loses the STI shadow at an exit in it, and the interrupt
        // would be delayed until the next exit.
        while CAME.load(Ordering::SeqCst) == 0 {
            wait();
        }
        instr::cli();
        let came = CAME.load(Ordering::SeqCst);
        if came < deadline {
            guests::log!("{id} is early by {}", deadline - came);
        } else if n >= WARM_UPS {
            least = least.min(came - deadline);
            total += came - deadline;
        }
    }
    guests::log!("bench {id} {least} {} {COUNT}", total / COUNT);
}

/// Writes to every page of the free memory.
#[cfg(target_os = "none")]
fn touch(machine: &Machine) {
    let mut pages = FreePages::take(machine, u64::MAX);
    (0..pages.count()).for_each(|n| pages.page(n)[0] = n | 1);
}

#[cfg(target_os = "none")]
fn wait_for_key() {
    while instr::inb(LINE_STATUS) & DATA_READY == 0 {
        instr::pause();
    }
}

/// A prime that divides no used count: its multiples visit every page, each farther from the last
/// than read-around reaches.
#[cfg(target_os = "none")]
const SCATTER: u64 = 17;
/// COM1's line status, and its bit for a received byte.
#[cfg(target_os = "none")]
const LINE_STATUS: u16 = 0x3fd;
#[cfg(target_os = "none")]
const DATA_READY: u8 = 1;

#[cfg(target_os = "none")]
fn measure(id: &str, count: u64, operation: impl FnMut(u64)) {
    measure_at(id, 0..count, operation);
}

/// As `measure`, at given places; the time to find a place is not measured.
#[cfg(target_os = "none")]
fn measure_at(id: &str, places: impl Iterator<Item = u64>, mut operation: impl FnMut(u64)) {
    let (mut least, mut total, mut count) = (u64::MAX, 0, 0);
    for place in places {
        let start = instr::tsc();
        operation(place);
        let spent = instr::tsc() - start;
        count += 1;
        if count > WARM_UPS {
            least = least.min(spent);
            total += spent;
        }
    }
    let counted = count - WARM_UPS;
    guests::log!("bench {id} {least} {} {counted}", total / counted);
}
