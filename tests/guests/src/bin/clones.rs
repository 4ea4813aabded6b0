//! The base of clones: fills `pages=` pages with `key=`, and waits at its first serial line. A
//! clone gets a letter there: it checks all pages, writes every third one with a key of its own,
//! and checks all of them again; at each further letter it only checks. A clone says that it is
//! awake as soon as it runs.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
use guests::instr::{inb, pause};
#[cfg(target_os = "none")]
use guests::pages::{FreePages, generation};

#[cfg(target_os = "none")]
const DATA: u16 = 0x3f8;
#[cfg(target_os = "none")]
const LINE_STATUS: u16 = 0x3fd;

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> guests::TestVerdict {
    let option = |name, default| machine.option(name).unwrap_or(default);
    let key = option("key", 0xba5e);
    let mut pages = FreePages::take(machine, option("pages", 400));
    let count = pages.count();
    (0..count).for_each(|index| pages.fill(key, index, 0));
    guests::log!("filled pages {count}");
    let mut own = None;
    loop {
        let letter = u64::from(letter());
        let key_of = |own: Option<u64>, index: u64| match own {
            Some(own) if index % 3 == own % 3 => key << 16 | own,
            _ => key,
        };
        for (writes, of) in [(own.is_none(), own), (false, own.or(Some(letter)))] {
            for index in 0..count {
                if let Err(wrong) = pages.check(key_of(of, index), index, 0) {
                    guests::log!("page {index} at {:#x}: {wrong:?}", pages.address(index));
                    return guests::fail("a page is wrong");
                }
                if writes && index % 3 == letter % 3 {
                    pages.fill(key_of(Some(letter), index), index, 0);
                }
            }
        }
        own = own.or(Some(letter));
        guests::log!("clone {letter} pages {count} wrong 0");
    }
}

#[cfg(target_os = "none")]
fn letter() -> u8 {
    let born = generation();
    let mut has_told = false;
    while inb(LINE_STATUS) & 1 == 0 {
        if !has_told && generation() != born {
            has_told = true;
            guests::log!("awake");
        }
        pause();
    }
    inb(DATA)
}
