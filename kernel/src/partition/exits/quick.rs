//! The short way: exits that are answered at once, after which the guest goes on.
//!
//! ```text
//!   enter ──> run ──> exit ──┬─ CPUID of a fixed leaf, a port that needs no guest memory, a hot MSR ──┬─> run
//!                            ├─ a plain move at a device's register ───────────────────────────────┤
//!                            ├─ an interrupt window ──> offer_events ──────────────────────────────┘
//!                            └─ all others, another deadline, the last one in a row ──> leave
//! ```
//!
//! For the flush protocol the CPU is in guest mode all this time: its word stays, and a CPU that
//! waits for the word to change has kicked this one. So the code here reads guest memory only as
//! the guest itself does, resident pages ([`ResidentBytes`]), and writes nothing. The kick is an
//! interrupt: it is pending at the next run and ends it at once. The same holds for the host's
//! timer, a disk's completion and a key, so requests are not checked here. An interrupt that an
//! access has raised or unblocked is injected at once. A deadline that an access has moved is left
//! to the longer way, which arms the timer.

use super::io::access_port;
use crate::addr::Gpa;
use crate::arch::instr;
use crate::mm::layout::is_in_hole;
use crate::mm::phys::DirectMap;
use crate::mm::resident::ResidentBytes;
use crate::partition::cpuid::FixedAnswers;
use crate::partition::decode::plain::{PlainMove, plain_move};
use crate::partition::devices::lapic::register::{TASK_PRIORITY, X2APIC_BASE};
use crate::partition::devices::{DeviceEffect, Platform};
use crate::partition::emulate::plain_mmio;
use crate::partition::lengths::InsnLengthCache;
use crate::partition::machine::VirtualMachine;
use crate::partition::msr::Msrs;
use crate::partition::msr::number::TSC_DEADLINE;
use crate::partition::offer::offer_events;
use crate::partition::quick_exit::{QuickExit, ShortWay};
use crate::partition::walk::long::fetch_address;
use crate::time::Ticks;
use crate::virt::{BackendVcpu, Gpr, MsrAccess, Vcpu, VmExit};

/// After this many exits the longer way is taken once: it checks the time and the requests.
/// Emulators that deliver no interrupt to a guest with IF clear need this; elsewhere the timer ends
/// a stay.
const EXITS_IN_A_ROW: u64 = 64;

impl VirtualMachine {
    /// Runs the guest and answers its exits until one needs the longer way. Also returns the number
    /// of exits.
    pub(in crate::partition) fn run_quick(
        &mut self,
        memory: ResidentBytes<'_, DirectMap>,
    ) -> (QuickExit, u64) {
        if self.short_way == ShortWay::Closed {
            return self.run_once();
        }
        let VirtualMachine { vcpu, platform, lengths, cpuid, msrs, .. } = self;
        let mut answers = Answers { platform, lengths, cpuid, msrs, memory };
        match vcpu {
            Vcpu::Vmx(vcpu) => answers.run(vcpu),
            Vcpu::Svm(vcpu) => answers.run(vcpu),
            #[cfg(test)]
            Vcpu::Fake(vcpu) => answers.run(vcpu),
        }
    }

    #[cold]
    fn run_once(&mut self) -> (QuickExit, u64) {
        match &mut self.vcpu {
            Vcpu::Vmx(vcpu) => vcpu.enter(),
            Vcpu::Svm(vcpu) => vcpu.enter(),
            #[cfg(test)]
            Vcpu::Fake(vcpu) => vcpu.enter(),
        };
        (QuickExit::Exit, 1)
    }
}

/// The state from which exits are answered.
struct Answers<'a> {
    platform: &'a mut Platform,
    lengths: &'a InsnLengthCache,
    cpuid: &'a FixedAnswers,
    msrs: &'a mut Msrs,
    memory: ResidentBytes<'a, DirectMap>,
}

