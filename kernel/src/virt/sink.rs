//! Where events are injected: the methods that either back end's vCPU, and the enum of both, offer
//! for that.

use super::exit::InjectedEvent;
use super::face::{Vcpu, VcpuRegisters, WindowRequest};
use super::{svm, vmx};

/// A vCPU as the receiver of interrupts and NMIs.
pub trait EventSink: VcpuRegisters {
    /// See [`Vcpu::cr8`].
    fn cr8(&self) -> u8;
    /// See [`Vcpu::set_cr8`].
    fn set_cr8(&mut self, class: u8);
    /// See [`Vcpu::can_take_interrupt`].
    fn can_take_interrupt(&self) -> bool;
    /// See [`Vcpu::can_take_nmi`].
    fn can_take_nmi(&self) -> bool;
    /// See [`Vcpu::inject`].
    fn inject(&mut self, event: InjectedEvent);
    /// See [`Vcpu::request_interrupt_window`].
    fn request_interrupt_window(&mut self, window: WindowRequest);
    /// See [`Vcpu::request_nmi_window`].
    fn request_nmi_window(&mut self, window: WindowRequest);
}

/// Forwards [`EventSink`] to a type's own methods.
macro_rules! sink {
    ($vcpu:ty) => {
        impl EventSink for $vcpu {
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
            fn inject(&mut self, event: InjectedEvent) {
                self.inject(event)
            }
            #[inline(always)]
            fn request_interrupt_window(&mut self, window: WindowRequest) {
                self.request_interrupt_window(window)
            }
            #[inline(always)]
            fn request_nmi_window(&mut self, window: WindowRequest) {
                self.request_nmi_window(window)
            }
        }
    };
}

sink!(vmx::VmxVcpu);
sink!(svm::SvmVcpu);
sink!(Vcpu);
