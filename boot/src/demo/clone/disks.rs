//! The images of the base and its children, read and damaged while the machine runs.

use super::CloneScale;
use crate::dump::Dump;
use crate::volume::{SpaceImage, VolumeAccess, VolumeDisk};
use anyhow::{Context, Result, ensure};
use kernel::addr::PAGE_SIZE;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that are read at a time.
const PIECE: usize = 4 << 20;
/// The first bytes of a page of the worker's kind; its key follows.
const MAGIC: &[u8; 8] = b"TPWORKER";
/// Keys of the base's pages, and of those that are damaged.
const BASE_KEY: u64 = 0x5eed;
const BAIT_KEY: u64 = 0xba17;
/// A byte of a page that its check covers.
const DAMAGED_AT: u64 = 2000;

/// Pages with a key that were found in the spaces of children.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeyCount {
    /// Pages of the space's own child.
    pub own: u64,
    /// Pages with the key of another child.
    pub foreign: u64,
}

/// Counts the keys in all spaces of the children's image.
///
/// # Errors
/// Where it cannot be read.
pub fn count_keys(image: &Path, scale: &CloneScale) -> Result<KeyCount> {
    let mut count = KeyCount::default();
    for space in VolumeDisk::open(image, VolumeAccess::Read)?.usable()? {
        let Some(owner) = space.record().ok().and_then(|record| record.owner) else { continue };
        let number = (1..=scale.children).find(|n| CloneScale::name(*n) == owner.name.as_str());
        let Some(number) = number else { continue };
        each_key(&space, |_, key| match key {
            BASE_KEY | BAIT_KEY => {}
            key if key == CloneScale::key(number, owner.epoch) => count.own += 1,
            _ => count.foreign += 1,
        })?;
    }
    Ok(count)
}

/// Damages the blocks of the base's pages that nothing has looked at since they were filled;
/// returns their number.
///
/// # Errors
/// Where the image cannot be read or written.
pub fn damage_bait(image: &Path) -> Result<u64> {
    let space = SpaceImage::open(image, VolumeAccess::Read)?;
    let file = OpenOptions::new().read(true).write(true).open(image)?;
    let mut damaged = Vec::new();
    each_key(&space, |at, key| {
        if key == BAIT_KEY {
            damaged.push(space.area().start() + at + DAMAGED_AT);
        }
    })?;
    for at in &damaged {
        let mut byte = [0];
        file.read_exact_at(&mut byte, *at)?;
        file.write_all_at(&[!byte[0]], *at)?;
    }
    file.sync_data()?;
    ensure!(!damaged.is_empty(), "{}: no page to damage", image.display());
    Ok(damaged.len() as u64)
}

/// Copies the sealed dump in a space of the children's image to a file of its own, which every
/// reader opens.
///
/// # Errors
/// Where there is none, or the file cannot be written.
pub fn bring_out(image: &Path, space: u32, file: &Path) -> Result<()> {
    let from = VolumeDisk::open(image, VolumeAccess::Read)?.space(Some(space))?;
    let dump = Dump::of(VolumeDisk::open(image, VolumeAccess::Read)?.space(Some(space))?)?;
    ensure!(dump.record().crash.is_some(), "{}: holds no dump", from.name());
    let to = File::create(file).with_context(|| format!("{}", file.display()))?;
    to.set_len(from.capacity())?;
    each_piece(&from, |at, bytes| {
        if bytes.iter().any(|byte| *byte != 0) {
            to.write_all_at(bytes, at)?;
        }
        Ok(())
    })
}

fn each_piece(space: &SpaceImage, mut look: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let mut bytes = vec![0; PIECE];
    let mut at = 0;
    while at < space.capacity() {
        let len = usize::try_from(space.capacity() - at)?.min(PIECE);
        space.read(at, &mut bytes[..len])?;
        look(at, &bytes[..len])?;
        at += len as u64;
    }
    Ok(())
}

/// Calls `look` with place and key of each page of the worker's kind.
fn each_key(space: &SpaceImage, mut look: impl FnMut(u64, u64)) -> Result<()> {
    each_piece(space, |at, bytes| {
        for (n, page) in (0..).zip(bytes.chunks(PAGE_SIZE as usize)) {
            let key = page.strip_prefix(MAGIC).and_then(|rest| rest.first_chunk());
            if let Some(key) = key {
                look(at + n * PAGE_SIZE, u64::from_le_bytes(*key));
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume;

    #[test]
    fn pages_are_found_by_their_keys_and_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("base.img");
        volume::create(&image, 8 << 20).unwrap();
        let file = OpenOptions::new().write(true).open(&image).unwrap();
        for (page, key) in [(300_u64, BASE_KEY), (301, BAIT_KEY), (1400, BAIT_KEY)] {
            file.write_all_at(MAGIC, page * PAGE_SIZE).unwrap();
            file.write_all_at(&key.to_le_bytes(), page * PAGE_SIZE + 8).unwrap();
        }
        let before = std::fs::read(&image).unwrap();
        assert_eq!(damage_bait(&image).unwrap(), 2);
        let after = std::fs::read(&image).unwrap();
        let changed: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        let place = |page: usize| page * PAGE_SIZE as usize + DAMAGED_AT as usize;
        assert_eq!(changed, [place(301), place(1400)]);
    }
}
