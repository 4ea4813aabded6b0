//! An independent reader of dumps: it reads the ELF64 core as any program does, and the keyed pages
//! of a test kernel in it.

use anyhow::{Context, Result, bail, ensure};
use object::elf::{ET_CORE, PT_LOAD, PT_NOTE};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use std::collections::BTreeMap;
use worker::{PAGE_BYTES, PageIdentity, WorkerPage};

/// The keyed pages of a dump.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyedPages {
    /// Generation by index, of the correct pages.
    pub generations: BTreeMap<u64, u64>,
    /// Number of wrong pages.
    pub wrong: u64,
    /// Program headers of the dump.
    pub segments: usize,
}

/// Reads all pages with `key` from the dump that begins at the first byte of `image`.
///
/// # Errors
/// Where it is no core, or a segment lies outside the image.
pub fn keyed_pages(image: &[u8], key: u64) -> Result<KeyedPages> {
    let elf = ElfFile64::<object::Endianness>::parse(image).context("no ELF64 file")?;
    let endian = elf.endian();
    ensure!(elf.elf_header().e_type(endian) == ET_CORE, "no core");
    let segments = elf.elf_program_headers();
    ensure!(
        segments.first().is_some_and(|first| first.p_type(endian) == PT_NOTE),
        "the notes come first"
    );
    let mut pages = KeyedPages { segments: segments.len(), ..KeyedPages::default() };
    for segment in segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD) {
        let (offset, size) = (segment.p_offset(endian) as usize, segment.p_filesz(endian) as usize);
        let Some(bytes) = image.get(offset..offset + size) else {
            bail!("a segment lies outside the image")
        };
        bytes.as_chunks::<PAGE_BYTES>().0.iter().for_each(|page| pages.take(page, key));
    }
    Ok(pages)
}

impl KeyedPages {
    fn take(&mut self, bytes: &[u8], key: u64) {
        let mut page: WorkerPage = [0; PAGE_BYTES / 8];
        for (word, bytes) in page.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let Some(identity) = PageIdentity::of(&page).filter(|identity| identity.key == key) else {
            return;
        };
        let doubled = self.generations.contains_key(&identity.index);
        if doubled || identity.check(&page).is_err() || worker::check_crc(&page).is_err() {
            self.wrong += 1;
        } else {
            self.generations.insert(identity.index, identity.generation);
        }
    }
}
