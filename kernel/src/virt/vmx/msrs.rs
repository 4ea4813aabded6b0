//! MSRs that no VMCS field switches and no hypervisor code uses. The guest's values stay in the CPU
//! while its vCPU is loaded, so that they cost nothing at an exit.
// UNSAFETY: reads and writes MSRs; none of them affects code that executes neither SYSCALL nor
// SWAPGS.
#![expect(unsafe_code)]

use crate::arch::instr::{rdmsr, wrmsr};
use crate::virt::state::CpuState;

/// Register numbers (SDM 4 "Architectural MSRs").
pub(super) mod number {
    pub(crate) const FEATURE_CONTROL: u32 = 0x3a;
    pub(crate) const SYSENTER_CS: u32 = 0x174;
    pub(crate) const SYSENTER_ESP: u32 = 0x175;
    pub(crate) const SYSENTER_EIP: u32 = 0x176;
    pub(crate) const PAT: u32 = 0x277;
    pub(crate) const EFER: u32 = 0xc000_0080;
    pub(crate) const STAR: u32 = 0xc000_0081;
    pub(crate) const LSTAR: u32 = 0xc000_0082;
    pub(crate) const CSTAR: u32 = 0xc000_0083;
    pub(crate) const SFMASK: u32 = 0xc000_0084;
    pub(crate) const FS_BASE: u32 = 0xc000_0100;
    pub(crate) const GS_BASE: u32 = 0xc000_0101;
    pub(crate) const KERNEL_GS_BASE: u32 = 0xc000_0102;
}

/// A vCPU's values of these MSRs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct GuestMsrs {
    star: u64,
    lstar: u64,
    cstar: u64,
    sfmask: u64,
    kernel_gs_base: u64,
}

impl GuestMsrs {
    /// Makes the values after a reset.
    pub(super) const fn new() -> Self {
        Self { star: 0, lstar: 0, cstar: 0, sfmask: 0, kernel_gs_base: 0 }
    }

    /// Copies the values from a state.
    pub(super) fn set(&mut self, state: &CpuState) {
        *self = Self {
            star: state.star,
            lstar: state.lstar,
            cstar: state.cstar,
            sfmask: state.sfmask,
            kernel_gs_base: state.kernel_gs_base,
        };
    }

    /// Copies the values to a state.
    pub(super) fn copy_to(&self, state: &mut CpuState) {
        state.star = self.star;
        state.lstar = self.lstar;
        state.cstar = self.cstar;
        state.sfmask = self.sfmask;
        state.kernel_gs_base = self.kernel_gs_base;
    }

    /// Reads this CPU's registers.
    pub(super) fn save(&mut self) {
        // SAFETY: a CPU with EPT has the registers of 64-bit mode.
        let read = |number| unsafe { rdmsr(number) };
        *self = Self {
            star: read(number::STAR),
            lstar: read(number::LSTAR),
            cstar: read(number::CSTAR),
            sfmask: read(number::SFMASK),
            kernel_gs_base: read(number::KERNEL_GS_BASE),
        };
    }

    /// Writes this CPU's registers.
    pub(super) fn restore(&self) {
        // SAFETY: the values came from the registers, or from a loader (canonical addresses); the
        // host uses none of them.
        let write = |number, value| unsafe { wrmsr(number, value) };
        write(number::STAR, self.star);
        write(number::LSTAR, self.lstar);
        write(number::CSTAR, self.cstar);
        write(number::SFMASK, self.sfmask);
        write(number::KERNEL_GS_BASE, self.kernel_gs_base);
    }
}
