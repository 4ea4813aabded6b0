//! The programmable interval timer as a yardstick, and masking of the legacy interrupt controllers.
//!
//! Channel 2 counts down at 1.193182 MHz from a given number, starting when its upper byte is
//! written, while its gate in port 61h is open. Bit 5 of that port shows the end of the count. The
//! CPU's own clocks are measured meanwhile. Every wait is bounded, so that a machine without the
//! timer is detected and does not hang the hypervisor.
// UNSAFETY: programs legacy devices by port I/O.
#![expect(unsafe_code)]

use super::instr;
use crate::time::Ns;

const FREQUENCY_HZ: u64 = 1_193_182;
const CHANNEL_2: u16 = 0x42;
const MODE: u16 = 0x43;
const GATE: u16 = 0x61;
const GATE_OPEN: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
const OUTPUT: u8 = 1 << 5;

/// Polls for the end of a window before the timer is considered absent. A port read takes at least
/// 0.1 us, so this is a hundred times the longest window.
pub const PATIENCE: u32 = 50_000_000;

/// Prepares a window of `ticks` ticks; only the byte that starts it is missing.
///
/// The gate is open from here on: QEMU counts from the load whatever the gate is, other timers need
/// both.
pub fn prepare_window(ticks: u16) {
    const CHANNEL_2_ONE_SHOT: u8 = 0b1011_0000;
    write(GATE, read(GATE) & !SPEAKER | GATE_OPEN);
    write(MODE, CHANNEL_2_ONE_SHOT);
    write(CHANNEL_2, ticks as u8);
}

/// Starts the window.
pub fn begin_window(ticks: u16) {
    write(CHANNEL_2, (ticks >> 8) as u8);
}

/// Returns whether the window is over.
pub fn window_is_over() -> bool {
    read(GATE) & OUTPUT != 0
}

/// Returns the length of a window of `ticks` ticks.
pub const fn window_ns(ticks: u16) -> Ns {
    Ns::new(ticks as u64 * 1_000_000_000 / FREQUENCY_HZ)
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
    // SAFETY: as above; these devices do not access memory.
    unsafe { instr::out8(port, value) };
}
