//! SVM with NPT: the second back end. Every laptop can run it, because QEMU's TCG emulates it.
//!
//! | file | concept |
//! |---|---|
//! | `host` | required CPU features, and enabling SVM |
//! | `vmcb` | the control block's layout |
//! | `controls` | which events and instructions exit |
//! | `permission` | which ports and MSRs exit |
//! | `guest` | guest state to and from the VMCB |
//! | `efer` | the EFER shadow |
//! | `event` | encoding of injected and interrupted events |
//! | `decode` | raw exit to [`VmExit`](super::VmExit) |
//! | `entry` | the world switch |
//! | `vcpu` | the vCPU, which uses all of these |
//! | `events` | its windows, shadows and NMIs |
//!
//! For the layers above: CR8 is virtualised (V_TPR) and read with [`SvmVcpu::cr8`]. The MSRs PAT
//! and EFER exit, and are emulated by [`SvmVcpu::state`]/[`SvmVcpu::set_state`] and
//! [`SvmVcpu::write_efer`]. CPUID must not offer features that need EFER bits beyond SCE, LME and
//! NXE, nor MONITOR, RDPRU, SVM. The clean bits are not used yet: every entry reads the whole VMCB.
//! Neither the predictors (IBPB) nor the L1D are flushed between guests.

mod controls;
mod decode;
mod efer;
mod entry;
mod event;
mod event_state;
mod events;
mod exit_info;
mod guest;
mod host;
mod permission;
mod saved;
mod system;
mod system_registers;
mod vcpu;
mod vmcb;

pub use host::{SvmCpu, capabilities, detect, is_vendor};
pub use vcpu::SvmVcpu;
