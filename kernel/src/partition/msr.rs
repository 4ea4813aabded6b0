//! The model-specific registers of a partition: RDMSR and WRMSR that exit.
//!
//! | held by | registers |
//! |---|---|
//! | the CPU (behind [`CpuMsrs`]) | EFER, PAT |
//! | `devices::lapic` | APIC base, x2APIC range, TSC deadline |
//! | [`kvmclock`] | KVM's system time and wall clock |
//! | `mtrr` | memory types: kept, without effect |
//! | `tsc` | the guest's time-stamp counter and IA32_TSC_ADJUST |
//! | `quiet` | nothing: a constant that kernels read at boot |
//!
//! All others raise #GP, as on hardware: kernels probe with that. Invariant: a write that returns
//! an error has changed nothing.

pub mod kvmclock;
mod mtrr;
mod quiet;
mod saved;
mod tsc;

#[cfg(test)]
mod tests;

use super::cpuid::Vendor;
use super::devices::Platform;
use super::devices::lapic::ApicAccessError;
use super::devices::lapic::register::{
    COMMAND, END_OF_INTERRUPT, SELF_IPI, TASK_PRIORITY, X2APIC_BASE, X2APIC_LAST,
};
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::time::Ticks;
use crate::virt::{InjectedEvent, Vcpu};
use kvmclock::KvmClock;
use mtrr::Mtrrs;
use quiet::WriteEffect;
use tsc::TscShift;

/// Why an access fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MsrError {
    /// The guest gets this exception.
    Exception(InjectedEvent),
    /// The access to guest memory failed; for a page that is not resident, repeat the instruction.
    Memory(GuestMemoryError),
}

impl From<ApicAccessError> for MsrError {
    fn from(_: ApicAccessError) -> Self {
        MsrError::Exception(InjectedEvent::general_protection())
    }
}

const FAULT: MsrError = MsrError::Exception(InjectedEvent::general_protection());

/// The registers that the CPU holds although accesses to them exit.
pub trait CpuMsrs {
    /// Reads EFER as the guest sees it.
    fn efer(&self) -> u64;
    /// Writes EFER.
    ///
    /// # Errors
    /// The exception for reserved bits and forbidden changes.
    fn set_efer(&mut self, value: u64) -> Result<(), InjectedEvent>;
    /// Reads the page attribute table.
    fn pat(&self) -> u64;
    /// Writes the page attribute table; the caller has checked its types.
    fn set_pat(&mut self, value: u64);
    /// Sets the offset that the CPU adds to the machine's time-stamp counter.
    fn set_tsc_offset(&mut self, offset: u64);
}

impl CpuMsrs for Vcpu {
    fn efer(&self) -> u64 {
        self.control_registers().efer
    }
    fn set_efer(&mut self, value: u64) -> Result<(), InjectedEvent> {
        self.write_efer(value)
    }
    fn pat(&self) -> u64 {
        self.pat()
    }
    fn set_pat(&mut self, value: u64) {
        self.set_pat(value);
    }
    fn set_tsc_offset(&mut self, offset: u64) {
        self.set_tsc_offset(offset);
    }
}

/// Register numbers. SDM 4 "Architectural MSRs", APM 2 "MSR Cross-Reference".
#[expect(missing_docs, reason = "the manual's names")]
pub mod number {
    pub const TSC: u32 = 0x10;
    pub const APIC_BASE: u32 = 0x1b;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const MTRR_CAP: u32 = 0xfe;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const PAT: u32 = 0x277;
    pub const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const EFER: u32 = 0xc000_0080;
}
use number::*;

/// Fast strings on; performance monitoring and branch trace storage not available.
const MISC_ENABLE_RESET: u64 = (1 << 0) | MISC_ENABLE_FIXED;
/// Read-only bits of features that are not available.
const MISC_ENABLE_FIXED: u64 = (1 << 11) | (1 << 12);
/// The types that are valid in PAT: all but 2 and 3.
const PAT_TYPES: u64 = 0b1111_0011;

/// The registers that are held nowhere else.
#[derive(Clone, Debug)]
pub struct Msrs {
    vendor: Vendor,
    /// Bits of a physical address, as CPUID reports them.
    physical_bits: u32,
    mtrrs: Mtrrs,
    kvmclock: KvmClock,
    misc_enable: u64,
    tsc: TscShift,
    /// IA32_TSC_DEADLINE as the guest wrote it last.
    deadline: u64,
}

/// What WRMSR writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsrWrite {
    /// The register's number.
    pub msr: u32,
    /// Its new value.
    pub value: u64,
}

impl Msrs {
    /// Makes the registers after reset, on a CPU of `vendor` with `physical_bits` of physical
    /// address.
    pub fn new(vendor: Vendor, physical_bits: u32) -> Self {
        Self {
            vendor,
            physical_bits,
            mtrrs: Mtrrs::default(),
            kvmclock: KvmClock::default(),
            misc_enable: MISC_ENABLE_RESET,
            tsc: TscShift::default(),
            deadline: 0,
        }
    }

    /// Returns the registers after a reset of the same CPU.
    pub fn after_reset(&self) -> Self {
        Self::new(self.vendor, self.physical_bits)
    }

    /// Returns the vendor of the CPU.
    pub const fn vendor(&self) -> Vendor {
        self.vendor
    }

    /// Returns KVM's clock.
    pub const fn kvmclock(&self) -> &KvmClock {
        &self.kvmclock
    }

