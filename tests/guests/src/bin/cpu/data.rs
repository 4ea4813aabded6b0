//! Breakpoints on data and on ports, at accesses that the hypervisor carries out. SDM 3B "Debug
//! Registers", "Data Memory and I/O Breakpoint Exception Conditions". They fire under QEMU's
//! emulation too, where no other breakpoints fire.

use super::{DONE, RAX, RCX, RDI, RDX, RSI, expect};
use crate::traps::{DR7_OFF, write_dr};
use core::sync::atomic::{AtomicU64, Ordering};
use guests::attempt::{REGISTERS, observe, place};
use guests::instr::{self, control_registers};
use guests::trap::{Handled, TrapFrame};

const DEBUG: u64 = 1;
const DEBUG_EXTENSIONS: u64 = 1 << 3;
const SINGLE_STEP: u64 = 1 << 14;

/// Registers of the local APIC, and an unassigned address.
const LOCAL_APIC: u64 = 0xfee0_0000;
const ID: u64 = LOCAL_APIC + 0x20;
const PRIORITY: u64 = LOCAL_APIC + 0x80;
const EMPTY: u64 = 0xc000_0000;

/// Values of the R/W and LEN fields of DR7.
const WRITES: u64 = 1;
const PORTS: u64 = 2;
const ACCESSES: u64 = 3;
const BYTE: u64 = 0;
const WORD: u64 = 1 << 2;
const QWORD: u64 = 2 << 2;
const DWORD: u64 = 3 << 2;

static HITS: AtomicU64 = AtomicU64::new(0);
static HIT_AT: AtomicU64 = AtomicU64::new(0);
static COUNTER: AtomicU64 = AtomicU64::new(0);
static CAUSES: AtomicU64 = AtomicU64::new(0);
static BUFFER: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Records a debug exception of a breakpoint; a single step alone is ignored.
fn note(frame: &mut TrapFrame) -> Handled {
    if frame.vector != DEBUG {
        return Handled::No;
    }
    let causes = instr::take_dr6() & 0x600f;
    if causes & 0xf != 0 {
        HITS.fetch_add(1, Ordering::SeqCst);
        HIT_AT.store(frame.rip.wrapping_sub(place()), Ordering::SeqCst);
        COUNTER.store(frame.rcx, Ordering::SeqCst);
        CAUSES.store(causes, Ordering::SeqCst);
    }
    Handled::Yes
}

/// A breakpoint: its number, its kind and length, its address.
type Breakpoint = (u8, u64, u64);

/// Runs `code` under breakpoints; `wanted` is the offset of the expected exception and DR6's bits,
/// if one is expected.
fn under(
    name: &str,
    breakpoints: &[Breakpoint],
    code: &[u8],
    set: &[(usize, u64)],
    wanted: Option<(u64, u64)>,
) {
    let mut registers = [0; REGISTERS];
    set.iter().for_each(|&(register, value)| registers[register] = value);
    let mut dr7 = DR7_OFF;
    for &(number, kind, at) in breakpoints {
        write_dr(number, at);
        dr7 |= 1 << (2 * number) | kind << (16 + 4 * number);
    }
    HITS.store(0, Ordering::SeqCst);
    instr::take_dr6();
    write_dr(7, dr7);
    let outcome = observe(&registers, code, note);
    write_dr(7, DR7_OFF);
    let hits = HITS.load(Ordering::SeqCst);
    expect(
        format_args!("{name} ends, with so many exceptions"),
        (outcome.vector, hits),
        (DONE, u64::from(wanted.is_some())),
    );
    if let Some((at, causes)) = wanted {
        let found = (HIT_AT.load(Ordering::SeqCst), CAUSES.load(Ordering::SeqCst));
        expect(format_args!("{name}: where, DR6"), found, (at, causes));
    }
}

/// mov eax, [rsi]
const READ: &[u8] = &[0x8b, 0x06];
/// mov [rsi], eax
const WRITE: &[u8] = &[0x89, 0x06];

