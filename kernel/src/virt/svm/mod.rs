//! SVM with NPT: the second back end, and the one that every laptop can run (QEMU's TCG emulates it).
//!
//! | file | concept |
//! |---|---|
//! | `host` | what the CPU must have, and switching it on |
//! | `vmcb` | the control block's layout |
//! | `controls` | what exits |
//! | `permission` | which ports and MSRs exit |
//! | `guest` | guest state to and from the VMCB |
//! | `efer` | the EFER shadow |
//! | `event` | injected and interrupted events, as words |
//! | `decode` | raw exit to [`Exit`](super::Exit) |
//! | `entry` | the world switch |
//! | `vcpu` | the vCPU that puts them together |
//! | `events` | its windows, shadows and NMIs |
//!
//! For the layers above: CR8 is virtualised (V_TPR) and read with [`Vcpu::cr8`]; the MSRs PAT and EFER exit,
//! and are emulated by [`Vcpu::state`]/[`Vcpu::set_state`] and [`Vcpu::write_efer`]. CPUID must not offer what EFER
//! would have to switch on beyond SCE, LME and NXE, nor MONITOR, RDPRU, SVM. The clean bits are not used yet: every
//! entry reads the whole VMCB. The predictors are not flushed between guests (IBPB), nor the L1D.

mod controls;
mod decode;
mod efer;
mod entry;
mod event;
mod events;
mod guest;
mod host;
mod permission;
mod system;
mod vcpu;
mod vmcb;

pub use host::{EnabledCpu, capabilities, detect, is_vendor};
pub use vcpu::Vcpu;
