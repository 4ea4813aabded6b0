use super::*;
use crate::mm::{
    leaf::LeafState,
    phys::DirectMap,
    test_bed::{ME, MemoryBed},
};
use core::cell::Cell;

/// Installs zeroed frames; may refuse, and may be beaten by an evictor.
struct FakeFaulter<'a> {
    bed: &'a MemoryBed,
    answer: Result<(), FaultInError>,
    install: bool,
    calls: Cell<u32>,
}

impl<'a> FakeFaulter<'a> {
    fn new(bed: &'a MemoryBed) -> Self {
        Self { bed, answer: Ok(()), install: true, calls: Cell::new(0) }
    }
    fn bytes(&'a self) -> GuestBytes<'a, DirectMap, Self> {
        GuestBytes { object: &self.bed.object, memory: &self.bed.map, faulter: self }
    }
}

impl Faulter for FakeFaulter<'_> {
    fn fault(
        &self,
        object: &MemoryObject,
        index: PageIndex,
        _: PageAccess,
    ) -> Result<(), FaultInError> {
        self.calls.set(self.calls.get() + 1);
        self.answer?;
        if self.install {
            let frame = self.bed.frames.alloc().unwrap();
            self.bed.map.zero(frame.hfn());
            object.page(index).unwrap().install_zero(frame).unwrap();
        }
        Ok(())
    }
}

fn dirty(bed: &MemoryBed, index: u32) -> bool {
    let LeafState::Present(mapping) = bed.object.existing(PageIndex(index)).unwrap().leaf() else {
        panic!("it is resident")
    };
    assert!(mapping.accessed);
    mapping.dirty
}

#[test]
fn a_copy_across_pages_faults_each_in_and_marks_what_it_wrote() {
    let bed = MemoryBed::new();
    let fake = FakeFaulter::new(&bed);
    let bytes: Vec<u8> = (0..=255).cycle().take(9000).collect();
    fake.bytes().write(Gpa::new(0x2ff0), &bytes).unwrap();
    let mut back = vec![0; 9002];
    fake.bytes().read(Gpa::new(0x2fef), &mut back).unwrap();
    assert_eq!((back[0], &back[1..9001], back[9001]), (0, &bytes[..], 0));
    assert_eq!(fake.calls.get(), 4);
    assert!((2..6).all(|index| dirty(&bed, index)));
}

#[test]
fn a_read_marks_a_page_accessed_and_not_dirty() {
    let bed = MemoryBed::new();
    let fake = FakeFaulter::new(&bed);
    assert_eq!(fake.bytes().read_u64(Gpa::new(0x1ffc)), Ok(0));
    assert!(!dirty(&bed, 1) && !dirty(&bed, 2));
}

#[test]
fn what_is_no_ram_is_named_by_its_first_byte() {
    let bed = MemoryBed::new();
    let fake = FakeFaulter::new(&bed);
    let end = Gpa::new(u64::from(MemoryBed::PAGES) << 12);
    assert_eq!(
        fake.bytes().write(Gpa::new(end.as_u64() - 2), b"abcd"),
        Err(GuestMemoryError::NotRam(end))
    );
    let last = Gpa::new(u64::MAX - 1);
    assert_eq!(fake.bytes().read(last, &mut [0; 8]), Err(GuestMemoryError::NotRam(last)));
    assert_eq!(fake.bytes().read(last, &mut []), Ok(()));
}

#[test]
fn a_page_that_is_not_there_now_or_ever_is_said_so() {
    let bed = MemoryBed::new();
    for (answer, expected) in [
        (FaultInError::Wait, GuestMemoryError::NotResident(Gpa::new(0x1000))),
        (FaultInError::Lost, GuestMemoryError::Lost(Gpa::new(0x1000))),
        (FaultInError::Unwritable, GuestMemoryError::Unwritable(Gpa::new(0x1000))),
    ] {
        let fake = FakeFaulter { answer: Err(answer), ..FakeFaulter::new(&bed) };
        assert_eq!(fake.bytes().read(Gpa::new(0x1000), &mut [0; 8]), Err(expected));
        assert_eq!(fake.calls.get(), 1);
    }
}

#[test]
fn a_page_that_always_goes_again_ends_in_a_park() {
    let bed = MemoryBed::new();
    let fake = FakeFaulter { install: false, ..FakeFaulter::new(&bed) };
    assert_eq!(
        fake.bytes().read(Gpa::new(0), &mut [0; 8]),
        Err(GuestMemoryError::NotResident(Gpa::new(0)))
    );
    assert_eq!(fake.calls.get(), ATTEMPTS);
}

#[test]
fn an_object_that_is_taken_apart_has_no_bytes() {
    let bed = MemoryBed::new();
    let fake = FakeFaulter::new(&bed);
    let _ = bed.object.begin_teardown(&bed.words, ME);
    assert_eq!(fake.bytes().write(Gpa::new(0), b"a"), Err(GuestMemoryError::Lost(Gpa::new(0))));
    assert_eq!(fake.calls.get(), 0);
}

#[test]
fn a_write_while_a_page_is_cleaned_keeps_it_from_having_a_block() {
    let bed = MemoryBed::new();
    let fake = FakeFaulter::new(&bed);
    fake.bytes().write(Gpa::new(0), b"old").unwrap();
    let page = bed.object.existing(PageIndex(0)).unwrap();
    let cleaning = page.begin_clean().unwrap().settle(&bed.passed());
    let crc = bed.map.checksum(cleaning.hfn());
    fake.bytes().write(Gpa::new(0), b"new").unwrap();
    assert!(!page.finish_clean(cleaning, crc));
    assert!(dirty(&bed, 0));
}
