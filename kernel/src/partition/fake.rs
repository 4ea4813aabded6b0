//! Guest memory for tests: bytes in a vector, pages that can be made absent.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::addr::Gpa;
use crate::mm::guest::{GuestAccess, GuestMemory};

/// Guest memory from address zero on.
pub struct FakeMemory {
    bytes: RefCell<Vec<u8>>,
    absent: RefCell<BTreeSet<u64>>,
}

impl FakeMemory {
    /// Makes `bytes` bytes of zeroed, resident memory.
    pub fn new(bytes: usize) -> Self {
        Self { bytes: RefCell::new(vec![0; bytes]), absent: RefCell::default() }
    }
    /// Makes the page at `at` absent.
    pub fn evict(&self, at: u64) {
        self.absent.borrow_mut().insert(at & !0xfff);
    }
    /// Makes the page at `at` resident.
    pub fn bring_in(&self, at: u64) {
        self.absent.borrow_mut().remove(&(at & !0xfff));
    }
    /// Writes past the residence check.
    pub fn poke(&self, at: u64, bytes: &[u8]) {
        self.bytes.borrow_mut()[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    /// Writes a little-endian u64 past the residence check.
    pub fn poke_u64(&self, at: u64, value: u64) {
        self.poke(at, &value.to_le_bytes());
    }
    /// Reads past the residence check.
    pub fn peek(&self, at: u64, length: usize) -> Vec<u8> {
        self.bytes.borrow()[at as usize..][..length].to_vec()
    }

    fn check(&self, gpa: Gpa, length: usize) -> Result<(), GuestAccess> {
        let start = gpa.as_u64();
        let end = start.checked_add(length as u64).filter(|&end| end <= self.bytes.borrow().len() as u64);
        let Some(end) = end else { return Err(GuestAccess::NotRam(gpa)) };
        let absent = self.absent.borrow().range(start & !0xfff..end).next().copied();
        absent.map_or(Ok(()), |page| Err(GuestAccess::NotResident(Gpa::new(page))))
    }
}

impl GuestMemory for FakeMemory {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), GuestAccess> {
        self.check(gpa, buf.len())?;
        buf.copy_from_slice(&self.peek(gpa.as_u64(), buf.len()));
        Ok(())
    }
    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), GuestAccess> {
        self.check(gpa, bytes.len())?;
        self.poke(gpa.as_u64(), bytes);
        Ok(())
    }
}
