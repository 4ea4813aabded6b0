//! For tests: guest memory, a vector of bytes whose pages can be made absent; and a vCPU.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::addr::Gpa;
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::virt::{EventSink, Gpr, InjectedEvent, Regs, VcpuRegisters, VmExit, WindowRequest};

/// Guest memory from address zero on.
pub(super) struct FakeGuestMemory {
    bytes: RefCell<Vec<u8>>,
    absent: RefCell<BTreeSet<u64>>,
}

impl FakeGuestMemory {
    /// Makes `bytes` bytes of zeroed, resident memory.
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes: RefCell::new(vec![0; bytes]), absent: RefCell::default() }
    }
    /// Makes the page at `at` absent.
    pub(super) fn evict(&self, at: u64) {
        self.absent.borrow_mut().insert(at & !0xfff);
    }
    /// Makes the page at `at` resident.
    pub(super) fn bring_in(&self, at: u64) {
        self.absent.borrow_mut().remove(&(at & !0xfff));
    }
    /// Writes without the residence check.
    pub(super) fn poke(&self, at: u64, bytes: &[u8]) {
        self.bytes.borrow_mut()[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    /// Writes a little-endian u64 without the residence check.
    pub(super) fn poke_u64(&self, at: u64, value: u64) {
        self.poke(at, &value.to_le_bytes());
    }
    /// Reads without the residence check.
    pub(super) fn peek(&self, at: u64, length: usize) -> Vec<u8> {
        self.bytes.borrow()[at as usize..][..length].to_vec()
    }

    fn check(&self, gpa: Gpa, length: usize) -> Result<(), GuestMemoryError> {
        let start = gpa.as_u64();
        let end =
            start.checked_add(length as u64).filter(|&end| end <= self.bytes.borrow().len() as u64);
        let Some(end) = end else { return Err(GuestMemoryError::NotRam(gpa)) };
        let absent = self.absent.borrow().range(start & !0xfff..end).next().copied();
        absent.map_or(Ok(()), |page| Err(GuestMemoryError::NotResident(Gpa::new(page))))
    }
}

impl GuestMemory for FakeGuestMemory {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), GuestMemoryError> {
        self.check(gpa, buf.len())?;
        buf.copy_from_slice(&self.peek(gpa.as_u64(), buf.len()));
        Ok(())
    }
    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), GuestMemoryError> {
        self.check(gpa, bytes.len())?;
        self.poke(gpa.as_u64(), bytes);
        Ok(())
    }
}

/// A vCPU for tests: registers, and the event queued for it.
pub(super) struct FakeVcpu {
    pub regs: Regs,
    /// CR8.
    pub class: u8,
    /// IF is set, and nothing blocks interrupts.
    pub takes_interrupts: bool,
    /// NMIs are not blocked.
    pub takes_nmis: bool,
    /// The event for the next run.
    pub queued: Option<InjectedEvent>,
    pub interrupt_window: WindowRequest,
    pub nmi_window: WindowRequest,
}

impl Default for FakeVcpu {
    /// Makes a vCPU that takes NMIs only.
    fn default() -> Self {
        Self {
            regs: Regs::default(),
            class: 0,
            takes_interrupts: false,
            takes_nmis: true,
            queued: None,
            interrupt_window: WindowRequest::None,
            nmi_window: WindowRequest::None,
        }
    }
}

impl FakeVcpu {
    /// Makes a vCPU that takes all events.
    pub(super) fn ready() -> Self {
        Self { takes_interrupts: true, ..Self::default() }
    }
}

impl VcpuRegisters for FakeVcpu {
    fn regs(&self) -> &Regs {
        &self.regs
    }
    fn set(&mut self, gpr: Gpr, value: u64) {
        self.regs.set(gpr, value);
    }
    fn cr3(&self) -> u64 {
        0
    }
    fn next_rip(&self, _: VmExit) -> Option<u64> {
        None
    }
    fn advance_to(&mut self, rip: u64) {
        self.regs.rip = rip;
    }
}

impl EventSink for FakeVcpu {
    fn cr8(&self) -> u8 {
        self.class
    }
    fn set_cr8(&mut self, class: u8) {
        self.class = class;
    }
    fn can_take_interrupt(&self) -> bool {
        self.takes_interrupts && self.queued.is_none()
    }
    fn can_take_nmi(&self) -> bool {
        self.takes_nmis && self.queued.is_none()
    }
    fn inject(&mut self, event: InjectedEvent) {
        assert!(self.queued.is_none(), "one event is queued at a time");
        self.queued = Some(event);
    }
    fn request_interrupt_window(&mut self, window: WindowRequest) {
        self.interrupt_window = window;
    }
    fn request_nmi_window(&mut self, window: WindowRequest) {
        self.nmi_window = window;
    }
}
