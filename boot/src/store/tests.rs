//! The command on image files: each test runs `tidepool store` and looks at the file.

use super::*;
use crate::commands;
use crate::commands::store::{StoreAction, run};
use crate::commands::volume::VolumeAction;
use crate::config::tests::bzimage;
use crate::volume::{self, lock};
use kernel::config::PartitionConfig;
use kernel::images::layout::{BLOCK, CHUNK};
use kernel::space::{DeviceContent, ForeignData, classify};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const TOML: &str = r#"
pool.memory = "128 MiB"
[[paging_device]]
image = "a.img"
size = "288 MiB"
[[paging_device]]
image = "b.img"
size = "288 MiB"
[[partition]]
name = "web"
memory = "128 MiB"
kernel = "vmlinuz"
initrd = "initrd"
cmdline = "console=ttyS0"
[[partition]]
name = "mail"
memory = "64 MiB"
kernel = "vmlinuz"
restart = "never"
"#;

/// A folder with a store, two images and a configuration.
struct StoreFolder(TempDir);

impl StoreFolder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.join("vmlinuz"), bzimage()).unwrap();
        let initrd: Vec<u8> = (0..3 * CHUNK + 11).map(|n| (n / 7) as u8).collect();
        fs::write(folder.join("initrd"), [b"\x1f\x8b", &initrd[..]].concat()).unwrap();
        fs::write(folder.join("two.toml"), TOML).unwrap();
        let image = folder.image();
        assert_eq!(run(&StoreAction::Create { image, size: Some(8 * MIB) }).unwrap(), OK);
        folder
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn image(&self) -> PathBuf {
        self.join("store.img")
    }

    fn add(&self, files: &[&str]) -> Result<ExitCode> {
        let path = |name: &&str| match name.split_once('=') {
            Some((name, file)) => format!("{name}={}", self.join(file).display()),
            None => self.join(name).display().to_string(),
        };
        let files = files.iter().map(path).collect();
        run(&StoreAction::Add { image: self.image(), files, kind: None })
    }

    fn define(&self, names: &[&str]) -> Result<ExitCode> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let file = self.join("two.toml");
        run(&StoreAction::Define { image: self.image(), file, names })
    }

    fn remove(&self, name: &str) -> Result<ExitCode> {
        run(&StoreAction::Remove { image: self.image(), name: name.to_owned() })
    }

    fn check(&self) -> ExitCode {
        run(&StoreAction::Check { image: self.image() }).unwrap()
    }

    fn open(&self) -> ImageStore {
        ImageStore::open(&self.image(), VolumeAccess::Read).unwrap()
    }

    fn labels(&self) -> Vec<String> {
        let store = self.open();
        store.directory().images.iter().map(|image| image.label.to_string()).collect()
    }

    fn damage(&self, at: u64) {
        let file = File::options().read(true).write(true).open(self.image()).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    }
}

const OK: ExitCode = ExitCode::SUCCESS;

fn text(result: Result<ExitCode>) -> String {
    format!("{:#}", result.unwrap_err())
}

#[test]
fn a_configuration_s_partitions_come_back_as_they_were_defined() {
    let folder = StoreFolder::new();
    assert_eq!(folder.define(&[]).unwrap(), OK);
    assert_eq!(folder.check(), OK);
    assert_eq!(folder.labels(), ["vmlinuz", "initrd"], "one kernel for both partitions");
    let mut store = folder.open();
    let slots = store.slots().unwrap();
    let definitions: Vec<_> = slots.iter().filter_map(|slot| slot.definition()).collect();
    assert_eq!(definitions.len(), 2);
    let web = definitions.iter().find(|definition| definition.name.as_str() == "web").unwrap();
    let config = PartitionConfig::from_definition(web.encoding, &web.bytes).unwrap();
    assert_eq!((config.name.as_str(), config.memory_bytes), ("web", 128 * MIB));
    assert_eq!(config.kernel.image, web.kernel.text().as_str());
    assert_eq!(ImageDigest::from_text(&config.kernel.initrd.unwrap()), web.initrd);
    assert_eq!(web.partition, Uuid::from_name("web"));
    // The same again changes nothing; another kernel defines it anew and frees the old one.
    assert_eq!(folder.define(&["web"]).unwrap(), OK);
    assert_eq!(folder.open().slots().unwrap(), slots);
    fs::write(folder.join("vmlinuz"), [bzimage(), vec![1]].concat()).unwrap();
    folder.define(&["web"]).unwrap();
    assert_eq!(folder.labels().len(), 3, "mail still has the old one");
    folder.define(&[]).unwrap();
    assert_eq!(folder.labels(), ["initrd", "vmlinuz"]);
    assert_eq!(folder.check(), OK);
}

