//! The configuration as the host command compiles it and the hypervisor reads it.
//!
//! People write TOML; the host command checks it, names file, line and key of what is wrong, and
//! puts the result into the boot archive as the module `config`: 4 bytes [`MAGIC`], 4 bytes length of the rest,
//! then postcard. The two sides are always built together; [`VERSION`] catches a stale archive.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// First bytes of the module.
pub const MAGIC: [u8; 4] = *b"TPCF";
/// Version of the encoding, first field of the configuration.
pub const VERSION: u32 = 1;
/// Name of the module in the boot archive.
pub const MODULE: &str = "config";

/// Everything the hypervisor is told at its start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Config {
    /// [`VERSION`].
    pub version: u32,
    /// Bytes of the pool that all partitions share.
    pub pool_bytes: u64,
    /// Memory-backed paging devices to make (machines without virtio-blk), bytes each.
    pub memory_disks: Vec<u64>,
    /// What to run.
    pub partitions: Vec<Partition>,
    /// What to do after the last partition has stopped.
    pub at_end: AtEnd,
    /// Names and arguments of built-in measurements to run instead of partitions (`tidepool bench`, tests).
    pub self_tests: Vec<String>,
}

/// What the machine does when nothing runs any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AtEnd {
    /// Stays, with console and events.
    Stay,
    /// Stops the emulator.
    PowerOff,
}

/// One partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Partition {
    /// Unique name.
    pub name: String,
    /// Bytes of logical memory, a multiple of 4 KiB.
    pub memory_bytes: u64,
    /// How the kernel starts.
    pub kernel: Kernel,
    /// Kernel command line.
    pub cmdline: String,
    /// The indication: whether a crash leads to the hypervisor-aided dump.
    pub dump: DumpPolicy,
    /// When a crashed partition restarts.
    pub restart: Restart,
    /// Bytes that must be free before a threshold restart; `None`: the smaller of 64 MiB and a quarter of the memory.
    pub boot_memory_bytes: Option<u64>,
}

/// Modules of the boot archive that make a bootable kernel; the format is recognised by its content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kernel {
    /// Name of the kernel's module: a bzImage or an ELF64 with a PVH note.
    pub image: String,
    /// Name of the initrd's module.
    pub initrd: Option<String>,
}

/// The indication of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DumpPolicy {
    /// A crash drains the memory to the paging space, which becomes the dump.
    Aided,
    /// A crash is followed by a plain restart.
    Off,
}

/// When a crashed partition runs again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Restart {
    /// When frames freed from the crashed image reach the boot memory.
    Threshold,
    /// At once, on demand-zero memory.
    Immediate,
    /// Not at all: the partition stays stopped.
    Never,
}

/// Why a configuration module cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// No [`MAGIC`] at the start.
    Magic,
    /// Shorter than its header says.
    Truncated,
    /// Postcard could not decode it.
    Encoding,
    /// Another [`VERSION`].
    Version(u32),
}

impl Config {
    /// Encodes the module.
    pub fn to_module(&self) -> Vec<u8> {
        let body = postcard::to_allocvec(self).expect("a configuration has no unencodable part");
        let mut module = Vec::with_capacity(body.len() + 8);
        module.extend_from_slice(&MAGIC);
        module.extend_from_slice(&(body.len() as u32).to_le_bytes());
        module.extend_from_slice(&body);
        module
    }

    /// Decodes a module.
    ///
    /// # Errors
    /// [`ConfigError`] says what is wrong; nothing is trusted before.
    pub fn from_module(module: &[u8]) -> Result<Self, ConfigError> {
        let (magic, rest) = module.split_first_chunk::<4>().ok_or(ConfigError::Truncated)?;
        if *magic != MAGIC {
            return Err(ConfigError::Magic);
        }
        let (len, rest) = rest.split_first_chunk::<4>().ok_or(ConfigError::Truncated)?;
        let body = rest.get(..u32::from_le_bytes(*len) as usize).ok_or(ConfigError::Truncated)?;
        let (version, _) = postcard::take_from_bytes::<u32>(body).map_err(|_| ConfigError::Encoding)?;
        if version != VERSION {
            return Err(ConfigError::Version(version));
        }
        postcard::from_bytes(body).map_err(|_| ConfigError::Encoding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn sample() -> Config {
        Config {
            version: VERSION,
            pool_bytes: 1 << 27,
            memory_disks: vec![1 << 20],
            partitions: vec![],
            at_end: AtEnd::Stay,
            self_tests: vec![],
        }
    }

    #[test]
    fn round_trip() {
        assert_eq!(Config::from_module(&sample().to_module()), Ok(sample()));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let module = sample().to_module();
        for len in 0..module.len() {
            assert!(Config::from_module(&module[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let config = Config { version: 7, ..sample() };
        assert_eq!(Config::from_module(&config.to_module()), Err(ConfigError::Version(7)));
    }
}
