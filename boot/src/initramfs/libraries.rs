//! The shared libraries of a program, found as the dynamic linker would find them (System V ABI,
//! "Dynamic Linking").

use super::cpio::CpioArchive;
use anyhow::{Context, Result};
use object::elf::{DT_NEEDED, DT_NULL, PT_INTERP};
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The folders of [`FOLDERS`] and of the dynamic linker; a second path of the same folder is listed
/// once.
const MERGED: &[&str] = &["lib64", "lib/x86_64-linux-gnu"];

/// Folders of Debian's libraries; the dynamic linker searches them by default.
const FOLDERS: &[&str] = &["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"];

/// Files by the path at which the dynamic linker looks for them.
#[derive(Default)]
pub(super) struct Libraries(BTreeMap<PathBuf, Vec<u8>>);

impl Libraries {
    /// Adds the libraries that the ELF file `bytes` needs, and their own dependencies.
    ///
    /// # Errors
    /// Names the missing library.
    pub(super) fn add_for(&mut self, bytes: &[u8]) -> Result<()> {
        let mut next: Vec<PathBuf> = interpreter(bytes)?.into_iter().collect();
        for name in needed(bytes)? {
            next.push(find(&name).with_context(|| format!("{name}: no such library"))?);
        }
        for path in next {
            if let Entry::Vacant(vacant) = self.0.entry(path) {
                let library = std::fs::read(vacant.key())
                    .with_context(|| format!("{}", vacant.key().display()))?;
                let library = vacant.insert(library).clone();
                self.add_for(&library)?;
            }
        }
        Ok(())
    }

    /// Adds all libraries to an archive that has the folder `lib`.
    ///
    /// # Errors
    /// Where the archive cannot be written.
    pub(super) fn put<W: Write>(&self, archive: &mut CpioArchive<W>) -> Result<()> {
        MERGED.iter().try_for_each(|name| archive.folder(name))?;
        for (path, bytes) in self.files() {
            let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy();
            archive.program(name.trim_start_matches("usr/"), bytes)?;
        }
        Ok(())
    }

    /// Returns all libraries.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.0.iter().map(|(path, bytes)| (path.as_path(), bytes.as_slice()))
    }
}

fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// Returns the dynamic linker that a program names; a library names none.
fn interpreter(bytes: &[u8]) -> Result<Option<PathBuf>> {
    let elf = ElfFile64::<object::Endianness>::parse(bytes).context("no ELF file")?;
    let segment =
        elf.elf_program_headers().iter().find(|segment| segment.p_type(elf.endian()) == PT_INTERP);
    let Some(segment) = segment else { return Ok(None) };
    let name = segment
        .data(elf.endian(), bytes)
        .ok()
        .context("the interpreter's name lies outside the file")?;
    Ok(Some(PathBuf::from(std::str::from_utf8(name)?.trim_end_matches('\0'))))
}

fn needed(bytes: &[u8]) -> Result<Vec<String>> {
    let elf = ElfFile64::<object::Endianness>::parse(bytes).context("no ELF file")?;
    let endian = elf.endian();
    let sections = elf.elf_header().sections(endian, bytes)?;
    let Some((entries, strings)) = sections.dynamic(endian, bytes)? else { return Ok(Vec::new()) };
    let strings = sections.strings(endian, bytes, strings)?;
    let entries = entries.iter().take_while(|entry| entry.d_tag(endian) != DT_NULL);
    let names = entries.filter(|entry| entry.d_tag(endian) == DT_NEEDED);
    names
        .map(|entry| Ok(String::from_utf8_lossy(entry.string(endian, strings)?).into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_needs_its_interpreter_and_the_c_library() {
        let me = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut libraries = Libraries::default();
        libraries.add_for(&me).unwrap();
        let names: Vec<_> = libraries.files().map(|(path, _)| path.display().to_string()).collect();
        assert!(names.iter().any(|name| name.contains("/ld-linux")), "{names:?}");
        assert!(names.iter().any(|name| name.ends_with("/libc.so.6")), "{names:?}");
    }
}
