//! Registers that kernels and test suites access, but that have no effect in a partition. They read
//! a constant, and drop or refuse writes, as on a CPU that leaves their feature idle.
//!
//! Only registers that all CPUs of a vendor have, without a CPUID bit, are here. Registers that
//! CPUID would have to announce raise #GP. SDM 4 "Architectural MSRs", APM 2 "MSR Cross-Reference",
//! Linux `arch/x86/kvm/x86.c` for what other hypervisors found necessary.

use crate::partition::cpuid::Vendor;

/// The effect of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WriteEffect {
    /// Nothing.
    Dropped,
    /// #GP.
    Refused,
}

/// A range of registers with the same value.
struct Quiet {
    vendor: Option<Vendor>,
    first: u32,
    last: u32,
    value: u64,
    writes: WriteEffect,
}

const fn quiet(
    vendor: Option<Vendor>,
    first: u32,
    last: u32,
    value: u64,
    writes: WriteEffect,
) -> Quiet {
    Quiet { vendor, first, last, value, writes }
}

const AMD: Option<Vendor> = Some(Vendor::Amd);
const INTEL: Option<Vendor> = Some(Vendor::Intel);
use WriteEffect::{Dropped, Refused};

/// The TSC counts at the P0 frequency.
const HWCR_VALUE: u64 = 1 << 24;
/// LFENCE serialises.
const DE_CFG_VALUE: u64 = 1 << 1;
/// A revision in the upper half, so high that no kernel tries an update.
const MICROCODE_VALUE: u64 = 0xffff_fffe << 32;
/// Locked, with nothing enabled in it: neither VMX nor SMX nor local machine checks.
const FEATURE_CONTROL_VALUE: u64 = 1;
/// A bus of 100 MHz.
const BUS_FREQUENCY_VALUE: u64 = 3;

const QUIET: [Quiet; 38] = [
    quiet(None, 0x17, 0x17, 0, Refused),               // PLATFORM_ID
    quiet(None, 0x79, 0x79, 0, Dropped),               // BIOS_UPDT_TRIG
    quiet(None, 0x8b, 0x8b, MICROCODE_VALUE, Dropped), // BIOS_SIGN_ID, PATCH_LEVEL
    quiet(None, 0x179, 0x179, 0, Refused),             // MCG_CAP: no machine check banks
    quiet(None, 0x17a, 0x17a, 0, Dropped),             // MCG_STATUS
    quiet(None, 0x1d9, 0x1d9, 0, Dropped),             // DEBUGCTL
    quiet(None, 0x1db, 0x1de, 0, Refused),             // LASTBRANCHFROMIP to LASTINTTOIP
    quiet(INTEL, 0x2a, 0x2a, 0, Dropped),              // EBL_CR_POWERON
    quiet(INTEL, 0x34, 0x34, 0, Refused),              // SMI_COUNT
    quiet(INTEL, 0x3a, 0x3a, FEATURE_CONTROL_VALUE, Refused), // FEATURE_CONTROL
    quiet(INTEL, 0xc1, 0xc2, 0, Dropped),              // PERFCTR0, PERFCTR1
    quiet(INTEL, 0xcd, 0xcd, BUS_FREQUENCY_VALUE, Refused), // FSB_FREQ
    quiet(INTEL, 0xce, 0xce, 0, Refused),              // PLATFORM_INFO
    quiet(INTEL, 0x11e, 0x11e, 0, Dropped),            // BBL_CR_CTL3
    quiet(INTEL, 0x140, 0x140, 0, Dropped),            // MISC_FEATURE_ENABLES
    quiet(INTEL, 0x186, 0x187, 0, Dropped),            // PERFEVTSEL0, PERFEVTSEL1
    quiet(INTEL, 0x198, 0x198, 0, Refused),            // PERF_STATUS
    quiet(INTEL, 0x199, 0x199, 0, Dropped),            // PERF_CTL
    quiet(INTEL, 0x1ad, 0x1ad, 0, Refused),            // TURBO_RATIO_LIMIT
    quiet(INTEL, 0x1fc, 0x1fc, 0, Dropped),            // POWER_CTL
    quiet(INTEL, 0x606, 0x606, 0, Refused),            // RAPL_POWER_UNIT
    quiet(INTEL, 0x611, 0x611, 0, Refused),            // PKG_ENERGY_STATUS
    quiet(INTEL, 0x619, 0x619, 0, Refused),            // DRAM_ENERGY_STATUS
    quiet(INTEL, 0x639, 0x639, 0, Refused),            // PP0_ENERGY_STATUS
    quiet(INTEL, 0x641, 0x641, 0, Refused),            // PP1_ENERGY_STATUS
    quiet(AMD, 0xc001_0000, 0xc001_0007, 0, Dropped),  // PERF_CTL0 to 3, PERF_CTR0 to 3
    quiet(AMD, 0xc001_0010, 0xc001_0010, 0, Dropped),  // SYSCFG
    quiet(AMD, 0xc001_0015, 0xc001_0015, HWCR_VALUE, Dropped), // HWCR
    quiet(AMD, 0xc001_0016, 0xc001_001f, 0, Dropped),  // IORRs, TOP_MEM, TOP_MEM2, NB_CFG
    quiet(AMD, 0xc001_0020, 0xc001_0022, 0, Dropped),  // PATCH_LOADER, MCA controls
    quiet(AMD, 0xc001_0055, 0xc001_0058, 0, Dropped),  // INTERRUPT_PENDING to MMIO_CFG_BASE
    // P-state limit, control, status and definitions, COFVID
    quiet(AMD, 0xc001_0061, 0xc001_0071, 0, Dropped),
    quiet(AMD, 0xc001_0111, 0xc001_0113, 0, Dropped), // SMBASE, TSEG
    quiet(AMD, 0xc001_0114, 0xc001_0114, VM_CR_VALUE, Dropped), // VM_CR
    quiet(AMD, 0xc001_0117, 0xc001_0117, 0, Dropped), // VM_HSAVE_PA
    quiet(AMD, 0xc001_0140, 0xc001_0141, 0, Dropped), // OSVW_ID_LENGTH, OSVW_STATUS
    quiet(AMD, 0xc001_1020, 0xc001_1028, 0, Dropped), // LS_CFG, IC_CFG, DC_CFG, FP_CFG
    quiet(AMD, 0xc001_102a, 0xc001_102d, 0, Dropped), // BU_CFG2 to LS_CFG2
];

