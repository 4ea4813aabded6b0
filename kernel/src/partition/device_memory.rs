//! A partition's memory as its devices on the bus access it, on any CPU.
//!
//! ```text
//!  gpa ──> page ── A (and D) set ──> frame ──> copy
//!            └─ not there ──> Pager::fault_for_device ──> again, NotResident, or a flush first
//! ```
//!
//! As [`crate::mm::guest_bytes`], a copy happens within the read section of its CPU: that is the
//! pin of the page. Each access is within one page, or is repeated as a whole, so no access holds a
//! page while it waits for another one.

use crate::addr::{Gpa, Hfn, PAGE_SIZE};
use crate::host::Host;
use crate::mm::flush::FlushTicket;
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::mm::object::{MemoryObject, WaitTicket};
use crate::mm::phys::FrameMemory;
use crate::paging::{DeviceAccess, PageLossError};
use crate::virt::PageAccess;
use core::cell::Cell;

/// How often a page may be evicted between its page-in and the copy before the device waits.
const ATTEMPTS: u32 = 4;

/// What a device waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum DeviceWait {
    /// A page or a frame.
    Page(WaitTicket),
    /// A flush.
    Flush(FlushTicket),
}

/// The memory.
pub(super) struct DeviceMemory<'a> {
    host: &'static Host,
    object: &'a MemoryObject,
    /// Taken before the first look at a page.
    ticket: WaitTicket,
    flush: Cell<Option<FlushTicket>>,
}

impl<'a> DeviceMemory<'a> {
    /// Begins a turn of a device at its memory.
    pub(super) fn new(host: &'static Host, object: &'a MemoryObject) -> Self {
        Self { host, object, ticket: object.wait_ticket(), flush: Cell::new(None) }
    }

    /// Returns what an access that was not resident waits for.
    pub(super) fn wait(&self) -> DeviceWait {
        self.flush.get().map_or(DeviceWait::Page(self.ticket), DeviceWait::Flush)
    }

    fn translate(&self, gpa: Gpa, access: PageAccess) -> Result<Hfn, GuestMemoryError> {
        let layout = self.object.layout();
        let index = layout.index_of(gpa.number()).ok_or(GuestMemoryError::NotRam(gpa))?;
        for _ in 0..ATTEMPTS {
            if let Some(Ok(hfn)) = self.object.existing(index).map(|page| page.touch(access)) {
                return Ok(hfn);
            }
            match self.host.pager.fault_for_device(self.object, index, access) {
                DeviceAccess::Resolved => {}
                DeviceAccess::Waits => return Err(GuestMemoryError::NotResident(gpa)),
                DeviceAccess::Flushes(ticket, kicks) => {
                    self.flush.set(Some(ticket));
                    self.host.kick(kicks);
                    return Err(GuestMemoryError::NotResident(gpa));
                }
                DeviceAccess::Lost(PageLossError::Unwritable(_) | PageLossError::NoFrames) => {
                    return Err(GuestMemoryError::Unwritable(gpa));
                }
                DeviceAccess::Lost(_) => return Err(GuestMemoryError::Lost(gpa)),
            }
        }
        Err(GuestMemoryError::NotResident(gpa))
    }

    /// Calls `copy` with frame, place in it, and range of the bytes for each page.
    fn each_page(
        &self,
        (gpa, bytes): (Gpa, usize),
        access: PageAccess,
        mut copy: impl FnMut(Hfn, usize, core::ops::Range<usize>),
    ) -> Result<(), GuestMemoryError> {
        let mut done = 0;
        while done < bytes {
            let at = gpa.checked_add(done as u64).ok_or(GuestMemoryError::NotRam(gpa))?;
            let len = (bytes - done).min((PAGE_SIZE - at.page_offset()) as usize);
            copy(self.translate(at, access)?, at.page_offset() as usize, done..done + len);
            done += len;
        }
        Ok(())
    }
}

impl GuestMemory for DeviceMemory<'_> {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), GuestMemoryError> {
        self.each_page((gpa, buf.len()), PageAccess::Read, |hfn, at, range| {
            self.host.memory.copy_out(hfn, at, &mut buf[range]);
        })
    }

    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), GuestMemoryError> {
        self.each_page((gpa, bytes.len()), PageAccess::Write, |hfn, at, range| {
            self.host.memory.copy_in(hfn, at, &bytes[range]);
        })
    }
}
