use super::image::KernelFormat;
use super::*;
use kernel::config::{
    DeviceSwitch, DumpBound, DumpOverflow, DumpPolicy, RestartLimit, RestartPolicy,
};
use std::fs;
use tempfile::TempDir;

/// A folder with a kernel and an initrd of known format.
struct ConfigFolder(TempDir);

impl ConfigFolder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.join("vmlinuz"), bzimage()).unwrap();
        fs::write(folder.join("initrd"), b"\x1f\x8b and so on").unwrap();
        fs::write(folder.join("text"), b"no kernel").unwrap();
        folder
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, text: &str) -> Result<BootPlan, String> {
        read("demo.toml", text, self.0.path(), Bed::Qemu).map_err(|e| e.to_string())
    }
}

/// A bzImage with a payload of 4 KiB. It prefers to be loaded at 16 MiB, needs 4 MiB there, and
/// takes 2047 bytes of command line.
pub(crate) fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 1024 + 4096];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1f4, &256_u32.to_le_bytes());
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &[1]);
    put(0x238, &2047_u32.to_le_bytes());
    put(0x258, &(16_u64 << 20).to_le_bytes());
    put(0x260, &(4_u32 << 20).to_le_bytes());
    image
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
    let folder = ConfigFolder::new();
    let plan = folder.read(GOOD).unwrap();
    let partition = &plan.config.partitions[0];
    assert_eq!((plan.config.pool_bytes, partition.memory_bytes), (128 << 20, 256 << 20));
    assert_eq!((partition.dump, partition.restart), (DumpPolicy::Aided, RestartPolicy::Immediate));
    assert_eq!(plan.config.memory_disks, [64 << 20]);
    assert_eq!(plan.disks, [folder.join("a.img")]);
    assert_eq!(fs::metadata(&plan.disks[0]).unwrap().len(), 288 << 20);
    assert!(plan.machine_mib >= 128 + 64 + 64 && plan.cpus == 2 && plan.cpu.is_none());
}

#[test]
fn a_disk_has_the_time_that_is_said_or_half_a_minute() {
    let folder = ConfigFolder::new();
    assert_eq!(folder.read(GOOD).unwrap().config.disk_timeout_ns, 30_000_000_000);
    let plan =
        folder.read(&GOOD.replacen("[pool]", "disk_timeout = \"250 ms\"\n[pool]", 1)).unwrap();
    assert_eq!(plan.config.disk_timeout_ns, 250_000_000);
}

#[test]
fn the_machine_grows_with_the_tables_of_frames_and_of_pages() {
    let folder = ConfigFolder::new();
    let mib = |pool: &str, memory: &str, size: &str| {
        let text =
            GOOD.replace("128 MiB", pool).replacen("256 MiB", memory, 1).replace("288 MiB", size);
        folder.read(&text).map(|plan| plan.machine_mib)
    };
    let small = mib("128 MiB", "256 MiB", "288 MiB").unwrap();
    fs::remove_file(folder.join("a.img")).unwrap();
    // 12 bytes a frame, and a heap of 1/32 of the machine up to 64 MiB.
    let pool = mib("16 GiB", "256 MiB", "288 MiB").unwrap();
    assert!((16384 + 48 + 48 + 128..16384 + 48 + 48 + 160).contains(&pool), "{pool} MiB");
    fs::remove_file(folder.join("a.img")).unwrap();
    // 8 bytes a page plus the upper table levels, once for the live memory and once for memory that
    // is being taken apart.
    let partition = mib("128 MiB", "128 GiB", "132 GiB").unwrap();
    assert!((small + 2 * 257..small + 2 * 257 + 40).contains(&partition), "{partition} MiB");
}

