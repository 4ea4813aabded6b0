//! The handlers of exits: each looks at an exit and returns a [`ExitDecision`].
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
use super::decision::ExitDecision;
use super::devices::DeviceEffect;
use super::machine::{PartitionMemory, VirtualMachine};
use super::shadow::source_of_shadow;
use super::shutdown::{self, TripleFault};
use crate::arch::{fpu, instr};
use crate::crash::record::CrashCause;
use crate::virt::{Gpr, InjectedEvent, VmExit};

impl VirtualMachine {
    /// Decides on an exit that the short way has left.
    pub(super) fn handle(&mut self, exit: VmExit, memory: &PartitionMemory<'_>) -> ExitDecision {
        let now = instr::rdtsc();
        match exit {
            VmExit::HostInterrupt => return ExitDecision::TakeInterrupt,
            // A window has opened, or the back end has handled the exit alone: the next look at the
            // devices does the rest.
            VmExit::InterruptWindow | VmExit::NmiWindow | VmExit::Handled => {
                return ExitDecision::Resume;
            }
            VmExit::ShadowedWindow => return self.shadowed_window(memory),
            VmExit::TripleFault => return self.triple_fault(memory),
            VmExit::Undefined => return ExitDecision::Inject(InjectedEvent::invalid_opcode()),
            VmExit::TaskSwitch(switch) => {
                return ExitDecision::Crash(CrashCause::TaskSwitch(switch));
            }
            VmExit::MachineCheck => return ExitDecision::Crash(CrashCause::MachineCheck),
            // The board has no interrupt for the FPU's error: deliver #MF, as on VMX, whose CPUs
            // require CR0.NE.
            VmExit::FloatingPointFrozen => {
                return ExitDecision::Inject(InjectedEvent::floating_point());
            }
            VmExit::EntryFailed { code } => return self.entry_failed(code, memory),
            VmExit::Unknown { code } => return self.unknown(code),
            // The access is the CPU's own: there is no instruction to emulate, and it would fail
            // again and again.
            VmExit::SecondLevelFault { gpa, during_walk: true, .. } => {
                return ExitDecision::Crash(CrashCause::NoMemory(gpa.as_u64()));
            }
            VmExit::SecondLevelFault { gpa, .. } if self.vcpu.event_pending() => {
                return ExitDecision::Crash(CrashCause::NoMemory(gpa.as_u64()));
            }
            VmExit::SecondLevelFault { gpa, access, .. } => {
                return self.device_memory(gpa, access, memory, now);
            }
            VmExit::Io(io) if io.string => return self.string_io(io, memory, now),
            VmExit::System(access) => return self.move_system(access, memory),
            _ => {}
        }
        let next = match self.next_rip(exit, memory) {
            Ok(next) => next,
            Err(decision) => return decision,
        };
        match exit {
            VmExit::Io(io) => self.port_io(io, next, memory),
            VmExit::ReadMsr => self.read_msr(next, now),
            VmExit::WriteMsr => self.write_msr(next, memory, now),
            VmExit::Halt => ExitDecision::Halt(next),
            VmExit::Xsetbv => self.xsetbv(next),
            VmExit::CacheFlush => ExitDecision::SkipTo(next),
            // No hypercalls are offered: return KVM's code for an unknown one.
            VmExit::Hypercall => {
                self.vcpu.regs_mut().set(Gpr::Rax, NO_SUCH_CALL);
                ExitDecision::SkipTo(next)
            }
            VmExit::Cpuid => self.cpuid(next),
            VmExit::ReadCounter => self.read_counter(next),
            // All other exits were handled above.
            _ => ExitDecision::Resume,
        }
    }

    fn triple_fault(&self, memory: &PartitionMemory<'_>) -> ExitDecision {
        let rip = self.vcpu.regs().rip;
        match shutdown::triple_fault(memory, &self.vcpu.state(), rip) {
            Ok(TripleFault::Crash) => ExitDecision::Crash(CrashCause::TripleFault),
            Ok(TripleFault::Reset) => ExitDecision::SkipWith(rip, DeviceEffect::Reset),
            Err(access) => access.into(),
        }
    }

    fn shadowed_window(&mut self, memory: &PartitionMemory<'_>) -> ExitDecision {
        let source = source_of_shadow(memory, &self.vcpu.state(), self.vcpu.regs());
        self.vcpu.leave_shadow(source);
        ExitDecision::Resume
    }

    fn xsetbv(&mut self, next: u64) -> ExitDecision {
        let regs = self.vcpu.regs();
        let value = regs.edx_eax();
        if regs.get(Gpr::Rcx) as u32 != 0 || !xcr0_allowed(value, fpu::offered_xcr0()) {
            return ExitDecision::Inject(InjectedEvent::general_protection());
        }
        fpu::set_live_xcr0(value);
        ExitDecision::SkipTo(next)
    }

    fn unknown(&self, code: u64) -> ExitDecision {
        log::warn!("unknown exit:{}", self.vcpu.raw_exit());
        ExitDecision::Crash(CrashCause::UnknownExit(code))
    }
}

/// `-KVM_ENOSYS` (Linux `include/uapi/linux/kvm_para.h`).
const NO_SUCH_CALL: u64 = -1000i64 as u64;
