//! Measures how much of its resident memory an object uses: from a few random pages, looked at
//! twice, and from the pages it has fetched.
//!
//! Each sampling counts the pages of the last sample that were touched since, and then ages the
//! next sample, so that the result covers one interval. A sample is made of runs of neighbours, so
//! that pages that the clock then finds idle are evicted in one request.
//!
//! A page that the clock has passed meanwhile looks less used than it is, and the clock passes most
//! often where reclaim takes most. So pages fetched from the disk in the interval are added: an
//! object that fetches is active, even if few of its pages stay resident.

use super::Pager;
use super::slots::PagedObject;
use super::state::PagerState;
use crate::addr::PageIndex;
use crate::block::Disk;
use crate::mm::page::PageAge;
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use crate::time::Ns;

/// Time between two samplings.
const INTERVAL_NS: Ns = Ns::from_secs(1);
/// Number of runs in a sample, and pages in a run.
const RUNS: u32 = 2;
const RUN: u32 = 32;
/// Fewest resident pages for a valid sample.
const LEAST: u32 = 8;
/// A prime, so that the samples' starts cover all pages.
const STRIDE: u32 = 7919;

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Samples all live objects, once an interval.
    pub(super) fn sample(&self, state: &mut PagerState<P>, now: Ns) {
        if now < state.reclaim.sample_at {
            return;
        }
        let is_first = state.reclaim.sample_at == Ns::ZERO;
        state.reclaim.sample_at = now + INTERVAL_NS;
        // A single object has no other to be compared with.
        if is_first || state.slots.iter().filter(|slot| !slot.is_image()).count() < 2 {
            return;
        }
        state.slots.iter_mut().filter(|slot| !slot.closing && !slot.is_image()).for_each(look);
        let candidates = self.candidates(state, |_| true);
        state.policy.sampled(self.env.frames.total(), self.marks.high, &candidates);
    }
}

fn look(slot: &mut PagedObject) {
    let ((resident, touched), counts) = (visit(slot), slot.object.counts());
    // Too few resident pages in the sample. If most pages are on the disk, only the fetched pages
    // count; if most are untouched, the object has only started, and the estimate stays as it is.
    let touched = match resident {
        LEAST.. => Some(touched * 255 / resident),
        _ if counts.paged > counts.resident => Some(0),
        _ => None,
    };
    if let Some(touched) = touched {
        let fetched = u64::from(slot.usage.fetched) * 255 / u64::from(counts.resident).max(1);
        let sample = (u64::from(touched) + fetched).min(255);
        slot.usage.used = ((u32::from(slot.usage.used) * 3 + sample as u32) / 4) as u16;
    }
    slot.usage.fetched = 0;
    slot.usage.offset = slot.usage.offset.wrapping_add(STRIDE) % slot.pages().max(1);
    let _ = visit(slot);
}

/// Ages the pages of the sample. Returns how many are resident, and how many of these were touched.
fn visit(slot: &PagedObject) -> (u32, u32) {
    let pages = slot.pages();
    let (mut resident, mut touched) = (0, 0);
    for index in (0..(RUNS * RUN).min(pages))
        .map(|n| (slot.usage.offset + n / RUN * (pages / RUNS) + n % RUN) % pages)
    {
        match slot.object.existing(PageIndex(index)).map(|page| page.age()) {
            Some(PageAge::Referenced) => (resident, touched) = (resident + 1, touched + 1),
            Some(PageAge::Idle) => resident += 1,
            Some(PageAge::Absent) | None => {}
        }
    }
    (resident, touched)
}
