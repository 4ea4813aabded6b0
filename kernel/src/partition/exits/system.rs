//! MOV to and from system registers that the back end cannot carry out alone, and RDPMC.

use crate::arch::quirks::{self, GuestHazards};
use crate::crash::record::Reason;
use crate::partition::cpuid::Vendor;
use crate::partition::decision::Decision;
use crate::partition::decode::Kind;
use crate::partition::fetch::{self, CodeView, FetchError};
use crate::partition::machine::{Bytes, Machine};
use crate::virt::{Event, Gpr, SystemMove};

/// Performance counters that every AMD CPU has, each with a select register.
const LEGACY_COUNTERS: u32 = 4;

impl Machine {
    pub(super) fn move_system(&mut self, access: SystemMove, memory: &Bytes<'_>) -> Decision {
        let code = CodeView::from(&self.vcpu.state());
        let rip = self.vcpu.regs().rip;
        let instruction = match fetch::instruction(memory, &code, rip) {
            Ok(instruction) => instruction,
            Err(error) => return self.fetch_failed(error),
        };
        let done = match (instruction.kind, access) {
            (Kind::System(gpr) | Kind::ToControl(_, gpr), _) => self.vcpu.move_system(access, gpr),
            (Kind::LoadStatusWord(gpr), SystemMove::ToCr0) => self.vcpu.move_system(SystemMove::StatusWord, gpr),
            (Kind::Other, SystemMove::ToCr0) => return Decision::Crash(Reason::NotEmulated(rip)),
            // The guest has replaced the instruction since the CPU fetched it.
            _ => return self.fetch_failed(FetchError::Unknown),
        };
        match done {
            Ok(()) => Decision::SkipTo(rip.wrapping_add(u64::from(instruction.length))),
            Err(event) => Decision::Inject(event),
        }
    }

    /// Judges a failed VM entry. QEMU's TCG also reports a MOV to CR3 as one, if a CPU would refuse
    /// the value with #GP.
    pub(super) fn entry_failed(&mut self, code: u64, memory: &Bytes<'_>) -> Decision {
        let code_view = CodeView::from(&self.vcpu.state());
        let instruction = fetch::instruction(memory, &code_view, self.vcpu.regs().rip);
        let writes_cr3 = instruction.is_ok_and(|instruction| matches!(instruction.kind, Kind::ToControl(3, _)));
        if quirks::guest_hazards() == GuestHazards::Tcg && writes_cr3 && !self.vcpu.event_pending() {
            return Decision::Inject(Event::general_protection());
        }
        log::warn!("entry failed:{}", self.vcpu.raw_exit());
        Decision::Crash(Reason::EntryFailed(code))
    }

    /// Answers RDPMC. AMD's CPUs have these counters without a CPUID bit; here they read zero.
    /// There are no other counters.
    pub(super) fn read_counter(&mut self, next: u64) -> Decision {
        let counter = self.vcpu.regs().get(Gpr::Rcx) as u32;
        if self.msrs.vendor() != Vendor::Amd || counter >= LEGACY_COUNTERS {
            return Decision::Inject(Event::general_protection());
        }
        self.vcpu.regs_mut().set_edx_eax(0);
        Decision::SkipTo(next)
    }
}
