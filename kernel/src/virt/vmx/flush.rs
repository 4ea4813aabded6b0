//! Which cached translations are flushed, and when.
//!
//! | what changed | instruction |
//! |---|---|
//! | leaves of the second-level table (new generation of the object) | INVEPT of the table |
//! | the CPU: the guest's INVLPGs on the last CPU had no effect here | INVVPID too |
//! | the table or tag, which another vCPU may have used before | both |
//!
//! SDM 3C "Caching Translation Information": with EPT there are combined mappings (tag, table) and
//! guest-physical mappings (table). INVEPT drops both kinds for its table, INVVPID the combined
//! ones of its tag.
// UNSAFETY: flushing more never endangers memory; flushing too little does, and the callers decide
// when to flush.
#![expect(unsafe_code)]

use crate::addr::Hpa;
use crate::arch::instr::vmx;
use crate::virt::contract::AccessedDirty;
use crate::virt::tag::TlbTag;

/// The EPT pointer: a table of 4 levels, walked through write-back memory, with accessed and dirty
/// bits if the CPU has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Eptp(u64);

impl Eptp {
    const WRITE_BACK: u64 = 6;
    const WALK_4: u64 = 3 << 3;
    const ACCESSED_DIRTY: u64 = 1 << 6;

    /// Makes the pointer to the table with this root.
    ///
    /// # Panics
    /// If `root` is not the start of a frame.
    pub(super) const fn new(root: Hpa, accessed_dirty: AccessedDirty) -> Self {
        assert!(root.page_offset() == 0, "a table's root is a frame");
        let kept = match accessed_dirty {
            AccessedDirty::Hardware => Self::ACCESSED_DIRTY,
            AccessedDirty::Absent => 0,
        };
        Self(root.as_u64() | Self::WRITE_BACK | Self::WALK_4 | kept)
    }

    /// Returns the field's value.
    pub(super) const fn as_u64(self) -> u64 {
        self.0
    }
}

/// Flushes all translations cached through the table.
pub(super) fn table(eptp: Eptp) {
    // SAFETY: only a loaded vCPU flushes, so this is VMX operation; capabilities were checked, and
    // the pointer was made by `Eptp`.
    unsafe { vmx::invept(eptp.as_u64()) }.expect("INVEPT of a table of ours");
}

/// Flushes all translations cached under the tag.
pub(super) fn tag(tag: TlbTag) {
    // SAFETY: as above; no tag is 0.
    unsafe { vmx::invvpid(tag.number()) }.expect("INVVPID of a guest's tag");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pointer_has_the_manuals_bits() {
        let root = Hpa::new(0x1234_5000);
        assert_eq!(Eptp::new(root, AccessedDirty::Hardware).as_u64(), 0x1234_505e);
        assert_eq!(Eptp::new(root, AccessedDirty::Absent).as_u64(), 0x1234_501e);
    }
}
