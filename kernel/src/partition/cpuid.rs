//! The CPUID values that a partition sees: a policy over the host's values, pure but for [`host`].
//!
//! A feature is offered if it works in a guest without the hypervisor's help, or if `devices` or
//! `msr` emulates it. Everything else is hidden; unknown leaves are zero. So a new CPU's features
//! stay hidden until they are added to the masks here.
//!
//! | hidden | because |
//! |---|---|
//! | VMX, SVM, MONITOR, performance counters, debug store | not virtualised |
//! | RDTSCP, RDPID | TSC_AUX is not switched |
//! | PCID, INVPCID, LA57, PKU, XSAVES and all XSS states | not switched, or of no use to one vCPU |
//! | AVX-512, AMX | the FPU image that a vCPU switch saves has x87, SSE and AVX |
//! | speculation controls and ARCH_CAPABILITIES | their MSRs are not virtualised |
//! | FFXSR | the virtual EFER lacks its bit |
//!
//! A hidden feature is refused, too: its bits in CR4 ([`offered_cr4`]), XCR0 and EFER, and its
//! instructions as far as the CPU can intercept them. TSC_ADJUST, x2APIC and the TSC-deadline timer
//! are emulated, so a guest has them on every host.
//!
//! The KVM signature with its clock is not optional: without it Debian's kernel finds no TSC
//! frequency and hangs.

mod control;
mod fixed;
mod masks;
mod vendor;
mod xsave;

#[cfg(test)]
mod tests;

pub use control::offered_cr4;
pub use fixed::FixedAnswers;
pub use vendor::Vendor;
pub use xsave::{GUEST_XCR0, xcr0_allowed};

use crate::arch::instr;

use super::devices::clock::{NS_PER_S, TscRate};
use super::devices::lapic::ApicMode;
use super::devices::map::BOOT_APIC_ID;

/// The four registers of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the CPU's names")]
pub struct CpuidLeaf {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

impl CpuidLeaf {
    /// Makes a leaf of its registers.
    pub const fn new(eax: u32, ebx: u32, ecx: u32, edx: u32) -> Self {
        Self { eax, ebx, ecx, edx }
    }
    /// Keeps only the bits of `mask`.
    const fn masked(self, mask: CpuidLeaf) -> Self {
        Self::new(
            self.eax & mask.eax,
            self.ebx & mask.ebx,
            self.ecx & mask.ecx,
            self.edx & mask.edx,
        )
    }
}

/// The guest's state that the answers depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestView {
    /// The guest's CR4: CPUID mirrors OSXSAVE.
    pub cr4: u64,
    /// The guest's XCR0.
    pub xcr0: u64,
    /// Mode of its local APIC: CPUID reports no APIC while it is disabled. SDM 3A "Enabling or
    /// Disabling the Local APIC".
    pub apic: ApicMode,
    /// How fast its TSC runs.
    pub rate: TscRate,
}

/// First leaf for hypervisors.
const HYPERVISOR: u32 = 0x4000_0000;
const HYPERVISOR_FEATURES: u32 = 0x4000_0001;
/// Frequencies of TSC and APIC bus in kHz, in the leaf that other hypervisors use.
const HYPERVISOR_FREQUENCIES: u32 = 0x4000_0010;
const EXTENDED: u32 = 0x8000_0000;

const LAST_BASIC: u32 = 0xd;
const LAST_EXTENDED: u32 = 0x8000_0008;

const CR4_OSXSAVE: u64 = 1 << 18;

/// KVM's paravirtual features. Linux `Documentation/virt/kvm/x86/cpuid.rst`.
mod kvm {
    pub(super) const NOP_IO_DELAY: u32 = 1 << 1;
    pub(super) const CLOCKSOURCE2: u32 = 1 << 3;
    pub(super) const CLOCKSOURCE_STABLE: u32 = 1 << 24;
}

/// Reads a leaf of the CPU that runs this.
pub fn host(leaf: u32, subleaf: u32) -> CpuidLeaf {
    let r = instr::cpuid(leaf, subleaf);
    CpuidLeaf::new(r.eax, r.ebx, r.ecx, r.edx)
}

