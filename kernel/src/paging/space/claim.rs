//! The claim on a space: who runs on it now, so that two hypervisors that see one disk do not both write to it.
//!
//! ```text
//!   end - 12 KiB   claim: node, beat            one sector, so it is written whole
//!   end -  8 KiB   record A, record B
//! ```
//!
//! The owner counts the beat up twice a second and takes the claim away when it stops in order. A disk has no compare-and-write, so who
//! starts can only watch: a claim that changes is in use; one that stays the same for [`WATCH_NS`] was left behind by a power cut.
//!
//! ```text
//!   none ─────────────────────────────> Free ──> own claim written, read back after [`SETTLE_NS`] ─ another's ─> InUse
//!   a claim ──> Watch ── unchanged ───> Free
//!                 └───── changed ─────> InUse
//! ```

use super::layout::{RECORD_SIZE, usable};
use super::uuid::Uuid;
use crate::mm::crc::crc32c;

/// Bytes of a claim.
pub const CLAIM_LEN: usize = 512;
/// Time between two beats.
pub const BEAT_NS: u64 = 500_000_000;
/// How long a claim has to stay the same until nobody is behind it: eight beats, because one may wait behind much else on a busy disk.
pub const WATCH_NS: u64 = 8 * BEAT_NS;
/// How long a new claim lies there before it is believed: whoever saw none in the same moment has written his by then.
pub const SETTLE_NS: u64 = 100_000_000;

const MAGIC: &[u8; 8] = b"TIDECLM1";
const CRC_AT: usize = CLAIM_LEN - 4;

/// A claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Who.
    pub node: Uuid,
    /// How often it was renewed.
    pub beat: u64,
}

impl Claim {
    /// Returns where the claim lies in a space of `capacity` bytes.
    pub const fn start(capacity: u64) -> Option<u64> {
        usable(capacity).checked_sub(3 * RECORD_SIZE)
    }

    /// Makes the sector.
    pub fn encode(&self) -> [u8; CLAIM_LEN] {
        let mut bytes = [0; CLAIM_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..24].copy_from_slice(&self.node.0);
        bytes[24..32].copy_from_slice(&self.beat.to_le_bytes());
        let crc = crc32c(&bytes[..CRC_AT]).0;
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a sector; anything but a claim is none.
    pub fn decode(bytes: &[u8; CLAIM_LEN]) -> Option<Self> {
        let crc = u32::from_le_bytes(core::array::from_fn(|n| bytes[CRC_AT + n]));
        let is_claim = bytes.starts_with(MAGIC) && crc32c(&bytes[..CRC_AT]).0 == crc;
        is_claim.then(|| Self {
            node: Uuid(core::array::from_fn(|n| bytes[8 + n])),
            beat: u64::from_le_bytes(core::array::from_fn(|n| bytes[24 + n])),
        })
    }
}

/// What is known of a space that somebody may be at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nobody is.
    Free,
    /// Not known yet.
    Watch,
    /// This node is.
    InUse(Uuid),
}

/// A space that is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watch {
    first: Option<Claim>,
    since_ns: u64,
}

impl Watch {
    /// Begins with what was found.
    pub const fn new(first: Option<Claim>, now_ns: u64) -> Self {
        Self { first, since_ns: now_ns }
    }

    /// Judges what is there now.
    pub fn look(&self, seen: Option<Claim>, now_ns: u64) -> Verdict {
        match (self.first, seen) {
            // Also where it was taken away meanwhile: everything of its owner was on the disk before that.
            (_, None) => Verdict::Free,
            (first, Some(claim)) if first != seen => Verdict::InUse(claim.node),
            _ if now_ns.saturating_sub(self.since_ns) >= WATCH_NS => Verdict::Free,
            _ => Verdict::Watch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Claim = Claim { node: Uuid([7; 16]), beat: 41 };

    #[test]
    fn a_claim_reads_back_and_anything_else_is_none() {
        let bytes = CLAIM.encode();
        assert_eq!(Claim::decode(&bytes), Some(CLAIM));
        for at in [0, 8, 24, 100, CLAIM_LEN - 1] {
            let mut other = bytes;
            other[at] ^= 1;
            assert_eq!(Claim::decode(&other), None, "byte {at}");
        }
        assert_eq!(Claim::decode(&[0; CLAIM_LEN]), None);
        assert_eq!(Claim::start(16 << 20), Some((16 << 20) - 12288));
        assert_eq!(Claim::start(8192), None);
    }

    #[test]
    fn a_space_without_a_claim_is_free_at_once() {
        assert_eq!(Watch::new(None, 5).look(None, 5), Verdict::Free);
        assert_eq!(Watch::new(Some(CLAIM), 5).look(None, 6), Verdict::Free);
    }

    #[test]
    fn a_claim_that_changes_is_in_use_however_late() {
        let watch = Watch::new(Some(CLAIM), 0);
        let beat = Claim { beat: 42, ..CLAIM };
        let other = Claim { node: Uuid([8; 16]), ..CLAIM };
        for now in [1, WATCH_NS, 2 * WATCH_NS] {
            assert_eq!(watch.look(Some(beat), now), Verdict::InUse(CLAIM.node));
            assert_eq!(watch.look(Some(other), now), Verdict::InUse(other.node));
        }
        assert_eq!(Watch::new(None, 0).look(Some(CLAIM), 0), Verdict::InUse(CLAIM.node));
    }

    #[test]
    fn a_claim_that_stays_the_same_is_nobodys_after_the_watch() {
        let watch = Watch::new(Some(CLAIM), 1000);
        assert_eq!(watch.look(Some(CLAIM), 1000 + WATCH_NS - 1), Verdict::Watch);
        assert_eq!(watch.look(Some(CLAIM), 1000 + WATCH_NS), Verdict::Free);
        assert_eq!(watch.look(Some(CLAIM), 0), Verdict::Watch);
    }
}
