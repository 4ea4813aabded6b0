//! The superblock: the numbers that every member of the cluster must know alike.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `TIDECLUS` |
//! | 8 | 4 | version |
//! | 12 | 4 | size: 4096 |
//! | 16 | 8 | required features: a reader that does not know one does not join |
//! | 24 | 8 | optional features, which a reader may ignore: bit 0: mail |
//! | 32 | 16 | the cluster's uuid |
//! | 48 | 2, 1, 1 | slots; number of areas (1 or 3); this area's number |
//! | 52 | 4 | bytes of a copy of the state |
//! | 56 | 4, 4, 4 | beat and lease in ms; clock drift in ppm |
//! | 68 | 4 | zeros |
//! | 72 | 8 | time of the format, ns since 1970 |
//! | 4092 | 4 | CRC32C |
//!
//! Only a format writes it, in two copies with equal content. So the first valid copy counts, and
//! a copy of a newer program makes the whole area a newer program's.

use crate::crc::crc32c;
use crate::layout::{AreaLayout, SUPERBLOCK};
use crate::sector::{FieldReader, FieldWriter};
use crate::timing::ClusterTiming;

/// First bytes of a superblock.
pub const MAGIC: &[u8; 8] = b"TIDECLUS";
const AREA_VERSION: u32 = 1;
/// Optional feature: a block of mail for each slot lies behind the states.
pub const FEATURE_MAIL: u64 = 1;
/// Required features that this program knows: none yet.
const KNOWN_FEATURES: u64 = 0;

/// The superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Features that a reader may ignore.
    pub features_optional: u64,
    /// Name of the cluster.
    pub cluster: u128,
    /// Slots.
    pub slots: u16,
    /// Number of areas with the same content: 1 or 3.
    pub areas: u8,
    /// Number of this area, from 0.
    pub area: u8,
    /// Bytes of a copy of the state.
    pub state_bytes: u32,
    /// Times.
    pub timing: ClusterTiming,
    /// Time of the format in nanoseconds since 1970.
    pub formatted_ns: u64,
}

/// Why an area cannot be joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SuperblockError {
    /// No copy has the magic: not a cluster area.
    Foreign,
    /// Both copies are damaged.
    Damaged,
    /// Of this version, which is newer.
    NewerVersion(u32),
    /// With these required features, which this program does not know.
    UnknownFeatures(u64),
    /// A number is not possible.
    Impossible,
}

impl core::fmt::Display for SuperblockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Foreign => f.write_str("not a cluster area"),
            Self::Damaged => f.write_str("both superblocks are damaged"),
            Self::NewerVersion(version) => write!(f, "version {version} of a newer program"),
            Self::UnknownFeatures(bits) => write!(f, "unknown required feature bits {bits:#x}"),
            Self::Impossible => f.write_str("a number in the superblock is not possible"),
        }
    }
}

impl core::error::Error for SuperblockError {}

impl Superblock {
    /// Encodes a copy.
    pub fn encode(&self) -> [u8; SUPERBLOCK] {
        let mut bytes = [0; SUPERBLOCK];
        let mut out = FieldWriter::new(&mut bytes);
        out.raw(MAGIC);
        out.u32(AREA_VERSION);
        out.u32(SUPERBLOCK as u32);
        out.u64(KNOWN_FEATURES);
        out.u64(self.features_optional);
        out.u128(self.cluster);
        out.u16(self.slots);
        out.u8(self.areas);
        out.u8(self.area);
        out.u32(self.state_bytes);
        out.u32(self.timing.beat_ms);
        out.u32(self.timing.lease_ms);
        out.u32(self.timing.drift_ppm);
        out.u32(0);
        out.u64(self.formatted_ns);
        out.seal();
        bytes
    }

    /// Decodes both copies.
    ///
    /// # Errors
    /// If the area cannot be joined.
    pub fn decode(copies: [&[u8; SUPERBLOCK]; 2]) -> Result<Self, SuperblockError> {
        let found = copies.map(Self::decode_one);
        let newer = |error: &SuperblockError| {
            matches!(error, SuperblockError::NewerVersion(_) | SuperblockError::UnknownFeatures(_))
        };
        let errors = found.iter().filter_map(|copy| copy.as_ref().err());
        if let Some(error) = errors.copied().find(newer) {
            return Err(error);
        }
        match found {
            [Ok(first), _] => Ok(first),
            [_, Ok(second)] => Ok(second),
            [Err(SuperblockError::Foreign), Err(error)] | [Err(error), _] => Err(error),
        }
    }

