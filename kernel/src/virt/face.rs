//! The one face of both back ends: a two-variant enum each for the machine's choice, the enabled CPU and the
//! vCPU, so that dispatch is a predictable branch and never a `dyn` call on the exit path.
//!
//! ```text
//!   Backend::detect ─> Backend ─ enable_cpu (each CPU) ─> EnabledCpu
//!                         └───── new_vcpu ─> Vcpu
//!
//!   set_memory, set_state, regs_mut      (any time the vCPU is not running)
//!   load(&EnabledCpu) ─> { inject? flush? run ─> Exit ─> handler ─> advance_to? }* ─> unload
//! ```
//!
//! Who goes round many times without a decision is generic over [`Runs`] instead, and asks for the back end once.
//!
//! Invariants, which the back ends rely on and the scheduler keeps:
//! * vCPUs are made and touched on enabled CPUs only (VMX: their state is reached by instructions of VMX operation).
//! * A CPU has at most one loaded vCPU; from [`Vcpu::load`] to [`Vcpu::unload`] the guest's debug registers
//!   (and on VMX its syscall MSRs) are live in the CPU.
//! * Interrupts are off around [`Vcpu::run`].
//! * The frame that is the second-level table's root lives as long as a vCPU points to it.

use super::breakpoints::Breakpoints;
use super::exit::{Event, Exit, IoAccess, ShadowSource, SystemMove};
use super::frame::ControlFrame;
use super::sink::EventSink;
use super::state::{CpuState, Gpr, Regs};
use super::tag::TlbTag;
use super::{svm, vmx};
use crate::addr::{Gpa, Hpa};
use core::fmt;

/// What the CPU lacks, as text for the operator: "AMD-V: nested paging (CPUID 8000000A EDX bit 0)".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Missing(pub &'static str);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What a back end offers beyond the necessary. The same on all CPUs of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Number of TLB tags, the host's 0 included: for [`Tags::new`](super::tag::Tags::new).
    pub tags: u32,
    /// Whether second-level leaves have accessed and dirty bits.
    pub accessed_dirty: AccessedDirty,
}

/// Who tells that a guest page was read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessedDirty {
    /// The CPU sets bits in the leaf.
    Hardware,
    /// Nobody: pages are unmapped to see an access and mapped read-only to see a write.
    Absent,
}

impl AccessedDirty {
    /// Returns a word for who it is.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hardware => "cpu",
            Self::Absent => "software",
        }
    }
}

/// Which virtualisation this machine uses; chosen once at start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// VMX with EPT.
    Vmx,
    /// SVM with NPT.
    Svm,
}

/// A CPU whose virtualisation is switched on; kept in its per-CPU data.
#[derive(Debug)]
pub enum EnabledCpu {
    /// VMX root operation.
    Vmx(vmx::EnabledCpu),
    /// EFER.SVME and the save areas.
    Svm(svm::EnabledCpu),
}

/// Whether [`Exit::InterruptWindow`] (or [`Exit::NmiWindow`]) is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// Exit as soon as the guest can take the event.
    Open,
    /// No such exit.
    None,
}

/// The registers that decide how the guest translates addresses. Cheap to read, unlike [`CpuState`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct ControlRegisters {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    /// As the guest sees it.
    pub efer: u64,
}

/// The vendor's raw words about the last exit, by the manual's names, for a dump line of an entry failure or an unknown exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawExit(pub [(&'static str, u64); 6]);

impl fmt::Display for RawExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| write!(f, " {name}={value:#x}"))
    }
}

impl Backend {
    /// Frames that [`Self::enable_cpu`] wants.
    pub const FRAMES_PER_CPU: usize = 2;

    /// Returns what this CPU offers.
    ///
    /// # Errors
    /// What lacks, if neither back end has all it needs.
    pub fn detect() -> Result<Self, Missing> {
        match (vmx::detect(), svm::detect()) {
            (Ok(()), _) => Ok(Self::Vmx),
            (_, Ok(())) => Ok(Self::Svm),
            // Both messages start alike on a CPU without either; the vendor's own is the helpful one.
            (Err(vmx), Err(svm)) => Err(if svm::is_vendor() { svm } else { vmx }),
        }
    }

