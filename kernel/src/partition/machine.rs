//! The machine that a guest sees, and its vCPU's stay on a host CPU.
//!
//! ```text
//!  run ──┬─> time, typed keys, requests ──> offer an event ──> arm the timer
//!        │                                                       │
//!        │      ┌─────────────────────────────────────────── enter, run_quick, leave <─┐
//!        │      ├─ fault in RAM, resolved ─────────────────────────────────────────────┘
//!        │      └─ else: handler ──> Decision ──> apply
//!        └──────────────────────────────────────────┤
//!                                                   └─> Stop: the reason why the stay ends
//! ```
//!
//! After a resolved fault, and after an exit that `run_quick` answers, the devices need no check:
//! neither can make an interrupt pend, and a deadline ends the guest's stay through the host's
//! timer.

use super::cpuid::{self, CpuidLeaf, FixedAnswers, Vendor};
use super::decision::ExitDecision;
use super::devices::clock::{GuestClock, TscRate};
use super::devices::lapic::ApicMode;
use super::devices::{DeviceEffect, Platform};
use super::exit_counts::ExitKind;
use super::lead::TimerLead;
use super::lengths::InsnLengthCache;
use super::msr::Msrs;
use super::offer::offer_events;
use super::quick_exit::{QuickExit, ShortWay};
use super::shared::SharedPartition;
use crate::addr::Gpa;
use crate::arch::percpu::CpuId;
use crate::arch::{instr, interrupts, time};
use crate::crash::record::CrashCause;
use crate::host::{Host, NodePager};
use crate::log::history::{self, HistoryKind};
use crate::mm::guest_bytes::GuestBytes;
use crate::mm::layout::RamLayout;
use crate::mm::object::{MemoryObject, WaitTicket};
use crate::mm::phys::DirectMap;
use crate::mm::resident::ResidentBytes;
use crate::paging::{AccessOutcome, PageLossError};
use crate::time::{Ns, Ticks};
use crate::virt::{InjectedEvent, PageAccess, Vcpu, VmExit};

/// Guest memory of a running incarnation.
pub type PartitionMemory<'a> = GuestBytes<'a, DirectMap, NodePager>;

/// Why a stay ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// Its time slice is over.
    Slice,
    /// The vCPU has a request to answer.
    Asked,
    /// A page is not resident yet; to be tried again when the ticket is ready.
    Page(WaitTicket),
    /// The guest waits for an interrupt.
    Halted,
    /// A device's effect concerns the partition as a whole.
    Device(DeviceEffect),
    /// The guest cannot go on.
    Crash(CrashCause),
}

/// A vCPU and the devices around it.
pub struct VirtualMachine {
    /// The vCPU.
    pub vcpu: Vcpu,
    /// The devices.
    pub platform: Platform,
    /// Registers that are held nowhere else.
    pub msrs: Msrs,
    /// Lengths of instructions that exited, for CPUs that do not report them.
    pub lengths: InsnLengthCache,
    /// CPUID's fixed answers.
    pub cpuid: FixedAnswers,
    /// The frequency of the guest's TSC.
    pub rate: TscRate,
    /// How far ahead of a guest's deadline the host's timer is set.
    pub lead: TimerLead,
    /// Closed while a breakpoint may be enabled.
    pub short_way: ShortWay,
}

impl VirtualMachine {
    /// Makes a vCPU's machine with its devices as after reset, on a host CPU with these answers of
    /// CPUID.
    pub fn new(
        vcpu: Vcpu,
        layout: &RamLayout,
        clock: GuestClock,
        host: &dyn Fn(u32, u32) -> CpuidLeaf,
    ) -> Self {
        let rate = clock.rate;
        Self {
            vcpu,
            platform: Platform::new(clock, layout, ApicMode::XApic),
            msrs: Msrs::new(Vendor::of(host), cpuid::physical_bits(host)),
            lengths: InsnLengthCache::new(),
            cpuid: FixedAnswers::new(host, rate),
            rate,
            lead: TimerLead::new(),
            short_way: ShortWay::Closed,
        }
    }

