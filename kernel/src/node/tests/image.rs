//! Checks the claims of a disk's bytes against the real contents of the guests.

use super::guest::{Truth, page_of};
use crate::addr::{PAGE_SIZE, PageIndex};
use crate::dump::elf::DumpPageState;
use crate::mm::crc::crc32c;
use crate::space::classify::HEAD_LEN;
use crate::space::content::content_of;
use crate::space::copies::TAIL_LEN;
use crate::space::layout::usable;
use crate::space::{DeviceContent, SpaceRecord, SpaceState, classify};

/// Returns the class of a disk's contents.
pub(super) fn class(image: &[u8]) -> DeviceContent {
    let bytes = image.len() as u64;
    let tail = usable(bytes) as usize - TAIL_LEN;
    let tail: &[u8; TAIL_LEN] = image[tail..][..TAIL_LEN].try_into().expect("the tail's length");
    classify(&image[..HEAD_LEN], tail, bytes)
}

/// The record of a disk that holds a space.
pub(super) fn record(image: &[u8]) -> Option<SpaceRecord> {
    match class(image) {
        DeviceContent::Space(record) => Some(record),
        _ => None,
    }
}

/// Returns the first word of a page in a dump by its bitmap; `None` if the dump lacks the page.
pub(super) fn word_of_page(image: &[u8], index: PageIndex) -> Option<u64> {
    let record = record(image)?;
    let layout = record.contents?.layout;
    let bitmap = &image[layout.bitmap().start as usize..][..layout.bitmap_bytes()];
    match content_of(bitmap, record.drain.progress, &record.missing, index) {
        DumpPageState::Missing => None,
        DumpPageState::Zero => Some(0),
        DumpPageState::Block => {
            let at = layout.block_sectors(index, 1)?.first as usize * 512;
            Some(u64::from_le_bytes(image[at..at + 8].try_into().ok()?))
        }
    }
}

/// Returns whether the record makes the bitmap valid.
pub(super) fn has_dump(record: &SpaceRecord) -> bool {
    matches!(record.state, SpaceState::Draining | SpaceState::Complete | SpaceState::Partial)
}

/// Returns owner and incarnation.
pub(super) fn owner(record: &SpaceRecord) -> Option<(String, u64)> {
    record.owner.as_ref().map(|owner| (owner.name.to_string(), owner.epoch))
}

/// Checks every claim of a dump: bitmap, checksums, progress, and the program headers if the record
/// says the dump is sealed.
///
/// # Errors
/// Names the first claim that is wrong.
pub(super) fn check(image: &[u8], truth: &Truth) -> Result<u32, String> {
    let Some(record) = record(image).filter(has_dump) else { return Ok(0) };
    let key = owner(&record).ok_or("a dump of nobody")?;
    let values =
        truth.get(&key).ok_or_else(|| format!("a dump of {key:?}, which has not crashed"))?;
    let layout = record.contents.as_ref().ok_or("a dump without contents")?.layout;
    let bitmap = &image[layout.bitmap().start as usize..][..layout.bitmap_bytes()];
    let content =
        |index: u32| content_of(bitmap, record.drain.progress, &record.missing, PageIndex(index));
    let mut blocks = 0;
    for index in 0..layout.pages() {
        let value = values[index as usize];
        match content(index) {
            DumpPageState::Block => {
                check_block(image, &layout, index, value)?;
                blocks += 1;
            }
            DumpPageState::Zero if value != 0 => {
                return Err(format!("{:?}: page {index} is told zero and is not", record.state));
            }
            DumpPageState::Missing if record.state == SpaceState::Complete => {
                return Err(format!("page {index} of a complete dump is missing"));
            }
            _ => {}
        }
    }
    if record.state != SpaceState::Draining {
        check_headers(image, &record, values)?;
    }
    Ok(blocks)
}

fn check_block(
    image: &[u8],
    layout: &crate::space::SpaceLayout,
    index: u32,
    value: u64,
) -> Result<(), String> {
    let at = layout.blocks().start as usize + index as usize * PAGE_SIZE as usize;
    let block = &image[at..][..PAGE_SIZE as usize];
    if block != page_of(value) {
        return Err(format!("block {index} is not the page"));
    }
    let sum = &image[layout.checksums().start as usize + index as usize * 4..][..4];
    if sum != crc32c(block).0.to_le_bytes() {
        return Err(format!("the checksum of block {index} is wrong"));
    }
    Ok(())
}

