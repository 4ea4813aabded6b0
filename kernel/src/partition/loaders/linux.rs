//! The Linux boot protocol: a bzImage is entered at `startup_64`, or at its 32-bit entry point if
//! it has no `startup_64`.
//!
//! At `startup_64` the vCPU is in 64-bit mode with the first 4 GiB mapped one to one; at the 32-bit
//! entry point it is in protected mode without paging. RSI points to the boot parameters.
//! `screen_info` stays zero, or the kernel would look for a VGA text screen. Linux
//! `Documentation/arch/x86/boot.rst`, "64-bit Boot Protocol", "32-bit Boot Protocol".

use alloc::{vec, vec::Vec};

use super::bytes::KernelBytes;
use super::plan::{CopyContent, LoadCopy};
use super::{ImageRole, LoadError, LoadPlan, LoadRequest, firmware, memory_map, mp_table, place};
use crate::addr::{Gpa, PAGE_SIZE};
use crate::partition::devices::lapic::ApicMode;
use crate::virt::{CpuState, Gpr, Regs, SegmentRegister};

/// Offsets in the setup header and in the boot parameters; both share the numbering.
mod at {
    pub(super) const ACPI_RSDP: usize = 0x070;
    pub(super) const EXT_RAMDISK_IMAGE: usize = 0x0c0;
    pub(super) const EXT_RAMDISK_SIZE: usize = 0x0c4;
    pub(super) const E820_ENTRIES: usize = 0x1e8;
    pub(super) const SETUP_SECTORS: usize = 0x1f1;
    pub(super) const SYSTEM_SIZE: usize = 0x1f4;
    pub(super) const JUMP_OFFSET: usize = 0x201;
    pub(super) const SIGNATURE: usize = 0x202;
    pub(super) const VERSION: usize = 0x206;
    pub(super) const LOADER_TYPE: usize = 0x210;
    pub(super) const LOADFLAGS: usize = 0x211;
    pub(super) const CODE32_START: usize = 0x214;
    pub(super) const RAMDISK_IMAGE: usize = 0x218;
    pub(super) const RAMDISK_SIZE: usize = 0x21c;
    pub(super) const COMMAND_LINE: usize = 0x228;
    pub(super) const INITRD_MAX: usize = 0x22c;
    pub(super) const XLOADFLAGS: usize = 0x236;
    pub(super) const COMMAND_LINE_SIZE: usize = 0x238;
    pub(super) const PREFERRED_ADDRESS: usize = 0x258;
    pub(super) const INIT_SIZE: usize = 0x260;
    pub(super) const E820_TABLE: usize = 0x2d0;
}

const SECTOR: usize = 512;
const SIGNATURE: &[u8; 4] = b"HdrS";
/// Protocol 2.10: the header has the kernel's preferred address and the memory needed there.
const VERSION_PLACED: u16 = 0x020a;
/// Protocol 2.12: the 64-bit entry point.
const VERSION_64_BIT: u16 = 0x020c;
const LOADED_HIGH: u8 = 1 << 0;
const XLOADFLAG_KERNEL_64: u16 = 1 << 0;
/// "A loader without a number".
const LOADER_UNDEFINED: u8 = 0xff;
/// Offset of `startup_64` in the protected-mode part.
const STARTUP_64: u64 = 0x200;
const E820_ENTRY_BYTES: usize = 20;

/// `__BOOT_CS` and `__BOOT_DS`.
const CODE_64: SegmentRegister =
    SegmentRegister { selector: 0x10, attributes: 0xa09b, limit: u32::MAX, base: 0 };
const CODE_32: SegmentRegister = SegmentRegister { attributes: 0xc09b, ..CODE_64 };
const DATA: SegmentRegister =
    SegmentRegister { selector: 0x18, attributes: 0xc093, limit: u32::MAX, base: 0 };
/// The descriptors in the GDT's format.
const DESCRIPTOR_64: u64 = 0x00af_9b00_0000_ffff;
const DESCRIPTOR_32: u64 = 0x00cf_9b00_0000_ffff;
const DESCRIPTOR_DATA: u64 = 0x00cf_9300_0000_ffff;
const GDT_BYTES: u16 = 4 * 8;

const CR0_PAGED: u64 = 0x8000_0011;
const CR4_PAE: u64 = 1 << 5;
const EFER_LONG_MODE: u64 = 0x500;

const MAPPED_GIB: u64 = 4;
const TABLE: u64 = 0x03;
const LARGE_PAGE: u64 = 0x83;

/// The mode in which a kernel is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KernelEntryMode {
    Protected,
    Long,
}

/// The header's values, checked.
struct Header {
    entry: KernelEntryMode,
    payload: usize,
    payload_bytes: usize,
    load: u64,
    init_bytes: u64,
    initrd_limit: u64,
    command_line_max: u32,
}

