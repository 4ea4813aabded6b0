//! RDMSR and WRMSR.

use crate::partition::decision::ExitDecision;
use crate::partition::machine::{PartitionMemory, VirtualMachine};
use crate::partition::msr::{MsrError, MsrWrite};
use crate::time::Ticks;
use crate::virt::Gpr;

impl VirtualMachine {
    pub(super) fn read_msr(&mut self, next: u64, now: Ticks) -> ExitDecision {
        let number = self.vcpu.regs().get(Gpr::Rcx) as u32;
        match self.msrs.read(number, &self.vcpu, &self.platform, now) {
            Ok(value) => {
                self.vcpu.regs_mut().set_edx_eax(value);
                ExitDecision::SkipTo(next)
            }
            Err(fault) => fault.into(),
        }
    }

    pub(super) fn write_msr(
        &mut self,
        next: u64,
        memory: &PartitionMemory<'_>,
        now: Ticks,
    ) -> ExitDecision {
        let regs = self.vcpu.regs();
        let write = MsrWrite { msr: regs.get(Gpr::Rcx) as u32, value: regs.edx_eax() };
        match self.msrs.write(write, &mut self.vcpu, &mut self.platform, memory, now) {
            Ok(()) => {
                // While the guest runs, the CPU holds the task priority.
                self.vcpu.set_cr8(self.platform.lapic().cr8());
                ExitDecision::SkipTo(next)
            }
            Err(fault) => fault.into(),
        }
    }
}

impl From<MsrError> for ExitDecision {
    fn from(fault: MsrError) -> Self {
        match fault {
            MsrError::Exception(event) => ExitDecision::Inject(event),
            MsrError::Memory(access) => access.into(),
        }
    }
}
