use super::*;
use crate::volume::VolumeDisk;
use kernel::mm::layout::RamLayout;
use kernel::space::content::mark_block;
use kernel::space::{
    CrashReason, DrainRecord, OwnPages, RecordFormat, RecordedCrash, Residue, SpaceBase,
    SpaceOwner, SuspensionSeal, Uuid,
};
use tempfile::NamedTempFile;

const CAPACITY: u64 = 8 << 20;
const PAGES: u32 = 64;

/// An image with a dump whose even pages have blocks. The drain has not reached the pages from
/// `progress` on.
struct SampleDump(NamedTempFile);

impl SampleDump {
    fn new(name: &str, state: SpaceState, progress: u32) -> Self {
        let file = NamedTempFile::new().unwrap();
        file.as_file().set_len(CAPACITY).unwrap();
        let contents =
            SpaceContents::new(CAPACITY, &RamLayout::new(u64::from(PAGES) * PAGE_SIZE).unwrap())
                .unwrap();
        let image = SpaceImage::open(file.path(), VolumeAccess::Write).unwrap();
        let mut bitmap = vec![0; PAGES as usize / 8];
        for n in (0..PAGES).step_by(2) {
            let block = [n as u8 + 1; PAGE_SIZE as usize];
            mark_block(&mut bitmap, PageIndex(n));
            image.write(contents.layout.blocks().start + u64::from(n) * PAGE_SIZE, &block).unwrap();
            image
                .write(
                    contents.layout.checksums().start + 4 * u64::from(n),
                    &crc32c(&block).0.to_le_bytes(),
                )
                .unwrap();
        }
        image.write(contents.layout.bitmap().start, &bitmap).unwrap();
        let owner = SpaceOwner {
            name: "test".try_into().unwrap(),
            partition: Uuid::from_name("test"),
            node: Uuid::NIL,
            epoch: 3,
        };
        let drain = DrainRecord { progress, program_headers: 1, notes_len: 336 };
        let none = crc32c(&[]);
        let seal = SuspensionSeal { bitmap: none, checksums: none, notes: none };
        let free = SpaceRecord::free(CAPACITY, Uuid::from_name("space"), Residue::Clean);
        let crash = Some(crash_of(name));
        let record = SpaceRecord {
            crash,
            state,
            owner: Some(owner),
            contents: Some(contents),
            seal: (state == SpaceState::Sealed).then_some(seal),
            drain,
            residue: Residue::Stale,
            sequence: 8,
            ..free
        };
        image.put_record(&record).unwrap();
        Self(file)
    }

    fn open(&self) -> Dump {
        Dump::open(self.0.path(), VolumeAccess::Write).unwrap()
    }
}

fn crash_of(name: &str) -> RecordedCrash {
    RecordedCrash {
        name: Uuid::from_name(name),
        reason: CrashReason::PVPANIC,
        detail: 0,
        time_ns: 1_700_000_000_000_000_000,
        text: "panic".try_into().unwrap(),
        registers: Default::default(),
    }
}

fn header_of(dump: &Dump) -> Vec<u8> {
    let mut header = Vec::new();
    dump.describe(|at, piece| {
        assert_eq!(at, header.len() as u64);
        header.extend_from_slice(piece);
        Ok(())
    })
    .unwrap();
    header
}

#[test]
fn a_drain_that_was_cut_off_becomes_a_partial_dump_with_a_current_header() {
    let sample = SampleDump::new("cut", SpaceState::Draining, 10);
    assert!(!sample.open().verify().unwrap().header_current);
    assert_eq!(sample.open().finish().unwrap(), SpaceState::Partial);
    let verdict = sample.open().verify().unwrap();
    assert_eq!(
        verdict,
        DumpVerdict {
            right: 32,
            wrong: 0,
            first_wrong: None,
            zero: 5,
            missing: 27,
            header_current: true
        }
    );
    // One segment for each pair of a block and a zero page in pages 0 to 9, then one for each
    // block.
    let header = header_of(&sample.open());
    assert_eq!(u16::from_le_bytes(header[56..58].try_into().unwrap()), 1 + 32);
}

#[test]
fn one_wrong_byte_in_a_block_is_found_and_named() {
    let sample = SampleDump::new("wrong", SpaceState::Complete, PAGES);
    let dump = sample.open();
    let start = dump.contents.layout.blocks().start;
    dump.image.write(start + 6 * PAGE_SIZE + 17, &[0]).unwrap();
    let verdict = dump.verify().unwrap();
    assert_eq!(
        (verdict.wrong, verdict.first_wrong, verdict.zero, verdict.missing),
        (1, Some(6), 32, 0)
    );
}

