//! The model-specific registers of a partition: RDMSR and WRMSR that exit.
//!
//! | who holds it | registers |
//! |---|---|
//! | the CPU (behind [`CpuMsrs`]) | EFER, PAT |
//! | `devices::lapic` | APIC base, x2APIC range, TSC deadline |
//! | [`kvmclock`] | KVM's system time and wall clock |
//! | `mtrr` | memory types: kept, without effect |
//! | nobody | a constant that kernels read at boot, or #GP |
//!
//! Unknown registers are #GP, as on hardware: kernels probe with that. Invariant: a write that answers an error has changed
//! nothing.

pub mod kvmclock;
mod mtrr;

#[cfg(test)]
mod tests;

use super::devices::Platform;
use super::devices::clock::Tsc;
use super::devices::lapic::Refused;
use super::devices::lapic::register::{X2APIC_BASE, X2APIC_LAST};
use crate::mm::guest::{GuestAccess, GuestMemory};
use crate::virt::{Event, Vcpu};
use kvmclock::KvmClock;
use mtrr::Mtrrs;

/// Why an access is not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MsrFault {
    /// The guest gets this exception.
    Exception(Event),
    /// A page is needed first: repeat the instruction.
    Memory(GuestAccess),
}

impl From<Refused> for MsrFault {
    fn from(_: Refused) -> Self {
        MsrFault::Exception(Event::general_protection())
    }
}

const FAULT: MsrFault = MsrFault::Exception(Event::general_protection());

/// The registers that live in the CPU and yet exit.
pub trait CpuMsrs {
    /// Reads EFER as the guest sees it.
    fn efer(&self) -> u64;
    /// Writes EFER.
    ///
    /// # Errors
    /// The exception for reserved bits and forbidden changes.
    fn set_efer(&mut self, value: u64) -> Result<(), Event>;
    /// Reads the page attribute table.
    fn pat(&self) -> u64;
    /// Writes the page attribute table, whose types have been checked.
    fn set_pat(&mut self, value: u64);
}

impl CpuMsrs for Vcpu {
    fn efer(&self) -> u64 {
        self.control_registers().efer
    }
    fn set_efer(&mut self, value: u64) -> Result<(), Event> {
        self.write_efer(value)
    }
    fn pat(&self) -> u64 {
        self.state().pat
    }
    fn set_pat(&mut self, value: u64) {
        let mut state = self.state();
        state.pat = value;
        self.set_state(&state);
    }
}

/// Register numbers. SDM 4 "Architectural MSRs", APM 2 "MSR Cross-Reference".
#[allow(missing_docs)]
pub mod number {
    pub const TSC: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const APIC_BASE: u32 = 0x1b;
    pub const MICROCODE_UPDATE: u32 = 0x79;
    pub const MICROCODE_REVISION: u32 = 0x8b;
    pub const MTRR_CAP: u32 = 0xfe;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const PAT: u32 = 0x277;
    pub const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const EFER: u32 = 0xc000_0080;
    pub const AMD_SYSCFG: u32 = 0xc001_0010;
    pub const AMD_HWCR: u32 = 0xc001_0015;
    pub const AMD_NB_CFG: u32 = 0xc001_001f;
    pub const AMD_INTERRUPT_PENDING: u32 = 0xc001_0055;
    pub const AMD_OSVW_LENGTH: u32 = 0xc001_0140;
    pub const AMD_OSVW_STATUS: u32 = 0xc001_0141;
    pub const AMD_LS_CFG: u32 = 0xc001_1020;
    pub const AMD_IC_CFG: u32 = 0xc001_1021;
    pub const AMD_DC_CFG: u32 = 0xc001_1022;
    pub const AMD_FP_CFG: u32 = 0xc001_1028;
    pub const AMD_DE_CFG: u32 = 0xc001_1029;
    pub const AMD_BU_CFG2: u32 = 0xc001_102a;
}
use number::*;

