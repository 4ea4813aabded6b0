//! The frame of zeros, shared by the pages that a guest has read and not written.
//!
//! It lies in the read-only part of the kernel's image and belongs to no pool. Leaves permit only
//! reads of it ([`TableFormat::showing_zeros`](super::leaf::TableFormat::showing_zeros)), and
//! copies to a guest's memory go only to resident pages.

use crate::addr::{Hfn, Hva};
use crate::arch::direct_map::image_hpa;

#[repr(C, align(4096))]
struct ZeroPage([u8; 4096]);

static ZEROS: ZeroPage = ZeroPage([0; 4096]);

/// Returns the shared frame.
pub fn frame() -> Hfn {
    image_hpa(Hva::new(ZEROS.0.as_ptr() as u64)).number()
}