#[test]
fn images_stay_while_they_are_named_or_kept() {
    let folder = StoreFolder::new();
    assert_eq!(folder.add(&["vmlinuz", "ramdisk=initrd"]).unwrap(), OK);
    assert_eq!(folder.add(&["vmlinuz"]).unwrap(), OK, "it is there already");
    assert_eq!(folder.labels(), ["vmlinuz", "ramdisk"]);
    folder.define(&["web"]).unwrap();
    assert!(text(folder.remove("ramdisk")).contains("definition web names it"));
    assert_eq!(folder.labels(), ["vmlinuz", "ramdisk"]);
    assert_eq!(folder.remove("web").unwrap(), OK);
    assert_eq!(folder.labels(), ["vmlinuz", "ramdisk"], "they were added by themselves");
    assert_eq!(folder.remove("ramdisk").unwrap(), OK);
    let digest = folder.open().directory().images[0].digest;
    assert_eq!(folder.remove(&digest.short()).unwrap(), OK);
    assert!(folder.labels().is_empty());
    assert!(text(folder.remove("web")).contains("no definition or image web"));
    folder.define(&["web"]).unwrap();
    folder.remove("web").unwrap();
    assert!(folder.labels().is_empty(), "they came with the definition");
    assert_eq!(folder.check(), OK);
}

#[test]
fn one_damaged_byte_anywhere_is_named_by_its_place() {
    let folder = StoreFolder::new();
    folder.define(&[]).unwrap();
    assert_eq!(folder.check(), OK);
    let mut store = folder.open();
    let slot = store.slots().unwrap()[0].number;
    let initrd = store.directory().images[1].clone();
    let first = StoreLayout::chunk(initrd.place(0).unwrap());
    let short = initrd.digest.short();
    for (block, place) in [
        (0, "superblock A".to_owned()),
        (1, "superblock B".to_owned()),
        (17, "directory A".to_owned()),
        (32, "directory B".to_owned()),
        (48 + 2 * u64::from(slot), format!("definition slot {slot}, copy A")),
        (49 + 2 * u64::from(slot), format!("definition slot {slot}, copy B")),
        (first, format!("image {short}, checksums in block {first}")),
        (first + 48, format!("image {short}, chunk 2 in block {}", first + 48)),
    ] {
        let at = block * BLOCK as u64 + 300;
        folder.damage(at);
        let report = StoreReport::of(&folder.image()).unwrap();
        assert_eq!(report.faults, [format!("{place}: the checksum is wrong")]);
        assert_eq!(folder.check(), ExitCode::FAILURE, "{place}");
        folder.damage(at);
        assert_eq!(folder.check(), OK, "{place}");
    }
    for block in [0, 1] {
        folder.damage(block * BLOCK as u64 + 300);
    }
    assert_eq!(StoreReport::of(&folder.image()).unwrap().faults.len(), 2);
    assert!(text(folder.define(&[])).contains("superblock A: the checksum is wrong"));
}

#[test]
fn a_definition_without_its_image_is_a_fault() {
    let folder = StoreFolder::new();
    folder.define(&["mail"]).unwrap();
    let mut store = ImageStore::open(&folder.image(), VolumeAccess::Write).unwrap();
    let publish = change::publish(&mut store.file, &store.store, store.author, vec![]);
    now(&folder.image(), publish).unwrap();
    let report = StoreReport::of(&folder.image()).unwrap();
    assert!(report.faults[0].starts_with("definition mail: there is no image"), "{report:?}");
}

#[test]
fn a_second_command_is_kept_away_and_an_emulator_is_not() {
    let folder = StoreFolder::new();
    let held = ImageStore::open(&folder.image(), VolumeAccess::Write).unwrap();
    assert!(text(folder.add(&["vmlinuz"])).contains("another command writes to the store"));
    assert_eq!(folder.check(), OK, "reading needs no lock");
    drop(held);
    // The bytes that QEMU locks while it has an image open, shared.
    let emulator = File::open(folder.image()).unwrap();
    assert!(lock::as_emulator(&emulator).unwrap());
    assert_eq!(folder.add(&["vmlinuz"]).unwrap(), OK);
    // A command that formats paging spaces takes the whole file.
    let volume = File::options().read(true).write(true).open(folder.image()).unwrap();
    drop(emulator);
    assert!(lock::try_exclusive(&volume).unwrap());
    assert!(text(folder.add(&["initrd"])).contains("another command"));
}