/// Fast strings on; performance monitoring and branch trace storage not available.
const MISC_ENABLE_VALUE: u64 = (1 << 0) | (1 << 11) | (1 << 12);
/// A revision in the upper half, high enough that no kernel asks for an update.
const MICROCODE_VALUE: u64 = 0xffff_fffe << 32;
/// The TSC counts at the P0 frequency.
const HWCR_VALUE: u64 = 1 << 24;
/// LFENCE serialises.
const DE_CFG_VALUE: u64 = 1 << 1;
/// Types that PAT takes: all but 2 and 3.
const PAT_TYPES: u64 = 0b1111_0011;

/// What the registers hold that live nowhere else.
#[derive(Clone, Debug, Default)]
pub struct Msrs {
    mtrrs: Mtrrs,
    kvmclock: KvmClock,
}

impl Msrs {
    /// Makes the registers as they are after reset.
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries out RDMSR.
    ///
    /// # Errors
    /// [`MsrFault::Exception`]: there is no such register.
    pub fn read(&self, msr: u32, cpu: &dyn CpuMsrs, platform: &Platform, now: Tsc) -> Result<u64, MsrFault> {
        Ok(match msr {
            X2APIC_BASE..=X2APIC_LAST => platform.lapic().msr_read((msr - X2APIC_BASE) as u8, now)?,
            APIC_BASE => platform.lapic().base_msr(),
            TSC_DEADLINE => platform.lapic().tsc_deadline(),
            EFER => cpu.efer(),
            PAT => cpu.pat(),
            TSC => now.0,
            MISC_ENABLE => MISC_ENABLE_VALUE,
            MICROCODE_REVISION => MICROCODE_VALUE,
            AMD_HWCR => HWCR_VALUE,
            AMD_DE_CFG => DE_CFG_VALUE,
            // No machine check banks, no errata, no platform features.
            PLATFORM_ID | MCG_CAP | MCG_STATUS | AMD_SYSCFG | AMD_NB_CFG | AMD_INTERRUPT_PENDING => 0,
            AMD_OSVW_LENGTH | AMD_OSVW_STATUS | AMD_LS_CFG | AMD_IC_CFG | AMD_DC_CFG | AMD_FP_CFG | AMD_BU_CFG2 => 0,
            _ => self.mtrrs.read(msr).or_else(|| self.kvmclock.read(msr)).ok_or(FAULT)?,
        })
    }

    /// Carries out WRMSR.
    ///
    /// # Errors
    /// [`MsrFault::Exception`]: no such register, or a value it does not take. [`MsrFault::Memory`]: the page that the
    /// clock is to be written to.
    pub fn write(
        &mut self,
        msr: u32,
        value: u64,
        cpu: &mut dyn CpuMsrs,
        platform: &mut Platform,
        memory: &dyn GuestMemory,
        now: Tsc,
    ) -> Result<(), MsrFault> {
        match msr {
            X2APIC_BASE..=X2APIC_LAST => platform.x2apic_write((msr - X2APIC_BASE) as u8, value, now)?,
            APIC_BASE => platform.lapic_mut().set_base_msr(value)?,
            TSC_DEADLINE => platform.lapic_mut().set_tsc_deadline(value),
            EFER => cpu.set_efer(value).map_err(MsrFault::Exception)?,
            PAT if !pat_is_valid(value) => return Err(FAULT),
            PAT => cpu.set_pat(value),
            // The time belongs to the hypervisor; the others have no effect that a guest could see.
            TSC | MISC_ENABLE | MICROCODE_UPDATE | MICROCODE_REVISION | MCG_STATUS => {}
            AMD_SYSCFG | AMD_HWCR | AMD_NB_CFG | AMD_INTERRUPT_PENDING | AMD_LS_CFG | AMD_IC_CFG | AMD_DC_CFG => {}
            AMD_FP_CFG | AMD_DE_CFG | AMD_BU_CFG2 => {}
            _ if self.mtrrs.owns(msr) => self.mtrrs.write(msr, value)?,
            _ => self.kvmclock.write(msr, value, platform.clock(), memory, now)?,
        }
        Ok(())
    }
}

const fn pat_is_valid(value: u64) -> bool {
    let mut entry = 0;
    while entry < 8 {
        let kind = (value >> (entry * 8)) & 0xff;
        if kind > 7 || PAT_TYPES & (1 << kind) == 0 {
            return false;
        }
        entry += 1;
    }
    true
}
