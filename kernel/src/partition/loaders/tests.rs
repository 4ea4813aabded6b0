use super::fake::pvh_elf;
use super::*;
use crate::addr::Gpa;
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::partition::devices::lapic::ApicMode;
use crate::partition::devices::map::BusPresence;
use crate::partition::fake::FakeGuestMemory;
use crate::virt::Gpr;

const MIB: u64 = 1 << 20;

/// Images by name.
struct Images<'a>(&'a [(&'a str, &'a [u8])]);

impl ImageSource for Images<'_> {
    fn module(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(image, _)| *image == name).map(|(_, bytes)| *bytes)
    }
}

/// A bzImage with a payload of 4 KiB, a preferred address of 16 MiB and an `init_size` of 4 MiB.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 1024 + 4096];
    image[0x1f1] = 1;
    image[0x1f4..0x1f8].copy_from_slice(&256u32.to_le_bytes());
    image[0x201] = 0x6a;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    image[0x211] = 1;
    image[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    image[0x236] = 1;
    image[0x238..0x23c].copy_from_slice(&2047u32.to_le_bytes());
    image[0x258..0x260].copy_from_slice(&(16 * MIB).to_le_bytes());
    image[0x260..0x264].copy_from_slice(&(4 * MIB as u32).to_le_bytes());
    image[1024..].iter_mut().enumerate().for_each(|(i, b)| *b = i as u8 | 1);
    image
}

fn kernel(initrd: Option<&str>) -> KernelModules {
    KernelModules { image: "kernel".into(), initrd: initrd.map(Into::into) }
}

fn make(
    image: &[u8],
    initrd: Option<&[u8]>,
    bytes: u64,
    cmdline: &str,
) -> Result<LoadPlan, LoadError> {
    let images = [("kernel", image), ("initrd", initrd.unwrap_or_default())];
    let layout = RamLayout::new(bytes).unwrap();
    let kernel = kernel(initrd.map(|_| "initrd"));
    plan(
        &Images(&images),
        &LoadRequest {
            kernel: &kernel,
            cmdline,
            layout: &layout,
            acpi: &AcpiTables::new(BusPresence::Absent),
        },
    )
}

/// Makes a plan and carries it out in steps of `max_bytes`.
fn load(
    image: &[u8],
    initrd: &[u8],
    bytes: u64,
    max_bytes: usize,
) -> (LoadPlan, FakeGuestMemory, usize) {
    let plan = make(image, Some(initrd), bytes, "console=ttyS0").unwrap();
    let images = [("kernel", image), ("initrd", initrd)];
    let memory = FakeGuestMemory::new(bytes as usize);
    let mut loading = LoadJob::new(plan.clone(), &kernel(Some("initrd")));
    let mut steps = 1;
    while loading.step(&Images(&images), &memory, max_bytes) == Ok(LoadProgress::More) {
        steps += 1;
    }
    (plan, memory, steps)
}

#[test]
fn linux_starts_in_64_bit_mode_behind_its_header() {
    let initrd = vec![0x5a; 10_000];
    let (plan, memory, _) = load(&bzimage(), &initrd, 64 * MIB, 1 << 20);
    assert_eq!(
        (plan.regs.rip, plan.regs.get(Gpr::Rsi), plan.regs.rflags),
        (16 * MIB + 0x200, 0x1000, 2)
    );
    assert_eq!(
        (plan.state.cr0 & 0x8000_0001, plan.state.cr3, plan.state.efer),
        (0x8000_0001, 0x4000, 0x500)
    );
    assert_eq!(plan.apic, ApicMode::XApic);
    assert_eq!(memory.peek(16 * MIB, 4096), bzimage()[1024..]);
    let params = memory.peek(0x1000, 4096);
    let word = |at: usize| u32::from_le_bytes(*params[at..].first_chunk().unwrap());
    assert_eq!((&params[0x202..0x206], params[0x210], word(0x228)), (&b"HdrS"[..], 0xff, 0x2000));
    assert_eq!(memory.peek(0x2000, 14), b"console=ttyS0\0");
    assert!(params[..0x70].iter().all(|&b| b == 0), "screen_info");
    assert_eq!(memory.peek(word(0x70).into(), 8), b"RSD PTR ");
    let base = u64::from(word(0x218));
    assert_eq!((word(0x21c), base % 4096, memory.peek(base, 10_000)), (10_000, 0, initrd));
    assert!(
        base + 10_000 <= 64 * MIB - 8192 && base + 10_000 + 4096 > 64 * MIB - 8192,
        "as high as possible"
    );
    assert_eq!((params[0x1e8], word(0x2d0), word(0x2d8), word(0x2e0)), (5, 0, 0x9_fc00, 1));
}

