//! The extended state (x87, SSE, AVX) of guests.
//!
//! The hypervisor is soft-float: a vCPU's state stays in the registers across exits, and is
//! switched only when another vCPU takes the CPU. XCR0 is part of it. Guests are offered no
//! supervisor state (XSS).
// UNSAFETY: XSAVE and XRSTOR write and read memory; XCR0 faults on invalid values.
#![expect(unsafe_code)]

use super::instr;
use alloc::boxed::Box;
use spin::Once;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};

const X87: u64 = 1 << 0;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
const AVX512: u64 = 0b111 << 5;
/// Components that are switched; guests are offered no others.
const KNOWN: u64 = X87 | SSE | AVX | AVX512;

/// Offset of MXCSR in the area.
const MXCSR: usize = 24;
/// MXCSR's bits on every CPU with XSAVE; loading another one faults. SDM 1 "MXCSR Control and
/// Status Register".
const MXCSR_BITS: u32 = 0xffff;

/// One XSAVE area; AVX-512's takes 2696 bytes.
#[repr(C, align(64))]
struct XsaveArea([u8; 4096]);

/// Components that the CPUs of this machine have and guests are offered.
static OFFERED: Once<u64> = Once::new();

/// Enables XSAVE on this CPU with all offered components.
///
/// # Panics
/// If the CPU lacks XSAVE (start-up checks it first) or needs an area larger than ours.
pub fn init() {
    // SAFETY: x87 and SSE instructions neither trap nor need emulation; the hypervisor uses none.
    unsafe {
        Cr0::update(|cr0| cr0.remove(Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED))
    };
    // SAFETY: start-up has checked that the CPU has XSAVE.
    unsafe {
        Cr4::update(|cr4| {
            cr4.insert(Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE | Cr4Flags::OSXSAVE)
        })
    };
    let offered = *OFFERED.call_once(|| {
        let leaf = instr::cpuid(0xd, 0);
        consistent_part((u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & KNOWN)
    });
    // SAFETY: XSAVE is on, and the value is a consistent part of what the CPU has.
    unsafe { instr::xsetbv(0, offered) };
    assert!(
        instr::cpuid(0xd, 0).ebx as usize <= size_of::<XsaveArea>(),
        "XSAVE area of the offered components fits"
    );
}

/// Returns the components that guests are offered.
pub fn offered_xcr0() -> u64 {
    OFFERED.get().copied().unwrap_or(X87)
}

/// Returns XCR0 of this CPU, which belongs to the guest whose FPU state is loaded.
pub fn live_xcr0() -> u64 {
    // SAFETY: `init` has set CR4.OSXSAVE on every CPU.
    unsafe { instr::xgetbv(0) }
}

/// Sets XCR0 for the guest whose FPU state is loaded; an invalid value is ignored.
pub fn set_live_xcr0(value: u64) {
    if is_valid_xcr0(value, offered_xcr0()) {
        // SAFETY: OSXSAVE is on, and the value has just been checked.
        unsafe { instr::xsetbv(0, value) };
    }
}

/// Returns whether a guest may set XCR0 to `value`; otherwise XSETBV raises #GP(0). SDM 1 "XCR0".
pub fn is_valid_xcr0(value: u64, offered: u64) -> bool {
    value & !offered == 0 && value & X87 != 0 && value == consistent_part(value)
}

/// Removes the components whose base component is missing.
const fn consistent_part(value: u64) -> u64 {
    let value = if value & SSE == 0 { value & !(AVX | AVX512) } else { value };
    let value = if value & AVX == 0 { value & !AVX512 } else { value };
    if value & AVX512 == AVX512 { value } else { value & !AVX512 }
}

/// The extended state of a vCPU that is not loaded.
pub struct GuestFpu {
    area: Box<XsaveArea>,
    xcr0: u64,
}

impl GuestFpu {
    /// Makes the state after reset.
    pub fn new() -> Self {
        const MXCSR_RESET: u32 = 0x1f80;
        let mut area = Box::new(XsaveArea([0; 4096]));
        // XRSTOR initialises the components that the header does not name, but takes MXCSR from
        // memory.
        area.0[MXCSR..MXCSR + 4].copy_from_slice(&MXCSR_RESET.to_le_bytes());
        Self { area, xcr0: X87 }
    }

    /// Moves the state from the CPU's registers to memory.
    pub fn save(&mut self) {
        // XCR0 is read back: not every emulator can intercept XSETBV, so a guest may have enabled
        // more than it is offered.
        // SAFETY: XSAVE is on since `init`.
        let chosen = unsafe { instr::xgetbv(0) };
        self.xcr0 = consistent_part(chosen & offered_xcr0()) | X87;
        // SAFETY: the value that `init` set. The guest may have left state in components that it
        // disabled.
        unsafe { instr::xsetbv(0, offered_xcr0()) };
        // SAFETY: aligned by its type, and large enough, which `init` has checked.
        unsafe { instr::xsave(self.area.0.as_mut_ptr()) };
    }

    /// Moves the state from memory to the CPU's registers.
    pub fn load(&self) {
        // SAFETY: as in `save`.
        unsafe { instr::xsetbv(0, offered_xcr0()) };
        // SAFETY: written only by `save` or `new`.
        unsafe { instr::xrstor(self.area.0.as_ptr()) };
        // SAFETY: a value that this CPU held before, or the reset value.
        unsafe { instr::xsetbv(0, self.xcr0) };
    }

    /// Returns the XSAVE area as of the last [`Self::save`], without the zeros at its end.
    pub fn area(&self) -> &[u8] {
        let used = self.area.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        &self.area.0[..used]
    }

    /// Makes the state of a saved area; `None` if the CPU would refuse to load it, or has not all
    /// of its components. SDM 1 "Operation of XRSTOR", "Standard Form of XRSTOR".
    pub fn of_saved(xcr0: u64, bytes: &[u8], offered: u64) -> Option<Self> {
        const HEADER: usize = 512;
        let mut made = Self::new();
        let area = &mut made.area.0;
        area.fill(0);
        area.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let word = |at: usize| area[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let mxcsr = word(MXCSR) as u32;
        // The rest of the header is zero in the standard form.
        let is_standard = area[HEADER + 8..HEADER + 64].iter().all(|byte| *byte == 0);
        let is_right = is_valid_xcr0(xcr0, offered)
            && word(HEADER) & !offered == 0
            && mxcsr & !MXCSR_BITS == 0
            && is_standard;
        made.xcr0 = xcr0;
        is_right.then_some(made)
    }

    /// Returns XCR0 as of the last [`Self::save`].
    pub fn xcr0(&self) -> u64 {
        self.xcr0
    }
}

impl Default for GuestFpu {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_area_comes_back_and_one_that_the_cpu_refuses_does_not() {
        let all = X87 | SSE | AVX;
        let mut area = vec![0; 832];
        area[MXCSR..][..4].copy_from_slice(&0x1f80_u32.to_le_bytes());
        (area[160], area[512], area[831]) = (0xab, 7, 0xcd);
        let made = GuestFpu::of_saved(all, &area, all).unwrap();
        assert_eq!((made.area(), made.xcr0()), (&area[..], all));
        assert!(GuestFpu::of_saved(X87, &[], all).is_some());
        let with = |at: usize, byte: u8| {
            let mut area = area.clone();
            area[at] = byte;
            GuestFpu::of_saved(all, &area, all).is_some()
        };
        // MXCSR, a component, the compacted form, a reserved byte.
        for (at, byte) in [(26, 1), (512, 8), (519, 1), (527, 0x80), (575, 1)] {
            assert!(!with(at, byte), "{at}");
        }
        assert!(GuestFpu::of_saved(X87 | AVX, &area, all).is_none());
        assert!(GuestFpu::of_saved(X87 | SSE, &area, X87 | SSE).is_none(), "no AVX here");
        assert!(GuestFpu::of_saved(all, &[0; 4097], all).is_none());
    }

    #[test]
    fn xcr0_takes_what_the_manual_allows() {
        let all = X87 | SSE | AVX | AVX512;
        for value in [X87, X87 | SSE, X87 | SSE | AVX, all] {
            assert!(is_valid_xcr0(value, all), "{value:#x}");
        }
        for value in [
            0,
            SSE,
            X87 | AVX,
            X87 | SSE | AVX512,
            X87 | SSE | AVX | 1 << 5,
            all | 1 << 9,
            u64::MAX,
        ] {
            assert!(!is_valid_xcr0(value, all), "{value:#x}");
        }
        assert!(!is_valid_xcr0(X87 | SSE | AVX, X87 | SSE));
    }
}
