//! COM1: a 16550A whose line is two byte queues.
//!
//! Nothing is lost in either direction. The transmitter reads empty as long as a whole FIFO fits
//! the output queue. A guest that writes without polling is stopped when the queue is full
//! ([`GuestUart::is_full`]), until the console has taken some output. Input is held back while
//! [`GuestUart::input_room`] is 0. The interrupt line is a function of the state
//! ([`GuestUart::line`]); the platform gives it to the IOAPIC after every access. Loopback and the
//! scratch register exist because drivers probe with them. PC16550D data sheet, "Registers".

use super::ioapic::LineLevel;
use super::panic_line::PanicLine;
use super::queue::ByteQueue;
use super::saved::SavedDevice;
use crate::dump::state_note::{StateError, StatePart, StateReader, StateWriter};
use crate::space::CrashText;
use crate::time::Ticks;

/// Bytes of output that wait for the console.
const OUTPUT_BYTES: usize = 16 << 10;
/// Depth of the receive FIFO.
const FIFO_BYTES: usize = 16;
/// Bytes of input that wait behind the receive FIFO.
const INPUT_BYTES: usize = 1024;

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const INTERRUPT_ID_FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const MODEM_STATUS: u16 = 6;
const SCRATCH: u16 = 7;

const ENABLE_RECEIVE: u8 = 1 << 0;
const ENABLE_TRANSMIT: u8 = 1 << 1;

const ID_NONE: u8 = 0x01;
const ID_TRANSMIT: u8 = 0x02;
const ID_RECEIVE: u8 = 0x04;
const ID_FIFO_ENABLED: u8 = 0xc0;

const FIFO_ENABLE: u8 = 1 << 0;
const FIFO_CLEAR_RECEIVE: u8 = 1 << 1;

const DIVISOR_LATCH: u8 = 1 << 7;

const OUT2: u8 = 1 << 3;
const LOOPBACK: u8 = 1 << 4;

const DATA_READY: u8 = 1 << 0;
const TRANSMITTER_EMPTY: u8 = 0x60;

/// CTS, DSR and DCD: a terminal is always there.
const MODEM_READY: u8 = 0xb0;

/// The UART.
#[derive(Clone, Debug)]
pub struct GuestUart {
    output: ByteQueue,
    /// Watches the output for a kernel's panic line.
    panic_line: PanicLine,
    /// Receive FIFO: the bytes that the guest can read.
    receive: ByteQueue,
    /// Typed, but not yet in the FIFO.
    input: ByteQueue,
    enabled: u8,
    transmit_pending: bool,
    /// The transmitter's bits of the line status, kept in step with [`Self::has_room`] because
    /// drivers poll them.
    transmitter: u8,
    /// The transmit interrupt is to be raised as soon as there is room again.
    transmit_waits: bool,
    fifo_enabled: bool,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    divisor: u16,
}

impl GuestUart {
    /// Makes the UART as it is after reset.
    pub fn new() -> Self {
        Self {
            output: ByteQueue::new(OUTPUT_BYTES),
            panic_line: PanicLine::new(),
            receive: ByteQueue::new(FIFO_BYTES),
            input: ByteQueue::new(INPUT_BYTES),
            enabled: 0,
            transmit_pending: false,
            transmit_waits: false,
            transmitter: TRANSMITTER_EMPTY,
            fifo_enabled: false,
            line_control: 0,
            modem_control: OUT2,
            scratch: 0,
            divisor: 12,
        }
    }

    /// Resets the registers; output that waits for the console stays.
    pub fn reset(&mut self) {
        let output = core::mem::replace(&mut self.output, ByteQueue::new(0));
        *self = Self { output, ..Self::new() };
        self.show_room();
    }

    /// Returns the state of the interrupt line.
    pub fn line(&self) -> LineLevel {
        let wired = self.modem_control & (OUT2 | LOOPBACK) == OUT2;
        if wired && self.pending() != ID_NONE { LineLevel::High } else { LineLevel::Low }
    }

