//! Retries for requests around the blocks, like the pager's retries for pages: a refused request is
//! tried again after a tenth of a second, [`MAX_TRIES`] times in all. Pure: `storage::spaces`
//! carries it out.

use super::DiskError;
use crate::time::Ns;

/// How often a request is tried.
pub const MAX_TRIES: u32 = 8;
/// Time between two tries.
pub const PAUSE_NS: Ns = Ns::from_ms(100);

/// The purpose of a request, for events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpaceAccess {
    /// A read: offset in the space, number of bytes.
    Read(u64, usize),
    /// A write: offset in the space, number of bytes.
    Write(u64, usize),
    /// A version of the space's record is written and made durable.
    Record,
    /// All earlier writes are made durable.
    Flush,
    /// The claims on the space are read, and one is written.
    Claim,
    /// The claim is released.
    ClaimsEnd,
    /// The boot-code bytes are read to find the selected dump of the disk.
    Selection,
    /// The header of the space's dump is removed from the boot-code bytes of the disk.
    Deselect,
}

impl SpaceAccess {
    /// Returns its number in the history.
    pub const fn code(self) -> u32 {
        match self {
            Self::Read(..) => 0,
            Self::Write(..) => 1,
            Self::Record => 2,
            Self::Flush => 3,
            Self::Claim => 4,
            Self::ClaimsEnd => 5,
            Self::Selection => 6,
            Self::Deselect => 7,
        }
    }
}

impl core::fmt::Display for SpaceAccess {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Read(offset, len) => {
                write!(f, "{len} bytes at byte {offset} of the space cannot be read")
            }
            Self::Write(offset, len) => {
                write!(f, "{len} bytes at byte {offset} of the space cannot be written")
            }
            Self::Selection => f.write_str(
                "the disk's boot-code bytes, which tell the selected dump, cannot be read",
            ),
            Self::Deselect => {
                f.write_str("the disk's boot-code bytes cannot be cleared of the dump's header")
            }
            Self::Claim => f.write_str("the space cannot be claimed"),
            Self::ClaimsEnd => f.write_str("the claim cannot be given back"),
            Self::Record => f.write_str("the space's record cannot be written"),
            Self::Flush => f.write_str("what was written cannot be made durable"),
        }
    }
}

/// Counts the tries of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RetryCount(u32);

/// What follows a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterRefusal {
    /// The request is tried again; the first time is reported.
    Again,
    /// The request has failed for good after this many tries.
    GivenUp(u32),
    /// Another try would change nothing.
    Hopeless,
}

impl RetryCount {
    /// Counts a refusal and decides what follows.
    pub fn refused(&mut self, error: DiskError) -> AfterRefusal {
        self.0 += 1;
        match error {
            DiskError::Dead | DiskError::Unsupported => AfterRefusal::Hopeless,
            _ if self.0 >= MAX_TRIES => AfterRefusal::GivenUp(self.0),
            _ => AfterRefusal::Again,
        }
    }

    /// Returns whether the request was refused for the first time.
    pub const fn is_first(self) -> bool {
        self.0 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_tried_as_often_as_a_page() {
        let mut tries = RetryCount::default();
        let outcomes: Vec<_> = (0..MAX_TRIES).map(|_| tries.refused(DiskError::Io)).collect();
        assert!(outcomes[..7].iter().all(|outcome| *outcome == AfterRefusal::Again));
        assert_eq!(outcomes[7], AfterRefusal::GivenUp(8));
    }

    #[test]
    fn a_dead_disk_is_not_asked_again() {
        assert_eq!(RetryCount::default().refused(DiskError::Dead), AfterRefusal::Hopeless);
        assert_eq!(RetryCount::default().refused(DiskError::Unsupported), AfterRefusal::Hopeless);
    }

    #[test]
    fn codes_have_the_words_of_the_history() {
        let accesses = [
            (SpaceAccess::Read(0, 0), "read"),
            (SpaceAccess::Write(0, 0), "write"),
            (SpaceAccess::Record, "record"),
            (SpaceAccess::Flush, "flush"),
            (SpaceAccess::Claim, "claim"),
            (SpaceAccess::ClaimsEnd, "end of claims"),
            (SpaceAccess::Selection, "selection"),
            (SpaceAccess::Deselect, "deselection"),
        ];
        let words = crate::log::history::words::ACCESSES;
        assert!(accesses.iter().all(|(access, word)| words[access.code() as usize] == *word));
    }

    #[test]
    fn events_name_the_bytes() {
        let text = SpaceAccess::Write(8192, 512).to_string();
        assert_eq!(text, "512 bytes at byte 8192 of the space cannot be written");
    }
}
