//! The contract of a back end: what its vCPU and its enabled CPU offer to the layers above.
//!
//! ```text
//!   face: Backend, EnabledCpu, Vcpu        the choice
//!     │
//!   vmx, svm                               the back ends
//!     │
//!   contract                               this file: it names no back end
//! ```
//!
//! A method that only forwards is documented at the enum [`Vcpu`](super::Vcpu), which has all of
//! them.

use super::exit::{InjectedEvent, IoAccess, VmExit};
use super::state::{Gpr, Regs};
use crate::addr::Gpa;
use core::fmt;

/// Frames that a CPU gives its back end when virtualisation is enabled there.
pub const FRAMES_PER_CPU: usize = 2;

/// The feature that the CPU lacks, as text for the operator: "AMD-V: nested paging (CPUID 8000000A
/// EDX bit 0)".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MissingFeatureError(pub &'static str);

impl fmt::Display for MissingFeatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Properties of a back end that depend on the CPU. They are the same on all CPUs of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackendCapabilities {
    /// Number of TLB tags, including the host's 0: for [`TlbTags::new`](super::tag::TlbTags::new).
    pub tags: u32,
    /// Whether second-level leaves have accessed and dirty bits.
    pub accessed_dirty: AccessedDirty,
}

/// How reads and writes of guest pages are detected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessedDirty {
    /// The CPU sets bits in the leaf.
    Hardware,
    /// Not at all: pages are unmapped to detect an access, and mapped read-only to detect a write.
    Absent,
}

impl AccessedDirty {
    /// Returns the name for reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hardware => "cpu",
            Self::Absent => "software",
        }
    }
}

/// Whether [`VmExit::InterruptWindow`] (or [`VmExit::NmiWindow`]) is requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowRequest {
    /// Exit as soon as the guest can take the event.
    Open,
    /// No such exit.
    None,
}

/// The registers that control the guest's address translation. Cheap to read, unlike
/// [`CpuState`](super::CpuState).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the CPU's names")]
pub struct ControlRegisters {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    /// As the guest sees it.
    pub efer: u64,
}

/// The vendor's raw words about the last exit, by the manual's names, for reports of an entry
/// failure or an unknown exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawExit(pub [(&'static str, u64); 6]);

impl fmt::Display for RawExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| write!(f, " {name}={value:#x}"))
    }
}

/// The registers on which an exited instruction is carried out: of either back end's vCPU, or of
/// the enum.
pub trait VcpuRegisters {
    /// See [`Vcpu::regs`](super::Vcpu::regs).
    fn regs(&self) -> &Regs;
    /// See [`Vcpu::set`](super::Vcpu::set).
    fn set(&mut self, gpr: Gpr, value: u64);
    /// Returns the guest's CR3.
    fn cr3(&self) -> u64;
    /// See [`Vcpu::next_rip`](super::Vcpu::next_rip).
    fn next_rip(&self, exit: VmExit) -> Option<u64>;
    /// See [`Vcpu::advance_to`](super::Vcpu::advance_to).
    fn advance_to(&mut self, rip: u64);
}

/// A vCPU as the receiver of interrupts and NMIs.
pub trait EventSink: VcpuRegisters {
    /// See [`Vcpu::cr8`](super::Vcpu::cr8).
    fn cr8(&self) -> u8;
    /// See [`Vcpu::set_cr8`](super::Vcpu::set_cr8).
    fn set_cr8(&mut self, class: u8);
    /// See [`Vcpu::can_take_interrupt`](super::Vcpu::can_take_interrupt).
    fn can_take_interrupt(&self) -> bool;
    /// See [`Vcpu::can_take_nmi`](super::Vcpu::can_take_nmi).
    fn can_take_nmi(&self) -> bool;
    /// See [`Vcpu::inject`](super::Vcpu::inject).
    fn inject(&mut self, event: InjectedEvent);
    /// See [`Vcpu::request_interrupt_window`](super::Vcpu::request_interrupt_window).
    fn request_interrupt_window(&mut self, window: WindowRequest);
    /// See [`Vcpu::request_nmi_window`](super::Vcpu::request_nmi_window).
    fn request_nmi_window(&mut self, window: WindowRequest);
}