    fn decode_one(bytes: &[u8; SUPERBLOCK]) -> Result<Self, SuperblockError> {
        let mut fields = FieldReader::new(bytes);
        if fields.raw::<8>() != *MAGIC {
            return Err(SuperblockError::Foreign);
        }
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(SuperblockError::Damaged)?;
        if crc32c(body).to_le_bytes() != *crc {
            return Err(SuperblockError::Damaged);
        }
        let (version, size, required) = (fields.u32(), fields.u32(), fields.u64());
        if version > AREA_VERSION {
            return Err(SuperblockError::NewerVersion(version));
        }
        if required & !KNOWN_FEATURES != 0 {
            return Err(SuperblockError::UnknownFeatures(required & !KNOWN_FEATURES));
        }
        let (features_optional, cluster) = (fields.u64(), fields.u128());
        let (slots, areas, area, state_bytes) =
            (fields.u16(), fields.u8(), fields.u8(), fields.u32());
        let timing = ClusterTiming {
            beat_ms: fields.u32(),
            lease_ms: fields.u32(),
            drift_ppm: fields.u32(),
        };
        let _zeros = fields.u32();
        let found = Self {
            features_optional,
            cluster,
            slots,
            areas,
            area,
            state_bytes,
            timing,
            formatted_ns: fields.u64(),
        };
        let is_possible = version == AREA_VERSION
            && size == SUPERBLOCK as u32
            && found.layout().is_some()
            && matches!(areas, 1 | 3)
            && area < areas
            && cluster != 0
            && timing.is_possible();
        if is_possible { Ok(found) } else { Err(SuperblockError::Impossible) }
    }

    /// Returns the places in the area; `None` if the numbers are not possible.
    pub const fn layout(&self) -> Option<AreaLayout> {
        let Some(layout) = AreaLayout::new(self.slots, self.state_bytes) else { return None };
        if self.features_optional & FEATURE_MAIL != 0 {
            Some(layout.with_mail())
        } else {
            Some(layout)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Superblock = Superblock {
        features_optional: 0x10,
        cluster: 0x1234_5678_9abc_def0_0fed_cba9_8765_4321,
        slots: 64,
        areas: 3,
        area: 2,
        state_bytes: 16384,
        timing: ClusterTiming::DEFAULT,
        formatted_ns: 1_700_000_000_000_000_000,
    };

    /// Changes bytes and corrects the checksum.
    fn changed(at: usize, new: &[u8]) -> [u8; SUPERBLOCK] {
        let mut bytes = BLOCK.encode();
        bytes[at..at + new.len()].copy_from_slice(new);
        let crc = crc32c(&bytes[..SUPERBLOCK - 4]).to_le_bytes();
        bytes[SUPERBLOCK - 4..].copy_from_slice(&crc);
        bytes
    }

    #[test]
    fn every_damaged_byte_is_found_and_the_other_copy_counts() {
        let whole = BLOCK.encode();
        assert_eq!(Superblock::decode([&whole, &whole]), Ok(BLOCK));
        for at in 0..SUPERBLOCK {
            let mut bytes = whole;
            bytes[at] ^= 1 << (at % 8);
            assert!(Superblock::decode_one(&bytes).is_err(), "byte {at}");
        }
        let mut torn = whole;
        torn[512..].fill(0);
        assert_eq!(Superblock::decode([&torn, &whole]), Ok(BLOCK));
        assert_eq!(Superblock::decode([&whole, &torn]), Ok(BLOCK));
        assert_eq!(Superblock::decode([&torn, &torn]), Err(SuperblockError::Damaged));
        let zeros = [0; SUPERBLOCK];
        assert_eq!(Superblock::decode([&zeros, &zeros]), Err(SuperblockError::Foreign));
        assert_eq!(Superblock::decode([&zeros, &torn]), Err(SuperblockError::Damaged));
    }

    #[test]
    fn a_newer_program_s_copy_refuses_the_area_whatever_the_other_says() {
        let whole = BLOCK.encode();
        let version = changed(8, &2_u32.to_le_bytes());
        let feature = changed(16, &4_u64.to_le_bytes());
        for copies in [[&version, &whole], [&whole, &version]] {
            assert_eq!(Superblock::decode(copies), Err(SuperblockError::NewerVersion(2)));
        }
        assert_eq!(
            Superblock::decode([&whole, &feature]),
            Err(SuperblockError::UnknownFeatures(4))
        );
        let optional = changed(24, &7_u64.to_le_bytes());
        assert!(Superblock::decode([&optional, &optional]).is_ok(), "optional bits are ignored");
    }

    #[test]
    fn impossible_numbers_are_refused() {
        let cases: [(usize, &[u8]); 9] = [
            (8, &[0, 0, 0, 0]),
            (12, &[0, 2, 0, 0]),
            (32, &[0; 16]),
            (48, &[1, 0]),
            (48, &[1, 4]),
            (50, &[2]),
            (51, &[3]),
            (52, &[1, 2, 0, 0]),
            (56, &[0, 0, 0, 0]),
        ];
        for (at, new) in cases {
            let bytes = changed(at, new);
            assert_eq!(
                Superblock::decode([&bytes, &bytes]),
                Err(SuperblockError::Impossible),
                "{at}"
            );
        }
    }
}