    /// Reads register `offset` (0 to 7) if the read changes no state; drivers poll some of these.
    #[inline(always)]
    pub fn look(&self, offset: u16) -> Option<u8> {
        Some(match offset {
            LINE_STATUS => self.transmitter | if self.receive.is_empty() { 0 } else { DATA_READY },
            LINE_CONTROL => self.line_control,
            MODEM_CONTROL => self.modem_control,
            MODEM_STATUS => self.modem_status(),
            SCRATCH => self.scratch,
            _ => return None,
        })
    }

    /// Reads register `offset` (0 to 7).
    pub fn read(&mut self, offset: u16) -> u8 {
        match offset {
            DATA if self.latched() => self.divisor as u8,
            DATA => self.read_data(),
            INTERRUPT_ENABLE if self.latched() => (self.divisor >> 8) as u8,
            INTERRUPT_ENABLE => self.enabled,
            INTERRUPT_ID_FIFO_CONTROL => self.read_interrupt_id(),
            _ => self.look(offset).unwrap_or(0xff),
        }
    }

    /// Writes register `offset`.
    pub fn write(&mut self, offset: u16, value: u8) {
        match offset {
            DATA if self.latched() => self.divisor = (self.divisor & 0xff00) | u16::from(value),
            DATA => self.write_data(value),
            INTERRUPT_ENABLE if self.latched() => {
                self.divisor = (self.divisor & 0xff) | (u16::from(value) << 8)
            }
            INTERRUPT_ENABLE => {
                // Enabling the transmit interrupt while the transmitter is empty raises it at once;
                // drivers test for that.
                if value & !self.enabled & ENABLE_TRANSMIT != 0 {
                    self.await_room();
                }
                self.enabled = value & 0x0f;
            }
            INTERRUPT_ID_FIFO_CONTROL => {
                self.fifo_enabled = value & FIFO_ENABLE != 0;
                if value & FIFO_CLEAR_RECEIVE != 0 {
                    self.receive.clear();
                    self.refill();
                }
            }
            LINE_CONTROL => self.line_control = value,
            MODEM_CONTROL => self.modem_control = value & 0x1f,
            SCRATCH => self.scratch = value,
            _ => {}
        }
    }

    /// Returns how many typed bytes fit.
    pub fn input_room(&self) -> usize {
        self.input.room()
    }

    /// Returns whether another byte of output would be lost.
    pub fn is_full(&self) -> bool {
        self.output.room() == 0
    }

    /// Notes that the console has taken output.
    pub fn output_taken(&mut self) {
        if self.has_room() {
            self.transmitter = TRANSMITTER_EMPTY;
            self.transmit_pending |= core::mem::replace(&mut self.transmit_waits, false);
        }
    }

    /// Takes typed bytes: [`GuestUart::input_room`] bytes at most.
    pub fn type_in(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.input.push(b));
        self.refill();
    }

    /// Returns the guest's own words for its panic, written here since the reset.
    pub fn panic_text(&self) -> Option<CrashText> {
        self.panic_line.text()
    }

    /// Returns the output queue.
    pub const fn output(&mut self) -> &mut ByteQueue {
        &mut self.output
    }

    const fn latched(&self) -> bool {
        self.line_control & DIVISOR_LATCH != 0
    }

    fn pending(&self) -> u8 {
        if self.enabled & ENABLE_RECEIVE != 0 && !self.receive.is_empty() {
            ID_RECEIVE
        } else if self.enabled & ENABLE_TRANSMIT != 0 && self.transmit_pending {
            ID_TRANSMIT
        } else {
            ID_NONE
        }
    }

    fn read_interrupt_id(&mut self) -> u8 {
        let id = self.pending();
        if id == ID_TRANSMIT {
            self.transmit_pending = false;
        }
        id | if self.fifo_enabled { ID_FIFO_ENABLED } else { 0 }
    }

    fn read_data(&mut self) -> u8 {
        let byte = self.receive.pop().unwrap_or(0);
        self.refill();
        byte
    }

    fn write_data(&mut self, byte: u8) {
        if self.modem_control & LOOPBACK != 0 {
            self.receive.push(byte);
        } else {
            self.output.push(byte);
            self.panic_line.push(byte);
        }
        self.await_room();
    }

    /// Raises the transmit interrupt, now or when a whole FIFO fits.
    fn await_room(&mut self) {
        let has_room = self.has_room();
        self.transmit_pending |= has_room;
        self.transmit_waits = !has_room;
        self.show_room();
    }

    fn show_room(&mut self) {
        self.transmitter = if self.has_room() { TRANSMITTER_EMPTY } else { 0 };
    }

    fn has_room(&self) -> bool {
        self.output.room() >= FIFO_BYTES
    }

    fn refill(&mut self) {
        while self.receive.room() > 0 {
            let Some(byte) = self.input.pop() else { break };
            self.receive.push(byte);
        }
    }

    /// In loopback the modem outputs DTR, RTS, OUT1 and OUT2 come back as DSR, CTS, RI and DCD.
    const fn modem_status(&self) -> u8 {
        if self.modem_control & LOOPBACK == 0 {
            return MODEM_READY;
        }
        let m = self.modem_control;
        ((m & 2) << 3) | ((m & 1) << 5) | ((m & 4) << 4) | ((m & 8) << 4)
    }
}

