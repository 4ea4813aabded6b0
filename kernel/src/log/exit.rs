//! Ends the machine's run: powers it off and reports the result.
// UNSAFETY: writes the exit ports of emulators; on other machines no device has these ports.
#![expect(unsafe_code)]

use super::serial::{self, SerialLine};
use crate::arch::instr;

/// Result of the run, as the value for QEMU's isa-debug-exit; QEMU's exit status is `2 * value +
/// 1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitCode {
    /// Everything requested was done: status 33.
    Success = 0x10,
    /// Something failed: status 35.
    Failure = 0x11,
}

/// Powers the machine off, or stops this CPU if that is not possible.
///
/// The last event line has the result, because Bochs' exit status never does.
pub fn power_off(code: ExitCode) -> ! {
    let end: &[u8] = match code {
        ExitCode::Success => b"\n{\"event\":\"end\",\"status\":0}\n",
        ExitCode::Failure => b"\n{\"event\":\"end\",\"status\":1}\n",
    };
    serial::emergency(SerialLine::Machine, end);
    serial::drain();
    // SAFETY: ends the run, as requested.
    unsafe { instr::out32(0xf4, code as u32) };
    for byte in *b"Shutdown" {
        // SAFETY: Bochs' exit port. It can only report success, so tests read the serial line.
        unsafe { instr::out8(0x8900, byte) };
    }
    // A real machine halts here until it is switched off by hand.
    #[cfg(target_os = "none")]
    crate::arch::exceptions::stop_others();
    instr::stop()
}
