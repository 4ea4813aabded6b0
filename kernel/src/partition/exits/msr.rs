//! RDMSR and WRMSR.

use crate::partition::decision::Decision;
use crate::partition::devices::clock::Tsc;
use crate::partition::machine::{Bytes, Machine};
use crate::partition::msr::MsrFault;
use crate::virt::Gpr;

impl Machine {
    pub(super) fn read_msr(&mut self, next: u64, now: Tsc) -> Decision {
        let number = self.vcpu.regs().get(Gpr::Rcx) as u32;
        match self.msrs.read(number, &self.vcpu, &self.platform, now) {
            Ok(value) => {
                self.vcpu.regs_mut().set_edx_eax(value);
                Decision::SkipTo(next)
            }
            Err(fault) => fault.into(),
        }
    }

    pub(super) fn write_msr(&mut self, next: u64, memory: &Bytes<'_>, now: Tsc) -> Decision {
        let (number, value) = (self.vcpu.regs().get(Gpr::Rcx) as u32, self.vcpu.regs().edx_eax());
        match self.msrs.write(number, value, &mut self.vcpu, &mut self.platform, memory, now) {
            Ok(()) => {
                // While the guest runs, the CPU holds the task priority.
                self.vcpu.set_cr8(self.platform.lapic().cr8());
                Decision::SkipTo(next)
            }
            Err(fault) => fault.into(),
        }
    }
}

impl From<MsrFault> for Decision {
    fn from(fault: MsrFault) -> Self {
        match fault {
            MsrFault::Exception(event) => Decision::Inject(event),
            MsrFault::Memory(access) => access.into(),
        }
    }
}
