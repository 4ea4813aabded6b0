//! Finds the crashed kernel's own VMCOREINFO among the pages that look like one. All blocks of the
//! dump are final.
//!
//! `dump::kernel_note` decides; this module carries out its reads.

use super::record::CrashRecord;
use crate::addr::{Gpa, PAGE_SIZE, PageIndex};
use crate::arch::heap;
use crate::block::DiskError;
use crate::dump::kernel_note::{KernelTableWalk, KernelWalkStep, NoteClaim, tables};
use crate::dump::vmcoreinfo::{TEXT_OFFSET, text_len};
use crate::host::Host;
use crate::mm::crc::crc32c;
use crate::paging::{ImageDrain, PageFinal};
use crate::space::SpaceLayout;
use crate::storage::spaces::SpaceId;
use alloc::vec::Vec;

const CR0_PAGING: u64 = 1 << 31;

/// A dump that is searched.
pub(super) struct NoteSearch<'a> {
    /// The host that has the dump.
    pub host: &'static Host,
    /// The space that holds its blocks.
    pub space: SpaceId,
    /// The layout of that space.
    pub layout: &'a SpaceLayout,
    /// Knows which pages have blocks.
    pub drain: &'a ImageDrain,
    /// The crashed CPU.
    pub crash: &'a CrashRecord,
}

impl NoteSearch<'_> {
    /// Returns the text of the first of `candidates` that belongs to the crashed kernel.
    ///
    /// # Errors
    /// [`DiskError::NoMemory`].
    pub(super) async fn text(
        &self,
        candidates: impl Iterator<Item = PageIndex>,
    ) -> Result<Option<Vec<u8>>, DiskError> {
        for index in candidates {
            let Some(page) = self.page(index).await? else { continue };
            let Some(len) = text_len(&page) else { continue };
            let text = &page[TEXT_OFFSET..][..len];
            if let Some(claim) = NoteClaim::of(text)
                && self.is_believed(&claim).await?
            {
                return Ok(Some(text.to_vec()));
            }
        }
        Ok(None)
    }

    async fn is_believed(&self, claim: &NoteClaim<'_>) -> Result<bool, DiskError> {
        for table in tables(self.crash.state.cr3) {
            if self.translate(table, claim.virtual_address).await? == Some(claim.physical) {
                return Ok(true);
            }
        }
        if self.translate(self.crash.state.cr3, self.crash.regs.rip).await?.is_some() {
            return Ok(false);
        }
        // The crashed CPU's page tables cannot confirm or refute the claim.
        let Some(page) = self.page_at(claim.physical).await? else { return Ok(false) };
        Ok(claim.is_named_by(&page[claim.physical.page_offset() as usize..]))
    }

    /// Translates a guest virtual address with the guest's own page tables.
    async fn translate(&self, cr3: u64, address: u64) -> Result<Option<Gpa>, DiskError> {
        if self.crash.state.cr0 & CR0_PAGING == 0 {
            return Ok(None);
        }
        let mut walk = KernelTableWalk::new(cr3, address);
        loop {
            let Some(page) = self.page_at(walk.entry()).await? else { return Ok(None) };
            let entry = page[walk.entry().page_offset() as usize..]
                .first_chunk()
                .copied()
                .unwrap_or_default();
            match walk.step(u64::from_le_bytes(entry)) {
                KernelWalkStep::Next(next) => walk = next,
                KernelWalkStep::Mapped(gpa) => return Ok(Some(gpa)),
                KernelWalkStep::Unmapped => return Ok(None),
            }
        }
    }

    async fn page_at(&self, gpa: Gpa) -> Result<Option<Vec<u8>>, DiskError> {
        match self.drain.image().layout().index_of(gpa.number()) {
            Some(index) => self.page(index).await,
            None => Ok(None),
        }
    }

    /// Reads a page; `None` if the dump does not have it, or its block is unreadable or wrong. The
    /// dump then goes without the note.
    async fn page(&self, index: PageIndex) -> Result<Option<Vec<u8>>, DiskError> {
        let mut page = heap::zeroed(PAGE_SIZE as usize)?;
        match (self.drain.final_kind(&self.host.pager, index), self.layout.block_sectors(index, 1))
        {
            (Some(PageFinal::Block(crc)), Some(sectors)) => {
                let read = self.host.spaces.read(self.space, sectors.first * 512, &mut page).await;
                if read.is_err() || crc32c(&page) != crc {
                    return Ok(None);
                }
            }
            (Some(PageFinal::Zero), _) => {}
            _ => return Ok(None),
        }
        Ok(Some(page))
    }
}