#[test]
fn bad_files_and_a_full_store_change_nothing() {
    let folder = StoreFolder::new();
    fs::write(folder.join("text"), b"neither").unwrap();
    assert!(text(folder.add(&["vmlinuz", "text"])).contains("--as kernel or --as initrd"));
    assert!(folder.labels().is_empty(), "all files are looked at before the first is copied");
    fs::write(folder.join("large"), [&b"\x1f\x8b"[..], &vec![0; 8 << 20]].concat()).unwrap();
    let full = text(folder.add(&["large"]));
    assert!(full.contains("large: the store is full: 130 chunks"), "{full}");
    fs::write(folder.join("empty"), b"").unwrap();
    let files = vec![folder.join("empty").display().to_string()];
    let kind = Some(crate::commands::store::FileKind::Initrd);
    let empty = text(run(&StoreAction::Add { image: folder.image(), files, kind }));
    assert!(empty.contains("an image has 1 to"), "{empty}");
    assert!(text(folder.define(&["web", "none"])).contains("none: no such partition"));
    fs::remove_file(folder.join("vmlinuz")).unwrap();
    assert!(text(folder.define(&[])).contains("vmlinuz"));
    assert_eq!((folder.labels().len(), folder.check()), (0, OK));
    let image = folder.join("text");
    assert!(text(run(&StoreAction::Check { image })).contains("text"));
}

#[test]
fn an_image_is_made_once_and_no_other_file_is_overwritten() {
    let folder = StoreFolder::new();
    let create =
        |name: &str, size| run(&StoreAction::Create { image: folder.join(name), size: Some(size) });
    assert!(text(create("store.img", 8 * MIB)).contains("exists already"));
    assert!(text(create("small.img", MIB)).contains("cannot be a store (least: 3200 KiB)"));
    assert!(!folder.join("small.img").exists());
    create("least.img", 3200 << 10).unwrap();
    // A start of the hypervisor never formats a store as a paging space.
    let bytes = fs::read(folder.image()).unwrap();
    let tail = bytes.last_chunk::<8192>().unwrap();
    assert_eq!(
        classify(&bytes[..72 << 10], tail, bytes.len() as u64),
        DeviceContent::Foreign(ForeignData::Known("a Tidepool image store"))
    );
}

#[test]
fn a_store_lies_in_a_gpt_partition_beside_paging_spaces() {
    let folder = StoreFolder::new();
    let image = folder.join("disk.img");
    let create = || run(&StoreAction::Create { image: image.clone(), size: None });
    volume::create_spaces(&image, 24 * MIB, &[8 * MIB]).unwrap();
    assert!(text(create()).contains("has not one partition for a store"));
    fs::remove_file(&image).unwrap();
    let size = Some(24 * MIB);
    let parts = VolumeAction::Create {
        file: image.clone(),
        size,
        spaces: vec![8 * MIB],
        store: Some(8 * MIB),
        cluster: None,
    };
    commands::volume::run(&parts).unwrap();
    let file = File::options().write(true).open(&image).unwrap();
    file.write_all_at(&[1], 9 * MIB).unwrap();
    assert!(text(create()).contains("is not blank"));
    file.write_all_at(&[0], 9 * MIB).unwrap();
    create().unwrap();
    assert!(text(create()).contains("is not blank"));
    let before = fs::read(&image).unwrap();
    let file = folder.join("two.toml");
    run(&StoreAction::Define { image: image.clone(), file, names: vec![] }).unwrap();
    assert_eq!(run(&StoreAction::Check { image: image.clone() }).unwrap(), OK);
    let after = fs::read(&image).unwrap();
    let store = 9 * MIB as usize..17 * MIB as usize;
    assert!(before[..store.start] == after[..store.start], "the space before is untouched");
    assert!(before[store.end..] == after[store.end..], "the rest is untouched");
}

#[test]
fn a_block_device_s_cache_is_bypassed() {
    // Direct I/O needs a file system on a disk.
    let target = crate::paths::workspace().join("target/tidepool");
    fs::create_dir_all(&target).unwrap();
    let folder = tempfile::tempdir_in(target).unwrap();
    let image = folder.path().join("store.img");
    create(&image, 8 * MIB).unwrap();
    let Ok(mut file) = StoreFile::open_as(&image, VolumeAccess::Write, true) else { return };
    let store = now(&image, open::open(&mut file)).unwrap();
    let change = change::publish(&mut file, &store, author().unwrap(), vec![]);
    assert_eq!(now(&image, change).unwrap().directory().sequence, 3);
    drop(file);
    let store = ImageStore::open(&image, VolumeAccess::Read).unwrap();
    assert_eq!(store.directory().sequence, 3);
}
