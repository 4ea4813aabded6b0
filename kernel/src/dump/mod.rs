//! Crash dumps: the paging space of a crashed incarnation becomes an ELF64 core without copying.
//!
//! ```text
//!  crash ──> image (O(1)) ──> drain ──────────────> seal ──────> COMPLETE ──> release
//!              │               │ pages reach their    │ notes, program
//!              │               │ blocks, frames come  │ headers, record
//!              └── restart gate <── freed             │
//!                                                     └ power cut before: PARTIAL, described by bitmap and progress
//! ```
//!
//! [`elf`], [`notes`], [`history_note`], [`selected`] and [`vmcoreinfo`] are pure formats, shared
//! with the host command. The requirements of real tools were measured (`docs/on-disk-format.md`):
//! program headers at 64, the note segment first, `p_align` 0.

pub mod bound;
pub mod describe;
pub mod elf;
pub mod history_note;
pub mod hot_list;
pub mod kernel_note;
pub mod notes;
pub mod selected;
pub mod state_note;
pub mod table_sums;
pub mod vmcoreinfo;
pub mod window;
