use super::*;
use kernel::config::{DumpPolicy, Restart};
use std::fs;

/// A folder with a kernel and an initrd of known format.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidepool-config-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let mut kernel = vec![0; 1024];
        kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        fs::write(path.join("vmlinuz"), kernel).unwrap();
        fs::write(path.join("initrd"), b"\x1f\x8b and so on").unwrap();
        fs::write(path.join("text"), b"no kernel").unwrap();
        Self(path)
    }

    fn read(&self, text: &str) -> Result<Plan, String> {
        read("demo.toml", text, &self.0, Bed::Qemu).map_err(|e| e.to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const GOOD: &str = r#"
[pool]
memory = "128 MiB"
[[paging_device]]
image = "a.img"
size = "288 MiB"
[[paging_device]]
memory = "64 MiB"
[[partition]]
name = "debian"
memory = "256 MiB"
kernel = "vmlinuz"
initrd = "initrd"
cmdline = "console=ttyS0"
dump = "aided"
restart = "immediate"
"#;

#[test]
fn a_good_file_becomes_a_plan_and_its_image_is_made() {
    let folder = Folder::new("good");
    let plan = folder.read(GOOD).unwrap();
    let partition = &plan.config.partitions[0];
    assert_eq!((plan.config.pool_bytes, partition.memory_bytes), (128 << 20, 256 << 20));
    assert_eq!((partition.dump, partition.restart), (DumpPolicy::Aided, Restart::Immediate));
    assert_eq!(plan.config.memory_disks, [64 << 20]);
    assert_eq!(plan.disks, [folder.0.join("a.img")]);
    assert_eq!(fs::metadata(&plan.disks[0]).unwrap().len(), 288 << 20);
    assert!(plan.machine_mib >= 128 + 64 + 64 && plan.cpus == 2 && plan.cpu.is_none());
}

#[test]
fn a_machine_shows_the_cpu_that_is_asked_for() {
    let folder = Folder::new("model");
    let plan = folder.read(&GOOD.replacen("[pool]", "[machine]\ncpu = \"corei7_ivy_bridge_3770k\"\n[pool]", 1)).unwrap();
    assert_eq!(plan.cpu.as_deref(), Some("corei7_ivy_bridge_3770k"));
}

#[test]
fn the_archive_holds_what_the_configuration_names() {
    let folder = Folder::new("archive");
    let plan = folder.read(GOOD).unwrap();
    let path = folder.0.join("archive.tar");
    plan.archive.write(&path).unwrap();
    let mut tar = tar::Archive::new(fs::File::open(&path).unwrap());
    let names: Vec<_> = tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    let kernel = &plan.config.partitions[0].kernel;
    assert_eq!(names, [kernel.image.clone(), kernel.initrd.clone().unwrap(), "config".to_owned()]);
}

/// Each row: what to replace in [`GOOD`], by what, and the error.
#[test]
fn every_mistake_names_file_line_and_key() {
    let folder = Folder::new("mistakes");
    let rows = [
        ("dump = \"aided\"", "dmup = \"aided\"", "demo.toml:15: partition.dmup: unknown key (known: name, memory, kernel"),
        ("dump = \"aided\"", "dump = true", "demo.toml:15: partition.dump: must be text in quotes, not boolean"),
        ("\"aided\"", "\"yes\"", "demo.toml:15: partition.dump: \"yes\" is none of \"aided\", \"off\""),
        ("128 MiB", "128 MB", "demo.toml:3: pool.memory: “128 MB” is no size"),
        ("128 MiB", "1000 B", "demo.toml:3: pool.memory: 1000 B is no multiple of 4 KiB"),
        ("128 MiB", "1 MiB", "demo.toml:3: pool.memory: 1 MiB is too small (least: 4 MiB)"),
        ("memory = \"256 MiB\"", "memory = 256", "demo.toml:11: partition.memory: must be a size like \"256 MiB\", not integer"),
        ("256 MiB", "300 MiB", "demo.toml:11: partition.memory: 300 MiB is larger than every paging space (largest: "),
        ("\"vmlinuz\"", "\"missing\"", "demo.toml:12: partition.kernel: "),
        ("\"vmlinuz\"", "\"text\"", "demo.toml:12: partition.kernel: "),
        ("\"initrd\"", "\"text\"", "demo.toml:13: partition.initrd: "),
        ("kernel = \"vmlinuz\"\n", "", "demo.toml:9: partition.kernel: missing"),
        ("\"debian\"", "\"the debian\"", "demo.toml:10: partition.name: must be at most 31"),
        ("restart =", "vcpus = 2\nrestart =", "demo.toml:16: partition.vcpus: only one vCPU a partition"),
        ("restart =", "boot_memory = \"1 GiB\"\nrestart =", "demo.toml:16: partition.boot_memory: 1 GiB is more than"),
        ("\"a.img\"\nsize = \"288 MiB\"", "\"b.img\"", "demo.toml:5: paging_device.image: "),
        ("memory = \"64 MiB\"", "image = \"a.img\"", "demo.toml:8: paging_device.image: is another paging device already"),
        ("memory = \"64 MiB\"", "", "demo.toml:7: paging_device.image: say either image"),
        ("[pool]", "[machine]\nmemory = \"100 MiB\"\n[pool]", "demo.toml:5: pool.memory: 128 MiB does not fit into a machine"),
        ("[pool]", "[machine]\ncpu = \"max, count=8\"\n[pool]", "demo.toml:3: machine.cpu: must be the emulator's name"),
        ("[pool]\n", "[pool\n", "demo.toml:2: "),
    ];
    // The image exists, so that each row fails for its own reason only.
    folder.read(GOOD).unwrap();
    for (from, to, expected) in rows {
        assert!(GOOD.contains(from), "{from}");
        let error = folder.read(&GOOD.replacen(from, to, 1)).err().unwrap_or_else(|| panic!("accepted: {to}"));
        assert!(error.starts_with(expected), "{to}\n  gave     {error}\n  expected {expected}");
    }
}

#[test]
fn two_partitions_of_one_name_are_refused() {
    let folder = Folder::new("names");
    let second = &GOOD[GOOD.find("[[partition]]").unwrap()..];
    let error = folder.read(&format!("{GOOD}{second}")).unwrap_err();
    assert!(error.starts_with("demo.toml:18: partition.name: “debian” is another partition already"), "{error}");
}

#[test]
fn without_a_paging_device_nothing_starts_and_nothing_is_made() {
    let folder = Folder::new("none");
    let start = GOOD.find("[[paging").unwrap();
    let partition = &GOOD[GOOD.find("[[partition]]").unwrap()..];
    let error = folder.read(&format!("{}{partition}", &GOOD[..start])).unwrap_err();
    assert!(error.contains("paging_device: none, but partition “debian” needs one"), "{error}");
    assert!(folder.read(&GOOD.replace("128 MiB", "1 MiB")).is_err());
    assert!(!folder.0.join("a.img").exists());
}

#[test]
fn foreign_data_is_named_and_stays() {
    let folder = Folder::new("foreign");
    let mut data = vec![0_u8; 288 << 20];
    data[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    fs::write(folder.0.join("a.img"), &data).unwrap();
    let error = folder.read(GOOD).unwrap_err();
    assert!(error.starts_with("demo.toml:5: paging_device.image: ") && error.contains("ext4"), "{error}");
    assert!(fs::read(folder.0.join("a.img")).unwrap() == data);
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Path::new("/nowhere/demo.toml"), Bed::Qemu).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/demo.toml: cannot be read: "), "{error}");
}

#[test]
fn bochs_has_no_virtio_disks() {
    let folder = Folder::new("bochs");
    let error = read("demo.toml", GOOD, &folder.0, Bed::Bochs).unwrap_err().to_string();
    assert!(error.starts_with("demo.toml:5: paging_device.image: Bochs has no virtio disks"), "{error}");
}

/// [`GOOD`] with its image on a partition table.
fn with_spaces(spaces: &str) -> String {
    GOOD.replacen("size = \"288 MiB\"", &format!("spaces = [{spaces}]"), 1)
}

#[test]
fn an_image_with_spaces_is_made_once_and_then_has_to_be_as_described() {
    let folder = Folder::new("spaces");
    let text = with_spaces("\"272 MiB\", \"8 MiB\"");
    let plan = folder.read(&text).unwrap();
    assert_eq!(fs::metadata(&plan.disks[0]).unwrap().len(), 282 << 20);
    folder.read(&text).unwrap();
    // What is there needs no description.
    folder.read(&GOOD.replacen("size = \"288 MiB\"\n", "", 1)).unwrap();
    let error = folder.read(&with_spaces("\"272 MiB\"")).unwrap_err();
    assert!(error.starts_with("demo.toml:6: paging_device.spaces: ") && error.ends_with("already: 272 MiB, 8 MiB"), "{error}");
}

#[test]
fn spaces_that_cannot_be_are_named_before_anything_is_made() {
    let folder = Folder::new("no-spaces");
    let rows = [
        ("\"272 MB\"", "demo.toml:6: paging_device.spaces: “272 MB” is no size"),
        ("\"1000 B\"", "demo.toml:6: paging_device.spaces: 1000 B is no multiple of 4 KiB"),
        ("\"272 MiB\", \"4 KiB\"", "demo.toml:6: paging_device.spaces: a space of 4 KiB is too small for a page"),
        ("\"272 MiB\"]\nsize = [", "demo.toml:7: paging_device.size: must be a size"),
        ("\"272 MiB\"]\nsize = \"272 MiB\" #", "demo.toml:6: paging_device.spaces: the spaces need 286278144 bytes"),
        // Larger than each space, though not than the device.
        ("\"140 MiB\", \"140 MiB\"", "demo.toml:11: partition.memory: 256 MiB is larger than every paging space"),
    ];
    for (spaces, expected) in rows {
        let error = folder.read(&with_spaces(spaces).replacen("memory = \"64 MiB\"", "memory = \"8 MiB\"", 1));
        let error = error.err().unwrap_or_else(|| panic!("accepted: {spaces}"));
        assert!(error.starts_with(expected), "{spaces}\n  gave     {error}\n  expected {expected}");
        assert!(!folder.0.join("a.img").exists());
    }
}

#[test]
fn a_partition_table_that_is_not_ours_or_damaged_is_refused() {
    use std::os::unix::fs::FileExt;
    let folder = Folder::new("tables");
    folder.read(&with_spaces("\"272 MiB\"")).unwrap();
    let file = fs::File::options().read(true).write(true).open(folder.0.join("a.img")).unwrap();
    let text = GOOD.replacen("size = \"288 MiB\"\n", "", 1);
    // The damaged primary makes the backup count, which is enough to start.
    file.write_all_at(b"x", 1024).unwrap();
    folder.read(&text).unwrap();
    file.write_all_at(b"x", (274 << 20) - 512).unwrap();
    let error = folder.read(&text).unwrap_err();
    assert!(error.starts_with("demo.toml:5: paging_device.image: ") && error.contains("damaged partition table"), "{error}");
}

/// `GOOD` with a second partition, and room for both.
fn two(second: &str) -> String {
    GOOD.replace("\"64 MiB\"", "\"288 MiB\"") + second
}

#[test]
fn a_kernel_that_is_missing_keeps_only_its_own_partition_from_starting() {
    let folder = Folder::new("one-missing");
    let text = two("[[partition]]\nname = \"other\"\nmemory = \"64 MiB\"\nkernel = \"missing\"\n");
    let plan = folder.read(&text).unwrap();
    assert_eq!(plan.config.partitions.len(), 2);
    assert!(plan.warnings.len() == 1 && plan.warnings[0].starts_with("demo.toml:20: partition.kernel: "), "{:?}", plan.warnings);
    let error = folder.read(&text.replace("\"vmlinuz\"", "\"text\"")).unwrap_err();
    assert!(error.starts_with("demo.toml:12: partition.kernel: "), "where nothing could run it is an error: {error}");
}

#[test]
fn more_partitions_than_spaces_are_refused_before_anything_starts() {
    let folder = Folder::new("spaces");
    let more = |name| format!("[[partition]]\nname = \"{name}\"\nmemory = \"32 MiB\"\nkernel = \"vmlinuz\"\n");
    let text = two(&(more("b") + &more("c")));
    let error = folder.read(&text).unwrap_err();
    assert!(error.contains("partition.name: 3 partitions, but only 2 paging spaces"), "{error}");
    assert!(!folder.0.join("a.img").exists());
    let large = two(&more("b").replace("32 MiB", "256 MiB")).replace("\"288 MiB\"\n[[partition]]", "\"64 MiB\"\n[[partition]]");
    let error = folder.read(&large).unwrap_err();
    assert!(error.contains("partition.memory: the paging spaces that are large enough"), "{error}");
}
