//! The direct map: all of physical memory at one virtual base.
//!
//! Built by the boot stub; writable, never executable. All memory is accessed through it, and
//! device registers below 4 GiB, which the firmware's MTRRs make uncached; those above are accessed
//! through [`device_map`](crate::pci::device_map).

use crate::addr::{Hpa, Hva};

/// Virtual address of physical address 0; the stub has the same constant.
pub const BASE: u64 = 0xffff_8000_0000_0000;
/// Most bytes that the map covers.
pub const LIMIT: u64 = 512 << 30;

/// End of the physical addresses whose device registers are accessed through the map.
pub const DEVICES_END: u64 = 4 << 30;

/// Returns the hypervisor's address of a physical address.
///
/// # Panics
/// If it is not below [`LIMIT`] (our bug: addresses come from the memory map or from checked
/// registers).
pub const fn hva(hpa: Hpa) -> Hva {
    assert!(hpa.as_u64() < LIMIT, "physical address within the direct map");
    Hva::new(BASE + hpa.as_u64())
}

/// Returns the physical address of an address in the direct map.
///
/// # Panics
/// If it is not in the direct map (our bug; use [`image_hpa`] for statics).
pub const fn hpa(hva: Hva) -> Hpa {
    assert!(hva.as_u64() >= BASE && hva.as_u64() - BASE < LIMIT, "address within the direct map");
    Hpa::new(hva.as_u64() - BASE)
}

/// Returns the physical address of an object in the kernel's image, such as a static.
///
/// # Panics
/// If it is not in the image (our bug).
pub fn image_hpa(hva: Hva) -> Hpa {
    const IMAGE: u64 = 0xffff_ffff_8000_0000;
    Hpa::new(hva.as_u64().checked_sub(IMAGE).expect("address within the kernel's image"))
}

/// Returns a pointer to a physical address.
pub const fn pointer<T>(hpa: Hpa) -> *mut T {
    hva(hpa).as_u64() as *mut T
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        assert_eq!(hva(Hpa::new(0x1234)), Hva::new(0xffff_8000_0000_1234));
        assert_eq!(hpa(hva(Hpa::new(LIMIT - 1))), Hpa::new(LIMIT - 1));
    }

    #[test]
    #[should_panic(expected = "within the direct map")]
    fn an_address_beyond_the_map_is_our_bug() {
        hva(Hpa::new(LIMIT));
    }
}