    /// Runs the guest until something else needs the CPU; at most until `slice_end`.
    pub fn run(
        &mut self,
        host: &Host,
        cpu: CpuId,
        object: &MemoryObject,
        shared: &SharedPartition,
        slice_end: Ticks,
    ) -> StopReason {
        let memory = GuestBytes { object, memory: host.memory, faulter: &host.pager };
        let mut armed = None;
        loop {
            if shared.is_asked() {
                return StopReason::Asked;
            }
            if shared.has_typed() {
                self.platform.console_input(&shared.take_typed(self.platform.console_room()));
            }
            let now = instr::rdtsc();
            if now >= slice_end {
                armed.iter().for_each(|armed: &Ticks| time::note_end(*armed, now));
                return StopReason::Slice;
            }
            self.advance(now);
            offer_events(&mut self.platform, &mut self.vcpu);
            let deadline = self.wake_up().map_or(slice_end, |deadline| deadline.min(slice_end));
            // A deadline that has come ends the stay, so each deadline is armed once.
            if armed != Some(deadline) {
                armed.iter().for_each(|armed| time::note_end(*armed, now));
                time::arm_at(deadline);
                armed = Some(deadline);
            }
            // The guest cannot enable a breakpoint without an exit that ends the short way.
            self.short_way = if self.vcpu.may_break() { ShortWay::Closed } else { ShortWay::Open };
            self.lead.wait(instr::rdtsc);
            // The ticket is taken before the page is looked at: any change after the look makes the
            // ticket ready.
            let (ticket, answer) = self.stay(host, cpu, object, shared, slice_end);
            let stop = match answer {
                ExitAnswer::Handle(exit) => {
                    // Handlers see and write back the task priority; the guest changes it without
                    // an exit.
                    self.platform.lapic_mut().set_cr8(self.vcpu.cr8());
                    let decision = self.handle(exit, &memory);
                    self.apply(decision, ticket, shared)
                }
                ExitAnswer::Resident | ExitAnswer::Look => None,
                ExitAnswer::Stop(stop) => Some(stop),
            };
            if let Some(stop) = stop {
                return stop;
            }
        }
    }

    /// Runs the guest until an exit needs more than the short way and more than a page.
    fn stay(
        &mut self,
        host: &Host,
        cpu: CpuId,
        object: &MemoryObject,
        shared: &SharedPartition,
        slice_end: Ticks,
    ) -> (WaitTicket, ExitAnswer) {
        let mut exits = 0;
        let (ticket, answer) = loop {
            if host.words.enter(cpu, object.id(), object.generation()).is_some() {
                self.vcpu.flush();
            }
            let (left, quick) = self.run_quick(ResidentBytes { object, memory: host.memory });
            exits += quick;
            host.words.leave(cpu);
            let ticket = object.wait_ticket();
            let answer = match left {
                QuickExit::Exit => match self.vcpu.exit() {
                    exit @ VmExit::SecondLevelFault { gpa, access, .. } => {
                        match self.fault(host, cpu, object, (gpa, access), slice_end) {
                            Some(answer) => {
                                shared.exits.note(ExitKind::Page);
                                answer
                            }
                            None => leave_to_handler(exit, shared),
                        }
                    }
                    exit => leave_to_handler(exit, shared),
                },
                QuickExit::Effect(effect) => ExitAnswer::Stop(StopReason::Device(effect)),
                QuickExit::Halted => {
                    shared.exits.note(ExitKind::Halt);
                    ExitAnswer::Stop(StopReason::Halted)
                }
                QuickExit::News => ExitAnswer::Look,
            };
            if answer != ExitAnswer::Resident {
                break (ticket, answer);
            }
        };
        shared.exits.add(exits);
        (ticket, answer)
    }

    /// Makes a page resident; `None` if the address is not RAM.
    fn fault(
        &mut self,
        host: &Host,
        cpu: CpuId,
        object: &MemoryObject,
        (gpa, access): (Gpa, PageAccess),
        slice_end: Ticks,
    ) -> Option<ExitAnswer> {
        let now = time::now_ns();
        Some(match host.pager.fault(object, gpa, access, now) {
            AccessOutcome::Resolved => {
                if host.pager.wants_poll() {
                    host.relieve(cpu, now);
                }
                ExitAnswer::Resident
            }
            // An emulator may deliver no host interrupt while the guest has IF clear. The disk's
            // completion would then go unnoticed until the slice ends: poll once here.
            AccessOutcome::Wait(ticket) if has_come(host, cpu, object, ticket, now) => {
                if instr::rdtsc() < slice_end {
                    ExitAnswer::Resident
                } else {
                    ExitAnswer::Look
                }
            }
            AccessOutcome::Wait(ticket) => ExitAnswer::Stop(StopReason::Page(ticket)),
            AccessOutcome::NotRam => return None,
            AccessOutcome::Lost(PageLossError::Unwritable(_) | PageLossError::NoFrames) => {
                ExitAnswer::Stop(StopReason::Crash(CrashCause::Unwritable(gpa.as_u64())))
            }
            AccessOutcome::Lost(_) => {
                ExitAnswer::Stop(StopReason::Crash(CrashCause::PageLost(gpa.as_u64())))
            }
        })
    }

