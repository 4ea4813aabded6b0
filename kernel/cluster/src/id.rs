//! Names in a cluster.

/// One start of one hypervisor: a random number that no other start has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub u128);

impl core::fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A member: its slot in the area, and the incarnation that won it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct MemberId {
    /// Number of the slot, from 0.
    pub slot: u16,
    /// The only incarnation that ever uses the slot.
    pub incarnation: Incarnation,
}
