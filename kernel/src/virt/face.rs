//! The common interface of both back ends. The machine's choice, the enabled CPU and the vCPU are
//! enums of two variants, so that dispatch is a predictable branch and never a `dyn` call on the
//! exit path. Unit tests have a third variant, the scripted one of `super::fake` (decision 0063).
//!
//! ```text
//!   Backend::detect ─> Backend ─ enable_cpu (each CPU) ─> EnabledCpu
//!                         └───── new_vcpu ─> Vcpu
//!
//!   set_memory, set_state, regs_mut      (any time the vCPU is not running)
//!   load(&EnabledCpu) ─> { inject? flush? run ─> Exit ─> handler ─> advance_to? }* ─> unload
//! ```
//!
//! A loop that answers many exits without a dispatch in each is generic over [`BackendVcpu`], and
//! dispatches once.
//!
//! Invariants, on which the back ends rely and which the scheduler keeps:
//! * vCPUs are made and accessed on enabled CPUs only (VMX: their state is accessed by instructions
//!   of VMX operation).
//! * A CPU has at most one loaded vCPU; from [`Vcpu::load`] to [`Vcpu::unload`] the guest's debug
//!   registers (and on VMX its syscall MSRs) are live in the CPU.
//! * Interrupts are off around [`Vcpu::run`].
//! * The root frame of the second-level table lives as long as a vCPU points to it.

use super::breakpoints::Breakpoints;
use super::contract::{
    self, BackendCapabilities, BackendVcpu, ControlRegisters, MissingFeatureError, RawExit,
    WindowRequest,
};
use super::exit::{InjectedEvent, ShadowSource, SystemMove, VmExit};
use super::frame::ControlFrame;
use super::saved::SavedEvents;
use super::state::{CpuState, Gpr, Regs};
use super::tag::TlbTag;
use super::{svm, vmx};
use crate::addr::Hpa;

/// The kind of virtualisation that this machine uses; chosen once at start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// VMX with EPT.
    Vmx,
    /// SVM with NPT.
    Svm,
}

/// A CPU with virtualisation enabled; kept in its per-CPU data.
#[derive(Debug)]
pub enum EnabledCpu {
    /// VMX root operation.
    Vmx(vmx::VmxCpu),
    /// EFER.SVME and the save areas.
    Svm(svm::SvmCpu),
    /// A thread of a test.
    #[cfg(test)]
    Fake(super::fake::ScriptedCpu),
}

impl Backend {
    /// Frames that [`Self::enable_cpu`] takes.
    pub const FRAMES_PER_CPU: usize = contract::FRAMES_PER_CPU;

    /// Returns the back end that this CPU supports.
    ///
    /// # Errors
    /// The missing feature, if neither back end has all it needs.
    pub fn detect() -> Result<Self, MissingFeatureError> {
        match (vmx::detect(), svm::detect()) {
            (Ok(()), _) => Ok(Self::Vmx),
            (_, Ok(())) => Ok(Self::Svm),
            // On a CPU without either, both messages are similar; the one of the CPU's vendor
            // helps.
            (Err(vmx), Err(svm)) => Err(if svm::is_vendor() { svm } else { vmx }),
        }
    }

    /// Returns the name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vmx => "VMX with EPT",
            Self::Svm => "SVM with NPT",
        }
    }

    /// Returns the back end's properties on this machine.
    pub fn capabilities(self) -> BackendCapabilities {
        match self {
            Self::Vmx => vmx::capabilities(),
            Self::Svm => svm::capabilities(),
        }
    }

    /// Enables virtualisation on the calling CPU, once, with interrupts off.
    ///
    /// # Errors
    /// The feature that this CPU lacks although the first one had it, or that firmware has locked.
    pub fn enable_cpu(
        self,
        frames: [ControlFrame; Self::FRAMES_PER_CPU],
    ) -> Result<EnabledCpu, MissingFeatureError> {
        Ok(match self {
            Self::Vmx => EnabledCpu::Vmx(vmx::VmxCpu::enable(frames)?),
            Self::Svm => EnabledCpu::Svm(svm::SvmCpu::enable(frames)?),
        })
    }

    /// Makes a vCPU that holds its control block in `frame`; the calling CPU is enabled. It runs
    /// after [`Vcpu::set_memory`] and [`Vcpu::set_state`].
    pub fn new_vcpu(self, frame: ControlFrame) -> Vcpu {
        match self {
            Self::Vmx => Vcpu::Vmx(vmx::VmxVcpu::new(frame)),
            Self::Svm => Vcpu::Svm(svm::SvmVcpu::new(frame)),
        }
    }
}

