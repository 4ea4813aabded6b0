//! Finds pages that are missing from a dump although the drain has passed them: their blocks are
//! unreadable, wrong, or were never written.

use super::{DumpJob, MARK_BUDGET};
use crate::addr::{PAGE_SIZE, PageIndex};
use crate::arch::heap;
use crate::mm::crc::{Crc32c, crc32c};
use crate::mm::object::RegionState;
use crate::paging::{BadPages, PageFinal};
use crate::space::{MissingPages, MissingRange, SpaceLayout};
use crate::task;

/// How pages that are not final are treated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// The drain will still reach them.
    OnItsWay,
    /// The drain has ended: they are missing.
    Missing,
}

/// The missing pages.
pub(super) struct FoundMissing {
    /// As many as the record can list.
    pub pages: MissingPages,
    /// The first missing page that the record cannot list, or the number of pages. Progress stops
    /// here.
    pub most: u32,
}

/// Finds the pages that are missing now. Blocks that were found wrong earlier are read again, and
/// accepted if they are right.
pub(super) async fn look(
    job: &DumpJob,
    layout: &SpaceLayout,
    unfinished: Unfinished,
) -> FoundMissing {
    let (all, suspects) = (layout.pages(), job.drain.suspects(&job.host.pager));
    let mut found = FoundMissing { pages: MissingPages::default(), most: all };
    // Pages whose state could not be read after a resume: the drain passes them as well.
    let lost = job.drain.image().first_lost();
    if unfinished == Unfinished::OnItsWay && suspects.is_empty() && lost.is_none() {
        return found;
    }
    let (mut next, mut looks) = (0, 0);
    while next < all {
        let index = PageIndex(next);
        let (kind, alike) = job.drain.final_run(&job.host.pager, index);
        let is_missing = match kind {
            None => {
                unfinished == Unfinished::Missing
                    || matches!(job.drain.image().region_of(index), Some((RegionState::Lost, _)))
            }
            Some(PageFinal::Block(crc)) if holds(&suspects, index) => {
                !reads_right(job, layout, index, crc).await
            }
            Some(_) => false,
        };
        let count = if kind.is_none() { alike.min(all - next) } else { 1 };
        if is_missing && found.pages.push(MissingRange { first: next, count }).is_err() {
            found.most = next;
            return found;
        }
        (next, looks) = (next.saturating_add(alike), looks + 1);
        if looks % MARK_BUDGET == 0 {
            task::yield_now().await;
        }
    }
    found
}

fn holds(suspects: &BadPages, index: PageIndex) -> bool {
    suspects.ranges().any(|range| range.contains(&index.0))
}

async fn reads_right(job: &DumpJob, layout: &SpaceLayout, index: PageIndex, crc: Crc32c) -> bool {
    let Some(sectors) = layout.block_sectors(index, 1) else { return false };
    // Without memory to read the block, the earlier finding stands.
    let Ok(mut page) = heap::zeroed(PAGE_SIZE as usize) else { return false };
    let read = job.host.spaces.read_once(job.space, sectors.first * 512, &mut page).await;
    read.is_ok() && crc32c(&page) == crc
}
