//! Paging spaces: the room on a disk that holds one incarnation's pages, and becomes its dump.
//!
//! A space is direct-mapped: RAM page `n` has block `data_start + n`. No other lookup is needed to
//! find a page, and the blocks in their order *are* the body of an ELF core. Only its header is
//! written when the owner crashes.
//!
//! ```text
//!  0            ELF header, program headers            28 bytes a page, at least 64 KiB
//!               notes
//!               bitmap: one bit a page                 "the block holds the final content"
//!               checksums: CRC32C of each block        4 bytes a page
//!  data_start   blocks                                 aligned to 1 MiB
//!  end - 12 KiB two claims                            a sector each, renewed while a node runs on the space
//!  end - 8 KiB  record A, record B                     4 KiB each, written in turn
//! ```
//!
//! | module | content |
//! |---|---|
//! | [`area`] | the area of a space on its disk: the whole disk, or a GPT partition |
//! | [`layout`] | the position of each part, from the capacity and the number of pages |
//! | [`state`] | the states and the one table of legal transitions |
//! | [`record`], [`raw`] | the record as a typed value and as 4,096 bytes; `codec` converts |
//! | [`crash`], [`missing`] | the crash that a dump belongs to, and the pages that the dump lacks |
//! | [`copies`] | copies A and B: the newest valid one, and the position of the next |
//! | [`claim`] | the node that uses a space now |
//! | [`taking`], [`holding`] | how a start takes a space, and how its owner keeps it |
//! | [`succession`] | late writes of an earlier owner, besides claims, records and blocks |
//! | [`mod@classify`], [`places`] | a device's content by its ends; other places to check |
//! | [`content`] | which pages of a dump are final, from bitmap and drain progress |
//! | [`selector`] | how a command selects a dump |
//! | [`recovery`] | what a start does with each space that it finds |
//!
//! All of it is pure and shared with the host command. The bytes are read and written by
//! `storage::spaces` in the kernel, and in a file by the host command. `docs/on-disk-format.md`
//! describes every byte.

pub mod area;
pub mod claim;
#[cfg(test)]
mod claim_sim;
pub mod classify;
mod codec;
pub mod content;
pub mod copies;
pub mod crash;
pub mod holding;
pub mod layout;
pub mod missing;
pub mod places;
pub mod raw;
pub mod record;
pub mod recovery;
pub mod reserve;
pub mod selector;
pub mod state;
pub mod succession;
pub mod taking;
pub mod uuid;

pub use area::SpaceArea;
pub use classify::{ClosedSpace, DeviceContent, ForeignData, RecordDamage, classify};
pub use copies::RecordSide;
pub use crash::{CrashReason, CrashText, PartialCause, RecordedCrash};
pub use layout::{LayoutError, SpaceLayout};
pub use missing::{MissingPages, MissingRange};
pub use record::{
    DrainRecord, OwnPages, RecordError, RecordFormat, Residue, SpaceBase, SpaceOwner, SpaceRecord,
    SuspensionSeal,
};
pub use selector::DumpSelector;
pub use state::SpaceState;
pub use uuid::Uuid;