/// A virtual CPU.
pub enum Vcpu {
    /// On VMX.
    Vmx(vmx::VmxVcpu),
    /// On SVM.
    Svm(svm::SvmVcpu),
    /// In a test, by a script.
    #[cfg(test)]
    Fake(super::fake::ScriptedVcpu),
}

contract::forward_contract!(Vcpu);

/// Calls the same method of either back end.
macro_rules! each {
    ($vcpu:expr, $inner:ident => $call:expr) => {
        match $vcpu {
            Vcpu::Vmx($inner) => $call,
            Vcpu::Svm($inner) => $call,
            #[cfg(test)]
            Vcpu::Fake($inner) => $call,
        }
    };
}

impl Vcpu {
    /// Takes the vCPU apart, and returns the frame of its control block for another one; `None` in
    /// a test, where it has none.
    ///
    /// # Panics
    /// If it is loaded.
    pub fn into_frame(self) -> Option<ControlFrame> {
        let frame = match self {
            Self::Vmx(vcpu) => vcpu.into_frame(),
            Self::Svm(vcpu) => vcpu.into_frame(),
            #[cfg(test)]
            Self::Fake(_) => return None,
        };
        Some(frame.renewed())
    }

    /// Points the vCPU to a second-level table; its first run on each CPU flushes `tag` there.
    pub fn set_memory(&mut self, root: Hpa, tag: TlbTag) {
        each!(self, v => v.set_memory(root, tag))
    }

    /// Sets the bits of CR4 that the guest may set: those that its CPUID announces. All others are
    /// reserved, as on a CPU without them.
    pub fn offer_cr4(&mut self, bits: u64) {
        each!(self, v => v.offer_cr4(bits))
    }

    /// Sets the offset that is added when the guest reads the time-stamp counter.
    pub fn set_tsc_offset(&mut self, offset: u64) {
        each!(self, v => v.set_tsc_offset(offset))
    }

    /// Carries out a MOV between a system register and `gpr`; the caller then advances RIP.
    ///
    /// # Errors
    /// The exception that the guest gets instead.
    ///
    /// # Panics
    /// On VMX: its exits name the general register, so its back end carries out such a MOV itself.
    pub fn move_system(&mut self, access: SystemMove, gpr: Gpr) -> Result<(), InjectedEvent> {
        match self {
            Self::Vmx(_) => panic!("VMX names the registers of such a MOV"),
            Self::Svm(vcpu) => vcpu.move_system(access, gpr),
            #[cfg(test)]
            Self::Fake(_) => panic!("no script has such a MOV"),
        }
    }

    /// Makes the vCPU resident on the calling CPU. Flushes its linear translations if it last ran
    /// on another CPU.
    ///
    /// # Panics
    /// If it is loaded already, or `cpu` belongs to the other back end.
    pub fn load(&mut self, cpu: &EnabledCpu) {
        match (self, cpu) {
            (Self::Vmx(vcpu), EnabledCpu::Vmx(cpu)) => vcpu.load(cpu),
            (Self::Svm(vcpu), EnabledCpu::Svm(cpu)) => vcpu.load(cpu),
            #[cfg(test)]
            (Self::Fake(vcpu), EnabledCpu::Fake(cpu)) => vcpu.load(cpu),
            _ => panic!("a node has one back end"),
        }
    }

