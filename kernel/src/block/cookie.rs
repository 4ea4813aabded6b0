//! The words that route a disk's completion back to the requester: [`Cookie`]s with a class.
//!
//! ```text
//!  63    60 59                             32 31                              0
//! ┌────────┬─────────────────────────────────┬─────────────────────────────────┐
//! │ class  │ detail (28 bits)                │ slot (32 bits)                  │
//! └────────┴─────────────────────────────────┴─────────────────────────────────┘
//! ```
//!
//! The pager polls every paging device, so all completions pass through it. It handles those of its
//! own classes. Those of tasks wait in a mailbox until `Pager::take_completion` takes them. Tasks
//! keep at most [`PER_DISK`] requests in flight on each disk.

use super::{Cookie, MAX_DISKS};

/// Most requests that tasks may have in flight on one disk for spaces and dumps.
pub const COMMON_PER_DISK: usize = 32;
/// Most requests of a cluster's member on one disk: the copies of a write, and a late request.
pub const MEMBER_PER_DISK: usize = 8;
/// Most requests that tasks may have in flight on one disk, including a request of its image stores
/// and the claim's beat.
pub const PER_DISK: usize = COMMON_PER_DISK + 2 + MEMBER_PER_DISK;
/// Completions that the mailbox holds: for each request on each disk, its completion and its late
/// one.
pub const MAILBOX_DEPTH: usize = 2 * PER_DISK * MAX_DISKS;

const CLASS_SHIFT: u32 = 60;
const DETAIL_SHIFT: u32 = 32;
const DETAIL_MASK: u64 = (1 << (CLASS_SHIFT - DETAIL_SHIFT)) - 1;

/// The owner of a completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompletionOwner {
    /// Page-in: slot = transfer.
    Transfer = 1,
    /// Page-out, cleaning and drain: slot = batch, detail = first entry and count.
    WriteOut = 2,
    /// A task's request, for a record, a claim or a dump's tables: slot = place in the table of
    /// requests, detail = disk.
    Task = 3,
}

/// The fields of a cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CookieFields {
    /// The owner.
    pub class: CompletionOwner,
    /// The owner's small number, 28 bits.
    pub detail: u32,
    /// The owner's slot.
    pub slot: u32,
}

impl CookieFields {
    /// Packs the tag.
    ///
    /// # Panics
    /// If the detail has more than 28 bits (our bug).
    pub fn cookie(self) -> Cookie {
        let detail = u64::from(self.detail);
        assert!(detail <= DETAIL_MASK, "a cookie's detail has 28 bits");
        Cookie((self.class as u64) << CLASS_SHIFT | detail << DETAIL_SHIFT | u64::from(self.slot))
    }

    /// Unpacks a cookie, or `None` if its class is unknown.
    pub fn of(cookie: Cookie) -> Option<Self> {
        let class = match cookie.0 >> CLASS_SHIFT {
            1 => CompletionOwner::Transfer,
            2 => CompletionOwner::WriteOut,
            3 => CompletionOwner::Task,
            _ => return None,
        };
        Some(Self {
            class,
            detail: (cookie.0 >> DETAIL_SHIFT & DETAIL_MASK) as u32,
            slot: cookie.0 as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_the_round_trip_at_their_extremes() {
        for class in [CompletionOwner::Transfer, CompletionOwner::WriteOut, CompletionOwner::Task] {
            let details = (0..28).map(|bit| 1 << bit).chain([0, DETAIL_MASK as u32]);
            for detail in details {
                for slot in (0..32).map(|bit| 1 << bit).chain([0, u32::MAX]) {
                    let tag = CookieFields { class, detail, slot };
                    assert_eq!(CookieFields::of(tag.cookie()), Some(tag));
                }
            }
        }
        let all = CookieFields {
            class: CompletionOwner::Task,
            detail: DETAIL_MASK as u32,
            slot: u32::MAX,
        };
        assert_eq!(all.cookie(), Cookie(0x3fff_ffff_ffff_ffff));
    }

    #[test]
    fn foreign_cookies_are_recognised_as_such() {
        for class in (0..16u64).filter(|class| !(1..=3).contains(class)) {
            for rest in [0, (1 << CLASS_SHIFT) - 1] {
                assert_eq!(CookieFields::of(Cookie(class << CLASS_SHIFT | rest)), None);
            }
        }
    }

    #[test]
    #[should_panic(expected = "28 bits")]
    fn a_detail_beyond_28_bits_is_our_bug() {
        let _ = CookieFields { class: CompletionOwner::Task, detail: 1 << 28, slot: 0 }.cookie();
    }
}
