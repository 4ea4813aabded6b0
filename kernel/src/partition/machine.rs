//! The machine that a guest sees, and its vCPU's stay on a host CPU.
//!
//! ```text
//!  run ──┬─> time, typed keys, requests ──> offer an event ──> arm the timer
//!        │                                                       │
//!        │      ┌──────────────────────────────────────────── enter, run, leave <─┐
//!        │      ├─ fault in RAM, resolved ────────────────────────────────────────┤  the short way round
//!        │      ├─ CPUID ─────────────────────────────────────────────────────────┘
//!        │      └─ else: handler ──> Decision ──> apply
//!        └──────────────────────────────────────────┤
//!                                                   └─> Stop: why the CPU is free for something else
//! ```
//!
//! The short way needs no look at devices: nothing that it does can make an interrupt pend, and a deadline ends the guest's
//! stay by the host's timer.

use super::cpuid::{self, GuestView, Leaf};
use super::crash::Reason;
use super::decision::Decision;
use super::devices::clock::{Tsc, TscRate};
use super::devices::{Effect, Platform};
use super::msr::Msrs;
use super::shared::Shared;
use super::skip::Lengths;
use crate::addr::Gpa;
use crate::arch::percpu::CpuId;
use crate::arch::{fpu, instr, interrupts, time};
use crate::mm::guest_bytes::GuestBytes;
use crate::mm::object::{MemoryObject, WaitTicket};
use crate::mm::phys::DirectMap;
use crate::node::{Node, NodePager};
use crate::paging::Fault;
use crate::virt::face::{Flush, Window};
use crate::virt::{Access, Event, Exit, Gpr, Vcpu};
use core::sync::atomic::Ordering::Relaxed;

/// Guest memory of a running incarnation.
pub type Bytes<'a> = GuestBytes<'a, DirectMap, NodePager>;

/// Why a stay ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Its time is up.
    Slice,
    /// Somebody asks for something.
    Asked,
    /// A page is on its way; worth another try when the ticket is ready.
    Page(WaitTicket),
    /// The guest waits for an interrupt.
    Halted,
    /// A device concerns the partition as a whole.
    Device(Effect),
    /// The guest cannot go on.
    Crash(Reason),
}

/// A vCPU and the devices around it.
pub struct Machine {
    /// The vCPU.
    pub vcpu: Vcpu,
    /// The devices.
    pub platform: Platform,
    /// Registers that live nowhere else.
    pub msrs: Msrs,
    /// Lengths of instructions that exited, where the CPU does not tell.
    pub lengths: Lengths,
    /// How fast the guest's TSC runs.
    pub rate: TscRate,
}

impl Machine {
    /// Runs the guest until something else has to happen; at most until `slice_end`.
    pub fn run(&mut self, node: &Node, cpu: CpuId, object: &MemoryObject, shared: &Shared, slice_end: Tsc) -> Stop {
        let memory = GuestBytes { object, memory: node.memory, faulter: &node.pager };
        loop {
            if shared.is_asked() {
                return Stop::Asked;
            }
            let typed = shared.take_typed();
            if !typed.is_empty() {
                self.platform.console_input(&typed);
            }
            let now = Tsc(instr::rdtsc());
            if now >= slice_end {
                return Stop::Slice;
            }
            self.platform.advance(now);
            self.offer_events();
            arm(self.platform.next_deadline().map_or(slice_end, |deadline| deadline.min(slice_end)));
            // Taken before the page is looked at: what happens after the look makes it ready.
            let (ticket, exit) = self.stay(node, cpu, object, shared);
            let stop = match exit {
                Left::Exit(exit) => {
                    // The task priority that handlers see and write back: the guest changes it without an exit.
                    self.platform.lapic_mut().set_cr8(self.vcpu.cr8());
                    let decision = self.handle(exit, &memory);
                    self.apply(decision, ticket)
                }
                Left::Stop(stop) => Some(stop),
            };
            if let Some(stop) = stop {
                return stop;
            }
        }
    }

    /// Goes round the short way until an exit needs more.
    fn stay(&mut self, node: &Node, cpu: CpuId, object: &MemoryObject, shared: &Shared) -> (WaitTicket, Left) {
        let mut exits = 0;
        let left = loop {
            let flush = node.words.enter(cpu, object.id(), object.generation());
            let mut exit = self.vcpu.run(if flush.is_some() { Flush::This } else { Flush::None });
            exits += 1;
            // CPUID touches no guest memory: to the flush protocol the guest runs on meanwhile. A kick is pending then, and
            // ends the next run at once.
            while matches!(exit, Exit::Cpuid) && exits % EXITS_IN_A_ROW != 0 {
                let Some(next) = self.known_next_rip(exit, object) else { break };
                self.cpuid(next);
                exit = self.vcpu.run(Flush::None);
                exits += 1;
            }
            node.words.leave(cpu);
            let ticket = object.wait_ticket();
            match exit {
                Exit::SecondLevelFault { gpa, access, .. } => match self.fault(node, cpu, object, gpa, access) {
                    Answer::Resident => {}
                    Answer::Device => break (ticket, Left::Exit(exit)),
                    Answer::Stop(stop) => break (ticket, Left::Stop(stop)),
                },
                // A first time: the longer way finds the instruction's length. Or many in a row: it looks at the time.
                Exit::Cpuid => break (ticket, Left::Exit(exit)),
                Exit::Handled => {}
                _ => break (ticket, Left::Exit(exit)),
            }
        };
        shared.exits.fetch_add(exits, Relaxed);
        left
    }