    /// Ends the residency, so that this CPU can load another vCPU, and another CPU this one.
    pub fn unload(&mut self) {
        each!(self, v => v.unload())
    }

    /// Flushes the guest's cached translations on this CPU (both levels combined) before the next
    /// run.
    #[inline]
    pub fn flush(&mut self) {
        each!(self, v => v.flush())
    }

    /// Runs the guest until its next exit: one world switch. A queued event is delivered first.
    pub fn run(&mut self) -> VmExit {
        each!(self, v => v.enter());
        self.exit()
    }

    /// Names the exit after [`BackendVcpu::enter`]: once, and before any state is changed.
    pub fn exit(&mut self) -> VmExit {
        each!(self, v => v.exit())
    }

    /// Returns the general registers, RIP and RFLAGS; current whenever the guest is not running.
    #[inline]
    pub fn regs(&self) -> &Regs {
        each!(self, v => v.regs())
    }

    /// Sets one register. Cheaper than [`Self::regs_mut`], after which a back end must assume that
    /// all have changed.
    #[inline]
    pub fn set(&mut self, gpr: Gpr, value: u64) {
        each!(self, v => v.set(gpr, value))
    }

    /// Returns the registers for modification. To step over an instruction use
    /// [`Self::advance_to`].
    #[inline]
    pub fn regs_mut(&mut self) -> &mut Regs {
        each!(self, v => v.regs_mut())
    }

    /// Reads the rest of the state. Expensive; the vCPU may be loaded or not.
    pub fn state(&self) -> CpuState {
        each!(self, v => v.state())
    }

    /// Replaces the rest of the state. A queued event, NMI blocking and an interrupt shadow belong
    /// to the old state and are dropped.
    pub fn set_state(&mut self, state: &CpuState) {
        each!(self, v => v.set_state(state))
    }

    /// Returns the registers on which the guest's address translation depends.
    #[inline]
    pub fn control_registers(&self) -> ControlRegisters {
        each!(self, v => v.control_registers())
    }

    /// Returns CR4 as the guest sees it; cheaper than all of [`Self::control_registers`].
    #[inline]
    pub fn cr4(&self) -> u64 {
        each!(self, v => v.control_registers().cr4)
    }

    /// Returns whether a breakpoint of the guest may be enabled at the next entry, so that an
    /// emulated access must check for it. If none is enabled, the guest's next MOV to DR7 exits.
    #[inline(always)]
    pub fn may_break(&mut self) -> bool {
        each!(self, v => v.may_break())
    }

    /// Returns the guest's breakpoints, if any is enabled, for an emulated access. The vCPU is
    /// loaded.
    pub fn breakpoints(&self) -> Option<Breakpoints> {
        each!(self, v => v.breakpoints())
    }

    /// Queues the debug exception for breakpoints that an emulated access has hit; `hits` has their
    /// bits in DR6. Must be called before [`Self::advance_to`], which adds the bit of a single
    /// step: one exception reports both. The vCPU is loaded.
    pub fn raise_debug(&mut self, hits: u64) {
        each!(self, v => v.raise_debug(hits))
    }

    /// Emulates WRMSR to EFER.
    ///
    /// # Errors
    /// The exception that the guest gets instead: reserved bits, or LME changed while paging is on.
    pub fn write_efer(&mut self, value: u64) -> Result<(), InjectedEvent> {
        each!(self, v => v.write_efer(value))
    }

    /// Returns the guest's page attribute table.
    pub fn pat(&self) -> u64 {
        each!(self, v => v.pat())
    }

    /// Sets the page attribute table; the caller has checked its types.
    pub fn set_pat(&mut self, value: u64) {
        each!(self, v => v.set_pat(value))
    }

    /// Sets CR2, before a page fault is injected.
    pub fn set_cr2(&mut self, cr2: u64) {
        each!(self, v => v.set_cr2(cr2))
    }

