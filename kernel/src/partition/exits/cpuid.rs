//! CPUID.

use crate::arch::fpu;
use crate::partition::cpuid::{self, GuestView, Leaf};
use crate::partition::decision::Decision;
use crate::partition::machine::Machine;
use crate::virt::Gpr;

impl Machine {
    /// Answers any leaf, even if the answer depends on the guest's state.
    pub(super) fn cpuid(&mut self, next: u64) -> Decision {
        let regs = self.vcpu.regs();
        let (leaf, subleaf) = (regs.get(Gpr::Rax) as u32, regs.get(Gpr::Rcx) as u32);
        let apic = self.platform.lapic().mode();
        let view = GuestView { cr4: self.vcpu.cr4(), xcr0: fpu::live_xcr0(), apic, rate: self.rate };
        let answer = cpuid::answer(leaf, subleaf, &cpuid::host, &view);
        answer.load(|gpr, value| self.vcpu.set(gpr, value));
        Decision::SkipTo(next)
    }
}

impl Leaf {
    /// Puts the answer into the registers; the upper halves are cleared.
    #[inline(always)]
    pub(super) fn load(&self, mut set: impl FnMut(Gpr, u64)) {
        for (gpr, value) in [(Gpr::Rax, self.eax), (Gpr::Rbx, self.ebx), (Gpr::Rcx, self.ecx), (Gpr::Rdx, self.edx)] {
            set(gpr, u64::from(value));
        }
    }
}
