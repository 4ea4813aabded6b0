//! The word of a frame: its page, or the next frame in the free list.
//!
//! ```text
//!  63..62  61 .. 53  52       51..44  43 ........... 12  11 ...... 0
//!  state      0      CLAIMED  pins    page index         object          mapped
//!  state      0      0        0       next free frame    0               free (next = all ones: last)
//!  state      0      0        0       0                  0               held
//! ```
//!
//! `CLAIMED` is one thread's right to move the page out of memory or to clean it; it excludes pins
//! and a second claim.

use super::FrameOwner;
use crate::addr::PageIndex;
use crate::mm::object::ObjectId;

/// The owner of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FrameState {
    /// The free list.
    Free,
    /// A `Frame` token, which may wait for a flush.
    Held,
    /// A leaf: present, or going out.
    Mapped(FrameOwner),
}

/// The word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FrameEntry(pub(super) u64);

const OBJECT_MASK: u64 = (1 << 12) - 1;
const INDEX_SHIFT: u32 = 12;
const PIN: u64 = 1 << 44;
const PIN_MAX: u64 = 0xff;
const CLAIMED: u64 = 1 << 52;
const STATE_SHIFT: u32 = 62;
const FREE: u64 = 0;
const HELD: u64 = 1;
const MAPPED: u64 = 2;
/// The end of the free list.
pub(super) const LAST: u32 = u32::MAX;

impl FrameEntry {
    pub(super) const HELD: Self = Self(HELD << STATE_SHIFT);

    /// Returns the word of a free frame. `next` is the position behind it, which may be [`LAST`].
    #[inline]
    pub(super) const fn free(next: u32) -> Self {
        Self(FREE << STATE_SHIFT | (next as u64) << INDEX_SHIFT)
    }

    /// Returns the position behind this one in the free list, which may be [`LAST`]; `None` if the
    /// frame is not free.
    #[inline]
    pub(super) const fn next_free(self) -> Option<u32> {
        if self.0 >> STATE_SHIFT == FREE { Some((self.0 >> INDEX_SHIFT) as u32) } else { None }
    }

    #[inline]
    pub(super) const fn mapped(owner: FrameOwner) -> Self {
        Self(
            MAPPED << STATE_SHIFT
                | (owner.index.0 as u64) << INDEX_SHIFT
                | owner.object.as_u16() as u64,
        )
    }

    #[inline]
    pub(super) const fn state(self) -> FrameState {
        let field = (self.0 >> INDEX_SHIFT) as u32;
        match self.0 >> STATE_SHIFT {
            FREE => FrameState::Free,
            MAPPED => FrameState::Mapped(FrameOwner {
                object: ObjectId((self.0 & OBJECT_MASK) as u16),
                index: PageIndex(field),
            }),
            _ => FrameState::Held,
        }
    }

    #[inline]
    pub(super) const fn pins(self) -> u32 {
        ((self.0 / PIN) & PIN_MAX) as u32
    }

    #[inline]
    pub(super) const fn is_claimed(self) -> bool {
        self.0 & CLAIMED != 0
    }

    /// Returns whether the frame is `owner`'s and has no pins, claimed or not.
    #[inline]
    pub(super) const fn is_unpinned(self, owner: FrameOwner) -> bool {
        self.0 & !CLAIMED == Self::mapped(owner).0
    }

    /// Adds a pin; `None` if the frame is claimed or has the largest number of pins.
    pub(super) const fn pinned(self) -> Option<Self> {
        if self.is_claimed() || self.pins() as u64 == PIN_MAX {
            return None;
        }
        Some(Self(self.0 + PIN))
    }

    /// Removes a pin.
    pub(super) const fn unpinned(self) -> Self {
        assert!(self.pins() > 0, "a pin is given back once");
        Self(self.0 - PIN)
    }

    /// Takes the claim; only for a word without pins and claim.
    #[inline]
    pub(super) const fn claimed(self) -> Self {
        Self(self.0 | CLAIMED)
    }

    /// Gives the claim back.
    pub(super) const fn unclaimed(self) -> Self {
        assert!(self.is_claimed(), "a claim is given back once");
        Self(self.0 & !CLAIMED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Zero, all ones, and each bit alone.
    fn edges() -> impl Iterator<Item = u32> {
        (0..32).map(|bit| 1 << bit).chain([0, u32::MAX])
    }

    /// Every object, and every index at its edges, with no pin and with all of them.
    #[test]
    fn owners_survive_the_round_trip() {
        // Miri would take many minutes for all objects.
        for object in (0..=0xfff).step_by(if cfg!(miri) { 97 } else { 1 }) {
            for index in edges() {
                let owner = FrameOwner { object: ObjectId(object), index: PageIndex(index) };
                let entry = FrameEntry::mapped(owner);
                let full = FrameEntry(entry.0 | (PIN_MAX * PIN));
                for (entry, pins) in [(entry, 0), (full, 0xff)] {
                    assert_eq!((entry.state(), entry.pins()), (FrameState::Mapped(owner), pins));
                    assert_eq!(entry.is_unpinned(owner), pins == 0);
                    assert_eq!((entry.is_claimed(), entry.next_free()), (false, None));
                }
            }
        }
    }

    /// The fields of a word with all of them at their largest: none reaches into another.
    #[test]
    fn fields_lie_side_by_side() {
        let owner = FrameOwner { object: ObjectId(0xfff), index: PageIndex(u32::MAX) };
        assert_eq!(FrameEntry::mapped(owner).0, 2 << 62 | 0xfff_ffff_ffff);
        assert_eq!((PIN_MAX * PIN, CLAIMED), (0xff << 44, 1 << 52));
        assert_eq!((FrameEntry::HELD.0, FrameEntry::HELD.state()), (1 << 62, FrameState::Held));
        assert_eq!(FrameEntry::free(LAST).0, 0xffff_ffff << 12);
    }

    #[test]
    fn pins_stop_at_their_field_and_leave_the_owner_alone() {
        let owner = FrameOwner { object: ObjectId(0xfff), index: PageIndex(u32::MAX) };
        let mut entry = FrameEntry::mapped(owner);
        for pins in 0..0xff {
            assert_eq!((entry.pins(), entry.state()), (pins, FrameState::Mapped(owner)));
            let more = entry.pinned().unwrap();
            assert_eq!(more.unpinned(), entry);
            entry = more;
        }
        assert_eq!(
            (entry.pinned(), entry.pins(), entry.state()),
            (None, 0xff, FrameState::Mapped(owner))
        );
    }

    #[test]
    fn a_claimed_frame_takes_no_pin() {
        let owner = FrameOwner { object: ObjectId(1), index: PageIndex(2) };
        let claimed = FrameEntry::mapped(owner).claimed();
        assert_eq!(claimed.pinned(), None);
        assert_eq!((claimed.state(), claimed.pins()), (FrameState::Mapped(owner), 0));
        assert_eq!(claimed.unclaimed(), FrameEntry::mapped(owner));
    }

    #[test]
    fn a_free_entry_names_its_successor() {
        for next in edges() {
            let free = FrameEntry::free(next);
            assert_eq!((free.state(), free.next_free()), (FrameState::Free, Some(next)));
            assert_eq!((free.pins(), free.is_claimed()), (0, false));
        }
        assert_eq!(FrameEntry::HELD.next_free(), None);
    }
}
