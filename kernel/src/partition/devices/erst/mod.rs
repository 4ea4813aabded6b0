//! Error record serialization: the store for the log of a guest's panic. Linux has drivers for it
//! built in.
//!
//! ```text
//!   BEGIN_{WRITE,READ,CLEAR} ──> SET_OFFSET, SET_ID ──> EXECUTE ──> STATUS ──> END
//!                                                         │                     └─ a panic's log: DeviceEffect::PanicRecorded
//!                                                         └─ copies a record between exchange buffer and store
//! ```
//!
//! The registers are one page of memory-mapped qwords ([`register`]). The exchange buffer is
//! reserved guest RAM, so that writing a record does not trap at each byte. ACPI 6.5 "Error
//! Serialization". The store belongs to the partition and survives its incarnations: the next one
//! reads the log of the last.
//!
//! Invariants: EXECUTE changes nothing before its last access to guest memory. Nothing allocates
//! after [`Erst::new`]. When the store is full the oldest record makes room, because the newest
//! panic matters most.

mod record;
mod saved;
mod store;

#[cfg(test)]
mod tests;

use super::effect::DeviceEffect;
use super::map::ERST_BUFFER_BYTES;
use super::panic_line;
use crate::addr::Gpa;
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::space::CrashText;
use record::LogTriage;
use store::ErstStore;

/// Offsets of the registers, each a qword.
#[expect(missing_docs, reason = "ACPI's names")]
pub mod register {
    pub const COMMAND: u64 = 0x00;
    pub const RECORD_OFFSET: u64 = 0x08;
    pub const RECORD_ID: u64 = 0x10;
    pub const NEXT_RECORD_ID: u64 = 0x18;
    pub const RECORD_COUNT: u64 = 0x20;
    pub const BUSY: u64 = 0x28;
    pub const STATUS: u64 = 0x30;
    pub const BUFFER_BASE: u64 = 0x38;
    pub const BUFFER_LENGTH: u64 = 0x40;
    pub const BUFFER_ATTRIBUTES: u64 = 0x48;
    pub const TIMINGS: u64 = 0x50;
}

/// The values of [`register::COMMAND`]: numbers of serialization actions.
#[expect(missing_docs, reason = "ACPI's names")]
pub mod command {
    pub const BEGIN_WRITE: u64 = 0x0;
    pub const BEGIN_READ: u64 = 0x1;
    pub const BEGIN_CLEAR: u64 = 0x2;
    pub const END: u64 = 0x3;
    pub const EXECUTE: u64 = 0x5;
    pub const NEXT_ID: u64 = 0x8;
    pub const BEGIN_DUMMY_WRITE: u64 = 0xb;
}

/// "No (more) record".
pub const NO_RECORD: u64 = u64::MAX;
/// "Any record": the first one.
const ANY_RECORD: u64 = 0;
/// Typical and longest time of an operation, microseconds in the low and high half.
const TIMINGS: u64 = 100 | (1000 << 32);

/// Command status. ACPI 6.5 "Command Status Definition".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Status {
    Success = 0,
    NotEnoughSpace = 1,
    Failed = 3,
    StoreEmpty = 4,
    NotFound = 5,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ErstOperation {
    None,
    Write,
    Read,
    Clear,
    DummyWrite,
}

/// The device and its store.
#[derive(Debug)]
pub struct Erst {
    buffer: Gpa,
    store: ErstStore,
    triage: LogTriage,
    operation: ErstOperation,
    status: Status,
    offset: u64,
    id: u64,
    next_id: u64,
    cursor: usize,
    /// The current operation has stored a panic's log.
    panic_recorded: bool,
    /// The reason of the incarnation's panic, in the words of its log.
    panic_text: Option<CrashText>,
}

impl Erst {
    /// Makes the device with an empty store; `buffer` is the address of the exchange buffer.
    pub fn new(buffer: Gpa) -> Self {
        Self {
            buffer,
            store: ErstStore::new(),
            triage: LogTriage::new(),
            operation: ErstOperation::None,
            status: Status::Success,
            offset: 0,
            id: ANY_RECORD,
            next_id: NO_RECORD,
            cursor: 0,
            panic_recorded: false,
            panic_text: None,
        }
    }

    /// Resets the registers for a new incarnation; the records stay.
    pub fn reset(&mut self) {
        self.operation = ErstOperation::None;
        self.status = Status::Success;
        (self.offset, self.id, self.next_id, self.cursor) = (0, ANY_RECORD, NO_RECORD, 0);
        self.panic_recorded = false;
        self.panic_text = None;
    }

    /// Returns the reason of the incarnation's panic, in the words of its log.
    pub const fn panic_text(&self) -> Option<CrashText> {
        self.panic_text
    }

