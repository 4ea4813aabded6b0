//! The demonstration of a cluster: three nodes share a disk, and their partitions outlive them.
//!
//! ```text
//!   three nodes join ─> each starts a Debian from the image store
//!     ─> node-a stands still for a minute ─> fenced ─> its Debian runs elsewhere, in another space
//!     ─> node-a wakes: its late writes do no harm, it signs off and joins anew
//!     ─> node-b is killed ─> its Debian runs elsewhere ─> the operator confirms that it is off
//! ```
//!
//! [`play`] drives the machines, [`story`] keeps what they have told, [`writes`] finds in the
//! emulators' traces where late writes landed, [`chart`] draws who ran what when, [`verdict`]
//! judges. A rule that is left out ([`ClusterRule`]) makes a claim break.

pub mod chart;
pub mod play;
pub mod story;
pub mod verdict;
pub mod writes;

use crate::kernel_build::Variant;
use crate::size;
use crate::store::{self, ImageStore};
use crate::volume::{self, BlankParts, VolumeAccess};
use crate::{bed::Bed, cluster, config};
use ::cluster::timing::ClusterTiming;
use anyhow::{Context, Result};
use clap::ValueEnum;
use std::fs;
use std::path::{Path, PathBuf};

/// The nodes, in the order of their start.
pub const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];
/// Their partitions.
pub const PARTITIONS: [&str; 3] = ["debian-a", "debian-b", "debian-c"];
/// Image with the spaces and the cluster area, in the demonstration's folder.
const SHARED: &str = "shared.img";
const STORE: &str = "store.img";
const MEMORY: u64 = 128 << 20;
const POOL: u64 = 96 << 20;
const SPACE: u64 = MEMORY + (16 << 20);
const STORE_BYTES: u64 = 96 << 20;
const AREA_BYTES: u64 = 2 << 20;
const SLOTS: u16 = 16;
const WORKER_MIB: u64 = 56;

/// A rule that the demonstration can leave out, to show the damage that it prevents.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ClusterRule {
    /// A node whose lease is over executes no guest and submits nothing.
    Freeze,
    /// The spaces of a fenced node stay untouched until nothing of that node lands any more.
    Quarantine,
}

impl ClusterRule {
    /// Returns its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Quarantine => "quarantine",
        }
    }

    /// Returns the hypervisor without this rule.
    pub const fn variant(self) -> Variant {
        Variant::Without(self.name())
    }

    /// Returns the number of paging spaces. A node's space is taken again at once only where no
    /// other one is free.
    pub const fn spaces(without: Option<Self>) -> usize {
        match without {
            Some(Self::Quarantine) => PARTITIONS.len(),
            _ => PARTITIONS.len() + 1,
        }
    }
}

/// The files of a demonstration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DemoDisks {
    folder: PathBuf,
}

impl DemoDisks {
    /// Makes disk, store and configurations, in place of those of the last demonstration.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn make(folder: &Path, spaces: usize, kernel: &Path, initrd: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let site = Self { folder: folder.to_owned() };
        for old in [SHARED, STORE].into_iter().map(|name| folder.join(name)) {
            if old.exists() {
                fs::remove_file(&old).with_context(|| old.display().to_string())?;
            }
        }
        let area = BlankParts { cluster: Some(AREA_BYTES), store: None };
        let sizes = vec![SPACE; spaces];
        let all: Vec<u64> = sizes.iter().copied().chain(area.sizes()).collect();
        volume::create_parts(&site.shared(), volume::least_size(&all)?, &sizes, area)?;
        cluster::create(&[site.shared()], SLOTS, ClusterTiming::DEFAULT)?;
        store::create(&folder.join(STORE), STORE_BYTES)?;
        site.define(kernel, initrd)?;
        for name in NODES {
            write(&site.file(name), &node(name))?;
        }
        Ok(site)
    }

    /// Returns the image with the spaces.
    pub fn shared(&self) -> PathBuf {
        self.folder.join(SHARED)
    }

    /// Returns a node's configuration.
    pub fn file(&self, node: &str) -> PathBuf {
        self.folder.join(format!("{node}.toml"))
    }

    /// Puts the partitions into the store, as `tidepool store define` does.
    fn define(&self, kernel: &Path, initrd: &Path) -> Result<()> {
        let file = self.folder.join("partitions.toml");
        let all = PARTITIONS.map(|name| partition(name, kernel, initrd)).concat();
        write(&file, &format!("[pool]\nmemory = \"{}\"\n\n{all}", size::format(POOL)))?;
        let plan = config::check(&file, Bed::Qemu)?;
        let mut store = ImageStore::open(&self.folder.join(STORE), VolumeAccess::Write)?;
        store.define(&plan, &[], |_| {})
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    crate::atomic::write(file, |out| Ok(std::io::Write::write_all(out, text.as_bytes())?))
}

fn node(name: &str) -> String {
    format!(
        "# A node of the demonstration. It names no partition: those are in the image store.\n\
         [pool]\nmemory = \"{}\"\n\n[machine]\ncpus = 1\n\n[spare]\npartitions = {}\nmemory = \
         \"{}\"\n\n[[image_store]]\nimage = \"{STORE}\"\n\n[cluster]\nname = \"{name}\"\nareas = \
         [\"{SHARED}\"]\n",
        size::format(POOL),
        PARTITIONS.len(),
        size::format(MEMORY * PARTITIONS.len() as u64),
    )
}

fn partition(name: &str, kernel: &Path, initrd: &Path) -> String {
    format!(
        "[[partition]]\nname = \"{name}\"\nmemory = \"{}\"\nkernel = \"{}\"\ninitrd = \"{}\"\n\
         cmdline = \"console=ttyS0 quiet worker.mib={WORKER_MIB}\"\n\n",
        size::format(MEMORY),
        kernel.display(),
        initrd.display(),
    )
}
