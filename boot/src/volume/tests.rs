use super::*;
use kernel::block::gpt::GptEntryError;
use kernel::space::{Residue, SpaceState};
use std::path::PathBuf;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// The path of a file that does not exist yet, in a folder of its own.
struct Temporary {
    path: PathBuf,
    _folder: TempDir,
}

impl Temporary {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join("image"), _folder: folder }
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        File::options().write(true).open(&self.path).unwrap().write_all_at(bytes, offset).unwrap();
    }
}

#[test]
fn a_new_image_has_whole_blocks_of_4_kib() {
    for (name, spaces) in [("whole", None), ("whole-spaces", Some([4 * MIB]))] {
        let file = Temporary::new();
        match spaces {
            None => create(&file.path, 8 * MIB + 512).unwrap(),
            Some(sizes) => create_spaces(&file.path, 8 * MIB + 512, &sizes).unwrap(),
        }
        assert_eq!(std::fs::metadata(&file.path).unwrap().len(), 8 * MIB + 4096, "{name}");
    }
    let file = Temporary::new();
    assert!(create(&file.path, u64::MAX).is_err() && !file.path.exists());
}

#[test]
fn a_new_image_is_a_free_clean_space() {
    let file = Temporary::new();
    create(&file.path, 8 << 20).unwrap();
    let record = SpaceImage::open(&file.path, VolumeAccess::Read).unwrap().record().unwrap();
    assert_eq!(
        (record.state, record.residue, record.capacity),
        (SpaceState::Free, Residue::Clean, 8 << 20)
    );
    assert!(create(&file.path, 8 << 20).is_err());
}

#[test]
fn a_missing_folder_is_an_error_and_is_not_made() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("none");
    let error = create(&folder.join("a.img"), 8 << 20).unwrap_err().to_string();
    assert!(error.contains("there is no folder") && !folder.exists(), "{error}");
    assert!(
        create_spaces(&folder.join("a.img"), 16 * MIB, &[8 * MIB]).is_err() && !folder.exists()
    );
}

#[test]
fn a_damaged_copy_of_the_record_is_told_beside_a_sound_one() {
    let file = Temporary::new();
    create(&file.path, 8 << 20).unwrap();
    let image = SpaceImage::open(&file.path, VolumeAccess::Write).unwrap();
    let record = image.record().unwrap();
    image
        .put_record(&kernel::space::SpaceRecord { sequence: record.sequence + 1, ..record })
        .unwrap();
    assert_eq!(image.damaged_copy().unwrap(), None);
    file.put((8 << 20) - 4096 + 100, b"x");
    let (side, _) = image.damaged_copy().unwrap().unwrap();
    assert_eq!(side, kernel::space::RecordSide::B);
}

#[test]
fn formatting_takes_foreign_data_away_and_remembers_that_blocks_are_stale() {
    let file = Temporary::new();
    let mut data = vec![7; 8 << 20];
    data[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&file.path, data).unwrap();
    let image = SpaceImage::open(&file.path, VolumeAccess::Write).unwrap();
    assert!(matches!(image.class().unwrap(), DeviceContent::Foreign(_)));
    image.format().unwrap();
    assert_eq!(image.record().unwrap().residue, Residue::Stale);
}

#[test]
fn an_image_in_use_is_not_opened_for_writing() {
    let file = Temporary::new();
    create(&file.path, 8 << 20).unwrap();
    let first = SpaceImage::open(&file.path, VolumeAccess::Write).unwrap();
    assert!(
        SpaceImage::open(&file.path, VolumeAccess::Write)
            .err()
            .unwrap()
            .to_string()
            .contains("in use")
    );
    drop(first);
}

#[test]
fn an_image_with_spaces_has_each_free_and_its_file_is_sparse() {
    use std::os::unix::fs::MetadataExt;
    let file = Temporary::new();
    create_spaces(&file.path, 64 * MIB, &[8 * MIB, 24 * MIB, 4 * MIB]).unwrap();
    let disk = VolumeDisk::open(&file.path, VolumeAccess::Read).unwrap();
    assert!(disk.table_faults().unwrap().is_empty());
    let spaces = disk.usable().unwrap();
    let seen: Vec<_> =
        spaces.iter().map(|s| (s.number(), s.capacity(), s.record().unwrap().state)).collect();
    assert_eq!(
        seen,
        [
            (1, 8 * MIB, SpaceState::Free),
            (2, 24 * MIB, SpaceState::Free),
            (3, 4 * MIB, SpaceState::Free)
        ]
    );
    let [a, b] = [0, 1].map(|n| spaces[n].record().unwrap().space);
    assert_ne!(a, b);
    assert!(file.path.metadata().unwrap().blocks() * 512 < MIB);
    assert!(
        SpaceImage::open(&file.path, VolumeAccess::Read)
            .err()
            .unwrap()
            .to_string()
            .contains("say which space (there are: 1, 2, 3)")
    );
    assert!(disk.space(Some(4)).err().unwrap().to_string().contains("has no space 4"));
    assert_eq!(disk.space(Some(2)).unwrap().capacity(), 24 * MIB);
}

#[test]
fn writing_a_space_changes_nothing_beside_it() {
    let file = Temporary::new();
    create_spaces(&file.path, 16 * MIB, &[4 * MIB, 4 * MIB, 4 * MIB]).unwrap();
    let before = std::fs::read(&file.path).unwrap();
    let middle = VolumeDisk::open(&file.path, VolumeAccess::Write).unwrap().space(Some(2)).unwrap();
    middle.write(0, &vec![7; 4 << 20]).unwrap();
    assert!(
        middle.write(4 * MIB - 1, &[7; 2]).is_err() && middle.read(u64::MAX, &mut [0; 2]).is_err()
    );
    let after = std::fs::read(&file.path).unwrap();
    let (start, end) = (5 << 20, 9 << 20);
    assert!(before[..start] == after[..start] && before[end..] == after[end..]);
    assert!(after[start..end].iter().all(|byte| *byte == 7));
}

