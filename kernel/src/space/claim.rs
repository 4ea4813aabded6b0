//! The claim on a space: the node that uses it now. It keeps two hypervisors that see the same disk
//! from both writing to it.
//!
//! ```text
//!   end - 12 KiB          sector 0: claims of even epochs      each sector is written whole
//!   end - 12 KiB + 2 KiB  sector 1: claims of odd epochs
//!   end -  8 KiB          record A, record B
//! ```
//!
//! A disk has no compare-and-write, and a write may land late. So a claim has an *epoch*, the
//! highest epoch wins, and a node that takes a space over writes the sector that the last owner
//! does not write. An owner renews its claim periodically: that write is a *beat*.
//! [`super::taking`] says how a space is taken, [`super::holding`] how an owner reacts to the
//! claims that it reads.

use super::layout::{RECORD_SIZE, usable};
use super::uuid::Uuid;
use crate::mm::crc::crc32c;
use crate::time::Ns;

/// Bytes of a claim.
pub const CLAIM_LEN: usize = 512;
/// Bytes of the page that holds both sectors.
pub const PAGE_LEN: usize = RECORD_SIZE as usize;
/// Offset of the second sector in the page.
const SECOND_AT: usize = 2048;
/// Time between two beats: renewals of the claim.
pub const BEAT_NS: Ns = Ns::from_ms(500);
/// How long a claim has to stay unchanged before its owner counts as gone: twice the time for which
/// an owner submits without a confirmed beat.
pub const WATCH_NS: Ns = BEAT_NS.saturating_mul(8);
/// How long an owner submits after the submission of its last confirmed beat.
pub const LEASE_NS: Ns = BEAT_NS.saturating_mul(4);
/// How long a new claim has to stay unchanged before it counts. Also the longest time from the look
/// that found a space free to the end of the write that claims it; a slower write proves nothing.
pub const SETTLE_NS: Ns = Ns::from_ms(200);
/// Highest epoch: it is the upper half of a record's sequence number, which has 63 bits.
pub const MAX_EPOCH: u64 = (1 << 31) - 1;

const CLAIMED: &[u8; 8] = b"TIDECLM1";
const RELEASED: &[u8; 8] = b"TIDEREL1";
const CRC_AT: usize = CLAIM_LEN - 4;

/// A claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceClaim {
    /// The owner: one start of a hypervisor.
    pub node: Uuid,
    /// Number of ownership changes of the space. Claims of the first version have 0.
    pub epoch: u64,
    /// Number of renewals of the claim.
    pub beat: u64,
}

impl SpaceClaim {
    /// Returns the offset of the page with both sectors in a space of `capacity` bytes.
    pub const fn start(capacity: u64) -> Option<u64> {
        usable(capacity).checked_sub(3 * RECORD_SIZE)
    }

    /// Returns the offset in the page of a claim of this epoch.
    pub const fn offset(epoch: u64) -> usize {
        if epoch.is_multiple_of(2) { 0 } else { SECOND_AT }
    }

    /// Encodes the claim's sector.
    pub fn encode(&self) -> [u8; CLAIM_LEN] {
        encode(CLAIMED, self)
    }

    /// Decodes a sector; `None` if it is not a valid claim.
    pub fn decode(bytes: &[u8; CLAIM_LEN]) -> Option<Self> {
        match ClaimSector::decode(bytes) {
            ClaimSector::Claim(claim) => Some(claim),
            _ => None,
        }
    }

    /// Returns the claim of the next beat.
    pub const fn next_beat(self) -> Self {
        Self { beat: self.beat.wrapping_add(1), ..self }
    }
}

fn encode(magic: &[u8; 8], claim: &SpaceClaim) -> [u8; CLAIM_LEN] {
    let mut bytes = [0; CLAIM_LEN];
    bytes[..8].copy_from_slice(magic);
    bytes[8..24].copy_from_slice(&claim.node.0);
    bytes[24..32].copy_from_slice(&claim.beat.to_le_bytes());
    bytes[32..40].copy_from_slice(&claim.epoch.to_le_bytes());
    let crc = crc32c(&bytes[..CRC_AT]).0;
    bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Content of a claim's sector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimSector {
    /// Zeros.
    Empty,
    /// Left by an owner that stopped in order. The epoch stays, so that a late beat of an earlier
    /// owner never counts again.
    Released(SpaceClaim),
    /// A claim of an owner.
    Claim(SpaceClaim),
    /// A half-written sector or foreign bytes, represented by their checksum so that a change is
    /// noticed.
    Torn(u32),
}

impl ClaimSector {
    /// Decodes a sector.
    pub fn decode(bytes: &[u8; CLAIM_LEN]) -> Self {
        if bytes.iter().all(|byte| *byte == 0) {
            return Self::Empty;
        }
        let number = |at: usize| u64::from_le_bytes(core::array::from_fn(|n| bytes[at + n]));
        let stored = u32::from_le_bytes(core::array::from_fn(|n| bytes[CRC_AT + n]));
        let claim = SpaceClaim {
            node: Uuid(core::array::from_fn(|n| bytes[8 + n])),
            beat: number(24),
            epoch: number(32),
        };
        let is_whole = crc32c(&bytes[..CRC_AT]).0 == stored && claim.epoch <= MAX_EPOCH;
        match bytes.first_chunk::<8>() {
            Some(CLAIMED) if is_whole => Self::Claim(claim),
            Some(RELEASED) if is_whole => Self::Released(claim),
            _ => Self::Torn(crc32c(bytes).0),
        }
    }

