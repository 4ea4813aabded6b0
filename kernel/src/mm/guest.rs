//! Guest memory as all code above `mm` sees it: bytes are copied, never referenced.
//!
//! Any access may return [`GuestMemoryError::NotResident`]: the page-in (or the wait for a free
//! frame) has been started. The caller commits nothing, parks its vCPU and runs again from the
//! start.

use crate::addr::Gpa;

/// Why a copy was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestMemoryError {
    /// The page is being brought in; park and repeat the whole operation.
    NotResident(Gpa),
    /// No RAM at this address: the guest's fault.
    NotRam(Gpa),
    /// The page cannot be read back; the partition crashes for that reason.
    Lost(Gpa),
    /// No frame comes free for the page, because pages cannot be written; the partition crashes for
    /// that reason.
    Unwritable(Gpa),
}

/// Copies from and to a partition's logical memory. May cross pages; sets A, and D for writes.
pub trait GuestMemory {
    /// Fills `buf` from `gpa` on.
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), GuestMemoryError>;

    /// Writes `bytes` at `gpa`. On `NotResident` a part may have been written: repeat it.
    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), GuestMemoryError>;

    /// Reads a little-endian u64.
    fn read_u64(&self, gpa: Gpa) -> Result<u64, GuestMemoryError> {
        let mut bytes = [0; 8];
        self.read(gpa, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
