//! What a CPU does with a leaf, for tests: it walks, and keeps what it found in a translation until that is flushed.

use super::{Hfn, Page};
use crate::virt::Access;

/// What a TLB keeps of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The frame.
    pub hfn: Hfn,
    /// A write through it changes nothing in the leaf and asks for nothing.
    pub writes: bool,
}

impl Page<'_> {
    /// Walks to the page for `access`: sets A and D where the CPU keeps them, else looks at the permissions alone; `None` is a fault.
    pub fn walk(&self, access: Access) -> Option<Translation> {
        let seen = self.slot.load();
        if !seen.permits(access) {
            return None;
        }
        if self.slot.is_kept_by_cpu() {
            return Some(Translation { hfn: self.touch(access).ok()?, writes: access == Access::Write });
        }
        Some(Translation { hfn: seen.frame().or_else(|| seen.shown_zeros())?, writes: seen.permits(Access::Write) })
    }
}
