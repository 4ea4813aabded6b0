//! A VMCS, and access to the current one.
//!
//! ```text
//!  Vmcs: clear <──vmclear── current on one CPU ──> CurrentVmcs: read, write
//!          └──────vmptrld──────────^
//! ```
//!
//! Invariants: VMCS fields are accessed only through a [`CurrentVmcs`], which exists only while its
//! VMCS is current on this CPU; it is neither `Send` nor stored. Interrupts are off in the
//! hypervisor, so no other code runs in between.
// UNSAFETY: VMX instructions. Only this back end writes VMCS fields, and keeps what they mean for
// memory right.
#![expect(unsafe_code)]

use super::capability::VmxProperties;
use super::field::{ExitInfoField, FieldWidth, VmcsField};
use crate::addr::Hpa;
use crate::arch::instr::vmx;
use crate::virt::frame::ControlFrame;
use core::marker::PhantomData;

/// Writes the revision identifier, without which the CPU refuses a region. SDM 3C "Format of the
/// VMCS Region".
pub(super) fn write_revision(frame: &ControlFrame, revision: u32) {
    let first_word = frame.hva().as_u64() as *mut u32;
    // SAFETY: a control frame is a mapped page of its owner; the CPU does not use it yet.
    unsafe { first_word.write_volatile(revision) };
}

/// A VMCS in its frame; not current anywhere unless [`VmxVcpu`](super::VmxVcpu) is loaded.
#[derive(Debug)]
pub(super) struct Vmcs(ControlFrame);

impl Vmcs {
    /// Makes a VMCS in a frame. The calling CPU is in VMX root operation.
    pub(super) fn new(frame: ControlFrame, settings: &VmxProperties) -> Self {
        write_revision(&frame, settings.basic.revision());
        let vmcs = Self(frame);
        vmcs.clear();
        vmcs
    }

    /// Returns the frame of a VMCS that was cleared and is current nowhere.
    pub(super) fn into_frame(self) -> ControlFrame {
        self.0
    }

    /// Writes the VMCS back to memory: it is then neither current nor launched.
    pub(super) fn clear(&self) {
        // SAFETY: the frame is a VMCS, and the owner of its vCPU is the caller: the VMCS is current
        // on no other CPU.
        unsafe { vmx::vmclear(self.0.hpa()) }.expect("VMCLEAR of a VMCS of ours");
    }

    /// Makes the VMCS current on this CPU.
    pub(super) fn make_current(&self) {
        // SAFETY: as for `clear`; the VMCS was cleared when it left the last CPU.
        unsafe { vmx::vmptrld(self.0.hpa()) }.expect("VMPTRLD of a VMCS of ours");
    }

    /// Gives access to a VMCS that is current nowhere, and then makes the previous one current
    /// again.
    #[cold]
    #[inline(never)]
    pub(super) fn with_current<R>(&self, access: impl FnOnce(&mut CurrentVmcs<'_>) -> R) -> R {
        // SAFETY: VMX root operation, which is never left.
        let previous = unsafe { vmx::vmptrst() };
        self.make_current();
        let result = access(&mut CurrentVmcs(PhantomData));
        self.clear();
        if previous != Hpa::new(u64::MAX) {
            // SAFETY: this VMCS was current here before.
            unsafe { vmx::vmptrld(previous) }.expect("VMPTRLD of what was current");
        }
        result
    }

    /// Gives access to the VMCS.
    ///
    /// # Safety
    /// The VMCS is current on this CPU, and stays current while the result lives.
    #[inline(always)]
    pub(super) unsafe fn current(&self) -> CurrentVmcs<'_> {
        CurrentVmcs(PhantomData)
    }
}

/// Access to the VMCS that is current on this CPU. The pointer makes it `!Send`.
#[derive(Debug)]
pub struct CurrentVmcs<'a>(PhantomData<(&'a Vmcs, *mut ())>);

impl CurrentVmcs<'_> {
    /// Reads a field.
    #[inline(always)]
    pub fn read<W: FieldWidth>(&self, field: VmcsField<W>) -> W::Value {
        // SAFETY: a VMCS is current, so this is VMX root operation.
        W::from_raw(unsafe { vmx::vmread(field.encoding()) })
    }

    /// Reads a field of VM-exit information.
    #[inline(always)]
    pub fn info<W: FieldWidth>(&self, field: ExitInfoField<W>) -> W::Value {
        // SAFETY: as for `read`.
        W::from_raw(unsafe { vmx::vmread(field.encoding()) })
    }

    /// Writes a field.
    #[inline(always)]
    pub fn write<W: FieldWidth>(&mut self, field: VmcsField<W>, value: W::Value) {
        // SAFETY: as for `read`; only `setup` and `host_state` make the values of host and control
        // fields.
        unsafe { vmx::vmwrite(field.encoding(), W::to_raw(value)) };
    }
}
