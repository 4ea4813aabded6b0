//! The hypervisor's own panic: one way, no heap, no locks, no unbounded wait.

use super::serial::{self, Line};
use crate::arch::{
    exit::{self, ExitCode},
    instr,
};
use core::{fmt, panic::PanicInfo};

/// The lines without their locks.
struct Emergency(Line);

impl fmt::Write for Emergency {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            serial::emergency(self.0, piece.trim_end_matches('\n').as_bytes());
            if piece.ends_with('\n') {
                serial::emergency(self.0, b"\r\n");
            }
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    use fmt::Write;
    instr::cli();
    let _ = writeln!(Emergency(Line::People), "\nTIDEPOOL PANIC: {info}");
    exit::power_off(ExitCode::Failure)
}
