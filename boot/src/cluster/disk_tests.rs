//! Disks that come under a cluster and leave it: each test runs the commands' functions on images.

use super::*;
use crate::cluster::{SpaceReport, create};
use crate::commands::dump::{DumpAction, run as run_dump};
use crate::commands::volume::{VolumeAction, run as run_volume};
use crate::volume::{self, BlankParts, lock};
use ::cluster::decree::Decree;
use ::cluster::id::{Incarnation, MemberId};
use ::cluster::layout::{AreaLayout, Half, MAX_STATE};
use ::cluster::timing::ClusterTiming;
use kernel::mm::crc::Crc32c;
use kernel::mm::layout::RamLayout;
use kernel::space::record::SpaceContents;
use kernel::space::{CrashReason, RecordSide, RecordedCrash, SpaceOwner, SuspensionSeal};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use tempfile::TempDir;

const SLOTS: u16 = 8;
const SPACE: u64 = 4 << 20;
const PAGE: usize = 4096;

struct DiskFolder(TempDir);

impl DiskFolder {
    /// Makes an area, a disk with two spaces, and a disk that is one space.
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.area("area");
        volume::create_spaces(&folder.path("two"), 12 << 20, &[SPACE, SPACE]).unwrap();
        volume::create(&folder.path("whole"), SPACE).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn area(&self, name: &str) -> Uuid {
        let made = create(&[self.path(name)], SLOTS, ClusterTiming::DEFAULT).unwrap();
        name_of(made.cluster)
    }

    fn site(&self, names: &[&str]) -> Result<ClusterSite> {
        let paths: Vec<_> = names.iter().map(|name| self.path(name)).collect();
        ClusterSite::open(&paths, VolumeAccess::Write)
    }

    fn all(&self) -> Result<ClusterSite> {
        self.site(&["area", "two", "whole"])
    }
}

fn error<T>(result: Result<T>) -> String {
    format!("{:#}", result.err().expect("an error"))
}

/// Returns the clusters that both copies of all records name; `None` for a copy that is not there.
fn clusters(path: &Path) -> Vec<[Option<Option<Uuid>>; 2]> {
    let disk = VolumeDisk::open(path, VolumeAccess::Read).unwrap();
    let of = |space: SpaceImage| space.copies().unwrap().map(|copy| copy.map(|r| r.cluster));
    disk.usable().unwrap().into_iter().map(of).collect()
}

/// Writes the next record of the only space of an image.
fn put(path: &Path, change: impl FnOnce(&mut SpaceRecord)) {
    let image = SpaceImage::open(path, VolumeAccess::Write).unwrap();
    let mut record = image.record().unwrap();
    record.sequence += 1;
    change(&mut record);
    image.put_record(&record).unwrap();
}

/// Fills a record in as one of a used space in this state.
fn used(record: &mut SpaceRecord, state: SpaceState) {
    let ram = RamLayout::new(64 << 10).unwrap();
    record.state = state;
    record.residue = Residue::Stale;
    record.contents = Some(SpaceContents::new(record.capacity, &ram).unwrap());
    record.owner = Some(SpaceOwner {
        name: "web".try_into().unwrap(),
        partition: Uuid::from_name("web"),
        node: Uuid::from_name("node"),
        epoch: 3,
    });
    record.crash = Some(RecordedCrash {
        name: Uuid::from_name("dump"),
        reason: CrashReason::PVPANIC,
        detail: 0,
        time_ns: 1,
        text: "panic".try_into().unwrap(),
        registers: Default::default(),
    });
    let seal = SuspensionSeal { notes: Crc32c(1), bitmap: Crc32c(2), checksums: Crc32c(3) };
    record.seal = state.is_whole_machine().then_some(seal);
}

#[test]
fn a_new_cluster_closes_the_spaces_beside_its_area() {
    let folder = DiskFolder::new();
    let shared = folder.path("shared");
    let area = BlankParts { cluster: Some(2 << 20), store: None };
    volume::create_parts(&shared, 16 << 20, &[SPACE, SPACE], area).unwrap();
    let cluster = folder.area("shared");
    assert_eq!(clusters(&shared), [[Some(Some(cluster)); 2]; 2]);
    let report = SpaceReport::of(&folder.site(&["shared"]).unwrap()).unwrap();
    assert_eq!(report.rows.len(), 2);
    assert!(report.notes.is_empty() && report.faults.is_empty(), "{:?}", report.notes);
    assert!(error(folder.site(&["shared"]).unwrap().remove()).contains("beside an area"));
    // A space that cannot be closed refuses the whole command, before anything is written.
    let other = folder.path("other");
    volume::create_parts(&other, 16 << 20, &[SPACE], area).unwrap();
    put(&other, |record| used(record, SpaceState::Active));
    let before = fs::read(&other).unwrap();
    let refused = error(create(std::slice::from_ref(&other), SLOTS, ClusterTiming::DEFAULT));
    assert!(refused.contains("space 1: is active"), "{refused}");
    assert!(before == fs::read(&other).unwrap());
}

