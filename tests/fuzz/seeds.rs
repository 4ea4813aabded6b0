//! Writes the corpus: for each target inputs that its parser accepts. Run from the root:
//!
//! ```text
//! cargo run --manifest-path tests/fuzz/Cargo.toml --target-dir target/tidepool/fuzz \
//!     --example seeds
//! ```

use fuzz::{kernels, seal};
use kernel::config::{
    Config, ConsoleRoute, DISK_TIMEOUT_NS, DeviceSwitch, DumpBound, DumpOverflow, DumpPolicy,
    EndAction, GuestDevices, KernelModules, PartitionConfig, RestartLimit, RestartPolicy,
    SpareRoom, VERSION,
};
use kernel::dump::history_note::TYPE;
use kernel::dump::notes::{VCPU_NOTES_SIZE, vmcoreinfo_note_size, write_vcpu, write_vmcoreinfo};
use kernel::log::history::{HistoryEntry, HistoryKind, HistorySubject};
use kernel::log::symbols;
use kernel::space::Uuid;
use kernel::space::claim::SpaceClaim;
use kernel::virt::{CpuState, Regs};
use std::path::Path;

const VMCOREINFO: &[u8] = b"OSRELEASE=6.1.0-56-cloud-amd64\nPAGESIZE=4096\n\
    SYMBOL(init_uts_ns)=ffffffff9ae12340\nSYMBOL(swapper_pg_dir)=ffffffffa5810000\n\
    NUMBER(phys_base)=-402653184\nKERNELOFFSET=19000000\n";

