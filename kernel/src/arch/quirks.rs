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
    runs_on_tcg()
}

/// What guests can do to the machine itself, so that it must not be left to them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestHazards {
    /// Nothing.
    None,
    /// QEMU's own emulation of SVM. Each was found in the source of 7.2 (`target/i386/tcg`), and seen.
    ///
    /// * An interrupt that is injected by EVENTINJ leaves its vector in `exception_index` (`helper_vmrun`). If the CPU loop is
    ///   left before the next exit or exception (`exit_request`, or an instruction budget that is used up), the loop begins by
    ///   delivering that vector once more: mostly inside the interrupt's own handler.
    /// * MOV to CR8 while a virtual interrupt pends calls `cpu_interrupt` without the lock that it asserts: QEMU aborts.
    /// * Breakpoints are kept in lists that DR7 tells how to undo. VMRUN and #VMEXIT replace DR7 alone: a later write frees
    ///   the wrong entry, and hits are raised in the host. QEMU aborts, or dies of SIGSEGV.
    ///
    /// And MOV to CR0 checks nothing, so that a value which a CPU refuses makes the next VMRUN fail.
    Tcg,
}

/// Returns what guests can do to this machine.
pub fn guest_hazards() -> GuestHazards {
    if runs_on_tcg() { GuestHazards::Tcg } else { GuestHazards::None }
}

/// Returns whether an interrupt request that is raised while a CPU enters a guest can be lost until the next one is raised.
///
/// `helper_vmrun` of QEMU's own emulation adds a request to a word that other threads add to as well, and not atomically. The
/// timer therefore repeats itself there: the next tick brings what was lost.
pub fn requests_get_lost() -> bool {
    runs_on_tcg()
}

fn runs_on_tcg() -> bool {
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
