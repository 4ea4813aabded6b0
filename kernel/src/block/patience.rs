//! Patience with a disk that refuses a request around the blocks, as the pager has it for pages: a refused request is tried again
//! after a tenth of a second, [`MAX_TRIES`] times in all. Pure: `node::spaces` carries it out.

use super::DiskError;

/// Times that a request is tried.
pub const MAX_TRIES: u32 = 8;
/// Time between two tries.
pub const PAUSE_NS: u64 = 100_000_000;

/// What a request is about, for events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpaceAccess {
    /// So many bytes at this offset in the space are read.
    Read(u64, usize),
    /// They are written.
    Write(u64, usize),
    /// A version of the space's record is written and made durable.
    Record,
    /// Everything that was written before is made durable.
    Flush,
    /// The claims on the space are read, and one is written.
    Claim,
    /// The claim is taken away in order.
    ClaimsEnd,
    /// Which dump of the disk is selected is read.
    Selection,
    /// The boot-code bytes of the disk lose the header of the space's dump.
    Deselect,
}

impl core::fmt::Display for SpaceAccess {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Read(offset, len) => write!(f, "{len} bytes at byte {offset} of the space cannot be read"),
            Self::Write(offset, len) => write!(f, "{len} bytes at byte {offset} of the space cannot be written"),
            Self::Selection => f.write_str("the disk's boot-code bytes, which tell the selected dump, cannot be read"),
            Self::Deselect => f.write_str("the disk's boot-code bytes cannot be cleared of the dump's header"),
            Self::Claim => f.write_str("the space cannot be claimed"),
            Self::ClaimsEnd => f.write_str("the claim cannot be given back"),
            Self::Record => f.write_str("the space's record cannot be written"),
            Self::Flush => f.write_str("what was written cannot be made durable"),
        }
    }
}

/// How often a request was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tries(u32);

/// What becomes of a request that was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterRefusal {
    /// It is tried again; the first time that is told.
    Again,
    /// It has failed for good after so many tries.
    GivenUp(u32),
    /// Another try would change nothing.
    Hopeless,
}

impl Tries {
    /// Decides what follows a refusal.
    pub fn refused(&mut self, error: DiskError) -> AfterRefusal {
        self.0 += 1;
        match error {
            DiskError::Dead | DiskError::Unsupported => AfterRefusal::Hopeless,
            _ if self.0 >= MAX_TRIES => AfterRefusal::GivenUp(self.0),
            _ => AfterRefusal::Again,
        }
    }

    /// Returns whether it was refused for the first time.
    pub const fn is_first(self) -> bool {
        self.0 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_tried_as_often_as_a_page() {
        let mut tries = Tries::default();
        let outcomes: Vec<_> = (0..MAX_TRIES).map(|_| tries.refused(DiskError::Io)).collect();
        assert!(outcomes[..7].iter().all(|outcome| *outcome == AfterRefusal::Again));
        assert_eq!(outcomes[7], AfterRefusal::GivenUp(8));
    }

    #[test]
    fn a_dead_disk_is_not_asked_again() {
        assert_eq!(Tries::default().refused(DiskError::Dead), AfterRefusal::Hopeless);
        assert_eq!(Tries::default().refused(DiskError::Unsupported), AfterRefusal::Hopeless);
    }

    #[test]
    fn events_name_the_bytes() {
        let text = SpaceAccess::Write(8192, 512).to_string();
        assert_eq!(text, "512 bytes at byte 8192 of the space cannot be written");
    }
}