#[test]
fn disks_are_closed_and_opened_again() {
    let folder = DiskFolder::new();
    let (two, whole) = (folder.path("two"), folder.path("whole"));
    put(&whole, |record| used(record, SpaceState::Complete));
    let before = folder.all().unwrap();
    let report = SpaceReport::of(&before).unwrap();
    assert_eq!((report.rows.len(), report.notes.len(), report.faults.len()), (3, 3, 0));
    assert!(report.notes[0].contains("two space 1: is open to programs outside"));
    let cluster = before.cluster();
    drop(before);
    for _ in 0..2 {
        assert_eq!(folder.all().unwrap().add().unwrap(), 3);
        assert_eq!(clusters(&two), [[Some(Some(cluster)); 2]; 2]);
        assert_eq!(clusters(&whole), [[Some(Some(cluster)); 2]]);
    }
    let image = SpaceImage::open(&whole, VolumeAccess::Read).unwrap();
    let dump = image.record().unwrap();
    assert_eq!(
        (dump.state, dump.crash.map(|c| c.name)),
        (SpaceState::Complete, Some(Uuid::from_name("dump")))
    );
    assert!(SpaceReport::of(&folder.all().unwrap()).unwrap().notes.is_empty());
    for _ in 0..2 {
        assert_eq!(folder.all().unwrap().remove().unwrap(), 3);
        assert_eq!(clusters(&two), [[Some(None); 2]; 2]);
        assert_eq!(clusters(&whole), [[Some(None); 2]]);
    }
    assert_eq!(image.record().unwrap().state, SpaceState::Complete);
}

#[test]
fn commands_outside_of_the_cluster_only_read() {
    let folder = DiskFolder::new();
    let whole = folder.path("whole");
    put(&whole, |record| used(record, SpaceState::Complete));
    let site = folder.all().unwrap();
    site.add().unwrap();
    let name = site.cluster().to_string();
    drop(site);
    let before = fs::read(&whole).unwrap();
    let format = VolumeAction::Format { file: whole.clone(), space: None, force: true };
    let refused = error(run_volume(&format));
    assert!(refused.contains(&name) && refused.contains("cluster remove"), "{refused}");
    for action in [
        DumpAction::Release { file: whole.clone(), dump: None, clones: Vec::new() },
        DumpAction::Header { file: whole.clone(), dump: None },
    ] {
        let refused = error(run_dump(&action));
        assert!(refused.contains(&name), "{refused}");
    }
    run_volume(&VolumeAction::List { files: vec![whole.clone()] }).unwrap();
    run_dump(&DumpAction::List { files: vec![whole.clone()] }).unwrap();
    let image = SpaceImage::open(&whole, VolumeAccess::Read).unwrap();
    assert!(image.describe().unwrap().contains(&format!("complete, cluster {name}'s")));
    assert!(before == fs::read(&whole).unwrap());
}

#[test]
fn unfinished_work_is_refused_with_place_and_reason() {
    for state in SpaceState::ALL {
        let folder = DiskFolder::new();
        put(&folder.path("whole"), |record| used(record, state));
        let (two, before) = (folder.path("two"), fs::read(folder.path("two")).unwrap());
        let is_at_rest = matches!(
            state,
            SpaceState::Free | SpaceState::Crashed | SpaceState::Complete | SpaceState::Partial
        );
        let result = folder.all().unwrap().add();
        assert_eq!(result.is_ok(), is_at_rest, "{state:?}");
        if let Err(refused) = result {
            let text = format!("whole: is {}: ", state.name());
            assert!(refused.to_string().contains(&text), "{refused}");
            assert!(before == fs::read(&two).unwrap(), "a space is closed beside a refused one");
        }
    }
}

#[test]
fn foreign_torn_and_used_images_are_refused() {
    let folder = DiskFolder::new();
    let (whole, other) = (folder.path("whole"), folder.area("other"));
    assert!(error(folder.site(&["whole"])).contains("cluster's areas too"));
    folder.site(&["other", "whole"]).unwrap().add().unwrap();
    for command in [ClusterSite::add, ClusterSite::remove] {
        let refused = error(command(&folder.all().unwrap()));
        assert!(refused.contains(&format!("whole: belongs to cluster {other}")), "{refused}");
    }
    let report = SpaceReport::of(&folder.all().unwrap()).unwrap();
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
    // Both copies are torn.
    let file = File::options().read(true).write(true).open(&whole).unwrap();
    file.write_all_at(&[0xee; 512], SPACE - 8192 + 1024).unwrap();
    file.write_all_at(&[0xee; 512], SPACE - 4096 + 1024).unwrap();
    for command in [ClusterSite::add, ClusterSite::remove] {
        assert!(error(command(&folder.all().unwrap())).contains("whole: damaged space record"));
    }
    let emulator = File::open(folder.path("two")).unwrap();
    assert!(lock::as_emulator(&emulator).unwrap());
    assert!(error(folder.all()).contains("two: is in use"));
    let emulator = File::open(folder.path("area")).unwrap();
    assert!(lock::as_emulator(&emulator).unwrap());
    assert!(error(folder.site(&["area", "whole"])).contains("area: is in use"));
}

