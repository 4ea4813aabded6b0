//! Brings its pages into known states, then obeys the keys of its console.
//!
//! `paged=N` pages are filled. At a key `dirty=N` further pages are filled, and `zeros=N` are
//! written with zeros after other contents. `far=N` pages are filled together with the first ones,
//! evenly spread over the memory above 4 GiB. The rest is never touched. Then: `v` verifies, `c`
//! crashes, `r` resets, `p` ends.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
use guests::instr::{inb, outb, pause};

#[cfg(target_os = "none")]
const KEY: u64 = 0x5747;

/// Index of the first far page.
#[cfg(target_os = "none")]
const FAR: u64 = 1 << 32;

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> guests::TestVerdict {
    let option = |name| machine.option(name).unwrap_or(0);
    let (paged, dirty, zeros, far) =
        (option("paged"), option("dirty"), option("zeros"), option("far"));
    let mut pages = guests::pages::FreePages::take(machine, u64::MAX);
    guests::check!(pages.count() >= paged + dirty + zeros, "{} pages are too few", pages.count());
    guests::log!("first page at {:#x}", pages.address(0));

    (0..paged).for_each(|index| pages.fill(KEY, index, 0));
    let mut far_pages = guests::pages::FreePages::far(machine, far);
    guests::check!(far_pages.count() == far, "no memory above 4 GiB for {far} pages");
    (0..far).for_each(|n| far_pages.fill_as(KEY, n, FAR + n));
    guests::log!("filled {paged}");
    key();
    (paged..paged + dirty).for_each(|index| pages.fill(KEY, index, 0));
    for index in paged + dirty..paged + dirty + zeros {
        pages.fill(KEY, index, 0);
        pages.page(index).fill(0);
    }
    guests::log!("ready");
    loop {
        match key() {
            b'v' => {
                let wrong =
                    (0..paged + dirty).filter(|&index| pages.check(KEY, index, 0).is_err()).count();
                let far_wrong =
                    (0..far).filter(|&n| far_pages.check_as(KEY, n, FAR + n).is_err()).count();
                guests::log!("wrong {}", wrong + far_wrong);
            }
            b'c' => guests::instr::triple_fault(),
            b'r' => outb(0x64, 0xfe),
            b'p' => return guests::pass(),
            _ => {}
        }
    }
}

/// Waits for a key.
#[cfg(target_os = "none")]
fn key() -> u8 {
    const DATA: u16 = 0x3f8;
    const LINE_STATUS: u16 = 0x3fd;
    while inb(LINE_STATUS) & 1 == 0 {
        pause();
    }
    inb(DATA)
}