fn word(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(image[at..][..8].try_into().expect("eight bytes"))
}

/// Reads the dump as any ELF reader does: the file bytes of a segment are the guest's, and bytes
/// beyond its file size are zero.
fn check_headers(image: &[u8], record: &SpaceRecord, values: &[u64]) -> Result<(), String> {
    if image[..4] != *b"\x7fELF" {
        return Err(format!("{:?} without an ELF header", record.state));
    }
    let contents = record.contents.as_ref().ok_or("a dump without contents")?;
    let count = u16::from_le_bytes([image[56], image[57]]) as usize;
    let mut covered = 0;
    for n in 0..count {
        let header = 64 + n * 56;
        if image[header..][..4] != [1, 0, 0, 0] {
            continue;
        }
        let (offset, gpa) = (word(image, header + 8) as usize, word(image, header + 24));
        let (in_file, in_memory) = (word(image, header + 32) as usize, word(image, header + 40));
        let first = (0..contents.layout.pages()).find(|&index| {
            contents.gfn_of(PageIndex(index)).is_some_and(|gfn| gfn.base().as_u64() == gpa)
        });
        let first = first.ok_or_else(|| format!("a segment at {gpa:#x}, where no page is"))?;
        for page in 0..(in_memory / PAGE_SIZE) as u32 {
            let value = values[(first + page) as usize];
            let at = page as usize * PAGE_SIZE as usize;
            let right = if at < in_file {
                image[offset + at..][..PAGE_SIZE as usize] == page_of(value)
            } else {
                value == 0
            };
            if !right {
                return Err(format!(
                    "a reader of the {:?} dump gets a wrong page {}",
                    record.state,
                    first + page
                ));
            }
            covered += 1;
        }
    }
    match record.state {
        SpaceState::Complete if covered != contents.layout.pages() => {
            Err(format!("the headers of a complete dump cover {covered} pages"))
        }
        _ => Ok(()),
    }
}

/// Checks a whole dump, or a suspended partition, by its own tables: every block has its checksum,
/// and the segments of the ELF header cover every page, with a block's bytes for each set bit.
///
/// # Errors
/// Names the first claim that is wrong.
pub(super) fn verify(image: &[u8]) -> Result<u32, String> {
    let record = record(image).ok_or("no record")?;
    let layout = record.contents.as_ref().ok_or("no contents")?.layout;
    let bitmap = &image[layout.bitmap().start as usize..][..layout.bitmap_bytes()];
    let mut blocks = 0;
    for index in (0..layout.pages()).map(PageIndex) {
        match content_of(bitmap, record.drain.progress, &record.missing, index) {
            DumpPageState::Block => {
                let at = (layout.blocks().start + u64::from(index.0) * PAGE_SIZE) as usize;
                let sum = crc32c(&image[at..][..PAGE_SIZE as usize]).0.to_le_bytes();
                let kept = layout.checksums().start as usize + index.0 as usize * 4;
                if image[kept..][..4] != sum {
                    return Err(format!("the checksum of block {} is wrong", index.0));
                }
                blocks += 1;
            }
            DumpPageState::Zero => {}
            DumpPageState::Missing => return Err(format!("page {} is missing", index.0)),
        }
    }
    if image[..4] != *b"\x7fELF" {
        return Err("no ELF header".into());
    }
    let count = usize::from(u16::from_le_bytes([image[56], image[57]]));
    let headers = (1..count).map(|n| 64 + n * 56);
    let (mut in_file, mut in_memory) = (0, 0);
    for at in headers {
        (in_file, in_memory) = (in_file + word(image, at + 32), in_memory + word(image, at + 40));
    }
    let expected = [u64::from(blocks), u64::from(layout.pages())].map(|pages| pages * PAGE_SIZE);
    if [in_file, in_memory] != expected {
        return Err(format!("segments of {in_file} and {in_memory} bytes, not {expected:?}"));
    }
    Ok(blocks)
}