#[test]
fn the_first_four_gib_are_mapped_one_to_one() {
    let (_, memory, _) = load(&bzimage(), b"", 64 * MIB, 1 << 20);
    let entry = |at: u64| memory.read_u64(Gpa::new(at)).unwrap();
    for address in [0, 16 * MIB, 0xfee0_0000u64, 0xffff_f000] {
        let directory = entry((entry(0x4000) & !0xfff) + (address >> 30) * 8) & !0xfff;
        let leaf = entry(directory + ((address >> 21) & 511) * 8);
        assert_eq!((leaf & 0x83, leaf & !0x1f_ffff), (0x83, address & !0x1f_ffff), "{address:#x}");
    }
    assert_eq!(entry(0x4008), 0);
}

#[test]
fn a_pvh_kernel_starts_in_32_bit_mode_with_its_start_info() {
    let (plan, memory, _) = load(&pvh_elf(), b"disk", 4 * MIB, 1 << 20);
    assert_eq!((plan.regs.rip, plan.regs.get(Gpr::Rbx), plan.state.cr0), (0x10_0010, 0x1000, 0x11));
    assert_eq!(
        (plan.state.cs.attributes, plan.state.efer, plan.apic),
        (0xc09b, 0, ApicMode::XApic)
    );
    assert_eq!(memory.peek(MIB, 0x101), [&[0xcc; 0x100][..], &[0]].concat());
    let word = |at: u64| u64::from_le_bytes(memory.peek(0x1000 + at, 8).try_into().unwrap());
    assert_eq!((word(0) as u32, word(8) >> 32), (0x336e_c578, 1));
    assert_eq!(memory.peek(word(24), 8), b"console=");
    assert_eq!(memory.peek(word(32), 8), b"RSD PTR ");
    let module = word(16) - 0x1000;
    assert_eq!((memory.peek(word(module), 4), word(module + 8)), (b"disk".to_vec(), 4));
    let (map, count) = (word(40) - 0x1000, word(48));
    assert_eq!((count, word(map), word(map + 8), word(map + 16)), (5, 0, 0x9_fc00, 1));
}

#[test]
fn the_firmwares_entry_asks_for_a_reset_whatever_the_format() {
    for (image, bytes) in [(bzimage(), 64 * MIB), (pvh_elf(), 4 * MIB)] {
        let (_, memory, _) = load(&image, b"disk", bytes, 1 << 20);
        // mov $0x602, %dx; mov $1, %al; out %al, %dx
        assert_eq!(memory.peek(0xf_fff0, 6), [0xba, 0x02, 0x06, 0xb0, 0x01, 0xee]);
    }
}

#[test]
fn loading_is_cut_into_steps_and_waits_for_pages() {
    let initrd: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
    let (plan, whole, _) = load(&bzimage(), &initrd, 64 * MIB, usize::MAX);
    let (_, cut, steps) = load(&bzimage(), &initrd, 64 * MIB, 1);
    assert!(steps as u64 > plan.bytes() / 4096);
    assert_eq!(whole.peek(0, 64 << 20), cut.peek(0, 64 << 20));

    let image = bzimage();
    let images = [("kernel", &image[..]), ("initrd", &initrd)];
    let memory = FakeGuestMemory::new(64 << 20);
    memory.evict(16 * MIB);
    let mut loading = LoadJob::new(plan, &kernel(Some("initrd")));
    let step = |loading: &mut LoadJob| loading.step(&Images(&images), &memory, usize::MAX);
    assert_eq!(step(&mut loading), Err(GuestMemoryError::NotResident(Gpa::new(16 * MIB))));
    assert_eq!(step(&mut loading), Err(GuestMemoryError::NotResident(Gpa::new(16 * MIB))));
    memory.bring_in(16 * MIB);
    assert_eq!(step(&mut loading), Ok(LoadProgress::Done));
    assert_eq!(memory.peek(0, 64 << 20), whole.peek(0, 64 << 20));
}

