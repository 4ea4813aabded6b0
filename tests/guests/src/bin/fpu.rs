//! x87, SSE and AVX registers, MXCSR and XCR0 belong to the guest. They survive exits on the fast
//! path and on the slow path, faults that wait for a page, and other vCPUs with other contents on
//! the same CPU. `rounds=`, `key=`, `states=` (the components to enable, 7 for all), `pages=` read
//! in each round. The rounds begin with a key on the console, so that several kernels share the CPU
//! whenever each of them was ready.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
use guests::{
    fpu::{self, FpuArea},
    instr,
    pages::FreePages,
};

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> guests::TestVerdict {
    let option = |name, default| machine.option(name).unwrap_or(default);
    let (rounds, key, each) = (option("rounds", 1000), option("key", 0x5eed), option("pages", 8));
    let Some(xcr0) = fpu::enable(option("states", 7)) else { return guests::fail("no XSAVE") };
    let mut pages = FreePages::take(machine, u64::MAX);
    let count = pages.count();
    (0..count).for_each(|index| pages.fill(key, index, 0));
    guests::log!("XCR0 {xcr0:#x}, ready");
    while instr::inb(LINE_STATUS) & DATA_READY == 0 {}

    let mut found = FpuArea::new();
    for round in 0..rounds {
        let expected = FpuArea::of(key ^ round << 16, xcr0);
        expected.load();
        exits();
        for index in (0..each).map(|n| (round * each + n) % count) {
            guests::check!(pages.check(key, index, 0).is_ok(), "page {index}");
        }
        found.save();
        if let Err(difference) = found.expect(&expected, xcr0) {
            guests::log!("round {round}: {difference}");
            return guests::fail("the extended state has changed");
        }
        guests::check!(instr::xcr0() == xcr0, "XCR0 is {:#x}", instr::xcr0());
    }
    guests::log!("rounds {rounds} pages {count} wrong 0");
    guests::pass()
}

#[cfg(target_os = "none")]
const LINE_STATUS: u16 = 0x3fd;
#[cfg(target_os = "none")]
const DATA_READY: u8 = 1;

/// Exits that the hypervisor answers on its fast path, and others that take the slow path.
#[cfg(target_os = "none")]
fn exits() {
    const APIC_BASE: u32 = 0x1b;
    instr::cpuid(0, 0);
    instr::cpuid(1, 0);
    instr::inb(LINE_STATUS);
    instr::rdmsr(APIC_BASE);
}
