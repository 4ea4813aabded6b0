//! The boot archive: one tar file with all modules for the hypervisor, by name.
//!
//! It is one file because PVH hands over one module. The host command writes it. Its structure is
//! checked once, here, and it is then read in place.

#[cfg(test)]
pub mod fake;

use core::fmt;
use tar_no_std::TarArchiveRef;

/// The modules in memory. Their contents are not trusted; each parser checks its own.
#[derive(Clone, Copy)]
pub struct BootArchive {
    bytes: &'static [u8],
}

/// The archive is not a complete tar file; the text gives the position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArchiveError(tar_no_std::CorruptDataError);

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot archive: {}", self.0)
    }
}

impl BootArchive {
    /// Name of the module that holds the host command's word: bytes unique to this start.
    pub const WORD: &'static str = "word";

    /// Checks the archive's structure.
    ///
    /// # Errors
    /// [`ArchiveError`] if it is not a complete tar file.
    pub fn new(bytes: &'static [u8]) -> Result<Self, ArchiveError> {
        TarArchiveRef::new(bytes).map(|_| Self { bytes }).map_err(ArchiveError)
    }

    /// Returns the contents of the module called `name`; `None` if there is none.
    pub fn module(&self, name: &str) -> Option<&'static [u8]> {
        let archive = TarArchiveRef::new(self.bytes).ok()?;
        archive
            .entries()
            .find(|entry| entry.filename().as_str() == Ok(name))
            .map(|entry| entry.data())
    }

    /// Returns the number of modules.
    pub fn len(&self) -> usize {
        TarArchiveRef::new(self.bytes).map_or(0, |archive| archive.entries().count())
    }

    /// Returns whether there are no modules.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::fake::tar;
    use super::*;

    #[test]
    fn modules_are_found_by_name() {
        let archive = BootArchive::new(tar(&[("config", b"abc"), ("symbols", &[7; 600])])).unwrap();
        assert_eq!(archive.module("config"), Some(&b"abc"[..]));
        assert_eq!(archive.module("symbols").map(<[u8]>::len), Some(600));
        assert_eq!((archive.module("conf"), archive.len()), (None, 2));
    }

    #[test]
    fn a_truncated_archive_is_refused() {
        let whole = tar(&[("symbols", &[7; 6000])]);
        assert!(BootArchive::new(&whole[..2048]).is_err());
        assert!(BootArchive::new(&[]).is_err());
    }
}
