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

mod span;

use super::writer::DumpWriter;
use super::{DumpJob, MARK_BUDGET, PAGES_PER_SECTOR, PROGRESS_NS};
use crate::addr::{PAGE_SIZE, PageIndex};
use crate::arch::{heap, time};
use crate::block::DiskError;
use crate::mm::crc::crc32c;
use crate::mm::object::MemoryObject;
use crate::space::{PartialCause, SpaceLayout};
use crate::storage::spaces::{BUFFER, SpaceId};
use crate::task;
use alloc::vec::Vec;
use span::InheritedSpan;

/// Most pages that are copied at a time.
const SPAN: usize = BUFFER / PAGE_SIZE as usize;

/// The place of a base's blocks.
struct BaseBlocks {
    space: SpaceId,
    layout: SpaceLayout,
}

/// Memory for a span's blocks: the base's, and the image's own ones between them. Without memory
/// for these, each run of inherited pages is a write.
struct SpanBuffers {
    base: Vec<u8>,
    own: Option<Vec<u8>>,
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
        let mut buffers = SpanBuffers {
            base: heap::zeroed(SPAN * PAGE_SIZE as usize)?,
            own: heap::zeroed(SPAN * PAGE_SIZE as usize).ok(),
        };
        let (all, mut next, mut looks) = (image.layout().pages(), 0, 0);
        let (mut cause, mut recorded_ns) = (PartialCause::NONE, time::now_ns());
        while next < all {
            let end = all.min(next + SPAN as u32);
            let span = InheritedSpan {
                first: PageIndex(next),
                sums: (next..end).map(|n| pager.inherited(image, PageIndex(n))).collect(),
            };
            next = end;
            looks += SPAN;
            let Some(span) = span.trimmed() else {
                if looks >= MARK_BUDGET as usize {
                    looks = 0;
                    task::yield_now().await;
                }
                continue;
            };
            if !self.copy(from, &span, &mut buffers).await? {
                cause = PartialCause::BAD_BLOCKS;
            }
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

    /// Copies a span's blocks. Returns false if one of the base's is unreadable or wrong: it is
    /// among the dump's suspects then, and will be missing.
    async fn copy(
        &self,
        from: &BaseBlocks,
        span: &InheritedSpan,
        buffers: &mut SpanBuffers,
    ) -> Result<bool, DiskError> {
        let pages = &mut buffers.base[..span.sums.len() * PAGE_SIZE as usize];
        self.read_base(from, span.first, pages).await?;
        let mut all_right = true;
        for (index, sum, page) in span.inherited(pages) {
            if crc32c(page) != sum {
                self.drain.note_bad(&self.host.pager, index);
                all_right = false;
            }
        }
        let own = self.host.spaces.layout(self.space).ok_or(DiskError::Dead)?;
        if let Some(bytes) = &mut buffers.own
            && span.has_own()
        {
            // The image's own blocks are final by now: they are written once more as they are, so
            // that a span is one write.
            let (at, mine) = (block(&own, span.first, span.len())?, &mut bytes[..pages.len()]);
            if self.host.spaces.read_once(self.space, at, mine).await.is_ok() {
                span.put_own(mine, pages);
                self.host.spaces.write(self.space, at, pages).await?;
                return Ok(all_right);
            }
        }
        for run in span.runs() {
            let at = block(&own, PageIndex(span.first.0 + run.start), run.len() as u32)?;
            let bytes =
                run.start as usize * PAGE_SIZE as usize..run.end as usize * PAGE_SIZE as usize;
            self.host.spaces.write(self.space, at, &pages[bytes]).await?;
        }
        Ok(all_right)
    }

    /// Reads a run of the base's blocks; an unreadable one becomes zeros, which its checksum
    /// tells apart.
    async fn read_base(
        &self,
        from: &BaseBlocks,
        first: PageIndex,
        bytes: &mut [u8],
    ) -> Result<(), DiskError> {
        let pages = bytes.len() / PAGE_SIZE as usize;
        let source = block(&from.layout, first, pages as u32)?;
        if self.host.spaces.read_once(from.space, source, bytes).await.is_ok() {
            return Ok(());
        }
        for (n, page) in (0..).zip(bytes.chunks_mut(PAGE_SIZE as usize)) {
            let source = block(&from.layout, PageIndex(first.0 + n), 1)?;
            if self.host.spaces.read(from.space, source, page).await.is_err() {
                page.fill(0);
            }
        }
        Ok(())
    }
}

/// Returns the offset of a run of blocks in its space.
fn block(layout: &SpaceLayout, first: PageIndex, count: u32) -> Result<u64, DiskError> {
    let sectors = layout.block_sectors(first, count).ok_or(DiskError::Unsupported)?;
    Ok(sectors.first * 512)
}
