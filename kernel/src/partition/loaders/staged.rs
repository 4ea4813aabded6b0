//! The parts of a kernel and an initrd that were read from an image store: a few ranges, each of at
//! most a chunk. So the heap does not grow with an image.

use super::ImageSource;
use crate::images::ImageDigest;
use alloc::vec::Vec;
use arrayvec::ArrayVec;

/// Most ranges at the same time: a plan asks for a kernel's head, its table of segments and the
/// segments with notes.
const MOST_RANGES: usize = 8;

/// A range of an image.
#[derive(Debug)]
struct StagedRange {
    image: ImageDigest,
    offset: u64,
    bytes: Vec<u8>,
}

/// Images of which some ranges are in memory; they have the digits of their digests as names.
#[derive(Debug, Default)]
pub struct StagedImages {
    lengths: ArrayVec<(ImageDigest, u64), 2>,
    ranges: ArrayVec<StagedRange, MOST_RANGES>,
}

impl StagedImages {
    /// Adds an image of this length, a kernel or an initrd.
    pub fn add(&mut self, image: ImageDigest, length: u64) {
        if !self.lengths.iter().any(|(there, _)| *there == image) {
            let _ = self.lengths.try_push((image, length));
        }
    }

    /// Adds a range of an image. If there are too many, the oldest is dropped.
    pub fn put(&mut self, image: ImageDigest, offset: u64, bytes: Vec<u8>) {
        if self.ranges.is_full() {
            self.ranges.remove(0);
        }
        self.ranges.push(StagedRange { image, offset, bytes });
    }

    /// Drops all ranges.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }
}

impl ImageSource for StagedImages {
    fn module(&self, _: &str) -> Option<&[u8]> {
        None
    }

    fn length(&self, name: &str) -> Option<u64> {
        let digest = ImageDigest::from_text(name)?;
        self.lengths.iter().find(|(image, _)| *image == digest).map(|(_, length)| *length)
    }

    fn bytes(&self, name: &str, offset: u64) -> Option<&[u8]> {
        let digest = ImageDigest::from_text(name)?;
        let ranges = self.ranges.iter().filter(|range| range.image == digest);
        let rest = |range: &StagedRange| offset.checked_sub(range.offset).map(|at| at as usize);
        let there = ranges.filter_map(|range| range.bytes.get(rest(range)?..));
        there.max_by_key(|bytes| bytes.len()).filter(|bytes| !bytes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::pvh_elf;
    use super::super::{LoadError, LoadJob, LoadProgress, LoadRequest, plan};
    use super::*;
    use crate::config::KernelModules;
    use crate::mm::layout::RamLayout;
    use crate::partition::acpi::AcpiTables;
    use crate::partition::devices::map::BusPresence;
    use crate::partition::fake::FakeGuestMemory;

    const KERNEL: ImageDigest = ImageDigest([1; 32]);
    const INITRD: ImageDigest = ImageDigest([2; 32]);

    #[test]
    fn a_kernel_is_planned_and_loaded_in_pieces_as_from_memory() {
        let (kernel, initrd) = (pvh_elf(), vec![0x5a; 10_001]);
        let text = |image: ImageDigest| image.text().to_string();
        let modules = KernelModules { image: text(KERNEL), initrd: Some(text(INITRD)) };
        let layout = RamLayout::new(4 << 20).unwrap();
        let acpi = AcpiTables::new(BusPresence::Absent);
        let request = LoadRequest { kernel: &modules, cmdline: "", layout: &layout, acpi: &acpi };
        let mut staged = StagedImages::default();
        staged.add(KERNEL, kernel.len() as u64);
        staged.add(INITRD, initrd.len() as u64);
        let mut asked = 0;
        let planned = loop {
            match plan(&staged, &request) {
                Err(LoadError::Unread { offset, bytes }) => {
                    let (at, len) = (offset as usize, bytes as usize);
                    staged.put(KERNEL, offset, kernel[at..at + len].to_vec());
                    asked += 1;
                }
                planned => break planned.unwrap(),
            }
        };
        assert_eq!(asked, 1, "all headers lie in the first bytes");
        let memory = FakeGuestMemory::new(4 << 20);
        let mut job = LoadJob::new(planned, &modules);
        staged.clear();
        let mut pieces = 0;
        loop {
            match job.step(&staged, &memory, 1000).unwrap() {
                LoadProgress::More => {}
                LoadProgress::Done => break,
                LoadProgress::Unread(role, offset) => {
                    let (image, whole) = match role {
                        super::super::ImageRole::Kernel => (KERNEL, &kernel),
                        super::super::ImageRole::Initrd => (INITRD, &initrd),
                    };
                    let from = offset as usize / 1024 * 1024;
                    let end = whole.len().min(from + 1024);
                    staged.clear();
                    staged.put(image, from as u64, whole[from..end].to_vec());
                    pieces += 1;
                }
            }
        }
        assert_eq!(memory.peek(1 << 20, 0x100), kernel[0x200..0x300]);
        let base = (4 << 20) - 8192 - 10_001_u64.next_multiple_of(4096);
        assert_eq!(memory.peek(base, initrd.len()), initrd);
        assert_eq!(pieces, 11, "one piece of the kernel, and all of the initrd once");
    }

    #[test]
    fn ranges_are_bounded_and_the_longest_rest_counts() {
        let mut staged = StagedImages::default();
        let name = KERNEL.text();
        staged.add(KERNEL, 100);
        assert_eq!((staged.length(&name), staged.length("kernel")), (Some(100), None));
        for offset in 0..20 {
            staged.put(KERNEL, offset, vec![offset as u8; 4]);
        }
        assert_eq!(staged.bytes(&name, 11), None, "the oldest are gone");
        assert_eq!(staged.bytes(&name, 14), Some(&[14; 4][..]));
        assert_eq!(staged.bytes(&INITRD.text(), 14), None);
        assert_eq!(staged.bytes(&name, 23), None);
        staged.clear();
        assert_eq!(staged.bytes(&name, 14), None);
    }
}
