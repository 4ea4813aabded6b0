//! Kernels and initrds are recognised by their content before they travel anywhere.

use object::elf::{NoteType, PT_NOTE};
use object::read::elf::{ElfFile64, ProgramHeader};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Xen's `public/elfnote.h`: where a PVH kernel is entered.
const XEN_ELFNOTE_PHYS32_ENTRY: NoteType = NoteType(18);

/// First bytes of what Linux accepts as initrd.
const INITRDS: &[&[u8]] = &[
    b"070701",
    b"070702",
    b"\x1f\x8b",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"BZh",
    b"\x5d\0\0",
    b"\x89LZO",
    b"\x02\x21\x4c\x18",
];

/// Checks that `path` is a kernel that a partition can start.
///
/// # Errors
/// What is wrong, to stand behind the key.
pub fn check_kernel(path: &Path) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    if is_bzimage(&bytes) || has_pvh_note(&bytes) {
        return Ok(());
    }
    Err(format!("{}: neither a bzImage nor an ELF64 with a PVH note", path.display()))
}

/// Checks that `path` is an initrd that Linux can unpack.
///
/// # Errors
/// What is wrong, to stand behind the key.
pub fn check_initrd(path: &Path) -> Result<(), String> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut head));
    read.map_err(|e| format!("{}: {e}", path.display()))?;
    if INITRDS.iter().any(|magic| head.starts_with(magic)) {
        return Ok(());
    }
    Err(format!("{}: neither a cpio archive nor a compressed one", path.display()))
}

/// Linux's `Documentation/arch/x86/boot.rst`: boot flag at 0x1fe, header magic at 0x202.
fn is_bzimage(bytes: &[u8]) -> bool {
    bytes.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && bytes.get(0x202..0x206) == Some(b"HdrS")
}

fn has_pvh_note(bytes: &[u8]) -> bool {
    let Ok(elf) = ElfFile64::<object::Endianness>::parse(bytes) else { return false };
    let endian = elf.endian();
    let segments = elf.elf_program_headers().iter().filter(|segment| segment.p_type(endian) == PT_NOTE);
    let mut notes = segments.filter_map(|segment| segment.notes(endian, bytes).ok().flatten());
    notes.any(|mut notes| {
        while let Ok(Some(note)) = notes.next() {
            if note.name() == b"Xen" && note.n_type(endian) == XEN_ELFNOTE_PHYS32_ENTRY {
                return true;
            }
        }
        false
    })
}
