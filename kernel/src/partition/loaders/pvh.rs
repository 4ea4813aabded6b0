//! PVH: an ELF file, of 32 or 64 bits, with a note that gives its 32-bit entry point. Test kernels
//! and Linux's `vmlinux` start this way.
//!
//! The vCPU starts in 32-bit protected mode without paging, EBX pointing to `start_info`. Xen
//! `docs/misc/pvh.pandoc`, `public/arch-x86/hvm/start_info.h`.

use alloc::vec::Vec;

use elf::abi::{EI_NIDENT, EM_386, EM_X86_64, PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::note::{Note, NoteIterator};
use elf::parse::ParseAt;
use elf::segment::{ProgramHeader, SegmentTable};

use super::bytes::{KernelBytes, MOST_AT_ONCE};
use super::plan::{CopyContent, LoadCopy};
use super::{ImageRole, LoadError, LoadPlan, LoadRequest, firmware, memory_map, mp_table, place};
use crate::addr::Gpa;
use crate::partition::devices::lapic::ApicMode;
use crate::virt::{CpuState, Gpr, Regs, SegmentRegister};

const NOTE_NAME: &str = "Xen";
/// XEN_ELFNOTE_PHYS32_ENTRY.
const NOTE_ENTRY: u64 = 18;

const START_MAGIC: u32 = 0x336e_c578;
const START_INFO_BYTES: u64 = 56;
const MODULE_BYTES: u64 = 32;
const MODULE_LIST: u64 = place::BOOT_INFO + START_INFO_BYTES;
const MEMORY_MAP: u64 = MODULE_LIST + MODULE_BYTES;

const CODE: SegmentRegister =
    SegmentRegister { selector: 0x8, attributes: 0xc09b, limit: u32::MAX, base: 0 };
const DATA: SegmentRegister =
    SegmentRegister { selector: 0x10, attributes: 0xc093, limit: u32::MAX, base: 0 };

/// The headers of an ELF file.
struct Elf<'a> {
    header: FileHeader<LittleEndian>,
    segments: SegmentTable<'a, LittleEndian>,
}

impl<'a> Elf<'a> {
    /// Reads the headers; section headers are of no interest here.
    fn read(kernel: &KernelBytes<'a>) -> Result<Self, LoadError> {
        let head = kernel.head()?;
        let (ident, tail) = head.split_at_checked(EI_NIDENT).ok_or(LoadError::Damaged)?;
        let header = parse_ident(ident)
            .and_then(|ident| FileHeader::parse_tail(ident, tail))
            .map_err(|_| LoadError::Damaged)?;
        let size = ProgramHeader::validate_entsize(header.class, header.e_phentsize.into())
            .map_err(|_| LoadError::Damaged)?;
        let bytes = size * usize::from(header.e_phnum);
        if bytes > MOST_AT_ONCE {
            return Err(LoadError::TooManySegments(MOST_SEGMENTS));
        }
        let table = kernel.get(header.e_phoff, bytes as u64)?;
        let segments = SegmentTable::new(LittleEndian, header.class, table);
        Ok(Self { header, segments })
    }
}

/// Tells whether `image` is an ELF file.
pub(super) fn is_elf(image: &[u8]) -> bool {
    image.starts_with(b"\x7fELF")
}

/// Plans how to start an ELF file.
pub(super) fn plan(
    kernel: &KernelBytes<'_>,
    initrd: Option<u64>,
    request: &LoadRequest<'_>,
) -> Result<LoadPlan, LoadError> {
    let elf = Elf::read(kernel)?;
    // The entry point is 32-bit code in any case; the class is only the file's format.
    if !matches!(
        (elf.header.class, elf.header.e_machine),
        (Class::ELF64, EM_X86_64) | (Class::ELF32, EM_386 | EM_X86_64)
    ) {
        return Err(LoadError::WrongElf);
    }
    let entry = entry(&elf, kernel)?;
    if request.cmdline.len() as u64 >= place::COMMAND_LINE_BYTES {
        return Err(LoadError::CommandLineTooLong(place::COMMAND_LINE_BYTES as u32 - 1));
    }
    let (mut copies, kernel_end) = segments(&elf, kernel.length(), request)?;
    let initrd = match initrd {
        Some(bytes) => {
            Some((place::initrd_base(bytes, kernel_end, u64::MAX, request.layout)?, bytes))
        }
        None => None,
    };
    if let Some((base, bytes)) = initrd {
        let content =
            CopyContent::Image { role: ImageRole::Initrd, offset: 0, bytes: bytes as usize };
        copies.push(LoadCopy { to: Gpa::new(base), content });
    }
    let made = |to: Gpa, bytes| LoadCopy { to, content: CopyContent::Made(bytes) };
    let mut command_line = request.cmdline.as_bytes().to_vec();
    command_line.push(0);
    copies.push(made(Gpa::new(place::COMMAND_LINE), command_line));
    copies.push(made(Gpa::new(place::BOOT_INFO), start_info(initrd, request)));
    copies.push(made(request.acpi.at, request.acpi.bytes.clone()));
    copies.push(firmware::reset_entry());
    copies.push(mp_table::mp_tables());

    let mut regs = Regs { rip: entry, rflags: 2, ..Regs::default() };
    regs.set(Gpr::Rbx, place::BOOT_INFO);
    Ok(LoadPlan { copies, regs, state: CpuState::flat(CODE, DATA), apic: ApicMode::XApic })
}

