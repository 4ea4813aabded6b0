//! Decides how far a page-in reads beyond the demanded page. It learns from the faults of one
//! object.
//!
//! A page that is read along takes a frame that another page could use. It pays only if the guest
//! uses it before it is evicted, so reading along has to be earned. Two things earn it:
//!
//! ```text
//!  a fault just beyond the last read ──> a walk: the rest of the window in that direction, and up to 4 windows ahead,
//!                                        so that the disk works while the guest does
//!  any other fault ──────────────────> neighbours in the window, as many as the region has credit for
//!                                        read along -4 ─> credit <─ +5 used before evicted
//! ```
//!
//! Outside walks, reading along continues only if more than four of five such pages are used.
//! Uniform accesses use about half of them: the initial credit is spent, and every page is then
//! read on demand. Credit is small at the start and bounded later, so neither the start nor a
//! change of the access pattern wastes reads on more than a 64th of the object's pages.
//!
//! Pure: page states and disks do not appear here.

use super::transfer::WINDOW;

/// Walks that are tracked at a time.
const WALKS: usize = 4;
/// Regions of an object, each with its own credit.
const REGIONS: usize = 16;
/// Pages of the smallest region, as a power of two.
const LEAST_SHIFT: u32 = 10;
/// Cost of a page read along, and gain when it was used.
const COST: u32 = 4;
const GAIN: u32 = 5;
/// Most windows that are read ahead of a walk.
const MOST_AHEAD: u32 = 4;

/// Direction of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WalkDirection {
    Up,
    Down,
}

/// What to read in addition to the demanded page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReadReach {
    /// Up to this many neighbours in its window.
    Around(u32),
    /// The rest of its window in that direction, and this many windows beyond it.
    Along { heading: WalkDirection, windows: u32 },
}

/// A run of pages that was read, and the number of faults that continued it.
#[derive(Clone, Copy, Debug)]
struct FaultWalk {
    /// The first page that was read, less the length of a window.
    low: u32,
    /// Pages from `low` to the length of a window beyond the last page that was read.
    span: u32,
    steps: u32,
}

impl FaultWalk {
    /// A walk that no page continues.
    const NONE: Self = Self { low: 0, span: 0, steps: 0 };

    fn first(&self) -> u32 {
        self.low.wrapping_add(WINDOW)
    }

    fn end(&self) -> u32 {
        self.low.wrapping_add(self.span).wrapping_sub(WINDOW)
    }

    /// Starts a walk with one page.
    #[inline(always)]
    fn at(page: u32) -> Self {
        Self { low: page.wrapping_sub(WINDOW), span: 2 * WINDOW + 1, steps: 0 }
    }

    fn set(&mut self, first: u32, end: u32) {
        (self.low, self.span) = (first.wrapping_sub(WINDOW), end - first + 2 * WINDOW);
    }

    /// Returns whether a fault at `page` continues the walk. Pages in between may be resident
    /// already.
    #[inline(always)]
    fn is_continued_by(&self, page: u32) -> bool {
        page.wrapping_sub(self.low) < self.span
    }
}

/// Access pattern learned for one object.
#[derive(Clone, Debug)]
pub(super) struct ReadAround {
    walks: [FaultWalk; WALKS],
    /// Index of the walk that is replaced next (`oldest`), and of the last fault's walk
    /// (`current`).
    oldest: u8,
    current: u8,
    /// Pages of a region, as a power of two.
    shift: u32,
    /// Most credit of a region.
    most: u32,
    credits: [u32; REGIONS],
}

impl ReadAround {
    /// Starts without knowledge of an object of `pages` pages.
    pub(super) fn new(pages: u32) -> Self {
        let shift = pages.div_ceil(REGIONS as u32).next_power_of_two().trailing_zeros();
        let shift = shift.max(LEAST_SHIFT);
        let most = (1 << shift) / 64 * COST;
        let credits = [most / 4; REGIONS];
        Self { walks: [FaultWalk::NONE; WALKS], oldest: 0, current: 0, shift, most, credits }
    }

    /// Returns what to read beside `page` for a fault there. If pages are then read along, the
    /// caller calls [`Self::note_along`].
    #[inline(always)]
    pub(super) fn reach(&mut self, page: u32) -> ReadReach {
        if let Some(number) = self.walks.iter().position(|walk| walk.is_continued_by(page)) {
            return self.walk_on(number, page);
        }
        let number = self.oldest as usize % WALKS;
        (self.current, self.oldest) = (self.oldest, self.oldest.wrapping_add(1));
        self.walks[number] = FaultWalk::at(page);
        ReadReach::Around((self.credits[page_region(page, self.shift)] / COST).min(WINDOW - 1))
    }

    #[inline(never)]
    fn walk_on(&mut self, number: usize, page: u32) -> ReadReach {
        let walk = &mut self.walks[number];
        let steps = walk.steps.saturating_add(1);
        let heading = if page < walk.first() { WalkDirection::Down } else { WalkDirection::Up };
        *walk = FaultWalk { steps, ..FaultWalk::at(page) };
        self.current = number as u8;
        ReadReach::Along { heading, windows: windows_ahead(steps) }
    }

