//! Where the parts of the cluster area lie.
//!
//! ```text
//!   0      superblock A, superblock B                       2 x 4096
//!   8192   join    slot 0: X, Y | slot 1: X, Y | ...        N x 1024   written in the splitter only
//!          beats   slot 0 | slot 1 | ...                    N x 512    one writer a slot
//!          log     slot 0: A, B | ...                       N x 1024   one writer a slot
//!          states  slot 0: A, B | ...                       N x 2 x state_bytes
//!          mail    slot 0 | slot 1 | ...                    N x 4096  one writer a slot
//! ```
//!
//! Parts of one kind lie together, so that one request reads them of all slots.

use crate::mail::MAIL_BLOCK;
use crate::sector::SECTOR;

/// Bytes of a superblock.
pub const SUPERBLOCK: usize = 4096;
/// Fewest slots of an area.
pub const MIN_SLOTS: u16 = 2;
/// Most slots of an area.
pub const MAX_SLOTS: u16 = 1024;
/// Fewest bytes of a copy of the state.
pub const MIN_STATE: u32 = 1024;
/// Most bytes of a copy of the state.
pub const MAX_STATE: u32 = 16384;

/// Bytes of an area: offset from its start, and length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Offset of the first byte.
    pub at: u64,
    /// Bytes.
    pub len: usize,
}

/// One of two copies that are written in turn, or of two sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Half {
    /// The first one.
    A,
    /// The second one.
    B,
}

impl Half {
    /// Returns the half for the `n`-th write.
    pub const fn of(n: u64) -> Self {
        if n.is_multiple_of(2) { Self::A } else { Self::B }
    }

    const fn index(self) -> u64 {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

/// The places in an area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AreaLayout {
    slots: u16,
    state_bytes: u32,
    has_mail: bool,
}

impl AreaLayout {
    /// Returns the layout; `None` if the numbers are not possible.
    pub const fn new(slots: u16, state_bytes: u32) -> Option<Self> {
        let is_possible = slots >= MIN_SLOTS
            && slots <= MAX_SLOTS
            && state_bytes >= MIN_STATE
            && state_bytes <= MAX_STATE
            && (state_bytes as usize).is_multiple_of(SECTOR);
        if is_possible { Some(Self { slots, state_bytes, has_mail: false }) } else { None }
    }

    /// The same with a block of mail for each slot, behind everything else.
    #[must_use]
    pub const fn with_mail(self) -> Self {
        Self { has_mail: true, ..self }
    }

    /// Returns the number of slots.
    pub const fn slots(&self) -> u16 {
        self.slots
    }

    const fn all(&self, start: u64, each: u64) -> Extent {
        Extent { at: start, len: (self.slots as u64 * each) as usize }
    }

    const fn one(all: Extent, slot: u16, each: usize, part: usize, half: Half) -> Extent {
        Extent { at: all.at + slot as u64 * each as u64 + half.index() * part as u64, len: part }
    }

    const fn after(extent: Extent) -> u64 {
        extent.at + extent.len as u64
    }

    /// Returns the claims to all slots.
    pub const fn joins(&self) -> Extent {
        self.all(2 * SUPERBLOCK as u64, 2 * SECTOR as u64)
    }

    /// Returns sector X (half A) or Y (half B) of a slot.
    pub const fn join(&self, slot: u16, half: Half) -> Extent {
        Self::one(self.joins(), slot, 2 * SECTOR, SECTOR, half)
    }

    /// Returns all beats.
    pub const fn beats(&self) -> Extent {
        self.all(Self::after(self.joins()), SECTOR as u64)
    }

    /// Returns the beat of a slot.
    pub const fn beat(&self, slot: u16) -> Extent {
        Self::one(self.beats(), slot, SECTOR, SECTOR, Half::A)
    }

    /// Returns all blocks of the log.
    pub const fn logs(&self) -> Extent {
        self.all(Self::after(self.beats()), 2 * SECTOR as u64)
    }

    /// Returns a copy of a slot's block of the log.
    pub const fn log(&self, slot: u16, half: Half) -> Extent {
        Self::one(self.logs(), slot, 2 * SECTOR, SECTOR, half)
    }

    /// Returns all copies of the state.
    pub const fn states(&self) -> Extent {
        self.all(Self::after(self.logs()), 2 * self.state_bytes as u64)
    }

    /// Returns both copies of a slot.
    pub const fn both_states(&self, slot: u16) -> Extent {
        let each = 2 * self.state_bytes as usize;
        Self::one(self.states(), slot, each, each, Half::A)
    }

    /// Returns a copy of a slot.
    pub const fn state(&self, slot: u16, half: Half) -> Extent {
        let part = self.state_bytes as usize;
        Self::one(self.states(), slot, 2 * part, part, half)
    }

    /// Returns all blocks of mail; empty if the area has none.
    pub const fn mails(&self) -> Extent {
        let each = if self.has_mail { MAIL_BLOCK as u64 } else { 0 };
        self.all(Self::after(self.states()), each)
    }

    /// Returns the block of mail of a slot, if the area has mail.
    pub const fn mail(&self, slot: u16) -> Option<Extent> {
        match self.has_mail {
            true => Some(Self::one(self.mails(), slot, MAIL_BLOCK, MAIL_BLOCK, Half::A)),
            false => None,
        }
    }

    /// Returns the bytes of the longest write: a copy of the state, or a block of mail.
    pub const fn longest_write(&self) -> usize {
        let mail = if self.has_mail { MAIL_BLOCK } else { 0 };
        if mail > self.state_bytes as usize { mail } else { self.state_bytes as usize }
    }

    /// Returns the bytes of the area.
    pub const fn len(&self) -> u64 {
        Self::after(self.mails())
    }

    /// Returns false: an area has a superblock.
    pub const fn is_empty(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_without_overlap() {
        let layout = AreaLayout::new(8, 2048).unwrap().with_mail();
        let mut parts = Vec::new();
        for slot in 0..8 {
            parts.extend(layout.mail(slot));
            parts.push(layout.beat(slot));
            for half in [Half::A, Half::B] {
                parts.push(layout.join(slot, half));
                parts.push(layout.log(slot, half));
                parts.push(layout.state(slot, half));
            }
        }
        parts.sort_by_key(|part| part.at);
        assert_eq!(parts[0].at, 8192);
        for pair in parts.windows(2) {
            assert_eq!(pair[0].at + pair[0].len as u64, pair[1].at);
        }
        let last = parts.last().unwrap();
        assert_eq!(last.at + last.len as u64, layout.len());
        assert_eq!(layout.both_states(7).at, layout.state(7, Half::A).at);
    }

    #[test]
    fn an_area_of_1024_slots_has_34_mib() {
        let layout = AreaLayout::new(1024, 16384).unwrap();
        assert_eq!(
            (layout.len(), layout.mail(0)),
            (8192 + 1024 * (1024 + 512 + 1024 + 32768), None)
        );
        assert_eq!(layout.with_mail().len(), layout.len() + 1024 * 4096);
        for (slots, bytes) in [(1, 16384), (1025, 16384), (8, 512), (8, 16896), (8, 2000)] {
            assert_eq!(AreaLayout::new(slots, bytes), None, "{slots} {bytes}");
        }
    }
}