#[test]
fn a_machine_without_room_for_the_tables_is_refused() {
    let folder = ConfigFolder::new();
    let large = GOOD.replacen("256 MiB", "128 GiB", 1).replace("288 MiB", "132 GiB");
    let error = folder
        .read(&large.replacen("[pool]", "[machine]\nmemory = \"512 MiB\"\n[pool]", 1))
        .unwrap_err();
    assert!(
        error.starts_with(
            "demo.toml:5: pool.memory: 128 MiB does not fit into a machine of 512 MiB: the rest \
             needs "
        ),
        "{error}"
    );
    assert!(error.contains("tables of frames"), "{error}");
    assert!(!folder.join("a.img").exists(), "nothing is made for a configuration that is refused");
    // Sums beyond 64 bits are refused like any other.
    let error = folder.read(&GOOD.replacen(
        "[pool]\nmemory = \"128 MiB\"",
        "[machine]\nmemory = \"1 GiB\"\n[pool]\nmemory = \"16777215 TiB\"",
        1,
    ));
    assert!(error.unwrap_err().contains("does not fit into a machine of 1024 MiB"));
}

#[test]
fn a_machine_shows_the_cpu_that_is_asked_for() {
    let folder = ConfigFolder::new();
    let plan = folder
        .read(&GOOD.replacen("[pool]", "[machine]\ncpu = \"corei7_ivy_bridge_3770k\"\n[pool]", 1))
        .unwrap();
    assert_eq!(plan.cpu.as_deref(), Some("corei7_ivy_bridge_3770k"));
}

#[test]
fn the_console_of_a_partition_that_is_named_goes_to_programs() {
    let folder = ConfigFolder::new();
    let mut plan = folder.read(GOOD).unwrap();
    plan.route_consoles(["debian"].into_iter()).unwrap();
    let path = folder.join("archive.tar");
    plan.archive.write(&path).unwrap();
    let mut tar = tar::Archive::new(fs::File::open(&path).unwrap());
    let mut module = Vec::new();
    let mut entries = tar.entries().unwrap().map(Result::unwrap);
    let mut entry = entries
        .find(|entry| entry.path().unwrap().to_str() == Some(kernel::config::MODULE))
        .unwrap();
    std::io::Read::read_to_end(&mut entry, &mut module).unwrap();
    assert_eq!(
        Config::from_module(&module).unwrap().partitions[0].console,
        kernel::config::ConsoleRoute::Programs
    );
    let error = plan.route_consoles(["web"].into_iter()).unwrap_err().to_string();
    assert_eq!(error, "--console web: no such partition (there are: debian)");
}

#[test]
fn the_archive_holds_what_the_configuration_names() {
    let folder = ConfigFolder::new();
    let plan = folder.read(GOOD).unwrap();
    let path = folder.join("archive.tar");
    plan.archive.write(&path).unwrap();
    let mut tar = tar::Archive::new(fs::File::open(&path).unwrap());
    let names: Vec<_> =
        tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    let kernel = &plan.config.partitions[0].kernel;
    assert_eq!(names, [kernel.image.clone(), kernel.initrd.clone().unwrap(), "config".to_owned()]);
}

