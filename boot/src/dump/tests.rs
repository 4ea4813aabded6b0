use super::*;
use kernel::mm::layout::RamLayout;
use kernel::paging::space::content::mark_block;
use kernel::paging::space::{Drain, Owner, Residue, Uuid};
use std::path::PathBuf;

const CAPACITY: u64 = 8 << 20;
const PAGES: u32 = 64;

/// An image with a dump whose even pages have blocks; pages from `progress` on were not reached.
struct Sample(PathBuf);

impl Sample {
    fn new(name: &str, state: SpaceState, progress: u32) -> Self {
        let path = std::env::temp_dir().join(format!("tidepool-dump-{}-{name}", std::process::id()));
        std::fs::File::create(&path).unwrap().set_len(CAPACITY).unwrap();
        let contents = Contents::new(CAPACITY, &RamLayout::new(u64::from(PAGES) * PAGE_SIZE).unwrap()).unwrap();
        let image = Image::open(&path, Access::Write).unwrap();
        let mut bitmap = vec![0; PAGES as usize / 8];
        for n in (0..PAGES).step_by(2) {
            let block = [n as u8 + 1; PAGE_SIZE as usize];
            mark_block(&mut bitmap, PageIndex(n));
            image.write(contents.layout.blocks().start + u64::from(n) * PAGE_SIZE, &block).unwrap();
            image.write(contents.layout.checksums().start + 4 * u64::from(n), &crc32c(&block).0.to_le_bytes()).unwrap();
        }
        image.write(contents.layout.bitmap().start, &bitmap).unwrap();
        let owner = Owner { name: "test".try_into().unwrap(), partition: Uuid::from_name("test"), node: Uuid::NIL, epoch: 3 };
        let drain = Drain { progress, program_headers: 1, notes_len: 336 };
        let free = Record::free(CAPACITY, Uuid::from_name("space"), Residue::Clean);
        let record =
            Record { state, owner: Some(owner), contents: Some(contents), drain, residue: Residue::Stale, sequence: 8, ..free };
        image.put_record(&record).unwrap();
        Self(path)
    }

    fn open(&self) -> Dump {
        Dump::open(&self.0, Access::Write).unwrap()
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_drain_that_was_cut_off_becomes_a_partial_dump_with_a_current_header() {
    let sample = Sample::new("cut", SpaceState::Draining, 10);
    assert!(!sample.open().verify().unwrap().header_current);
    assert_eq!(sample.open().finish().unwrap(), SpaceState::Partial);
    let verdict = sample.open().verify().unwrap();
    assert_eq!(verdict, Verdict { right: 32, wrong: 0, first_wrong: None, zero: 5, missing: 27, header_current: true });
    // One segment each for pages 0 to 9, taken together in pairs of a block and a zero page, then one for each block.
    let header = sample.open().header().unwrap();
    assert_eq!(u16::from_le_bytes(header[56..58].try_into().unwrap()), 1 + 32);
}

#[test]
fn one_wrong_byte_in_a_block_is_found_and_named() {
    let sample = Sample::new("wrong", SpaceState::Complete, PAGES);
    let dump = sample.open();
    let start = dump.contents.layout.blocks().start;
    dump.image.write(start + 6 * PAGE_SIZE + 17, &[0]).unwrap();
    let verdict = dump.verify().unwrap();
    assert_eq!((verdict.wrong, verdict.first_wrong, verdict.zero, verdict.missing), (1, Some(6), 32, 0));
}

#[test]
fn only_a_finished_dump_is_released() {
    let sample = Sample::new("release", SpaceState::Draining, 10);
    assert!(sample.open().release().is_err());
    sample.open().finish().unwrap();
    sample.open().release().unwrap();
    let error = Dump::open(&sample.0, Access::Read).err().unwrap().to_string();
    assert!(error.ends_with("holds no dump, the space is releasing"), "{error}");
}
