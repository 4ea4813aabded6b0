//! Waits for its power button and answers each press: `answer=1` switches the machine off, 2 resets
//! it, 3 crashes it; without an answer it waits for the next press. `late=1`: it opens the button's
//! input when a byte is typed at the first serial line.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(target_os = "none")]
use guests::instr;

/// The button's input of the I/O APIC, as in the DSDT of a partition.
#[cfg(target_os = "none")]
const INPUT: u32 = 9;
/// Any vector that `trap` has a stub for.
#[cfg(target_os = "none")]
const VECTOR: u8 = 0x31;
#[cfg(target_os = "none")]
static PRESSES: AtomicU64 = AtomicU64::new(0);

#[cfg(target_os = "none")]
fn run(machine: &guests::Machine) -> guests::TestVerdict {
    const SPURIOUS: u64 = 0xf0;
    guests::trap::handle(|frame| {
        if frame.vector != u64::from(VECTOR) {
            return guests::trap::Handled::No;
        }
        PRESSES.fetch_add(1, Ordering::SeqCst);
        instr::write_apic_eoi();
        guests::trap::Handled::Yes
    });
    instr::write_apic(SPURIOUS, 0x13f);
    guests::log!("starts");
    if machine.option("late").is_some() {
        wait_for_a_byte();
    }
    instr::open_io_apic_input(INPUT, VECTOR);
    guests::log!("waits");
    let mut answered = 0;
    loop {
        // Interrupts are disabled here, so no press is lost between the look and the halt.
        while PRESSES.load(Ordering::SeqCst) == answered {
            instr::sti_hlt();
        }
        answered += 1;
        guests::log!("press {answered}");
        answer(machine.option("answer"));
    }
}

#[cfg(target_os = "none")]
fn answer(how: Option<u64>) {
    match how {
        // S5, and the FADT's reset register.
        Some(1) => instr::outb(0x600, 1 << 5 | 5 << 2),
        Some(2) => instr::outb(0x602, 1),
        Some(3) => instr::triple_fault(),
        _ => {}
    }
}

#[cfg(target_os = "none")]
fn wait_for_a_byte() {
    const LINE_STATUS: u16 = 0x3fd;
    while instr::inb(LINE_STATUS) & 1 == 0 {
        instr::pause();
    }
}