/// Each row: the text to replace in [`GOOD`], the replacement, and the expected error.
#[test]
fn every_mistake_names_file_line_and_key() {
    let folder = ConfigFolder::new();
    let rows = [
        (
            "dump = \"aided\"",
            "dmup = \"aided\"",
            "demo.toml:15: partition.dmup: unknown key (known: name, memory, kernel",
        ),
        (
            "dump = \"aided\"",
            "dump = true",
            "demo.toml:15: partition.dump: must be text in quotes, not boolean",
        ),
        (
            "\"aided\"",
            "\"yes\"",
            "demo.toml:15: partition.dump: \"yes\" is none of \"aided\", \"off\"",
        ),
        ("128 MiB", "128 MB", "demo.toml:3: pool.memory: “128 MB” is no size"),
        ("128 MiB", "1000 B", "demo.toml:3: pool.memory: 1000 B is no multiple of 4 KiB"),
        ("128 MiB", "0 MiB", "demo.toml:3: pool.memory: 0 MiB is too small: the least is 4 KiB"),
        ("128 MiB", "1 MiB", "demo.toml:3: pool.memory: 1 MiB is too small (least: 4 MiB)"),
        (
            "memory = \"256 MiB\"",
            "memory = 256",
            "demo.toml:11: partition.memory: must be a size like \"256 MiB\", not integer",
        ),
        (
            "256 MiB",
            "300 MiB",
            "demo.toml:11: partition.memory: 300 MiB is larger than every paging space (largest: ",
        ),
        ("\"vmlinuz\"", "\"missing\"", "demo.toml:12: partition.kernel: "),
        ("\"vmlinuz\"", "\"text\"", "demo.toml:12: partition.kernel: "),
        ("\"initrd\"", "\"text\"", "demo.toml:13: partition.initrd: "),
        ("kernel = \"vmlinuz\"\n", "", "demo.toml:9: partition.kernel: missing"),
        ("\"debian\"", "\"the debian\"", "demo.toml:10: partition.name: must be at most 31"),
        (
            "restart =",
            "vcpus = 2\nrestart =",
            "demo.toml:16: partition.vcpus: only one vCPU a partition",
        ),
        (
            "restart =",
            "boot_memory = \"1 GiB\"\nrestart =",
            "demo.toml:16: partition.boot_memory: 1 GiB is more than",
        ),
        ("\"a.img\"\nsize = \"288 MiB\"", "\"b.img\"", "demo.toml:5: paging_device.image: "),
        (
            "memory = \"64 MiB\"",
            "image = \"a.img\"",
            "demo.toml:8: paging_device.image: is another paging device already",
        ),
        ("memory = \"64 MiB\"", "", "demo.toml:7: paging_device.image: say either image"),
        (
            "[pool]",
            "[machine]\nmemory = \"100 MiB\"\n[pool]",
            "demo.toml:5: pool.memory: 128 MiB does not fit into a machine",
        ),
        (
            "[pool]",
            "[machine]\ncpu = \"max, count=8\"\n[pool]",
            "demo.toml:3: machine.cpu: must be the emulator's name",
        ),
        ("[pool]\n", "[pool\n", "demo.toml:2: "),
        (
            "[pool]",
            "disk_timeout = 2\n[pool]",
            "demo.toml:2: disk_timeout: must be a time like \"2 s\", not integer",
        ),
        (
            "[pool]",
            "disk_timeout = \"2 sec\"\n[pool]",
            "demo.toml:2: disk_timeout: “2 sec” is no time: write a whole number and ms",
        ),
        (
            "[pool]",
            "disk_timeout = \"99 ms\"\n[pool]",
            "demo.toml:2: disk_timeout: “99 ms” is not within 100 ms and 10 min",
        ),
        (
            "[pool]",
            "disk_timeout = \"11 min\"\n[pool]",
            "demo.toml:2: disk_timeout: “11 min” is not within 100 ms and 10 min",
        ),
    ];
    // Create the image first, so that each row fails for its own reason only.
    folder.read(GOOD).unwrap();
    for (from, to, expected) in rows {
        assert!(GOOD.contains(from), "{from}");
        let error = folder
            .read(&GOOD.replacen(from, to, 1))
            .err()
            .unwrap_or_else(|| panic!("accepted: {to}"));
        assert!(error.starts_with(expected), "{to}\n  gave     {error}\n  expected {expected}");
    }
}

#[test]
fn two_partitions_of_one_name_are_refused() {
    let folder = ConfigFolder::new();
    let second = &GOOD[GOOD.find("[[partition]]").unwrap()..];
    let error = folder.read(&format!("{GOOD}{second}")).unwrap_err();
    assert!(
        error.starts_with("demo.toml:18: partition.name: “debian” is another partition already"),
        "{error}"
    );
}

#[test]
fn without_a_paging_device_nothing_starts_and_nothing_is_made() {
    let folder = ConfigFolder::new();
    let start = GOOD.find("[[paging").unwrap();
    let partition = &GOOD[GOOD.find("[[partition]]").unwrap()..];
    let error = folder.read(&format!("{}{partition}", &GOOD[..start])).unwrap_err();
    assert!(error.contains("paging_device: none, but partition “debian” needs one"), "{error}");
    assert!(folder.read(&GOOD.replace("128 MiB", "1 MiB")).is_err());
    assert!(!folder.join("a.img").exists());
}