impl Default for GuestUart {
    fn default() -> Self {
        Self::new()
    }
}

impl SavedDevice for GuestUart {
    const PART: StatePart = StatePart::Uart;

    fn save(&self, out: &mut StateWriter, _: Ticks) {
        for queue in [&self.output, &self.receive, &self.input] {
            queue.save(out);
        }
        self.panic_line.save(out);
        out.u8(self.enabled);
        out.bool(self.transmit_pending);
        out.bool(self.transmit_waits);
        out.bool(self.fifo_enabled);
        out.u8(self.line_control);
        out.u8(self.modem_control);
        out.u8(self.scratch);
        out.u16(self.divisor);
    }

    fn restore(&mut self, from: &mut StateReader<'_>, _: Ticks) -> Result<(), StateError> {
        for queue in [&mut self.output, &mut self.receive, &mut self.input] {
            queue.restore(from)?;
        }
        self.panic_line.restore(from)?;
        self.enabled = from.u8()? & 0x0f;
        self.transmit_pending = from.bool()?;
        self.transmit_waits = from.bool()?;
        self.fifo_enabled = from.bool()?;
        self.line_control = from.u8()?;
        self.modem_control = from.u8()? & 0x1f;
        self.scratch = from.u8()?;
        self.divisor = from.u16()?;
        self.show_room();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linuxs_probe_finds_a_16550a() {
        let mut uart = GuestUart::new();
        uart.write(INTERRUPT_ENABLE, 0);
        assert_eq!(uart.read(INTERRUPT_ENABLE), 0);
        uart.write(INTERRUPT_ENABLE, 0x0f);
        assert_eq!(uart.read(INTERRUPT_ENABLE), 0x0f);
        uart.write(INTERRUPT_ENABLE, 0);
        uart.write(MODEM_CONTROL, LOOPBACK | 0x0a);
        assert_eq!(uart.read(MODEM_STATUS) & 0xf0, 0x90);
        uart.write(MODEM_CONTROL, 0);
        uart.write(INTERRUPT_ID_FIFO_CONTROL, FIFO_ENABLE);
        assert_eq!(uart.read(INTERRUPT_ID_FIFO_CONTROL) >> 6, 3);
    }

    #[test]
    fn the_transmit_interrupt_comes_again_whenever_it_is_enabled() {
        let mut uart = GuestUart::new();
        for _ in 0..2 {
            uart.write(INTERRUPT_ENABLE, ENABLE_TRANSMIT);
            assert_eq!(uart.line(), LineLevel::High);
            assert_eq!(uart.read(INTERRUPT_ID_FIFO_CONTROL), ID_TRANSMIT);
            assert_eq!(
                (uart.line(), uart.read(INTERRUPT_ID_FIFO_CONTROL)),
                (LineLevel::Low, ID_NONE)
            );
            uart.write(INTERRUPT_ENABLE, 0);
        }
    }

    #[test]
    fn a_written_byte_is_output_and_an_interrupt() {
        let mut uart = GuestUart::new();
        uart.write(INTERRUPT_ENABLE, ENABLE_TRANSMIT);
        uart.read(INTERRUPT_ID_FIFO_CONTROL);
        uart.write(DATA, b'x');
        assert_eq!((uart.line(), uart.output().pop()), (LineLevel::High, Some(b'x')));
        assert_eq!(uart.read(LINE_STATUS), TRANSMITTER_EMPTY);
    }

    #[test]
    fn a_full_output_queue_says_so_and_tells_when_there_is_room() {
        let mut uart = GuestUart::new();
        uart.write(INTERRUPT_ENABLE, ENABLE_TRANSMIT);
        for _ in 0..OUTPUT_BYTES - FIFO_BYTES {
            assert_eq!((uart.read(LINE_STATUS), uart.is_full()), (TRANSMITTER_EMPTY, false));
            uart.write(DATA, b'x');
        }
        assert_eq!(
            (uart.line(), uart.read(INTERRUPT_ID_FIFO_CONTROL)),
            (LineLevel::High, ID_TRANSMIT)
        );
        (0..FIFO_BYTES).for_each(|_| uart.write(DATA, b'y'));
        assert_eq!(
            (uart.read(LINE_STATUS), uart.line(), uart.is_full()),
            (0, LineLevel::Low, true)
        );
        let mut again = uart.clone();
        again.reset();
        assert_eq!((again.read(LINE_STATUS), again.is_full()), (0, true), "a reset makes no room");
        // Enabling the interrupt does not raise it now, either.
        uart.write(INTERRUPT_ENABLE, 0);
        uart.write(INTERRUPT_ENABLE, ENABLE_TRANSMIT);
        let mut taken = [0; FIFO_BYTES - 1];
        uart.output().take(&mut taken);
        uart.output_taken();
        assert_eq!(
            (uart.read(LINE_STATUS), uart.line(), uart.is_full()),
            (0, LineLevel::Low, false)
        );
        uart.output().pop();
        uart.output_taken();
        assert_eq!((uart.read(LINE_STATUS), uart.line()), (TRANSMITTER_EMPTY, LineLevel::High));
        assert_eq!(uart.output().lost(), 0);
    }

    #[test]
    fn input_longer_than_the_fifo_arrives_whole_and_in_order() {
        let mut uart = GuestUart::new();
        let typed: Vec<u8> = (0..100).collect();
        uart.type_in(&typed);
        assert_eq!(uart.line(), LineLevel::Low, "not enabled");
        uart.write(INTERRUPT_ENABLE, ENABLE_RECEIVE);
        let mut read = Vec::new();
        while uart.line() == LineLevel::High {
            assert_eq!(uart.read(INTERRUPT_ID_FIFO_CONTROL) & 0xf, ID_RECEIVE);
            read.push(uart.read(DATA));
        }
        assert_eq!(read, typed);
    }

    #[test]
    fn the_divisor_latch_hides_data_and_enable() {
        let mut uart = GuestUart::new();
        uart.write(LINE_CONTROL, DIVISOR_LATCH);
        uart.write(DATA, 1);
        uart.write(INTERRUPT_ENABLE, 2);
        assert_eq!(
            (uart.read(DATA), uart.read(INTERRUPT_ENABLE), uart.output().pop()),
            (1, 2, None)
        );
        uart.write(LINE_CONTROL, 3);
        assert_eq!(uart.read(INTERRUPT_ENABLE), 0);
    }

    #[test]
    fn without_out2_the_line_is_not_wired() {
        let mut uart = GuestUart::new();
        uart.write(INTERRUPT_ENABLE, ENABLE_TRANSMIT);
        uart.write(MODEM_CONTROL, 0);
        assert_eq!(uart.line(), LineLevel::Low);
    }

    #[test]
    fn a_reset_keeps_the_last_words() {
        let mut uart = GuestUart::new();
        uart.write(DATA, b'!');
        uart.write(INTERRUPT_ENABLE, ENABLE_TRANSMIT);
        uart.reset();
        assert_eq!((uart.output().pop(), uart.line()), (Some(b'!'), LineLevel::Low));
    }
}
