//! The end of the machine's run.
// UNSAFETY: writes the ports of emulators' exits; on other machines nothing answers there.
#![allow(unsafe_code)]

use super::instr;
use crate::log::serial::Line;

/// How the run ended, in the value for QEMU's isa-debug-exit; QEMU's exit status is `2 * value + 1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitCode {
    /// Everything asked for was done: status 33.
    Success = 0x10,
    /// Something failed: status 35.
    Failure = 0x11,
}

/// Switches the machine off, or stops this CPU where there is no way to.
///
/// The last line for machines says how it ended, because Bochs' exit status never does.
pub fn power_off(code: ExitCode) -> ! {
    let end: &[u8] = match code {
        ExitCode::Success => b"\n{\"event\":\"end\",\"status\":0}\n",
        ExitCode::Failure => b"\n{\"event\":\"end\",\"status\":1}\n",
    };
    crate::log::serial::emergency(Line::Machine, end);
    crate::log::serial::drain();
    // SAFETY: ends the run, which is asked for.
    unsafe { instr::out32(0xf4, code as u32) };
    for byte in *b"Shutdown" {
        // SAFETY: Bochs' exit port; it only knows success, tests read the serial line.
        unsafe { instr::out8(0x8900, byte) };
    }
    // A real machine: it stands still until somebody switches it off.
    #[cfg(target_os = "none")]
    super::exceptions::stop_others();
    instr::stop()
}
