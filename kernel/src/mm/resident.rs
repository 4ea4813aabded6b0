//! Reads bytes of pages that are resident and marked as accessed; it changes nothing and never
//! waits.
//!
//! ```text
//!  gpa ──table──> leaf ──┬─ resident, A set ──> frame ──> copy
//!                        └─ all else ──> None: the caller goes the long way, by super::guest_bytes
//! ```
//!
//! For a CPU whose word says that it is in the guest ([`super::flush`]). A frame that such a CPU
//! finds in a leaf stays that page's until the CPU's word moves on, as for a translation in the
//! CPU's own TLB. Setting A is left to the long way, so the clock sees these reads like the guest's
//! own: the leaf of a page that is read here says *accessed*.
//!
//! Invariants: guest bytes are copied once and never referenced; no lock, no pin, no write.

use super::object::MemoryObject;
use super::phys::FrameMemory;
use crate::addr::{Gpa, PAGE_SIZE};

/// The bytes of an object's resident pages.
#[derive(Debug)]
pub struct ResidentBytes<'a, M: FrameMemory> {
    /// The object.
    pub object: &'a MemoryObject,
    /// The memory that holds the frames.
    pub memory: &'a M,
}

impl<M: FrameMemory> ResidentBytes<'_, M> {
    /// Copies `N` bytes from `gpa` on. `None` if they are not all in one page, or if that page is
    /// not RAM, not resident, or not marked as accessed.
    #[inline(always)]
    pub fn read<const N: usize>(&self, gpa: Gpa) -> Option<[u8; N]> {
        let offset = gpa.page_offset() as usize;
        if offset > PAGE_SIZE as usize - N {
            return None;
        }
        let hfn = self.object.accessed_frame(gpa.number())?;
        let mut bytes = [0; N];
        self.memory.copy_out(hfn, offset, &mut bytes);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Hfn, PageIndex};
    use crate::mm::leaf::TableFormat;
    use crate::mm::page::PageAge;
    use crate::mm::test_bed::MemoryBed;
    use crate::virt::PageAccess;

    const BYTES: [u8; 4] = [1, 2, 3, 4];

    /// Makes page 1 resident with [`BYTES`] at its end, and A set.
    fn install(bed: &MemoryBed) -> Hfn {
        let frame = bed.frames.alloc().unwrap();
        bed.map.zero(frame.hfn());
        let page = bed.object.page(PageIndex(1)).unwrap();
        page.install_zero(frame).unwrap();
        let hfn = page.touch(PageAccess::Read).unwrap();
        bed.map.copy_in(hfn, 0xffc, &BYTES);
        hfn
    }

    fn read(bed: &MemoryBed, at: u64) -> Option<[u8; 4]> {
        ResidentBytes { object: &bed.object, memory: &bed.map }.read(Gpa::new(at))
    }

    #[test]
    fn bytes_of_a_resident_page_are_read_to_its_end_and_not_beyond() {
        for format in [&TableFormat::EPT, &TableFormat::NPT, &TableFormat::EPT_WITHOUT_AD] {
            let bed = MemoryBed::with(format);
            install(&bed);
            assert_eq!((read(&bed, 0x1ffc), read(&bed, 0x1ffd)), (Some(BYTES), None));
        }
    }

    #[test]
    fn a_page_whose_a_bit_the_clock_has_taken_is_left_to_the_long_way() {
        for format in [&TableFormat::EPT, &TableFormat::NPT, &TableFormat::EPT_WITHOUT_AD] {
            let bed = MemoryBed::with(format);
            install(&bed);
            let page = bed.object.existing(PageIndex(1)).unwrap();
            assert_eq!(page.age(), PageAge::Referenced);
            assert_eq!(
                (read(&bed, 0x1ffc), page.age()),
                (None, PageAge::Idle),
                "nothing is changed"
            );
        }
    }

    #[test]
    fn a_page_that_leaves_is_not_read_any_more() {
        let bed = MemoryBed::new();
        install(&bed);
        let page = bed.object.existing(PageIndex(1)).unwrap();
        page.touch(PageAccess::Write).unwrap();
        let _going = page.begin_write_out().unwrap();
        assert_eq!(read(&bed, 0x1ffc), None);
    }

    #[test]
    fn what_is_untouched_or_no_ram_is_not_read() {
        let bed = MemoryBed::new();
        install(&bed);
        let end = u64::from(MemoryBed::PAGES) << 12;
        for at in [0, 0x2000, end, 0xfec0_0000, 1 << 47, u64::MAX - 7] {
            assert_eq!(read(&bed, at), None, "{at:#x}");
        }
    }
}
