//! Physical memory for host tests.
// UNSAFETY: a device's view of memory that the driver owns; tests run the two in turn.
#![expect(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Mutex;

use super::{DeviceWindow, DmaMemory, DmaRegion};
use crate::addr::Hpa;

/// Memory at physical address 0, in a vector.
pub struct FakeDmaMemory(Mutex<Vec<u8>>);

impl FakeDmaMemory {
    /// Makes `len` bytes of zeros.
    pub fn new(len: usize) -> Self {
        Self(Mutex::new(vec![0; len]))
    }

    /// Copies bytes out.
    pub fn read(&self, at: Hpa, len: usize) -> Vec<u8> {
        self.0.lock().unwrap()[at.as_u64() as usize..][..len].to_vec()
    }

    /// Copies bytes in.
    pub fn write(&self, at: Hpa, bytes: &[u8]) {
        self.0.lock().unwrap()[at.as_u64() as usize..][..bytes.len()].copy_from_slice(bytes);
    }
}

impl DmaMemory for &FakeDmaMemory {
    fn copy(&self, from: Hpa, to: Hpa, len: u64) {
        let bytes = self.read(from, len as usize);
        self.write(to, &bytes);
    }
    fn fill_zero(&self, at: Hpa, len: u64) {
        self.write(at, &vec![0; len as usize]);
    }
}

#[repr(align(4096))]
#[derive(Clone, Copy)]
struct DmaTestPage(#[expect(dead_code, reason = "its memory is reached by address")] [u8; 4096]);

/// Makes a region of `pages` pages, never freed, whose "physical" address is its virtual address.
pub fn region(pages: usize) -> DmaRegion {
    let memory = Box::leak(vec![DmaTestPage([0; 4096]); pages].into_boxed_slice());
    let base = NonNull::from(memory).cast::<u8>();
    // SAFETY: leaked, so valid for good; no other code has its address.
    let window = unsafe { DeviceWindow::new(base, pages * 4096) };
    DmaRegion::new(Hpa::new(base.as_ptr().expose_provenance() as u64), window)
}

/// Returns a device's view of `len` bytes at the "physical" address `at`, which must lie in a
/// [`region`].
pub fn device_view(at: u64, len: usize) -> DeviceWindow {
    let base = NonNull::new(core::ptr::with_exposed_provenance_mut(at as usize))
        .expect("a device reads no null pointer");
    // SAFETY: regions are leaked and exposed; tests run device and driver in turn.
    unsafe { DeviceWindow::new(base, len) }
}

/// Returns a second handle of a region, for the device's side.
pub fn device_side(region: &DmaRegion) -> DmaRegion {
    DmaRegion::new(region.hpa(0), device_view(region.hpa(0).as_u64(), region.len()))
}