    /// Makes a page resident, if it is one.
    fn fault(&mut self, node: &Node, cpu: CpuId, object: &MemoryObject, gpa: Gpa, access: Access) -> Answer {
        let now = time::now_ns();
        match node.pager.fault(object, gpa, access, now) {
            Fault::Resolved => {
                if node.pager.wants_poll() {
                    node.relieve(cpu, now);
                }
                Answer::Resident
            }
            Fault::Wait(ticket) if has_come(node, cpu, object, ticket, now) => Answer::Resident,
            Fault::Wait(ticket) => Answer::Stop(Stop::Page(ticket)),
            Fault::NotRam => Answer::Device,
            Fault::Lost(_) => Answer::Stop(Stop::Crash(Reason::PageLost(gpa.as_u64()))),
        }
    }

    pub(super) fn cpuid(&mut self, next: u64) {
        let regs = self.vcpu.regs();
        let (leaf, subleaf) = (regs.get(Gpr::Rax) as u32, regs.get(Gpr::Rcx) as u32);
        let (cr4, xcr0) = if cpuid::depends_on_registers(leaf) { (self.vcpu.cr4(), fpu::live_xcr0()) } else { (0, 0) };
        let view = GuestView { cr4, xcr0, rate: self.rate };
        let host = |leaf, subleaf| {
            let r = instr::cpuid(leaf, subleaf);
            Leaf::new(r.eax, r.ebx, r.ecx, r.edx)
        };
        let leaf = cpuid::answer(leaf, subleaf, &host, &view);
        for (gpr, value) in [(Gpr::Rax, leaf.eax), (Gpr::Rbx, leaf.ebx), (Gpr::Rcx, leaf.ecx), (Gpr::Rdx, leaf.edx)] {
            self.vcpu.set(gpr, u64::from(value));
        }
        self.vcpu.advance_to(next);
    }

    /// Gives the guest the event that it is due, or asks to be told when it can take one.
    fn offer_events(&mut self) {
        let lapic = self.platform.lapic_mut();
        lapic.set_cr8(self.vcpu.cr8());
        if lapic.nmi_pending() {
            if self.vcpu.can_take_nmi() {
                lapic.take_nmi();
                self.vcpu.inject(Event::nmi());
            } else {
                self.vcpu.request_nmi_window(Window::Open);
            }
        }
        if let Some(vector) = self.platform.interrupt()
            && self.vcpu.can_take_interrupt()
        {
            self.vcpu.inject(Event::interrupt(vector));
            self.platform.acknowledge(vector);
        }
        // One that is still pending goes in as soon as the guest can take it.
        let window = if self.platform.interrupt().is_some() { Window::Open } else { Window::None };
        self.vcpu.request_interrupt_window(window);
    }

    /// Returns whether a halted guest would go on now.
    pub fn is_awake(&mut self, now: Tsc) -> bool {
        self.platform.advance(now);
        self.platform.lapic().nmi_pending() || (self.platform.interrupt().is_some() && self.vcpu.regs().interrupts_enabled())
    }

    /// Returns whether a halted guest can ever go on.
    pub fn can_wake(&self) -> bool {
        self.vcpu.regs().interrupts_enabled() || self.platform.lapic().nmi_pending()
    }

    /// Carries a decision out; `Some` if the stay ends.
    fn apply(&mut self, decision: Decision, ticket: WaitTicket) -> Option<Stop> {
        match decision {
            Decision::Resume => None,
            Decision::SkipTo(rip) => {
                self.vcpu.advance_to(rip);
                None
            }
            // Output waits in the devices and is fetched at the end of the stay; a stop for each byte would be slow.
            Decision::SkipWith(rip, Effect::Console) => {
                self.vcpu.advance_to(rip);
                None
            }
            Decision::SkipWith(rip, effect) => {
                self.vcpu.advance_to(rip);
                Some(Stop::Device(effect))
            }
            Decision::Inject(event) => {
                self.vcpu.inject(event);
                None
            }
            Decision::Halt(rip) => {
                self.vcpu.advance_to(rip);
                Some(Stop::Halted)
            }
            Decision::Park(_) => Some(Stop::Page(ticket)),
            // It is for the hypervisor: a disk has finished, another CPU has work for this one, the time is up.
            Decision::TakeInterrupt => {
                interrupts::window();
                Some(Stop::Slice)
            }
            Decision::Crash(reason) => Some(Stop::Crash(reason)),
        }
    }
}

/// After so many exits the longer way is taken once, which looks at the time and at who asks. It is for emulators that
/// take no interrupt from a guest with IF clear: elsewhere the timer ends a stay.
const EXITS_IN_A_ROW: u64 = 64;

/// What the short way could not deal with.
enum Left {
    Exit(Exit),
    Stop(Stop),
}

/// What becomes of an access to a page that is not there.
enum Answer {
    /// The guest repeats it at once.
    Resident,
    /// It meant a device's memory, not RAM.
    Device,
    Stop(Stop),
}

/// Gives the pager one turn at once: a fast disk has answered by then, and the guest need not park.
fn has_come(node: &Node, cpu: CpuId, object: &MemoryObject, ticket: WaitTicket, now: u64) -> bool {
    let work = node.pager.poll(cpu, now);
    node.act_on(work);
    object.ready(ticket)
}

/// Lets the host's timer end the guest's stay at `deadline`.
fn arm(deadline: Tsc) {
    time::arm(time::ns_at(deadline.0));
}
