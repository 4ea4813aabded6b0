//! The command on image files: each test runs `tidepool cluster`'s functions and looks at the file.

use super::*;
use crate::commands::cluster::{ClusterAction, run};
use crate::volume::lock;
use ::cluster::beat::Beat;
use ::cluster::decree::Decree;
use ::cluster::id::{Incarnation, MemberId};
use ::cluster::layout::Half;
use ::cluster::sector::{FieldWriter, SECTOR, SectorKind};
use ::cluster::state::ClusterState;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use tempfile::TempDir;

const SLOTS: u16 = 8;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn paths(&self, names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(|name| self.path(name)).collect()
    }

    fn create(&self, names: &[&str]) -> (Vec<PathBuf>, Superblock) {
        let paths = self.paths(names);
        let made = create(&paths, SLOTS, ClusterTiming::DEFAULT).unwrap();
        (paths, made)
    }
}

fn put(path: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn member(slot: u16) -> MemberId {
    MemberId { slot, incarnation: Incarnation(0x1000 + u128::from(slot)) }
}

/// Writes what members in the slots from 0 on leave behind.
fn fill(paths: &[PathBuf], layout: &AreaLayout, members: u16) {
    let mut state = ClusterState::new(MAX_STATE as usize);
    for slot in 0..members {
        state.apply(&Decree::Member(member(slot))).unwrap();
    }
    for path in paths {
        for slot in 0..members {
            let mut join = [0; SECTOR];
            FieldWriter::frame(&mut join, SectorKind::Join, member(slot)).seal();
            put(path, layout.join(slot, Half::A).at, &join);
            put(path, layout.join(slot, Half::B).at, &join);
            let mut copy = vec![0; MAX_STATE as usize];
            state.encode(member(slot), 1, &mut copy);
            put(path, layout.state(slot, Half::B).at, &copy);
            let mut beat = Beat { known: state.number(), ..Beat::new(member(slot)) };
            beat.details.name[..4].copy_from_slice(b"node");
            put(path, layout.beat(slot).at, &beat.encode());
        }
    }
}

fn layout() -> AreaLayout {
    AreaLayout::new(SLOTS, MAX_STATE).unwrap().with_mail()
}

fn report(paths: &[PathBuf]) -> AreaReport {
    AreaReport::of(&ClusterImages::open(paths, VolumeAccess::Read).unwrap()).unwrap()
}

fn error<T>(result: Result<T>) -> String {
    format!("{:#}", result.err().expect("an error"))
}

#[test]
fn a_new_cluster_is_sound_and_empty_and_is_not_made_twice() {
    let folder = Folder::new();
    for names in [&["a"][..], &["x", "y", "z"]] {
        let (paths, made) = folder.create(names);
        let found = report(&paths);
        assert_eq!((found.used, found.decree, found.members.len()), (0, 0, 0));
        assert!(found.faults.is_empty() && found.notes.is_empty());
        assert_eq!(usize::from(made.areas), names.len());
        let again = error(create(&paths, SLOTS, ClusterTiming::DEFAULT));
        assert!(again.contains("exists already"), "{again}");
        assert!(report(&paths).faults.is_empty());
    }
    let before = fs::read(folder.path("a")).unwrap();
    let two = folder.paths(&["new", "a", "z2"]);
    assert!(error(create(&two, SLOTS, ClusterTiming::DEFAULT)).contains("exists already"));
    assert!(!folder.path("new").exists(), "a file of a failed creation stays");
    assert!(before == fs::read(folder.path("a")).unwrap());
    let pair = folder.paths(&["p", "q"]);
    assert!(error(create(&pair, SLOTS, ClusterTiming::DEFAULT)).contains("one area or three"));
    let short = ClusterTiming { lease_ms: 1500, ..ClusterTiming::DEFAULT };
    assert!(error(create(&pair[..1], SLOTS, short)).contains("two beats"));
    assert!(error(create(&pair[..1], 1, ClusterTiming::DEFAULT)).contains("2 to 1024"));
}

#[test]
fn a_partition_of_a_divided_image_becomes_an_area_once() {
    let folder = Folder::new();
    let path = folder.path("disk");
    let parts = crate::volume::BlankParts { cluster: Some(2 << 20), ..Default::default() };
    crate::volume::create_parts(&path, 8 << 20, &[2 << 20], parts).unwrap();
    let paths = vec![path.clone()];
    assert!(error(ClusterImages::open(&paths, VolumeAccess::Read)).contains("not a cluster area"));
    put(&path, (3 << 20) + 100_000, b"left behind");
    create(&paths, SLOTS, ClusterTiming::DEFAULT).unwrap();
    let found = report(&paths);
    assert!(found.faults.is_empty() && found.notes.is_empty(), "{:?}", found.faults);
    assert!(error(create(&paths, SLOTS, ClusterTiming::DEFAULT)).contains("is not blank"));
    let disk = crate::volume::VolumeDisk::open(&path, VolumeAccess::Read).unwrap();
    assert_eq!(disk.usable().unwrap().len(), 1, "the area is no paging space");
}

#[test]
fn images_of_other_clusters_or_newer_programs_are_refused() {
    let folder = Folder::new();
    let (one, superblock) = folder.create(&["a", "b", "c"]);
    let (other, _) = folder.create(&["d", "e", "f"]);
    let open = |paths: &[&PathBuf]| {
        let paths: Vec<_> = paths.iter().map(|path| (*path).clone()).collect();
        error(ClusterImages::open(&paths, VolumeAccess::Read))
    };
    assert!(open(&[&one[0], &one[1], &other[2]]).contains("is of cluster"));
    assert!(open(&[&one[0], &one[1]]).contains("has 3 areas"));
    assert!(open(&[&one[0], &one[1], &one[1]]).contains("each is wanted once"));
    let mut newer = superblock.encode();
    newer[8] = 2;
    let crc = ::cluster::crc::crc32c(&newer[..4092]).to_le_bytes();
    newer[4092..].copy_from_slice(&crc);
    put(&one[0], 4096, &newer);
    assert!(open(&[&one[0], &one[1], &one[2]]).contains("version 2 of a newer program"));
    put(&other[0], 0, &[0; 8192]);
    assert!(open(&[&other[0]]).contains("not a cluster area"));
}

#[test]
fn each_damaged_structure_is_named_with_its_place() {
    let folder = Folder::new();
    let (paths, _) = folder.create(&["a"]);
    let (path, layout) = (&paths[0], layout());
    fill(&paths, &layout, 3);
    let sound = report(&paths);
    assert!(sound.faults.is_empty() && sound.notes.is_empty(), "{:?}", sound.faults);
    assert_eq!((sound.used, sound.decree, sound.members.len()), (3, 3, 3));
    assert!(sound.members.iter().all(|one| one.name == "node" && one.status == "up"));
    let bytes = fs::read(path).unwrap();
    let cases = [
        (layout.beat(1).at, "slot 1, beat"),
        (layout.join(2, Half::A).at, "slot 2, join X"),
        (layout.state(0, Half::B).at, "slot 0, state B"),
        (layout.log(2, Half::A).at, "slot 2, log block A"),
    ];
    for (at, place) in cases {
        fs::write(path, &bytes).unwrap();
        put(path, at + 300, b"torn");
        let found = report(&paths);
        let lines: Vec<_> = found.faults.iter().chain(&found.notes).collect();
        assert!(lines.len() == 1 && lines[0].contains(place), "{place}: {lines:?}");
        let is_fault = !place.contains("join");
        assert_eq!(!found.faults.is_empty(), is_fault, "{place}");
        let code = run(&ClusterAction::Check { images: paths.clone() }).unwrap();
        assert_eq!(code == ExitCode::SUCCESS, !is_fault, "{place}");
    }
    fs::write(path, &bytes).unwrap();
    put(path, layout.beat(1).at, &Beat::new(MemberId { slot: 1, ..member(7) }).encode());
    assert!(report(&paths).faults[0].contains("not the slot's"));
    put(path, layout.beat(1).at, &Beat::new(member(2)).encode());
    assert!(report(&paths).faults[0].contains("was written for slot 2"));
    fs::write(path, &bytes).unwrap();
    put(path, 100, b"torn");
    assert!(report(&paths).notes[0].contains("superblock A"));
}

#[test]
fn a_sweep_frees_slots_and_the_next_start_learns_the_state() {
    let folder = Folder::new();
    for names in [&["a"][..], &["x", "y", "z"]] {
        let (paths, _) = folder.create(names);
        fill(&paths, &layout(), 5);
        let swept = ClusterImages::open(&paths, VolumeAccess::Write).unwrap().sweep().unwrap();
        assert_eq!((swept.freed, swept.kept, swept.quieted, swept.decree), (4, 1, 5, 6));
        let found = report(&paths);
        assert_eq!((found.used, found.decree, found.members.len()), (1, 6, 0));
        assert!(found.faults.is_empty() && found.notes.is_empty(), "{:?}", found.faults);
        let images = ClusterImages::open(&paths, VolumeAccess::Write).unwrap();
        let (state, keeper) = images.newest_state().unwrap();
        let beats = images.read_all(layout().beats()).unwrap();
        let at = usize::from(keeper) * 512;
        for area in &beats {
            assert_eq!(Beat::decode(&area[at..at + 512]).unwrap().known, state.number());
        }
        let again = images.sweep().unwrap();
        assert_eq!((again.freed, again.kept, again.decree), (0, 1, 7));
    }
}

#[test]
fn an_area_that_an_emulator_has_open_is_not_swept() {
    let folder = Folder::new();
    let (paths, _) = folder.create(&["a"]);
    let file = File::open(&paths[0]).unwrap();
    assert!(lock::as_emulator(&file).unwrap());
    let refused = ClusterAction::Sweep { images: paths.clone(), machines_are_off: true };
    assert!(error(run(&refused)).contains("is in use"));
    assert!(run(&ClusterAction::Check { images: paths.clone() }).is_ok());
    drop(file);
    assert!(run(&refused).is_ok());
}

#[test]
fn a_sweep_does_not_go_back_to_an_older_state() {
    let folder = Folder::new();
    let (paths, _) = folder.create(&["a"]);
    fill(&paths, &layout(), 2);
    let beat = Beat { known: 9, ..Beat::new(member(1)) };
    put(&paths[0], layout().beat(1).at, &beat.encode());
    let before = fs::read(&paths[0]).unwrap();
    let refused = ClusterImages::open(&paths, VolumeAccess::Write).unwrap().sweep();
    assert!(error(refused).contains("decree 9 is lost"));
    assert!(before == fs::read(&paths[0]).unwrap());
}

#[test]
fn other_commands_leave_an_area_alone() {
    let folder = Folder::new();
    let (paths, _) = folder.create(&["a"]);
    let image = crate::volume::SpaceImage::open(&paths[0], VolumeAccess::Read).unwrap();
    assert!(image.describe().unwrap().contains("a Tidepool cluster area"));
    let before = fs::read(&paths[0]).unwrap();
    let format = crate::commands::volume::VolumeAction::Format {
        file: paths[0].clone(),
        space: None,
        force: false,
    };
    assert!(error(crate::commands::volume::run(&format)).contains("a Tidepool cluster area"));
    assert!(
        error(crate::store::ImageStore::open(&paths[0], VolumeAccess::Write).map(|_| ()))
            .contains("store")
    );
    assert!(before == fs::read(&paths[0]).unwrap());
}