    /// Reads the register at `offset` of the page.
    pub fn read(&self, offset: u64) -> u64 {
        match offset {
            register::COMMAND | register::BUSY | register::BUFFER_ATTRIBUTES => 0,
            register::RECORD_OFFSET => self.offset,
            register::RECORD_ID => self.id,
            register::NEXT_RECORD_ID => self.next_id,
            register::RECORD_COUNT => self.store.count() as u64,
            register::STATUS => self.status as u64,
            register::BUFFER_BASE => self.buffer.as_u64(),
            register::BUFFER_LENGTH => ERST_BUFFER_BYTES,
            register::TIMINGS => TIMINGS,
            _ => u64::MAX,
        }
    }

    /// Writes the register at `offset`.
    ///
    /// # Errors
    /// The error of guest memory during EXECUTE; then nothing has happened.
    pub fn write(
        &mut self,
        offset: u64,
        value: u64,
        memory: &dyn GuestMemory,
    ) -> Result<DeviceEffect, GuestMemoryError> {
        match offset {
            register::COMMAND => return self.command(value, memory),
            register::RECORD_OFFSET => self.offset = value,
            register::RECORD_ID => self.id = value,
            _ => {}
        }
        Ok(DeviceEffect::None)
    }

    fn command(
        &mut self,
        value: u64,
        memory: &dyn GuestMemory,
    ) -> Result<DeviceEffect, GuestMemoryError> {
        match value {
            command::BEGIN_WRITE => self.begin(ErstOperation::Write),
            command::BEGIN_READ => self.begin(ErstOperation::Read),
            command::BEGIN_CLEAR => self.begin(ErstOperation::Clear),
            command::BEGIN_DUMMY_WRITE => self.begin(ErstOperation::DummyWrite),
            command::END => return Ok(self.end()),
            command::EXECUTE => self.status = self.execute(memory)?,
            command::NEXT_ID => (self.next_id, self.cursor) = self.store.next_id(self.cursor),
            _ => {}
        }
        Ok(DeviceEffect::None)
    }

    const fn begin(&mut self, operation: ErstOperation) {
        self.operation = operation;
        self.panic_recorded = false;
    }

    const fn end(&mut self) -> DeviceEffect {
        self.operation = ErstOperation::None;
        if core::mem::replace(&mut self.panic_recorded, false) {
            DeviceEffect::PanicRecorded
        } else {
            DeviceEffect::None
        }
    }

    fn execute(&mut self, memory: &dyn GuestMemory) -> Result<Status, GuestMemoryError> {
        match self.operation {
            ErstOperation::None => Ok(Status::Failed),
            ErstOperation::DummyWrite => Ok(Status::Success),
            ErstOperation::Write => self.store_record(memory),
            ErstOperation::Read => self.load_record(memory),
            ErstOperation::Clear => {
                Ok(if self.store.clear(self.id) { Status::Success } else { Status::NotFound })
            }
        }
    }

    fn store_record(&mut self, memory: &dyn GuestMemory) -> Result<Status, GuestMemoryError> {
        let Some((at, room)) = self.window() else { return Ok(Status::Failed) };
        let mut header = [0; record::HEADER_BYTES];
        if room < header.len() {
            return Ok(Status::Failed);
        }
        memory.read(at, &mut header)?;
        let Some(length) = record::length(&header) else { return Ok(Status::Failed) };
        if length > room {
            return Ok(Status::NotEnoughSpace);
        }
        memory.read(at, self.store.staging(length))?;
        let Some(id) = record::id(self.store.staging(length))
            .filter(|&id| id != ANY_RECORD && id != NO_RECORD)
        else {
            return Ok(Status::Failed);
        };
        let log = self.triage.panic_log(self.store.staging(length));
        self.panic_recorded = log.is_some();
        // The newest part of the log comes first and holds the words.
        self.panic_text = self.panic_text.or_else(|| log.and_then(panic_line::last_in));
        self.store.commit(id, length);
        Ok(Status::Success)
    }

    fn load_record(&mut self, memory: &dyn GuestMemory) -> Result<Status, GuestMemoryError> {
        let Some((at, room)) = self.window() else { return Ok(Status::Failed) };
        if self.store.count() == 0 {
            return Ok(Status::StoreEmpty);
        }
        let found =
            if self.id == ANY_RECORD { self.store.first() } else { self.store.get(self.id) };
        let Some(bytes) = found else { return Ok(Status::NotFound) };
        if bytes.len() > room {
            return Ok(Status::Failed);
        }
        memory.write(at, bytes)?;
        Ok(Status::Success)
    }

    /// Returns where in the exchange buffer the record begins, and the room from there on.
    fn window(&self) -> Option<(Gpa, usize)> {
        let room = ERST_BUFFER_BYTES.checked_sub(self.offset)?;
        Some((self.buffer.checked_add(self.offset)?, room as usize))
    }
}
