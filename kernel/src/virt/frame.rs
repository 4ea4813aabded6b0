//! Frames that the back ends are given, because `virt` allocates nothing itself.
//!
//! A back end needs a few page-aligned pages that only the CPU's virtualisation reads and writes
//! (VMCS, VMCB, save areas), and a tag for each vCPU's translations. The owner of memory (`mm`)
//! makes the pages, [`TlbTags`](super::tag::TlbTags) makes the tags.
//!
//! Invariant: a [`ControlFrame`] has one purpose until its owner is dropped, and never belongs to
//! the guest.

// UNSAFETY: `ControlFrame::new` is where ownership of raw memory enters; the caller vouches for it.
// A frame that is used again is zeroed.
#![expect(unsafe_code)]

use crate::addr::{Hpa, Hva, PAGE_SIZE};

/// One zeroed 4 KiB frame that belongs to a back end.
#[derive(PartialEq, Eq, Debug)]
pub struct ControlFrame {
    hpa: Hpa,
    hva: Hva,
}

impl ControlFrame {
    /// Takes over a frame.
    ///
    /// # Safety
    /// The frame at `hpa` is page-aligned, zeroed, mapped writable at `hva` for good, and nothing
    /// else uses it from now on.
    pub const unsafe fn new(hpa: Hpa, hva: Hva) -> Self {
        assert!(
            hpa.page_offset() == 0 && hva.page_offset() == 0,
            "a control frame starts on a page"
        );
        Self { hpa, hva }
    }

    /// Zeroes the frame for its next purpose. The hardware has forgotten it.
    #[must_use]
    pub(super) fn renewed(self) -> Self {
        let bytes = self.hva.as_u64() as *mut u8;
        // SAFETY: the frame is mapped writable and belongs to `self` alone; its last owner has
        // given it up, and no CPU has it in use.
        unsafe { bytes.write_bytes(0, PAGE_SIZE as usize) };
        self
    }

    /// Returns the physical address, for the hardware.
    pub const fn hpa(&self) -> Hpa {
        self.hpa
    }

    /// Returns the hypervisor's address of the frame.
    pub const fn hva(&self) -> Hva {
        self.hva
    }
}
