//! Hardware virtualisation: one vendor-neutral interface, two back ends.
//!
//! ```text
//!   partition ──> Vcpu::run ──> vmx::Vcpu (VMX, EPT) ──> world switch
//!       ^                       svm::Vcpu (SVM, NPT) ──> world switch
//!       └────────── Exit  <──── decoded by the back end: pure, tested by tables
//! ```
//!
//! The layers above do not know which back end runs. A back end turns a raw exit into a small
//! [`VmExit`], handles the exits that only its vendor has (VMX: control-register shadows; SVM: the
//! EFER shadow), and re-injects an event whose delivery an exit interrupted. `virt` never names a
//! partition, a page or a device.
//!
//! Invariants:
//! * Host interrupts are off around [`Vcpu::run`]; a pending host interrupt ends the guest's stay
//!   with [`VmExit::HostInterrupt`] and is still pending then.
//! * A `Vcpu` belongs to the CPU that runs it; before it moves, the old CPU must call
//!   [`Vcpu::unload`].
//! * The kernel is soft-float: guest FPU state stays in the registers across exits.

pub mod breakpoints;
pub mod contract;
mod cr0;
mod cr4;
mod debug;
mod efer;
pub mod exit;
pub mod face;
#[cfg(test)]
pub mod fake;
pub mod frame;
pub mod saved;
#[cfg(target_os = "none")]
pub mod selftest;
pub mod state;
pub mod svm;
pub mod tag;
pub mod vmx;

pub use contract::{
    AccessedDirty, BackendCapabilities, BackendVcpu, ControlRegisters, EventSink, FetchRegisters,
    MissingFeatureError, MsrAccess, RawExit, RawReason, VcpuRegisters, WindowRequest,
};
pub use exit::{
    AccessWidth, InjectedEvent, InjectionKind, IoAccess, IoDirection, PageAccess, ShadowSource,
    SystemMove, TaskSource, TaskSwitch, VmExit,
};
pub use face::{Backend, EnabledCpu, Vcpu};
pub use frame::ControlFrame;
pub use state::{CpuState, DescriptorTable, Gpr, Regs, SegmentRegister};
pub use tag::{TlbTag, TlbTags};
