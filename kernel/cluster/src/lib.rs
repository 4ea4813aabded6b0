//! The rules by which Tidepool's nodes share disks: who is a member, who is alive, who owns what.
//!
//! The crate computes; it does no I/O, reads no clock and allocates nothing. The kernel and a
//! simulation (`sim`, in the tests) drive the same rules. `docs/cluster.md` has the safety
//! argument.
//!
//! ```text
//!   node ──> join, watch, proposal, duty ──> state, inherit ──> beat, block, decree ──> sector, layout
//!     └────> round                                              superblock ──> timing
//! ```
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[macro_use]
mod mutant;

pub mod beat;
pub mod block;
#[cfg(test)]
mod codec_tests;
pub mod crc;
pub mod decree;
pub mod id;
pub mod layout;
pub mod sector;
pub mod state;
mod state_codec;
pub mod superblock;
pub mod timing;
