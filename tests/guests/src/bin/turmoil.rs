//! Fills pages, rewrites them in an order determined by seed and incarnation, and crashes: a reader
//! of the dump knows the content of each page. `key=`, `seed=`, `pages=`, `writes=` (least number
//! of rewrites), `report=` (rewrites between two lines of the log).
//!
//! The pages behind the keyed ones count the rewrites of each page, so that a stale page is
//! detected at its next rewrite.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
use guests::{pages::FreePages, worker::turmoil::Turmoil};

/// Counters in a page.
#[cfg(target_os = "none")]
const COUNTERS: u64 = 512;
/// Default number of rewrites between two lines of the log.
#[cfg(target_os = "none")]
const REPORT: u64 = 1024;

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> guests::TestVerdict {
    let option = |name, default| machine.option(name).unwrap_or(default);
    let (key, count, incarnation) =
        (option("key", 0x5eed), option("pages", 512), option("tidepool.incarnation", 1));
    let mut pages = FreePages::take(machine, count + count.div_ceil(COUNTERS));
    guests::check!(pages.count() > count, "only {} pages", pages.count());
    guests::log!("first page at {:#x}", pages.address(0));
    let turmoil = Turmoil::new(option("seed", 1), incarnation, count, option("writes", 1000));
    (0..count).for_each(|index| pages.fill(key, index, 0));
    let report = option("report", REPORT).max(1);
    guests::log!("filled pages {count} writes {}", turmoil.left());
    for (number, index) in (1_u64..).zip(turmoil) {
        let generation = *counter(&mut pages, count, index);
        if let Err(wrong) = pages.check(key, index, generation) {
            guests::log!("page {index}: {wrong:?}");
            return guests::fail("a page is wrong");
        }
        pages.fill(key, index, generation + 1);
        *counter(&mut pages, count, index) += 1;
        if number.is_multiple_of(report) {
            guests::log!("writes {number} wrong 0");
        }
    }
    guests::instr::triple_fault()
}

#[cfg(target_os = "none")]
fn counter(pages: &mut FreePages, count: u64, index: u64) -> &mut u64 {
    &mut pages.page(count + index / COUNTERS)[(index % COUNTERS) as usize]
}
