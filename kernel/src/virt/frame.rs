//! Frames and tags that the back ends are handed, because `virt` allocates nothing itself.
//!
//! A back end needs a few page-aligned pages that only the CPU's virtualisation reads and writes (VMCS,
//! VMCB, save areas), and a tag for each vCPU's translations. Who owns memory (`mm`) makes the former,
//! [`Tags`](super::tag::Tags) the latter.
//!
//! Invariant: a [`ControlFrame`] is used for one thing until its owner is dropped, and is never the guest's.

// UNSAFETY: `ControlFrame::new` is where ownership of raw memory enters; the caller vouches for it.
#![allow(unsafe_code)]

use crate::addr::{Hpa, Hva};

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
    /// The frame at `hpa` is page-aligned, zeroed, mapped writable at `hva` for good, and nothing else
    /// uses it before this value is given back by [`Self::into_parts`].
    pub const unsafe fn new(hpa: Hpa, hva: Hva) -> Self {
        assert!(hpa.page_offset() == 0 && hva.page_offset() == 0, "a control frame starts on a page");
        Self { hpa, hva }
    }

    /// Returns the physical address, as the hardware wants it.
    pub const fn hpa(&self) -> Hpa {
        self.hpa
    }

    /// Returns where the hypervisor sees the frame.
    pub const fn hva(&self) -> Hva {
        self.hva
    }

    /// Gives the frame back to who frees it.
    pub const fn into_parts(self) -> (Hpa, Hva) {
        (self.hpa, self.hva)
    }
}
