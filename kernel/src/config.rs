//! The configuration as the host command compiles it and the hypervisor reads it.
//!
//! People write TOML. The host command checks it, reports errors with file, line and key, and puts
//! the result into the boot archive as the module `config`: 4 bytes [`MAGIC`], 4 bytes length of
//! the rest, then postcard. Both sides are always built together; [`VERSION`] detects a stale
//! archive.

use alloc::{string::String, vec::Vec};
use core::ops::RangeInclusive;
use serde::{Deserialize, Serialize};

/// First bytes of the module.
pub const MAGIC: [u8; 4] = *b"TPCF";
/// Version of the encoding, first field of the configuration.
pub const VERSION: u32 = 3;
/// Version of a partition's encoding in an image store, which outlives this build: the bytes of
/// [`PartitionConfig::to_definition`]. It changes with every change of [`PartitionConfig`].
pub const DEFINITION_VERSION: u32 = 2;
/// Name of the module in the boot archive.
pub const MODULE: &str = "config";

/// Most bytes of a partition's name.
pub const MAX_NAME: usize = 31;

/// Names of the measurements allowed in [`Config::self_tests`].
pub const SELF_TESTS: &[&str] = &["pager", "raw-disk"];

/// The hypervisor's configuration at its start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Config {
    /// [`VERSION`].
    pub version: u32,
    /// Bytes of the pool that all partitions share.
    pub pool_bytes: u64,
    /// Sizes in bytes of memory-backed paging devices to make (for machines without virtio-blk).
    pub memory_disks: Vec<u64>,
    /// Nanoseconds after which a disk that does not answer a request is written off.
    pub disk_timeout_ns: u64,
    /// The partitions to run.
    pub partitions: Vec<PartitionConfig>,
    /// Room for partitions that are defined while the node runs.
    pub spare: SpareRoom,
    /// What to do after the last partition has stopped.
    pub at_end: EndAction,
    /// This node's name in a cluster; `None`: one made of the start's name.
    pub node_name: Option<String>,
    /// Names and arguments of built-in measurements to run instead of partitions (`tidepool bench`,
    /// tests).
    pub self_tests: Vec<String>,
}

/// Room for partitions that are defined while the node runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SpareRoom {
    /// Number of partitions besides those of the configuration.
    pub partitions: u32,
    /// Bytes of logical memory of all of them together, for their second-level tables.
    pub memory_bytes: u64,
}

/// Default of [`Config::disk_timeout_ns`].
pub const DISK_TIMEOUT_NS: u64 = 30_000_000_000;

/// What the machine does when no partition runs any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum EndAction {
    /// Stays up, with console and events.
    Stay,
    /// Stops the emulator.
    PowerOff,
}

/// One partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartitionConfig {
    /// Unique name.
    pub name: String,
    /// Bytes of logical memory, a multiple of 4 KiB.
    pub memory_bytes: u64,
    /// The kernel to start.
    pub kernel: KernelModules,
    /// Kernel command line.
    pub cmdline: String,
    /// The indication: whether a crash leads to the hypervisor-aided dump.
    pub dump: DumpPolicy,
    /// How many of its dumps are kept; `None`: as many as there are spaces for.
    pub dump_bound: Option<DumpBound>,
    /// When a crashed partition restarts.
    pub restart: RestartPolicy,
    /// Nanoseconds after which a guest without a sign of life counts as hung; `None`: never.
    pub hang_timeout_ns: Option<u64>,
    /// How often it restarts after crashes; `None`: every time.
    pub restart_limit: Option<RestartLimit>,
    /// Bytes that must be free before a threshold restart; `None`: the smaller of 64 MiB and a
    /// quarter of the memory.
    pub boot_memory_bytes: Option<u64>,
    /// Destination of its console's output besides the first serial line.
    pub console: ConsoleRoute,
    /// Devices on its PCI bus.
    pub devices: GuestDevices,
}

/// Devices on a partition's PCI bus. A partition without any has no bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestDevices {
    /// A virtio entropy device.
    #[serde(default)]
    pub rng: DeviceSwitch,
}

/// Whether a partition has a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceSwitch {
    /// It has not.
    #[default]
    Off,
    /// It has.
    On,
}

/// The encoding of no devices, which definitions of version 1 lack.
const NO_DEVICES: [u8; 1] = [0];

