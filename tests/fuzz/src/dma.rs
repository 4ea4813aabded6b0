//! Memory that a driver shares with the target in the device's place.
// UNSAFETY: a driver reaches its rings by address, through a window.
#![expect(unsafe_code)]

use kernel::addr::Hpa;
use kernel::block::dma::DmaRegion;
use kernel::pci::window::DeviceWindow;
use std::ptr::NonNull;

/// A page of a region.
#[derive(Clone, Copy)]
#[repr(align(4096))]
struct Page(#[expect(dead_code, reason = "it is reached by address")] [u8; 4096]);

/// Pages that outlive all windows onto them: one allocation for all runs of a target.
pub struct SharedPages(NonNull<u8>, usize);

// SAFETY: it only holds an address; a target has one thread.
unsafe impl Sync for SharedPages {}
// SAFETY: as above.
unsafe impl Send for SharedPages {}

impl SharedPages {
    /// Allocates `pages` pages, never freed.
    pub fn new(pages: usize) -> Self {
        let memory = Box::leak(vec![Page([0; 4096]); pages].into_boxed_slice());
        Self(NonNull::from(memory).cast(), pages * 4096)
    }

    /// Returns a view of all pages. Devices see them at their virtual address.
    pub fn region(&self) -> DmaRegion {
        // SAFETY: the pages are never freed, and no reference points into them.
        let window = unsafe { DeviceWindow::new(self.0, self.1) };
        DmaRegion::new(Hpa::new(self.0.as_ptr().expose_provenance() as u64), window)
    }
}