#[test]
fn an_image_store_is_a_further_disk() {
    let folder = ConfigFolder::new();
    let with = |image: &str| {
        GOOD.replace(
            "[[partition]]",
            &format!("[[image_store]]\nimage = \"{image}\"\n[[partition]]"),
        )
    };
    let missing = folder.read(&with("store.img")).unwrap_err();
    assert!(missing.contains(" image_store.image: ") && missing.contains("store.img"), "{missing}");
    crate::store::create(&folder.join("store.img"), 8 << 20).unwrap();
    let plan = folder.read(&with("store.img")).unwrap();
    assert_eq!((plan.disks.len(), plan.stores), (1, vec![folder.join("store.img")]));
    let same = folder.read(&with("a.img")).unwrap_err();
    assert!(same.contains("image_store.image: is another disk of this machine already"), "{same}");
    let none = read(
        "demo.toml",
        &with("store.img").replace("image = \"a.img\"\nsize", "memory"),
        folder.0.path(),
        Bed::Bochs,
    );
    let none = none.unwrap_err().to_string();
    assert!(none.contains("image_store.image: Bochs has no virtio disks"), "{none}");
}

#[test]
fn foreign_data_is_named_and_stays() {
    let folder = ConfigFolder::new();
    let mut data = vec![0_u8; 288 << 20];
    data[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    fs::write(folder.join("a.img"), &data).unwrap();
    let error = folder.read(GOOD).unwrap_err();
    assert!(
        error.starts_with("demo.toml:5: paging_device.image: ") && error.contains("ext4"),
        "{error}"
    );
    assert!(fs::read(folder.join("a.img")).unwrap() == data);
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Path::new("/nowhere/demo.toml"), Bed::Qemu).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/demo.toml: cannot be read: "), "{error}");
}

#[test]
fn what_is_no_text_is_told_with_its_line_and_what_never_ends_is_refused() {
    let folder = ConfigFolder::new();
    let path = folder.join("odd.toml");
    fs::write(&path, b"[pool]\nmemory = \xff\n").unwrap();
    let error = load(&path, Bed::Qemu).unwrap_err().to_string();
    assert!(error.ends_with("odd.toml:2: is no text: byte 0xff is not UTF-8"), "{error}");
    let error = load(Path::new("/dev/zero"), Bed::Qemu).unwrap_err().to_string();
    assert_eq!(error, "/dev/zero: is no configuration: more than 1 MiB");
}

#[test]
fn an_image_that_cannot_be_made_is_told_with_its_line() {
    let folder = ConfigFolder::new();
    for image in ["nofolder/a.img", "/proc/a.img"] {
        let error = folder.read(&GOOD.replace("a.img", image)).unwrap_err();
        assert!(
            error.starts_with("demo.toml:5: paging_device.image: ") && error.contains(image),
            "{error}"
        );
    }
    assert!(!folder.join("nofolder").exists());
}

#[test]
fn bochs_has_no_virtio_disks() {
    let folder = ConfigFolder::new();
    let error = read("demo.toml", GOOD, folder.0.path(), Bed::Bochs).unwrap_err().to_string();
    assert!(
        error.starts_with("demo.toml:5: paging_device.image: Bochs has no virtio disks"),
        "{error}"
    );
}

/// [`GOOD`] with its image on a partition table.
fn with_spaces(spaces: &str) -> String {
    GOOD.replacen("size = \"288 MiB\"", &format!("spaces = [{spaces}]"), 1)
}

#[test]
fn an_image_with_spaces_is_made_once_and_then_has_to_be_as_described() {
    let folder = ConfigFolder::new();
    let text = with_spaces("\"272 MiB\", \"8 MiB\"");
    let plan = folder.read(&text).unwrap();
    assert_eq!(fs::metadata(&plan.disks[0]).unwrap().len(), 282 << 20);
    folder.read(&text).unwrap();
    // An existing device needs no description.
    folder.read(&GOOD.replacen("size = \"288 MiB\"\n", "", 1)).unwrap();
    let error = folder.read(&with_spaces("\"272 MiB\"")).unwrap_err();
    assert!(
        error.starts_with("demo.toml:6: paging_device.spaces: ")
            && error.ends_with("already: 272 MiB, 8 MiB"),
        "{error}"
    );
}