    /// Returns the name that people know.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vmx => "VMX with EPT",
            Self::Svm => "SVM with NPT",
        }
    }

    /// Returns what the back end offers here.
    pub fn capabilities(self) -> Capabilities {
        match self {
            Self::Vmx => vmx::capabilities(),
            Self::Svm => svm::capabilities(),
        }
    }

    /// Switches virtualisation on for the calling CPU, once, with interrupts off.
    ///
    /// # Errors
    /// What this CPU lacks although the first one had it, or firmware has locked.
    pub fn enable_cpu(self, frames: [ControlFrame; Self::FRAMES_PER_CPU]) -> Result<EnabledCpu, Missing> {
        Ok(match self {
            Self::Vmx => EnabledCpu::Vmx(vmx::EnabledCpu::enable(frames)?),
            Self::Svm => EnabledCpu::Svm(svm::EnabledCpu::enable(frames)?),
        })
    }

    /// Makes a vCPU that holds its control block in `frame`; the calling CPU is enabled. It runs after [`Vcpu::set_memory`] and [`Vcpu::set_state`].
    pub fn new_vcpu(self, frame: ControlFrame) -> Vcpu {
        match self {
            Self::Vmx => Vcpu::Vmx(vmx::Vcpu::new(frame)),
            Self::Svm => Vcpu::Svm(svm::Vcpu::new(frame)),
        }
    }
}

/// A virtual CPU.
#[allow(clippy::large_enum_variant)] // one variant is ever made on a machine
pub enum Vcpu {
    /// On VMX.
    Vmx(vmx::Vcpu),
    /// On SVM.
    Svm(svm::Vcpu),
}

/// What an instruction that exited is carried out on; a back end's vCPU, or either.
pub trait Registers {
    /// See [`Vcpu::regs`].
    fn regs(&self) -> &Regs;
    /// See [`Vcpu::set`].
    fn set(&mut self, gpr: Gpr, value: u64);
    /// Returns the guest's CR3.
    fn cr3(&self) -> u64;
    /// See [`Vcpu::next_rip`].
    fn next_rip(&self, exit: Exit) -> Option<u64>;
    /// See [`Vcpu::advance_to`].
    fn advance_to(&mut self, rip: u64);
}

/// Why the guest stopped, in the vendor's number: enough for exits that are answered at once.
pub type RawReason = u64;

/// RDMSR or WRMSR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum MsrAccess {
    Read,
    Write,
}

/// What a fetch of 64-bit code depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct LongCode {
    pub cr3: u64,
    pub cr4: u64,
    pub cpl: u8,
}

/// A back end's vCPU: [`Vcpu::run`] in two steps.
pub trait Runs: EventSink {
    /// The reason of [`Exit::Cpuid`].
    const CPUID: RawReason;
    /// The reason of [`Exit::Io`].
    const PORT: RawReason;
    /// The reason of [`Exit::Halt`].
    const HALT: RawReason;
    /// The reason of [`Exit::SecondLevelFault`].
    const FAULT: RawReason;
    /// The reason of [`Exit::InterruptWindow`].
    const WINDOW: RawReason;

    /// Tells whether an exit for `reason` is for RDMSR or WRMSR.
    fn msr_access(&self, reason: RawReason) -> Option<MsrAccess>;

    /// Runs the guest until its next exit, which is named by [`Vcpu::exit`] unless it is answered without.
    fn enter(&mut self) -> RawReason;
    /// Returns the access of an exit for [`Runs::PORT`].
    fn port_access(&self) -> Option<IoAccess>;
    /// Returns where the access of an exit for [`Runs::FAULT`] went.
    fn fault_address(&self) -> Gpa;
    /// Returns whether that access is an instruction's own, to data: no fetch, no walk of the guest's tables, no part of an
    /// event's delivery or of the return from an NMI.
    fn is_data_access(&self) -> bool;
    /// Returns what a fetch depends on where the guest runs 64-bit code.
    fn long_code(&self) -> Option<LongCode>;
    /// Takes up an exit for [`Runs::WINDOW`] in [`Vcpu::exit`]'s stead.
    fn take_up_window(&mut self);
}

/// Passes [`Registers`] on to a type's own methods.
macro_rules! registers {
    ($vcpu:ty) => {
        impl Registers for $vcpu {
            #[inline(always)]
            fn regs(&self) -> &Regs {
                self.regs()
            }
            #[inline(always)]
            fn set(&mut self, gpr: Gpr, value: u64) {
                self.set(gpr, value)
            }
            #[inline(always)]
            fn cr3(&self) -> u64 {
                self.control_registers().cr3
            }
            #[inline(always)]
            fn next_rip(&self, exit: Exit) -> Option<u64> {
                self.next_rip(exit)
            }
            #[inline(always)]
            fn advance_to(&mut self, rip: u64) {
                self.advance_to(rip)
            }
        }
    };
}