impl Answers<'_> {
    /// A function of its own for each back end, so that it has all of the CPU's registers for
    /// itself.
    #[inline(never)]
    fn run<V: BackendVcpu>(&mut self, vcpu: &mut V) -> (QuickExit, u64) {
        for exits in 1..EXITS_IN_A_ROW {
            let reason = vcpu.enter();
            if reason == V::CPUID {
                if let Some(left) = self.cpuid(vcpu) {
                    return (left, exits);
                }
            } else if reason == V::PORT {
                if let Some(left) = self.port(vcpu) {
                    return (left, exits);
                }
            } else if reason == V::FAULT {
                if let Some(left) = self.fault(vcpu) {
                    return (left, exits);
                }
            } else if let Some(access) = vcpu.msr_access(reason) {
                if let Some(left) = self.msr(vcpu, access) {
                    return (left, exits);
                }
            } else if reason == V::HALT {
                if let Some(left) = self.halt(vcpu) {
                    return (left, exits);
                }
            } else if reason == V::WINDOW {
                vcpu.take_up_window();
                offer_events(self.platform, vcpu);
            } else {
                return (QuickExit::Exit, exits);
            }
        }
        vcpu.enter();
        (QuickExit::Exit, EXITS_IN_A_ROW)
    }

    #[inline(always)]
    fn cpuid(&self, vcpu: &mut impl BackendVcpu) -> Option<QuickExit> {
        let Some(next) = self.lengths.next_rip(vcpu, VmExit::Cpuid) else {
            return Some(QuickExit::Exit);
        };
        let Some(leaf) = self.cpuid.get(vcpu.regs().get(Gpr::Rax) as u32) else {
            return Some(QuickExit::Exit);
        };
        leaf.load(|gpr, value| vcpu.set(gpr, value));
        vcpu.advance_to(next);
        None
    }

    /// Answers HLT: a pending interrupt ends it at once. A single step is left to the longer way.
    #[inline(always)]
    fn halt<V: BackendVcpu>(&mut self, vcpu: &mut V) -> Option<QuickExit> {
        let Some(next) = self.lengths.next_rip(vcpu, VmExit::Halt) else {
            return Some(QuickExit::Exit);
        };
        if vcpu.regs().single_steps() {
            return Some(QuickExit::Exit);
        }
        self.platform.lapic_mut().set_cr8(vcpu.cr8());
        vcpu.advance_to(next);
        let lapic = self.platform.lapic();
        if lapic.nmi_pending() || vcpu.regs().interrupts_enabled() && lapic.interrupt().is_some() {
            offer_events(self.platform, vcpu);
            return None;
        }
        Some(QuickExit::Halted)
    }

    /// Answers a second-level fault. Only an address in the device hole can be a device's register;
    /// any other is RAM that is not mapped yet.
    #[inline(always)]
    fn fault<V: BackendVcpu>(&mut self, vcpu: &mut V) -> Option<QuickExit> {
        let gpa = vcpu.fault_address();
        if is_in_hole(gpa) { self.register(vcpu, gpa) } else { Some(QuickExit::Exit) }
    }

    /// Carries out a plain move at a device's register. If the move is left to the longer way,
    /// nothing has happened.
    #[inline(never)]
    fn register<V: BackendVcpu>(&mut self, vcpu: &mut V, gpa: Gpa) -> Option<QuickExit> {
        let Some(plain) = self.plain_move(vcpu) else { return Some(QuickExit::Exit) };
        let next = vcpu.regs().rip.wrapping_add(u64::from(plain.length));
        if gpa.page_base().as_u64() == self.platform.lapic().base() {
            return self.lapic_register(vcpu, gpa, &plain, next);
        }
        // The time is unused: of the devices that need no guest memory, only the local APIC reads
        // it.
        let Some(effect) = plain_mmio(&plain, vcpu, self.platform, gpa, Ticks::ZERO) else {
            return Some(QuickExit::Exit);
        };
        vcpu.advance_to(next);
        if self.platform.lapic().has_news() {
            offer_events(self.platform, vcpu);
        }
        (effect != DeviceEffect::None).then_some(QuickExit::Effect(effect))
    }

    /// Carries out a move at a register of the local APIC. The APIC holds the task priority during
    /// the access, and its timer may need another deadline.
    #[inline(never)]
    fn lapic_register<V: BackendVcpu>(
        &mut self,
        vcpu: &mut V,
        gpa: Gpa,
        plain: &PlainMove,
        next: u64,
    ) -> Option<QuickExit> {
        let deadline = self.platform.next_deadline();
        self.platform.lapic_mut().set_cr8(vcpu.cr8());
        if plain_mmio(plain, vcpu, self.platform, gpa, instr::rdtsc()).is_none() {
            return Some(QuickExit::Exit);
        }
        vcpu.set_cr8(self.platform.lapic().cr8());
        vcpu.advance_to(next);
        if self.platform.next_deadline() != deadline {
            return Some(QuickExit::News);
        }
        self.tell_news(vcpu);
        None
    }

    /// Fetches the instruction that has exited, if it is a plain move of 64-bit code and all memory
    /// needed for the fetch is resident.
    #[inline(always)]
    fn plain_move<V: BackendVcpu>(&self, vcpu: &V) -> Option<PlainMove> {
        if !vcpu.is_data_access() {
            return None;
        }
        let (code, rip) = (vcpu.long_code()?, vcpu.regs().rip);
        let at =
            fetch_address(&code, rip, |entry| self.memory.read(entry).map(u64::from_le_bytes))?;
        plain_move(&self.memory.read(at)?)
    }

    /// Offers events if an interrupt has come, or is due now that another one has ended.
    #[inline(always)]
    fn tell_news<V: BackendVcpu>(&mut self, vcpu: &mut V) {
        let lapic = self.platform.lapic();
        if lapic.has_news() || lapic.has_requests() && lapic.interrupt().is_some() {
            offer_events(self.platform, vcpu);
        }
    }

    /// Carries out an MSR access. The task priority is in the vCPU while the guest runs, and in the
    /// local APIC during the access.
    #[inline(always)]
    fn msr<V: BackendVcpu>(&mut self, vcpu: &mut V, access: MsrAccess) -> Option<QuickExit> {
        let exit = match access {
            MsrAccess::Read => VmExit::ReadMsr,
            MsrAccess::Write => VmExit::WriteMsr,
        };
        let Some(next) = self.lengths.next_rip(vcpu, exit) else { return Some(QuickExit::Exit) };
        let number = vcpu.regs().get(Gpr::Rcx) as u32;
        self.platform.lapic_mut().set_cr8(vcpu.cr8());
        match access {
            MsrAccess::Read => {
                let now = || instr::rdtsc();
                let Some(value) = self.msrs.read_alone(number, self.platform, now) else {
                    return Some(QuickExit::Exit);
                };
                vcpu.set(Gpr::Rax, value & 0xffff_ffff);
                vcpu.set(Gpr::Rdx, value >> 32);
                vcpu.advance_to(next);
                None
            }
            MsrAccess::Write => self.write_msr(vcpu, number, next),
        }
    }

    #[inline(always)]
    fn write_msr<V: BackendVcpu>(
        &mut self,
        vcpu: &mut V,
        number: u32,
        next: u64,
    ) -> Option<QuickExit> {
        let value = vcpu.regs().edx_eax();
        if self.msrs.write_alone(number, value, self.platform).is_none() {
            return Some(QuickExit::Exit);
        }
        // No other register changes the task priority.
        if number == X2APIC_BASE + u32::from(TASK_PRIORITY) {
            vcpu.set_cr8(self.platform.lapic().cr8());
        }
        vcpu.advance_to(next);
        // The timer must be armed.
        if number == TSC_DEADLINE {
            return Some(QuickExit::News);
        }
        self.tell_news(vcpu);
        None
    }

    #[inline(always)]
    fn port<V: BackendVcpu>(&mut self, vcpu: &mut V) -> Option<QuickExit> {
        let Some(io) = vcpu.port_access().filter(|io| !io.string) else {
            return Some(QuickExit::Exit);
        };
        let Some(next) = self.lengths.next_rip(vcpu, VmExit::Io(io)) else {
            return Some(QuickExit::Exit);
        };
        let Some(effect) = access_port(self.platform, vcpu, io) else {
            return Some(QuickExit::Exit);
        };
        vcpu.advance_to(next);
        match effect {
            // Output waits in the devices and is fetched at the end of the stay; a stop for each
            // byte would be slow.
            DeviceEffect::None | DeviceEffect::Console => {
                if self.platform.lapic().has_news() {
                    offer_events(self.platform, vcpu);
                }
                None
            }
            effect => Some(QuickExit::Effect(effect)),
        }
    }
}
