//! Copies a [`CpuState`] to and from the VMCS.
//!
//! Segments need no conversion: the state has VMX's layout of access rights. The state does not
//! include the PDPTEs of 32-bit PAE paging, which only the CPU loads. So a state with such paging
//! active cannot be set. An exception is a state that was read from the same VMCS, which still
//! holds the PDPTEs.

use super::capability::VmxProperties;
use super::control_register::{cr0, cr4, guest_view, real_cr0, real_cr4};
use super::controls::EntryControls;
use super::field::{SegmentFields, control, guest};
use super::vmcs::CurrentVmcs;
use crate::virt::contract::{ControlRegisters, FetchRegisters};
use crate::virt::efer;
use crate::virt::state::{CpuState, DescriptorTable, SegmentRegister};

/// SDM 3C "Guest Register State": the defined bits of the access rights.
const ATTRIBUTES: u32 = 0x1_f0ff;

/// Writes every part of `state` that has a field.
pub(super) fn write(vmcs: &mut CurrentVmcs<'_>, state: &CpuState, settings: &VmxProperties) {
    write_segments(vmcs, state);
    vmcs.write(guest::GDTR_BASE, state.gdtr.base);
    vmcs.write(guest::GDTR_LIMIT, u32::from(state.gdtr.limit));
    vmcs.write(guest::IDTR_BASE, state.idtr.base);
    vmcs.write(guest::IDTR_LIMIT, u32::from(state.idtr.limit));
    vmcs.write(guest::CR0, real_cr0(state.cr0));
    vmcs.write(control::CR0_SHADOW, state.cr0);
    vmcs.write(guest::CR3, state.cr3);
    vmcs.write(guest::CR4, real_cr4(state.cr4, settings.cr4));
    vmcs.write(control::CR4_SHADOW, state.cr4);
    vmcs.write(guest::DR7, state.dr7);
    vmcs.write(guest::PAT, state.pat);
    // The MSR has 64 bits, the field 32; the CPU uses only 32 as well.
    vmcs.write(guest::SYSENTER_CS, state.sysenter_cs as u32);
    vmcs.write(guest::SYSENTER_ESP, state.sysenter_esp);
    vmcs.write(guest::SYSENTER_EIP, state.sysenter_eip);
    write_mode(vmcs, state, settings);
    write_no_activity(vmcs);
}

/// Writes EFER and its entry control; exits keep the control up to date from here on.
fn write_mode(vmcs: &mut CurrentVmcs<'_>, state: &CpuState, settings: &VmxProperties) {
    let long_mode = state.efer & efer::LME != 0 && state.cr0 & cr0::PG != 0;
    let (lma, mode) = if long_mode {
        (efer::LMA, EntryControls::IA32E_MODE_GUEST)
    } else {
        (0, EntryControls::empty())
    };
    vmcs.write(guest::EFER, state.efer & !efer::LMA | lma);
    vmcs.write(control::ENTRY, settings.entry | mode.bits());
}

/// Clears shadows, activity state and pending exceptions: a new state has none of them.
fn write_no_activity(vmcs: &mut CurrentVmcs<'_>) {
    vmcs.write(guest::INTERRUPTIBILITY, 0);
    vmcs.write(guest::ACTIVITY, 0);
    vmcs.write(guest::PENDING_DEBUG, 0);
}

fn write_segments(vmcs: &mut CurrentVmcs<'_>, state: &CpuState) {
    write_segment(vmcs, guest::CS, &state.cs);
    write_segment(vmcs, guest::DS, &state.ds);
    write_segment(vmcs, guest::ES, &state.es);
    write_segment(vmcs, guest::FS, &state.fs);
    write_segment(vmcs, guest::GS, &state.gs);
    write_segment(vmcs, guest::SS, &state.ss);
    write_segment(vmcs, guest::LDTR, &state.ldtr);
    write_segment(vmcs, guest::TR, &state.tr);
}

fn write_segment(vmcs: &mut CurrentVmcs<'_>, fields: SegmentFields, segment: &SegmentRegister) {
    vmcs.write(fields.selector, segment.selector);
    vmcs.write(fields.base, segment.base);
    vmcs.write(fields.limit, segment.limit);
    vmcs.write(fields.attributes, segment.attributes & ATTRIBUTES);
}

/// Reads every part that has a field; the rest of the result is zero.
pub(super) fn read(vmcs: &CurrentVmcs<'_>) -> CpuState {
    let control = read_control_registers(vmcs);
    CpuState {
        cs: read_segment(vmcs, guest::CS),
        ds: read_segment(vmcs, guest::DS),
        es: read_segment(vmcs, guest::ES),
        fs: read_segment(vmcs, guest::FS),
        gs: read_segment(vmcs, guest::GS),
        ss: read_segment(vmcs, guest::SS),
        ldtr: read_segment(vmcs, guest::LDTR),
        tr: read_segment(vmcs, guest::TR),
        // The CPU keeps 16-bit limits in these 32-bit fields.
        gdtr: DescriptorTable {
            base: vmcs.read(guest::GDTR_BASE),
            limit: vmcs.read(guest::GDTR_LIMIT) as u16,
        },
        idtr: DescriptorTable {
            base: vmcs.read(guest::IDTR_BASE),
            limit: vmcs.read(guest::IDTR_LIMIT) as u16,
        },
        cr0: control.cr0,
        cr3: control.cr3,
        cr4: control.cr4,
        dr7: vmcs.read(guest::DR7),
        efer: control.efer,
        sysenter_cs: u64::from(vmcs.read(guest::SYSENTER_CS)),
        sysenter_esp: vmcs.read(guest::SYSENTER_ESP),
        sysenter_eip: vmcs.read(guest::SYSENTER_EIP),
        pat: vmcs.read(guest::PAT),
        ..CpuState::default()
    }
}

fn read_segment(vmcs: &CurrentVmcs<'_>, fields: SegmentFields) -> SegmentRegister {
    SegmentRegister {
        selector: vmcs.read(fields.selector),
        attributes: vmcs.read(fields.attributes),
        limit: vmcs.read(fields.limit),
        base: vmcs.read(fields.base),
    }
}

/// Reads the control registers as the guest sees them. Inlined, so that a caller pays only for
/// those it uses.
#[inline]
pub(super) fn read_control_registers(vmcs: &CurrentVmcs<'_>) -> ControlRegisters {
    ControlRegisters {
        cr0: guest_view(vmcs.read(guest::CR0), vmcs.read(control::CR0_SHADOW), cr0::MASK),
        cr3: vmcs.read(guest::CR3),
        cr4: guest_view(vmcs.read(guest::CR4), vmcs.read(control::CR4_SHADOW), cr4::MASK),
        efer: vmcs.read(guest::EFER),
    }
}

/// Reads the registers on which a fetch of 64-bit code depends.
#[inline(always)]
pub(super) fn long_code(vmcs: &CurrentVmcs<'_>) -> FetchRegisters {
    let control = read_control_registers(vmcs);
    let cpl = (vmcs.read(guest::SS.attributes) >> 5) as u8 & 3;
    FetchRegisters { cr3: control.cr3, cr4: control.cr4, cpl }
}

/// Returns whether the guest executes 64-bit code.
#[inline]
pub(super) fn in_64_bit_mode(vmcs: &CurrentVmcs<'_>) -> bool {
    const CS_LONG: u32 = 1 << 13;
    vmcs.read(guest::EFER) & efer::LMA != 0 && vmcs.read(guest::CS.attributes) & CS_LONG != 0
}