    /// Encodes the sector of an owner that leaves.
    pub fn released(claim: &SpaceClaim) -> [u8; CLAIM_LEN] {
        encode(RELEASED, claim)
    }

    /// Returns the epoch, if there is one.
    pub const fn epoch(&self) -> Option<u64> {
        match self {
            Self::Claim(claim) | Self::Released(claim) => Some(claim.epoch),
            Self::Empty | Self::Torn(_) => None,
        }
    }
}

/// Both sectors, as found by one read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClaimSectors([ClaimSector; 2]);

impl ClaimSectors {
    /// Two empty sectors.
    pub const NONE: Self = Self([ClaimSector::Empty; 2]);

    /// Decodes the page.
    pub fn decode(page: &[u8; PAGE_LEN]) -> Self {
        let sector = |at: usize| page[at..].first_chunk().expect("both sectors lie in the page");
        Self([ClaimSector::decode(sector(0)), ClaimSector::decode(sector(SECOND_AT))])
    }

    /// Returns the content of the sector for this epoch.
    pub const fn at(&self, epoch: u64) -> ClaimSector {
        self.0[(epoch % 2) as usize]
    }

    /// Returns the content of both sectors.
    pub const fn marks(&self) -> [ClaimSector; 2] {
        self.0
    }

    /// Returns the highest epoch; 0 if there is none.
    pub fn epoch(&self) -> u64 {
        self.0.iter().filter_map(ClaimSector::epoch).max().unwrap_or(0)
    }

    /// Returns the claim that counts: the one of the highest epoch, unless it was released.
    pub fn owner(&self) -> Option<SpaceClaim> {
        let is_later = |a: &ClaimSector, b: &ClaimSector| a.epoch() >= b.epoch();
        let last = if is_later(&self.0[0], &self.0[1]) { self.0[0] } else { self.0[1] };
        match last {
            ClaimSector::Claim(claim) => Some(claim),
            _ => None,
        }
    }

    /// Returns a copy with the sector for `epoch` replaced.
    #[must_use]
    pub const fn with(mut self, epoch: u64, mark: ClaimSector) -> Self {
        self.0[(epoch % 2) as usize] = mark;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: SpaceClaim = SpaceClaim { node: Uuid([7; 16]), epoch: 5, beat: 41 };

    #[test]
    fn a_claim_reads_back_and_anything_else_is_torn() {
        let bytes = CLAIM.encode();
        assert_eq!(
            (SpaceClaim::decode(&bytes), ClaimSector::decode(&bytes)),
            (Some(CLAIM), ClaimSector::Claim(CLAIM))
        );
        for at in [0, 8, 24, 32, 100, CLAIM_LEN - 1] {
            let mut other = bytes;
            other[at] ^= 1;
            assert_eq!(SpaceClaim::decode(&other), None, "byte {at}");
            assert!(matches!(ClaimSector::decode(&other), ClaimSector::Torn(_)), "byte {at}");
        }
        assert_eq!(ClaimSector::decode(&[0; CLAIM_LEN]), ClaimSector::Empty);
        assert_eq!(SpaceClaim::start(16 << 20), Some((16 << 20) - 12288));
        assert_eq!(SpaceClaim::start(8192), None);
    }

    #[test]
    fn a_released_claim_is_none_but_keeps_its_epoch() {
        let bytes = ClaimSector::released(&CLAIM);
        assert_eq!(
            (SpaceClaim::decode(&bytes), ClaimSector::decode(&bytes).epoch()),
            (None, Some(5))
        );
        let before = SpaceClaim { epoch: 4, ..CLAIM };
        let claims = ClaimSectors([ClaimSector::Claim(before), ClaimSector::decode(&bytes)]);
        assert_eq!((claims.owner(), claims.epoch()), (None, 5));
    }

    #[test]
    fn a_claim_of_the_first_version_has_epoch_0_and_lies_in_sector_0() {
        let mut old = [0; CLAIM_LEN];
        old[..8].copy_from_slice(b"TIDECLM1");
        old[8..24].fill(3);
        old[24] = 9;
        let crc = crc32c(&old[..CRC_AT]).0;
        old[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        let claim = SpaceClaim { node: Uuid([3; 16]), epoch: 0, beat: 9 };
        assert_eq!(
            (SpaceClaim::decode(&old), SpaceClaim::offset(0), claim.encode()),
            (Some(claim), 0, old)
        );
    }

    #[test]
    fn the_higher_epoch_counts_wherever_it_lies() {
        let mut page = [0; PAGE_LEN];
        for (epoch, owner) in [(4, 4), (5, 5), (8, 8), (7, 8)] {
            let claim = SpaceClaim { epoch, ..CLAIM };
            page[SpaceClaim::offset(epoch)..][..CLAIM_LEN].copy_from_slice(&claim.encode());
            assert_eq!(ClaimSectors::decode(&page).owner().map(|c| c.epoch), Some(owner));
        }
        page[2048] ^= 1;
        assert!(matches!(ClaimSectors::decode(&page).at(1), ClaimSector::Torn(_)));
    }

    #[test]
    fn an_epoch_that_no_sequence_number_can_carry_is_no_claim() {
        let claim = SpaceClaim { epoch: MAX_EPOCH + 1, ..CLAIM };
        assert!(matches!(ClaimSector::decode(&claim.encode()), ClaimSector::Torn(_)));
    }
}