/// Tells whether `image` is a bzImage.
pub(super) fn is_bzimage(image: &[u8]) -> bool {
    image.get(at::SIGNATURE..).is_some_and(|rest| rest.starts_with(SIGNATURE))
}

/// Plans how to start a bzImage.
pub(super) fn plan(
    kernel: &KernelBytes<'_>,
    initrd: Option<u64>,
    request: &LoadRequest<'_>,
) -> Result<LoadPlan, LoadError> {
    let image = kernel.head()?;
    let header = Header::read(image, kernel.length())?;
    let longest = u64::from(header.command_line_max).min(place::COMMAND_LINE_BYTES - 1);
    if request.cmdline.len() as u64 > longest {
        return Err(LoadError::CommandLineTooLong(longest as u32));
    }
    // The kernel decompresses itself in place: it needs `init_size` bytes, not just its file's
    // size.
    let span = header.init_bytes.max(header.payload_bytes as u64);
    let kernel_end = place::kernel_end(header.load, span, request.layout)?;
    let initrd = match initrd {
        Some(bytes) => Some((
            place::initrd_base(bytes, kernel_end, header.initrd_limit, request.layout)?,
            bytes,
        )),
        None => None,
    };
    let parameters = boot_params(image, &header, initrd, request)?;
    Ok(LoadPlan {
        copies: copies(&header, initrd, parameters, request),
        regs: registers(&header),
        state: state(header.entry),
        // As firmware leaves it. In x2APIC mode a kernel crashes if it ignores the tables that
        // would tell it so (`acpi=off`, `nolapic`).
        apic: ApicMode::XApic,
    })
}

impl Header {
    /// Reads the header from the first bytes of a kernel of `length` bytes.
    fn read(image: &[u8], length: u64) -> Result<Self, LoadError> {
        let half = |at: usize| field(image, at).map(u16::from_le_bytes);
        let word = |at: usize| field(image, at).map(u32::from_le_bytes);
        let [flags] = field(image, at::LOADFLAGS)?;
        if half(at::VERSION)? < VERSION_PLACED || flags & LOADED_HIGH == 0 {
            return Err(LoadError::OldProtocol);
        }
        let is_long = half(at::VERSION)? >= VERSION_64_BIT
            && half(at::XLOADFLAGS)? & XLOADFLAG_KERNEL_64 != 0;
        let [sectors] = field(image, at::SETUP_SECTORS)?;
        let payload = (usize::from(if sectors == 0 { 4 } else { sectors }) + 1) * SECTOR;
        // The size is in units of 16 bytes, rounded up: the file need not fill the last one.
        let rounded = word(at::SYSTEM_SIZE)? as usize * 16;
        let payload_bytes = rounded.min((length as usize).saturating_sub(payload));
        if payload_bytes as u64 <= STARTUP_64 || payload_bytes.next_multiple_of(16) < rounded {
            return Err(LoadError::Damaged);
        }
        Ok(Self {
            entry: if is_long { KernelEntryMode::Long } else { KernelEntryMode::Protected },
            payload,
            payload_bytes,
            load: u64::from_le_bytes(field(image, at::PREFERRED_ADDRESS)?),
            init_bytes: word(at::INIT_SIZE)?.into(),
            initrd_limit: u64::from(word(at::INITRD_MAX)?) + 1,
            command_line_max: word(at::COMMAND_LINE_SIZE)?,
        })
    }
}

fn copies(
    header: &Header,
    initrd: Option<(u64, u64)>,
    parameters: Vec<u8>,
    request: &LoadRequest<'_>,
) -> Vec<LoadCopy> {
    let made = |to, bytes| LoadCopy { to: Gpa::new(to), content: CopyContent::Made(bytes) };
    let mut command_line = request.cmdline.as_bytes().to_vec();
    command_line.push(0);
    let kernel = CopyContent::Image {
        role: ImageRole::Kernel,
        offset: header.payload,
        bytes: header.payload_bytes,
    };
    let mut copies = vec![
        made(place::BOOT_INFO, parameters),
        made(place::COMMAND_LINE, command_line),
        made(
            place::GDT,
            descriptors(header.entry).iter().flat_map(|entry| entry.to_le_bytes()).collect(),
        ),
        made(
            place::PAGE_TABLES,
            if header.entry == KernelEntryMode::Long { identity_map() } else { Vec::new() },
        ),
        made(request.acpi.at.as_u64(), request.acpi.bytes.clone()),
        firmware::reset_entry(),
        mp_table::mp_tables(),
        LoadCopy { to: Gpa::new(header.load), content: kernel },
    ];
    if let Some((base, bytes)) = initrd {
        let content =
            CopyContent::Image { role: ImageRole::Initrd, offset: 0, bytes: bytes as usize };
        copies.push(LoadCopy { to: Gpa::new(base), content });
    }
    copies
}