/// Returns whether a partition may have this name, which is typed at the console and appears in
/// events and records.
pub fn is_valid_name(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain)
}

/// Destination of a partition's console output besides the first serial line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleRoute {
    /// None.
    #[default]
    Screen,
    /// Into the event stream as well, byte for byte.
    Programs,
}

/// Modules of the boot archive that form a bootable kernel; the format is recognised by its
/// content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KernelModules {
    /// Name of the kernel's module: a bzImage or an ELF64 with a PVH note.
    pub image: String,
    /// Name of the initrd's module.
    pub initrd: Option<String>,
}

/// The indication of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DumpPolicy {
    /// A crash drains the memory to the paging space, which becomes the dump.
    Aided,
    /// A crash is followed by a plain restart.
    Off,
}

/// How many dumps of a partition are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DumpBound {
    /// Most dumps, at least one.
    pub most: u32,
    /// Consequence of a crash when that many are kept.
    pub when_full: DumpOverflow,
}

/// Consequence of a crash when the limit of dumps is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DumpOverflow {
    /// The partition restarts without a dump.
    Skip,
    /// The oldest dump is dropped when the new one is promised.
    DropOldest,
}

/// When a crashed partition runs again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// When frames freed from the crashed image reach the boot memory.
    Threshold,
    /// At once, on demand-zero memory.
    Immediate,
    /// Not at all: the partition stays stopped.
    Never,
}

/// Range of a partition's `hang_timeout` and of the time of its `restart_limit`, nanoseconds: a
/// second to a day.
pub const TIMES_NS: RangeInclusive<u64> = 1_000_000_000..=86_400_000_000_000;
/// Most restarts that a [`RestartLimit`] can count.
pub const MAX_RESTARTS: usize = 64;

/// How often a partition restarts after crashes before it stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestartLimit {
    /// Number of restarts, at most [`MAX_RESTARTS`].
    pub restarts: u32,
    /// Within this many nanoseconds.
    pub time_ns: u64,
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
    /// A partition's name is empty, longer than [`MAX_NAME`], or used twice.
    Name,
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic => f.write_str("is no compiled configuration"),
            Self::Truncated => f.write_str("is cut off"),
            Self::Encoding => f.write_str("cannot be decoded"),
            Self::Name => f.write_str("has a partition without a name of its own"),
            Self::Version(version) => {
                write!(f, "has version {version}, this hypervisor knows {VERSION}")
            }
        }
    }
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
    /// [`ConfigError`]: the fault. No field is used before all checks have passed.
    pub fn from_module(module: &[u8]) -> Result<Self, ConfigError> {
        let (magic, rest) = module.split_first_chunk::<4>().ok_or(ConfigError::Truncated)?;
        if *magic != MAGIC {
            return Err(ConfigError::Magic);
        }
        let (len, rest) = rest.split_first_chunk::<4>().ok_or(ConfigError::Truncated)?;
        let body = rest.get(..u32::from_le_bytes(*len) as usize).ok_or(ConfigError::Truncated)?;
        let (version, _) =
            postcard::take_from_bytes::<u32>(body).map_err(|_| ConfigError::Encoding)?;
        if version != VERSION {
            return Err(ConfigError::Version(version));
        }
        let config: Self = postcard::from_bytes(body).map_err(|_| ConfigError::Encoding)?;
        if config.has_own_names() { Ok(config) } else { Err(ConfigError::Name) }
    }

    /// Returns whether all partitions have valid and distinct names, which identify them in events,
    /// commands and records.
    fn has_own_names(&self) -> bool {
        let names = self.partitions.iter().map(|partition| partition.name.as_str());
        let fits = |name: &str| (1..=MAX_NAME).contains(&name.len());
        names
            .clone()
            .enumerate()
            .all(|(n, name)| fits(name) && names.clone().take(n).all(|earlier| earlier != name))
    }
}

impl PartitionConfig {
    /// Encodes it for an image store, as version [`DEFINITION_VERSION`]. Its kernel and initrd are
    /// then named by the digits of their digests.
    pub fn to_definition(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a configuration has no unencodable part")
    }

