//! The CPU's own random numbers, if it has any.

use super::cpuid;
use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

/// Attempts before a generator counts as exhausted (SDM 1 "Random Number Generator Instructions").
const TRIES: usize = 10;

/// What the CPUs have, once it is known: they are of one kind.
static SOURCES: AtomicU8 = AtomicU8::new(0);
const KNOWN: u8 = 1 << 0;
const SEED: u8 = 1 << 1;
const GENERATOR: u8 = 1 << 2;

/// Asks CPUID once: under another hypervisor that is slow.
fn sources() -> u8 {
    let known = SOURCES.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let has_seed = cpuid(0, 0).eax >= 7 && cpuid(7, 0).ebx & 1 << 18 != 0;
    let has_generator = cpuid(1, 0).ecx & 1 << 30 != 0;
    let bit = |has, bit| if has { bit } else { 0 };
    let found = KNOWN | bit(has_seed, SEED) | bit(has_generator, GENERATOR);
    SOURCES.store(found, Ordering::Relaxed);
    found
}

/// Returns a number from the CPU's entropy source (RDSEED) or its generator (RDRAND); `None` if it
/// has neither.
pub fn random() -> Option<u64> {
    let (has_seed, has_generator) = (sources() & SEED != 0, sources() & GENERATOR != 0);
    let seed = has_seed.then(|| (0..TRIES).find_map(|_| rdseed())).flatten();
    seed.or_else(|| has_generator.then(|| (0..TRIES).find_map(|_| rdrand())).flatten())
}

fn rdseed() -> Option<u64> {
    let (number, is_valid): (u64, u8);
    // SAFETY: writes a register and flags; the caller has checked CPUID.
    unsafe {
        asm!(
            "rdseed {}", "setc {}", out(reg) number, out(reg_byte) is_valid, options(nomem, nostack)
        )
    };
    (is_valid != 0).then_some(number)
}

fn rdrand() -> Option<u64> {
    let (number, is_valid): (u64, u8);
    // SAFETY: as in `rdseed`.
    unsafe {
        asm!(
            "rdrand {}", "setc {}", out(reg) number, out(reg_byte) is_valid, options(nomem, nostack)
        )
    };
    (is_valid != 0).then_some(number)
}
