//! The feature bits that pass from the host to a guest. SDM 2A "CPUID", APM 3 "CPUID".

use super::CpuidLeaf;

const fn bits(list: &[u32]) -> u32 {
    let (mut mask, mut i) = (0, 0);
    while i < list.len() {
        mask |= 1 << list[i];
        i += 1;
    }
    mask
}

/// Leaf 1 ECX.
pub(super) const XSAVE: u32 = 1 << 26;
/// Leaf 1 ECX: mirrors the guest's CR4.
pub(super) const OSXSAVE: u32 = 1 << 27;
/// Leaf 1 ECX, emulated on every host: x2APIC, TSC deadline, "a hypervisor is present".
pub(super) const EMULATED: u32 = bits(&[21, 24, 31]);

/// Leaf 1 EDX, and its copy in leaf 0x80000001: the local APIC is on.
pub(super) const APIC: u32 = 1 << 9;
/// Leaf 7 EBX, emulated on every host.
pub(super) const TSC_ADJUST: u32 = 1 << 1;

/// Leaf 1.
pub(super) const FEATURES: CpuidLeaf = CpuidLeaf::new(
    u32::MAX,
    0,
    // SSE3 PCLMUL SSSE3 FMA CX16 SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE AVX F16C RDRAND
    bits(&[0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30]),
    // FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFLUSH MMX FXSR SSE
    // SSE2 SS
    bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 27]),
);

/// Leaf 7, subleaf 0.
pub(super) const STRUCTURED: CpuidLeaf = CpuidLeaf::new(
    0,
    // FSGSBASE BMI1 AVX2 FDP SMEP BMI2 ERMS FCS/FDS RDSEED ADX SMAP CLFLUSHOPT CLWB SHA
    bits(&[0, 3, 5, 6, 7, 8, 9, 13, 18, 19, 20, 23, 24, 29]),
    // UMIP GFNI VAES VPCLMULQDQ
    bits(&[2, 8, 9, 10]),
    // FSRM MD_CLEAR SERIALIZE
    bits(&[4, 10, 14]),
);

/// Leaf 0x80000001. AMD repeats the low bits of leaf 1 EDX here.
pub(super) const EXTENDED: CpuidLeaf = CpuidLeaf::new(
    u32::MAX,
    0,
    // LAHF CR8 LZCNT SSE4A misaligned-SSE PREFETCHW
    bits(&[0, 4, 5, 6, 7, 8]),
    // as leaf 1, then SYSCALL NX MMX+ MMX FXSR 1G-pages LM
    bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 20, 22, 23, 24, 26, 29]),
);

/// Leaf 0x80000008 EBX: CLZERO, and that FXSAVE saves the error pointers.
pub(super) const ADDRESS_SIZES_EBX: u32 = bits(&[0, 2]);
