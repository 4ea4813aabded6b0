//! A reader of GUID partition tables that shares no code with their writer, and functions that
//! damage them.
//!
//! UEFI 2.10 "GUID Partition Table (GPT) Disk Layout"; 512-byte sectors, 128 entries of 128 bytes.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SECTOR: u64 = 512;
const ENTRIES: usize = 128;
const ENTRY: usize = 128;
const HEADER: usize = 92;

/// An entry in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GptEntry {
    /// Its number, counted from 1.
    pub number: usize,
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// The GUID of its type, and its own, byte by byte as in the table.
    pub guids: [[u8; 16]; 2],
}

/// An image with a partition table.
pub struct Gpt {
    file: File,
    sectors: u64,
}

impl Gpt {
    /// Opens an image.
    ///
    /// # Errors
    /// Names the image.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("{}", path.display()))?;
        let sectors = file.metadata()?.len() / SECTOR;
        Ok(Self { file, sectors })
    }

    fn bytes(&self, sector: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, sector * SECTOR)?;
        Ok(bytes)
    }

    /// Returns the boot-code bytes.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn boot_code(&self) -> Result<Vec<u8>> {
        self.bytes(0, 440)
    }

    /// Checks the protective MBR and both copies of the table; returns the entries in use.
    ///
    /// # Errors
    /// Names the fault.
    pub fn check(&self) -> Result<Vec<GptEntry>> {
        let mbr = self.bytes(0, 512)?;
        ensure!(mbr[510..] == [0x55, 0xaa], "no MBR");
        ensure!(
            (mbr[446], mbr[450], u32_at(&mbr, 454)) == (0, 0xee, 1),
            "the first MBR partition is not protective"
        );
        ensure!(
            u64::from(u32_at(&mbr, 458)) == self.sectors - 1,
            "the MBR protects less than the disk"
        );
        ensure!(mbr[462..510].iter().all(|byte| *byte == 0), "the MBR has other partitions");
        let (primary, first) = self.check_copy(1, self.sectors - 1)?;
        let (backup, second) = self.check_copy(self.sectors - 1, 1)?;
        ensure!(first == second, "the copies have other entries");
        ensure!(primary[40..72] == backup[40..72], "the copies describe other disks");
        Ok(first)
    }

    fn check_copy(&self, at: u64, other: u64) -> Result<(Vec<u8>, Vec<GptEntry>)> {
        let mut header = self.bytes(at, HEADER)?;
        ensure!(header.starts_with(b"EFI PART\0\0\x01\0"), "no header in sector {at}");
        let crc = u32_at(&header, 16);
        header[16..20].fill(0);
        ensure!(crc32(&header) == crc, "the CRC of the header in sector {at} is wrong");
        ensure!(
            (u64_at(&header, 24), u64_at(&header, 32)) == (at, other),
            "the header in sector {at} belongs elsewhere"
        );
        let (first, last, entries) =
            (u64_at(&header, 40), u64_at(&header, 48), u64_at(&header, 72));
        let on_its_side = if at == 1 {
            entries >= 2 && entries + 32 <= first
        } else {
            last < entries && entries + 32 <= at
        };
        ensure!(
            on_its_side && first <= last,
            "the entries of the header in sector {at} overlap partitions"
        );
        ensure!(
            (u32_at(&header, 80), u32_at(&header, 84)) == (128, 128),
            "other entries than usual"
        );
        let bytes = self.bytes(entries, ENTRIES * ENTRY)?;
        ensure!(
            crc32(&bytes) == u32_at(&header, 88),
            "the CRC of the entries at {entries} is wrong"
        );
        let used = bytes
            .as_chunks::<ENTRY>()
            .0
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry[..16].iter().any(|byte| *byte != 0));
        let mut found = Vec::new();
        for (n, entry) in used {
            let (start, end) = (u64_at(entry, 32), u64_at(entry, 40));
            ensure!(first <= start && start <= end && end <= last, "entry {} lies outside", n + 1);
            found.push(GptEntry {
                number: n + 1,
                start: start * SECTOR,
                len: (end - start + 1) * SECTOR,
                guids: [0, 16].map(|at| std::array::from_fn(|n| entry[at + n])),
            });
        }
        Ok((header, found))
    }

    /// Changes an entry's 128 bytes in both copies, and updates their CRCs.
    ///
    /// # Errors
    /// Where the image cannot be written.
    pub fn change_entry(&self, number: usize, change: impl Fn(&mut [u8])) -> Result<()> {
        for at in [1, self.sectors - 1] {
            let mut header = self.bytes(at, HEADER)?;
            let entries = u64_at(&header, 72);
            let mut bytes = self.bytes(entries, ENTRIES * ENTRY)?;
            change(&mut bytes[(number - 1) * ENTRY..number * ENTRY]);
            header[88..92].copy_from_slice(&crc32(&bytes).to_le_bytes());
            header[16..20].fill(0);
            let crc = crc32(&header);
            header[16..20].copy_from_slice(&crc.to_le_bytes());
            self.file.write_all_at(&bytes, entries * SECTOR)?;
            self.file.write_all_at(&header, at * SECTOR)?;
        }
        Ok(())
    }

    /// Overwrites the start of a header: of the primary one, or of the one in the last sector.
    ///
    /// # Errors
    /// Where the image cannot be written.
    pub fn spoil(&self, primary: bool) -> Result<()> {
        let sector = if primary { 1 } else { self.sectors - 1 };
        Ok(self.file.write_all_at(b"x", sector * SECTOR + 40)?)
    }
}

/// CRC-32 as in zlib, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| bit(crc)))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_that_we_make_is_right_and_a_spoiled_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        boot::volume::create_spaces(&path, 32 << 20, &[8 << 20, 12 << 20]).unwrap();
        let gpt = Gpt::open(&path).unwrap();
        let entries = gpt.check().unwrap();
        let places: Vec<_> = entries.iter().map(|e| (e.number, e.start, e.len)).collect();
        assert_eq!(places, [(1, 1 << 20, 8 << 20), (2, 9 << 20, 12 << 20)]);
        let [[kind, own], [other_kind, other]] = [0, 1].map(|n| entries[n].guids);
        assert!(kind == other_kind && own != other);
        gpt.change_entry(2, |entry| entry[32] += 1).unwrap();
        assert_eq!(gpt.check().unwrap()[1].start, (9 << 20) + 512);
        gpt.spoil(false).unwrap();
        assert!(
            gpt.check()
                .unwrap_err()
                .to_string()
                .starts_with("the CRC of the header in sector 65535")
        );
    }
}
