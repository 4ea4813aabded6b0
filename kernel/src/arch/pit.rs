//! The programmable interval timer as a yardstick, and the old interrupt controllers' end.
//!
//! Channel 2 counts down from a known number at 1.193182 MHz, from the write of its upper byte on, while its gate in port 61h is open;
//! bit 5 there says that it is done. The CPU's own clocks are measured meanwhile. Every wait is bounded, so a machine without the timer
//! is found out, not hung on.
// UNSAFETY: programs legacy devices by port I/O.
#![allow(unsafe_code)]

use super::instr;

const FREQUENCY_HZ: u64 = 1_193_182;
const CHANNEL_2: u16 = 0x42;
const MODE: u16 = 0x43;
const GATE: u16 = 0x61;
const GATE_OPEN: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
const OUTPUT: u8 = 1 << 5;

/// Polls of a window's end before the timer is taken for absent: a port read takes 0.1 us at the least, so this is a
/// hundred times the longest window.
pub const PATIENCE: u32 = 50_000_000;

/// Prepares a window of `ticks` ticks, all but the byte that begins it.
///
/// The gate is open from here on: QEMU counts from the load whatever the gate is, and other timers wait for both.
pub fn prepare_window(ticks: u16) {
    const CHANNEL_2_ONE_SHOT: u8 = 0b1011_0000;
    write(GATE, read(GATE) & !SPEAKER | GATE_OPEN);
    write(MODE, CHANNEL_2_ONE_SHOT);
    write(CHANNEL_2, ticks as u8);
}

/// Begins the window.
pub fn begin_window(ticks: u16) {
    write(CHANNEL_2, (ticks >> 8) as u8);
}

/// Returns whether the window is over.
pub fn window_is_over() -> bool {
    read(GATE) & OUTPUT != 0
}

/// Returns how long a window of `ticks` ticks is.
pub const fn window_ns(ticks: u16) -> u64 {
    ticks as u64 * 1_000_000_000 / FREQUENCY_HZ
}

/// Masks the two 8259 interrupt controllers.
pub fn mask_legacy_controllers() {
    write(0x21, 0xff);
    write(0xa1, 0xff);
}

fn read(port: u16) -> u8 {
    // SAFETY: the hypervisor owns the legacy devices.
    unsafe { instr::in8(port) }
}

fn write(port: u16, value: u8) {
    // SAFETY: as above; they reach no memory.
    unsafe { instr::out8(port, value) };
}