    /// Returns CR8, the priority class (vector / 16) up to which the guest blocks interrupts. MOV
    /// to CR8 does not exit: a local APIC model reads its task priority here after each exit.
    #[inline]
    pub fn cr8(&self) -> u8 {
        each!(self, v => v.cr8())
    }

    /// Sets CR8, after the guest has written the task priority through the local APIC.
    pub fn set_cr8(&mut self, class: u8) {
        each!(self, v => v.set_cr8(class))
    }

    /// Returns the address after the instruction that exited by `exit`, if the hardware reports it;
    /// otherwise the caller decodes.
    #[inline]
    pub fn next_rip(&self, exit: VmExit) -> Option<u64> {
        each!(self, v => v.next_rip(exit))
    }

    /// Continues at `rip` after an emulated instruction: the interrupt shadow of an earlier STI or
    /// MOV SS ends, RF is cleared, and if the guest single-steps (TF) its debug exception becomes
    /// due.
    #[inline]
    pub fn advance_to(&mut self, rip: u64) {
        each!(self, v => v.advance_to(rip))
    }

    /// Returns whether an external interrupt can be injected now: IF set, no shadow, no other event
    /// queued.
    pub fn can_take_interrupt(&self) -> bool {
        each!(self, v => v.can_take_interrupt())
    }

    /// Returns whether an NMI can be injected now.
    pub fn can_take_nmi(&self) -> bool {
        each!(self, v => v.can_take_nmi())
    }

    /// Queues `event` for the next run. An exception replaces an event that is queued already, as
    /// it does when the CPU meets one during the delivery of the other.
    ///
    /// # Panics
    /// If an interrupt or NMI is injected that the guest cannot take, see [`Self::event_pending`].
    pub fn inject(&mut self, event: InjectedEvent) {
        each!(self, v => v.inject(event))
    }

    /// Returns whether an event is queued: injected and not yet delivered, or interrupted in its
    /// delivery by the last exit.
    #[inline]
    pub fn event_pending(&self) -> bool {
        each!(self, v => v.event_pending())
    }

    /// Requests, or cancels, an exit as soon as the guest can take an interrupt.
    pub fn request_interrupt_window(&mut self, window: WindowRequest) {
        each!(self, v => v.request_interrupt_window(window))
    }

    /// Requests, or cancels, an exit as soon as the guest can take an NMI.
    pub fn request_nmi_window(&mut self, window: WindowRequest) {
        each!(self, v => v.request_nmi_window(window))
    }

    /// Answers [`VmExit::ShadowedWindow`]: the guest executes STI again, or the window waits for
    /// the next exit.
    ///
    /// # Panics
    /// On VMX, which preserves a shadow at entry.
    pub fn leave_shadow(&mut self, source: ShadowSource) {
        match self {
            Self::Vmx(_) => panic!("VMX keeps shadows"),
            Self::Svm(vcpu) => vcpu.leave_shadow(source),
            #[cfg(test)]
            Self::Fake(_) => panic!("no script has shadows"),
        }
    }

    /// Returns the general registers for a suspension; the vCPU is not loaded.
    pub fn saved_regs(&self) -> Regs {
        match self {
            Self::Svm(vcpu) => vcpu.saved_regs(),
            other => *other.regs(),
        }
    }

    /// Returns pending events and other hidden state for a suspension.
    ///
    /// # Panics
    /// If the vCPU is loaded.
    pub fn save_events(&self) -> SavedEvents {
        each!(self, v => v.save_events())
    }

    /// Takes saved events over, after [`Self::set_state`].
    ///
    /// # Panics
    /// If the vCPU is loaded.
    pub fn restore_events(&mut self, saved: &SavedEvents) {
        each!(self, v => v.restore_events(saved))
    }

    /// Returns the raw words about the last exit.
    pub fn raw_exit(&self) -> RawExit {
        each!(self, v => v.raw_exit())
    }
}