#[test]
fn spaces_that_cannot_be_are_named_before_anything_is_made() {
    let folder = ConfigFolder::new();
    let rows = [
        ("\"272 MB\"", "demo.toml:6: paging_device.spaces: “272 MB” is no size"),
        ("\"1000 B\"", "demo.toml:6: paging_device.spaces: 1000 B is no multiple of 4 KiB"),
        (
            "\"272 MiB\", \"4 KiB\"",
            "demo.toml:6: paging_device.spaces: a space of 4 KiB is too small for a page",
        ),
        ("\"272 MiB\"]\nsize = [", "demo.toml:7: paging_device.size: must be a size"),
        (
            "\"272 MiB\"]\nsize = \"272 MiB\" #",
            "demo.toml:6: paging_device.spaces: the spaces need 274 MiB",
        ),
        // Larger than each space, but not than the device.
        (
            "\"140 MiB\", \"140 MiB\"",
            "demo.toml:11: partition.memory: 256 MiB is larger than every paging space",
        ),
    ];
    for (spaces, expected) in rows {
        let error = folder.read(&with_spaces(spaces).replacen(
            "memory = \"64 MiB\"",
            "memory = \"8 MiB\"",
            1,
        ));
        let error = error.err().unwrap_or_else(|| panic!("accepted: {spaces}"));
        assert!(error.starts_with(expected), "{spaces}\n  gave     {error}\n  expected {expected}");
        assert!(!folder.join("a.img").exists());
    }
}

#[test]
fn a_partition_table_that_is_not_ours_or_damaged_is_refused() {
    use std::os::unix::fs::FileExt;
    let folder = ConfigFolder::new();
    folder.read(&with_spaces("\"272 MiB\"")).unwrap();
    let file = fs::File::options().read(true).write(true).open(folder.join("a.img")).unwrap();
    let text = GOOD.replacen("size = \"288 MiB\"\n", "", 1);
    // The primary header is damaged, so the backup header counts. That is enough to start.
    file.write_all_at(b"x", 1024).unwrap();
    folder.read(&text).unwrap();
    file.write_all_at(b"x", (274 << 20) - 512).unwrap();
    let error = folder.read(&text).unwrap_err();
    assert!(
        error.starts_with("demo.toml:5: paging_device.image: ")
            && error.contains("damaged partition table"),
        "{error}"
    );
}

/// [`GOOD`] with a second partition, and enough room for both.
fn two(second: &str) -> String {
    GOOD.replace("\"64 MiB\"", "\"288 MiB\"") + second
}

#[test]
fn a_kernel_that_is_missing_keeps_only_its_own_partition_from_starting() {
    let folder = ConfigFolder::new();
    let text = two("[[partition]]\nname = \"other\"\nmemory = \"64 MiB\"\nkernel = \"missing\"\n");
    let plan = folder.read(&text).unwrap();
    assert_eq!(plan.config.partitions.len(), 2);
    // The second warning: two spaces are too few to keep one for each next incarnation.
    assert!(
        plan.warnings.len() == 2
            && plan.warnings[0].starts_with("demo.toml:20: partition.kernel: "),
        "{:?}",
        plan.warnings
    );
    assert!(plan.warnings[1].contains("next incarnation"), "{:?}", plan.warnings);
    let error = folder.read(&text.replace("\"vmlinuz\"", "\"text\"")).unwrap_err();
    assert!(
        error.starts_with("demo.toml:12: partition.kernel: "),
        "where nothing could run it is an error: {error}"
    );
}

#[test]
fn more_partitions_than_spaces_are_refused_before_anything_starts() {
    let folder = ConfigFolder::new();
    let more = |name| {
        format!("[[partition]]\nname = \"{name}\"\nmemory = \"32 MiB\"\nkernel = \"vmlinuz\"\n")
    };
    let text = two(&(more("b") + &more("c")));
    let error = folder.read(&text).unwrap_err();
    assert!(error.contains("partition.name: 3 partitions, but only 2 paging spaces"), "{error}");
    assert!(!folder.join("a.img").exists());
    let large = two(&more("b").replace("32 MiB", "256 MiB"))
        .replace("\"288 MiB\"\n[[partition]]", "\"64 MiB\"\n[[partition]]");
    let error = folder.read(&large).unwrap_err();
    assert!(error.contains("partition.memory: the paging spaces that are large enough"), "{error}");
}

