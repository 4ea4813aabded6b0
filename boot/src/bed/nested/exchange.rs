//! The disk that carries files into and out of the Linux within Bochs.
//!
//! ```text
//!  MiB 0        1                                            2048
//!      [ script | input files, one after the other          | output                 ]
//! ```
//!
//! It carries files only. While a machine runs, its paging devices are files in the Linux's memory:
//! each access to an ATA disk of Bochs costs a millisecond of emulated time, and Bochs emulates
//! waiting time no faster than work.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The disk's file, in the folder of the Linux's files.
pub(super) const NAME: &str = "exchange.img";
const MIB: u64 = 1 << 20;
const FILES: u64 = MIB;
/// Where the Linux writes its output, in MiB.
pub(super) const OUT_MIB: u64 = 2048;
const END: u64 = 2 * OUT_MIB * MIB;

/// The disk.
pub(super) struct Exchange(File);

/// A file's place on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    /// Its start, in MiB.
    pub mib: u64,
    /// Its length.
    pub bytes: u64,
}

impl Exchange {
    /// Creates the disk, blank.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(folder.join(NAME))?;
        file.set_len(END)?;
        Ok(Self(file))
    }

    /// Writes a script to the start of the disk.
    pub(super) fn put_script(&self, script: &str) -> Result<()> {
        ensure!(script.len() as u64 <= FILES, "the script is too long");
        Ok(self.0.write_all_at(script.as_bytes(), 0)?)
    }

    /// Replaces all files on the disk by `files`; returns the place of each.
    pub(super) fn put(&self, files: &[&Path]) -> Result<Vec<Extent>> {
        // Truncating makes the blocks read as zeros, and keeps the file that Bochs has open.
        self.0.set_len(0)?;
        self.0.set_len(END)?;
        let mut start = FILES;
        let mut extents = Vec::new();
        for path in files {
            let mut file = File::open(path).with_context(|| format!("{}", path.display()))?;
            let bytes = file.metadata()?.len();
            ensure!(
                start + bytes <= OUT_MIB * MIB,
                "{} does not fit on the exchange disk",
                path.display()
            );
            copy(
                bytes,
                |piece, _| Ok(file.read_exact(piece)?),
                |piece, at| Ok(self.0.write_all_at(piece, start + at)?),
            )?;
            extents.push(Extent { mib: start / MIB, bytes });
            start += bytes.next_multiple_of(MIB);
        }
        Ok(extents)
    }

    /// Writes the first `bytes` bytes of the output to `path`.
    pub(super) fn fetch(&self, bytes: u64, path: &Path) -> Result<()> {
        ensure!(bytes <= END - OUT_MIB * MIB, "{bytes} bytes do not fit on the exchange disk");
        crate::atomic::write(path, |file| {
            file.set_len(bytes)?;
            let read =
                |piece: &mut [u8], at| Ok(self.0.read_exact_at(piece, OUT_MIB * MIB + at)?);
            copy(bytes, read, |piece, at| Ok(file.write_all_at(piece, at)?))
        })
    }
}

/// Copies `bytes` bytes piece by piece; pieces of zeros are skipped.
fn copy(
    bytes: u64,
    mut read: impl FnMut(&mut [u8], u64) -> Result<()>,
    write: impl Fn(&[u8], u64) -> Result<()>,
) -> Result<()> {
    const STEP: u64 = 1 << 16;
    let mut buffer = [0; STEP as usize];
    for at in (0..bytes).step_by(STEP as usize) {
        let piece = &mut buffer[..STEP.min(bytes - at) as usize];
        read(piece, at)?;
        if piece.iter().any(|&byte| byte != 0) {
            write(piece, at)?;
        }
    }
    Ok(())
}

/// Returns whether a file contains only zeros.
pub(super) fn is_blank(path: &Path) -> Result<bool> {
    let mut file = File::open(path).with_context(|| format!("{}", path.display()))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(true),
            n if buffer[..n].iter().any(|&byte| byte != 0) => return Ok(false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_lie_one_after_the_other_and_nothing_of_earlier_ones_is_left() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        let exchange = Exchange::new(folder).unwrap();
        let (first, second) = (folder.join("a"), folder.join("b"));
        fs::write(&first, vec![7; 3 << 20]).unwrap();
        fs::write(&second, vec![0; 5]).unwrap();
        exchange.put(&[&first]).unwrap();
        let extents = exchange.put(&[&second, &first]).unwrap();
        assert_eq!(extents, [Extent { mib: 1, bytes: 5 }, Extent { mib: 2, bytes: 3 << 20 }]);
        let byte = |at| {
            let mut byte = [0];
            exchange.0.read_exact_at(&mut byte, at).unwrap();
            byte[0]
        };
        assert_eq!((byte(MIB), byte(2 * MIB), byte(5 * MIB - 1)), (0, 7, 7));
        assert_eq!((is_blank(&first).unwrap(), is_blank(&second).unwrap()), (false, true));
    }

    #[test]
    fn what_is_brought_out_keeps_its_holes_and_its_length() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        let exchange = Exchange::new(folder).unwrap();
        exchange.0.write_all_at(&[9], OUT_MIB * MIB + (1 << 16)).unwrap();
        exchange.fetch(5 << 16, &folder.join("out")).unwrap();
        let out = fs::read(folder.join("out")).unwrap();
        assert_eq!((out.len(), out[(1 << 16) - 1], out[1 << 16]), (5 << 16, 0, 9));
    }
}