    /// Decodes what an image store has.
    ///
    /// # Errors
    /// [`ConfigError`]: the fault. No field is used before all checks have passed.
    pub fn from_definition(version: u32, bytes: &[u8]) -> Result<Self, ConfigError> {
        let older;
        let bytes = match version {
            DEFINITION_VERSION => bytes,
            1 => {
                older = [bytes, &NO_DEVICES].concat();
                &older
            }
            other => return Err(ConfigError::Version(other)),
        };
        match postcard::take_from_bytes::<Self>(bytes) {
            Ok((partition, [])) if partition.has_name() => Ok(partition),
            Ok((_, [])) => Err(ConfigError::Name),
            Ok(_) | Err(_) => Err(ConfigError::Encoding),
        }
    }

    fn has_name(&self) -> bool {
        (1..=MAX_NAME).contains(&self.name.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// A definition stays on a disk and is read by later builds: a change of these bytes needs
    /// another [`DEFINITION_VERSION`], and the old version stays readable.
    #[test]
    fn the_encoding_of_a_definition_belongs_to_its_version() {
        let partition = PartitionConfig {
            name: "web".into(),
            memory_bytes: 4096,
            kernel: KernelModules { image: "k".into(), initrd: Some("i".into()) },
            cmdline: "c".into(),
            dump: DumpPolicy::Off,
            dump_bound: Some(DumpBound { most: 2, when_full: DumpOverflow::DropOldest }),
            restart: RestartPolicy::Never,
            hang_timeout_ns: Some(300),
            restart_limit: Some(RestartLimit { restarts: 5, time_ns: 6 }),
            boot_memory_bytes: Some(7),
            console: ConsoleRoute::Programs,
            devices: GuestDevices { rng: DeviceSwitch::On },
        };
        let bytes = partition.to_definition();
        assert_eq!(
            (DEFINITION_VERSION, bytes.as_slice()),
            (
                2,
                &b"\x03web\x80\x20\x01k\x01\x01i\x01c\x01\x01\x02\x01\x02\x01\xac\x02\
                   \x01\x05\x06\x01\x07\x01\x01"[..]
            )
        );
        assert_eq!(PartitionConfig::from_definition(2, &bytes), Ok(partition.clone()));
        for len in 0..bytes.len() {
            assert!(PartitionConfig::from_definition(2, &bytes[..len]).is_err(), "{len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(PartitionConfig::from_definition(2, &longer), Err(ConfigError::Encoding));
        assert_eq!(PartitionConfig::from_definition(3, &bytes), Err(ConfigError::Version(3)));
        let (first, without) = (&bytes[..bytes.len() - 1], GuestDevices::default());
        let partition = PartitionConfig { devices: without, ..partition };
        assert_eq!(PartitionConfig::from_definition(1, first), Ok(partition));
        assert_eq!(PartitionConfig::from_definition(1, &bytes), Err(ConfigError::Encoding));
        assert!(PartitionConfig::from_definition(1, &first[..first.len() - 1]).is_err());
    }

    fn sample() -> Config {
        Config {
            version: VERSION,
            pool_bytes: 1 << 27,
            memory_disks: vec![1 << 20],
            partitions: vec![],
            spare: SpareRoom::default(),
            at_end: EndAction::Stay,
            disk_timeout_ns: DISK_TIMEOUT_NS,
            node_name: Some("node-a".into()),
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
    fn partitions_that_cannot_be_told_apart_are_refused() {
        let named = |names: &[&str]| {
            let partition = |name: &&str| PartitionConfig {
                name: (*name).into(),
                memory_bytes: 4096,
                kernel: KernelModules { image: "k".into(), initrd: None },
                cmdline: String::new(),
                dump: DumpPolicy::Aided,
                dump_bound: None,
                restart: RestartPolicy::Never,
                boot_memory_bytes: None,
                hang_timeout_ns: None,
                restart_limit: None,
                console: ConsoleRoute::Screen,
                devices: GuestDevices::default(),
            };
            Config::from_module(
                &Config { partitions: names.iter().map(partition).collect(), ..sample() }
                    .to_module(),
            )
            .map(|_| ())
        };
        let (longest, longer) = ("x".repeat(MAX_NAME), "x".repeat(MAX_NAME + 1));
        assert_eq!(named(&["a", "b", &longest]), Ok(()));
        for names in [&["a", "b", "a"][..], &[""], &[&longer]] {
            assert_eq!(named(names), Err(ConfigError::Name), "{names:?}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let config = Config { version: 7, ..sample() };
        assert_eq!(Config::from_module(&config.to_module()), Err(ConfigError::Version(7)));
    }
}
