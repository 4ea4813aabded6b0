//! The permission maps: which ports and MSRs exit. Constants of the image, the same for every
//! guest. Pure.
//!
//! See: APM 2 "IOIO Intercepts" (one bit per port, and three more for a dword at 0xffff) and "MSR
//! Intercepts" (two bits per MSR, read then write, 0x800 bytes per range of 8192).

/// Three pages, all ones: every port access exits.
#[repr(C, align(4096))]
pub(super) struct IoPermissionMap([u8; 3 * 4096]);

/// Two pages: every MSR exits except those in [`GUEST_OWNED`]. The TSC exits because QEMU 7.2 reads
/// it as 0 (`helper_rdmsr`).
#[repr(C, align(4096))]
pub(super) struct MsrPermissionMap([u8; 2 * 4096]);

/// The I/O permission map of every guest.
pub(super) static IO_MAP: IoPermissionMap = IoPermissionMap([0xff; 3 * 4096]);
/// The MSR permission map of every guest.
pub(super) static MSR_MAP: MsrPermissionMap = MsrPermissionMap::new();

/// MSRs that VMLOAD and VMSAVE switch, so that they belong to the guest.
///
/// PAT is not among them although the VMCB holds it: QEMU's TCG has one PAT for host and guest.
const GUEST_OWNED: [u32; 10] = [
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0100, // FS_BASE
    0xc000_0101, // GS_BASE
    0xc000_0102, // KERNEL_GS_BASE
];

const READ: u8 = 1;
const WRITE: u8 = 2;

impl MsrPermissionMap {
    const fn new() -> Self {
        let mut map = Self([0xff; 2 * 4096]);
        let mut i = 0;
        while i < GUEST_OWNED.len() {
            map.permit(GUEST_OWNED[i], READ | WRITE);
            i += 1;
        }
        map
    }

    const fn permit(&mut self, msr: u32, access: u8) {
        let (byte, shift) = Self::position(msr);
        self.0[byte] &= !(access << shift);
    }

    /// Returns the byte and the shift of an MSR's two bits.
    const fn position(msr: u32) -> (usize, u32) {
        let base = match msr >> 13 {
            0 => 0,
            0x6_0000 => 0x800,
            0x6_0008 => 0x1000,
            _ => panic!("an MSR of the three ranges that the map covers"),
        };
        let bit = (msr & 0x1fff) * 2;
        (base + bit as usize / 8, bit % 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(msr: u32) -> u8 {
        let (byte, shift) = MsrPermissionMap::position(msr);
        (MSR_MAP.0[byte] >> shift) & 3
    }

    #[test]
    fn the_three_ranges_start_where_the_manual_says() {
        assert_eq!(MsrPermissionMap::position(0), (0, 0));
        assert_eq!(MsrPermissionMap::position(0x1fff), (0x7ff, 6));
        assert_eq!(MsrPermissionMap::position(0xc000_0000), (0x800, 0));
        assert_eq!(MsrPermissionMap::position(0xc001_1fff), (0x17ff, 6));
    }

    #[test]
    fn only_switched_msrs_are_the_guests_own() {
        for msr in [0x174, 0x176, 0xc000_0081, 0xc000_0100, 0xc000_0102] {
            assert_eq!(bits(msr), 0, "{msr:#x}");
        }
        for msr in [
            0,
            0x10,
            0x1b,
            0x277,
            0x173,
            0x177,
            0xc000_0080,
            0xc000_0085,
            0xc000_0103,
            0xc001_0114,
            0xc001_0117,
        ] {
            assert_eq!(bits(msr), READ | WRITE, "{msr:#x}");
        }
    }

    #[test]
    fn every_port_exits() {
        assert!(IO_MAP.0.iter().all(|byte| *byte == 0xff));
    }
}