    /// Carries out RDMSR of a register that is not held in the CPU; `None` for all others and for
    /// reads that fault.
    #[inline]
    pub fn read_alone(
        &self,
        msr: u32,
        platform: &Platform,
        now: impl FnOnce() -> Ticks,
    ) -> Option<u64> {
        match msr {
            X2APIC_BASE..=X2APIC_LAST => {
                platform.lapic().msr_read((msr - X2APIC_BASE) as u8, now()).ok()
            }
            APIC_BASE => Some(platform.lapic().base_msr()),
            TSC => Some(self.tsc.guest(now())),
            TSC_ADJUST => Some(self.tsc.adjust()),
            MISC_ENABLE => Some(self.misc_enable),
            _ => None,
        }
    }

    /// Carries out WRMSR to a register of the local APIC that kernels write at every interrupt or
    /// timer. `None` for all others, and for values that are refused.
    #[inline(always)]
    pub fn write_alone(&mut self, msr: u32, value: u64, platform: &mut Platform) -> Option<()> {
        const FIRST: u32 = X2APIC_BASE + TASK_PRIORITY as u32;
        const EOI: u32 = X2APIC_BASE + END_OF_INTERRUPT as u32;
        const ICR: u32 = X2APIC_BASE + COMMAND as u32;
        const SELF: u32 = X2APIC_BASE + SELF_IPI as u32;
        match msr {
            TSC_DEADLINE => {
                self.set_deadline(value, platform);
                Some(())
            }
            FIRST => platform.lapic_mut().write_task_priority(value).ok(),
            EOI => platform.end_of_interrupt(value).ok(),
            SELF => platform.lapic_mut().write_self_ipi(value).ok(),
            // This write does not use the time.
            ICR => platform.x2apic_write((msr - X2APIC_BASE) as u8, value, Ticks::ZERO).ok(),
            _ => None,
        }
    }

    /// Carries out RDMSR.
    ///
    /// # Errors
    /// [`MsrError::Exception`]: there is no such register.
    pub fn read(
        &self,
        msr: u32,
        cpu: &dyn CpuMsrs,
        platform: &Platform,
        now: Ticks,
    ) -> Result<u64, MsrError> {
        Ok(match msr {
            X2APIC_BASE..=X2APIC_LAST => {
                platform.lapic().msr_read((msr - X2APIC_BASE) as u8, now)?
            }
            APIC_BASE => platform.lapic().base_msr(),
            TSC_DEADLINE if platform.lapic().tsc_deadline() == Ticks::ZERO => 0,
            TSC_DEADLINE => self.deadline,
            EFER => cpu.efer(),
            PAT => cpu.pat(),
            TSC => self.tsc.guest(now),
            TSC_ADJUST => self.tsc.adjust(),
            MISC_ENABLE => self.misc_enable,
            _ => {
                let kept = self.mtrrs.read(msr).or_else(|| self.kvmclock.read(msr));
                kept.or_else(|| quiet::read(msr, self.vendor)).ok_or(FAULT)?
            }
        })
    }

    /// Carries out WRMSR.
    ///
    /// # Errors
    /// [`MsrError::Exception`]: no such register, or an invalid value. [`MsrError::Memory`]: the
    /// access to the clock's page failed.
    pub fn write(
        &mut self,
        MsrWrite { msr, value }: MsrWrite,
        cpu: &mut dyn CpuMsrs,
        platform: &mut Platform,
        memory: &dyn GuestMemory,
        now: Ticks,
    ) -> Result<(), MsrError> {
        match msr {
            X2APIC_BASE..=X2APIC_LAST => {
                platform.x2apic_write((msr - X2APIC_BASE) as u8, value, now)?
            }
            APIC_BASE if value >> self.physical_bits != 0 => return Err(FAULT),
            APIC_BASE => platform.set_apic_base(value, memory)?,
            TSC_DEADLINE => self.set_deadline(value, platform),
            EFER => cpu.set_efer(value).map_err(MsrError::Exception)?,
            PAT if !pat_is_valid(value) => return Err(FAULT),
            PAT => cpu.set_pat(value),
            TSC => self.shift(self.tsc.set_counter(value, now), cpu, platform, memory, now)?,
            TSC_ADJUST => self.shift(self.tsc.set_adjust(value), cpu, platform, memory, now)?,
            MISC_ENABLE => self.misc_enable = value | MISC_ENABLE_FIXED,
            _ if self.mtrrs.owns(msr) => self.mtrrs.write(msr, value)?,
            _ => match quiet::write(msr, self.vendor) {
                Some(WriteEffect::Dropped) => {}
                Some(WriteEffect::Refused) => return Err(FAULT),
                None => self.kvmclock.write(
                    msr,
                    value,
                    platform.clock(),
                    memory,
                    self.tsc.moment(now),
                )?,
            },
        }
        Ok(())
    }

    /// Moves the guest's counter. The clock's page and the deadline are in terms of that counter,
    /// so they are moved with it.
    fn shift(
        &mut self,
        shift: TscShift,
        cpu: &mut dyn CpuMsrs,
        platform: &mut Platform,
        memory: &dyn GuestMemory,
        now: Ticks,
    ) -> Result<(), MsrError> {
        self.kvmclock.publish_again(platform.clock(), memory, shift.moment(now))?;
        self.tsc = shift;
        cpu.set_tsc_offset(shift.offset());
        if platform.lapic().tsc_deadline() != Ticks::ZERO {
            self.set_deadline(self.deadline, platform);
        }
        Ok(())
    }

    fn set_deadline(&mut self, value: u64, platform: &mut Platform) {
        self.deadline = value;
        let deadline = if value == 0 { Ticks::ZERO } else { self.tsc.machine(value) };
        platform.lapic_mut().set_tsc_deadline(deadline);
    }
}

/// Returns whether the CPU takes every type in a PAT.
pub const fn pat_is_valid(value: u64) -> bool {
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
