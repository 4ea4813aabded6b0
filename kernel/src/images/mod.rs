//! The image store: kernels, initrds and definitions of partitions on a disk that nodes share, so
//! that each of them can start a partition that another one defined.
//!
//! ```text
//!   superblock A B │ directory A │ directory B │ definition slots, A and B each │ data, 64 KiB chunks
//!   a format only    the host command            nodes and the host command       the host command
//! ```
//!
//! * A change writes the older of two copies, flushes, and then writes the other one. So a torn
//!   write leaves the state before it, and later one damaged copy costs nothing.
//! * Images are named by the SHA-256 of their content and never change. Every chunk has a checksum
//!   that is bound to the image, so a chunk that was freed and used anew is never taken for it.
//! * Nodes write definition slots only, the host command writes everything else; so neither
//!   overwrites what the other announced.
//!
//! `docs/on-disk-format.md` has the tables; [`change`] and [`define`] have the rules of several
//! writers. Nothing here does I/O by itself: [`device`] is the trait that a task or the host
//! command implements.
//!
//! | module | contents |
//! |---|---|
//! | [`layout`] | places and limits |
//! | [`superblock`] | the superblock |
//! | [`entry`], [`directory`] | images, and the directory in two copies |
//! | [`extents`] | free chunks |
//! | [`sums`] | checksums of an image's chunks |
//! | [`slot`] | definitions |
//! | [`error`] | errors, with their places |
//! | [`device`] | reads, writes, flushes |
//! | [`open`] | opening a store |
//! | [`find`] | looking through the definitions |
//! | [`content`] | reading an image, with verification |
//! | [`mod@write`] | writing a new image's chunks |
//! | [`change`] | the host command's changes of the directory |
//! | [`define`] | defining and undefining a partition |

pub mod change;
pub mod content;
pub mod define;
pub mod device;
pub mod digest;
pub mod directory;
pub mod entry;
pub mod error;
pub mod extents;
#[cfg(test)]
mod fake;
#[cfg(test)]
pub mod fake_store;
pub mod find;
pub mod layout;
pub mod open;
mod raw;
mod side;
pub mod slot;
pub mod sums;
pub mod superblock;
#[cfg(test)]
mod tests;
mod units;
pub mod write;

pub use device::{StoreRead, StoreWrite};
pub use directory::StoreDirectory;
pub use entry::{ImageDigest, ImageExtent, ImageKind, ImageState, StoredImage};
pub use error::{StoreContentError, StoreError, StoreFault, StorePlace, StoreRefusedError};
pub use layout::{StoreLayout, StoreSide};
pub use open::OpenStore;
pub use slot::{DefinitionSlot, SlotState, StoredDefinition};
pub use superblock::StoreSuperblock;