#[test]
fn what_is_wrong_is_named() {
    let good = bzimage();
    let change = |at: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        make(&image, None, 64 * MIB, "").map(|_| ())
    };
    assert_eq!(change(0, b"x"), Ok(()));
    assert_eq!(change(0x202, b"Hdrs"), Err(LoadError::UnknownFormat));
    assert_eq!(change(0x206, &[0x09, 2]), Err(LoadError::OldProtocol));
    assert_eq!(change(0x211, &[0]), Err(LoadError::OldProtocol));
    assert_eq!(change(0x1f4, &[1, 1]), Err(LoadError::Damaged));
    assert_eq!(change(0x1f4, &[0xff; 4]), Err(LoadError::Damaged));
    assert_eq!(change(0x258, &[0; 8]), Err(LoadError::BadAddress(0)));
    assert_eq!(change(0x258, &[0xff; 8]), Err(LoadError::BadAddress(u64::MAX)));
    assert_eq!(
        make(&good, None, 19 * MIB, "").map(|_| ()),
        Err(LoadError::MemoryTooSmall(20 * MIB + 8192))
    );
    assert!(matches!(
        make(&good, Some(&[0; 2 << 20]), 21 * MIB, ""),
        Err(LoadError::MemoryTooSmall(n)) if n > 22 * MIB
    ));
    assert_eq!(
        make(&good, None, 64 * MIB, &"x".repeat(2048)).map(|_| ()),
        Err(LoadError::CommandLineTooLong(2047))
    );
    assert_eq!(make(b"#!/bin/sh", None, 64 * MIB, "").map(|_| ()), Err(LoadError::UnknownFormat));

    let images = [("kernel", &good[..])];
    let layout = RamLayout::new(64 * MIB).unwrap();
    let missing = |image: &str, initrd: Option<&str>| {
        let kernel = KernelModules { image: image.into(), initrd: initrd.map(Into::into) };
        let request = LoadRequest {
            kernel: &kernel,
            cmdline: "",
            layout: &layout,
            acpi: &AcpiTables::new(BusPresence::Absent),
        };
        plan(&Images(&images), &request).map(|_| ())
    };
    assert_eq!(missing("kernle", None), Err(LoadError::Missing(ImageRole::Kernel)));
    assert_eq!(missing("kernel", Some("initrd")), Err(LoadError::Missing(ImageRole::Initrd)));
}

#[test]
fn a_bzimage_need_not_fill_its_last_16_bytes() {
    let whole = bzimage();
    for missing in 0..17 {
        let planned = make(&whole[..whole.len() - missing], None, 64 * MIB, "").map(|_| ());
        assert_eq!(
            planned,
            if missing < 16 { Ok(()) } else { Err(LoadError::Damaged) },
            "{missing}"
        );
    }
    let (_, memory, _) = load(&whole[..whole.len() - 15], b"", 64 * MIB, 1 << 20);
    assert_eq!(memory.peek(16 * MIB, 4096 - 15), whole[1024..whole.len() - 15]);
    assert_eq!(memory.peek(16 * MIB + 4096 - 15, 15), [0; 15]);
}

#[test]
fn a_bzimage_without_a_64_bit_entry_starts_in_protected_mode() {
    for (at, bytes) in [(0x236, [0x0c, 0]), (0x206, [0x0b, 2])] {
        let mut image = bzimage();
        image[at..at + 2].copy_from_slice(&bytes);
        let (plan, memory, _) = load(&image, b"disk", 64 * MIB, 1 << 20);
        assert_eq!(
            (plan.regs.rip, plan.regs.get(Gpr::Rsi), plan.apic),
            (16 * MIB, 0x1000, ApicMode::XApic)
        );
        assert_eq!(
            (plan.state.cr0, plan.state.cr4, plan.state.efer, plan.state.cs.attributes),
            (0x11, 0, 0, 0xc09b)
        );
        assert_eq!(
            (plan.state.cs.selector, plan.state.ds.selector, plan.state.gdtr.limit),
            (0x10, 0x18, 31)
        );
        assert_eq!(memory.peek(0x3010, 8), 0x00cf_9b00_0000_ffffu64.to_le_bytes());
    }
}

#[test]
fn memory_without_room_for_the_first_mib_and_the_exchange_buffer_is_too_small() {
    // All of the kernel lies low.
    let mut image = pvh_elf();
    image[64 + 24..64 + 32].copy_from_slice(&0x1_0000_u64.to_le_bytes());
    let planned = |bytes| make(&image, None, bytes, "").map(|_| ());
    for bytes in [4096, 0x1_0000, MIB, MIB + 4096] {
        assert_eq!(planned(bytes), Err(LoadError::MemoryTooSmall(MIB + 8192)), "{bytes:#x}");
    }
    assert_eq!(planned(MIB + 8192), Ok(()));
}

#[test]
fn segments_that_overlap_are_damage() {
    let planned = |at| make(&pvh_elf32(at), None, 4 * MIB, "").map(|_| ());
    for at in [MIB, MIB + 0xff, MIB + 1] {
        assert_eq!(planned(at as u32), Err(LoadError::Damaged), "{at:#x}");
    }
    assert_eq!(planned(MIB as u32 + 0x100), Ok(()), "it begins where the other ends");
}

