//! The host state that an exit loads: captured once on each CPU, and written to a VMCS when it
//! moves to that CPU.
//!
//! RIP is the world switch's exit label; the world switch itself writes RSP when it changes.
// UNSAFETY: reads registers and this CPU's descriptor table.
#![expect(unsafe_code)]

use super::entry;
use super::field::host;
use super::msrs::number as msr;
use super::vmcs::CurrentVmcs;
use crate::arch::instr::{rdmsr, vmx};
use x86_64::instructions::segmentation::{CS, Segment};
use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr3, Cr4};

/// This CPU's own state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostState {
    cr0: u64,
    cr3: u64,
    cr4: u64,
    code_selector: u16,
    task_selector: u16,
    task_base: u64,
    gdt_base: u64,
    idt_base: u64,
    fs_base: u64,
    gs_base: u64,
    efer: u64,
    pat: u64,
}

impl HostState {
    /// Captures the calling CPU's state.
    pub fn capture() -> Self {
        let (frame, flags) = Cr3::read_raw();
        let task_selector = vmx::task_register();
        let gdt_base = sgdt().base.as_u64();
        // SAFETY: every 64-bit CPU has these registers.
        let read = |number| unsafe { rdmsr(number) };
        Self {
            cr0: Cr0::read_raw(),
            cr3: frame.start_address().as_u64() | u64::from(flags),
            cr4: Cr4::read_raw(),
            code_selector: CS::get_reg().0,
            task_selector,
            task_base: task_base(gdt_base, task_selector),
            gdt_base,
            idt_base: sidt().base.as_u64(),
            fs_base: read(msr::FS_BASE),
            gs_base: read(msr::GS_BASE),
            efer: read(msr::EFER),
            pat: read(msr::PAT),
        }
    }

    /// Writes the state. In 64-bit mode the data selectors may be null, and are.
    pub fn write(&self, vmcs: &mut CurrentVmcs<'_>) {
        vmcs.write(host::CR0, self.cr0);
        vmcs.write(host::CR3, self.cr3);
        vmcs.write(host::CR4, self.cr4);
        vmcs.write(host::CS_SELECTOR, self.code_selector);
        for null in [
            host::SS_SELECTOR,
            host::DS_SELECTOR,
            host::ES_SELECTOR,
            host::FS_SELECTOR,
            host::GS_SELECTOR,
        ] {
            vmcs.write(null, 0);
        }
        vmcs.write(host::TR_SELECTOR, self.task_selector);
        vmcs.write(host::TR_BASE, self.task_base);
        vmcs.write(host::GDTR_BASE, self.gdt_base);
        vmcs.write(host::IDTR_BASE, self.idt_base);
        vmcs.write(host::FS_BASE, self.fs_base);
        vmcs.write(host::GS_BASE, self.gs_base);
        vmcs.write(host::EFER, self.efer);
        vmcs.write(host::PAT, self.pat);
        vmcs.write(host::SYSENTER_CS, 0);
        vmcs.write(host::SYSENTER_ESP, 0);
        vmcs.write(host::SYSENTER_EIP, 0);
        vmcs.write(host::RIP, entry::exit_address());
    }
}

/// Reads the base of the task segment from its descriptor, 16 bytes in 64-bit mode.
///
/// # Panics
/// If no task segment is loaded: VMX needs one, and so do the stacks of NMI and machine check.
fn task_base(gdt_base: u64, selector: u16) -> u64 {
    assert!(selector & !7 != 0, "a task segment is loaded before VMX is enabled");
    let descriptor = (gdt_base + u64::from(selector & !7)) as *const u64;
    // SAFETY: TR was loaded from this table, so the descriptor lies in it; only this CPU uses the
    // table.
    let low = unsafe { descriptor.read_unaligned() };
    // SAFETY: as above; the upper half follows.
    let high = unsafe { descriptor.add(1).read_unaligned() };
    descriptor_base(low, high)
}

const fn descriptor_base(low: u64, high: u64) -> u64 {
    ((low >> 16) & 0xff_ffff) | ((low >> 56) << 24) | (high << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptors_base_lies_in_four_pieces() {
        assert_eq!(
            descriptor_base(0x8900_8b12_3456_0067 | 0x80 << 56, 0xffff_ffff),
            0xffff_ffff_8912_3456
        );
    }
}
