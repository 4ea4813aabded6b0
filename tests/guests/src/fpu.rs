//! The extended state: x87, SSE, AVX. A kernel is compiled without these registers, so loaded
//! contents stay until other code changes them.
//!
//! ```text
//!  0 FCW FSW FTW ..  24 MXCSR  32 ST0..7, 16 bytes each  160 XMM0..15  512 header: XSTATE_BV ..  576 upper halves of YMM0..15
//! ```
//!
//! SDM 1 "XSAVE Area". The pointers to the last instruction are ignored: CPUs differ in when they
//! save them.

// UNSAFETY: enables the extended state, and loads and saves it.
#![expect(unsafe_code)]

use crate::instr;
use core::fmt;

const LEGACY_END: usize = 416;
const XSTATE_BV: usize = 512;
const UPPER_HALVES: usize = 576;
const END: usize = UPPER_HALVES + 256;

/// State components.
pub mod component {
    pub const X87: u64 = 1;
    pub const SSE: u64 = 2;
    pub const AVX: u64 = 4;
}

/// The registers' contents in memory.
#[repr(C, align(64))]
pub struct FpuArea([u8; END]);

/// The first difference of two areas.
pub struct FpuDifferenceError {
    offset: usize,
    expected: u8,
    found: u8,
}

impl fmt::Display for FpuDifferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} is {:#04x}, should be {:#04x}", self.offset, self.found, self.expected)
    }
}

impl FpuArea {
    /// Returns an empty area.
    pub const fn new() -> Self {
        Self([0; END])
    }

    /// Returns contents determined by `seed` for the components of `xcr0`: legal, and in every
    /// place different from the state after a reset.
    pub fn of(seed: u64, xcr0: u64) -> Self {
        let mut area = Self::new();
        let mut word = seed;
        for byte in &mut area.0[32..] {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            *byte = (word >> 56) as u8;
        }
        // Any rounding and precision, all exceptions masked, the stack full with any top.
        area.put(0, &(0x007f | (word >> 8) as u16 & 0x0c00 | 0x0300).to_le_bytes());
        area.put(2, &((word >> 20) as u16 & 0x3800).to_le_bytes());
        area.put(4, &[0xff]);
        area.put(24, &(0x1f80 | (word >> 40) as u32 & 0xe000).to_le_bytes());
        area.0[LEGACY_END..UPPER_HALVES].fill(0);
        area.put(XSTATE_BV, &xcr0.to_le_bytes());
        area
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Loads the registers.
    pub fn load(&self) {
        // SAFETY: aligned, of the standard form, made by `of`; compiled code uses none of the
        // registers.
        unsafe { instr::xrstor(self.0.as_ptr()) }
    }

    /// Saves the registers.
    pub fn save(&mut self) {
        // SAFETY: aligned, and large enough for the components that `enable` allows.
        unsafe { instr::xsave(self.0.as_mut_ptr()) }
    }

    /// Compares the parts of the components in `xcr0` that software can see.
    ///
    /// # Errors
    /// The first byte that differs.
    pub fn expect(&self, expected: &FpuArea, xcr0: u64) -> Result<(), FpuDifferenceError> {
        let x87 = (0..5).chain((0..8).flat_map(|n| 32 + 16 * n..42 + 16 * n));
        let of = |component, range| if xcr0 & component != 0 { range } else { 0..0 };
        let sse = of(component::SSE, 24..28).chain(of(component::SSE, 160..LEGACY_END));
        let offsets = x87.chain(sse).chain(of(component::AVX, UPPER_HALVES..END));
        for offset in offsets {
            let (expected, found) = (expected.0[offset], self.0[offset]);
            if expected != found {
                return Err(FpuDifferenceError { offset, expected, found });
            }
        }
        Ok(())
    }
}

impl Default for FpuArea {
    fn default() -> Self {
        Self::new()
    }
}

/// Enables those components in `wanted` that the CPU has; returns the new XCR0, or `None` without
/// XSAVE.
pub fn enable(wanted: u64) -> Option<u64> {
    const XSAVE: u32 = 1 << 26;
    if instr::cpuid(1, 0).ecx & XSAVE == 0 {
        return None;
    }
    let xcr0 = wanted & u64::from(instr::cpuid(0xd, 0).eax);
    // SAFETY: a kernel that is compiled without these registers.
    unsafe { instr::enable_xsave(xcr0) };
    Some(xcr0)
}