/// Fills the "zero page": the kernel's own setup header, and the loader's values.
fn boot_params(
    image: &[u8],
    header: &Header,
    initrd: Option<(u64, u64)>,
    request: &LoadRequest<'_>,
) -> Result<Vec<u8>, LoadError> {
    let mut page = vec![0; PAGE_SIZE as usize];
    let [jump] = field(image, at::JUMP_OFFSET)?;
    let setup = at::SETUP_SECTORS..(at::SIGNATURE + usize::from(jump)).min(at::E820_TABLE);
    page[setup.clone()].copy_from_slice(image.get(setup).ok_or(LoadError::Damaged)?);
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);

    put(at::LOADER_TYPE, &[LOADER_UNDEFINED]);
    put(at::CODE32_START, &(header.load as u32).to_le_bytes());
    put(at::COMMAND_LINE, &(place::COMMAND_LINE as u32).to_le_bytes());
    put(at::ACPI_RSDP, &request.acpi.rsdp.as_u64().to_le_bytes());
    let (base, bytes) = initrd.unwrap_or((0, 0));
    put(at::RAMDISK_IMAGE, &(base as u32).to_le_bytes());
    put(at::EXT_RAMDISK_IMAGE, &((base >> 32) as u32).to_le_bytes());
    put(at::RAMDISK_SIZE, &(bytes as u32).to_le_bytes());
    put(at::EXT_RAMDISK_SIZE, &((bytes >> 32) as u32).to_le_bytes());

    let map = memory_map::entries(request.layout, request.acpi.bus);
    put(at::E820_ENTRIES, &[map.len() as u8]);
    for (i, entry) in map.iter().enumerate() {
        let entry_at = at::E820_TABLE + i * E820_ENTRY_BYTES;
        put(entry_at, &entry.base.to_le_bytes());
        put(entry_at + 8, &entry.bytes.to_le_bytes());
        put(entry_at + 16, &(entry.kind as u32).to_le_bytes());
    }
    Ok(page)
}

/// Returns page tables that map the first 4 GiB one to one. Every CPU has 2 MiB pages.
fn identity_map() -> Vec<u8> {
    let directory = place::PAGE_TABLES + PAGE_SIZE;
    let page = |i: u64| place::PAGE_TABLES + i * PAGE_SIZE;
    let top = [page(1) | TABLE].into_iter();
    let directories = (0..MAPPED_GIB).map(|i| page(2 + i) | TABLE);
    let leaves = (0..MAPPED_GIB * 512).map(|i| (i << 21) | LARGE_PAGE);
    let mut bytes = vec![0; ((2 + MAPPED_GIB) * PAGE_SIZE) as usize];
    let mut put = |offset: u64, entries: &mut dyn Iterator<Item = u64>| {
        for (slot, entry) in bytes[offset as usize..].as_chunks_mut::<8>().0.iter_mut().zip(entries)
        {
            *slot = entry.to_le_bytes();
        }
    };
    put(0, &mut top.into_iter());
    put(directory - place::PAGE_TABLES, &mut directories.into_iter());
    put(2 * PAGE_SIZE, &mut leaves.into_iter());
    bytes
}

fn registers(header: &Header) -> Regs {
    let rip = match header.entry {
        KernelEntryMode::Protected => header.load,
        KernelEntryMode::Long => header.load + STARTUP_64,
    };
    let mut regs = Regs { rip, rflags: 2, ..Regs::default() };
    regs.set(Gpr::Rsi, place::BOOT_INFO);
    regs
}

fn descriptors(entry: KernelEntryMode) -> [u64; 4] {
    [
        0,
        0,
        if entry == KernelEntryMode::Long { DESCRIPTOR_64 } else { DESCRIPTOR_32 },
        DESCRIPTOR_DATA,
    ]
}

fn state(entry: KernelEntryMode) -> CpuState {
    let mut state =
        CpuState::flat(if entry == KernelEntryMode::Long { CODE_64 } else { CODE_32 }, DATA);
    state.gdtr.base = place::GDT;
    state.gdtr.limit = GDT_BYTES - 1;
    if entry == KernelEntryMode::Long {
        (state.cr0, state.cr3, state.cr4, state.efer) =
            (CR0_PAGED, place::PAGE_TABLES, CR4_PAE, EFER_LONG_MODE);
    }
    state
}

fn field<const N: usize>(image: &[u8], at: usize) -> Result<[u8; N], LoadError> {
    image.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(LoadError::Damaged)
}
