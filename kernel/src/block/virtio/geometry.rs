//! The device's offer, parsed once: features and configuration as checked numbers.

use virtio_drivers::transport::Transport;

/// Feature bits (VIRTIO 1.2 §5.2.3 "Feature bits", §6 "Reserved Feature Bits").
pub(super) mod feature {
    /// `size_max` has the longest segment.
    pub(crate) const SIZE_MAX: u64 = 1 << 1;
    /// `seg_max` has the most segments.
    pub(crate) const SEG_MAX: u64 = 1 << 2;
    /// Read-only.
    pub(crate) const RO: u64 = 1 << 5;
    /// Flush command.
    pub(crate) const FLUSH: u64 = 1 << 9;
    /// Discard command.
    pub(crate) const DISCARD: u64 = 1 << 13;
    /// Write-zeroes command.
    pub(crate) const WRITE_ZEROES: u64 = 1 << 14;
    /// Indirect descriptor tables.
    pub(crate) const INDIRECT: u64 = 1 << 28;
    /// Not a legacy device.
    pub(crate) const VERSION_1: u64 = 1 << 32;

    /// Features that this driver accepts if offered.
    pub(crate) const WANTED: u64 =
        SIZE_MAX | SEG_MAX | RO | FLUSH | DISCARD | WRITE_ZEROES | INDIRECT | VERSION_1;
}

use crate::block::request::{MAX_RANGE_SECTORS, SECTOR_SIZE};

/// Byte offsets in the configuration (VIRTIO 1.2 §5.2.4 "Device configuration layout").
mod offset {
    pub(super) const CAPACITY: usize = 0;
    pub(super) const SIZE_MAX: usize = 8;
    pub(super) const SEG_MAX: usize = 12;
    pub(super) const MAX_DISCARD_SECTORS: usize = 36;
    pub(super) const MAX_WRITE_ZEROES_SECTORS: usize = 48;
}

/// Longest segment that we use, so that a whole request stays below 4 GiB.
const MOST_SEGMENT_LEN: u32 = 16 << 20;
/// Reads of a configuration that keeps changing, after which it is given up.
const CONSISTENT_TRIES: usize = 16;

/// Why a configuration cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VirtioConfigError {
    /// The device has no configuration, or too small a one.
    Missing,
    /// It changed during every read.
    Unstable,
    /// The disk is read-only.
    ReadOnly,
    /// No sectors.
    Empty,
    /// It allows no segment, or only segments shorter than a sector.
    Segments,
}

impl core::fmt::Display for VirtioConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Missing => f.write_str("the device has no configuration of a disk"),
            Self::Unstable => {
                f.write_str("the device's configuration changed whenever it was read")
            }
            Self::ReadOnly => f.write_str("the disk cannot be written"),
            Self::Empty => f.write_str("the disk has no sectors"),
            Self::Segments => f.write_str("the device takes no segment of a sector or more"),
        }
    }
}

/// Properties of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct VirtioGeometry {
    /// Features that both sides support.
    pub features: u64,
    /// Capacity in sectors.
    pub capacity: u64,
    /// Most segments that the device takes in a request.
    pub max_segments: u32,
    /// Longest segment, in whole sectors.
    pub max_segment_len: u32,
    /// Supports discards of [`MAX_RANGE_SECTORS`].
    pub discard: bool,
    /// Supports write-zeroes of [`MAX_RANGE_SECTORS`].
    pub write_zeroes: bool,
}

impl VirtioGeometry {
    /// Returns whether this can be the same disk as `before`: everything but the capacity is equal,
    /// which may change at run time.
    pub(super) fn is_same_disk(&self, before: &Self) -> bool {
        *self == Self { capacity: self.capacity, ..*before }
    }

    /// Returns whether both sides support all of `features`.
    pub(super) const fn has(&self, features: u64) -> bool {
        self.features & features == features
    }

    /// Reads the configuration of a device with `features` negotiated.
    ///
    /// # Errors
    /// [`VirtioConfigError`] if the disk cannot be used for paging.
    pub(super) fn read<T: Transport>(
        transport: &T,
        features: u64,
    ) -> Result<Self, VirtioConfigError> {
        for _ in 0..CONSISTENT_TRIES {
            let before = transport.read_config_generation();
            let geometry = Self::read_once(transport, features);
            if transport.read_config_generation() == before {
                return geometry;
            }
        }
        Err(VirtioConfigError::Unstable)
    }

    fn read_once<T: Transport>(transport: &T, features: u64) -> Result<Self, VirtioConfigError> {
        let word =
            |at| transport.read_config_space::<u32>(at).map_err(|_| VirtioConfigError::Missing);
        let word_if =
            |bit, at, otherwise| if features & bit != 0 { word(at) } else { Ok(otherwise) };
        if features & feature::RO != 0 {
            return Err(VirtioConfigError::ReadOnly);
        }
        let capacity =
            u64::from(word(offset::CAPACITY + 4)?) << 32 | u64::from(word(offset::CAPACITY)?);
        if capacity == 0 {
            return Err(VirtioConfigError::Empty);
        }
        let sector = SECTOR_SIZE as u32;
        let max_segments = word_if(feature::SEG_MAX, offset::SEG_MAX, 1)?;
        let size_max =
            word_if(feature::SIZE_MAX, offset::SIZE_MAX, u32::MAX)?.min(MOST_SEGMENT_LEN);
        let max_segment_len = size_max - size_max % sector;
        if max_segments == 0 || max_segment_len == 0 {
            return Err(VirtioConfigError::Segments);
        }
        let enough = |sectors: u32| u64::from(sectors) >= MAX_RANGE_SECTORS;
        Ok(Self {
            features,
            capacity,
            max_segments,
            max_segment_len,
            discard: enough(word_if(feature::DISCARD, offset::MAX_DISCARD_SECTORS, 0)?),
            write_zeroes: enough(word_if(
                feature::WRITE_ZEROES,
                offset::MAX_WRITE_ZEROES_SECTORS,
                0,
            )?),
        })
    }
}