#[test]
fn a_damaged_header_of_a_whole_dump_is_made_anew() {
    let sample = SampleDump::new("header", SpaceState::Complete, PAGES);
    sample.open().finish().unwrap();
    sample.open().image.write(64, &[0xff; 56]).unwrap();
    assert!(!sample.open().verify().unwrap().header_current);
    assert_eq!(sample.open().finish().unwrap(), SpaceState::Complete);
    assert!(sample.open().verify().unwrap().header_current);
}

/// Makes the sample's record that of a child of `base`.
fn adopt(child: &SampleDump, base: &SampleDump, own: OwnPages) {
    let dump = child.open();
    let of = base.open().record().crash.as_ref().unwrap().name;
    let base = Some(SpaceBase { dump: of, generation: 3, own });
    let sequence = dump.record().sequence + 1;
    let record = SpaceRecord { base, sequence, ..dump.record().clone() };
    dump.image.put_record(&record).unwrap();
}

#[test]
fn a_base_is_held_by_the_spaces_that_name_it_and_are_not_sealed() {
    let base = SampleDump::new("base", SpaceState::Sealed, PAGES);
    let child = SampleDump::new("child", SpaceState::Draining, 10);
    let other = SampleDump::new("other", SpaceState::Sealed, PAGES);
    adopt(&child, &base, OwnPages::Open);
    let disk = VolumeDisk::open(child.0.path(), VolumeAccess::Read).unwrap();
    let refused = |of: &SampleDump| {
        let base = of.open().record().clone();
        refuse_while_held(&base, &[&disk]).map_err(|error| error.to_string())
    };
    let error = refused(&base).unwrap_err();
    assert!(error.contains("test (") && error.contains("draining"), "{error}");
    assert!(refused(&other).is_ok(), "the child is not its child");
    child.open().finish().unwrap();
    assert_eq!(refused(&base), Ok(()), "a dump that is sealed needs no base");
}

#[test]
fn a_dump_that_waits_for_its_base_is_left_to_the_hypervisor() {
    let base = SampleDump::new("base", SpaceState::Sealed, PAGES);
    let child = SampleDump::new("child", SpaceState::Draining, 10);
    adopt(&child, &base, OwnPages::Written);
    let error = child.open().finish().unwrap_err().to_string();
    assert!(error.contains("the next start"), "{error}");
    assert_eq!(child.open().record().state, SpaceState::Draining);
}

#[test]
fn only_a_finished_dump_is_released() {
    let sample = SampleDump::new("release", SpaceState::Draining, 10);
    assert!(sample.open().release().is_err());
    sample.open().finish().unwrap();
    sample.open().release().unwrap();
    let error = Dump::open(sample.0.path(), VolumeAccess::Read).err().unwrap().to_string();
    assert!(error.ends_with("holds no dump, the space is releasing"), "{error}");
}

/// The second of two spaces holds the dump of [`SampleDump`], behind stale blocks.
fn on_a_partition(name: &str, state: SpaceState, progress: u32) -> SampleDump {
    let sample = SampleDump::new(name, state, progress);
    let whole = std::fs::read(sample.0.path()).unwrap();
    std::fs::remove_file(sample.0.path()).unwrap();
    crate::volume::create_spaces(sample.0.path(), 32 << 20, &[CAPACITY, CAPACITY]).unwrap();
    let second =
        VolumeDisk::open(sample.0.path(), VolumeAccess::Write).unwrap().space(Some(2)).unwrap();
    second.write(0, &whole).unwrap();
    let dump = Dump::of(second).unwrap();
    let blocks = dump.contents.layout.blocks().start;
    (1..PAGES)
        .step_by(2)
        .for_each(|n| dump.image.write(blocks + u64::from(n) * PAGE_SIZE, &[0xee; 4096]).unwrap());
    sample
}

impl SampleDump {
    fn disk(&self) -> VolumeDisk {
        VolumeDisk::open(self.0.path(), VolumeAccess::Write).unwrap()
    }

    /// Returns the page at `address` according to the header at byte 0 of the whole image; `None`
    /// where no segment contains it.
    fn page_by_first_header(&self, index: u64) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.0.path()).unwrap();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert!(bytes.starts_with(b"\x7fELF\x02\x01\x01") && word(32) == 64);
        let headers = (1..usize::from(bytes[56])).map(|n| 64 + 56 * n);
        let address = index * PAGE_SIZE;
        let at = headers
            .into_iter()
            .find(|&at| (word(at + 24)..word(at + 24) + word(at + 40)).contains(&address))?;
        let inside = address - word(at + 24);
        let start = (word(at + 8) + inside) as usize;
        Some(if inside < word(at + 32) {
            bytes[start..start + 4096].to_vec()
        } else {
            vec![0; 4096]
        })
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
    // Pages 0 to 10, then every second one: only four of these 26 fit.
    assert_eq!(select(&sample.disk(), 2, BootLoader::Keep).unwrap(), 22);
    assert_eq!(sample.page_by_first_header(8).unwrap(), [9; 4096]);
    assert_eq!(sample.page_by_first_header(11), None);
}

