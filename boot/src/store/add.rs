//! Adding images. The content is read twice: for its digest, and for the copy. A file that changed
//! in between is refused.

use super::{ImageStore, now};
use crate::setup::progress::ByteProgress;
use anyhow::{Context, Result, bail};
use kernel::images::change;
use kernel::images::entry::MAX_LABEL;
use kernel::images::layout::CHUNK;
use kernel::images::write::ImageWriter;
use kernel::images::{ImageDigest, ImageKind, ImageState, StoredImage};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes from which on a copy shows its progress.
const LONG: u64 = 64 << 20;

/// An image to add.
#[derive(Clone, Copy, Debug)]
pub struct NewImage<'a> {
    /// The file with its content.
    pub file: &'a Path,
    /// A name for people.
    pub label: &'a str,
    /// What it is for.
    pub kind: ImageKind,
    /// Whether it stays without a definition that names it.
    pub is_kept: bool,
}

/// Reads a file in chunks of a store; returns its digest and its length.
fn each_chunk(
    path: &Path,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<(ImageDigest, u64)> {
    let context = || path.display().to_string();
    let mut file = File::open(path).with_context(context)?;
    let (mut hash, mut chunk, mut length) = (Sha256::new(), Vec::with_capacity(CHUNK), 0);
    loop {
        chunk.clear();
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut chunk);
        if read.with_context(context)? == 0 {
            return Ok((ImageDigest(hash.finalize().into()), length));
        }
        hash.update(&chunk);
        length += chunk.len() as u64;
        take(&chunk)?;
    }
}

/// Returns the text as a label: its end, where it is too long.
fn label(text: &str) -> &str {
    let mut start = text.len().saturating_sub(MAX_LABEL);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

impl ImageStore {
    /// Adds an image, unless one with the same content is there; returns its digest, and whether it
    /// is new.
    ///
    /// # Errors
    /// Names the file that cannot be read or has changed meanwhile, or why the store cannot take
    /// it.
    pub fn add(&mut self, new: NewImage<'_>) -> Result<(ImageDigest, bool)> {
        crate::regular::check(new.file)?;
        let path = self.file.path().to_owned();
        let (digest, length) = each_chunk(new.file, |_| Ok(()))?;
        let entry = StoredImage {
            digest,
            length,
            kind: new.kind,
            state: ImageState::Present,
            is_kept: new.is_kept,
            extents: Default::default(),
            label: label(new.label).try_into().unwrap_or_default(),
            added_ns: self.author.now_ns,
        };
        if let Some(there) = self.store.directory().image(digest) {
            let is_kept = there.is_kept || new.is_kept;
            let label = if new.is_kept { entry.label } else { there.label };
            let wanted =
                StoredImage { is_kept, label, state: ImageState::Present, ..there.clone() };
            if wanted != *there {
                self.put(wanted)?;
            }
            return Ok((digest, false));
        }
        let context = || format!("{}: {}", path.display(), new.file.display());
        let entry = now(new.file, async { change::plan(&self.store, entry) })
            .with_context(|| path.display().to_string())?;
        let mut writer = ImageWriter::new(self.store.uuid(), entry).with_context(context)?;
        let mut progress = (length >= LONG).then(|| ByteProgress::new(&context(), length));
        let mut done = 0;
        let file = &mut self.file;
        let (copied, _) = each_chunk(new.file, |chunk| {
            now(&path, writer.chunk(file, chunk))?;
            done += chunk.len() as u64;
            progress.iter_mut().for_each(|progress| progress.set(done));
            Ok(())
        })?;
        if copied != digest {
            bail!("{}: has changed while it was read", new.file.display());
        }
        let image = now(&path, writer.finish(file))?;
        self.put(image)?;
        Ok((digest, true))
    }

    fn put(&mut self, image: StoredImage) -> Result<()> {
        let path = self.file.path().to_owned();
        let change = change::put(&mut self.file, &self.store, self.author, image);
        self.store = now(&path, change)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_label_keeps_its_end() {
        assert_eq!(label("vmlinuz"), "vmlinuz");
        let long = format!("{}ä{}", "x".repeat(40), "y".repeat(63));
        assert_eq!(label(&long), "y".repeat(63));
    }
}
