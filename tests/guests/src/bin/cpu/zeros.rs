//! Pages that were only read: every access that is not a plain read must get a page of its own.
//!
//! Every page here is first read as data, so it is mapped to the hypervisor's shared frame of
//! zeros.

use super::{DONE, RAX, RCX, RDI, RDX, RSI, expect, try_with};
use guests::pages::FreePages;

const PAGE_FAULT: u64 = 14;
/// An unmapped address: the second entry of the root table.
const ELSEWHERE: u64 = 1 << 39;
const PRESENT_WRITABLE: u64 = 0b11;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LINE_STATUS: u64 = 0x3fd;

/// Reads a quadword; `Err` is the vector that ended it.
fn load(at: u64) -> Result<u64, u64> {
    let outcome = try_with(&[0x48, 0x8b, 0x06], &[(RSI, at)]);
    if outcome.vector == DONE { Ok(outcome.rax) } else { Err(outcome.vector) }
}

fn store(at: u64, value: u64) -> Result<(), u64> {
    let outcome = try_with(&[0x48, 0x89, 0x06], &[(RSI, at), (RAX, value)]);
    if outcome.vector == DONE { Ok(()) } else { Err(outcome.vector) }
}

/// The addresses of untouched pages, in order; each page is read when it is taken.
struct Fresh {
    pages: FreePages,
    next: u64,
}

impl Fresh {
    fn take(&mut self) -> u64 {
        let at = self.pages.address(self.next);
        self.next += 1;
        for offset in [0, 0x800, 0xff8] {
            expect(format_args!("a page never touched, at {offset:#x}"), load(at + offset), Ok(0));
        }
        at
    }
}

/// A write to one of two pages must not appear in the other.
fn own_page(fresh: &mut Fresh) {
    let (one, other) = (fresh.take(), fresh.take());
    expect(format_args!("a write to a page that was read"), store(one + 8, 0x1234), Ok(()));
    expect(
        format_args!("the page that was written"),
        (load(one), load(one + 8)),
        (Ok(0), Ok(0x1234)),
    );
    expect(format_args!("the other page"), load(other + 8), Ok(0));
}

/// ADD [RAX], AL at the end of the page, RET at the beginning of the next one.
fn fetched(fresh: &mut Fresh) {
    let (page, next, scratch) = (fresh.take(), fresh.take(), fresh.take());
    expect(format_args!("a RET is written"), store(next, 0xc3), Ok(()));
    let outcome = try_with(&[0xff, 0xd6], &[(RSI, page + 0xffe), (RAX, scratch + 1)]);
    expect(format_args!("zeros are fetched"), (outcome.vector, load(scratch)), (DONE, Ok(0x100)));
    expect(format_args!("a page that was fetched"), load(page), Ok(0));
}

/// REP INSB and REP OUTSB, whose data the hypervisor copies.
fn copied(fresh: &mut Fresh) {
    let (page, source) = (fresh.take(), fresh.take());
    let outcome = try_with(&[0xf3, 0x6c], &[(RDI, page + 0xffc), (RDX, LINE_STATUS), (RCX, 4)]);
    let found = load(page + 0xff8).map(|word| (word as u32, word >> 32 != 0));
    expect(
        format_args!("REP INSB"),
        (outcome.vector, outcome.rcx, found),
        (DONE, 0, Ok((0, true))),
    );
    let outcome = try_with(&[0xf3, 0x6e], &[(RSI, source), (RDX, 0x80), (RCX, 4)]);
    expect(format_args!("REP OUTSB"), (outcome.vector, outcome.rcx), (DONE, 0));
    expect(format_args!("what was copied from"), load(source), Ok(0));
}

/// Page tables of zeros translate nothing. After a write they get A and D, and both addresses of a
/// page show the same content.
fn tables(fresh: &mut Fresh) {
    let [upper, middle, lower, page] = core::array::from_fn(|_| fresh.take());
    let root = guests::instr::control_registers().1 & !0xfff;
    expect(format_args!("a root entry"), store(root + 8, upper | PRESENT_WRITABLE), Ok(()));
    for (table, below) in [(upper, middle), (middle, lower), (lower, page)] {
        expect(format_args!("a walk over zeros"), load(ELSEWHERE), Err(PAGE_FAULT));
        expect(format_args!("a table entry"), store(table, below | PRESENT_WRITABLE), Ok(()));
    }
    expect(format_args!("a page at two addresses"), (load(ELSEWHERE), load(page)), (Ok(0), Ok(0)));
    for table in [upper, middle, lower] {
        expect(
            format_args!("A of an entry"),
            load(table).map(|entry| entry & ACCESSED),
            Ok(ACCESSED),
        );
    }
    expect(format_args!("a write at its own address"), store(page, 5), Ok(()));
    expect(format_args!("seen at the other"), load(ELSEWHERE), Ok(5));
    expect(format_args!("a write at the other"), store(ELSEWHERE + 8, 6), Ok(()));
    expect(format_args!("seen at its own"), load(page + 8), Ok(6));
    expect(format_args!("D of the entry"), load(lower).map(|entry| entry & DIRTY), Ok(DIRTY));
    expect(format_args!("the root entry is cleared"), store(root + 8, 0), Ok(()));
}

/// Runs the checks, in pages of the free memory.
pub(crate) fn check(machine: &guests::Machine) {
    let mut fresh = Fresh { pages: FreePages::take(machine, 64), next: 0 };
    own_page(&mut fresh);
    fetched(&mut fresh);
    copied(&mut fresh);
    tables(&mut fresh);
    let last = fresh.take();
    expect(format_args!("zeros at the end"), load(last), Ok(0));
}