#[test]
fn an_initrd_is_what_linux_takes_and_a_module_is_anything() {
    let folder = ConfigFolder::new();
    let check = |bytes: &[u8], format| {
        fs::write(folder.join("i"), bytes).unwrap();
        image::check_initrd(&folder.join("i"), format).is_ok()
    };
    let at = |offset: usize, magic: &[u8]| [&vec![0; offset], magic, &[0; 64]].concat();
    let ext4 = at(0x438, b"\x53\xef");
    for good in [at(0, b"070701"), at(0, b"\x04\x22\x4d\x18"), at(0, b"hsqs"), ext4] {
        assert!(check(&good, KernelFormat::BzImage));
    }
    for bad in [&b"text"[..], b"", &at(0x438, b"\xef\x53")] {
        assert!(!check(bad, KernelFormat::BzImage) && check(bad, KernelFormat::Pvh), "{bad:?}");
    }
}

#[test]
fn one_image_by_two_names_is_one_disk() {
    let folder = ConfigFolder::new();
    fs::create_dir_all(folder.join("sub")).unwrap();
    fs::write(folder.join("there.img"), [0; 4096]).unwrap();
    std::os::unix::fs::symlink("there.img", folder.join("link.img")).unwrap();
    fs::hard_link(folder.join("there.img"), folder.join("hard.img")).unwrap();
    let two = |one: &str, other: &str| {
        let device =
            |name: &str| format!("[[paging_device]]\nimage = \"{name}\"\nsize = \"288 MiB\"\n");
        let text = GOOD.replacen(
            "[[partition]]",
            &format!("{}{}[[partition]]", device(one), device(other)),
            1,
        );
        folder.read(&text).map(|_| ()).map_err(|error| error.to_string())
    };
    fs::File::options()
        .write(true)
        .open(folder.join("there.img"))
        .unwrap()
        .set_len(288 << 20)
        .unwrap();
    for (one, other) in [
        ("there.img", "link.img"),
        ("there.img", "hard.img"),
        ("n.img", "sub/../n.img"),
        ("./n.img", "n.img"),
    ] {
        let error = two(one, other).unwrap_err();
        assert!(
            error.contains("paging_device.image: is another paging device already"),
            "{one} {other}: {error}"
        );
    }
    two("there.img", "sub/there.img").unwrap();
}

/// Sections of `count` memory-backed devices, all alike.
fn memory_devices(count: usize) -> String {
    "[[paging_device]]\nmemory = \"32 MiB\"\n".repeat(count)
}

fn partitions(count: usize) -> String {
    let one =
        |n| format!("[[partition]]\nname = \"p{n}\"\nmemory = \"22 MiB\"\nkernel = \"vmlinuz\"\n");
    (0..count).map(one).collect()
}

#[test]
fn what_the_hypervisor_has_no_room_for_names_file_line_and_key() {
    let folder = ConfigFolder::new();
    let pool = "[pool]\nmemory = \"64 MiB\"\n";
    let spaces = |count: usize| {
        format!(
            "[[paging_device]]\nimage = \"s{count}.img\"\nspaces = [{}]\n",
            vec!["\"32 MiB\""; count].join(", ")
        )
    };
    let many = |count: usize| {
        (0..count / 16)
            .map(|_| spaces(16))
            .enumerate()
            .map(|(n, text)| text.replace("s16", &format!("s{n}")))
            .collect::<String>()
    };
    let rows = [
        (
            format!("{pool}{}{}", memory_devices(17), partitions(1)),
            "demo.toml:36: paging_device.memory: 17 paging devices, but the hypervisor drives 16",
        ),
        (
            format!("{pool}{}{}{}", many(64), memory_devices(1), partitions(1)),
            "paging_device.memory: 65 paging spaces, but the hypervisor uses 64 at most",
        ),
        (
            format!("{pool}{}{}", many(64), partitions(65)),
            "partition.name: 65 partitions, but the hypervisor runs 64 at most",
        ),
        (format!("{pool}self_tests = 3\n"), "pool.self_tests: unknown key"),
        (
            format!("self_tests = [\"pgaer\"]\n{pool}"),
            "demo.toml:1: self_tests: unknown: “pgaer” (known: pager, raw-disk)",
        ),
        (
            format!("{pool}[machine]\ncpus = 8\n"),
            "demo.toml:4: machine.cpus: must be 1 to 7 in the bed qemu",
        ),
        (
            format!("{pool}[machine]\ndisk_bandwidth = \"1000 TiB\"\n"),
            "demo.toml:4: machine.disk_bandwidth: is more than QEMU",
        ),
        ("[pool]\nmemory = \"1 TiB\"\n".to_owned(), "demo.toml:2: pool.memory: a machine of "),
        (
            GOOD.replace("256 MiB", "16 MiB"),
            "partition.memory: 16 MiB is too small: kernel and initrd need 21 MiB",
        ),
        (
            GOOD.replace("console=ttyS0", &"x".repeat(2047)),
            "partition.cmdline: is too long: this kernel takes 1970 bytes",
        ),
        (
            GOOD.replace("console=ttyS0", "a\\nb"),
            "partition.cmdline: holds a control character (\\n)",
        ),
    ];
    for (text, error) in rows {
        let said = folder.read(&text).unwrap_err();
        assert!(said.contains(error), "{error}: {said}");
    }
    folder.read(&format!("{pool}{}{}", memory_devices(16), partitions(16))).unwrap();
    folder.read(&GOOD.replace("console=ttyS0", &"x".repeat(1970))).unwrap();
    folder.read(&format!("{pool}[machine]\ncpus = 7\n")).unwrap();
}