/// Returns the value of `leaf`, `subleaf` in a guest; `host` reads the host's.
pub fn answer(
    leaf: u32,
    subleaf: u32,
    host: &dyn Fn(u32, u32) -> CpuidLeaf,
    guest: &GuestView,
) -> CpuidLeaf {
    match leaf {
        0 => up_to(LAST_BASIC, host(0, 0)),
        1 => features(host(1, 0), guest),
        // Cache and TLB descriptors.
        2 => host(2, 0),
        4 => one_core(host(4, subleaf)),
        // ARAT alone: the APIC timer is emulated and goes on in deep sleep.
        6 => CpuidLeaf::new(1 << 2, 0, 0, 0),
        7 if subleaf == 0 => structured(host(7, 0)),
        0xb => topology(subleaf),
        0xd => xsave::answer(subleaf, host, guest.xcr0),
        HYPERVISOR => signature(),
        HYPERVISOR_FEATURES => {
            CpuidLeaf::new(kvm::NOP_IO_DELAY | kvm::CLOCKSOURCE2 | kvm::CLOCKSOURCE_STABLE, 0, 0, 0)
        }
        HYPERVISOR_FREQUENCIES => {
            CpuidLeaf::new((guest.rate.hz() / 1000) as u32, (NS_PER_S / 1000) as u32, 0, 0)
        }
        EXTENDED => up_to(LAST_EXTENDED, host(EXTENDED, 0)),
        0x8000_0001 => without_apic(host(leaf, 0).masked(masks::EXTENDED), guest.apic),
        // Brand string, first and second level caches.
        0x8000_0002..=0x8000_0006 => host(leaf, 0),
        // Invariant TSC.
        0x8000_0007 => host(leaf, 0).masked(CpuidLeaf::new(0, 0, 0, 1 << 8)),
        0x8000_0008 => address_sizes(host(leaf, 0)),
        _ => CpuidLeaf::default(),
    }
}

/// Returns the first leaf of a range: the range's last leaf, and the vendor.
const fn up_to(last: u32, host: CpuidLeaf) -> CpuidLeaf {
    CpuidLeaf { eax: if host.eax < last { host.eax } else { last }, ..host }
}

/// Leaf 1: masks, the APIC ID of the only CPU, and the hypervisor's additions.
fn features(host: CpuidLeaf, guest: &GuestView) -> CpuidLeaf {
    let osxsave = if guest.cr4 & CR4_OSXSAVE != 0 { masks::OSXSAVE } else { 0 };
    let xsave = if host.ecx & masks::XSAVE != 0 { osxsave } else { 0 };
    let brand_and_clflush = host.ebx & 0xffff;
    let allowed = host.masked(masks::FEATURES);
    let allowed = without_apic(allowed, guest.apic);
    CpuidLeaf {
        ebx: (u32::from(BOOT_APIC_ID) << 24) | (1 << 16) | brand_and_clflush,
        ecx: allowed.ecx | masks::EMULATED | xsave,
        ..allowed
    }
}

/// Clears EDX's bit for the local APIC while the APIC is off.
const fn without_apic(leaf: CpuidLeaf, apic: ApicMode) -> CpuidLeaf {
    match apic {
        ApicMode::Disabled => CpuidLeaf { edx: leaf.edx & !masks::APIC, ..leaf },
        ApicMode::XApic | ApicMode::X2Apic => leaf,
    }
}

/// Leaf 7: masks, and the hypervisor's additions.
const fn structured(host: CpuidLeaf) -> CpuidLeaf {
    let allowed = host.masked(masks::STRUCTURED);
    CpuidLeaf { ebx: allowed.ebx | masks::TSC_ADJUST, ..allowed }
}

/// Leaf 4: clears the numbers of CPUs that share the cache and of cores in the package.
const fn one_core(host: CpuidLeaf) -> CpuidLeaf {
    CpuidLeaf { eax: host.eax & 0x3fff, ..host }
}

/// Leaf 0xb: one thread in one core.
fn topology(subleaf: u32) -> CpuidLeaf {
    let x2apic_id = u32::from(BOOT_APIC_ID);
    match subleaf {
        0 => CpuidLeaf::new(0, 1, 1 << 8, x2apic_id),
        1 => CpuidLeaf::new(0, 1, (2 << 8) | 1, x2apic_id),
        _ => CpuidLeaf::new(0, 0, subleaf & 0xff, x2apic_id),
    }
}

/// "KVMKVMKVM" and the last leaf.
fn signature() -> CpuidLeaf {
    let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
    CpuidLeaf::new(HYPERVISOR_FREQUENCIES, word(b"KVMK"), word(b"VMKV"), word(b"M\0\0\0"))
}

/// Returns the number of bits of a guest's physical address: the host's, but at most the 48 that
/// four levels of tables translate.
pub fn physical_bits(host: &dyn Fn(u32, u32) -> CpuidLeaf) -> u32 {
    (host(LAST_EXTENDED, 0).eax & 0xff).min(48)
}

/// Leaf 0x80000008: at most the 48 bits that four levels of tables translate; one core.
fn address_sizes(host: CpuidLeaf) -> CpuidLeaf {
    let physical = (host.eax & 0xff).min(48);
    let linear = ((host.eax >> 8) & 0xff).min(48);
    CpuidLeaf::new(physical | (linear << 8), host.ebx & masks::ADDRESS_SIZES_EBX, 0, 0)
}
