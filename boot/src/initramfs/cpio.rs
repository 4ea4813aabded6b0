//! A cpio archive in the `newc` format, as Linux unpacks it (Linux:
//! `driver-api/early-userspace/buffer-format`).
//!
//! The host command writes it itself: no tool is needed, and device nodes need no root rights.
//! Owners and times are zero, so the same input gives the same bytes.

use cpio::newc::{Builder, ModeFileType, trailer};
use std::io::{Result, Write};

/// An archive that is being written.
pub(super) struct CpioArchive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> CpioArchive<W> {
    /// Begins an archive.
    pub(super) fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    /// Adds a folder.
    pub(super) fn folder(&mut self, name: &str) -> Result<()> {
        self.entry(Builder::new(name).mode(0o755).set_mode_file_type(ModeFileType::Directory), &[])
    }

    /// Adds a program.
    pub(super) fn program(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.entry(Builder::new(name).mode(0o755).set_mode_file_type(ModeFileType::Regular), bytes)
    }

    /// Adds a file.
    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.entry(Builder::new(name).mode(0o644).set_mode_file_type(ModeFileType::Regular), bytes)
    }

    /// Adds a character device.
    pub(super) fn character_device(&mut self, name: &str, major: u32, minor: u32) -> Result<()> {
        let node = Builder::new(name).rdev_major(major).rdev_minor(minor);
        self.entry(node.mode(0o600).set_mode_file_type(ModeFileType::Char), &[])
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> Result<W> {
        let mut out = trailer(self.out)?;
        out.flush()?;
        Ok(out)
    }

    /// Adds an entry. The crate counts a size of 4 GiB or more modulo 4 GiB, hence the check.
    fn entry(&mut self, entry: Builder, bytes: &[u8]) -> Result<()> {
        self.inode += 1;
        let size = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
        let mut writer = entry.ino(self.inode).write(&mut self.out, size);
        writer.write_all(bytes)?;
        writer.finish().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Magic, inode, mode, owner, group, links, time, size, device of the file, device number of
    /// the node, length of the name, checksum; name and content, each padded to four bytes.
    const EXPECTED: &str = "\
        070701\
        00000001000041ed000000000000000000000001000000000000000000000000000000000000000000000000\
        0000000400000000dev\0\0\0\
        070701\
        00000002000081ed000000000000000000000001000000000000000500000000000000000000000000000000\
        0000000500000000init\0\x0012345\0\0\0\
        070701\
        00000003000081a4000000000000000000000001000000000000000400000000000000000000000000000000\
        0000000200000000f\x001234\
        070701\
        0000000400002180000000000000000000000001000000000000000000000000000000000000000500000001\
        0000000c00000000dev/console\0\0\0\
        070701\
        0000000000000000000000000000000000000001000000000000000000000000000000000000000000000000\
        0000000b00000000TRAILER!!!\0\0\0\0";

    #[test]
    fn every_byte_is_where_linux_looks() {
        let mut archive = CpioArchive::new(Vec::new());
        archive.folder("dev").unwrap();
        archive.program("init", b"12345").unwrap();
        archive.file("f", b"1234").unwrap();
        archive.character_device("dev/console", 5, 1).unwrap();
        assert_eq!(String::from_utf8(archive.finish().unwrap()).unwrap(), EXPECTED);
    }
}
