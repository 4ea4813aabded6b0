//! Memory: frames, second-level tables, the flush protocol, copies from and to guests.
//!
//! ```text
//!   object ── page ──> leaf (in a table)      where a page is; every transition by name
//!     │         └────> frames                 the owner of a frame; pins, checksums, the free list
//!     ├── table ─────> TableReserve           paths to leaves; table pages
//!     └── flush ─────> QuiescentStates        when a frame that left its leaf may be used again
//!   guest_bytes ──> page, phys                copies, under the read section of `flush`
//!   resident ─────> table, phys               copies of resident pages only
//! ```
//!
//! Mechanism only. The pager (`paging`) decides which page leaves, when, and what to read and
//! write. The pool (`pool`) decides how much a partition may hold.

pub mod base;
pub mod crc;
#[cfg(not(target_os = "none"))]
pub mod fake;
pub mod flush;
pub mod frames;
pub mod guest;
pub mod guest_bytes;
pub mod layout;
pub mod leaf;
pub mod object;
pub mod object_id;
pub mod page;
pub mod phys;
pub mod resident;
pub mod table;
#[cfg(test)]
mod test_bed;
#[cfg(target_os = "none")]
pub mod zeros;
