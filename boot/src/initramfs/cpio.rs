//! A cpio archive in the `newc` format, as Linux unpacks it (Linux:
//! `driver-api/early-userspace/buffer-format`).
//!
//! Written here so that no tool is needed and device nodes need no root rights. Owners and times
//! are zero.

use std::io::{Result, Write};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;
const TRAILER: &str = "TRAILER!!!";

/// An archive that is being written.
pub struct CpioArchive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> CpioArchive<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    /// Adds a folder.
    pub fn folder(&mut self, name: &str) -> Result<()> {
        self.entry(name, FOLDER, (0, 0), &[])
    }

    /// Adds a program.
    pub fn program(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.entry(name, PROGRAM, (0, 0), bytes)
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.entry(name, FILE, (0, 0), bytes)
    }

    /// Adds a character device.
    pub fn character_device(&mut self, name: &str, major: u32, minor: u32) -> Result<()> {
        self.entry(name, CHARACTER_DEVICE, (major, minor), &[])
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<W> {
        self.entry(TRAILER, 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), bytes: &[u8]) -> Result<()> {
        self.inode += 1;
        let name_size = name.len() as u32 + 1;
        let size = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
        // inode mode uid gid links time size, device of the file, device number of the node, name
        // length, checksum
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(6 + 13 * 8 + name_size as usize)?;
        self.out.write_all(bytes)?;
        self.pad(bytes.len())
    }

    fn pad(&mut self, written: usize) -> Result<()> {
        self.out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_their_fields_where_linux_looks() {
        let mut archive = CpioArchive::new(Vec::new());
        archive.program("init", b"12345").unwrap();
        archive.character_device("dev/console", 5, 1).unwrap();
        let bytes = archive.finish().unwrap();
        let field =
            |entry: usize, n: usize| std::str::from_utf8(&bytes[entry + 6 + 8 * n..][..8]).unwrap();
        assert_eq!((field(0, 1), field(0, 6), field(0, 11)), ("000081ed", "00000005", "00000005"));
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..124], b"12345\0\0\0");
        assert_eq!(
            (&bytes[124..130], field(124, 9), field(124, 10)),
            (b"070701".as_slice(), "00000005", "00000001")
        );
        assert!(
            bytes.len().is_multiple_of(4) && bytes.windows(10).any(|w| w == TRAILER.as_bytes())
        );
    }
}