registers!(vmx::Vcpu);
registers!(svm::Vcpu);
registers!(Vcpu);

/// Calls the same method of whichever back end it is.
macro_rules! each {
    ($vcpu:expr, $inner:ident => $call:expr) => {
        match $vcpu {
            Vcpu::Vmx($inner) => $call,
            Vcpu::Svm($inner) => $call,
        }
    };
}

impl Vcpu {
    /// Points the vCPU to a second-level table; its first run on each CPU flushes `tag` there.
    pub fn set_memory(&mut self, root: Hpa, tag: TlbTag) {
        each!(self, v => v.set_memory(root, tag))
    }

    /// Says which bits of CR4 the guest may set: those that its CPUID announces. All others are reserved, as on a CPU without them.
    pub fn offer_cr4(&mut self, bits: u64) {
        each!(self, v => v.offer_cr4(bits))
    }

    /// Sets what is added to the time-stamp counter where the guest reads it.
    pub fn set_tsc_offset(&mut self, offset: u64) {
        each!(self, v => v.set_tsc_offset(offset))
    }

    /// Carries out a MOV between a system register and `gpr`; the caller advances.
    ///
    /// # Errors
    /// The exception that the guest gets instead.
    ///
    /// # Panics
    /// On VMX, whose exits name the general register: the back end carries such a MOV out alone.
    pub fn move_system(&mut self, access: SystemMove, gpr: Gpr) -> Result<(), Event> {
        match self {
            Self::Vmx(_) => panic!("VMX names the registers of such a MOV"),
            Self::Svm(vcpu) => vcpu.move_system(access, gpr),
        }
    }

    /// Makes the vCPU resident on the calling CPU. Flushes its linear translations where it last ran elsewhere.
    ///
    /// # Panics
    /// If it is loaded already, or `cpu` is the other back end's.
    pub fn load(&mut self, cpu: &EnabledCpu) {
        match (self, cpu) {
            (Self::Vmx(vcpu), EnabledCpu::Vmx(cpu)) => vcpu.load(cpu),
            (Self::Svm(vcpu), EnabledCpu::Svm(cpu)) => vcpu.load(cpu),
            _ => panic!("a node has one back end"),
        }
    }

    /// Ends the residency, so that another vCPU can be loaded here and this one elsewhere.
    pub fn unload(&mut self) {
        each!(self, v => v.unload())
    }

    /// Drops the guest's cached translations on this CPU (both levels combined) before the next run.
    #[inline]
    pub fn flush(&mut self) {
        each!(self, v => v.flush())
    }

    /// Runs the guest until its next exit: one world switch. A queued event is delivered first.
    pub fn run(&mut self) -> Exit {
        each!(self, v => v.enter());
        self.exit()
    }

    /// Names the exit after [`Runs::enter`]: once, and before anything is changed.
    pub fn exit(&mut self) -> Exit {
        each!(self, v => v.exit())
    }

    /// Returns the general registers, RIP and RFLAGS; current whenever the guest is not running.
    #[inline]
    pub fn regs(&self) -> &Regs {
        each!(self, v => v.regs())
    }

    /// Sets one register. Costs less than [`Self::regs_mut`], after which a back end has to expect all of them changed.
    #[inline]
    pub fn set(&mut self, gpr: Gpr, value: u64) {
        each!(self, v => v.set(gpr, value))
    }

    /// Returns them to be changed. To step over an instruction use [`Self::advance_to`].
    #[inline]
    pub fn regs_mut(&mut self) -> &mut Regs {
        each!(self, v => v.regs_mut())
    }

    /// Reads the rest of the state. Costs; the vCPU may be loaded or not.
    pub fn state(&self) -> CpuState {
        each!(self, v => v.state())
    }

    /// Replaces the rest of the state. A queued event, NMI blocking and an interrupt shadow belong to the old one and are gone.
    pub fn set_state(&mut self, state: &CpuState) {
        each!(self, v => v.set_state(state))
    }

    /// Returns what an address translation of the guest depends on.
    #[inline]
    pub fn control_registers(&self) -> ControlRegisters {
        each!(self, v => v.control_registers())
    }

    /// Returns CR4 as the guest sees it, for less than all of [`Self::control_registers`].
    #[inline]
    pub fn cr4(&self) -> u64 {
        each!(self, v => v.control_registers().cr4)
    }

    /// Returns whether a breakpoint of the guest's may be enabled at the next entry, so that an access which is carried out in its place
    /// may meet it. Where none is, the guest's next MOV to DR7 exits.
    #[inline(always)]
    pub fn may_break(&mut self) -> bool {
        each!(self, v => v.may_break())
    }

