//! Copies from and to guest memory through a memory object.
//!
//! ```text
//!  gpa ──layout──> page index ──leaf──> A (and D) set by compare-exchange ──> frame ──> copy
//!                                 └─ not present ──> Faulter ──> again, or NotResident
//! ```
//!
//! There is no lock: the copy is inside the read section of the calling CPU ([`super::flush`]), so
//! the page keeps its frame until that CPU enters a guest or idles. The bits are set *before* the
//! copy. If the page's cleaning begins between the two, D is cleared again, but no write is lost:
//! checksum and write-out wait until this CPU has passed, and then include the copied bytes.
//!
//! Invariants: guest bytes are copied once and never referenced; every number from the guest is
//! checked; the work for each page is bounded.

use super::{
    guest::{GuestMemory, GuestMemoryError},
    object::{MemoryObject, ObjectState},
    phys::FrameMemory,
};
use crate::addr::{Gpa, Hfn, PAGE_SIZE, PageIndex};
use crate::virt::PageAccess;

/// Why a page could not be made resident now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultInError {
    /// It is being brought in, or waits for a frame.
    Wait,
    /// It cannot be read back.
    Lost,
    /// No frame comes free for it, because pages cannot be written.
    Unwritable,
}

/// Makes pages resident, as the pager does.
pub trait Faulter {
    /// Brings page `index` of `object` in for `access`; `Ok` if it is resident by now and the
    /// access can be repeated.
    ///
    /// # Errors
    /// [`FaultInError`]: the caller parks, or gives the page up.
    fn fault(
        &self,
        object: &MemoryObject,
        index: PageIndex,
        access: PageAccess,
    ) -> Result<(), FaultInError>;
}

/// The bytes of an object's pages.
#[derive(Debug)]
pub struct GuestBytes<'a, M: FrameMemory, F: Faulter> {
    /// The object.
    pub object: &'a MemoryObject,
    /// The memory that holds the frames.
    pub memory: &'a M,
    /// Makes pages resident.
    pub faulter: &'a F,
}

/// How often a page may be evicted between its page-in and the copy before the caller parks.
const ATTEMPTS: u32 = 4;

impl<M: FrameMemory, F: Faulter> GuestBytes<'_, M, F> {
    /// Translates one page for `access` and sets its bits.
    fn translate(&self, gpa: Gpa, access: PageAccess) -> Result<Hfn, GuestMemoryError> {
        if self.object.state() == ObjectState::Teardown {
            return Err(GuestMemoryError::Lost(gpa));
        }
        let index =
            self.object.layout().index_of(gpa.number()).ok_or(GuestMemoryError::NotRam(gpa))?;
        for _ in 0..ATTEMPTS {
            if let Some(Ok(hfn)) = self.object.existing(index).map(|page| page.touch(access)) {
                return Ok(hfn);
            }
            self.faulter.fault(self.object, index, access).map_err(|not_now| match not_now {
                FaultInError::Wait => GuestMemoryError::NotResident(gpa),
                FaultInError::Lost => GuestMemoryError::Lost(gpa),
                FaultInError::Unwritable => GuestMemoryError::Unwritable(gpa),
            })?;
        }
        Err(GuestMemoryError::NotResident(gpa))
    }
}

/// Returns how many of `left` bytes from `gpa` on lie in its page.
fn piece_len(gpa: Gpa, left: usize) -> usize {
    left.min((PAGE_SIZE - gpa.page_offset()) as usize)
}

/// Returns the address `done` bytes after `gpa`. An address beyond the address space is not RAM.
fn advance(gpa: Gpa, done: usize) -> Result<Gpa, GuestMemoryError> {
    gpa.checked_add(done as u64).ok_or(GuestMemoryError::NotRam(gpa))
}

impl<M: FrameMemory, F: Faulter> GuestMemory for GuestBytes<'_, M, F> {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), GuestMemoryError> {
        let mut done = 0;
        while done < buf.len() {
            let at = advance(gpa, done)?;
            let len = piece_len(at, buf.len() - done);
            let hfn = self.translate(at, PageAccess::Read)?;
            self.memory.copy_out(hfn, at.page_offset() as usize, &mut buf[done..done + len]);
            done += len;
        }
        Ok(())
    }

    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), GuestMemoryError> {
        let mut done = 0;
        while done < bytes.len() {
            let at = advance(gpa, done)?;
            let len = piece_len(at, bytes.len() - done);
            let hfn = self.translate(at, PageAccess::Write)?;
            self.memory.copy_in(hfn, at.page_offset() as usize, &bytes[done..done + len]);
            done += len;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
