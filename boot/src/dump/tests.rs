use super::*;
use crate::volume::Disk;
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

/// The second of two spaces holds the dump of [`Sample`], behind stale blocks.
fn on_a_partition(name: &str, state: SpaceState, progress: u32) -> Sample {
    let sample = Sample::new(name, state, progress);
    let whole = std::fs::read(&sample.0).unwrap();
    std::fs::remove_file(&sample.0).unwrap();
    crate::volume::create_spaces(&sample.0, 32 << 20, &[CAPACITY, CAPACITY]).unwrap();
    let second = Disk::open(&sample.0, Access::Write).unwrap().space(Some(2)).unwrap();
    second.write(0, &whole).unwrap();
    let dump = Dump::of(second).unwrap();
    let blocks = dump.contents.layout.blocks().start;
    (1..PAGES).step_by(2).for_each(|n| dump.image.write(blocks + u64::from(n) * PAGE_SIZE, &[0xee; 4096]).unwrap());
    sample
}

impl Sample {
    fn disk(&self) -> Disk {
        Disk::open(&self.0, Access::Write).unwrap()
    }

    /// Returns the page at `address` as the header at byte 0 of the whole image tells it: `None` where no segment has it.
    fn page_by_first_header(&self, index: u64) -> Option<Vec<u8>> {
        let bytes = std::fs::read(&self.0).unwrap();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert!(bytes.starts_with(b"\x7fELF\x02\x01\x01") && word(32) == 64);
        let headers = (1..usize::from(bytes[56])).map(|n| 64 + 56 * n);
        let address = index * PAGE_SIZE;
        let at = headers.into_iter().find(|&at| (word(at + 24)..word(at + 24) + word(at + 40)).contains(&address))?;
        let inside = address - word(at + 24);
        let start = (word(at + 8) + inside) as usize;
        Some(if inside < word(at + 32) { bytes[start..start + 4096].to_vec() } else { vec![0; 4096] })
    }
}

#[test]
fn a_selected_dump_opens_at_byte_0_of_its_disk_and_reads_zeros_where_blocks_were_stale() {
    let sample = on_a_partition("select", SpaceState::Complete, PAGES);
    assert_eq!(select(&sample.disk(), 2, BootLoader::Keep).unwrap(), 0);
    for n in 0..u64::from(PAGES) {
        let expected = if n.is_multiple_of(2) { n as u8 + 1 } else { 0 };
        assert_eq!(sample.page_by_first_header(n).unwrap(), [expected; 4096], "page {n}");
    }
    assert_eq!(sample.page_by_first_header(u64::from(PAGES)), None);
    let disk = sample.disk();
    assert!(disk.table_faults().unwrap().is_empty());
    assert_eq!((disk.selected().unwrap(), disk.usable().unwrap().len()), (Some(2), 2));
    let verdict = Dump::of(disk.space(Some(2)).unwrap()).unwrap().verify().unwrap();
    assert_eq!((verdict.right, verdict.zero, verdict.wrong), (32, 32, 0));
}

#[test]
fn of_a_partial_dump_the_longest_runs_are_selected_and_the_rest_is_counted() {
    let sample = on_a_partition("select-partial", SpaceState::Partial, 10);
    // Pages 0 to 10, then every second: four of these 26 find room.
    assert_eq!(select(&sample.disk(), 2, BootLoader::Keep).unwrap(), 22);
    assert_eq!(sample.page_by_first_header(8).unwrap(), [9; 4096]);
    assert_eq!(sample.page_by_first_header(11), None);
}

#[test]
fn what_cannot_be_selected_is_refused_and_a_boot_loader_stays() {
    let sample = on_a_partition("select-refused", SpaceState::Complete, PAGES);
    assert!(select(&sample.disk(), 1, BootLoader::Keep).unwrap_err().to_string().contains("holds no dump"));
    assert!(select(&sample.disk(), 3, BootLoader::Keep).is_err());
    sample.disk().set_boot_code(&[0xeb; 440]).unwrap();
    assert!(select(&sample.disk(), 2, BootLoader::Keep).unwrap_err().to_string().contains("boot loader"));
    deselect(&sample.disk(), 2).unwrap();
    assert!(std::fs::read(&sample.0).unwrap().starts_with(&[0xeb; 440]));
    select(&sample.disk(), 2, BootLoader::Replace).unwrap();
    let whole = Sample::new("select-whole", SpaceState::Complete, PAGES);
    assert!(select(&whole.disk(), 0, BootLoader::Keep).unwrap_err().to_string().contains("already"));
}

#[test]
fn only_the_selected_dump_takes_its_header_with_it() {
    let sample = on_a_partition("deselect", SpaceState::Complete, PAGES);
    select(&sample.disk(), 2, BootLoader::Keep).unwrap();
    deselect(&sample.disk(), 1).unwrap();
    assert_eq!(sample.disk().selected().unwrap(), Some(2));
    deselect(&sample.disk(), 2).unwrap();
    assert_eq!(sample.disk().boot_code().unwrap(), kernel::dump::selected::BootCode::Empty);
    assert!(sample.disk().table_faults().unwrap().is_empty());
}
