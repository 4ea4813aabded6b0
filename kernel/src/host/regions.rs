//! Reads the state of a resumed partition's pages, region by region, while the guest runs: the
//! wanted ones first, and after a while all others.
//!
//! ```text
//!   fault ─> wanted ─> bitmap and checksums read, sums compared ─> leaf table linked ─> faulter woken
//!                                         │ wrong, or unreadable
//!                                         └─> lost: a page lost crashes the partition
//! ```
//!
//! The tables on the disk stay as they are until all regions are read: a crash and a suspension,
//! which write them, wait for that ([`read_all`]).

use super::Host;
use crate::addr::PageIndex;
use crate::arch::heap::{self, HeapError};
use crate::arch::time;
use crate::block::DiskError;
use crate::block::request::SECTOR_SIZE;
use crate::dump::table_sums::{DumpTable, TablePiece, TableSums};
use crate::mm::crc::Crc32c;
use crate::mm::object::{MemoryObject, NextRegion, REGION_PAGES};
use crate::space::SpaceLayout;
use crate::space::content::has_bit;
use crate::storage::spaces::SpaceId;
use crate::task;
use crate::time::Ns;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// How long only wanted regions are read: the guest's first pages come first.
const WANTED_ONLY_NS: Ns = Ns::from_ms(200);

/// Reads the regions of an object from its space.
pub struct RegionReader {
    host: &'static Host,
    object: Arc<MemoryObject>,
    space: SpaceId,
    layout: SpaceLayout,
    sums: TableSums,
    bitmap: HeldPiece,
    checksums: HeldPiece,
}

/// The piece of a table that was read last.
struct HeldPiece {
    table: DumpTable,
    piece: Option<TablePiece>,
    bytes: Vec<u8>,
}

/// Why a region cannot be read.
enum UnreadableRegionError {
    /// The bytes are not those that were written.
    Damaged,
    /// The disk's.
    Disk,
}

impl From<DiskError> for UnreadableRegionError {
    fn from(_: DiskError) -> Self {
        Self::Disk
    }
}

impl RegionReader {
    /// Makes the reader of an object all of whose regions are unread.
    ///
    /// # Errors
    /// [`HeapError`]: no room for its buffers.
    pub fn new(
        host: &'static Host,
        object: Arc<MemoryObject>,
        (space, layout): (SpaceId, SpaceLayout),
        sums: TableSums,
    ) -> Result<Self, HeapError> {
        let held = |table| {
            let bytes = heap::zeroed(TableSums::MOST)?;
            Ok::<_, HeapError>(HeldPiece { table, piece: None, bytes })
        };
        let (bitmap, checksums) = (held(DumpTable::Bitmap)?, held(DumpTable::Checksums)?);
        object.expect_regions()?;
        Ok(Self { host, object, space, layout, sums, bitmap, checksums })
    }

    /// Reads until no region is unread, or the object is taken apart.
    pub async fn run(mut self) {
        let idle_at = time::now_ns().saturating_add(WANTED_ONLY_NS);
        loop {
            match self.object.next_region(time::now_ns() >= idle_at) {
                NextRegion::Done => return,
                NextRegion::Nothing => task::next_turn().await,
                NextRegion::Region(region) => self.read(region).await,
            }
        }
    }

    async fn read(&mut self, region: u32) {
        let mut blocks = [None; REGION_PAGES as usize];
        if self.load(region, &mut blocks).await.is_err() {
            self.object.lose_region(region);
        } else {
            let pages = self.layout.pages() - region * REGION_PAGES;
            let blocks = &blocks[..pages.min(REGION_PAGES) as usize];
            while self.object.adopt_region(region, blocks).is_err() {
                // Tables come back when memory that is taken apart is gone.
                task::yield_now().await;
            }
        }
        self.object.wake();
        self.host.wake();
        task::yield_now().await;
    }

    async fn load(
        &mut self,
        region: u32,
        blocks: &mut [Option<Crc32c>; REGION_PAGES as usize],
    ) -> Result<(), UnreadableRegionError> {
        let first = u64::from(region * REGION_PAGES);
        let place = (self.host, self.space, &self.layout, &self.sums);
        let bits = self.bitmap.at(place, first / 8).await?;
        if bits.iter().take(REGION_PAGES as usize / 8).all(|byte| *byte == 0) {
            return Ok(());
        }
        let sums = self.checksums.at(place, first * 4).await?;
        let (sums, _) = sums.as_chunks::<4>();
        for (n, (block, sum)) in blocks.iter_mut().zip(sums).enumerate() {
            if has_bit(bits, PageIndex(n as u32)) {
                *block = Some(Crc32c(u32::from_le_bytes(*sum)));
            }
        }
        Ok(())
    }
}

impl HeldPiece {
    /// Returns the bytes of the table from `at` on, up to the end of the piece.
    async fn at(
        &mut self,
        (host, space, layout, sums): (&Host, SpaceId, &SpaceLayout, &TableSums),
        at: u64,
    ) -> Result<&[u8], UnreadableRegionError> {
        let piece = sums.piece_at(layout, self.table, at);
        if self.piece != Some(piece) {
            self.piece = None;
            let sectors = piece.len.next_multiple_of(SECTOR_SIZE as usize);
            let bytes = self.bytes.get_mut(..sectors).ok_or(UnreadableRegionError::Damaged)?;
            host.spaces.read(space, piece.start, bytes).await?;
            if !sums.is_right(self.table, piece, &bytes[..piece.len]) {
                return Err(UnreadableRegionError::Damaged);
            }
            self.piece = Some(piece);
        }
        let start = layout_start(self.table, layout);
        let from = (start + at).saturating_sub(piece.start) as usize;
        self.bytes[..piece.len].get(from..).ok_or(UnreadableRegionError::Damaged)
    }
}

fn layout_start(table: DumpTable, layout: &SpaceLayout) -> u64 {
    match table {
        DumpTable::Bitmap => layout.bitmap().start,
        DumpTable::Checksums => layout.checksums().start,
    }
}

/// Waits until every region of an object is read or lost: its space's tables may be written then.
pub async fn read_all(object: &MemoryObject) {
    while object.want_all() > 0 {
        task::next_turn().await;
    }
}