/// The vendor's number of the exit reason: enough for exits that are answered at once.
pub type RawReason = u64;

/// RDMSR or WRMSR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the CPU's names")]
pub enum MsrAccess {
    Read,
    Write,
}

/// The registers on which a fetch of 64-bit code depends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the CPU's names")]
pub struct FetchRegisters {
    pub cr3: u64,
    pub cr4: u64,
    pub cpl: u8,
}

/// A back end's vCPU: [`Vcpu::run`](super::Vcpu::run) in two steps.
pub trait BackendVcpu: EventSink {
    /// The reason of [`VmExit::Cpuid`].
    const CPUID: RawReason;
    /// The reason of [`VmExit::Io`].
    const PORT: RawReason;
    /// The reason of [`VmExit::Halt`].
    const HALT: RawReason;
    /// The reason of [`VmExit::SecondLevelFault`].
    const FAULT: RawReason;
    /// The reason of [`VmExit::InterruptWindow`].
    const WINDOW: RawReason;

    /// Returns the kind of access if `reason` is for RDMSR or WRMSR.
    fn msr_access(&self, reason: RawReason) -> Option<MsrAccess>;

    /// Runs the guest until its next exit. [`Vcpu::exit`](super::Vcpu::exit) names the exit, unless
    /// it is answered without that.
    fn enter(&mut self) -> RawReason;
    /// Returns the access of an exit for [`BackendVcpu::PORT`].
    fn port_access(&self) -> Option<IoAccess>;
    /// Returns the address of the access in an exit for [`BackendVcpu::FAULT`].
    fn fault_address(&self) -> Gpa;
    /// Returns whether that access is an instruction's own access to data: not a fetch, not a walk
    /// of the guest's tables, not part of an event's delivery or of the return from an NMI.
    fn is_data_access(&self) -> bool;
    /// Returns the registers on which a fetch depends, if the guest runs 64-bit code.
    fn long_code(&self) -> Option<FetchRegisters>;
    /// Handles an exit for [`BackendVcpu::WINDOW`] in place of [`Vcpu::exit`](super::Vcpu::exit).
    fn take_up_window(&mut self);
}

/// Forwards [`VcpuRegisters`] and [`EventSink`] to a type's own methods.
macro_rules! forward_contract {
    ($vcpu:ty) => {
        impl $crate::virt::contract::VcpuRegisters for $vcpu {
            #[inline(always)]
            fn regs(&self) -> &$crate::virt::state::Regs {
                self.regs()
            }
            #[inline(always)]
            fn set(&mut self, gpr: $crate::virt::state::Gpr, value: u64) {
                self.set(gpr, value)
            }
            #[inline(always)]
            fn cr3(&self) -> u64 {
                self.control_registers().cr3
            }
            #[inline(always)]
            fn next_rip(&self, exit: $crate::virt::exit::VmExit) -> Option<u64> {
                self.next_rip(exit)
            }
            #[inline(always)]
            fn advance_to(&mut self, rip: u64) {
                self.advance_to(rip)
            }
        }

        impl $crate::virt::contract::EventSink for $vcpu {
            #[inline(always)]
            fn cr8(&self) -> u8 {
                self.cr8()
            }
            #[inline(always)]
            fn set_cr8(&mut self, class: u8) {
                self.set_cr8(class)
            }
            #[inline(always)]
            fn can_take_interrupt(&self) -> bool {
                self.can_take_interrupt()
            }
            #[inline(always)]
            fn can_take_nmi(&self) -> bool {
                self.can_take_nmi()
            }
            #[inline(always)]
            fn inject(&mut self, event: $crate::virt::exit::InjectedEvent) {
                self.inject(event)
            }
            #[inline(always)]
            fn request_interrupt_window(&mut self, window: $crate::virt::contract::WindowRequest) {
                self.request_interrupt_window(window)
            }
            #[inline(always)]
            fn request_nmi_window(&mut self, window: $crate::virt::contract::WindowRequest) {
                self.request_nmi_window(window)
            }
        }
    };
}
pub(super) use forward_contract;
