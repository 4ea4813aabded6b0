//! Fills all free memory with keyed pages and verifies them, pass after pass: `passes=`, `limit=`
//! (pages), `key=`; `rewrite=N` rewrites each N-th page in every pass. `crash=1` ends the first
//! incarnation with a triple fault instead of a pass; `spin=1` stays busy instead of passing,
//! without touching memory.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> guests::TestVerdict {
    let option = |name, default| machine.option(name).unwrap_or(default);
    let (key, passes, rewrite) = (option("key", 0x5eed), option("passes", 2), option("rewrite", 8));
    let mut pages = guests::pages::FreePages::take(machine, option("limit", u64::MAX));
    (0..pages.count()).for_each(|index| pages.fill(key, index, 0));
    guests::log!("filled pages {}", pages.count());

    for pass in 0..passes {
        for index in 0..pages.count() {
            // A page was rewritten in each earlier pass in which it was due.
            let written = |p: u64| u64::from(rewrite > 0 && (index + p).is_multiple_of(rewrite));
            let generation = (0..pass).map(written).sum();
            if let Err(wrong) = pages.check(key, index, generation) {
                guests::log!("page {index} at {:#x}: {wrong:?}", pages.address(index));
                return guests::fail("a page is wrong");
            }
            if written(pass) == 1 {
                pages.fill(key, index, generation + 1);
            }
        }
        guests::log!("pass {} pages {} wrong 0", pass + 1, pages.count());
    }
    if option("crash", 0) == 1 && option("tidepool.incarnation", 1) == 1 {
        guests::instr::triple_fault();
    }
    if option("spin", 0) == 1 {
        guests::log!("spinning");
        loop {
            guests::instr::pause();
        }
    }
    guests::pass()
}
