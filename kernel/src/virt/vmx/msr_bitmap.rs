//! The MSRs that a guest accesses without an exit.
//!
//! ```text
//!  0      1024          2048     3072           4096      one bit per MSR; 0: no exit
//!  | read | read        | write  | write        |
//!  | low  | c0000000..  | low    | c0000000..   |         SDM 3C "MSR-Bitmap Address"
//! ```
//!
//! The bitmap is the same for every vCPU, so it is one constant page of the image. MSRs that the
//! VMCS switches (FS and GS base, SYSENTER, PAT, EFER) or that are switched with the vCPU (`msrs`)
//! are passed through; all others exit.

use crate::virt::vmx::msrs::number as msr;

/// The bitmap's page.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(super) struct MsrBitmap([u8; 4096]);

const WRITES: usize = 2048;

/// MSRs that every guest may read and write.
const PASSED: [u32; 12] = [
    msr::SYSENTER_CS,
    msr::SYSENTER_ESP,
    msr::SYSENTER_EIP,
    msr::PAT,
    msr::EFER,
    msr::STAR,
    msr::LSTAR,
    msr::CSTAR,
    msr::SFMASK,
    msr::FS_BASE,
    msr::GS_BASE,
    msr::KERNEL_GS_BASE,
];

impl MsrBitmap {
    const fn new() -> Self {
        let (mut page, mut i) = (Self([0xff; 4096]), 0);
        while i < PASSED.len() {
            let (byte, bit) = Self::position(PASSED[i]);
            page.0[byte] &= !bit;
            page.0[WRITES + byte] &= !bit;
            i += 1;
        }
        page
    }

    /// Returns the byte and bit of an MSR in the half for reads.
    const fn position(number: u32) -> (usize, u8) {
        let (half, index) = match number {
            0..=0x1fff => (0, number as usize),
            0xc000_0000..=0xc000_1fff => (1024, (number - 0xc000_0000) as usize),
            _ => panic!("the bitmap has no bit for this register"),
        };
        (half + index / 8, 1 << (index % 8))
    }
}

/// The bitmap of every guest.
pub(super) static PAGE: MsrBitmap = MsrBitmap::new();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extremes_of_each_quarter_exit() {
        for byte in [0, 1023, 1024, 2047, 2048, 3071, 3072, 4095] {
            assert_eq!(PAGE.0[byte], 0xff, "byte {byte}");
        }
        assert_eq!(MsrBitmap::position(0x1fff), (1023, 0x80));
        assert_eq!(MsrBitmap::position(0xc000_1fff), (2047, 0x80));
    }

    #[test]
    fn exactly_the_listed_registers_pass_in_both_directions() {
        assert_eq!(PAGE.0.iter().map(|b| b.count_zeros()).sum::<u32>(), 2 * 12);
        // KERNEL_GS_BASE is c0000102: byte 0x20 of the second quarter, bit 2.
        assert_eq!((PAGE.0[1024 + 0x20] & 4, PAGE.0[3072 + 0x20] & 4), (0, 0));
        // SYSENTER_CS is 174: byte 0x2e, bit 4.
        assert_eq!((PAGE.0[0x2e] & 0x10, PAGE.0[2048 + 0x2e] & 0x10), (0, 0));
    }
}
