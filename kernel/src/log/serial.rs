//! The two serial lines: COM1 for people, COM2 for JSON lines.
//!
//! Bytes only; the console decides on writers and times. Every wait is bounded: a line without a
//! reader loses bytes and does not stop the hypervisor. [`emergency`] works while the lock is held
//! elsewhere, and before [`init`].
// UNSAFETY: programs UARTs by port I/O.
#![expect(unsafe_code)]

use crate::{
    arch::instr,
    sync::{RankedLock, rank},
};
use uart_16550::{
    BaudRate, Config, Uart16550,
    backend::PioBackend,
    spec::registers::{FifoTriggerLevel, LSR},
};

/// One of the serial lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SerialLine {
    /// COM1: console and log.
    People,
    /// COM2: events and commands, one JSON object per line.
    Machine,
}

type SerialUart = Uart16550<PioBackend>;

static PEOPLE: RankedLock<Option<SerialUart>, { rank::SERIAL }> = RankedLock::new(None);
static MACHINE: RankedLock<Option<SerialUart>, { rank::SERIAL }> = RankedLock::new(None);

/// Polls of the line status after which a full FIFO must be empty: 16 bytes take 1.4 ms at 115200
/// baud, a poll about 1 us on real hardware and less than 10 us under any emulator.
const PATIENCE: u32 = 20_000;

impl SerialLine {
    const fn port(self) -> u16 {
        match self {
            SerialLine::People => 0x3f8,
            SerialLine::Machine => 0x2f8,
        }
    }

    fn uart(self) -> &'static RankedLock<Option<SerialUart>, { rank::SERIAL }> {
        match self {
            SerialLine::People => &PEOPLE,
            SerialLine::Machine => &MACHINE,
        }
    }
}

/// Programs both lines to 115200 8N1 with FIFOs. Output to an absent line is discarded.
///
/// Bochs sends 5-bit characters until the line control register is written.
pub fn init() {
    for line in [SerialLine::People, SerialLine::Machine] {
        // SAFETY: the hypervisor owns both standard ports; nothing else programs them.
        let Ok(mut uart) = (unsafe { SerialUart::new_port(line.port()) }) else { continue };
        // Its interrupt is not used; QEMU transfers as many bytes at a time as the level says.
        let level = Some(FifoTriggerLevel::Fourteen);
        let config = Config {
            baud_rate: BaudRate::Baud115200,
            fifo_trigger_level: level,
            ..Config::DEFAULT
        };
        if uart.init(config).is_ok() {
            *line.uart().lock() = Some(uart);
        }
    }
}

/// Writes as many bytes as the line accepts at once, and returns their number; an absent line
/// accepts all.
pub fn write(line: SerialLine, bytes: &[u8]) -> usize {
    line.uart().lock().as_mut().map_or(bytes.len(), |uart| uart.send_bytes(bytes))
}

/// Reads a byte, if one has arrived.
pub fn read(line: SerialLine) -> Option<u8> {
    line.uart().lock().as_mut()?.try_receive_byte().ok()
}

/// Writes all of `bytes`, with bounded waits for the line; bytes that it does not accept in time
/// are lost.
pub fn write_all(line: SerialLine, bytes: &[u8]) {
    let mut guard = line.uart().lock();
    let Some(uart) = guard.as_mut() else { return };
    let (mut rest, mut patience) = (bytes, PATIENCE);
    while !rest.is_empty() && patience > 0 {
        match uart.send_bytes(rest) {
            0 => {
                patience -= 1;
                instr::pause();
            }
            sent => {
                rest = &rest[sent..];
                patience = PATIENCE;
            }
        }
    }
}

/// Waits, within bounds, until both lines have sent their last bits.
pub fn drain() {
    for line in [SerialLine::People, SerialLine::Machine] {
        await_status(line, LSR::TRANSMITTER_EMPTY);
    }
}

/// Writes without the lock and without set-up: for a hypervisor that is about to stop.
pub fn emergency(line: SerialLine, bytes: &[u8]) {
    for &byte in bytes {
        await_status(line, LSR::THR_EMPTY);
        // SAFETY: the data register of a port that the hypervisor owns; at worst this mixes with
        // another writer's text.
        unsafe { instr::out8(line.port(), byte) };
    }
}

fn await_status(line: SerialLine, wanted: LSR) {
    const LINE_STATUS: u16 = 5;
    for _ in 0..PATIENCE {
        // SAFETY: reading the status only clears error bits, which are not used. An absent port
        // reads all ones.
        let status = unsafe { instr::in8(line.port() + LINE_STATUS) };
        if status & wanted.bits() != 0 {
            return;
        }
        instr::pause();
    }
}