#[test]
fn what_cannot_be_selected_is_refused_and_a_boot_loader_stays() {
    let sample = on_a_partition("select-refused", SpaceState::Complete, PAGES);
    assert!(
        select(&sample.disk(), 1, BootLoader::Keep)
            .unwrap_err()
            .to_string()
            .contains("holds no dump")
    );
    assert!(select(&sample.disk(), 3, BootLoader::Keep).is_err());
    sample.disk().set_boot_code(&[0xeb; 440]).unwrap();
    assert!(
        select(&sample.disk(), 2, BootLoader::Keep)
            .unwrap_err()
            .to_string()
            .contains("boot loader")
    );
    deselect(&sample.disk(), 2).unwrap();
    assert!(std::fs::read(sample.0.path()).unwrap().starts_with(&[0xeb; 440]));
    select(&sample.disk(), 2, BootLoader::Replace).unwrap();
    let whole = SampleDump::new("select-whole", SpaceState::Complete, PAGES);
    assert!(
        select(&whole.disk(), 0, BootLoader::Keep).unwrap_err().to_string().contains("already")
    );
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

/// Makes an image of the first release's record in this state, with the blocks, bitmap and
/// checksums of [`SampleDump`].
fn of_first_release(state: &str) -> SampleDump {
    let lines = include_str!("../../../kernel/src/space/first_release.txt").lines();
    let hex =
        lines.filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == state).unwrap().1;
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|n| u8::from_str_radix(&hex[n..n + 2], 16).unwrap())
        .collect();
    let sample = SampleDump::new(&format!("first-{state}"), SpaceState::Draining, 10);
    let image = SpaceImage::open(sample.0.path(), VolumeAccess::Write).unwrap();
    image.write(CAPACITY - 8192, &[0; 8192]).unwrap();
    // All records have sequence number 8, which belongs in copy A.
    image.write(CAPACITY - 8192, &bytes[..508]).unwrap();
    image.write(CAPACITY - 4096 - 4, &bytes[508..]).unwrap();
    sample
}

#[test]
fn a_dump_of_the_first_release_is_finished_verified_and_released_in_its_own_format() {
    let sample = of_first_release("draining");
    assert_eq!(sample.open().finish().unwrap(), SpaceState::Partial);
    let verdict = sample.open().verify().unwrap();
    assert_eq!(
        (verdict.right, verdict.zero, verdict.missing, verdict.header_current),
        (32, 5, 27, true)
    );
    let format =
        || SpaceImage::open(sample.0.path(), VolumeAccess::Read).unwrap().record().unwrap().format;
    assert_eq!(format(), RecordFormat::Original);
    sample.open().release().unwrap();
    assert_eq!(format(), RecordFormat::Original, "it is upgraded by its next activation");
    for state in ["complete", "partial"] {
        let sample = of_first_release(state);
        assert_eq!(sample.open().record().state.name(), state);
        sample.open().release().unwrap();
    }
}

#[test]
fn a_crash_whose_pages_were_not_yet_described_has_none() {
    let sample = SampleDump::new("crashed", SpaceState::Crashed, 0);
    let verdict = sample.open().verify().unwrap();
    assert_eq!(
        (verdict.right, verdict.zero, verdict.missing),
        (0, 0, PAGES),
        "the bitmap there is an earlier one"
    );
    sample.open().release().unwrap();
}