/// SVM is disabled, and the choice locked.
const VM_CR_VALUE: u64 = 1 << 3 | 1 << 4;

/// DE_CFG lies between two ranges that read zero.
const DE_CFG: Quiet = quiet(AMD, 0xc001_1029, 0xc001_1029, DE_CFG_VALUE, Dropped);

fn find(msr: u32, vendor: Vendor) -> Option<&'static Quiet> {
    let owns = |quiet: &&Quiet| {
        (quiet.first..=quiet.last).contains(&msr) && quiet.vendor.is_none_or(|own| own == vendor)
    };
    QUIET.iter().chain(core::iter::once(&DE_CFG)).find(owns)
}

/// Returns the value of `msr`; `None` if it is not one of these.
pub(super) fn read(msr: u32, vendor: Vendor) -> Option<u64> {
    find(msr, vendor).map(|quiet| quiet.value)
}

/// Returns the effect of a write to `msr`; `None` if it is not one of these.
pub(super) fn write(msr: u32, vendor: Vendor) -> Option<WriteEffect> {
    find(msr, vendor).map(|quiet| quiet.writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_register_has_two_lines() {
        let all: Vec<_> = QUIET.iter().chain([&DE_CFG]).collect();
        for (n, a) in all.iter().enumerate() {
            assert!(a.first <= a.last);
            for b in &all[n + 1..] {
                assert!(a.last < b.first || b.last < a.first, "{:#x} and {:#x}", a.first, b.first);
            }
        }
    }

    #[test]
    fn the_legacy_counters_are_amds_alone() {
        for msr in 0xc001_0000..=0xc001_0007 {
            assert_eq!(
                (read(msr, Vendor::Amd), write(msr, Vendor::Amd)),
                (Some(0), Some(WriteEffect::Dropped)),
                "{msr:#x}"
            );
            assert_eq!(
                (read(msr, Vendor::Intel), write(msr, Vendor::Intel)),
                (None, None),
                "{msr:#x}"
            );
        }
        assert_eq!((read(0xc1, Vendor::Amd), read(0xc1, Vendor::Intel)), (None, Some(0)));
    }

    #[test]
    fn constants_are_what_kernels_look_for() {
        assert_eq!(read(0x3a, Vendor::Intel), Some(1), "locked, no VMX");
        assert_eq!(read(0xc001_1029, Vendor::Amd), Some(2), "LFENCE serialises");
        assert_eq!(read(0xc001_0015, Vendor::Amd), Some(1 << 24));
        assert_eq!(read(0xc001_0114, Vendor::Amd), Some(0x18), "no SVM");
    }
}
