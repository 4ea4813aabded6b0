//! Faults of emulators that software must work around.

use super::instr;

/// First CPUID leaf of hypervisors and emulators; EBX, ECX and EDX identify them.
const LEAF_HYPERVISOR: u32 = 0x4000_0000;
/// CPUID.1:ECX bit 31: these leaves exist.
const HYPERVISOR_PRESENT: u32 = 1 << 31;
/// QEMU without KVM.
const TCG: &[u8; 12] = b"TCGTCGTCGTCG";

/// Returns whether the boot CPU can lose flags if it runs SVM world switches while another CPU
/// runs.
///
/// QEMU's own emulation does so. An instruction that loads a clean x87 status on *any* CPU (XRSTOR,
/// FXRSTOR, FLDENV) deasserts IGNNE#, which QEMU keeps in the boot CPU's flags. It writes these
/// flags back without regard to concurrent changes by the boot CPU. Nested paging and GIF are among
/// the same flags. So the boot CPU occasionally continues after #VMEXIT with the guest's paging, or
/// without interrupts. A boot CPU that never executes VMRUN, CLGI and STGI has no flags to lose.
/// Seen in 7.2 (`cpu_clear_ignne`).
pub fn boot_cpu_loses_flags() -> bool {
    runs_on_tcg()
}

/// Guest actions that harm the machine itself, so that guests must be kept from them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestHazards {
    /// There are none.
    None,
    /// QEMU's own emulation of SVM. Each fault was found in the source of 7.2 (`target/i386/tcg`),
    /// and seen in operation.
    ///
    /// * An interrupt injected by EVENTINJ leaves its vector in `exception_index` (`helper_vmrun`).
    ///   If the CPU loop is left before the next exit or exception (`exit_request`, or an exhausted
    ///   instruction budget), the loop begins by delivering that vector again: mostly inside the
    ///   interrupt's own handler.
    /// * MOV to CR8 while a virtual interrupt is pending calls `cpu_interrupt` without the lock
    ///   that it asserts: QEMU aborts.
    /// * Breakpoints are kept in lists, and DR7 determines how entries are removed. VMRUN and
    ///   #VMEXIT replace only DR7: a later write frees the wrong entry, and hits are raised in the
    ///   host. QEMU aborts, or dies of SIGSEGV.
    ///
    /// In addition, MOV to CR0 checks nothing, so an invalid value makes the next VMRUN fail.
    Tcg,
}

/// Returns the hazards of this machine.
pub fn guest_hazards() -> GuestHazards {
    if runs_on_tcg() { GuestHazards::Tcg } else { GuestHazards::None }
}

/// Returns whether an interrupt request raised while a CPU enters a guest can be lost until the
/// next one is raised.
///
/// `helper_vmrun` of QEMU's own emulation sets a request bit in a word that other threads change as
/// well, and not atomically. So the timer repeats there: the next tick makes up for the lost one.
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
