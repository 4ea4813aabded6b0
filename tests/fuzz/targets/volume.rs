//! The image of a paging device as the host command reads it: a dump of which any bytes are
//! changed. A dump that was finished has a current header.
#![no_main]

use boot::dump::gdb::memory::PhysicalPages;
use boot::dump::{Dump, DumpChoice};
use boot::volume::{VolumeDisk, describe};
use fuzz::Input;
use fuzz::records::{CAPACITY, sample, seal_record};
use kernel::space::SpaceRecord;
use libfuzzer_sys::fuzz_target;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::LazyLock;

const RECORD_A: u64 = CAPACITY - 8192;

/// One file for all runs, without a name.
static FILE: LazyLock<File> = LazyLock::new(|| {
    // Flushes cost nothing in memory.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let path = folder.join(format!("tidepool-fuzz-volume-{}", std::process::id()));
    let options = File::options().read(true).write(true).create_new(true).open(&path);
    std::fs::remove_file(&path).and(options).expect("the folder for temporary files is writable")
});

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    let write = |at: u64, bytes: &[u8]| FILE.write_all_at(bytes, at).expect("the disk has room");
    FILE.set_len(0).and_then(|()| FILE.set_len(CAPACITY)).expect("the disk has room");
    let sample = sample();
    let layout = sample.contents.as_ref().expect("the sample has contents").layout;
    let mut record = SpaceRecord { ..sample.clone() }.encode();
    // Changes of the record, then of the image.
    for _ in 0..input.u8() & 15 {
        let (at, len) = (usize::from(input.u16()) % 2100, input.u8());
        record[at..].iter_mut().zip(input.bytes(len.into())).for_each(|(to, byte)| *to = *byte);
    }
    seal_record(&mut record);
    write(RECORD_A, &record);
    let parts =
        [0, layout.notes().start, layout.bitmap().start, layout.checksums().start, RECORD_A - 4096];
    while !input.is_empty() {
        let (part, at, len) = (input.one_of(&parts), u64::from(input.u16() & 0xfff), input.u8());
        write(part + at, input.bytes(len.into()));
    }
    read();
});

fn read() {
    let file = FILE.try_clone().expect("one file is open");
    let Ok(disk) = VolumeDisk::of(file, Path::new("image")) else { return };
    let _ = (disk.table_faults(), disk.boot_code(), disk.selected());
    for image in disk.usable().unwrap_or_default() {
        let class = image.class().expect("the image is readable");
        assert!(!describe(&class).is_empty() && image.describe().is_ok());
        let _ = (image.claim(), image.damaged_copy());
    }
    let Ok(image) = DumpChoice::find(None, &disk) else { return };
    let Ok(dump) = Dump::of(image) else { return };
    let Ok(verdict) = dump.verify() else { return };
    assert_eq!(
        verdict.right + verdict.wrong + verdict.zero + verdict.missing,
        dump.page_count(),
        "{verdict:?}"
    );
    for address in [0, 4096, 15 * 4096, u64::MAX - 4095] {
        dump.page(address);
    }
    if dump.finish().is_ok() && dump.record().state.describes_pages() {
        assert!(dump.verify().is_ok_and(|verdict| verdict.header_current));
    }
}
