//! Completes the dump of a child: the pages that it has inherited are copied from the base's blocks
//! into its own space, because an ELF cannot name another disk's blocks.
//!
//! ```text
//!   sweep ended ─> own zeros over the base's pages: blocks of zeros ─> bits, record: own pages WRITTEN
//!                  (the partition may run again)                          │
//!                  seal <── ascending: read, verify, write <──────────────┘ a power cut: the next start goes on here
//! ```
//!
//! From the record on, a page without a bit is the base's page. So zeros of the child's own need a
//! block where the base has something else.

use super::writer::DumpWriter;
use super::{DumpJob, MARK_BUDGET, PAGES_PER_SECTOR, PROGRESS_NS};
use crate::addr::{PAGE_SIZE, PageIndex};
use crate::arch::{heap, time};
use crate::block::DiskError;
use crate::mm::crc::{Crc32c, crc32c};
use crate::mm::object::MemoryObject;
use crate::space::{PartialCause, SpaceLayout};
use crate::storage::spaces::{BUFFER, SpaceId};
use crate::task;
use arrayvec::ArrayVec;

/// Most pages that are copied at a time.
const RUN: usize = BUFFER / PAGE_SIZE as usize;

/// The place of a base's blocks.
struct BaseBlocks {
    space: SpaceId,
    layout: SpaceLayout,
}

impl DumpJob {
    /// Copies what the image has inherited. Returns why the dump will lack pages, if it will.
    pub(super) async fn inherit(
        &self,
        writer: &mut DumpWriter<'_>,
    ) -> Result<PartialCause, DiskError> {
        let image = self.drain.image();
        let Some(base) = image.base() else { return Ok(PartialCause::NONE) };
        self.write_own_zeros(image, base).await?;
        writer.own_written().await?;
        let spaces = self.host.spaces;
        let record = spaces.record(self.space).and_then(|record| record.base);
        let blocks = record.and_then(|base| {
            let space = spaces.find_base(&base)?;
            Some(BaseBlocks { space, layout: spaces.layout(space)? })
        });
        let Some(blocks) = blocks else { return Ok(PartialCause::BAD_BLOCKS) };
        self.copy_all(writer, &blocks).await
    }

    /// Gives pages that are zero, where the base's are not, blocks of zeros.
    async fn write_own_zeros(
        &self,
        image: &MemoryObject,
        base: &MemoryObject,
    ) -> Result<(), DiskError> {
        let zeros = heap::zeroed(PAGE_SIZE as usize)?;
        let crc = crc32c(&zeros);
        let layout = self.host.spaces.layout(self.space).ok_or(DiskError::Dead)?;
        let mut next = 0;
        while next < image.layout().pages() {
            next += image.without_table(PageIndex(next));
            for index in (next..image.layout().pages().min(next + MARK_BUDGET)).map(PageIndex) {
                next = index.0 + 1;
                let Some(page) = image.existing(index) else { break };
                let is_own_zero = page.is_zero_of_its_own()
                    && self.host.pager.block_of_base(base, index).is_some();
                if !is_own_zero {
                    continue;
                }
                let at = block(&layout, index, 1)?;
                self.host.spaces.write(self.space, at, &zeros).await?;
                // Nothing else changes an image's zeros.
                let _ = page.adopt_zeros(crc);
            }
            task::yield_now().await;
        }
        Ok(())
    }

    async fn copy_all(
        &self,
        writer: &mut DumpWriter<'_>,
        from: &BaseBlocks,
    ) -> Result<PartialCause, DiskError> {
        let (image, pager) = (self.drain.image(), &self.host.pager);
        let mut buffer = heap::zeroed(RUN * PAGE_SIZE as usize)?;
        let (all, mut next, mut looks) = (image.layout().pages(), 0, 0);
        let (mut cause, mut recorded_ns) = (PartialCause::NONE, time::now_ns());
        while next < all {
            let sums: ArrayVec<Crc32c, RUN> = (next..all.min(next + RUN as u32))
                .map_while(|index| pager.inherited(image, PageIndex(index)))
                .collect();
            looks += 1;
            if sums.is_empty() {
                next += 1;
                if looks % MARK_BUDGET == 0 {
                    task::yield_now().await;
                }
                continue;
            }
            let first = PageIndex(next);
            let bytes = &mut buffer[..sums.len() * PAGE_SIZE as usize];
            if !self.copy(from, first, &sums, bytes).await? {
                cause = PartialCause::BAD_BLOCKS;
            }
            next += sums.len() as u32;
            self.drain.note_copied(PageIndex(next));
            let whole = next / PAGES_PER_SECTOR * PAGES_PER_SECTOR;
            if whole > writer.recorded() && time::now_ns() >= recorded_ns + PROGRESS_NS {
                writer.progress(whole).await?;
                self.announce_progress(whole);
                recorded_ns = time::now_ns();
            }
            task::yield_now().await;
        }
        self.drain.note_copied(PageIndex(all));
        Ok(cause)
    }

    /// Copies a run of blocks. Returns false if one of the base's is unreadable or wrong: it is
    /// among the dump's suspects then, and will be missing.
    async fn copy(
        &self,
        from: &BaseBlocks,
        first: PageIndex,
        sums: &[Crc32c],
        bytes: &mut [u8],
    ) -> Result<bool, DiskError> {
        let own = self.host.spaces.layout(self.space).ok_or(DiskError::Dead)?;
        let source = block(&from.layout, first, sums.len() as u32)?;
        let mut all_right = true;
        let is_read = self.host.spaces.read_once(from.space, source, bytes).await.is_ok();
        for (n, page) in (0..).zip(bytes.chunks_mut(PAGE_SIZE as usize)) {
            let index = PageIndex(first.0 + n);
            if !is_read {
                let source = block(&from.layout, index, 1)?;
                if self.host.spaces.read(from.space, source, page).await.is_err() {
                    page.fill(0);
                }
            }
            if crc32c(page) != sums[n as usize] {
                self.drain.note_bad(&self.host.pager, index);
                all_right = false;
            }
        }
        self.host.spaces.write(self.space, block(&own, first, sums.len() as u32)?, bytes).await?;
        Ok(all_right)
    }
}

/// Returns the offset of a run of blocks in its space.
fn block(layout: &SpaceLayout, first: PageIndex, count: u32) -> Result<u64, DiskError> {
    let sectors = layout.block_sectors(first, count).ok_or(DiskError::Unsupported)?;
    Ok(sectors.first * 512)
}
