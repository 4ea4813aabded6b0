//! Accesses to devices' memory, and the string forms of IN and OUT: instructions that the
//! hypervisor carries out itself.

use crate::addr::Gpa;
use crate::crash::record::CrashCause;
use crate::partition::decision::ExitDecision;
use crate::partition::emulate::{
    self, BreakpointWatch, EmulateError, EmulationContext, EmulationOutcome, InstructionProgress,
};
use crate::partition::fetch::{self, CodeView, FetchError};
use crate::partition::machine::{PartitionMemory, VirtualMachine};
use crate::time::Ticks;
use crate::virt::{InjectedEvent, IoAccess, PageAccess};

impl VirtualMachine {
    pub(super) fn device_memory(
        &mut self,
        gpa: Gpa,
        access: PageAccess,
        memory: &PartitionMemory<'_>,
        now: Ticks,
    ) -> ExitDecision {
        if access == PageAccess::Execute {
            return ExitDecision::Crash(CrashCause::ExecutedNothing(gpa.as_u64()));
        }
        self.emulate(memory, now, gpa, |context, instruction| {
            emulate::mmio(context, instruction, gpa)
        })
    }

    pub(super) fn string_io(
        &mut self,
        io: IoAccess,
        memory: &PartitionMemory<'_>,
        now: Ticks,
    ) -> ExitDecision {
        let port = io.port;
        self.emulate(memory, now, Gpa::new(u64::from(port)), |context, instruction| {
            emulate::port_string(context, instruction, port)
        })
    }

    /// Fetches the instruction, lets `carry_out` do it, and advances the guest.
    fn emulate(
        &mut self,
        memory: &PartitionMemory<'_>,
        now: Ticks,
        at: Gpa,
        carry_out: impl FnOnce(
            &mut EmulationContext<'_>,
            &crate::partition::decode::Instruction,
        ) -> Result<EmulationOutcome, EmulateError>,
    ) -> ExitDecision {
        let state = self.vcpu.state();
        let mut regs = *self.vcpu.regs();
        let instruction = match fetch::instruction(memory, &CodeView::from(&state), regs.rip) {
            Ok(instruction) => instruction,
            // The CPU has decoded the instruction, or it had not exited: it is legal.
            Err(FetchError::Unknown) => {
                return ExitDecision::Crash(CrashCause::NotEmulated(at.as_u64()));
            }
            Err(error) => return self.fetch_failed(error),
        };
        let watch = BreakpointWatch::new(self.vcpu.breakpoints());
        let mut context = EmulationContext {
            regs: &mut regs,
            state: &state,
            platform: &mut self.platform,
            memory,
            now,
            watch,
        };
        let result = carry_out(&mut context, &instruction);
        let hits = context.watch.hits();
        match result {
            Ok(done) => {
                *self.vcpu.regs_mut() = regs;
                self.vcpu.set_cr8(self.platform.lapic().cr8());
                self.break_behind(hits);
                let rip = match done.next {
                    InstructionProgress::Advance => {
                        regs.rip.wrapping_add(u64::from(instruction.length))
                    }
                    InstructionProgress::Repeat => regs.rip,
                };
                ExitDecision::after(rip, done.effect)
            }
            Err(error) => {
                // The finished elements of a repeated string instruction stay done; the guest goes
                // on behind them.
                *self.vcpu.regs_mut() = regs;
                self.not_carried_out(error, at)
            }
        }
    }

    /// Queues the debug exception of breakpoints that were met, if any.
    pub(super) fn break_behind(&mut self, hits: u64) {
        if hits != 0 {
            self.vcpu.raise_debug(hits);
        }
    }

    fn not_carried_out(&mut self, error: EmulateError, at: Gpa) -> ExitDecision {
        match error {
            EmulateError::Memory(access) => access.into(),
            EmulateError::Exception(event) => ExitDecision::Inject(event),
            EmulateError::PageFault { at, error_code } => {
                self.vcpu.set_cr2(at.as_u64());
                ExitDecision::Inject(InjectedEvent::page_fault(error_code))
            }
            EmulateError::NotEmulated => ExitDecision::Crash(CrashCause::NotEmulated(at.as_u64())),
        }
    }
}
