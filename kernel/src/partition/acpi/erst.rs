//! The error record serialization table (ERST): the register accesses of `devices::erst` that carry
//! out each action. ACPI 6.5 "Serialization Action Table".

use alloc::vec::Vec;

use acpi_tables::sdt::Sdt;

use super::{OEM, OEM_REVISION, OEM_TABLE};
use crate::partition::devices::erst::{command, register};
use crate::partition::devices::map::ERST_BASE;

const HEADER_BYTES: u32 = 36;
/// Table header and serialization header.
const SERIALIZATION_HEADER_BYTES: u32 = 48;

/// Serialization actions.
mod action {
    pub(super) const BEGIN_WRITE: u8 = 0x0;
    pub(super) const BEGIN_READ: u8 = 0x1;
    pub(super) const BEGIN_CLEAR: u8 = 0x2;
    pub(super) const END: u8 = 0x3;
    pub(super) const SET_RECORD_OFFSET: u8 = 0x4;
    pub(super) const EXECUTE: u8 = 0x5;
    pub(super) const CHECK_BUSY: u8 = 0x6;
    pub(super) const GET_STATUS: u8 = 0x7;
    pub(super) const GET_RECORD_ID: u8 = 0x8;
    pub(super) const SET_RECORD_ID: u8 = 0x9;
    pub(super) const GET_RECORD_COUNT: u8 = 0xa;
    pub(super) const BEGIN_DUMMY_WRITE: u8 = 0xb;
    pub(super) const GET_RANGE: u8 = 0xd;
    pub(super) const GET_RANGE_LENGTH: u8 = 0xe;
    pub(super) const GET_RANGE_ATTRIBUTES: u8 = 0xf;
    pub(super) const GET_TIMINGS: u8 = 0x10;
}

/// Serialization instructions.
#[derive(Clone, Copy)]
enum ErstInstruction {
    Read = 0,
    /// Compares the register with the value.
    ReadValue = 1,
    /// Writes the caller's value.
    Write = 2,
    /// Writes the entry's value.
    WriteValue = 3,
}
use ErstInstruction::{Read, ReadValue, Write, WriteValue};

/// Action, instruction, register, value.
const ENTRIES: [(u8, ErstInstruction, u64, u64); 17] = [
    (action::BEGIN_WRITE, WriteValue, register::COMMAND, command::BEGIN_WRITE),
    (action::BEGIN_READ, WriteValue, register::COMMAND, command::BEGIN_READ),
    (action::BEGIN_CLEAR, WriteValue, register::COMMAND, command::BEGIN_CLEAR),
    (action::BEGIN_DUMMY_WRITE, WriteValue, register::COMMAND, command::BEGIN_DUMMY_WRITE),
    (action::END, WriteValue, register::COMMAND, command::END),
    (action::SET_RECORD_OFFSET, Write, register::RECORD_OFFSET, 0),
    (action::EXECUTE, WriteValue, register::COMMAND, command::EXECUTE),
    (action::CHECK_BUSY, ReadValue, register::BUSY, 1),
    (action::GET_STATUS, Read, register::STATUS, 0),
    (action::GET_RECORD_ID, WriteValue, register::COMMAND, command::NEXT_ID),
    (action::GET_RECORD_ID, Read, register::NEXT_RECORD_ID, 0),
    (action::SET_RECORD_ID, Write, register::RECORD_ID, 0),
    (action::GET_RECORD_COUNT, Read, register::RECORD_COUNT, 0),
    (action::GET_RANGE, Read, register::BUFFER_BASE, 0),
    (action::GET_RANGE_LENGTH, Read, register::BUFFER_LENGTH, 0),
    (action::GET_RANGE_ATTRIBUTES, Read, register::BUFFER_ATTRIBUTES, 0),
    (action::GET_TIMINGS, Read, register::TIMINGS, 0),
];

/// Makes the table.
pub(super) fn table() -> Vec<u8> {
    let mut body = Vec::new();
    [SERIALIZATION_HEADER_BYTES, 0, ENTRIES.len() as u32]
        .iter()
        .for_each(|word| body.extend(word.to_le_bytes()));
    for (action, instruction, register, value) in ENTRIES {
        body.extend([action, instruction as u8, 0, 0]);
        // Generic address: system memory, 64 bits wide, accessed as a qword.
        body.extend([0, 64, 0, 4]);
        [ERST_BASE + register, value, u64::MAX]
            .iter()
            .for_each(|word| body.extend(word.to_le_bytes()));
    }
    let mut table = Sdt::new(*b"ERST", HEADER_BYTES, 1, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(&body);
    table.as_slice().to_vec()
}
