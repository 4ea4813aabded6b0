//! CPUID.

use crate::arch::fpu;
use crate::partition::cpuid::{self, CpuidLeaf, GuestView};
use crate::partition::decision::ExitDecision;
use crate::partition::machine::VirtualMachine;
use crate::virt::Gpr;

impl VirtualMachine {
    /// Answers any leaf, even if the answer depends on the guest's state.
    pub(super) fn cpuid(&mut self, next: u64) -> ExitDecision {
        let regs = self.vcpu.regs();
        let (leaf, subleaf) = (regs.get(Gpr::Rax) as u32, regs.get(Gpr::Rcx) as u32);
        let apic = self.platform.lapic().mode();
        let view =
            GuestView { cr4: self.vcpu.cr4(), xcr0: fpu::live_xcr0(), apic, rate: self.rate };
        let answer = cpuid::answer(leaf, subleaf, &cpuid::host, &view);
        answer.load(|gpr, value| self.vcpu.set(gpr, value));
        ExitDecision::SkipTo(next)
    }
}

impl CpuidLeaf {
    /// Puts the answer into the registers; the upper halves are cleared.
    #[inline(always)]
    pub(super) fn load(&self, mut set: impl FnMut(Gpr, u64)) {
        for (gpr, value) in
            [(Gpr::Rax, self.eax), (Gpr::Rbx, self.ebx), (Gpr::Rcx, self.ecx), (Gpr::Rdx, self.edx)]
        {
            set(gpr, u64::from(value));
        }
    }
}
