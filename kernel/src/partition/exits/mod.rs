//! The handlers of exits: each looks at an exit and returns a [`Decision`].
//!
//! An emulated instruction needs the address behind it. Where the CPU does not report that address
//! (SVM without next RIP), the instruction is decoded *before* the handler acts, because decoding
//! reads guest memory and may have to wait.
//!
//! Exits that need no other state are answered before they come here: [`quick`].

mod cpuid;
mod io;
mod memory;
mod msr;
pub(super) mod quick;
mod system;

use super::cpuid::xcr0_allowed;
use super::decision::Decision;
use super::devices::Effect;
use super::devices::clock::Tsc;
use super::machine::{Bytes, Machine};
use super::shadow::source_of_shadow;
use super::shutdown::{self, TripleFault};
use crate::arch::{fpu, instr};
use crate::crash::record::Reason;
use crate::virt::{Event, Exit, Gpr};

impl Machine {
    /// Decides on an exit that the short way has left.
    pub(super) fn handle(&mut self, exit: Exit, memory: &Bytes<'_>) -> Decision {
        let now = Tsc(instr::rdtsc());
        match exit {
            Exit::HostInterrupt => return Decision::TakeInterrupt,
            // A window has opened, or the back end has handled the exit alone: the next look at the
            // devices does the rest.
            Exit::InterruptWindow | Exit::NmiWindow | Exit::Handled => return Decision::Resume,
            Exit::ShadowedWindow => return self.shadowed_window(memory),
            Exit::TripleFault => return self.triple_fault(memory),
            Exit::Undefined => return Decision::Inject(Event::invalid_opcode()),
            Exit::TaskSwitch(switch) => return Decision::Crash(Reason::TaskSwitch(switch)),
            Exit::MachineCheck => return Decision::Crash(Reason::MachineCheck),
            // The board has no interrupt for the FPU's error: deliver #MF, as on VMX, whose CPUs
            // require CR0.NE.
            Exit::FloatingPointFrozen => return Decision::Inject(Event::floating_point()),
            Exit::EntryFailed { code } => return self.entry_failed(code, memory),
            Exit::Unknown { code } => return self.unknown(code),
            // The access is the CPU's own: there is no instruction to emulate, and it would fail
            // again and again.
            Exit::SecondLevelFault { gpa, during_walk: true, .. } => return Decision::Crash(Reason::NoMemory(gpa.as_u64())),
            Exit::SecondLevelFault { gpa, .. } if self.vcpu.event_pending() => {
                return Decision::Crash(Reason::NoMemory(gpa.as_u64()));
            }
            Exit::SecondLevelFault { gpa, access, .. } => return self.device_memory(gpa, access, memory, now),
            Exit::Io(io) if io.string => return self.string_io(io, memory, now),
            Exit::System(access) => return self.move_system(access, memory),
            _ => {}
        }
        let next = match self.next_rip(exit, memory) {
            Ok(next) => next,
            Err(decision) => return decision,
        };
        match exit {
            Exit::Io(io) => self.port_io(io, next, memory),
            Exit::ReadMsr => self.read_msr(next, now),
            Exit::WriteMsr => self.write_msr(next, memory, now),
            Exit::Halt => Decision::Halt(next),
            Exit::Xsetbv => self.xsetbv(next),
            Exit::CacheFlush => Decision::SkipTo(next),
            // No hypercalls are offered: return KVM's code for an unknown one.
            Exit::Hypercall => {
                self.vcpu.regs_mut().set(Gpr::Rax, NO_SUCH_CALL);
                Decision::SkipTo(next)
            }
            Exit::Cpuid => self.cpuid(next),
            Exit::ReadCounter => self.read_counter(next),
            // All other exits were handled above.
            _ => Decision::Resume,
        }
    }

    fn triple_fault(&self, memory: &Bytes<'_>) -> Decision {
        let rip = self.vcpu.regs().rip;
        match shutdown::triple_fault(memory, &self.vcpu.state(), rip) {
            Ok(TripleFault::Crash) => Decision::Crash(Reason::TripleFault),
            Ok(TripleFault::Reset) => Decision::SkipWith(rip, Effect::Reset),
            Err(access) => access.into(),
        }
    }

    fn shadowed_window(&mut self, memory: &Bytes<'_>) -> Decision {
        let source = source_of_shadow(memory, &self.vcpu.state(), self.vcpu.regs());
        self.vcpu.leave_shadow(source);
        Decision::Resume
    }

    fn xsetbv(&mut self, next: u64) -> Decision {
        let regs = self.vcpu.regs();
        let value = regs.edx_eax();
        if regs.get(Gpr::Rcx) as u32 != 0 || !xcr0_allowed(value, fpu::offered_xcr0()) {
            return Decision::Inject(Event::general_protection());
        }
        fpu::set_live_xcr0(value);
        Decision::SkipTo(next)
    }

    fn unknown(&self, code: u64) -> Decision {
        log::warn!("unknown exit:{}", self.vcpu.raw_exit());
        Decision::Crash(Reason::UnknownExit(code))
    }
}

/// `-KVM_ENOSYS` (Linux `include/uapi/linux/kvm_para.h`).
const NO_SUCH_CALL: u64 = -1000i64 as u64;
