//! What a guest can measure by its time-stamp counter: exits (E1, E4), first writes (F1) and page-ins (P1).
//!
//! Each figure is a line `bench ID MINIMUM AVERAGE COUNT` on the log, in ticks, the reading of the counter included. Before the
//! page-ins the kernel says `evict N` and waits for a byte on its console; by then the harness has had its pages evicted.
//! `count=` sets how often each operation is measured; with `crash=1` the kernel only
//! writes to all its memory and crashes (R1), with `touch=1` it stays.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
use guests::{Machine, Verdict, instr, pages::Pages};

/// Rounds before the first that counts.
#[cfg(target_os = "none")]
const WARM_UPS: u64 = 64;

#[cfg(target_os = "none")]
fn run(machine: &Machine) -> Verdict {
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

    let mut pages = Pages::take(machine, u64::MAX);
    // Of the second part only every other page is used: a page-in finds no neighbour to bring along.
    let (alone, together) = (count, 3 * count);
    guests::check!(pages.count() >= together + count, "{} pages are too few", pages.count());
    measure("F1", count, |n| pages.page(n)[0] = n | 1);
    (0..count).for_each(|n| pages.page(alone + 2 * n)[0] = n | 1);
    (0..count).for_each(|n| pages.page(together + n)[0] = n | 1);

    guests::log!("evict {}", 3 * count);
    wait_for_key();
    let mut wrong = 0;
    measure("P1", count, |n| wrong += u64::from(pages.page(alone + 2 * n)[0] != n | 1));
    let start = instr::tsc();
    (0..count).for_each(|n| wrong += u64::from(pages.page(together + n)[0] != n | 1));
    let average = (instr::tsc() - start) / count;
    guests::log!("bench P1-around {average} {average} {count}");
    guests::check!(wrong == 0, "{wrong} pages came back wrong");
    guests::pass()
}

/// Writes to every page of the free memory.
#[cfg(target_os = "none")]
fn touch(machine: &Machine) {
    let mut pages = Pages::take(machine, u64::MAX);
    (0..pages.count()).for_each(|n| pages.page(n)[0] = n | 1);
}

#[cfg(target_os = "none")]
fn wait_for_key() {
    while instr::inb(LINE_STATUS) & DATA_READY == 0 {
        instr::pause();
    }
}

/// COM1's line status, and its bit for a byte that waits.
#[cfg(target_os = "none")]
const LINE_STATUS: u16 = 0x3fd;
#[cfg(target_os = "none")]
const DATA_READY: u8 = 1;

#[cfg(target_os = "none")]
fn measure(id: &str, count: u64, mut operation: impl FnMut(u64)) {
    let (mut least, mut total) = (u64::MAX, 0);
    for n in 0..count {
        let start = instr::tsc();
        operation(n);
        let spent = instr::tsc() - start;
        if n >= WARM_UPS {
            least = least.min(spent);
            total += spent;
        }
    }
    let counted = count - WARM_UPS;
    guests::log!("bench {id} {least} {} {counted}", total / counted);
}
