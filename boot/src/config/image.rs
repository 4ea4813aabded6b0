//! Kernels and initrds are checked by their content before they go into an archive.

use kernel::images::ImageKind;
use object::Endianness;
use object::elf::{FileHeader32, FileHeader64, NoteType, PT_NOTE};
use object::read::elf::{ElfFile, FileHeader, ProgramHeader};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The note with the entry point of a PVH kernel (Xen's `public/elfnote.h`).
const XEN_ELFNOTE_PHYS32_ENTRY: NoteType = NoteType(18);

/// Magic numbers of the initrds that Linux accepts, each with its offset: archives and their
/// compressed forms (`init/initramfs.c`, `lib/decompress.c`), file systems of a RAM disk
/// (`init/do_mounts_rd.c`).
const INITRDS: &[(usize, &[u8])] = &[
    (0, b"070701"),
    (0, b"070702"),
    (0, b"\x1f\x8b"),
    (0, b"\x1f\x9e"),
    (0, b"\xfd7zXZ\0"),
    (0, b"\x28\xb5\x2f\xfd"),
    (0, b"BZh"),
    (0, b"\x5d\0\0"),
    (0, b"\x89LZO"),
    (0, b"\x02\x21\x4c\x18"),
    (0, b"\x04\x22\x4d\x18"),
    (0, b"hsqs"),
    (0, b"-rom1fs-"),
    (0, b"\x45\x3d\xcd\x28"),
    (0x200, b"\x45\x3d\xcd\x28"),
    // ext2 and later; Minix.
    (0x438, b"\x53\xef"),
    (0x410, b"\x7f\x13"),
    (0x410, b"\x8f\x13"),
];
/// Bytes from the start that contain all these magic numbers.
const INITRD_HEAD: u64 = 0x440;

/// The formats of kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KernelFormat {
    /// Linux's boot protocol.
    BzImage,
    /// An ELF file with a PVH note.
    Pvh,
}

/// Checks that `path` is a kernel that a partition can start; returns its format.
///
/// # Errors
/// The fault as text, to be placed behind the key.
pub(super) fn check_kernel(path: &Path) -> Result<KernelFormat, String> {
    crate::regular::check(path).map_err(|e| format!("{e:#}"))?;
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    if is_bzimage(&bytes) {
        return Ok(KernelFormat::BzImage);
    }
    if has_pvh_note::<FileHeader64<Endianness>>(&bytes)
        || has_pvh_note::<FileHeader32<Endianness>>(&bytes)
    {
        return Ok(KernelFormat::Pvh);
    }
    Err(format!("{}: neither a bzImage nor an ELF file with a PVH note", path.display()))
}

/// Recognises a file that a partition can start from: a kernel, or an initrd for Linux.
///
/// # Errors
/// The fault as text.
pub(super) fn kind(path: &Path) -> Result<ImageKind, String> {
    check_kernel(path).map(|_| ImageKind::Kernel).or_else(|_| {
        check_initrd(path, KernelFormat::BzImage).map(|()| ImageKind::Initrd).map_err(|_| {
            format!("{}: neither a kernel nor an initrd that is known", path.display())
        })
    })
}

/// Checks that `path` is an initrd that Linux accepts. For an ELF kernel any content is accepted:
/// only that kernel knows the module's format.
///
/// # Errors
/// The fault as text, to be placed behind the key.
pub(super) fn check_initrd(path: &Path, kernel: KernelFormat) -> Result<(), String> {
    crate::regular::check(path).map_err(|e| format!("{e:#}"))?;
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(INITRD_HEAD).read_to_end(&mut head));
    read.map_err(|e| format!("{}: {e}", path.display()))?;
    let is_known = || {
        INITRDS
            .iter()
            .any(|(at, magic)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)))
    };
    if kernel == KernelFormat::Pvh || is_known() {
        return Ok(());
    }
    Err(format!(
        "{}: neither a cpio archive, a compressed one, nor a file system that Linux takes as \
         initrd",
        path.display()
    ))
}

/// Returns whether this is a bzImage (Linux's `Documentation/arch/x86/boot.rst`: boot flag at
/// 0x1fe, header magic at 0x202).
fn is_bzimage(bytes: &[u8]) -> bool {
    bytes.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && bytes.get(0x202..0x206) == Some(b"HdrS")
}

fn has_pvh_note<H: FileHeader<Endian = Endianness>>(bytes: &[u8]) -> bool {
    let Ok(elf) = ElfFile::<H>::parse(bytes) else { return false };
    let endian = elf.endian();
    let segments =
        elf.elf_program_headers().iter().filter(|segment| segment.p_type(endian) == PT_NOTE);
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