    /// Expires the timers that are due, or will be by the time the guest is entered.
    fn advance(&mut self, now: Ticks) {
        let at = self.lead.look(now, self.platform.next_deadline());
        self.platform.advance(at);
    }

    /// Returns when the next timer needs the CPU.
    pub fn wake_up(&self) -> Option<Ticks> {
        self.platform.next_deadline().map(|deadline| self.lead.ahead_of(deadline))
    }

    /// Returns whether a halted guest would go on now.
    pub fn is_awake(&mut self, now: Ticks) -> bool {
        self.advance(now);
        self.is_woken()
    }

    /// Returns whether a pending event ends a halt.
    fn is_woken(&self) -> bool {
        self.platform.lapic().nmi_pending()
            || (self.platform.interrupt().is_some() && self.vcpu.regs().interrupts_enabled())
    }

    /// Returns whether a halted guest can ever go on.
    pub fn can_wake(&self) -> bool {
        let can_interrupt = self.vcpu.regs().interrupts_enabled() && self.platform.can_interrupt();
        can_interrupt || self.platform.lapic().nmi_pending()
    }

    /// Applies a decision; `Some` if the stay ends.
    fn apply(
        &mut self,
        decision: ExitDecision,
        ticket: WaitTicket,
        shared: &SharedPartition,
    ) -> Option<StopReason> {
        match decision {
            ExitDecision::Resume => None,
            ExitDecision::SkipTo(rip) => {
                self.vcpu.advance_to(rip);
                None
            }
            // Output waits in the devices and is fetched at the end of the stay; a stop for each
            // byte would be slow.
            ExitDecision::SkipWith(rip, DeviceEffect::Console) => {
                self.vcpu.advance_to(rip);
                None
            }
            ExitDecision::SkipWith(rip, effect) => {
                self.vcpu.advance_to(rip);
                Some(StopReason::Device(effect))
            }
            ExitDecision::Inject(event) => {
                record_injection(shared, self.vcpu.regs().rip, event);
                self.vcpu.inject(event);
                None
            }
            // A single step's #DB is due at once behind HLT and ends the wait for an interrupt, as
            // a pending interrupt does.
            ExitDecision::Halt(rip) => {
                self.vcpu.advance_to(rip);
                (!self.vcpu.regs().single_steps() && !self.is_woken()).then_some(StopReason::Halted)
            }
            ExitDecision::Park(_) => Some(StopReason::Page(ticket)),
            // The interrupt is the hypervisor's: a disk has finished, another CPU has work for this
            // one, or the time is up.
            ExitDecision::TakeInterrupt => {
                interrupts::window();
                Some(StopReason::Slice)
            }
            ExitDecision::Crash(reason) => Some(StopReason::Crash(reason)),
        }
    }
}

/// The treatment of an exit.
#[derive(PartialEq, Eq)]
enum ExitAnswer {
    /// The page is resident: the guest repeats its access at once.
    Resident,
    /// A handler decides.
    Handle(VmExit),
    /// The devices are to be checked: there may be an event for the guest.
    Look,
    Stop(StopReason),
}

/// Leaves an exit to a handler, and counts it by its kind.
fn leave_to_handler(exit: VmExit, shared: &SharedPartition) -> ExitAnswer {
    shared.exits.note(ExitKind::of(exit));
    ExitAnswer::Handle(exit)
}

/// Records an exception that the hypervisor injects on its own account.
#[cold]
#[inline(never)]
fn record_injection(shared: &SharedPartition, rip: u64, event: InjectedEvent) {
    history::record_partition(
        shared.id(),
        HistoryKind::ExceptionInjected,
        event.vector.into(),
        [rip, event.error_code.unwrap_or(0).into()],
    );
}

/// Gives the pager one turn at once: a fast disk has completed by then, and the guest need not
/// park.
fn has_come(host: &Host, cpu: CpuId, object: &MemoryObject, ticket: WaitTicket, now: Ns) -> bool {
    let work = host.pager.poll(cpu, now);
    host.act_on(work);
    object.ready(ticket)
}
