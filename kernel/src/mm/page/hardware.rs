//! A CPU's accesses through a leaf, for tests: a walk loads a translation, which stays until it is
//! flushed.

use super::{Hfn, Page};
use crate::virt::PageAccess;

/// A TLB's copy of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The frame.
    pub hfn: Hfn,
    /// A write through it changes nothing in the leaf and cannot fault.
    pub writes: bool,
}

impl Page<'_> {
    /// Walks to the page for `access`. Sets A and D if the CPU keeps them; otherwise checks the
    /// permissions alone. `None` is a fault.
    pub fn walk(&self, access: PageAccess) -> Option<Translation> {
        let seen = self.slot.load();
        if !seen.permits(access) {
            return None;
        }
        if self.slot.is_kept_by_cpu() {
            return Some(Translation {
                hfn: self.touch(access).ok()?,
                writes: access == PageAccess::Write,
            });
        }
        Some(Translation {
            hfn: seen.frame().or_else(|| seen.shown_zeros())?,
            writes: seen.permits(PageAccess::Write),
        })
    }
}