/// Has the log say that a member has taken a space, and what became of the member.
fn log(path: &Path, space: u128, ends: &[Decree]) {
    let layout = AreaLayout::new(SLOTS, MAX_STATE).unwrap();
    let mut state = ClusterState::new(MAX_STATE as usize);
    let member = |slot| MemberId { slot, incarnation: Incarnation(7 + u128::from(slot)) };
    let (from, to) = (Owner::Unowned, Owner::Slot(1));
    let begun = [
        Decree::Member(member(0)),
        Decree::Member(member(1)),
        Decree::Own { partition: 5, from, to },
        Decree::Take { partition: 5, space, by: 1 },
    ];
    begun.iter().chain(ends).for_each(|decree| state.apply(decree).unwrap());
    let mut bytes = vec![0; MAX_STATE as usize];
    state.encode(member(0), 1, &mut bytes);
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&bytes, layout.state(0, Half::A).at).unwrap();
}

#[test]
fn a_space_that_the_log_gives_to_a_member_stays_where_it_is() {
    let folder = DiskFolder::new();
    folder.all().unwrap().add().unwrap();
    let space = SpaceImage::open(&folder.path("whole"), VolumeAccess::Read).unwrap();
    let number = u128::from_be_bytes(space.record().unwrap().space.0);
    let fence = Decree::Fence { who: 1, heir: 0 };
    let quiet = Decree::Quiet { who: 1, proof: ::cluster::decree::QuietProof::Confirmed };
    for ends in [&[][..], &[fence]] {
        log(&folder.path("area"), number, ends);
        let refused = error(folder.all().unwrap().remove());
        assert!(refused.contains("whole: the log gives it to the member in slot 1"), "{refused}");
        assert!(refused.contains("cluster sweep"), "{refused}");
    }
    log(&folder.path("area"), number, &[fence, quiet]);
    assert_eq!(folder.all().unwrap().remove().unwrap(), 3);
}

/// The power fails before, between and in the middle of the two writes.
#[test]
fn a_power_cut_leaves_each_space_whole_and_the_command_ends_what_it_began() {
    for state in [SpaceState::Free, SpaceState::Complete] {
        let folder = DiskFolder::new();
        let (area, whole) = (folder.path("area"), folder.path("whole"));
        put(&whole, |record| used(record, state));
        let cluster = folder.all().unwrap().cluster();
        let file = File::options().read(true).write(true).open(&whole).unwrap();
        let at = SPACE - 2 * PAGE as u64;
        for to in [Some(cluster), None] {
            let mut landed = [0; 2 * PAGE];
            file.read_exact_at(&mut landed, at).unwrap();
            let from = SpaceImage::open(&whole, VolumeAccess::Read).unwrap().record().unwrap();
            for (n, next) in next_records(&from, to).iter().enumerate() {
                let (place, bytes) =
                    (RecordSide::of(next.sequence).offset_in_tail(), next.encode());
                for sectors in 0..256_u32 {
                    let mut torn = landed;
                    for sector in (0..8).filter(|sector| sectors >> sector & 1 == 1) {
                        let part = sector * 512..(sector + 1) * 512;
                        torn[place..][part.clone()].copy_from_slice(&bytes[part]);
                    }
                    file.write_all_at(&torn, at).unwrap();
                    let image = SpaceImage::open(&whole, VolumeAccess::Read).unwrap();
                    let found = image.record().unwrap();
                    let alike = SpaceRecord { sequence: 0, cluster: None, ..found.clone() };
                    assert_eq!(alike, SpaceRecord { sequence: 0, cluster: None, ..from.clone() });
                    let is_as_before = n == 0 && found.cluster == from.cluster;
                    assert!(found.cluster == to || is_as_before, "{n} {sectors:#b}");
                    if sectors % 37 != 0 {
                        continue;
                    }
                    let both = [area.clone(), whole.clone()];
                    let site = ClusterSite::open(&both, VolumeAccess::Write).unwrap();
                    let changed = if to.is_some() { site.add() } else { site.remove() };
                    assert_eq!(changed.unwrap(), 1);
                    assert_eq!(clusters(&whole), [[Some(to); 2]], "{n} {sectors:#b}");
                }
                landed[place..place + PAGE].copy_from_slice(&bytes);
            }
            file.write_all_at(&landed, at).unwrap();
        }
    }
}