    /// Notes that pages `first..end` are being read for the last fault, whose answer was `reach`,
    /// or ahead of it.
    #[inline(never)]
    pub(super) fn note_along(&mut self, reach: ReadReach, first: u32, end: u32) {
        let walk = &mut self.walks[self.current as usize % WALKS];
        walk.set(walk.first().min(first), walk.end().max(end));
        if let ReadReach::Around(_) = reach {
            self.pay(first, (end - first).saturating_sub(1));
        }
    }

    /// Charges the region of `page` for the pages read beside it.
    fn pay(&mut self, page: u32, along: u32) {
        let credit = &mut self.credits[page_region(page, self.shift)];
        *credit = credit.saturating_sub(along * COST);
    }

    /// Notes that a page read along was used before it was evicted.
    pub(super) fn note_used(&mut self, page: u32) {
        let credit = &mut self.credits[page_region(page, self.shift)];
        *credit = (*credit + GAIN).min(self.most);
    }
}

fn page_region(page: u32, shift: u32) -> usize {
    ((page >> shift) as usize).min(REGIONS - 1)
}

/// Returns how many windows to read ahead of a walk of `steps` steps. One fault beside another may
/// be chance, so a walk of fewer than two steps gets none.
fn windows_ahead(steps: u32) -> u32 {
    if steps < 2 { 0 } else { (steps / 2).min(MOST_AHEAD) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: WalkDirection = WalkDirection::Up;

    fn fault(around: &mut ReadAround, page: u32, first: u32, end: u32) -> ReadReach {
        let reach = around.reach(page);
        around.note_along(reach, first, end);
        reach
    }

    #[test]
    fn the_second_page_of_a_walk_reads_its_window_and_later_ones_read_ahead() {
        let mut around = ReadAround::new(65536);
        assert!(matches!(fault(&mut around, 100, 100, 101), ReadReach::Around(_)));
        assert_eq!(fault(&mut around, 101, 101, 112), ReadReach::Along { heading: UP, windows: 0 });
        assert_eq!(fault(&mut around, 112, 112, 144), ReadReach::Along { heading: UP, windows: 1 });
        for _ in 0..20 {
            fault(&mut around, 144, 144, 144);
        }
        assert_eq!(around.reach(144), ReadReach::Along { heading: UP, windows: MOST_AHEAD });
    }

    #[test]
    fn a_walk_downwards_is_one_too() {
        let mut around = ReadAround::new(65536);
        fault(&mut around, 100, 100, 101);
        assert_eq!(
            fault(&mut around, 99, 96, 100),
            ReadReach::Along { heading: WalkDirection::Down, windows: 0 }
        );
        assert!(matches!(around.reach(0), ReadReach::Around(_)), "far away");
    }

    #[test]
    fn walks_that_alternate_are_told_apart() {
        let mut around = ReadAround::new(65536);
        for start in [0, 10_000, 20_000, 30_000] {
            fault(&mut around, start, start, start + 1);
        }
        for start in [0, 10_000, 20_000, 30_000] {
            let reach = fault(&mut around, start + 1, start + 1, start + 16);
            assert_eq!(reach, ReadReach::Along { heading: UP, windows: 0 });
        }
    }

    #[test]
    fn a_walk_goes_on_behind_pages_that_are_there() {
        let mut around = ReadAround::new(65536);
        fault(&mut around, 100, 100, 101);
        assert!(matches!(fault(&mut around, 116, 116, 128), ReadReach::Along { .. }));
        assert!(matches!(around.reach(144), ReadReach::Around(_)), "a window's length behind it");
    }

    #[test]
    fn unused_pages_use_the_credit_up_and_used_ones_keep_it() {
        for (used, goes_on) in [(0, false), (1, false), (2, false), (4, true)] {
            let mut around = ReadAround::new(65536);
            let mut along = 0;
            for n in 0..2000 {
                // Far apart, in one region.
                let page = n * 37 % 4000;
                let ReadReach::Around(count) = around.reach(page) else { continue };
                around.note_along(ReadReach::Around(count), page, page + 1 + count);
                along += count;
                (0..count * used / 4).for_each(|_| around.note_used(1));
            }
            assert_eq!(along > 1000, goes_on, "{used} of 4 used: {along}");
        }
    }

    #[test]
    fn regions_learn_apart_and_their_credit_is_bounded() {
        let mut around = ReadAround::new(65536);
        (0..100).for_each(|_| around.pay(0, 15));
        (0..1000).for_each(|_| around.note_used(60_000));
        assert_eq!(around.reach(0), ReadReach::Around(0));
        assert_eq!(around.reach(60_000), ReadReach::Around(15));
        assert_eq!(around.credits[14], 4096 / 64 * COST);
    }

    #[test]
    fn objects_of_any_size_have_regions() {
        for pages in [1, 2, 1024, 1025, 1 << 20, 1 << 30] {
            let mut around = ReadAround::new(pages);
            around.note_used(pages - 1);
            around.pay(pages - 1, 15);
            assert!(matches!(around.reach(pages - 1), ReadReach::Around(_)), "{pages}");
        }
    }
}
