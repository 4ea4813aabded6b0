//! Hangs, or only seems to, as `how=` says, after some ticks of its timer:
//!
//! | how | what |
//! |---|---|
//! | 1 | reads a port again and again with interrupts off |
//! | 2 | the same, with interrupts on and the timer off |
//! | 3 | jumps to itself with interrupts off |
//! | 4 | never had a tick, and reads a port with interrupts off |
//! | 5 | halts for six seconds, one tick in each, then passes |
//! | 6 | halts with interrupts on and no source of interrupts |
//! | 7 | panics when the NMI comes |
//! | 8 | reads a port again and again in the handler of the NMI |
//!
//! `after=N` limits this to the first N incarnations; later ones pass at once.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
#[cfg(target_os = "none")]
use guests::instr::{cli, inb, outb, sti, sti_hlt, write_apic, write_apic_eoi};
#[cfg(target_os = "none")]
use guests::trap::{Handled, TrapFrame};

#[cfg(target_os = "none")]
const TICK: u64 = 0x20;
#[cfg(target_os = "none")]
static TICKS: AtomicU64 = AtomicU64::new(0);
#[cfg(target_os = "none")]
static HOW: AtomicU64 = AtomicU64::new(0);

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> guests::TestVerdict {
    let option = |name| machine.option(name).unwrap_or(1);
    if option("tidepool.incarnation") > option("after") {
        return guests::pass();
    }
    HOW.store(option("how"), SeqCst);
    guests::trap::handle(handler);
    if option("how") != 4 {
        start_timer(1_000_000);
        wait_for(3);
    }
    guests::log!("hangs");
    match option("how") {
        2 => {
            start_timer(0);
            sti();
            poll()
        }
        3 => guests::instr::jump_to_itself(),
        5 => {
            start_timer(1_000_000_000);
            wait_for(9);
            guests::pass()
        }
        6 => {
            start_timer(0);
            // The last tick may still be pending.
            loop {
                sti_hlt();
            }
        }
        _ => {
            cli();
            poll()
        }
    }
}

#[cfg(target_os = "none")]
fn handler(frame: &mut TrapFrame) -> Handled {
    const NMI: u64 = 2;
    const PVPANIC: u16 = 0x505;
    match frame.vector {
        TICK => {
            TICKS.fetch_add(1, SeqCst);
            write_apic_eoi();
        }
        NMI => {
            guests::log!("nmi");
            match HOW.load(SeqCst) {
                7 => outb(PVPANIC, 1),
                8 => poll(),
                _ => {}
            }
        }
        _ => return Handled::No,
    }
    Handled::Yes
}

/// Starts the timer with this period in nanoseconds, or stops it with 0.
#[cfg(target_os = "none")]
fn start_timer(period: u32) {
    const SPURIOUS: u64 = 0xf0;
    const TIMER: u64 = 0x320;
    const INITIAL_COUNT: u64 = 0x380;
    const DIVIDE: u64 = 0x3e0;
    const ENABLE: u32 = 0x1ff;
    const PERIODIC: u32 = 1 << 17;
    const MASKED: u32 = 1 << 16;
    const BY_ONE: u32 = 0b1011;
    write_apic(SPURIOUS, ENABLE);
    write_apic(DIVIDE, BY_ONE);
    write_apic(TIMER, TICK as u32 | PERIODIC | if period == 0 { MASKED } else { 0 });
    write_apic(INITIAL_COUNT, period);
}

#[cfg(target_os = "none")]
fn wait_for(ticks: u64) {
    while TICKS.load(SeqCst) < ticks {
        sti_hlt();
    }
}

/// Reads a port for ever: each read is an exit, which works on every emulator.
#[cfg(target_os = "none")]
fn poll() -> ! {
    loop {
        inb(0x80);
    }
}
