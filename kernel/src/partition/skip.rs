//! The address behind an instruction that has exited, for CPUs that do not report it (SVM without
//! next RIP).
//!
//! Decoding needs the instruction's bytes: a walk of the guest's tables and a copy. So lengths are
//! remembered (`partition::lengths`).

use super::decision::ExitDecision;
use super::fetch::{self, CodeView, FetchError};
use super::lengths::rip_after;
use super::machine::{PartitionMemory, VirtualMachine};
use super::walk::WalkError;
use crate::virt::{InjectedEvent, VmExit};

impl VirtualMachine {
    /// Returns the address behind the instruction that exited.
    ///
    /// # Errors
    /// The decision to apply instead: the instruction's page is not resident, or the instruction
    /// has been replaced.
    pub(super) fn next_rip(
        &mut self,
        exit: VmExit,
        memory: &PartitionMemory<'_>,
    ) -> Result<u64, ExitDecision> {
        match self.lengths.next_rip(&self.vcpu, exit) {
            Some(rip) => Ok(rip),
            None => self.decode_length(exit, memory).map(|length| rip_after(&self.vcpu, length)),
        }
    }

    #[cold]
    fn decode_length(
        &mut self,
        exit: VmExit,
        memory: &PartitionMemory<'_>,
    ) -> Result<u8, ExitDecision> {
        let code = CodeView::from(&self.vcpu.state());
        let instruction = fetch::instruction(memory, &code, self.vcpu.regs().rip)
            .map_err(|e| self.fetch_failed(e))?;
        self.lengths.remember(&self.vcpu, exit, instruction.length);
        Ok(instruction.length)
    }

    /// Returns the decision that follows from a failed fetch.
    pub(super) fn fetch_failed(&mut self, error: FetchError) -> ExitDecision {
        match error {
            FetchError::Walk(WalkError::Memory(access), _) => access.into(),
            // The guest has changed its tables since the CPU's fetch: it gets the fault that the
            // CPU would have raised.
            FetchError::Walk(WalkError::PageFault(error_code), at) => {
                self.vcpu.set_cr2(at.as_u64());
                ExitDecision::Inject(InjectedEvent::page_fault(error_code))
            }
            FetchError::Walk(WalkError::NonCanonical, _) => {
                ExitDecision::Inject(InjectedEvent::general_protection())
            }
            FetchError::Unknown => ExitDecision::Inject(InjectedEvent::invalid_opcode()),
        }
    }
}
