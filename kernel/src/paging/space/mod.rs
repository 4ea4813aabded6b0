//! Paging spaces: the room on a disk that holds one incarnation's pages, and becomes its dump.
//!
//! A space is direct-mapped: RAM page `n` has block `data_start + n`. Nothing else is needed to find a page, and
//! the blocks in their order *are* the body of an ELF core; only its header is written when the owner crashes.
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
//! | module | what |
//! |---|---|
//! | [`area`] | where on its disk a space lies: the whole, or a GPT partition |
//! | [`layout`] | where each part lies, from the capacity and the number of pages |
//! | [`state`] | the states and the one table of legal transitions |
//! | [`record`], [`raw`] | the record as a typed value, and its 4,096 bytes; `codec` goes from one to the other and judges |
//! | [`crash`], [`missing`] | the crash that a dump is of, and the pages that it lacks |
//! | [`copies`] | copies A and B: the newest valid one, and where the next goes |
//! | [`claim`] | which node runs on a space now |
//! | [`taking`], [`holding`] | how a start takes a space, and what its owner does with what it reads |
//! | [`succession`] | late writes of an earlier owner, beside claims, records and blocks |
//! | [`mod@classify`], [`places`] | what a device holds, from the bytes at both ends, and where else foreign data may lie |
//! | [`content`] | which pages of a dump are final, from bitmap and drain progress |
//! | [`selector`] | which dump a command means |
//! | [`recovery`] | what to do with each space that a start finds |
//!
//! All of it is pure and shared with the host command; who reads and writes the bytes is `node::spaces` there and a file here.
//! `docs/on-disk-format.md` describes every byte.

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

pub use area::Area;
pub use classify::{Class, Damage, Foreign, classify};
pub use copies::Side;
pub use crash::{Crash, CrashReason, CrashText, PartialCause};
pub use layout::{Layout, LayoutError};
pub use missing::{MissingPages, MissingRange};
pub use record::{Drain, Owner, Record, RecordError, RecordFormat, Residue};
pub use selector::DumpSelector;
pub use state::SpaceState;
pub use uuid::Uuid;