fn data() {
    let at = |address| [(RSI, address)];
    let hit = Some((2, 1));
    under("a read under reads and writes", &[(0, ACCESSES | DWORD, ID)], READ, &at(ID), hit);
    under("a read under writes", &[(0, WRITES | DWORD, ID)], READ, &at(ID), None);
    under("a write under writes", &[(0, WRITES | DWORD, PRIORITY)], WRITE, &at(PRIORITY), hit);
    under(
        "a write under reads and writes",
        &[(0, ACCESSES | DWORD, PRIORITY)],
        WRITE,
        &at(PRIORITY),
        hit,
    );
    under("a read under ports", &[(0, PORTS | DWORD, ID)], READ, &at(ID), None);
    // or dword [rsi], 0; mov eax, [rsi + rcx * 8 - 8]
    under(
        "a read and a write",
        &[(0, WRITES | DWORD, PRIORITY)],
        &[0x83, 0x0e, 0],
        &at(PRIORITY),
        Some((3, 1)),
    );
    let scaled = [(RSI, ID - 8), (RCX, 2)];
    under(
        "an address of several parts",
        &[(1, ACCESSES | DWORD, ID)],
        &[0x8b, 0x44, 0xce, 0xf8],
        &scaled,
        Some((4, 2)),
    );
    under("the last byte", &[(0, ACCESSES | BYTE, ID + 3)], READ, &at(ID), hit);
    under("the byte behind", &[(0, ACCESSES | BYTE, ID + 4)], READ, &at(ID), None);
    under("an address that is not aligned", &[(0, ACCESSES | DWORD, ID + 2)], READ, &at(ID), hit);
    under("a word, not aligned", &[(0, ACCESSES | WORD, ID + 5)], READ, &at(ID), None);
    under("eight bytes", &[(0, ACCESSES | QWORD, ID + 7)], READ, &at(ID), hit);
    let both = [(0, ACCESSES | DWORD, ID), (2, ACCESSES | BYTE, ID + 1), (3, WRITES | DWORD, ID)];
    under("two at once", &both, READ, &at(ID), Some((2, 5)));
    // push qword [rsi]; pop rax
    under(
        "a push of a register",
        &[(0, ACCESSES | QWORD, EMPTY)],
        &[0xff, 0x36, 0x58],
        &at(EMPTY),
        hit,
    );
}

/// pushfq; or dword [rsp], 0x100; popfq; mov eax, [rsi]; pushfq; and dword [rsp], ~0x100; popfq
const STEPPED: [u8; 20] = [
    0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x8b, 0x06, 0x9c, 0x81, 0x24, 0x24, 0xff, 0xfe, 0xff,
    0xff, 0x9d,
];

fn together() {
    under(
        "a step and a read",
        &[(0, ACCESSES | DWORD, ID)],
        &STEPPED,
        &[(RSI, ID)],
        Some((11, SINGLE_STEP | 1)),
    );
    // rep stosd with count 5, the third element at the breakpoint: two are left
    let set = [(RDI, EMPTY - 8), (RCX, 5), (RAX, 0)];
    under("an element", &[(0, WRITES | DWORD, EMPTY)], &[0xf3, 0xab], &set, Some((0, 1)));
    expect(format_args!("elements behind it"), COUNTER.load(Ordering::SeqCst), 2);
    under(
        "the last element",
        &[(0, WRITES | DWORD, EMPTY)],
        &[0xf3, 0xab],
        &[(RDI, EMPTY - 8), (RCX, 3)],
        Some((2, 1)),
    );
    // rep movsd with count 1 from a device to RAM, the breakpoint at the RAM
    let to = BUFFER.as_ptr() as u64;
    let set = [(RSI, ID), (RDI, to), (RCX, 1)];
    under("the other end of MOVS", &[(0, WRITES | DWORD, to)], &[0xf3, 0xa5], &set, Some((2, 1)));
}

fn ports() {
    const LINE_STATUS: u64 = 0x3fd;
    const EMPTY_PORT: u64 = 0x80;
    let (_, _, cr4) = control_registers();
    let set_cr4 = |value| super::try_with(&[0x0f, 0x22, 0xe0], &[(RAX, value)]);
    under(
        "a port without CR4.DE",
        &[(0, PORTS, LINE_STATUS)],
        &[0xec],
        &[(RDX, LINE_STATUS)],
        None,
    );
    set_cr4(cr4 | DEBUG_EXTENSIONS);
    let hit = Some((1, 1));
    under("IN", &[(0, PORTS, LINE_STATUS)], &[0xec], &[(RDX, LINE_STATUS)], hit);
    under("OUT", &[(0, PORTS, EMPTY_PORT)], &[0xee], &[(RDX, EMPTY_PORT)], hit);
    under(
        "OUT of a dword below",
        &[(0, PORTS, EMPTY_PORT)],
        &[0xef],
        &[(RDX, EMPTY_PORT - 2)],
        hit,
    );
    under(
        "OUT of a byte beside",
        &[(0, PORTS, EMPTY_PORT)],
        &[0xee],
        &[(RDX, EMPTY_PORT + 1)],
        None,
    );
    under("OUT under data", &[(0, ACCESSES, EMPTY_PORT)], &[0xee], &[(RDX, EMPTY_PORT)], None);
    let text = BUFFER.as_ptr() as u64;
    let set = [(RDX, EMPTY_PORT), (RSI, text), (RCX, 2)];
    under("OUTSB", &[(0, PORTS, EMPTY_PORT)], &[0x6e], &set, hit);
    under(
        "the data of OUTSB",
        &[(0, ACCESSES | BYTE, text + 1)],
        &[0xf3, 0x6e],
        &set,
        Some((2, 1)),
    );
    set_cr4(cr4);
}

/// Runs the checks.
pub(crate) fn check() {
    data();
    together();
    ports();
    // Afterwards no breakpoint is left.
    under("none", &[], READ, &[(RSI, ID)], None);
}