#[test]
fn sizes_that_do_not_fit_make_no_file() {
    let file = Temporary::new();
    let error =
        |bytes, sizes: &[u64]| create_spaces(&file.path, bytes, sizes).unwrap_err().to_string();
    assert!(error(16 * MIB, &[16 * MIB]).contains("the spaces need 18 MiB, the image has 16 MiB"));
    assert!(error(16 * MIB, &[MIB]).contains("too small for a page"));
    assert!(error(16 * MIB, &[]).contains("1 to 128"));
    assert!(!file.path.exists());
    assert_eq!(least_size(&[16 * MIB]).unwrap(), 18 * MIB);
    assert_eq!(least_size(&[3 * MIB + 4096, 8 * MIB]).unwrap(), 14 * MIB);
    assert!(least_size(&[u64::MAX - 511]).is_err() && least_size(&[]).is_err());
}

#[test]
fn a_damaged_table_is_said_and_its_spaces_are_still_found() {
    let file = Temporary::new();
    create_spaces(&file.path, 16 * MIB, &[8 * MIB]).unwrap();
    // Invert a byte of the table's GUID, which is random.
    let byte = std::fs::read(&file.path).unwrap()[512 + 60];
    file.put(512 + 60, &[!byte]);
    let disk = VolumeDisk::open(&file.path, VolumeAccess::Read).unwrap();
    assert_eq!(
        disk.table_faults().unwrap(),
        [(kernel::block::gpt::GptCopy::Primary, kernel::block::gpt::GptError::HeaderCrc)]
    );
    assert_eq!(disk.usable().unwrap().len(), 1);
    file.put(16 * MIB - 512, b"x");
    let error = VolumeDisk::open(&file.path, VolumeAccess::Read)
        .unwrap()
        .slots()
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("damaged partition table"), "{error}");
}

#[test]
fn overlapping_spaces_cannot_be_opened() {
    let file = Temporary::new();
    let guid = kernel::block::gpt::Guid::from_bytes([1; 16]);
    let mut placed = placed(16 * MIB, &[4 * MIB, 4 * MIB]).unwrap();
    placed[1].first = placed[0].first + 8;
    let spaces: Vec<_> = placed
        .into_iter()
        .map(|sectors| NewSpace { sectors, guid, kind: NewPart::Space })
        .collect();
    File::create(&file.path).unwrap().set_len(16 * MIB).unwrap();
    make::table(16 * MIB, guid, &spaces)
        .iter()
        .for_each(|piece| file.put(piece.offset, &piece.bytes));
    let disk = VolumeDisk::open(&file.path, VolumeAccess::Write).unwrap();
    let faults: Vec<_> = disk.slots().unwrap().into_iter().map(|slot| slot.space.err()).collect();
    assert_eq!(faults, [Some(GptEntryError::Overlaps(2)), Some(GptEntryError::Overlaps(1))]);
    assert!(
        disk.space(Some(1))
            .err()
            .unwrap()
            .to_string()
            .ends_with("GPT entry 1 overlaps GPT entry 2")
    );
}

#[test]
fn a_space_that_was_grown_is_recognised_and_what_makes_it_whole_does() {
    let file = Temporary::new();
    create(&file.path, 8 * MIB).unwrap();
    File::options().write(true).open(&file.path).unwrap().set_len(40 * MIB + 4096).unwrap();
    let image = SpaceImage::open(&file.path, VolumeAccess::Read).unwrap();
    let told = image.describe().unwrap();
    assert!(
        told.starts_with(
            "grown: was 8 MiB (8388608 bytes), is 40.00 MiB (41947136 bytes); free; `truncate"
        ),
        "{told}"
    );
    assert!(image.record().unwrap_err().to_string().contains("grown: was 8 MiB"));
    let command = told.split('`').nth(1).unwrap();
    assert!(std::process::Command::new("sh").args(["-c", command]).status().unwrap().success());
    assert_eq!(
        SpaceImage::open(&file.path, VolumeAccess::Read).unwrap().describe().unwrap(),
        "free"
    );
    // Data was written behind the space since: there must be no advice to cut it off.
    File::options().write(true).open(&file.path).unwrap().set_len(9 * MIB).unwrap();
    file.put(9 * MIB - 1, b"x");
    let told = SpaceImage::open(&file.path, VolumeAccess::Read).unwrap().describe().unwrap();
    assert!(told.starts_with("grown: was 8 MiB") && !told.contains("truncate"), "{told}");
}

#[test]
fn other_bytes_that_look_like_a_record_are_none() {
    let file = Temporary::new();
    create(&file.path, 8 * MIB).unwrap();
    let bytes = std::fs::read(&file.path).unwrap();
    File::options().write(true).open(&file.path).unwrap().set_len(9 * MIB).unwrap();
    let record = bytes[8 * MIB as usize - 8192..].to_vec();
    file.put(8 * MIB - 8192, &[0; 8192]);
    // A whole copy of a record at a wrong place, for example a file system that holds an image.
    file.put(4 * MIB, &record);
    assert!(
        !SpaceImage::open(&file.path, VolumeAccess::Read)
            .unwrap()
            .describe()
            .unwrap()
            .contains("grown")
    );
}