/// The same as [`pvh_elf`] in 32 bits, with a second segment at `low`.
fn pvh_elf32(low: u32) -> Vec<u8> {
    let mut f = b"\x7fELF\x01\x01\x01".to_vec();
    f.resize(16, 0);
    f.extend([2, 0, 3, 0, 1, 0, 0, 0]);
    [0x10_0010u32, 52, 0, 0].iter().for_each(|w| f.extend(w.to_le_bytes()));
    f.extend([52, 0, 32, 0, 3, 0, 40, 0, 0, 0, 0, 0]);
    for (kind, offset, at, file, memory) in [
        (1, 0x200, MIB as u32, 0x100, 0x3000),
        (1, 0x200, low, 0x100, 0x100),
        (4, 0x180, 0, 20, 20),
    ] {
        [kind, offset, at, at, file, memory, 5, 4u32]
            .iter()
            .for_each(|w| f.extend(w.to_le_bytes()));
    }
    f.resize(0x180, 0);
    [4u32, 4, 18].iter().for_each(|w| f.extend(w.to_le_bytes()));
    f.extend(b"Xen\0");
    f.extend(0x10_0010u32.to_le_bytes());
    f.resize(0x200, 0);
    f.resize(0x300, 0xcc);
    f
}

#[test]
fn an_elf_file_of_32_bits_starts_like_one_of_64_and_may_lie_below_1_mib() {
    let (plan, memory, _) = load(&pvh_elf32(0x8_0000), b"disk", 4 * MIB, 1 << 20);
    assert_eq!((plan.regs.rip, plan.regs.get(Gpr::Rbx), plan.state.efer), (0x10_0010, 0x1000, 0));
    assert_eq!(
        (memory.peek(MIB, 0x100), memory.peek(0x8_0000, 0x101)),
        (vec![0xcc; 0x100], [&[0xcc; 0x100][..], &[0]].concat())
    );
    for low in [0x2000, 0x9fff, 0x9_fb80, 0xe_0000, 0xf_ff80] {
        let planned = make(&pvh_elf32(low), None, 4 * MIB, "").map(|_| ());
        assert_eq!(planned, Err(LoadError::BadAddress(low.into())), "{low:#x}");
    }
}

#[test]
fn elf_files_that_are_no_pvh_kernels_are_named() {
    let good = pvh_elf();
    let change = |at: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        make(&image, None, 4 * MIB, "").map(|_| ())
    };
    assert_eq!(change(18, &[0xb7]), Err(LoadError::WrongElf));
    assert_eq!(change(0x108, &[17]), Err(LoadError::NoPvhNote));
    assert_eq!(change(64 + 24, &[0; 8]), Err(LoadError::BadAddress(0)));
    assert_eq!(change(64 + 8, &[0xff; 8]), Err(LoadError::Damaged));
    assert_eq!(change(64 + 40, &[0xff; 8]), Err(LoadError::BadAddress(MIB)));
    assert_eq!(
        change(64 + 40, &(8 * MIB).to_le_bytes()),
        Err(LoadError::MemoryTooSmall(9 * MIB + 8192))
    );
}

#[test]
fn segments_are_planned_up_to_a_bound() {
    let planned = |segments: u16| {
        let mut image = pvh_elf();
        let (load, note) = (image[64..120].to_vec(), image[120..176].to_vec());
        let table = (image.len() as u64).to_le_bytes();
        image[32..40].copy_from_slice(&table);
        image[56..58].copy_from_slice(&(segments + 1).to_le_bytes());
        image.extend(note);
        for n in 0..u64::from(segments) {
            image.extend(&load[..24]);
            image.extend((MIB + n * 0x100).to_le_bytes());
            image.extend(&load[32..]);
        }
        make(&image, None, 4 * MIB, "").map(|_| ())
    };
    assert_eq!((planned(1), planned(64)), (Ok(()), Ok(())));
    assert_eq!(
        (planned(65), planned(9999)),
        (Err(LoadError::TooManySegments(64)), Err(LoadError::TooManySegments(64)))
    );
}

#[test]
fn no_damaged_image_panics_the_loader() {
    for image in [bzimage(), pvh_elf(), pvh_elf32(0x8_0000)] {
        for length in 0..0x310.min(image.len()) {
            let _ = make(&image[..length], None, 64 * MIB, "");
            let mut bad = image.clone();
            for value in [0, 0x7f, 0xff] {
                bad[length] = value;
                let _ = make(&bad, None, 64 * MIB, "");
            }
        }
    }
}

/// Plans a real Debian kernel if TIDEPOOL_TEST_BZIMAGE names one.
#[test]
fn a_distribution_kernel_has_a_plan() {
    let Ok(path) = std::env::var("TIDEPOOL_TEST_BZIMAGE") else { return };
    let image = std::fs::read(path).unwrap();
    let plan = make(&image, Some(&[0; 40 << 20]), 256 * MIB, "console=ttyS0").unwrap();
    assert_eq!(plan.regs.rip, 16 * MIB + 0x200);
    assert!(matches!(make(&image, None, 32 * MIB, ""), Err(LoadError::MemoryTooSmall(_))));
}
