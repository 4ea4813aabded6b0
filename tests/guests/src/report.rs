//! The report of a test kernel: log lines, then one verdict.
//!
//! | port | write | means |
//! |---|---|---|
//! | 0x5e0 | byte | log, `\n` ends a line |
//! | 0x5e1 | dword | fail, with a code |
//! | 0x5e2 | byte | pass |
//! | 0x5e3 | (read) | 0x7d: there is a test port |

use crate::instr::{inb, outb, outl, stop};
use core::fmt::{self, Write};

const LOG: u16 = 0x5e0;
const FAIL: u16 = 0x5e1;
const PASS: u16 = 0x5e2;
const PRESENT: u16 = 0x5e3;
const PRESENT_VALUE: u8 = 0x7d;

const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// QEMU's exit device.
const EXIT: u16 = 0xf4;
const EXIT_PASS: u32 = 0x10;
const EXIT_FAIL: u32 = 0x11;

/// The result of a test.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct TestVerdict(Option<u32>);

/// Returns the verdict that every check passed.
pub fn pass() -> TestVerdict {
    TestVerdict(None)
}

/// Returns the verdict that a check failed; logs `why`.
pub fn fail(why: &str) -> TestVerdict {
    crate::log!("failed: {why}");
    TestVerdict(Some(1))
}

/// Returns the verdict that a check failed, with a code for the event.
pub fn fail_with(code: u32) -> TestVerdict {
    TestVerdict(Some(code))
}

impl TestVerdict {
    /// Reports the verdict and stops the machine.
    pub fn report(self) -> ! {
        match (self.0, has_test_port()) {
            (None, true) => outb(PASS, 0),
            (Some(code), true) => outl(FAIL, code),
            (None, false) => outl(EXIT, EXIT_PASS),
            (Some(_), false) => outl(EXIT, EXIT_FAIL),
        }
        stop()
    }
}

fn has_test_port() -> bool {
    inb(PRESENT) == PRESENT_VALUE
}

/// The destination of log lines.
pub struct ReportLog;

impl Write for ReportLog {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let port = has_test_port();
        for byte in text.bytes() {
            if port {
                outb(LOG, byte);
            } else {
                while inb(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
                outb(COM1, byte);
            }
        }
        Ok(())
    }
}

/// Writes a line to the log.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => {{
        use ::core::fmt::Write as _;
        let _ = ::core::writeln!($crate::report::ReportLog, $($argument)*);
    }};
}

/// Fails the test unless a condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($argument:tt)+) => {
        if !$condition {
            $crate::log!(
                "line {}: {} does not hold", ::core::line!(), ::core::stringify!($condition)
            );
            $crate::log!($($argument)+);
            return $crate::report::fail_with(::core::line!());
        }
    };
    ($condition:expr) => { $crate::check!($condition, "") };
}