/// Most segments of notes that are looked at.
const MOST_NOTES: usize = 4;

/// Finds the entry point in the file's notes.
fn entry(elf: &Elf<'_>, kernel: &KernelBytes<'_>) -> Result<u64, LoadError> {
    let notes = elf.segments.iter().filter(|header| header.p_type == PT_NOTE);
    for header in notes.take(MOST_NOTES) {
        let bytes = kernel.get(header.p_offset, header.p_filesz)?;
        let align = usize::try_from(header.p_align).map_err(|_| LoadError::Damaged)?;
        for note in NoteIterator::new(LittleEndian, elf.header.class, align, bytes) {
            if let Note::Unknown(note) = note
                && note.name_str().is_ok_and(|name| name == NOTE_NAME)
                && note.n_type == NOTE_ENTRY
            {
                let word = note.desc.first_chunk().ok_or(LoadError::NoPvhNote)?;
                return Ok(u32::from_le_bytes(*word).into());
            }
        }
    }
    Err(LoadError::NoPvhNote)
}

/// Largest number of loadable segments. Kernels have about five; each takes room on the heap while
/// the kernel is loaded.
const MOST_SEGMENTS: usize = 64;

/// Plans the copies of the loadable segments. Also returns the end of the highest one.
fn segments(
    elf: &Elf<'_>,
    length: u64,
    request: &LoadRequest<'_>,
) -> Result<(Vec<LoadCopy>, u64), LoadError> {
    let (mut copies, mut kernel_end) = (Vec::new(), 0);
    let loadable = |header: &ProgramHeader| header.p_type == PT_LOAD && header.p_memsz > 0;
    for header in elf.segments.iter().filter(loadable) {
        let end = place::kernel_end(header.p_paddr, header.p_memsz, request.layout)?;
        kernel_end = end.max(kernel_end);
        let file_end = header.p_offset.checked_add(header.p_filesz).ok_or(LoadError::Damaged)?;
        if file_end > length || header.p_filesz > header.p_memsz {
            return Err(LoadError::Damaged);
        }
        let (offset, bytes) = (header.p_offset as usize, header.p_filesz as usize);
        let content = CopyContent::Image { role: ImageRole::Kernel, offset, bytes };
        if copies.len() == MOST_SEGMENTS {
            return Err(LoadError::TooManySegments(MOST_SEGMENTS));
        }
        copies.push(LoadCopy { to: Gpa::new(header.p_paddr), content });
    }
    let overlap =
        |(n, copy): (usize, &LoadCopy)| copies[..n].iter().any(|other| share(other, copy));
    if copies.is_empty() || copies.iter().enumerate().any(overlap) {
        return Err(LoadError::Damaged);
    }
    Ok((copies, kernel_end))
}

/// Returns whether two copies write the same byte.
fn share(one: &LoadCopy, other: &LoadCopy) -> bool {
    let (one, other) = (one.range(), other.range());
    one.start.max(other.start) < one.end.min(other.end)
}

/// Makes `start_info`, the module list and the memory map, one behind the other.
fn start_info(initrd: Option<(u64, u64)>, request: &LoadRequest<'_>) -> Vec<u8> {
    let map = memory_map::entries(request.layout, request.acpi.bus);
    let mut bytes = Vec::new();
    let modules = u32::from(initrd.is_some());
    [START_MAGIC, 1, 0, modules].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    [MODULE_LIST, place::COMMAND_LINE, request.acpi.rsdp.as_u64(), MEMORY_MAP]
        .iter()
        .for_each(|word| bytes.extend(word.to_le_bytes()));
    [map.len() as u32, 0].iter().for_each(|word| bytes.extend(word.to_le_bytes()));

    let (base, length) = initrd.unwrap_or((0, 0));
    [base, length, 0, 0].iter().for_each(|word| bytes.extend(word.to_le_bytes()));

    for entry in &map {
        [entry.base, entry.bytes].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        [entry.kind as u32, 0].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    }
    bytes
}
