//! The boot archive: one tar file with everything that the hypervisor starts with.
//!
//! Only what the host command writes is understood: regular files with ustar headers and short names. A damaged archive ends where
//! the damage is; what is behind is not found, and the loader says which image is missing.

use super::ImageSource;

const BLOCK: usize = 512;
const NAME: core::ops::Range<usize> = 0..100;
const SIZE: core::ops::Range<usize> = 124..136;
const CHECKSUM: core::ops::Range<usize> = 148..156;
const KIND: usize = 156;

/// A view of an archive in memory.
#[derive(Clone, Copy)]
pub struct BootArchive<'a>(&'a [u8]);

impl<'a> BootArchive<'a> {
    /// Wraps the archive's bytes.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the files: name and bytes.
    pub fn files(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (header, body) = rest.split_at_checked(BLOCK)?;
            let file = body.get(..size(header)?)?;
            rest = body.get(file.len().checked_next_multiple_of(BLOCK)?..).unwrap_or(&[]);
            Some((name(header)?, file))
        })
    }

    /// Returns the bytes of the file called `name`.
    pub fn find(self, name: &str) -> Option<&'a [u8]> {
        self.files().find(|(file, _)| *file == name).map(|(_, bytes)| bytes)
    }
}

impl ImageSource for BootArchive<'_> {
    fn module(&self, name: &str) -> Option<&[u8]> {
        self.find(name)
    }
}

fn name(header: &[u8]) -> Option<&str> {
    let field = header.get(NAME)?;
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    core::str::from_utf8(&field[..end]).ok().filter(|name| !name.is_empty())
}

/// Returns the file's size, if the header's checksum holds and it is a regular file.
fn size(header: &[u8]) -> Option<usize> {
    let sum = |range: core::ops::Range<usize>| header[range].iter().map(|&b| usize::from(b)).sum::<usize>();
    let spaces = CHECKSUM.len() * usize::from(b' ');
    let expected = sum(0..CHECKSUM.start) + spaces + sum(CHECKSUM.end..BLOCK);
    let regular = matches!(header[KIND], b'0' | 0);
    if octal(&header[CHECKSUM])? == expected && regular { octal(&header[SIZE]) } else { None }
}

fn octal(field: &[u8]) -> Option<usize> {
    let digits = field.iter().skip_while(|&&b| b == b' ').take_while(|&&b| b != 0 && b != b' ');
    digits.into_iter().try_fold(0usize, |value, &b| {
        let digit = usize::from(b.checked_sub(b'0').filter(|&d| d < 8)?);
        value.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Makes an archive as the host command does.
    pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, body) in files {
            let mut header = [0u8; BLOCK];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[SIZE].copy_from_slice(format!("{:011o}\0", body.len()).as_bytes());
            header[KIND] = b'0';
            header[CHECKSUM].fill(b' ');
            let sum: usize = header.iter().map(|&b| usize::from(b)).sum();
            header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            bytes.extend(header);
            bytes.extend(*body);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        bytes
    }

    #[test]
    fn files_are_found_by_name_whatever_their_size() {
        let bytes = archive(&[("config", b"abc"), ("empty", b""), ("kernel", &[7; 1024])]);
        let archive = BootArchive::new(&bytes);
        assert_eq!(archive.files().map(|(name, _)| name).collect::<Vec<_>>(), ["config", "empty", "kernel"]);
        assert_eq!((archive.find("config"), archive.find("empty")), (Some(&b"abc"[..]), Some(&b""[..])));
        assert_eq!((archive.find("kernel").map(<[u8]>::len), archive.find("kern")), (Some(1024), None));
    }

    #[test]
    fn a_damaged_archive_ends_where_the_damage_is() {
        let good = archive(&[("a", b"1"), ("b", &[2; 600]), ("c", b"3")]);
        for at in [1024, 1024 + 124, 1024 + 150] {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert_eq!((BootArchive::new(&bad).find("a"), BootArchive::new(&bad).find("c")), (Some(&b"1"[..]), None));
        }
        for length in 0..good.len() {
            let _ = BootArchive::new(&good[..length]).files().count();
        }
    }

    #[test]
    fn a_size_beyond_everything_is_no_file() {
        let mut bytes = archive(&[("a", b"1")]);
        bytes[SIZE].fill(b'7');
        bytes[CHECKSUM].fill(b' ');
        let sum: usize = bytes[..BLOCK].iter().map(|&b| usize::from(b)).sum();
        bytes[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(BootArchive::new(&bytes).find("a"), None);
    }
}
