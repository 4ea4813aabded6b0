//! The hypervisor's own panic: one path, no heap, no locks, no unbounded wait.
//!
//! ```text
//! panic! or exception ─> claim ─┬─> stop the other CPUs (NMI) ─> one JSON line on COM2
//!                               │     ─> report on COM1 ─> power off, failure
//!                               ├─ another CPU panics already: stop here
//!                               └─ this CPU panics already: power off at once
//! ```

use super::{
    backtrace::{Backtrace, read_stack},
    exit::{self, ExitCode},
    history,
    serial::{self, SerialLine},
    symbols,
};
use crate::arch::{exceptions, instr, percpu, percpu::CpuId, time};
use core::{
    fmt::{self, Write},
    panic::PanicInfo,
    sync::atomic::{AtomicUsize, Ordering},
};
use x86_64::registers::control::{Cr0, Cr3, Cr4};

/// Index of the CPU that panics, plus 1; 0: no CPU panics.
static CLAIMED: AtomicUsize = AtomicUsize::new(0);

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    instr::cli();
    let cpu = percpu::current_if_known().unwrap_or(CpuId::BOOT);
    match CLAIMED.compare_exchange(0, cpu.index() + 1, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(claimed) if claimed == cpu.index() + 1 => {
            serial::emergency(SerialLine::People, b"\r\n... and again while reporting it\r\n");
            exit::power_off(ExitCode::Failure)
        }
        Err(_) => instr::stop(),
    }
    exceptions::stop_others();
    let t_ns = time::now_ns().as_u64();
    // COM2 first: the JSON line is short, and the report below may fail.
    let _ = write_event(&mut Emergency(SerialLine::Machine), cpu, t_ns, info);
    let _ = write_epitaph(&mut Emergency(SerialLine::People), cpu, t_ns, info);
    exit::power_off(ExitCode::Failure)
}

fn write_epitaph(out: &mut Emergency, cpu: CpuId, t_ns: u64, info: &PanicInfo) -> fmt::Result {
    writeln!(out, "\n=== TIDEPOOL PANIC on CPU {} after {} us ===", cpu.index(), t_ns / 1000)?;
    if let Some(place) = info.location() {
        write!(out, "{}:{}: ", place.file(), place.line())?;
    }
    writeln!(out, "{}", info.message())?;
    let frame = match exceptions::fatal_frame() {
        Some(frame) => {
            writeln!(out, "{frame}\nbacktrace:\n  {}", Symbolised(frame.rip))?;
            frame.rbp
        }
        None => {
            let (cr3, _) = Cr3::read();
            let cr3 = cr3.start_address();
            writeln!(out, "cr0 {:x} cr3 {cr3:x} cr4 {:x}", Cr0::read_raw(), Cr4::read_raw())?;
            writeln!(
                out,
                "rflags {:x} rbp {:x}\nbacktrace:",
                instr::rflags(),
                instr::frame_pointer()
            )?;
            instr::frame_pointer()
        }
    };
    for address in Backtrace::new(frame, read_stack) {
        // The return address lies after the call. The call itself gives the right function.
        writeln!(out, "  {}", Symbolised(address.wrapping_sub(1)))?;
    }
    for other in percpu::online().filter(|&other| other != cpu) {
        match exceptions::stopped_at(other) {
            Some(rip) => writeln!(out, "CPU {} stopped at {}", other.index(), Symbolised(rip))?,
            None => writeln!(out, "CPU {} did not stop", other.index())?,
        }
    }
    // Last: an error in it would cost no more of the report.
    history::print(out, t_ns)?;
    writeln!(out, "=== end ===")
}

fn write_event(out: &mut Emergency, cpu: CpuId, t_ns: u64, info: &PanicInfo) -> fmt::Result {
    write!(out, "\n{{\"t\":{t_ns},\"event\":\"panic\",\"cpu\":{},\"message\":\"", cpu.index())?;
    write!(super::json::JsonEscaped(out), "{}", info.message())?;
    writeln!(out, "\"}}")
}

/// An address, printed with its function.
struct Symbolised(u64);

impl fmt::Display for Symbolised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)?;
        match symbols::of_kernel().and_then(|symbols| symbols.lookup(self.0)) {
            Some((name, offset)) => write!(f, " {name}+{offset:#x}"),
            None => Ok(()),
        }
    }
}

/// A serial line, written without its lock.
struct Emergency(SerialLine);

impl Write for Emergency {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            let line = piece.strip_suffix('\n');
            serial::emergency(self.0, line.unwrap_or(piece).as_bytes());
            if line.is_some() {
                serial::emergency(self.0, b"\r\n");
            }
        }
        Ok(())
    }
}
