//! Log output for people, the history of events, and the hypervisor's panic.
//!
//! The `log` crate's macros write lines to COM1: time since start, level, text. Error: work was
//! lost. Warn: a function is degraded. Info: life-cycle events. Debug: decisions. Trace: single
//! exits.

pub mod backtrace;
pub mod exit;
pub mod history;
pub mod json;
#[cfg(target_os = "none")]
mod panic;
pub mod serial;
pub mod symbols;

use crate::arch::time;
use core::fmt::{self, Write};
use log::{LevelFilter, Log, Metadata, Record};
use serial::SerialLine;

struct SerialLogger;

static LOGGER: SerialLogger = SerialLogger;

/// Programs the serial lines and installs the `log` crate's logger; the level is Info.
pub fn init() {
    serial::init();
    // Fails only if a logger is set already, which then is this one.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(LevelFilter::Info);
}

impl Log for SerialLogger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let us = time::now_ns().as_u64() / 1000;
            let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
            let _ = writeln!(
                Buffered::new(),
                "{seconds:4}.{fraction:06} {:<5} {}",
                record.level(),
                record.args()
            );
        }
    }

    fn flush(&self) {
        serial::drain();
    }
}

/// Collects a line, so that it reaches the serial line in one piece, and converts `\n` to `\r\n`.
struct Buffered {
    bytes: arrayvec::ArrayVec<u8, 256>,
}

impl Buffered {
    const fn new() -> Self {
        Self { bytes: arrayvec::ArrayVec::new_const() }
    }

    fn flush(&mut self) {
        serial::write_all(SerialLine::People, &self.bytes);
        self.bytes.clear();
    }

    fn push(&mut self, byte: u8) {
        if self.bytes.is_full() {
            self.flush();
        }
        self.bytes.push(byte);
    }
}

impl Write for Buffered {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.push(b'\r');
            }
            self.push(byte);
        }
        Ok(())
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.flush();
    }
}
