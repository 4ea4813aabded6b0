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

/// Frequency of the count.
pub const FREQUENCY_HZ: u64 = 1_193_182;
/// Counts after which a running count begins anew: 54.9 ms.
pub const RUNNING_PERIOD: u64 = 1 << 16;
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

/// Lets channel 2 count down from [`RUNNING_PERIOD`], over and over (mode 2).
pub fn start_running() {
    const CHANNEL_2_RATE: u8 = 0b1011_0100;
    write(GATE, read(GATE) & !SPEAKER | GATE_OPEN);
    write(MODE, CHANNEL_2_RATE);
    write(CHANNEL_2, 0);
    write(CHANNEL_2, 0);
}

/// Keeps the count of this moment, for [`latched`].
pub fn latch() {
    const LATCH_CHANNEL_2: u8 = 0b1000_0000;
    write(MODE, LATCH_CHANNEL_2);
}

/// Returns the count that was kept last.
pub fn latched() -> u16 {
    let low = read(CHANNEL_2);
    u16::from_le_bytes([low, read(CHANNEL_2)])
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
