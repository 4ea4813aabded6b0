//! Converts the guest's state between [`CpuState`] and the VMCB's save area. Pure.

use super::efer;
use super::vmcb::{VmcbSaveArea, VmcbSegment as Raw};
use crate::virt::state::{CpuState, DescriptorTable, SegmentRegister};

const PRESENT: u32 = 1 << 7;
const UNUSABLE: u32 = 1 << 16;
const DPL_SHIFT: u32 = 5;
const DPL: u32 = 3 << DPL_SHIFT;

/// Moves bits 15:12 (AVL, L, D/B, G in VMX's layout) to 11:8. Unusable becomes "not present".
fn to_raw(segment: &SegmentRegister) -> Raw {
    let attributes = (segment.attributes & 0xff) | ((segment.attributes >> 4) & 0xf00);
    let usable =
        if segment.attributes & UNUSABLE == 0 { attributes } else { attributes & !PRESENT };
    Raw {
        selector: segment.selector,
        attributes: usable as u16,
        limit: segment.limit,
        base: segment.base,
    }
}

fn from_raw(raw: &Raw) -> SegmentRegister {
    let bits = u32::from(raw.attributes);
    let unusable = if bits & PRESENT == 0 { UNUSABLE } else { 0 };
    let attributes = (bits & 0xff) | ((bits & 0xf00) << 4) | unusable;
    SegmentRegister { selector: raw.selector, attributes, limit: raw.limit, base: raw.base }
}

fn table_to_raw(table: &DescriptorTable) -> Raw {
    Raw { selector: 0, attributes: 0, limit: u32::from(table.limit), base: table.base }
}

fn table_from_raw(raw: &Raw) -> DescriptorTable {
    DescriptorTable { base: raw.base, limit: raw.limit as u16 }
}

/// Returns whether the guest executes 64-bit code.
#[inline(always)]
pub(super) const fn runs_long_code(save: &VmcbSaveArea) -> bool {
    const LONG: u16 = 1 << 9;
    save.efer & crate::virt::efer::LMA != 0 && save.cs.attributes & LONG != 0
}

/// Writes `state`, and the CPL derived from SS.
pub(super) fn store(save: &mut VmcbSaveArea, state: &CpuState) {
    store_segments(save, state);
    save.cpl = state.cpl();
    save.cr0 = state.cr0;
    save.cr2 = state.cr2;
    save.cr3 = state.cr3;
    save.cr4 = state.cr4;
    save.dr6 = state.dr6;
    save.dr7 = state.dr7;
    save.efer = efer::to_hardware(state.efer);
    save.star = state.star;
    save.lstar = state.lstar;
    save.cstar = state.cstar;
    save.sfmask = state.sfmask;
    save.kernel_gs_base = state.kernel_gs_base;
    save.sysenter_cs = state.sysenter_cs;
    save.sysenter_esp = state.sysenter_esp;
    save.sysenter_eip = state.sysenter_eip;
    save.pat = state.pat;
}

fn store_segments(save: &mut VmcbSaveArea, state: &CpuState) {
    save.cs = to_raw(&state.cs);
    save.ds = to_raw(&state.ds);
    save.es = to_raw(&state.es);
    save.fs = to_raw(&state.fs);
    save.gs = to_raw(&state.gs);
    save.ss = to_raw(&state.ss);
    save.ldtr = to_raw(&state.ldtr);
    save.tr = to_raw(&state.tr);
    save.gdtr = table_to_raw(&state.gdtr);
    save.idtr = table_to_raw(&state.idtr);
}

/// Reads the state back.
pub(super) fn load(save: &VmcbSaveArea) -> CpuState {
    CpuState {
        cs: from_raw(&save.cs),
        ds: from_raw(&save.ds),
        es: from_raw(&save.es),
        fs: from_raw(&save.fs),
        gs: from_raw(&save.gs),
        ss: stack_segment(save),
        ldtr: from_raw(&save.ldtr),
        tr: from_raw(&save.tr),
        gdtr: table_from_raw(&save.gdtr),
        idtr: table_from_raw(&save.idtr),
        cr0: save.cr0,
        cr2: save.cr2,
        cr3: save.cr3,
        cr4: save.cr4,
        dr6: save.dr6,
        dr7: save.dr7,
        efer: efer::to_guest(save.efer),
        star: save.star,
        lstar: save.lstar,
        cstar: save.cstar,
        sfmask: save.sfmask,
        kernel_gs_base: save.kernel_gs_base,
        sysenter_cs: save.sysenter_cs,
        sysenter_esp: save.sysenter_esp,
        sysenter_eip: save.sysenter_eip,
        pat: save.pat,
    }
}

/// Returns SS with the CPL as its DPL: on AMD's CPUs a null SS has none, and the VMCB's CPL is
/// used.
fn stack_segment(save: &VmcbSaveArea) -> SegmentRegister {
    let ss = from_raw(&save.ss);
    SegmentRegister {
        attributes: (ss.attributes & !DPL) | (u32::from(save.cpl) << DPL_SHIFT),
        ..ss
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virt::svm::vmcb::Vmcb;

    fn save_area() -> VmcbSaveArea {
        Vmcb::zeroed().save
    }

    #[test]
    fn attributes_are_packed_and_unpacked() {
        let code = SegmentRegister { selector: 8, attributes: 0xa09b, limit: u32::MAX, base: 0 };
        assert_eq!(to_raw(&code).attributes, 0xa9b);
        assert_eq!(from_raw(&to_raw(&code)), code);
        let unusable =
            SegmentRegister { selector: 0, attributes: UNUSABLE | 0x93, limit: 0, base: 0 };
        assert_eq!(to_raw(&unusable).attributes, 0x13);
        assert_eq!(from_raw(&to_raw(&unusable)).attributes, UNUSABLE | 0x13);
    }

    #[test]
    fn a_state_survives_the_way_there_and_back() {
        let code = SegmentRegister { selector: 8, attributes: 0xa0fb, limit: u32::MAX, base: 0 };
        let data =
            SegmentRegister { selector: 0x10, attributes: 0xc0f3, limit: u32::MAX, base: 0x1000 };
        let mut state = CpuState::flat(code, data);
        state.efer = 0xd01;
        state.gdtr = DescriptorTable { base: 0xffff_8000_0000_0000, limit: 0x7f };
        (state.cr2, state.cr3, state.kernel_gs_base) = (1, 2, 3);
        let mut save = save_area();
        store(&mut save, &state);
        assert_eq!((save.cpl, save.efer), (3, 0x1d01));
        assert_eq!(load(&save), state);
    }

    #[test]
    fn long_code_is_64_bit_code_in_long_mode_only() {
        let mut save = save_area();
        for (efer, attributes, long) in
            [(0xd01, 0xa09b, true), (0xd01, 0xc09b, false), (0x901, 0xa09b, false)]
        {
            let code = SegmentRegister { selector: 8, attributes, limit: u32::MAX, base: 0 };
            store(&mut save, &CpuState { efer, ..CpuState::flat(code, code) });
            assert_eq!(runs_long_code(&save), long, "{efer:#x} {attributes:#x}");
        }
    }

    #[test]
    fn the_privilege_level_comes_from_the_vmcb_where_ss_is_null() {
        let mut save = save_area();
        save.cpl = 3;
        assert_eq!(load(&save).cpl(), 3);
    }
}