#[test]
fn a_partition_has_the_devices_that_its_section_names() {
    let folder = ConfigFolder::new();
    let read = |line: &str| {
        folder.read(&format!("{GOOD}{line}\n")).map(|plan| plan.config.partitions[0].devices.rng)
    };
    assert_eq!(read(""), Ok(DeviceSwitch::Off));
    assert_eq!(read("rng = \"off\""), Ok(DeviceSwitch::Off));
    assert_eq!(read("rng = \"on\""), Ok(DeviceSwitch::On));
    for value in ["true", "\"yes\"", "1"] {
        let error = read(&format!("rng = {value}")).unwrap_err();
        assert!(error.starts_with("demo.toml:") && error.contains("partition.rng"), "{error}");
    }
}

#[test]
fn a_restart_limit_is_a_number_and_a_time() {
    let folder = ConfigFolder::new();
    let read = |line: &str| {
        folder.read(&format!("{GOOD}{line}\n")).map(|plan| plan.config.partitions[0].restart_limit)
    };
    assert_eq!(read(""), Ok(None));
    let limit =
        |restarts, seconds: u64| RestartLimit { restarts, time_ns: seconds * 1_000_000_000 };
    assert_eq!(read("restart_limit = \"5 in 10 min\""), Ok(Some(limit(5, 600))));
    assert_eq!(read("restart_limit = \"64 in 1 s\""), Ok(Some(limit(64, 1))));
    for (value, wanted) in [
        ("5", "must be text in quotes"),
        ("\"5\"", "is no limit"),
        ("\"-1 in 1 min\"", "is no limit"),
        ("\"5 in 10\"", "is no time"),
        ("\"0 in 1 min\"", "not within 1 and 64"),
        ("\"65 in 1 min\"", "not within 1 and 64"),
        ("\"5 in 10 ms\"", "the time is not within"),
    ] {
        let error = read(&format!("restart_limit = {value}")).unwrap_err();
        assert!(
            error.starts_with("demo.toml:") && error.contains("partition.restart_limit"),
            "{error}"
        );
        assert!(error.contains(wanted), "{value}: {error}");
    }
}

#[test]
fn a_bound_of_dumps_is_at_least_one_and_skips() {
    let folder = ConfigFolder::new();
    let read = |lines: &str| {
        folder.read(&format!("{GOOD}{lines}\n")).map(|plan| plan.config.partitions[0].dump_bound)
    };
    assert_eq!(read(""), Ok(None));
    assert_eq!(read("dumps = 2"), Ok(Some(DumpBound { most: 2, when_full: DumpOverflow::Skip })));
    assert_eq!(
        read("dumps = 2\nwhen_full = \"skip\""),
        Ok(Some(DumpBound { most: 2, when_full: DumpOverflow::Skip }))
    );
    let drops = DumpBound { most: 1, when_full: DumpOverflow::DropOldest };
    assert_eq!(read("dumps = 1\nwhen_full = \"drop-oldest\""), Ok(Some(drops)));
    for (lines, wanted) in [
        ("dumps = 0", "partition.dumps: 0 is no bound"),
        ("dumps = -1", "partition.dumps: must be a whole number"),
        ("dumps = 4294967296", "partition.dumps: 4294967296 are more"),
        ("when_full = \"skip\"", "partition.when_full: says what happens"),
        ("dumps = 1\nwhen_full = \"wait\"", "partition.when_full: \"wait\" is none of"),
    ] {
        let error = read(lines).unwrap_err();
        assert!(error.contains(wanted), "{lines}: {error}");
    }
}

