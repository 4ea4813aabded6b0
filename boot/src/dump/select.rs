//! Selects one dump of a disk: its header goes into the boot-code bytes, so that tools can open the
//! raw image.

use super::{Dump, PIECE_PAGES};
use crate::volume::VolumeDisk;
use anyhow::{Result, bail, ensure};
use kernel::addr::{PAGE_SIZE, PageIndex};
use kernel::block::gpt::BOOT_CODE_LEN;
use kernel::dump::elf::DumpPageState;
use kernel::dump::selected::{BootCode, SelectedRuns};
use kernel::space::SpaceState;
use std::ops::Range;

/// How to treat a boot loader in the boot-code bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootLoader {
    /// Keep it, and refuse the selection.
    Keep,
    /// Overwrite it.
    Replace,
}

/// Selects the dump in space `number` of `disk`; returns the number of final pages for which the
/// header has no room.
///
/// # Errors
/// Where the image has only one space, the drain was interrupted, or the boot-code bytes hold
/// other code.
pub fn select(disk: &VolumeDisk, number: u32, loader: BootLoader) -> Result<u32> {
    let dump = Dump::of(disk.space(Some(number))?)?;
    ensure!(dump.image.number() > 0, "{}: the whole image is this dump already", dump.name());
    if dump.record.state == SpaceState::Draining {
        bail!(
            "{}: the drain was cut off; `tidepool dump header` makes a partial dump of it",
            dump.name()
        );
    }
    if disk.boot_code()? == BootCode::Foreign && loader == BootLoader::Keep {
        bail!("{}: the boot-code bytes hold a boot loader; --force overwrites it", dump.name());
    }
    let selection = SelectedRuns::of(&dump);
    dump.bitmap.check()?;
    ensure!(
        selection.block_ranges().any(|range| !range.is_empty()),
        "{}: nothing of it is there",
        dump.name()
    );
    // Clear the old header first: a header must never describe blocks that are not written yet.
    disk.set_boot_code(&[0; BOOT_CODE_LEN])?;
    for range in selection.block_ranges() {
        dump.zero_blocks(range)?;
    }
    dump.image.flush()?;
    let notes_len = dump.record.drain.notes_len;
    disk.set_boot_code(&selection.encode(
        &dump.contents.layout,
        notes_len.into(),
        dump.image.area(),
    ))?;
    Ok(selection.left_out())
}

impl Dump {
    /// Makes the blocks of zero pages in a range read as zeros. Nothing else reads these blocks.
    /// Blocks that are already zero are not written, so a sparse image stays sparse.
    fn zero_blocks(&self, range: Range<u32>) -> Result<()> {
        let zeros = [0; PAGE_SIZE as usize];
        let mut blocks = vec![0; (PIECE_PAGES as usize) * zeros.len()];
        for first in range.clone().step_by(PIECE_PAGES as usize) {
            let count = PIECE_PAGES.min(range.end - first);
            let start = self.contents.layout.blocks().start + u64::from(first) * PAGE_SIZE;
            let blocks = &mut blocks[..count as usize * zeros.len()];
            self.image.read(start, blocks)?;
            for (n, block) in blocks.chunks_exact(zeros.len()).enumerate() {
                let is_zero =
                    self.known_content(PageIndex(first + n as u32))? == DumpPageState::Zero;
                if is_zero && block != zeros {
                    self.image.write(start + n as u64 * PAGE_SIZE, &zeros)?;
                }
            }
        }
        Ok(())
    }
}

/// Removes the header of the dump in space `number` from the boot-code bytes, if that dump is
/// selected.
///
/// # Errors
/// Where the image cannot be read or written.
pub fn deselect(disk: &VolumeDisk, number: u32) -> Result<()> {
    if disk.selected()? == Some(number) {
        disk.set_boot_code(&[0; BOOT_CODE_LEN])?;
    }
    Ok(())
}
