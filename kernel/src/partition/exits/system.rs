//! MOV to and from system registers that the back end cannot carry out alone, and RDPMC.

use crate::arch::quirks::{self, GuestHazards};
use crate::crash::record::CrashCause;
use crate::partition::cpuid::Vendor;
use crate::partition::decision::ExitDecision;
use crate::partition::decode::InstructionKind;
use crate::partition::fetch::{self, CodeView, FetchError};
use crate::partition::machine::{PartitionMemory, VirtualMachine};
use crate::virt::{Gpr, InjectedEvent, SystemMove};

/// Performance counters that every AMD CPU has, each with a select register.
const LEGACY_COUNTERS: u32 = 4;

impl VirtualMachine {
    pub(super) fn move_system(
        &mut self,
        access: SystemMove,
        memory: &PartitionMemory<'_>,
    ) -> ExitDecision {
        let code = CodeView::from(&self.vcpu.state());
        let rip = self.vcpu.regs().rip;
        let instruction = match fetch::instruction(memory, &code, rip) {
            Ok(instruction) => instruction,
            Err(error) => return self.fetch_failed(error),
        };
        let done = match (instruction.kind, access) {
            (InstructionKind::System(gpr) | InstructionKind::ToControl(_, gpr), _) => {
                self.vcpu.move_system(access, gpr)
            }
            (InstructionKind::LoadStatusWord(gpr), SystemMove::ToCr0) => {
                self.vcpu.move_system(SystemMove::StatusWord, gpr)
            }
            (InstructionKind::Other, SystemMove::ToCr0) => {
                return ExitDecision::Crash(CrashCause::NotEmulated(rip));
            }
            // The guest has replaced the instruction since the CPU fetched it.
            _ => return self.fetch_failed(FetchError::Unknown),
        };
        match done {
            Ok(()) => ExitDecision::SkipTo(rip.wrapping_add(u64::from(instruction.length))),
            Err(event) => ExitDecision::Inject(event),
        }
    }

    /// Judges a failed VM entry. QEMU's TCG also reports a MOV to CR3 as one, if a CPU would refuse
    /// the value with #GP.
    pub(super) fn entry_failed(&mut self, code: u64, memory: &PartitionMemory<'_>) -> ExitDecision {
        let code_view = CodeView::from(&self.vcpu.state());
        let instruction = fetch::instruction(memory, &code_view, self.vcpu.regs().rip);
        let writes_cr3 = instruction
            .is_ok_and(|instruction| matches!(instruction.kind, InstructionKind::ToControl(3, _)));
        if quirks::guest_hazards() == GuestHazards::Tcg && writes_cr3 && !self.vcpu.event_pending()
        {
            return ExitDecision::Inject(InjectedEvent::general_protection());
        }
        log::warn!("entry failed:{}", self.vcpu.raw_exit());
        ExitDecision::Crash(CrashCause::EntryFailed(code))
    }

    /// Answers RDPMC. AMD's CPUs have these counters without a CPUID bit; here they read zero.
    /// There are no other counters.
    pub(super) fn read_counter(&mut self, next: u64) -> ExitDecision {
        let counter = self.vcpu.regs().get(Gpr::Rcx) as u32;
        if self.msrs.vendor() != Vendor::Amd || counter >= LEGACY_COUNTERS {
            return ExitDecision::Inject(InjectedEvent::general_protection());
        }
        self.vcpu.regs_mut().set_edx_eax(0);
        ExitDecision::SkipTo(next)
    }
}