/// A table larger than a window: blocks on both sides of a window's edge are found and checked.
#[test]
fn tables_of_many_gib_are_looked_at_in_pieces() {
    const MANY: u32 = (8 << 20) + 4096;
    let contents = |capacity| {
        SpaceContents::new(capacity, &RamLayout::new(u64::from(MANY) * PAGE_SIZE).unwrap())
    };
    let capacity = 36 << 30;
    let sample = SampleDump(NamedTempFile::new().unwrap());
    sample.0.as_file().set_len(capacity).unwrap();
    let image = SpaceImage::open(sample.0.path(), VolumeAccess::Write).unwrap();
    let contents = contents(capacity).unwrap();
    let layout = contents.layout;
    for n in [7, (8 << 20) - 1, 8 << 20, MANY - 1] {
        image.write(layout.bitmap().start + u64::from(n / 8), &[1 << (n % 8)]).unwrap();
        image
            .write(layout.blocks().start + u64::from(n) * PAGE_SIZE, &[n as u8 | 1; 4096])
            .unwrap();
        image
            .write(
                layout.checksums().start + 4 * u64::from(n),
                &crc32c(&[n as u8 | 1; 4096]).0.to_le_bytes(),
            )
            .unwrap();
    }
    let record = SpaceRecord {
        state: SpaceState::Draining,
        owner: Some(SpaceOwner {
            name: "big".try_into().unwrap(),
            partition: Uuid::from_name("b"),
            node: Uuid::NIL,
            epoch: 1,
        }),
        contents: Some(contents),
        drain: DrainRecord { progress: MANY, program_headers: 1, notes_len: 336 },
        residue: Residue::Stale,
        sequence: 8,
        crash: Some(crash_of("windows")),
        ..SpaceRecord::free(capacity, Uuid::from_name("space"), Residue::Clean)
    };
    image.put_record(&record).unwrap();
    drop(image);
    assert_eq!(sample.open().finish().unwrap(), SpaceState::Partial);
    let verdict = sample.open().verify().unwrap();
    assert_eq!(
        (verdict.right, verdict.wrong, verdict.missing, verdict.header_current),
        (4, 0, 0, true)
    );
    sample.open().image.write(layout.checksums().start + 4 * (8 << 20), &[0]).unwrap();
    assert_eq!(sample.open().verify().unwrap().first_wrong, Some(8 << 20));
}

#[test]
fn a_dump_is_found_by_its_name_or_the_beginning_of_it() {
    let sample = on_a_partition("by-name", SpaceState::Complete, PAGES);
    let name = Uuid::from_name("by-name").to_string();
    for text in [&name[..], &name[..8], "2"] {
        let choice: DumpChoice = text.parse().unwrap();
        assert_eq!(DumpChoice::find(Some(choice), &sample.disk()).unwrap().number(), 2, "{text}");
    }
    let other = if name.starts_with('0') { "11111111" } else { "00000000" };
    let error = DumpChoice::find(other.parse().ok(), &sample.disk()).err().unwrap().to_string();
    assert!(error.contains("no dump of this name") && error.contains(&name), "{error}");
    assert!(
        DumpChoice::find(None, &sample.disk())
            .err()
            .unwrap()
            .to_string()
            .contains("say which space")
    );
    let whole = SampleDump::new("by-name-whole", SpaceState::Partial, 10);
    let name = Uuid::from_name("by-name-whole").to_string();
    assert_eq!(DumpChoice::find(name[..13].parse().ok(), &whole.disk()).unwrap().number(), 0);
    whole.open().release().unwrap();
    assert!(
        DumpChoice::find(name.parse().ok(), &whole.disk())
            .err()
            .unwrap()
            .to_string()
            .contains("holds no dump")
    );
}

#[test]
fn a_dump_that_was_cut_or_grown_says_so() {
    let sample = SampleDump::new("resized", SpaceState::Complete, PAGES);
    sample.open().finish().unwrap();
    let described = |bytes: u64| {
        std::fs::File::options().write(true).open(sample.0.path()).unwrap().set_len(bytes).unwrap();
        SpaceImage::open(sample.0.path(), VolumeAccess::Read).unwrap().describe().unwrap()
    };
    let grown = described(CAPACITY + (1 << 20));
    assert!(
        grown.contains("was 8 MiB") && grown.contains("complete, made for test incarnation 3"),
        "{grown}"
    );
    let restored = described(CAPACITY);
    assert_eq!(restored, "complete");
    let blocks = sample.open().contents.layout.blocks().start;
    let cut = described(blocks + 10 * PAGE_SIZE);
    assert!(
        cut.starts_with("a dump that was cut: was ") && cut.contains("its record is gone"),
        "{cut}"
    );
    std::fs::write(sample.0.path(), [b"\x7fELF\x02\x01\x01".as_slice(), &[1; 9000]].concat())
        .unwrap();
    assert_eq!(
        SpaceImage::open(sample.0.path(), VolumeAccess::Read).unwrap().describe().unwrap(),
        "no paging space: an ELF file"
    );
}

#[test]
fn a_dump_that_is_given_back_while_it_is_read_is_told() {
    let sample = SampleDump::new("read", SpaceState::Complete, PAGES);
    let reader = Dump::open(sample.0.path(), VolumeAccess::Read).unwrap();
    reader.check_unchanged().unwrap();
    sample.open().release().unwrap();
    let told = reader.check_unchanged().unwrap_err().to_string();
    assert!(told.contains("became releasing while it was read"), "{told}");
}
