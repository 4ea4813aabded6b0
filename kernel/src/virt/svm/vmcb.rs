//! The virtual machine control block, in the hardware's layout.
//!
//! See: APM 2 "Layout of VMCB" (appendix B). Two areas: controls from 0, the guest's state from
//! 0x400. Fields for features that none of our CPUs has (SEV, AVIC, last-branch records) are part
//! of the gaps.
//!
//! Invariant: the offsets are the manual's; the assertions at the end check that at compile time.

/// Controls of VMRUN and information about the last exit, 0x000 to 0x3ff.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct VmcbControls {
    /// Bits 15:0 reads of CR0 to CR15, 31:16 writes.
    pub intercept_cr: u32,
    /// The same for DR0 to DR15.
    pub intercept_dr: u32,
    /// One bit per exception vector.
    pub intercept_exceptions: u32,
    /// See [`super::controls`].
    pub intercept_events: u32,
    /// See [`super::controls`].
    pub intercept_instructions: u32,
    /// See [`super::controls`].
    pub intercept_more: u32,
    _gap_018: [u8; 0x40 - 0x18],
    /// Physical address of the I/O permission map.
    pub iopm_base: u64,
    /// Physical address of the MSR permission map.
    pub msrpm_base: u64,
    /// Added to the guest's time stamp counter.
    pub tsc_offset: u64,
    /// Tag of the guest's translations; 0 is the host's.
    pub asid: u32,
    /// See [`TlbControl`].
    pub tlb_control: u32,
    /// Virtual interrupts: see the `V_` constants.
    pub interrupt_control: u64,
    /// Bit 0: the guest is in the shadow of STI or MOV SS.
    pub interrupt_state: u64,
    /// Why the guest stopped.
    pub exit_code: u64,
    /// First information word.
    pub exit_info_1: u64,
    /// Second information word.
    pub exit_info_2: u64,
    /// The event whose delivery the exit interrupted, in [`super::event`]'s layout.
    pub exit_interrupt_info: u64,
    /// Bit 0: nested paging.
    pub nested_control: u64,
    _gap_098: [u8; 0xa8 - 0x98],
    /// The event to deliver at VMRUN; the CPU clears it.
    pub event_injection: u64,
    /// Root of the nested page table.
    pub nested_cr3: u64,
    _gap_0b8: [u8; 0xc0 - 0xb8],
    /// Fields that have not changed since the last VMRUN; 0: none, the CPU reads them all.
    pub clean_bits: u64,
    /// Address of the next instruction, on CPUs that save it; other CPUs never write it.
    pub next_rip: u64,
    _gap_0d0: [u8; 0x400 - 0xd0],
}

/// A segment register; [`VmcbSegment::attributes`] are descriptor bits 55:52 and 47:40, packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub(super) struct VmcbSegment {
    /// Selector.
    pub selector: u16,
    /// Type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11.
    pub attributes: u16,
    /// Limit in bytes.
    pub limit: u32,
    /// Linear base.
    pub base: u64,
}

/// The guest's registers, 0x400 to 0x6ff.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct VmcbSaveArea {
    pub es: VmcbSegment,
    pub cs: VmcbSegment,
    pub ss: VmcbSegment,
    pub ds: VmcbSegment,
    pub fs: VmcbSegment,
    pub gs: VmcbSegment,
    pub gdtr: VmcbSegment,
    pub ldtr: VmcbSegment,
    pub idtr: VmcbSegment,
    pub tr: VmcbSegment,
    _gap_0a0: [u8; 0xcb - 0xa0],
    pub cpl: u8,
    _gap_0cc: [u8; 4],
    pub efer: u64,
    _gap_0d8: [u8; 0x148 - 0xd8],
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    _gap_180: [u8; 0x1d8 - 0x180],
    pub rsp: u64,
    _gap_1e0: [u8; 0x1f8 - 0x1e0],
    pub rax: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub cr2: u64,
    _gap_248: [u8; 0x268 - 0x248],
    /// The guest's PAT with nested paging.
    pub pat: u64,
    _gap_270: [u8; 0xc00 - 0x270],
}

/// One VMCB: a page.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4096))]
pub(super) struct Vmcb {
    /// Controls and exit information.
    pub control: VmcbControls,
    /// Guest state.
    pub save: VmcbSaveArea,
}

/// Translations that VMRUN flushes: APM 2 "TLB Control".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum TlbControl {
    /// Nothing.
    Nothing = 0,
    /// All translations of all ASIDs: every CPU supports it.
    All = 1,
    /// Those of this guest's ASID, if CPUID has FlushByAsid.
    ThisAsid = 3,
}

/// `interrupt_control`: CR8, 4 bits of the byte.
pub(super) const V_TPR: u64 = 0xf;
/// `interrupt_control`: a virtual interrupt is pending.
pub(super) const V_IRQ: u64 = 1 << 8;
/// `interrupt_control`: position of that interrupt's vector.
pub(super) const V_INTR_VECTOR_SHIFT: u32 = 32;
/// `interrupt_control`: that interrupt ignores CR8.
pub(super) const V_IGN_TPR: u64 = 1 << 20;
/// `interrupt_control`: the guest's IF and CR8 mask virtual interrupts only; physical ones follow
/// the host's IF.
pub(super) const V_INTR_MASKING: u64 = 1 << 24;
/// `interrupt_state`: the guest is in the shadow of STI or MOV SS.
pub(super) const INTERRUPT_SHADOW: u64 = 1;

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Vmcb>() == 4096 && offset_of!(Vmcb, save) == 0x400);
    assert!(
        offset_of!(VmcbControls, intercept_instructions) == 0x10
            && offset_of!(VmcbControls, iopm_base) == 0x40
    );
    assert!(
        offset_of!(VmcbControls, asid) == 0x58
            && offset_of!(VmcbControls, interrupt_control) == 0x60
    );
    assert!(
        offset_of!(VmcbControls, exit_code) == 0x70
            && offset_of!(VmcbControls, exit_interrupt_info) == 0x88
    );
    assert!(
        offset_of!(VmcbControls, nested_control) == 0x90
            && offset_of!(VmcbControls, event_injection) == 0xa8
    );
    assert!(
        offset_of!(VmcbControls, nested_cr3) == 0xb0 && offset_of!(VmcbControls, next_rip) == 0xc8
    );
    assert!(
        size_of::<VmcbSegment>() == 16
            && offset_of!(VmcbSaveArea, tr) == 0x90
            && offset_of!(VmcbSaveArea, cpl) == 0xcb
    );
    assert!(offset_of!(VmcbSaveArea, efer) == 0xd0 && offset_of!(VmcbSaveArea, cr4) == 0x148);
    assert!(offset_of!(VmcbSaveArea, rflags) == 0x170 && offset_of!(VmcbSaveArea, rip) == 0x178);
    assert!(offset_of!(VmcbSaveArea, rsp) == 0x1d8 && offset_of!(VmcbSaveArea, rax) == 0x1f8);
    assert!(offset_of!(VmcbSaveArea, cr2) == 0x240 && offset_of!(VmcbSaveArea, pat) == 0x268);
};

#[cfg(test)]
#[expect(unsafe_code)] // UNSAFETY: the tests' block is made as a zeroed frame holds it
impl Vmcb {
    /// Returns a VMCB as in a zeroed frame.
    pub(super) fn zeroed() -> Self {
        // SAFETY: every field is an integer, for which zero is a value.
        unsafe { core::mem::zeroed() }
    }
}
