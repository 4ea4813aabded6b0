//! From images to a vCPU at its kernel's entry point.
//!
//! ```text
//!   ImageSource ──recognise──> linux::plan | pvh::plan ──> LoadPlan ──> LoadJob::step ... step ──> vCPU runs
//!   (boot archive,             by content                  copies, registers   a few pages a step
//!    staged ranges)
//! ```
//!
//! Making a plan reads headers only and writes nothing. [`LoadJob`] carries it out in bounded
//! steps; each may find a page not resident. So a large initrd neither holds up a CPU nor needs
//! more resident memory than the pool gives.
//!
//! Invariants: memory is untouched before the first step, hence zero, so zero bytes need no copy.
//! All copies of a plan lie in RAM and do not overlap.

mod bytes;
mod firmware;
mod linux;
pub mod memory_map;
mod mp_table;
mod place;
pub mod plan;
mod pvh;
pub mod staged;

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod tests;

use crate::archive::BootArchive;
use crate::config::KernelModules;
use crate::mm::layout::RamLayout;
use crate::partition::acpi::AcpiTables;
use bytes::KernelBytes;
pub use bytes::MOST_AT_ONCE;
pub use plan::{LoadJob, LoadPlan, LoadProgress};

/// A source of images.
pub trait ImageSource {
    /// Returns the bytes of the module called `name`. `None` if there is none, or if the source has
    /// parts of its images only.
    fn module(&self, name: &str) -> Option<&[u8]>;

    /// Returns the length of an image; `None` if there is none.
    fn length(&self, name: &str) -> Option<u64> {
        self.module(name).map(|bytes| bytes.len() as u64)
    }

    /// Returns the bytes of an image from `offset` on that are in memory, at least one; `None` if
    /// there are none.
    fn bytes(&self, name: &str, offset: u64) -> Option<&[u8]> {
        self.module(name)?.get(usize::try_from(offset).ok()?..).filter(|rest| !rest.is_empty())
    }
}

impl ImageSource for BootArchive {
    fn module(&self, name: &str) -> Option<&[u8]> {
        BootArchive::module(self, name)
    }
}

/// An image of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageRole {
    /// The kernel.
    Kernel,
    /// The initial RAM disk.
    Initrd,
}

/// Why a partition cannot be loaded: an image is at fault, or memory is too small. The
/// configuration sets both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadError {
    /// No module of that name.
    Missing(ImageRole),
    /// Neither a bzImage nor an ELF file.
    UnknownFormat,
    /// A bzImage shorter than its header says, or a damaged ELF file.
    Damaged,
    /// An ELF file with more than this many loadable segments.
    TooManySegments(usize),
    /// A bzImage with a boot protocol before 2.10, or a bzImage loaded below 1 MiB.
    OldProtocol,
    /// An ELF file for another CPU.
    WrongElf,
    /// An ELF file without a PVH entry point.
    NoPvhNote,
    /// A kernel whose address has no RAM, or is taken by the boot information.
    BadAddress(u64),
    /// A command line longer than the kernel's limit, which is this many bytes.
    CommandLineTooLong(u32),
    /// Too little memory: at least this many bytes are needed.
    MemoryTooSmall(u64),
    /// Not an error of the kernel: these of its bytes have to be read first.
    Unread {
        /// The first byte.
        offset: u64,
        /// Number of bytes, at most [`MOST_AT_ONCE`].
        bytes: u32,
    },
}

impl core::fmt::Display for LoadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            LoadError::Missing(ImageRole::Kernel) => {
                f.write_str("the kernel is not in the boot archive")
            }
            LoadError::Missing(ImageRole::Initrd) => {
                f.write_str("the initrd is not in the boot archive")
            }
            LoadError::Unread { offset, bytes } => {
                write!(f, "{bytes} bytes of the kernel from byte {offset} on are not read yet")
            }
            LoadError::UnknownFormat => {
                f.write_str("the kernel is neither a Linux bzImage nor an ELF file")
            }
            LoadError::Damaged => f.write_str("the kernel file is damaged or cut off"),
            LoadError::TooManySegments(most) => {
                write!(f, "the kernel is an ELF file of more than {most} loadable segments")
            }
            LoadError::OldProtocol => {
                f.write_str("the kernel is older than the Linux boot protocol 2.10")
            }
            LoadError::WrongElf => f.write_str("the kernel is an ELF file, but none for x86"),
            LoadError::NoPvhNote => {
                f.write_str("the kernel is an ELF file without a PVH entry point")
            }
            LoadError::BadAddress(at) => {
                write!(f, "the kernel wants to lie at {at:#x}, which it cannot have")
            }
            LoadError::CommandLineTooLong(max) => {
                write!(f, "the kernel takes command lines of {max} bytes at most")
            }
            LoadError::MemoryTooSmall(bytes) => {
                write!(
                    f,
                    "the logical memory is too small: kernel and initrd need {} MiB",
                    bytes.div_ceil(1 << 20)
                )
            }
        }
    }
}

/// The input of a plan.
#[derive(Clone, Copy)]
pub struct LoadRequest<'a> {
    /// Names of the images.
    pub kernel: &'a KernelModules,
    /// Kernel command line.
    pub cmdline: &'a str,
    /// The partition's RAM.
    pub layout: &'a RamLayout,
    /// Its ACPI tables.
    pub acpi: &'a AcpiTables,
}

/// Recognises the kernel by its content and plans how to start it.
///
/// # Errors
/// [`LoadError`] names the cause. After [`LoadError::Unread`] the caller reads those bytes, and
/// calls again; that happens a few times, and never for a source whose images are whole.
pub fn plan(source: &dyn ImageSource, request: &LoadRequest<'_>) -> Result<LoadPlan, LoadError> {
    let kernel = KernelBytes::of(source, &request.kernel.image)
        .ok_or(LoadError::Missing(ImageRole::Kernel))?;
    place::check_memory(request.layout)?;
    let initrd = match &request.kernel.initrd {
        Some(name) => Some(source.length(name).ok_or(LoadError::Missing(ImageRole::Initrd))?),
        None => None,
    };
    let head = kernel.head()?;
    if pvh::is_elf(head) {
        pvh::plan(&kernel, initrd, request)
    } else if linux::is_bzimage(head) {
        linux::plan(&kernel, initrd, request)
    } else {
        Err(LoadError::UnknownFormat)
    }
}