fn main() {
    put("acpi", "tables", &acpi());
    put("archive", "two", &archive());
    put("boot_information", "pvh", &pvh_information());
    put("boot_information", "multiboot2", &multiboot2());
    put("claim", "beats", &claims());
    put("classify", "space", &[0, 4, 1, 3, 4]);
    put("classify", "torn", &[0, 4, 2, 0, 16, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    for (kind, name) in (0..).zip(["beat", "log", "state", "local", "superblock", "mail"]) {
        put("cluster_area", name, &[kind, 1]);
    }
    put("command_line", "arguments", b"console=ttyS0 tsc_early_khz=1 \"a -- b\" -- alpha");
    for (name, line) in [
        ("release", "release web 3f2a90c1-77b0"),
        ("evict", "evict web 64"),
        ("type", "type web 0d0a"),
        ("json", r#"{"id":7,"command":"release","partition":"web","dump":"2"}"#),
        ("json_type", r#"{"id":7,"command":"type","partition":"web","bytes":"0a","count":1}"#),
    ] {
        put("commands", name, line.as_bytes());
    }
    put("config_module", "partition", &config().to_module()[8..]);
    for (name, text) in [
        ("memory", include_str!("../../examples/two.toml")),
        ("limits", LIMITS),
        ("size", "256 MiB"),
    ] {
        put("configuration", name, text.as_bytes());
    }
    put("decode", "moves", &[0x48, 0xc7, 0x84, 0x8b, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0]);
    put("decode", "two_bytes", &[0xf0, 0x0f, 0xb1, 0x0d, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0]);
    put("devices", "uart", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, b'x', 0, 0, 0]);
    put("dump_notes", "history", &dump_notes());
    put("emulate", "store", &[0xc7, 0x44, 0x8b, 8, 5, 0, 0, 0]);
    put("erst", "panic", b"\x03\x01\x00\x02\x0fPanic#1 Part1\nx\x00\x00\x00\x00\x04\x00\x03");
    put("fw_cfg", "note", &[2, 0, 16, 0x20, 0, 0x18, 16, 0, 0, 32]);
    put("gdb", "notes", &gdb());
    put("gpt", "entry", &[0, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0x82, 32, 0, 8, 36, 0, 0, 0]);
    put("image_store", "whole", &[]);
    put("image_store", "length", &[0x46, 32, 0, 2, 0, 0x20, 0x47, 32, 0, 2, 0, 0x20]);
    put("image_store", "extents", &[0x47, 58, 0, 1, 17, 0x07, 56, 0, 4, 17, 0, 0, 0]);
    put("image_store", "slot", &[0x44, 76, 0, 1, 2, 0x45, 80, 0, 3, b'a', b'b', 0]);
    put("image_store", "newer", &[0x43, 8, 0, 1, 2]);
    put("kernel_note", "note", &kernel_note());
    put("kernel_note", "text", VMCOREINFO);
    put("keys", "history", b"list\rstop web\r\x1b[A\x1b[A\x1b[3~\x01x\x1bOB\x17\x0b\x1b]0;a\x07\r");
    // Memory, initrd and command line before the image.
    let before = [4, 16, 0, 1, 9, 0];
    put("loader", "bzimage", &[&before[..], &kernels::bzimage()].concat());
    put("loader", "pvh", &[&before[..], &kernels::pvh()].concat());
    let panic = b"<0>[   54.1][    T1] Kernel panic - not syncing: sysrq\r\npanic: page fault\n";
    put("panic_line", "linux", panic);
    put("pci", "bridge", &pci());
    put("screen", "full", b"\x08login:\x00\x01\x01\x10\x1b[?1049h\x1b[2J\x00\x02\x1b[m\n");
    put("space_record", "same", &[0]);
    put(
        "symbols",
        "module",
        &symbols::build(vec![(1 << 63, "a".into()), (1 << 63 | 8, "b".into())]),
    );
    put("suspended", "devices", &[0, 0, 0, 0, 0]);
    put("symbols", "elf", &symbol_elf());
    put("virtio", "reads", &virtio());
    put(
        "volume",
        "dump",
        &[0, 1, 0, 0, 3, 1, 2, 3, 2, 0, 0, 2, 0xff, 0xff, 3, 0, 0, 4, 1, 2, 3, 4],
    );
    put("walk", "four_levels", &walk());
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new("tests/fuzz/corpus").join(target);
    std::fs::create_dir_all(&folder).expect("the tree is writable");
    std::fs::write(folder.join(name), bytes).expect("the tree is writable");
}

const LIMITS: &str = "at_end = \"power-off\"\ndisk_timeout = \"2 s\"\npool.memory = \"16 MiB\"\n\
    [machine]\nmemory = \"1 GiB\"\ncpus = 2\ncpu = \"max\"\n\
    [[paging_device]]\nmemory = \"64 MiB\"\n[[paging_device]]\nmemory = \"64 MiB\"\n\
    [[partition]]\nname = \"a\"\nmemory = \"8 MiB\"\nkernel = \"kernel\"\ncmdline = \"x\"\n\
    dump = \"aided\"\ndumps = 2\nwhen_full = \"drop-oldest\"\nrestart = \"threshold\"\n\
    boot_memory = \"1 MiB\"\nhang_timeout = \"10 s\"\nrestart_limit = \"5 in 10 min\"\n";

fn acpi() -> Vec<u8> {
    let table = |signature: &[u8; 4], body: &[u8]| {
        let mut bytes =
            [&signature[..], &(36 + body.len() as u32).to_le_bytes(), &[0; 28], body].concat();
        seal(&mut bytes, 9);
        bytes
    };
    let mut root = [&b"RSD PTR \0TIDEPL\0"[..], &64_u32.to_le_bytes()].concat();
    seal(&mut root, 8);
    let entries = [0, 8, 0, 0, 1, 0, 0, 0, 9, 16, 0, 0, 44, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let madt = table(b"APIC", &[&[0; 8][..], &entries].concat());
    let pieces = [(0, 0, root), (1, 1, table(b"RSDT", &128_u32.to_le_bytes())), (1, 2, madt)];
    let piece = |(what, at, bytes): (u8, u8, Vec<u8>)| {
        [&[what, at, bytes.len() as u8][..], &bytes].concat()
    };
    pieces.into_iter().flat_map(piece).collect()
}

fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["config", "kernel"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        tar.append_data(&mut header, name, &b"abc"[..]).expect("memory has room");
    }
    tar.into_inner().expect("memory has room")
}

fn pvh_information() -> Vec<u8> {
    let words =
        |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let magic = [0x336e_c578_u32, 1, 0, 1].map(u32::to_le_bytes);
    let map = [0x10_0000, 0x700_0000, 1, 0xfffc_0000, 0x4_0000, 2];
    let rest = words(&[56, 88, 0x1000, 96, 2, 0x20_0000, 0x1000, 0, 0, 0x61, 0]);
    [magic.as_flattened(), &rest[..80], &words(&map)].concat()
}

fn multiboot2() -> Vec<u8> {
    let words = [
        [120_u32, 0, 1, 10],
        [0x61, 0, 3, 17],
        [0x20_0000, 0x21_0000, 0, 0],
        [6, 40, 24, 0],
        [0x10_0000, 0, 0x700_0000, 0],
        [1, 0, 15, 12],
        [0x2044_5352, 0, 0, 8],
        [0, 0, 0, 0],
    ];
    words.as_flattened().iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn claims() -> Vec<u8> {
    let claim = SpaceClaim { node: Uuid([3; 16]), epoch: 2, beat: 5 }.encode();
    [&[0][..], &claim[..40], &[0; 4], &[2, 0, 0x20, 0, 0], &[1, 3, 2, 0, 0, 0, 5, 0, 0x20, 0, 0]]
        .concat()
}

fn config() -> Config {
    Config {
        version: VERSION,
        pool_bytes: 1 << 27,
        memory_disks: vec![1 << 20],
        disk_timeout_ns: DISK_TIMEOUT_NS,
        at_end: EndAction::Stay,
        node_name: Some("node-a".into()),
        self_tests: vec!["pager".into()],
        spare: SpareRoom { partitions: 4, memory_bytes: 1 << 27 },
        partitions: vec![PartitionConfig {
            name: "web".into(),
            memory_bytes: 1 << 27,
            kernel: KernelModules { image: "k".into(), initrd: Some("i".into()) },
            cmdline: "quiet".into(),
            dump: DumpPolicy::Aided,
            dump_bound: Some(DumpBound { most: 2, when_full: DumpOverflow::Skip }),
            restart: RestartPolicy::Threshold,
            hang_timeout_ns: Some(1 << 33),
            restart_limit: Some(RestartLimit { restarts: 5, time_ns: 1 << 40 }),
            boot_memory_bytes: Some(1 << 24),
            console: ConsoleRoute::Programs,
            devices: GuestDevices { rng: DeviceSwitch::On },
        }],
    }
}

fn gdb() -> Vec<u8> {
    let mut notes = vec![0; VCPU_NOTES_SIZE + vmcoreinfo_note_size(VMCOREINFO.len())];
    let state = CpuState { cr0: 0x8000_0001, cr3: 0x5000, cr4: 0x20, ..CpuState::default() };
    write_vcpu(&mut notes, 0, &Regs::default(), &state);
    write_vmcoreinfo(&mut notes[VCPU_NOTES_SIZE..], VMCOREINFO);
    let len = (notes.len() as u16).to_le_bytes();
    [&[0, 0, 0][..], &len, &notes, b"$g#67\nm1000,20\nqSupported\nvMustReplyEmpty\nD"].concat()
}

/// A vCPU's notes, the kernel's note, and a history of every kind of entry and an unknown one.
fn dump_notes() -> Vec<u8> {
    let mut notes = vec![0; VCPU_NOTES_SIZE + vmcoreinfo_note_size(VMCOREINFO.len())];
    write_vcpu(&mut notes, 0, &Regs::default(), &CpuState::default());
    write_vmcoreinfo(&mut notes[VCPU_NOTES_SIZE..], VMCOREINFO);
    let kinds: Vec<u16> = HistoryKind::ALL.iter().map(|kind| *kind as u16).chain([9999]).collect();
    let count = (kinds.len() as u32).to_le_bytes();
    let mut history = [&[1, 0, 32, 0][..], &count, &[0; 16]].concat();
    for kind in kinds {
        let of = HistorySubject::Partition(1);
        let entry = HistoryEntry { t_ns: 1 << 30, kind, of, cpu: 1, code: 2, numbers: [3, 4] };
        history.extend(entry.encode());
    }
    let len = (history.len() as u32).to_le_bytes();
    notes.extend([&[9, 0, 0, 0][..], &len, &TYPE.to_le_bytes(), b"TIDEPOOL\0\0\0\0"].concat());
    [notes, history].concat()
}

fn kernel_note() -> Vec<u8> {
    let mut note = vec![0; vmcoreinfo_note_size(VMCOREINFO.len())];
    write_vmcoreinfo(&mut note, VMCOREINFO);
    note
}

fn pci() -> Vec<u8> {
    let mut header = [0; 64];
    header[..4].copy_from_slice(&[0xf4, 0x1a, 0x42, 0x10]);
    (header[6], header[0x34]) = (1 << 4, 0x40);
    let capabilities = [0x11, 0x50, 3, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 16, 1];
    let mut bridge = header;
    (bridge[0xe], bridge[0x19]) = (1, 2);
    let function = |at: [u8; 2], header: &[u8]| {
        [&at[..], header, &[capabilities.len() as u8], &capabilities].concat()
    };
    [function([0, 8], &bridge), function([2, 0], &header)].concat()
}

/// An ELF file with a symbol table of one function.
fn symbol_elf() -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01".to_vec();
    file.resize(64, 0);
    (file[40], file[60]) = (64, 3);
    let section = |kind: u32, flags: u64, at: u64, len: u64, link: u32| {
        let mut bytes = [&[0; 4][..], &kind.to_le_bytes(), &flags.to_le_bytes(), &[0; 8]].concat();
        bytes.extend([at.to_le_bytes(), len.to_le_bytes()].concat());
        bytes.extend(link.to_le_bytes());
        bytes.resize(64, 0);
        bytes
    };
    file.extend(
        [section(1, 4, 0, 0, 0), section(2, 0, 256, 24, 2), section(3, 0, 280, 3, 0)].concat(),
    );
    file.extend(
        [&1_u32.to_le_bytes()[..], &[2, 0, 0, 0], &(1_u64 << 63).to_le_bytes(), &[0; 8]].concat(),
    );
    file.extend(b"\0f\0");
    file
}

fn virtio() -> Vec<u8> {
    let features = (1_u64 << 2 | 1 << 9 | 1 << 13 | 1 << 14 | 1 << 28).to_le_bytes();
    let mut config = [0; 60];
    (config[1], config[12], config[38], config[50]) = (4, 126, 64, 64);
    let requests = [0, 0, 3, 0, 1, 1, 2, 0, 9, 0, 0, 2, 0, 0, 0, 5, 40];
    let answers = [3, 1, 1, 0, 0, 6, 2, 2, 0, 5, 9, 6, 6];
    [&features[..], &config, &[0, 1, 0, 1], &requests, &answers].concat()
}

fn walk() -> Vec<u8> {
    let entry = |at: u16, value: u64| [&at.to_le_bytes()[..], &value.to_le_bytes()].concat();
    let mut bytes = vec![0b111];
    bytes.extend(0x40_0123_u64.to_le_bytes());
    bytes.extend([3, 0, 0x10, 0x20, 0, 0, 0, 2, 0, 0]);
    let entries = [(0x200, 0x2027), (0x400, 0x3027), (0x602, 0x4027), (0x800, 0x8027)];
    bytes.extend(entries.iter().flat_map(|(at, value)| entry(*at, *value)));
    bytes
}