    /// Returns the guest's breakpoints, if any is enabled; for an access that is carried out in its place. The vCPU is loaded.
    pub fn breakpoints(&self) -> Option<Breakpoints> {
        each!(self, v => v.breakpoints())
    }

    /// Queues the debug exception of breakpoints that an emulated access has met, `hits` being their bits in DR6. To be called before
    /// [`Self::advance_to`], which adds a single step's bit: one exception tells of both. The vCPU is loaded.
    pub fn raise_debug(&mut self, hits: u64) {
        each!(self, v => v.raise_debug(hits))
    }

    /// Emulates WRMSR to EFER.
    ///
    /// # Errors
    /// The exception that the guest gets instead: reserved bits, or LME changed while paging is on.
    pub fn write_efer(&mut self, value: u64) -> Result<(), Event> {
        each!(self, v => v.write_efer(value))
    }

    /// Returns the guest's page attribute table.
    pub fn pat(&self) -> u64 {
        each!(self, v => v.pat())
    }

    /// Sets the page attribute table, whose types the caller has checked.
    pub fn set_pat(&mut self, value: u64) {
        each!(self, v => v.set_pat(value))
    }

    /// Sets CR2, before a page fault is injected.
    pub fn set_cr2(&mut self, cr2: u64) {
        each!(self, v => v.set_cr2(cr2))
    }

    /// Returns CR8, the class (vector / 16) up to which the guest blocks interrupts. MOV to CR8 does not exit:
    /// a local APIC model takes its task priority from here after each exit.
    #[inline]
    pub fn cr8(&self) -> u8 {
        each!(self, v => v.cr8())
    }

    /// Sets CR8, when the guest has written the task priority through the local APIC.
    pub fn set_cr8(&mut self, class: u8) {
        each!(self, v => v.set_cr8(class))
    }

    /// Returns the address behind the instruction that exited by `exit`, where the hardware tells; else the caller decodes.
    #[inline]
    pub fn next_rip(&self, exit: Exit) -> Option<u64> {
        each!(self, v => v.next_rip(exit))
    }

    /// Continues at `rip`, the emulated instruction being done: the interrupt shadow of an earlier STI or MOV SS ends, RF is
    /// cleared, and where the guest single-steps (TF) its debug exception is due.
    #[inline]
    pub fn advance_to(&mut self, rip: u64) {
        each!(self, v => v.advance_to(rip))
    }

    /// Returns whether an external interrupt can be injected now: IF set, no shadow, no other event queued.
    pub fn can_take_interrupt(&self) -> bool {
        each!(self, v => v.can_take_interrupt())
    }

    /// Returns whether an NMI can be injected now.
    pub fn can_take_nmi(&self) -> bool {
        each!(self, v => v.can_take_nmi())
    }

    /// Queues `event` for the next run. An exception takes the place of an event that is queued already, as it does when the
    /// CPU meets one while it delivers the other.
    ///
    /// # Panics
    /// If an interrupt or NMI is injected that the guest cannot take: [`Self::event_pending`].
    pub fn inject(&mut self, event: Event) {
        each!(self, v => v.inject(event))
    }

    /// Returns whether an event is queued: injected and not yet run, or interrupted in its delivery by the last exit.
    #[inline]
    pub fn event_pending(&self) -> bool {
        each!(self, v => v.event_pending())
    }

    /// Asks for, or calls off, an exit when the guest can take an interrupt.
    pub fn request_interrupt_window(&mut self, window: Window) {
        each!(self, v => v.request_interrupt_window(window))
    }

    /// Asks for, or calls off, an exit when the guest can take an NMI.
    pub fn request_nmi_window(&mut self, window: Window) {
        each!(self, v => v.request_nmi_window(window))
    }

    /// Answers [`Exit::ShadowedWindow`]: the guest executes STI again, or the window waits for the next exit.
    ///
    /// # Panics
    /// On VMX, which enters a guest in a shadow as it is.
    pub fn leave_shadow(&mut self, source: ShadowSource) {
        match self {
            Self::Vmx(_) => panic!("VMX keeps shadows"),
            Self::Svm(vcpu) => vcpu.leave_shadow(source),
        }
    }

    /// Returns the raw words about the last exit.
    pub fn raw_exit(&self) -> RawExit {
        each!(self, v => v.raw_exit())
    }

    /// Gives the control frame back.
    ///
    /// # Panics
    /// If the vCPU is still loaded.
    pub fn into_frame(self) -> ControlFrame {
        each!(self, v => v.into_frame())
    }
}
