//! What the fuzz targets share: numbers taken from an input, a guest's memory, checksums.

pub mod dma;
pub mod kernels;
pub mod lent;
pub mod records;

use kernel::addr::Gpa;
use kernel::mm::guest::{GuestMemory, GuestMemoryError};
use std::cell::RefCell;

/// Takes numbers from an input, little-endian. Beyond its end all bytes are zeros.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Begins with the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns whether all bytes are taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes up to `count` bytes: fewer at the end.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Takes the rest.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    /// Takes `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let (mut array, bytes) = ([0; N], self.bytes(N));
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    /// Takes a byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    /// Takes a number of 16 bits.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Takes a number of 32 bits.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Takes a number of 64 bits.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Takes one of `choices`, by a byte.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.u8()) % choices.len()]
    }
}

/// Bytes of a [`GuestRam`].
pub const RAM_BYTES: usize = 0x1_0000;

/// A guest's memory from address 0 on, of 16 pages. Pages may be absent.
pub struct GuestRam {
    bytes: RefCell<Vec<u8>>,
    /// A bit for each page that is not resident.
    pub absent: u16,
}

impl GuestRam {
    /// Makes zeroed memory that begins with `bytes`, all of it resident.
    pub fn new(bytes: &[u8]) -> Self {
        let mut all = bytes.to_vec();
        all.resize(RAM_BYTES, 0);
        Self { bytes: RefCell::new(all), absent: 0 }
    }

    /// Writes `bytes` at `at`, as far as there is memory.
    pub fn poke(&self, at: usize, bytes: &[u8]) {
        let mut all = self.bytes.borrow_mut();
        let end = at.saturating_add(bytes.len()).min(RAM_BYTES);
        if let Some(place) = all.get_mut(at..end) {
            place.copy_from_slice(&bytes[..place.len()]);
        }
    }

    /// Returns a copy of all bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }

    fn range(&self, gpa: Gpa, len: usize) -> Result<core::ops::Range<usize>, GuestMemoryError> {
        let end = gpa.as_u64().checked_add(len as u64).filter(|end| *end <= RAM_BYTES as u64);
        let end = end.ok_or(GuestMemoryError::NotRam(gpa))? as usize;
        let start = gpa.as_u64() as usize;
        let is_absent = |page: &usize| self.absent >> page & 1 == 1;
        match (start / 4096..end.div_ceil(4096)).find(is_absent) {
            Some(page) => Err(GuestMemoryError::NotResident(Gpa::new(page as u64 * 4096))),
            None => Ok(start..end),
        }
    }
}

impl GuestMemory for GuestRam {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), GuestMemoryError> {
        buf.copy_from_slice(&self.bytes.borrow()[self.range(gpa, buf.len())?]);
        Ok(())
    }

    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), GuestMemoryError> {
        let range = self.range(gpa, bytes.len())?;
        self.bytes.borrow_mut()[range].copy_from_slice(bytes);
        Ok(())
    }
}

/// Sets the byte at `checksum` so that all bytes add up to zero, as firmware's tables do.
pub fn seal(bytes: &mut [u8], checksum: usize) {
    if checksum < bytes.len() {
        bytes[checksum] = 0;
        bytes[checksum] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    }
}
