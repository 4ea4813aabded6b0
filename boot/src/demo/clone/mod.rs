//! The demonstration of clones: a booted Debian becomes many children in a pool that holds two and
//! a half of it.
//!
//! ```text
//!  boot, fill ─> suspend ─> seal ─> clone ─> each child checks the base's pages     one frame for all
//!       ─> each writes a third of its memory with a key of its own, and checks all  own frames
//!       ─> each runs a command ─> one panics: dump, again from the base
//!       ─> the base's blocks are verified, then some damaged: who reads them is stopped
//! ```
//!
//! [`play`] drives the machine, [`story`] keeps what it has told, [`disks`] reads and damages its
//! images, [`verdict`] judges. A rule that is left out ([`CloneRule`]) makes a claim break.

pub mod child;
pub mod disks;
pub mod play;
pub mod story;
pub mod verdict;

use crate::kernel_build::Variant;
use crate::size;
use anyhow::Result;
use clap::ValueEnum;
use std::path::{Path, PathBuf};

/// The partition that becomes the base.
pub const BASE: &str = "base";
/// Image of the base's space.
pub const BASE_IMAGE: &str = "base.img";
/// Image of the children's spaces.
pub const CHILDREN_IMAGE: &str = "children.img";
/// Spaces besides one a child: for the next incarnations of the two that crash.
const SPARE_SPACES: u64 = 2;

/// A rule that the demonstration can leave out, to show the damage that it prevents.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum CloneRule {
    /// The base's blocks are compared with their sealed checksums
    Checksums,
    /// A child's first write goes to a frame of its own
    Private,
}

impl CloneRule {
    /// Returns the hypervisor without this rule.
    pub const fn variant(self) -> Variant {
        match self {
            Self::Checksums => Variant::Without("checksums"),
            Self::Private => Variant::Without("private"),
        }
    }
}

/// The size of the demonstration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CloneScale {
    /// Number of children.
    pub children: u64,
    /// Logical memory of the base and of each child.
    pub memory: u64,
    /// Size of the pool.
    pub pool: u64,
    /// Time limit for each step, in seconds of the host.
    pub step_s: u64,
}

impl CloneScale {
    /// Returns the demonstration's size with this number of children: the pool holds two and a half
    /// bases.
    pub const fn of(children: u64) -> Self {
        Self { children, memory: 256 << 20, pool: 640 << 20, step_s: 900 }
    }

    /// Returns a smaller one, whose children do not fit into the pool either.
    pub const fn short() -> Self {
        Self { children: 6, memory: 192 << 20, pool: 480 << 20, step_s: 300 }
    }

    /// Returns the pages that a child overwrites: a third of its memory.
    pub const fn own_pages(&self) -> u64 {
        self.own_mib() * 256
    }

    const fn own_mib(&self) -> u64 {
        (self.memory >> 20).div_ceil(3)
    }

    fn space(&self) -> u64 {
        self.memory + (16 << 20)
    }

    /// Returns the name of child number `n`, from 1 on.
    pub fn name(n: u64) -> String {
        format!("child-{n}")
    }

    /// Returns the key of child number `n` in an incarnation.
    pub const fn key(n: u64, incarnation: u64) -> u64 {
        incarnation << 16 | 0x100 | n
    }
}

/// Writes the configuration file and removes the last run's images; returns the file.
///
/// # Errors
/// Where the folder cannot be written.
pub fn write_configuration(
    folder: &Path,
    scale: &CloneScale,
    kernel: &Path,
    initrd: &Path,
) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    for name in [BASE_IMAGE, CHILDREN_IMAGE] {
        match std::fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let file = folder.join("clone.toml");
    let text = configuration(scale, kernel, initrd);
    crate::atomic::write(&file, |out| Ok(std::io::Write::write_all(out, text.as_bytes())?))?;
    Ok(file)
}

fn configuration(scale: &CloneScale, kernel: &Path, initrd: &Path) -> String {
    let space = size::format(scale.space());
    let spaces = vec![format!("\"{space}\""); (scale.children + SPARE_SPACES) as usize].join(", ");
    format!(
        "# The configuration of `demo clone`; `tidepool boot` takes such a file.\n[pool]\nmemory \
         = \"{pool}\"\n[machine]\ncpus = 2\n[spare]\npartitions = {children}\nmemory = \
         \"{spare}\"\n[[paging_device]]\nimage = \"{BASE_IMAGE}\"\nsize = \
         \"{space}\"\n[[paging_device]]\nimage = \"{CHILDREN_IMAGE}\"\nspaces = \
         [{spaces}]\n[[partition]]\nname = \"{BASE}\"\nmemory = \"{memory}\"\nkernel = \
         \"{kernel}\"\ninitrd = \"{initrd}\"\ncmdline = \"console=ttyS0 quiet tidepool.clone \
         child.own_mib={own} child.bait_mib=2\"\ndump = \"aided\"\nrestart = \"threshold\"\n",
        pool = size::format(scale.pool),
        children = scale.children,
        // The base's own tables, and those of memory that is being drained.
        spare = size::format(scale.memory * (scale.children + 3)),
        memory = size::format(scale.memory),
        kernel = kernel.display(),
        initrd = initrd.display(),
        own = scale.own_mib(),
    )
}
