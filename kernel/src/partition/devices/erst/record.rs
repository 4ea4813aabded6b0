//! Common platform error records (CPER), parsed as far as they tell whether a kernel has panicked.
//!
//! UEFI 2.10 appendix N "Common Platform Error Record". Linux's pstore stores the kernel log in
//! parts: one record per part, one section per record, the text deflated. The first line of the
//! text is the reason: `Panic#1 Part1`, `Oops#1 Part1` ...
//!
//! The text comes from a guest: the inflater gets a buffer of fixed size and stops when the buffer
//! is full.

use alloc::boxed::Box;
use alloc::vec;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{
    DecompressorOxide, decompress, inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};

/// Bytes of the record header.
pub(super) const HEADER_BYTES: usize = 128;
const SECTION_DESCRIPTOR_BYTES: usize = 72;
const DATA_OFFSET: usize = HEADER_BYTES + SECTION_DESCRIPTOR_BYTES;

const SIGNATURE: &[u8; 4] = b"CPER";
const LENGTH_OFFSET: usize = 20;
const CREATOR_OFFSET: usize = 64;
const ID_OFFSET: usize = 96;
const SECTION_TYPE_OFFSET: usize = HEADER_BYTES + 16;

/// 75a574e3-5052-4b29-8a8e-be2c6490b89d: written by pstore.
const CREATOR_PSTORE: [u8; 16] =
    *b"\xe3\x74\xa5\x75\x52\x50\x29\x4b\x8a\x8e\xbe\x2c\x64\x90\xb8\x9d";
/// c197e04e-d545-4a70-9c17-a5549419eb12: a part of the kernel's log.
const SECTION_LOG: [u8; 16] = *b"\x4e\xe0\x97\xc1\x45\xd5\x70\x4a\x9c\x17\xa5\x54\x94\x19\xeb\x12";
/// 4f118707-04dd-4055-b5dd-956d34ddfac6: the same, deflated.
const SECTION_LOG_DEFLATED: [u8; 16] =
    *b"\x07\x87\x11\x4f\xdd\x04\x55\x40\xb5\xdd\x95\x6d\x34\xdd\xfa\xc6";

/// The first bytes of a panic's log.
const PANIC_PREFIX: &[u8] = b"Panic#";

/// Returns the length in a record's header, if the signature is right and the length at least the
/// header's.
pub(super) fn length(header: &[u8; HEADER_BYTES]) -> Option<usize> {
    let length = u32::from_le_bytes(*header[LENGTH_OFFSET..].first_chunk()?) as usize;
    (header.starts_with(SIGNATURE) && length >= HEADER_BYTES).then_some(length)
}

/// Returns the id of a record.
pub(super) fn id(record: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*record.get(ID_OFFSET..)?.first_chunk()?))
}

/// Bytes of a log part that are looked at: as many as pstore deflates into a record of 8 KiB.
const LOG_BYTES: usize = 20 << 10;

/// Tells panics from oopses. Holds the inflater's state and the text, which are too large for a
/// stack.
pub(super) struct LogTriage {
    inflater: Box<DecompressorOxide>,
    text: Box<[u8]>,
}

impl core::fmt::Debug for LogTriage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("LogTriage")
    }
}

impl LogTriage {
    /// Allocates the inflater and 20 KiB for the text.
    pub(super) fn new() -> Self {
        Self { inflater: Box::default(), text: vec![0; LOG_BYTES].into_boxed_slice() }
    }

    /// Returns the text of `record`, cut to the room for it, if it is a part of a panic's log.
    pub(super) fn panic_log<'a>(&'a mut self, record: &'a [u8]) -> Option<&'a [u8]> {
        let field = |at: usize| record.get(at..at + 16);
        if field(CREATOR_OFFSET)? != CREATOR_PSTORE {
            return None;
        }
        let data = record.get(DATA_OFFSET..)?;
        let text = match field(SECTION_TYPE_OFFSET)? {
            kind if kind == SECTION_LOG => data,
            kind if kind == SECTION_LOG_DEFLATED => self.inflate(data)?,
            _ => return None,
        };
        text.starts_with(PANIC_PREFIX).then_some(text)
    }

    fn inflate(&mut self, data: &[u8]) -> Option<&[u8]> {
        self.inflater.init();
        let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, _, produced) = decompress(&mut self.inflater, data, &mut self.text, 0, flags);
        let readable = matches!(status, TINFLStatus::Done | TINFLStatus::HasMoreOutput);
        readable.then_some(&self.text[..produced])
    }
}
