//! The boot archive: one tar file with the configuration and all images, passed as the only module
//! on every boot path.
//!
//! PVH passes a single initrd, so kernels, initrds, the configuration and the symbol table travel
//! together. Time stamps and owners are zero: the same input gives the same bytes.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The source of a module's bytes.
#[derive(Clone, Debug)]
pub enum ModuleSource {
    /// A file, copied when the archive is written.
    File(PathBuf),
    /// Bytes held in memory.
    Bytes(Vec<u8>),
}

/// Characters of a file's path that appear in its module's name. With the number, the name stays
/// below the 100 bytes of a tar header.
const READABLE: usize = 80;

/// The modules of a boot archive, in order.
#[derive(Clone, Debug, Default)]
pub struct ModuleArchive {
    modules: Vec<(String, ModuleSource)>,
}

impl ModuleArchive {
    /// Adds a module that this program names.
    ///
    /// # Panics
    /// Where a module of that name exists already. That is a bug here: names of files carry a
    /// number.
    pub fn add(&mut self, name: &str, source: ModuleSource) {
        assert!(
            self.modules.iter().all(|(n, _)| n != name),
            "a module's name is given once: {name}"
        );
        self.modules.push((name.to_owned(), source));
    }

    /// Adds a file unless the archive has it already; returns its module's name.
    ///
    /// The end of the path is shown for people. The number in front keeps module names distinct,
    /// however the path was cut or its characters replaced.
    pub fn add_file(&mut self, path: PathBuf) -> String {
        let is_it =
            |source: &ModuleSource| matches!(source, ModuleSource::File(there) if *there == path);
        if let Some((name, _)) = self.modules.iter().find(|(_, source)| is_it(source)) {
            return name.clone();
        }
        let text: Vec<_> = path
            .display()
            .to_string()
            .chars()
            .map(|c| if c.is_ascii_graphic() { c } else { '_' })
            .collect();
        let tail: String = text[text.len().saturating_sub(READABLE)..].iter().collect();
        let name = format!("{}/{}", self.modules.len(), tail.trim_start_matches('/'));
        self.add(&name, ModuleSource::File(path));
        name
    }

    /// Returns the file of a module; `None` if there is no such module, or its bytes are in memory.
    pub fn file(&self, name: &str) -> Option<&Path> {
        let (_, source) = self.modules.iter().find(|(other, _)| other == name)?;
        match source {
            ModuleSource::File(path) => Some(path),
            ModuleSource::Bytes(_) => None,
        }
    }

    /// Replaces the bytes of a module.
    pub fn replace(&mut self, name: &str, source: ModuleSource) {
        self.modules.retain(|(other, _)| other != name);
        self.add(name, source);
    }

    /// Returns the bytes of memory that the archive will occupy.
    ///
    /// # Errors
    /// Where a file's size cannot be read.
    pub fn size(&self) -> Result<u64> {
        let mut total = 1024;
        for (_, source) in &self.modules {
            total += 512 + length(source)?.next_multiple_of(512);
        }
        Ok(total)
    }

    /// Writes the archive to `path`, whole or not at all.
    ///
    /// # Errors
    /// Names the file that cannot be read or written.
    pub fn write(&self, path: &Path) -> Result<()> {
        crate::atomic::write(path, |file| {
            let mut tar = tar::Builder::new(std::io::BufWriter::new(file));
            for (name, source) in &self.modules {
                append(&mut tar, name, source)?;
            }
            tar.into_inner()?.into_inner().map_err(|e| e.into_error())?;
            Ok(())
        })
    }
}

fn length(source: &ModuleSource) -> Result<u64> {
    match source {
        ModuleSource::File(path) => {
            Ok(std::fs::metadata(path).with_context(|| format!("{}", path.display()))?.len())
        }
        ModuleSource::Bytes(bytes) => Ok(bytes.len() as u64),
    }
}

fn append(
    tar: &mut tar::Builder<impl std::io::Write>,
    name: &str,
    source: &ModuleSource,
) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o444);
    header.set_size(length(source)?);
    match source {
        ModuleSource::File(path) => {
            let mut file = File::open(path)
                .with_context(|| format!("{}", path.display()))?
                .take(header.size()?);
            tar.append_data(&mut header, name, &mut file)?;
        }
        ModuleSource::Bytes(bytes) => tar.append_data(&mut header, name, bytes.as_slice())?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "given once")]
    fn a_name_that_is_given_twice_is_our_bug() {
        let mut archive = ModuleArchive::default();
        archive.add("config", ModuleSource::Bytes(vec![1]));
        archive.add("config", ModuleSource::Bytes(vec![2]));
    }

    #[test]
    fn files_whose_names_look_alike_are_different_modules() {
        let long = |start: char| PathBuf::from(format!("/{start}/{}/vmlinuz", "x".repeat(90)));
        let files = [
            long('a'),
            long('b'),
            "/a b".into(),
            "/a_b".into(),
            "/ä".into(),
            "/ö".into(),
            "/config".into(),
        ];
        let mut archive = ModuleArchive::default();
        let names: Vec<_> = files.iter().map(|file| archive.add_file(file.clone())).collect();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), files.len(), "{names:?}");
        assert!(names.iter().all(|name| name.len() < 100 && name != "config"));
        assert_eq!(archive.add_file(files[1].clone()), names[1], "one file is one module");
        assert_eq!(archive.modules.len(), files.len());
        assert_eq!(archive.file(&names[2]), Some(files[2].as_path()));
        assert_eq!(archive.file("config"), None);
    }

    #[test]
    fn the_size_told_is_the_size_written() {
        let mut archive = ModuleArchive::default();
        archive.add("config", ModuleSource::Bytes(vec![1; 700]));
        archive.add("kernel", ModuleSource::Bytes(vec![3; 512]));
        let file = tempfile::NamedTempFile::new().unwrap();
        archive.write(file.path()).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(bytes.len() as u64, archive.size().unwrap());
        let mut tar = tar::Archive::new(bytes.as_slice());
        let names: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["config", "kernel"]);
    }
}
