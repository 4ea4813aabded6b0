//! The runs of frames in a pool, and a position without holes for each frame.

use crate::addr::Hfn;
use arrayvec::ArrayVec;

/// A run of frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameRegion {
    /// The first.
    pub first: Hfn,
    /// How many.
    pub count: u32,
}

/// Why no frame table can be made of these regions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionError {
    /// More than [`super::FrameTable::MAX_REGIONS`], or no frame in any.
    Count,
    /// Two regions overlap, or a frame number does not fit into 32 bits, the room in a leaf that
    /// goes out.
    Range,
}

impl core::fmt::Display for RegionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Count => f.write_str("its memory lies in too many pieces, or in none"),
            Self::Range => f.write_str("its pieces of memory overlap, or lie too high"),
        }
    }
}

/// A region and the position of its first frame in the table.
#[derive(Clone, Copy)]
struct PlacedRegion {
    region: FrameRegion,
    position: u32,
}

/// Regions in ascending order, each with the positions of its frames.
pub(super) struct FrameRegions {
    /// The lowest; most machines have only this one.
    first: PlacedRegion,
    all: ArrayVec<PlacedRegion, { Self::MAX }>,
}

impl FrameRegions {
    pub(super) const MAX: usize = 8;

    pub(super) fn place(regions: &[FrameRegion]) -> Result<Self, RegionError> {
        let mut sorted = ArrayVec::<FrameRegion, { Self::MAX }>::new();
        for region in regions.iter().filter(|r| r.count > 0) {
            sorted.try_push(*region).map_err(|_| RegionError::Count)?;
        }
        sorted.sort_unstable_by_key(|r| r.first);
        if sorted.is_empty() {
            return Err(RegionError::Count);
        }
        let mut all = ArrayVec::new();
        let (mut position, mut end) = (0_u32, 0);
        for region in sorted {
            let first = region.first.as_u64();
            let next = first.checked_add(u64::from(region.count)).ok_or(RegionError::Range)?;
            // The last number stays unused: all ones ends a free list.
            if first < end || next > u64::from(u32::MAX) {
                return Err(RegionError::Range);
            }
            all.push(PlacedRegion { region, position });
            position = position.checked_add(region.count).ok_or(RegionError::Range)?;
            end = next;
        }
        Ok(Self { first: all[0], all })
    }

    pub(super) fn total(&self) -> u32 {
        self.all.iter().map(|placed| placed.region.count).sum()
    }

    /// Returns the frame at a position.
    #[inline]
    pub(super) fn nth(&self, n: u32) -> Option<Hfn> {
        self.first.nth(n).or_else(|| self.nth_behind(n))
    }

    /// Returns the position of a frame, or `None` if it is in no region.
    #[inline]
    pub(super) fn position(&self, hfn: Hfn) -> Option<u32> {
        self.first.position(hfn).or_else(|| self.position_behind(hfn))
    }

    #[cold]
    fn nth_behind(&self, n: u32) -> Option<Hfn> {
        self.all.iter().find_map(|placed| placed.nth(n))
    }

    #[cold]
    fn position_behind(&self, hfn: Hfn) -> Option<u32> {
        self.all.iter().find_map(|placed| placed.position(hfn))
    }
}

impl PlacedRegion {
    #[inline]
    fn nth(&self, n: u32) -> Option<Hfn> {
        let offset = n.wrapping_sub(self.position);
        if offset < self.region.count {
            self.region.first.checked_add(u64::from(offset))
        } else {
            None
        }
    }

    #[inline]
    fn position(&self, hfn: Hfn) -> Option<u32> {
        let offset = hfn.as_u64().wrapping_sub(self.region.first.as_u64());
        (offset < u64::from(self.region.count)).then(|| self.position.wrapping_add(offset as u32))
    }
}