#[test]
fn too_few_spaces_to_keep_one_for_each_next_incarnation_are_a_warning() {
    let folder = ConfigFolder::new();
    let spare = "[[paging_device]]\nimage = \"spare.img\"\nsize = \"288 MiB\"\n[[partition]]";
    let warnings = |text: &str| folder.read(text).unwrap().warnings;
    let few = warnings(GOOD);
    assert!(
        few.len() == 1
            && few[0].starts_with("demo.toml:11: partition.memory: “debian” may have to wait"),
        "{few:?}"
    );
    // The other space is too small for this partition.
    assert!(few[0].contains("takes 2 paging spaces that fit, and there are 2"), "{few:?}");
    assert_eq!(warnings(&GOOD.replace("[[partition]]", spare)), [""; 0]);
    assert_eq!(warnings(&GOOD.replace("\"immediate\"", "\"never\"")), [""; 0]);
    assert_eq!(warnings(&GOOD.replace("\"aided\"", "\"off\"")), [""; 0]);
}

#[test]
fn images_are_modules_of_their_names() {
    let folder = ConfigFolder::new();
    let image = |lines: &str| folder.read(&format!("{GOOD}\n[[image]]\n{lines}"));
    let plan = image("name = \"web.kernel\"\nfile = \"vmlinuz\"").unwrap();
    let path = folder.join("archive.tar");
    plan.archive.write(&path).unwrap();
    let mut archive = tar::Archive::new(fs::File::open(&path).unwrap());
    let mut names = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned());
    assert!(names.any(|name| name == Path::new("web.kernel")));
    for (lines, wanted) in [
        ("name = \"a b\"\nfile = \"vmlinuz\"", "name: must be 1 to 63"),
        ("name = \"\"\nfile = \"vmlinuz\"", "name: must not be empty"),
        ("name = \"config\"\nfile = \"vmlinuz\"", "“config” is a module of the hypervisor"),
        ("name = \"a\"\nfile = \"none\"", "file: "),
        ("name = \"a\"", "file: "),
        ("file = \"vmlinuz\"", "name: "),
        ("name = \"a\"\nfile = \"vmlinuz\"\nsize = 3", "size"),
    ] {
        let error = image(lines).unwrap_err();
        assert!(error.contains(wanted), "{lines}: {error}");
    }
    let twice = "name = \"a\"\nfile = \"vmlinuz\"\n[[image]]\nname = \"a\"\nfile = \"initrd\"";
    assert!(image(twice).unwrap_err().contains("“a” is another image already"));
}

#[test]
fn there_is_room_for_spare_partitions() {
    let folder = ConfigFolder::new();
    let spare = |lines: &str| {
        let plan = folder.read(&format!("{GOOD}\n{lines}"))?;
        Ok::<_, String>((plan.config.spare.partitions, plan.config.spare.memory_bytes >> 20))
    };
    assert_eq!(spare(""), Ok((4, 128)));
    assert_eq!(spare("[spare]\npartitions = 9\nmemory = \"1 GiB\""), Ok((9, 1024)));
    assert_eq!(spare("[spare]\npartitions = 0"), Ok((0, 128)));
    let most = kernel::mm::object::ObjectTable::CAPACITY;
    for (lines, wanted) in [
        (format!("partitions = {most}"), "partitions: must be 0 to "),
        ("memory = \"17 TiB\"".into(), "memory: is not between"),
        ("disks = 3".into(), "disks"),
    ] {
        let error = spare(&format!("[spare]\n{lines}")).unwrap_err();
        assert!(error.contains(wanted), "{lines}: {error}");
    }
}
