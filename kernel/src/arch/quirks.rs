//! What emulators get wrong, where software has to make up for it.

use super::instr;

/// First leaf of those that hypervisors and emulators answer; EBX, ECX, EDX say who.
const LEAF_HYPERVISOR: u32 = 0x4000_0000;
/// CPUID.1:ECX bit 31: such leaves exist.
const HYPERVISOR_PRESENT: u32 = 1 << 31;
/// QEMU without KVM.
const TCG: &[u8; 12] = b"TCGTCGTCGTCG";

/// Returns whether the boot CPU loses flags while it switches worlds by SVM and another CPU runs.
///
/// QEMU's own emulation does so: an instruction that loads a clean x87 status on *any* CPU (XRSTOR, FXRSTOR, FLDENV) deasserts
/// IGNNE#, which it keeps among the boot CPU's flags, and writes these back without regard to what the boot CPU does with them. There
/// also stand nested paging and GIF. So now and then the boot CPU goes on after #VMEXIT with the guest's paging, or without interrupts.
/// A boot CPU that never executes VMRUN, CLGI and STGI has nothing to lose. Seen in 7.2 (`cpu_clear_ignne`).
pub fn boot_cpu_loses_flags() -> bool {
    if instr::cpuid(1, 0).ecx & HYPERVISOR_PRESENT == 0 {
        return false;
    }
    let leaf = instr::cpuid(LEAF_HYPERVISOR, 0);
    is_tcg([leaf.ebx, leaf.ecx, leaf.edx])
}

fn is_tcg(registers: [u32; 3]) -> bool {
    registers.map(u32::to_le_bytes).as_flattened() == TCG
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_qemus_own_emulation_is_meant() {
        let registers = |name: &[u8; 12]| {
            let (words, _) = name.as_chunks::<4>();
            [words[0], words[1], words[2]].map(u32::from_le_bytes)
        };
        assert!(is_tcg(registers(TCG)));
        assert!(!is_tcg(registers(b"KVMKVMKVM\0\0\0")) && !is_tcg([0; 3]));
    }
}
